//! What a flow speaks.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::os::Transport;

/// What a flow speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
    /// Echo requests and their replies, of either IP version. They have no ports: 0 stands for those.
    Icmp,
    /// Another one, by its number; without ports as well.
    Other(u8),
}

impl Protocol {
    /// As a kind of socket whose owner can be asked for.
    pub(super) fn transport(self) -> Option<Transport> {
        match self {
            Self::Tcp => Some(Transport::Tcp),
            Self::Udp => Some(Transport::Udp),
            Self::Icmp | Self::Other(_) => None,
        }
    }
}

/// By its number (IANA "Assigned Internet Protocol Numbers").
impl From<u8> for Protocol {
    fn from(number: u8) -> Self {
        match number {
            1 | 58 => Self::Icmp,
            6 => Self::Tcp,
            17 => Self::Udp,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("tcp"),
            Self::Udp => f.write_str("udp"),
            Self::Icmp => f.write_str("icmp"),
            Self::Other(number) => number.fmt(f),
        }
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
