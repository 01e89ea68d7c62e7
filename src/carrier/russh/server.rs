//! A server that does not let us get as far as the login, in the words of an error.

use std::io;
use std::time::Duration;

use super::greeting::GreetingError;
use super::handler::SessionError;
use super::route::{Base, WayEnd};
use crate::carrier::error::ConnectError;
use crate::carrier::failure::harmless;
use crate::plan::{Route, SshPlan};

/// What had come when time was up.
pub(super) const NO_BANNER: &str = ": it is connected, but sends no SSH banner";
pub(super) const NO_KEYS: &str = ": the SSH handshake does not end";

/// A server in the words of an error.
pub(super) struct Server<'a> {
    plan: &'a SshPlan,
    /// Its address, or its name where another program or host connects to it.
    pub(super) name: String,
    /// Arguments that lead ssh there.
    compare: String,
}

impl<'a> Server<'a> {
    pub(super) fn new(plan: &'a SshPlan, base: &Base) -> Self {
        let (name, compare) = base.names(plan);
        Self {
            plan,
            name,
            compare,
        }
    }

    pub(super) fn timed_out(&self, patience: Duration, stage: &'static str) -> ConnectError {
        ConnectError::TimedOut {
            server: self.name.clone(),
            seconds: patience.as_secs(),
            stage,
        }
    }

    pub(super) fn greeting_error(&self, error: GreetingError) -> ConnectError {
        match error {
            GreetingError::Io(error) => self.io_error(&error),
            GreetingError::Mute | GreetingError::Sent(_) => self.ended(error.to_string()),
            GreetingError::NotSsh(_) | GreetingError::OldSsh(_) => self.failed(&error.to_string()),
        }
    }

    pub(super) fn handshake_error(&self, error: SessionError) -> ConnectError {
        match error {
            SessionError::HostKey(error) => ConnectError::HostKey(error),
            SessionError::Ssh(russh::Error::IO(error)) if !is_hang_up(&error) => self.io_error(&error),
            SessionError::Ssh(russh::Error::IO(_) | russh::Error::Disconnect | russh::Error::HUP) => self.ended(
                "it closed the connection during the handshake (MaxStartups, or a penalty for this address?)".to_owned(),
            ),
            SessionError::Ssh(russh::Error::NoCommonAlgo { kind, ours, theirs }) => {
                self.failed(&format!(
                    "no {kind:?} algorithm in common: the server has {}; offered were {}",
                    theirs.join(","),
                    ours.join(",")
                ))
            }
            SessionError::Ssh(error) => self.failed(&error.to_string()),
        }
    }

    fn io_error(&self, error: &io::Error) -> ConnectError {
        let reason = error.to_string();
        let ended = WayEnd::is(error).then(|| self.way_ended(&reason)).flatten();
        ended.unwrap_or_else(|| self.failed(&reason))
    }

    /// The end of a way that another program or host makes.
    pub(super) fn way_ended(&self, reason: &str) -> Option<ConnectError> {
        match &self.plan.route {
            Route::Direct => None,
            Route::Jump(_) => Some(self.ended(reason.to_owned())),
            Route::Command(command) => Some(ConnectError::Command {
                host: self.plan.alias.clone(),
                detail: harmless(reason),
                command: harmless(command),
            }),
        }
    }

    fn ended(&self, detail: String) -> ConnectError {
        ConnectError::Ended {
            host: self.plan.host.clone(),
            detail,
        }
    }

    fn failed(&self, detail: &str) -> ConnectError {
        ConnectError::Handshake {
            server: self.name.clone(),
            compare: self.compare.clone(),
            detail: harmless(detail),
        }
    }
}

/// Whether the other side went away: which of these it is told as is a matter of time.
fn is_hang_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}
