//! Which open does a refusal's text belong to?
//!
//! russh gives the text of a refused open to `Handler::channel_open_failure` with a channel id, and the
//! caller of the open an error without text and without id: it never learns the id of a channel that was
//! not confirmed. What joins the two is that one task runs the session, and that it calls the handler right after
//! it has told the opener (russh 0.65.1, client/encrypted.rs, `CHANNEL_OPEN_FAILURE`). So the handler holds
//! the session until the opener has taken the text: no other open can be refused meanwhile, and the one open that
//! has an error and no text is the one that the text belongs to. The opener is woken before the handler is called and
//! has nothing to wait for, so this takes about as long as a task switch.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel, Ordering::Acquire};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use russh::ChannelOpenFailure;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::carrier::failure::open_error;
use crate::net::{OpenError, OpenFailure};

/// How long the two wait for each other, in so many pieces: time in which the whole process was stopped or got no processor
/// ends one piece at most, so nobody gives up before the other had a turn. Only a server that refuses what it has confirmed
/// before, which no opener waits for, makes the session wait this long.
const MEETING: Duration = Duration::from_secs(5);
const PIECES: u32 = 10;

/// Where the handler of a connection and its openers meet.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// The text of the last refusal, until its opener has it.
    text: Mutex<Option<String>>,
    /// Opens in flight.
    opening: AtomicUsize,
    /// Rung when any of the two has changed.
    changed: Notify,
}

impl Refusals {
    /// Called by the handler: the server refused an open with this text. Returns when the opener has it, or when there is
    /// none.
    pub(super) async fn hand_over(&self, text: &str) {
        if self.opening.load(Acquire) == 0 {
            return;
        }
        self.put(Some(text.to_owned()));
        let taken = self.until(|| {
            let done = self.text().is_none() || self.opening.load(Acquire) == 0;
            done.then_some(())
        });
        if meet(taken).await.is_none() {
            // Nobody's: not to be found by the next one.
            self.put(None);
        }
    }

    /// Runs russh's `open` and gives its refusal the server's own text.
    ///
    /// # Errors
    /// What the server said; [`OpenFailure::ConnectionLost`] when the connection went away.
    pub(super) async fn with_text<T>(
        &self,
        open: impl Future<Output = Result<T, russh::Error>>,
    ) -> Result<T, OpenError> {
        let _opening = self.opening();
        match open.await {
            Ok(opened) => Ok(opened),
            Err(russh::Error::ChannelOpenFailure(reason)) => {
                let text = meet(self.until(|| self.text().take())).await;
                self.changed.notify_waiters();
                Err(open_error(code(&reason), &text.unwrap_or_default()))
            }
            Err(_) => Err(OpenError::new(OpenFailure::ConnectionLost, "")),
        }
    }

    /// Counts an open until the guard is dropped.
    fn opening(&self) -> Opening<'_> {
        self.opening.fetch_add(1, AcqRel);
        Opening(self)
    }

    fn put(&self, text: Option<String>) {
        *self.text() = text;
        self.changed.notify_waiters();
    }

    fn text(&self) -> MutexGuard<'_, Option<String>> {
        // What is inside is whole at every moment, whoever panicked.
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `look` finds something.
    async fn until<T>(&self, look: impl Fn() -> Option<T>) -> T {
        loop {
            // Made before the look: it hears what rings from here on.
            let rung = self.changed.notified();
            if let Some(found) = look() {
                return found;
            }
            rung.await;
        }
    }
}

/// Waits for the other side to come; `None` when it does not.
async fn meet<T>(other: impl Future<Output = T>) -> Option<T> {
    let mut other = pin!(other);
    for _ in 0..PIECES {
        if let Ok(met) = timeout(MEETING / PIECES, other.as_mut()).await {
            return Some(met);
        }
    }
    None
}

/// An open in flight.
struct Opening<'a>(&'a Refusals);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.opening.fetch_sub(1, AcqRel);
        self.0.changed.notify_waiters();
    }
}

/// The reason code that russh made `reason` of (RFC 4254 section 5.1).
fn code(reason: &ChannelOpenFailure) -> u32 {
    match reason {
        ChannelOpenFailure::AdministrativelyProhibited => 1,
        ChannelOpenFailure::ConnectFailed => 2,
        ChannelOpenFailure::UnknownChannelType => 3,
        ChannelOpenFailure::ResourceShortage => 4,
        ChannelOpenFailure::Other { code, .. } => *code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Instant;
    use tokio::sync::mpsc;

    type Queue = mpsc::Receiver<ChannelOpenFailure>;

    /// What russh's session does for a refused open.
    async fn refuse(refusals: &Refusals, to: mpsc::Sender<ChannelOpenFailure>, text: &str) {
        let _ = to.send(ChannelOpenFailure::ConnectFailed).await;
        refusals.hand_over(text).await;
    }

    fn open(
        refusals: &Arc<Refusals>,
        mut queue: Queue,
    ) -> tokio::task::JoinHandle<Result<(), OpenError>> {
        let refusals = Arc::clone(refusals);
        tokio::spawn(async move {
            let answer = async {
                match queue.recv().await {
                    Some(reason) => Err(russh::Error::ChannelOpenFailure(reason)),
                    None => Err(russh::Error::Disconnect),
                }
            };
            refusals.with_text(answer).await
        })
    }

    /// Also of an open that has not looked into its queue yet, and with confirmed and lost ones between.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn concurrent_refusals_get_each_its_own_text() {
        let refusals = Arc::new(Refusals::default());
        let (mut opens, mut queues) = (Vec::new(), Vec::new());
        for _ in 0..10_000 {
            let (to, queue) = mpsc::channel(1);
            opens.push(open(&refusals, queue));
            queues.push(to);
        }
        let session = tokio::spawn(async move {
            for (i, to) in queues.into_iter().enumerate().rev() {
                if i % 5 > 0 {
                    refuse(&refusals, to, &format!("text {i}")).await;
                }
            }
        });
        for (i, open) in opens.into_iter().enumerate() {
            let error = open.await.unwrap().unwrap_err();
            let text = if i % 5 > 0 {
                format!("text {i}")
            } else {
                String::new()
            };
            assert_eq!(error.text, text);
        }
        session.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_text_the_reason_stays() {
        let (to, queue) = mpsc::channel(1);
        to.send(ChannelOpenFailure::ResourceShortage).await.unwrap();
        let error = open(&Arc::default(), queue).await.unwrap().unwrap_err();
        assert_eq!(error, OpenError::new(OpenFailure::NoResources, ""));
    }

    /// The clock leaps as it does for a process that was stopped, before the opener gets its turn.
    #[tokio::test(start_paused = true)]
    async fn a_stopped_process_loses_no_text() {
        let refusals = Arc::new(Refusals::default());
        let _opening = refusals.opening();
        let mut handing = pin!(refusals.hand_over("its own"));
        assert!(futures_util::poll!(handing.as_mut()).is_pending());
        tokio::time::advance(2 * MEETING).await;
        assert!(futures_util::poll!(handing.as_mut()).is_pending());
        let (to, queue) = mpsc::channel(1);
        to.send(ChannelOpenFailure::ConnectFailed).await.unwrap();
        let open = open(&refusals, queue);
        handing.await;
        assert_eq!(open.await.unwrap().unwrap_err().text, "its own");
    }

    #[tokio::test(start_paused = true)]
    async fn a_text_for_nobody_holds_the_session_for_a_moment_and_is_dropped() {
        let refusals = Arc::new(Refusals::default());
        refusals.hand_over("nobody's").await;
        let (to, queue) = mpsc::channel(1);
        let open = open(&refusals, queue);
        tokio::task::yield_now().await;
        refusals.hand_over("nobody's either").await;
        refuse(&refusals, to, "its own").await;
        assert_eq!(open.await.unwrap().unwrap_err().text, "its own");
    }

    #[tokio::test]
    async fn an_open_that_is_given_up_lets_the_session_go_on() {
        let refusals = Arc::new(Refusals::default());
        let (_to, queue) = mpsc::channel(1);
        let open = open(&refusals, queue);
        tokio::task::yield_now().await;
        let began = Instant::now();
        tokio::join!(refusals.hand_over("text"), async { open.abort() });
        assert!(began.elapsed() < MEETING);
    }

    #[tokio::test]
    async fn a_lost_connection_is_told() {
        let (to, queue) = mpsc::channel(1);
        drop(to);
        let error = open(&Arc::default(), queue).await.unwrap().unwrap_err();
        assert_eq!(error.failure, OpenFailure::ConnectionLost);
    }
}
