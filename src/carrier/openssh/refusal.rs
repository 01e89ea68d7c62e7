//! Why a login failed, from what ssh has said: one line with what to do, in the same words as over the built-in SSH.

use std::io;
use std::time::Duration;

use super::client::SshError;
use super::facts::Stage;
use super::words::Words;
use crate::carrier::error::{
    ConnectError, HostKeyError, Stage as WaitedFor, refused, too_many_tries,
};
use crate::plan::{SshPlan, quoted};

/// How ssh names the peer where it has no TCP connection of its own.
pub(super) const NO_ADDRESS: &str = "UNKNOWN port 65535";
/// What it says of a host key that it does not take, or that it had rather not (sshconnect.c `check_host_key`).
pub(super) const KEY_REFUSED: &str = "Host key verification failed";
pub(super) const KEY_ALARMS: [&str; 3] = [
    "REMOTE HOST IDENTIFICATION HAS CHANGED!",
    "REVOKED HOST KEY DETECTED!",
    "forwarding disabled due to host key check failure",
];
/// What it says where it makes no connection.
pub(super) const UNREACHED: [&str; 2] = [NO_NAME, NO_CONNECTION];
const NO_NAME: &str = "Could not resolve hostname ";
const NO_CONNECTION: &str = "ssh: connect to host ";

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
        if is_key_open && self.words.find(KEY_REFUSED).is_some() {
            return self.host_key_error().into();
        }
        self.not_let_in(last)
            .or_else(|| self.at_a_hop(last))
            .or_else(|| self.not_greeted(last))
            .or_else(|| last.contains(NO_ADDRESS).then(|| self.astray(last)))
            .or_else(|| self.unreached(last))
            .unwrap_or_else(|| self.ended(last))
    }

    pub(super) fn of<'a>(&self, plan: &'a SshPlan, words: &'a Words) -> Refusal<'a> {
        Refusal {
            plan,
            words,
            taken: self.taken,
        }
    }

    /// It takes longer than it may.
    pub(super) fn overdue(&self) -> ConnectError {
        self.timed_out(WaitedFor::Keys, self.server())
    }

    /// The server took nothing of what ssh has.
    pub(super) fn not_let_in(&self, last: &str) -> Option<ConnectError> {
        let (user, host) = (self.plan.user.clone(), self.plan.alias.clone());
        let tried = self.words.tried();
        if let Some(said) = self.words.farewell()
            && said.to_ascii_lowercase().contains("too many auth")
        {
            return Some(ConnectError::TooManyTries {
                user,
                host,
                said: said.into(),
                // The first no is the answer to the question what is taken.
                count: self.words.facts.refusals.max(2) - 1,
                tried,
                hint: too_many_tries(self.plan),
            });
        }
        let methods = between(last, "Permission denied (", ").")?;
        let each: Vec<_> = methods.split(',').collect();
        Some(ConnectError::Refused {
            user,
            host,
            methods: each.join(", "),
            tried,
            hint: refused(self.plan, &each, self.words.was_answered()).into(),
        })
    }

    /// What answers has said no version of SSH 2.
    fn not_greeted(&self, last: &str) -> Option<ConnectError> {
        let facts = &self.words.facts;
        if last.ends_with(" timed out") {
            match facts.stage {
                Stage::Greeting => return Some(self.timed_out(WaitedFor::Banner, self.server())),
                // ssh waits for ServerAliveInterval x ServerAliveCountMax here.
                Stage::Handshake => return Some(self.timed_out(WaitedFor::Keys, self.server())),
                _ => {}
            }
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

    /// `bind 192.0.2.1: Cannot assign requested address`, or `getaddrinfo: NAME: ...` (sshconnect.c `ssh_create_socket`).
    fn not_bound(&self) -> Option<ConnectError> {
        let begins = ["bind ", "getaddrinfo: "];
        let mut lines = self.words.lines();
        let (address, why) = lines.find_map(|line| {
            let rest = begins.iter().find_map(|begin| line.strip_prefix(begin));
            rest?.split_once(": ")
        })?;
        Some(ConnectError::BindAddress {
            address: address.to_owned(),
            source: io::Error::other(why.to_owned()),
        })
    }

    /// The words of ssh before it has spoken with the server, or while.
    pub(super) fn unreached(&self, last: &str) -> Option<ConnectError> {
        if let Some((_, rest)) = last.split_once(NO_NAME) {
            let (host, why) = rest.split_once(": ")?;
            return Some(ConnectError::UnknownHost {
                host: host.to_owned(),
                source: io::Error::other(why.to_owned()),
            });
        }
        if let Some((_, rest)) = last.split_once(NO_CONNECTION) {
            let (place, why) = rest.rsplit_once(": ")?;
            // An ssh before 8.5, and that of a jump host, tells no address.
            let peer = self.words.facts.peer.map(|peer| peer.to_string());
            let server = peer.unwrap_or_else(|| named(place));
            if why.contains("timed out") {
                return Some(self.timed_out(WaitedFor::Connecting, server));
            }
            if why == "failure"
                && let Some(error) = self.not_bound()
            {
                return Some(error);
            }
            let source = io::Error::other(why.to_owned());
            return Some(ConnectError::Unreachable { server, source });
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

    pub(super) fn host_key_error(&self) -> HostKeyError {
        let find = |text: &str| self.words.find(text);
        let words_of_it = || {
            let line = self.words.lines().find(|line| line.starts_with("SHA256:"));
            line.map(|line| line.trim_end_matches('.'))
        };
        let known = self.words.facts.host_key.as_deref();
        let offered = known.or_else(words_of_it).unwrap_or("see above");
        let said = if let Some(line) = find("Offending ") {
            let place = line.split(" in ").nth(1).unwrap_or("known_hosts");
            let file = place.rsplit_once(':').map_or(place, |(file, _)| file);
            let host = find("Host key for ")
                .and_then(|line| between(line, "Host key for ", " has changed"));
            let host = host.map_or_else(|| self.name_of_key(), str::to_owned);
            format!(
                "it has changed (offered: {offered}, known: {place}). Somebody may be listening in. If the change is \
                 expected: ssh-keygen -R {} -f {}",
                quoted(&host),
                quoted(file)
            )
        } else if find("REVOKED").is_some() {
            format!(
                "{offered} is marked as revoked. Ask the server's administrator for its new key"
            )
        } else {
            let Some((algorithm, fingerprint)) = known.and_then(|key| key.split_once(' ')) else {
                let said = format!("it is not known. {}", self.plan.to_learn_its_key());
                let host = self.plan.alias.clone();
                return HostKeyError::Ssh { host, said };
            };
            return HostKeyError::Unknown {
                advice: self.plan.to_learn_its_key().into(),
                host: self.name_of_key(),
                algorithm: algorithm.to_owned(),
                fingerprint: fingerprint.to_owned(),
            };
        };
        HostKeyError::Ssh {
            host: self.plan.alias.clone(),
            said,
        }
    }

    /// The server as known_hosts spells it.
    fn name_of_key(&self) -> String {
        let SshPlan {
            host,
            port,
            host_key_alias,
            ..
        } = self.plan;
        match (host_key_alias, port) {
            (Some(alias), _) => alias.clone(),
            (None, 22) => host.clone(),
            (None, port) => format!("[{host}]:{port}"),
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

    fn timed_out(&self, stage: WaitedFor, server: String) -> ConnectError {
        let limit = self.plan.dialling.timeout.unwrap_or(self.taken);
        ConnectError::TimedOut {
            server,
            seconds: limit.min(self.taken).as_secs(),
            stage,
        }
    }

    /// Its address, or its name where another program or host connects to it.
    fn server(&self) -> String {
        let peer = self.words.facts.peer;
        peer.map_or_else(|| self.plan.alias.clone(), |peer| peer.to_string())
    }
}

/// `HOST port PORT` as `HOST:PORT`.
fn named(place: &str) -> String {
    match place.rsplit_once(" port ") {
        Some((host, port)) if host.contains(':') => format!("[{host}]:{port}"),
        Some((host, port)) => format!("{host}:{port}"),
        None => place.to_owned(),
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
