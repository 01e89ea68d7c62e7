//! Datagrams to the name server are handed out, its answers become packets, and everything else over UDP is refused.

use std::net::{IpAddr, SocketAddr};
use std::task::Poll;

use proptest::prelude::*;
use underpass::engine::{Arrival, Checksum, Config, Engine, NameServers};
use underpass::net::{Source, Target};

use crate::support::by_hand::{give, hold, open, said};
use crate::support::checksum::{fill_transport, layout};
use crate::support::craft::{ACK, Ends, SYN, Segment, ip};
use crate::support::{Bell, Tap, at, engine};

fn servers() -> [IpAddr; 2] {
    ["198.18.0.53", "fd75:6e64:6572:7061::35"].map(|ip| ip.parse().unwrap())
}

fn with_names(offload: bool) -> Engine<Tap> {
    engine(Config {
        name_servers: NameServers(servers().map(Some)),
        offload,
        ..Config::default()
    })
}

/// Who asks, by the version of `server`.
fn client(server: IpAddr) -> IpAddr {
    let client = match server {
        IpAddr::V4(_) => "198.18.0.1",
        IpAddr::V6(_) => "fd75:6e64:6572:7061::1",
    };
    client.parse().unwrap()
}

fn datagram(to: SocketAddr, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut udp = Vec::new();
    udp.extend(port.to_be_bytes());
    udp.extend(to.port().to_be_bytes());
    udp.extend(((8 + payload.len()) as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    let mut packet = ip(client(to.ip()), to.ip(), 17, &udp);
    fill_transport(&mut packet);
    packet
}

#[test]
fn a_datagram_to_a_name_server_is_handed_out_whole() {
    let engine = with_names(false);
    for server in servers() {
        let to = SocketAddr::new(server, 53);
        for payload in [&b"question"[..], &[7; 1400], b""] {
            let packet = datagram(to, 4242, payload);
            let Some(Arrival::Name(taken)) =
                engine.handle_packet(at(0), &packet, Checksum::Unverified)
            else {
                panic!("not handed out");
            };
            assert_eq!(taken.source, Source(SocketAddr::new(client(server), 4242)));
            assert_eq!((taken.target, taken.payload), (Target(to), payload));
        }
    }
    assert_eq!(said(&engine), "nothing");
    assert_eq!(engine.drops().nonzero().count(), 0);
}

#[test]
fn all_other_datagrams_are_refused_as_before() {
    let engine = with_names(false);
    for (to, answer) in [
        ("198.18.0.53:54", "ICMP 3/3 quoting 36 bytes"),
        ("198.18.0.54:53", "ICMP 3/3 quoting 36 bytes"),
        ("10.0.1.7:53", "ICMP 3/3 quoting 36 bytes"),
        (
            "[fd75:6e64:6572:7061::36]:53",
            "ICMPv6 1/4 quoting 56 bytes",
        ),
    ] {
        let packet = datagram(to.parse().unwrap(), 4242, b"question");
        assert!(
            engine
                .handle_packet(at(0), &packet, Checksum::Unverified)
                .is_none()
        );
        assert_eq!(said(&engine), answer, "{to}");
    }
    let none = crate::support::engine(Config::default());
    let packet = datagram("198.18.0.53:53".parse().unwrap(), 4242, b"question");
    assert!(
        none.handle_packet(at(0), &packet, Checksum::Unverified)
            .is_none()
    );
    assert_eq!(said(&none), "ICMP 3/3 quoting 36 bytes");
}

#[test]
fn a_spoilt_datagram_is_a_counted_drop() {
    let engine = with_names(false);
    for server in servers() {
        let to = SocketAddr::new(server, 53);
        let mut packet = datagram(to, 4242, b"question");
        *packet.last_mut().unwrap() ^= 1;
        assert!(
            engine
                .handle_packet(at(0), &packet, Checksum::Unverified)
                .is_none()
        );
        // As its device vouches for it.
        assert!(
            engine
                .handle_packet(at(0), &packet, Checksum::Trusted)
                .is_some()
        );
        let nobody = datagram(to, 0, b"question");
        assert!(
            engine
                .handle_packet(at(0), &nobody, Checksum::Unverified)
                .is_none()
        );
    }
    let counted: Vec<_> = engine.drops().nonzero().collect();
    assert_eq!(counted, [("bad_checksum", 2), ("port_zero", 2)]);
    assert_eq!(said(&engine), "nothing");
}

/// The device checks every packet: lengths, both checksums, the MTU.
#[test]
fn an_answer_is_a_packet_with_or_without_offload() {
    for offload in [false, true] {
        let engine = with_names(offload);
        for server in servers() {
            let from = Target(SocketAddr::new(server, 53));
            let to = Source(SocketAddr::new(client(server), 4242));
            for len in [0, 1, 2, 511, 1232] {
                let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
                engine.answer_name(from, to, &payload);
                let packets = engine.outlet().take();
                let layout = layout(&packets[0]);
                let udp = &packets[0][layout.ip_len..];
                assert_eq!((packets.len(), layout.protocol), (1, 17));
                assert_eq!(udp[..4], [0, 53, 0x10, 0x92]);
                assert_eq!(udp[8..], payload);
            }
            // Too large for a packet; two versions of IP in one.
            engine.answer_name(from, to, &[0; 1480]);
            engine.answer_name(from, to, &[0; 70_000]);
            let other = servers()
                .into_iter()
                .find(|other| other.is_ipv4() != server.is_ipv4());
            let elsewhere = Source(SocketAddr::new(client(other.unwrap()), 4242));
            engine.answer_name(from, elsewhere, b"answer");
            assert_eq!(engine.outlet().take(), Vec::<Vec<u8>>::new());
        }
    }
}

/// Whoever serves it accepts it, or does not.
#[test]
fn a_connection_to_a_name_server_is_a_flow_as_any() {
    let engine = with_names(false);
    let ends = Ends {
        source: "198.18.0.1:4242".parse().unwrap(),
        target: "198.18.0.53:53".parse().unwrap(),
    };
    let syn = Segment::new(SYN, 1000, 0).packet(ends);
    let arrival = engine.handle_packet(at(0), &syn, Checksum::Unverified);
    let flow = arrival.and_then(Arrival::into_flow).unwrap();
    assert_eq!(flow.key().target, Target(ends.target));
}

/// Datagrams are handed out or dropped: none is kept, and none comes between a packet and what follows from it.
#[test]
fn a_flood_of_datagrams_leaves_nothing_and_delays_no_flow() {
    let engine = with_names(false);
    let ends = Ends {
        source: "198.18.0.1:4242".parse().unwrap(),
        target: "10.0.1.20:7".parse().unwrap(),
    };
    let flow = hold(&engine, at(0), ends);
    let next = open(&engine, at(0), ends, &flow);
    let due = engine.poll_timeout();
    let mut handed_out = 0;
    for number in 0..20_000_u32 {
        let to = SocketAddr::new(servers()[number as usize % 2], 53);
        let packet = datagram(to, 4243, &number.to_be_bytes());
        let arrival = engine.handle_packet(at(1), &packet, Checksum::Unverified);
        handed_out += usize::from(matches!(arrival, Some(Arrival::Name(_))));
    }
    assert_eq!(handed_out, 20_000);
    assert_eq!(said(&engine), "nothing");
    assert_eq!((engine.flow_count(), engine.poll_timeout()), (1, due));
    let bell = Bell::fresh();
    let read = || bell.poll(|cx| engine.poll_read(at(1), &flow, 100, cx));
    assert!(read().is_pending());
    let echo = Segment::new(ACK, 1001, next).with_payload(b"echo");
    assert!(give(&engine, at(1), &echo.packet(ends)).is_none());
    let Poll::Ready(Ok(Some(bytes))) = read() else {
        panic!("not there at once");
    };
    assert_eq!(&bytes[..], b"echo");
}

proptest! {
    #[test]
    fn no_datagram_does_harm(
        payload in prop::collection::vec(any::<u8>(), 0..100), is_v6: bool, at_byte in any::<prop::sample::Index>(), byte: u8, trusted: bool,
    ) {
        let engine = with_names(false);
        let mut packet = datagram(SocketAddr::new(servers()[usize::from(is_v6)], 53), 4242, &payload);
        let len = packet.len();
        packet[at_byte.index(len)] = byte;
        let checksum = if trusted { Checksum::Trusted } else { Checksum::Unverified };
        if let Some(Arrival::Name(taken)) = engine.handle_packet(at(0), &packet, checksum) {
            prop_assert!(trusted || taken.payload == payload.as_slice() || packet[len - payload.len() - 2..len - payload.len()] == [0, 0]);
            engine.answer_name(taken.target, taken.source, taken.payload);
        }
        engine.outlet().take();
    }
}
