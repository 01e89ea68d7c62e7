//! Who is wired to whom: the commands, their start and end.

pub mod arguments;
pub mod cleanup;
pub mod control;
pub mod daemon;
pub mod down;
pub mod dry_run;
pub mod exit;
pub mod log;
pub mod reload;
pub mod ssh_config;
pub mod status;
pub mod surroundings;
pub mod up;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use crate::cli::{self, Command, LogArgs};
use crate::plan;
use exit::Exit;

/// Runs a command line to its end. Whatever went wrong has been said on stderr.
pub fn run(words: impl Iterator<Item = OsString>) -> ExitCode {
    match arguments::typed(words, &surroundings::person()) {
        Ok(cli) => {
            log::start(cli.log);
            dispatch(cli.command)
        }
        Err(error) => {
            log::start(LogArgs::default());
            tracing::error!("{error}");
            Exit::Usage
        }
    }
    .into()
}

fn dispatch(command: Command) -> Exit {
    match command {
        Command::Up(args) => bring_up(&args),
        Command::Status(args) => status::run(args.name.as_deref(), args.json),
        Command::Down(args) => down::run(args.name.as_deref(), args.all),
        Command::Reload(args) => reload::run(args.name.as_deref()),
        Command::Cleanup => block_on(cleanup::run()),
        Command::Completions { shell } => print(&completions(shell)),
        Command::Man => man().map_or_else(|error| failed(&error), |page| print(&page)),
    }
}

fn bring_up(typed: &cli::UpArgs) -> Exit {
    let person = surroundings::person();
    let args = match arguments::gather(typed, &person) {
        Ok(args) => args,
        Err(error) => return unusable(&error.into()),
    };
    // Before ssh is asked: where there are threads it is too late.
    let attached = match args.daemon.daemon && !args.dry_run {
        false => None,
        true => match daemon::start() {
            Ok(attached) => Some(attached),
            Err(exit) => return exit,
        },
    };
    let plan = match resolve(&args, person) {
        Ok((plan, warnings)) => {
            warn(&plan, &warnings);
            plan
        }
        Err(error) => return unusable(&error),
    };
    if args.dry_run {
        return block_on(dry_run::run(&plan));
    }
    let typed = typed.clone();
    let instance = up::Instance {
        name: plan.instance.name.clone(),
        pid_file: plan.instance.pid_file.clone(),
        attached,
        replan: Arc::new(move || replan(&typed).map_err(|error| error.to_string())),
    };
    up::run(&plan, instance)
}

fn resolve(
    args: &cli::UpArgs,
    person: surroundings::Person,
) -> Result<(plan::Plan, Vec<plan::PlanWarning>), plan::PlanError> {
    let environment = surroundings::environment(&person);
    let mut config = ssh_config::SshConfig::new(person);
    plan::resolve(args, &environment, &mut |query| config.ask(query))
}

/// What is captured, from files as they are now.
fn replan(typed: &cli::UpArgs) -> Result<plan::CapturePlan, plan::PlanError> {
    let person = surroundings::person();
    let args = arguments::gather(typed, &person)?;
    Ok(resolve(&args, person)?.0.capture)
}

fn unusable(error: &plan::PlanError) -> Exit {
    tracing::error!("{error}");
    Exit::Usage
}

fn warn(plan: &plan::Plan, warnings: &[plan::PlanWarning]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if plan.carrier.kind == plan::CarrierKind::Russh {
        warn_of_unheeded(&plan.ssh);
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
