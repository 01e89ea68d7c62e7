//! How long a flow may leave what arrives on the wire.

use std::time::{Duration, Instant};

/// How long a flow may keep the others of its connection waiting; what it takes is judged once in this time.
const PATIENCE: Duration = Duration::from_millis(20);
/// A flow that takes this many bytes in that time keeps nobody waiting for long.
const BRISK: usize = 256 << 10;

/// How fast a flow that is behind what arrives for it takes its bytes.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Begin of the period that is being judged; `None`: not behind.
    since: Option<Instant>,
    /// Bytes taken in it.
    taken: usize,
    /// The verdict on the period before.
    slow: bool,
}

impl Pace {
    /// The flow took so many bytes.
    pub(super) fn add(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_add(bytes);
    }

    /// Nothing waits for the flow.
    pub(super) fn has_caught_up(&mut self) {
        (self.since, self.slow) = (None, false);
    }

    /// Until when the flow, which has no room now, may leave what arrives on the wire; `None`: no longer.
    pub(super) fn patient_until(&mut self, now: Instant) -> Option<Instant> {
        let elapsed = self.since.map(|since| now.saturating_duration_since(since));
        if elapsed.is_none_or(|elapsed| elapsed >= PATIENCE) {
            self.slow = elapsed.is_some_and(|elapsed| {
                self.taken as f64 * PATIENCE.as_secs_f64() < BRISK as f64 * elapsed.as_secs_f64()
            });
            (self.since, self.taken) = (Some(now), 0);
        }
        let until = self.since? + PATIENCE;
        (!self.slow).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_that_takes_little_has_patience_once() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.patient_until(now), Some(now + PATIENCE));
        pace.add(BRISK - 1);
        let later = now + PATIENCE / 2;
        assert_eq!(pace.patient_until(later), Some(now + PATIENCE));
        assert_eq!(pace.patient_until(now + PATIENCE), None);
        assert_eq!(pace.patient_until(now + 2 * PATIENCE), None);
    }

    #[test]
    fn one_that_catches_up_or_is_brisk_has_it_again() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let end = now + PATIENCE;
        pace.patient_until(now);
        pace.add(BRISK);
        assert_eq!(pace.patient_until(end), Some(end + PATIENCE));
        assert_eq!(pace.patient_until(end + PATIENCE), None);
        pace.has_caught_up();
        assert_eq!(pace.patient_until(end), Some(end + PATIENCE));
    }

    #[test]
    fn what_was_taken_is_judged_by_the_time_it_took() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.patient_until(now);
        pace.add(10 * BRISK - 1);
        let later = now + 10 * PATIENCE;
        assert_eq!(pace.patient_until(later), None);
        pace.add(BRISK);
        assert_eq!(pace.patient_until(later + PATIENCE / 2), None);
        let end = later + PATIENCE;
        assert_eq!(pace.patient_until(end), Some(end + PATIENCE));
    }
}
