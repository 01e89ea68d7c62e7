//! The header in front of each packet of a TUN with IFF_VNET_HDR: `struct virtio_net_hdr` of
//! include/uapi/linux/virtio_net.h, 10 bytes in the host's byte order.

use crate::engine::{Checksum, Frame, HEADROOM};

/// Length of the header in bytes.
pub(super) const HEADER_LEN: usize = 10;
const _: () = assert!(HEADER_LEN == HEADROOM, "the header fills the headroom");

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;

const TCP_CHECKSUM_OFFSET: u16 = 16;
const PROTOCOL_TCP: u32 = 6;

/// Splits what was read from the device into what the header says of the checksum, and the packet.
/// `None` when there is not even a header. A partial checksum is completed, except that of TCP, which ends here.
pub(super) fn decode(bytes: &mut [u8]) -> Option<(Checksum, &[u8])> {
    let (header, packet) = bytes.split_at_mut_checked(HEADER_LEN)?;
    if header[0] & F_NEEDS_CSUM != 0 && header[1] == GSO_NONE && is_beside_tcp(packet) {
        let field = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
        complete(packet, field(6), field(8));
    }
    // A partial checksum was made on this host and has not been on any wire.
    let checksum = if header[0] & (F_NEEDS_CSUM | F_DATA_VALID) != 0 {
        Checksum::Trusted
    } else {
        Checksum::Unverified
    };
    Some((checksum, packet))
}

fn is_beside_tcp(packet: &[u8]) -> bool {
    let protocol = match packet.first().map(|first| first >> 4) {
        Some(4) => packet.get(9),
        Some(6) => packet.get(6),
        _ => None,
    };
    protocol.is_some_and(|&protocol| u32::from(protocol) != PROTOCOL_TCP)
}

/// Sums up `packet` from `start`, and puts that into the field at `start + offset`, which holds the pseudo header's sum; as
/// skb_checksum_help() in net/core/dev.c does.
fn complete(packet: &mut [u8], start: usize, offset: usize) {
    let Some(summed) = packet.get(start..) else {
        return;
    };
    // In UDP, zero says that there is none (RFC 768).
    let checksum = match !sum(summed) {
        0 => 0xffff,
        checksum => checksum,
    };
    if let Some(field) = packet.get_mut(start + offset..start + offset + 2) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

/// The sum in one's complement of big-endian pairs of bytes. Four bytes at a time: the carries may be added at the end (RFC 1071
/// section 2).
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(4);
    let rest = words.remainder().chunks(2).fold(0, |sum, pair| {
        sum + u64::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]))
    });
    let sum = words.fold(rest, |sum, word| {
        sum + u64::from(u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
    });
    fold(sum)
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Fills in the header in front of the packet and, where the frame's checksum is partial, the sum of the pseudo
/// header (RFC 9293 section 3.1) that the kernel expects in the checksum field.
pub(super) fn encode<'a>(frame: &'a mut Frame<'_>) -> &'a [u8] {
    let (header, packet) = frame.buffer.split_at_mut(HEADROOM);
    header.fill(0);
    if frame.partial_checksum
        && let Some((ip_len, sum)) = tcp_pseudo_header(packet)
    {
        let at = ip_len + usize::from(TCP_CHECKSUM_OFFSET);
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let tcp_len = usize::from(packet[ip_len + 12] >> 4) * 4;
        header[0] = F_NEEDS_CSUM;
        if let Some(size) = frame.segment_size {
            header[1] = if ip_len == 20 { GSO_TCPV4 } else { GSO_TCPV6 };
            header[2..4].copy_from_slice(&((ip_len + tcp_len) as u16).to_ne_bytes());
            header[4..6].copy_from_slice(&size.get().to_ne_bytes());
        } else {
            header[1] = GSO_NONE;
        }
        header[6..8].copy_from_slice(&(ip_len as u16).to_ne_bytes());
        header[8..10].copy_from_slice(&TCP_CHECKSUM_OFFSET.to_ne_bytes());
    }
    frame.buffer
}

/// The length of the IP header and the folded, not inverted, sum of the pseudo header; `None` for what is no
/// packet with a TCP header. The engine emits IP headers without options.
fn tcp_pseudo_header(packet: &[u8]) -> Option<(usize, u16)> {
    let (ip_len, addresses) = match packet.first()? >> 4 {
        4 => (20, 12..20),
        _ => (40, 8..40),
    };
    let tcp_len = packet.len().checked_sub(ip_len).filter(|len| *len >= 20)?;
    let sum = u64::from(PROTOCOL_TCP) + tcp_len as u64 + u64::from(sum(&packet[addresses]));
    Some((ip_len, fold(sum)))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    /// A frame around an IP packet with a TCP segment of `payload_len` zero bytes.
    fn buffer(v6: bool, payload_len: u8) -> Vec<u8> {
        let mut packet = if v6 {
            let mut ip = vec![0x60, 0, 0, 0, 0, 20 + payload_len, 6, 64];
            ip.extend([0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
            ip.extend([0xfd, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
            ip
        } else {
            let mut ip = vec![0x45, 0, 0, 40 + payload_len, 0, 0, 0x40, 0, 64, 6, 0, 0];
            ip.extend([10, 0, 1, 7, 10, 9, 0, 2]);
            ip
        };
        let ip_len = packet.len();
        packet.resize(ip_len + 20 + usize::from(payload_len), 0);
        packet[ip_len + 12] = 0x50;
        [vec![0xaa; HEADROOM], packet].concat()
    }

    fn encoded(buffer: &mut [u8], partial_checksum: bool, size: Option<u16>) -> Vec<u8> {
        let mut frame = Frame {
            buffer,
            partial_checksum,
            segment_size: size.and_then(NonZeroU16::new),
        };
        encode(&mut frame).to_vec()
    }

    /// Fields of 16 bits in the host's order, as `struct virtio_net_hdr` has them.
    fn header(flags: u8, gso: u8, fields: [u16; 4]) -> Vec<u8> {
        let mut header = vec![flags, gso];
        header.extend(fields.iter().flat_map(|field| field.to_ne_bytes()));
        header
    }

    #[test]
    fn decode_needs_a_header() {
        for len in 0..HEADER_LEN {
            assert_eq!(decode(&mut vec![1; len]), None);
        }
        let empty: &[u8] = &[];
        assert_eq!(decode(&mut [0; 10]), Some((Checksum::Unverified, empty)));
        assert_eq!(
            decode(&mut [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x45]),
            Some((Checksum::Unverified, &[0x45][..]))
        );
    }

    #[test]
    fn decode_trusts_what_the_kernel_vouches_for() {
        for flags in [F_NEEDS_CSUM, F_DATA_VALID, F_NEEDS_CSUM | F_DATA_VALID] {
            let mut bytes = [0; 12];
            bytes[0] = flags;
            assert_eq!(decode(&mut bytes), Some((Checksum::Trusted, &[0, 0][..])));
        }
    }

    /// A datagram of `payload` whose checksum field holds the pseudo header's sum, as the kernel leaves it.
    fn partial_udp(payload: &[u8]) -> Vec<u8> {
        let len = 8 + payload.len() as u8;
        let mut bytes = header(F_NEEDS_CSUM, GSO_NONE, [0, 0, 20, 6]);
        bytes.extend([0x45, 0, 0, 20 + len, 0, 0, 0x40, 0, 64, 17, 0, 0]);
        bytes.extend([10, 0, 1, 7, 10, 9, 0, 2, 0, 9, 0, 53, 0, len]);
        // 0x0a00 + 0x0107 + 0x0a09 + 0x0002 + protocol 17 + length
        bytes.extend((0x1512_u16 + 17 + u16::from(len)).to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn a_partial_checksum_is_completed() {
        // 0x152b + ports 0x3e + length 10 + 0x0102: 0x1675
        let mut bytes = partial_udp(&[1, 2]);
        let (checksum, packet) = decode(&mut bytes).unwrap();
        assert_eq!(checksum, Checksum::Trusted);
        assert_eq!(packet[26..28], (!0x1677_u16).to_be_bytes());
        // An odd length; and a sum of all ones, which would say that there is none.
        let mut bytes = partial_udp(&[1, 2, 3]);
        let (_, packet) = decode(&mut bytes).unwrap();
        assert_eq!(packet[26..28], (!0x1979_u16).to_be_bytes());
        let rest = 0xffff - 0x1575_u16;
        let mut bytes = partial_udp(&rest.to_be_bytes());
        let (_, packet) = decode(&mut bytes).unwrap();
        assert_eq!(packet[26..28], [0xff, 0xff]);
    }

    #[test]
    fn a_partial_checksum_of_tcp_stays() {
        let mut bytes = header(F_NEEDS_CSUM, GSO_TCPV4, [40, 1460, 20, 16]);
        bytes.extend(&buffer(false, 100)[HEADROOM..]);
        for gso in [GSO_NONE, GSO_TCPV4] {
            bytes[1] = gso;
            let before = bytes.clone();
            decode(&mut bytes).unwrap();
            assert_eq!(bytes, before);
        }
    }

    #[test]
    fn no_field_is_outside_of_the_packet() {
        for start in [0, 19, 20, 27, 28, 30, 31, 0xffff] {
            for offset in [0, 1, 6, 16, 0xffff] {
                let mut bytes = partial_udp(&[1, 2]);
                let fields = header(F_NEEDS_CSUM, GSO_NONE, [0, 0, start, offset]);
                bytes[..HEADER_LEN].copy_from_slice(&fields);
                assert!(decode(&mut bytes).is_some());
            }
        }
    }

    #[test]
    fn a_finished_packet_gets_an_empty_header() {
        let mut frame = buffer(false, 8);
        let before = frame.clone();
        let bytes = encoded(&mut frame, false, None);
        assert_eq!(bytes[..HEADER_LEN], [0; HEADER_LEN]);
        assert_eq!(bytes[HEADER_LEN..], before[HEADER_LEN..]);
    }

    #[test]
    fn a_partial_checksum_begins_behind_the_ip_header() {
        let bytes = encoded(&mut buffer(false, 8), true, None);
        assert_eq!(bytes[..HEADER_LEN], header(1, 0, [0, 0, 20, 16]));
        // 0x0a00 + 0x0107 + 0x0a09 + 0x0002 + protocol 6 + length 28
        assert_eq!(bytes[HEADER_LEN + 36..HEADER_LEN + 38], [0x15, 0x34]);
    }

    #[test]
    fn segments_to_be_cut_name_their_size() {
        let bytes = encoded(&mut buffer(false, 100), true, Some(48));
        assert_eq!(bytes[..HEADER_LEN], header(1, 1, [40, 48, 20, 16]));
        let bytes = encoded(&mut buffer(true, 100), true, Some(48));
        assert_eq!(bytes[..HEADER_LEN], header(1, 4, [60, 48, 40, 16]));
        // 0xfd00 + 1 + 7 + 0xfd00 + 9 + 2 + protocol 6 + length 120, the carry added
        assert_eq!(bytes[HEADER_LEN + 56..HEADER_LEN + 58], [0xfa, 0x92]);
    }

    #[test]
    fn no_packet_is_too_short_to_encode() {
        for len in 0..60 {
            for first in [0x45, 0x60] {
                let mut frame = vec![0; HEADROOM + len];
                if let Some(byte) = frame.get_mut(HEADROOM) {
                    *byte = first;
                }
                encoded(&mut frame, true, Some(1000));
            }
        }
    }
}
