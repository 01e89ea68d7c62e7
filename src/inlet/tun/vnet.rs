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
/// `None` when there is not even a header.
pub(super) fn decode(bytes: &[u8]) -> Option<(Checksum, &[u8])> {
    let (header, packet) = bytes.split_at_checked(HEADER_LEN)?;
    // A partial checksum was made on this host and has not been on any wire.
    let checksum = if header[0] & (F_NEEDS_CSUM | F_DATA_VALID) != 0 {
        Checksum::Trusted
    } else {
        Checksum::Unverified
    };
    Some((checksum, packet))
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
    let mut sum = PROTOCOL_TCP + tcp_len as u32;
    for word in packet[addresses].chunks_exact(2) {
        sum += u32::from(u16::from_be_bytes([word[0], word[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    Some((ip_len, sum as u16))
}
