//! A future that is run to its end even when its caller is gone.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Runs `work` in the caller's own task, without a hop, and in a task of its own once the caller drops it. An open
/// that the server has begun cannot be taken back: its late success must be seen, to be closed.
pub(super) fn detached<F>(work: F) -> Detached<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    Detached(Some(Box::pin(work)))
}

/// See [`detached`].
pub(super) struct Detached<F>(Option<Pin<Box<F>>>)
where
    F: Future + Send + 'static,
    F::Output: Send;

impl<F> Future for Detached<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Some(work) = &mut self.0 else {
            // Polled after its end, which no executor does.
            return Poll::Pending;
        };
        let output = ready!(work.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(output)
    }
}

impl<F> Drop for Detached<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn drop(&mut self) {
        if let Some(work) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { drop(work.await) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_dropped_future_goes_on() {
        let (go, wait) = oneshot::channel::<()>();
        let (done, ended) = oneshot::channel();
        let mut work = detached(async move {
            wait.await.unwrap();
            done.send(()).unwrap();
        });
        assert!(futures_util::poll!(&mut work).is_pending());
        drop(work);
        go.send(()).unwrap();
        ended.await.unwrap();
    }

    #[tokio::test]
    async fn a_kept_future_gives_its_output() {
        assert_eq!(detached(async { 7 }).await, 7);
    }
}
