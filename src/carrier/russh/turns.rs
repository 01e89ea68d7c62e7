//! How much one connection takes off the wire before the other tasks of its thread get their turn.
//!
//! While its session reads, whatever else the process carries waits, so a turn is short. But it is shared by all flows that
//! it feeds: one that gets less than a packet's worth wakes its application for little each time. So a turn grows with the
//! number of flows that are fed (8 downloads: 0.98 -> 1.2 of `ssh -L`; one download is fastest, and an echo beside it
//! has half the latency, with the shortest turn).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What a turn takes for a flow alone, in bytes.
const ALONE: usize = 256 << 10;
/// What it takes for each of several, whose packets mix on the wire.
const SHARE: usize = 512 << 10;
/// So many flows at most make a turn longer: 2 MiB, about 2 ms of a fast connection.
const MOST_FLOWS: usize = 4;

/// The turns of one connection.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The number of the turn that goes on.
    current: AtomicU64,
    /// Bulk flows that were fed in it.
    fed: AtomicUsize,
}

/// The last turn in which a flow was counted; one per flow.
#[derive(Debug, Default)]
pub(super) struct Fed(Option<u64>);

impl Turns {
    /// A flow has got bytes of a bulk transfer.
    pub(super) fn feed(&self, flow: &mut Fed) {
        let current = self.current.load(Relaxed);
        if flow.0 != Some(current) {
            flow.0 = Some(current);
            self.fed.fetch_add(1, Relaxed);
        }
    }

    /// Ends a turn; what the next one may take, in bytes.
    pub(super) fn next(&self) -> usize {
        self.current.fetch_add(1, Relaxed);
        match self.fed.swap(0, Relaxed) {
            0 | 1 => ALONE,
            flows => SHARE * flows.min(MOST_FLOWS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_grows_with_the_flows_that_were_fed() {
        let turns = Turns::default();
        assert_eq!(turns.next(), ALONE);
        let mut flows = [(); 3].map(|()| Fed::default());
        flows.iter_mut().for_each(|flow| turns.feed(flow));
        assert_eq!(turns.next(), 3 * SHARE);
        // A flow counts once in a turn, and again in the next.
        for _ in 0..10 {
            turns.feed(&mut flows[0]);
        }
        assert_eq!(turns.next(), ALONE);
        flows[1..].iter_mut().for_each(|flow| turns.feed(flow));
        assert_eq!(turns.next(), 2 * SHARE);
    }

    #[test]
    fn a_turn_is_bounded() {
        let turns = Turns::default();
        for _ in 0..1000 {
            turns.feed(&mut Fed::default());
        }
        assert_eq!(turns.next(), MOST_FLOWS * SHARE);
    }
}
