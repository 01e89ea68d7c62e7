//! Many tasks that hand something to the same other one, which takes it all at once when its turn comes.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::coop;

/// `work`, as a task whose turn ends when it has nothing more to do: whom it has woken comes after those that are ready
/// already.
///
/// tokio would run the task that was woken last next (its "LIFO slot"). Flows wake the session of their connection, which
/// would write one small packet for each; sshd, woken by each, walks all its channels each time. When the flows that are
/// ready have had their turn, the session writes what they have to say at once: 32 short connections at a time get by with
/// half of sshd's wake-ups. tokio leaves the slot alone when the turn's budget is spent. A runtime of one thread has no such
/// slot.
pub(super) async fn in_turn<F: Future + ?Sized>(mut work: Pin<Box<F>>) -> F::Output {
    let has_slot = Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
    poll_fn(|cx| {
        let polled = work.as_mut().poll(cx);
        if has_slot {
            spend_turn(cx);
        }
        polled
    })
    .await
}

fn spend_turn(cx: &mut Context<'_>) {
    while coop::has_budget_remaining() {
        match coop::poll_proceed(cx) {
            Poll::Ready(unit) => unit.made_progress(),
            Poll::Pending => return,
        }
    }
}
