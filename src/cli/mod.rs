//! The arguments as typed. This one definition feeds help, man page and completions.
//!
//! What the words mean is decided in [`crate::plan`]: here a subnet is still a text.

mod run;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub use self::run::{NetworkArgs, RunArgs};

/// Route whole subnets through any SSH server you can log in to.
///
/// Every program on this host, and every container behind it, reaches the subnets as if they were here: open
/// ports open, closed ports refuse. Nothing is installed on the server, no proxy is set anywhere.
#[derive(Clone, Debug, Parser)]
#[command(name = "underpass", version, after_help = AFTER_HELP, after_long_help = AFTER_LONG_HELP)]
#[command(
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = false
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How much to say.
    #[command(flatten)]
    pub log: LogArgs,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Capture subnets and carry them through an SSH server, until Ctrl-C
    #[command(after_help = UP_AFTER_HELP, after_long_help = UP_AFTER_LONG_HELP)]
    Up(Box<UpArgs>),
    /// Run a command with a network of its own, in which the subnets go through an SSH server; needs no privileges
    ///
    /// The command has this terminal, directory and user, and its exit code is the exit code; 125 says that it could
    /// not be run here, 126 that it cannot be executed, 127 that there is none.
    ///
    /// Its network is a namespace: loopback is its own, and services of this host on 127.0.0.1 are not in it. No ping and
    /// no UDP gets out, so names are looked up over TCP; glibc does, programs with musl do not. What it leaves running in
    /// the background has no network when it has ended.
    #[command(after_help = RUN_AFTER_HELP)]
    Run(Box<RunArgs>),
    /// Start $SHELL as run does
    Shell(Box<NetworkArgs>),
    /// Remove the routing rules that a killed run left behind
    ///
    /// Such rules capture nothing, for the device went with the process; the next start removes them too, and so
    /// it does with a device that was killed in the making. What belongs to a run that is alive, or to other programs,
    /// is left alone.
    Cleanup,
    /// Print a rule of sudoers(5) that lets a user run `up` without a password
    ///
    /// The rule allows the privileged part of underpass, without arguments, and nothing else.
    #[command(after_help = "Example:\n  underpass sudoers | sudo tee /etc/sudoers.d/underpass")]
    Sudoers {
        /// Who may [default: who runs this]
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// The privileged part: `up` starts it by itself
    #[command(hide = true)]
    Helper,
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  underpass completions bash | sudo tee /etc/bash_completion.d/underpass"
    )]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page, in roff
    #[command(after_help = "Example:\n  underpass man | man -l -")]
    Man,
}

/// The arguments of `up`.
#[derive(Args, Clone, Debug, Default)]
pub struct UpArgs {
    /// SSH server: a host, or an alias of ssh's configuration, as for ssh; IPv6 in brackets: me@[2001:db8::1]:22
    #[allow(rustdoc::broken_intra_doc_links)] // the brackets are an address's
    #[arg(short, long, value_name = "[USER@]HOST[:PORT]")]
    pub remote: Option<String>,
    /// Networks to capture; a bare address is one host, 10.0/16 is 10.0.0.0/16, 0/0 and ::/0 are everything
    ///
    /// With a port or a range, TCP to those ports only; otherwise every port and protocol. IPv6 with ports
    /// stands in brackets: [fd00::/64]:443.
    ///
    /// 0/0 and ::/0 leave alone what this host has a route of its own for: local networks, containers, VPNs. A
    /// narrower subnet takes them too, unless -x leaves them out.
    #[arg(value_name = "CIDR[:PORT[-PORT]]")]
    pub subnets: Vec<String>,
    /// Network never to capture, whatever the subnets say; may be repeated. The SSH server is always left out
    #[arg(short = 'x', long = "exclude", value_name = "CIDR")]
    pub excludes: Vec<String>,
    /// Key file; may be repeated; goes before those of ssh's configuration [default: as ssh]
    #[arg(short, long = "identity", value_name = "FILE")]
    pub identities: Vec<String>,
    /// SSH port, when it is not in -r [default: as ssh]
    #[arg(short, long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Login name on the server, when it is not in -r [default: as ssh]
    #[arg(short, long, value_name = "USER")]
    pub login: Option<String>,
    /// Any option of ssh_config(5), as StrictHostKeyChecking=accept-new; may be repeated
    #[arg(short, long = "option", value_name = "KEY=VALUE")]
    pub options: Vec<String>,
    /// ssh's configuration file, instead of ~/.ssh/config and /etc/ssh/ssh_config; none for no file
    #[arg(short = 'F', long, value_name = "FILE")]
    pub ssh_config: Option<String>,
    /// Hosts to go through, the nearest first
    #[arg(short = 'J', long, value_name = "[USER@]HOST[:PORT][,...]")]
    pub jump: Option<String>,
    /// What carries the connections: SSH built in, or the ssh that is installed
    #[arg(long, value_enum, default_value_t, value_name = "KIND")]
    pub carrier: CarrierArg,
    /// SSH connections to spread the flows over, 1 to 16 [default: 2 to 16, as needed, where a login asks nobody]
    ///
    /// A connection that is lost resets the flows on it alone. Where each login asks somebody there is one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub connections: Option<u8>,
    /// End after this time, as 30s, 10m, 2h, 1h30m, with exit code 0
    #[arg(long = "for", value_name = "DURATION")]
    pub limit: Option<String>,
    /// End when no connection has been open for this time, with exit code 0
    #[arg(long, value_name = "DURATION")]
    pub idle_timeout: Option<String>,
    /// MTU of the device in bytes, 1280 to 65520 [default: 1500, or 65520 where the kernel has no offload]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// Name of the device [default: the first free of underpass0, underpass1, ...]
    #[arg(long, value_name = "NAME")]
    pub tun: Option<String>,
    /// Capture in this network namespace; SSH leaves from the one where underpass is started
    ///
    /// A name of ip-netns(8), a path, or pid:N for that of a process: a container's, for example.
    #[arg(long, value_name = "NAME|PATH|pid:N")]
    pub netns: Option<String>,
    /// Print what would be set up, as commands of ip(8), and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What carries the connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CarrierArg {
    /// The SSH that is built in, unless ssh's configuration asks for what only ssh can do
    #[default]
    Auto,
    /// The SSH that is built in
    Russh,
    /// The ssh that is installed: all its options, keys and prompts
    Openssh,
}

/// How much to say, and how.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct LogArgs {
    /// Say more; -vv and -vvv say more yet
    #[arg(short, long, action = ArgAction::Count, global = true, conflicts_with = "quiet")]
    #[arg(help_heading = LOG)]
    pub verbose: u8,
    /// Say errors only
    #[arg(short, long, global = true, help_heading = LOG)]
    pub quiet: bool,
    /// Form of the log on stderr
    #[arg(
        long,
        value_enum,
        default_value_t,
        global = true,
        value_name = "FORMAT"
    )]
    #[arg(help_heading = LOG)]
    pub log_format: LogFormat,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Short lines for people
    #[default]
    Human,
    /// One JSON object per line
    Json,
}

/// Heading of the options that every command takes.
const LOG: &str = "Log options";

// As macros, for concat! takes literals only.
macro_rules! up_examples {
    () => {
        "\
Examples:
  sudo underpass up -r me@bastion 10.0.1.0/24
      everything in 10.0.1.0/24
  sudo underpass up -r me@bastion:2222 10.0.0.0/8 -x 10.0.5.0/24 '[fd00::/64]:443'
      all of 10.0.0.0/8 but 10.0.5.0/24, and HTTPS to fd00::/64
  sudo underpass up -r me@bastion 10.0.1.0/24:80-443 --dry-run
      only say what would be set up"
    };
}

macro_rules! exit_codes {
    () => {
        "\
Exit codes:
  0    success, also when stopped by Ctrl-C, SIGTERM, --for or --idle-timeout
  1    any other failure
  2    the arguments make no sense
  3    a privilege or /dev/net/tun is missing
  4    the SSH server refused the login; after a lost connection: three times in a row
  5    the device's name or every routing table is taken
  6    the server's host key is unknown, refused or has changed, also after a lost connection
  7    something of the set-up could not be taken back
  255  the first SSH connection failed; one that is lost later is made again"
    };
}

/// The exit codes as help and man page show them; [`crate::app::exit::Exit`] is tested against it.
pub const EXIT_CODES: &str = exit_codes!();

const AFTER_HELP: &str = "\
Example:
  sudo underpass up -r me@bastion 10.0.1.0/24

underpass COMMAND --help says more about a command; underpass --help lists the exit codes.";
const AFTER_LONG_HELP: &str = concat!(
    "Example:\n  sudo underpass up -r me@bastion 10.0.1.0/24\n\n",
    exit_codes!()
);
const RUN_AFTER_HELP: &str = "\
Examples:
  underpass run -r me@bastion 10.0.0.0/16 -- psql -h 10.0.1.20
      everything else is reached as from this host
  underpass run -r me@bastion 10.0.0.0/16 --isolate -- ./import.sh
      nothing else is reached
  underpass run -r me@bastion --all -- curl https://example.org
      everything goes through the server";
const UP_AFTER_HELP: &str = up_examples!();
const UP_AFTER_LONG_HELP: &str = concat!(up_examples!(), "\n\n", exit_codes!());

/// Parses the arguments of this process; ends it with help, version or a usage error (exit code 2).
pub fn parse() -> Cli {
    Cli::parse()
}

/// The definition, for man page and completions.
pub fn definition() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds() {
        definition().debug_assert();
    }

    #[test]
    fn both_spellings_of_an_option_arrive_whole() {
        let typed = [
            "underpass",
            "up",
            "-r",
            "h",
            "10/8",
            "-o",
            "A=b",
            "-o",
            "C d",
            "-oE=f",
        ];
        let Command::Up(up) = Cli::try_parse_from(typed).unwrap().command else {
            panic!("up was typed");
        };
        assert_eq!(up.options, ["A=b", "C d", "E=f"]);
        assert_eq!(up.subnets, ["10/8"]);
    }
}
