//! When something is next due. One heap for all flows; a flow has at most a few entries in it, because it only
//! adds one when its deadline moves nearer than what it has armed ([`super::flow`]); an entry that comes due
//! too early just looks at the flow and arms it again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, PoisonError};

use smoltcp::time::Instant;

use crate::net::FlowKey;

#[derive(Debug, Default)]
pub(super) struct Timers(Mutex<BinaryHeap<Reverse<(Instant, FlowKey)>>>);

impl Timers {
    /// Adds a deadline; whether it is the earliest of all now.
    pub(super) fn arm(&self, at: Instant, key: FlowKey) -> bool {
        let mut heap = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_earliest = heap.peek().is_none_or(|Reverse((first, _))| at < *first);
        heap.push(Reverse((at, key)));
        is_earliest
    }

    pub(super) fn earliest(&self) -> Option<Instant> {
        let heap = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one deadline that has come.
    pub(super) fn pop_due(&self, now: Instant) -> Option<FlowKey> {
        let mut heap = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if heap.peek().is_none_or(|Reverse((at, _))| *at > now) {
            return None;
        }
        heap.pop().map(|Reverse((_, key))| key)
    }
}
