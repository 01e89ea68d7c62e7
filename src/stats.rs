//! What has happened so far, as counters; what a status shows. Decides nothing.

use std::sync::atomic::{AtomicU64, Ordering};

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
    pub refused: AtomicU64,
    /// Requests whose initiator gave up before the answer.
    pub withdrawn: AtomicU64,
}

impl Stats {
    /// Counts how a request ended.
    pub fn count(&self, outcome: &Outcome) {
        let counter = match outcome {
            Outcome::Finished => &self.finished,
            Outcome::Broken(_) => &self.broken,
            Outcome::Refused(_) => &self.refused,
            Outcome::Withdrawn => &self.withdrawn,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl std::fmt::Display for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        write!(
            f,
            "{} flows finished, {} broken, {} refused, {} withdrawn; {} bytes up, {} bytes down",
            get(&self.finished),
            get(&self.broken),
            get(&self.refused),
            get(&self.withdrawn),
            get(&self.traffic.up),
            get(&self.traffic.down),
        )
    }
}
