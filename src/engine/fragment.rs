//! A packet above the MTU, cut into fragments (RFC 791 section 3.2, RFC 8200 section 4.5), as a router or the sender would have
//! done: whoever it is forwarded to gets it, too. One of IPv4 that fits may be cut further on: whoever sent it, far away, would not
//! hear that it does not fit there.

use smoltcp::wire::Ipv4Packet;

use super::{Frame, HEADROOM};

/// Header lengths in bytes: IPv4 without options, IPv6, the fragment header of IPv6.
const V4: usize = 20;
const V6: usize = 40;
const V6_FRAGMENT: usize = 8;
const FRAGMENT: u8 = 44;
/// "More fragments" of IPv4.
const MORE: u16 = 0x2000;

/// Sends `packet`, which has [`HEADROOM`] in front and an IP header without options, in packets of at most `mtu` bytes. `id` tells
/// the fragments of one packet from those of others.
pub(super) fn send(mut packet: Vec<u8>, mtu: usize, id: u32, sink: &mut dyn FnMut(Frame<'_>)) {
    let whole = &mut packet[HEADROOM..];
    let is_v4 = whole[0] >> 4 == 4;
    if whole.len() <= mtu {
        if is_v4 {
            finish_v4(whole, 0, false, id);
        }
        return transmit(&mut packet, sink);
    }
    let (header_len, headers_len) = if is_v4 {
        (V4, V4)
    } else {
        (V6, V6 + V6_FRAGMENT)
    };
    let (header, payload) = whole.split_at(header_len);
    // Offsets are counted in eight bytes.
    let size = (mtu.saturating_sub(headers_len) & !7).max(8);
    for (index, piece) in payload.chunks(size).enumerate() {
        let offset = index * size;
        let more = offset + piece.len() < payload.len();
        let mut fragment = [&[0; HEADROOM][..], header].concat();
        if is_v4 {
            fragment.extend_from_slice(piece);
            finish_v4(&mut fragment[HEADROOM..], offset, more, id);
        } else {
            let flags = offset as u16 | u16::from(more);
            fragment.extend([header[6], 0]);
            fragment.extend(flags.to_be_bytes());
            fragment.extend(id.to_be_bytes());
            fragment.extend_from_slice(piece);
            let ip = &mut fragment[HEADROOM..];
            ip[4..6].copy_from_slice(&((V6_FRAGMENT + piece.len()) as u16).to_be_bytes());
            ip[6] = FRAGMENT;
        }
        transmit(&mut fragment, sink);
    }
}

fn finish_v4(ip: &mut [u8], offset: usize, more: bool, id: u32) {
    let flags = (offset / 8) as u16 | if more { MORE } else { 0 };
    let len = ip.len() as u16;
    ip[2..4].copy_from_slice(&len.to_be_bytes());
    ip[4..6].copy_from_slice(&(id as u16).to_be_bytes());
    ip[6..8].copy_from_slice(&flags.to_be_bytes());
    Ipv4Packet::new_unchecked(ip).fill_checksum();
}

fn transmit(buffer: &mut [u8], sink: &mut dyn FnMut(Frame<'_>)) {
    sink(Frame {
        buffer,
        partial_checksum: false,
        segment_size: None,
    });
}
