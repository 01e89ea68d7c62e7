//! What one connection carries, counted by those who do it and read by the pool.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::Notify;

use super::error::LostReason;

/// What russh keeps for a channel that we closed before the server did, in bytes (measured: an entry of its
/// channel table with a message queue; the server's CLOSE no longer removes it).
const KEPT_PER_RESET: u64 = 4096;
/// What russh keeps for a refused open, in bytes (one message in a queue that nobody reads after the login).
const KEPT_PER_REFUSAL: u64 = 1024;

/// Flows at the same time above which a second connection is worth its login: measured with 8 flows, two
/// connections carry 1.1 times the download and 1.4 times the upload of one.
pub(super) const FLOWS_FOR_TWO: usize = 2;

/// The counters of one connection. Plain counters: the pool tolerates values that are a moment old.
#[derive(Debug)]
pub(super) struct Load {
    born: Instant,
    channels: AtomicUsize,
    flows: AtomicUsize,
    stalled: AtomicUsize,
    carried: AtomicU64,
    kept: AtomicU64,
    lost: OnceLock<LostReason>,
    /// Rung when a second channel joins the first.
    joined: Notify,
    /// The pool's bell: a channel ended, a flow stalled, or the connection is lost.
    changed: Arc<Notify>,
}

impl Load {
    pub(super) fn new(changed: Arc<Notify>) -> Self {
        Self {
            born: Instant::now(),
            channels: AtomicUsize::new(0),
            flows: AtomicUsize::new(0),
            stalled: AtomicUsize::new(0),
            carried: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            lost: OnceLock::new(),
            joined: Notify::new(),
            changed,
        }
    }

    /// When the connection was made.
    pub(super) fn born(&self) -> Instant {
        self.born
    }

    /// Channels pending, open, or waiting for the server's CLOSE.
    pub(super) fn channels(&self) -> usize {
        self.channels.load(Relaxed)
    }

    /// Channels that an application uses now.
    pub(super) fn flows(&self) -> usize {
        self.flows.load(Relaxed)
    }

    /// Flows whose backlog is at its bound: each stops the connection's reader.
    pub(super) fn stalled(&self) -> usize {
        self.stalled.load(Relaxed)
    }

    /// Payload carried both ways, in bytes.
    pub(super) fn carried(&self) -> u64 {
        self.carried.load(Relaxed)
    }

    /// Memory that russh will not give back while the connection lives, in bytes, about.
    pub(super) fn kept(&self) -> u64 {
        self.kept.load(Relaxed)
    }

    /// Why the connection is lost, once it is.
    pub(super) fn lost(&self) -> Option<&LostReason> {
        self.lost.get()
    }

    pub(super) fn add_carried(&self, bytes: usize) {
        self.carried.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn add_reset(&self) {
        self.kept.fetch_add(KEPT_PER_RESET, Relaxed);
    }

    pub(super) fn add_refusal(&self) {
        self.kept.fetch_add(KEPT_PER_REFUSAL, Relaxed);
    }

    /// The first reason stays.
    pub(super) fn set_lost(&self, reason: LostReason) {
        // An error means that a reason is already there.
        let _ = self.lost.set(reason);
        self.changed.notify_one();
    }

    /// Counts a channel until the guard is dropped.
    pub(super) fn channel(self: &Arc<Self>) -> ChannelGuard {
        if self.channels.fetch_add(1, Relaxed) == 1 {
            self.joined.notify_waiters();
        }
        ChannelGuard(Arc::clone(self))
    }

    /// Resolves when the connection has more than one channel.
    pub(super) async fn shared_by_others(&self) {
        loop {
            // Made before the look: it hears what rings from here on.
            let joined = self.joined.notified();
            if self.channels() > 1 {
                return;
            }
            joined.await;
        }
    }

    /// Counts a flow until the guard is dropped.
    pub(super) fn flow(self: &Arc<Self>) -> FlowGuard {
        if self.flows.fetch_add(1, Relaxed) == FLOWS_FOR_TWO {
            self.changed.notify_one();
        }
        FlowGuard(Arc::clone(self))
    }

    /// Counts a flow at its bound until the guard is dropped.
    pub(super) fn stall(self: &Arc<Self>) -> StallGuard {
        self.stalled.fetch_add(1, Relaxed);
        self.changed.notify_one();
        StallGuard(Arc::clone(self))
    }
}

/// One channel of a connection.
#[derive(Debug)]
pub(super) struct ChannelGuard(Arc<Load>);

impl ChannelGuard {
    /// The connection's counters.
    pub(super) fn load(&self) -> &Arc<Load> {
        &self.0
    }
}

impl Drop for ChannelGuard {
    fn drop(&mut self) {
        // The pool only waits for the last one, to let a retired connection go.
        if self.0.channels.fetch_sub(1, Relaxed) == 1 {
            self.0.changed.notify_one();
        }
    }
}

/// One flow in use.
#[derive(Debug)]
pub(super) struct FlowGuard(Arc<Load>);

impl Drop for FlowGuard {
    fn drop(&mut self) {
        self.0.flows.fetch_sub(1, Relaxed);
    }
}

/// One flow at its bound.
#[derive(Debug)]
pub(super) struct StallGuard(Arc<Load>);

impl Drop for StallGuard {
    fn drop(&mut self) {
        self.0.stalled.fetch_sub(1, Relaxed);
        self.0.changed.notify_one();
    }
}
