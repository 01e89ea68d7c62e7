//! How long a flow may leave what arrives on the wire.

use std::time::{Duration, Instant};

/// How long a flow may keep the others of its connection waiting.
const PATIENCE: Duration = Duration::from_millis(20);
/// A flow that takes this many bytes in that time keeps nobody waiting for long: it is as much as can queue up for it.
const BRISK: usize = 1 << 20;

/// Since when a flow has been behind what arrives for it, and how much it has taken since.
#[derive(Debug, Default)]
pub(super) struct Pace {
    behind_since: Option<Instant>,
    taken: usize,
}

impl Pace {
    /// The flow took so many bytes.
    pub(super) fn add(&mut self, bytes: usize) {
        self.taken += bytes;
    }

    /// Nothing waits for the flow.
    pub(super) fn has_caught_up(&mut self) {
        self.behind_since = None;
    }

    /// Until when the flow, which has no room now, may leave what arrives on the wire; `None`: no longer.
    pub(super) fn patient_until(&mut self, now: Instant) -> Option<Instant> {
        let is_brisk = self.taken >= BRISK;
        let until = self.behind_since.map(|since| since + PATIENCE);
        match until {
            Some(until) if now < until => Some(until),
            Some(_) if !is_brisk => None,
            _ => {
                (self.behind_since, self.taken) = (Some(now), 0);
                Some(now + PATIENCE)
            }
        }
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
}
