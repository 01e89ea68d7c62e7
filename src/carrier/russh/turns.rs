//! How much one connection takes off the wire before the other tasks of its thread get their turn.
//!
//! While its session reads, whatever else the process carries waits, so a turn is short where somebody waits: an echo beside a
//! download took 0.52 ms with turns of 256 KiB, 0.39 with 128 and 0.26 with 64 (medians of 5 or 6 rounds; `ssh -L` 0.39), and the
//! download 3 % more CPU. But a turn is shared by all flows that it feeds: one that gets less than a packet's worth
//! wakes its application for little each time. So it grows with the number of flows that are fed (8 downloads: 0.98 -> 1.2 of
//! `ssh -L`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What a turn takes for a flow alone, in bytes, while nobody else carries anything.
const ALONE: usize = 256 << 10;
/// What it takes for it beside others that carry little.
const IN_COMPANY: usize = 64 << 10;
/// What it takes for each of several, whose packets mix on the wire.
const SHARE: usize = 512 << 10;
/// So many flows at most make a turn longer: 2 MiB, about 2 ms of a fast connection.
const MOST_FLOWS: usize = 4;
/// Company is remembered for so many turns, at least a tenth of a second: who waits asks again.
const REMEMBERED: usize = 2048;
/// A flow that was fed within so many turns is a bulk transfer still, though a message of it is small.
const BULK_TURNS: u64 = 64;

/// What the flows of all connections that carry little have received, in messages.
#[derive(Debug, Default)]
pub(super) struct Company(AtomicU64);

/// The turns of one connection.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The number of the turn that goes on.
    current: AtomicU64,
    /// Bulk flows that were fed in it.
    fed: AtomicUsize,
    company: Arc<Company>,
    /// What was heard of the company, and for how many more turns it is remembered.
    heard: AtomicU64,
    remembered: AtomicUsize,
}

/// The last turn in which a flow was counted; one per flow.
#[derive(Debug, Default)]
pub(super) struct Fed(Option<u64>);

impl Turns {
    pub(super) fn new(company: Arc<Company>) -> Self {
        Self {
            company,
            ..Self::default()
        }
    }

    /// A flow has got bytes of a bulk transfer.
    pub(super) fn feed(&self, flow: &mut Fed) {
        let current = self.current.load(Relaxed);
        if flow.0 != Some(current) {
            flow.0 = Some(current);
            self.fed.fetch_add(1, Relaxed);
        }
    }

    /// A flow has got a small message.
    pub(super) fn keep_company(&self, flow: &Fed) {
        let current = self.current.load(Relaxed);
        if flow.0.is_none_or(|fed| current - fed > BULK_TURNS) {
            self.company.0.fetch_add(1, Relaxed);
        }
    }

    /// Ends a turn; what the next one may take, in bytes.
    pub(super) fn next(&self) -> usize {
        self.current.fetch_add(1, Relaxed);
        let has_company = self.has_company();
        match self.fed.swap(0, Relaxed) {
            0 | 1 if has_company => IN_COMPANY,
            0 | 1 => ALONE,
            flows => SHARE * flows.min(MOST_FLOWS),
        }
    }

    fn has_company(&self) -> bool {
        let heard = self.company.0.load(Relaxed);
        let remembered = match self.heard.swap(heard, Relaxed) == heard {
            true => self.remembered.load(Relaxed).saturating_sub(1),
            false => REMEMBERED,
        };
        self.remembered.store(remembered, Relaxed);
        remembered > 0
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

    #[test]
    fn a_turn_is_short_while_another_flow_carries_little() {
        let company = Arc::<Company>::default();
        let [busy, other] = [(); 2].map(|()| Turns::new(Arc::clone(&company)));
        let mut download = Fed::default();
        busy.feed(&mut download);
        assert_eq!(busy.next(), ALONE);
        // A small message of the download is none of somebody else's.
        busy.keep_company(&download);
        assert_eq!(busy.next(), ALONE);
        other.keep_company(&Fed::default());
        for _ in 0..REMEMBERED {
            busy.feed(&mut download);
            assert_eq!(busy.next(), IN_COMPANY);
        }
        assert_eq!(busy.next(), ALONE);
        // Several downloads share longer ones all the same.
        other.keep_company(&Fed::default());
        (0..2).for_each(|_| busy.feed(&mut Fed::default()));
        assert_eq!(busy.next(), 2 * SHARE);
        assert_eq!(busy.next(), IN_COMPANY);
    }

    #[test]
    fn a_download_that_is_long_over_is_company() {
        let turns = Turns::default();
        let mut flow = Fed::default();
        turns.feed(&mut flow);
        (0..=BULK_TURNS).for_each(|_| assert_eq!(turns.next(), ALONE));
        turns.keep_company(&flow);
        assert_eq!(turns.next(), IN_COMPANY);
    }
}
