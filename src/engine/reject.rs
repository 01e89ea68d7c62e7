//! Refusals built from the packet that they answer: TCP resets, ICMP and ICMPv6 errors. Pure functions over
//! bytes; they hand one finished packet, all checksums filled in, to a sink.

use std::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv6DstUnreachable, Icmpv6Packet, IpAddress, IpProtocol,
    IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use super::outline::Outline;
use super::packet::{Parsed, Tcp};
use super::{Frame, HEADROOM, HOP_LIMIT};

/// What is unreachable. What a Linux socket in SYN_SENT makes of it: `icmp_err_convert` in
/// net/ipv4/icmp.c, `tab_unreach` in net/ipv6/icmp.c.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unreachable {
    /// No route to the network: ENETUNREACH.
    Network,
    /// The host does not answer: EHOSTUNREACH.
    Host,
    /// Nobody listens: ECONNREFUSED.
    Port,
    /// Forbidden by policy: EHOSTUNREACH over IPv4, EACCES over IPv6.
    Prohibited,
}

impl Unreachable {
    const fn code_v4(self) -> u8 {
        let code = match self {
            Self::Network => Icmpv4DstUnreachable::NetUnreachable,
            Self::Host => Icmpv4DstUnreachable::HostUnreachable,
            Self::Port => Icmpv4DstUnreachable::PortUnreachable,
            Self::Prohibited => Icmpv4DstUnreachable::CommProhibited,
        };
        match code {
            Icmpv4DstUnreachable::NetUnreachable => 0,
            Icmpv4DstUnreachable::HostUnreachable => 1,
            Icmpv4DstUnreachable::PortUnreachable => 3,
            _ => 13,
        }
    }

    const fn code_v6(self) -> u8 {
        let code = match self {
            Self::Network => Icmpv6DstUnreachable::NoRoute,
            Self::Prohibited => Icmpv6DstUnreachable::AdminProhibit,
            Self::Host => Icmpv6DstUnreachable::AddrUnreachable,
            Self::Port => Icmpv6DstUnreachable::PortUnreachable,
        };
        match code {
            Icmpv6DstUnreachable::NoRoute => 0,
            Icmpv6DstUnreachable::AdminProhibit => 1,
            Icmpv6DstUnreachable::AddrUnreachable => 3,
            _ => 4,
        }
    }
}

/// An IPv4 error is at most 576 bytes (RFC 1812 section 4.3.2.3), an IPv6 one at most 1280 (RFC 4443 section
/// 2.4 c).
const MAX_ERROR_V4: usize = 576;
const MAX_ERROR_V6: usize = 1280;
const ICMP_HEADER_LEN: usize = 8;

/// What an ICMP error says: type and code in either version, and the word behind the checksum.
#[derive(Clone, Copy, Debug)]
struct Message {
    v4: (u8, u8),
    v6: (u8, u8),
    word: u32,
}

/// Sends the ICMP error `what` for `packet`, in the name of the address that it was sent to.
pub fn unreachable(what: Unreachable, packet: &Parsed<'_>, sink: &mut dyn FnMut(Frame<'_>)) {
    unreachable_bytes(what, packet.target, packet.source, packet.bytes, sink);
}

/// As [`unreachable()`], for a packet that begins with `quoted`, from `to` to `from`, which are of one IP version.
pub(super) fn unreachable_bytes(
    what: Unreachable,
    from: IpAddr,
    to: IpAddr,
    quoted: &[u8],
    sink: &mut dyn FnMut(Frame<'_>),
) {
    let message = Message {
        v4: (3, what.code_v4()),
        v6: (1, what.code_v6()),
        word: 0,
    };
    error(message, from, to, quoted, sink);
}

/// Tells the sender of `packet` that no more than `mtu` bytes fit: fragmentation needed (RFC 1191 section 4), or packet too big
/// (RFC 4443 section 3.2).
pub fn too_big(mtu: usize, packet: &Outline<'_>, sink: &mut dyn FnMut(Frame<'_>)) {
    // The field of IPv4 has 16 bits.
    let word = u32::from(u16::try_from(mtu).unwrap_or(u16::MAX));
    let message = Message {
        v4: (3, 4),
        v6: (2, 0),
        word,
    };
    error(message, packet.target, packet.source, packet.bytes, sink);
}

/// Says in the name of `hop` that `packet` has gone as far as it may: time exceeded (RFC 792, RFC 4443 section 3.3). Both are of
/// one IP version.
pub fn expired(hop: IpAddr, packet: &Parsed<'_>, sink: &mut dyn FnMut(Frame<'_>)) {
    let message = Message {
        v4: (11, 0),
        v6: (3, 0),
        word: 0,
    };
    error(message, hop, packet.source, packet.bytes, sink);
}

/// Sends `message` from `from` to `to` about a packet that begins with `original`.
fn error(
    message: Message,
    from: IpAddr,
    to: IpAddr,
    original: &[u8],
    sink: &mut dyn FnMut(Frame<'_>),
) {
    let (max, ip_len, protocol, (kind, code)) = match to {
        IpAddr::V4(_) => (MAX_ERROR_V4, 20, IpProtocol::Icmp, message.v4),
        IpAddr::V6(_) => (MAX_ERROR_V6, 40, IpProtocol::Icmpv6, message.v6),
    };
    let quoted = &original[..original.len().min(max - ip_len - ICMP_HEADER_LEN)];
    let payload_len = ICMP_HEADER_LEN + quoted.len();
    let mut buffer = [0; HEADROOM + MAX_ERROR_V6];
    let frame = &mut buffer[..HEADROOM + ip_len + payload_len];
    let ip = IpRepr::new(from.into(), to.into(), protocol, payload_len, HOP_LIMIT);
    ip.emit(&mut frame[HEADROOM..], &ChecksumCapabilities::default());
    let icmp = &mut frame[HEADROOM + ip_len..];
    icmp[..2].copy_from_slice(&[kind, code]);
    icmp[4..ICMP_HEADER_LEN].copy_from_slice(&message.word.to_be_bytes());
    icmp[ICMP_HEADER_LEN..].copy_from_slice(quoted);
    match (ip.src_addr(), ip.dst_addr()) {
        (IpAddress::Ipv6(source), IpAddress::Ipv6(target)) => {
            Icmpv6Packet::new_unchecked(icmp).fill_checksum(&source, &target);
        }
        _ => Icmpv4Packet::new_unchecked(icmp).fill_checksum(),
    }
    send(frame, sink);
}

/// Sends the reset that answers `tcp` when there is no connection (RFC 9293 section 3.10.7.1).
pub fn reset(packet: &Parsed<'_>, tcp: Tcp, sink: &mut dyn FnMut(Frame<'_>)) {
    let (seq_number, ack_number) = if tcp.ack {
        (tcp.ack_number, None)
    } else {
        (TcpSeqNumber(0), Some(tcp.seq + tcp.segment_len()))
    };
    let repr = TcpRepr {
        src_port: tcp.key.target.0.port(),
        dst_port: tcp.key.source.0.port(),
        control: TcpControl::Rst,
        seq_number,
        ack_number,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let ip = IpRepr::new(
        packet.target.into(),
        packet.source.into(),
        IpProtocol::Tcp,
        repr.buffer_len(),
        HOP_LIMIT,
    );
    let mut buffer = [0; HEADROOM + 40 + 20];
    let frame = &mut buffer[..HEADROOM + ip.buffer_len()];
    let checksums = ChecksumCapabilities::default();
    ip.emit(&mut frame[HEADROOM..], &checksums);
    let mut segment = TcpPacket::new_unchecked(&mut frame[HEADROOM + ip.header_len()..]);
    repr.emit(&mut segment, &ip.src_addr(), &ip.dst_addr(), &checksums);
    send(frame, sink);
}

fn send(buffer: &mut [u8], sink: &mut dyn FnMut(Frame<'_>)) {
    sink(Frame {
        buffer,
        partial_checksum: false,
        segment_size: None,
    });
}
