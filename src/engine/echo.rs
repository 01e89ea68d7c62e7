//! Pings that are asked for elsewhere, and their answers.

use std::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet, IpAddress, IpProtocol, IpRepr};

use super::packet::Parsed;
use super::reason::Reason;
use super::{Checksum, HEADROOM, HOP_LIMIT};

/// Length of an echo's header in bytes (RFC 792, RFC 4443 section 4.1).
const HEADER_LEN: usize = 8;
/// Types of echo requests and replies: of ICMP, and of ICMPv6.
const REQUEST_V4: u8 = 8;
const REPLY_V4: u8 = 0;
const REQUEST_V6: u8 = 128;
const REPLY_V6: u8 = 129;

/// An echo request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo<'a> {
    /// Who asks.
    pub source: IpAddr,
    /// The host that is asked for.
    pub target: IpAddr,
    /// The identifier, which tells one ping program from another.
    pub ident: u16,
    /// The sequence number.
    pub seq: u16,
    /// How many hops it may go: the time to live, or hop limit.
    pub ttl: u8,
    /// What the answer has to repeat.
    pub payload: &'a [u8],
}

/// Reads the echo request in `packet`, which is one.
///
/// # Errors
/// [`Reason::Truncated`], [`Reason::BadChecksum`].
pub(super) fn read<'a>(packet: &Parsed<'a>, checksum: Checksum) -> Result<Echo<'a>, Reason> {
    let bytes = &packet.bytes[packet.header_len..];
    let (header, payload) = bytes
        .split_at_checked(HEADER_LEN)
        .ok_or(Reason::Truncated)?;
    let is_right = match (packet.source, packet.target) {
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            Icmpv6Packet::new_unchecked(bytes).verify_checksum(&source, &target)
        }
        _ => Icmpv4Packet::new_unchecked(bytes).verify_checksum(),
    };
    if checksum == Checksum::Unverified && !is_right {
        return Err(Reason::BadChecksum);
    }
    Ok(Echo {
        source: packet.source,
        target: packet.target,
        ident: u16::from_be_bytes([header[4], header[5]]),
        seq: u16::from_be_bytes([header[6], header[7]]),
        ttl: packet.hop_limit(),
        payload,
    })
}

/// The packet that answers `echo`, all checksums filled in, with [`HEADROOM`] in front; `None` where it makes no packet.
pub(super) fn reply(echo: &Echo<'_>) -> Option<Vec<u8>> {
    let kind = match echo.target {
        IpAddr::V4(_) => REPLY_V4,
        IpAddr::V6(_) => REPLY_V6,
    };
    packet(echo, kind, echo.target, echo.source, HOP_LIMIT)
}

/// The packet that `echo` came in, as far as it says.
pub(super) fn request(echo: &Echo<'_>) -> Option<Vec<u8>> {
    let kind = match echo.target {
        IpAddr::V4(_) => REQUEST_V4,
        IpAddr::V6(_) => REQUEST_V6,
    };
    packet(echo, kind, echo.source, echo.target, echo.ttl)
}

fn packet(echo: &Echo<'_>, kind: u8, from: IpAddr, to: IpAddr, hop_limit: u8) -> Option<Vec<u8>> {
    let (ip_len, protocol) = match from {
        IpAddr::V4(_) => (20, IpProtocol::Icmp),
        IpAddr::V6(_) => (40, IpProtocol::Icmpv6),
    };
    let len = HEADER_LEN + echo.payload.len();
    if from.is_ipv4() != to.is_ipv4() || ip_len + len > usize::from(u16::MAX) {
        return None;
    }
    let ip = IpRepr::new(from.into(), to.into(), protocol, len, hop_limit);
    let mut buffer = vec![0; HEADROOM + ip_len + len];
    ip.emit(&mut buffer[HEADROOM..], &ChecksumCapabilities::default());
    let icmp = &mut buffer[HEADROOM + ip_len..];
    icmp[0] = kind;
    icmp[4..6].copy_from_slice(&echo.ident.to_be_bytes());
    icmp[6..8].copy_from_slice(&echo.seq.to_be_bytes());
    icmp[HEADER_LEN..].copy_from_slice(echo.payload);
    match (ip.src_addr(), ip.dst_addr()) {
        (IpAddress::Ipv6(source), IpAddress::Ipv6(target)) => {
            Icmpv6Packet::new_unchecked(icmp).fill_checksum(&source, &target);
        }
        _ => Icmpv4Packet::new_unchecked(icmp).fill_checksum(),
    }
    Some(buffer)
}
