//! How much a server may send before it hears from us again.
//!
//! # Theory of operation
//!
//! A window is memory twice: in our queues when nobody reads, and in the output buffer of the ssh process that
//! carries us, which takes everything off the wire and slows down when that buffer is large. So on a
//! short path windows are small: [`SINGLE`] for one busy channel, [`SHARED`] over all busy channels.
//!
//! On a long path such a window caps the rate at one window per round trip. There a channel's window follows what the
//! application has taken in a round trip, as Linux sizes a TCP receive buffer (dynamic right-sizing), and is up to twice
//! that, but [`SPARE`] more at most, over all busy channels. So it grows while it is what limits the rate, and when anything
//! else does it stops that much above the bandwidth-delay product. What is spare waits in front of the slowest, and where
//! that is the ssh process, in its output buffer, which it copies whole for each packet by which that becomes larger than it
//! ever was (sshbuf.c, sshbuf_allocate): 2 MiB cost it 0.1 s once, 16 MiB ten seconds, and half of that or less since they are on
//! the heap (`openssh/client.rs`). Little of what is [`SLOW`] waits there, and it may have [`SPARE_SLOW`]: on a path that takes
//! `d` longer than its shortest round trip the spare bytes are what comes in `d`, so 670 Mbit/s at 50 ms. Where it takes twice
//! its shortest, nothing grows.
//!
//! The round trip that counts is the shortest of the last half minute or minute, so a queue that we cause ourselves does not
//! look like a long path. One that stands for longer would: so every half minute (or 64 round trips) in which something comes
//! windows are a quarter for two round trips, which lets it run empty, as BBR does to find the path below its own queue
//! (ProbeRTT).
//!
//! Windows that were granted cannot be taken back: a target that shrinks is reached by not granting. And on a long path they
//! are not granted in one burst (`pace.rs`).
//!
//! # Bounds
//!
//! | what | bytes |
//! |---|---|
//! | a new channel's window | [`INITIAL`]: the more is promised, the less, 32 KiB at least |
//! | one channel; all busy ones | 16 MiB, 1.3 Gbit/s at 100 ms; 24 MiB: what ssh may have to copy if it is stopped for a round trip |
//! | a channel of datagrams | 4 MiB from its beginning: sshd drops what does not fit the window, so it is no brake there |
//! | beyond the initial windows, over all channels | 256 MiB, after which channels fall back to their initial ones |
//!
//! Nothing here reads a clock.

use std::time::{Duration, Instant};

use super::pace::{Pace, Part};

const KIB: u32 = 1024;
const MIB: u32 = 1024 * KIB;

/// Over all busy channels on a short path.
const SHARED: u32 = 4 * MIB;
/// A busy channel on a short path, at most and at least.
const SINGLE: u32 = MIB;
const LEAST: u32 = 64 * KIB;

/// Over all busy channels on a long path, and for one.
const SHARED_LONG: u32 = 24 * MIB;
const SINGLE_LONG: u32 = 16 * MIB;
/// What all busy channels on a long path may have beyond what the path holds, and what they may have while together they are
/// slower than [`SLOW`].
const SPARE: u32 = 2 * MIB;
const SPARE_SLOW: u32 = 4 * MIB;
/// Bytes a second (1.2 Gbit/s) that ssh keeps up with.
const SLOW: u128 = 150_000_000;

/// What is promised by initial windows in all, and the initial window up to there.
const INITIAL: [(u64, u32); 3] = [
    (16 * MIB as u64, SINGLE),
    (32 * MIB as u64, 256 * KIB),
    (64 * MIB as u64, 64 * KIB),
];
const INITIAL_LEAST: u32 = 32 * KIB;

/// A channel of datagrams, always: a round trip of 100 ms at 300 Mbit/s.
const DATAGRAMS: u32 = 4 * MIB;

/// What may be promised beyond the initial windows.
const MAX_EXCESS: u64 = 256 * MIB as u64;

/// A shorter round trip needs no window above the share.
const LONG: Duration = Duration::from_millis(5);

/// Grants are gathered up to so much: a message for each packet would cost more than it brings.
const MAX_STEP: u32 = 128 * KIB;

/// Who has received so much in an epoch is busy.
const BUSY: u32 = 64 * KIB;
const EPOCH: Duration = Duration::from_millis(100);

/// How long a shortest round trip is believed, at least; at most twice as long.
const BELIEVED: Duration = Duration::from_secs(30);
/// And at least so many times itself, so that what it takes to see it costs little.
const BELIEVED_TIMES: u32 = 64;

/// For how long windows are made small to see the path, at most.
const SMALL: Duration = Duration::from_secs(8);

/// What one connection has promised, and what is known of its path.
#[derive(Debug, Default)]
pub struct Budget {
    round_trip: RoundTrip,
    epoch: Epoch,
    initial: u64,
    excess: u64,
    /// When something came last.
    received: Option<Instant>,
    /// Until when windows are small, so that the path is seen without our own queue.
    small_until: Option<Instant>,
}

/// A channel's part of the budget.
#[derive(Debug)]
pub(super) struct Flow {
    initial: u32,
    /// The first window is what it stays at.
    is_fixed: bool,
    /// What the channel's own rate asks for.
    wanted: u32,
    excess: u32,
    epoch: u64,
    received_in_epoch: u32,
    /// Bytes received in all.
    received: u64,
    probe: Option<Probe>,
    period: Option<Period>,
    pace: Pace,
}

/// Window was granted at `since`; without it nothing beyond `edge` could come.
#[derive(Clone, Copy, Debug)]
struct Probe {
    edge: u64,
    since: Instant,
}

/// What the application has taken since a moment.
#[derive(Clone, Copy, Debug)]
struct Period {
    since: Instant,
    bytes: u64,
}

impl Budget {
    /// The part of a new channel, and with it its first window.
    pub(super) fn admit(&mut self) -> Flow {
        let tier = INITIAL.iter().find(|(below, _)| self.initial < *below);
        self.promise(tier.map_or(INITIAL_LEAST, |(_, window)| *window), false)
    }

    /// The part of a new channel of datagrams.
    pub(super) fn admit_datagrams(&mut self) -> Flow {
        self.promise(DATAGRAMS, true)
    }

    fn promise(&mut self, initial: u32, is_fixed: bool) -> Flow {
        self.initial += u64::from(initial);
        Flow {
            initial,
            is_fixed,
            wanted: initial,
            excess: 0,
            epoch: 0,
            received_in_epoch: 0,
            received: 0,
            probe: None,
            period: None,
            pace: Pace::default(),
        }
    }

    /// The channel is gone.
    pub(super) fn release(&mut self, flow: &Flow) {
        self.initial -= u64::from(flow.initial);
        self.excess -= u64::from(flow.excess);
    }

    /// An answer has come for what was asked at `since`: the path is no longer than that.
    pub(super) fn answered(&mut self, now: Instant, since: Instant) {
        let taken = now.saturating_duration_since(since);
        let has_turned = self.round_trip.sample(now, taken);
        // What was believed may have been the time of an open that the far side had to give up.
        self.small_until = self.small_until.map(|until| until.min(now + taken * 2));
        let Some(path) = self.round_trip.shortest() else {
            return;
        };
        let may_queue = self
            .received
            .is_some_and(|at| now.saturating_duration_since(at) < path * 2);
        if has_turned && may_queue {
            self.small_until = Some(now + SMALL.min(path * 2));
        }
    }

    /// `length` bytes have come.
    pub(super) fn received(&mut self, now: Instant, flow: &mut Flow, length: u32) {
        flow.received += u64::from(length);
        if let Some(probe) = flow.probe
            && flow.received > probe.edge
        {
            flow.probe = None;
            self.answered(now, probe.since);
        }
        self.received = Some(now);
        self.epoch.roll(now, self.round_trip.shortest());
        if flow.epoch != self.epoch.number {
            flow.epoch = self.epoch.number;
            flow.received_in_epoch = 0;
        }
        let before = flow.received_in_epoch;
        flow.received_in_epoch = before.saturating_add(length);
        if before < BUSY && flow.received_in_epoch >= BUSY {
            self.epoch.busy += 1;
        }
    }

    /// The application has taken `length` bytes: what its rate asks for.
    pub(super) fn consumed(&mut self, now: Instant, flow: &mut Flow, length: u32) {
        let since = now;
        let period = flow.period.get_or_insert(Period { since, bytes: 0 });
        period.bytes += u64::from(length);
        let Some(path) = self.round_trip.shortest() else {
            return;
        };
        let elapsed = now.saturating_duration_since(period.since);
        if elapsed < path.max(LONG) {
            return;
        }
        let held_by_path = u128::from(period.bytes) * path.as_nanos() / elapsed.as_nanos();
        let held_by_path = u32::try_from(held_by_path).unwrap_or(u32::MAX);
        flow.period = Some(Period { since, bytes: 0 });
        // What is taken after windows were small is what they let through.
        if !self.is_small(now.checked_sub(elapsed + path)) {
            let busy = self.epoch.busy();
            let all = u128::from(held_by_path) * u128::from(busy);
            let is_slow = all * 1_000_000_000 < SLOW * path.as_nanos();
            let spare = if is_slow { SPARE_SLOW } else { SPARE };
            flow.follow(held_by_path, spare / busy);
        }
    }

    /// How much to grant a channel now whose peer may send `open` bytes more, while `held` bytes wait for the
    /// application; 0 for nothing yet. And when to ask again, if not only once more is consumed. `open` and `held` together
    /// never exceed the bounds above.
    pub(super) fn grant(&mut self, now: Instant, flow: &mut Flow, open: u32, held: u32) -> Part {
        let promised = open.saturating_add(held);
        let target = self.target(now, flow);
        let grant = target.saturating_sub(promised);
        let part = match self.round_trip.shortest() {
            _ if grant < MAX_STEP.min(target / 4) => Part::whole(0),
            Some(path) if path >= LONG && !flow.is_fixed => {
                flow.pace.part(now, path, target, grant, MAX_STEP)
            }
            _ => Part::whole(grant),
        };
        self.settle(flow, promised + part.bytes);
        part
    }

    /// The grant of a channel that may now send `open` bytes more leaves at `now`.
    pub(super) fn granted(&self, now: Instant, flow: &mut Flow, open: u32, grant: u32) {
        if flow.probe.is_none() {
            let edge = flow.received + u64::from(open.saturating_sub(grant));
            flow.probe = Some(Probe { edge, since: now });
        }
    }

    /// What one flow alone may be granted on a path of this round trip.
    pub fn window(round_trip: Duration) -> u32 {
        match round_trip < LONG {
            true => SINGLE,
            false => SINGLE_LONG,
        }
    }

    /// The shortest round trip seen of late.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.shortest()
    }

    /// Bytes that the server may send or that wait for the application, over all channels, at most.
    pub fn promised(&self) -> u64 {
        self.initial + self.excess
    }

    fn target(&self, now: Instant, flow: &Flow) -> u32 {
        if flow.is_fixed || self.excess >= MAX_EXCESS {
            return flow.initial;
        }
        let busy = self.epoch.busy();
        let share = (SHARED / busy).clamp(LEAST, SINGLE);
        if self.round_trip.shortest().is_none_or(|path| path < LONG) {
            return share;
        }
        let most = (SHARED_LONG / busy).clamp(share, SINGLE_LONG);
        let target = flow.wanted.clamp(share, most);
        match self.is_small(Some(now)) {
            true => target / 4,
            false => target,
        }
    }

    fn is_small(&self, at: Option<Instant>) -> bool {
        self.small_until
            .zip(at)
            .is_some_and(|(until, at)| at < until)
    }

    fn settle(&mut self, flow: &mut Flow, promised: u32) {
        let excess = promised.saturating_sub(flow.initial);
        self.excess = self.excess - u64::from(flow.excess) + u64::from(excess);
        flow.excess = excess;
    }
}

impl Flow {
    pub(super) fn initial(&self) -> u32 {
        self.initial
    }

    /// Moves what is wanted towards what was taken in a round trip and `spare` beyond: up at once, down slowly.
    fn follow(&mut self, held_by_path: u32, spare: u32) {
        let wanted = held_by_path.saturating_add(held_by_path.min(spare));
        if wanted >= self.wanted {
            self.wanted = wanted.min(SINGLE_LONG);
        } else {
            self.wanted -= (self.wanted - wanted).min(self.wanted / 8);
        }
    }
}

/// The shortest round trip of a connection in the last [`BELIEVED`] to twice that.
#[derive(Debug, Default)]
struct RoundTrip {
    current: Option<Duration>,
    previous: Option<Duration>,
    since: Option<Instant>,
}

impl RoundTrip {
    /// Whether it is time to believe something new.
    fn sample(&mut self, now: Instant, taken: Duration) -> bool {
        let since = *self.since.get_or_insert(now);
        let believed = BELIEVED.max(self.shortest().unwrap_or_default() * BELIEVED_TIMES);
        let has_turned = now.saturating_duration_since(since) > believed;
        if has_turned {
            self.previous = self.current.take();
            self.since = Some(now);
        }
        self.current = Some(self.current.map_or(taken, |shortest| shortest.min(taken)));
        has_turned
    }

    fn shortest(&self) -> Option<Duration> {
        [self.current, self.previous].into_iter().flatten().min()
    }
}

/// Counts the busy channels of a stretch of time. The count of the stretch before keeps it from falling to nothing at
/// each turn.
#[derive(Debug, Default)]
struct Epoch {
    number: u64,
    since: Option<Instant>,
    busy: u32,
    busy_before: u32,
}

impl Epoch {
    fn roll(&mut self, now: Instant, path: Option<Duration>) {
        let length = path.map_or(EPOCH, |path| EPOCH.max(path * 2));
        let since = *self.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        if elapsed < length {
            return;
        }
        // After a silence nobody was busy in the stretch before.
        self.busy_before = if elapsed < length * 2 { self.busy } else { 0 };
        self.busy = 0;
        self.number += 1;
        self.since = Some(now);
    }

    fn busy(&self) -> u32 {
        self.busy.max(self.busy_before).max(1)
    }
}
