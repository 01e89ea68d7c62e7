//! Names of the whole host: whether they can be looked up through the server, and who is asked for those that must not be.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use nix::net::if_::if_nametoindex;
use thiserror::Error;
use tracing::{debug, warn};

use super::names::{Names, NamesError, World, far_servers};
use super::near::{self, Near};
use crate::app::control::instances;
use crate::carrier::AnyCarrier;
use crate::inlet::tun::{NameServers, Tun};
use crate::os::TunDevice;
use crate::os::names::{
    Apart, By, Facts, Keeper, RESOLV_CONF, Wish, asks_resolved, left_out, others_slot,
};
use crate::os::source::DEVICE_PREFIX;
use crate::plan::netns::Netns;
use crate::plan::{CapturePlan, DnsPlan, Plan, names};

/// Why names of the whole host cannot be looked up through the server.
#[derive(Debug, Error)]
pub(in crate::app) enum HostNamesError {
    /// Somebody looks after names here who leaves them to nobody.
    #[error(
        "{typed}: {keeper} looks after the names of this host, and cannot be asked to ask us; write: {run}",
        run = .typed.run()
    )]
    Managed {
        /// What wants names.
        typed: Typed,
        /// Who looks after them.
        keeper: &'static str,
    },
    /// It does not answer.
    #[error(
        "{0}: systemd-resolved looks after the names of this host, and does not answer on D-Bus; start it: sudo systemctl start \
         dbus systemd-resolved, or write: {run}",
        run = .0.run()
    )]
    Silent(Typed),
    /// Another instance has the file.
    #[error(
        "{typed}: /etc/resolv.conf names one name server for all programs, and that is the one of {whose} already; end that first: \
         underpass down {down}, or write: {run}",
        whose = .other.as_ref().map_or("another underpass".to_owned(), |name| format!("underpass {name}")),
        down = .other.as_deref().unwrap_or("--all"),
        run = .typed.run()
    )]
    Taken {
        /// What wants names.
        typed: Typed,
        /// The other one's name, where it is known.
        other: Option<String>,
    },
    /// Name servers are for everybody.
    #[error(
        "names (--dns, hosts by name) are looked up for every user of this host, and --user and --group capture for some alone; leave one of \
         them out"
    )]
    Users,
    /// Elsewhere there is another file, and it is not known which.
    #[error(
        "names in {path}: which resolv.conf programs there read is known by a name or a process alone; write --netns NAME (ip netns attach \
         NAME PID gives it one) or --netns pid:N, for a container: --netns pid:$(docker inspect -f '{{{{.State.Pid}}}}' CONTAINER)",
        path = .0.display()
    )]
    Elsewhere(PathBuf),
    /// The system would not.
    #[error("names: it cannot be found out who looks after the names of this host: {0}")]
    Io(#[from] io::Error),
}

/// What was typed that wants names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::app) enum Typed {
    /// `--dns`, with or without domains.
    Dns,
    /// Hosts, by their names.
    Hosts,
}

impl Typed {
    fn of(dns: &DnsPlan) -> Self {
        match dns.is_nobody_asked && !dns.is_all_by_name {
            true => Self::Hosts,
            false => Self::Dns,
        }
    }

    /// What does without the host's names.
    const fn run(self) -> &'static str {
        match self {
            Self::Dns => "underpass run --dns ... -- COMMAND",
            Self::Hosts => "underpass run ... -- COMMAND",
        }
    }
}

impl fmt::Display for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dns => "--dns",
            Self::Hosts => "hosts by name",
        })
    }
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
                    "names: programs in {name} ask the systemd-resolved of this host, whatever their resolv.conf says; have them not: \
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
    let typed = Typed::of(dns);
    match keeper.by() {
        None if keeper == Keeper::SilentResolved => Err(HostNamesError::Silent(typed)),
        None => Err(HostNamesError::Managed {
            typed,
            keeper: keeper.name(),
        }),
        Some(by) => match others_slot(by) {
            Some(slot) => Err(HostNamesError::Taken {
                typed,
                other: name_of(slot),
            }),
            None => Ok(keeper),
        },
    }
}

/// What `underpass down` calls the instance in `slot`, where that is one of who asks.
fn name_of(slot: u32) -> Option<String> {
    let device = format!("{DEVICE_PREFIX}{slot}");
    let mut running = instances::running().into_iter();
    let found = running.find(|one| {
        let report = one.report.as_ref().ok();
        report.and_then(|report| report.device.as_deref()) == Some(&device)
    });
    found.map(|one| one.found.name)
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
    names::servers(&resolv_conf(), |name| if_nametoindex(name).ok())
}

fn resolv_conf() -> String {
    std::fs::read_to_string(RESOLV_CONF).unwrap_or_default()
}

/// What is looked up here on the way to the server, whatever `dns` has; but what was typed as a host of the far side is that, unless it is
/// a server on the way.
fn asked_near(plan: &Plan, dns: &DnsPlan) -> Vec<String> {
    let is_typed = |name: &str| {
        let mut hosts = dns.hosts.iter();
        hosts.any(|host| !host.is_below && host.has(name))
    };
    let text = resolv_conf();
    let by_command = names::asked_for(&plan.ssh.command_names(), &text);
    let mut all = names::asked_for(&plan.ssh.server_names(), &text);
    all.extend(by_command.into_iter().filter(|name| !is_typed(name)));
    debug!(
        "names: looked up here, on the way to the server: {}",
        all.join(", ")
    );
    all
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
        if let (By::Resolved, more @ 1..) = (by, left_out(&wish)) {
            warn!(
                "systemd-resolved takes no more domains, and names of addresses in {more} zones (in-addr.arpa, ip6.arpa) are not asked \
                 of underpass; capture fewer networks, or larger ones"
            );
        }
        Ok(Self {
            wish,
            // Elsewhere nobody connects to the server for us.
            world: match near.is_elsewhere() {
                true => world,
                false => world.except(&asked_near(plan, dns)),
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
        let servers = near.servers();
        if servers.is_empty() && !world.domains().is_empty() {
            warn!("{}", near::silence(&servers));
        }
        Names::new(inlet, at, address, world, (&far, &servers)).looking_at(near)
    }
}
