//! Which names go where.

use std::collections::HashSet;

use hickory_proto::rr::{LowerName, Name};
use ipnet::IpNet;
use thiserror::Error;

/// A name that is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a domain name")]
pub struct NameError(String);

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The far resolvers, through the server.
    Far,
    /// The resolvers that this host had before.
    Near,
}

/// The names that the far side knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zones {
    /// Every name.
    is_all: bool,
    /// In lower case, with all that is below them.
    far: Vec<LowerName>,
    /// Whose addresses have their names there too.
    networks: Vec<IpNet>,
    /// Names that are asked near whatever zone they are in.
    near: HashSet<LowerName>,
    /// Names that are the far side's besides, each as it is, or what is below it.
    hosts: Vec<(LowerName, bool)>,
    /// Whether addresses may stand for hosts alone, as opposed to whatever is the far side's.
    is_for_hosts: bool,
}

impl Zones {
    /// Every name.
    pub fn all() -> Self {
        Self {
            is_all: true,
            ..Self::none(&[])
        }
    }

    /// None but those of the addresses in `networks`.
    pub fn none(networks: &[IpNet]) -> Self {
        Self {
            is_all: false,
            far: Vec::new(),
            networks: networks.to_vec(),
            near: HashSet::new(),
            hosts: Vec::new(),
            is_for_hosts: false,
        }
    }

    /// Names at and below each of `domains`, and those of the addresses in `networks`.
    ///
    /// # Errors
    /// [`NameError`] for what is no domain name.
    pub fn below<S: AsRef<str>>(domains: &[S], networks: &[IpNet]) -> Result<Self, NameError> {
        let far = domains.iter().map(|domain| read(domain.as_ref()));
        Ok(Self {
            far: far.collect::<Result<_, _>>()?,
            ..Self::none(networks)
        })
    }

    /// And `hosts`: each is a name, and whether what is below it is meant. Where addresses stand for names, it is for these alone.
    ///
    /// # Errors
    /// [`NameError`] for what is no name.
    pub fn with_hosts(self, hosts: &[(&str, bool)]) -> Result<Self, NameError> {
        let hosts = hosts
            .iter()
            .map(|(name, is_below)| Ok((read(name)?, *is_below)));
        Ok(Self {
            hosts: hosts.collect::<Result<_, _>>()?,
            is_for_hosts: true,
            ..self
        })
    }

    /// The addresses of `networks` have their names there, and no others.
    pub(super) fn set_networks(&mut self, networks: Vec<IpNet>) {
        self.networks = networks;
    }

    /// Whether an address may stand for `name`, which is one of the far side's.
    pub(super) fn may_stand_for(&self, name: &LowerName) -> bool {
        !self.is_for_hosts || self.has_host(name)
    }

    /// Whether somebody has named `name`, or what it is below, as the far side's.
    pub(super) fn is_meant(&self, name: &LowerName) -> bool {
        self.has_host(name) || self.far.iter().any(|zone| zone.zone_of(name))
    }

    fn has_host(&self, name: &LowerName) -> bool {
        let is_one = |(own, is_below): &(LowerName, bool)| match is_below {
            true => own.zone_of(name) && own != name,
            false => own == name,
        };
        self.hosts.iter().any(is_one)
    }

    /// But for `names`, each as it is: whom the far side is reached through cannot be found there. What is no name is none.
    pub fn except<S: AsRef<str>>(self, names: &[S]) -> Self {
        let near = names.iter().filter_map(|name| read(name.as_ref()).ok());
        Self {
            near: near.collect(),
            ..self
        }
    }

    /// The domains that all of these names are below, in ASCII, without a dot at the end; none where every name is far.
    pub fn domains(&self) -> Vec<String> {
        let zones = self
            .far
            .iter()
            .chain(self.hosts.iter().map(|(name, _)| name));
        let zones = zones.filter(|_| !self.is_all);
        let ascii = zones.map(|zone| Name::from(zone).to_ascii());
        let bare = ascii.map(|name| name.trim_end_matches('.').to_owned());
        bare.collect()
    }

    /// Who is asked for `name`.
    pub fn side(&self, name: &LowerName) -> Side {
        let is_far = !self.near.contains(name)
            && (self.is_all || self.is_meant(name) || self.has_address(name));
        if is_far { Side::Far } else { Side::Near }
    }

    /// Whether `name` is that of an address, or of a part of a network (RFC 1035 section 3.5, RFC 3596 section 2.5).
    fn has_address(&self, name: &LowerName) -> bool {
        let Ok(asked) = name.parse_arpa_name() else {
            return false;
        };
        self.networks.iter().any(|network| network.contains(&asked))
    }
}

fn read(domain: &str) -> Result<LowerName, NameError> {
    let below = domain.strip_prefix("*.").unwrap_or(domain);
    let bare = below.strip_suffix('.').unwrap_or(below);
    let wrong = || NameError(domain.to_owned());
    if bare.is_empty() || bare.contains(|c: char| c == '*' || c.is_whitespace()) {
        return Err(wrong());
    }
    let mut name = Name::from_utf8(bare).map_err(|_| wrong())?;
    name.set_fqdn(true);
    Ok(LowerName::new(&name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn side(zones: &Zones, name: &str) -> Side {
        zones.side(&name.parse().unwrap())
    }

    #[test]
    fn a_zone_has_what_is_below_it_in_any_case_and_no_more() {
        let zones = Zones::below(&["corp.Internal", "*.Example.com.", "büro.test"], &[]).unwrap();
        let domains = ["corp.internal", "example.com", "xn--bro-hoa.test"];
        assert_eq!(zones.domains(), domains);
        for name in [
            "corp.internal.",
            "a.b.CORP.internal.",
            "x.example.com.",
            "example.com.",
            "a.xn--bro-hoa.test.",
        ] {
            assert_eq!(side(&zones, name), Side::Far, "{name}");
        }
        for name in [
            "internal.",
            "notcorp.internal.",
            "corp.internal.example.",
            "com.",
            ".",
            "1.0.0.10.in-addr.arpa.",
        ] {
            assert_eq!(side(&zones, name), Side::Near, "{name}");
        }
    }

    #[test]
    fn addresses_of_the_networks_have_their_names_there() {
        let networks = ["10.0.16.0/20", "fd00:9::/32"].map(|net| net.parse().unwrap());
        let zones = Zones::below(&["corp.internal"], &networks).unwrap();
        let v6 = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.0.0";
        for name in [
            "7.16.0.10.in-addr.arpa.",
            "7.31.0.10.IN-ADDR.arpa.",
            "31.0.10.in-addr.arpa.",
            &format!("{v6}.9.0.0.0.0.0.d.f.ip6.arpa."),
        ] {
            assert_eq!(side(&zones, name), Side::Far, "{name}");
        }
        let mut zones = zones;
        for name in [
            "7.32.0.10.in-addr.arpa.",
            "10.in-addr.arpa.",
            "in-addr.arpa.",
            &format!("{v6}.8.0.0.0.0.0.d.f.ip6.arpa."),
            "x.16.0.10.in-addr.arpa.",
        ] {
            assert_eq!(side(&zones, name), Side::Near, "{name}");
        }
        zones.set_networks(vec!["10.0.32.0/20".parse().unwrap()]);
        assert_eq!(side(&zones, "7.32.0.10.in-addr.arpa."), Side::Far);
        assert_eq!(side(&zones, "7.16.0.10.in-addr.arpa."), Side::Near);
    }

    /// What is above and beside them is as before.
    #[test]
    fn hosts_are_no_domains() {
        let hosts = [("example.com", false), ("svc.corp.internal", true)];
        let networks = ["198.19.0.0/20".parse().unwrap()];
        let zones = Zones::none(&networks).with_hosts(&hosts).unwrap();
        assert_eq!(zones.domains(), ["example.com", "svc.corp.internal"]);
        for far in [
            "Example.com.",
            "a.svc.corp.internal.",
            "a.b.svc.corp.internal.",
            "7.0.19.198.in-addr.arpa.",
        ] {
            assert_eq!(side(&zones, far), Side::Far, "{far}");
        }
        for near in [
            "www.example.com.",
            "com.",
            "svc.corp.internal.",
            "corp.internal.",
            "20.1.0.10.in-addr.arpa.",
            ".",
        ] {
            assert_eq!(side(&zones, near), Side::Near, "{near}");
        }
    }

    #[test]
    fn without_domains_every_name_is_far() {
        let zones = Zones::all();
        assert_eq!(side(&zones, "example.com."), Side::Far);
        assert_eq!(side(&zones, "."), Side::Far);
    }

    #[test]
    fn a_name_that_leads_to_the_far_side_is_asked_near() {
        let zones = Zones::all().except(&["Bastion.example.com", "bastion", "", "192.0.2.1"]);
        for name in ["bastion.EXAMPLE.com.", "bastion."] {
            assert_eq!(side(&zones, name), Side::Near, "{name}");
        }
        for name in ["a.bastion.example.com.", "example.com.", "."] {
            assert_eq!(side(&zones, name), Side::Far, "{name}");
        }
    }

    #[test]
    fn what_is_no_domain_is_named() {
        let long = "a".repeat(64);
        for domain in ["", ".", "*", "*.", "a..b", &long, "a b\u{202e}"] {
            let error = Zones::below(&[domain], &[]).unwrap_err();
            assert_eq!(error, NameError(domain.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn no_domain_and_no_name_panics(domain in "\\PC{0,30}", labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..10), 0..40)) {
            let networks = ["10.0.0.0/8".parse().unwrap(), "::/0".parse().unwrap()];
            let zones = Zones::below(&[domain.as_str()], &networks).unwrap_or_else(|_| Zones::all());
            for top in ["arpa", "in-addr.arpa", "ip6.arpa"] {
                let name = Name::from_labels(labels.iter().map(Vec::as_slice).chain(top.split('.').map(str::as_bytes)));
                if let Ok(name) = name {
                    zones.side(&LowerName::new(&name));
                }
            }
        }
    }
}
