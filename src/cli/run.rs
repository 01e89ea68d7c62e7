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

/// `0/0` and `-x` in a network where nothing else is: no route of the host's, and no way to the SSH server itself.
const SUBNETS: &str = "\
Networks, or hosts by name, to take through the server, and the profile of config.toml to take

A bare address is one host, 10.0/16 is 10.0.0.0/16, 0/0 and ::/0 are everything. With a port or a range, TCP to those ports \
only; otherwise every port. IPv6 with ports stands in brackets: [fd00::/64]:443.

FAR=NET shows a network behind the server under other addresses: with 10.0.0.0/16=100.64.0.0/16, 100.64.1.20 here is \
10.0.1.20 there. The two are of one size; -x is by the addresses here.

A name with a dot is a host that the server looks up, *.internal.example.com every host below a domain. With ports as above its others are out of reach. \
Their names are answered with addresses that stand for them; all other names stay with the resolver that this host has.

A word that begins with a letter and has no dot, colon or slash names a profile. Networks that are typed beside it replace \
those of the profile.";
const EXCLUDE: &str = "\
Network never to capture; repeatable

Whatever the subnets say: it is reached as from this host, and with --isolate not at all.";

/// For `run` and `shell`: hides what they refuse, for it says how `up` lives, or whom it captures, and tells what differs:
/// `#[command(mut_args(run_hides))]`.
pub fn run_hides(argument: clap::Arg) -> clap::Arg {
    let only_up = [
        "auto_nets",
        "name",
        "daemon",
        "pidfile",
        "limit",
        "idle_timeout",
        "users",
        "gateway",
        "groups",
        "netns",
        "tunnel",
        "tunnel_address",
        "tunnel_unit",
        "dry_run",
    ];
    match argument.get_id().as_str() {
        "subnets" => argument.long_help(SUBNETS),
        "excludes" => argument.long_help(EXCLUDE),
        id if only_up.contains(&id) => argument.hide(true),
        _ => argument,
    }
}
