//! The stream under an SSH connection, whatever it runs over.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::greeting::VERSION_LINE;
use super::super::tcp::SshTcp;
use super::outbox::Outbox;

/// Bytes both ways.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// The stream to a server.
pub(in super::super) struct SshStream {
    inner: Inner,
    /// What is read again before anything else.
    heard: Bytes,
    /// What is written again, and was said already.
    said: &'static [u8],
}

enum Inner {
    Tcp(SshTcp),
    Proxied(Outbox<Box<dyn Duplex>>),
}

impl SshStream {
    /// Over a TCP connection of ours.
    pub(in super::super) fn tcp(stream: SshTcp) -> Self {
        Self::new(Inner::Tcp(stream))
    }

    /// Over a channel or a program.
    pub(super) fn proxied(stream: Outbox<Box<dyn Duplex>>) -> Self {
        Self::new(Inner::Proxied(stream))
    }

    fn new(inner: Inner) -> Self {
        Self {
            inner,
            heard: Bytes::new(),
            said: &[],
        }
    }

    /// After the exchange of versions: who reads gets `heard` once more, and our version, written once more, is not sent.
    pub(in super::super) fn greeted(&mut self, heard: Bytes) {
        self.heard = heard;
        self.said = VERSION_LINE.as_bytes();
    }
}

impl AsyncRead for SshStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.heard.is_empty() {
            let bytes = self.heard.len().min(buf.remaining());
            buf.put_slice(&self.heard.split_to(bytes));
            return Poll::Ready(Ok(()));
        }
        match &mut self.inner {
            Inner::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Inner::Proxied(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.said.is_empty() {
            let bytes = self.said.len().min(buf.len());
            if buf[..bytes] != self.said[..bytes] {
                let error = "russh does not say the version that it was given";
                return Poll::Ready(Err(io::Error::other(error)));
            }
            self.said.advance(bytes);
            return Poll::Ready(Ok(bytes));
        }
        match &mut self.inner {
            Inner::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Inner::Proxied(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Inner::Proxied(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// russh tells why a session ended only where this succeeds (client/mod.rs `run`), and a stream that is broken is
    /// shut down.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = match &mut self.inner {
            Inner::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Inner::Proxied(stream) => Pin::new(stream).poll_shutdown(cx),
        };
        shut.map(|_| Ok(()))
    }
}
