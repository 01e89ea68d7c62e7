//! What shall hold, as the commands of iproute2 or procps that would do the same: for the log and for --dry-run.

use std::fmt;

use ipnet::IpNet;

use super::{CONGESTION_CONTROL, Entry, PROTOCOL, Packets, Route, Rule, Sender, is_v6};

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link { device, mtu, queue } => {
                write!(
                    f,
                    "ip link set dev {device} mtu {mtu} txqueuelen {queue} multicast off"
                )
            }
            Self::Sysctl { path, value } => write!(f, "sysctl -w {path}={value}"),
            Self::Up { device } => write!(f, "ip link set dev {device} up"),
            Self::Address { device, address } => {
                let net = IpNet::from(*address);
                let flags = if is_v6(&net) {
                    " nodad noprefixroute"
                } else {
                    ""
                };
                write!(f, "{} addr add {net} dev {device}{flags}", ip(is_v6(&net)))
            }
            Self::Route(route) => route.fmt(f),
            Self::Rule(rule) => rule.fmt(f),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, net, to } = self;
        let ip = ip(is_v6(net));
        match to {
            Some(to) => {
                let via = to.via.map(|via| format!("via {via} onlink "));
                let (via, device, source) = (via.unwrap_or_default(), &to.device, to.source);
                write!(
                    f,
                    "{ip} route add {net} {via}dev {device} src {source} table {table} proto {PROTOCOL} \
                     congctl {CONGESTION_CONTROL}"
                )
            }
            None => write!(
                f,
                "{ip} route add throw {net} table {table} proto {PROTOCOL}"
            ),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            priority, table, ..
        } = self;
        write!(
            f,
            "{} rule add priority {priority} {}",
            ip(self.ipv6),
            self.sender
        )?;
        match &self.packets {
            Packets::All => {}
            Packets::Tcp(net, None) => write!(f, "to {net} ipproto tcp ")?,
            Packets::Tcp(net, Some(ports)) => {
                let ports = crate::plan::Ports(ports);
                write!(f, "to {net} ipproto tcp dport {ports} ")?;
            }
            Packets::IcmpFrom(address) => write!(f, "from {address} ipproto icmp ")?,
        }
        if self.no_default {
            write!(f, "lookup main suppress_prefixlength 0 ")?;
        } else {
            write!(f, "lookup {table} ")?;
        }
        write!(f, "protocol {PROTOCOL}")
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.address {
            write!(f, "from {address} ")?;
        }
        if let Some(device) = &self.device {
            write!(f, "iif {device} ")?;
        }
        if let Some(user) = self.user {
            write!(f, "uidrange {user}-{user} ")?;
        }
        Ok(())
    }
}

const fn ip(ipv6: bool) -> &'static str {
    if ipv6 { "ip -6" } else { "ip" }
}
