//! How often something may be said: so many times at once, and one more each while.

use std::sync::atomic::{AtomicI64, Ordering};

use smoltcp::time::Instant;

/// How many at once, and one more each how many microseconds (RFC 4443 section 2.4 f asks for such a bound).
const BURST: i64 = 32;
const PERIOD: i64 = 10_000;

/// When the next would be due if all were said evenly, in microseconds (the virtual scheduling algorithm of ITU-T I.371).
#[derive(Debug, Default)]
pub(super) struct Patience(AtomicI64);

impl Patience {
    /// Whether it may be said at `now`; then it counts as said.
    pub(super) fn allows(&self, now: Instant) -> bool {
        let now = now.total_micros();
        let next = |due: i64| {
            let due = due.max(now);
            (due - now <= (BURST - 1) * PERIOD).then_some(due + PERIOD)
        };
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.0.fetch_update(set, fetch, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_evenly() {
        let patience = Patience::default();
        let said = |at: i64| {
            (0..1000)
                .filter(|_| patience.allows(Instant::from_millis(at)))
                .count()
        };
        assert_eq!(said(0), 32);
        assert_eq!(said(9), 0);
        assert_eq!(said(10), 1);
        assert_eq!(said(60), 5);
        assert_eq!(said(100_000), 32);
    }
}
