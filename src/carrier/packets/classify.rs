//! Which flow a packet belongs to. Any bytes may come.

use std::hash::{Hash, Hasher};

use crate::net::PacketKind;

/// Protocols whose headers begin with two ports: TCP, UDP, DCCP, SCTP and UDP-Lite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];
/// ICMP and ICMPv6, and their echoes.
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;
const ECHOES: [u8; 4] = [0, 8, 128, 129];

/// Headers of IPv6 that another one follows (RFC 8200 section 4): hop-by-hop, routing and destination options.
const FURTHER: [u8; 3] = [0, 43, 60];
const FRAGMENT: u8 = 44;
/// How many of them are looked behind.
const MOST_FURTHER: usize = 8;

/// EtherTypes of IPv4, of IPv6, and of VLAN tags (IEEE 802.1Q).
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const TAGS: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];

/// Adds what tells the packet's flow from others to `hasher`; the hash. `None` if it is none that the far device would take: where
/// the kernel refuses one, sshd writes no further ones (channels.c `channel_handle_wfd`).
pub(in crate::carrier) fn classify(
    kind: PacketKind,
    packet: &[u8],
    mut hasher: impl Hasher,
) -> Option<u64> {
    match kind {
        PacketKind::Ip => ip(packet, &mut hasher)?,
        PacketKind::Ethernet => frame(packet, &mut hasher)?,
    }
    Some(hasher.finish())
}

fn frame(frame: &[u8], hasher: &mut impl Hasher) -> Option<()> {
    // Both addresses.
    let (addresses, rest) = frame.split_first_chunk::<12>()?;
    let (mut kind, mut rest) = rest.split_first_chunk::<2>()?;
    for _ in 0..2 {
        if TAGS.contains(kind)
            && let Some((tag, behind)) = rest.split_first_chunk::<2>()
            && let Some((next, behind)) = behind.split_first_chunk::<2>()
        {
            tag.hash(hasher);
            (kind, rest) = (next, behind);
        }
    }
    let is_ip = [IPV4, IPV6].contains(kind) && ip(rest, hasher).is_some();
    if !is_ip {
        addresses.hash(hasher);
        kind.hash(hasher);
    }
    Some(())
}

fn ip(packet: &[u8], hasher: &mut impl Hasher) -> Option<()> {
    match packet.first()? >> 4 {
        4 => v4(packet, hasher),
        6 => v6(packet, hasher),
        _ => None,
    }
}

fn v4(packet: &[u8], hasher: &mut impl Hasher) -> Option<()> {
    let header = packet.first_chunk::<20>()?;
    let protocol = header[9];
    header[12..].hash(hasher);
    protocol.hash(hasher);
    // More fragments, or an offset: only the first one has ports.
    let is_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
    let length = usize::from(header[0] & 0xf) * 4;
    if !is_fragment && let Some(payload) = packet.get(length..) {
        ends(protocol, payload, hasher);
    }
    Some(())
}

fn v6(packet: &[u8], hasher: &mut impl Hasher) -> Option<()> {
    let (header, mut payload) = packet.split_first_chunk::<40>()?;
    header[8..].hash(hasher);
    let mut protocol = header[6];
    for _ in 0..MOST_FURTHER {
        let Some([next, length, ..]) = payload.first_chunk::<8>() else {
            break;
        };
        if protocol == FRAGMENT {
            next.hash(hasher);
            return Some(());
        }
        if !FURTHER.contains(&protocol) {
            break;
        }
        let length = (usize::from(*length) + 1) * 8;
        protocol = *next;
        payload = payload.get(length..).unwrap_or_default();
    }
    protocol.hash(hasher);
    ends(protocol, payload, hasher);
    Some(())
}

/// The ports, or what stands for them.
fn ends(protocol: u8, payload: &[u8], hasher: &mut impl Hasher) {
    if WITH_PORTS.contains(&protocol) {
        payload.first_chunk::<4>().hash(hasher);
    }
    // An echo's identifier: each ping is a flow.
    if [ICMP, ICMP_V6].contains(&protocol)
        && let Some([kind, _, _, _, identifier @ ..]) = payload.first_chunk::<6>()
        && ECHOES.contains(kind)
    {
        identifier.hash(hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::hash::DefaultHasher;

    fn hash(kind: PacketKind, packet: &[u8]) -> Option<u64> {
        classify(kind, packet, DefaultHasher::new())
    }

    fn v4(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(payload);
        packet
    }

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        packet.extend([7; 32]);
        packet.extend(payload);
        packet
    }

    fn framed(kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
        [&[2; 12], &kind[..], packet].concat()
    }

    #[test]
    fn flows_are_told_apart_by_their_ends() {
        let udp = |ports: [u8; 4]| [&ports[..], &[0; 4]].concat();
        let echo = |ident: u8, sequence: u8| [8, 0, 0, 0, 0, ident, 0, sequence];
        let (one, other) = (udp([1, 2, 3, 4]), udp([1, 2, 3, 5]));
        // An option header of eight bytes in front.
        let behind = |payload: &[u8]| [&[17, 0, 0, 0, 0, 0, 0, 0], payload].concat();
        let same = [
            (
                v4(17, 0, &one),
                v4(17, 0x4000, &[&one[..], &[9; 50]].concat()),
            ),
            (v4(1, 0, &echo(1, 1)), v4(1, 0, &echo(1, 2))),
            // Fragments of one packet.
            (v4(17, 0x2000, &one), v4(17, 100, &other)),
            (v6(17, &one), v6(17, &[&one[..], &[9; 50]].concat())),
            (v6(44, &behind(&one)), v6(44, &behind(&other))),
        ];
        let apart = [
            (v4(17, 0, &one), v4(17, 0, &other)),
            (v4(17, 0, &one), v4(6, 0, &one)),
            (v4(1, 0, &echo(1, 1)), v4(1, 0, &echo(2, 1))),
            (v6(17, &one), v6(17, &other)),
            (v6(60, &behind(&one)), v6(60, &behind(&other))),
            (v6(43, &behind(&one)), v6(43, &behind(&other))),
        ];
        let all = same.iter().map(|pair| (true, pair));
        for (is_same, (a, b)) in all.chain(apart.iter().map(|pair| (false, pair))) {
            let hashes = [a, b].map(|packet| hash(PacketKind::Ip, packet).unwrap());
            assert_eq!(hashes[0] == hashes[1], is_same, "{a:?} {b:?}");
            let kind = if a[0] == 0x45 { IPV4 } else { IPV6 };
            let frames = [a, b].map(|packet| hash(PacketKind::Ethernet, &framed(kind, packet)));
            assert_eq!(frames[0] == frames[1], is_same, "{a:?} {b:?} in frames");
            let tagged = [&[0, 5][..], &kind, a].concat();
            assert_ne!(
                hash(PacketKind::Ethernet, &framed(TAGS[0], &tagged)),
                frames[0]
            );
        }
    }

    #[test]
    fn what_no_device_takes_is_no_packet() {
        for (kind, bytes, is_packet) in [
            (PacketKind::Ip, &[][..], false),
            (PacketKind::Ip, &[0x45; 19], false),
            (PacketKind::Ip, &[0x45; 20], true),
            (PacketKind::Ip, &[0x60; 39], false),
            (PacketKind::Ip, &[0x60; 40], true),
            (PacketKind::Ip, &[0x50; 100], false),
            (PacketKind::Ethernet, &[0; 13], false),
            (PacketKind::Ethernet, &[0; 14], true),
        ] {
            assert_eq!(hash(kind, bytes).is_some(), is_packet, "{kind} {bytes:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..120), first in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()]) {
            let mut packet = bytes;
            if let Some(byte) = packet.first_mut() {
                *byte = first;
            }
            hash(PacketKind::Ip, &packet);
            for kind in [IPV4, IPV6, TAGS[0], TAGS[1]] {
                prop_assert!(hash(PacketKind::Ethernet, &framed(kind, &packet)).is_some());
            }
        }
    }
}
