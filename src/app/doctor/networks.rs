//! Where the subnets meet this host's networks, what killed runs left, and who else makes tunnels.

use std::net::IpAddr;

use super::check::Check;
use crate::os::stale::Cleared;
use crate::plan::CapturePlan;
use crate::plan::advice::{self, HostNetworks};

/// Names that VPNs and mesh networks give to their devices.
const TUNNELS: [&str; 12] = [
    "tun",
    "tap",
    "wg",
    "tailscale",
    "nebula",
    "zt",
    "ppp",
    "utun",
    "nordlynx",
    "proton",
    "CloudflareWARP",
    "gpd",
];

/// The subnets against the host's own networks; a line for each conflict.
pub(super) fn overlaps(
    capture: &CapturePlan,
    networks: &HostNetworks,
    from: Option<IpAddr>,
) -> Vec<Check> {
    match advice::advise(capture, networks, from) {
        Ok(advice) if advice.is_empty() => vec![Check::pass(
            "overlap",
            "no subnet meets a network of this host",
        )],
        Ok(advice) => advice
            .iter()
            .map(|line| conflict(&line.to_string()))
            .collect(),
        Err(error) => vec![Check::error("overlap", &error)],
    }
}

/// An advice says what is so, and behind a semicolon what to do.
fn conflict(line: &str) -> Check {
    match line.rsplit_once("; ") {
        Some((found, advice)) => Check::warn("overlap", found, advice),
        None => Check::warn("overlap", line, "see whether that is meant"),
    }
}

/// What runs that were killed left behind.
pub(super) fn leftovers(left: &Cleared) -> Check {
    if left.is_empty() {
        return Check::pass("leftovers", "nothing of a killed run");
    }
    Check::warn(
        "leftovers",
        format!("of a killed run: {left}; they capture nothing"),
        "sudo underpass cleanup, or the next start",
    )
}

/// Devices of other tunnels: their routes and ours may want the same packets.
pub(super) fn tunnels(networks: &HostNetworks) -> Check {
    let is_tunnel = |name: &&str| {
        TUNNELS.iter().any(|prefix| {
            let rest = name.strip_prefix(prefix);
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_lowercase()))
        })
    };
    let names = networks.interfaces.iter().map(|one| one.name.as_str());
    let found: Vec<&str> = names.filter(is_tunnel).collect();
    if found.is_empty() {
        return Check::pass("other-vpn", "no device of another tunnel");
    }
    Check::warn(
        "other-vpn",
        format!("other tunnels: {}", found.join(", ")),
        "where both want a network, underpass's rules come first; leave theirs out with -x",
    )
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict::{Pass, Warn};
    use super::*;
    use crate::plan::Subnet;
    use crate::plan::advice::Interface;

    fn host(name: &str, address: &str) -> HostNetworks {
        HostNetworks {
            interfaces: vec![Interface {
                name: name.to_owned(),
                bridge: false,
                addresses: vec![address.parse().unwrap()],
            }],
            ipv6: true,
            ..HostNetworks::default()
        }
    }

    #[test]
    fn a_conflict_says_what_to_do() {
        let capture = CapturePlan {
            subnets: vec![Subnet {
                net: "10.0.0.0/8".parse().unwrap(),
                ports: None,
                far: None,
            }],
            ..CapturePlan::default()
        };
        let checks = overlaps(&capture, &host("eth0", "10.1.2.3/24"), None);
        assert_eq!(checks[0].verdict, Warn);
        assert_eq!(
            checks[0].advice.as_deref(),
            Some(
                "use -x 10.1.2.0/24 to keep it local, and with that 10.1.2.0/24=100.65.2.0/24 to reach both"
            )
        );
        let checks = overlaps(&capture, &host("eth0", "192.0.2.1/24"), None);
        assert_eq!(checks[0].verdict, Pass);
    }

    #[test]
    fn tunnels_are_known_by_their_names() {
        for (name, expected) in [
            ("eth0", Pass),
            ("wlan0", Pass),
            ("tunnelbroker", Pass),
            ("tun0", Warn),
            ("wg-office", Warn),
            ("tailscale0", Warn),
            ("ztabc123", Pass),
            ("zt7nnig26", Warn),
        ] {
            assert_eq!(
                tunnels(&host(name, "192.0.2.1/24")).verdict,
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn what_was_left_is_told() {
        assert_eq!(leftovers(&Cleared::default()).verdict, Pass);
        let left = Cleared {
            rules: 2,
            ..Cleared::default()
        };
        assert!(leftovers(&left).found.contains("2 rules"));
    }
}
