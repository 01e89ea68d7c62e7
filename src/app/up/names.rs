//! The name server of a session: it is asked at an address of the device, and asks name servers through the SSH server.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use thiserror::Error;
use tracing::info;

use super::near::{self, Lookout, Near};
use super::own_name::OwnName;
use super::shown::Shown;
use crate::carrier::AnyCarrier;
use crate::carrier::examine::{Answer, Request};
use crate::inlet::tun::{Answers, NameServers, Tun};
use crate::net::{Carrier, Inbound, Source, Target};
use crate::os::TunDevice;
use crate::plan::{CapturePlan, DnsPlan, Mapping, NamePool, names};
use crate::resolve::{
    Counters, Datagrams, DatagramsFirst, Held, NameError, Named, Pools, Proxy, Respond, View, Zones,
};

/// Where a host has written down which name servers it asks (resolv.conf(5)).
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Prints which name servers a host asks (resolv.conf(5)).
const COMMAND: &str = "cat /etc/resolv.conf";
/// The port that questions are sent from, where a server writes that down.
const PORT: u16 = 53;

/// Why names cannot be looked up.
#[derive(Debug, Error)]
pub(in crate::app) enum NamesError {
    /// A domain of `--dns`.
    #[error("--dns: {0}; write domains with commas between, for example corp.internal,example.com")]
    Domain(#[from] NameError),
    /// A host by its name.
    #[error("hosts by name: {0}")]
    Host(#[source] NameError),
    /// Nobody is known who could be asked.
    #[error(
        "{0}; name one: --dns-server IP, in a cloud usually 169.254.169.253 (AWS, or the VPC's base address + 2), \
         169.254.169.254 (Google) or 168.63.129.16 (Azure)"
    )]
    NoServer(&'static str),
    /// Nobody in another network is known who could be asked for the other names.
    #[error(
        "names can be parted in another network only where others answer the rest: it has no name servers of its own, and those of \
         this host are on its loopback, where nobody there comes to; give it some, in /etc/netns/NAME/resolv.conf or the container's \
         /etc/resolv.conf, or write --dns for all names"
    )]
    NoNear,
}

/// Which names are the far side's, and how that is shown.
pub(in crate::app) struct World {
    zones: Zones,
    shown: Shown,
    pools: Option<Pools>,
    dns: DnsPlan,
    /// There are names that are not the far side's.
    has_near: bool,
}

impl World {
    /// What `dns` says of the far side, while `capture` is captured.
    ///
    /// # Errors
    /// [`NamesError::Domain`].
    pub(in crate::app) fn new(dns: &DnsPlan, capture: &CapturePlan) -> Result<Self, NamesError> {
        let pools = dns.by_name.map(|NamePool { v4, v6 }| Pools { v4, v6 });
        let zones = match dns.is_all {
            true => Zones::all(),
            false => Zones::below(&dns.domains, &dns.networks(capture))?,
        };
        let hosts = dns.hosts.iter();
        let hosts: Vec<_> = hosts
            .map(|host| (host.name.as_str(), host.is_below))
            .collect();
        let zones = match dns.is_all_by_name {
            true => zones,
            false => zones.with_hosts(&hosts).map_err(NamesError::Host)?,
        };
        Ok(Self {
            has_near: !zones.domains().is_empty(),
            zones,
            shown: Shown::new(dns, capture),
            pools,
            dns: dns.clone(),
        })
    }

    /// The domains whose names are the far side's; none where all are.
    pub(super) fn domains(&self) -> Vec<String> {
        self.zones.domains()
    }

    /// But for `names`, each as it is: those of who leads to the far side.
    pub(super) fn except(self, names: &[String]) -> Self {
        Self {
            zones: self.zones.except(names),
            has_near: self.has_near || !names.is_empty(),
            ..self
        }
    }
}

/// The name servers to ask: those of the plan, else those that the SSH server asks.
///
/// # Errors
/// [`NamesError::NoServer`].
pub(in crate::app) async fn far_servers(
    dns: &DnsPlan,
    link: &AnyCarrier,
) -> Result<Vec<SocketAddr>, NamesError> {
    if !dns.servers.is_empty() || dns.is_nobody_asked {
        return Ok(dns.servers.clone());
    }
    let by_command = read_answer(&link.ask(Request::Exec(COMMAND)).await);
    // Many that run no command let files be read.
    let servers = match by_command {
        Ok(servers) => servers,
        Err(error) => read_answer(&link.ask(Request::File(RESOLV_CONF)).await).or(Err(error))?,
    };
    let shown: Vec<String> = servers.iter().map(ToString::to_string).collect();
    info!(
        "names are asked of {}, as the SSH server does",
        shown.join(", ")
    );
    Ok(servers)
}

fn read_answer(answer: &Answer) -> Result<Vec<SocketAddr>, NamesError> {
    let output = match answer {
        Answer::Granted(output) => output,
        Answer::Refused | Answer::NoSession => {
            let why = "the SSH server runs no command, and lets no file be read, that could tell its name servers";
            return Err(NamesError::NoServer(why));
        }
        Answer::Silent => {
            let why = "the SSH server did not tell its name servers in time";
            return Err(NamesError::NoServer(why));
        }
    };
    // An address of one of its links means nothing to who forwards.
    let servers = names::servers(&String::from_utf8_lossy(output), |_| None);
    if servers.is_empty() {
        let why = "the SSH server's resolv.conf names no name server";
        return Err(NamesError::NoServer(why));
    }
    Ok(servers)
}

/// Sends answers as packets.
pub(super) struct Replies(Answers<TunDevice>);

impl Respond for Replies {
    fn respond(&self, from: Target, to: Source, message: &[u8]) {
        self.0.send(from, to, message);
    }
}

/// Why nobody is asked for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// The address stands for nobody any more.
    Nobody,
    /// The host's other ports are captured.
    Port,
}

/// A connection to a host by its name.
pub(super) struct Guest<'a> {
    /// The host.
    pub(super) name: Result<Arc<str>, Unfit>,
    _held: Option<Held<'a, Replies>>,
}

/// The name server.
pub(in crate::app) struct Names {
    proxy: Proxy<Replies>,
    at: NameServers,
    source: Source,
    shown: Arc<Shown>,
    dns: DnsPlan,
    own_name: OwnName,
    answers: Replies,
    /// Who is asked from this host, where there is anything to ask.
    near: Vec<SocketAddr>,
    /// Whether that is still so.
    lookout: Option<Lookout>,
}

impl Names {
    /// One at `at`, for the host that is `client` on the device; it asks `far` for names of the far side, and `near` for all others.
    pub(in crate::app) fn new(
        inlet: &Tun<TunDevice>,
        at: NameServers,
        client: IpAddr,
        world: World,
        (far, near): (&[SocketAddr], &[SocketAddr]),
    ) -> Self {
        let targets = |servers: &[SocketAddr]| -> Vec<Target> {
            servers.iter().map(|server| Target(*server)).collect()
        };
        let answers = || Replies(inlet.answers());
        let own_address = match client {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        };
        let World {
            zones,
            shown,
            pools,
            dns,
            has_near,
        } = world;
        let shown = Arc::new(shown);
        let view: Arc<dyn View> = Arc::<Shown>::clone(&shown);
        let servers = (&*targets(far), &*targets(near));
        Self {
            own_name: OwnName::new(&zones.domains(), super::seed(), own_address),
            proxy: Proxy::new(zones, view, pools, servers, answers()),
            at,
            source: Source(SocketAddr::new(client, PORT)),
            shown,
            dns,
            answers: answers(),
            near: near.iter().filter(|_| has_near).copied().collect(),
            lookout: None,
        }
    }

    /// What was heard of `near` is forgotten when others are asked.
    pub(super) fn looking_at(self, near: Near) -> Self {
        Self {
            lookout: Some(Lookout::new(near)),
            ..self
        }
    }

    fn look(&self) {
        if self.lookout.as_ref().is_some_and(Lookout::sees_others) {
            self.proxy.forget_near();
        }
    }

    /// `capture` is shown from here on, by `mapping`.
    pub(super) fn change(&self, mapping: Mapping, capture: &CapturePlan) {
        self.shown.change(mapping, capture);
        self.proxy.set_networks(self.dns.networks(capture));
    }

    /// For a connection to `target`: the host whose name that stands for. `None` where it stands for none.
    pub(super) fn guest(&self, target: Target) -> Option<Guest<'_>> {
        let (named, held) = self.proxy.enter(target.0.ip());
        let name = match named {
            Named::Other => return None,
            Named::Nobody => Err(Unfit::Nobody),
            Named::Name(name) if !self.has_port(&name, target.0.port()) => Err(Unfit::Port),
            Named::Name(name) => Ok(name),
        };
        Some(Guest { name, _held: held })
    }

    /// Whether a port of a host is captured: any, unless the host was named with some.
    fn has_port(&self, name: &str, port: u16) -> bool {
        let mut named = self
            .dns
            .hosts
            .iter()
            .filter(|host| host.has(name))
            .peekable();
        named.peek().is_none() || named.any(|host| host.has_port(port))
    }

    /// Whether who connects to `target` asks us.
    pub(super) fn are_at(&self, target: Target) -> bool {
        self.at.has(target.0)
    }

    /// A datagram.
    pub(super) fn ask(&self, from: Source, to: Target, message: &[u8]) {
        self.look();
        match self.own_name.answer(message) {
            Some(answer) => self.answers.respond(to, from, &answer),
            None => self.proxy.handle_datagram(from, to, message),
        }
    }

    /// The name that nobody else knows.
    pub(super) fn own_name(&self) -> &OwnName {
        &self.own_name
    }

    /// A connection.
    pub(super) async fn serve(&self, inbound: impl Inbound) {
        self.look();
        self.proxy.serve(inbound).await;
    }

    /// Asks as long as it is polled: far ones through `server`, near ones through `near`, from this host.
    pub(in crate::app) async fn run(
        &self,
        server: &impl Carrier,
        near: &impl Datagrams,
    ) -> Infallible {
        let near = DatagramsFirst::new(near.clone());
        let checked = async {
            if !self.near.is_empty() {
                near::check(&near, self.source, &self.near).await;
            }
        };
        let (never, ()) = tokio::join!(self.proxy.run(self.source, server, &near), checked);
        never
    }

    /// What has happened so far.
    pub(in crate::app) fn counters(&self) -> Counters {
        self.proxy.counters()
    }

    /// How many names have addresses that stand for them now, and how many can; `None` where no addresses do.
    pub(super) fn pool_usage(&self) -> Option<(u32, u32)> {
        self.proxy.pool_usage()
    }

    /// Who is asked for names of the far side.
    pub(super) fn far_servers(&self) -> Vec<SocketAddr> {
        self.proxy.far_servers().map(|target| target.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_own_name_servers_are_read() {
        let output = b"# x\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver 10.0.0.2\n";
        let servers = read_answer(&Answer::Granted(output.to_vec())).unwrap();
        let shown: Vec<String> = servers.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["127.0.0.53:53", "10.0.0.2:53"]);
    }

    #[test]
    fn where_nothing_is_told_somebody_has_to_be_named() {
        for answer in [
            Answer::Granted(b"This account is currently not available.\n".to_vec()),
            Answer::Granted(vec![0xff, 0xfe]),
            Answer::Refused,
            Answer::NoSession,
            Answer::Silent,
        ] {
            let error = read_answer(&answer).unwrap_err().to_string();
            assert!(
                error.contains("--dns-server IP") && error.lines().count() == 1,
                "{error}"
            );
        }
    }
}
