//! What is no flow: it goes the way that was asked for, whole or for what it says, and what comes back becomes packets.

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

use proptest::prelude::*;
use proptest::sample::Index;
use smoltcp::time::Instant;
use underpass::engine::reject::Unreachable;
use underpass::engine::{
    Arrival, Beside, Checksum, Config, Datagram, Echo, Engine, Frame, HEADROOM, NameServers,
    Others, Outlet, Pings, Udp, Ways,
};
use underpass::net::{Source, Target};

use crate::support::by_hand::{give, hold, said};
use crate::support::checksum::{be16, be32, fill_ip, fill_transport, verify};
use crate::support::craft::{ACK, Ends, FIN, SYN, Segment, ip};
use crate::support::{Tap, at, engine};

/// A device that takes what is no packet of the engine's own making, too.
#[derive(Debug, Default)]
struct Wire(Mutex<Vec<Vec<u8>>>);

impl Outlet for Wire {
    fn transmit(&self, frame: Frame<'_>) {
        assert!(!frame.partial_checksum && frame.segment_size.is_none());
        assert!(frame.buffer.len() <= HEADROOM + 65_535);
        self.0
            .lock()
            .unwrap()
            .push(frame.buffer[HEADROOM..].to_vec());
    }

    fn rearm(&self, _: Instant) {}
}

fn wire(ways: Ways) -> Engine<Wire> {
    let engine = Engine::new(Config::default(), Wire::default());
    engine.carry(ways);
    engine
}

fn sent(engine: &Engine<Wire>) -> Vec<Vec<u8>> {
    std::mem::take(&mut engine.outlet().0.lock().unwrap())
}

fn carrying(ways: Ways) -> Engine<Tap> {
    let engine = engine(Config::default());
    engine.carry(ways);
    engine
}

/// Without a tunnel, but with somebody to ask.
fn asking() -> Ways {
    Ways {
        udp: Udp::Datagrams,
        pings: Pings::Ask,
        ..Ways::default()
    }
}

const LONG: usize = 32_764;

fn client(is_v6: bool) -> IpAddr {
    ends(is_v6).source.ip()
}

fn host(is_v6: bool) -> IpAddr {
    ends(is_v6).target.ip()
}

fn ends(is_v6: bool) -> Ends {
    if is_v6 {
        Ends::v6(4000)
    } else {
        Ends::v4(4000)
    }
}

fn from_client(is_v6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ip(client(is_v6), host(is_v6), protocol, payload)
}

fn filled(mut packet: Vec<u8>) -> Vec<u8> {
    fill_transport(&mut packet);
    packet
}

fn udp_to(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut udp = [4242_u16, port, 8 + payload.len() as u16, 0]
        .map(u16::to_be_bytes)
        .concat();
    udp.extend(payload);
    udp
}

/// The other way round.
fn udp_from(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut udp = udp_to(4242, payload);
    udp[..2].copy_from_slice(&port.to_be_bytes());
    udp
}

fn udp(is_v6: bool, payload: &[u8]) -> Vec<u8> {
    filled(from_client(is_v6, 17, &udp_to(9, payload)))
}

fn echo(is_v6: bool, payload: &[u8]) -> Vec<u8> {
    let (kind, protocol) = if is_v6 { (128, 58) } else { (8, 1) };
    let mut icmp = vec![kind, 0, 0, 0, 0x12, 0x34, 0, 7];
    icmp.extend(payload);
    filled(from_client(is_v6, protocol, &icmp))
}

fn unreachable(is_v6: bool) -> Vec<u8> {
    let (kind, protocol) = if is_v6 { (1, 58) } else { (3, 1) };
    let quoted = [kind, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    filled(from_client(is_v6, protocol, &quoted))
}

/// `packet` as a fragment at `offset` of a longer one.
fn fragment(packet: &[u8], offset: u16) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 {
        packet[6..8].copy_from_slice(&((offset / 8) | 0x2000).to_be_bytes());
        fill_ip(&mut packet);
        return packet;
    }
    let mut payload = vec![packet[6], 0];
    payload.extend((offset | 1).to_be_bytes());
    payload.extend([0, 0, 0, 9]);
    payload.extend(&packet[40..]);
    from_client(true, 44, &payload)
}

/// Behind a header of destination options.
fn with_options(packet: &[u8]) -> Vec<u8> {
    let mut payload = vec![packet[6], 0, 1, 4, 0, 0, 0, 0];
    payload.extend(&packet[40..]);
    from_client(true, 60, &payload)
}

fn kinds() -> Vec<(&'static str, Vec<u8>)> {
    let syn = |is_v6| Segment::syn(1000).packet(ends(is_v6));
    let odd = Segment::new(SYN | FIN, 1, 1).packet(ends(false));
    vec![
        ("SYN", syn(false)),
        ("SYN, IPv6", syn(true)),
        ("SYN and FIN", odd),
        ("SYN, first fragment", fragment(&syn(false), 0)),
        ("SYN behind options", with_options(&syn(true))),
        ("UDP", udp(false, b"question")),
        ("UDP, IPv6", udp(true, b"question")),
        ("UDP, first fragment", fragment(&udp(false, &[0; 64]), 0)),
        ("UDP, next fragment", fragment(&udp(false, &[0; 64]), 1480)),
        (
            "UDP, first fragment, IPv6",
            fragment(&udp(true, &[0; 64]), 0),
        ),
        (
            "UDP, next fragment, IPv6",
            fragment(&udp(true, &[0; 64]), 1448),
        ),
        ("UDP behind options", with_options(&udp(true, b"question"))),
        ("echo request", echo(false, b"ping")),
        ("echo request, IPv6", echo(true, b"ping")),
        (
            "echo, next fragment",
            fragment(&echo(false, &[0; 64]), 1480),
        ),
        ("unreachable", unreachable(false)),
        ("unreachable, IPv6", unreachable(true)),
        ("SCTP", from_client(false, 132, &[0; 12])),
        ("ESP, IPv6", from_client(true, 50, &[0; 12])),
        (
            "ESP, next fragment",
            fragment(&from_client(false, 50, &[0; 64]), 1480),
        ),
        (
            "to multicast",
            ip(client(false), [224, 0, 0, 1].into(), 17, &udp_to(9, b"")),
        ),
        ("half a header", udp(false, b"")[..15].to_vec()),
    ]
}

fn disposition(ways: Ways, packet: &[u8]) -> String {
    let engine = carrying(ways);
    let went = match engine.handle_packet(at(0), packet, Checksum::Unverified) {
        Some(Arrival::Flow(_)) => "flow".to_owned(),
        Some(Arrival::Name(_)) => "name".to_owned(),
        Some(Arrival::Beside(Beside::Packet(taken))) => {
            assert_eq!(taken, packet, "handed out whole");
            "packet".to_owned()
        }
        Some(Arrival::Beside(Beside::Datagram(_))) => "datagram".to_owned(),
        Some(Arrival::Beside(Beside::Echo(_))) => "echo".to_owned(),
        None => {
            let counted: Vec<_> = engine.drops().nonzero().collect();
            assert_eq!(counted.len(), 1, "{counted:?}");
            return format!("({})", counted[0].0);
        }
    };
    assert_eq!(engine.drops().nonzero().count(), 0);
    assert_eq!(said(&engine), "nothing");
    went
}

#[test]
fn each_kind_goes_the_way_that_was_asked_for() {
    let mut table = String::new();
    for (kind, packet) in kinds() {
        let ways = [
            Ways::default(),
            asking(),
            Ways::hybrid(LONG),
            Ways::full(LONG),
        ];
        let [refused, asked, hybrid, full] = ways.map(|ways| disposition(ways, &packet));
        table += &format!("{kind:<26} {refused:<18} {asked:<18} {hybrid:<18} {full}\n");
    }
    insta::assert_snapshot!(table);
}

#[test]
fn datagrams_and_echoes_say_all_that_an_answer_needs() {
    for is_v6 in [false, true] {
        let engine = carrying(asking());
        for payload in [&b"question"[..], &[7; 1400], b""] {
            let packet = udp(is_v6, payload);
            let arrival = engine.handle_packet(at(0), &packet, Checksum::Unverified);
            let Some(Arrival::Beside(Beside::Datagram(taken))) = arrival else {
                panic!("{arrival:?}");
            };
            let expected = Datagram {
                source: Source(SocketAddr::new(client(is_v6), 4242)),
                target: Target(SocketAddr::new(host(is_v6), 9)),
                payload,
            };
            assert_eq!(taken, expected);

            let packet = echo(is_v6, payload);
            let arrival = engine.handle_packet(at(0), &packet, Checksum::Unverified);
            let Some(Arrival::Beside(Beside::Echo(taken))) = arrival else {
                panic!("{arrival:?}");
            };
            let expected = Echo {
                source: client(is_v6),
                target: host(is_v6),
                ident: 0x1234,
                seq: 7,
                ttl: 64,
                payload,
            };
            assert_eq!(taken, expected);
        }
        for mut packet in [udp(is_v6, b"question"), echo(is_v6, b"question")] {
            *packet.last_mut().unwrap() ^= 1;
            assert!(
                engine
                    .handle_packet(at(0), &packet, Checksum::Unverified)
                    .is_none()
            );
            assert!(
                engine
                    .handle_packet(at(0), &packet, Checksum::Trusted)
                    .is_some()
            );
        }
        let counted: Vec<_> = engine.drops().nonzero().collect();
        assert_eq!(counted, [("bad_checksum", 2)]);
    }
}

#[test]
fn the_way_changes_while_it_runs() {
    let engine = carrying(Ways::default());
    let packet = udp(false, b"question");
    assert!(give(&engine, at(0), &packet).is_none());
    assert_eq!(said(&engine), "ICMP 3/3 quoting 36 bytes");
    engine.carry(Ways::hybrid(LONG));
    let arrival = engine.handle_packet(at(1), &packet, Checksum::Unverified);
    assert!(matches!(arrival, Some(Arrival::Beside(Beside::Packet(_)))));
    engine.carry(Ways::default());
    assert!(give(&engine, at(2), &packet).is_none());
    assert_eq!(said(&engine), "ICMP 3/3 quoting 36 bytes");
}

/// The name server is here, whatever else goes through the tunnel.
#[test]
fn a_name_server_stays_ours_in_full_mode() {
    let engine = engine(Config {
        name_servers: NameServers([Some(host(false)), None]),
        ..Config::default()
    });
    engine.carry(Ways::full(LONG));
    let question = filled(from_client(false, 17, &udp_to(53, b"question")));
    let arrival = engine.handle_packet(at(0), &question, Checksum::Unverified);
    assert!(matches!(arrival, Some(Arrival::Name(_))));
    let mut ends = ends(false);
    ends.target.set_port(53);
    hold(&engine, at(0), ends);
    ends.target.set_port(54);
    let syn = Segment::syn(1000).packet(ends);
    let arrival = engine.handle_packet(at(0), &syn, Checksum::Unverified);
    assert!(matches!(arrival, Some(Arrival::Beside(Beside::Packet(_)))));
}

/// What would be lost there is refused, or a flow.
#[test]
fn where_the_tunnel_has_no_ipv6_nothing_of_it_goes_there() {
    let engine = carrying(Ways {
        v6: false,
        ..Ways::full(LONG)
    });
    let packet = udp(false, b"question");
    let arrival = engine.handle_packet(at(0), &packet, Checksum::Unverified);
    assert!(matches!(arrival, Some(Arrival::Beside(Beside::Packet(_)))));
    hold(&engine, at(0), ends(true));
    assert!(give(&engine, at(0), &udp(true, b"question")).is_none());
    assert_eq!(said(&engine), "ICMPv6 1/4 quoting 56 bytes");
    assert!(give(&engine, at(0), &echo(true, b"ping")).is_none());
    assert_eq!(said(&engine), "nothing");
}

#[test]
fn a_device_that_cuts_no_segments_keeps_its_flows() {
    let engine = engine(Config {
        offload: true,
        ..Config::default()
    });
    engine.carry(Ways::full(LONG));
    hold(&engine, at(0), ends(false));
    engine.packet_from_far(at(0), &Segment::new(ACK, 1, 1).packet(ends(false)));
    assert_eq!(said(&engine), "nothing");
    let counted: Vec<_> = engine.drops().nonzero().collect();
    assert_eq!(counted, [("far_tcp", 1)]);
}

#[test]
fn a_sender_is_told_what_fits_the_tunnel() {
    let ways = Ways::hybrid(1400);
    for (is_v6, kind) in [(false, [3, 4]), (true, [2, 0])] {
        let (ip_len, headers) = if is_v6 { (40, 48) } else { (20, 28) };
        let engine = carrying(ways);
        let fits = udp(is_v6, &vec![7; 1400 - headers]);
        let arrival = engine.handle_packet(at(0), &fits, Checksum::Unverified);
        assert!(matches!(arrival, Some(Arrival::Beside(Beside::Packet(p))) if p == fits));
        for too_long in [
            udp(is_v6, &vec![7; 1401 - headers]),
            echo(is_v6, &vec![7; 1401 - headers]),
        ] {
            assert!(
                engine
                    .handle_packet(at(0), &too_long, Checksum::Unverified)
                    .is_none()
            );
            let packets = engine.outlet().take();
            let [told] = packets.as_slice() else {
                panic!("{packets:?}");
            };
            assert_eq!(told[ip_len..ip_len + 2], kind);
            assert_eq!(be32(told, ip_len + 4), 1400);
            assert!(too_long.starts_with(&told[ip_len + 8..]));
            assert!(told.len() > ip_len + 8 + headers);
        }
        let counted: Vec<_> = engine.drops().nonzero().collect();
        assert_eq!(counted, [("too_long", 2)]);
    }
}

#[test]
fn nobody_is_told_less_than_ipv6_allows() {
    let engine = carrying(Ways::hybrid(600));
    assert!(give(&engine, at(0), &udp(true, &[7; 600])).is_none());
    assert_eq!(be32(&engine.outlet().take()[0], 44), 1280);
}

/// RFC 1122 section 3.2.2: neither an error about an error, nor about a fragment behind the first.
#[test]
fn what_may_not_be_answered_is_not() {
    let engine = carrying(Ways::hybrid(60));
    for is_v6 in [false, true] {
        let mut error = unreachable(is_v6);
        let at_end = error.len();
        error = {
            let (ip_len, protocol) = if is_v6 { (40, 58) } else { (20, 1) };
            let icmp = [&error[ip_len..at_end], &[0; 64]].concat();
            filled(from_client(is_v6, protocol, &icmp))
        };
        assert!(give(&engine, at(0), &error).is_none());
        assert!(give(&engine, at(0), &fragment(&udp(is_v6, &[0; 64]), 1480)).is_none());
    }
    assert_eq!(said(&engine), "nothing");
    assert!(give(&engine, at(0), &fragment(&udp(false, &[0; 64]), 0)).is_none());
    assert_eq!(said(&engine), "ICMP 3/4 quoting 92 bytes");
    let counted: Vec<_> = engine.drops().nonzero().collect();
    assert_eq!(counted, [("too_long", 5)]);
}

#[test]
fn a_flood_of_long_packets_is_told_so_now_and_then() {
    let engine = carrying(Ways::hybrid(1400));
    let packet = udp(false, &[7; 1400]);
    for number in 0..10_000 {
        assert!(give(&engine, at(number / 10), &packet).is_none());
    }
    let told = engine.outlet().take().len();
    assert!((100..=140).contains(&told), "{told} in a second");
    let counted: Vec<_> = engine.drops().nonzero().collect();
    assert_eq!(counted, [("too_long", 10_000)]);
    assert_eq!(engine.poll_timeout(), None);
}

/// As a traceroute sees it: the far side, then the target.
#[test]
fn the_far_side_is_a_hop() {
    let hop: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "fd00:b::1".parse().unwrap()];
    for is_v6 in [false, true] {
        let (ttl_at, ip_len, kind) = if is_v6 {
            (7, 40, [3, 0])
        } else {
            (8, 20, [11, 0])
        };
        for packet in [udp(is_v6, b"probe"), echo(is_v6, b"probe")] {
            let with_ttl = |ttl: u8| {
                let mut packet = packet.clone();
                packet[ttl_at] = ttl;
                fill_ip(&mut packet);
                packet
            };
            let engine = carrying(Ways {
                hop: hop.map(Some),
                ..asking()
            });
            for ttl in [0, 1] {
                let probe = with_ttl(ttl);
                assert!(give(&engine, at(0), &probe).is_none());
                let packets = engine.outlet().take();
                let [told] = packets.as_slice() else {
                    panic!("{packets:?}");
                };
                let source = if is_v6 { &told[8..24] } else { &told[12..16] };
                let expected = match hop[usize::from(is_v6)] {
                    IpAddr::V4(ip) => ip.octets().to_vec(),
                    IpAddr::V6(ip) => ip.octets().to_vec(),
                };
                assert_eq!(
                    (source, &told[ip_len..ip_len + 2]),
                    (&expected[..], &kind[..])
                );
                assert_eq!(told[ip_len + 8..], probe);
            }
            let probe = with_ttl(2);
            let arrival = engine.handle_packet(at(0), &probe, Checksum::Unverified);
            assert!(matches!(arrival, Some(Arrival::Beside(_))));
            // Where it is not known, nobody else speaks for it.
            engine.carry(Ways {
                hop: [Some(hop[usize::from(!is_v6)]), None],
                ..asking()
            });
            assert!(give(&engine, at(0), &with_ttl(1)).is_none());
            assert_eq!(said(&engine), "nothing");
            // In a tunnel the far side's own kernel does.
            engine.carry(Ways::hybrid(LONG));
            let probe = with_ttl(1);
            let arrival = engine.handle_packet(at(0), &probe, Checksum::Unverified);
            assert!(matches!(arrival, Some(Arrival::Beside(Beside::Packet(_)))));
            let counted: Vec<_> = engine.drops().nonzero().collect();
            assert_eq!(counted, [("expired", 3)]);
        }
    }
}

fn back(is_v6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    filled(ip(host(is_v6), client(is_v6), protocol, payload))
}

#[test]
fn packets_out_of_the_tunnel_reach_the_device_as_they_are() {
    let engine = wire(Ways::full(LONG));
    for is_v6 in [false, true] {
        let answer = back(is_v6, 17, &udp_to(9, b"answer"));
        // Longer than the device's MTU.
        let long = back(is_v6, 17, &udp_to(9, &[7; 9000]));
        let error = back(
            is_v6,
            if is_v6 { 58 } else { 1 },
            &[11, 0, 0, 0, 0, 0, 0, 0, 1, 2],
        );
        let sctp = ip(host(is_v6), client(is_v6), 132, &[0; 12]);
        for packet in [answer.clone(), long, error, sctp] {
            engine.packet_from_far(at(0), &packet);
            assert_eq!(sent(&engine), [packet]);
        }
        // What follows it is no part of it.
        engine.packet_from_far(at(0), &[&answer[..], &[1, 2, 3]].concat());
        assert_eq!(sent(&engine), [answer]);
    }
    for packet in [
        fragment(&udp(false, &[0; 64]), 1480),
        fragment(&udp(true, &[0; 64]), 1480),
    ] {
        engine.packet_from_far(at(0), &packet);
        assert_eq!(sent(&engine), [packet]);
    }
    assert_eq!(engine.drops().nonzero().count(), 0);
}

/// An ICMP message of `kind` from the far host.
fn message(is_v6: bool, kind: u8) -> Vec<u8> {
    let protocol = if is_v6 { 58 } else { 1 };
    back(is_v6, protocol, &[kind, 0, 0, 0, 0, 7, 0, 1, 1, 2])
}

#[test]
fn in_hybrid_mode_nobody_out_there_speaks_first() {
    for is_v6 in [false, true] {
        let engine = wire(Ways::hybrid(LONG));
        let (request, reply) = if is_v6 { (128, 129) } else { (8, 0) };
        let sctp = ip(host(is_v6), client(is_v6), 132, &[0; 12]);
        let late = match is_v6 {
            true => ip(
                host(true),
                client(true),
                44,
                &[17, 0, 5, 0xc9, 0, 0, 0, 9, 1, 2],
            ),
            false => fragment(&back(false, 17, &[0; 64]), 1480),
        };
        let answer = back(is_v6, 17, &udp_to(53, b"answer"));
        let all = [sctp, late, answer, message(is_v6, reply)];
        for packet in all.iter().chain([&message(is_v6, request)]) {
            engine.packet_from_far(at(0), packet);
        }
        assert_eq!(sent(&engine), Vec::<Vec<u8>>::new());
        let counted: Vec<_> = engine.drops().nonzero().collect();
        assert_eq!(counted, [("unasked", 5)]);
        let questions = [
            from_client(is_v6, 132, &[0; 12]),
            from_client(is_v6, 17, &udp_from(53, b"question")),
            echo(is_v6, b"ping"),
        ];
        for question in questions {
            let arrival = engine.handle_packet(at(0), &question, Checksum::Trusted);
            assert!(matches!(arrival, Some(Arrival::Beside(Beside::Packet(_)))));
        }
        for packet in &all {
            engine.packet_from_far(at(1), packet);
        }
        assert_eq!(sent(&engine), all);
        engine.packet_from_far(at(1), &message(is_v6, request));
        let elsewhere = back(is_v6, 17, &udp_to(54, b"answer"));
        engine.packet_from_far(at(1), &elsewhere);
        assert_eq!(sent(&engine), Vec::<Vec<u8>>::new());
        // It may ask for itself where connections from there are welcome.
        engine.carry(Ways::full(LONG));
        engine.packet_from_far(at(1), &message(is_v6, request));
        engine.packet_from_far(at(1), &elsewhere);
        assert_eq!(sent(&engine).len(), 2);
    }
}

/// Errors are looked through by who sent what they quote. Of routes and neighbours nobody out there knows better.
#[test]
fn errors_are_let_in_and_what_is_about_the_link_is_not() {
    for ways in [Ways::hybrid(LONG), Ways::full(LONG)] {
        let engine = wire(ways);
        for (is_v6, kinds) in [(false, &[3, 11, 12][..]), (true, &[1, 2, 3, 4])] {
            for kind in kinds {
                let error = message(is_v6, *kind);
                engine.packet_from_far(at(0), &error);
                assert_eq!(sent(&engine), [error]);
            }
        }
        for (is_v6, kinds) in [(false, &[5, 9, 10][..]), (true, &[133, 134, 135, 136, 137])] {
            for kind in kinds {
                engine.packet_from_far(at(0), &message(is_v6, *kind));
            }
        }
        assert_eq!(sent(&engine), Vec::<Vec<u8>>::new());
        let counted: Vec<_> = engine.drops().nonzero().collect();
        assert_eq!(counted, [("unasked", 8)]);
    }
}

#[test]
fn tcp_out_of_the_tunnel_is_for_full_mode_only() {
    let segment = Segment::syn(1).packet(ends(false));
    let all = [
        segment.clone(),
        fragment(&segment, 0),
        fragment(&segment, 1480),
        Segment::syn(1).packet(ends(true)),
        with_options(&Segment::syn(1).packet(ends(true))),
    ];
    let engine = wire(Ways::hybrid(LONG));
    for packet in &all {
        engine.packet_from_far(at(0), packet);
    }
    assert_eq!(sent(&engine), Vec::<Vec<u8>>::new());
    let counted: Vec<_> = engine.drops().nonzero().collect();
    assert_eq!(counted, [("far_tcp", 5)]);
    engine.carry(Ways::full(LONG));
    for packet in &all {
        engine.packet_from_far(at(0), packet);
    }
    assert_eq!(sent(&engine), all);
}

#[test]
fn nobody_out_there_reaches_what_is_not_for_them() {
    let ours = Ways {
        ours: [Some(client(false)), Some(client(true))],
        ..Ways::full(LONG)
    };
    let engine = wire(ours);
    let host = host(false);
    let to = |target: &str| ip(host, target.parse().unwrap(), 17, &udp_to(9, b"x"));
    engine.packet_from_far(at(0), &to("10.9.0.3"));
    let from = |source: &str| ip(source.parse().unwrap(), client(false), 17, &udp_to(9, b"x"));
    let nowhere = ["127.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0"];
    for address in nowhere {
        engine.packet_from_far(at(0), &to(address));
        engine.packet_from_far(at(0), &from(address));
    }
    for target in ["::1", "ff02::1", "::"] {
        let packet = ip(client(true), target.parse().unwrap(), 17, &udp_to(9, b"x"));
        engine.packet_from_far(at(0), &packet);
    }
    assert_eq!(sent(&engine), Vec::<Vec<u8>>::new());
    let counted: Vec<_> = engine.drops().nonzero().collect();
    assert_eq!(counted, [("not_unicast", 11), ("not_for_us", 1)]);
    for is_v6 in [false, true] {
        engine.packet_from_far(at(0), &back(is_v6, 17, &udp_to(9, b"x")));
    }
    assert_eq!(sent(&engine).len(), 2);
    // Where hosts behind us are carried, the kernel knows them.
    engine.carry(Ways::full(LONG));
    engine.packet_from_far(at(0), &to("10.9.0.3"));
    assert_eq!(sent(&engine).len(), 1);
}

/// Puts fragments together, as the receiver would; panics where they are none of one packet.
fn reassembled(fragments: &[Vec<u8>], mtu: usize) -> Vec<u8> {
    let [first, ..] = fragments else {
        panic!("nothing");
    };
    if fragments.len() == 1 {
        return first.clone();
    }
    let is_v4 = first[0] >> 4 == 4;
    let (header_len, id) = if is_v4 { (20, 4..6) } else { (48, 44..48) };
    let mut payload: Vec<u8> = Vec::new();
    for (index, fragment) in fragments.iter().enumerate() {
        assert!(fragment.len() <= mtu && fragment[id.clone()] == first[id.clone()]);
        let is_last = index + 1 == fragments.len();
        let (offset, more) = if is_v4 {
            let mut again = fragment.clone();
            fill_ip(&mut again);
            assert_eq!(again, *fragment, "header checksum");
            assert_eq!(usize::from(be16(fragment, 2)), fragment.len());
            let field = be16(fragment, 6);
            (usize::from(field & 0x1fff) * 8, field & 0xe000 == 0x2000)
        } else {
            assert_eq!((fragment[6], fragment[41]), (44, 0));
            assert_eq!(usize::from(be16(fragment, 4)) + 40, fragment.len());
            (
                usize::from(be16(fragment, 42) & !7),
                be16(fragment, 42) & 7 == 1,
            )
        };
        assert_eq!((offset, more), (payload.len(), !is_last));
        payload.extend(&fragment[header_len..]);
    }
    let mut whole = if is_v4 {
        first[..20].to_vec()
    } else {
        first[..40].to_vec()
    };
    if is_v4 {
        whole[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
        whole[6..8].fill(0);
    } else {
        whole[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        whole[6] = first[40];
    }
    whole.extend(payload);
    fill_ip(&mut whole);
    whole
}

#[test]
fn an_answer_of_any_size_arrives() {
    for mtu in [1280, 1500, 65_520] {
        let config = Config {
            mtu,
            ..Config::default()
        };
        let engine = Engine::new(config, Wire::default());
        for is_v6 in [false, true] {
            let (ip_len, most) = if is_v6 { (40, 65_527) } else { (20, 65_507) };
            let headers = ip_len + 8;
            let fits = mtu - headers;
            let lens = [0, 1, fits, fits + 1, 2 * fits, 9000, most];
            for len in lens.into_iter().filter(|len| *len <= most) {
                let payload: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
                let from = Target(SocketAddr::new(host(is_v6), 9));
                let to = Source(SocketAddr::new(client(is_v6), 4242));
                engine.answer_datagram(from, to, &payload);
                let fragments = sent(&engine);
                assert_eq!(fragments.len() == 1, len <= fits, "{len} of {fits}");
                let whole = reassembled(&fragments, mtu);
                verify(&whole);
                assert_eq!(whole[ip_len..ip_len + 4], [0, 9, 0x10, 0x92]);
                assert_eq!(whole[headers..], payload);
            }
            let from = Target(SocketAddr::new(host(is_v6), 9));
            let to = Source(SocketAddr::new(client(is_v6), 4242));
            engine.answer_datagram(from, to, &vec![0; most + 1]);
            let elsewhere = Source(SocketAddr::new(client(!is_v6), 4242));
            engine.answer_datagram(from, elsewhere, b"answer");
            assert_eq!(sent(&engine), Vec::<Vec<u8>>::new());
        }
    }
}

#[test]
fn fragments_of_two_answers_are_not_mixed_up() {
    let engine = wire(Ways::default());
    let (from, to) = (
        Target(SocketAddr::new(host(false), 9)),
        Source(SocketAddr::new(client(false), 4242)),
    );
    let mut ids = Vec::new();
    // One that fits here may be cut further on.
    for len in [2000, 100, 2000, 100] {
        engine.answer_datagram(from, to, &vec![0; len]);
        let packet = &sent(&engine)[0];
        assert_eq!(be16(packet, 6), if len > 1500 { 0x2000 } else { 0 });
        ids.push(be16(packet, 4));
    }
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[test]
fn an_echo_is_answered_by_its_target() {
    for is_v6 in [false, true] {
        let engine = wire(asking());
        let (ip_len, kind) = if is_v6 { (40, 129) } else { (20, 0) };
        for len in [0, 56, 1400, 9000] {
            let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let echo = Echo {
                source: client(is_v6),
                target: host(is_v6),
                ident: 0x1234,
                seq: 7,
                ttl: 64,
                payload: &payload,
            };
            engine.answer_echo(&echo);
            let reply = reassembled(&sent(&engine), 1500);
            verify(&reply);
            let back = back(is_v6, 17, b"\0\0\0\0\0\0\0\0");
            let addresses = if is_v6 { 8..40 } else { 12..20 };
            assert_eq!(reply[addresses.clone()], back[addresses]);
            assert_eq!(reply[ip_len..ip_len + 2], [kind, 0]);
            assert_eq!(reply[ip_len + 4..ip_len + 8], [0x12, 0x34, 0, 7]);
            assert_eq!(reply[ip_len + 8..], payload);
        }
        engine.answer_echo(&Echo {
            source: client(is_v6),
            target: host(!is_v6),
            ident: 1,
            seq: 1,
            ttl: 64,
            payload: b"",
        });
        assert_eq!(sent(&engine), Vec::<Vec<u8>>::new());
    }
}

/// What the error quotes is what the application sent, so its kernel finds the socket.
#[test]
fn what_was_not_delivered_is_told() {
    for is_v6 in [false, true] {
        let engine = carrying(asking());
        let datagram = udp(is_v6, b"question");
        let echo = echo(is_v6, b"ping");
        let (ip_len, codes) = if is_v6 {
            (40, [[1, 4], [1, 3]])
        } else {
            (20, [[3, 3], [3, 1]])
        };
        for (packet, code) in [(datagram, codes[0]), (echo, codes[1])] {
            match engine.handle_packet(at(0), &packet, Checksum::Unverified) {
                Some(Arrival::Beside(Beside::Datagram(datagram))) => {
                    engine.answer_unreachable(&datagram, Unreachable::Port);
                }
                Some(Arrival::Beside(Beside::Echo(echo))) => {
                    engine.answer_echo_unreachable(&echo, Unreachable::Host);
                }
                other => panic!("{other:?}"),
            }
            let packets = engine.outlet().take();
            let [told] = packets.as_slice() else {
                panic!("{packets:?}");
            };
            assert_eq!(told[ip_len..ip_len + 2], code);
            let quoted = &told[ip_len + 8..];
            let addresses = if is_v6 { 8..40 } else { 12..20 };
            assert_eq!(quoted[addresses.clone()], packet[addresses]);
            assert_eq!(quoted[ip_len..], packet[ip_len..]);
        }
    }
}

fn ways() -> impl Strategy<Value = Ways> {
    let udp = prop::sample::select(vec![Udp::Refuse, Udp::Datagrams, Udp::Packets]);
    let pings = prop::sample::select(vec![Pings::Silent, Pings::Ask, Pings::Packets]);
    let others = prop::sample::select(vec![Others::Refuse, Others::Packets]);
    let hop = prop::sample::select(vec![None, Some(host(false)), Some(host(true))]);
    (any::<[bool; 2]>(), udp, pings, others, 0..200_usize, hop).prop_map(
        |([full, v6], udp, pings, others, max_len, hop)| Ways {
            full,
            v6,
            udp,
            pings,
            others,
            max_len,
            ours: [None; 2],
            hop: [hop, None],
        },
    )
}

fn spoilt() -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec((any::<Index>(), any::<u8>()), 0..4);
    let sound = prop::sample::select(kinds());
    (sound, edits, any::<Index>(), any::<bool>()).prop_map(|((_, mut packet), edits, len, cut)| {
        for (index, byte) in edits {
            let at = index.index(packet.len());
            packet[at] = byte;
        }
        if packet.len() >= 20 && packet[0] == 0x45 {
            fill_ip(&mut packet);
        }
        if cut {
            packet.truncate(len.index(packet.len() + 1));
        }
        packet
    })
}

/// Whatever comes from either side: no panic, and what is handed out is a part of what came.
fn do_no_harm(ways: Ways, packets: &[Vec<u8>], checksum: Checksum) {
    let engine = wire(ways);
    for packet in packets {
        match engine.handle_packet(at(0), packet, checksum) {
            Some(Arrival::Beside(Beside::Packet(taken))) => {
                assert!(taken.len() <= ways.max_len && packet.starts_with(taken));
            }
            Some(Arrival::Beside(Beside::Datagram(datagram))) => {
                engine.answer_datagram(datagram.target, datagram.source, datagram.payload);
                engine.answer_unreachable(&datagram, Unreachable::Port);
            }
            Some(Arrival::Beside(Beside::Echo(echo))) => {
                engine.answer_echo(&echo);
                engine.answer_echo_unreachable(&echo, Unreachable::Host);
            }
            _ => {}
        }
        sent(&engine);
        engine.packet_from_far(at(0), packet);
        let out = sent(&engine);
        assert!(out.len() <= 1 && out.iter().all(|out| packet.starts_with(out)));
    }
}

fn checksum() -> impl Strategy<Value = Checksum> {
    prop::sample::select(vec![Checksum::Trusted, Checksum::Unverified])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_do_no_harm(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
        ways in ways(), checksum in checksum(),
    ) {
        do_no_harm(ways, &packets, checksum);
    }

    #[test]
    fn spoilt_packets_do_no_harm(
        packets in prop::collection::vec(spoilt(), 1..12), ways in ways(), checksum in checksum(),
    ) {
        do_no_harm(ways, &packets, checksum);
    }

    /// A header chain of any bytes ends.
    #[test]
    fn extension_headers_do_no_harm(
        first in prop::sample::select(vec![0_u8, 43, 44, 60]),
        chain in prop::collection::vec(prop::sample::select(vec![0_u8, 1, 6, 17, 43, 44, 60, 255]), 0..120),
        ways in ways(), checksum in checksum(),
    ) {
        do_no_harm(ways, &[from_client(true, first, &chain)], checksum);
    }
}
