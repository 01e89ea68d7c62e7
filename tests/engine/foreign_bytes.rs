//! Whatever bytes come: no panic, and each kind of bad packet is counted under its own name.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::net::IpAddr;
use std::task::Poll;

use proptest::prelude::*;
use proptest::sample::Index;
use underpass::engine::{Arrival, Batch, Checksum, Config, Engine, FlowHandle, Reason};
use underpass::net::OpenFailure;

use crate::support::by_hand::{give, hold, open};
use crate::support::checksum::{be32, fill_ip, fill_transport};
use crate::support::craft::{ACK, Ends, FIN, PSH, RST, SYN, Segment, describe, ip, tcp};
use crate::support::{Bell, Tap, at, engine};

fn syn() -> Vec<u8> {
    Segment::syn(1000).packet(Ends::v4(4000))
}

fn syn6() -> Vec<u8> {
    Segment::syn(1000).packet(Ends::v6(4000))
}

fn with(mut packet: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut packet);
    packet
}

/// With the header's checksum filled in again, as a careful sender would.
fn with_ip(packet: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = with(packet, change);
    fill_ip(&mut packet);
    packet
}

fn with_tcp(packet: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = with(packet, change);
    fill_transport(&mut packet);
    packet
}

fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let Ends { source, target } = Ends::v4(1);
    ip(source.ip(), target.ip(), protocol, payload)
}

fn v6(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let Ends { source, target } = Ends::v6(1);
    ip(source.ip(), target.ip(), protocol, payload)
}

fn between(source: &str, target: &str) -> Vec<u8> {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let tcp = syn()[20..].to_vec();
    let mut packet = ip(address(source), address(target), 6, &tcp);
    fill_transport(&mut packet);
    packet
}

/// What is wrong, and the packet.
fn kinds() -> Vec<(&'static str, Vec<u8>)> {
    let udp = |port: u8, length: u8| [0, 9, 0, port, 0, length, 0, 0, 1, 2, 3, 4];
    let echo = [8, 0, 0, 0, 0, 1, 0, 1];
    let echo6 = [128, 0, 0, 0, 0, 1, 0, 1];
    let unreachable = [3, 1, 0, 0, 0, 0, 0, 0];
    let hop_by_hop = [6, 0, 1, 4, 0, 0, 0, 0];
    vec![
        ("no bytes", vec![]),
        ("one byte", vec![0x45]),
        ("half an IPv4 header", syn()[..10].to_vec()),
        ("half an IPv6 header", syn6()[..20].to_vec()),
        (
            "IPv4, half a TCP header",
            with_ip(syn(), |p| {
                p.truncate(30);
                p[3] = 30
            }),
        ),
        ("IPv4 length above the packet", with_ip(syn(), |p| p[2] = 9)),
        ("IPv6 length above the packet", with(syn6(), |p| p[4] = 9)),
        (
            "IPv4 length below the header",
            with_ip(syn(), |p| p[3] = 12),
        ),
        ("IPv4 header length 16", with_ip(syn(), |p| p[0] = 0x44)),
        (
            "IPv4 header above the packet",
            with(syn()[..40].to_vec(), |p| {
                p[0] = 0x4f;
                p[3] = 40
            }),
        ),
        ("TCP header length 16", with_tcp(syn(), |p| p[32] = 0x40)),
        (
            "TCP header above the packet",
            with_tcp(syn(), |p| p[32] = 0xf0),
        ),
        ("version 5", with(syn(), |p| p[0] = 0x55)),
        ("version 0", vec![0; 60]),
        ("wrong IPv4 checksum", with(syn(), |p| p[10] ^= 1)),
        ("wrong TCP checksum", with(syn(), |p| p[36] ^= 1)),
        ("wrong TCP checksum, IPv6", with(syn6(), |p| p[56] ^= 1)),
        ("first fragment", with_ip(syn(), |p| p[6] = 0x20)),
        ("last fragment", with_ip(syn(), |p| p[7] = 9)),
        ("IPv6 fragment", v6(44, &hop_by_hop)),
        ("hop-by-hop options", v6(0, &hop_by_hop)),
        ("routing header", v6(43, &hop_by_hop)),
        ("destination options", v6(60, &hop_by_hop)),
        ("to multicast", between("10.9.0.2", "224.0.0.1")),
        ("to broadcast", between("10.9.0.2", "255.255.255.255")),
        ("to loopback", between("10.9.0.2", "127.0.0.1")),
        ("from nowhere", between("0.0.0.0", "10.0.1.7")),
        ("from multicast", between("239.1.1.1", "10.0.1.7")),
        ("to multicast, IPv6", between("fd00:9::2", "ff02::1")),
        ("from nowhere, IPv6", between("::", "fd00:1::7")),
        ("to loopback, IPv6", between("fd00:9::2", "::1")),
        ("source port 0", with_tcp(syn(), |p| p[20..22].fill(0))),
        ("target port 0", with_tcp(syn6(), |p| p[42..44].fill(0))),
        ("UDP to port 0", v4(17, &udp(0, 12))),
        ("no TCP flags", Segment::new(0, 1, 1).packet(Ends::v4(4000))),
        (
            "SYN and FIN",
            Segment::new(SYN | FIN, 1, 1).packet(Ends::v4(4000)),
        ),
        (
            "SYN and RST",
            Segment::new(SYN | RST, 1, 1).packet(Ends::v4(4000)),
        ),
        ("all flags", Segment::new(0xff, 1, 1).packet(Ends::v6(4000))),
        ("UDP", v4(17, &udp(53, 12))),
        ("UDP, IPv6", v6(17, &udp(53, 12))),
        ("UDP length above the packet", v4(17, &udp(53, 200))),
        ("UDP length 0", v4(17, &udp(53, 0))),
        ("half a UDP header", v4(17, &[0, 9, 0, 53])),
        ("echo request", v4(1, &echo)),
        ("echo request, IPv6", v6(58, &echo6)),
        ("ICMP unreachable", v4(1, &unreachable)),
        ("ICMPv6 unreachable", v6(58, &unreachable)),
        ("ICMP of two bytes", v4(1, &[8, 0])),
        ("SCTP", v4(132, &[0; 12])),
        ("ESP, IPv6", v6(50, &[0; 12])),
        ("no next header", v6(59, &[])),
        (
            "ACK of no flow",
            Segment::new(ACK, 1, 1).packet(Ends::v4(4000)),
        ),
    ]
}

#[test]
fn each_kind_is_counted_under_its_name() {
    let mut table = String::new();
    for (kind, packet) in kinds() {
        let engine = engine(Config::default());
        let flow = engine.handle_packet(at(0), &packet, Checksum::Unverified);
        assert!(flow.is_none(), "{kind} makes no flow");
        let counted: Vec<_> = engine.drops().nonzero().collect();
        let &[(reason, 1)] = counted.as_slice() else {
            panic!("{kind} is counted as {counted:?}");
        };
        let answers = engine.outlet().take();
        let answer = answers.first().map_or_else(|| "-".into(), |p| describe(p));
        table += &format!("{kind:<29} {reason:<17} {answer}\n");
        assert_eq!((engine.flow_count(), engine.poll_timeout()), (0, None));
    }
    insta::assert_snapshot!(table, @r"
    no bytes                      truncated         -
    one byte                      truncated         -
    half an IPv4 header           truncated         -
    half an IPv6 header           truncated         -
    IPv4, half a TCP header       truncated         -
    IPv4 length above the packet  truncated         -
    IPv6 length above the packet  truncated         -
    IPv4 length below the header  truncated         -
    IPv4 header length 16         bad_header        -
    IPv4 header above the packet  truncated         -
    TCP header length 16          bad_header        -
    TCP header above the packet   truncated         -
    version 5                     bad_header        -
    version 0                     bad_header        -
    wrong IPv4 checksum           bad_checksum      -
    wrong TCP checksum            bad_checksum      -
    wrong TCP checksum, IPv6      bad_checksum      -
    first fragment                fragment          -
    last fragment                 fragment          -
    IPv6 fragment                 fragment          -
    hop-by-hop options            extension_header  -
    routing header                extension_header  -
    destination options           extension_header  -
    to multicast                  not_unicast       -
    to broadcast                  not_unicast       -
    to loopback                   not_unicast       -
    from nowhere                  not_unicast       -
    from multicast                not_unicast       -
    to multicast, IPv6            not_unicast       -
    from nowhere, IPv6            not_unicast       -
    to loopback, IPv6             not_unicast       -
    source port 0                 port_zero         -
    target port 0                 port_zero         -
    UDP to port 0                 port_zero         -
    no TCP flags                  bad_flags         -
    SYN and FIN                   bad_flags         -
    SYN and RST                   bad_flags         -
    all flags                     bad_flags         -
    UDP                           udp               ICMP 3/3 quoting 32 bytes
    UDP, IPv6                     udp               ICMPv6 1/4 quoting 52 bytes
    UDP length above the packet   truncated         -
    UDP length 0                  truncated         -
    half a UDP header             truncated         -
    echo request                  echo              -
    echo request, IPv6            echo              -
    ICMP unreachable              icmp              -
    ICMPv6 unreachable            icmp              -
    ICMP of two bytes             truncated         -
    SCTP                          unknown_protocol  -
    ESP, IPv6                     unknown_protocol  -
    no next header                unknown_protocol  -
    ACK of no flow                no_flow           RST seq=1 ack=0
    ");
}

#[test]
fn a_checksum_that_the_device_vouches_for_is_not_verified() {
    let engine = engine(Config::default());
    let packet = with(syn(), |p| p[36] ^= 1);
    assert!(
        engine
            .handle_packet(at(0), &packet, Checksum::Trusted)
            .is_some()
    );
}

#[test]
fn bytes_behind_the_packet_are_no_part_of_it() {
    let engine = engine(Config::default());
    let packet = with(syn(), |p| p.extend([7; 6]));
    let flow = engine
        .handle_packet(at(0), &packet, Checksum::Unverified)
        .and_then(Arrival::into_flow)
        .unwrap();
    engine.refuse(at(1), &flow, OpenFailure::Refused);
    assert_eq!(
        describe(&engine.outlet().take()[0]),
        "RST+ACK seq=0 ack=1001"
    );
}

fn with_ipv4_options(packet: &[u8]) -> Vec<u8> {
    // Three no-operations and the end of the list.
    let mut packet = [&packet[..20], &[1, 1, 1, 0], &packet[20..]].concat();
    packet[0] = 0x46;
    // A packet that was spoilt before may name any length.
    packet[3] = packet[3].wrapping_add(4);
    fill_ip(&mut packet);
    packet
}

#[test]
fn ipv4_options_are_no_obstacle() {
    let engine = engine(Config::default());
    let packet = with_ipv4_options(&syn());
    let flow = engine
        .handle_packet(at(0), &packet, Checksum::Unverified)
        .and_then(Arrival::into_flow)
        .unwrap();
    engine.accept(at(1), &flow);
    assert_eq!(tcp(&engine.outlet().take()[0]).unwrap().flags, SYN | ACK);
}

/// TCP options that a SYN may bring.
fn odd_options() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("no options", vec![]),
        ("MSS 0", vec![2, 4, 0, 0]),
        ("MSS 1", vec![2, 4, 0, 1]),
        ("MSS 65535", vec![2, 4, 255, 255]),
        ("window scale 14", vec![3, 3, 14, 0]),
        ("window scale 255", vec![3, 3, 255, 0]),
        ("unknown option", vec![253, 4, 1, 2]),
        ("timestamps", vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0]),
        ("MSS of length 3", vec![2, 3, 5, 0]),
        ("option of length 0", vec![2, 0, 5, 180]),
        ("option of length 1", vec![3, 1, 0, 0]),
        ("option beyond the header", vec![2, 40, 5, 180]),
        ("option kind at the end", vec![1, 1, 1, 2]),
    ]
}

/// Opens a flow with `options` in the SYN and sends 3000 bytes to the application.
fn opened_with(options: Vec<u8>) -> String {
    let engine = engine(Config::default());
    let ends = Ends::v4(4000);
    let mut syn = Segment::new(SYN, 1000, 0);
    syn.options = options;
    let flow = engine
        .handle_packet(at(0), &syn.packet(ends), Checksum::Unverified)
        .and_then(Arrival::into_flow)
        .unwrap();
    engine.accept(at(1), &flow);
    let packets = engine.outlet().take();
    let Some(syn_ack) = packets.first() else {
        return format!("no answer, {} flows left", engine.flow_count());
    };
    let next = be32(syn_ack, 24).wrapping_add(1);
    let ack = Segment::new(ACK, 1001, next).packet(ends);
    engine.handle_packet(at(2), &ack, Checksum::Unverified);
    let bell = Bell::fresh();
    let mut chunk = vec![7; 3000].into();
    let _ = bell.poll(|cx| engine.poll_write(at(3), &flow, &mut chunk, cx));
    engine.flush(at(3), &flow);
    let sent = engine.outlet().take();
    let largest = sent
        .iter()
        .filter_map(|p| tcp(p))
        .map(|s| s.payload.len())
        .max();
    format!("opens, largest segment {}", largest.unwrap_or(0))
}

#[test]
fn odd_options_of_a_syn() {
    let table: String = odd_options()
        .into_iter()
        .map(|(name, options)| format!("{name:<25} {}\n", opened_with(options)))
        .collect();
    insta::assert_snapshot!(table, @r"
    no options                opens, largest segment 536
    MSS 0                     opens, largest segment 536
    MSS 1                     opens, largest segment 48
    MSS 65535                 opens, largest segment 1460
    window scale 14           opens, largest segment 536
    window scale 255          opens, largest segment 536
    unknown option            opens, largest segment 536
    timestamps                opens, largest segment 536
    MSS of length 3           no answer, 0 flows left
    option of length 0        no answer, 0 flows left
    option of length 1        no answer, 0 flows left
    option beyond the header  no answer, 0 flows left
    option kind at the end    no answer, 0 flows left
    ");
}

/// An engine with a held, a silent, an open and a half-closed flow, over both IP versions.
fn busy(offload: bool) -> (Engine<Tap>, Vec<FlowHandle>) {
    let config = Config {
        offload,
        ..Config::default()
    };
    let engine = engine(config);
    let mut flows = Vec::new();
    for ends in [Ends::v4, Ends::v6] {
        for state in 0..4u16 {
            let ends = ends(4000 + state);
            let syn = Segment::syn(1000).packet(ends);
            let flow = engine
                .handle_packet(at(0), &syn, Checksum::Trusted)
                .and_then(Arrival::into_flow)
                .unwrap();
            match state {
                0 => {}
                1 => engine.refuse(at(1), &flow, OpenFailure::TimedOut),
                _ => engine.accept(at(1), &flow),
            }
            if let Some(syn_ack) = engine.outlet().take().first() {
                let next = tcp(syn_ack).unwrap().seq.wrapping_add(1);
                let flags = if state == 3 { FIN | ACK } else { ACK };
                let ack = Segment::new(flags, 1001, next).packet(ends);
                engine.handle_packet(at(2), &ack, Checksum::Trusted);
            }
            flows.push(flow);
        }
    }
    (engine, flows)
}

/// A packet of one of the flows of [`busy`], or beside them.
fn near_miss() -> impl Strategy<Value = Vec<u8>> {
    let options = prop_oneof![
        proptest::sample::select(odd_options()).prop_map(|(_, options)| options),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|mut options| {
            options.truncate(options.len() / 4 * 4);
            options
        }),
    ];
    let flags = prop_oneof![
        any::<u8>(),
        proptest::sample::select(vec![
            SYN,
            ACK,
            FIN | ACK,
            RST,
            RST | ACK,
            PSH | ACK,
            SYN | ACK
        ])
    ];
    let seq = prop_oneof![any::<u32>(), 990..1100u32];
    let payload = proptest::collection::vec(any::<u8>(), 0..64);
    (
        (any::<bool>(), 3999..4006u16),
        flags,
        (
            seq,
            any::<u32>(),
            prop_oneof![Just(0), Just(64_240u16), any::<u16>()],
        ),
        options,
        payload,
    )
        .prop_map(
            |((is_v6, port), flags, (seq, ack, window), options, payload)| {
                let ends = if is_v6 {
                    Ends::v6(port)
                } else {
                    Ends::v4(port)
                };
                let segment = Segment {
                    flags,
                    seq,
                    ack,
                    window,
                    options,
                    payload,
                };
                segment.packet(ends)
            },
        )
}

/// How a packet is spoilt.
fn spoilt() -> impl Strategy<Value = Vec<u8>> {
    let edits = proptest::collection::vec((any::<Index>(), any::<u8>()), 0..4);
    (near_miss(), edits, any::<Index>(), 0..4u8).prop_map(|(mut packet, edits, length, how)| {
        for (index, byte) in edits {
            let at = index.index(packet.len());
            packet[at] = byte;
        }
        if how == 1 {
            packet.truncate(length.index(packet.len() + 1));
        }
        if how == 2 && packet[0] == 0x45 {
            packet = with_ipv4_options(&packet);
        } else if packet.len() > 20 && packet[0] == 0x45 {
            fill_ip(&mut packet);
        }
        packet
    })
}

/// The window of a SYN-ACK is not scaled, but smoltcp reckons as if it were: four times what there is room for.
#[test]
fn bytes_beyond_the_first_window_do_no_harm() {
    const PIECE: usize = 60_000;
    let engine = engine(Config::default());
    let ends = Ends::v4(4000);
    let flow = hold(&engine, at(0), ends);
    let next = open(&engine, at(1), ends, &flow);
    let piece = |number: usize| {
        let seq = 1001 + (number * PIECE) as u32;
        let segment = Segment::new(ACK | PSH, seq, next).with_payload(&[number as u8; PIECE]);
        segment.packet(ends)
    };
    let mut batch = Batch::default();
    for number in [0, 4, 1, 2, 3, 5] {
        let packet = piece(number);
        engine.handle_packet_in(&mut batch, at(2), &packet, Checksum::Unverified);
    }
    engine.acknowledge(&mut batch, at(2));
    assert_eq!(engine.drops().get(Reason::BeyondWindow), 5);
    // They come again, within the window that the first one's acknowledgment opened.
    for number in 1..4 {
        give(&engine, at(3), &piece(number));
    }
    let bell = Bell::fresh();
    let mut all = Vec::new();
    while let Poll::Ready(read) = bell.poll(|cx| engine.poll_read(at(4), &flow, 1 << 20, cx)) {
        all.extend_from_slice(&read.unwrap().unwrap());
    }
    let expected: Vec<u8> = (0..4).flat_map(|number| [number; PIECE]).collect();
    assert!(all == expected, "{} bytes", all.len());
    wind_up(&engine, &[flow]);
}

/// Whatever the engine is left with, it ends when its flows do.
fn wind_up(engine: &Engine<Tap>, flows: &[FlowHandle]) {
    let bell = Bell::fresh();
    for flow in flows {
        let _ = bell.poll(|cx| engine.poll_read(at(10), flow, 4096, cx));
        let mut chunk = vec![7; 5000].into();
        let _ = bell.poll(|cx| engine.poll_write(at(10), flow, &mut chunk, cx));
        engine.flush(at(10), flow);
        let _ = bell.poll(|cx| engine.poll_finish(at(10), flow, cx));
        let _ = bell.poll(|cx| engine.poll_reset(flow, cx));
        engine.abandon(at(11), flow);
    }
    for _ in 0..1000 {
        let Some(due) = engine.poll_timeout() else {
            break;
        };
        engine.handle_timeout(due);
    }
    assert_eq!((engine.flow_count(), engine.poll_timeout()), (0, None));
}

fn feed(packets: &[Vec<u8>], is_busy: bool, offload: bool, checksum: Checksum) {
    let (engine, mut flows) = if is_busy {
        busy(offload)
    } else {
        (
            engine(Config {
                offload,
                ..Config::default()
            }),
            Vec::new(),
        )
    };
    for (index, packet) in packets.iter().enumerate() {
        let now = at(3 + index as i64);
        let arrival = engine.handle_packet(now, packet, checksum);
        if let Some(flow) = arrival.and_then(Arrival::into_flow) {
            engine.accept(now, &flow);
            flows.push(flow);
        }
    }
    wind_up(&engine, &flows);
}

fn checksum() -> impl Strategy<Value = Checksum> {
    proptest::sample::select(vec![Checksum::Trusted, Checksum::Unverified])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_do_no_harm(
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8),
        is_busy: bool, offload: bool, checksum in checksum(),
    ) {
        feed(&packets, is_busy, offload, checksum);
    }

    #[test]
    fn spoilt_packets_do_no_harm(
        packets in proptest::collection::vec(spoilt(), 1..12),
        is_busy: bool, offload: bool, checksum in checksum(),
    ) {
        feed(&packets, is_busy, offload, checksum);
    }
}
