//! What one ssh says: in its own log, and beside it on stderr, where others speak too.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::debug;

use super::facts::{Facts, Line, Stage};
use super::said::Said;
use super::tunnel;
use crate::carrier::error::LostReason;
use crate::carrier::examine::Tunnel;
use crate::carrier::failure::{broke, harmless, harmless_line};

/// Lines that are kept of each, for the reason of an end.
const KEPT: usize = 24;

/// The text of the server's DISCONNECT follows, line feeds included (packet.c).
const SERVERS_WORDS: &str = "Received disconnect from ";
/// The methods by which a person is asked.
const ANSWERED: [&str; 2] = ["password", "keyboard-interactive"];
/// What it says before it asks for a password again.
const TRY_AGAIN: &str = "please try again";
/// The frame of the warning of a host key.
const FRAME: &str = "@@@";

/// What one ssh has said so far.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) facts: Facts,
    pid: i32,
    said: Arc<Said>,
    /// It has no TCP connection of its own, but a ProxyCommand.
    is_by_command: bool,
    /// The latest lines of its log but for the details, made harmless.
    lines: VecDeque<String>,
    /// The latest lines of stderr: ssh's before it has a log, the server's banner, and those of what ssh runs.
    asides: VecDeque<String>,
    /// Within the warning of a host key.
    is_alarm: bool,
    /// The server has said goodbye.
    is_farewell: bool,
    stage: watch::Sender<Stage>,
    /// What the server has said of a tunnel.
    tunnel: watch::Sender<Option<Tunnel>>,
}

impl Words {
    /// Of the ssh that is process `pid`; what one has `said` is not shown again of another.
    pub(super) fn of(pid: i32, said: Arc<Said>) -> Self {
        Self {
            facts: Facts::of(pid),
            pid,
            said,
            is_by_command: false,
            lines: VecDeque::new(),
            asides: VecDeque::new(),
            is_alarm: false,
            is_farewell: false,
            stage: watch::Sender::default(),
            tunnel: watch::Sender::default(),
        }
    }

    /// Of one that has a ProxyCommand, if `is_so`.
    pub(super) fn by_command(self, is_so: bool) -> Self {
        Self {
            is_by_command: is_so,
            ..self
        }
    }

    /// What was said on the way in tells nothing about the end.
    pub(super) fn logged_in(&mut self) {
        self.asides.clear();
    }

    /// How far the login has come.
    pub(super) fn stages(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// What the server says of a tunnel that it is asked for.
    pub(super) fn tunnel(&self) -> watch::Receiver<Option<Tunnel>> {
        self.tunnel.subscribe()
    }

    /// What was said on stderr, as if one ssh had said it all: that on the way to a jump host has no other place. Nothing of
    /// a login is known there but what went wrong with it.
    pub(super) fn of_the_way(&self) -> Self {
        Self {
            lines: self.asides.clone(),
            ..Self::of(self.pid, Arc::clone(&self.said))
        }
    }

    /// What ssh has tried, and why that came to nothing where its log says so; for an error.
    pub(super) fn tried(&self) -> String {
        let tried = self.facts.tried();
        if tried.is_empty() {
            return match self.facts.stage < Stage::Login {
                true => "ssh does not tell",
                false => "no key found",
            }
            .to_owned();
        }
        let all = tried.iter().map(|name| match self.obstacle(name) {
            Some(why) => format!("{name} ({why})"),
            None => name.clone(),
        });
        all.collect::<Vec<_>>().join(", ")
    }

    /// Why what has this `name` has not let us in, but for the server's plain no.
    fn obstacle(&self, name: &str) -> Option<String> {
        if ANSWERED.contains(&name) {
            let is_alone = self.find("can't open /dev/tty").is_some();
            let again = self.lines().filter(|line| line.contains(TRY_AGAIN)).count();
            return match again {
                _ if is_alone => Some("nobody to ask".to_owned()),
                1.. if name == ANSWERED[0] => Some(format!("{} times", again + 1)),
                _ => None,
            };
        }
        // `Load key "PATH": WHY`, `sign_and_send_pubkey: signing failed for TYPE "PATH" from agent: WHY`
        let complaint = self.find(&format!("\"{name}\""));
        if let Some((_, why)) = complaint.and_then(|line| line.rsplit_once(": ")) {
            return Some(why.to_owned());
        }
        self.facts
            .is_taken(name)
            .then(|| match self.find("with partial success") {
                Some(_) => "taken, but the server wants more".to_owned(),
                None => "taken, but not unlocked".to_owned(),
            })
    }

    /// Whether somebody was asked for a password or a code, and has answered.
    pub(super) fn was_answered(&self) -> bool {
        let is_asked = |name: &str| self.facts.tried().iter().any(|tried| *tried == name);
        ANSWERED
            .iter()
            .any(|name| is_asked(name) && self.obstacle(name).as_deref() != Some("nobody to ask"))
    }

    /// Takes a line of its log, and shows it if it is for a person now.
    pub(super) fn hear(&mut self, line: &str) {
        let line = harmless_line(line.trim_end());
        let line = Line::read(&line);
        let is_fact = self.facts.learn(&line);
        if is_fact {
            self.stage.send_if_modified(|stage| {
                let is_new = *stage != self.facts.stage;
                *stage = self.facts.stage;
                is_new
            });
        }
        if let Some(said) = tunnel::said(line.text) {
            self.tunnel.send_replace(Some(said));
        }
        if is_fact || line.is_detail {
            self.is_alarm = false;
            debug!("ssh: {}", line.text);
            return;
        }
        self.take(line.text);
    }

    fn take(&mut self, text: &str) {
        // What follows may be the server's, but for ssh's own last line.
        let is_foreign = self.is_farewell && !text.starts_with("Disconnected from ");
        if text.is_empty() || is_foreign {
            return;
        }
        self.is_farewell |= text.starts_with(SERVERS_WORDS);
        self.is_alarm |= text.starts_with(FRAME);
        self.said.show(self.pid, text, self.is_alarm);
        keep(&mut self.lines, text);
    }

    /// Takes a line of stderr, and shows it. No fact is believed.
    pub(super) fn overhear(&mut self, line: &str) {
        let text = harmless_line(line.trim_end());
        if !text.is_empty() {
            self.said.show(self.pid, &text, false);
            keep(&mut self.asides, &text);
        }
    }

    /// ssh's own latest lines, the last one first.
    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().rev().map(String::as_str)
    }

    /// The latest lines of others, the last one first.
    pub(super) fn asides(&self) -> impl Iterator<Item = &str> {
        self.asides.iter().rev().map(String::as_str)
    }

    /// The latest of ssh's own lines with `text`.
    pub(super) fn find(&self, text: &str) -> Option<&str> {
        self.lines().find(|line| line.contains(text))
    }

    /// What the server has said when it ended the connection.
    pub(super) fn farewell(&self) -> Option<&str> {
        let line = self.find(SERVERS_WORDS)?;
        // `ADDRESS port PORT:CODE: TEXT`
        let (_, rest) = line.split_once(" port ")?;
        rest.split_once(": ").map(|(_, text)| text)
    }

    /// Why a connection ended that was up.
    pub(super) fn loss(&self) -> LostReason {
        if self.find("Timeout, server").is_some() {
            return LostReason::Silent;
        }
        if let Some(said) = self.farewell() {
            return LostReason::Disconnected(said.to_owned());
        }
        // This one comes on stderr (clientloop.c `quit_message`). Who lies there changes a word of ours.
        let end = self.lines().chain(self.asides()).find(|line| is_end(line));
        let end = end.or_else(|| self.find("Connection closed by"));
        let last = self.lines().chain(self.asides()).next();
        let broken = last.and_then(how_it_broke);
        if self.is_by_command && (end.is_some() || broken.is_some()) {
            return LostReason::Broken(self.end_of_command());
        }
        if let Some(line) = end {
            return LostReason::Disconnected(line.trim_end_matches('.').to_owned());
        }
        LostReason::Broken(broken.or(last).unwrap_or("ssh has ended").to_owned())
    }

    /// With its last words.
    fn end_of_command(&self) -> String {
        let said = self.asides().find(|line| !is_end(line));
        let colon = if said.is_some() { ": " } else { "" };
        format!("the ProxyCommand ended{colon}{}", said.unwrap_or_default())
    }
}

fn is_end(line: &str) -> bool {
    line.contains("closed by remote host")
}

/// What a last line of ssh's means: `client_loop: send disconnect: Broken pipe` tells a person nothing.
fn how_it_broke(line: &str) -> Option<&'static str> {
    let kinds = [
        ("Broken pipe", ErrorKind::BrokenPipe),
        ("Connection reset by peer", ErrorKind::ConnectionReset),
    ];
    let (_, kind) = kinds.iter().find(|(text, _)| line.ends_with(text))?;
    broke(*kind)
}

fn keep(lines: &mut VecDeque<String>, text: &str) {
    if lines.len() == KEPT {
        lines.pop_front();
    }
    lines.push_back(harmless(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(lines: &[&str]) -> Words {
        let mut words = Words::of(1, Arc::default());
        lines.iter().for_each(|line| words.hear(line));
        words
    }

    #[test]
    fn connections_that_end() {
        for (lines, expected) in [
            (
                &["Timeout, server 127.0.0.1 not responding."][..],
                LostReason::Silent.to_string(),
            ),
            (
                &["Connection to h closed by remote host."],
                "the server ended the connection: Connection to h".into(),
            ),
            (
                &[
                    "Received disconnect from 10.0.0.1 port 22:11: going down: now",
                    "Timeout, server 10.0.0.1 not responding.",
                    "Disconnected from 10.0.0.1 port 22",
                ],
                "the server ended the connection: going down: now".into(),
            ),
            (
                &["client_loop: send disconnect: Broken pipe"],
                "the connection broke: the server closed the connection".into(),
            ),
            (
                &[
                    "client_loop: ssh_packet_write_poll: Connection to h port 22: Connection reset by peer",
                ],
                "the connection broke: it was reset, by the server or on the way".into(),
            ),
        ] {
            let said = words(lines).loss().to_string();
            assert!(said.starts_with(&expected), "{said}");
        }
        assert!(words(&[]).loss().to_string().contains("ended"));
    }

    /// In the words of the built-in SSH.
    #[test]
    fn a_command_that_ends() {
        let pipe = "client_loop: send disconnect: Broken pipe";
        let closed = "Connection to h closed by remote host.";
        for (lines, asides, expected) in [
            (
                &[pipe][..],
                &["still busy", "Session timed out"][..],
                ": Session timed out",
            ),
            (&[pipe], &[], ""),
            (&[], &["Session timed out", closed], ": Session timed out"),
            (&[], &[closed], ""),
        ] {
            let mut words = words(lines).by_command(true);
            asides.iter().for_each(|line| words.overhear(line));
            let expected = format!("the connection broke: the ProxyCommand ended{expected}");
            assert_eq!(words.loss().to_string(), expected);
        }
        // What it said before it led there is not why it has ended.
        let mut words = words(&[]).by_command(true);
        words.overhear("still busy");
        words.logged_in();
        words.hear(pipe);
        let expected = "the connection broke: the ProxyCommand ended";
        assert_eq!(words.loss().to_string(), expected);
        let killed = Words::of(1, Arc::default()).by_command(true).loss();
        assert_eq!(killed, LostReason::Broken("ssh has ended".into()));
    }

    #[test]
    fn stderr_tells_nothing_about_the_login() {
        let mut words = words(&[]);
        for line in [
            "debug1: sshconnect.c:verify_host_key():1477 (pid=1): Server host key: ssh-ed25519 SHA256:LIE",
            "Timeout, server 127.0.0.1 not responding.",
        ] {
            words.overhear(line);
        }
        assert_eq!(words.facts.host_key, None);
        assert_ne!(words.loss(), LostReason::Silent);
        words.overhear("Connection to h closed by remote host.\r");
        assert!(matches!(words.loss(), LostReason::Disconnected(_)));
    }

    #[test]
    fn why_nothing_of_what_was_tried_let_us_in() {
        let offer = |key: &str| {
            format!(
                "debug1: a.c:userauth_pubkey():1 (pid=1): Offering public key: {key} ED25519 SHA256:x"
            )
        };
        let method = |name: &str| {
            format!("debug1: a.c:authmethod_get():1 (pid=1): Next authentication method: {name}")
        };
        let taken =
            "debug1: a.c:input_userauth_pk_ok():1 (pid=1): Server accepts key: /c ED25519 SHA256:x";
        let (a, b, c, d) = (offer("/a"), offer("/b"), offer("/c"), offer("/d"));
        let (password, code) = (method("password"), method("keyboard-interactive"));
        let words = words(&[
            "debug1: a.c:verify_host_key():1 (pid=1): Server host key: ssh-ed25519 SHA256:y",
            &a,
            &b,
            &c,
            taken,
            &d,
            &code,
            &password,
            "Load key \"/a\": bad permissions",
            "sign_and_send_pubkey: signing failed for ED25519 \"/b\" from agent: agent refused operation",
            "Permission denied, please try again.",
            "Permission denied, please try again.",
        ]);
        assert_eq!(
            words.tried(),
            "/a (bad permissions), /b (agent refused operation), /c (taken, but not unlocked), /d, keyboard-interactive, \
             password (3 times)"
        );
        assert!(words.was_answered());
    }

    #[test]
    fn little_is_kept() {
        let mut words = words(&[]);
        for _ in 0..1000 {
            words.hear(&"x".repeat(10_000));
            words.overhear(&"x".repeat(10_000));
        }
        assert_eq!(
            (words.lines().count(), words.asides().count()),
            (KEPT, KEPT)
        );
        assert!(words.lines().all(|line| line.len() <= 200));
    }
}
