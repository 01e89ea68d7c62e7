//! The log's lines, with the server's name in front: down, why not up again yet, and up again.

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
    /// Who was lost.
    server: String,
    since: Instant,
    told: Option<Instant>,
    tries: u32,
}

impl Teller {
    pub(super) fn lost(server: String, since: Instant, why: &LostReason, streams: usize) -> Self {
        let s = if streams == 1 { "" } else { "s" };
        warn!(
            "{server}: connection lost: {why}; {streams} open connection{s} reset, new ones wait"
        );
        Self {
            server,
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
        let line = self.not_yet(now, error, wait);
        if is_time {
            self.told = Some(now);
            info!("{line}");
        } else {
            debug!("{line}");
        }
    }

    fn not_yet(&self, now: Instant, error: &ConnectError, wait: Duration) -> String {
        let Self { server, tries, .. } = self;
        let tries = match tries {
            1 => "1 try".to_owned(),
            tries => format!("{tries} tries"),
        };
        let (down, wait) = ((now - self.since).as_secs_f32(), wait.as_secs_f32());
        let error = error.to_string();
        // Most of them begin with it, too.
        let error = error.strip_prefix(&format!("{server}: ")).unwrap_or(&error);
        format!("{server}: down for {down:.1} s, {tries}, reconnecting in {wait:.1} s: {error}")
    }

    pub(super) fn needs_person(&self, error: &ConnectError) {
        warn!("{}: login needs you: {error}", self.server);
    }

    pub(super) fn up(&self, description: &Description) {
        let took = (Instant::now() - self.since).as_secs_f32();
        let at = if description.server.is_some() {
            " at"
        } else {
            ""
        };
        info!(
            "{}: up again after {took:.1} s{at} {description}",
            self.server
        );
    }
}
