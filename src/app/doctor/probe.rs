//! `--probe HOST:PORT`: what was typed, and where it leads.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use thiserror::Error;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::examine::LOOKUP;
use crate::app::up::leads::far;
use crate::net::{Far, Target};
use crate::plan::{DnsPlan, Mapping};

/// What cannot be connected to.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("--probe {text}: {reason}; write HOST:PORT, an IPv6 address in brackets")]
pub(super) struct BadProbe {
    text: String,
    reason: &'static str,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    text: String,
    /// Without brackets.
    host: String,
    port: u16,
}

impl Probe {
    /// Reads what was typed. Nothing is looked up.
    ///
    /// # Errors
    /// [`BadProbe`].
    pub(super) fn parse(text: &str) -> Result<Self, BadProbe> {
        let (host, port) = split(text).map_err(|reason| BadProbe {
            text: text.to_owned(),
            reason,
        })?;
        Ok(Self {
            text: text.to_owned(),
            host: host.to_owned(),
            port,
        })
    }

    /// What the server is asked for, and that for a person. A name of the far side is the server's to look up, and nobody else
    /// hears of it; others are looked up here, as programs do, and only then there.
    pub(super) async fn leads(&self, dns: Option<&DnsPlan>, mapping: &Mapping) -> (Far, String) {
        let text = &self.text;
        if self.ip().is_none() && dns.is_some_and(|dns| dns.has(&self.host)) {
            return (self.by_name(), text.clone());
        }
        let Some(address) = self.address().await else {
            let shown = format!("{text} (not known here: looked up by the server)");
            return (self.by_name(), shown);
        };
        let there = far(mapping, Target(address));
        let shown = match there.0 == address {
            true => text.clone(),
            false => format!("{text} ({} behind the server)", there.0),
        };
        (there.into(), shown)
    }

    fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    async fn address(&self) -> Option<SocketAddr> {
        if let Some(ip) = self.ip() {
            return Some((ip, self.port).into());
        }
        let lookup = lookup_host((self.host.as_str(), self.port));
        timeout(LOOKUP, lookup).await.ok()?.ok()?.next()
    }

    fn by_name(&self) -> Far {
        Far {
            target: Target((Ipv4Addr::UNSPECIFIED, self.port).into()),
            name: Some(self.host.as_str().into()),
        }
    }
}

fn split(text: &str) -> Result<(&str, u16), &'static str> {
    const NO_PORT: &str = "it has no port";
    // An address alone ends in what looks like a port.
    if text.parse::<IpAddr>().is_ok() {
        return Err(NO_PORT);
    }
    let (host, port) = text.rsplit_once(':').ok_or(NO_PORT)?;
    let port = port.parse().ok().filter(|port| *port > 0);
    let port = port.ok_or("its port is no number from 1 to 65535")?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let is_one = match bare {
        Some(bare) => bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()),
        None => is_name(host),
    };
    match is_one {
        true => Ok((bare.unwrap_or(host), port)),
        false => Err("no host has such a name"),
    }
}

/// Whether it is a name, or an IPv4 address.
fn is_name(host: &str) -> bool {
    let is_plain = |letter: char| letter.is_alphanumeric() || matches!(letter, '.' | '-' | '_');
    host.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_')
        && host.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::CapturePlan;

    fn reason(text: &str) -> &'static str {
        Probe::parse(text).unwrap_err().reason
    }

    #[test]
    fn a_host_and_a_port() {
        for (text, host, port) in [
            ("10.0.1.20:443", "10.0.1.20", 443),
            ("[fd00::1]:22", "fd00::1", 22),
            ("db.example.com:5432", "db.example.com", 5432),
            ("bastion:65535", "bastion", 65535),
        ] {
            let probe = Probe::parse(text).unwrap();
            assert_eq!((probe.host.as_str(), probe.port), (host, port));
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        for text in ["10.0.1.20", "fd00::1", "bastion", ""] {
            assert!(reason(text).contains("no port"), "{text}");
        }
        for text in ["a:0", "a:", "a:x", "a:65536", "[fd00::1]"] {
            assert!(reason(text).contains("its port"), "{text}");
        }
        for text in [":80", "fd00::1:z:80", "[10.0.0.1]:80", "a b:80", "-a:80"] {
            assert!(reason(text).contains("such a name"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_that_nobody_here_knows_is_the_servers_to_look_up() {
        let mapping = Mapping::new(&CapturePlan::default());
        let probe = Probe::parse("db.invalid:5432").unwrap();
        let (far, shown) = probe.leads(None, &mapping).await;
        assert_eq!(far.to_string(), "db.invalid:5432");
        assert!(shown.contains("by the server"), "{shown}");
        let (far, shown) = Probe::parse("10.0.0.7:22")
            .unwrap()
            .leads(None, &mapping)
            .await;
        assert_eq!((far.name, shown.as_str()), (None, "10.0.0.7:22"));
    }
}
