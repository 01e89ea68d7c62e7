//! What other running instances capture, read from the kernel: their rules, and the routes that these lead to.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, IpProtocol};

use super::routes::PROTOCOL;
use super::slot::Tables;
use crate::plan::Subnet;
use crate::plan::advice::Other;

/// What rules of other slots lead to a device. What a killed run left has no device any more, so no route to one.
pub(super) fn others(
    own: u32,
    rules: &[RuleMessage],
    routes: &[RouteMessage],
    names: &BTreeMap<u32, String>,
) -> Vec<Other> {
    let mut others = Vec::new();
    for rule in rules.iter().filter_map(Lead::of) {
        let Some(slot) = Tables::slot_of(rule.table).filter(|slot| *slot != own) else {
            continue;
        };
        let ways = routes
            .iter()
            .filter_map(|route| way(route, rule.table, names));
        for (net, device) in ways.filter(|(net, _)| rule.leads_to(net)) {
            let subnet = Subnet {
                net,
                ports: rule.ports.clone(),
                far: None,
            };
            let other = Other {
                device: device.to_owned(),
                subnet,
                user: rule.user,
                first: slot < own,
            };
            // A rule for each of the senders.
            if !others.contains(&other) {
                others.push(other);
            }
        }
    }
    others
}

/// A rule of an instance that captures.
#[derive(Default)]
struct Lead {
    table: u32,
    ipv6: bool,
    destination: Option<IpNet>,
    ports: Option<RangeInclusive<u16>>,
    user: Option<u32>,
}

impl Lead {
    fn of(rule: &RuleMessage) -> Option<Self> {
        let ours = RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL));
        // For the way back alone.
        let is_back = |attribute: &RuleAttribute| {
            matches!(
                attribute,
                RuleAttribute::IpProtocol(IpProtocol::Icmp) | RuleAttribute::Source(_)
            )
        };
        let captures = rule.attributes.contains(&ours) && !rule.attributes.iter().any(is_back);
        captures.then_some(())?;
        let mut lead = Self {
            ipv6: rule.header.family == AddressFamily::Inet6,
            ..Self::default()
        };
        for attribute in &rule.attributes {
            match attribute {
                RuleAttribute::Table(table) => lead.table = *table,
                RuleAttribute::Destination(address) => {
                    lead.destination = IpNet::new(*address, rule.header.dst_len).ok();
                }
                RuleAttribute::DestinationPortRange(range) => {
                    lead.ports = Some(range.start..=range.end);
                }
                RuleAttribute::UidRange(range) => lead.user = Some(range.start),
                _ => {}
            }
        }
        Some(lead)
    }

    fn leads_to(&self, net: &IpNet) -> bool {
        self.ipv6 == matches!(net, IpNet::V6(_)) && self.destination.is_none_or(|to| to == *net)
    }
}

/// The destination and the device of a route in `table`; `None` for the others, and for one without a device.
fn way<'a>(
    route: &RouteMessage,
    table: u32,
    names: &'a BTreeMap<u32, String>,
) -> Option<(IpNet, &'a str)> {
    let in_table = route.attributes.contains(&RouteAttribute::Table(table));
    // An IPv6 `throw` has a device as well: `lo`.
    (in_table && route.header.kind == RouteType::Unicast).then_some(())?;
    let device = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => names.get(index),
            _ => None,
        })?;
    Some((destination(route)?, device))
}

/// The destination of a route; a default route carries no attribute for it.
pub(super) fn destination(route: &RouteMessage) -> Option<IpNet> {
    let address = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
            _ => None,
        });
    let any: IpAddr = match route.header.address_family {
        AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => std::net::Ipv4Addr::UNSPECIFIED.into(),
    };
    IpNet::new(
        address.unwrap_or(any),
        route.header.destination_prefix_length,
    )
    .ok()
}
