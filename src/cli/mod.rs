//! The arguments as typed. This one definition feeds help, man page and completions.
//!
//! What the words mean is decided in [`crate::plan`]: here a subnet is still a text.

mod audit_log;
mod doctor;
mod life;
mod mistake;
mod one_line;
mod run;
mod text;
mod tunnel;
mod up;

use std::ffi::OsString;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub use audit_log::AuditArgs;
pub use doctor::{DoctorArgs, doctor_hides};
pub use life::{
    DaemonArgs, DownArgs, FlowsArgs, InstanceArgs, ProfilesArgs, ReloadArgs, StatusArgs,
};
pub use mistake::Mistake;
pub use run::{CommandArgs, NetworkArgs, RunArgs, run_hides};
use text::{
    DOCTOR_AFTER_HELP, HELP, RUN_AFTER_HELP, SHELL_AFTER_HELP, UP_AFTER_HELP, UP_AFTER_LONG_HELP,
};
pub use text::{EXAMPLES, EXIT_CODES};
pub use tunnel::{PingArg, TunnelArg, TunnelArgs};
pub use up::{CarrierArg, UpArgs};

/// Route whole subnets through any SSH server you can log in to.
///
/// Every program on this host, and every container behind it, reaches the subnets as if they were here: open
/// ports open, closed ports refuse. Nothing is installed on the server, no proxy is set anywhere.
#[derive(Clone, Debug, Parser)]
#[command(name = "underpass", version, help_template = HELP)]
#[command(
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
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
    ///
    /// Type it as yourself: it asks sudo, doas or pkexec, once, for the part that makes the device and sets routes. All
    /// else is done as you, with your keys.
    #[command(after_help = UP_AFTER_HELP, after_long_help = UP_AFTER_LONG_HELP, override_usage = UP_USAGE)]
    Up(Box<UpArgs>),
    /// Run a command whose network goes through an SSH server
    ///
    /// It needs no privileges.
    ///
    /// The command has this terminal, directory and user, and its exit code is the exit code; 125 says that it could
    /// not be run here, or that the line makes no sense, 126 that it cannot be executed, 127 that there is none.
    ///
    /// Its network is a namespace: loopback is its own, and services of this host on 127.0.0.1 are not in it. No ping and
    /// no UDP gets out, so names are looked up over TCP; glibc does, programs with musl do not, unless with --dns. What it
    /// leaves running in the background has no network when it has ended. Where run is killed, so is the command.
    #[command(mut_args(run_hides), after_help = RUN_AFTER_HELP, override_usage = RUN_USAGE)]
    Run(Box<RunArgs>),
    /// Start $SHELL as run does
    #[command(mut_args(run_hides), after_help = SHELL_AFTER_HELP, override_usage = SHELL_USAGE)]
    Shell(Box<NetworkArgs>),
    /// Check this host, the SSH server and the login
    ///
    /// Says for each thing that has to work, and for what a security officer asks, whether it passes, and what to do where
    /// it does not. It needs no root and changes nothing. Without -r only this host is looked at. The exit code is 1 where
    /// something fails, else 0.
    #[command(mut_args(doctor_hides), after_help = DOCTOR_AFTER_HELP, override_usage = DOCTOR_USAGE)]
    Doctor(Box<DoctorArgs>),
    /// Tell how instances are: state, server, connections, bytes
    ///
    /// Exit code 0: all that were asked for are up; 8: one has no SSH connection at the moment; 1: none runs. With --json an
    /// array of one object for each; times are in seconds since 1970.
    #[command(after_help = "Example:\n  underpass status --json prod | jq -r '.[0].state'")]
    Status(StatusArgs),
    /// List the connections that are open: who, where to, how much
    ///
    /// Source, target, age, bytes each way, the SSH connection that carries it, and the process on this host, where it can be
    /// seen: with sudo those of other users too. A target in brackets is asked for, and not open yet; one that is shown under
    /// another address (FAR=NET) is listed with the one behind the server. With --json an array of
    /// one object for each; times are in seconds since 1970. Exit code 1: none runs.
    #[command(
        after_help = "Example:\n  underpass flows --json | jq -r '.[] | select(.bytes.down > 1e9) | .target'"
    )]
    Flows(FlowsArgs),
    /// End an instance in good order, and wait until it is gone
    #[command(after_help = "Example:\n  underpass down prod")]
    Down(DownArgs),
    /// Have an instance read its subnets and exclusions again
    ///
    /// From the same arguments, the files that they name, and the profile. Connections that are captured before and after go
    /// on. Where something is wrong the old set stays, and the exit code is 1. SIGHUP does the same where there is no terminal.
    #[command(after_help = "Example:\n  underpass reload prod")]
    Reload(ReloadArgs),
    /// Remove the routing rules that a killed run left behind
    ///
    /// Such rules capture nothing, for the device went with the process; the next start removes them too, and so
    /// it does with a device that was killed in the making, and with name servers of --dns in /etc/resolv.conf, those of namespaces and of
    /// containers (as root) too, and resolvconf. What
    /// belongs to a run that is alive, or to other programs, is left alone.
    #[command(after_help = "Example:\n  sudo underpass cleanup")]
    Cleanup,
    /// List the profiles of config.toml
    #[command(after_help = "Example:\n  underpass profiles")]
    Profiles(ProfilesArgs),
    /// Print a sudoers(5) rule that lets a user run `up`
    ///
    /// Without a password. The rule allows the privileged part of underpass, without arguments, and nothing else.
    #[command(after_help = "Example:\n  underpass sudoers | sudo tee /etc/sudoers.d/underpass")]
    Sudoers {
        /// Who may [default: who runs this]
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// Print it also where others than root can replace the program, and so become root
        #[arg(long)]
        force: bool,
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
    /// Form of the log: human or json
    #[arg(hide_possible_values = true, long, value_enum, default_value_t, global = true, value_name = "FORMAT", help_heading = LOG)]
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

/// Two lists in one: clap would show the names of both as one.
const UP_USAGE: &str = "underpass up [OPTIONS] [PROFILE] [[FAR=]NET[:PORT[-PORT]]]...";
const RUN_USAGE: &str = "underpass run [OPTIONS] [PROFILE] [[FAR=]NET[:PORT]]... -- COMMAND...";
const SHELL_USAGE: &str = "underpass shell [OPTIONS] [PROFILE] [[FAR=]NET[:PORT[-PORT]]]...";
const DOCTOR_USAGE: &str = "underpass doctor [OPTIONS] [PROFILE] [[FAR=]NET[:PORT[-PORT]]]...";
/// What `up --upload-helper` has a server run: the far end of UDP. No command of a person's, and so none of [`Command`].
const FAR_END: &str = "udp-far-end";
/// Heading of the options that every command takes.
const LOG: &str = "Log options";

/// A command line that is not carried out.
#[derive(Debug)]
pub enum Unparsed {
    /// It has what is another program's habit.
    Mistake(Mistake),
    /// It makes no sense: one line that says why.
    Nonsense(String),
    /// It asks for help or the version.
    Shown(clap::Error),
}

/// Parses the words of a command line.
///
/// # Errors
/// [`Unparsed`].
pub fn parse(words: &[OsString]) -> Result<Cli, Unparsed> {
    Cli::try_parse_from(words).map_err(|error| match mistake::mistaken(&error, is_of_up) {
        Some(mistake) => Unparsed::Mistake(mistake),
        None if one_line::is_help(&error) => Unparsed::Shown(error),
        None => Unparsed::Nonsense(one_line::of(&error, command_of(words).as_deref())),
    })
}

/// Whether a line is the one that is run on servers.
pub fn is_far_end(words: &[OsString]) -> bool {
    matches!(words, [_, word] if word == FAR_END)
}

/// Whether a line that cannot be parsed is of `run` or `shell`, as far as can be seen.
pub fn runs_a_command(words: &[OsString]) -> bool {
    matches!(command_of(words).as_deref(), Some("run" | "shell"))
}

/// The command of a line that cannot be parsed, as far as can be seen.
fn command_of(words: &[OsString]) -> Option<String> {
    let parsed = definition().ignore_errors(true).try_get_matches_from(words);
    parsed.ok()?.subcommand_name().map(str::to_owned)
}

/// Whether a word begins a line for `up` whose command was left out: an option of it, or a network.
fn is_of_up(word: &str) -> bool {
    let definition = definition();
    let Some(up) = definition.find_subcommand("up") else {
        return false;
    };
    let of_up = up.get_arguments().any(|argument| {
        let long = argument.get_long().map(|long| format!("--{long}"));
        let short = argument.get_short().map(|short| format!("-{short}"));
        long.as_deref() == Some(word) || short.as_deref() == Some(word)
    });
    of_up || (word.contains('/') && word.starts_with(|c: char| c.is_ascii_digit() || c == '['))
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
    fn a_line_for_a_command_is_known_whatever_is_wrong_with_it() {
        let is_one = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert!(parse(&words).is_err(), "{line}");
            runs_a_command(&words)
        };
        for line in [
            "run",
            "-v run",
            "run --no-such -- a",
            "run 10/8 true",
            "shell --for",
        ] {
            assert!(is_one(&format!("underpass {line}")), "{line}");
        }
        for line in ["up --no-such run", "runs -- a", "--no-such", "up -r"] {
            assert!(!is_one(&format!("underpass {line}")), "{line}");
        }
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
