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

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::Tables;
use crate::plan::{CapturePlan, Forwarded, Subnet, Whose};

/// Marks our routes and rules (`RTA_PROTOCOL`, `FRA_PROTOCOL`); not in use in iproute2's `rt_protos`.
pub const PROTOCOL: u8 = 117;
/// How applications pace what they send into the device: not at all. No packet is lost or queued elsewhere on the way to
/// us, so what a host's default (bbr, cubic) would find out about the path is not worth its work; bbr's timers alone
/// cost a third of an upload's throughput. Built into every kernel (net/ipv4/tcp_cong.c), open to every namespace.
pub(super) const CONGESTION_CONTROL: &str = "reno";
/// Packets that wait for us in the device at most; the kernel's 500 overflows on bursts of ACKs.
const QUEUE_PACKETS: u32 = 10_000;
/// The last port that a rule can name: fib_rule_port_range_valid() in include/net/fib_rules.h.
const LAST_RULE_PORT: u16 = 65_534;

/// Where packets come in that this host itself sends, in the eyes of a rule (ip-rule(8), `iif`).
const HERE: &str = "lo";
/// Whose the packets are that the kernel sends without a socket of anybody: sock_net_uid() in include/net/sock.h.
const KERNEL: u32 = 0;

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
    /// `Some`: to this device, from this source. `None`: `throw`.
    pub to: Option<(String, IpAddr)>,
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
    /// The device that it came in by; [`HERE`] for what this host itself sends.
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
    ];
    if source.v6.is_some() {
        // No link-local address: nobody is on this link to be solicited.
        entries.push(sysctl(format!("net/ipv6/conf/{device}/addr_gen_mode"), "1"));
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
        let to_device = nets.into_iter().map(|net| (net, source(setting, &net)));
        let to_device =
            to_device.map(|(net, to)| (net, to.map(|ip| (setting.device.to_owned(), ip))));
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

fn source(setting: &Setting<'_>, net: &IpNet) -> Option<IpAddr> {
    if is_v6(net) {
        setting.source.v6.map(IpAddr::V6)
    } else {
        Some(setting.source.v4.into())
    }
}

/// The `throw` routes of a table that holds `nets`; those that would change nothing are left out.
fn throws(nets: &[IpNet], capture: &CapturePlan, setting: &Setting<'_>) -> Vec<IpNet> {
    let matters = |out: &IpNet| nets.iter().any(|net| net.contains(out));
    let stays = STAYS.into_iter().filter(|stay| !nets.contains(stay));
    distinct(outs(capture, setting).chain(stays).filter(matters))
}

fn rules(live: &[&Subnet], whose: &Whose, setting: &Setting<'_>) -> Vec<Rule> {
    let tables = setting.tables;
    let mut rules = Vec::new();
    for ipv6 in [false, true] {
        let family = live
            .iter()
            .filter(|subnet| is_v6(&subnet.net) == ipv6)
            .copied();
        let (defaults, narrower): (Vec<_>, Vec<_>) =
            family.partition(|subnet| is_default(&subnet.net));
        let rule = |priority, table, sender: &Sender, packets| Rule {
            priority,
            table,
            no_default: table == MAIN,
            ipv6,
            sender: sender.clone(),
            packets,
        };
        let way_back = |priority, table| {
            let packets = Packets::IcmpFrom(setting.source.v4);
            rule(priority, table, &Sender::default(), packets)
        };
        let senders = senders(whose, setting, ipv6);
        for packets in selectors(&narrower) {
            let is_whole = packets == Packets::All;
            let table = if is_whole { tables.whole } else { tables.ports };
            let of = |sender| rule(tables.priority, table, sender, packets.clone());
            rules.extend(senders.iter().map(of));
        }
        if !ipv6 && narrower.iter().any(|subnet| subnet.ports.is_some()) {
            rules.push(way_back(tables.priority, tables.ports));
        }
        for packets in selectors(&defaults) {
            let of = |priority, table| {
                let rule = |sender| rule(priority, table, sender, packets.clone());
                senders.iter().map(rule).collect::<Vec<_>>()
            };
            // The host's routes first: while the rules grow they never capture what they shall not.
            rules.extend(of(tables.priority_main, MAIN));
            rules.extend(of(tables.priority_default, tables.default));
        }
        if !ipv6 && defaults.iter().any(|subnet| subnet.ports.is_some()) {
            rules.push(way_back(tables.priority_default, tables.default));
        }
    }
    rules
}

/// Whose packets are captured. Of a user's connection the kernel sends some packets in its own name, the last ones above all
/// (TIME_WAIT, resets), and looks up the way back so: those come from the address that the connection got from us.
fn senders(whose: &Whose, setting: &Setting<'_>, ipv6: bool) -> Vec<Sender> {
    if whose.users.is_empty() {
        return devices(&whose.forwarded, setting)
            .map(|device| Sender {
                device,
                ..Sender::default()
            })
            .collect();
    }
    let of = |user: &u32| Sender {
        device: Some(HERE.to_owned()),
        user: Some(*user),
        address: None,
    };
    let own = match ipv6 {
        true => setting.source.v6.map(IpAddr::V6),
        false => Some(setting.source.v4.into()),
    };
    let kernels = Sender {
        address: own,
        ..of(&KERNEL)
    };
    whose.users.iter().map(of).chain([kernels]).collect()
}

/// Where packets come in that are captured; `None` for everywhere.
fn devices<'a>(
    forwarded: &'a Forwarded,
    setting: &'a Setting<'_>,
) -> impl Iterator<Item = Option<String>> + 'a {
    let named: &[String] = match forwarded {
        Forwarded::By(names) => names,
        Forwarded::Containers | Forwarded::All => &[],
    };
    let all = [HERE.to_owned()].into_iter();
    let mut all: Vec<_> = all
        .chain(setting.bridges.iter().chain(named).cloned())
        .map(Some)
        .collect();
    if *forwarded == Forwarded::All {
        all = vec![None];
    }
    let mut seen = Vec::new();
    all.retain(|device| {
        !seen.contains(device) && {
            seen.push(device.clone());
            true
        }
    });
    all.into_iter()
}

/// What the rules for `subnets` ask for: one for all that is captured whole, one per range of ports.
fn selectors(subnets: &[&Subnet]) -> Vec<Packets> {
    let whole = subnets.iter().any(|subnet| subnet.ports.is_none());
    let tcp = subnets
        .iter()
        .filter_map(|subnet| Some(Packets::Tcp(subnet.net, selectable(subnet.ports.as_ref()?))));
    whole
        .then_some(Packets::All)
        .into_iter()
        .chain(tcp)
        .collect()
}

/// The ports as a rule can say them; `None` for all.
fn selectable(ports: &RangeInclusive<u16>) -> Option<RangeInclusive<u16>> {
    let (first, last) = (*ports.start(), *ports.end());
    (first > 1 || last < u16::MAX).then(|| first..=last.min(LAST_RULE_PORT))
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

impl fmt::Display for Entry {
    /// The command of iproute2 or procps that would do the same.
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
            Some((device, source)) => write!(
                f,
                "{ip} route add {net} dev {device} src {source} table {table} proto {PROTOCOL} \
                 congctl {CONGESTION_CONTROL}"
            ),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subnet(text: &str) -> Subnet {
        let (net, ports) = text.split_once('@').unwrap_or((text, ""));
        let ports = ports
            .split_once('-')
            .map(|(first, last)| first.parse().unwrap()..=last.parse().unwrap());
        Subnet {
            net: net.parse().unwrap(),
            ports,
            far: None,
        }
    }

    fn shown(subnets: &[&str], excludes: &[&str], exempt: &[&str]) -> String {
        let exempt: Vec<IpAddr> = exempt.iter().map(|ip| ip.parse().unwrap()).collect();
        let capture = CapturePlan {
            subnets: subnets.iter().map(|text| subnet(text)).collect(),
            excludes: excludes.iter().map(|net| net.parse().unwrap()).collect(),
            ..CapturePlan::default()
        };
        let lines = desired(&capture, &setting(&exempt));
        let lines: Vec<_> = lines
            .iter()
            .filter(|entry| matches!(entry, Entry::Route(_) | Entry::Rule(_)))
            .map(ToString::to_string)
            .collect();
        lines.join("\n")
    }

    #[test]
    fn of_a_user_alone() {
        let capture = CapturePlan {
            subnets: vec![
                subnet("0.0.0.0/0"),
                subnet("10.0.1.0/24@80-80"),
                subnet("fd00::/64"),
            ],
            whose: Whose {
                users: vec![1000, 1001],
                ..Whose::default()
            },
            ..CapturePlan::default()
        };
        let entries = desired(&capture, &setting(&[]));
        let rules = entries
            .iter()
            .filter(|entry| matches!(entry, Entry::Rule(_)));
        let lines: Vec<_> = rules.map(ToString::to_string).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        ip rule add priority 5000 iif lo uidrange 1000-1000 to 10.0.1.0/24 ipproto tcp dport 80 lookup 30065 protocol 117
        ip rule add priority 5000 iif lo uidrange 1001-1001 to 10.0.1.0/24 ipproto tcp dport 80 lookup 30065 protocol 117
        ip rule add priority 5000 from 198.18.0.1 iif lo uidrange 0-0 to 10.0.1.0/24 ipproto tcp dport 80 lookup 30065 protocol 117
        ip rule add priority 5000 from 198.18.0.1 ipproto icmp lookup 30065 protocol 117
        ip rule add priority 5064 iif lo uidrange 1000-1000 lookup main suppress_prefixlength 0 protocol 117
        ip rule add priority 5064 iif lo uidrange 1001-1001 lookup main suppress_prefixlength 0 protocol 117
        ip rule add priority 5064 from 198.18.0.1 iif lo uidrange 0-0 lookup main suppress_prefixlength 0 protocol 117
        ip rule add priority 5128 iif lo uidrange 1000-1000 lookup 30066 protocol 117
        ip rule add priority 5128 iif lo uidrange 1001-1001 lookup 30066 protocol 117
        ip rule add priority 5128 from 198.18.0.1 iif lo uidrange 0-0 lookup 30066 protocol 117
        ip -6 rule add priority 5000 iif lo uidrange 1000-1000 lookup 30064 protocol 117
        ip -6 rule add priority 5000 iif lo uidrange 1001-1001 lookup 30064 protocol 117
        ip -6 rule add priority 5000 from fd75:6e64:6572:7061::1 iif lo uidrange 0-0 lookup 30064 protocol 117
        ");
    }

    fn rules_of(forwarded: Forwarded, bridges: &[&str]) -> String {
        let bridges: Vec<String> = bridges.iter().map(|&name| name.to_owned()).collect();
        let capture = CapturePlan {
            subnets: vec![subnet("10.0.0.0/8")],
            whose: Whose {
                forwarded,
                ..Whose::default()
            },
            ..CapturePlan::default()
        };
        let setting = Setting {
            bridges: &bridges,
            ..setting(&[])
        };
        let entries = desired(&capture, &setting);
        let rules = entries
            .iter()
            .filter(|entry| matches!(entry, Entry::Rule(_)));
        let lines: Vec<_> = rules.map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn forwarded_is_what_comes_in_by_bridges_and_named_interfaces() {
        insta::assert_snapshot!(rules_of(Forwarded::Containers, &["docker0"]), @r"
        ip rule add priority 5000 iif lo lookup 30064 protocol 117
        ip rule add priority 5000 iif docker0 lookup 30064 protocol 117
        ");
        let by = Forwarded::By(vec!["eth1".into(), "docker0".into()]);
        insta::assert_snapshot!(rules_of(by, &["docker0"]), @r"
        ip rule add priority 5000 iif lo lookup 30064 protocol 117
        ip rule add priority 5000 iif docker0 lookup 30064 protocol 117
        ip rule add priority 5000 iif eth1 lookup 30064 protocol 117
        ");
        insta::assert_snapshot!(rules_of(Forwarded::All, &["docker0"]), @"ip rule add priority 5000 lookup 30064 protocol 117");
    }

    fn setting(exempt: &[IpAddr]) -> Setting<'_> {
        Setting {
            device: "underpass0",
            mtu: 1500,
            tables: Tables::of(0),
            source: Source {
                v4: Ipv4Addr::new(198, 18, 0, 1),
                v6: Some("fd75:6e64:6572:7061::1".parse().unwrap()),
            },
            exempt,
            bridges: &[],
        }
    }

    #[test]
    fn the_whole_of_it() {
        let capture = CapturePlan {
            subnets: vec![subnet("10.0.1.0/24"), subnet("fd00::/64")],
            ..CapturePlan::default()
        };
        let lines: Vec<_> = desired(&capture, &setting(&[]))
            .iter()
            .map(ToString::to_string)
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        ip link set dev underpass0 mtu 1500 txqueuelen 10000 multicast off
        sysctl -w net/ipv4/conf/underpass0/rp_filter=2
        sysctl -w net/ipv6/conf/underpass0/addr_gen_mode=1
        ip link set dev underpass0 up
        ip addr add 198.18.0.1/32 dev underpass0
        ip -6 addr add fd75:6e64:6572:7061::1/128 dev underpass0 nodad noprefixroute
        ip route add 10.0.1.0/24 dev underpass0 src 198.18.0.1 table 30064 proto 117 congctl reno
        ip -6 route add fd00::/64 dev underpass0 src fd75:6e64:6572:7061::1 table 30064 proto 117 congctl reno
        ip rule add priority 5000 iif lo lookup 30064 protocol 117
        ip -6 rule add priority 5000 iif lo lookup 30064 protocol 117
        ");
    }

    #[test]
    fn exclusions_and_the_server_are_thrown() {
        insta::assert_snapshot!(
            shown(&["10.0.0.0/8"], &["10.0.5.0/24", "192.168.0.0/16"], &["10.0.9.9", "fd00::9"]),
            @r"
        ip route add throw 10.0.9.9/32 table 30064 proto 117
        ip route add throw 10.0.5.0/24 table 30064 proto 117
        ip route add 10.0.0.0/8 dev underpass0 src 198.18.0.1 table 30064 proto 117 congctl reno
        ip rule add priority 5000 iif lo lookup 30064 protocol 117
        "
        );
    }

    #[test]
    fn a_wider_or_equal_exclusion_wins() {
        insta::assert_snapshot!(
            shown(&["10.0.1.0/24", "10.0.1.128/25", "10.1.0.0/16"], &["10.0.1.0/24"], &[]),
            @r"
        ip route add 10.1.0.0/16 dev underpass0 src 198.18.0.1 table 30064 proto 117 congctl reno
        ip rule add priority 5000 iif lo lookup 30064 protocol 117
        "
        );
    }

    #[test]
    fn defaults_leave_link_local_and_multicast() {
        insta::assert_snapshot!(shown(&["0.0.0.0/0", "::/0"], &[], &["203.0.113.7"]), @r"
        ip route add throw 203.0.113.7/32 table 30066 proto 117
        ip route add throw 169.254.0.0/16 table 30066 proto 117
        ip route add throw 224.0.0.0/4 table 30066 proto 117
        ip -6 route add throw fe80::/10 table 30066 proto 117
        ip -6 route add throw ff00::/8 table 30066 proto 117
        ip route add 0.0.0.0/0 dev underpass0 src 198.18.0.1 table 30066 proto 117 congctl reno
        ip -6 route add ::/0 dev underpass0 src fd75:6e64:6572:7061::1 table 30066 proto 117 congctl reno
        ip rule add priority 5064 iif lo lookup main suppress_prefixlength 0 protocol 117
        ip rule add priority 5128 iif lo lookup 30066 protocol 117
        ip -6 rule add priority 5064 iif lo lookup main suppress_prefixlength 0 protocol 117
        ip -6 rule add priority 5128 iif lo lookup 30066 protocol 117
        ");
    }

    #[test]
    fn link_local_that_is_asked_for_is_captured() {
        insta::assert_snapshot!(shown(&["0.0.0.0/0", "169.254.169.254/32"], &[], &[]), @r"
        ip route add 169.254.169.254/32 dev underpass0 src 198.18.0.1 table 30064 proto 117 congctl reno
        ip route add throw 169.254.0.0/16 table 30066 proto 117
        ip route add throw 224.0.0.0/4 table 30066 proto 117
        ip route add 0.0.0.0/0 dev underpass0 src 198.18.0.1 table 30066 proto 117 congctl reno
        ip rule add priority 5000 iif lo lookup 30064 protocol 117
        ip rule add priority 5064 iif lo lookup main suppress_prefixlength 0 protocol 117
        ip rule add priority 5128 iif lo lookup 30066 protocol 117
        ");
    }

    #[test]
    fn ports_of_a_default_ask_the_host_first_too() {
        insta::assert_snapshot!(shown(&["0.0.0.0/0@443-443", "10.0.0.0/8"], &[], &[]), @r"
        ip route add 10.0.0.0/8 dev underpass0 src 198.18.0.1 table 30064 proto 117 congctl reno
        ip route add throw 169.254.0.0/16 table 30066 proto 117
        ip route add throw 224.0.0.0/4 table 30066 proto 117
        ip route add 0.0.0.0/0 dev underpass0 src 198.18.0.1 table 30066 proto 117 congctl reno
        ip rule add priority 5000 iif lo lookup 30064 protocol 117
        ip rule add priority 5064 iif lo to 0.0.0.0/0 ipproto tcp dport 443 lookup main suppress_prefixlength 0 protocol 117
        ip rule add priority 5128 iif lo to 0.0.0.0/0 ipproto tcp dport 443 lookup 30066 protocol 117
        ip rule add priority 5128 from 198.18.0.1 ipproto icmp lookup 30066 protocol 117
        ");
    }

    #[test]
    fn ports_have_their_own_table() {
        insta::assert_snapshot!(
            shown(
                &["10.0.0.0/8@443-443", "10.0.1.0/24@80-90", "10.0.1.0/24@1-65535", "fd00::/8", "10.0.3.0/24@60000-65535"],
                &["10.0.5.0/24"], &["10.9.9.9"]
            ),
            @r"
        ip -6 route add fd00::/8 dev underpass0 src fd75:6e64:6572:7061::1 table 30064 proto 117 congctl reno
        ip route add throw 10.9.9.9/32 table 30065 proto 117
        ip route add throw 10.0.5.0/24 table 30065 proto 117
        ip route add 10.0.0.0/8 dev underpass0 src 198.18.0.1 table 30065 proto 117 congctl reno
        ip route add 10.0.1.0/24 dev underpass0 src 198.18.0.1 table 30065 proto 117 congctl reno
        ip route add 10.0.3.0/24 dev underpass0 src 198.18.0.1 table 30065 proto 117 congctl reno
        ip rule add priority 5000 iif lo to 10.0.0.0/8 ipproto tcp dport 443 lookup 30065 protocol 117
        ip rule add priority 5000 iif lo to 10.0.1.0/24 ipproto tcp dport 80-90 lookup 30065 protocol 117
        ip rule add priority 5000 iif lo to 10.0.1.0/24 ipproto tcp lookup 30065 protocol 117
        ip rule add priority 5000 iif lo to 10.0.3.0/24 ipproto tcp dport 60000-65534 lookup 30065 protocol 117
        ip rule add priority 5000 from 198.18.0.1 ipproto icmp lookup 30065 protocol 117
        ip -6 rule add priority 5000 iif lo lookup 30064 protocol 117
        "
        );
    }

    /// Follows the rules as the kernel does (fib_rules_lookup(), longest prefix in each table,
    /// fib4_rule_suppress()); `main` holds the host's own routes.
    fn captured(entries: &[Entry], main: &[IpNet], address: IpAddr, tcp_port: Option<u16>) -> bool {
        // Of a rule: `Some` ends the lookup and says whether it was ours, `None` goes on.
        let table_says = |table: u32, no_default: bool| {
            if table == MAIN {
                let longest = main
                    .iter()
                    .filter(|net| net.contains(&address))
                    .max_by_key(|net| net.prefix_len())?;
                return (!no_default || longest.prefix_len() > 0).then_some(false);
            }
            let routes = entries.iter().filter_map(|entry| match entry {
                Entry::Route(route) if route.table == table => Some(route),
                _ => None,
            });
            let hits = routes.filter(|route| route.net.contains(&address));
            let longest = hits.max_by_key(|route| route.net.prefix_len())?;
            longest.to.as_ref().map(|_| true)
        };
        let mut rules: Vec<_> = entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Rule(rule) if rule.ipv6 == address.is_ipv6() => Some(rule),
                _ => None,
            })
            .collect();
        rules.sort_by_key(|rule| rule.priority);
        let matching = rules.into_iter().filter(|rule| match &rule.packets {
            Packets::All => true,
            Packets::Tcp(net, ports) => {
                let port = tcp_port.filter(|port| ports.as_ref().is_none_or(|p| p.contains(port)));
                net.contains(&address) && port.is_some()
            }
            // An application's packet has another source when it is routed.
            Packets::IcmpFrom(_) => false,
        });
        let mut verdicts = matching.map(|rule| table_says(rule.table, rule.no_default));
        verdicts.find_map(|verdict| verdict).unwrap_or(false)
    }

    fn small_net() -> impl Strategy<Value = IpNet> {
        (0..64_u8, 26..=32_u8).prop_map(|(last, width)| {
            IpNet::from(ipnet::Ipv4Net::new(Ipv4Addr::new(10, 0, 0, last), width).unwrap()).trunc()
        })
    }

    fn net_or_default() -> impl Strategy<Value = IpNet> {
        prop_oneof![3 => small_net(), 1 => Just("0.0.0.0/0".parse().unwrap())]
    }

    proptest! {
        /// Captured is exactly: in a subnet (with a matching port), in no exclusion, not the server; and under a
        /// default nothing that the host has a route of its own for.
        #[test]
        fn what_is_captured_is_what_was_asked_for(
            subnets in prop::collection::vec((net_or_default(), prop::option::of((1..5_u16, 5..9_u16))), 1..5),
            excludes in prop::collection::vec(small_net(), 0..4),
            main in prop::collection::vec(net_or_default(), 0..3),
            server in 0..64_u8, address in 0..64_u8, port in prop::option::of(1..10_u16),
        ) {
            let subnets: Vec<_> = subnets.into_iter()
                .map(|(net, ports)| Subnet { net, ports: ports.map(|(a, b)| a..=b), far: None }).collect();
            let capture = CapturePlan { subnets, excludes, ..CapturePlan::default() };
            let server = IpAddr::from([10, 0, 0, server]);
            let address = IpAddr::from([10, 0, 0, address]);
            let exempt = [server];
            let entries = desired(&capture, &setting(&exempt));
            let local = main.iter().any(|net| net.prefix_len() > 0 && net.contains(&address));
            let asked = capture.subnets.iter().any(|subnet| subnet.net.contains(&address)
                && (subnet.net.prefix_len() > 0 || !local)
                && subnet.ports.as_ref().is_none_or(|ports| port.is_some_and(|p| ports.contains(&p))));
            let out = address == server || capture.excludes.iter().any(|net| net.contains(&address));
            prop_assert_eq!(captured(&entries, &main, address, port), asked && !out);
        }
    }
}
