//! Ends a session whose login leads nowhere.
//!
//! russh runs a session in a task of its own from the first packet on, and that task ends with the handle: while there is
//! none yet, nothing but the server ends it. Nor does russh ask a server for signs of life before the login is done. A
//! server that is silent, or sends without end, would keep the task, its socket and who logs in for as long as it
//! likes. So the stream under the session breaks when its [`Leash`] is dropped before [`release`](Leash::release), when the
//! server owes an answer for too long, and when it has sent more than any login takes. A person's time does not
//! count: while somebody is asked, it is our turn.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

use crate::carrier::error::ConnectError;

/// How long a server may take for an answer: longer than sshd lets a login take (LoginGraceTime, 120 s), since it may
/// wait for a person's second factor meanwhile.
const SILENCE: Duration = Duration::from_secs(150);
/// What a login may take, in bytes: keys, algorithms, banners and questions are some 10 KB.
const LOGIN_BYTES: usize = 1 << 20;

/// Puts `stream` on a leash.
pub(super) fn leashed<S>(stream: S) -> (Leash, Leashed<S>) {
    let (end, held) = oneshot::channel();
    let why = Arc::default();
    let held = Some(Held {
        end: held,
        taken: 0,
        silence: SILENCE,
        answer: None,
        why: Arc::clone(&why),
    });
    (Leash { end, why }, Leashed { stream, held })
}

/// Held by whoever logs in.
pub(super) struct Leash {
    end: oneshot::Sender<()>,
    why: Arc<OnceLock<&'static str>>,
}

impl Leash {
    /// The login is done: the handle ends the session from now on.
    pub(super) fn release(self) {
        // An error means that the session is over.
        let _ = self.end.send(());
    }

    /// `error`, with the reason where it was the leash that ended the connection.
    pub(super) fn explain(&self, error: ConnectError) -> ConnectError {
        match (error, self.why.get()) {
            (ConnectError::Ended { host, .. }, Some(why)) => ConnectError::Ended {
                host,
                detail: format!("during the login: {why}"),
            },
            (error, _) => error,
        }
    }
}

/// A stream that reads an error once its leash says so.
pub(super) struct Leashed<S> {
    stream: S,
    /// `None` after the release.
    held: Option<Held>,
}

struct Held {
    end: oneshot::Receiver<()>,
    /// Bytes read so far.
    taken: usize,
    silence: Duration,
    /// Until when the server owes an answer; `None` when it is our turn.
    answer: Option<Pin<Box<Sleep>>>,
    why: Arc<OnceLock<&'static str>>,
}

impl Held {
    /// Ready with `Ok` after the release, with an error where the leash ends the session.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match pin!(&mut self.end).poll(cx) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(_)) => return Poll::Ready(Err(self.broken("the login was given up"))),
            Poll::Pending => {}
        }
        if self.taken > LOGIN_BYTES {
            return Poll::Ready(Err(self.broken("it sends without end")));
        }
        match self.answer.as_mut().map(|answer| answer.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(self.broken("it does not answer"))),
            Some(Poll::Pending) | None => Poll::Pending,
        }
    }

    fn broken(&self, why: &'static str) -> io::Error {
        // The first reason stays.
        let _ = self.why.set(why);
        io::Error::new(io::ErrorKind::ConnectionAborted, why)
    }

    fn has_read(&mut self, bytes: usize) {
        self.answer = None;
        self.taken += bytes;
    }

    fn has_written(&mut self) {
        self.answer = Some(Box::pin(sleep(self.silence)));
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Leashed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.held.as_mut().map(|held| held.poll(cx)) {
            Some(Poll::Ready(Ok(()))) => self.held = None,
            Some(Poll::Ready(Err(error))) => return Poll::Ready(Err(error)),
            Some(Poll::Pending) | None => {}
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(held) = &mut self.held
            && read.is_ready()
        {
            held.has_read(buf.filled().len() - before);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Leashed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Some(held) = &mut self.held
            && written.is_ready()
        {
            // The session reads next, which sets the timer going.
            held.has_written();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    const SHORT: Duration = Duration::from_millis(50);

    fn pair() -> (DuplexStream, Leash, Leashed<DuplexStream>) {
        let (far, near) = duplex(1 << 16);
        let (leash, mut stream) = leashed(near);
        stream.held.as_mut().unwrap().silence = SHORT;
        (far, leash, stream)
    }

    #[tokio::test]
    async fn a_login_that_is_given_up_ends_the_session() {
        let (_far, leash, mut stream) = pair();
        let reading = tokio::spawn(async move { stream.read_u8().await });
        tokio::task::yield_now().await;
        drop(leash);
        let error = reading.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the login was given up");
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_ends_it() {
        let (_far, leash, mut stream) = pair();
        stream.write_all(b"question").await.unwrap();
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.to_string(), "it does not answer");
        let ended = ConnectError::Ended {
            host: "h".to_owned(),
            detail: "?".to_owned(),
        };
        assert!(
            leash
                .explain(ended)
                .to_string()
                .contains("it does not answer")
        );
    }

    #[tokio::test]
    async fn while_it_is_our_turn_no_time_runs() {
        let (mut far, _leash, mut stream) = pair();
        stream.write_all(b"question").await.unwrap();
        far.write_all(b"ab").await.unwrap();
        stream.read_u8().await.unwrap();
        sleep(2 * SHORT).await;
        stream.read_u8().await.unwrap();
    }

    #[tokio::test]
    async fn more_than_a_login_takes_ends_it() {
        let (mut far, _leash, mut stream) = pair();
        let flood = tokio::spawn(async move { while far.write_all(&[0; 4096]).await.is_ok() {} });
        let mut taken = Vec::new();
        let error = stream.read_to_end(&mut taken).await.unwrap_err();
        assert_eq!(error.to_string(), "it sends without end");
        assert!(taken.len() < 2 * LOGIN_BYTES);
        drop(stream);
        flood.await.unwrap();
    }

    #[tokio::test]
    async fn after_the_release_nothing_is_in_the_way() {
        let (mut far, leash, mut stream) = pair();
        stream.write_all(b"question").await.unwrap();
        leash.release();
        let answer = async {
            sleep(2 * SHORT).await;
            far.write_all(b"ab").await
        };
        let (read, answered) = tokio::join!(stream.read_u16(), answer);
        answered.unwrap();
        assert_eq!(read.unwrap(), 0x6162);
    }
}
