//! Who is wired to whom: the commands, their start and end.

pub mod arguments;
pub mod cleanup;
mod completions;
mod confine;
pub mod control;
pub mod daemon;
pub mod doctor;
pub mod down;
pub mod dry_run;
pub mod exit;
mod far_end;
mod flows;
mod helper;
pub mod helping;
mod json;
pub mod log;
mod man;
mod profiles;
pub mod reload;
pub mod run;
pub mod ssh_config;
pub mod status;
mod sudo;
mod sudoers;
pub mod surroundings;
mod table;
mod threads;
pub mod up;

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;

use crate::cli::{self, Command, LogArgs, Unparsed};
use crate::os::Processes;
use crate::os::daemon::Attached;
use crate::os::names;
use crate::os::namespace::existing;
use crate::os::pid_file::Keeper;
use crate::os::signals;
use crate::plan::sources::Use;
use crate::plan::{self, netns::Netns};
use exit::Exit;
use helping::{Helper, Words};

/// Runs a command line to its end. Whatever went wrong has been said on stderr.
pub fn run(words: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = words.collect();
    // Fails for no signal that there is.
    let _ = signals::heed_children();
    // Nobody's files and no name of a user's are looked for on a server.
    if cli::is_far_end(&words) {
        return far_end::run().into();
    }
    match typed(&words) {
        // Whoever started it says how to log.
        Ok(cli) if matches!(cli.command, Command::Helper) => helper::run().into(),
        Ok(cli) => {
            let usual = match cli.command {
                Command::Run(_) | Command::Shell(_) => log::WARNINGS,
                _ => log::USUAL,
            };
            log::start(cli.log, usual);
            dispatch(cli.command, cli.log)
        }
        Err(code) => code,
    }
}

/// What was typed; for a line that makes no sense the exit code, and it has been said.
fn typed(words: &[OsString]) -> Result<cli::Cli, ExitCode> {
    let wrong = |error: &dyn std::fmt::Display, words: &[OsString]| {
        log::start(LogArgs::default(), log::USUAL);
        tracing::error!("{error}");
        usage(words)
    };
    let person = surroundings::person().map_err(|error| wrong(&error, words))?;
    let words = &arguments::expanded(words, &person).map_err(|error| wrong(&error, words))?;
    cli::parse(words).map_err(|unparsed| match unparsed {
        Unparsed::Mistake(mistake) => wrong(&mistake, words),
        Unparsed::Nonsense(text) => wrong(&text, words),
        Unparsed::Shown(error) => {
            let is_mistake = error.use_stderr();
            // A reader that has seen enough is no failure.
            let _ = error.print();
            if is_mistake {
                usage(words)
            } else {
                Exit::Success.into()
            }
        }
    })
}

/// The exit code of a line that makes no sense: `run` says it as env(1) and docker-run(1) do, since 2 may be the command's.
fn usage(words: &[OsString]) -> ExitCode {
    if cli::runs_a_command(words) {
        exit::CANNOT_RUN.into()
    } else {
        Exit::Usage.into()
    }
}

fn dispatch(command: Command, log: LogArgs) -> ExitCode {
    let done = match command {
        Command::Up(args) if args.dry_run => dry_run(&args),
        Command::Up(args) => bring_up(&args, log),
        Command::Run(args) => return run::run(&args.network, &args.command),
        Command::Shell(args) => return run::shell(&args),
        Command::Status(args) => Ok(status::run(args.name.as_deref(), args.json)),
        Command::Flows(args) => Ok(flows::run(args.name.as_deref(), args.json)),
        Command::Down(args) => Ok(down::run(args.name.as_deref(), args.all)),
        Command::Reload(args) => Ok(reload::run(args.name.as_deref())),
        Command::Doctor(args) => Ok(doctor::run(&args)),
        Command::Helper => Ok(helper::run()),
        Command::Sudoers { user, force } => Ok(sudoers::run(user, force)),
        Command::Cleanup => Ok(block_on(cleanup::run())),
        Command::Completions { shell } => Ok(print(completions::script(shell).as_bytes())),
        Command::Man => Ok(print(man::page().as_bytes())),
        Command::Profiles(args) => Ok(profiles::run(&args)),
    };
    done.unwrap_or_else(|exit| exit).into()
}

/// The network namespace that is meant, as it was named; `None` for our own.
fn namespace(text: &str) -> anyhow::Result<Option<(Netns, OwnedFd)>> {
    let netns = Netns::parse(text)?;
    let opened = existing::open(&netns.file())?;
    Ok(opened.map(|namespace| (netns, namespace)))
}

fn dry_run(typed: &cli::UpArgs) -> Result<Exit, Exit> {
    if typed.netns.is_some() {
        let elsewhere = "--dry-run looks at this network: run it with ip netns exec, or nsenter --net, without --netns";
        return Err(said(&elsewhere, Exit::Usage));
    }
    become_person()?;
    let (plan, names, _) = prepare_up(typed, None)?;
    let by = names.and_then(names::Keeper::by);
    Ok(block_on(dry_run::run(&plan, by)))
}

fn bring_up(typed: &cli::UpArgs, log: LogArgs) -> Result<Exit, Exit> {
    // First of all: where there is a thread, or a child that belongs to this process, it is too late.
    let attached = typed.daemon.daemon.then(daemon::start).transpose()?;
    // What has privileges is started before they are given up, what asks for a password when the plan is known to be good.
    let words = match attached {
        Some(_) => Words::ToUs,
        None => Words::Here,
    };
    let early = Helper::early(log, words).map_err(|error| said(&error, (&error).into()))?;
    // With all rights that we were given: they say what may be named.
    let namespace = typed.netns.as_deref().map(namespace).transpose();
    let namespace = namespace.map_err(|error| said(&error, Exit::Usage))?;
    let (netns, namespace) = namespace.flatten().unzip();
    let keeper = keeper(typed)?;
    become_person()?;
    let (plan, names, place) = prepare_up(typed, netns.as_ref())?;
    let by = names.and_then(names::Keeper::by);
    let by = by.filter(|_| place.is_none());
    let apart = up::Apart {
        keeper,
        processes: looker(&plan),
        names,
    };
    let instance = instance(typed, &plan, apart, attached)?;
    let helper = early.map_or_else(|| Helper::late(log, words), Ok);
    let helper = helper.map_err(|error| said(&error, (&error).into()))?;
    confine::main_process(&plan, instance.writes()).map_err(|error| failed(&error))?;
    let helper = helper.working_in(namespace, place).with_names(by);
    Ok(up::run(&plan, instance, helper))
}

/// Under its name, which nobody else has from here on.
fn instance(
    typed: &cli::UpArgs,
    plan: &plan::Plan,
    apart: up::Apart,
    attached: Option<Attached>,
) -> Result<up::Instance, Exit> {
    let (typed, dns, beside) = (typed.clone(), plan.dns.clone(), plan.beside.clone());
    let replan = move || match resolve(&typed) {
        // The resolver of the host has been told which names are ours.
        Ok((plan, _)) if plan.dns != dns => Err(stays("names (--dns, hosts by name)")),
        // What may be captured depends on it.
        Ok((plan, _)) if plan.beside != beside => Err(stays(
            "what carries UDP, pings and packets (--tunnel, --udp, --ping)",
        )),
        Ok((plan, _)) => Ok(plan.capture),
        Err(error) => Err(error.to_string()),
    };
    up::Instance::new(&plan.instance, apart, attached, Arc::new(replan))
}

/// Why a reload is refused.
fn stays(what: &str) -> String {
    format!("{what} cannot change while it runs; start underpass again")
}

/// Who writes the pid file where a caller of sudo may not: which one it is has to be known before privileges are given up.
fn keeper(typed: &cli::UpArgs) -> Result<Option<Keeper>, Exit> {
    let person = surroundings::person().map_err(|error| failed(&error))?;
    if person.behind_sudo.is_none() {
        return Ok(None);
    }
    let file = arguments::pid_file(typed, &person).map_err(|error| said(&error, Exit::Usage))?;
    let keeper = file.as_deref().map(Keeper::start).transpose();
    Ok(keeper.map_err(|error| failed(&error))?.flatten())
}

/// Who finds the processes behind connections, for the audit log.
fn looker(plan: &plan::Plan) -> Processes {
    if plan.audit.is_none() {
        return Processes::default();
    }
    Processes::apart().unwrap_or_else(|error| {
        tracing::warn!("the audit log will not say which process opens a connection: {error}");
        Processes::default()
    })
}

fn become_person() -> Result<(), Exit> {
    surroundings::become_person().map_err(|error| failed(&error))
}

/// A plan and what is to be warned of.
type Resolved = (plan::Plan, Vec<plan::PlanWarning>);

/// May be asked again: files are read anew.
fn resolve(typed: &cli::UpArgs) -> anyhow::Result<Resolved> {
    let resolved = planned(&gathered(typed, Use::Up)?)?;
    resolved.0.check_name_server()?;
    Ok(resolved)
}

/// What was typed, with what stands in other places.
fn gathered(typed: &cli::UpArgs, used: Use) -> anyhow::Result<cli::UpArgs> {
    Ok(arguments::gather(typed, &surroundings::person()?, used)?)
}

fn planned(args: &cli::UpArgs) -> anyhow::Result<Resolved> {
    let person = surroundings::person()?;
    let environment = surroundings::environment(&person);
    let mut config = ssh_config::SshConfig::new(person);
    Ok(plan::resolve(args, &environment, &mut |query| {
        config.ask(query)
    })?)
}

/// The plan of what captures on the whole host, or in another network; and who looks after the names there where they are to be
/// looked up through the server, in another network by whose file.
fn prepare_up(
    typed: &cli::UpArgs,
    netns: Option<&Netns>,
) -> Result<(plan::Plan, Option<names::Keeper>, Option<names::Apart>), Exit> {
    let plan = prepare(typed)?;
    let keeper = up::host_names::keeper(&plan, netns);
    let (keeper, place) = keeper.map_err(|error| said(&error, Exit::Usage))?;
    Ok((plan, keeper, place))
}

/// The plan with those of its warnings said that matter.
fn warned((plan, warnings): Resolved, matters: impl Fn(&plan::PlanWarning) -> bool) -> plan::Plan {
    for warning in warnings.into_iter().filter(matters) {
        tracing::warn!("{warning}");
    }
    warn_of_unheeded(&plan);
    plan
}

/// The plan of `up` with its warnings said, or the error said.
fn prepare(typed: &cli::UpArgs) -> Result<plan::Plan, Exit> {
    let resolved = resolve(typed).map_err(|error| said(&error, Exit::Usage))?;
    let uploaded = up::beside::upload::check(&resolved.0.beside);
    uploaded.map_err(|error| said(&error, Exit::Usage))?;
    Ok(warned(resolved, |_| true))
}

/// A line for each option of ssh's configuration that the carrier does not honour.
fn warn_of_unheeded(plan: &plan::Plan) {
    let is_ssh = plan.carrier.kind == plan::CarrierKind::Openssh;
    for server in plan.ssh.servers() {
        let unheeded = server.unheeded.iter();
        for option in unheeded.filter(|option| !(is_ssh && option.is_by_ssh)) {
            tracing::warn!("{}: {option}", server.alias);
        }
    }
}

/// For commands that wait for the kernel only.
fn block_on(work: impl Future<Output = Exit>) -> Exit {
    match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::fmt::Display) -> Exit {
    said(error, Exit::Failure)
}

fn said(error: &dyn std::fmt::Display, exit: Exit) -> Exit {
    tracing::error!("{error}");
    exit
}

/// A reader that has seen enough (`| head`) is no failure.
fn print(bytes: &[u8]) -> Exit {
    match std::io::stdout().write_all(bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => failed(&error),
        _ => Exit::Success,
    }
}
