//! What holds for which plan, as the commands that would do the same.

use proptest::prelude::*;

use super::*;
use crate::plan::{Forwarded, Whose};

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
            neighbour: [None; 2],
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
    sysctl -w net/ipv4/conf/underpass0/accept_redirects=0
    sysctl -w net/ipv6/conf/underpass0/addr_gen_mode=1
    sysctl -w net/ipv6/conf/underpass0/accept_ra=0
    sysctl -w net/ipv6/conf/underpass0/accept_redirects=0
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
