//! ProxyJump: a channel of the connection to a jump host.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use russh::ChannelStream;
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::load::Load;
use super::WayEnd;

/// A channel to the next host. Its end is an error that says whose end it is.
pub(super) struct HopStream {
    channel: ChannelStream<Msg>,
    /// That of the connection to the jump host.
    load: Arc<Load>,
    /// The jump host as typed.
    hop: String,
}

impl HopStream {
    pub(super) fn new(channel: ChannelStream<Msg>, load: Arc<Load>, hop: String) -> Self {
        Self { channel, load, hop }
    }

    fn end(&self) -> io::Error {
        let hop = &self.hop;
        WayEnd(match self.load.lost() {
            Some(reason) => format!("lost the jump host {hop}: {reason}"),
            None => format!("the host behind the jump host {hop} closed the connection"),
        })
        .into()
    }
}

impl AsyncRead for HopStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.channel).poll_read(cx, buf));
        if read.is_ok() && buf.filled().len() == before {
            return Poll::Ready(Err(self.end()));
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for HopStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.channel).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.channel).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.channel).poll_shutdown(cx)
    }
}
