//! When a run ends by itself: after a time, or when nobody has used it for one.

use std::future::pending;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::plan::{LifePlan, Span};

/// Connections that are open or asked for, and when the last one was.
#[derive(Debug)]
pub(in crate::app) struct Activity {
    born: Instant,
    open: AtomicUsize,
    /// When the last one ended, in milliseconds since `born`.
    last: AtomicU64,
}

/// One connection.
pub(super) struct Active<'a>(&'a Activity);

impl Default for Activity {
    fn default() -> Self {
        Self {
            born: Instant::now(),
            open: AtomicUsize::new(0),
            last: AtomicU64::new(0),
        }
    }
}

impl Activity {
    pub(super) fn begin(&self) -> Active<'_> {
        self.open.fetch_add(1, SeqCst);
        Active(self)
    }

    /// How many there are.
    pub(in crate::app) fn open(&self) -> usize {
        self.open.load(SeqCst)
    }

    /// How long there has been none.
    fn idle_for(&self) -> Duration {
        // In this order: whoever ends between the two looks has set `last` before.
        if self.open.load(SeqCst) > 0 {
            return Duration::ZERO;
        }
        let last = Duration::from_millis(self.last.load(SeqCst));
        self.born.elapsed().saturating_sub(last)
    }

    /// Resolves when there has been none for `limit`.
    async fn idle(&self, limit: Duration) {
        loop {
            let left = limit.saturating_sub(self.idle_for());
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        let now = self.0.born.elapsed().as_millis() as u64;
        self.0.last.fetch_max(now, SeqCst);
        self.0.open.fetch_sub(1, SeqCst);
    }
}

/// Resolves when `life` is over, with the reason.
pub(super) async fn over(life: &LifePlan, activity: &Activity) -> String {
    tokio::select! {
        typed = spent(life.limit.as_ref(), |time| sleep(time)) => {
            format!("{typed} are over (--for)")
        }
        typed = spent(life.idle.as_ref(), |time| activity.idle(time)) => {
            format!("no connection was open for {typed} (--idle-timeout)")
        }
    }
}

async fn spent<F: Future>(span: Option<&Span>, wait: impl FnOnce(Duration) -> F) -> &str {
    match span {
        Some(span) => {
            wait(span.time).await;
            &span.typed
        }
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(seconds: u64) -> Option<Span> {
        Some(Span {
            time: Duration::from_secs(seconds),
            typed: format!("{seconds}s"),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_is_over() {
        let life = LifePlan {
            limit: span(60),
            idle: span(90),
        };
        let began = Instant::now();
        let why = over(&life, &Activity::default()).await;
        assert_eq!(began.elapsed().as_secs(), 60);
        assert_eq!(why, "60s are over (--for)");
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_a_while_after_the_last_connection() {
        let activity = Activity::default();
        let life = LifePlan {
            limit: None,
            idle: span(10),
        };
        let use_it = async {
            sleep(Duration::from_secs(9)).await;
            let active = activity.begin();
            drop(activity.begin());
            sleep(Duration::from_secs(25)).await;
            drop(active);
            pending::<()>().await;
        };
        let began = Instant::now();
        tokio::select! {
            why = over(&life, &activity) => assert!(why.contains("--idle-timeout"), "{why}"),
            () = use_it => {}
        }
        assert_eq!(began.elapsed().as_secs(), 44);
    }
}
