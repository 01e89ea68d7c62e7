//! The arguments of `run` and `shell`.

use std::ffi::OsString;

use clap::Args;

use super::UpArgs;

/// The arguments of `run`.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// The network that the command gets.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// The network of a command.
#[derive(Args, Clone, Debug, Default)]
pub struct NetworkArgs {
    /// The server and the subnets.
    #[command(flatten)]
    pub up: UpArgs,
    /// What the network has beside these.
    #[command(flatten)]
    pub command: CommandArgs,
}

/// What a command's network has beside subnets; may be set elsewhere too, as the arguments of `up`.
#[derive(Args, Clone, Debug, Default)]
pub struct CommandArgs {
    /// Take everything through the server
    ///
    /// As with the subnets 0/0 and ::/0.
    #[arg(long)]
    pub all: bool,
    /// Reach nothing but through the server
    ///
    /// Otherwise the rest is reached as from this host.
    #[arg(long)]
    pub isolate: bool,
    /// Bring a port to this host; repeatable
    ///
    /// First where this host listens, on 127.0.0.1 unless said, then where the command does: 8080:80, 192.0.2.1:8080:80 or
    /// [::1]:8080:80.
    #[allow(rustdoc::broken_intra_doc_links)] // the brackets are an address's
    #[arg(long, value_name = "[HOST:]PORT:PORT")]
    pub publish: Vec<String>,
}

/// Hides what `run` and `shell` refuse, for it says how `up` lives, or whom it captures: `#[command(mut_args(run_hides))]`.
pub fn run_hides(argument: clap::Arg) -> clap::Arg {
    let only_up = [
        "name",
        "daemon",
        "pidfile",
        "limit",
        "idle_timeout",
        "users",
        "gateway",
        "group",
        "netns",
        "dry_run",
    ];
    match only_up.contains(&argument.get_id().as_str()) {
        true => argument.hide(true),
        false => argument,
    }
}
