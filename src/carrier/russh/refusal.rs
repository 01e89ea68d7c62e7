//! Which open does a refusal's text belong to?
//!
//! russh gives the text of a refused open to `Handler::channel_open_failure` with a channel id, and the
//! caller of the open an error without text and without id: it never learns the id of a channel that was
//! not confirmed. What joins the two is the session task itself. It sends the reason into the opener's message
//! queue, which wakes the opener's waker on the spot, and calls the handler next, on the same thread with
//! no await point that could yield between (russh 0.65.1, client/encrypted.rs, `CHANNEL_OPEN_FAILURE`; tokio's mpsc wakes its
//! receiver inside `send`). So each open is polled with a waker of its own that leaves a note on
//! the thread that woke it, and the handler takes the last note: the text goes to the open woken just before.
//!
//! An open that was not yet waiting (its message sent, its thread preempted before it polled the queue)
//! leaves no note. It then gets no text, never another's, and its failure is told by the reason code alone.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use russh::ChannelOpenFailure;
use tokio::sync::oneshot;

use crate::carrier::failure::open_error;
use crate::net::{OpenError, OpenFailure};

/// How long an open waits for its text after the refusal. The text follows within microseconds.
const TEXT_WAIT: Duration = Duration::from_millis(200);

thread_local! {
    static LAST_WOKEN: RefCell<Option<Arc<Note>>> = const { RefCell::new(None) };
}

/// An open in flight: where its text goes, and who really waits.
struct Note {
    text: Mutex<Option<oneshot::Sender<String>>>,
    waiting: Mutex<Waker>,
}

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        LAST_WOKEN.with_borrow_mut(|last| *last = Some(Arc::clone(self)));
        let waker = locked(&self.waiting).clone();
        waker.wake();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is whole at every moment, whoever panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Called by the handler: the server refused an open with this text.
pub(super) fn refused_with(text: &str) {
    let Some(note) = LAST_WOKEN.take() else {
        return;
    };
    if let Some(sender) = locked(&note.text).take() {
        // The open may have been given up.
        let _ = sender.send(text.to_owned());
    }
}

/// Runs russh's `open` and gives its refusal the server's own text.
///
/// # Errors
/// What the server said; [`OpenFailure::ConnectionLost`] when the connection went away.
pub(super) async fn with_text<T>(
    open: impl Future<Output = Result<T, russh::Error>>,
) -> Result<T, OpenError> {
    let (sender, text) = oneshot::channel();
    let note = Arc::new(Note {
        text: Mutex::new(Some(sender)),
        waiting: Mutex::new(Waker::noop().clone()),
    });
    // A poll that tokio's cooperative budget cuts short would not reach the queue, and leave no waker there.
    let open = pin!(tokio::task::unconstrained(open));
    let outcome = Noted {
        open,
        note: Arc::clone(&note),
    }
    .await;
    match outcome {
        Ok(opened) => Ok(opened),
        Err(russh::Error::ChannelOpenFailure(reason)) => Err(refusal(&reason, text).await),
        Err(_) => Err(OpenError::new(OpenFailure::ConnectionLost, "")),
    }
}

async fn refusal(reason: &ChannelOpenFailure, text: oneshot::Receiver<String>) -> OpenError {
    let text = match tokio::time::timeout(TEXT_WAIT, text).await {
        Ok(Ok(text)) => text,
        _ => String::new(),
    };
    open_error(code(reason), &text)
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

/// A future polled with the waker of its note.
struct Noted<'a, F> {
    open: Pin<&'a mut F>,
    note: Arc<Note>,
}

impl<F: Future> Future for Noted<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        locked(&self.note.waiting).clone_from(cx.waker());
        let waker = Waker::from(Arc::clone(&self.note));
        self.open.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    /// What russh's session does for a refused open.
    async fn refuse(to: &mpsc::Sender<ChannelOpenFailure>, text: &str) {
        let _ = to.send(ChannelOpenFailure::ConnectFailed).await;
        refused_with(text);
    }

    fn open(
        mut queue: mpsc::Receiver<ChannelOpenFailure>,
    ) -> tokio::task::JoinHandle<Result<(), OpenError>> {
        tokio::spawn(with_text(async move {
            match queue.recv().await {
                Some(reason) => Err(russh::Error::ChannelOpenFailure(reason)),
                None => Err(russh::Error::Disconnect),
            }
        }))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn concurrent_refusals_get_each_its_own_text() {
        let mut opens = Vec::new();
        let mut queues = Vec::new();
        for _ in 0..1000 {
            let (to, queue) = mpsc::channel(1);
            opens.push(open(queue));
            queues.push(to);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let session = tokio::spawn(async move {
            for (i, to) in queues.iter().enumerate().rev() {
                refuse(to, &format!("text {i}")).await;
            }
        });
        for (i, open) in opens.into_iter().enumerate() {
            let error = open.await.unwrap().unwrap_err();
            assert_eq!(error.text, format!("text {i}"));
        }
        session.await.unwrap();
    }

    #[tokio::test]
    async fn without_a_text_the_reason_stays() {
        let (to, queue) = mpsc::channel(1);
        to.send(ChannelOpenFailure::ResourceShortage).await.unwrap();
        let error = open(queue).await.unwrap().unwrap_err();
        assert_eq!(error, OpenError::new(OpenFailure::NoResources, ""));
    }

    #[tokio::test]
    async fn a_lost_connection_is_told() {
        let (to, queue) = mpsc::channel(1);
        drop(to);
        let error = open(queue).await.unwrap().unwrap_err();
        assert_eq!(error.failure, OpenFailure::ConnectionLost);
    }
}
