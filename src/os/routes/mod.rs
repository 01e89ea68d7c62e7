//! What shall hold on the host for a plan: a pure function, and its words in the language of `ip`.
//!
//! # Theory of operation
//!
//! Subnets go into a table of our own, and an `ip rule` before `main` leads there. Nothing of the host's own
//! routes is copied or changed, so the host may roam. An exclusion is a `throw` route: the lookup leaves our
//! table and goes on as if we were not there. `throw` wins because it is the longer prefix: a subnet inside an
//! exclusion is left out altogether, so every subnet that remains is wider than each exclusion in it.
//!
//! A subnet with ports goes into a second table, behind rules that ask for `ipproto tcp` and the ports;
//! its other traffic never enters that table. The one exception is the way back of an ICMP error that we send to this
//! host itself ([`Packets::IcmpFrom`]). A host without a default route that forwards for others, with a range of ports and
//! rp_filter, still drops the errors to those: they see a time-out instead of an unreachable host.
//!
//! A subnet of prefix length 0 means "what has no place of its own here", as a default route does: `0.0.0.0/0`
//! must not take the answers to a container or to somebody who is logged in from the local network. It goes
//! into a third table, and before that table a rule asks `main` for everything but its default routes
//! (`suppress_prefixlength`, FRA_SUPPRESS_PREFIXLEN), as wg-quick(8) does. A narrower subnet is asked before and
//! wins over the host's routes.
//!
//! Every rule asks where its packets come from (`iif`): from this host itself (`lo`), from the bridges of containers, and
//! from interfaces that are named. What else this host forwards goes on as if we were not there. The kernel looks up the
//! way back of an answer by the same device (fib_validate_source()), so such a rule serves both directions.

mod rules;
mod words;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use self::rules::rules;
use super::Tables;
use crate::plan::{CapturePlan, Subnet};

/// Marks our routes and rules (`RTA_PROTOCOL`, `FRA_PROTOCOL`); not in use in iproute2's `rt_protos`.
pub const PROTOCOL: u8 = 117;
/// How applications pace what they send into the device: not at all. No packet is lost or queued elsewhere on the way to
/// us, so what a host's default (bbr, cubic) would find out about the path is not worth its work; bbr's timers alone
/// cost a third of an upload's throughput. Built into every kernel (net/ipv4/tcp_cong.c), open to every namespace.
pub(super) const CONGESTION_CONTROL: &str = "reno";
/// Packets that wait for us in the device at most; the kernel's 500 overflows on bursts of ACKs.
const QUEUE_PACKETS: u32 = 10_000;

/// The host's main table (`RT_TABLE_MAIN`).
pub(super) const MAIN: u32 = 254;

/// What stays on its link even under a wider subnet, unless it is asked for by itself: link-local and
/// multicast (RFC 3927, RFC 5771, RFC 4291).
const STAYS: [IpNet; 4] = [
    v4([169, 254, 0, 0], 16),
    v4([224, 0, 0, 0], 4),
    v6(0xfe80, 10),
    v6(0xff00, 8),
];

const fn v4(octets: [u8; 4], width: u8) -> IpNet {
    let [a, b, c, d] = octets;
    IpNet::V4(ipnet::Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), width))
}

const fn v6(first: u16, width: u8) -> IpNet {
    let address = Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0);
    IpNet::V6(ipnet::Ipv6Net::new_assert(address, width))
}

/// What [`desired`] needs to know beside the plan.
#[derive(Clone, Debug)]
pub struct Setting<'a> {
    /// The device's name.
    pub device: &'a str,
    /// The device's MTU in bytes.
    pub mtu: u16,
    /// The tables of this instance.
    pub tables: Tables,
    /// The addresses of the device; source of what the host itself sends.
    pub source: Source,
    /// Addresses of the SSH server, never captured.
    pub exempt: &'a [IpAddr],
    /// The bridges that containers are behind ([`super::bridges()`]).
    pub bridges: &'a [String],
}

/// The addresses of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// From 198.18.0.0/15, which no real network has (RFC 2544).
    pub v4: Ipv4Addr,
    /// From a unique local prefix (RFC 4193); `None` leaves IPv6 alone.
    pub v6: Option<Ipv6Addr>,
    /// Who takes packets there: hosts on a device of frames have no way but by a neighbour. `None`, as on a device of packets:
    /// nobody has to be found.
    pub neighbour: [Option<IpAddr>; 2],
}

/// Where the name server of the instance in `slot` is asked: outside of what real networks have (RFC 2544).
pub fn name_server(slot: u32) -> Ipv4Addr {
    let number = u8::try_from(slot).unwrap_or_default();
    Ipv4Addr::new(198, 19, 255, 53_u8.saturating_add(number))
}

/// One thing that shall hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// MTU in bytes and queue in packets of a device that is still down.
    Link {
        /// The device.
        device: String,
        /// Its MTU in bytes.
        mtu: u16,
        /// Its queue in packets.
        queue: u32,
    },
    /// A setting in `/proc/sys`, of our device only: it vanishes with the device.
    Sysctl {
        /// Path below `/proc/sys`.
        path: String,
        /// Its value.
        value: &'static str,
    },
    /// A device that is up.
    Up {
        /// The device.
        device: String,
    },
    /// An address of the device, as a host route of its own.
    Address {
        /// The device.
        device: String,
        /// The address.
        address: IpAddr,
    },
    /// A route in a table of ours.
    Route(Route),
    /// A rule that leads to a table of ours, or to `main` before one.
    Rule(Rule),
}

/// A route in a table of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The table.
    pub table: u32,
    /// The destination.
    pub net: IpNet,
    /// `None`: `throw`.
    pub to: Option<Towards>,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Towards {
    /// The device.
    pub device: String,
    /// The source of what this host sends there.
    pub source: IpAddr,
    /// The neighbour that takes it, where one has to.
    pub via: Option<IpAddr>,
}

/// A rule that leads to a table of ours, or to `main` before one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The priority; lower is asked first.
    pub priority: u32,
    /// The table that it leads to.
    pub table: u32,
    /// Whether routes of prefix length 0 in that table do not count.
    pub no_default: bool,
    /// Whether it is for IPv6.
    pub ipv6: bool,
    /// Who has to have sent the packets that it is for.
    pub sender: Sender,
    /// Which packets it is for.
    pub packets: Packets,
}

/// Who has sent a packet; everybody, where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// The device that it came in by; `lo` for what this host itself sends.
    pub device: Option<String>,
    /// The user whose socket it comes from; 0 also for what the kernel sends by itself, and for what comes from elsewhere.
    pub user: Option<u32>,
    /// Its source address.
    pub address: Option<IpAddr>,
}

/// Which packets a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packets {
    /// Every packet.
    All,
    /// TCP to a network, and to which of its ports; `None` for all.
    Tcp(IpNet, Option<RangeInclusive<u16>>),
    /// ICMP from the device's own address. Nobody sends that; but the kernel looks up the way back to who sent an
    /// error so (fib_validate_source() with rp_filter), and drops the error where there is none.
    IcmpFrom(Ipv4Addr),
}

/// What shall hold, in the order in which it is made. Rules come last: nothing is captured before
/// everything stands.
pub fn desired(capture: &CapturePlan, setting: &Setting<'_>) -> Vec<Entry> {
    let live = live_subnets(capture, setting);
    let has_v6 = live.iter().any(|subnet| is_v6(&subnet.net));
    let mut entries = device(setting.device, setting.mtu, setting.source, has_v6);
    entries.extend(routes(&live, capture, setting).map(Entry::Route));
    entries.extend(
        rules(&live, &capture.whose, setting)
            .into_iter()
            .map(Entry::Rule),
    );
    entries
}

fn is_v6(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(_))
}

/// The subnets that are neither excluded nor without their IP version.
fn live_subnets<'a>(capture: &'a CapturePlan, setting: &Setting<'_>) -> Vec<&'a Subnet> {
    let off = |subnet: &Subnet| {
        let mut outs = outs(capture, setting);
        (is_v6(&subnet.net) && setting.source.v6.is_none())
            || outs.any(|out| out.contains(&subnet.net))
    };
    capture
        .subnets
        .iter()
        .filter(|subnet| !off(subnet))
        .collect()
}

/// What is never captured: exclusions and the SSH server.
fn outs<'a>(
    capture: &'a CapturePlan,
    setting: &'a Setting<'_>,
) -> impl Iterator<Item = IpNet> + 'a {
    let servers = setting
        .exempt
        .iter()
        .map(|address| IpNet::from(address.to_canonical()));
    servers.chain(capture.excludes.iter().copied())
}

/// The device `device` with its addresses; that of IPv6 only if `has_v6`.
pub(super) fn device(device: &str, mtu: u16, source: Source, has_v6: bool) -> Vec<Entry> {
    let device = device.to_owned();
    let sysctl = |path: String, value| Entry::Sysctl { path, value };
    let mut entries = vec![
        Entry::Link {
            device: device.clone(),
            mtu,
            queue: QUEUE_PACKETS,
        },
        // Loose: an answer for a captured port need not be routed back the way it came (RFC 3704).
        sysctl(format!("net/ipv4/conf/{device}/rp_filter"), "2"),
        sysctl(format!("net/ipv4/conf/{device}/accept_redirects"), "0"),
    ];
    if source.v6.is_some() {
        // No link-local address: nobody is on this link to be solicited.
        entries.push(sysctl(format!("net/ipv6/conf/{device}/addr_gen_mode"), "1"));
        // Nobody out there says what this host's routes are.
        entries.push(sysctl(format!("net/ipv6/conf/{device}/accept_ra"), "0"));
        entries.push(sysctl(
            format!("net/ipv6/conf/{device}/accept_redirects"),
            "0",
        ));
    }
    entries.push(Entry::Up {
        device: device.clone(),
    });
    let v6 = source.v6.filter(|_| has_v6).map(IpAddr::V6);
    entries.extend(
        [Some(source.v4.into()), v6]
            .into_iter()
            .flatten()
            .map(|address| Entry::Address {
                device: device.clone(),
                address,
            }),
    );
    entries
}

fn routes<'a>(
    live: &'a [&Subnet],
    capture: &'a CapturePlan,
    setting: &'a Setting<'_>,
) -> impl Iterator<Item = Route> + 'a {
    let Tables {
        whole,
        ports,
        default,
        ..
    } = setting.tables;
    [whole, ports, default].into_iter().flat_map(move |table| {
        let nets = live
            .iter()
            .filter(move |subnet| table_of(subnet, setting.tables) == table);
        let nets = distinct(nets.map(|subnet| subnet.net));
        let throws = throws(&nets, capture, setting);
        let to_device = nets.into_iter().map(|net| (net, towards(setting, &net)));
        let throws = throws.into_iter().map(|net| (net, None));
        // Exclusions first: while the table grows it never captures what it shall not.
        let all: Vec<_> = throws.chain(to_device).collect();
        all.into_iter()
            .map(move |(net, to)| Route { table, net, to })
    })
}

fn table_of(subnet: &Subnet, tables: Tables) -> u32 {
    match &subnet.ports {
        _ if is_default(&subnet.net) => tables.default,
        Some(_) => tables.ports,
        None => tables.whole,
    }
}

fn is_default(net: &IpNet) -> bool {
    net.prefix_len() == 0
}

fn towards(setting: &Setting<'_>, net: &IpNet) -> Option<Towards> {
    let source = match is_v6(net) {
        true => setting.source.v6?.into(),
        false => setting.source.v4.into(),
    };
    let [v4, v6] = setting.source.neighbour;
    let via = if is_v6(net) { v6 } else { v4 };
    Some(Towards {
        device: setting.device.to_owned(),
        source,
        // It is on the link itself.
        via: via.filter(|via| IpNet::from(*via) != *net),
    })
}

/// The `throw` routes of a table that holds `nets`; those that would change nothing are left out.
fn throws(nets: &[IpNet], capture: &CapturePlan, setting: &Setting<'_>) -> Vec<IpNet> {
    let matters = |out: &IpNet| nets.iter().any(|net| net.contains(out));
    let stays = STAYS.into_iter().filter(|stay| !nets.contains(stay));
    distinct(outs(capture, setting).chain(stays).filter(matters))
}

fn distinct(nets: impl Iterator<Item = IpNet>) -> Vec<IpNet> {
    let mut seen = Vec::new();
    for net in nets {
        if !seen.contains(&net) {
            seen.push(net);
        }
    }
    seen
}

#[cfg(test)]
mod tests;
