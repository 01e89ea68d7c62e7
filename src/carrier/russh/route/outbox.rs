//! A stream that takes what is written at once.
//!
//! russh's session loop writes and reads by turns: while a write waits it reads nothing. Over TCP the kernel carries the
//! acknowledgements meanwhile. Over a channel of another SSH connection they are messages in the same stream as the
//! data: a session that waits for the window of its channel, and does not read, stops the connection below from
//! reading that very window's message, and both stand still for good. A program in between may do the same with its
//! pipes. So a write never waits here. What waits is bounded at its source: flows hold back while [`Gate`] is closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep};

/// Bytes waiting from which flows hold back, and up to which they go on again.
const HIGH: usize = 512 << 10;
const LOW: usize = 128 << 10;
/// Bytes waiting at most. Beyond the gate come only messages under way, and a jump host's own flow control keeps what
/// goes through it to its window, 2 MiB (channels.h CHAN_TCP_WINDOW_DEFAULT).
const MAX: usize = 64 << 20;
/// How long a goodbye may wait.
const GOODBYE: Duration = Duration::from_millis(500);

/// Whether flows may write to a connection.
#[derive(Debug, Default)]
pub(in super::super) struct Gate {
    closed: AtomicBool,
    opened: Notify,
}

impl Gate {
    /// Resolves while the gate is open.
    pub(in super::super) async fn pass(&self) {
        loop {
            // Made before the look: it hears what rings from here on.
            let opened = self.opened.notified();
            if self.is_open() {
                return;
            }
            opened.await;
        }
    }

    /// Whether [`pass`](Self::pass) would not wait.
    pub(in super::super) fn is_open(&self) -> bool {
        !self.closed.load(Relaxed)
    }

    fn set(&self, waiting: usize) {
        if waiting > HIGH {
            self.closed.store(true, Relaxed);
        } else if waiting <= LOW && self.closed.swap(false, Relaxed) {
            self.opened.notify_waiters();
        }
    }
}

/// A stream, and what waits to be written to it. Reading writes, too.
pub(super) struct Outbox<S> {
    inner: S,
    waiting: BytesMut,
    gate: Arc<Gate>,
    goodbye: Option<Pin<Box<Sleep>>>,
}

impl<S> Outbox<S> {
    pub(super) fn new(inner: S, gate: Arc<Gate>) -> Self {
        Self {
            inner,
            waiting: BytesMut::new(),
            gate,
            goodbye: None,
        }
    }
}

impl<S: AsyncWrite + Unpin> Outbox<S> {
    /// Writes what the stream takes.
    fn drain(&mut self, cx: &mut Context<'_>) {
        while !self.waiting.is_empty() {
            match Pin::new(&mut self.inner).poll_write(cx, &self.waiting) {
                Poll::Ready(Ok(bytes)) if bytes > 0 => self.waiting.advance(bytes),
                // Reading tells why.
                Poll::Ready(_) => self.waiting.clear(),
                Poll::Pending => break,
            }
        }
        if self.waiting.is_empty() && self.waiting.capacity() > HIGH {
            self.waiting = BytesMut::new();
        }
        self.gate.set(self.waiting.len());
    }
}

impl<S> Drop for Outbox<S> {
    fn drop(&mut self) {
        self.gate.set(0);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Outbox<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.drain(cx);
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Outbox<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.waiting.len() >= MAX {
            self.drain(cx);
            if self.waiting.len() >= MAX {
                return Poll::Pending;
            }
        }
        self.waiting.extend_from_slice(buf);
        self.drain(cx);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.drain(cx);
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.drain(cx);
        let goodbye = self.goodbye.get_or_insert_with(|| Box::pin(sleep(GOODBYE)));
        let is_late = goodbye.as_mut().poll(cx).is_ready();
        if !self.waiting.is_empty() && !is_late {
            return Poll::Pending;
        }
        if is_late {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(ready!(Pin::new(&mut self.inner).poll_shutdown(cx)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn a_write_never_waits_and_the_gate_closes() {
        let (near, mut far) = duplex(1024);
        let gate = Arc::new(Gate::default());
        let mut outbox = Outbox::new(near, Arc::clone(&gate));
        let sent: Vec<u8> = (0..2 * HIGH).map(|i| i as u8).collect();
        outbox.write_all(&sent).await.unwrap();
        assert!(!gate.is_open());
        far.write_all(b"here").await.unwrap();
        let mut here = [0; 4];
        outbox.read_exact(&mut here).await.unwrap();
        // Reading goes on writing.
        let reader = tokio::spawn(async move {
            let mut rest = Vec::new();
            outbox.read_to_end(&mut rest).await.unwrap();
            outbox
        });
        let mut got = vec![0; sent.len()];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(got, sent);
        gate.pass().await;
        drop(far);
        reader.await.unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_told_by_reading() {
        let (near, far) = duplex(16);
        drop(far);
        let mut outbox = Outbox::new(near, Arc::default());
        outbox.write_all(&[0; 100]).await.unwrap();
        assert_eq!(outbox.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_goodbye_that_nobody_takes_ends() {
        let (near, _far) = duplex(16);
        let mut outbox = Outbox::new(near, Arc::default());
        outbox.write_all(&[0; 100]).await.unwrap();
        outbox.shutdown().await.unwrap();
    }
}
