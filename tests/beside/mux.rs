//! Flows over one stream to a far end that is played by hand, in virtual time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use underpass::net::{FlowKey, OpenFailure, Source, Target};
use underpass::udp::{Carries, Fault, Heard, Mux};

use crate::frame::frame;

const DATA: u8 = 0;
const ERROR: u8 = 1;
const CLOSE: u8 = 2;
const OPEN: u8 = 3;
const MUCH: usize = 1 << 20;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Flow, kind and payload of each frame in `bytes`.
fn frames(mut bytes: &[u8]) -> Vec<(u32, u8, Vec<u8>)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let len = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
        let flow = u32::from_be_bytes(bytes[2..6].try_into().unwrap());
        all.push((flow, bytes[6], bytes[7..7 + len].to_vec()));
        bytes = &bytes[7 + len..];
    }
    all
}

fn far() -> SocketAddr {
    "10.9.0.1:53".parse().unwrap()
}

fn key(port: u16) -> FlowKey {
    FlowKey {
        source: Source(SocketAddr::from(([10, 0, 0, 1], port))),
        target: Target(SocketAddr::from(([10, 1, 0, 1], 53))),
    }
}

struct Bench {
    mux: Mux,
    now: Instant,
}

impl Bench {
    /// A far end that listens.
    fn up(carries: Carries) -> Self {
        let mut bench = Self {
            mux: Mux::default(),
            now: Instant::now(),
        };
        bench.mux.handle_start(carries);
        assert_eq!(bench.hear(b"underpass-udp-1\n"), []);
        bench
    }

    fn send(&mut self, port: u16, payload: &[u8]) {
        self.mux
            .handle_datagram(self.now, key(port), far(), payload, || ());
    }

    fn said(&mut self) -> Vec<(u32, u8, Vec<u8>)> {
        frames(&self.mux.next_bytes(self.now, MUCH))
    }

    fn hear(&mut self, bytes: &[u8]) -> Vec<(FlowKey, Heard)> {
        let mut all = Vec::new();
        let handled = self.mux.handle_bytes(self.now, bytes, &mut |key, heard| {
            all.push((key, heard));
        });
        handled.unwrap();
        all
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        if self.mux.poll_timeout().is_some_and(|due| due <= self.now) {
            self.mux.handle_timeout(self.now);
        }
    }

    fn flows(&self) -> u64 {
        self.mux.counters().flows
    }
}

fn datagram(port: u16, payload: &'static [u8]) -> (FlowKey, Heard) {
    (key(port), Heard::Datagram(payload.into()))
}

#[test]
fn a_flow_is_opened_once_and_its_answers_are_its_own() {
    let mut bench = Bench::up(Carries::Everything);
    bench.send(1, b"one");
    bench.send(2, b"two");
    bench.send(1, b"three");
    let said = bench.said();
    let opened = |flow| (flow, OPEN, b"10.9.0.1 53".to_vec());
    let expected = [
        opened(1),
        (1, DATA, b"one".to_vec()),
        (1, DATA, b"three".to_vec()),
        opened(2),
        (2, DATA, b"two".to_vec()),
    ];
    assert_eq!(said, expected);
    let heard = bench.hear(&[frame(2, DATA, b"b"), frame(1, DATA, b"a")].concat());
    assert_eq!(heard, [datagram(2, b"b"), datagram(1, b"a")]);
    assert_eq!(bench.hear(&frame(3, DATA, b"nobody's")), []);
}

#[test]
fn nothing_is_said_before_the_greeting_and_old_datagrams_are_not_said_after_it() {
    let mut bench = Bench {
        mux: Mux::default(),
        now: Instant::now(),
    };
    bench.send(1, b"too old");
    bench.pass(secs(4));
    bench.send(1, b"waits for the start");
    assert_eq!(bench.said(), []);
    bench.pass(secs(2));
    bench.mux.handle_start(Carries::Everything);
    bench.hear(b"Welcome to this server!\nunderpass-udp-1\n");
    bench.pass(Duration::from_millis(100));
    let said = bench.said();
    assert_eq!(said[1], (1, DATA, b"waits for the start".to_vec()));
    assert_eq!((said.len(), bench.mux.counters().dropped), (2, 1));
    // Once it listens, less time is left.
    bench.pass(secs(10));
    bench.send(1, b"late");
    bench.pass(Duration::from_millis(300));
    bench.send(1, b"in time");
    assert_eq!(bench.said(), [(1, DATA, b"in time".to_vec())]);
}

#[test]
fn a_flow_ends_when_nobody_uses_it() {
    let mut bench = Bench::up(Carries::Everything);
    bench.send(1, b"answered");
    bench.send(2, b"not answered");
    bench.said();
    bench.hear(&frame(1, DATA, b"yes"));
    bench.pass(secs(29));
    assert_eq!(bench.flows(), 2);
    bench.pass(secs(1));
    assert_eq!(bench.said(), [(2, CLOSE, vec![])]);
    bench.pass(secs(29));
    assert_eq!(bench.flows(), 1);
    bench.hear(&frame(1, DATA, b"still there"));
    bench.pass(secs(59));
    assert_eq!(bench.flows(), 1);
    bench.pass(secs(1));
    assert_eq!(bench.said(), [(1, CLOSE, vec![])]);
    assert_eq!((bench.flows(), bench.mux.poll_timeout()), (0, None));
    // The next datagram opens it again, as another one.
    bench.send(1, b"again");
    assert_eq!(bench.said()[0].0, 3);
    assert_eq!(bench.hear(&frame(1, DATA, b"of before")), []);
}

#[test]
fn a_further_flow_takes_the_place_of_the_one_that_would_end_next() {
    let mut bench = Bench::up(Carries::Everything);
    for port in 1..=4096 {
        bench.send(port, b"x");
    }
    bench.said();
    bench.pass(secs(5));
    bench.send(1, b"in use");
    bench.send(5000, b"y");
    assert_eq!(bench.flows(), 4096);
    let said = bench.said();
    assert_eq!(said[0], (2, CLOSE, vec![]), "not the first: it was used");
}

#[test]
fn a_far_end_without_room_gets_no_more_than_it_can_hold() {
    let mut bench = Bench::up(Carries::Everything);
    for port in 1..=4 {
        bench.send(port, b"x");
    }
    bench.said();
    let no_room = [frame(4, ERROR, &[5]), frame(4, CLOSE, b"")].concat();
    assert_eq!(bench.hear(&no_room), [], "it is no host's answer");
    assert_eq!(bench.flows(), 3);
    bench.pass(secs(2));
    bench.send(4, b"again");
    let said = bench.said();
    let closed: Vec<u32> = said
        .iter()
        .filter(|(_, kind, _)| *kind == CLOSE)
        .map(|f| f.0)
        .collect();
    assert!(closed.contains(&1), "{said:?}");
    assert_eq!(said.last().unwrap(), &(5, DATA, b"again".to_vec()));
    assert_eq!(bench.flows(), 3);
}

#[test]
fn what_nobody_heard_is_told_where_the_reason_is_known() {
    let mut bench = Bench::up(Carries::Everything);
    bench.send(1, b"x");
    bench.said();
    for (code, failure) in [
        (1, OpenFailure::Refused),
        (2, OpenFailure::HostUnreachable),
        (3, OpenFailure::NetworkUnreachable),
        (4, OpenFailure::Filtered),
    ] {
        let heard = bench.hear(&frame(1, ERROR, &[code]));
        assert_eq!(heard, [(key(1), Heard::Failed(failure))]);
    }
    assert_eq!(bench.hear(&frame(1, ERROR, &[6])), []);
    assert_eq!(bench.flows(), 1, "the flow goes on");
}

#[test]
fn each_datagram_is_a_question_of_its_own_where_a_process_asks() {
    let mut bench = Bench::up(Carries::Questions);
    for number in 0..70_u8 {
        bench.send(1, &[number]);
    }
    let said = bench.said();
    assert_eq!(said.len(), 128, "64 at a time");
    for (number, pair) in said.chunks(2).enumerate() {
        let flow = u32::try_from(number).unwrap() + 1;
        assert_eq!(pair[0], (flow, OPEN, b"10.9.0.1 53".to_vec()));
        assert_eq!(pair[1], (flow, DATA, vec![number as u8]));
    }
    let heard = bench.hear(&[frame(9, DATA, b"answer"), frame(9, CLOSE, b"")].concat());
    assert_eq!(heard, [datagram(1, b"answer")]);
    assert_eq!(bench.hear(&frame(9, DATA, b"another")), []);
    assert_eq!(bench.said().len(), 2, "its place is another's");
    assert_eq!(bench.flows(), 1);
    // What the far end has forgotten is forgotten here.
    bench.pass(secs(10));
    bench.send(1, b"later");
    assert_eq!(bench.said().len(), 2);
}

#[test]
fn a_lost_stream_takes_its_flows_along_and_the_next_one_begins_anew() {
    let mut bench = Bench::up(Carries::Everything);
    bench.send(1, b"x");
    bench.said();
    bench.hear(&frame(1, DATA, b"half")[..5]);
    bench.mux.handle_lost("a test");
    assert_eq!((bench.flows(), bench.mux.up()), (0, None));
    bench.send(1, b"y");
    assert_eq!(bench.said(), [], "not before the next greeting");
    bench.mux.handle_start(Carries::Everything);
    bench.hear(b"underpass-udp-1\n");
    assert_eq!(bench.said().len(), 2);
    assert_eq!(bench.mux.counters().sent, 2);
}

#[test]
fn something_else_on_the_stream_is_a_fault() {
    let mut mux = Mux::<()>::default();
    let now = Instant::now();
    let mut ignore = |_: FlowKey, _: Heard| {};
    assert_eq!(
        mux.handle_bytes(now, &[b'x'; 70_000], &mut ignore),
        Err(Fault::NoGreeting)
    );
    let mut mux = Mux::<()>::default();
    let bytes = [b"underpass-udp-1\n".to_vec(), frame(1, 9, b"")].concat();
    assert_eq!(
        mux.handle_bytes(now, &bytes, &mut ignore),
        Err(Fault::UnknownKind)
    );
}

proptest! {
    /// Whatever the far end says: no panic, and never more flows than were asked for.
    #[test]
    fn no_far_end_does_harm(
        steps in prop::collection::vec((0_u16..6, any::<u8>(), 0_u32..8, 0_u8..5, prop::collection::vec(any::<u8>(), 0..20), 0_u64..20_000), 0..60),
        questions in any::<bool>(),
    ) {
        let carries = if questions { Carries::Questions } else { Carries::Everything };
        let mut bench = Bench::up(carries);
        for (port, what, flow, kind, payload, wait) in steps {
            match what % 4 {
                0 => bench.send(port, &payload),
                1 => drop(bench.said()),
                2 => bench.pass(Duration::from_millis(wait)),
                _ => {
                    let bytes = frame(flow, kind, &payload);
                    let now = bench.now;
                    if bench.mux.handle_bytes(now, &bytes, &mut |_, _| {}).is_err() {
                        bench.mux.handle_lost("a test");
                        bench.mux.handle_start(carries);
                    }
                }
            }
            prop_assert!(bench.flows() <= 6);
        }
    }
}
