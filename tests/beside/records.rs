//! What is kept of a flow over a far end that is played by hand: each has one beginning and one end, and all of its bytes.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use underpass::net::{FlowKey, OpenError, OpenFailure, Source, Target};
use underpass::udp::{Carries, End, Mux, Record};

use self::Kept::{Began, Dropped, Ended, Received, Sent};
use crate::frame::frame;

const DATA: u8 = 0;
const ERROR: u8 = 1;
const CLOSE: u8 = 2;
const MUCH: usize = 1 << 20;

/// What was kept of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kept {
    Began,
    Sent(u64),
    Received(u64),
    Ended(End),
    Dropped,
}

/// The record of the flow from this port.
struct Keeper {
    port: u16,
    all: Sender<(u16, Kept)>,
    has_ended: bool,
}

impl Keeper {
    fn keep(&self, kept: Kept) {
        self.all.send((self.port, kept)).unwrap();
    }
}

impl Record for Keeper {
    fn sent(&self, bytes: u64) {
        self.keep(Sent(bytes));
    }

    fn received(&self, bytes: u64) {
        self.keep(Received(bytes));
    }

    fn end(mut self, end: End) {
        self.has_ended = true;
        self.keep(Ended(end));
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if !self.has_ended {
            // Nobody may listen any more.
            let _ = self.all.send((self.port, Dropped));
        }
    }
}

struct Bench {
    mux: Mux<Keeper>,
    now: Instant,
    sender: Sender<(u16, Kept)>,
    all: Receiver<(u16, Kept)>,
}

impl Bench {
    fn new(carries: Carries) -> Self {
        let (sender, all) = channel();
        let mut mux = Mux::default();
        mux.handle_start(carries);
        Self {
            mux,
            now: Instant::now(),
            sender,
            all,
        }
    }

    /// With a far end that listens.
    fn up(carries: Carries) -> Self {
        let mut bench = Self::new(carries);
        bench.hear(b"underpass-udp-1\n");
        bench
    }

    fn send(&mut self, port: u16, payload: &[u8]) {
        let key = FlowKey {
            source: Source(SocketAddr::from(([10, 0, 0, 1], port))),
            target: Target(SocketAddr::from(([10, 1, 0, 1], 53))),
        };
        let began = || {
            let keeper = Keeper {
                port,
                all: self.sender.clone(),
                has_ended: false,
            };
            keeper.keep(Began);
            keeper
        };
        self.mux
            .handle_datagram(self.now, key, key.target.0, payload, began);
        self.mux.next_bytes(self.now, MUCH);
    }

    fn hear(&mut self, bytes: &[u8]) {
        let heard = self.mux.handle_bytes(self.now, bytes, &mut |_, _| {});
        heard.unwrap();
    }

    fn pass(&mut self, secs: u64) {
        self.now += Duration::from_secs(secs);
        self.mux.handle_timeout(self.now);
    }

    fn kept(&self) -> Vec<(u16, Kept)> {
        self.all.try_iter().collect()
    }
}

fn refused(failure: OpenFailure, text: &str) -> Kept {
    Ended(End::Refused(OpenError::new(failure, text)))
}

#[test]
fn a_flow_has_its_bytes_and_ends_when_nobody_uses_it() {
    for carries in [Carries::Everything, Carries::Questions] {
        let mut bench = Bench::up(carries);
        bench.send(1, b"four");
        bench.send(1, b"seven77");
        bench.hear(&frame(1, DATA, b"ab"));
        assert_eq!(
            bench.kept(),
            [(1, Began), (1, Sent(4)), (1, Sent(7)), (1, Received(2))]
        );
        bench.pass(59);
        assert_eq!(bench.kept(), []);
        bench.pass(1);
        assert_eq!(bench.kept(), [(1, Ended(End::Idle))]);
        // The next datagram begins another one.
        bench.send(1, b"");
        assert_eq!(bench.kept(), [(1, Began), (1, Sent(0))]);
    }
}

#[test]
fn one_that_reached_nobody_was_refused_unless_somebody_had_answered() {
    let mut bench = Bench::up(Carries::Everything);
    bench.send(1, b"x");
    bench.send(2, b"x");
    bench.kept();
    bench.hear(&frame(1, ERROR, &[1]));
    bench.hear(&frame(2, DATA, b"y"));
    bench.hear(&frame(2, ERROR, &[1]));
    bench.pass(60);
    assert_eq!(
        bench.kept(),
        [
            (2, Received(1)),
            (1, refused(OpenFailure::Refused, "")),
            (2, Ended(End::Idle))
        ]
    );
}

#[test]
fn what_the_far_end_closes_has_ended() {
    let mut bench = Bench::up(Carries::Everything);
    bench.send(1, b"x");
    bench.hear(&[frame(1, ERROR, &[2]), frame(1, CLOSE, b"")].concat());
    assert_eq!(
        bench.kept().last(),
        Some(&(1, refused(OpenFailure::HostUnreachable, "")))
    );
}

#[test]
fn a_lost_stream_loses_its_flows_and_one_that_never_was_refuses_them() {
    let mut bench = Bench::up(Carries::Everything);
    bench.send(1, b"x");
    bench.mux.handle_lost("the connection was lost");
    assert_eq!(bench.kept().last(), Some(&(1, Ended(End::Lost))));
    let mut bench = Bench::new(Carries::Everything);
    bench.send(1, b"x");
    bench.mux.handle_lost("the server has no python3");
    let refused = refused(OpenFailure::Other, "the server has no python3");
    assert_eq!(bench.kept(), [(1, Began), (1, refused)]);
}

#[test]
fn what_we_end_for_want_of_room_is_dropped() {
    let mut bench = Bench::up(Carries::Everything);
    for port in 1..=4097 {
        bench.send(port, b"x");
    }
    let ended = |(_, kept): &(u16, Kept)| matches!(kept, Dropped | Ended(_));
    let ends: Vec<_> = bench.kept().into_iter().filter(ended).collect();
    assert_eq!(ends, [(1, Dropped)]);
    bench.hear(&frame(9, ERROR, &[5]));
    assert_eq!(bench.kept(), [(9, Dropped)]);
}
