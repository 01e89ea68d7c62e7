//! What is carried whole.

use std::fmt;

/// What a tunnel of whole packets carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketKind {
    /// IP packets of either version.
    Ip,
    /// Ethernet frames.
    Ethernet,
}

impl PacketKind {
    /// How `PermitTunnel` and `Tunnel` of OpenSSH call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ip => "point-to-point",
            Self::Ethernet => "ethernet",
        }
    }

    /// What a device of this kind is called on Linux, and what `ip tuntap` takes as its mode; the number follows.
    pub const fn device(self) -> &'static str {
        match self {
            Self::Ip => "tun",
            Self::Ethernet => "tap",
        }
    }
}

impl fmt::Display for PacketKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
