//! A SYN is held until the far side has answered, and what the initiator is told then.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::task::Poll;

use smoltcp::time::Duration;
use underpass::engine::{Config, Engine, Reason};
use underpass::net::{OpenFailure, StreamError};

use crate::support::by_hand::{give, hold, open, run, said};
use crate::support::craft::{ACK, Ends, FIN, PSH, RST, SYN, Segment, tcp};
use crate::support::{Bell, Tap, at, engine};

const FAILURES: [OpenFailure; 9] = [
    OpenFailure::Refused,
    OpenFailure::HostUnreachable,
    OpenFailure::NetworkUnreachable,
    OpenFailure::TimedOut,
    OpenFailure::Prohibited,
    OpenFailure::Filtered,
    OpenFailure::ConnectionLost,
    OpenFailure::NoResources,
    OpenFailure::Other,
];

#[test]
fn nothing_is_said_before_the_far_side_has_answered() {
    for ends in [Ends::v4(4000), Ends::v6(4000)] {
        let engine = engine(Config::default());
        let flow = hold(&engine, at(0), ends);
        assert_eq!(
            (flow.key().source.0, flow.key().target.0),
            (ends.source, ends.target)
        );
        for second in [1, 3, 7, 15, 31] {
            let again = give(&engine, at(second * 1000), &Segment::syn(1000).packet(ends));
            assert!(again.is_none(), "a SYN sent again starts nothing new");
            run(&engine, at(second * 1000 + 1000));
        }
        assert_eq!(said(&engine), "nothing");
        assert_eq!(engine.flow_count(), 1);
        engine.accept(at(33_000), &flow);
        let packets = engine.outlet().take();
        let syn_ack = tcp(&packets[0]).unwrap();
        assert_eq!(
            (packets.len(), syn_ack.flags, syn_ack.ack),
            (1, SYN | ACK, 1001)
        );
    }
}

#[test]
fn the_newest_syn_is_answered() {
    let engine = engine(Config::default());
    let flow = hold(&engine, at(0), Ends::v4(4000));
    give(
        &engine,
        at(1000),
        &Segment::syn(77_000).packet(Ends::v4(4000)),
    );
    engine.accept(at(1500), &flow);
    assert_eq!(tcp(&engine.outlet().take()[0]).unwrap().ack, 77_001);
}

#[test]
fn each_failure_has_its_answer() {
    let mut table = String::new();
    for failure in FAILURES {
        for (version, ends) in [("IPv4", Ends::v4(4000)), ("IPv6", Ends::v6(4000))] {
            let engine = engine(Config::default());
            let flow = hold(&engine, at(0), ends);
            engine.refuse(at(20), &flow, failure);
            let answer = said(&engine);
            let flows = engine.flow_count();
            let again = give(&engine, at(1000), &Segment::syn(1000).packet(ends)).is_some();
            let next = if again { "starts anew" } else { "is swallowed" };
            assert_eq!(said(&engine), "nothing");
            table += &format!(
                "{:<19} {version}  {answer:<32} {flows} flows left, the next SYN {next}\n",
                failure.name()
            );
        }
    }
    insta::assert_snapshot!(table, @r"
    refused             IPv4  RST+ACK seq=0 ack=1001           0 flows left, the next SYN starts anew
    refused             IPv6  RST+ACK seq=0 ack=1001           0 flows left, the next SYN starts anew
    host_unreachable    IPv4  ICMP 3/1 quoting 52 bytes        0 flows left, the next SYN starts anew
    host_unreachable    IPv6  ICMPv6 1/3 quoting 72 bytes      0 flows left, the next SYN starts anew
    network_unreachable IPv4  ICMP 3/0 quoting 52 bytes        0 flows left, the next SYN starts anew
    network_unreachable IPv6  ICMPv6 1/0 quoting 72 bytes      0 flows left, the next SYN starts anew
    timed_out           IPv4  nothing                          1 flows left, the next SYN is swallowed
    timed_out           IPv6  nothing                          1 flows left, the next SYN is swallowed
    prohibited          IPv4  ICMP 3/13 quoting 52 bytes       0 flows left, the next SYN starts anew
    prohibited          IPv6  ICMPv6 1/1 quoting 72 bytes      0 flows left, the next SYN starts anew
    filtered            IPv4  ICMP 3/13 quoting 52 bytes       0 flows left, the next SYN starts anew
    filtered            IPv6  ICMPv6 1/1 quoting 72 bytes      0 flows left, the next SYN starts anew
    connection_lost     IPv4  ICMP 3/1 quoting 52 bytes        0 flows left, the next SYN starts anew
    connection_lost     IPv6  ICMPv6 1/3 quoting 72 bytes      0 flows left, the next SYN starts anew
    no_resources        IPv4  nothing                          0 flows left, the next SYN starts anew
    no_resources        IPv6  nothing                          0 flows left, the next SYN starts anew
    other               IPv4  ICMP 3/1 quoting 52 bytes        0 flows left, the next SYN starts anew
    other               IPv6  ICMPv6 1/3 quoting 72 bytes      0 flows left, the next SYN starts anew
    ");
}

#[test]
fn an_error_quotes_the_syn_and_comes_from_the_target() {
    for (ends, ip_len) in [(Ends::v4(4000), 20), (Ends::v6(4000), 40)] {
        let engine = engine(Config::default());
        let syn = Segment::syn(1000).packet(ends);
        let flow = give(&engine, at(0), &syn).unwrap();
        engine.refuse(at(1), &flow, OpenFailure::HostUnreachable);
        let packets = engine.outlet().take();
        let (source, target) = if ip_len == 20 { (12, 16) } else { (8, 24) };
        let length = target - source;
        assert_eq!(packets[0][ip_len + 8..], syn, "the SYN is quoted");
        assert_eq!(
            packets[0][source..source + length],
            syn[target..target + length]
        );
        assert_eq!(
            packets[0][target..target + length],
            syn[source..source + length]
        );
    }
}

#[test]
fn silence_lasts_as_long_as_the_initiator_asks() {
    let engine = engine(Config::default());
    let ends = Ends::v4(4000);
    let flow = hold(&engine, at(0), ends);
    engine.refuse(at(100), &flow, OpenFailure::TimedOut);
    for second in [1, 3, 7, 15, 31, 63] {
        run(&engine, at(second * 1000));
        assert!(give(&engine, at(second * 1000), &Segment::syn(1000).packet(ends)).is_none());
    }
    assert_eq!(said(&engine), "nothing");
    run(&engine, at(400_000));
    assert_eq!((engine.flow_count(), engine.poll_timeout()), (0, None));
    assert!(give(&engine, at(400_000), &Segment::syn(1000).packet(ends)).is_some());
}

#[test]
fn an_initiator_that_fell_silent_is_withdrawn_and_frees_its_place() {
    let config = Config {
        max_held: 1,
        ..Config::default()
    };
    let engine = engine(config);
    let flow = hold(&engine, at(0), Ends::v4(4000));
    let bell = Bell::fresh();
    assert!(
        bell.poll(|cx| engine.poll_withdrawn(&flow, cx))
            .is_pending()
    );
    run(&engine, at(6999));
    assert_eq!(bell.times(), 0);
    // Deadlines are up to an eighth late.
    run(&engine, at(7000 * 9 / 8));
    assert_eq!(bell.times(), 1);
    assert!(bell.poll(|cx| engine.poll_withdrawn(&flow, cx)).is_ready());
    assert_eq!((engine.flow_count(), engine.poll_timeout()), (0, None));
    engine.accept(at(8001), &flow);
    assert_eq!(said(&engine), "nothing", "a late success says nothing");
    let read = bell.poll(|cx| engine.poll_read(at(8001), &flow, 100, cx));
    assert_eq!(read, Poll::Ready(Err(StreamError::Reset)));
    hold(&engine, at(8002), Ends::v4(4001));
}

#[test]
fn patience_grows_with_the_gaps() {
    let engine = engine(Config::default());
    let ends = Ends::v4(4000);
    let flow = hold(&engine, at(0), ends);
    for second in [1, 3, 7, 15, 31] {
        give(&engine, at(second * 1000), &Segment::syn(1000).packet(ends));
    }
    let bell = Bell::fresh();
    assert!(
        bell.poll(|cx| engine.poll_withdrawn(&flow, cx))
            .is_pending()
    );
    run(&engine, at(31_000 + 3 * 16_000 - 1));
    assert_eq!(bell.times(), 0);
    run(&engine, at(31_000 + 3 * 16_000 * 9 / 8));
    assert_eq!(bell.times(), 1);
}

#[test]
fn a_syn_seen_twice_at_once_does_not_shorten_patience() {
    let engine = engine(Config::default());
    let ends = Ends::v4(4000);
    hold(&engine, at(0), ends);
    for second in [1, 3, 7, 15] {
        give(&engine, at(second * 1000), &Segment::syn(1000).packet(ends));
    }
    give(&engine, at(15_001), &Segment::syn(1000).packet(ends));
    run(&engine, at(30_900));
    assert_eq!(engine.flow_count(), 1, "the next SYN is due at 31 s");
}

#[test]
fn a_reset_from_the_initiator_withdraws() {
    for failure in [None, Some(OpenFailure::TimedOut)] {
        let engine = engine(Config::default());
        let ends = Ends::v6(4000);
        let flow = hold(&engine, at(0), ends);
        let bell = Bell::fresh();
        assert!(
            bell.poll(|cx| engine.poll_withdrawn(&flow, cx))
                .is_pending()
        );
        if let Some(failure) = failure {
            engine.refuse(at(1), &flow, failure);
        }
        give(&engine, at(2), &Segment::new(RST, 1001, 0).packet(ends));
        assert_eq!(bell.times(), 1);
        assert_eq!(engine.flow_count(), 0);
        assert_eq!(said(&engine), "nothing");
    }
}

#[test]
fn an_abandoned_held_flow_is_forgotten_in_silence() {
    let engine = engine(Config::default());
    let flow = hold(&engine, at(0), Ends::v4(4000));
    engine.abandon(at(1), &flow);
    assert_eq!(said(&engine), "nothing");
    assert_eq!(engine.flow_count(), 0);
    hold(&engine, at(1000), Ends::v4(4000));
}

#[test]
fn an_answer_counts_once() {
    let engine = engine(Config::default());
    let ends = Ends::v4(4000);
    let flow = hold(&engine, at(0), ends);
    engine.refuse(at(1), &flow, OpenFailure::Refused);
    said(&engine);
    engine.refuse(at(2), &flow, OpenFailure::Refused);
    engine.accept(at(3), &flow);
    assert_eq!(said(&engine), "nothing");
    // The place that it freed once is not freed again.
    for port in 0..3 {
        hold(&engine, at(4), Ends::v4(5000 + port));
    }
    assert_eq!(engine.flow_count(), 3);
}

#[test]
fn a_syn_beyond_the_bound_is_a_counted_drop() {
    for (max_held, max_flows) in [(2, 100), (100, 2)] {
        let config = Config {
            max_held,
            max_flows,
            ..Config::default()
        };
        let engine = engine(config);
        let first = hold(&engine, at(0), Ends::v4(4000));
        hold(&engine, at(0), Ends::v4(4001));
        let third = Segment::syn(1).packet(Ends::v4(4002));
        assert!(give(&engine, at(0), &third).is_none());
        assert_eq!(engine.drops().get(Reason::NoRoom), 1);
        assert_eq!(said(&engine), "nothing");
        // SYNs that come again need no further place.
        give(&engine, at(1), &Segment::syn(1000).packet(Ends::v4(4000)));
        assert_eq!(engine.drops().get(Reason::NoRoom), 1);
        open(&engine, at(2), Ends::v4(4000), &first);
        let has_room = give(&engine, at(3), &third).is_some();
        assert_eq!(has_room, max_held == 2, "an open flow is not held");
    }
}

#[test]
fn a_segment_of_no_flow_is_reset_and_a_reset_is_not() {
    let mut table = String::new();
    let cases = [
        ("ACK", Segment::new(ACK, 500, 900)),
        ("FIN+ACK", Segment::new(FIN | ACK, 500, 900)),
        ("SYN+ACK", Segment::new(SYN | ACK, 500, 900)),
        (
            "PSH+ACK, 5 bytes",
            Segment::new(PSH | ACK, 500, 900).with_payload(b"hello"),
        ),
        (
            "FIN, 5 bytes",
            Segment::new(FIN, 500, 0).with_payload(b"hello"),
        ),
        ("FIN at the wrap", Segment::new(FIN, u32::MAX, 0)),
        ("RST", Segment::new(RST, 500, 0)),
        ("RST+ACK", Segment::new(RST | ACK, 500, 900)),
    ];
    for (name, segment) in cases {
        for ends in [Ends::v4(4000), Ends::v6(4000)] {
            let engine = engine(Config::default());
            assert!(give(&engine, at(0), &segment.packet(ends)).is_none());
            let count = engine.drops().get(Reason::NoFlow);
            let line = format!("{name:<17} {:<22} counted {count}\n", said(&engine));
            if ends.source.is_ipv4() {
                table += &line;
            } else {
                assert!(table.ends_with(&line), "IPv6 answers as IPv4 does");
            }
        }
    }
    insta::assert_snapshot!(table, @r"
    ACK               RST seq=900 ack=0      counted 1
    FIN+ACK           RST seq=900 ack=0      counted 1
    SYN+ACK           RST seq=900 ack=0      counted 1
    PSH+ACK, 5 bytes  RST seq=900 ack=0      counted 1
    FIN, 5 bytes      RST+ACK seq=0 ack=506  counted 1
    FIN at the wrap   RST+ACK seq=0 ack=0    counted 1
    RST               nothing                counted 0
    RST+ACK           nothing                counted 0
    ");
}

#[test]
fn data_and_fin_travel_over_an_opened_flow() {
    let engine = engine(Config::default());
    let ends = Ends::v4(4000);
    let flow = hold(&engine, at(0), ends);
    let next = open(&engine, at(10), ends, &flow);
    let bell = Bell::fresh();
    let read = || bell.poll(|cx| engine.poll_read(at(11), &flow, 100, cx));
    assert!(read().is_pending());
    let data = Segment::new(PSH | ACK, 1001, next).with_payload(b"hello");
    give(&engine, at(11), &data.packet(ends));
    assert_eq!(bell.times(), 1);
    assert_eq!(read(), Poll::Ready(Ok(Some("hello".into()))));
    give(
        &engine,
        at(12),
        &Segment::new(FIN | ACK, 1006, next).packet(ends),
    );
    assert_eq!(read(), Poll::Ready(Ok(None)));
    said(&engine);
    let reset = || bell.poll(|cx| engine.poll_reset(&flow, cx));
    assert!(reset().is_pending());
    give(&engine, at(13), &Segment::new(RST, 1007, 0).packet(ends));
    assert_eq!(bell.times(), 2, "data and reset each woke the reader");
    assert_eq!(reset(), Poll::Ready(StreamError::Reset));
    assert_eq!(engine.flow_count(), 0);
}

#[test]
fn a_bare_ack_of_a_held_flow_says_nothing() {
    let engine = engine(Config::default());
    let ends = Ends::v4(4000);
    hold(&engine, at(0), ends);
    for flags in [ACK, FIN | ACK, PSH | ACK] {
        give(&engine, at(1), &Segment::new(flags, 1001, 5).packet(ends));
    }
    assert_eq!(said(&engine), "nothing");
    assert_eq!(engine.flow_count(), 1);
}

#[test]
fn data_in_the_syn_is_left_for_the_application_to_send_again() {
    let engine = engine(Config::default());
    let ends = Ends::v4(4000);
    let syn = Segment::syn(1000).with_payload(b"early").packet(ends);
    let flow = give(&engine, at(0), &syn).unwrap();
    let next = open(&engine, at(1), ends, &flow);
    let data = Segment::new(PSH | ACK, 1001, next).with_payload(b"early");
    give(&engine, at(2), &data.packet(ends));
    let bell = Bell::fresh();
    let read = bell.poll(|cx| engine.poll_read(at(2), &flow, 100, cx));
    assert_eq!(read, Poll::Ready(Ok(Some("early".into()))));
}

#[test]
fn ten_thousand_held_flows_leave_few_timers_and_no_trace() {
    let engine = engine(Config::default());
    let ends = |n: u16| Ends::v4(10_000 + n);
    let flows: Vec<_> = (0..10_000).map(|n| hold(&engine, at(0), ends(n))).collect();
    for second in [1, 3, 5] {
        for n in 0..10_000 {
            give(
                &engine,
                at(second * 1000),
                &Segment::syn(1000).packet(ends(n)),
            );
        }
    }
    for flow in &flows {
        engine.refuse(at(5500), flow, OpenFailure::TimedOut);
    }
    assert_eq!(engine.flow_count(), 10_000);
    let mut rounds = 0;
    while let Some(due) = engine.poll_timeout() {
        engine.handle_timeout(due);
        rounds += 1;
        assert!(rounds < 100, "all flows fall due together");
    }
    assert_eq!((engine.flow_count(), said(&engine)), (0, "nothing".into()));
    assert!(
        engine
            .poll_timeout()
            .is_none_or(|due| due > at(0) + Duration::from_secs(60))
    );
}

#[test]
fn with_offload_a_burst_leaves_as_one_frame() {
    for (ends, segment) in [(Ends::v4(4000), 1460), (Ends::v6(4000), 1440)] {
        let engine = engine(Config {
            offload: true,
            ..Config::default()
        });
        let flow = hold(&engine, at(0), ends);
        open(&engine, at(1), ends, &flow);
        let before = engine.outlet().frames();
        let mut chunk = vec![7; 20_000].into();
        let bell = Bell::fresh();
        let written = bell.poll(|cx| engine.poll_write(at(2), &flow, &mut chunk, cx));
        assert_eq!(written, Poll::Ready(Ok(())));
        assert_eq!(engine.outlet().frames() - before, 0);
        engine.flush(at(2), &flow);
        assert_eq!(engine.outlet().frames() - before, 1);
        let packets = engine.outlet().take();
        let lengths: Vec<_> = packets
            .iter()
            .map(|packet| tcp(packet).unwrap().payload.len())
            .collect();
        assert_eq!(lengths[..13], [segment; 13]);
        assert_eq!(lengths.iter().sum::<usize>(), 20_000);
    }
}

#[test]
fn chunks_that_come_together_leave_in_full_packets_below_64_kib() {
    let engine = engine(Config {
        offload: true,
        ..Config::default()
    });
    let ends = Ends::v4(4000);
    let flow = hold(&engine, at(0), ends);
    open(&engine, at(1), ends, &flow);
    let before = engine.outlet().frames();
    let bell = Bell::fresh();
    for _ in 0..2 {
        let mut chunk = vec![7; 32_768].into();
        let written = bell.poll(|cx| engine.poll_write(at(2), &flow, &mut chunk, cx));
        assert_eq!(written, Poll::Ready(Ok(())));
    }
    let frames = engine.outlet().frames() - before;
    let sent: usize = payload_lengths(&engine).iter().sum();
    // A frame that is to be cut must fit into 64 KiB together with the header of an Ethernet or tunnel behind the device.
    assert!(
        frames == 1 && (64_000..65_300).contains(&sent),
        "{frames} {sent}"
    );
    engine.flush(at(2), &flow);
    let rest: usize = payload_lengths(&engine).iter().sum();
    assert_eq!(sent + rest, 2 * 32_768);
}

fn payload_lengths(engine: &Engine<Tap>) -> Vec<usize> {
    let packets = engine.outlet().take();
    let length = |packet: &Vec<u8>| tcp(packet).unwrap().payload.len();
    packets.iter().map(length).collect()
}

#[test]
fn what_is_due_together_leaves_packets_their_turn() {
    let engine = engine(Config::default());
    let flows: Vec<_> = (0..1500)
        .map(|i| hold(&engine, at(0), Ends::v4(4000 + i)))
        .collect();
    assert_eq!(engine.flow_count(), flows.len());
    engine.handle_timeout(at(8000));
    let left = engine.flow_count();
    assert!((1..1500).contains(&left), "{left}");
    assert!(engine.poll_timeout().is_some_and(|due| due <= at(8000)));
    run(&engine, at(8000));
    assert_eq!((engine.flow_count(), engine.poll_timeout()), (0, None));
}
