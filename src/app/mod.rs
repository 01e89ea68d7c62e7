//! Who is wired to whom: the commands, their start and end.

pub mod arguments;
pub mod cleanup;
mod completions;
pub mod dry_run;
pub mod exit;
pub mod log;
mod man;
mod profiles;
pub mod ssh_config;
pub mod surroundings;
pub mod up;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

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
        Command::Up(args) => match prepare(&args) {
            Some(plan) if args.dry_run => block_on(dry_run::run(&plan)),
            Some(plan) => up::run(&plan),
            None => Exit::Usage,
        },
        Command::Cleanup => block_on(cleanup::run()),
        Command::Completions { shell } => print(completions::script(shell).as_bytes()),
        Command::Man => print(man::page().as_bytes()),
        Command::Profiles(args) => profiles::run(&args),
    }
}

/// The plan of `up` with its warnings said, or the error said. May be asked again: files are read anew.
fn prepare(typed: &cli::UpArgs) -> Option<plan::Plan> {
    let person = surroundings::person();
    let environment = surroundings::environment(&person);
    let planned = arguments::gather(typed, &person)
        .map_err(plan::PlanError::from)
        .and_then(|args| {
            let mut config = ssh_config::SshConfig::new(person);
            plan::resolve(&args, &environment, &mut |query| config.ask(query))
        });
    match planned {
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

/// A reader that has seen enough (`| head`) is no failure.
fn print(bytes: &[u8]) -> Exit {
    match std::io::stdout().write_all(bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => failed(&error),
        _ => Exit::Success,
    }
}
