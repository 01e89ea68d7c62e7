//! What one connection carries, counted by those who do it and read by the pool.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::cut::Cut;
use super::refusal::Refusals;
use super::route::Gate;
use super::turns::{Company, Fed, Turns};
use crate::carrier::error::LostReason;
use crate::carrier::link::next_number;

/// What russh keeps for a channel that we closed before the server did, in bytes (measured: an entry of its
/// channel table with a message queue; the server's CLOSE no longer removes it).
const KEPT_PER_RESET: u64 = 4096;
/// What russh keeps for a refused open, in bytes (one message in a queue that nobody reads after the login).
const KEPT_PER_REFUSAL: u64 = 1024;
/// From when on a person is told of it, in bytes. A connection that another one can replace does not come so far.
const MUCH_KEPT: u64 = 256 << 20;

/// For how long flows that are not read let all in, so that a loss is noticed behind what they leave on the wire.
const SUSPICION: Duration = Duration::from_secs(10);

/// What a flow takes in, in messages, whenever it is to be found out whether a connection that is held up is lost. Before it
/// reads the next one, the session as often as not sends what waits to be sent.
const GLIMPSE: u64 = 2;

/// A data message of at least this many bytes is one of a bulk transfer.
const BULK_MESSAGE: usize = 16 << 10;
/// How long after its last bulk message a connection counts as busy, in milliseconds, unless the flow ends before. On a long
/// path a window comes in one burst for each round trip.
const BUSY_MS: u64 = 200;

/// What the connections of a pool have in common.
#[derive(Debug, Default)]
pub(super) struct Common {
    /// The pool's bell: a channel ended, a flow stalled, or a connection is lost.
    pub(super) changed: Notify,
    company: Arc<Company>,
}

/// The counters of one connection. Plain counters: the pool tolerates values that are a moment old.
#[derive(Debug)]
pub(super) struct Load {
    number: u32,
    born: Instant,
    channels: AtomicUsize,
    stalled: AtomicUsize,
    waiting: AtomicUsize,
    carried: AtomicU64,
    /// When the last bulk message was carried, in milliseconds since `born`, plus one; 0: never, or its flow is over.
    last_bulk: AtomicU64,
    kept: AtomicU64,
    /// Until when it may be lost, in milliseconds since `born`.
    suspected: AtomicU64,
    refusals: Refusals,
    lost: OnceLock<LostReason>,
    cut: Arc<Cut>,
    gate: Arc<Gate>,
    turns: Arc<Turns>,
    /// Rung when the connection is lost.
    over: Notify,
    /// How many messages each flow might have taken in so far to find out whether the connection is lost.
    glimpses: AtomicU64,
    /// The connection is to end, or has ended: no flow may hold the session up.
    leaving: AtomicBool,
    /// Rung when a channel joins, a flow is read again, or the goodbye is to be said.
    joined: Notify,
    common: Arc<Common>,
}

impl Load {
    pub(super) fn new(common: Arc<Common>) -> Self {
        Self {
            number: next_number(),
            born: Instant::now(),
            channels: AtomicUsize::new(0),
            stalled: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            carried: AtomicU64::new(0),
            last_bulk: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            suspected: AtomicU64::new(0),
            refusals: Refusals::default(),
            lost: OnceLock::new(),
            cut: Arc::default(),
            gate: Arc::default(),
            turns: Arc::new(Turns::new(Arc::clone(&common.company))),
            glimpses: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            over: Notify::new(),
            joined: Notify::new(),
            common,
        }
    }

    /// The connection's number.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// When the connection was made.
    pub(super) fn born(&self) -> Instant {
        self.born
    }

    /// Channels pending, open, or waiting for the server's CLOSE.
    pub(super) fn channels(&self) -> usize {
        self.channels.load(Relaxed)
    }

    /// Flows whose backlog is at its bound: each stops the connection's reader.
    pub(super) fn stalled(&self) -> usize {
        self.stalled.load(Relaxed)
    }

    /// Flows that are not read fast enough. As long as there are no others on the connection, they leave what arrives on
    /// the wire; new flows keep away.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Payload carried both ways, in bytes.
    pub(super) fn carried(&self) -> u64 {
        self.carried.load(Relaxed)
    }

    /// Memory that russh will not give back while the connection lives, in bytes, about.
    pub(super) fn kept(&self) -> u64 {
        self.kept.load(Relaxed)
    }

    /// Whether that is so much that a person is to know.
    pub(super) fn keeps_much(&self) -> bool {
        self.kept() > MUCH_KEPT
    }

    /// Where the texts of refused opens are handed over.
    pub(super) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Why the connection is lost, once it is.
    pub(super) fn lost(&self) -> Option<&LostReason> {
        self.lost.get()
    }

    /// Resolves when the connection is lost.
    pub(super) async fn until_lost(&self) {
        // Made before the look: it hears what rings from here on.
        let mut rung = std::pin::pin!(self.over.notified());
        rung.as_mut().enable();
        if self.lost().is_none() {
            rung.await;
        }
    }

    /// Ends the connection.
    pub(super) fn cut(&self) -> &Arc<Cut> {
        &self.cut
    }

    /// Closed while more waits to be sent than should.
    pub(super) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// How much is taken off the wire at a time.
    pub(super) fn turns(&self) -> &Arc<Turns> {
        &self.turns
    }

    /// So many bytes of a message were carried. Returns the time as `last_bulk` has it, if it is one of a bulk transfer.
    pub(super) fn add_carried(&self, bytes: usize) -> Option<u64> {
        self.carried.fetch_add(bytes as u64, Relaxed);
        (bytes >= BULK_MESSAGE).then(|| {
            let now = self.age_ms(Instant::now()) + 1;
            self.last_bulk.store(now, Relaxed);
            now
        })
    }

    /// Whether a bulk transfer is going on: whatever shares the connection waits behind its bytes.
    pub(super) fn is_busy(&self, now: Instant) -> bool {
        let last_bulk = self.last_bulk.load(Relaxed);
        last_bulk > 0 && self.age_ms(now).saturating_sub(last_bulk - 1) < BUSY_MS
    }

    fn age_ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).as_millis() as u64
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
        self.over.notify_waiters();
        self.common.changed.notify_one();
    }

    /// Counts a channel until the guard is dropped.
    pub(super) fn channel(self: &Arc<Self>) -> ChannelGuard {
        self.channels.fetch_add(1, Relaxed);
        self.joined.notify_waiters();
        ChannelGuard {
            load: Arc::clone(self),
            last_bulk: AtomicU64::new(0),
        }
    }

    /// The connection is about to be ended, or was by the far side: what arrives is taken off the wire, or the session would
    /// wait in front of a flow that nobody reads and never come to the goodbye, or to the end.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Relaxed);
        self.joined.notify_waiters();
    }

    /// It may be lost, as another one to the same server is: what arrives is taken off the wire for a while.
    pub(super) fn suspect(&self) {
        let until = self.age_ms(Instant::now() + SUSPICION);
        self.suspected.store(until, Relaxed);
        self.joined.notify_waiters();
    }

    fn is_suspected(&self) -> bool {
        self.age_ms(Instant::now()) < self.suspected.load(Relaxed)
    }

    /// Whether all channels wait to be read: the session waits with them.
    pub(super) fn is_held_up(&self) -> bool {
        self.channels() <= self.waiting()
    }

    /// Each flow that holds the session up takes in a little, so that the session gets to send.
    pub(super) fn glimpse(&self) {
        self.glimpses.fetch_add(GLIMPSE, Relaxed);
        self.joined.notify_waiters();
    }

    /// How many messages a flow might have taken in so far, for [`shared_by_others`](Self::shared_by_others).
    pub(super) fn glimpses(&self) -> u64 {
        self.glimpses.load(Relaxed)
    }

    /// Resolves when the connection has something to do beside the channels that wait to be read: another one, the goodbye, or
    /// to find out whether it is lost. `taken` is how many of the glimpses the flow has had.
    pub(super) async fn shared_by_others(&self, taken: &mut u64) {
        loop {
            // Made before the look: it hears what rings from here on.
            let joined = self.joined.notified();
            if !self.is_held_up() || self.leaving.load(Relaxed) || self.is_suspected() {
                return;
            }
            if *taken < self.glimpses() {
                *taken += 1;
                return;
            }
            joined.await;
        }
    }

    /// Counts a flow that is not read fast enough, until the guard is dropped.
    pub(super) fn wait(self: &Arc<Self>) -> WaitGuard {
        if self.waiting.fetch_add(1, Relaxed) == 0 {
            self.common.changed.notify_one();
        }
        WaitGuard(Arc::clone(self))
    }

    /// Counts a flow at its bound until the guard is dropped.
    pub(super) fn stall(self: &Arc<Self>) -> StallGuard {
        self.stalled.fetch_add(1, Relaxed);
        self.common.changed.notify_one();
        StallGuard(Arc::clone(self))
    }
}

/// One channel of a connection.
#[derive(Debug)]
pub(super) struct ChannelGuard {
    load: Arc<Load>,
    /// As the connection's, of what this flow received.
    last_bulk: AtomicU64,
}

impl ChannelGuard {
    /// The connection's counters.
    pub(super) fn load(&self) -> &Arc<Load> {
        &self.load
    }

    /// The flow has got a message of so many bytes.
    pub(super) fn add_received(&self, bytes: usize, flow: &mut Fed) {
        if let Some(now) = self.load.add_carried(bytes) {
            self.last_bulk.store(now, Relaxed);
            self.load.turns.feed(flow);
        } else {
            self.load.turns.keep_company(flow);
        }
    }

    /// The flow will probably receive no more; if it does, that counts again. Where the last bulk transfer was its download,
    /// the connection is free for the next flow at once, and that is best off there: TCP has found out what the path takes.
    /// Of downloads of 1 MB in turn over 100 ms the second took 0.8 s on another connection, and 0.3 s on the same.
    pub(super) fn download_is_over(&self) {
        let mine = self.last_bulk.load(Relaxed);
        // An error means that another flow has received since.
        let last = &self.load.last_bulk;
        let _ = last.compare_exchange(mine, 0, Relaxed, Relaxed);
    }
}

impl Drop for ChannelGuard {
    fn drop(&mut self) {
        // The pool only waits for the last one, to let a retired connection go.
        if self.load.channels.fetch_sub(1, Relaxed) == 1 {
            self.load.common.changed.notify_one();
        }
    }
}

/// One flow that is not read fast enough.
#[derive(Debug)]
pub(super) struct WaitGuard(Arc<Load>);

impl Drop for WaitGuard {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
        self.0.joined.notify_waiters();
    }
}

/// One flow at its bound.
#[derive(Debug)]
pub(super) struct StallGuard(Arc<Load>);

impl Drop for StallGuard {
    fn drop(&mut self) {
        self.0.stalled.fetch_sub(1, Relaxed);
        self.0.common.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_glimpse_is_a_few_messages_of_each_flow_that_holds_the_session_up() {
        let load = Arc::new(Load::new(Arc::default()));
        let (_channel, _waiting) = (load.channel(), load.wait());
        let mut taken = load.glimpses();
        let mut may_take = async || {
            let shared = load.shared_by_others(&mut taken);
            tokio::time::timeout(Duration::from_secs(1), shared)
                .await
                .is_ok()
        };
        assert!(!may_take().await);
        load.glimpse();
        for _ in 0..GLIMPSE {
            assert!(may_take().await);
        }
        assert!(!may_take().await);
        let _other = load.channel();
        assert!(may_take().await);
    }

    #[test]
    fn what_is_kept_is_much_from_some_time_on() {
        let load = Load::new(Arc::default());
        for _ in 0..MUCH_KEPT / KEPT_PER_RESET {
            load.add_reset();
        }
        assert!(!load.keeps_much());
        load.add_refusal();
        assert!(load.keeps_much());
    }

    #[test]
    fn a_download_is_over_with_its_own_flow() {
        let load = Arc::new(Load::new(Arc::default()));
        let is_busy = || load.is_busy(Instant::now());
        let (download, other) = (load.channel(), load.channel());
        let mut fed = Fed::default();
        download.add_received(BULK_MESSAGE - 1, &mut fed);
        assert!(!is_busy());
        download.add_received(BULK_MESSAGE, &mut fed);
        other.add_received(1, &mut fed);
        other.download_is_over();
        assert!(is_busy());
        download.download_is_over();
        assert!(!is_busy());
        download.add_received(BULK_MESSAGE, &mut fed);
        assert!(is_busy());
        assert!(!load.is_busy(Instant::now() + Duration::from_millis(2 * BUSY_MS)));
    }

    #[test]
    fn an_upload_is_not_over_when_its_last_bytes_are_handed_over() {
        let load = Arc::new(Load::new(Arc::default()));
        let upload = load.channel();
        load.add_carried(BULK_MESSAGE);
        upload.download_is_over();
        assert!(load.is_busy(Instant::now()));
    }
}
