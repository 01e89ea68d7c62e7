//! Whose turn it is to send.
//!
//! Deficit round robin with a quantum of one full packet: whoever has its turn sends at most one data packet,
//! gathered from all that it has queued, so no deficit is ever left over and flows share by bytes. Channels that have
//! just got something to send go first, as in fq_codel (RFC 8290 section 4.2), and after [`FRESH_IN_A_ROW`] of them
//! one of the others has a turn: what is short is not held up by what is long, and what is long is not starved.

use std::collections::VecDeque;

use super::slots::ChannelId;

const FRESH_IN_A_ROW: u32 = 8;

/// Channels that have something to send, each once.
#[derive(Debug, Default)]
pub(super) struct Line {
    fresh: VecDeque<ChannelId>,
    old: VecDeque<ChannelId>,
    fresh_in_a_row: u32,
}

impl Line {
    /// A channel that had nothing to send has something.
    pub(super) fn join(&mut self, id: ChannelId) {
        self.fresh.push_back(id);
    }

    /// A channel has had its turn and has more.
    pub(super) fn rejoin(&mut self, id: ChannelId) {
        self.old.push_back(id);
    }

    pub(super) fn next(&mut self) -> Option<ChannelId> {
        let fresh = self.fresh_in_a_row < FRESH_IN_A_ROW || self.old.is_empty();
        if fresh && let Some(id) = self.fresh.pop_front() {
            self.fresh_in_a_row += 1;
            return Some(id);
        }
        self.fresh_in_a_row = 0;
        self.old.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.old.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fresh_go_first_and_the_old_are_not_starved() {
        let mut line = Line::default();
        let (bulk, other) = (ChannelId(1), ChannelId(2));
        line.rejoin(bulk);
        line.rejoin(other);
        let mut turns = Vec::new();
        for i in 0..20 {
            line.join(ChannelId(100 + i));
            let next = line.next().unwrap();
            turns.push(next);
            if next.0 < 100 {
                line.rejoin(next);
            }
        }
        let old: Vec<_> = turns.iter().filter(|id| id.0 < 100).collect();
        assert_eq!(old, [&bulk, &other]);
        assert_eq!(turns[0], ChannelId(100));
    }

    #[test]
    fn everybody_has_a_turn() {
        let mut line = Line::default();
        (0..100).for_each(|i| line.join(ChannelId(i)));
        let turns: Vec<_> = std::iter::from_fn(|| line.next()).collect();
        assert_eq!(turns, (0..100).map(ChannelId).collect::<Vec<_>>());
        assert!(line.is_empty());
    }
}
