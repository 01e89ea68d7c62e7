//! How much of a channel of datagrams may be on its way: as much as the path takes without a queue, and little more.
//!
//! sshd writes one datagram for each turn of its loop, and keeps what has come before in a buffer that it enlarges by 256 bytes at a time,
//! each time with a copy of all of it (sshbuf.c `SSHBUF_SIZE_INC`). Whoever fills its window of 2 MiB faster than it writes
//! makes it copy megabytes for each datagram until that buffer is as large as the window: seconds in which nearly all is lost. And what waits
//! there can no longer be overtaken. So it has to wait here, in `fair.rs`.
//!
//! The grants of the window tell when a datagram was written, which makes of each a sample of the round trip. The shortest one is that
//! of an empty path; what is beyond it is queue. Once a round trip the limit grows where it has kept something back, or becomes what
//! would have left a queue of [`QUEUE`] where there was more: limit · (shortest + queue) / trip, as in FAST TCP (Wei, Jin, Low,
//! Hegde 2006, equation 5).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The longest packets that may be on their way in any case. sshd grants nothing before three of them are used (channels.c
/// `channel_check_window`), and one more has to fit.
const LEAST: u32 = 4;
/// The queue that is aimed at. Where the whole trip is shorter, the least limit makes 200 Mbit/s or more, about what sshd's
/// loop can write: it is not what holds up.
const QUEUE: Duration = Duration::from_millis(5);
/// Bytes between two datagrams whose time is kept, and how many times are.
const STEP: u64 = 4 * 1024;
const MARKS: usize = 1024;
/// How long the shortest trip is believed while every one is longer: the path may have become another.
const BELIEVED: Duration = Duration::from_secs(10);

/// When the bytes up to a place in the channel were sent.
#[derive(Clone, Copy, Debug)]
struct Mark {
    place: u64,
    at: Instant,
}

/// What is on its way, counted as sshd counts it, and how much may be.
#[derive(Debug)]
pub(super) struct Flight {
    least: u64,
    limit: u64,
    sent: u64,
    granted: u64,
    marks: VecDeque<Mark>,
    round: Round,
    phase: Phase,
    /// The shortest trip of all.
    shortest: Option<Duration>,
    /// When a trip was last about as short as that.
    believed: Option<Instant>,
}

/// What was seen while the bytes went that were sent under one limit.
#[derive(Debug, Default)]
struct Round {
    /// It begins when the bytes up to here are granted: when those were sent, less or more was on its way than the limit.
    begin: u64,
    /// It is over when the bytes up to here are granted. Not known before it begins.
    end: Option<u64>,
    /// The shortest trip: one that is longer may be the machine's doing, a queue makes all of them long.
    shortest: Option<Duration>,
    /// Something could not go.
    is_held: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No queue has been seen yet: the limit doubles.
    Starting,
    /// The limit is near where a queue begins.
    Steady,
    /// The shortest trip is not believed any more. The limit is at its least for a round, whose shortest trip is the new one.
    Draining,
}

impl Flight {
    /// Nothing is on its way to a server that takes packets of this length.
    pub(super) fn new(max_packet: u32) -> Self {
        let least = u64::from(max_packet) * u64::from(LEAST);
        Self {
            least,
            limit: least,
            sent: 0,
            granted: 0,
            marks: VecDeque::new(),
            round: Round::default(),
            phase: Phase::Starting,
            shortest: None,
            believed: None,
        }
    }

    /// Bytes that may be sent now.
    pub(super) fn room(&self) -> u64 {
        self.limit.saturating_sub(self.sent - self.granted)
    }

    /// So many bytes were sent.
    pub(super) fn sent(&mut self, now: Instant, bytes: u64) {
        self.sent += bytes;
        let place = self.sent;
        let is_due = (self.marks.back()).is_none_or(|mark| place - mark.place >= STEP);
        if is_due && self.marks.len() < MARKS {
            self.marks.push_back(Mark { place, at: now });
        }
    }

    /// Something waits, where the window has so much room.
    pub(super) fn hold(&mut self, window: u64) {
        self.round.is_held |= self.room() < window;
    }

    /// The server grants so many of them.
    pub(super) fn granted(&mut self, now: Instant, bytes: u64) {
        self.granted = self.granted.saturating_add(bytes).min(self.sent);
        let mut at = None;
        while let Some(mark) = self.marks.front()
            && mark.place <= self.granted
        {
            at = Some(mark.at);
            self.marks.pop_front();
        }
        if let Some(at) = at {
            self.measured(now, now.saturating_duration_since(at));
        }
    }

    fn measured(&mut self, now: Instant, trip: Duration) {
        let shortest = least(self.shortest, trip);
        self.shortest = Some(shortest);
        if trip <= shortest + QUEUE / 2 {
            self.believed = Some(now);
        }
        if self.granted < self.round.begin {
            return;
        }
        let trip = least(self.round.shortest, trip);
        self.round.shortest = Some(trip);
        if self.granted >= *self.round.end.get_or_insert(self.sent) {
            self.adapt(now, shortest, trip);
            self.round = Round {
                begin: self.sent.max(self.granted.saturating_add(self.limit)),
                ..Round::default()
            };
        }
    }

    /// A round is over, whose shortest trip this was.
    fn adapt(&mut self, now: Instant, shortest: Duration, trip: Duration) {
        let is_held = self.round.is_held;
        let believed = *self.believed.get_or_insert(now);
        match self.phase {
            Phase::Draining => {
                self.shortest = Some(trip);
                self.believed = Some(now);
                self.phase = Phase::Starting;
            }
            _ if now.saturating_duration_since(believed) > BELIEVED => {
                self.limit = self.least;
                self.phase = Phase::Draining;
            }
            _ if trip > shortest + QUEUE => {
                let fitting = scaled(self.limit, shortest + QUEUE, trip);
                self.limit = fitting.max(self.limit / 2).max(self.least);
                self.phase = Phase::Steady;
            }
            // With a queue, if a short one, the path is used, and more on its way would only lengthen it.
            _ if !is_held || trip < QUEUE || trip > shortest + QUEUE / 2 => {}
            Phase::Starting => self.limit = self.limit.saturating_mul(2),
            Phase::Steady => self.limit = self.limit.saturating_add(self.limit / 8),
        }
    }
}

fn least(so_far: Option<Duration>, trip: Duration) -> Duration {
    so_far.map_or(trip, |so_far| so_far.min(trip))
}

/// So many bytes, times the one by the other.
fn scaled(bytes: u64, by: Duration, over: Duration) -> u64 {
    let bytes = u128::from(bytes) * by.as_nanos() / over.as_nanos().max(1);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOW: u64 = 2 * 1024 * 1024;
    const LENGTH: u64 = 1404;
    const PACKET: u32 = 32 * 1024;

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// sshd at the other end of a path, and a sender that always has something to send.
    struct Path {
        now: Instant,
        flight: Flight,
        /// One way.
        delay: Duration,
        /// For a datagram to be written.
        service: Duration,
        /// When those that are on their way or wait were sent.
        waiting: VecDeque<Instant>,
        is_free_at: Instant,
        /// Written and not granted.
        used: u64,
        grants: VecDeque<(Instant, u64)>,
        written: u64,
        /// Of the datagram that was written last.
        queued: Duration,
    }

    impl Path {
        fn new(delay: Duration, service: Duration) -> Self {
            let now = Instant::now();
            Self {
                now,
                flight: Flight::new(PACKET),
                delay,
                service,
                waiting: VecDeque::new(),
                is_free_at: now,
                used: 0,
                grants: VecDeque::new(),
                written: 0,
                queued: Duration::ZERO,
            }
        }

        fn fill(&mut self) {
            loop {
                let window = WINDOW - (self.flight.sent - self.flight.granted);
                if window.min(self.flight.room()) < LENGTH {
                    self.flight.hold(window);
                    return;
                }
                self.flight.sent(self.now, LENGTH);
                self.waiting.push_back(self.now);
            }
        }

        /// Until the next datagram is written or the next grant has come.
        fn step(&mut self) {
            self.fill();
            let written = (self.waiting.front())
                .map(|sent| (*sent + self.delay).max(self.is_free_at) + self.service);
            let granted = self.grants.front().map(|(at, _)| *at);
            match (written, granted) {
                (Some(at), granted) if granted.is_none_or(|granted| at <= granted) => {
                    let sent = self.waiting.pop_front().unwrap();
                    self.queued = at - self.service - self.delay - sent;
                    self.is_free_at = at;
                    self.written += LENGTH;
                    self.used += LENGTH;
                    let unused = self.flight.sent - self.flight.granted;
                    let promised: u64 = self.grants.iter().map(|(_, bytes)| bytes).sum();
                    // channels.c channel_check_window, of what has come.
                    if unused - promised > 3 * u64::from(PACKET) {
                        let bytes = std::mem::take(&mut self.used);
                        self.grants.push_back((at + self.delay, bytes));
                    }
                }
                (_, Some(at)) => {
                    self.now = at;
                    let (_, bytes) = self.grants.pop_front().unwrap();
                    self.flight.granted(at, bytes);
                }
                _ => panic!("the sender is stuck at {:?}", self.flight),
            }
        }

        /// What was written in `time`, in bytes for each second, and the longest queue of that time.
        fn run(&mut self, time: Duration) -> (f64, Duration) {
            let (until, before) = (self.now + time, self.written);
            let mut longest = Duration::ZERO;
            while self.now < until {
                self.step();
                longest = longest.max(self.queued);
            }
            let written = (self.written - before) as f64;
            (written / time.as_secs_f64(), longest)
        }
    }

    /// What fits the window at once, or what the server writes.
    fn possible(delay: Duration, service: Duration) -> f64 {
        let window = WINDOW as f64 / (2 * delay + service).as_secs_f64();
        window.min(LENGTH as f64 / service.as_secs_f64())
    }

    #[test]
    fn a_flood_on_a_fast_path_waits_here_and_not_there() {
        let mut path = Path::new(micros(100), micros(40));
        let (rate, queue) = path.run(Duration::from_secs(30));
        assert!(rate > 0.99 * possible(path.delay, path.service), "{rate}");
        // The window would be 59 ms.
        assert!(queue < Duration::from_millis(13), "{queue:?}");
    }

    #[test]
    fn a_long_path_is_filled_within_a_second() {
        let (delay, service) = (Duration::from_millis(50), micros(80));
        let mut path = Path::new(delay, service);
        path.run(Duration::from_secs(1));
        let (rate, _) = path.run(Duration::from_secs(5));
        assert!(rate > 0.9 * possible(delay, service), "{rate}");
        let (_, queue) = path.run(Duration::from_secs(5));
        assert!(queue < Duration::from_millis(40), "{queue:?}");
    }

    #[test]
    fn a_path_that_becomes_longer_is_filled_again() {
        let mut path = Path::new(micros(500), micros(80));
        path.run(Duration::from_secs(30));
        path.delay = Duration::from_millis(40);
        path.run(Duration::from_secs(15));
        let (rate, _) = path.run(Duration::from_secs(10));
        assert!(rate > 0.8 * possible(path.delay, path.service), "{rate}");
    }

    #[test]
    fn an_hour_of_a_flood_makes_no_longer_queue() {
        let mut path = Path::new(micros(500), micros(300));
        let (_, first) = path.run(Duration::from_secs(60));
        path.run(Duration::from_secs(3400));
        let (_, last) = path.run(Duration::from_secs(60));
        assert!(
            last <= first + Duration::from_millis(5),
            "{first:?}, {last:?}"
        );
    }

    #[test]
    fn what_is_sent_slowly_is_never_held() {
        let mut flight = Flight::new(PACKET);
        let mut now = Instant::now();
        for _ in 0..100_000 {
            assert!(flight.room() >= LENGTH);
            flight.sent(now, LENGTH);
            now += Duration::from_millis(1);
            let unused = flight.sent - flight.granted;
            if unused > 3 * u64::from(PACKET) {
                flight.granted(now, unused);
            }
        }
        assert_eq!(flight.limit, flight.least);
        assert!(flight.marks.len() <= MARKS);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever path: it is used, the sender is never stuck, and what is kept is bounded.
        #[test]
        fn any_path(delay in 10_u64..150_000, service in 15_u64..2_000) {
            let mut path = Path::new(micros(delay), micros(service));
            path.run(Duration::from_secs(5));
            let (rate, _) = path.run(Duration::from_secs(10));
            prop_assert!(rate > 0.6 * possible(path.delay, path.service), "{rate} with {:?}", path.flight);
            prop_assert!(path.flight.marks.len() <= MARKS);
        }

        /// Whatever is granted, were it never sent.
        #[test]
        fn any_grants(steps in prop::collection::vec((any::<u32>(), any::<u32>(), 0_u64..20_000_000), 0..200)) {
            let mut flight = Flight::new(PACKET);
            let mut now = Instant::now();
            for (sent, granted, waited) in steps {
                flight.sent(now, sent.into());
                flight.hold(u64::MAX);
                now += micros(waited);
                flight.granted(now, granted.into());
                prop_assert!(flight.limit >= flight.least && flight.granted <= flight.sent);
                prop_assert!(flight.marks.len() <= MARKS);
            }
        }
    }
}
