//! `run` and `shell`: a command with a network of its own.
//!
//! This process stays outside: it logs in, and carries what the device in the command's network gives. Once the command
//! has ended, and what it has sent is on its way, so do we. The process that becomes the command is made before the login,
//! so that this one can give up what it does not need.

mod again;
mod child;
mod drain;
mod hangup;
mod named;
mod network;
mod publish;
mod ways;

use std::ffi::OsString;
use std::iter;
use std::net::IpAddr;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use self::again::Again;
use self::child::Running;
use self::hangup::Hangup;
use self::named::{Known, Wanted};
use self::network::Network;
use self::ways::Ways;
use super::exit::{CANNOT_RUN, NOT_EXECUTABLE, NOT_FOUND};
use super::up::beside::{Beside, Inlet, Wished, upload};
use super::up::names::NamesError;
use super::up::records::{self, Who};
use super::up::{self, session::Session};
use super::{confine, looker, surroundings, threads, warned};
use crate::audit::{Addresses, AuditError, Lookup};
use crate::carrier::clients::Clients;
use crate::carrier::prompt;
use crate::carrier::{AnyCarrier, ConnectError, Direct, Link, Steady};
use crate::cli::{CommandArgs, NetworkArgs, UpArgs};
use crate::inlet::tun::Tun;
use crate::os::namespace::{self, EnterError, NamespaceError, Private, Sockets, Waiting};
use crate::os::signals::{self, Signals};
use crate::os::{SocketOwners, TunDevice, limits, memory};
use crate::plan::sources::Use;
use crate::plan::{Plan, PlanWarning, RunPlan, run as run_plan};

/// How long the goodbye may take: a server that no longer answers holds nobody up.
const GOODBYE: Duration = Duration::from_secs(2);
/// The shell of who has none (passwd(5)).
const SHELL: &str = "/bin/sh";

/// Why there is no command, or none any more.
#[derive(Debug, Error)]
enum RunError {
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Names(#[from] NamesError),
    #[error(transparent)]
    Publish(#[from] publish::PublishError),
    #[error(transparent)]
    Enter(#[from] EnterError),
    #[error("{0}: {1}")]
    Io(&'static str, #[source] std::io::Error),
    /// A signal came before the command was there.
    #[error("ended by signal {0}")]
    Signal(i32),
}

impl RunError {
    fn code(&self) -> u8 {
        match self {
            Self::Enter(EnterError::NotFound { .. }) => NOT_FOUND,
            Self::Enter(EnterError::NotExecutable { .. }) => NOT_EXECUTABLE,
            Self::Signal(number) => child::by_signal(*number),
            _ => CANNOT_RUN,
        }
    }
}

fn io(step: &'static str) -> impl FnOnce(std::io::Error) -> RunError {
    move |source| RunError::Io(step, source)
}

/// Runs `command` in the network of `args` to its end, under sudo as who called it. The exit code is its own, or one of
/// ours.
pub fn run(args: &NetworkArgs, command: &[OsString]) -> ExitCode {
    // With their keys and files, and without a privilege: none is needed.
    if let Err(error) = surroundings::become_person() {
        error!("{error}");
        return CANNOT_RUN.into();
    }
    let Some(plan) = plan(args) else {
        return CANNOT_RUN.into();
    };
    match carry(&plan, command) {
        Ok(code) => code.into(),
        Err(error) => {
            if !matches!(error, RunError::Signal(_)) {
                error!("{error}");
            }
            error.code().into()
        }
    }
}

/// Runs the user's shell so.
pub fn shell(args: &NetworkArgs) -> ExitCode {
    let own = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
    let shell = own.or_else(|| surroundings::login_shell().map(OsString::from));
    run(args, &[shell.unwrap_or_else(|| SHELL.into())])
}

/// The options of `up` that say how `up` lives, or whom it captures; why a command has no use for it, and whether it was given.
fn of_up(up: &UpArgs) -> [(&'static str, &'static str, bool); 14] {
    let life = "a command ends when it ends";
    let whose = "nobody but the command is in its network";
    let packets = "packets need a device and routes of the host's";
    [
        (
            "--auto-nets",
            "a command reaches what is named, or everything with --all",
            up.auto_nets,
        ),
        ("--dry-run", life, up.dry_run),
        ("--netns", life, up.netns.is_some()),
        ("--tunnel", packets, up.tunnel.tunnel.is_some()),
        (
            "--tunnel-address",
            packets,
            up.tunnel.tunnel_address.is_some(),
        ),
        ("--tunnel-unit", packets, up.tunnel.tunnel_unit.is_some()),
        ("--user", whose, !up.users.is_empty()),
        ("--gateway", whose, !up.gateway.is_empty()),
        ("--group", whose, !up.groups.is_empty()),
        ("--name", life, up.instance.name.is_some()),
        ("--daemon", life, up.daemon.daemon),
        ("--pidfile", life, up.daemon.pidfile.is_some()),
        ("--for", life, up.limit.is_some()),
        ("--idle-timeout", life, up.idle_timeout.is_some()),
    ]
}

fn plan(args: &NetworkArgs) -> Option<RunPlan> {
    let mut of_up = of_up(&args.up).into_iter();
    if let Some((option, why, _)) = of_up.find(|(.., given)| *given) {
        error!("{option} is for up: {why}; leave it out");
        return None;
    }
    match planned(args) {
        Ok(plan) => Some(plan),
        Err(error) => {
            error!("{error}");
            None
        }
    }
}

fn planned(args: &NetworkArgs) -> anyhow::Result<RunPlan> {
    let mut typed = args.up.clone();
    typed.command = args.command.clone();
    let mut up = super::gathered(&typed, Use::Run)?;
    if up.command.all {
        up.subnets.extend(["0.0.0.0/0", "::/0"].map(str::to_owned));
    }
    let CommandArgs {
        all,
        isolate,
        publish,
    } = &up.command;
    let publish = publish.iter().map(|text| run_plan::publish(text));
    let publish = publish.collect::<Result<_, _>>()?;
    // No rules of the kernel and no loop to the server here, nor a name server that a command of ours asks, so nothing to be
    // warned of.
    let matters = |warning: &PlanWarning| {
        !matches!(
            warning,
            PlanWarning::LastPort { .. }
                | PlanWarning::CommandUnderDefault { .. }
                | PlanWarning::CommandUnderNames { .. }
        )
    };
    let resolved = super::planned(&up)?;
    upload::check(&resolved.0.beside)?;
    Ok(RunPlan {
        plan: warned(resolved, matters),
        all: *all,
        isolate: *isolate,
        publish,
    })
}

/// The stages that a process of one thread has to do, then the rest.
fn carry(plan: &RunPlan, words: &[OsString]) -> Result<u8, RunError> {
    let began = Instant::now();
    let blocked = signals::block().map_err(io("cannot block signals"))?;
    let Network {
        setting,
        stand_ins,
        name_server,
    } = network::of(plan);
    let wanted = Wanted::new(plan, name_server)?;
    let Private {
        device,
        sockets,
        owners,
        inside,
    } = namespace::make(&setting)?;
    debug!(
        "a private network in {:.3} s",
        began.elapsed().as_secs_f32()
    );
    let waiting = inside.prepare(command(words)?, blocked);
    let waiting = waiting.map_err(io("cannot make the command's process"))?;
    let addresses = iter::once(setting.source.v4.into()).chain(setting.source.v6.map(IpAddr::V6));
    let lookup = lookup(&plan.plan, owners, addresses.collect());
    // With all rights that we were given: they say which ports may be had.
    let ports = publish::bind(&plan.publish)?;
    confine::beside_command(&plan.plan).map_err(io("cannot give up what is not needed"))?;
    memory::keep_freed_memory();
    limits::raise_open_files();
    let runtime = threads::runtime().map_err(io("cannot start threads"))?;
    let work = async {
        let mut signals = Signals::new().map_err(io("cannot watch for signals"))?;
        let carrier = tokio::select! {
            carrier = connect(plan) => carrier?,
            number = signals.fatal() => return Err(RunError::Signal(number)),
        };
        let names = match wanted {
            Some(wanted) => Some(wanted.ask(&carrier).await?),
            None => None,
        };
        let ways = Ways::new(plan.clone(), stand_ins, Steady::new(carrier));
        let up = Up::new(plan, device, ways, lookup, names)?.publishing(ports, sockets)?;
        up.run(waiting, &mut signals).await
    };
    let outcome = runtime.block_on(work);
    prompt::give_back_terminal();
    runtime.shutdown_background();
    outcome
}

/// Who finds the owners of sockets in the command's network, for the audit log.
fn lookup(plan: &Plan, sockets: Option<SocketOwners>, addresses: Vec<IpAddr>) -> Lookup {
    if plan.audit.is_some() && sockets.is_none() {
        warn!("the audit log will not say who opens a connection: the kernel has no sock_diag(7)");
    }
    Lookup {
        sockets,
        addresses: Addresses::Only(addresses),
        processes: looker(plan),
    }
}

fn command(words: &[OsString]) -> Result<Command, RunError> {
    let [program, args @ ..] = words else {
        let none = std::io::ErrorKind::NotFound.into();
        return Err(RunError::Io("no command", none));
    };
    let mut command = Command::new(program);
    command.args(args);
    Ok(command)
}

async fn connect(plan: &RunPlan) -> Result<AnyCarrier, ConnectError> {
    let ssh = &plan.plan.ssh;
    let prompter = prompt::usual(ssh.login.batch, |name| std::env::var_os(name));
    let carrier = AnyCarrier::connect(&plan.plan.carrier, ssh, prompter).await?;
    debug!("logged in to {}", carrier.description());
    Ok(carrier)
}

/// Everything that is up before the command is.
struct Up {
    session: Arc<Session<Ways>>,
    hangup: Hangup,
    /// Of published ports.
    clients: Arc<Clients>,
    /// Carries flows, keeps the connection, lets connections in. Ends with this.
    tasks: Vec<JoinHandle<()>>,
}

impl Up {
    fn new(
        plan: &RunPlan,
        device: TunDevice,
        ways: Ways,
        lookup: Lookup,
        names: Option<Known>,
    ) -> Result<Self, RunError> {
        let name = device.name().to_owned();
        let device = device.watch().map_err(io("cannot watch the TUN device"))?;
        let audit = records::open(&plan.plan, || lookup)?;
        if let Some(audit) = &audit
            && let Some(link) = ways.server().link()
        {
            records::begin(audit, &plan.plan, &name, link.description());
        }
        let tun = Tun::new(device, up::seed(), named::at(names.as_ref()));
        let names = names.map(|names| names.behind(&tun));
        let inlet = Inlet::packets(tun);
        let server = ways.server().link();
        let server = server.and_then(|link| Some(link.description().server?.ip()));
        let beside = Beside::new(&plan.plan, &inlet, Wished::Nothing, server, audit.as_ref());
        let session = Arc::new(Session::new(inlet, ways, audit, names, beside));
        let tasks = vec![
            tokio::spawn(drive(Arc::clone(&session))),
            tokio::spawn(keep(Arc::clone(&session), Again::new(&plan.plan.ssh))),
            tokio::spawn(ask_for_names(Arc::clone(&session))),
            tokio::spawn(beside_flows(Arc::clone(&session))),
            tokio::spawn(write_down(Arc::clone(&session), Who::new(&plan.plan))),
        ];
        Ok(Self {
            session,
            hangup: Hangup::new(&plan.plan),
            clients: Arc::default(),
            tasks,
        })
    }

    /// Lets connections in from `ports`, where there are any.
    fn publishing(
        mut self,
        ports: Vec<publish::Bound>,
        sockets: Option<Sockets>,
    ) -> Result<Self, RunError> {
        if let Some(sockets) = sockets {
            let tasks = publish::start(ports, sockets, &self.clients)?;
            self.tasks.extend(tasks);
        }
        Ok(self)
    }

    async fn run(self, waiting: Waiting, signals: &mut Signals) -> Result<u8, RunError> {
        let mut running = Running::new().map_err(io("cannot watch for the command's end"))?;
        let command = waiting.go()?;
        info!("the command runs as process {command}");
        let takes = |come| {
            let is_ours = self.hangup.is_for_log(come);
            if is_ours {
                records::reopen(&self.session);
            }
            is_ours
        };
        let status = running.until_end(command, signals, takes).await;
        self.stop(signals).await;
        Ok(status)
    }

    async fn stop(self, signals: &mut Signals) {
        tokio::select! {
            () = drain::until_quiet(&self.session, &self.clients) => {}
            _ = signals.fatal() => {}
        }
        self.clients.leave_to_the_kernel();
        self.session.stopping();
        for task in &self.tasks {
            task.abort();
        }
        if let Some(link) = self.session.leads.server().link() {
            let sent = self.session.stats.traffic.up.load(Ordering::Relaxed) > 0;
            if timeout(GOODBYE, drain::goodbye(&*link, sent))
                .await
                .is_err()
            {
                debug!("the server did not take the goodbye");
            }
        }
        records::end(&self.session, "the command has ended");
        debug!("{}", self.session.stats);
        if let Some(names) = &self.session.names {
            debug!("names: {:?}", names.counters());
        }
    }
}

async fn drive(session: Arc<Session<Ways>>) {
    if let Err(error) = session.drive().await {
        error!("the TUN device is gone, and with it the command's network: {error}");
    }
}

/// Asks name servers, where names are looked up through the server.
async fn ask_for_names(session: Arc<Session<Ways>>) {
    if let Some(names) = &session.names {
        names.run(&session.leads.server().brief(), &Direct).await;
    }
}

/// Carries what is no TCP, as far as that was asked for.
async fn beside_flows(session: Arc<Session<Ways>>) {
    match session.beside.run(session.leads.server()).await {}
}

/// Writes down what becomes of the connection.
async fn write_down(session: Arc<Session<Ways>>, who: Who) {
    records::follow(session.audit.as_ref(), session.leads.server(), who).await;
}

/// Keeps the connection up. When that is in vain the command decides what it does about it.
async fn keep(session: Arc<Session<Ways>>, again: Again) {
    let changed = Arc::new(Notify::new());
    // No device of ours is in this network; loopback stands in for it.
    match up::network::watch("lo", Arc::clone(&changed)) {
        Ok(watcher) => drop(tokio::spawn(watcher)),
        Err(error) => warn!("changes of the network go unnoticed: {error}"),
    }
    let server = session.leads.server();
    let error = server.keep(&again, &changed).await;
    error!(
        "the connection was lost, and trying again does not mend it: {error}; the command goes on without it"
    );
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Help, manual page and completions show what is taken, and nothing else.
    #[test]
    fn what_is_refused_is_not_shown() {
        let refused: BTreeSet<String> = of_up(&UpArgs::default())
            .iter()
            .map(|(option, ..)| option.trim_start_matches('-').to_owned())
            .collect();
        let definition = crate::cli::definition();
        for command in ["run", "shell"] {
            let command = definition.find_subcommand(command).unwrap();
            // As it is shown: what is changed about the arguments is done then.
            let mut command = command.clone();
            command.build();
            let hidden = command
                .get_arguments()
                .filter(|argument| argument.is_hide_set());
            let hidden: BTreeSet<String> = hidden
                .filter_map(|argument| argument.get_long().map(str::to_owned))
                .collect();
            assert_eq!(hidden, refused);
        }
    }
}
