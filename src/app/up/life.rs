//! When a run ends by itself: after a time, or when nobody has used it for one.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::plan::{LifePlan, Span};

/// Looks within the time that may pass without anything: by so much of it a run may end late, since packets leave no time.
const LOOKS: u32 = 8;

/// Connections that are open or asked for, and when the last one was, or something else passed.
#[derive(Debug)]
pub(in crate::app) struct Activity {
    born: Instant,
    open: AtomicUsize,
    /// When the last one ended, or something else was seen to have passed, in milliseconds since `born`.
    last: AtomicU64,
    passed: Arc<Passed>,
}

/// Something has passed that is no connection.
#[derive(Debug, Default)]
pub(super) struct Passed(AtomicBool);

impl Passed {
    /// For each packet: it asks no clock.
    pub(super) fn note(&self) {
        if !self.0.load(Relaxed) {
            self.0.store(true, Relaxed);
        }
    }

    /// Whether something has, since the last look.
    fn look(&self) -> bool {
        self.0.swap(false, Relaxed)
    }
}

/// One connection.
pub(super) struct Active<'a>(&'a Activity);

impl Activity {
    /// What is no connection is noted in `passed`.
    pub(super) fn new(passed: Arc<Passed>) -> Self {
        Self {
            born: Instant::now(),
            open: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            passed,
        }
    }

    pub(super) fn begin(&self) -> Active<'_> {
        self.open.fetch_add(1, SeqCst);
        Active(self)
    }

    /// How many there are.
    pub(in crate::app) fn open(&self) -> usize {
        self.open.load(SeqCst)
    }

    fn touch(&self) {
        let now = self.born.elapsed().as_millis() as u64;
        self.last.fetch_max(now, SeqCst);
    }

    /// How long there has been none, and nothing else.
    fn idle_for(&self) -> Duration {
        if self.passed.look() {
            self.touch();
        }
        // In this order: whoever ends between the two looks has set `last` before.
        if self.open.load(SeqCst) > 0 {
            return Duration::ZERO;
        }
        let last = Duration::from_millis(self.last.load(SeqCst));
        self.born.elapsed().saturating_sub(last)
    }

    /// Resolves when there has been none for `limit`, and nothing else.
    async fn idle(&self, limit: Duration) {
        loop {
            let left = limit.saturating_sub(self.idle_for());
            if left.is_zero() {
                return;
            }
            sleep(left.min(limit / LOOKS)).await;
        }
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.touch();
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
            format!("no connection was open for {typed}, and no datagram, ping or packet passed (--idle-timeout)")
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
        let why = over(&life, &Activity::new(Arc::default())).await;
        assert_eq!(began.elapsed().as_secs(), 60);
        assert_eq!(why, "60s are over (--for)");
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_a_while_after_the_last_connection() {
        let activity = Activity::new(Arc::default());
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

    #[tokio::test(start_paused = true)]
    async fn it_does_not_end_while_packets_pass() {
        let passed = Arc::<Passed>::default();
        let activity = Activity::new(Arc::clone(&passed));
        let life = LifePlan {
            limit: None,
            idle: span(10),
        };
        let use_it = async {
            for _ in 0..5 {
                sleep(Duration::from_secs(9)).await;
                passed.note();
            }
            pending::<()>().await;
        };
        let began = Instant::now();
        tokio::select! {
            _ = over(&life, &activity) => {}
            () = use_it => {}
        }
        let end = began.elapsed().as_secs_f32();
        assert!((55.0..56.5).contains(&end), "{end}");
    }
}
