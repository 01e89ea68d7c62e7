//! What waits for the stream: a line for each flow, and turns by bytes (deficit round robin), so that a flow that sends a lot makes
//! no other one wait. Bounded in all: beyond it the oldest datagram of the longest line goes.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;

/// Bytes that may wait in all.
pub(super) const ROOM: usize = 512 << 10;
/// What a short datagram costs at least, in bytes, so that empty ones are bounded, too.
const LEAST: usize = 64;
/// Bytes of a turn.
const TURN: usize = 2 << 10;

#[derive(Debug, Default)]
struct Line {
    /// With the moment that each came.
    datagrams: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    /// What is left of its turn.
    turn: usize,
}

/// Datagrams in the order in which they go out. No line is empty.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lines: HashMap<u32, Line>,
    order: VecDeque<u32>,
    bytes: usize,
    dropped: u64,
}

impl Queue {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// How many datagrams were dropped for want of room, or waited too long.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes a datagram of `flow`.
    pub(super) fn push(&mut self, now: Instant, flow: u32, datagram: Bytes) {
        let cost = cost(&datagram);
        let line = self.lines.entry(flow).or_default();
        if line.datagrams.is_empty() {
            line.turn = TURN;
            self.order.push_back(flow);
        }
        line.bytes += cost;
        line.datagrams.push_back((now, datagram));
        self.bytes += cost;
        while self.bytes > ROOM {
            self.drop_one();
        }
    }

    fn drop_one(&mut self) {
        let longest = self.lines.iter().max_by_key(|(_, line)| line.bytes);
        if let Some(flow) = longest.map(|(flow, _)| *flow) {
            self.take(flow);
            self.dropped += 1;
        }
    }

    /// The first datagram of a flow's line.
    fn take(&mut self, flow: u32) -> Option<(Instant, Bytes)> {
        let line = self.lines.get_mut(&flow)?;
        let first = line.datagrams.pop_front()?;
        let cost = cost(&first.1);
        line.bytes -= cost;
        line.turn = line.turn.saturating_sub(cost);
        self.bytes -= cost;
        if line.datagrams.is_empty() {
            self.lines.remove(&flow);
            // Mostly it is its turn.
            match self.order.front() == Some(&flow) {
                true => drop(self.order.pop_front()),
                false => self.order.retain(|other| *other != flow),
            }
        }
        Some(first)
    }

    /// The datagram whose turn it is, with its flow; those that came before `oldest`, where that is given, are dropped.
    pub(super) fn pop(&mut self, oldest: Option<Instant>) -> Option<(u32, Bytes)> {
        loop {
            let flow = *self.order.front()?;
            let line = self.lines.get_mut(&flow)?;
            if line.turn == 0 {
                line.turn = TURN;
                self.order.rotate_left(1);
                continue;
            }
            let (came, datagram) = self.take(flow)?;
            if oldest.is_none_or(|oldest| came >= oldest) {
                return Some((flow, datagram));
            }
            self.dropped += 1;
        }
    }

    /// `flow` is no more.
    pub(super) fn forget(&mut self, flow: u32) {
        if let Some(line) = self.lines.remove(&flow) {
            self.bytes -= line.bytes;
            self.order.retain(|other| *other != flow);
        }
    }

    /// Nobody is.
    pub(super) fn clear(&mut self) {
        self.lines.clear();
        self.order.clear();
        self.bytes = 0;
    }
}

fn cost(datagram: &Bytes) -> usize {
    datagram.len().max(LEAST)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn datagram(len: usize) -> Bytes {
        vec![0; len].into()
    }

    #[test]
    fn a_flow_that_sends_a_lot_makes_no_other_one_wait() {
        let now = Instant::now();
        let mut queue = Queue::default();
        for _ in 0..300 {
            queue.push(now, 1, datagram(1400));
        }
        queue.push(now, 2, datagram(100));
        let flows: Vec<u32> = std::iter::from_fn(|| queue.pop(Some(now)))
            .map(|it| it.0)
            .collect();
        let turn = flows.iter().position(|flow| *flow == 2).unwrap();
        assert!(turn <= 2, "after one turn of the other: {turn}");
        assert_eq!(flows.len(), 301);
    }

    #[test]
    fn the_longest_line_loses_its_oldest() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.push(now, 1, Bytes::from_static(b"quiet"));
        for number in 0..400_u16 {
            let mut datagram = vec![0; 2048];
            datagram[..2].copy_from_slice(&number.to_be_bytes());
            queue.push(now, 2, datagram.into());
        }
        assert_eq!(
            queue.pop(Some(now)),
            Some((1, Bytes::from_static(b"quiet")))
        );
        let (_, first) = queue.pop(Some(now)).unwrap();
        assert_eq!(u16::from_be_bytes([first[0], first[1]]), 145);
        assert_eq!(queue.dropped(), 145);
    }

    #[test]
    fn what_waited_too_long_is_dropped() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.push(start, 1, Bytes::from_static(b"old"));
        let later = start + Duration::from_millis(5);
        queue.push(later, 1, Bytes::from_static(b"new"));
        assert_eq!(
            queue.pop(Some(later)),
            Some((1, Bytes::from_static(b"new")))
        );
        assert_eq!((queue.dropped(), queue.is_empty()), (1, true));
    }

    proptest! {
        #[test]
        fn each_line_keeps_its_order_and_nothing_is_left_over(
            pushes in prop::collection::vec((0_u32..4, 0_usize..3000), 0..120),
            forgotten in 0_u32..4,
        ) {
            let now = Instant::now();
            let mut queue = Queue::default();
            for (flow, len) in &pushes {
                queue.push(now, *flow, datagram(*len));
            }
            queue.forget(forgotten);
            let out: Vec<(u32, usize)> = std::iter::from_fn(|| queue.pop(Some(now))).map(|(f, d)| (f, d.len())).collect();
            for flow in (0..4).filter(|flow| *flow != forgotten) {
                let of = |all: &[(u32, usize)]| all.iter().filter(|(f, _)| *f == flow).copied().collect::<Vec<_>>();
                prop_assert_eq!(of(&out), of(&pushes));
            }
            prop_assert!(out.iter().all(|(flow, _)| *flow != forgotten));
            prop_assert_eq!((queue.bytes, queue.lines.len(), queue.is_empty()), (0, 0, true));
        }
    }
}
