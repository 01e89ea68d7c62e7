//! Which names are asked for through the server, and of whom.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::mapping::meet;
use super::names::DNS;
use super::subnet::{is_loopback, is_multicast};
use super::{CapturePlan, HostTarget, Plan, PlanError, capture, domains, host_target};
use crate::cli::UpArgs;

/// What `--dns` alone stands for.
const ALL: &str = "all";
/// What `--dns-names` without networks stands for: beside those of `run` and `up` (RFC 2544), and in the unique local prefix of the
/// addresses that devices have.
const DEFAULT: &str = "default";
const POOL_V4: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 19, 0, 0), 20);
const POOL_V6: (Ipv6Addr, u8) = (
    Ipv6Addr::new(0xfd75, 0x6e64, 0x6572, 0x706f, 0, 0, 0, 0),
    116,
);
/// So many networks like that lie in a row, in 198.19.0.0/17.
const POOLS: u32 = 8;
/// Where the name servers of `up` are (`os::routes::name_server`).
const SERVERS: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 19, 255, 0), 24);
/// Bits of a network that are its hosts', at least.
const LEAST_BITS: u8 = 3;
/// So many name servers are asked at most (`Resolver::new`).
const MOST_SERVERS: usize = 8;

/// Names that are asked for through the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsPlan {
    /// Whether every name is.
    pub is_all: bool,
    /// Otherwise those at and below these domains, in ASCII where they are any.
    pub domains: Vec<String>,
    /// Who is asked, as the SSH server reaches them; where there is none, the server's own.
    pub servers: Vec<SocketAddr>,
    /// Addresses of these networks stand for names, and the server looks the names up that are connected to: for all of these names, or
    /// for `hosts`.
    pub by_name: Option<NamePool>,
    /// Whether they stand for all of them.
    pub is_all_by_name: bool,
    /// Hosts that are captured by their names.
    pub hosts: Vec<HostTarget>,
    /// Whether no name server of the far side is needed.
    pub is_nobody_asked: bool,
}

impl DnsPlan {
    /// Whether the far side is asked for `name`.
    pub fn has(&self, name: &str) -> bool {
        let bare = |text: &str| text.trim_end_matches('.').to_ascii_lowercase();
        let name = bare(name);
        let is_within = |domain: &String| {
            let domain = bare(domain.trim_start_matches("*."));
            let front = name.strip_suffix(&domain);
            front.is_some_and(|front| front.is_empty() || front.ends_with('.'))
        };
        self.is_all
            || self.domains.iter().any(is_within)
            || self.hosts.iter().any(|host| host.has(&name))
    }

    /// Whose addresses have their names on the far side, while `capture` is captured: where only hosts are, those that stand for them.
    pub fn networks(&self, capture: &CapturePlan) -> Vec<IpNet> {
        match self.by_name {
            Some(pool) if self.is_nobody_asked && !self.is_all_by_name => pool.nets().collect(),
            _ => capture.subnets.iter().map(|subnet| subnet.net).collect(),
        }
    }
}

/// Networks whose addresses stand for names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamePool {
    /// For IPv4.
    pub v4: Ipv4Net,
    /// For IPv6, where that is captured.
    pub v6: Option<Ipv6Net>,
}

impl NamePool {
    /// What is taken where none is named, by the instance in a slot: instances side by side have their own, until there are too many.
    fn of_slot(slot: u32) -> Self {
        let place = slot % POOLS;
        let v4 = u32::from(POOL_V4.0) + (place << (32 - u32::from(POOL_V4.1)));
        let v6 = u128::from(POOL_V6.0) + (u128::from(place) << (128 - u32::from(POOL_V6.1)));
        Self {
            // Both always are.
            v4: Ipv4Net::new(v4.into(), POOL_V4.1).unwrap_or_default(),
            v6: Ipv6Net::new(v6.into(), POOL_V6.1).ok(),
        }
    }

    /// Both of them.
    pub fn nets(&self) -> impl Iterator<Item = IpNet> + use<> {
        let v4 = std::iter::once(IpNet::V4(self.v4));
        v4.chain(self.v6.map(IpNet::V6))
    }
}

/// The networks of `--dns-names`, where that is given, or hosts are named.
pub(super) fn pool(args: &UpArgs) -> Result<Option<NamePool>, PlanError> {
    let has_hosts = !host_target::among(args)?.is_empty();
    let typed = args.dns_names.as_deref().or(has_hosts.then_some(DEFAULT));
    let pool = typed.map(read_pool).transpose()?;
    Ok(pool.map(|pool| NamePool {
        v6: pool.v6.filter(|_| !args.disable_ipv6),
        ..pool
    }))
}

impl Plan {
    /// Whether the name server that `up` has is captured; that of `run` is elsewhere, and always.
    ///
    /// # Errors
    /// [`PlanError::ExcludesOwn`].
    pub fn check_name_server(&self) -> Result<(), PlanError> {
        match self.dns {
            Some(_) => not_excluded(&self.capture.excludes, "its name server", &servers()),
            None => Ok(()),
        }
    }

    /// As it is in a slot, where addresses that stand for names are those of the slot unless networks were named for them.
    pub fn in_slot(self, slot: u32) -> Self {
        let mut dns = self.dns;
        if let Some(pool) = dns.as_mut().and_then(|dns| dns.by_name.as_mut()) {
            for net in pool.nets() {
                match in_slot(net, slot) {
                    IpNet::V4(net) => pool.v4 = net,
                    IpNet::V6(net) => pool.v6 = Some(net),
                }
            }
        }
        Self {
            dns,
            capture: self.capture.in_slot(slot),
            ..self
        }
    }
}

impl CapturePlan {
    /// [`Plan::in_slot`].
    pub fn in_slot(mut self, slot: u32) -> Self {
        for subnet in &mut self.subnets {
            subnet.net = in_slot(subnet.net, slot);
        }
        self
    }
}

fn in_slot(net: IpNet, slot: u32) -> IpNet {
    let usual = NamePool::of_slot(0).nets();
    let there = NamePool::of_slot(slot).nets();
    let mut pairs = usual.zip(there);
    pairs
        .find(|(usual, _)| *usual == net)
        .map_or(net, |(_, there)| there)
}

/// Whether what stands for names is captured, and in nobody's way.
///
/// # Errors
/// [`PlanError::ExcludesOwn`], [`PlanError::BadNamePool`].
pub(super) fn check_place(
    args: &UpArgs,
    targets: &[IpNet],
    excludes: &[IpNet],
) -> Result<(), PlanError> {
    let pool = pool(args)?;
    let typed = args.dns_names.as_deref().filter(|text| *text != DEFAULT);
    let stand = pool.into_iter().flat_map(|pool| pool.nets());
    // Which of the usual ones it will be is not known yet.
    let stand: Vec<IpNet> = match typed {
        Some(_) => stand.collect(),
        None => stand.map(|net| around_usual(&net)).collect(),
    };
    for own in &stand {
        not_excluded(excludes, "addresses that stand for names", own)?;
    }
    let Some(text) = typed else {
        return Ok(());
    };
    let wrong = |reason| {
        Err(PlanError::BadNamePool {
            text: text.to_owned(),
            reason,
        })
    };
    if stand.iter().any(|net| meet(net, &servers())) {
        return wrong("the name server of underpass has an address of it");
    }
    let is_meant = |net: &IpNet| targets.iter().any(|target| net.contains(target));
    match stand.iter().any(is_meant) {
        true => wrong("a target has these addresses"),
        false => Ok(()),
    }
}

/// Whether `up` has a name server there, this one or another.
pub fn is_name_server(ip: IpAddr) -> bool {
    servers().contains(&ip)
}

fn servers() -> IpNet {
    IpNet::V4(Ipv4Net::new(SERVERS.0, SERVERS.1).unwrap_or_default())
}

fn not_excluded(excludes: &[IpNet], what: &'static str, own: &IpNet) -> Result<(), PlanError> {
    match excludes.iter().find(|exclude| meet(exclude, own)) {
        Some(exclude) => Err(PlanError::ExcludesOwn {
            exclude: *exclude,
            what,
            own: *own,
        }),
        None => Ok(()),
    }
}

/// The network of all usual ones of this family.
fn around_usual(net: &IpNet) -> IpNet {
    let width = match net {
        IpNet::V4(_) => POOL_V4.1 - 3,
        IpNet::V6(_) => POOL_V6.1 - 3,
    };
    let wider = IpNet::new(net.addr(), width);
    wider.map_or(*net, |wider| wider.trunc())
}

/// Whether a text is such networks.
pub(super) fn check_pool(text: &str) -> Result<(), PlanError> {
    read_pool(text).map(drop)
}

fn read_pool(text: &str) -> Result<NamePool, PlanError> {
    let mut pool = NamePool::of_slot(0);
    if text == DEFAULT {
        return Ok(pool);
    }
    let wrong = |reason| PlanError::BadNamePool {
        text: text.to_owned(),
        reason,
    };
    for word in text.split(',') {
        let net: IpNet = word.trim().parse().map_err(|_| wrong("it is no network"))?;
        if net.max_prefix_len() - net.prefix_len() < LEAST_BITS || net.prefix_len() == 0 {
            return Err(wrong("it is of the wrong size"));
        }
        if is_loopback(&net) || is_multicast(&net) {
            return Err(wrong("nobody connects to that"));
        }
        match net.trunc() {
            IpNet::V4(net) => pool.v4 = net,
            IpNet::V6(net) => pool.v6 = Some(net),
        }
    }
    Ok(pool)
}

/// Takes networks that stand behind `--dns` for what they are: `--dns 10.0.0.0/16` is a habit of sshuttle's users.
pub fn give_back_networks(args: &mut UpArgs) {
    let is_network = |word: &String| {
        !matches!(
            capture::check_subnet(word),
            Err(PlanError::BadSubnet { .. })
        )
    };
    let (networks, names): (Vec<_>, Vec<_>) = args.dns.drain(..).partition(is_network);
    args.dns = names;
    if !networks.is_empty() {
        args.dns.push(ALL.to_owned());
        args.subnets.extend(networks);
    }
}

/// What `--dns` and `--dns-server` say.
pub(super) fn plan(args: &UpArgs) -> Result<Option<DnsPlan>, PlanError> {
    let by_name = pool(args)?;
    let hosts = host_target::among(args)?;
    // Beside hosts alone it only says which networks.
    let is_for_hosts = args.dns.is_empty() && !hosts.is_empty();
    let is_all_by_name = args.dns_names.is_some() && !is_for_hosts;
    if !args.dns_servers.is_empty() && is_all_by_name {
        return Err(PlanError::ServerBesideNames);
    }
    if !args.dns_servers.is_empty() && args.dns.is_empty() {
        return Err(PlanError::ServerWithoutNames);
    }
    if args.dns.is_empty() && by_name.is_none() {
        return Ok(None);
    }
    args.dns.iter().try_for_each(|text| domains::check(text))?;
    let words: Vec<&str> = args
        .dns
        .iter()
        .flat_map(|text| domains::words(text))
        .collect();
    let servers = args.dns_servers.iter().map(|text| server(text));
    let servers: Vec<SocketAddr> = servers.collect::<Result<_, _>>()?;
    if servers.len() > MOST_SERVERS {
        return Err(PlanError::TooManyServers { most: MOST_SERVERS });
    }
    // Who wants all names wants those of the domains, too.
    let is_all = words.contains(&ALL) || (words.is_empty() && !is_for_hosts);
    let domains = match is_all {
        true => Vec::new(),
        false => words.into_iter().map(host_target::ascii).collect(),
    };
    Ok(Some(DnsPlan {
        is_all,
        domains,
        servers,
        by_name,
        is_all_by_name,
        hosts,
        is_nobody_asked: is_all_by_name || args.dns.is_empty(),
    }))
}

/// Whether a text is a name server.
pub(super) fn check_server(text: &str) -> Result<(), PlanError> {
    server(text).map(drop)
}

/// `IP` or `IP:PORT`, `[IPV6]:PORT`.
fn server(text: &str) -> Result<SocketAddr, PlanError> {
    let bare = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS));
    let address = bare.or_else(|_| text.parse());
    address
        .ok()
        .filter(|address| address.port() > 0 && !address.ip().is_unspecified())
        .ok_or_else(|| PlanError::BadServer {
            text: text.to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn args(dns: &[&str], servers: &[&str]) -> UpArgs {
        UpArgs {
            dns: dns.iter().map(|&text| text.into()).collect(),
            dns_servers: servers.iter().map(|&text| text.into()).collect(),
            ..UpArgs::default()
        }
    }

    fn domains(dns: &[&str]) -> Vec<String> {
        plan(&args(dns, &[])).unwrap().unwrap().domains
    }

    #[test]
    fn hosts_among_the_networks_have_addresses_that_stand_for_them() {
        let typed = |dns: &[&str], names: bool| {
            let mut args = args(dns, &[]);
            args.subnets = ["10.0.0.0/16", "db.example.com:5432"]
                .map(str::to_owned)
                .into();
            args.dns_names = names.then(|| DEFAULT.to_owned());
            plan(&args).unwrap().unwrap()
        };
        let alone = typed(&[], false);
        assert!(alone.domains.is_empty() && !alone.is_all);
        let capture = CapturePlan {
            subnets: vec![super::super::Subnet::host("10.0.0.7".parse().unwrap())],
            ..CapturePlan::default()
        };
        let nets = |dns: &DnsPlan| dns.networks(&capture);
        assert_eq!(
            nets(&alone),
            NamePool::of_slot(0).nets().collect::<Vec<_>>()
        );
        assert!(alone.by_name.is_some() && !alone.is_all_by_name && alone.is_nobody_asked);
        let beside = typed(&["corp.internal"], false);
        assert_eq!(beside.domains, ["corp.internal"]);
        assert_eq!(nets(&beside), ["10.0.0.7/32".parse().unwrap()]);
        assert!(!beside.is_all_by_name && !beside.is_nobody_asked);
        assert_eq!(beside.hosts[0].to_string(), "db.example.com:5432");
        let all = typed(&["all"], false);
        assert!(all.is_all && !all.is_all_by_name && !all.is_nobody_asked);
        let by_name = typed(&["all"], true);
        assert!(by_name.is_all && by_name.is_all_by_name && by_name.is_nobody_asked);
        let networks = typed(&[], true);
        assert_eq!(networks, alone);
    }

    #[test]
    fn what_underpass_has_itself_is_neither_excluded_nor_a_target() {
        let checked = |dns: &[&str], names: Option<&str>, targets: &[&str], excludes: &[&str]| {
            let mut args = args(dns, &[]);
            args.dns_names = names.map(str::to_owned);
            let nets = |texts: &[&str]| -> Vec<IpNet> {
                texts.iter().map(|text| text.parse().unwrap()).collect()
            };
            check_place(&args, &nets(targets), &nets(excludes)).map_err(|error| error.to_string())
        };
        let all = ["10.0.1.0/24"];
        // The name server of `run` is elsewhere ([`Plan::check_name_server`]).
        assert_eq!(checked(&["all"], None, &all, &["198.18.0.0/15"]), Ok(()));
        assert_eq!(checked(&[], None, &all, &["198.18.0.0/15"]), Ok(()));
        assert_eq!(checked(&["all"], None, &all, &["10.0.1.7/32"]), Ok(()));
        let usual = Some(DEFAULT);
        for (names, exclude, words) in [
            (
                usual,
                "198.19.16.0/20",
                "addresses that stand for names in 198.19.0.0/17",
            ),
            (usual, "fd75::/16", "fd75:6e64:6572:706f::/113"),
            (Some("10.9.0.0/24"), "10.9.0.7/32", "10.9.0.0/24"),
        ] {
            let error = checked(&["all"], names, &all, &[exclude]).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        for (pool, words) in [
            ("10.0.1.0/24", "a target has"),
            ("10.0.0.0/16", "a target has"),
            ("198.19.255.0/26", "name server of underpass"),
        ] {
            let error = checked(&["all"], Some(pool), &all, &[]).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        // A part of a wide network that nobody uses there.
        assert_eq!(
            checked(&["all"], Some("10.9.0.0/24"), &["10.0.0.0/8"], &[]),
            Ok(())
        );
    }

    #[test]
    fn instances_side_by_side_have_their_own_addresses() {
        let nets = |slot| NamePool::of_slot(slot).nets().map(|net| net.to_string());
        let joined = |slot| nets(slot).collect::<Vec<_>>().join(" ");
        assert_eq!(joined(0), "198.19.0.0/20 fd75:6e64:6572:706f::/116");
        assert_eq!(joined(7), "198.19.112.0/20 fd75:6e64:6572:706f::7000/116");
        assert_eq!(joined(8), joined(0));
        let moved = |net: &str| in_slot(net.parse().unwrap(), 1).to_string();
        assert_eq!(moved("198.19.0.0/20"), "198.19.16.0/20");
        assert_eq!(
            moved("fd75:6e64:6572:706f::/116"),
            "fd75:6e64:6572:706f::1000/116"
        );
        assert_eq!(moved("198.19.0.0/24"), "198.19.0.0/24");
    }

    #[test]
    fn whose_names_are_the_far_sides() {
        let mut args = args(&["Corp.internal"], &[]);
        args.subnets = vec!["db.example.com:5432".to_owned()];
        let dns = plan(&args).unwrap().unwrap();
        for far in ["corp.internal", "API.corp.Internal.", "db.example.com"] {
            assert!(dns.has(far), "{far}");
        }
        for near in [
            "acorp.internal",
            "internal",
            "x.db.example.com",
            "example.com",
        ] {
            assert!(!dns.has(near), "{near}");
        }
        args.dns = vec![ALL.to_owned()];
        assert!(plan(&args).unwrap().unwrap().has("example.com"));
    }

    #[test]
    fn names_are_a_list_and_all_is_more_than_some() {
        assert_eq!(plan(&args(&[], &[])), Ok(None));
        assert!(domains(&["all"]).is_empty());
        assert_eq!(
            domains(&["corp.internal, b.test"]),
            ["corp.internal", "b.test"]
        );
        assert_eq!(domains(&["a.test", "*.b.test"]), ["a.test", "*.b.test"]);
        assert!(domains(&["a.test", "all"]).is_empty());
        assert_eq!(
            domains(&["büro.test,*.Büro.Example"]),
            ["xn--bro-hoa.test", "*.xn--bro-hoa.example"]
        );
        assert!(plan(&args(&["a.test,a..b"], &[])).is_err());
    }

    #[test]
    fn servers_are_addresses_with_a_port_or_without() {
        let servers =
            |texts: &[&str]| plan(&args(&["all"], texts)).map(|plan| plan.unwrap().servers);
        let taken = servers(&["10.0.0.2", "10.0.0.3:5353", "fd00::2", "[fd00::2]:54"]).unwrap();
        let shown: Vec<String> = taken.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "10.0.0.2:53",
                "10.0.0.3:5353",
                "[fd00::2]:53",
                "[fd00::2]:54"
            ]
        );
        for text in [
            "",
            "dns.example.com",
            "10.0.0.2:0",
            "0.0.0.0",
            "10.0.0",
            "10.0.0.2:x",
        ] {
            assert!(
                matches!(servers(&[text]), Err(PlanError::BadServer { .. })),
                "{text}"
            );
        }
        let many = ["10.0.0.2"; 9];
        assert_eq!(servers(&many), Err(PlanError::TooManyServers { most: 8 }));
        assert_eq!(
            plan(&args(&[], &["10.0.0.2"])),
            Err(PlanError::ServerWithoutNames)
        );
    }

    #[test]
    fn addresses_that_stand_for_names_are_of_networks_of_their_own() {
        let by_name = |text: &str, dns: &[&str]| {
            let args = UpArgs {
                dns_names: Some(text.to_owned()),
                ..args(dns, &[])
            };
            plan(&args).map(Option::unwrap)
        };
        let nets = |text: &str| {
            let pool = by_name(text, &[])?.by_name.unwrap();
            let nets: Vec<String> = pool.nets().map(|net| net.to_string()).collect();
            Ok(nets.join(" "))
        };
        let default = "198.19.0.0/20 fd75:6e64:6572:706f::/116";
        let moved = default.replace("198.19.0.0/20", "10.9.0.0/24");
        assert_eq!(nets(DEFAULT), Ok(default.to_owned()));
        assert_eq!(nets("10.9.0.1/24"), Ok(moved));
        let both = Ok("10.9.0.0/29 fd99::/64".to_owned());
        assert_eq!(nets("fd99::/64, 10.9.0.0/29"), both);
        for text in [
            "",
            "x",
            "10.9.0.1",
            "10.9.0.0/30",
            "0.0.0.0/0",
            "127.0.0.0/8",
            "ff00::/64",
            "10.9.0.0/24,",
        ] {
            let wrong = matches!(nets(text), Err(PlanError::BadNamePool { .. }));
            assert!(wrong, "{text}");
        }
        assert!(by_name(DEFAULT, &[]).unwrap().domains.is_empty());
        let some = by_name(DEFAULT, &["corp.internal"]).unwrap();
        assert_eq!(some.domains, ["corp.internal"]);
        let mut args = args(&["all"], &["10.0.0.2"]);
        args.dns_names = Some(DEFAULT.to_owned());
        assert_eq!(plan(&args), Err(PlanError::ServerBesideNames));
        args.disable_ipv6 = true;
        assert_eq!(pool(&args).unwrap().unwrap().v6, None);
    }

    #[test]
    fn networks_behind_dns_are_networks() {
        let given = |dns: &[&str]| {
            let mut args = args(dns, &[]);
            give_back_networks(&mut args);
            (args.dns.join(" "), args.subnets.join(" "))
        };
        let pair = |dns: &str, subnets: &str| (dns.to_owned(), subnets.to_owned());
        assert_eq!(given(&["10.0.0.0/16"]), pair("all", "10.0.0.0/16"));
        assert_eq!(given(&["10.0.1.5"]), pair("all", "10.0.1.5"));
        assert_eq!(given(&["0/0"]), pair("all", "0/0"));
        assert_eq!(
            given(&["10.0.0.0/16=100.64.0.0/16"]),
            pair("all", "10.0.0.0/16=100.64.0.0/16")
        );
        assert_eq!(given(&["corp.internal"]), pair("corp.internal", ""));
        assert_eq!(given(&["corp", "fd00::/64"]), pair("corp all", "fd00::/64"));
        assert_eq!(given(&["all"]), pair("all", ""));
        assert_eq!(given(&[]), pair("", ""));
    }

    proptest! {
        #[test]
        fn no_words_panic(dns in "\\PC{0,20}", server in "\\PC{0,20}|[0-9.:\\[\\]a-f]{0,12}") {
            let mut args = args(&[&dns], &[&server]);
            let _ = plan(&args);
            give_back_networks(&mut args);
            let _ = plan(&args);
        }
    }
}
