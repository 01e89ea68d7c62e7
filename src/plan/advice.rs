//! What a person should know before traffic is taken: where the subnets meet the host's own networks.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use super::{CapturePlan, PlanError, Subnet};

/// What the host looks like, as plain values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNetworks {
    /// Interfaces but loopback and our own.
    pub interfaces: Vec<Interface>,
    /// Next hops of default routes.
    pub gateways: Vec<Gateway>,
    /// Destinations of the main table but default routes: what `0.0.0.0/0` and `::/0` leave alone.
    pub routes: Vec<IpNet>,
    /// What other running instances capture.
    pub others: Vec<Other>,
    /// Whether a new device gets IPv6.
    pub ipv6: bool,
}

/// A subnet that another running instance captures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Its device.
    pub device: String,
    /// The subnet.
    pub subnet: Subnet,
    /// Whether its rules are asked before ours.
    pub first: bool,
}

/// An interface and its networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Whether it is a bridge, as those of Docker and libvirt are.
    pub bridge: bool,
    /// Its addresses with the width of their networks; host bits are set.
    pub addresses: Vec<IpNet>,
}

/// The next hop of a default route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its address.
    pub address: IpAddr,
    /// The interface that leads there.
    pub interface: String,
}

/// One warning, one line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Advice {
    /// A subnet takes a local network, or a part of it.
    #[error(
        "{subnet} covers {net} of {interface}, {}: its hosts will be looked for behind the SSH server; use -x {net} to keep it local",
        if *bridge { "a bridge of this host (containers, virtual machines)" } else { "this host's own network" }
    )]
    LocalNetwork {
        /// The subnet as captured.
        subnet: IpNet,
        /// What of the local network is taken.
        net: IpNet,
        /// The interface of the local network.
        interface: String,
        /// Whether that is a bridge.
        bridge: bool,
    },
    /// A subnet takes the default gateway.
    #[error(
        "{subnet} covers {address}, the default gateway on {interface}: programs that talk to it (DNS, its web page) will not reach it; use -x {address}"
    )]
    Gateway {
        /// The subnet as captured.
        subnet: IpNet,
        /// The gateway.
        address: IpAddr,
        /// The interface that leads there.
        interface: String,
    },
    /// A subnet takes the address that the person is logged in from.
    #[error(
        "{subnet} covers {address}, where you are logged in from: this session would be cut off; use -x {address}"
    )]
    LoggedInFrom {
        /// The subnet as captured.
        subnet: IpNet,
        /// Where the person is.
        address: IpAddr,
    },
    /// Another instance captures the same, or a part of it.
    #[error(
        "{subnet}: another running underpass captures {theirs} on {device}, and {} comes first; stop one of the two",
        if *first { "that one" } else { "this one" }
    )]
    Twice {
        /// The subnet as captured.
        subnet: Subnet,
        /// What the other one captures.
        theirs: Subnet,
        /// Its device.
        device: String,
        /// Whether it is asked first.
        first: bool,
    },
    /// IPv6 is switched off.
    #[error(
        "IPv6 is switched off on this host: its IPv6 subnets are not captured; sysctl -w net.ipv6.conf.default.disable_ipv6=0 switches it on"
    )]
    NoIpv6,
    /// A subnet lies in an exclusion.
    #[error("{subnet} is not captured: -x {exclude} covers all of it")]
    Excluded {
        /// The subnet as asked for.
        subnet: Subnet,
        /// What excludes it.
        exclude: IpNet,
    },
}

impl CapturePlan {
    /// Whether an exclusion covers all of `net`.
    pub fn excluded(&self, net: &IpNet) -> bool {
        self.excludes.iter().any(|exclude| exclude.contains(net))
    }

    /// The subnet that takes traffic to `net`, if any does and no exclusion covers it. One of prefix length 0
    /// leaves alone what the host has a route of its own for (see `os::routes`).
    fn takes(&self, net: &IpNet, host: &HostNetworks) -> Option<&Subnet> {
        let routed = || host.routes.iter().any(|route| route.contains(net));
        let live = self
            .subnets
            .iter()
            .filter(|subnet| !self.excluded(&subnet.net));
        live.filter(|_| !self.excluded(net))
            .find(|subnet| subnet.net.contains(net) && (subnet.net.prefix_len() > 0 || !routed()))
    }
}

/// The warnings for a plan on a host; the order is that of the host's interfaces.
///
/// # Errors
/// [`PlanError::NoIpv6`] when IPv6 is all that was asked for, and the host has none.
pub fn advise(
    capture: &CapturePlan,
    host: &HostNetworks,
    logged_in_from: Option<IpAddr>,
) -> Result<Vec<Advice>, PlanError> {
    let mut advice = excluded(capture);
    advice.extend(ipv6(capture, host)?);
    advice.extend(twice(capture, host));
    for interface in &host.interfaces {
        for address in &interface.addresses {
            advice.extend(local_network(capture, host, interface, address.trunc()));
        }
    }
    advice.extend(
        host.gateways
            .iter()
            .filter_map(|hop| gateway(capture, host, hop)),
    );
    advice.extend(logged_in_from.and_then(|address| {
        let subnet = capture.takes(&address.into(), host)?.net;
        Some(Advice::LoggedInFrom { subnet, address })
    }));
    Ok(advice)
}

fn ipv6(capture: &CapturePlan, host: &HostNetworks) -> Result<Option<Advice>, PlanError> {
    let is_v6 = |subnet: &Subnet| matches!(subnet.net, IpNet::V6(_));
    if host.ipv6 || !capture.subnets.iter().any(is_v6) {
        return Ok(None);
    }
    if capture.subnets.iter().all(is_v6) {
        return Err(PlanError::NoIpv6);
    }
    Ok(Some(Advice::NoIpv6))
}

fn excluded(capture: &CapturePlan) -> Vec<Advice> {
    let covering = |subnet: &Subnet| {
        let exclude = capture
            .excludes
            .iter()
            .find(|exclude| exclude.contains(&subnet.net))?;
        Some(Advice::Excluded {
            subnet: subnet.clone(),
            exclude: *exclude,
        })
    };
    capture.subnets.iter().filter_map(covering).collect()
}

/// A default beside a narrower subnet is no conflict: the narrower one goes first, as among routes.
fn twice(capture: &CapturePlan, host: &HostNetworks) -> Vec<Advice> {
    let live = || {
        capture
            .subnets
            .iter()
            .filter(|subnet| !capture.excluded(&subnet.net))
    };
    let same = |theirs: &Other| live().find(|ours| collide(ours, &theirs.subnet));
    let both = host.others.iter().filter_map(|theirs| {
        Some(Advice::Twice {
            subnet: same(theirs)?.clone(),
            theirs: theirs.subnet.clone(),
            device: theirs.device.clone(),
            first: theirs.first,
        })
    });
    both.collect()
}

fn collide(a: &Subnet, b: &Subnet) -> bool {
    let nets = a.net.contains(&b.net) || b.net.contains(&a.net);
    let ports = match (&a.ports, &b.ports) {
        (Some(a), Some(b)) => a.start() <= b.end() && b.start() <= a.end(),
        _ => true,
    };
    nets && ports && (a.net.prefix_len() == 0) == (b.net.prefix_len() == 0)
}

/// A network of one address needs no warning: the kernel's local table answers for it first.
fn local_network(
    capture: &CapturePlan,
    host: &HostNetworks,
    interface: &Interface,
    net: IpNet,
) -> Vec<Advice> {
    if net.prefix_len() == net.max_prefix_len() || is_link_local(&net) {
        return Vec::new();
    }
    let warn = |subnet: IpNet, net: IpNet| Advice::LocalNetwork {
        subnet,
        net,
        interface: interface.name.clone(),
        bridge: interface.bridge,
    };
    if let Some(subnet) = capture.takes(&net, host) {
        return vec![warn(subnet.net, net)];
    }
    let inside = capture.subnets.iter().map(|subnet| subnet.net);
    inside
        .filter(|subnet| net.contains(subnet) && !capture.excluded(subnet))
        .map(|subnet| warn(subnet, subnet))
        .collect()
}

/// A gateway inside a local network that is warned about already needs no second line.
fn gateway(capture: &CapturePlan, host: &HostNetworks, hop: &Gateway) -> Option<Advice> {
    let subnet = capture.takes(&hop.address.into(), host)?.net;
    let warned = |address: &IpNet| {
        address.contains(&hop.address) && capture.takes(&address.trunc(), host).is_some()
    };
    if is_link_local(&hop.address.into())
        || host
            .interfaces
            .iter()
            .flat_map(|i| &i.addresses)
            .any(warned)
    {
        return None;
    }
    Some(Advice::Gateway {
        subnet,
        address: hop.address,
        interface: hop.interface.clone(),
    })
}

/// Link-local networks stay on their link whatever is captured (see `os::routes`).
fn is_link_local(net: &IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.network().is_link_local(),
        IpNet::V6(net) => net.network().is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(subnets: &[&str], excludes: &[&str]) -> CapturePlan {
        CapturePlan {
            subnets: subnets
                .iter()
                .map(|net| Subnet {
                    net: net.parse().unwrap(),
                    ports: None,
                })
                .collect(),
            excludes: excludes.iter().map(|net| net.parse().unwrap()).collect(),
        }
    }

    fn host() -> HostNetworks {
        let interface = |name: &str, bridge, addresses: &[&str]| Interface {
            name: name.into(),
            bridge,
            addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
        };
        HostNetworks {
            interfaces: vec![
                interface(
                    "eth0",
                    false,
                    &["10.0.5.7/24", "fe80::7/64", "fd00:5::7/64"],
                ),
                interface("docker0", true, &["172.17.0.1/16"]),
                interface("wg0", false, &["10.9.0.2/32"]),
            ],
            gateways: vec![Gateway {
                address: "10.0.5.1".parse().unwrap(),
                interface: "eth0".into(),
            }],
            routes: ["10.0.5.0/24", "fe80::/64", "fd00:5::/64", "172.17.0.0/16"]
                .map(|net| net.parse().unwrap())
                .to_vec(),
            others: vec![],
            ipv6: true,
        }
    }

    fn lines(subnets: &[&str], excludes: &[&str], from: Option<&str>) -> Vec<String> {
        let from = from.map(|address| address.parse().unwrap());
        advise(&capture(subnets, excludes), &host(), from)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn nothing_to_say_about_a_foreign_network() {
        assert!(lines(&["10.0.1.0/24", "fd00:1::/64"], &[], Some("10.0.5.9")).is_empty());
    }

    #[test]
    fn a_covered_local_network_is_named_once_with_the_way_out() {
        let lines = lines(&["10.0.0.0/8"], &[], None);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("10.0.0.0/8 covers 10.0.5.0/24 of eth0, this host's own"));
        assert!(lines[0].contains("-x 10.0.5.0/24"));
    }

    #[test]
    fn the_way_out_silences_it() {
        assert!(lines(&["10.0.0.0/8"], &["10.0.5.0/24"], None).is_empty());
    }

    #[test]
    fn a_part_of_the_local_network_counts() {
        let lines = lines(&["10.0.5.128/25"], &[], None);
        assert!(lines[0].contains("-x 10.0.5.128/25"), "{lines:?}");
    }

    #[test]
    fn defaults_leave_local_networks_alone() {
        assert!(lines(&["0.0.0.0/0", "::/0"], &[], Some("10.0.5.9")).is_empty());
        // A narrower subnet beside it does not.
        let lines = lines(&["0.0.0.0/0", "172.16.0.0/12"], &[], None);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("172.16.0.0/12 covers 172.17.0.0/16 of docker0, a bridge"));
    }

    #[test]
    fn a_default_takes_what_the_host_has_no_route_for() {
        let from = lines(&["0.0.0.0/0"], &[], Some("203.0.113.9"));
        assert!(from[0].contains("logged in from"), "{from:?}");
        let host = HostNetworks {
            routes: vec![],
            ..host()
        };
        let advice = advise(&capture(&["0.0.0.0/0"], &[]), &host, None).unwrap();
        assert_eq!(advice.len(), 2, "{advice:?}");
    }

    #[test]
    fn a_gateway_outside_the_warned_networks_is_named() {
        let lines = lines(&["10.0.5.0/30"], &["10.0.5.2/32"], None);
        assert!(
            lines.iter().any(|line| line.contains("default gateway")),
            "{lines:?}"
        );
    }

    #[test]
    fn the_place_of_the_person_is_named() {
        let lines = lines(&["203.0.113.0/24"], &[], Some("203.0.113.9"));
        assert!(lines[0].contains("logged in from"), "{lines:?}");
    }

    fn beside(subnets: &[&str], theirs: &str, ports: Option<(u16, u16)>) -> Vec<String> {
        let subnet = Subnet {
            net: theirs.parse().unwrap(),
            ports: ports.map(|(first, last)| first..=last),
        };
        let others = vec![Other {
            device: "underpass0".into(),
            subnet,
            first: true,
        }];
        let host = HostNetworks { others, ..host() };
        let mut capture = capture(subnets, &[]);
        capture.subnets[0].ports = ports.map(|_| 80..=90);
        let advice = advise(&capture, &host, None).unwrap();
        advice.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_another_instance_captures_is_said() {
        assert_eq!(
            beside(&["10.1.1.0/24"], "10.1.0.0/16", None),
            [
                "10.1.1.0/24: another running underpass captures 10.1.0.0/16 on underpass0, and that one comes first; \
                 stop one of the two"
            ]
        );
        assert_eq!(
            beside(&["10.1.0.0/16"], "10.1.1.0/24", Some((85, 99))).len(),
            1
        );
        assert_eq!(beside(&["0.0.0.0/0"], "0.0.0.0/0", None).len(), 1);
    }

    #[test]
    fn instances_that_share_nothing_are_fine() {
        assert!(beside(&["10.1.1.0/24"], "10.1.2.0/24", None).is_empty());
        assert!(beside(&["10.1.1.0/24"], "10.1.1.0/24", Some((443, 443))).is_empty());
        assert!(beside(&["10.1.1.0/24"], "0.0.0.0/0", None).is_empty());
        assert!(beside(&["10.1.1.0/24"], "fd00::/64", None).is_empty());
    }

    #[test]
    fn a_subnet_that_is_excluded_is_said() {
        let lines = lines(&["10.1.1.0/24", "10.2.0.0/16"], &["10.1.0.0/16"], None);
        assert_eq!(
            lines,
            ["10.1.1.0/24 is not captured: -x 10.1.0.0/16 covers all of it"]
        );
    }

    #[test]
    fn without_ipv6_a_part_is_warned_of_and_all_is_an_error() {
        let host = HostNetworks {
            ipv6: false,
            ..host()
        };
        let advice = advise(&capture(&["10.1.0.0/16", "fd01::/64"], &[]), &host, None);
        assert_eq!(advice, Ok(vec![Advice::NoIpv6]));
        let advice = advise(&capture(&["fd01::/64"], &[]), &host, None);
        assert_eq!(advice, Err(PlanError::NoIpv6));
    }
}
