//! `up`: from a plan to packets that flow, and back.
//!
//! The stages stand in [`prepare`] in their order, and the last in [`Prepared::capture`]; what each has made is
//! taken back in reverse by [`Running::stop`]. Whatever happens in between, the device is not persistent and vanishes
//! with this process.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::exit::Exit;
use super::surroundings;
use crate::carrier::prompt;
use crate::carrier::{ConnectError, Link, LostReason, RusshCarrier};
use crate::inlet::tun::{Tun, TunInbound};
use crate::net::{Inbound, OpenFailure, Target};
use crate::os::{
    ApplyError, Netlink, NetlinkError, Slot, SlotError, TunDevice, TunError, Undo, apply, host,
    limits, memory, routes, stale,
};
use crate::plan::{CapturePlan, Plan, PlanError, advice};
use crate::relay::{Outcome, relay};
use crate::stats::Stats;

/// How long the goodbye may take: a server that no longer answers holds nobody up.
const GOODBYE: Duration = Duration::from_secs(2);

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
    #[error("lost the SSH connection: {0}")]
    Lost(LostReason),
}

impl UpError {
    fn exit(&self) -> Exit {
        match self {
            Self::Plan(_) => Exit::Usage,
            Self::Device(error) => error.into(),
            Self::Slot(error) => error.into(),
            Self::Apply(error) => error.into(),
            Self::Connect(ConnectError::Refused { .. } | ConnectError::TooManyTries { .. }) => {
                Exit::LoginRefused
            }
            Self::Connect(ConnectError::HostKey(_)) => Exit::HostKey,
            Self::Connect(_) | Self::Lost(_) => Exit::Ssh,
            _ => Exit::Failure,
        }
    }
}

/// Runs until a signal, or until the connection is lost.
pub fn run(plan: &Plan) -> Exit {
    memory::keep_freed_memory();
    limits::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(up(plan)),
        Err(error) => super::failed(&error),
    }
}

/// Half of the cores, four at most: a chunk that is handed from one thread to another costs two wake-ups, more than
/// it gains where the other core has work of its own (sshd's peers, the application).
fn workers() -> usize {
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
    let end = running.until_end(&mut signals).await;
    let undone = running.stop().await;
    match (end, undone) {
        (End::Signal, true) => Ok(Exit::Success),
        (End::Signal, false) => Ok(Exit::NotUndone),
        (End::Lost(reason), _) => Err(UpError::Lost(reason)),
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
    let prompter = prompt::usual(plan.ssh.login.batch, |name| std::env::var_os(name));
    let carrier = RusshCarrier::connect(&plan.ssh, prompter).await?;
    debug!("logged in to {}", carrier.description());
    let exempt = carrier.server_addresses();
    let source = host::source(&netlink, &slot, &plan.capture).await?;
    let entries = routes::desired(
        &plan.capture,
        &routes::Setting {
            device: device.name(),
            mtu: device.mtu(),
            tables: slot.tables(),
            source,
            exempt: &exempt,
        },
    );
    let name = device.name().to_owned();
    let device = device
        .watch()
        .map_err(io_error("cannot watch the TUN device"))?;
    let session = Arc::new(Session::new(Tun::new(device, seed()), carrier));
    Ok(Prepared {
        began,
        netlink,
        slot,
        device: name,
        entries,
        session,
    })
}

/// Logged in, with a device that nothing is routed to yet.
struct Prepared {
    began: Instant,
    netlink: Netlink,
    slot: Slot,
    device: String,
    entries: Vec<routes::Entry>,
    session: Arc<Session>,
}

impl Prepared {
    /// The last stage: packets flow from here on.
    async fn capture(self, plan: &Plan) -> Result<Running, UpError> {
        let driver = tokio::spawn(Arc::clone(&self.session).drive());
        let undo = apply(&self.netlink, &self.device, &self.entries).await?;
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
            undo,
            _slot: self.slot,
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
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn io_error(step: &'static str) -> impl FnOnce(io::Error) -> UpError {
    move |source| UpError::Io { step, source }
}

/// Inlet, carrier and counters: what every flow's task shares.
struct Session {
    inlet: Tun<TunDevice>,
    carrier: RusshCarrier,
    stats: Stats,
    told_of_policy: AtomicBool,
}

impl Session {
    fn new(inlet: Tun<TunDevice>, carrier: RusshCarrier) -> Self {
        Self {
            inlet,
            carrier,
            stats: Stats::default(),
            told_of_policy: AtomicBool::new(false),
        }
    }

    /// Runs the inlet; each flow gets a task of its own. How many there can be is bounded by the engine.
    async fn drive(self: Arc<Self>) -> io::Result<()> {
        let session = &self;
        self.inlet
            .run(|inbound| {
                tokio::spawn(Arc::clone(session).carry(inbound));
            })
            .await
    }

    async fn carry(self: Arc<Self>, inbound: TunInbound<TunDevice>) {
        let target = inbound.target();
        // Boxed: awaited in place, a future is kept twice.
        let outcome = Box::pin(relay(inbound, &self.carrier, &self.stats.traffic)).await;
        self.stats.count(&outcome);
        debug!("{target}: {outcome}");
        if let Outcome::Refused(error) = &outcome
            && error.failure == OpenFailure::Prohibited
        {
            self.tell_of_policy(target);
        }
    }

    /// Once: an application that tries again must not fill the log.
    fn tell_of_policy(&self, target: Target) {
        if !self.told_of_policy.swap(true, Ordering::Relaxed) {
            warn!(
                "the SSH server forbids {target}; its administrator can allow it with PermitOpen or \
                 AllowTcpForwarding in sshd_config, or permitopen= in authorized_keys"
            );
        }
    }
}

/// Everything that is up.
struct Running {
    session: Arc<Session>,
    driver: JoinHandle<io::Result<()>>,
    undo: Undo,
    _slot: Slot,
}

/// Why a run ends.
enum End {
    Signal,
    Lost(LostReason),
    Device(io::Error),
}

impl Running {
    async fn until_end(&mut self, signals: &mut Signals) -> End {
        tokio::select! {
            () = signals.stop() => End::Signal,
            reason = self.session.carrier.lost() => End::Lost(reason),
            result = &mut self.driver => End::Device(match result {
                Ok(Err(error)) => error,
                Ok(Ok(())) => io::ErrorKind::UnexpectedEof.into(),
                Err(error) => error.into(),
            }),
        }
    }

    /// Takes everything back in reverse order; whether all of it went.
    async fn stop(self) -> bool {
        // While the routes are there: without one back to the target, the kernel takes no reset from it.
        self.session.inlet.reset_flows();
        let left = self.undo.undo().await;
        for line in &left {
            warn!("could not take back: {line}; underpass cleanup removes it");
        }
        self.driver.abort();
        let goodbye = self.session.carrier.shutdown();
        if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
            debug!("the server did not take the goodbye");
        }
        debug!("{}", self.session.stats);
        for (reason, count) in self.session.inlet.drops().nonzero() {
            debug!("packets not carried, {reason}: {count}");
        }
        let failed_writes = self.session.inlet.failed_writes();
        if failed_writes > 0 {
            debug!("packets that the device did not take: {failed_writes}");
        }
        if left.is_empty() {
            info!("stopped; routes and rules are as before");
        }
        left.is_empty()
    }
}

/// The signals that ask us to stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what `f` returns, in bytes.
    fn size_of_output<A, B, F>(_: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_flows_task_is_small() {
        let bytes = size_of_output(Session::carry);
        assert!(bytes <= 1024, "{bytes} bytes for each open flow");
    }
}
