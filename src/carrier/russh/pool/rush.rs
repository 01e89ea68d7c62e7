//! Whether flows come by the hundred: a scan, an application that opens thousands.

use std::time::{Duration, Instant};

/// Notices when many flows come at once.
#[derive(Debug)]
pub(super) struct Rush {
    since: Instant,
    count: u32,
    last: u32,
}

impl Rush {
    /// Time over which new flows are counted, and how many of them make a rush.
    const SPAN: Duration = Duration::from_millis(100);
    const MANY: u32 = 50;

    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            count: 0,
            last: 0,
        }
    }

    /// Counts a new flow; whether it is one of many.
    pub(super) fn is_on(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= Self::SPAN {
            self.last = if elapsed < 2 * Self::SPAN {
                self.count
            } else {
                0
            };
            (self.since, self.count) = (now, 0);
        }
        self.count += 1;
        self.count.max(self.last) > Self::MANY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_at_once_are_a_rush_and_few_are_none() {
        let now = Instant::now();
        let mut rush = Rush::new(now);
        assert!((0..Rush::MANY).all(|_| !rush.is_on(now)));
        assert!(rush.is_on(now));
        assert!(rush.is_on(now + Rush::SPAN));
        assert!(!rush.is_on(now + 5 * Rush::SPAN));
    }
}
