//! When something is next due. Deadlines are rounded up, the further away the more coarsely, so that those of many flows fall
//! together: the number of different ones depends on how far they reach, not on how many flows there are, and a deadline that is
//! nearer than all others, which the driver has to hear of, is rare. A flow has at most a few entries, because it only adds one
//! when its deadline moves nearer than what it has armed ([`super::flow`]); an entry that comes due too early just looks at the
//! flow and arms it again. Entries of flows that are over are swept out when they may be the half of all, so a host that opens and
//! closes thousands a second does not pay for minutes of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use smoltcp::time::Instant;

use super::flow::Flow;

/// Entries that are not worth a sweep.
const FEW: usize = 4096;
/// The finest step of deadlines, in microseconds. What is due so soon is a segment that is sent again, which no kernel waits for.
const STEP: u64 = 16_384;
/// A wait becomes longer by at most one part in so many, or by [`STEP`].
const PART: u64 = 8;

/// `at`, or soon after it, seen from `now`.
pub(super) fn rounded(now: Instant, at: Instant) -> Instant {
    let wait = (at - now).total_micros();
    let longest = (wait / PART).max(1);
    // A power of two, so that deadlines fall together wherever they are seen from.
    let step = STEP.max(1 << longest.ilog2());
    match u64::try_from(at.total_micros()) {
        Ok(micros) => Instant::from_micros(micros.next_multiple_of(step) as i64),
        Err(_) => at,
    }
}

#[derive(Debug, Default)]
pub(super) struct Timers(Mutex<Entries>);

#[derive(Debug)]
struct Entries {
    at: BTreeMap<Instant, Vec<Weak<Flow>>>,
    count: usize,
    /// The count from which they are swept: twice what the last sweep left, so that a sweep costs each entry a constant.
    sweep_at: usize,
}

impl Default for Entries {
    fn default() -> Self {
        Self {
            at: BTreeMap::new(),
            count: 0,
            sweep_at: FEW,
        }
    }
}

impl Entries {
    fn sweep(&mut self) {
        self.at.retain(|_, flows| {
            flows.retain(|flow| flow.strong_count() > 0);
            !flows.is_empty()
        });
        self.count = self.at.values().map(Vec::len).sum();
        self.sweep_at = FEW.max(2 * self.count);
    }
}

impl Timers {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a deadline that [`rounded`] gave; whether it is the earliest of all now.
    pub(super) fn arm(&self, at: Instant, flow: &Arc<Flow>) -> bool {
        let mut entries = self.lock();
        if entries.count >= entries.sweep_at {
            entries.sweep();
        }
        let earliest = entries.at.first_key_value();
        let is_earliest = earliest.is_none_or(|(first, _)| at < *first);
        entries.at.entry(at).or_default().push(Arc::downgrade(flow));
        entries.count += 1;
        is_earliest
    }

    pub(super) fn earliest(&self) -> Option<Instant> {
        self.lock().at.first_key_value().map(|(at, _)| *at)
    }

    /// Takes one flow whose deadline has come.
    pub(super) fn pop_due(&self, now: Instant) -> Option<Weak<Flow>> {
        let mut entries = self.lock();
        let mut first = entries
            .at
            .first_entry()
            .filter(|first| *first.key() <= now)?;
        let flow = first.get_mut().pop();
        if first.get().is_empty() {
            first.remove();
        }
        entries.count -= usize::from(flow.is_some());
        flow
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{FlowKey, Source, Target};
    use proptest::prelude::*;
    use smoltcp::time::Duration;

    fn flow(port: u16) -> Arc<Flow> {
        let key = FlowKey {
            source: Source(([10, 0, 0, 1], port).into()),
            target: Target(([10, 0, 1, 2], 80).into()),
        };
        Arc::new(Flow::hold(key, Instant::ZERO, &[]))
    }

    #[test]
    fn deadlines_of_flows_that_are_over_do_not_pile_up() {
        let timers = Timers::default();
        let mut alive = Vec::new();
        for i in 0..60_000_u16 {
            let flow = flow(i);
            timers.arm(Instant::from_secs(300 + i64::from(i)), &flow);
            if i % 10 == 0 {
                alive.push(flow);
            }
        }
        let left = timers.lock().count;
        assert!((6000..=6000 + 2 * 6000 + FEW).contains(&left), "{left}");
        let due = std::iter::from_fn(|| timers.pop_due(Instant::from_secs(100_000)));
        let living: Vec<_> = due
            .filter_map(|flow| flow.upgrade())
            .map(|flow| flow.key.source.0.port())
            .collect();
        assert!(living.iter().copied().eq((0..60_000).step_by(10)));
        assert_eq!(timers.lock().count, 0);
    }

    #[test]
    fn what_is_due_first_comes_first() {
        let timers = Timers::default();
        let flows: Vec<_> = (0..4).map(flow).collect();
        let late = Instant::from_millis(200);
        assert!(timers.arm(late, &flows[0]));
        assert!(timers.arm(Instant::from_millis(100), &flows[1]));
        assert!(!timers.arm(late, &flows[2]));
        assert!(!timers.arm(Instant::from_millis(100), &flows[3]));
        assert_eq!(timers.earliest(), Some(Instant::from_millis(100)));
        assert!(timers.pop_due(Instant::from_millis(99)).is_none());
        let port = || Some(timers.pop_due(late)?.upgrade()?.key.source.0.port());
        let ports: Vec<_> = std::iter::from_fn(port).collect();
        assert_eq!(ports, [3, 1, 2, 0]);
        assert_eq!((timers.earliest(), timers.lock().count), (None, 0));
    }

    proptest! {
        #[test]
        fn a_deadline_is_never_early_and_little_late(now in 0..1i64 << 50, wait in 0..1i64 << 40) {
            let (now, at) = (Instant::from_micros(now), Instant::from_micros(now + wait));
            let later = rounded(now, at) - at;
            prop_assert!(rounded(now, at) >= at);
            prop_assert!(later.total_micros() < STEP.max(wait as u64 / PART));
        }
    }

    /// A million flows that are due within ten minutes share what can be counted.
    #[test]
    fn there_are_few_different_deadlines() {
        let now = Instant::from_micros(123_456_789);
        let due = (0..600_000).map(|ms| rounded(now, now + Duration::from_millis(ms)));
        let different: std::collections::BTreeSet<_> = due.collect();
        assert!(different.len() < 200, "{}", different.len());
    }
}
