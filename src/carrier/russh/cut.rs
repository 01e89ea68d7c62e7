//! A stream to a server that may be gone: it can be cut from outside, and ends when nothing is taken off our hands.
//!
//! russh waits for a write to end before it does anything else, its keepalive included. To a server that has vanished
//! under an upload it would wait for as long as TCP repeats itself (tcp(7), tcp_retries2: 15 minutes and more).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Cuts a [`Cuttable`], and knows whether anything is heard on it.
#[derive(Debug, Default)]
pub(super) struct Cut {
    is_cut: AtomicBool,
    reads: AtomicU64,
    /// How many of them russh has made something of.
    explained: AtomicU64,
    writes: AtomicU64,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Cut {
    /// Both directions fail from here on.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, SeqCst);
        self.reader.wake();
        self.writer.wake();
    }

    /// A number that grows whenever the server is heard.
    pub(super) fn heard(&self) -> u64 {
        self.reads.load(Relaxed)
    }

    /// A number that grows whenever something is sent.
    pub(super) fn sent(&self) -> u64 {
        self.writes.load(Relaxed)
    }

    /// What was heard so far is known for what it is.
    pub(super) fn explain(&self) {
        self.explained.store(self.heard(), Relaxed);
    }

    /// Resolves when the server has said something that nobody has explained, and then nothing for as long as `quiet`.
    pub(super) async fn until_unexplained(&self, quiet: Duration) {
        loop {
            let before = self.heard();
            tokio::time::sleep(quiet).await;
            if self.heard() == before && before != self.explained.load(Relaxed) {
                return;
            }
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.is_cut.load(SeqCst) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    /// Has `waker` woken by a cut; fails when that came before.
    fn watch(&self, waker: &AtomicWaker, cx: &Context<'_>) -> io::Result<()> {
        waker.register(cx.waker());
        self.check()
    }
}

/// See the module.
pub(super) struct Cuttable<S> {
    stream: S,
    cut: Arc<Cut>,
    /// How long a write may wait.
    patience: Duration,
    /// A write waits, until `timer` at the most.
    is_stuck: bool,
    /// Kept from one wait to the next: to set it later takes no lock, and under an upload every other write waits.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Cuttable<S> {
    pub(super) fn new(stream: S, cut: Arc<Cut>, patience: Duration) -> Self {
        Self {
            stream,
            cut,
            patience,
            is_stuck: false,
            timer: None,
        }
    }

    /// What a write that waits comes to.
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.cut.watch(&self.cut.writer, cx)?;
        let began = !std::mem::replace(&mut self.is_stuck, true);
        let until = || Instant::now() + self.patience;
        let timer = match &mut self.timer {
            None => self.timer.insert(Box::pin(sleep_until(until()))),
            Some(timer) => {
                if began {
                    timer.as_mut().reset(until());
                }
                timer
            }
        };
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn settle<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_pending() {
            return self.wait(cx);
        }
        self.is_stuck = false;
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cuttable<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.cut.check()?;
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() {
            self.cut.watch(&self.cut.reader, cx)?;
        } else {
            self.cut.reads.fetch_add(1, Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cuttable<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.cut.check()?;
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if written.is_ready() {
            self.cut.writes.fetch_add(1, Relaxed);
        }
        self.settle(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cut.check()?;
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.settle(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(15);

    #[tokio::test(start_paused = true)]
    async fn a_cut_ends_whoever_waits() {
        let (near, mut far) = duplex(4);
        let cut = Arc::new(Cut::default());
        let (mut reader, mut writer) =
            tokio::io::split(Cuttable::new(near, Arc::clone(&cut), PATIENCE));
        far.write_all(b"one").await.unwrap();
        let mut bytes = [0; 3];
        reader.read_exact(&mut bytes).await.unwrap();
        assert!(cut.heard() > 0);
        let reading = tokio::spawn(async move { reader.read(&mut [0]).await });
        let writing = tokio::spawn(async move { writer.write_all(b"too much").await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        cut.cut();
        let read = reading.await.unwrap().unwrap_err();
        let written = writing.await.unwrap().unwrap_err();
        assert_eq!(read.kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(written.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_has_explained_is_noticed_when_nothing_follows() {
        let (near, mut far) = duplex(4);
        let cut = Arc::new(Cut::default());
        let mut stream = Cuttable::new(near, Arc::clone(&cut), PATIENCE);
        let second = Duration::from_secs(1);
        let mut hear = async |pause: Duration| {
            tokio::time::sleep(pause).await;
            far.write_all(b"x").await.unwrap();
            stream.read_exact(&mut [0]).await.unwrap();
        };
        hear(Duration::ZERO).await;
        cut.explain();
        let long = tokio::time::timeout(10 * second, cut.until_unexplained(second));
        assert!(long.await.is_err());
        let talks = async {
            for _ in 0..10 {
                hear(second / 2).await;
            }
            pending::<()>().await;
        };
        let began = tokio::time::Instant::now();
        tokio::select! {
            () = cut.until_unexplained(second) => {}
            () = talks => {}
        }
        let after = began.elapsed() - 5 * second;
        assert!(second <= after && after <= 2 * second, "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_takes_fails() {
        let (near, _far) = duplex(4);
        let mut stream = Cuttable::new(near, Arc::default(), PATIENCE);
        let began = tokio::time::Instant::now();
        let error = stream.write_all(b"too much").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_patience() {
        let (near, mut far) = duplex(4);
        let mut stream = Cuttable::new(near, Arc::default(), PATIENCE);
        let took = async {
            for _ in 0..4 {
                tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
                far.read_exact(&mut [0; 4]).await.unwrap();
            }
            far
        };
        let (written, _far) = tokio::join!(stream.write_all(&[0; 20]), took);
        written.unwrap();
    }
}
