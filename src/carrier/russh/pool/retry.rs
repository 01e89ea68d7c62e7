//! When a login in the background may be tried again.

use std::time::{Duration, Instant};

/// Wait after a login that failed; doubled each time.
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_LAST: Duration = Duration::from_secs(600);

/// When the next login may be tried.
#[derive(Debug, Default)]
pub(super) struct Retry {
    not_before: Option<Instant>,
    wait: Duration,
}

impl Retry {
    pub(super) fn is_time(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| now >= at)
    }

    /// How long to wait now.
    pub(super) fn failed(&mut self, now: Instant) -> Duration {
        self.wait = (self.wait * 2).clamp(RETRY_FIRST, RETRY_LAST);
        self.not_before = Some(now + self.wait);
        self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_that_fail_are_retried_less_and_less() {
        let now = Instant::now();
        let mut retry = Retry::default();
        assert!(retry.is_time(now));
        assert_eq!(retry.failed(now), RETRY_FIRST);
        assert!(!retry.is_time(now));
        assert!(retry.is_time(now + RETRY_FIRST));
        assert_eq!(retry.failed(now), RETRY_FIRST * 2);
        for _ in 0..20 {
            retry.failed(now);
        }
        assert_eq!(retry.failed(now), RETRY_LAST);
    }
}
