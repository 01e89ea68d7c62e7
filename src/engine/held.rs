//! A SYN that waits for the far side's answer: the packet itself, no socket, and a watch on whether its
//! sender still wants it.

use smoltcp::time::{Duration, Instant};

/// Senders double the gap between SYNs (RFC 6298 section 5.5); who has been silent for three times the longest
/// gap is gone. The least gap covers stacks that begin with 3 s.
const LEAST_PATIENCE: Duration = Duration::from_secs(7);
const PATIENCE_IN_GAPS: u32 = 3;

#[derive(Debug)]
pub(super) struct Held {
    syn: Box<[u8]>,
    last_syn: Instant,
    gap: Duration,
}

impl Held {
    pub(super) fn new(now: Instant, syn: &[u8]) -> Self {
        Self {
            syn: syn.into(),
            last_syn: now,
            gap: Duration::ZERO,
        }
    }

    /// The SYN came again. Its sender may have chosen another sequence number since, so the newest one counts.
    pub(super) fn repeat(&mut self, now: Instant, syn: &[u8]) {
        // A SYN that a network doubled follows at once and says nothing of the next.
        self.gap = self.gap.max(now - self.last_syn);
        self.last_syn = now;
        if *self.syn != *syn {
            self.syn = syn.into();
        }
    }

    pub(super) fn syn(&self) -> &[u8] {
        &self.syn
    }

    /// When the sender counts as gone unless another SYN comes.
    pub(super) fn gives_up_at(&self) -> Instant {
        self.last_syn + LEAST_PATIENCE.max(self.gap * PATIENCE_IN_GAPS)
    }
}
