//! Who is wired to whom: the commands, their start and end.

pub mod cleanup;
mod confine;
pub mod dry_run;
pub mod exit;
pub mod helper;
pub mod log;
pub mod ssh_config;
mod sudoers;
pub mod surroundings;
pub mod up;

use std::io::Write;
use std::process::ExitCode;

use crate::cli::{self, Cli, Command, LogArgs};
use crate::os::helper::StartError;
use crate::plan;
use exit::Exit;
use helper::Helper;

/// Runs a command to its end. Whatever went wrong has been said on stderr.
pub fn run(cli: Cli) -> ExitCode {
    if let Command::Helper = cli.command {
        // Whoever started it says how to log.
        return helper::run().into();
    }
    log::start(cli.log);
    dispatch(cli.command, cli.log).into()
}

fn dispatch(command: Command, log: LogArgs) -> Exit {
    match command {
        Command::Up(args) if args.dry_run => dry_run(&args),
        Command::Up(args) => up(&args, log),
        Command::Helper => helper::run(),
        Command::Sudoers { user } => sudoers::run(user),
        Command::Cleanup => block_on(cleanup::run()),
        Command::Completions { shell } => print(&completions(shell)),
        Command::Man => man().map_or_else(|error| failed(&error), |page| print(&page)),
    }
}

fn dry_run(args: &cli::UpArgs) -> Exit {
    if let Err(error) = surroundings::become_person() {
        return failed(&error);
    }
    match prepare(args) {
        Some(plan) => block_on(dry_run::run(&plan)),
        None => Exit::Usage,
    }
}

/// What has privileges is started before they are given up, what asks for a password when the plan is known to be good.
fn up(args: &cli::UpArgs, log: LogArgs) -> Exit {
    let early = match Helper::early(log) {
        Ok(early) => early,
        Err(error) => return not_started(&error),
    };
    if let Err(error) = surroundings::become_person() {
        return failed(&error);
    }
    let Some(plan) = prepare(args) else {
        return Exit::Usage;
    };
    let helper = match early.map_or_else(|| Helper::late(log), Ok) {
        Ok(helper) => helper,
        Err(error) => return not_started(&error),
    };
    match confine::main_process(&plan, &[]) {
        Ok(()) => up::run(&plan, helper),
        Err(error) => failed(&error),
    }
}

fn not_started(error: &StartError) -> Exit {
    tracing::error!("{error}");
    error.into()
}

/// The plan of `up` with its warnings said, or the error said.
fn prepare(args: &cli::UpArgs) -> Option<plan::Plan> {
    let person = surroundings::person();
    let environment = surroundings::environment(&person);
    let mut config = ssh_config::SshConfig::new(person);
    match plan::resolve(args, &environment, &mut |query| config.ask(query)) {
        Ok((plan, warnings)) => {
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            if plan.carrier.kind == plan::CarrierKind::Russh {
                warn_of_unheeded(&plan.ssh);
            }
            Some(plan)
        }
        Err(error) => {
            tracing::error!("{error}");
            None
        }
    }
}

/// A line for each option of ssh's configuration that the embedded carrier does not honour.
fn warn_of_unheeded(ssh: &plan::SshPlan) {
    for server in ssh.servers() {
        for option in &server.unheeded {
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
    tracing::error!("{error}");
    Exit::Failure
}

fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::definition(), "underpass", &mut script);
    script
}

/// One page for the program and all its commands.
fn man() -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let mut definition = cli::definition();
    definition.build();
    clap_mangen::Man::new(definition.clone()).render(&mut page)?;
    for command in definition
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
    {
        section(command, &mut page)?;
    }
    Ok(page)
}

/// A command with its examples; the exit codes stand at the program already.
fn section(command: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    let examples = command.get_after_help().cloned().unwrap_or_default();
    let man = clap_mangen::Man::new(command.clone().after_long_help(examples));
    writeln!(page, ".SH \"{}\"", command.get_name().to_uppercase())?;
    man.render_description_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_options_section(page)?;
    man.render_extra_section(page)
}

/// A reader that has seen enough (`| head`) is no failure.
fn print(bytes: &[u8]) -> Exit {
    match std::io::stdout().write_all(bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => failed(&error),
        _ => Exit::Success,
    }
}
