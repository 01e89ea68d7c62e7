//! rtnetlink(7): a connection, and entries as messages.

use std::io;
use std::net::IpAddr;

use futures_util::{Stream, StreamExt, TryStreamExt};
use ipnet::IpNet;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteFlags, RouteMessage, RouteMetric, RouteProtocol, RouteType,
};
use rtnetlink::packet_route::rule::{
    RuleAction, RuleAttribute, RuleMessage, RulePortRange, RuleUidRange,
};
use rtnetlink::packet_route::{AddressFamily, IpProtocol};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use thiserror::Error;

use super::routes::{CONGESTION_CONTROL, PROTOCOL, Packets, Route, Rule, Sender, Towards};

/// A failed request.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// The socket could not be made.
    #[error("could not open a netlink socket: {0}")]
    Socket(#[source] io::Error),
    /// The kernel refused.
    #[error("{0}")]
    Kernel(#[source] io::Error),
    /// The answer was none that is understood.
    #[error("unexpected answer of the kernel: {0}")]
    Answer(rtnetlink::Error),
}

impl NetlinkError {
    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel(error) => error.raw_os_error(),
            _ => None,
        }
    }
}

impl From<rtnetlink::Error> for NetlinkError {
    fn from(error: rtnetlink::Error) -> Self {
        match error {
            rtnetlink::Error::NetlinkError(message) => Self::Kernel(message.to_io()),
            other => Self::Answer(other),
        }
    }
}

/// A connection to the kernel's routing, bound to the network namespace of the thread that made it.
#[derive(Clone, Debug)]
pub struct Netlink(Handle);

impl Netlink {
    /// Opens a connection; it is served by a task of the current tokio runtime until the last clone
    /// is gone.
    ///
    /// # Errors
    /// When the socket cannot be made. Strict checks need Linux 4.20 (`NETLINK_GET_STRICT_CHK`).
    pub fn new() -> Result<Self, NetlinkError> {
        let (connection, handle, _) =
            rtnetlink::new_connection_with_strict_check().map_err(NetlinkError::Socket)?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// The index of a device.
    pub(super) async fn index(&self, device: &str) -> Result<u32, NetlinkError> {
        let mut found = self.0.link().get().match_name(device).execute();
        match found.try_next().await? {
            Some(link) => Ok(link.header.index),
            None => Err(NetlinkError::Kernel(io::Error::from_raw_os_error(
                nix::libc::ENODEV,
            ))),
        }
    }

    /// MTU in bytes and queue in packets; multicast off, for nobody is on this link.
    pub(super) async fn set_link(
        &self,
        index: u32,
        mtu: u16,
        queue: u32,
    ) -> Result<(), NetlinkError> {
        let builder = LinkUnspec::new_with_index(index);
        let message = builder
            .mtu(mtu.into())
            .txqueuelen(queue)
            .multicast(false)
            .build();
        Ok(self.0.link().set(message).execute().await?)
    }

    /// Sets a device up.
    pub(super) async fn set_up(&self, index: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        Ok(self.0.link().set(message).execute().await?)
    }

    /// Removes a device.
    pub(super) async fn delete_link(&self, index: u32) -> Result<(), NetlinkError> {
        Ok(self.0.link().del(index).execute().await?)
    }

    /// Adds an address of full width: usable at once, and without a route in `main`.
    pub(super) async fn add_address(
        &self,
        index: u32,
        address: std::net::IpAddr,
    ) -> Result<(), NetlinkError> {
        let width = IpNet::from(address).prefix_len();
        let mut request = self.0.address().add(index, address, width);
        if address.is_ipv6() {
            let message = request.message_mut();
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(
                AddressFlags::Nodad | AddressFlags::Noprefixroute,
            ));
        }
        Ok(request.execute().await?)
    }

    /// Adds a route; fails when it is there already.
    pub(super) async fn add_route(&self, route: &Route, index: u32) -> Result<(), NetlinkError> {
        Ok(self
            .0
            .route()
            .add(route_message(route, index))
            .execute()
            .await?)
    }

    /// Removes a route.
    pub(super) async fn delete_route(&self, message: RouteMessage) -> Result<(), NetlinkError> {
        Ok(self.0.route().del(message).execute().await?)
    }

    /// Adds a rule; fails when it is there already.
    pub(super) async fn add_rule(&self, rule: &Rule) -> Result<(), NetlinkError> {
        let mut request = self.0.rule().add();
        *request.message_mut() = rule_message(rule);
        Ok(request.execute().await?)
    }

    /// Removes a rule.
    pub(super) async fn delete_rule(&self, message: RuleMessage) -> Result<(), NetlinkError> {
        Ok(self.0.rule().del(message).execute().await?)
    }

    /// Every rule of both IP versions. A version that the kernel lacks has none.
    pub(super) async fn rules(&self) -> Result<Vec<RuleMessage>, NetlinkError> {
        let mut rules = Vec::new();
        for version in [rtnetlink::IpVersion::V4, rtnetlink::IpVersion::V6] {
            rules.extend(dump(self.0.rule().get(version).execute()).await?);
        }
        Ok(rules)
    }

    /// The routes of both IP versions that carry `protocol`; `None` gives all.
    pub(super) async fn routes(
        &self,
        protocol: Option<RouteProtocol>,
    ) -> Result<Vec<RouteMessage>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            filter.header.protocol = protocol.unwrap_or_default();
            routes.extend(dump(self.0.route().get(filter).execute()).await?);
        }
        Ok(routes)
    }

    /// Every device.
    pub(super) async fn links(&self) -> Result<Vec<LinkMessage>, NetlinkError> {
        dump(self.0.link().get().execute()).await
    }

    /// Every address.
    pub(super) async fn addresses(&self) -> Result<Vec<AddressMessage>, NetlinkError> {
        dump(self.0.address().get().execute()).await
    }
}

/// A dump to its end. A kernel without IPv6 answers `EAFNOSUPPORT` or `EOPNOTSUPP`: nothing is there.
async fn dump<T>(
    stream: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, NetlinkError> {
    let all: Result<Vec<T>, NetlinkError> = stream.map(|item| Ok(item?)).try_collect().await;
    match all {
        Err(error) if lacks_family(&error) => Ok(Vec::new()),
        other => other,
    }
}

fn lacks_family(error: &NetlinkError) -> bool {
    let absent = [nix::libc::EAFNOSUPPORT, nix::libc::EOPNOTSUPP];
    error.errno().is_some_and(|errno| absent.contains(&errno))
}

/// `RTM_NEWROUTE` and `RTM_DELROUTE` of a route; `index` is that of its device.
pub(super) fn route_message(route: &Route, index: u32) -> RouteMessage {
    let mut message = match route.net {
        IpNet::V4(net) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .build(),
        IpNet::V6(net) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .build(),
    };
    use rtnetlink::packet_route::route::RouteAttribute::{
        Gateway, Metrics, Oif, PrefSource, Table,
    };
    message.header.table = 0;
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.attributes.push(Table(route.table));
    match &route.to {
        Some(Towards { source, via, .. }) => {
            message.attributes.push(Oif(index));
            message.attributes.push(PrefSource((*source).into()));
            if let Some(via) = via {
                message.attributes.push(Gateway((*via).into()));
                // No other route has to lead to it.
                message.header.flags |= RouteFlags::Onlink;
            }
            message.attributes.push(Metrics(vec![RouteMetric::CcAlgo(
                CONGESTION_CONTROL.into(),
            )]));
        }
        None => message.header.kind = RouteType::Throw,
    }
    message
}

/// `RTM_NEWRULE` and `RTM_DELRULE` of a rule.
pub(super) fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if rule.ipv6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ];
    if rule.no_default {
        message.attributes.push(RuleAttribute::SuppressPrefixLen(0));
    }
    select(&mut message, &rule.packets);
    narrow(&mut message, &rule.sender);
    message
}

/// Narrows a rule to what `sender` has sent.
fn narrow(message: &mut RuleMessage, sender: &Sender) {
    let attributes = &mut message.attributes;
    if let Some(address) = sender.address {
        message.header.src_len = IpNet::from(address).prefix_len();
        attributes.push(RuleAttribute::Source(address));
    }
    if let Some(device) = &sender.device {
        attributes.push(RuleAttribute::Iifname(device.clone()));
    }
    if let Some(user) = sender.user {
        let (start, end) = (user, user);
        attributes.push(RuleAttribute::UidRange(RuleUidRange { start, end }));
    }
}

/// Narrows a rule to `packets`.
fn select(message: &mut RuleMessage, packets: &Packets) {
    let attributes = &mut message.attributes;
    match packets {
        Packets::All => {}
        Packets::IcmpFrom(address) => {
            message.header.src_len = 32;
            attributes.push(RuleAttribute::Source((*address).into()));
            attributes.push(RuleAttribute::IpProtocol(IpProtocol::Icmp));
        }
        Packets::Tcp(net, ports) => {
            attributes.push(RuleAttribute::IpProtocol(IpProtocol::Tcp));
            if net.prefix_len() > 0 {
                message.header.dst_len = net.prefix_len();
                attributes.push(RuleAttribute::Destination(net.network()));
            }
            attributes.extend(ports.as_ref().map(|ports| {
                let (start, end) = (*ports.start(), *ports.end());
                RuleAttribute::DestinationPortRange(RulePortRange { start, end })
            }));
        }
    }
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

/// `IFA_LOCAL` is the host's own address, also where `IFA_ADDRESS` is the peer's (rtnetlink(7)).
pub(super) fn address(message: &AddressMessage) -> Option<IpAddr> {
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
