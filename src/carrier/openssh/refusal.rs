//! Why a login failed, from what ssh has said: one line with what to do, in the same words as over the built-in SSH.

use std::io;
use std::time::Duration;

use super::client::SshError;
use super::facts::Stage;
use super::words::Words;
use crate::carrier::error::{ConnectError, HostKeyError, Stage as WaitedFor};
use crate::plan::{SshPlan, quoted};

/// How ssh names the peer where it has no TCP connection of its own.
const NO_ADDRESS: &str = "UNKNOWN port 65535";
/// What ssh says of a way that has ended, whatever the reason.
const CUT_SHORT: [&str; 3] = [
    "Connection closed by remote host",
    "Connection reset by peer",
    "stdio forwarding",
];

/// What sshd says instead of its version where it takes no connection for now (sshd.c `drop_connection`).
const SENT_AWAY: [&str; 2] = ["Exceeded MaxStartups", "Not allowed at this time"];

/// A login that has failed: of whom, what ssh has said, and how long it took.
pub(super) struct Refusal<'a> {
    pub(super) plan: &'a SshPlan,
    pub(super) words: &'a Words,
    pub(super) taken: Duration,
}

impl Refusal<'_> {
    /// Why.
    pub(super) fn error(&self) -> ConnectError {
        let own = self.words.lines().next();
        let Some(last) = own.or_else(|| self.words.asides().next()) else {
            return self.ended("it says nothing");
        };
        // Before anything of the server's could be in the log.
        let is_key_open = self.words.facts.stage <= Stage::HostKey;
        if is_key_open && self.words.find("Host key verification failed").is_some() {
            return self.host_key_error().into();
        }
        self.not_let_in(last)
            .or_else(|| self.not_greeted(last))
            .or_else(|| last.contains(NO_ADDRESS).then(|| self.astray(last)))
            .or_else(|| self.unreached(last))
            .unwrap_or_else(|| self.ended(last))
    }

    /// It takes longer than it may.
    pub(super) fn overdue(&self) -> ConnectError {
        self.timed_out(WaitedFor::Keys)
    }

    /// The server took nothing of what ssh has.
    fn not_let_in(&self, last: &str) -> Option<ConnectError> {
        let (user, host) = (self.plan.user.clone(), self.plan.alias.clone());
        let tried = self.words.facts.tried();
        if let Some(said) = self.words.farewell()
            && said.to_ascii_lowercase().contains("too many auth")
        {
            return Some(ConnectError::TooManyTries {
                user,
                host,
                said: said.to_owned(),
                // The first no is the answer to the question what is taken.
                count: self.words.facts.refusals.max(2) - 1,
                tried,
            });
        }
        let methods = between(last, "Permission denied (", ").")?;
        Some(ConnectError::Refused {
            user,
            host,
            methods: methods.replace(',', ", "),
            tried,
            hint: match methods.contains("publickey") {
                true => "Name a key with -i FILE, or ssh-add it",
                false => {
                    "It asks for a password or a code: start underpass in a terminal, or set SSH_ASKPASS, without BatchMode"
                }
            },
        })
    }

    /// What answers has said no version of SSH 2.
    fn not_greeted(&self, last: &str) -> Option<ConnectError> {
        let facts = &self.words.facts;
        if facts.stage == Stage::Greeting && last.ends_with(" timed out") {
            return Some(self.timed_out(WaitedFor::Banner));
        }
        let said = facts.greeting.as_deref();
        let detail = match said.filter(|said| !said.is_empty()) {
            _ if !matches!(facts.stage, Stage::Greeting | Stage::Handshake) => return None,
            Some(said) if said.starts_with("SSH-") => {
                format!("it does not speak SSH 2: it says {said:?}")
            }
            _ if facts.stage == Stage::Handshake => return None,
            Some(said) if SENT_AWAY.iter().any(|text| said.starts_with(text)) => {
                let detail = format!("it said {said:?} and closed the connection");
                return Some(self.hung_up(detail));
            }
            Some(said) => format!("it is not an SSH server: it says {said:?}"),
            None if last.contains(NO_ADDRESS) => return None,
            None => {
                let detail = "it closed the connection before its SSH banner (MaxStartups, or a penalty for this address?)";
                return Some(self.hung_up(detail.to_owned()));
            }
        };
        Some(self.handshake(detail))
    }

    /// The way that is not a TCP connection of this ssh's, a ProxyCommand or a jump host, leads nowhere: what was said
    /// on it tells more than ssh, which knows only that it has ended.
    fn astray(&self, last: &str) -> ConnectError {
        let is_ssh = |line: &&str| {
            let of_an_end = CUT_SHORT.iter().any(|text| line.contains(text));
            of_an_end || line.contains(NO_ADDRESS)
        };
        let mut all = self.words.asides().chain(self.words.lines());
        let said = all.find(|line| !is_ssh(line)).unwrap_or(last);
        ConnectError::Ssh(SshError::Astray {
            host: self.plan.alias.clone(),
            arguments: self.plan.arguments.clone(),
            said: said.to_owned(),
        })
    }

    /// The words of ssh before it has spoken with the server, or while.
    fn unreached(&self, last: &str) -> Option<ConnectError> {
        if let Some((_, rest)) = last.split_once("Could not resolve hostname ") {
            let (host, why) = rest.split_once(": ")?;
            return Some(ConnectError::UnknownHost {
                host: host.to_owned(),
                source: io::Error::other(why.to_owned()),
            });
        }
        if last.contains("ssh: connect to host") {
            let (address, why) = (self.words.facts.peer?, last.rsplit(": ").next()?);
            if why.contains("timed out") {
                return Some(self.timed_out(WaitedFor::Connecting));
            }
            let source = io::Error::other(why.to_owned());
            return Some(ConnectError::Unreachable { address, source });
        }
        if last.contains("Unable to negotiate") {
            return Some(self.handshake(last.to_owned()));
        }
        if let Some(said) = self.words.farewell() {
            return Some(self.hung_up(said.to_owned()));
        }
        let ends = [
            "Connection closed by",
            "Connection reset by",
            "kex_exchange_identification:",
        ];
        let is_end = ends.iter().any(|text| last.contains(text));
        is_end.then(|| self.hung_up(last.to_owned()))
    }

    fn host_key_error(&self) -> HostKeyError {
        let find = |text: &str| self.words.find(text);
        let offered = self.words.facts.host_key.as_deref().unwrap_or("see above");
        let said = if let Some(line) = find("Offending ") {
            let place = line.split(" in ").nth(1).unwrap_or("known_hosts");
            let file = place.rsplit_once(':').map_or(place, |(file, _)| file);
            let host = find("Host key for ")
                .and_then(|line| between(line, "Host key for ", " has changed"));
            let host = host.unwrap_or(&self.plan.host);
            format!(
                "it has changed (offered: {offered}, known: {place}). Somebody may be listening in. If the change is \
                 expected: ssh-keygen -R {} -f {}",
                quoted(host),
                quoted(file)
            )
        } else if find("REVOKED").is_some() {
            format!(
                "{offered} is marked as revoked. Ask the server's administrator for its new key"
            )
        } else {
            format!(
                "it is not known (offered: {offered}). Compare the fingerprint, then connect once with ssh {}, or pass -o \
                 StrictHostKeyChecking=accept-new",
                self.plan.arguments
            )
        };
        HostKeyError::Ssh {
            host: self.plan.alias.clone(),
            said,
        }
    }

    fn ended(&self, said: &str) -> ConnectError {
        ConnectError::Ssh(SshError::Ended {
            arguments: self.plan.arguments.clone(),
            said: said.to_owned(),
        })
    }

    fn hung_up(&self, detail: String) -> ConnectError {
        ConnectError::Ended {
            host: self.plan.alias.clone(),
            detail: format!("before the login was done: {detail}"),
        }
    }

    fn handshake(&self, detail: String) -> ConnectError {
        ConnectError::Handshake {
            server: self.server(),
            compare: self.plan.arguments.clone(),
            detail,
        }
    }

    fn timed_out(&self, stage: WaitedFor) -> ConnectError {
        let limit = self.plan.dialling.timeout;
        ConnectError::TimedOut {
            server: self.server(),
            seconds: limit.unwrap_or(self.taken).as_secs(),
            stage,
        }
    }

    /// Its address, or its name where another program or host connects to it.
    fn server(&self) -> String {
        let peer = self.words.facts.peer;
        peer.map_or_else(|| self.plan.alias.clone(), |peer| peer.to_string())
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?
        .1
        .split_once(after)
        .map(|(inner, _)| inner)
}

#[cfg(test)]
#[path = "refusal_tests.rs"]
mod tests;
