//! Names of the whole host: whether they can be looked up through the server, and who is asked for those that must not be.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use nix::net::if_::if_nametoindex;
use thiserror::Error;
use tracing::warn;

use super::names::{Names, NamesError, World, far_servers};
use super::near::Near;
use crate::carrier::AnyCarrier;
use crate::inlet::tun::{NameServers, Tun};
use crate::os::TunDevice;
use crate::os::names::{Apart, By, Facts, Keeper, RESOLV_CONF, Wish, asks_resolved};
use crate::plan::netns::Netns;
use crate::plan::{CapturePlan, DnsPlan, Plan, names};

/// Why names of the whole host cannot be looked up through the server.
#[derive(Debug, Error)]
pub(in crate::app) enum HostNamesError {
    /// Some names alone.
    #[error(
        "--dns {domains}: names can be parted by systemd-resolved alone, and here {keeper} looks after them: resolv.conf(5) has name \
         servers for all names only; write --dns for all names, add --dns-names to have the server look those up, or: underpass run --dns {domains} ... -- COMMAND"
    )]
    Split {
        /// What was typed.
        domains: String,
        /// Who looks after names.
        keeper: &'static str,
    },
    /// Somebody looks after names here who leaves them to nobody.
    #[error(
        "--dns: {0} looks after the names of this host, and cannot be asked to ask us; write: underpass run --dns ... -- COMMAND"
    )]
    Managed(&'static str),
    /// It does not answer.
    #[error(
        "--dns: systemd-resolved looks after the names of this host, and does not answer on D-Bus; start it: sudo systemctl start \
         dbus systemd-resolved, or write: underpass run --dns ... -- COMMAND"
    )]
    Silent,
    /// Name servers are for everybody.
    #[error(
        "names (--dns, hosts by name) are looked up for every user of this host, and --user and --group capture for some alone; leave one of \
         them out"
    )]
    Users,
    /// Elsewhere there is another file, and it is not known which.
    #[error(
        "--dns in {path}: which resolv.conf programs there read is known by a name or a process alone; write --netns NAME (ip netns attach \
         NAME PID gives it one) or --netns pid:N, for a container: --netns pid:$(docker inspect -f '{{{{.State.Pid}}}}' CONTAINER)",
        path = .0.display()
    )]
    Elsewhere(PathBuf),
    /// The system would not.
    #[error("--dns: it cannot be found out who looks after the names of this host: {0}")]
    Io(#[from] io::Error),
}

/// Who looks after the names of this host, or of `netns`, where `plan` wants them looked up through the server, and that can be
/// done there.
///
/// # Errors
/// [`HostNamesError`].
pub(in crate::app) fn keeper(
    plan: &Plan,
    netns: Option<&Netns>,
) -> Result<(Option<Keeper>, Option<Apart>), HostNamesError> {
    let Some(dns) = &plan.dns else {
        return Ok((None, None));
    };
    if !plan.capture.whose.users.is_empty() {
        return Err(HostNamesError::Users);
    }
    match netns {
        Some(netns) => elsewhere(netns).map(|(keeper, apart)| (Some(keeper), Some(apart))),
        None => here(dns).map(|keeper| (Some(keeper), None)),
    }
}

fn elsewhere(netns: &Netns) -> Result<(Keeper, Apart), HostNamesError> {
    match netns {
        Netns::Named(name) => {
            if asks_resolved(&nsswitch_of(name)) {
                warn!(
                    "--dns: programs in {name} ask the systemd-resolved of this host, whatever their resolv.conf says; have them not: \
                     sed -E 's/ resolve( \\[[^]]*\\])?//' /etc/nsswitch.conf | sudo tee /etc/netns/{name}/nsswitch.conf"
                );
            }
            Ok((Keeper::Netns, Apart::Named(name.clone())))
        }
        Netns::Process(pid) => Ok((Keeper::Process, Apart::Process(*pid))),
        Netns::File(path) => Err(HostNamesError::Elsewhere(path.clone())),
    }
}

/// What programs read there (ip-netns(8), nsswitch.conf(5)).
fn nsswitch_of(name: &str) -> String {
    let own = std::fs::read_to_string(format!("/etc/netns/{name}/nsswitch.conf"));
    own.or_else(|_| std::fs::read_to_string("/etc/nsswitch.conf"))
        .unwrap_or_default()
}

fn here(dns: &DnsPlan) -> Result<Keeper, HostNamesError> {
    // A runtime that is gone again before anything else begins.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let keeper = runtime.block_on(Facts::read()).keeper();
    match keeper.by() {
        None if keeper == Keeper::SilentResolved => Err(HostNamesError::Silent),
        None => Err(HostNamesError::Managed(keeper.name())),
        // Who has the server look names up has all of them asked of us.
        Some(By::File | By::Program) if !dns.domains.is_empty() && dns.by_name.is_none() => {
            Err(HostNamesError::Split {
                domains: dns.domains.join(","),
                keeper: keeper.name(),
            })
        }
        Some(_) => Ok(keeper),
    }
}

/// Whether the other names can be looked up, where some are the far side's alone.
///
/// # Errors
/// [`NamesError::NoNear`].
pub(super) fn check(dns: &DnsPlan, capture: &CapturePlan, near: &Near) -> Result<(), NamesError> {
    let is_parted = !World::new(dns, capture)?.domains().is_empty();
    match near.is_elsewhere() && is_parted && near.servers().is_empty() {
        true => Err(NamesError::NoNear),
        false => Ok(()),
    }
}

/// Whom `/etc/resolv.conf` names.
pub(super) fn servers_now() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    names::servers(&text, |name| if_nametoindex(name).ok())
}

/// Who is asked for what.
pub(super) struct HostNames {
    world: World,
    far: Vec<SocketAddr>,
    near: Near,
    wish: Wish,
}

impl HostNames {
    /// Finds out who is to be asked; before the host's own are replaced.
    pub(super) async fn find(
        plan: &Plan,
        dns: &DnsPlan,
        (by, near): (By, Near),
        carrier: &AnyCarrier,
    ) -> Result<Self, NamesError> {
        let hosts: Vec<&str> = plan
            .ssh
            .servers()
            .map(|server| server.host.as_str())
            .collect();
        let world = World::new(dns, &plan.capture)?;
        // Who cannot part names asks us for all of them: for others we ask further, from here.
        let domains = match by {
            By::Resolved => world.domains(),
            By::File | By::Program | By::Netns | By::Process => Vec::new(),
        };
        let wish = Wish {
            by,
            domains,
            networks: dns.networks(&plan.capture),
        };
        Ok(Self {
            wish,
            // Elsewhere nobody connects to the server for us.
            world: match near.is_elsewhere() {
                true => world,
                false => world.except(&hosts),
            },
            far: far_servers(dns, carrier).await?,
            near,
        })
    }

    /// What programs are to ask us for.
    pub(super) fn wish(&self) -> &Wish {
        &self.wish
    }

    /// Who is asked without the server.
    pub(super) fn near(&self) -> Near {
        self.near.clone()
    }

    /// The name server at `address`, behind `inlet`.
    pub(super) fn behind(self, inlet: &Tun<TunDevice>, address: IpAddr) -> Names {
        let at = NameServers([Some(address), None]);
        let Self {
            world, far, near, ..
        } = self;
        Names::new(inlet, at, address, world, (&far, &near.servers()))
    }
}
