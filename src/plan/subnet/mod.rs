//! Networks as they are shown, and what kind they are.

mod mapped;
mod parse;

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::Subnet;

pub(super) use mapped::parse_mapped;
pub(super) use parse::{Parsed, parse, parse_network, port_range};

/// Why a network of multicast addresses is no target.
const NO_HOSTS: &str = "nobody connects to multicast";

/// Whether all of `net` is loopback.
pub(super) fn is_loopback(net: &IpNet) -> bool {
    let first: IpAddr = net.network();
    let wide = match net {
        IpNet::V4(_) => 8,
        IpNet::V6(_) => 128,
    };
    first.is_loopback() && net.prefix_len() >= wide
}

/// Whether all of `net` is multicast.
pub(super) fn is_multicast(net: &IpNet) -> bool {
    let wide = match net {
        IpNet::V4(_) => 4,
        IpNet::V6(_) => 8,
    };
    net.network().is_multicast() && net.prefix_len() >= wide
}

impl Subnet {
    /// Whether it is `0.0.0.0/0` or `::/0`.
    pub(super) fn is_default(&self) -> bool {
        self.net.prefix_len() == 0
    }
}

impl fmt::Display for Subnet {
    /// As it is read back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(far) = &self.far {
            write!(f, "{far}=")?;
        }
        match (&self.ports, &self.net) {
            (None, net) => write!(f, "{net}"),
            (Some(ports), IpNet::V6(net)) => write!(f, "[{net}]:{}", Ports(ports)),
            (Some(ports), net) => write!(f, "{net}:{}", Ports(ports)),
        }
    }
}

/// Ports as typed: `443` or `80-443`.
#[derive(Clone, Copy, Debug)]
pub struct Ports<'a>(pub &'a RangeInclusive<u16>);

impl fmt::Display for Ports<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.0.start(), self.0.end());
        if first == last {
            write!(f, "{first}")
        } else {
            write!(f, "{first}-{last}")
        }
    }
}
