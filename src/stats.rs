//! What has happened so far, as counters; what a status shows. Decides nothing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::net::OpenFailure;
use crate::relay::{Outcome, Traffic};

/// Counters over the life of one run.
#[derive(Debug, Default)]
pub struct Stats {
    /// Bytes each way, over all flows.
    pub traffic: Traffic,
    /// Flows that ended in order.
    pub finished: AtomicU64,
    /// Flows that were reset or lost.
    pub broken: AtomicU64,
    /// Requests that the far side did not open.
    pub refused: Refusals,
    /// Requests whose initiator gave up before the answer.
    pub withdrawn: AtomicU64,
}

/// A counter per [`OpenFailure`].
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; OpenFailure::ALL.len()]);

impl Refusals {
    /// How many there were.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|counter| counter.load(Relaxed)).sum()
    }

    /// All counters that are not zero, with their labels.
    pub fn nonzero(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        OpenFailure::ALL
            .iter()
            .map(|&failure| (failure.name(), self.0[failure as usize].load(Relaxed)))
            .filter(|&(_, count)| count > 0)
    }
}

impl Stats {
    /// Counts how a request ended.
    pub fn count(&self, outcome: &Outcome) {
        let counter = match outcome {
            Outcome::Finished => &self.finished,
            Outcome::Broken(_) => &self.broken,
            Outcome::Refused(error) => &self.refused.0[error.failure as usize],
            Outcome::Withdrawn => &self.withdrawn,
        };
        counter.fetch_add(1, Relaxed);
    }
}

impl std::fmt::Display for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        write!(
            f,
            "{} flows finished, {} broken, {} refused, {} withdrawn; {} bytes up, {} bytes down",
            get(&self.finished),
            get(&self.broken),
            self.refused.total(),
            get(&self.withdrawn),
            get(&self.traffic.up),
            get(&self.traffic.down),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::OpenError;

    #[test]
    fn each_failure_has_a_counter_of_its_own() {
        let stats = Stats::default();
        for (times, failure) in OpenFailure::ALL.into_iter().enumerate() {
            for _ in 0..times {
                stats.count(&Outcome::Refused(OpenError::new(failure, "")));
            }
        }
        let all: Vec<_> = stats.refused.nonzero().collect();
        let wanted = OpenFailure::ALL.iter().zip(0..).skip(1);
        assert_eq!(all, wanted.map(|(f, n)| (f.name(), n)).collect::<Vec<_>>());
        assert_eq!(stats.refused.total(), 36);
    }
}
