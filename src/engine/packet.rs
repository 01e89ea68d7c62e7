//! One look at a packet: is it whole, who is it between, what is it. Pure; never panics on any bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::wire::{
    IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpOption, TcpPacket, TcpSeqNumber, UdpPacket,
};

use super::Checksum;
use super::reason::Reason;
use crate::net::{FlowKey, Source, Target};

/// A whole packet and what it is.
#[derive(Clone, Copy, Debug)]
pub struct Parsed<'a> {
    /// The IP packet, without what may follow it.
    pub bytes: &'a [u8],
    /// Length of the IP header in bytes.
    pub header_len: usize,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub target: IpAddr,
    /// What it carries.
    pub transport: Transport,
}

impl Parsed<'_> {
    /// How many hops it may go.
    pub fn hop_limit(&self) -> u8 {
        // Time to live (RFC 791 section 3.1), hop limit (RFC 8200 section 3).
        let at = if self.source.is_ipv4() { 8 } else { 7 };
        self.bytes.get(at).copied().unwrap_or_default()
    }
}

/// What an IP packet carries.
#[derive(Clone, Copy, Debug)]
pub enum Transport {
    /// A TCP segment.
    Tcp(Tcp),
    /// A UDP datagram to this port.
    Udp(u16),
    /// An ICMP or ICMPv6 echo request.
    IcmpEcho,
    /// Any other ICMP or ICMPv6 message.
    IcmpOther,
    /// Another protocol, by its number.
    Other(u8),
}

/// The fields of a TCP header that decide where a segment goes.
#[derive(Clone, Copy, Debug)]
pub struct Tcp {
    /// Its flow.
    pub key: FlowKey,
    /// SYN flag.
    pub syn: bool,
    /// ACK flag.
    pub ack: bool,
    /// FIN flag.
    pub fin: bool,
    /// RST flag.
    pub rst: bool,
    /// Sequence number.
    pub seq: TcpSeqNumber,
    /// Acknowledgment number; meaningless without [`ack`](Self::ack).
    pub ack_number: TcpSeqNumber,
    /// The window as it stands in the header, without its scale.
    pub window: u16,
    /// Payload bytes.
    pub payload_len: usize,
}

impl Tcp {
    /// A SYN that asks for a new connection.
    pub fn is_opening(&self) -> bool {
        self.syn && !self.ack && !self.rst && !self.fin
    }

    /// It carries what the far side is to hear of: bytes, or their end.
    pub fn brings_news(&self) -> bool {
        self.payload_len > 0 || self.fin
    }

    /// Octets of sequence space that the segment takes (RFC 9293 section 3.4).
    pub fn segment_len(&self) -> usize {
        self.payload_len + usize::from(self.syn) + usize::from(self.fin)
    }
}

/// Parses one packet from the device.
///
/// # Errors
/// The [`Reason`] to count, for anything that is not one whole, unicast, unfragmented packet.
pub fn parse(bytes: &[u8], checksum: Checksum) -> Result<Parsed<'_>, Reason> {
    match bytes.first().map(|first| first >> 4) {
        Some(4) => parse_v4(bytes, checksum),
        Some(6) => parse_v6(bytes, checksum),
        Some(_) => Err(Reason::BadHeader),
        None => Err(Reason::Truncated),
    }
}

/// The least header of IPv4 (RFC 791 section 3.1) and of TCP (RFC 9293 section 3.1), in words of 32 bits.
const LEAST_HEADER_WORDS: u8 = 5;

fn parse_v4(bytes: &[u8], checksum: Checksum) -> Result<Parsed<'_>, Reason> {
    if bytes[0] & 15 < LEAST_HEADER_WORDS {
        return Err(Reason::BadHeader);
    }
    let ip = Ipv4Packet::new_checked(bytes).map_err(|_| Reason::Truncated)?;
    let (header_len, total_len) = (usize::from(ip.header_len()), usize::from(ip.total_len()));
    if !ip.verify_checksum() {
        return Err(Reason::BadChecksum);
    }
    if ip.more_frags() || ip.frag_offset() != 0 {
        return Err(Reason::Fragment);
    }
    let (source, target) = (ip.src_addr(), ip.dst_addr());
    if !is_unicast_v4(source) || !is_unicast_v4(target) {
        return Err(Reason::NotUnicast);
    }
    let whole = Whole {
        bytes: &bytes[..total_len],
        header_len,
        source: source.into(),
        target: target.into(),
    };
    whole.with_transport(ip.next_header(), checksum)
}

fn parse_v6(bytes: &[u8], checksum: Checksum) -> Result<Parsed<'_>, Reason> {
    let ip = Ipv6Packet::new_checked(bytes).map_err(|_| Reason::Truncated)?;
    let (source, target) = (ip.src_addr(), ip.dst_addr());
    if !is_unicast_v6(source) || !is_unicast_v6(target) {
        return Err(Reason::NotUnicast);
    }
    let whole = Whole {
        bytes: &bytes[..ip.total_len()],
        header_len: ip.header_len(),
        source: source.into(),
        target: target.into(),
    };
    match ip.next_header() {
        IpProtocol::Ipv6Frag => Err(Reason::Fragment),
        IpProtocol::HopByHop | IpProtocol::Ipv6Route | IpProtocol::Ipv6Opts => {
            Err(Reason::ExtensionHeader)
        }
        protocol => whole.with_transport(protocol, checksum),
    }
}

/// Whether a host may have it. Private, link-local and the like may be behind any tunnel.
pub(super) fn is_unicast_v4(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_loopback())
}

/// As [`is_unicast_v4`].
pub(super) fn is_unicast_v6(address: Ipv6Addr) -> bool {
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback())
}

struct Whole<'a> {
    bytes: &'a [u8],
    header_len: usize,
    source: IpAddr,
    target: IpAddr,
}

impl<'a> Whole<'a> {
    fn with_transport(
        self,
        protocol: IpProtocol,
        checksum: Checksum,
    ) -> Result<Parsed<'a>, Reason> {
        let payload = &self.bytes[self.header_len..];
        let transport = match protocol {
            IpProtocol::Tcp => Transport::Tcp(self.tcp(payload, checksum)?),
            IpProtocol::Udp => udp(payload)?,
            // ICMP type 8 is an echo request (RFC 792), ICMPv6 type 128 (RFC 4443 section 4.1).
            IpProtocol::Icmp => icmp(payload, 8)?,
            IpProtocol::Icmpv6 => icmp(payload, 128)?,
            other => Transport::Other(other.into()),
        };
        Ok(Parsed {
            bytes: self.bytes,
            header_len: self.header_len,
            source: self.source,
            target: self.target,
            transport,
        })
    }

    fn tcp(&self, payload: &[u8], checksum: Checksum) -> Result<Tcp, Reason> {
        if payload
            .get(12)
            .is_some_and(|offset| offset >> 4 < LEAST_HEADER_WORDS)
        {
            return Err(Reason::BadHeader);
        }
        let tcp = TcpPacket::new_checked(payload).map_err(|_| Reason::Truncated)?;
        if tcp.src_port() == 0 || tcp.dst_port() == 0 {
            return Err(Reason::PortZero);
        }
        let (source, target) = (IpAddress::from(self.source), IpAddress::from(self.target));
        if checksum == Checksum::Unverified && !tcp.verify_checksum(&source, &target) {
            return Err(Reason::BadChecksum);
        }
        let flags = [tcp.syn(), tcp.fin(), tcp.rst()];
        if flags.iter().filter(|&&set| set).count() > 1 || !(tcp.ack() || flags.contains(&true)) {
            return Err(Reason::BadFlags);
        }
        Ok(Tcp {
            key: FlowKey {
                source: Source(SocketAddr::new(self.source, tcp.src_port())),
                target: Target(SocketAddr::new(self.target, tcp.dst_port())),
            },
            syn: tcp.syn(),
            ack: tcp.ack(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            seq: tcp.seq_number(),
            ack_number: tcp.ack_number(),
            window: tcp.window_len(),
            payload_len: payload.len() - usize::from(tcp.header_len()),
        })
    }
}

/// The MSS option of a TCP packet, unless it is zero.
pub(super) fn max_segment_size(packet: &Parsed<'_>) -> Option<u16> {
    let tcp = TcpPacket::new_checked(&packet.bytes[packet.header_len..]).ok()?;
    find_option(&tcp, |option| match option {
        TcpOption::MaxSegmentSize(size) => Some(size),
        _ => None,
    })
    .filter(|&size| size != 0)
}

/// The window scale option of a TCP packet.
pub(super) fn window_scale(tcp: &TcpPacket<&[u8]>) -> Option<u8> {
    find_option(tcp, |option| match option {
        TcpOption::WindowScale(scale) => Some(scale),
        _ => None,
    })
}

/// The first option of a TCP packet that `is_it` takes.
fn find_option<T>(tcp: &TcpPacket<&[u8]>, is_it: impl Fn(TcpOption<'_>) -> Option<T>) -> Option<T> {
    let mut options = tcp.options();
    while let Ok((rest, option)) = TcpOption::parse(options) {
        if option == TcpOption::EndOfList {
            return None;
        }
        if let Some(found) = is_it(option) {
            return Some(found);
        }
        options = rest;
    }
    None
}

fn udp(payload: &[u8]) -> Result<Transport, Reason> {
    let udp = UdpPacket::new_checked(payload).map_err(|_| Reason::Truncated)?;
    if udp.dst_port() == 0 {
        return Err(Reason::PortZero);
    }
    Ok(Transport::Udp(udp.dst_port()))
}

fn icmp(payload: &[u8], echo_request: u8) -> Result<Transport, Reason> {
    match payload {
        [kind, _, _, _, ..] if *kind == echo_request => Ok(Transport::IcmpEcho),
        [_, _, _, _, ..] => Ok(Transport::IcmpOther),
        _ => Err(Reason::Truncated),
    }
}
