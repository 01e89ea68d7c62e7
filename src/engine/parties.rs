//! Between whom a packet is that is handed out whole, for whoever counts.

use std::net::SocketAddr;

use super::outline::{self, ICMP, ICMPV6, TCP, UDP};

/// Who speaks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parties {
    /// The transport protocol's number.
    pub protocol: u8,
    /// Who has sent it. Without a port, and in a fragment behind the first, that is 0.
    pub source: SocketAddr,
    /// To whom, in the same way.
    pub target: SocketAddr,
}

impl Parties {
    /// Those of an IP packet; of ICMP only those of an echo, for an error is no talk of its own.
    pub fn of(packet: &[u8]) -> Option<Self> {
        let packet = outline::of(packet).ok()?;
        let head = packet.transport.and_then(|at| packet.bytes.get(at..));
        let kind = head.and_then(|head| head.first());
        let [from, to] = match (packet.protocol, kind) {
            (TCP | UDP, Some(_)) => packet.ports()?,
            (ICMP, Some(kind)) if !matches!(kind, 0 | 8) => return None,
            (ICMPV6, Some(kind)) if !matches!(kind, 128 | 129) => return None,
            _ => [0; 2],
        };
        Some(Self {
            protocol: packet.protocol,
            source: SocketAddr::new(packet.source, from),
            target: SocketAddr::new(packet.target, to),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 packet from 10.0.0.1 to 10.0.0.2.
    fn v4(protocol: u8, offset: u8, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![
            0x45,
            0,
            0,
            20 + body.len() as u8,
            0,
            0,
            0,
            offset,
            64,
            protocol,
        ];
        packet.extend([0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(body);
        packet
    }

    /// An IPv6 packet from fd00::1 to fd00::2.
    fn v6(protocol: u8, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, body.len() as u8, protocol, 64];
        for last in [1, 2] {
            packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        packet.extend(body);
        packet
    }

    fn parties(packet: &[u8]) -> Option<String> {
        let found = Parties::of(packet)?;
        let Parties {
            protocol,
            source,
            target,
        } = found;
        Some(format!("{protocol} {source} {target}"))
    }

    #[test]
    fn who_speaks_is_read_from_where_it_stands() {
        let ports = [0, 53, 0x12, 0x34, 0, 0, 0, 0];
        for (packet, expected) in [
            (v4(17, 0, &ports), Some("17 10.0.0.1:53 10.0.0.2:4660")),
            (v6(6, &ports), Some("6 [fd00::1]:53 [fd00::2]:4660")),
            (v4(17, 1, &ports), Some("17 10.0.0.1:0 10.0.0.2:0")),
            (v4(47, 0, &ports), Some("47 10.0.0.1:0 10.0.0.2:0")),
            (v4(1, 0, &[8, 0]), Some("1 10.0.0.1:0 10.0.0.2:0")),
            (v6(58, &[129, 0]), Some("58 [fd00::1]:0 [fd00::2]:0")),
            (v4(1, 0, &[3, 1]), None),
            (v6(58, &[1, 4]), None),
            (v4(17, 0, &[0, 53]), None),
            (Vec::new(), None),
        ] {
            assert_eq!(parties(&packet).as_deref(), expected, "{packet:?}");
        }
    }
}
