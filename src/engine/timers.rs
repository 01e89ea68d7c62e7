//! When something is next due. One heap for all flows; a flow has at most a few entries in it, because it only
//! adds one when its deadline moves nearer than what it has armed ([`super::flow`]); an entry that comes due
//! too early just looks at the flow and arms it again. Entries of flows that are over are swept out when they may be the
//! half of all, so a host that opens and closes thousands a second does not pay for minutes of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::{Mutex, MutexGuard, PoisonError};

use smoltcp::time::Instant;

use crate::net::FlowKey;

/// Entries that are not worth a sweep.
const FEW: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Timers(Mutex<Heap>);

#[derive(Debug)]
struct Heap {
    entries: BinaryHeap<Reverse<(Instant, FlowKey)>>,
    /// Length from which it is swept: twice what the last sweep left, so that a sweep costs each entry a constant.
    sweep_at: usize,
}

impl Default for Heap {
    fn default() -> Self {
        Self {
            entries: BinaryHeap::new(),
            sweep_at: FEW,
        }
    }
}

impl Timers {
    fn lock(&self) -> MutexGuard<'_, Heap> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a deadline; whether it is the earliest of all now. `is_alive` says which flows still exist.
    pub(super) fn arm(
        &self,
        at: Instant,
        key: FlowKey,
        is_alive: impl Fn(&FlowKey) -> bool,
    ) -> bool {
        let mut heap = self.lock();
        if heap.entries.len() >= heap.sweep_at {
            heap.entries.retain(|Reverse((_, key))| is_alive(key));
            heap.sweep_at = FEW.max(2 * heap.entries.len());
        }
        let earliest = heap.entries.peek();
        let is_earliest = earliest.is_none_or(|Reverse((first, _))| at < *first);
        heap.entries.push(Reverse((at, key)));
        is_earliest
    }

    pub(super) fn earliest(&self) -> Option<Instant> {
        self.lock().entries.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one deadline that has come.
    pub(super) fn pop_due(&self, now: Instant) -> Option<FlowKey> {
        let mut heap = self.lock();
        let due = heap.entries.peek_mut().filter(|first| first.0.0 <= now)?;
        Some(PeekMut::pop(due).0.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Source, Target};

    fn key(port: u16) -> FlowKey {
        FlowKey {
            source: Source(([10, 0, 0, 1], port).into()),
            target: Target(([10, 0, 1, 2], 80).into()),
        }
    }

    #[test]
    fn deadlines_of_flows_that_are_over_do_not_pile_up() {
        let timers = Timers::default();
        for i in 0..60_000_u16 {
            let at = Instant::from_secs(300 + i64::from(i));
            timers.arm(at, key(i), |key| key.source.0.port() % 10 == 0);
        }
        let left = timers.lock().entries.len();
        assert!((6000..=6000 + 2 * 6000 + FEW).contains(&left), "{left}");
        let due = std::iter::from_fn(|| timers.pop_due(Instant::from_secs(100_000)));
        let living: Vec<_> = due
            .map(|key| key.source.0.port())
            .filter(|port| port % 10 == 0)
            .collect();
        assert!(living.iter().copied().eq((0..60_000).step_by(10)));
    }
}
