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
    /// Take everything through the server, as with the subnets 0/0 and ::/0
    #[arg(long)]
    pub all: bool,
    /// Let nothing be reached but through the server [default: the rest is reached as from this host]
    #[arg(long)]
    pub isolate: bool,
    /// Let this host reach a port that the command listens on; on 127.0.0.1 unless said; may be repeated
    #[arg(long, value_name = "[HOST:]PORT:PORT")]
    pub publish: Vec<String>,
}
