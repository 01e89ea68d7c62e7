//! Who is wired to whom: the commands, their start and end.

pub mod cleanup;
pub mod dry_run;
pub mod exit;
pub mod log;
pub mod run;
pub mod ssh_config;
pub mod surroundings;
pub mod up;

use std::io::Write;
use std::process::ExitCode;

use crate::cli::{self, Cli, Command};
use crate::plan;
use exit::Exit;

/// Runs a command to its end. Whatever went wrong has been said on stderr.
pub fn run(cli: Cli) -> ExitCode {
    let usual = match cli.command {
        Command::Run(_) | Command::Shell(_) => log::WARNINGS,
        _ => log::USUAL,
    };
    log::start(cli.log, usual);
    dispatch(cli.command)
}

fn dispatch(command: Command) -> ExitCode {
    let exit = match command {
        Command::Run(args) => return run::run(&args.network, &args.command),
        Command::Shell(args) => return run::shell(&args),
        Command::Up(args) => match prepare(&args, |_| true) {
            Some(plan) if args.dry_run => block_on(dry_run::run(&plan)),
            Some(plan) => up::run(&plan),
            None => Exit::Usage,
        },
        Command::Cleanup => block_on(cleanup::run()),
        Command::Completions { shell } => print(&completions(shell)),
        Command::Man => man().map_or_else(|error| failed(&error), |page| print(&page)),
    };
    exit.into()
}

/// The plan of `up` with those of its warnings said that matter, or the error said.
fn prepare(args: &cli::UpArgs, matters: impl Fn(&plan::PlanWarning) -> bool) -> Option<plan::Plan> {
    let person = surroundings::person();
    let environment = surroundings::environment(&person);
    let mut config = ssh_config::SshConfig::new(person);
    match plan::resolve(args, &environment, &mut |query| config.ask(query)) {
        Ok((plan, warnings)) => {
            for warning in warnings.into_iter().filter(matters) {
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
