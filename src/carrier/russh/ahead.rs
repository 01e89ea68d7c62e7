//! What is read while a write waits.
//!
//! russh's session writes and reads by turns: while a write waits it reads nothing. A server that does so as well, as those over
//! russh do, may wait with a batch of its own until we read, and both would wait for good when neither kernel takes the rest. So a
//! write that has waited for long has what comes read into memory, until the server gets to reading. Over a channel or a
//! program it is the other way round, see [`route`](super::route): what is written waits there.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// A write waits for so long before anything is read.
const PATIENCE: Duration = Duration::from_millis(250);
/// Bytes that are read so at most: a server's batch, and more.
const MAX: usize = 16 << 20;
/// What is read at a time, in bytes.
const PIECE: usize = 16 << 10;

/// What was read ahead of whoever reads.
#[derive(Default)]
pub(super) struct Ahead {
    bytes: BytesMut,
    /// Comes behind them.
    error: Option<io::Error>,
    /// Since when a write waits.
    since: Option<Instant>,
    /// Of this wait or an earlier one: to set it anew each time would cost every wait of an upload.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Ahead {
    /// A write was taken.
    pub(super) fn has_written(&mut self) {
        self.since = None;
    }

    /// A write waits. Reads from `stream` when it has done so for long.
    pub(super) fn waits(&mut self, cx: &mut Context<'_>, stream: &mut (impl AsyncRead + Unpin)) {
        if self.poll_end(cx).is_ready() {
            self.read_from(cx, stream);
        }
    }

    /// Resolves when the write has waited for long.
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

    fn read_from(&mut self, cx: &mut Context<'_>, stream: &mut (impl AsyncRead + Unpin)) {
        let mut piece = [0; PIECE];
        while self.bytes.len() < MAX && self.error.is_none() {
            let mut read = ReadBuf::new(&mut piece);
            match Pin::new(&mut *stream).poll_read(cx, &mut read) {
                // An end is there again for whoever reads.
                Poll::Ready(Ok(())) if read.filled().is_empty() => return,
                Poll::Ready(Ok(())) => self.bytes.extend_from_slice(read.filled()),
                Poll::Ready(Err(error)) => self.error = Some(error),
                Poll::Pending => return,
            }
        }
    }

    /// What was read ahead, into `buf`; `None` where there is nothing.
    pub(super) fn take(&mut self, buf: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        if self.bytes.is_empty() {
            return self.error.take().map(Err);
        }
        let length = self.bytes.len().min(buf.remaining());
        buf.put_slice(&self.bytes[..length]);
        self.bytes.advance(length);
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
        Some(Ok(()))
    }
}
