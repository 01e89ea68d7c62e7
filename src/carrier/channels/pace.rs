//! When a channel on a long path may be granted more.
//!
//! What is granted at a moment comes as data a round trip later, as densely as it was granted, and is granted again as it
//! comes: a burst stays one for as long as a download lasts. Whatever is slower than the path then has to keep it, and the ssh
//! process that carries us copies all that it keeps for each packet more (`budget.rs`). So a window goes out in parts, over
//! [`STRETCH`] of the round trip at least.
//!
//! Nothing here reads a clock.

use std::time::{Duration, Instant};

/// Parts of five: in how much of a round trip a whole window is granted. The rest is there to make up for stalls.
const STRETCH: u32 = 4;
/// Whoever comes late for its moment may catch up so much of it: a part of the round trip, and what a timer is late
/// (tokio::time has a resolution of 1 ms).
const CATCH_UP_PART: u32 = 32;
const CATCH_UP: Duration = Duration::from_millis(2);
/// A window's parts. Smaller ones would cost more messages than they smooth.
const PARTS: u32 = 64;

/// The grants of one channel.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<Last>,
}

/// The last grant: its moment, and which part of a window it was.
#[derive(Clone, Copy, Debug)]
struct Last {
    moment: Instant,
    share: f64,
}

impl Last {
    /// The moment of the next grant, if the path is what it is thought to be by now.
    fn next(self, round_trip: Duration) -> Instant {
        self.moment + (round_trip * STRETCH / 5).mul_f64(self.share)
    }
}

/// What may be granted, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) bytes: u32,
    /// When to ask for the rest, where that is not small.
    pub(super) rest_at: Option<Instant>,
}

impl Part {
    /// All at once.
    pub(super) fn whole(bytes: u32) -> Self {
        let rest_at = None;
        Self { bytes, rest_at }
    }
}

impl Pace {
    /// What may leave now of `grant` bytes of a window of `window` bytes on a path of this round trip. A grant below `least`
    /// bytes is not taken apart.
    pub(super) fn part(
        &mut self,
        now: Instant,
        round_trip: Duration,
        window: u32,
        grant: u32,
        least: u32,
    ) -> Part {
        let catch_up = round_trip / CATCH_UP_PART + CATCH_UP;
        let earliest = now.checked_sub(catch_up).unwrap_or(now);
        let moment = self
            .last
            .map_or(now, |last| last.next(round_trip).max(earliest));
        if moment > now {
            let rest_at = Some(moment);
            return Part { bytes: 0, rest_at };
        }
        let bytes = grant.min(least.max(window / PARTS));
        let share = f64::from(bytes) / f64::from(window.max(1));
        let last = Last { moment, share };
        self.last = Some(last);
        let has_rest = grant - bytes >= least;
        let rest_at = has_rest.then(|| last.next(round_trip));
        Part { bytes, rest_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u32 = 1 << 20;
    const LEAST: u32 = MIB / 8;
    const ROUND_TRIP: Duration = Duration::from_millis(100);

    /// How long it takes until all of a window is granted, if each moment is met `late`.
    fn all_of(window: u32, late: Duration) -> Duration {
        let start = Instant::now();
        let (mut pace, mut now, mut left) = (Pace::default(), start, window);
        while left > 0 {
            let part = pace.part(now, ROUND_TRIP, window, left, LEAST);
            left -= part.bytes;
            if let Some(at) = part.rest_at {
                now = now.max(at + late);
            }
        }
        now - start
    }

    #[test]
    fn a_window_takes_most_of_a_round_trip() {
        for window in [2 * MIB, 16 * MIB] {
            for late in [0, 1, 2] {
                let taken = all_of(window, Duration::from_millis(late));
                let milliseconds = taken.as_millis();
                assert!((70..90).contains(&milliseconds), "{taken:?}");
            }
        }
    }

    #[test]
    fn a_pause_is_not_made_up_for() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let mut all_at = |milliseconds| {
            let (now, window) = (start + Duration::from_millis(milliseconds), 16 * MIB);
            let part = || pace.part(now, ROUND_TRIP, window, window, LEAST).bytes;
            let parts = std::iter::repeat_with(part);
            parts.take_while(|bytes| *bytes > 0).sum::<u32>()
        };
        assert_eq!(all_at(0), MIB / 4);
        let after_a_pause = all_at(10_000);
        assert!(after_a_pause <= 5 * MIB / 4, "{after_a_pause}");
    }

    /// It was thought to be a minute long: the next moment is not reckoned from that.
    #[test]
    fn a_path_that_is_shorter_than_thought() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        pace.part(start, Duration::from_secs(60), MIB, MIB, LEAST);
        let now = start + ROUND_TRIP;
        let part = pace.part(now, ROUND_TRIP, MIB, MIB, LEAST);
        assert_eq!(part.bytes, LEAST);
    }

    #[test]
    fn a_small_grant_is_not_taken_apart() {
        let mut pace = Pace::default();
        let part = pace.part(Instant::now(), ROUND_TRIP, 16 * MIB, LEAST, LEAST);
        assert_eq!(part, Part::whole(LEAST));
    }
}
