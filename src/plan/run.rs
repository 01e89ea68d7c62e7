//! What `run` and `shell` add to a plan: where what is not captured goes, and which ports come in.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{CapturePlan, Plan, PlanError};

/// Everything that `run` needs to know, but for the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunPlan {
    /// The server, and what goes through it.
    pub plan: Plan,
    /// Whether everything is to go through it.
    pub all: bool,
    /// Whether what does not go through it goes nowhere.
    pub isolate: bool,
    /// Ports of the namespace that the host has.
    pub publish: Vec<Publish>,
}

/// A port of the namespace that the host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where the host listens.
    pub listen: SocketAddr,
    /// The port that is listened to inside.
    pub inside: u16,
}

impl Publish {
    /// The other way round, as it would be typed: this host's port was perhaps named last.
    pub fn reversed(&self) -> Self {
        Self {
            listen: SocketAddr::new(self.listen.ip(), self.inside),
            inside: self.listen.port(),
        }
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.listen.ip() == IpAddr::from(Ipv4Addr::LOCALHOST) {
            write!(f, "{}:{}", self.listen.port(), self.inside)
        } else {
            write!(f, "{}:{}", self.listen, self.inside)
        }
    }
}

/// Where a flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the SSH server.
    Server,
    /// From this host itself.
    Host,
    /// Nowhere.
    Nowhere,
}

impl RunPlan {
    /// What leads to the device of the private network, each network once. Where the rest is reached as from the host
    /// that is everything; IPv6 only where the host reaches somebody with it (`host_has_v6`), for applications take a
    /// route for a promise. None of IPv6 where the network has none (`has_v6`).
    pub fn routes(&self, has_v6: bool, host_has_v6: bool) -> Vec<IpNet> {
        let subnets = self.plan.capture.subnets.iter().map(|subnet| subnet.net);
        routes(subnets, !self.isolate, host_has_v6)
            .into_iter()
            .filter(|net| has_v6 || matches!(net, IpNet::V4(_)))
            .collect()
    }

    /// The way of a TCP connection to `target`.
    pub fn way(&self, target: SocketAddr) -> Way {
        if captures(&self.plan.capture, target) {
            Way::Server
        } else if self.isolate {
            Way::Nowhere
        } else {
            Way::Host
        }
    }
}

fn routes(subnets: impl Iterator<Item = IpNet>, with_rest: bool, host_has_v6: bool) -> Vec<IpNet> {
    let rest = [
        with_rest.then(|| Ipv4Net::default().into()),
        (with_rest && host_has_v6).then(|| Ipv6Net::default().into()),
    ];
    let mut routes: Vec<IpNet> = subnets.chain(rest.into_iter().flatten()).collect();
    routes.sort_unstable();
    routes.dedup();
    routes
}

fn captures(capture: &CapturePlan, target: SocketAddr) -> bool {
    let ip = target.ip();
    let mut excludes = capture.excludes.iter();
    let mut subnets = capture.subnets.iter();
    !excludes.any(|net| net.contains(&ip))
        && subnets.any(|subnet| {
            let ports = subnet.ports.as_ref();
            subnet.net.contains(&ip) && ports.is_none_or(|ports| ports.contains(&target.port()))
        })
}

/// Reads `[HOST:]PORT:PORT`; an IPv6 host stands in brackets.
///
/// # Errors
/// [`PlanError::BadPublish`].
pub fn publish(text: &str) -> Result<Publish, PlanError> {
    parse(text.trim()).map_err(|reason| PlanError::BadPublish {
        text: text.to_owned(),
        reason,
        meant: meant(text.trim()),
    })
}

/// What was perhaps meant, which is right at any rate: one port for both, an address in the wrong place, one without brackets.
fn meant(text: &str) -> String {
    let text = text.strip_suffix("/tcp").unwrap_or(text);
    let words: Vec<&str> = text.split(':').collect();
    let guess = match words[..] {
        [both] => format!("{both}:{both}"),
        [host, both] if port(host).is_err() => format!("{}:{both}:{both}", numbered(host)),
        [outside, inside, host] if port(outside).is_ok() => format!("{host}:{outside}:{inside}"),
        [host, outside, inside] => format!("{}:{outside}:{inside}", numbered(host)),
        [ref host @ .., outside, inside] => format!("[{}]:{outside}:{inside}", host.join(":")),
        [] => String::new(),
    };
    let example = || "8080:80".to_owned();
    parse(&guess).map_or_else(|_| example(), |read| read.to_string())
}

fn numbered(host: &str) -> &str {
    match host {
        "localhost" | "" => "127.0.0.1",
        "*" => "0.0.0.0",
        other => other,
    }
}

fn parse(text: &str) -> Result<Publish, &'static str> {
    let (before, inside) = text.rsplit_once(':').ok_or("a port is missing")?;
    let (host, outside) = match before.rsplit_once(':') {
        Some((host, outside)) => (address(host)?, outside),
        None => (Ipv4Addr::LOCALHOST.into(), before),
    };
    Ok(Publish {
        listen: SocketAddr::new(host, port(outside)?),
        inside: port(inside)?,
    })
}

fn address(host: &str) -> Result<IpAddr, &'static str> {
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match inner {
        Some(inner) => inner
            .parse()
            .map(IpAddr::V6)
            .map_err(|_| "this is no IPv6 address"),
        None if host.contains(':') => Err("an IPv6 address stands in brackets"),
        None => host
            .parse()
            .map(IpAddr::V4)
            .map_err(|_| "the host is no IP address"),
    }
}

fn port(text: &str) -> Result<u16, &'static str> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port > 0);
    port.ok_or("a port is a number from 1 to 65535")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Subnet;
    use super::*;

    fn capture(subnets: &[&str], excludes: &[&str]) -> CapturePlan {
        let subnet = |text: &&str| match text.rsplit_once('#') {
            Some((net, port)) => Subnet {
                net: net.parse().unwrap(),
                ports: Some(port.parse().unwrap()..=port.parse().unwrap()),
                far: None,
            },
            None => Subnet {
                net: text.parse().unwrap(),
                ports: None,
                far: None,
            },
        };
        CapturePlan {
            subnets: subnets.iter().map(subnet).collect(),
            excludes: excludes.iter().map(|text| text.parse().unwrap()).collect(),
            ..CapturePlan::default()
        }
    }

    #[test]
    fn what_is_captured() {
        let some = capture(
            &["10.0.0.0/8", "fd00::/64", "192.0.2.0/24#443"],
            &["10.9.0.0/16"],
        );
        let all = capture(&["0.0.0.0/0", "::/0"], &["192.168.0.0/16"]);
        for (capture, target, expected) in [
            (&some, "10.0.0.1:80", true),
            (&some, "10.9.0.1:80", false),
            (&some, "11.0.0.1:80", false),
            (&some, "192.0.2.7:443", true),
            (&some, "192.0.2.7:80", false),
            (&some, "[fd00::1]:22", true),
            (&some, "[fd01::1]:22", false),
            (&all, "8.8.8.8:53", true),
            (&all, "[2001:db8::1]:53", true),
            (&all, "192.168.1.1:53", false),
        ] {
            assert_eq!(
                captures(capture, target.parse().unwrap()),
                expected,
                "{target}"
            );
        }
    }

    #[test]
    fn the_rest_has_its_routes() {
        let nets = || {
            let nets = ["10.0.0.0/8", "10.0.0.0/8", "::/0"].map(|text| text.parse().unwrap());
            nets.into_iter()
        };
        let text = |routes: Vec<IpNet>| routes.iter().map(IpNet::to_string).collect::<Vec<_>>();
        assert_eq!(text(routes(nets(), false, true)), ["10.0.0.0/8", "::/0"]);
        let all = ["0.0.0.0/0", "10.0.0.0/8", "::/0"];
        assert_eq!(text(routes(nets(), true, true)), all);
        let v4 = || nets().filter(|net| net.addr().is_ipv4());
        assert_eq!(text(routes(v4(), true, false)), ["0.0.0.0/0", "10.0.0.0/8"]);
    }

    #[test]
    fn a_publication_is_read() {
        for (text, listen, inside) in [
            ("8080:80", "127.0.0.1:8080", 80),
            ("0.0.0.0:1:65535", "0.0.0.0:1", 65535),
            ("[::1]:8080:80", "[::1]:8080", 80),
            ("[::]:8080:80", "[::]:8080", 80),
        ] {
            let expected = Publish {
                listen: listen.parse().unwrap(),
                inside,
            };
            assert_eq!(publish(text), Ok(expected), "{text}");
        }
        for (text, meant) in [
            ("80", "80:80"),
            ("80/tcp", "80:80"),
            ("192.0.2.1:80", "192.0.2.1:80:80"),
            ("localhost:8080:80", "8080:80"),
            ("*:8080:80", "0.0.0.0:8080:80"),
            ("8080:80:192.0.2.1", "192.0.2.1:8080:80"),
            ("::1:8080:80", "[::1]:8080:80"),
            ("web", "8080:80"),
            ("80:", "8080:80"),
            (":80", "80:80"),
        ] {
            let error = publish(text).unwrap_err().to_string();
            let expected = format!("stands before the command's: --publish {meant}");
            assert!(error.ends_with(&expected), "{text}: {error}");
        }
        for (text, words) in [
            ("80", "a port is missing"),
            ("80:", "number"),
            (":80", "number"),
            ("0:80", "number"),
            ("+80:80", "number"),
            ("80:65536", "number"),
            ("::1:80:80", "brackets"),
            ("[::g]:80:80", "IPv6"),
            ("localhost:80:80", "no IP address"),
            ("", "missing"),
        ] {
            let error = publish(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}|[0-9:.\\[\\]]{0,40}") {
            match publish(&text) {
                Ok(read) => {
                    prop_assert_eq!(publish(&format!("{}:{}", read.listen, read.inside)), Ok(read));
                    prop_assert_eq!(publish(&read.to_string()), Ok(read));
                    prop_assert_eq!(read.reversed().reversed(), read);
                }
                Err(_) => prop_assert!(publish(&meant(&text)).is_ok()),
            }
        }
    }
}
