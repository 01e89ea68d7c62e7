//! The name servers of a private network: resolv.conf(5) and nsswitch.conf(5) as they read in there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

/// The port of the DNS.
pub const DNS: u16 = 53;
/// More name servers than these are not asked (MAXNS of resolv.h).
const MAX_SERVERS: usize = 3;
/// The first line of ours.
const HEADER: &str = "# Made by underpass for a private network\n";
/// More domains are not looked in: the C library's six (MAXDNSRCH of resolv.h) were all that there were before glibc 2.26.
const MAX_DOMAINS: usize = 32;
/// Lines of a configuration beyond these are not read.
const MAX_LINES: usize = 1000;

/// An address in the private network that stands for one that only the host itself can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandIn {
    /// In the private network.
    pub inside: Ipv4Addr,
    /// For the host.
    pub outside: SocketAddr,
}

/// What resolv.conf says in the private network, and who stands for the servers on the host's loopback and links.
///
/// `text` is the host's. `stand_in` gives an address for the n-th server, or `None` where the host's own servers are not to
/// be asked; `is_reached` says whether another server may be. `scope` gives the number of an interface.
///
/// No datagram leaves a private network, so the servers are asked over TCP (`use-vc`, which glibc knows and musl does
/// not).
pub fn resolv_conf(
    text: &str,
    stand_in: impl Fn(u8) -> Option<Ipv4Addr>,
    is_reached: impl Fn(SocketAddr) -> bool,
    scope: impl Fn(&str) -> Option<u32>,
) -> (String, Vec<StandIn>) {
    let mut stand_ins = Vec::new();
    let mut inside = String::from(HEADER);
    let mut servers = 0;
    for line in text.lines().take(MAX_LINES) {
        let Some(server) = server(line) else {
            inside.push_str(line);
            inside.push('\n');
            continue;
        };
        let Some(outside) = address(server, &scope) else {
            continue;
        };
        if servers == MAX_SERVERS {
            continue;
        }
        if is_of_the_host(outside.ip()) {
            let Some(name) = stand_in(stand_ins.len() as u8) else {
                continue;
            };
            stand_ins.push(StandIn {
                inside: name,
                outside,
            });
            inside.push_str(&format!("nameserver {name}\n"));
        } else if is_reached(outside) {
            inside.push_str(&format!("nameserver {}\n", outside.ip()));
        } else {
            continue;
        }
        servers += 1;
    }
    inside.push_str("options use-vc\n");
    (inside, stand_ins)
}

/// What resolv.conf says in the private network where `name_server` answers for all names; `text` is the host's.
///
/// It takes datagrams, so nobody has to ask over TCP: programs with musl find names, too.
pub fn resolv_conf_for(text: &str, name_server: Ipv4Addr) -> String {
    let mut inside = format!("{HEADER}nameserver {name_server}\n");
    let others = text.lines().take(MAX_LINES);
    for line in others.filter(|line| server(line).is_none()) {
        inside.push_str(line);
        inside.push('\n');
    }
    inside
}

/// The name servers of a resolv.conf, in order.
pub fn servers(text: &str, scope: impl Fn(&str) -> Option<u32>) -> Vec<SocketAddr> {
    others(text, scope, |_| false)
}

/// The same without those that are ours, which take nobody's place.
pub fn others(
    text: &str,
    scope: impl Fn(&str) -> Option<u32>,
    is_ours: impl Fn(IpAddr) -> bool,
) -> Vec<SocketAddr> {
    let lines = text.lines().take(MAX_LINES);
    let servers = lines.filter_map(|line| address(server(line)?, &scope));
    let others = servers.filter(|server| !is_ours(server.ip()));
    others.take(MAX_SERVERS).collect()
}

/// What is asked for where programs look `names` up: each as it is, and in the domains that a resolv.conf has for names that are not
/// whole.
pub fn asked_for(names: &[&str], text: &str) -> Vec<String> {
    let domains = search(text);
    let below = |name: &&str| {
        let name = (*name).to_owned();
        let domains = domains.iter().filter(|_| !name.ends_with('.'));
        let whole: Vec<String> = domains.map(|domain| format!("{name}.{domain}")).collect();
        std::iter::once(name).chain(whole)
    };
    names.iter().flat_map(below).collect()
}

/// The domains of a `search` line, or the one of a `domain` line: the last of these lines counts.
fn search(text: &str) -> Vec<&str> {
    let words = text.lines().take(MAX_LINES).map(str::split_whitespace);
    let domains = words.filter_map(|mut words| match words.next()? {
        "search" => Some(words.take(MAX_DOMAINS)),
        "domain" => Some(words.take(1)),
        _ => None,
    });
    let domains = domains.last().into_iter().flatten();
    domains.filter(|domain| *domain != ".").collect()
}

/// The address of a `nameserver` line.
fn server(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    (words.next()? == "nameserver").then_some(())?;
    Some(words.next().unwrap_or_default())
}

/// `1.2.3.4`, `::1`, `fe80::1%eth0`.
fn address(text: &str, scope: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    if let Some((address, interface)) = text.split_once('%') {
        let index = scope(interface)?;
        return Some(SocketAddrV6::new(address.parse().ok()?, DNS, 0, index).into());
    }
    Some(SocketAddr::new(text.parse().ok()?, DNS))
}

/// Whether only the host itself can reach it.
fn is_of_the_host(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        // 0.0.0.0 is this host (resolv.conf(5) leaves it to connect(2)).
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local(),
    }
}

/// nsswitch.conf for a network without the host's: names are looked up in the private network alone, not by services of
/// the host that a Unix socket reaches (nss-resolve(8), nscd).
pub fn nsswitch_conf(text: &str) -> String {
    let line = |line: &str| {
        let hosts = line.trim_start().strip_prefix("hosts:").is_some();
        if hosts {
            "hosts: files dns".to_owned()
        } else {
            line.to_owned()
        }
    };
    text.lines()
        .take(MAX_LINES)
        .map(|text| line(text) + "\n")
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stand_in(number: u8) -> Option<Ipv4Addr> {
        Some(Ipv4Addr::new(198, 18, 0, 53 + number))
    }

    fn scope(name: &str) -> Option<u32> {
        (name == "eth0").then_some(7)
    }

    fn inside(text: &str, is_reached: impl Fn(SocketAddr) -> bool) -> (String, Vec<StandIn>) {
        let (text, stand_ins) = resolv_conf(text, stand_in, is_reached, scope);
        (
            text.lines().skip(1).collect::<Vec<_>>().join("\n"),
            stand_ins,
        )
    }

    #[test]
    fn servers_that_can_be_reached_stay_and_are_asked_over_tcp() {
        let host = "search corp.example\nnameserver 192.168.1.1\n nameserver 2001:db8::53 # second\noptions ndots:2\n";
        let (text, stand_ins) = inside(host, |_| true);
        assert_eq!(
            text,
            "search corp.example\nnameserver 192.168.1.1\nnameserver 2001:db8::53\noptions ndots:2\noptions use-vc"
        );
        assert_eq!(stand_ins, []);
        let (text, _) = inside(host, |server| server.ip().is_ipv6());
        assert!(!text.contains("192.168.1.1"), "{text}");
    }

    #[test]
    fn the_hosts_own_get_a_stand_in() {
        let (text, stand_ins) = inside(
            "nameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver fe80::1%eth9\nnameserver ::1\n",
            |_| true,
        );
        assert_eq!(
            text,
            "nameserver 198.18.0.53\nnameserver 198.18.0.54\nnameserver 198.18.0.55\noptions use-vc"
        );
        let outside: Vec<String> = stand_ins.iter().map(|s| s.outside.to_string()).collect();
        assert_eq!(outside, ["127.0.0.53:53", "[fe80::1%7]:53", "[::1]:53"]);
    }

    #[test]
    fn nobody_is_asked_whom_nobody_may_reach() {
        let host = "nameserver 127.0.0.53\nnameserver 1.1.1.1\n";
        let (text, stand_ins) = resolv_conf(host, |_| None, |_| false, scope);
        assert!(!text.contains("nameserver"), "{text}");
        assert_eq!(stand_ins, []);
    }

    #[test]
    fn one_server_for_all_names_stands_in_the_place_of_the_others() {
        let host = "search corp.example\nnameserver 127.0.0.53\nnameserver fe80::1%eth0 # second\noptions edns0\n";
        let text = resolv_conf_for(host, Ipv4Addr::new(198, 18, 0, 53));
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "nameserver 198.18.0.53",
                "search corp.example",
                "options edns0"
            ]
        );
        let before: Vec<String> = servers(host, scope)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(before, ["127.0.0.53:53", "[fe80::1%7]:53"]);
        assert_eq!(servers(&"nameserver 192.0.2.1\n".repeat(9), scope).len(), 3);
        assert_eq!(servers("nameserver x\n# nameserver 192.0.2.1", scope), []);
    }

    /// systemd-resolved lists those of every instance before the one of the network.
    #[test]
    fn our_own_leave_room_for_others() {
        let own: String = (53..60)
            .map(|n| format!("nameserver 198.19.255.{n}\n"))
            .collect();
        let text = own + "nameserver 192.0.2.1\n";
        let others = others(&text, scope, super::super::dns::is_name_server);
        assert_eq!(others, ["192.0.2.1:53".parse().unwrap()]);
    }

    #[test]
    fn a_short_name_is_looked_for_in_the_domains_of_the_last_line() {
        let both = ["gw", "gw.example.org."];
        assert_eq!(asked_for(&both, "nameserver 192.0.2.1\n"), both);
        let text = "domain old.example\nsearch corp.example.com  lan.\n# search x\n";
        let expected = ["gw", "gw.corp.example.com", "gw.lan.", "gw.example.org."];
        assert_eq!(asked_for(&both, text), expected);
        assert_eq!(asked_for(&["gw"], "search a\ndomain b c\n"), ["gw", "gw.b"]);
        assert_eq!(asked_for(&["gw"], "search a\nsearch .\n"), ["gw"]);
        let many = "search".to_owned() + &" a.b".repeat(1000);
        assert_eq!(asked_for(&["gw"], &many).len(), 1 + MAX_DOMAINS);
    }

    #[test]
    fn only_the_way_of_host_names_changes() {
        let text = "passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n# hosts: x\n";
        assert_eq!(
            nsswitch_conf(text),
            "passwd: files\nhosts: files dns\n# hosts: x\n"
        );
    }

    proptest! {
        #[test]
        fn any_text_gives_three_servers_at_most(text in "(nameserver [0-9a-f:.%]{0,12}\n|\\PC{0,20}\n){0,30}") {
            let (inside, stand_ins) = inside(&text, |_| true);
            let servers = inside.lines().filter_map(server).filter(|text| address(text, scope).is_some());
            prop_assert!(servers.count() <= 3);
            prop_assert!(stand_ins.len() <= 3);
            prop_assert!(super::servers(&text, scope).len() <= 3);
            prop_assert_eq!(resolv_conf_for(&text, Ipv4Addr::LOCALHOST).lines().filter_map(server).count(), 1);
            nsswitch_conf(&text);
            asked_for(&["a"], &text);
        }
    }
}
