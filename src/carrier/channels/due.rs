//! Which channels are granted more at what moment.

use std::collections::BTreeSet;
use std::time::Instant;

use super::slots::ChannelId;

/// Moments, at most one for each channel.
#[derive(Debug, Default)]
pub(super) struct Due {
    moments: BTreeSet<(Instant, ChannelId)>,
}

impl Due {
    /// The channel's moment is `at`, and no longer `before`.
    pub(super) fn replace(&mut self, id: ChannelId, before: Option<Instant>, at: Option<Instant>) {
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.moments.remove(&(before, id));
        }
        if let Some(at) = at {
            self.moments.insert((at, id));
        }
    }

    /// The next moment.
    pub(super) fn first(&self) -> Option<Instant> {
        self.moments.first().map(|(at, _)| *at)
    }

    /// A channel whose moment has come. It has none then.
    pub(super) fn pop(&mut self, now: Instant) -> Option<ChannelId> {
        let has_come = self.first()? <= now;
        let first = has_come.then(|| self.moments.pop_first())?;
        first.map(|(_, id)| id)
    }
}
