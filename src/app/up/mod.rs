//! `up`: from a plan to packets that flow, and back.
//!
//! The stages stand in [`prepare`] in their order, and the last in [`Prepared::capture`]; what each has made is
//! taken back in reverse by [`Running::stop`]. Whatever happens in between, the device is not persistent and vanishes
//! with this process.

pub mod beside;
mod board;
mod datagrams;
mod error;
pub(super) mod far_networks;
pub(super) mod flows;
pub(super) mod host_names;
mod in_turn;
mod instance;
pub(super) mod leads;
pub(super) mod life;
pub(super) mod names;
mod near;
pub(super) mod network;
mod own_name;
mod reconnect;
pub(super) mod records;
mod reload;
mod running;
mod sanity;
pub(super) mod session;
mod setup;
pub(super) mod shown;
mod signals;
mod told_names;
mod whose;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Mutex, Notify};
use tracing::{debug, info, warn};

use self::beside::{Beside, Inlet, Tunnel, wished};
use self::board::Board;
use self::error::{UpError, io_error};
use self::host_names::HostNames;
pub use self::instance::{Apart, Instance, Replan};
use self::leads::Mapped;
use self::near::Near;
use self::reconnect::Reconnect;
use self::records::Who;
use self::reload::Reloader;
use self::running::{End, Running};
use self::session::Session;
use self::setup::Setup;
use self::signals::Orders;
use super::control::Server;
use super::exit::Exit;
use super::helping::Helper;
use super::{log, surroundings, threads};
use crate::audit::{Audit, Lookup};
use crate::carrier::prompt::{self, Prompter};
use crate::carrier::{AnyCarrier, Link, Steady};
use crate::inlet::tap::Tap;
use crate::inlet::tun::{NameServers, Tun};
use crate::os::daemon::Attached;
use crate::os::helper::{Hand, HandError};
use crate::os::names::{By, Keeper};
use crate::os::pid_file::PidFile;
use crate::os::routes::name_server;
use crate::os::{Netlink, host, limits, memory, notify, stale};
use crate::plan::advice::{self, HostNetworks};
use crate::plan::{CapturePlan, DeviceKind, DnsPlan, FarNetworks, Plan};

/// Runs until a signal or a request, the end that the plan sets, or something that trying again does not mend. `helper` is
/// the privileged part.
pub fn run(plan: &Plan, instance: Instance, helper: Helper) -> Exit {
    memory::keep_freed_memory();
    limits::raise_open_files();
    match threads::runtime() {
        Ok(runtime) => {
            let exit = runtime.block_on(up(plan, instance, helper));
            prompt::give_back_terminal();
            // A question on the terminal that nobody answers holds nobody up.
            runtime.shutdown_background();
            exit
        }
        Err(error) => super::failed(&error),
    }
}

async fn up(plan: &Plan, mut instance: Instance, helper: Helper) -> Exit {
    let (claim, listener) = instance.claimed.take().unzip();
    let exit = match answering(plan, instance, helper, listener).await {
        Ok(exit) => exit,
        Err(error) => {
            tracing::error!("{error}");
            error.exit()
        }
    };
    if exit == Exit::Success {
        log::forget();
    }
    drop(claim);
    exit
}

/// Where both processes of the privileged part were killed, nobody has taken rules back. We may not; everybody may look.
async fn tell_what_is_left() {
    let left = async { stale::left(&Netlink::new()?).await };
    match left.await {
        Ok(left) if left.is_empty() => {}
        Ok(left) => warn!(
            "the privileged part has left {left}, which lead nowhere: the next start removes them, or now: sudo underpass cleanup"
        ),
        Err(error) => debug!("what it left is not known: {error}"),
    }
}

/// Answers on the control socket meanwhile.
async fn answering(
    plan: &Plan,
    instance: Instance,
    helper: Helper,
    listener: Option<UnixListener>,
) -> Result<Exit, UpError> {
    let (mut orders, sender) = Orders::new().map_err(io_error("cannot watch for signals"))?;
    let front = instance.attached.as_ref().map(Attached::front);
    let front = front.transpose();
    orders.with_front(front.map_err(io_error("cannot watch who waits"))?);
    let board = Arc::new(Board::new(&instance.name, plan));
    let server = listener.map(|listener| {
        let board: Arc<Board> = Arc::clone(&board);
        Server::start(listener, board, sender)
    });
    let server = server
        .transpose()
        .map_err(io_error("cannot watch the control socket"))?;
    let result = until_stopped(plan, instance, helper, &board, &mut orders).await;
    let exit = result.as_ref().map_or_else(UpError::exit, |exit| *exit);
    if let Some(server) = server {
        server.end(exit as u8).await;
    }
    result
}

async fn until_stopped(
    plan: &Plan,
    instance: Instance,
    helper: Helper,
    board: &Arc<Board>,
    orders: &mut Orders,
) -> Result<Exit, UpError> {
    notify::status(&board.line());
    let hand = tokio::select! {
        hand = helper.greet() => Arc::new(hand?),
        () = orders.stop() => return Ok(Exit::Success),
    };
    let end = with_hand(plan, instance, &hand, board, orders).await;
    // What is left goes now, also when nothing came of it.
    hand.end().await;
    match end {
        Err(UpError::Hand(HandError::Gone)) if hand.is_elsewhere() => warn!(
            "what the privileged part may have left in that network leads nowhere; to remove it: sudo nsenter --net=PATH underpass cleanup"
        ),
        Err(UpError::Hand(HandError::Gone)) => tell_what_is_left().await,
        _ => {}
    }
    end
}

async fn with_hand(
    plan: &Plan,
    instance: Instance,
    hand: &Arc<Hand>,
    board: &Arc<Board>,
    orders: &mut Orders,
) -> Result<Exit, UpError> {
    let processes = instance.apart.processes;
    let audit = records::open(plan, || match hand.is_elsewhere() {
        true => Lookup::nowhere(processes),
        false => Lookup::here(processes),
    })?;
    orders.with_audit(audit.clone());
    let prepared = tokio::select! {
        prepared = prepare(plan, audit, instance.apart.names, hand) => prepared?,
        () = hand.gone() => return Err(HandError::Gone.into()),
        () = orders.stop() => return Ok(Exit::Success),
    };
    let keeper = instance.apart.keeper;
    let pid_file = instance.pid_file.as_deref();
    let _pid_file = pid_file
        .map(|path| PidFile::write(path, keeper))
        .transpose()?;
    // To its end, also when a signal comes meanwhile: what was made by then would not be taken back.
    let slot = prepared.slot;
    let session = Arc::clone(&prepared.session);
    let found = prepared.found.clone();
    board.is_placed(&prepared.plan);
    let names = prepared.plan.dns.as_ref().zip(prepared.keeper);
    let names = names.and_then(|(dns, keeper)| Some(told_names::fixed(dns, keeper.by()?)));
    let captured = prepared.capture().await;
    let mut running = captured.inspect_err(|error| records::end(&session, &error.to_string()))?;
    board.up(&running.session, &running.device, names);
    if let Some(attached) = instance.attached {
        if let Err(source) = leave_terminal(attached, &instance.name, instance.log_file.as_deref())
        {
            running.stop().await;
            let step = "cannot go to the background";
            return Err(UpError::Io { step, source });
        }
        orders.without_terminal();
    }
    notify::ready(&board.line());
    let reloader = Reloader {
        replan: instance.replan,
        found,
        slot,
        session: Arc::clone(&session),
        setup: Arc::clone(&running.setup),
        board: Arc::clone(board),
    };
    let end = running.until_end(&plan.life, orders, &reloader).await;
    if let End::Over(why) = &end {
        info!("stopping: {why}");
    }
    board.stopping();
    notify::stopping();
    let undone = orders.until_stopped(running.stop()).await;
    records::end(&session, &end.to_string());
    match (end, undone) {
        (End::Told | End::Over(_), true) => Ok(Exit::Success),
        (End::Told | End::Over(_), false) => Ok(Exit::NotUndone),
        (End::Lost(error), _) => Err(UpError::NotAgain(error)),
        (End::Helper, _) => Err(HandError::Gone.into()),
        (End::Device(source), _) => Err(UpError::Io {
            step: "the TUN device is gone, as after ip link del; underpass up makes another",
            source,
        }),
    }
}

/// The last words on the terminal, and then to the background.
fn leave_terminal(attached: Attached, name: &str, log_file: Option<&Path>) -> io::Result<()> {
    info!(
        "in the background as process {}: underpass status {name} tells of it, underpass down {name} ends it",
        std::process::id()
    );
    log::leave_terminal(log_file);
    attached.detach()
}

/// The stages, in order, but for the last. An early return drops what was made before: the device goes with its
/// descriptor, and routes and rules come last, in [`Prepared::capture`].
async fn prepare(
    plan: &Plan,
    audit: Option<Arc<Audit>>,
    keeper: Option<Keeper>,
    hand: &Arc<Hand>,
) -> Result<Prepared, UpError> {
    let began = Instant::now();
    let device = hand.open(&plan.device).await?;
    if let Some(cleared) = &device.cleared {
        info!("removed what a killed run left: {cleared}");
    }
    let mut plan = plan.clone().in_slot(device.slot);
    let own = IpAddr::from(name_server(device.slot));
    let by = keeper.and_then(Keeper::by);
    let near = by.map(|by| near(hand, by, device.near));
    if let Some((dns, near)) = plan.dns.as_ref().zip(near.as_ref()) {
        host_names::check(dns, &plan.capture, near)?;
    }
    // Where there is more to capture, that is warned of when it is known.
    if !hand.is_elsewhere() && plan.auto_nets.is_none() {
        advise(device.slot, &plan.capture).await?;
    }
    let prompter = prompt::usual(plan.ssh.login.batch, |name| std::env::var_os(name));
    let carrier = AnyCarrier::connect(&plan.carrier, &plan.ssh, Arc::clone(&prompter)).await?;
    debug!("logged in to {}", carrier.description());
    let found = far_networks(
        &plan,
        &carrier,
        (!hand.is_elsewhere()).then_some(device.slot),
    )
    .await?;
    plan.capture = far_networks::with_found(plan.capture, found.as_ref());
    if !hand.is_elsewhere() && found.is_some() {
        advise(device.slot, &plan.capture).await?;
    }
    let mut exempt = Vec::new();
    if !hand.is_elsewhere() {
        exempt = carrier.server_addresses();
        advise_of_server(device.slot, &plan.capture, &exempt).await?;
    }
    let names = match plan.dns.as_ref().zip(by.zip(near)) {
        Some((dns, of)) => Some(HostNames::find(&plan, dns, of, &carrier).await?),
        None => None,
    };
    let near = names.as_ref().map(HostNames::near);
    exempt.extend(near.iter().flat_map(Near::addresses));
    let tunnel = wished::tunnel(
        &plan,
        (!hand.is_elsewhere()).then_some(device.slot),
        &carrier,
    )
    .await?;
    if !hand.is_elsewhere() {
        // Also those that the tunnel's own connection has.
        let all = carrier.server_addresses();
        let more: Vec<IpAddr> = all.into_iter().filter(|ip| !exempt.contains(ip)).collect();
        exempt.extend(more);
    }
    let setup = Setup::new(
        Arc::clone(hand),
        &plan.capture,
        exempt,
        names.as_ref().map(|names| names.wish().clone()),
        plan.dns.clone(),
    );
    let setup = setup.in_tunnel(tunnel.open().map(Tunnel::address));
    let name = device.tun.name().to_owned();
    let slot = device.slot;
    let device = device
        .tun
        .watch()
        .map_err(io_error("cannot watch the TUN device"))?;
    if let Some(audit) = &audit {
        records::begin(audit, &plan, &name, carrier.description());
    }
    let at = NameServers([names.is_some().then_some(own), None]);
    let (inlet, names) = match plan.device.kind {
        DeviceKind::Tap => (Inlet::Frames(Arc::new(Tap::new(device))), None),
        DeviceKind::Tun | DeviceKind::PlainTun => {
            let tun = Tun::new(device, seed(), at);
            let names = names.map(|names| names.behind(&tun, own));
            (Inlet::packets(tun), names)
        }
    };
    let server = carrier.description().server.map(|server| server.ip());
    let beside = Beside::new(&plan, &inlet, tunnel, server, audit.as_ref());
    let leads = Mapped::new(Steady::new(carrier), &plan.capture);
    let session = Arc::new(Session::new(inlet, leads, audit, names, beside));
    Ok(Prepared {
        plan,
        found,
        began,
        slot,
        device: name,
        setup,
        keeper,
        near,
        prompter,
        session,
    })
}

/// Whom programs asked before; `servers` are those of another network.
fn near(hand: &Arc<Hand>, by: By, servers: Vec<SocketAddr>) -> Near {
    match hand.is_elsewhere() {
        true => Near::Elsewhere {
            hand: Arc::clone(hand),
            servers,
        },
        false => Near::here(by),
    }
}

/// What the server has routes for, where that is wanted. `slot` is ours where what is captured is of this host.
async fn far_networks(
    plan: &Plan,
    carrier: &AnyCarrier,
    slot: Option<u32>,
) -> Result<Option<FarNetworks>, UpError> {
    let Some(wanted) = plan.auto_nets else {
        return Ok(None);
    };
    let here = match slot {
        Some(slot) => host::networks(&Netlink::new()?, slot).await?,
        None => HostNetworks::default(),
    };
    let found = far_networks::find(plan, wanted, carrier, &here).await?;
    Ok(Some(found))
}

/// Logged in, with a device that nothing is routed to yet.
struct Prepared {
    /// With what is captured.
    plan: Plan,
    /// What the server has added to it.
    found: Option<FarNetworks>,
    began: Instant,
    /// Number of the slot that is claimed for the device.
    slot: u32,
    /// The device's name.
    device: String,
    setup: Setup,
    /// Looks after the host's names, where those are ours.
    keeper: Option<Keeper>,
    near: Option<Near>,
    prompter: Arc<dyn Prompter>,
    session: Arc<Session<Mapped<Steady<AnyCarrier>>>>,
}

impl Prepared {
    /// The last stage: packets flow from here on.
    async fn capture(self) -> Result<Running<Reconnect>, UpError> {
        let plan = &self.plan;
        let changed = Arc::new(Notify::new());
        // Before its network leads through us, and what the host asks for the answer as well.
        let whose = whose::told(&plan.capture.whose).await;
        // No device of ours is in this network then; loopback stands in for it.
        let device = match self.setup.is_elsewhere() {
            true => "lo",
            false => self.device.as_str(),
        };
        let watcher = network::watch(device, Arc::clone(&changed))
            .map_err(io_error("cannot watch the network"))?;
        let driver = tokio::spawn(Arc::clone(&self.session).drive());
        let beside = tokio::spawn(beside_flows(Arc::clone(&self.session)));
        tokio::spawn(write_down(Arc::clone(&self.session), Who::new(plan)));
        tokio::spawn(ask_for_names(Arc::clone(&self.session), self.near.clone()));
        self.setup.apply().await?;
        tokio::spawn(check_names(Arc::clone(&self.session), self.keeper));
        let setup = Arc::new(Mutex::new(self.setup));
        whose.groups.iter().for_each(|line| info!("{line}"));
        tell_hosts(plan.dns.as_ref());
        info!(
            "ready: {}{} through {}@{} on {} in {:.2} s",
            Captured(&plan.capture),
            whose.whom,
            plan.ssh.user,
            plan.ssh.host,
            self.device,
            self.began.elapsed().as_secs_f32()
        );
        Ok(Running {
            session: self.session,
            driver,
            beside,
            connector: Reconnect::new(&plan.ssh, self.prompter, Arc::clone(&setup), self.near),
            changed,
            watcher: tokio::spawn(watcher),
            setup,
            device: self.device,
        })
    }
}

/// Which hosts are captured by their names: of them, what is ready shows only what stands for them.
fn tell_hosts(dns: Option<&DnsPlan>) {
    let hosts = dns.map_or(&[][..], |dns| &dns.hosts);
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    if !hosts.is_empty() {
        info!("captured by name: {}", hosts.join(", "));
    }
}

/// Writes down what becomes of the connection.
async fn write_down(session: Arc<Session<Mapped<Steady<AnyCarrier>>>>, who: Who) {
    records::follow(session.audit.as_ref(), session.leads.server(), who).await;
}

/// Carries what is no flow. A task of its own beside the driver: what wakes it need not wake another thread.
async fn beside_flows(session: Arc<Session<Mapped<Steady<AnyCarrier>>>>) {
    match session.beside.run(session.leads.server()).await {}
}

/// Asks name servers, where names are looked up through the server.
async fn ask_for_names(session: Arc<Session<Mapped<Steady<AnyCarrier>>>>, near: Option<Near>) {
    if let Some((names, near)) = session.names.as_ref().zip(near) {
        names.run(&session.leads.server().brief(), &near).await;
    }
}

/// Says where programs ask somebody else in spite of all. Of those in another network that is not known: no process of ours is there,
/// with their files, that could ask as they do.
async fn check_names(session: Arc<Session<Mapped<Steady<AnyCarrier>>>>, keeper: Option<Keeper>) {
    if let Some(who) = keeper.filter(|keeper| keeper.writes_the_file()) {
        info!(
            "names: {} writes /etc/resolv.conf, which names underpass from here on, again whenever it is written; the newest that \
             others wrote comes back at the end",
            who.name()
        );
    }
    let keeper = keeper.filter(|keeper| !keeper.is_elsewhere());
    if let Some((names, keeper)) = session.names.as_ref().zip(keeper)
        && let Some(warning) = sanity::check(names, keeper).await
    {
        warn!("{warning}");
    }
}

/// Warns of what `capture` does to the host's networks, which everybody may read.
async fn advise(slot: u32, capture: &CapturePlan) -> Result<(), UpError> {
    let networks = host::networks(&Netlink::new()?, slot).await?;
    let from = surroundings::logged_in_from();
    for line in advice::advise(capture, &networks, from)? {
        warn!("{line}");
    }
    for line in whose::missing(&capture.whose, &networks) {
        warn!("{line}");
    }
    Ok(())
}

/// The same for the addresses of the server.
async fn advise_of_server(
    slot: u32,
    capture: &CapturePlan,
    servers: &[IpAddr],
) -> Result<(), UpError> {
    let is_hidden = |server: &IpAddr| capture.hidden_by(*server).is_some();
    if servers.iter().any(is_hidden) {
        let networks = host::networks(&Netlink::new()?, slot).await?;
        for line in advice::advise_of_server(capture, networks, servers) {
            warn!("{line}");
        }
    }
    Ok(())
}

/// A number that nobody can guess: the standard library seeds its hashers from the system.
pub(super) fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
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
