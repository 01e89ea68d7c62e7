//! A shorter look at a packet than [`packet`](super::packet) takes: enough to hand it on whole. What it carries may be a fragment,
//! or lie behind extension headers.

use std::net::IpAddr;

use smoltcp::wire::{Ipv4Packet, Ipv6Packet};

use super::packet::{is_unicast_v4, is_unicast_v6};
use super::reason::Reason;

/// Protocols by their numbers (IANA "Assigned Internet Protocol Numbers").
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;
/// IPv6 extension headers that something may follow (RFC 8200 section 4). What IPsec protects is no business of ours.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const OPTIONS: u8 = 60;
/// Length in bytes of the fragment header (RFC 8200 section 4.5), and the unit of the others' lengths.
const FRAGMENT_LEN: usize = 8;
const UNIT: usize = 8;

/// Between whom a packet is, and what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline<'a> {
    /// The IP packet, without what may follow it.
    pub bytes: &'a [u8],
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub target: IpAddr,
    /// The transport protocol's number.
    pub protocol: u8,
    /// Where the transport header begins; `None` in a fragment behind the first.
    pub transport: Option<usize>,
}

/// Looks at one packet; checksums are left to whoever gets it.
///
/// # Errors
/// The [`Reason`] to count, for anything that is not one whole unicast packet or fragment.
pub fn of(bytes: &[u8]) -> Result<Outline<'_>, Reason> {
    match bytes.first().map(|first| first >> 4) {
        Some(4) => of_v4(bytes),
        Some(6) => of_v6(bytes),
        Some(_) => Err(Reason::BadHeader),
        None => Err(Reason::Truncated),
    }
}

fn of_v4(bytes: &[u8]) -> Result<Outline<'_>, Reason> {
    if bytes[0] & 15 < 5 {
        return Err(Reason::BadHeader);
    }
    let ip = Ipv4Packet::new_checked(bytes).map_err(|_| Reason::Truncated)?;
    let (source, target) = (ip.src_addr(), ip.dst_addr());
    if !is_unicast_v4(source) || !is_unicast_v4(target) {
        return Err(Reason::NotUnicast);
    }
    Ok(Outline {
        bytes: &bytes[..usize::from(ip.total_len())],
        source: source.into(),
        target: target.into(),
        protocol: ip.next_header().into(),
        transport: (ip.frag_offset() == 0).then(|| usize::from(ip.header_len())),
    })
}

fn of_v6(bytes: &[u8]) -> Result<Outline<'_>, Reason> {
    let ip = Ipv6Packet::new_checked(bytes).map_err(|_| Reason::Truncated)?;
    let (source, target) = (ip.src_addr(), ip.dst_addr());
    if !is_unicast_v6(source) || !is_unicast_v6(target) {
        return Err(Reason::NotUnicast);
    }
    let whole = &bytes[..ip.total_len()];
    let (protocol, transport) = behind_extensions(whole, ip.next_header().into(), ip.header_len())?;
    Ok(Outline {
        bytes: whole,
        source: source.into(),
        target: target.into(),
        protocol,
        transport,
    })
}

/// What `whole` carries behind its extension headers, of which the first is a `next` at `at`.
fn behind_extensions(
    whole: &[u8],
    mut next: u8,
    mut at: usize,
) -> Result<(u8, Option<usize>), Reason> {
    while matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | OPTIONS) {
        let header = whole.get(at..at + FRAGMENT_LEN).ok_or(Reason::Truncated)?;
        if next == FRAGMENT {
            next = header[0];
            at += FRAGMENT_LEN;
            // The lowest three bits are flags.
            if u16::from_be_bytes([header[2], header[3]]) >> 3 != 0 {
                return Ok((next, None));
            }
        } else {
            next = header[0];
            at += UNIT * (usize::from(header[1]) + 1);
        }
    }
    (at <= whole.len())
        .then_some((next, Some(at)))
        .ok_or(Reason::Truncated)
}

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An ICMP error: of a packet that it quotes, which the receiver looks for.
    Error,
    /// An ICMP message between neighbours: redirects, and what routers and neighbours tell (RFC 792, RFC 4861).
    Link,
    /// An ICMP message that wants an answer, or none that is known.
    Question,
    /// An ICMP answer, or another protocol's packet.
    Other,
}

impl Outline<'_> {
    /// The source and the destination port, as TCP and UDP begin; `None` where they do not stand in it.
    pub fn ports(&self) -> Option<[u16; 2]> {
        let at = self
            .transport
            .filter(|_| matches!(self.protocol, TCP | UDP))?;
        let ports = self.bytes.get(at..)?.first_chunk::<4>()?;
        let [a, b, c, d] = *ports;
        Some([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])])
    }

    /// What it is for.
    pub fn role(&self) -> Role {
        // What follows a fragment's beginning is as good as that.
        let kind = self.transport.map(|at| self.bytes.get(at).copied());
        match (self.protocol, kind) {
            (ICMP, Some(kind)) => match kind {
                // Unreachable, time exceeded, parameter problem.
                Some(3 | 11 | 12) => Role::Error,
                // Answers to an echo request, to questions for the time and (RFC 8335) for an interface.
                Some(0 | 14 | 43) => Role::Other,
                Some(5 | 9 | 10) => Role::Link,
                _ => Role::Question,
            },
            (ICMPV6, Some(kind)) => match kind {
                Some(1..=4) => Role::Error,
                // To an echo request, to one for names (RFC 4620), for an interface.
                Some(129 | 140 | 161) => Role::Other,
                Some(133..=137) => Role::Link,
                _ => Role::Question,
            },
            _ => Role::Other,
        }
    }

    /// Whether it may be answered with an ICMP error (RFC 1122 section 3.2.2, RFC 4443 section 2.4 e).
    pub fn may_be_answered(&self) -> bool {
        let Some(transport) = self.transport else {
            return false;
        };
        let kind = self.bytes.get(transport).copied();
        match self.protocol {
            // Unreachable, source quench, redirect, time exceeded, parameter problem.
            ICMP => kind.is_some_and(|kind| !matches!(kind, 3..=5 | 11 | 12)),
            ICMPV6 => kind.is_some_and(|kind| kind >= 128),
            _ => true,
        }
    }
}
