//! What the host looks like before we touch it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};

use super::bridges::is_bridge;
use super::others::{destination, others};
use super::routes::{self, Source};
use super::{Netlink, NetlinkError, Slot, Tables};
use crate::plan::CapturePlan;
use crate::plan::advice::{Gateway, HostNetworks, Interface};
use crate::plan::far_side::TunnelAddress;

/// Names of devices that we made begin with this.
pub const DEVICE_PREFIX: &str = "underpass";
/// Absent when the kernel has no IPv6; otherwise whether new devices get none.
const IPV6_DISABLED: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// The prefix of our IPv6 addresses: unique local, "underpa" in its bits (RFC 4193).
const SOURCE_V6: [u16; 4] = [0xfd75, 0x6e64, 0x6572, 0x7061];

/// Whether a new device gets IPv6.
pub fn has_ipv6() -> bool {
    std::fs::read_to_string(IPV6_DISABLED).is_ok_and(|text| text.trim() == "0")
}

/// Whether this host forwards IPv4 for others.
fn forwards() -> bool {
    std::fs::read_to_string(IP_FORWARD).is_ok_and(|text| text.trim() != "0")
}

/// The host's networks as an instance in slot number `slot` meets them, for [`crate::plan::advice::advise`].
///
/// # Errors
/// When the kernel refuses to list.
pub async fn networks(netlink: &Netlink, slot: u32) -> Result<HostNetworks, NetlinkError> {
    let links = netlink.links().await?;
    let mut addresses = addresses_by_index(&netlink.addresses().await?);
    let names: BTreeMap<u32, String> = links
        .iter()
        .map(|link| (link.header.index, name(link)))
        .collect();
    let all = netlink.routes(None).await?;
    let gateways = all
        .iter()
        .filter_map(|route| gateway(route, &names))
        .collect();
    let foreign = links.iter().filter(|link| is_foreign(link));
    let interfaces = foreign.map(|link| Interface {
        name: name(link),
        bridge: is_bridge(link),
        addresses: addresses.remove(&link.header.index).unwrap_or_default(),
    });
    Ok(HostNetworks {
        interfaces: interfaces.collect(),
        gateways,
        others: others(slot, &netlink.rules().await?, &all, &names),
        routes: all.iter().filter_map(main_destination).collect(),
        used: all.iter().filter_map(|route| used(route, slot)).collect(),
        forwards: forwards(),
        ipv6: has_ipv6(),
    })
}

/// Addresses for our device that the host does not use and, where possible, no subnet takes.
///
/// # Errors
/// When the kernel refuses to list.
pub async fn source(
    netlink: &Netlink,
    slot: &Slot,
    capture: &CapturePlan,
) -> Result<Source, NetlinkError> {
    let used: Vec<IpAddr> = netlink
        .addresses()
        .await?
        .iter()
        .filter_map(address)
        .collect();
    Ok(choose_source(slot.number(), &used, capture, has_ipv6()))
}

/// The same where the device may be that of a tunnel, which has its addresses there, in place of those of `source`. Where it `is_ethernet`
/// the far end takes the packets.
pub fn in_tunnel(source: Source, ends: Option<TunnelAddress>, is_ethernet: bool) -> Source {
    let Some(ends) = ends else {
        return source;
    };
    let far = [
        Some(ends.v4.far.into()),
        ends.v6.map(|ends| ends.far.into()),
    ];
    let v6 = ends
        .v6
        .map(|ends| ends.ours)
        .filter(|_| source.v6.is_some());
    Source {
        v4: ends.v4.ours,
        v6: v6.or(source.v6),
        neighbour: far.map(|far| far.filter(|_| is_ethernet)),
    }
}

/// The same, where `used` are the host's own addresses and `slot` is the instance's number.
pub fn choose_source(slot: u32, used: &[IpAddr], capture: &CapturePlan, ipv6: bool) -> Source {
    let number = u8::try_from(slot).unwrap_or_default().saturating_add(1);
    let v4 = (18..=19).flat_map(|b| (0..=255).map(move |c| Ipv4Addr::new(198, b, c, number)));
    let [a, b, c, d] = SOURCE_V6;
    let v6 = (0..=255).map(|e| Ipv6Addr::new(a, b, c, d, e, 0, 0, number.into()));
    Source {
        v4: choose(v4, used, capture).unwrap_or(Ipv4Addr::new(198, 18, 0, number)),
        v6: choose(v6, used, capture).filter(|_| ipv6),
        neighbour: [None; 2],
    }
}

/// The first candidate that is free; a subnet of the plan is only a reason to look further.
fn choose<A: Into<IpAddr> + Copy>(
    candidates: impl Iterator<Item = A> + Clone,
    used: &[IpAddr],
    capture: &CapturePlan,
) -> Option<A> {
    let mut free = candidates.filter(|address| !used.contains(&(*address).into()));
    let taken = |address: IpAddr| {
        capture
            .subnets
            .iter()
            .any(|subnet| subnet.net.contains(&address))
    };
    let first = free.clone().next();
    free.find(|address| !taken((*address).into())).or(first)
}

/// The name of a device.
pub(super) fn name(link: &LinkMessage) -> String {
    let mut attributes = link.attributes.iter();
    let name = attributes.find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

fn is_foreign(link: &LinkMessage) -> bool {
    !link.header.flags.contains(LinkFlags::Loopback) && !name(link).starts_with(DEVICE_PREFIX)
}

/// `IFA_LOCAL` is the host's own address, also where `IFA_ADDRESS` is the peer's (rtnetlink(7)).
fn address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
    local.or_else(|| {
        message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            })
    })
}

fn addresses_by_index(messages: &[AddressMessage]) -> BTreeMap<u32, Vec<IpNet>> {
    let mut by_index: BTreeMap<u32, Vec<IpNet>> = BTreeMap::new();
    for message in messages {
        let net = address(message)
            .and_then(|address| IpNet::new(address, message.header.prefix_len).ok());
        by_index
            .entry(message.header.index)
            .or_default()
            .extend(net);
    }
    by_index
}

/// The destination of a route of the main table that is no default route.
fn main_destination(route: &RouteMessage) -> Option<IpNet> {
    let in_main = u32::from(route.header.table) == routes::MAIN;
    destination(route).filter(|net| in_main && net.prefix_len() > 0)
}

/// The destination of a route of any table but those of `slot` that is no default route.
fn used(route: &RouteMessage, slot: u32) -> Option<IpNet> {
    let is_ours = Tables::slot_of(table(route)) == Some(slot);
    destination(route).filter(|net| !is_ours && net.prefix_len() > 0)
}

/// A table beyond 255 stands in an attribute alone (rtnetlink(7)).
fn table(route: &RouteMessage) -> u32 {
    let mut attributes = route.attributes.iter();
    let table = attributes.find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    table.unwrap_or(route.header.table.into())
}

/// The next hop of a default route of any table.
fn gateway(route: &RouteMessage, names: &BTreeMap<u32, String>) -> Option<Gateway> {
    if route.header.destination_prefix_length > 0 {
        return None;
    }
    let mut found = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => found.0 = Some(IpAddr::V4(*ip)),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => found.0 = Some(IpAddr::V6(*ip)),
            RouteAttribute::Oif(index) => found.1 = names.get(index),
            _ => {}
        }
    }
    Some(Gateway {
        address: found.0?,
        interface: found.1?.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Subnet;

    #[test]
    fn a_source_is_free_and_outside_the_subnets() {
        let capture = CapturePlan {
            subnets: vec![Subnet {
                net: "198.18.0.0/24".parse().unwrap(),
                ports: None,
                far: None,
            }],
            ..CapturePlan::default()
        };
        let used = ["198.18.1.1".parse().unwrap()];
        let source = choose_source(0, &used, &capture, true);
        assert_eq!(source.v4.to_string(), "198.18.2.1");
        assert_eq!(source.v6.unwrap().to_string(), "fd75:6e64:6572:7061::1");
        assert_eq!(choose_source(3, &[], &capture, false).v6, None);
    }

    #[test]
    fn under_a_default_the_first_free_one_is_taken() {
        let capture = CapturePlan {
            subnets: vec![Subnet {
                net: "0.0.0.0/0".parse().unwrap(),
                ports: None,
                far: None,
            }],
            ..CapturePlan::default()
        };
        assert_eq!(
            choose_source(1, &[], &capture, true).v4.to_string(),
            "198.18.0.2"
        );
    }
}
