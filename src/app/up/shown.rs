//! How the far network is shown to who asks for names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{PoisonError, RwLock};

use crate::plan::{CapturePlan, DnsPlan, Mapping};
use crate::resolve::View;

/// By what is captured at the moment.
#[derive(Debug)]
pub(in crate::app) struct Shown {
    /// Whether only names of the far side are asked for there, as opposed to those of everybody.
    far_names_only: bool,
    now: RwLock<Now>,
}

#[derive(Debug)]
struct Now {
    mapping: Mapping,
    /// Whether anything of the family is captured.
    has_v4: bool,
    has_v6: bool,
}

impl Now {
    fn new(mapping: Mapping, capture: &CapturePlan) -> Self {
        let mut nets = capture.subnets.iter().map(|subnet| subnet.net.addr());
        Self {
            mapping,
            has_v4: nets.clone().any(|ip| ip.is_ipv4()),
            has_v6: nets.any(|ip| ip.is_ipv6()),
        }
    }
}

impl Shown {
    pub(in crate::app) fn new(dns: &DnsPlan, capture: &CapturePlan) -> Self {
        Self {
            far_names_only: !dns.is_all,
            now: RwLock::new(Now::new(Mapping::new(capture), capture)),
        }
    }

    /// Shows `capture` from here on, by `mapping`.
    pub(super) fn change(&self, mapping: Mapping, capture: &CapturePlan) {
        // It is whole at every moment, whoever panicked.
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Now::new(mapping, capture);
    }

    fn with<T>(&self, f: impl FnOnce(&Now) -> T) -> T {
        f(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl View for Shown {
    fn near(&self, far: IpAddr) -> Option<IpAddr> {
        let near = self.with(|now| now.mapping.local(&far.into()));
        near.map(|net| net.addr())
    }

    fn far(&self, near: IpAddr) -> Option<IpAddr> {
        let far = self.with(|now| now.mapping.far(&near.into()));
        far.map(|net| net.addr())
    }

    /// Where nothing of a family is captured. An address that everybody has a way to is not one of the far side alone: with all names
    /// it stays.
    fn is_dead(&self, far: IpAddr) -> bool {
        let is_captured = self.with(|now| match far {
            IpAddr::V4(_) => now.has_v4,
            IpAddr::V6(_) => now.has_v6,
        });
        !is_captured && (self.far_names_only || is_private(far))
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        // The shared addresses of RFC 6598 with them.
        IpAddr::V4(ip) => {
            ip.is_private() || ip & Ipv4Addr::new(255, 192, 0, 0) == Ipv4Addr::new(100, 64, 0, 0)
        }
        IpAddr::V6(ip) => Ipv6Addr::is_unique_local(&ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Subnet;

    fn shown(domains: &[&str], nets: &[&str]) -> Shown {
        let dns = DnsPlan {
            is_all: domains.is_empty(),
            domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
            ..DnsPlan::default()
        };
        let subnet = |net: &&str| Subnet {
            net: net.parse().unwrap(),
            ports: None,
            far: None,
        };
        let capture = CapturePlan {
            subnets: nets.iter().map(subnet).collect(),
            ..CapturePlan::default()
        };
        Shown::new(&dns, &capture)
    }

    fn dead<'a>(shown: &Shown, addresses: &[&'a str]) -> Vec<&'a str> {
        let is_dead = |address: &&&str| shown.is_dead(address.parse().unwrap());
        addresses.iter().filter(is_dead).copied().collect()
    }

    #[test]
    fn a_family_that_is_not_captured_leads_nowhere_but_for_what_everybody_reaches() {
        const ALL: [&str; 5] = [
            "10.0.9.1",
            "100.65.0.1",
            "203.0.113.1",
            "fd00::1",
            "2001:db8::1",
        ];
        let (v4, v6) = ("10.0.0.0/16", "fd00::/64");
        assert_eq!(dead(&shown(&[], &[v4]), &ALL), ["fd00::1"]);
        assert_eq!(dead(&shown(&[], &[v6]), &ALL), ["10.0.9.1", "100.65.0.1"]);
        assert_eq!(
            dead(&shown(&["corp"], &[v4]), &ALL),
            ["fd00::1", "2001:db8::1"]
        );
        assert_eq!(dead(&shown(&["corp"], &[v6]), &ALL), &ALL[..3]);
        assert!(dead(&shown(&["corp"], &[v4, v6]), &ALL).is_empty());
        let shown = shown(&["corp"], &[v4]);
        let capture = CapturePlan {
            subnets: vec![Subnet {
                net: v6.parse().unwrap(),
                ports: None,
                far: None,
            }],
            ..CapturePlan::default()
        };
        shown.change(Mapping::new(&capture), &capture);
        assert_eq!(dead(&shown, &ALL), &ALL[..3]);
    }
}
