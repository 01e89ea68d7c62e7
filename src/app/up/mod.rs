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
use self::setup::Setup;
use self::signals::Signals;
use super::exit::Exit;
use super::helper::Helper;
use super::surroundings;
use crate::carrier::prompt::{self, Prompter};
use crate::carrier::{AnyCarrier, ConnectError, Link, Steady};
use crate::inlet::tun::Tun;
use crate::os::helper::{Hand, HandError};
use crate::os::{Netlink, NetlinkError, host, limits, memory};
use crate::plan::{CapturePlan, Plan, PlanError, advice};

/// Why packets do not flow, or no longer.
#[derive(Debug, Error)]
enum UpError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Hand(#[from] HandError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
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
            Self::Hand(error) => error.into(),
            Self::Connect(error) | Self::NotAgain(error) => error.into(),
            _ => Exit::Failure,
        }
    }
}

/// Runs until a signal, the end that the plan sets, or something that trying again does not mend.
/// `helper` is the privileged part.
pub fn run(plan: &Plan, helper: Helper) -> Exit {
    memory::keep_freed_memory();
    limits::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(up(plan, helper));
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

async fn up(plan: &Plan, helper: Helper) -> Exit {
    match until_stopped(plan, helper).await {
        Ok(exit) => exit,
        Err(error) => {
            tracing::error!("{error}");
            error.exit()
        }
    }
}

async fn until_stopped(plan: &Plan, helper: Helper) -> Result<Exit, UpError> {
    let mut signals = Signals::new().map_err(io_error("cannot watch for signals"))?;
    let hand = tokio::select! {
        hand = helper.greet() => Arc::new(hand?),
        () = signals.stop() => return Ok(Exit::Success),
    };
    let end = with_hand(plan, &hand, &mut signals).await;
    // What is left goes now, also when nothing came of it.
    hand.end().await;
    end
}

async fn with_hand(plan: &Plan, hand: &Arc<Hand>, signals: &mut Signals) -> Result<Exit, UpError> {
    let prepared = tokio::select! {
        prepared = prepare(plan, hand) => prepared?,
        () = hand.gone() => return Err(HandError::Gone.into()),
        () = signals.stop() => return Ok(Exit::Success),
    };
    // To its end, also when a signal comes meanwhile: what was made by then would not be taken back.
    let mut running = prepared.capture(plan).await?;
    let end = running.until_end(&plan.life, signals).await;
    if let End::Over(why) = &end {
        info!("stopping: {why}");
    }
    let undone = running.stop().await;
    match (end, undone) {
        (End::Signal | End::Over(_), true) => Ok(Exit::Success),
        (End::Signal | End::Over(_), false) => Ok(Exit::NotUndone),
        (End::Lost(error), _) => Err(UpError::NotAgain(error)),
        (End::Helper, _) => Err(HandError::Gone.into()),
        (End::Device(source), _) => Err(UpError::Io {
            step: "the TUN device is gone",
            source,
        }),
    }
}

/// The stages, in order, but for the last. An early return drops what was made before: the device goes with its
/// descriptor, and routes and rules come last, in [`Prepared::capture`].
async fn prepare(plan: &Plan, hand: &Arc<Hand>) -> Result<Prepared, UpError> {
    let began = Instant::now();
    let device = hand.open(&plan.device).await?;
    if let Some(cleared) = &device.cleared {
        info!("removed what a killed run left: {cleared}");
    }
    if !hand.is_elsewhere() {
        advise(device.slot, &plan.capture).await?;
    }
    let prompter = prompt::usual(plan.ssh.login.batch, |name| std::env::var_os(name));
    let carrier = AnyCarrier::connect(&plan.carrier, &plan.ssh, Arc::clone(&prompter)).await?;
    debug!("logged in to {}", carrier.description());
    let exempt = carrier.server_addresses();
    let setup = Setup::new(Arc::clone(hand), &plan.capture, exempt);
    let name = device.tun.name().to_owned();
    let device = device
        .tun
        .watch()
        .map_err(io_error("cannot watch the TUN device"))?;
    let session = Arc::new(Session::new(Tun::new(device, seed()), Steady::new(carrier)));
    Ok(Prepared {
        began,
        device: name,
        setup,
        prompter,
        session,
    })
}

/// Logged in, with a device that nothing is routed to yet.
struct Prepared {
    began: Instant,
    /// The device's name.
    device: String,
    setup: Setup,
    prompter: Arc<dyn Prompter>,
    session: Arc<Session<Steady<AnyCarrier>>>,
}

impl Prepared {
    /// The last stage: packets flow from here on.
    async fn capture(self, plan: &Plan) -> Result<Running<Reconnect>, UpError> {
        let changed = Arc::new(Notify::new());
        // No device of ours is in this network then; loopback stands in for it.
        let device = match self.setup.is_elsewhere() {
            true => "lo",
            false => self.device.as_str(),
        };
        let watcher = network::watch(device, Arc::clone(&changed))
            .map_err(io_error("cannot watch the network"))?;
        let driver = tokio::spawn(Arc::clone(&self.session).drive());
        self.setup.apply().await?;
        let setup = Arc::new(Mutex::new(self.setup));
        info!(
            "ready: {} through {}@{} on {} in {:.2} s",
            Captured(&plan.capture),
            plan.ssh.user,
            plan.ssh.host,
            self.device,
            self.began.elapsed().as_secs_f32()
        );
        Ok(Running {
            session: self.session,
            driver,
            connector: Reconnect::new(&plan.ssh, self.prompter, Arc::clone(&setup)),
            changed,
            watcher: tokio::spawn(watcher),
            setup,
        })
    }
}

/// Warns of what `capture` does to the host's networks, which everybody may read.
async fn advise(slot: u32, capture: &CapturePlan) -> Result<(), UpError> {
    let networks = host::networks(&Netlink::new()?, slot).await?;
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
