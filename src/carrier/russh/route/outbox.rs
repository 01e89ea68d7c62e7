//! A stream that takes what is written, at once or before long.
//!
//! russh's session loop writes and reads by turns: while a write waits it reads nothing. Over TCP the kernel carries the
//! acknowledgements meanwhile. Over a channel of another SSH connection they are messages in the same stream as the
//! data: a session that waits for the window of its channel, and does not read, stops the connection below from
//! reading that very window's message, and both stand still for good. A program in between may do the same with its
//! pipes. So a write never waits here. Over TCP one waits for a moment, as it often does; but a server that writes and reads by
//! turns as well, as those over russh do, may wait for us to read. What waits is bounded at its source: flows hold back while
//! [`Gate`] is closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Bytes waiting from which flows hold back, and up to which they go on again.
const HIGH: usize = 512 << 10;
const LOW: usize = 128 << 10;
/// Bytes waiting at most. Beyond the gate come only messages under way, and a jump host's own flow control keeps what
/// goes through it to its window, 2 MiB (channels.h CHAN_TCP_WINDOW_DEFAULT).
const MAX: usize = 64 << 20;
/// How long TCP may take nothing.
const PATIENCE: Duration = Duration::from_millis(250);
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
    stall: Option<Stall>,
}

/// How long the stream may hold a write up.
#[derive(Default)]
struct Stall {
    /// Since when it does.
    since: Option<Instant>,
    /// Of this stall or an earlier one: to set it anew each time would cost every stall of an upload.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Outbox<S> {
    /// Over which nothing comes while a write waits.
    pub(super) fn new(inner: S, gate: Arc<Gate>) -> Self {
        Self {
            inner,
            waiting: BytesMut::new(),
            gate,
            goodbye: None,
            stall: None,
        }
    }

    /// Over TCP.
    pub(super) fn patient(inner: S, gate: Arc<Gate>) -> Self {
        let mut outbox = Self::new(inner, gate);
        outbox.stall = Some(Stall::default());
        outbox
    }
}

impl Stall {
    /// Resolves when the stream has taken nothing for too long.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = *self.since.get_or_insert_with(Instant::now) + PATIENCE;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if until <= timer.deadline() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
    }
}

impl<S: AsyncWrite + Unpin> Outbox<S> {
    /// Writes what the stream takes.
    fn drain(&mut self, cx: &mut Context<'_>) {
        if self.waiting.is_empty() {
            return;
        }
        while !self.waiting.is_empty() {
            match Pin::new(&mut self.inner).poll_write(cx, &self.waiting) {
                Poll::Ready(Ok(bytes)) if bytes > 0 => self.waiting.advance(bytes),
                // Reading tells why.
                Poll::Ready(_) => self.waiting.clear(),
                Poll::Pending => break,
            }
        }
        if self.waiting.is_empty() {
            self.has_written();
        }
        self.gate.set(self.waiting.len());
    }

    /// Nothing waits any more.
    fn has_written(&mut self) {
        if self.waiting.capacity() > HIGH {
            self.waiting = BytesMut::new();
        }
        if let Some(stall) = &mut self.stall {
            stall.since = None;
        }
    }

    /// Writes to the stream itself, for as long as it does not hold that up for too long.
    fn poll_patiently(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Option<Poll<io::Result<usize>>> {
        let stall = self.stall.as_mut().filter(|_| self.waiting.is_empty())?;
        match Pin::new(&mut self.inner).poll_write(cx, buf) {
            Poll::Ready(written) => {
                stall.since = None;
                Some(Poll::Ready(written))
            }
            Poll::Pending if stall.poll_end(cx).is_pending() => Some(Poll::Pending),
            Poll::Pending => None,
        }
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
        if let Some(written) = self.poll_patiently(cx, buf) {
            return written;
        }
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

    /// As a server that writes and reads by turns as well.
    #[tokio::test(start_paused = true)]
    async fn over_tcp_a_write_waits_for_a_moment_and_what_comes_can_be_read_then() {
        let (near, mut far) = duplex(1024);
        let gate = Arc::new(Gate::default());
        let mut outbox = Outbox::patient(near, Arc::clone(&gate));
        far.write_all(b"here").await.unwrap();
        for round in 0..2 {
            let began = Instant::now();
            let sent = vec![round; 2 * HIGH];
            outbox.write_all(&sent).await.unwrap();
            let waited = began.elapsed();
            assert!(waited >= PATIENCE && waited < 2 * PATIENCE, "{waited:?}");
            assert!(!gate.is_open());
            let mut here = [0; 4];
            outbox.read_exact(&mut here).await.unwrap();
            let mut got = vec![0; sent.len()];
            let (mut reader, _writer) = tokio::io::split(&mut outbox);
            let mut none = [0; 1];
            tokio::select! {
                _ = reader.read(&mut none) => panic!("nothing was sent"),
                taken = far.read_exact(&mut got) => drop(taken.unwrap()),
            }
            assert!(got == sent && gate.is_open(), "{round}");
            far.write_all(b"here").await.unwrap();
        }
        // A stream that takes what is written is not waited for.
        let began = Instant::now();
        outbox.write_all(&[0; 512]).await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
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
