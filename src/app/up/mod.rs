//! `up`: from a plan to packets that flow, and back.
//!
//! The stages stand in [`prepare`] in their order, and the last in [`Prepared::capture`]; what each has made is
//! taken back in reverse by [`Running::stop`]. Whatever happens in between, the device is not persistent and vanishes
//! with this process.

pub(super) mod life;
pub(super) mod network;
mod reconnect;
mod running;
pub(super) mod session;
mod setup;
mod signals;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use thiserror::Error;
use tokio::sync::{Mutex, Notify};
use tracing::{debug, info, warn};

use self::reconnect::Reconnect;
use self::running::{End, Running};
use self::session::Session;
use self::setup::Wanted;
use self::signals::Signals;
use super::exit::Exit;
use super::surroundings;
use crate::carrier::prompt::{self, Prompter};
use crate::carrier::{AnyCarrier, ConnectError, Link, Steady};
use crate::inlet::tun::Tun;
use crate::os::{
    ApplyError, Netlink, NetlinkError, Slot, SlotError, TunDevice, TunError, host, limits, memory,
    stale,
};
use crate::plan::{CapturePlan, Plan, PlanError, advice};

/// Why packets do not flow, or no longer.
#[derive(Debug, Error)]
enum UpError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Device(#[from] TunError),
    #[error(transparent)]
    Slot(#[from] SlotError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("could not read the host's networks: {0}")]
    Netlink(#[from] NetlinkError),
    #[error("{step}: {source}")]
    Io {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the connection was lost, and trying again does not mend it: {0}")]
    NotAgain(#[source] ConnectError),
}

impl UpError {
    fn exit(&self) -> Exit {
        match self {
            Self::Plan(_) => Exit::Usage,
            Self::Device(error) => error.into(),
            Self::Slot(error) => error.into(),
            Self::Apply(error) => error.into(),
            Self::Connect(error) | Self::NotAgain(error) => error.into(),
            _ => Exit::Failure,
        }
    }
}

/// Runs until a signal, the end that the plan sets, or something that trying again does not mend.
pub fn run(plan: &Plan) -> Exit {
    memory::keep_freed_memory();
    limits::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(up(plan));
            prompt::give_back_terminal();
            // A question on the terminal that nobody answers holds nobody up.
            runtime.shutdown_background();
            exit
        }
        Err(error) => super::failed(&error),
    }
}

/// Half of the cores, four at most: a chunk that is handed from one thread to another costs two wake-ups, more than
/// it gains where the other core has work of its own (sshd's peers, the application).
pub(super) fn workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, 4)
}

async fn up(plan: &Plan) -> Exit {
    match until_stopped(plan).await {
        Ok(exit) => exit,
        Err(error) => {
            tracing::error!("{error}");
            error.exit()
        }
    }
}

async fn until_stopped(plan: &Plan) -> Result<Exit, UpError> {
    let mut signals = Signals::new().map_err(io_error("cannot watch for signals"))?;
    let prepared = tokio::select! {
        prepared = prepare(plan) => prepared?,
        () = signals.stop() => return Ok(Exit::Success),
    };
    // To its end, also when a signal comes meanwhile: what was made by then would not be taken back.
    let mut running = prepared.capture(plan).await?;
    let end = running.until_end(&plan.life, &mut signals).await;
    if let End::Over(why) = &end {
        info!("stopping: {why}");
    }
    let undone = running.stop().await;
    match (end, undone) {
        (End::Signal | End::Over(_), true) => Ok(Exit::Success),
        (End::Signal | End::Over(_), false) => Ok(Exit::NotUndone),
        (End::Lost(error), _) => Err(UpError::NotAgain(error)),
        (End::Device(source), _) => Err(UpError::Io {
            step: "the TUN device is gone",
            source,
        }),
    }
}

/// The stages, in order, but for the last. An early return drops what was made before: the device goes with its
/// descriptor, and routes and rules come last, in [`Prepared::capture`].
async fn prepare(plan: &Plan) -> Result<Prepared, UpError> {
    let began = Instant::now();
    let netlink = Netlink::new()?;
    let slot = claim(&netlink).await?;
    let device = TunDevice::open(&plan.device)?;
    advise(&netlink, &slot, &plan.capture).await?;
    let prompter = prompt::usual(plan.ssh.login.batch, plan.ssh.caller.as_ref(), |name| {
        std::env::var_os(name)
    });
    let carrier = AnyCarrier::connect(&plan.carrier, &plan.ssh, Arc::clone(&prompter)).await?;
    debug!("logged in to {}", carrier.description());
    let source = host::source(&netlink, &slot, &plan.capture).await?;
    let exempt = carrier.server_addresses();
    let wanted = Wanted::new(&plan.capture, &device, &slot, source, exempt);
    let device = device
        .watch()
        .map_err(io_error("cannot watch the TUN device"))?;
    let session = Arc::new(Session::new(Tun::new(device, seed()), Steady::new(carrier)));
    Ok(Prepared {
        began,
        netlink,
        slot,
        wanted,
        prompter,
        session,
    })
}

/// Logged in, with a device that nothing is routed to yet.
struct Prepared {
    began: Instant,
    netlink: Netlink,
    slot: Slot,
    wanted: Wanted,
    prompter: Arc<dyn Prompter>,
    session: Arc<Session<Steady<AnyCarrier>>>,
}

impl Prepared {
    /// The last stage: packets flow from here on.
    async fn capture(self, plan: &Plan) -> Result<Running<Reconnect>, UpError> {
        let changed = Arc::new(Notify::new());
        let device = self.wanted.device.clone();
        let watcher = network::watch(&device, Arc::clone(&changed))
            .map_err(io_error("cannot watch the network"))?;
        let driver = tokio::spawn(Arc::clone(&self.session).drive());
        let setup = Arc::new(Mutex::new(self.wanted.apply(&self.netlink).await?));
        info!(
            "ready: {} through {}@{} on {} in {:.2} s",
            Captured(&plan.capture),
            plan.ssh.user,
            plan.ssh.host,
            device,
            self.began.elapsed().as_secs_f32()
        );
        Ok(Running {
            session: self.session,
            driver,
            connector: Reconnect::new(&plan.ssh, self.prompter, Arc::clone(&setup)),
            changed,
            watcher: tokio::spawn(watcher),
            setup,
            slot: self.slot,
        })
    }
}

/// A slot of our own, after what killed runs left behind has been removed.
async fn claim(netlink: &Netlink) -> Result<Slot, UpError> {
    let slot = Slot::claim()?;
    match stale::clear(netlink, Some(&slot)).await {
        Ok(cleared) if cleared.is_empty() => {}
        Ok(cleared) => info!("removed what a killed run left: {cleared}"),
        // The device, made next, says what to do about that.
        Err(error) if error.errno() == Some(nix::libc::EPERM) => debug!("clearing: {error}"),
        Err(error) => warn!("could not remove what a killed run left: {error}"),
    }
    Ok(slot)
}

async fn advise(netlink: &Netlink, slot: &Slot, capture: &CapturePlan) -> Result<(), UpError> {
    let networks = host::networks(netlink, slot).await?;
    let from = surroundings::logged_in_from();
    for line in advice::advise(capture, &networks, from)? {
        warn!("{line}");
    }
    Ok(())
}

/// A number that nobody can guess: the standard library seeds its hashers from the system.
pub(super) fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn io_error(step: &'static str) -> impl FnOnce(io::Error) -> UpError {
    move |source| UpError::Io { step, source }
}

/// What is captured, for a person.
struct Captured<'a>(&'a CapturePlan);

impl std::fmt::Display for Captured<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, subnet) in self.0.subnets.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{subnet}")?;
        }
        Ok(())
    }
}
