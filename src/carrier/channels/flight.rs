//! How much of a channel of datagrams may be on its way: as much as the path takes without a queue, and little more.
//!
//! sshd writes one datagram for each turn of its loop, and keeps what has come before in a buffer that it enlarges by 256 bytes at a time,
//! each time with a copy of all of it (sshbuf.c `SSHBUF_SIZE_INC`). Whoever fills its window of 2 MiB faster than it writes
//! makes it copy megabytes for each datagram until that buffer is as large as the window: seconds in which nearly all is lost. And what waits
//! there can no longer be overtaken. So it has to wait here, in `fair.rs`.
//!
//! The grants of the window tell when a datagram was written, which makes of each a sample of the round trip. The shortest one is that
//! of an empty path; what is beyond it is queue, or the time that sshd took until it granted: where it keeps up, it grants some 96 KiB
//! at once. That is no longer than since its last grant, so that much of such a trip is not held against the path. Once in a
//! round trip the limit grows where it has kept something back, or becomes what would have left a queue of [`QUEUE`] where there was
//! more: limit · (shortest + queue) / trip, as in FAST TCP (Wei, Jin, Low, Hegde 2006, equation 5).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The longest packets that make a grant of an sshd that keeps up (channels.c `channel_check_window`).
const FULL: u64 = 3;
/// And those that may be on their way in any case: one more has to fit.
const LEAST: u64 = 4;
/// The queue that is aimed at. Where the whole trip is shorter, the least limit makes 150 Mbit/s or more, not much less than sshd's
/// loop can write: it does not grow.
const QUEUE: Duration = Duration::from_millis(5);
/// Bytes, or time, between two datagrams whose time is kept, and how many times are.
const STEP: u64 = 4 * 1024;
const PAUSE: Duration = Duration::from_micros(2_500);
const MARKS: usize = 1024;
/// How long a server may grant nothing of a full limit. sshd always does; of another one nobody knows.
const SILENT: Duration = Duration::from_secs(1);
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
    /// When a trip was last about as short as that, or nothing was held back.
    believed: Option<Instant>,
    last_grant: Option<Instant>,
    /// Since when something is held back, and nothing is granted.
    silent: Option<Instant>,
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
    /// The same, each without the time in which its grant was filled.
    waited: Option<Duration>,
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
        let least = u64::from(max_packet) * LEAST;
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
            last_grant: None,
            silent: None,
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
        // The first of a burst too: what follows it waits for it at the server.
        let is_due = (self.marks.back()).is_none_or(|mark| {
            place - mark.place >= STEP || now.saturating_duration_since(mark.at) >= PAUSE
        });
        if is_due && self.marks.len() < MARKS {
            self.marks.push_back(Mark { place, at: now });
        }
    }

    /// Something is held back, where the window has so much room.
    pub(super) fn held_back(&mut self, now: Instant, window: u64) {
        if self.room() >= window {
            return;
        }
        self.round.is_held = true;
        let since = *self.silent.get_or_insert(now);
        if now.saturating_duration_since(since) > SILENT {
            self.limit = self.limit.saturating_mul(2);
            self.silent = Some(now);
        }
    }

    /// The server grants so many of them.
    pub(super) fn granted(&mut self, now: Instant, bytes: u64) {
        self.granted = self.granted.saturating_add(bytes).min(self.sent);
        self.silent = None;
        let since = self.last_grant.replace(now);
        let mut at = None;
        while let Some(mark) = self.marks.front()
            && mark.place <= self.granted
        {
            at = Some(mark.at);
            self.marks.pop_front();
        }
        if let Some(at) = at {
            let trip = now.saturating_duration_since(at);
            let since = since.map_or(trip, |since| now.saturating_duration_since(since));
            self.measured(now, trip, self.filled_in(since.min(trip), bytes));
        }
    }

    /// How much of the time since the last grant it took to fill this one: of one datagram, by a server that has more of them, next
    /// to nothing.
    fn filled_in(&self, since: Duration, bytes: u64) -> Duration {
        let full = self.least / LEAST * FULL;
        let nanos = u128::from(bytes.min(full)) * since.as_nanos() / u128::from(full.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// A trip was so long, of which so much was spent on filling the grant.
    fn measured(&mut self, now: Instant, trip: Duration, filling: Duration) {
        let shortest = shorter(self.shortest, trip);
        self.shortest = Some(shortest);
        let waited = trip.saturating_sub(filling);
        if waited <= shortest + QUEUE / 2 {
            self.believed = Some(now);
        }
        if self.granted < self.round.begin {
            return;
        }
        self.round.shortest = Some(shorter(self.round.shortest, trip));
        self.round.waited = Some(shorter(self.round.waited, waited));
        if self.granted >= *self.round.end.get_or_insert(self.sent) {
            let round = std::mem::take(&mut self.round);
            match round.is_held {
                true => self.adapt(now, shortest, &round),
                // Such a trip is as long as the sender took to fill a grant.
                false => self.believed = Some(now),
            }
            self.round.begin = self.sent.max(self.granted.saturating_add(self.limit));
        }
    }

    /// A round is over in which something was held back.
    fn adapt(&mut self, now: Instant, shortest: Duration, round: &Round) {
        let trip = round.shortest.unwrap_or(shortest);
        let waited = round.waited.unwrap_or(trip);
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
            _ if waited > shortest + QUEUE => {
                let fitting = scaled(self.limit, shortest + QUEUE, waited);
                self.limit = fitting.max(self.limit / 2).max(self.least);
                self.phase = Phase::Steady;
            }
            // With a queue, if a short one, the path is used, and more on its way would only lengthen it.
            _ if trip < QUEUE || waited > shortest + QUEUE / 2 => {}
            Phase::Starting => self.limit = self.limit.saturating_mul(2),
            Phase::Steady => self.limit = self.limit.saturating_add(self.limit / 8),
        }
    }
}

fn shorter(so_far: Option<Duration>, trip: Duration) -> Duration {
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

    /// sshd at the other end of a path, and a sender.
    struct Path {
        now: Instant,
        flight: Flight,
        /// One way.
        delay: Duration,
        /// For a datagram on the link, and to be written by the server.
        on_link: Duration,
        service: Duration,
        /// Up to so much longer than the delay, for one datagram after the other.
        jitter: Duration,
        /// Between two datagrams of the application; where it is zero there is always one.
        pace: Duration,
        next: Instant,
        link_is_free_at: Instant,
        /// When those arrive that are not written, and when they were sent.
        waiting: VecDeque<(Instant, Instant)>,
        is_free_at: Instant,
        /// Written and not granted; granted, in all.
        used: u64,
        promised: u64,
        grants: VecDeque<(Instant, u64)>,
        written: u64,
        dropped: u64,
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
                on_link: Duration::ZERO,
                service,
                jitter: Duration::ZERO,
                pace: Duration::ZERO,
                next: now,
                link_is_free_at: now,
                waiting: VecDeque::new(),
                is_free_at: now,
                used: 0,
                promised: 0,
                grants: VecDeque::new(),
                written: 0,
                dropped: 0,
                queued: Duration::ZERO,
            }
        }

        fn send(&mut self) -> bool {
            let window = WINDOW - (self.flight.sent - self.flight.granted);
            if window.min(self.flight.room()) < LENGTH {
                self.flight.held_back(self.now, window);
                return false;
            }
            self.flight.sent(self.now, LENGTH);
            let on_wire = self.link_is_free_at.max(self.now) + self.on_link;
            self.link_is_free_at = on_wire;
            let share = u32::try_from(self.flight.sent / LENGTH * 7 % 10).unwrap();
            let arrives = on_wire + self.delay + self.jitter * share / 10;
            let last = self.waiting.back().map_or(arrives, |(last, _)| *last);
            self.waiting.push_back((arrives.max(last), self.now));
            true
        }

        /// Until the next datagram is sent or written, or the next grant has come.
        fn step(&mut self) {
            if self.pace.is_zero() {
                while self.send() {}
                self.next = self.now + Duration::from_secs(3600);
            }
            let written = (self.waiting.front())
                .map(|(arrives, _)| (*arrives).max(self.is_free_at) + self.service);
            let granted = self.grants.front().map(|(at, _)| *at);
            let first = [Some(self.next), written, granted]
                .into_iter()
                .flatten()
                .min();
            let first = first.unwrap();
            if written == Some(first) {
                self.write(first);
            } else if granted == Some(first) {
                self.now = first;
                let (_, bytes) = self.grants.pop_front().unwrap();
                self.flight.granted(first, bytes);
            } else {
                assert!(
                    !self.pace.is_zero(),
                    "the sender is stuck: {:?}",
                    self.flight
                );
                self.now = first;
                self.next = first + self.pace;
                // It is lost: nothing is kept here.
                self.dropped += u64::from(!self.send());
            }
        }

        fn write(&mut self, at: Instant) {
            let (_, sent) = self.waiting.pop_front().unwrap();
            self.queued =
                at.saturating_duration_since(sent + self.on_link + self.service + self.delay);
            self.is_free_at = at;
            self.written += LENGTH;
            self.used += LENGTH;
            // channels.c channel_check_window, of what has come.
            let arrived = self.waiting.partition_point(|(arrives, _)| *arrives <= at) as u64;
            if self.written + arrived * LENGTH - self.promised > 3 * u64::from(PACKET) {
                let bytes = std::mem::take(&mut self.used);
                self.promised += bytes;
                self.grants.push_back((at + self.delay, bytes));
            }
        }

        /// What was written in `time`, in bytes for each second, and the longest queue of that time.
        fn run(&mut self, time: Duration) -> (f64, Duration) {
            self.next = self.now;
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

    /// What fits the window at once, or what the server or the link takes; where the limit does not grow, what it grants at once.
    fn possible(path: &Path) -> f64 {
        let slowest = path.service.max(path.on_link);
        let trip = 2 * path.delay + path.service;
        let window = if trip < QUEUE {
            3 * u64::from(PACKET)
        } else {
            WINDOW
        };
        (window as f64 / trip.as_secs_f64()).min(LENGTH as f64 / slowest.as_secs_f64())
    }

    #[test]
    fn a_flood_on_a_fast_path_waits_here_and_not_there() {
        let mut path = Path::new(micros(100), micros(40));
        let (rate, queue) = path.run(Duration::from_secs(30));
        assert!(rate > 0.99 * possible(&path), "{rate}");
        // The window would be 59 ms.
        assert!(queue < Duration::from_millis(13), "{queue:?}");
    }

    #[test]
    fn a_long_path_is_filled_within_a_second() {
        let mut path = Path::new(Duration::from_millis(50), micros(80));
        path.run(Duration::from_secs(1));
        let (rate, _) = path.run(Duration::from_secs(5));
        assert!(rate > 0.9 * possible(&path), "{rate}");
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
        assert!(rate > 0.8 * possible(&path), "{rate}");
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

    /// What is granted at once comes as a burst, whose first datagram waits for no other. Of those behind it each seems to meet
    /// a queue.
    #[test]
    fn the_bursts_of_a_slow_server_are_not_taken_for_a_queue() {
        for (delay, service) in [(40_184, 958), (83_812, 1_928), (67_674, 1_538)] {
            let mut path = Path::new(micros(delay), micros(service));
            path.run(Duration::from_secs(5));
            let (rate, _) = path.run(Duration::from_secs(10));
            assert!(rate > 0.8 * possible(&path), "{rate}: {:?}", path.flight);
        }
    }

    /// A burst takes its time on such a link, which is no queue; and a grant is as long in coming as it takes to fill.
    #[test]
    fn a_slow_link_of_a_fast_server_is_filled_whatever_was_sent_before() {
        for pace in [micros(10_000), micros(300)] {
            let mut path = Path::new(Duration::from_millis(25), micros(20));
            // 100 Mbit/s.
            path.on_link = micros(112);
            path.jitter = Duration::from_millis(3);
            path.pace = pace;
            path.run(Duration::from_secs(30));
            // At the start, and less where they may wait.
            assert!(
                path.dropped * LENGTH * 100 < path.written,
                "{}",
                path.dropped
            );
            path.now += Duration::from_secs(2);
            path.pace = Duration::ZERO;
            path.run(Duration::from_secs(2));
            let (rate, _) = path.run(Duration::from_secs(30));
            assert!(
                rate > 0.8 * possible(&path),
                "{rate} after {pace:?}: {:?}",
                path.flight
            );
        }
    }

    /// sshd is not one: it grants nothing below half of its window.
    #[test]
    fn a_server_that_says_little_is_waited_for() {
        let mut flight = Flight::new(PACKET);
        let mut now = Instant::now();
        while flight.sent < WINDOW / 2 {
            match flight.room() >= LENGTH {
                true => flight.sent(now, LENGTH),
                false => flight.held_back(now, WINDOW),
            }
            now += Duration::from_millis(1);
        }
        assert!(now.elapsed().is_zero() && flight.limit < 2 * WINDOW);
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
            prop_assert!(rate > 0.6 * possible(&path), "{rate} with {:?}", path.flight);
            prop_assert!(path.flight.marks.len() <= MARKS);
        }

        /// Whatever is granted, were it never sent.
        #[test]
        fn any_grants(steps in prop::collection::vec((any::<u32>(), any::<u32>(), 0_u64..20_000_000), 0..200)) {
            let mut flight = Flight::new(PACKET);
            let mut now = Instant::now();
            for (sent, granted, waited) in steps {
                flight.sent(now, sent.into());
                flight.held_back(now, u64::MAX);
                now += micros(waited);
                flight.granted(now, granted.into());
                prop_assert!(flight.limit >= flight.least && flight.granted <= flight.sent);
                prop_assert!(flight.marks.len() <= MARKS);
            }
        }
    }
}
