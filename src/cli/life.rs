//! The arguments about running instances: their names, the background, what is asked of them.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::up::RUN;

/// The name of an instance.
#[derive(Args, Clone, Debug, Default)]
pub struct InstanceArgs {
    /// Name for status and down [default: profile or host]
    #[arg(long, value_name = "NAME", help_heading = RUN, value_hint = ValueHint::Other)]
    pub name: Option<String>,
}

/// Whether `up` goes to the background.
#[derive(Args, Clone, Debug, Default)]
pub struct DaemonArgs {
    /// Go to the background once packets flow
    ///
    /// What the login asks is asked before. The exit code says whether packets flow. From then on the log goes to journald or
    /// syslog, else to NAME.log in the run directory, of which the last 1 MiB and the one before are kept, and which goes with
    /// an orderly end; 2>>FILE has it written to a file.
    #[arg(short = 'D', long, help_heading = RUN)]
    pub daemon: bool,
    /// File for the process number
    ///
    /// Written once packets flow, removed at the end. With sudo it is the caller's, but for /run/NAME.pid, which root writes.
    #[arg(long, value_name = "FILE", help_heading = RUN, value_hint = ValueHint::FilePath)]
    pub pidfile: Option<PathBuf>,
}

/// The arguments of `down`.
#[derive(Args, Clone, Debug, Default)]
pub struct DownArgs {
    /// The instance; not needed where one runs alone
    #[arg(value_name = "NAME", value_hint = ValueHint::Other)]
    pub name: Option<String>,
    /// Every instance; none runs: exit code 0
    #[arg(short, long, conflicts_with = "name")]
    pub all: bool,
}

/// The arguments of `status`.
#[derive(Args, Clone, Debug, Default)]
pub struct StatusArgs {
    /// The instance [default: all]
    #[arg(value_name = "NAME", value_hint = ValueHint::Other)]
    pub name: Option<String>,
    /// Say it as JSON
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `flows`.
#[derive(Args, Clone, Debug, Default)]
pub struct FlowsArgs {
    /// The instance [default: all]
    #[arg(value_name = "NAME", value_hint = ValueHint::Other)]
    pub name: Option<String>,
    /// Say it as JSON
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `reload`.
#[derive(Args, Clone, Debug, Default)]
pub struct ReloadArgs {
    /// The instance; not needed where one runs alone
    #[arg(value_name = "NAME", value_hint = ValueHint::Other)]
    pub name: Option<String>,
}

/// The arguments of `profiles`.
#[derive(Args, Clone, Debug, Default)]
pub struct ProfilesArgs {
    /// The names alone, one per line
    #[arg(long)]
    pub names: bool,
}
