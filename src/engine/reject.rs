//! Refusals built from the packet that they answer: TCP resets, ICMP and ICMPv6 errors. Pure functions over
//! bytes; they hand one finished packet, all checksums filled in, to a sink.

use std::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, Icmpv6DstUnreachable, Icmpv6Message,
    Icmpv6Packet, IpAddress, IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

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

/// Sends the ICMP error `what` for `packet`, in the name of the address that it was sent to.
pub fn unreachable(what: Unreachable, packet: &Parsed<'_>, sink: &mut dyn FnMut(Frame<'_>)) {
    let (max, ip_len, protocol) = match packet.target {
        IpAddr::V4(_) => (MAX_ERROR_V4, 20, IpProtocol::Icmp),
        IpAddr::V6(_) => (MAX_ERROR_V6, 40, IpProtocol::Icmpv6),
    };
    let quoted = &packet.bytes[..packet.bytes.len().min(max - ip_len - ICMP_HEADER_LEN)];
    let payload_len = ICMP_HEADER_LEN + quoted.len();
    let mut buffer = [0; HEADROOM + MAX_ERROR_V6];
    let frame = &mut buffer[..HEADROOM + ip_len + payload_len];
    let ip = ip_repr(packet, protocol, payload_len);
    ip.emit(&mut frame[HEADROOM..], &ChecksumCapabilities::default());
    let icmp = &mut frame[HEADROOM + ip_len..];
    icmp[ICMP_HEADER_LEN..].copy_from_slice(quoted);
    match (ip.src_addr(), ip.dst_addr()) {
        (IpAddress::Ipv6(source), IpAddress::Ipv6(target)) => {
            let mut icmp = Icmpv6Packet::new_unchecked(icmp);
            icmp.set_msg_type(Icmpv6Message::DstUnreachable);
            icmp.set_msg_code(what.code_v6());
            icmp.fill_checksum(&source, &target);
        }
        _ => {
            let mut icmp = Icmpv4Packet::new_unchecked(icmp);
            icmp.set_msg_type(Icmpv4Message::DstUnreachable);
            icmp.set_msg_code(what.code_v4());
            icmp.fill_checksum();
        }
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
    let ip = ip_repr(packet, IpProtocol::Tcp, repr.buffer_len());
    let mut buffer = [0; HEADROOM + 40 + 20];
    let frame = &mut buffer[..HEADROOM + ip.buffer_len()];
    let checksums = ChecksumCapabilities::default();
    ip.emit(&mut frame[HEADROOM..], &checksums);
    let mut segment = TcpPacket::new_unchecked(&mut frame[HEADROOM + ip.header_len()..]);
    repr.emit(&mut segment, &ip.src_addr(), &ip.dst_addr(), &checksums);
    send(frame, sink);
}

/// The IP header of an answer to `packet`.
fn ip_repr(packet: &Parsed<'_>, protocol: IpProtocol, payload_len: usize) -> IpRepr {
    IpRepr::new(
        packet.target.into(),
        packet.source.into(),
        protocol,
        payload_len,
        HOP_LIMIT,
    )
}

fn send(buffer: &mut [u8], sink: &mut dyn FnMut(Frame<'_>)) {
    sink(Frame {
        buffer,
        partial_checksum: false,
        segment_size: None,
    });
}
