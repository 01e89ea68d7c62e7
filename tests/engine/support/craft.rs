//! Packets made by hand, and packets read back as text.

use std::net::{IpAddr, SocketAddr};

use super::checksum::{be16, be32, fill_ip, fill_transport, layout};

/// FIN of the TCP flags (RFC 9293 section 3.1).
pub(crate) const FIN: u8 = 1;
/// SYN.
pub(crate) const SYN: u8 = 2;
/// RST.
pub(crate) const RST: u8 = 4;
/// PSH.
pub(crate) const PSH: u8 = 8;
/// ACK.
pub(crate) const ACK: u8 = 16;

/// Both ends of a flow, as its initiator sees them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// The application.
    pub(crate) source: SocketAddr,
    /// Whom it asks for.
    pub(crate) target: SocketAddr,
}

impl Ends {
    /// A flow over IPv4, from `port`.
    pub(crate) fn v4(port: u16) -> Self {
        Self {
            source: ([10, 9, 0, 2], port).into(),
            target: ([10, 0, 1, 7], 443).into(),
        }
    }

    /// A flow over IPv6, from `port`.
    pub(crate) fn v6(port: u16) -> Self {
        Self {
            source: ("fd00:9::2".parse::<IpAddr>().unwrap(), port).into(),
            target: ("fd00:1::7".parse::<IpAddr>().unwrap(), 443).into(),
        }
    }
}

/// A segment to be made.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// The flags.
    pub(crate) flags: u8,
    /// Sequence number.
    pub(crate) seq: u32,
    /// Acknowledgment number.
    pub(crate) ack: u32,
    /// The window as it stands there, unscaled.
    pub(crate) window: u16,
    /// TCP options, padded to a multiple of 4 bytes.
    pub(crate) options: Vec<u8>,
    /// The payload.
    pub(crate) payload: Vec<u8>,
}

impl Segment {
    /// A segment with `flags` and numbers, without options and payload.
    pub(crate) fn new(flags: u8, seq: u32, ack: u32) -> Self {
        Self {
            flags,
            seq,
            ack,
            window: 64_240,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// A SYN as Linux sends it, with `seq`.
    pub(crate) fn syn(seq: u32) -> Self {
        let mut segment = Self::new(SYN, seq, 0);
        // MSS 1460, SACK permitted, no-operation, window scale 7.
        segment.options = vec![2, 4, 5, 180, 4, 2, 1, 3, 3, 7, 1, 1];
        segment
    }

    /// With this `window`.
    pub(crate) fn with_window(mut self, window: u16) -> Self {
        self.window = window;
        self
    }

    /// With `payload`.
    pub(crate) fn with_payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// The whole packet.
    pub(crate) fn packet(&self, ends: Ends) -> Vec<u8> {
        assert_eq!(self.options.len() % 4, 0, "options are padded");
        let mut tcp = Vec::new();
        tcp.extend(ends.source.port().to_be_bytes());
        tcp.extend(ends.target.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.push(((5 + self.options.len() / 4) << 4) as u8);
        tcp.push(self.flags);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(&self.options);
        tcp.extend(&self.payload);
        let mut packet = ip(ends.source.ip(), ends.target.ip(), 6, &tcp);
        fill_transport(&mut packet);
        packet
    }
}

/// An IP packet of `protocol` around `payload`; the transport's checksum is left as it is.
pub(crate) fn ip(source: IpAddr, target: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            packet.extend([0x45, 0]);
            packet.extend(((20 + payload.len()) as u16).to_be_bytes());
            packet.extend([0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(target.octets());
            fill_ip(&mut packet);
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend((payload.len() as u16).to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(source.octets());
            packet.extend(target.octets());
        }
        _ => panic!("two IP versions in one packet"),
    }
    packet.extend(payload);
    packet
}

/// The parts of a TCP segment that tests look at.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The flags.
    pub(crate) flags: u8,
    /// Sequence number.
    pub(crate) seq: u32,
    /// Acknowledgment number.
    pub(crate) ack: u32,
    /// The window as it stands there, unscaled.
    pub(crate) window: u16,
    /// The window scale option.
    pub(crate) window_scale: Option<u8>,
    /// The payload.
    pub(crate) payload: Vec<u8>,
}

impl Seen {
    /// The sequence number behind the payload.
    pub(crate) fn end(&self) -> u32 {
        self.seq.wrapping_add(self.payload.len() as u32)
    }
}

fn window_scale(mut options: &[u8]) -> Option<u8> {
    loop {
        match options {
            [3, 3, shift, ..] => return Some(*shift),
            [1, rest @ ..] => options = rest,
            [_, length, ..] if (2..=options.len()).contains(&usize::from(*length)) => {
                options = &options[usize::from(*length)..];
            }
            _ => return None,
        }
    }
}

/// Reads a TCP segment back; `None` for what is none.
pub(crate) fn tcp(packet: &[u8]) -> Option<Seen> {
    let at = layout(packet);
    let tcp = &packet[at.ip_len..];
    (at.protocol == 6).then(|| Seen {
        flags: tcp[13],
        seq: be32(tcp, 4),
        ack: be32(tcp, 8),
        window: be16(tcp, 14),
        window_scale: window_scale(&tcp[20..usize::from(tcp[12] >> 4) * 4]),
        payload: tcp[usize::from(tcp[12] >> 4) * 4..].to_vec(),
    })
}

/// One line for a person: `RST+ACK seq=0 ack=1001`, `ICMP 3/1 quoting 48 bytes`.
pub(crate) fn describe(packet: &[u8]) -> String {
    let at = layout(packet);
    let transport = &packet[at.ip_len..];
    match at.protocol {
        1 => format!(
            "ICMP {}/{} quoting {} bytes",
            transport[0],
            transport[1],
            transport.len() - 8
        ),
        58 => format!(
            "ICMPv6 {}/{} quoting {} bytes",
            transport[0],
            transport[1],
            transport.len() - 8
        ),
        _ => {
            let seen = tcp(packet).unwrap();
            let names = [
                (SYN, "SYN"),
                (FIN, "FIN"),
                (RST, "RST"),
                (PSH, "PSH"),
                (ACK, "ACK"),
            ];
            let flags: Vec<_> = names
                .iter()
                .filter(|(bit, _)| seen.flags & bit != 0)
                .map(|(_, name)| *name)
                .collect();
            format!("{} seq={} ack={}", flags.join("+"), seen.seq, seen.ack)
        }
    }
}
