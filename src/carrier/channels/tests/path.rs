//! Windows over paths of different length, in virtual time: a server that sends what it may at the rate of the path,
//! an application that reads at its own, and the queue between them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::super::budget::{Budget, Flow};
use super::*;

const KIB: u32 = 1024;
const MIB: u32 = 1024 * KIB;
const PACKET: u32 = 32 * KIB;

/// What happens when, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// So much window reaches the server.
    Granted(usize, u32),
    /// A packet reaches us.
    Arrived(usize),
    /// The application has taken a packet.
    Read(usize),
    /// More may be granted.
    Due(usize),
}

struct Channel {
    flow: Flow,
    /// The server's view of the window, and ours.
    window: u32,
    open: u32,
    held: u32,
    waiting: VecDeque<u32>,
    reads: bool,
    /// Nanoseconds that the application takes for a packet.
    read_time: u64,
    read: u64,
    most_promised: u32,
    most_held: u32,
    /// When it may be granted more.
    due: Option<u64>,
    /// Until when it has something to send.
    until: u64,
}

/// Channels over one path.
struct Path {
    start: Instant,
    now: u64,
    budget: Budget,
    channels: Vec<Channel>,
    steps: BinaryHeap<Reverse<(u64, u64, Step)>>,
    count: u64,
    one_way: u64,
    packet_time: u64,
    /// When the path is free for the next packet.
    free_at: u64,
    turn: usize,
}

impl Path {
    fn new(round_trip: Duration, gigabit_per_second: f64) -> Self {
        let mut path = Self {
            start: Instant::now(),
            now: 0,
            budget: Budget::default(),
            channels: Vec::new(),
            steps: BinaryHeap::new(),
            count: 0,
            one_way: u64::try_from(round_trip.as_nanos()).unwrap() / 2,
            packet_time: (f64::from(PACKET) * 8.0 / gigabit_per_second) as u64,
            free_at: 0,
            turn: 0,
        };
        let answer = path.at(2 * path.one_way);
        path.budget.answered(answer, path.start);
        path
    }

    fn at(&self, nanos: u64) -> Instant {
        self.start + Duration::from_nanos(nanos)
    }

    /// A channel whose application takes so many bytes per second.
    fn add(&mut self, read_rate: f64) {
        let flow = self.budget.admit();
        let window = flow.initial();
        self.channels.push(Channel {
            flow,
            window: 0,
            open: window,
            held: 0,
            waiting: VecDeque::new(),
            reads: false,
            read_time: (f64::from(PACKET) * 1e9 / read_rate) as u64,
            read: 0,
            most_promised: window,
            most_held: 0,
            due: None,
            until: u64::MAX,
        });
        let channel = self.channels.len() - 1;
        self.plan(self.one_way, Step::Granted(channel, window));
    }

    fn plan(&mut self, after: u64, step: Step) {
        self.count += 1;
        self.steps
            .push(Reverse((self.now + after, self.count, step)));
    }

    /// Bytes that each application has read in the time from now.
    fn run(&mut self, time: Duration) -> Vec<u64> {
        let before: Vec<_> = self.channels.iter().map(|channel| channel.read).collect();
        let end = self.now + u64::try_from(time.as_nanos()).unwrap();
        while let Some(Reverse((at, _, step))) = self.steps.peek().copied()
            && at <= end
        {
            self.steps.pop();
            self.now = at;
            self.step(step);
            self.server_sends();
        }
        self.now = end;
        let after = self.channels.iter().map(|channel| channel.read);
        after
            .zip(before)
            .map(|(after, before)| after - before)
            .collect()
    }

    /// Everything that the windows let through enters the path, channel by channel.
    fn server_sends(&mut self) {
        let mut idle = 0;
        while idle < self.channels.len() {
            self.turn = (self.turn + 1) % self.channels.len();
            let channel = &mut self.channels[self.turn];
            idle += 1;
            if channel.window >= PACKET && channel.until > self.now {
                channel.window -= PACKET;
                idle = 0;
                self.free_at = self.free_at.max(self.now) + self.packet_time;
                let after = self.free_at - self.now + self.one_way;
                self.plan(after, Step::Arrived(self.turn));
            }
        }
    }

    fn step(&mut self, step: Step) {
        let now = self.at(self.now);
        match step {
            Step::Granted(channel, bytes) => self.channels[channel].window += bytes,
            Step::Arrived(number) => {
                let channel = &mut self.channels[number];
                channel.open -= PACKET;
                channel.held += PACKET;
                channel.most_held = channel.most_held.max(channel.held);
                self.budget.received(now, &mut channel.flow, PACKET);
                channel.waiting.push_back(PACKET);
                self.read(number);
            }
            Step::Read(number) => {
                let channel = &mut self.channels[number];
                channel.reads = false;
                channel.held -= PACKET;
                channel.read += u64::from(PACKET);
                self.budget.consumed(now, &mut channel.flow, PACKET);
                self.grant(number);
                self.read(number);
            }
            Step::Due(number) if self.channels[number].due == Some(self.now) => {
                self.grant(number);
            }
            Step::Due(_) => {}
        }
    }

    fn grant(&mut self, number: usize) {
        let now = self.at(self.now);
        let channel = &mut self.channels[number];
        let (open, held) = (channel.open, channel.held);
        let part = self.budget.grant(now, &mut channel.flow, open, held);
        let grant = part.bytes;
        channel.open += grant;
        channel.most_promised = channel.most_promised.max(channel.open + channel.held);
        if grant > 0 {
            self.budget
                .granted(now, &mut channel.flow, channel.open, grant);
            self.plan(self.one_way, Step::Granted(number, grant));
        }
        self.channels[number].due = None;
        if let Some(at) = part.rest_at {
            let after = u64::try_from((at - now).as_nanos()).unwrap();
            self.channels[number].due = Some(self.now + after);
            self.plan(after, Step::Due(number));
        }
    }

    /// What the server may send, or what waits for the applications, in bytes.
    fn promised(&self) -> u32 {
        self.channels.iter().map(|it| it.open + it.held).sum()
    }

    fn read(&mut self, number: usize) {
        let channel = &mut self.channels[number];
        if !channel.reads && channel.waiting.pop_front().is_some() {
            channel.reads = true;
            let time = channel.read_time;
            self.plan(time, Step::Read(number));
        }
    }
}

const FAST: f64 = 1e12;

fn gigabits(bytes: u64, time: Duration) -> f64 {
    bytes as f64 * 8.0 / time.as_secs_f64() / 1e9
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_short_path_has_small_windows() {
    let mut path = Path::new(Duration::from_micros(200), 8.0);
    path.add(FAST);
    let rate = gigabits(path.run(SECOND)[0], SECOND);
    assert!(rate > 7.8, "{rate} Gbit/s");
    assert_eq!(path.channels[0].most_promised, MIB);
}

#[test]
fn busy_channels_share_a_budget() {
    let mut path = Path::new(Duration::from_micros(200), 8.0);
    (0..8).for_each(|_| path.add(FAST));
    path.run(SECOND);
    let promised = path.promised();
    assert!(promised <= 4 * MIB + 8 * PACKET, "{promised}");
    let read = path.run(SECOND);
    let rate = gigabits(read.iter().sum(), SECOND);
    assert!(rate > 7.8, "{rate} Gbit/s");
    let (least, most) = (read.iter().min().unwrap(), read.iter().max().unwrap());
    assert!(most - least < most / 20, "{read:?}");
}

#[test]
fn a_long_path_is_filled_and_not_flooded() {
    for (milliseconds, rate) in [(20, 1.0), (100, 1.0), (100, 0.3), (250, 0.5)] {
        let mut path = Path::new(Duration::from_millis(milliseconds), rate);
        path.add(FAST);
        path.run(SECOND * 5);
        let read = path.run(SECOND * 5)[0];
        let reached = gigabits(read, SECOND * 5);
        assert!(reached > 0.95 * rate, "{milliseconds} ms: {reached} Gbit/s");
        let product = rate * 1e9 / 8.0 * milliseconds as f64 / 1e3;
        let most = f64::from(path.channels[0].most_promised);
        let spare = f64::from(4 * MIB).min(product);
        assert!(most < 1.1 * (product + spare), "{milliseconds} ms: {most}");
    }
}

#[test]
fn a_window_grows_within_a_few_round_trips() {
    let mut path = Path::new(Duration::from_millis(100), 1.0);
    path.add(FAST);
    path.run(SECOND);
    let rate = gigabits(path.run(SECOND)[0], SECOND);
    assert!(rate > 0.9, "{rate} Gbit/s in the second second");
}

/// The queue of a download that never pauses is not taken for a longer path, which would make it longer still; and what is
/// done about that costs next to nothing.
#[test]
fn a_queue_of_minutes_does_not_grow() {
    for (milliseconds, rate) in [(20, 1.0), (100, 0.1), (100, 1.0), (250, 0.5), (2000, 0.02)] {
        let round_trip = Duration::from_millis(milliseconds);
        let mut path = Path::new(round_trip, rate);
        path.add(FAST);
        path.run(SECOND * 20);
        let first = path.channels[0].most_promised;
        let reached = gigabits(path.run(SECOND * 200)[0], SECOND * 200);
        let (least, what) = (0.97 * rate, format!("{milliseconds} ms"));
        assert!(reached > least, "{what}: {reached} Gbit/s");
        let most = path.channels[0].most_promised;
        assert!(most < first + first / 8, "{what}: {first} to {most}");
        let believed = path.budget.round_trip().unwrap();
        assert!(believed < round_trip * 11 / 10, "{what}: {believed:?}");
    }
}

/// Somebody else's queue makes it longer: at half as long again, what is spare bounds the rate.
#[test]
fn a_path_that_was_once_shorter_gets_most_of_its_rate() {
    for (shortest, usual, least) in [(20, 35, 0.85), (100, 125, 0.95), (100, 150, 0.6)] {
        let mut path = Path::new(Duration::from_millis(shortest), 1.0);
        path.one_way = usual * 500_000;
        path.add(FAST);
        path.run(SECOND * 5);
        let rate = gigabits(path.run(SECOND * 5)[0], SECOND * 5);
        assert!(rate > least, "{shortest} to {usual} ms: {rate} Gbit/s");
    }
}

/// Nothing of ours can stand on a path that was silent: windows are what they are without the pause.
#[test]
fn a_pause_makes_no_window_small() {
    let in_a_second = |pause: Duration| {
        let mut path = Path::new(Duration::from_millis(100), 1.0);
        path.run(pause);
        let asked = path.at(path.now) - Duration::from_millis(100);
        path.budget.answered(path.at(path.now), asked);
        path.add(FAST);
        path.run(SECOND)[0]
    };
    assert_eq!(in_a_second(SECOND * 31), in_a_second(SECOND));
}

/// An open that is refused after a minute is believed to be the path only until something shorter is seen.
#[test]
fn an_answer_that_took_long_is_soon_forgotten() {
    let mut path = Path::new(Duration::from_millis(100), 1.0);
    path.add(FAST);
    path.run(SECOND);
    path.channels[0].until = 0;
    path.run(SECOND * 31);
    path.budget.answered(path.at(path.now), path.start);
    path.run(SECOND * 31);
    let since = path.at(path.now) - SECOND * 60;
    path.budget.answered(path.at(path.now), since);
    assert!(path.budget.round_trip() > Some(SECOND * 30));
    path.add(FAST);
    path.run(SECOND * 2);
    let rate = gigabits(path.run(SECOND)[1], SECOND);
    assert!(rate > 0.9, "{rate} Gbit/s");
}

/// Who reads stands still for 20 ms now and then. What came meanwhile is granted again in no time, and would come so from then
/// on: a whole window in one of those pauses.
#[test]
fn a_burst_does_not_stay_one() {
    let mut path = Path::new(Duration::from_millis(100), 20.0);
    path.add(FAST);
    path.run(SECOND * 5);
    let mut read = 0;
    for _ in 0..100 {
        path.channels[0].read_time = 20_000_000;
        read += path.run(Duration::from_millis(20))[0];
        path.channels[0].read_time = (f64::from(PACKET) * 1e9 / FAST) as u64;
        read += path.run(Duration::from_millis(77))[0];
    }
    let rate = gigabits(read, Duration::from_millis(97) * 100);
    assert!(rate > 1.1, "{rate} Gbit/s");
    let held = path.channels[0].most_held;
    assert!(held < 6 * MIB, "{held}");
}

/// It is what all of them send that ssh keeps up with, or does not.
#[test]
fn fast_channels_share_what_is_spare() {
    let mut path = Path::new(Duration::from_millis(40), 4.0);
    (0..4).for_each(|_| path.add(FAST));
    path.run(SECOND * 10);
    let promised = path.promised();
    let held_by_path = 4e9 / 8.0 * 0.04;
    let most = 1.05 * held_by_path + f64::from(2 * MIB);
    assert!(f64::from(promised) < most, "{promised}, {most}");
    let rate = gigabits(path.run(SECOND)[0..4].iter().sum(), SECOND);
    assert!(rate > 3.9, "{rate} Gbit/s");
}

/// However fast they are and however long the path is.
#[test]
fn what_is_on_its_way_is_bounded() {
    let mut path = Path::new(Duration::from_millis(100), 20.0);
    (0..8).for_each(|_| path.add(FAST));
    path.run(SECOND * 10);
    let promised = path.promised();
    assert!((22 * MIB..=24 * MIB).contains(&promised), "{promised}");
}

#[test]
fn several_channels_on_a_long_path() {
    let mut path = Path::new(Duration::from_millis(100), 1.0);
    (0..8).for_each(|_| path.add(FAST));
    path.run(SECOND * 5);
    let read = path.run(SECOND * 5);
    let rate = gigabits(read.iter().sum(), SECOND * 5);
    assert!(rate > 0.95, "{rate} Gbit/s");
    assert!(path.budget.promised() <= u64::from(80 * MIB));
}

/// Beside a reader that stands still or reads 1 MB/s.
#[test]
fn a_slow_reader_holds_little_and_holds_up_nobody() {
    for (milliseconds, link) in [(0, 8.0), (100, 1.0)] {
        for read_rate in [1.0, 1e6] {
            let mut path = Path::new(Duration::from_micros(milliseconds * 1000 + 200), link);
            let (slow, live) = (0, 1);
            path.add(read_rate);
            path.add(FAST);
            path.run(SECOND * 5);
            let read = path.run(SECOND * 5);
            let rate = gigabits(read[live], SECOND * 5);
            assert!(rate > 0.9 * link, "{milliseconds} ms: {rate} Gbit/s");
            assert_eq!(path.channels[slow].most_promised, MIB);
            if read_rate > 1.0 {
                assert!(read[slow] > 4_900_000, "{read:?}");
            }
        }
    }
}

#[test]
fn a_channel_that_stops_after_growing_holds_one_window() {
    let mut path = Path::new(Duration::from_millis(100), 1.0);
    path.add(FAST);
    path.run(SECOND * 5);
    path.channels[0].read_time = u64::MAX / 2;
    path.run(SECOND * 5);
    let held = path.channels[0].held;
    assert!(held <= 18 * MIB, "{held}");
    assert!(path.budget.promised() <= u64::from(18 * MIB));
}

#[test]
fn a_channel_that_slows_down_gives_its_window_back() {
    let mut path = Path::new(Duration::from_millis(100), 1.0);
    path.add(FAST);
    path.run(SECOND * 5);
    assert!(path.channels[0].most_promised > 12 * MIB);
    path.channels[0].read_time = u64::from(PACKET) * 1000;
    path.run(SECOND * 60);
    let promised = path.promised();
    assert!(promised <= 2 * MIB, "{promised}");
    assert!(path.budget.promised() <= u64::from(2 * MIB));
}

/// A channel that has nothing to send for a while does not become the measure of a long path.
#[test]
fn pauses_do_not_shrink_a_window_below_the_share() {
    let mut path = Path::new(Duration::from_millis(100), 1.0);
    path.add(FAST);
    path.run(SECOND * 5);
    path.channels[0].until = 0;
    path.run(SECOND * 5);
    path.channels[0].until = u64::MAX;
    path.server_sends();
    path.run(SECOND * 2);
    let rate = gigabits(path.run(SECOND)[0], SECOND);
    assert!(rate > 0.9, "{rate} Gbit/s");
}

#[test]
fn a_path_that_becomes_longer_is_noticed() {
    let mut path = Path::new(Duration::from_millis(1), 1.0);
    path.add(FAST);
    path.run(SECOND * 5);
    path.one_way = 50_000_000;
    path.run(SECOND * 70);
    let rate = gigabits(path.run(SECOND)[0], SECOND);
    assert!(rate > 0.9, "{rate} Gbit/s");
}

#[test]
fn many_channels_are_promised_little_each() {
    let mut budget = Budget::default();
    let flows: Vec<_> = (0..10_000).map(|_| budget.admit()).collect();
    assert!(budget.promised() < 400 << 20);
    assert_eq!(flows[0].initial(), MIB);
    assert_eq!(flows[9_999].initial(), 32 * KIB);
    flows.iter().for_each(|flow| budget.release(flow));
    assert_eq!(budget.promised(), 0);
}

/// However many channels have grown one after the other: promises end, and each keeps what it began with.
#[test]
fn growth_is_bounded_in_all() {
    let mut budget = Budget::default();
    let mut flows: Vec<_> = (0..4000).map(|_| budget.admit()).collect();
    let mut now = Instant::now();
    for flow in &mut flows {
        now += SECOND;
        let open = flow.initial();
        budget.received(now, flow, open);
        budget.consumed(now, flow, open);
        let grant = budget.grant(now, flow, 0, 0);
        assert!(grant.bytes >= 32 * KIB, "everybody may go on");
    }
    assert!(budget.promised() < 512 << 20, "{}", budget.promised());
}
