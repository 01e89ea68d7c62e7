//! The exit codes of the program, in one place.

use std::process::ExitCode;

use crate::carrier::{CommandEnd, ConnectError};
use crate::os::helper::{HandError, RefusalKind, StartError};
use crate::os::run_dir::ClaimError;

/// How a run ended. [`crate::cli::EXIT_CODES`] says it to the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, also when stopped by SIGINT or SIGTERM.
    Success = 0,
    /// Any failure without a code of its own.
    Failure = 1,
    /// The arguments make no sense; clap's own errors end so too. `run` has [`CANNOT_RUN`] for both.
    Usage = 2,
    /// No `CAP_NET_ADMIN`, or no `/dev/net/tun`.
    Privilege = 3,
    /// The SSH server refused every way to log in; after a lost connection: [three times][crate::carrier::steady], where
    /// nobody can be asked on a terminal.
    LoginRefused = 4,
    /// The device's name or every routing table is taken. sshuttle's code for "already running".
    Busy = 5,
    /// The server's host key is unknown, refused or has changed.
    HostKey = 6,
    /// Rules or routes could not be taken back.
    NotUndone = 7,
    /// `status`: an instance runs, and has no SSH connection at the moment.
    NotConnected = 8,
    /// The first SSH connection failed; one that is lost later is made again. ssh's own code (ssh(1), EXIT STATUS).
    Ssh = 255,
}

impl Exit {
    /// Every one of them.
    const ALL: [Self; 10] = [
        Self::Success,
        Self::Failure,
        Self::Usage,
        Self::Privilege,
        Self::LoginRefused,
        Self::Busy,
        Self::HostKey,
        Self::NotUndone,
        Self::NotConnected,
        Self::Ssh,
    ];

    /// What an exit code of ours means; any other is a failure.
    pub fn of(code: u8) -> Self {
        let found = Self::ALL.into_iter().find(|exit| *exit as u8 == code);
        found.unwrap_or(Self::Failure)
    }
}

/// `run`: we could not run the command at all, or its line makes no sense, as docker-run(1) and env(1) say it. The other codes are the command's own.
pub const CANNOT_RUN: u8 = 125;
/// `run`: the command cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// `run`: there is no such command.
pub const NOT_FOUND: u8 = 127;

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<&ClaimError> for Exit {
    fn from(error: &ClaimError) -> Self {
        match error {
            ClaimError::Taken { .. } => Self::Busy,
            ClaimError::Name(_) => Self::Usage,
            ClaimError::NotOurs(_) | ClaimError::Io { .. } => Self::Failure,
        }
    }
}

impl From<&ConnectError> for Exit {
    fn from(error: &ConnectError) -> Self {
        match error.origin() {
            ConnectError::Refused { .. }
            | ConnectError::TooManyTries { .. }
            | ConnectError::Expired { .. } => Self::LoginRefused,
            ConnectError::HostKey(_) => Self::HostKey,
            // Of a host on the way, as with a jump host.
            ConnectError::Command { end, .. } => match end {
                CommandEnd::Refused => Self::LoginRefused,
                CommandEnd::HostKey => Self::HostKey,
                CommandEnd::NoWay | CommandEnd::HungUp | CommandEnd::Late => Self::Ssh,
            },
            _ => Self::Ssh,
        }
    }
}

impl From<&HandError> for Exit {
    fn from(error: &HandError) -> Self {
        match error {
            HandError::Refused(refusal) => match refusal.kind {
                RefusalKind::Privilege => Self::Privilege,
                RefusalKind::Busy => Self::Busy,
                RefusalKind::Nothing => Self::Usage,
                RefusalKind::Senseless | RefusalKind::Failed => Self::Failure,
            },
            HandError::NotStarted { .. } => Self::Privilege,
            HandError::Gone | HandError::Io(_) => Self::Failure,
        }
    }
}

impl From<&StartError> for Exit {
    fn from(error: &StartError) -> Self {
        match error {
            StartError::NoWay { .. } => Self::Privilege,
            StartError::Io(_) => Self::Failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_exactly_these() {
        let listed: Vec<u8> = crate::cli::EXIT_CODES
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(listed, Exit::ALL.map(|exit| exit as u8));
    }

    #[test]
    fn a_command_that_is_refused_on_the_way_ends_as_a_refused_login() {
        for (end, exit) in [
            (CommandEnd::NoWay, Exit::Ssh),
            (CommandEnd::HungUp, Exit::Ssh),
            (CommandEnd::Late, Exit::Ssh),
            (CommandEnd::Refused, Exit::LoginRefused),
            (CommandEnd::HostKey, Exit::HostKey),
        ] {
            let error = ConnectError::Command {
                host: "h".to_owned(),
                detail: "it ended".to_owned(),
                command: "ssh -W h:22 gw".to_owned(),
                end,
            };
            assert_eq!(Exit::from(&error), exit, "{end:?}");
        }
    }
}
