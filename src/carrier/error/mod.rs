//! Why a login failed, why a host key was not accepted, and why a connection ended: one line each, with
//! what to do. `hint` has what to look at, `host_key` the host keys, `command` the end of a ProxyCommand.

mod command;
mod hint;
mod host_key;
#[cfg(test)]
mod tests;

use std::io;

use thiserror::Error;

pub use self::command::CommandEnd;
#[cfg(test)]
pub(super) use self::command::tests::LAST_WORDS;
pub use self::hint::Stage;
pub(super) use self::hint::{refused, too_many_tries};
pub use self::host_key::{CertificateFault, HostKeyError};

use self::hint::{ASKS, apart, unreachable};
use super::failure::words;
use crate::net::{OpenError, OpenFailure};
use crate::plan::{SshPlan, quoted};

/// Why there is no connection to the server.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("cannot resolve {host}: {}. Check the name: getent hosts {}", words(.source), quoted(.host))]
    UnknownHost {
        /// The name as typed.
        host: String,
        /// The resolver's words.
        source: io::Error,
    },
    /// No address of the server took a TCP connection; the error is that of the last one.
    #[error("cannot connect to {server}: {}. {}", words(.source), unreachable(.server, .source))]
    Unreachable {
        /// The address tried last, with its port; the name where a jump host's own ssh connects to it.
        server: String,
        /// The system's words.
        source: io::Error,
    },
    /// The address to connect from cannot be used.
    #[error(
        "cannot connect from {address} (BindAddress): {}. The addresses of this host: ip address", words(.source)
    )]
    BindAddress {
        /// The address or name as configured.
        address: String,
        /// The system's words.
        source: io::Error,
    },
    /// The server did not answer in time.
    #[error("no answer from {server} within {seconds} s{}. {}", .stage.had_come(), .stage.advice(.server))]
    TimedOut {
        /// The server: the address tried last, or its name where another program or host connects to it.
        server: String,
        /// How long was waited, in seconds.
        seconds: u64,
        /// How far it had come.
        stage: Stage,
    },
    /// A jump host does not connect to the next host.
    #[error(
        "the jump host {hop} does not connect to {target}: {reason}. Try there: ssh {arguments} nc -vz {}", apart(.target)
    )]
    Forward {
        /// The jump host as typed.
        hop: String,
        /// The next host and its port.
        target: String,
        /// The jump host's words.
        reason: String,
        /// Arguments that lead ssh to the jump host.
        arguments: String,
    },
    /// A jump host does not let us through to itself.
    #[error("jump host {hop}: {error}")]
    Hop {
        /// The jump host as typed.
        hop: String,
        /// Why, in the words for a server; never another of this kind.
        error: Box<Self>,
    },
    /// The ProxyCommand did not lead to the server.
    #[error("{host}: {}. The command was: {command}", .detail.trim_end_matches('.'))]
    Command {
        /// The server as typed.
        host: String,
        /// How the command ended, and its last words.
        detail: String,
        /// The command.
        command: String,
        /// Whose doing that was.
        end: CommandEnd,
    },
    /// A jump host that had connected to the server does so no longer.
    #[error("the way to {host} has ended: {detail}. Compare with: ssh -v {compare}")]
    WayEnded {
        /// The server as typed.
        host: String,
        /// Where it ended, and why.
        detail: String,
        /// Arguments that lead ssh to the server.
        compare: String,
    },
    /// The embedded SSH has none of the algorithms that were asked for.
    #[error(
        "{host}: the embedded SSH has none of {option} {asked}; it has {known}. Allow one of these, or use --carrier openssh"
    )]
    NoAlgorithm {
        /// The server as typed.
        host: String,
        /// The option of ssh_config(5).
        option: &'static str,
        /// Its value.
        asked: String,
        /// What could be asked for, comma separated.
        known: String,
    },
    /// What answers does not speak SSH, or both sides have no algorithm in common.
    #[error("the SSH handshake with {server} failed: {detail}. Compare with: ssh -v {compare}")]
    Handshake {
        /// The server: its address, or its name where another program or host connects to it.
        server: String,
        /// Arguments that lead ssh there.
        compare: String,
        /// What went wrong.
        detail: String,
    },
    /// The server's host key is not accepted.
    #[error(transparent)]
    HostKey(#[from] HostKeyError),
    /// The user's own ssh carries nothing.
    #[error(transparent)]
    Ssh(#[from] super::openssh::SshError),
    /// The server took nothing of what was tried.
    #[error(
        "{user}@{host}: permission denied (the server takes: {methods}; tried: {tried}). {hint}"
    )]
    Refused {
        /// The login name.
        user: String,
        /// The server as typed.
        host: String,
        /// The methods that the server would go on with, comma separated.
        methods: String,
        /// What was tried, and what could not be, comma separated.
        tried: String,
        /// What to do.
        hint: Box<str>,
    },
    /// The server ended the connection because of the attempts that had failed (MaxAuthTries of sshd_config(5)).
    #[error(
        "{user}@{host}: the server let us try no further after {count} attempts: {said} (tried: {tried}). {hint}"
    )]
    TooManyTries {
        /// The login name.
        user: String,
        /// The server as typed.
        host: String,
        /// The server's words.
        said: Box<str>,
        /// How many attempts were made.
        count: usize,
        /// What was tried, and what could not be, comma separated.
        tried: String,
        /// What to do.
        hint: &'static str,
    },
    /// The server wants another password before it lets us in.
    #[error(
        "{user}@{host}: the server answers the password with neither yes nor no: most likely it has expired. Log in once to change it: ssh {compare}"
    )]
    Expired {
        /// The login name.
        user: String,
        /// The server as typed.
        host: String,
        /// Arguments that lead ssh to the server.
        compare: String,
    },
    /// The server took longer than any server does.
    #[error("{host} has not answered the login for {seconds} s. {hint}")]
    Unanswered {
        /// The server as typed.
        host: String,
        /// How long was waited, in seconds.
        seconds: u64,
        /// What to do.
        hint: String,
    },
    /// The connection ended before the login was done.
    #[error(
        "{host}: the connection ended {detail}. The server's log says why; there: journalctl -u ssh"
    )]
    Ended {
        /// The server as typed.
        host: String,
        /// At which point, and what is known of the reason.
        detail: String,
    },
}

impl ConnectError {
    /// The jump host `hop` lets us in, and does not connect to `next`.
    pub(super) fn not_forwarded(hop: &SshPlan, next: &SshPlan, error: OpenError) -> Self {
        Self::Forward {
            hop: hop.alias.clone(),
            arguments: hop.arguments.clone(),
            target: next.place(),
            // Where the table knows no kind, the server's own words say more.
            reason: match error.failure {
                OpenFailure::Other if !error.text.is_empty() => error.text,
                _ => error.to_string(),
            },
        }
    }

    /// The same, as a failure of the jump host `hop`, unless it is that of one further on the way.
    pub(super) fn of_hop(self, hop: &str) -> Self {
        match self {
            Self::Hop { .. } => self,
            error => Self::Hop {
                hop: hop.to_owned(),
                error: Box::new(error),
            },
        }
    }

    /// The same where somebody is asked next: without the advice to see to it that there is somebody.
    pub(super) fn before_asking(mut self) -> Self {
        let origin = match &mut self {
            Self::Hop { error, .. } => error.as_mut(),
            error => error,
        };
        if let Self::Refused { hint, .. } = origin
            && hint.starts_with(ASKS)
        {
            *hint = ASKS.into();
        }
        self
    }

    /// What went wrong, at whichever host.
    pub fn origin(&self) -> &Self {
        match self {
            Self::Hop { error, .. } => error,
            error => error,
        }
    }
}

/// Why the last connection ended.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LostReason {
    /// The server said goodbye (RFC 4253 section 11.1).
    #[error("the server ended the connection{}", reason(.0))]
    Disconnected(
        /// Its words; it may have none.
        String,
    ),
    /// The server answered no keepalive.
    #[error("the server does not answer any more")]
    Silent,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(
        /// How, for a person.
        String,
    ),
}

fn reason(said: &str) -> String {
    match said {
        "" => " without a reason".to_owned(),
        said => format!(": {said}"),
    }
}
