//! Which names are asked for through the server, and of whom.

use std::net::{IpAddr, SocketAddr};

use super::names::DNS;
use super::{PlanError, capture};
use crate::cli::UpArgs;

/// What `--dns` alone stands for.
const ALL: &str = "all";
/// So many name servers are asked at most (`Resolver::new`).
const MOST_SERVERS: usize = 8;

/// Names that are asked for through the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsPlan {
    /// The domains, as typed; all names where there are none.
    pub domains: Vec<String>,
    /// Who is asked, as the SSH server reaches them; where there is none, the server's own.
    pub servers: Vec<SocketAddr>,
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
    if args.dns.is_empty() {
        return match args.dns_servers.first() {
            Some(_) => Err(PlanError::ServerWithoutNames),
            None => Ok(None),
        };
    }
    let words = args.dns.iter().flat_map(|words| words.split(','));
    let words: Vec<&str> = words
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect();
    let servers = args.dns_servers.iter().map(|text| server(text));
    let servers: Vec<SocketAddr> = servers.collect::<Result<_, _>>()?;
    if servers.len() > MOST_SERVERS {
        return Err(PlanError::TooManyServers { most: MOST_SERVERS });
    }
    // Who wants all names wants those of the domains, too.
    let domains = match words.contains(&ALL) {
        true => Vec::new(),
        false => words.into_iter().map(str::to_owned).collect(),
    };
    Ok(Some(DnsPlan { domains, servers }))
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
    fn names_are_a_list_and_all_is_more_than_some() {
        assert_eq!(plan(&args(&[], &[])), Ok(None));
        assert!(domains(&["all"]).is_empty());
        assert_eq!(
            domains(&["corp.internal, b.test"]),
            ["corp.internal", "b.test"]
        );
        assert_eq!(domains(&["a.test", "*.b.test"]), ["a.test", "*.b.test"]);
        assert!(domains(&["a.test", "all"]).is_empty());
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
