//! What a channel is asked for with: its type, and what the type adds to CHANNEL_OPEN.

use std::net::SocketAddr;

use bytes::BufMut;

/// A channel of a type that OpenSSH or any other server knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelType {
    pub(super) name: &'static str,
    pub(super) specific: Vec<u8>,
    /// Each data message is a datagram: never cut, never joined.
    pub(super) is_of_datagrams: bool,
}

impl ChannelType {
    /// Any type; `specific` follows the common fields of CHANNEL_OPEN (RFC 4254 section 5.1).
    pub fn new(name: &'static str, specific: impl Into<Vec<u8>>) -> Self {
        Self {
            name,
            specific: specific.into(),
            is_of_datagrams: false,
        }
    }

    /// A TCP connection that the server makes (RFC 4254 section 7.2).
    pub fn direct_tcpip(host: &str, port: u16, originator: SocketAddr) -> Self {
        let mut specific = Vec::new();
        // A server that looks the text up sees an IPv4 address as such.
        let source = originator.ip().to_canonical().to_string();
        for (host, port) in [(host, port), (&source, originator.port())] {
            put_host(&mut specific, host);
            specific.put_u32(port.into());
        }
        Self::new("direct-tcpip", specific)
    }

    /// A session, for requests such as `exec` (RFC 4254 section 6.1).
    pub fn session() -> Self {
        Self::new("session", [])
    }

    /// A tunnel of datagrams to the server's device of number `unit`, or to any free one (OpenSSH's PROTOCOL, section 2.3).
    pub fn tun(layer: TunLayer, unit: Option<u32>) -> Self {
        Self::tunnel(layer, unit.unwrap_or(ANY_UNIT))
    }

    /// A tunnel to a device of a number that none can have: sshd looks first whether tunnels are permitted, and at the
    /// number before it makes anything (serverloop.c `server_request_tun`). One from before 8.0 takes the number as it is.
    pub fn no_tun(layer: TunLayer) -> Self {
        Self::tunnel(layer, 0x8000_0000)
    }

    fn tunnel(layer: TunLayer, unit: u32) -> Self {
        let mode: u32 = match layer {
            TunLayer::PointToPoint => 1,
            TunLayer::Ethernet => 2,
        };
        let specific = [mode.to_be_bytes(), unit.to_be_bytes()].concat();
        Self {
            is_of_datagrams: true,
            ..Self::new("tun@openssh.com", specific)
        }
    }
}

/// The server looks for a free number.
const ANY_UNIT: u32 = 0x7fff_ffff;

/// What a tunnel's datagrams are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunLayer {
    /// Packets, each behind its address family, a u32: 2 for IPv4, 24 for IPv6.
    PointToPoint,
    /// Frames.
    Ethernet,
}

fn put_host(out: &mut Vec<u8>, text: &str) {
    // An address has at most 45 characters, a name 253.
    out.put_u32(u32::try_from(text.len()).unwrap_or_default());
    out.put_slice(text.as_bytes());
}

/// Why the server opens no channel: the reason codes of RFC 4254 section 5.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 1: policy.
    AdministrativelyProhibited,
    /// 2: the text says why.
    ConnectFailed,
    /// 3: the server knows no such type.
    UnknownChannelType,
    /// 4: the server has no room.
    ResourceShortage,
    /// A code that the RFC does not know.
    Other(u32),
}

impl From<u32> for Refusal {
    fn from(reason: u32) -> Self {
        match reason {
            1 => Self::AdministrativelyProhibited,
            2 => Self::ConnectFailed,
            3 => Self::UnknownChannelType,
            4 => Self::ResourceShortage,
            other => Self::Other(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Far, Target};

    #[test]
    fn a_connection_is_asked_for_by_address_or_by_name() {
        let target = Target("[::ffff:10.0.0.1]:443".parse().unwrap());
        let originator = "[fd00::2]:5000".parse().unwrap();
        let by_address = Far::from(target);
        let by_name = Far {
            name: Some("db.test".into()),
            ..by_address.clone()
        };
        for (far, expected) in [
            (
                by_address,
                &b"\0\0\0\x0810.0.0.1\0\0\x01\xbb\0\0\0\x07fd00::2\0\0\x13\x88"[..],
            ),
            (
                by_name,
                b"\0\0\0\x07db.test\0\0\x01\xbb\0\0\0\x07fd00::2\0\0\x13\x88",
            ),
        ] {
            let asked = ChannelType::direct_tcpip(&far.host(), 443, originator);
            assert_eq!(asked.specific, expected);
        }
    }

    #[test]
    fn a_tunnel_is_asked_for_as_ssh_does() {
        let any = ChannelType::tun(TunLayer::PointToPoint, None);
        assert_eq!(any.specific, [0, 0, 0, 1, 0x7f, 255, 255, 255]);
        let one = ChannelType::tun(TunLayer::Ethernet, Some(258));
        assert_eq!(one.specific, [0, 0, 0, 2, 0, 0, 1, 2]);
        let none = ChannelType::no_tun(TunLayer::Ethernet);
        assert_eq!(none.specific, [0, 0, 0, 2, 0x80, 0, 0, 0]);
    }
}
