//! What the host looks like before we touch it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::{LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};

use super::bridges::is_bridge;
use super::netlink::{address, name};
use super::others::{destination, others};
use super::routes;
use super::source::{DEVICE_PREFIX, has_ipv6};
use super::{Netlink, NetlinkError, Tables};
use crate::plan::advice::{Gateway, HostNetworks, Interface};

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

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

fn is_foreign(link: &LinkMessage) -> bool {
    !link.header.flags.contains(LinkFlags::Loopback) && !name(link).starts_with(DEVICE_PREFIX)
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
