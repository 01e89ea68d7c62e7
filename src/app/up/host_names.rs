//! Names of the whole host: whether they can be looked up through the server, and who is asked for those that must not be.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use thiserror::Error;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::names::{Names, NamesError, World, far_servers};
use crate::app::doctor::resolver;
use crate::carrier::AnyCarrier;
use crate::inlet::tun::{NameServers, Tun};
use crate::os::TunDevice;
use crate::plan::{DnsPlan, Plan, names};

/// How long a program's question may take.
const LOOKUP: Duration = Duration::from_secs(5);

/// Why names of the whole host cannot be looked up through the server.
#[derive(Debug, Error)]
pub(in crate::app) enum HostNamesError {
    /// Some names alone.
    #[error(
        "--dns {0}: resolv.conf(5) has name servers for all names only, and this host has nobody who could part them; \
         write --dns for all names, add --dns-names to have the server look those up, or: underpass run --dns {0} ... -- COMMAND"
    )]
    Split(String),
    /// Somebody looks after names here.
    #[error(
        "--dns: {0} looks after the names of this host, and is not spoken to yet; write: underpass run --dns ... -- COMMAND"
    )]
    Managed(&'static str),
    /// Elsewhere there is another file.
    #[error(
        "--dns and --netns: name servers are a matter of files, which that network has of its own; leave one of them out"
    )]
    Elsewhere,
}

/// Whether it can be done here.
///
/// # Errors
/// [`HostNamesError`].
pub(in crate::app) fn check(dns: &DnsPlan, is_elsewhere: bool) -> Result<(), HostNamesError> {
    if is_elsewhere {
        return Err(HostNamesError::Elsewhere);
    }
    // Who has the server look names up has all of them asked of us: those of others are asked further from here.
    if !dns.domains.is_empty() && dns.by_name.is_none() {
        return Err(HostNamesError::Split(dns.domains.join(",")));
    }
    match resolver::keeper() {
        Some(who) => Err(HostNamesError::Managed(who)),
        None => Ok(()),
    }
}

/// Looks a name up as any program does: whether the question has come to `names`. Nobody has the name (RFC 6761 section 6.4).
pub(super) async fn are_asked(names: &Names) -> bool {
    let before = names.counters().questions;
    // That there is no such host is the answer.
    let _ = timeout(LOOKUP, lookup_host(("check.underpass.invalid", 53))).await;
    names.counters().questions != before
}

/// Who is asked for what.
pub(super) struct HostNames {
    world: World,
    far: Vec<SocketAddr>,
    near: Vec<SocketAddr>,
}

impl HostNames {
    /// Finds out who is to be asked; before the host's own are replaced.
    pub(super) async fn find(
        plan: &Plan,
        dns: &DnsPlan,
        carrier: &AnyCarrier,
    ) -> Result<Self, NamesError> {
        let hosts: Vec<&str> = plan
            .ssh
            .servers()
            .map(|server| server.host.as_str())
            .collect();
        let text = std::fs::read_to_string(resolver::RESOLV_CONF).unwrap_or_default();
        Ok(Self {
            world: World::new(dns, &plan.capture)?.except(&hosts),
            far: far_servers(dns, carrier).await?,
            near: names::servers(&text, |name| if_nametoindex(name).ok()),
        })
    }

    /// Who is asked from this host, so that their addresses must not be captured.
    pub(super) fn near(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let addresses = self.near.iter().map(SocketAddr::ip);
        addresses.filter(|ip| !ip.is_loopback())
    }

    /// The name server at `address`, behind `inlet`.
    pub(super) fn behind(self, inlet: &Tun<TunDevice>, address: IpAddr) -> Names {
        let at = NameServers([Some(address), None]);
        let Self { world, far, near } = self;
        Names::new(inlet, at, address, world, (&far, &near))
    }
}
