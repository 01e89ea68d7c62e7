//! Datagrams that are handed out, to a name server or to anybody ([`route`](super::route)), and the answers to them.

use std::net::{IpAddr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, UdpPacket, UdpRepr};

use super::packet::Parsed;
use super::reason::Reason;
use super::{Checksum, HEADROOM, HOP_LIMIT};
use crate::net::{Source, Target};

/// Length of a UDP header in bytes (RFC 768).
const HEADER_LEN: usize = 8;

/// A datagram from an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub source: Source,
    /// Whom it is for.
    pub target: Target,
    /// What it says.
    pub payload: &'a [u8],
}

/// Reads the datagram in `packet`, which is one.
///
/// # Errors
/// [`Reason::BadChecksum`]; and [`Reason::PortZero`], for nobody can be answered there.
pub(super) fn read<'a>(packet: &Parsed<'a>, checksum: Checksum) -> Result<Datagram<'a>, Reason> {
    let bytes = &packet.bytes[packet.header_len..];
    let udp = UdpPacket::new_checked(bytes).map_err(|_| Reason::Truncated)?;
    let (source, target) = (IpAddress::from(packet.source), packet.target.into());
    if checksum == Checksum::Unverified && !udp.verify_checksum(&source, &target) {
        return Err(Reason::BadChecksum);
    }
    if udp.src_port() == 0 {
        return Err(Reason::PortZero);
    }
    Ok(Datagram {
        source: Source(SocketAddr::new(packet.source, udp.src_port())),
        target: Target(SocketAddr::new(packet.target, udp.dst_port())),
        payload: &bytes[HEADER_LEN..usize::from(udp.len())],
    })
}

/// A datagram with `payload` from `from` to `to`, all checksums filled in, with [`HEADROOM`] in front; `None` where it makes no
/// packet, or the two are not of one IP version.
pub(super) fn packet(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    let len = HEADER_LEN + payload.len();
    // The length fields of both versions have 16 bits; that of IPv4 counts its header, too.
    let (ip_len, most) = match from.ip() {
        IpAddr::V4(_) => (20, usize::from(u16::MAX) - 20),
        IpAddr::V6(_) => (40, usize::from(u16::MAX)),
    };
    if from.is_ipv4() != to.is_ipv4() || len > most {
        return None;
    }
    let ip = IpRepr::new(
        from.ip().into(),
        to.ip().into(),
        IpProtocol::Udp,
        len,
        HOP_LIMIT,
    );
    let mut buffer = vec![0; HEADROOM + ip_len + len];
    let checksums = ChecksumCapabilities::default();
    ip.emit(&mut buffer[HEADROOM..], &checksums);
    let udp = UdpRepr {
        src_port: from.port(),
        dst_port: to.port(),
    };
    let mut datagram = UdpPacket::new_unchecked(&mut buffer[HEADROOM + ip_len..]);
    udp.emit(
        &mut datagram,
        &ip.src_addr(),
        &ip.dst_addr(),
        payload.len(),
        |room| room.copy_from_slice(payload),
        &checksums,
    );
    Some(buffer)
}
