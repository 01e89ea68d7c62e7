//! Why a way leads to no server that is not a TCP connection of ssh's own: a jump host, which another ssh speaks with, or a
//! ProxyCommand. What these say comes on stderr.

use super::client::SshError;
use super::facts::Stage;
use super::refusal::{KEY_ALARMS, KEY_REFUSED, NO_ADDRESS, Refusal, UNREACHED};
use crate::carrier::error::{CommandEnd, ConnectError};
use crate::carrier::failure::{harmless, open_error};
use crate::net::OpenError;
use crate::plan::{HostKeyPolicy, Route};

/// What ssh says of a way that has ended, whatever the reason.
const CUT_SHORT: [&str; 3] = [
    "Connection closed by remote host",
    "Connection reset by peer",
    "stdio forwarding",
];

/// What it says of a channel that the server does not open: `channel 0: open failed: REASON: WORDS` (channels.c
/// `channel_input_open_failure`).
const NOT_FORWARDED: &str = ": open failed: ";

impl Refusal<'_> {
    /// A jump host has another key than it should, and its own ssh goes on all the same, as it was told to
    /// (StrictHostKeyChecking=no); we do not.
    pub(super) fn careless(&self) -> Option<ConnectError> {
        let mut hops = self.plan.servers().skip(1);
        let hop = hops.find(|hop| hop.host_keys == HostKeyPolicy::No)?;
        let words = self.words.of_the_way();
        let is_alarm = KEY_ALARMS.iter().any(|text| words.find(text).is_some());
        let refusal = self.of(hop, &words);
        is_alarm.then(|| ConnectError::from(refusal.host_key_error()).of_hop(&hop.alias))
    }

    /// A jump host is not reached, does not let us in, or connects no further, by the words of the ssh that ssh runs for it.
    /// Others speak there, too; nothing but the kind of a failure depends on it.
    pub(super) fn at_a_hop(&self, last: &str) -> Option<ConnectError> {
        if !last.contains(NO_ADDRESS) && !CUT_SHORT.iter().any(|text| last.contains(text)) {
            return None;
        }
        let hops: Vec<_> = self.plan.servers().skip(1).collect();
        // Each ssh on the way says so whose own way has ended; the one before them has failed.
        let ended = self.words.asides().filter(|line| line.contains(NO_ADDRESS));
        let place = ended.count().min(hops.len().checked_sub(1)?);
        let hop = hops[place];
        let words = self.words.of_the_way();
        let own = self.of(hop, &words).of_itself();
        own.map(|error| error.of_hop(&hop.alias)).or_else(|| {
            let open = refused_open(words.find(NOT_FORWARDED)?)?;
            let next = place.checked_sub(1).map_or(self.plan, |next| hops[next]);
            let error = ConnectError::not_forwarded(hop, next, open);
            Some(match next.is_hop {
                true => error.of_hop(&next.alias),
                false => error,
            })
        })
    }

    /// Of a jump host, whose words these are: it is not reached, or does not let us in.
    fn of_itself(&self) -> Option<ConnectError> {
        let says = |text: &str| self.words.find(text);
        if says(KEY_REFUSED).is_some() || KEY_ALARMS.iter().any(|text| says(text).is_some()) {
            return Some(self.host_key_error().into());
        }
        let denied = says("Permission denied (").unwrap_or_default();
        let unreached = || {
            UNREACHED
                .iter()
                .find_map(|text| self.unreached(says(text)?))
        };
        self.not_let_in(denied).or_else(unreached)
    }

    /// The way that is not a TCP connection of this ssh's, a ProxyCommand or a jump host, leads nowhere: what was said
    /// on it tells more than ssh, which knows only that it has ended.
    pub(super) fn astray(&self, last: &str) -> ConnectError {
        let is_ssh = |line: &&str| {
            let of_an_end = CUT_SHORT.iter().any(|text| line.contains(text));
            of_an_end || line.contains(NO_ADDRESS)
        };
        let mut all = self.words.asides().chain(self.words.lines());
        let said = all.find(|line| !is_ssh(line));
        if let Route::Command(command) = &self.plan.route {
            return self.ended_command(command, said);
        }
        ConnectError::Ssh(SshError::Astray {
            host: self.plan.alias.clone(),
            arguments: self.plan.arguments.clone(),
            said: said.unwrap_or(last).to_owned(),
        })
    }

    fn ended_command(&self, command: &str, said: Option<&str>) -> ConnectError {
        let facts = &self.words.facts;
        let is_mute = facts.stage <= Stage::Greeting && facts.greeting.is_none();
        let (end, when) = match is_mute {
            true => (
                CommandEnd::of_mute(self.words.asides()),
                "before the server had said a word",
            ),
            false => (CommandEnd::Late, "before the login was done"),
        };
        let colon = if said.is_some() { ": " } else { "" };
        let said = said.unwrap_or_default();
        ConnectError::Command {
            host: self.plan.alias.clone(),
            detail: format!("the ProxyCommand ended {when}{colon}{said}"),
            command: harmless(command),
            end,
        }
    }
}

/// `channel 0: open failed: REASON[: WORDS]`, with the reason in ssh's own words (channels.c `reason2txt`).
fn refused_open(line: &str) -> Option<OpenError> {
    let (_, said) = line.split_once(NOT_FORWARDED)?;
    let (reason, text) = said.split_once(": ").unwrap_or((said, said));
    let reason = if reason.contains("prohibited") { 1 } else { 2 };
    Some(open_error(reason, text))
}
