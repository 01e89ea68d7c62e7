//! Which channels are granted more at what moment.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::time::Instant;

use super::slots::ChannelId;

/// Moments, each with a channel. A channel that is gone stays until its moment has come, a round trip at most.
#[derive(Debug, Default)]
pub(super) struct Due {
    moments: BinaryHeap<Reverse<(Instant, ChannelId)>>,
}

impl Due {
    pub(super) fn push(&mut self, at: Instant, id: ChannelId) {
        self.moments.push(Reverse((at, id)));
    }

    /// The next moment.
    pub(super) fn first(&self) -> Option<Instant> {
        self.moments.peek().map(|Reverse((at, _))| *at)
    }

    /// A channel whose moment has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<ChannelId> {
        let first = self.moments.peek_mut()?;
        let Reverse((at, id)) = *first;
        if at > now {
            return None;
        }
        PeekMut::pop(first);
        Some(id)
    }
}
