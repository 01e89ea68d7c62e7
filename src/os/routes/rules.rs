//! The rules: whose packets, from where, to which ports, and in which table they are looked up.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::{MAIN, Packets, Rule, Sender, Setting, is_default, is_v6};
use crate::plan::{Forwarded, Subnet, Whose};

/// The last port that a rule can name: fib_rule_port_range_valid() in include/net/fib_rules.h.
const LAST_RULE_PORT: u16 = 65_534;
/// Where packets come in that this host itself sends, in the eyes of a rule (ip-rule(8), `iif`).
const HERE: &str = "lo";
/// Whose the packets are that the kernel sends without a socket of anybody: sock_net_uid() in include/net/sock.h.
const KERNEL: u32 = 0;

/// The rules that lead to the tables of the subnets.
pub(super) fn rules(live: &[&Subnet], whose: &Whose, setting: &Setting<'_>) -> Vec<Rule> {
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
