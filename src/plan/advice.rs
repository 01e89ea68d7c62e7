//! What a person should know before traffic is taken: where the subnets meet the host's own networks.

mod both;
mod server;

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use super::mapping::meet;
use super::{CapturePlan, Forwarded, PlanError, Subnet};
pub use both::Both;
use both::both;
pub use server::advise_of_server;

/// What the host looks like, as plain values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNetworks {
    /// Interfaces but loopback and our own.
    pub interfaces: Vec<Interface>,
    /// Next hops of default routes.
    pub gateways: Vec<Gateway>,
    /// Destinations of the main table but default routes: what `0.0.0.0/0` and `::/0` leave alone.
    pub routes: Vec<IpNet>,
    /// Destinations of all tables but those of this instance, and but default routes: not free to show other networks as.
    pub used: Vec<IpNet>,
    /// What other running instances capture.
    pub others: Vec<Other>,
    /// Whether it forwards IPv4 for others.
    pub forwards: bool,
    /// Whether a new device gets IPv6.
    pub ipv6: bool,
}

/// A subnet that another running instance captures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Its device.
    pub device: String,
    /// The subnet.
    pub subnet: Subnet,
    /// The user for whom alone.
    pub user: Option<u32>,
    /// Whether its rules are asked before ours.
    pub first: bool,
}

/// An interface and its networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Whether it is a bridge, as those of Docker and libvirt are.
    pub bridge: bool,
    /// Its addresses with the width of their networks; host bits are set.
    pub addresses: Vec<IpNet>,
}

/// The next hop of a default route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its address.
    pub address: IpAddr,
    /// The interface that leads there.
    pub interface: String,
}

/// One warning, one line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Advice {
    /// A subnet takes a local network, or a part of it.
    #[error(
        "{subnet} covers {net} of {interface}, {}: its hosts will be looked for behind the SSH server; use -x {net} to keep it local{both}",
        if *bridge { "a bridge of this host (containers, virtual machines)" } else { "this host's own network" }
    )]
    LocalNetwork {
        /// The subnet as captured.
        subnet: Subnet,
        /// What of the local network is taken.
        net: IpNet,
        /// The interface of the local network.
        interface: String,
        /// Whether that is a bridge.
        bridge: bool,
        /// How both are reached.
        both: Both,
    },
    /// A subnet takes the default gateway.
    #[error(
        "{subnet} covers {address}, the default gateway on {interface}: programs that talk to it (DNS, its web page) will not reach it; use -x {address}{both}"
    )]
    Gateway {
        /// The subnet as captured.
        subnet: Subnet,
        /// The gateway.
        address: IpAddr,
        /// The interface that leads there.
        interface: String,
        /// How both are reached.
        both: Both,
    },
    /// A subnet takes the address that the person is logged in from.
    #[error(
        "{subnet} covers {address}, where you are logged in from: this session would be cut off; use -x {address}{both}"
    )]
    LoggedInFrom {
        /// The subnet as captured.
        subnet: Subnet,
        /// Where the person is.
        address: IpAddr,
        /// How both are reached.
        both: Both,
    },
    /// A mapping takes the server's address, which is left alone.
    #[error(
        "{subnet} covers {address}, the SSH server, which is never captured: {far} behind it is not reached; leave it so if nobody needs that{both}"
    )]
    Server {
        /// The subnet as captured.
        subnet: Subnet,
        /// The server.
        address: IpAddr,
        /// Whom that stands for.
        far: IpAddr,
        /// How both are reached.
        both: Both,
    },
    /// Another instance captures the same, or a part of it.
    #[error(
        "{subnet}: another running underpass captures {theirs} on {device}, and {} comes first; stop one of the two{both}",
        if *first { "that one" } else { "this one" }
    )]
    Twice {
        /// The subnet as captured.
        subnet: Subnet,
        /// What the other one captures.
        theirs: Subnet,
        /// Its device.
        device: String,
        /// Whether it is asked first.
        first: bool,
        /// How both are reached.
        both: Both,
    },
    /// IPv6 is switched off.
    #[error(
        "IPv6 is switched off on this host: its IPv6 subnets are not captured; sysctl -w net.ipv6.conf.default.disable_ipv6=0 switches it on"
    )]
    NoIpv6,
    /// Others are to be carried for, and this host forwards nothing.
    #[error(
        "--gateway: this host does not forward IPv4, so nothing of others gets to the subnets; sudo sysctl -w net.ipv4.ip_forward=1 switches it on"
    )]
    NotForwarding,
    /// A subnet lies in an exclusion.
    #[error("{subnet} is not captured: -x {exclude} covers all of it")]
    Excluded {
        /// The subnet as asked for.
        subnet: Subnet,
        /// What excludes it.
        exclude: IpNet,
    },
}

impl CapturePlan {
    /// Whether an exclusion covers all of `net`.
    pub fn excluded(&self, net: &IpNet) -> bool {
        self.excludes.iter().any(|exclude| exclude.contains(net))
    }

    /// The subnet that takes traffic to `net`, if any does and no exclusion covers it. One of prefix length 0
    /// leaves alone what the host has a route of its own for (see `os::routes`).
    fn takes(&self, net: &IpNet, host: &HostNetworks) -> Option<&Subnet> {
        let routed = || host.routes.iter().any(|route| route.contains(net));
        let live = self
            .subnets
            .iter()
            .filter(|subnet| !self.excluded(&subnet.net));
        live.filter(|_| !self.excluded(net))
            .find(|subnet| subnet.net.contains(net) && (subnet.net.prefix_len() > 0 || !routed()))
    }
}

/// The warnings for a plan on a host; the order is that of the host's interfaces.
///
/// # Errors
/// [`PlanError::NoIpv6`] when IPv6 is all that was asked for, and the host has none.
pub fn advise(
    capture: &CapturePlan,
    host: &HostNetworks,
    logged_in_from: Option<IpAddr>,
) -> Result<Vec<Advice>, PlanError> {
    let mut advice = excluded(capture);
    advice.extend(ipv6(capture, host)?);
    advice.extend(twice(capture, host));
    advice.extend(not_forwarding(capture, host));
    for interface in &host.interfaces {
        for address in &interface.addresses {
            advice.extend(local_network(capture, host, interface, address.trunc()));
        }
    }
    advice.extend(
        host.gateways
            .iter()
            .filter_map(|hop| gateway(capture, host, hop)),
    );
    advice.extend(logged_in_from.and_then(|address| {
        let subnet = capture.takes(&address.into(), host)?;
        Some(Advice::LoggedInFrom {
            subnet: subnet.clone(),
            address,
            both: both(capture, host, subnet, Some(&address.into())),
        })
    }));
    Ok(advice)
}

fn ipv6(capture: &CapturePlan, host: &HostNetworks) -> Result<Option<Advice>, PlanError> {
    let is_v6 = |subnet: &Subnet| matches!(subnet.net, IpNet::V6(_));
    if host.ipv6 || !capture.subnets.iter().any(is_v6) {
        return Ok(None);
    }
    if capture.subnets.iter().all(is_v6) {
        return Err(PlanError::NoIpv6);
    }
    Ok(Some(Advice::NoIpv6))
}

fn not_forwarding(capture: &CapturePlan, host: &HostNetworks) -> Option<Advice> {
    let for_others = capture.whose.forwarded != Forwarded::Containers;
    (for_others && !host.forwards).then_some(Advice::NotForwarding)
}

fn excluded(capture: &CapturePlan) -> Vec<Advice> {
    let covering = |subnet: &Subnet| {
        let exclude = capture
            .excludes
            .iter()
            .find(|exclude| exclude.contains(&subnet.net))?;
        Some(Advice::Excluded {
            subnet: subnet.clone(),
            exclude: *exclude,
        })
    };
    capture.subnets.iter().filter_map(covering).collect()
}

/// A default beside a narrower subnet is no conflict: the narrower one goes first, as among routes.
fn twice(capture: &CapturePlan, host: &HostNetworks) -> Vec<Advice> {
    let live = || {
        capture
            .subnets
            .iter()
            .filter(|subnet| !capture.excluded(&subnet.net))
    };
    let users = &capture.whose.users;
    let concerns =
        |theirs: &Other| users.is_empty() || theirs.user.is_none_or(|user| users.contains(&user));
    let same =
        |theirs: &Other| live().find(|ours| concerns(theirs) && collide(ours, &theirs.subnet));
    let twice = host.others.iter().filter_map(|theirs| {
        let subnet = same(theirs)?;
        Some(Advice::Twice {
            subnet: subnet.clone(),
            theirs: theirs.subnet.clone(),
            device: theirs.device.clone(),
            first: theirs.first,
            both: both(capture, host, subnet, None),
        })
    });
    twice.collect()
}

fn collide(a: &Subnet, b: &Subnet) -> bool {
    let ports = match (&a.ports, &b.ports) {
        (Some(a), Some(b)) => a.start() <= b.end() && b.start() <= a.end(),
        _ => true,
    };
    meet(&a.net, &b.net) && ports && (a.net.prefix_len() == 0) == (b.net.prefix_len() == 0)
}

/// A network of one address needs no warning: the kernel's local table answers for it first.
fn local_network(
    capture: &CapturePlan,
    host: &HostNetworks,
    interface: &Interface,
    net: IpNet,
) -> Vec<Advice> {
    if net.prefix_len() == net.max_prefix_len() || is_link_local(&net) {
        return Vec::new();
    }
    let warn = |subnet: &Subnet, net: IpNet| Advice::LocalNetwork {
        subnet: subnet.clone(),
        net,
        interface: interface.name.clone(),
        bridge: interface.bridge,
        both: both(capture, host, subnet, Some(&net)),
    };
    if let Some(subnet) = capture.takes(&net, host) {
        return vec![warn(subnet, net)];
    }
    let inside = capture.subnets.iter();
    inside
        .filter(|subnet| net.contains(&subnet.net) && !capture.excluded(&subnet.net))
        .map(|subnet| warn(subnet, subnet.net))
        .collect()
}

/// A gateway inside a local network that is warned about already needs no second line.
fn gateway(capture: &CapturePlan, host: &HostNetworks, hop: &Gateway) -> Option<Advice> {
    let subnet = capture.takes(&hop.address.into(), host)?;
    let warned = |address: &IpNet| {
        address.contains(&hop.address) && capture.takes(&address.trunc(), host).is_some()
    };
    if is_link_local(&hop.address.into())
        || host
            .interfaces
            .iter()
            .flat_map(|i| &i.addresses)
            .any(warned)
    {
        return None;
    }
    Some(Advice::Gateway {
        subnet: subnet.clone(),
        address: hop.address,
        interface: hop.interface.clone(),
        both: both(capture, host, subnet, Some(&hop.address.into())),
    })
}

/// Link-local networks stay on their link whatever is captured (see `os::routes`).
fn is_link_local(net: &IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.network().is_link_local(),
        IpNet::V6(net) => net.network().is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
