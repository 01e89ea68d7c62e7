//! The log's lines: down, why not up again yet, and up again.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::carrier::error::{ConnectError, LostReason};
use crate::carrier::link::Description;

/// A loss that is made good within this time needs no word on why it takes so long.
const QUIET: Duration = Duration::from_secs(1);
/// Between two lines about what is in the way.
const AGAIN: Duration = Duration::from_secs(60);

/// Tells of one loss.
#[derive(Debug)]
pub(super) struct Teller {
    since: Instant,
    told: Option<Instant>,
    tries: u32,
}

impl Teller {
    pub(super) fn lost(since: Instant, why: &LostReason, streams: usize) -> Self {
        let s = if streams == 1 { "" } else { "s" };
        warn!("connection lost: {why}; {streams} open connection{s} reset, new ones wait");
        Self {
            since,
            told: None,
            tries: 0,
        }
    }

    /// Since when there is no link.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn failed(&mut self, error: &ConnectError, wait: Duration) {
        self.tries += 1;
        let now = Instant::now();
        let is_time = match self.told {
            // Nor is it made good so soon when the next try is far off.
            None => now - self.since >= QUIET || wait >= QUIET,
            Some(told) => now - told >= AGAIN,
        };
        let (tries, wait) = (self.tries, wait.as_secs_f32());
        if is_time {
            self.told = Some(now);
            info!("reconnecting in {wait:.1} s: {error} (attempt {tries})");
        } else {
            debug!("reconnecting in {wait:.1} s: {error} (attempt {tries})");
        }
    }

    pub(super) fn needs_person(error: &ConnectError) {
        warn!("login needs you: {error}");
    }

    pub(super) fn up(&self, description: &Description) {
        let took = (Instant::now() - self.since).as_secs_f32();
        info!("up again after {took:.1} s: {description}");
    }
}
