//! A server that does not let us get as far as the login, in the words of an error.

use std::io;
use std::time::Duration;

use super::greeting::GreetingError;
use super::handler::SessionError;
use super::reason;
use super::route::{Base, WayEnd};
use crate::carrier::error::{CommandEnd, ConnectError, Stage};
use crate::carrier::failure::{harmless, words};
use crate::plan::{Route, SshPlan};

/// How a connection ended that the server closed while keys were exchanged.
const HUNG_UP: &str =
    "during the key exchange, without a word (MaxStartups, or a penalty for this address?)";

/// What had come from the other side when the stream broke.
enum Heard {
    Nothing,
    /// Something that is no SSH.
    Rubbish(String),
    /// The server's version.
    Server,
}

impl Heard {
    /// Before the version of the server.
    fn before(said: Option<String>) -> Self {
        said.map_or(Self::Nothing, Self::Rubbish)
    }
}

/// A server in the words of an error.
pub(super) struct Server<'a> {
    plan: &'a SshPlan,
    base: &'a Base,
    /// Its address, or its name where another program or host connects to it.
    pub(super) name: String,
}

impl<'a> Server<'a> {
    pub(super) fn new(plan: &'a SshPlan, base: &'a Base) -> Self {
        let name = base.name(plan);
        Self { plan, base, name }
    }

    pub(super) fn timed_out(&self, patience: Duration, stage: Stage) -> ConnectError {
        ConnectError::TimedOut {
            server: self.name.clone(),
            seconds: patience.as_secs(),
            stage,
        }
    }

    pub(super) fn greeting_error(&self, error: GreetingError) -> ConnectError {
        match error {
            GreetingError::Io { error, said } => self.io_error(&error, Heard::before(said)),
            GreetingError::Mute | GreetingError::Sent(_) => self.ended(error.to_string()),
            GreetingError::NotSsh(_) | GreetingError::OldSsh(_) => self.failed(error.to_string()),
        }
    }

    pub(super) fn handshake_error(&self, error: SessionError) -> ConnectError {
        match error {
            SessionError::HostKey(error) => ConnectError::HostKey(error),
            SessionError::Ssh(russh::Error::IO(error)) if !is_hang_up(&error) => {
                self.io_error(&error, Heard::Server)
            }
            SessionError::Ssh(
                russh::Error::IO(_) | russh::Error::Disconnect | russh::Error::HUP,
            ) => self.hung_up(),
            SessionError::Ssh(error) => self.failed(reason::of(&error)),
        }
    }

    fn hung_up(&self) -> ConnectError {
        // A write may notice the end of a command before its output does; its last words are known all the same.
        let last = self.base.last_words();
        let ended =
            last.and_then(|last| self.way_ended(&format!("the ProxyCommand ended: {last}"), false));
        ended.unwrap_or_else(|| self.ended(HUNG_UP.to_owned()))
    }

    fn io_error(&self, error: &io::Error, heard: Heard) -> ConnectError {
        let mut reason = match WayEnd::is(error) {
            true => error.to_string(),
            false => words(error),
        };
        let is_mute = matches!(heard, Heard::Nothing);
        if let Heard::Rubbish(said) = heard {
            reason.push_str(&format!("; it printed {said:?}, which is no SSH"));
        }
        let ended = WayEnd::is(error)
            .then(|| self.way_ended(&reason, is_mute))
            .flatten();
        ended.unwrap_or_else(|| self.failed(reason))
    }

    /// The end of a way that another program or host makes; `is_mute`: nothing had come on it.
    pub(super) fn way_ended(&self, reason: &str, is_mute: bool) -> Option<ConnectError> {
        match &self.plan.route {
            Route::Direct => None,
            Route::Jump(_) => Some(ConnectError::WayEnded {
                host: self.plan.alias.clone(),
                detail: reason.to_owned(),
                compare: self.plan.arguments.clone(),
            }),
            Route::Command(command) => Some(ConnectError::Command {
                host: self.plan.alias.clone(),
                detail: reason.to_owned(),
                command: harmless(command),
                end: match is_mute {
                    // It ends with the command's last words.
                    true => CommandEnd::of_mute([reason]),
                    false => CommandEnd::Late,
                },
            }),
        }
    }

    fn ended(&self, detail: String) -> ConnectError {
        ConnectError::Ended {
            host: self.plan.host.clone(),
            detail,
        }
    }

    fn failed(&self, detail: String) -> ConnectError {
        ConnectError::Handshake {
            server: self.name.clone(),
            compare: self.plan.arguments.clone(),
            detail,
        }
    }
}

/// Whether the other side went away: which of these it is told as is a matter of time.
fn is_hang_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use super::super::tcp::Pulse;
    use super::*;
    use crate::carrier::error::LAST_WORDS;

    #[test]
    fn whose_doing_the_end_of_a_command_was() {
        let plan = SshPlan {
            route: Route::Command("ssh -W h:22 gw".into()),
            ..SshPlan::new("h", 22, "me")
        };
        let socket = std::net::UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let base = Base::Tcp(([192, 0, 2, 1], 22).into(), Pulse::of(&socket).unwrap());
        let server = Server::new(&plan, &base);
        for (said, expected) in LAST_WORDS {
            let said = said.join("; ");
            let reason = format!("the ProxyCommand ended (exit status: 255): {said}");
            for (is_mute, expected) in [(true, expected), (false, CommandEnd::Late)] {
                let error = server.way_ended(&reason, is_mute);
                assert!(
                    matches!(&error, Some(ConnectError::Command { end, .. }) if *end == expected),
                    "{error:?}"
                );
            }
        }
    }
}
