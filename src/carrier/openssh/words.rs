//! What ssh says on stderr: about a login that succeeds, why one does not, and why a connection ended.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tracing::{debug, info, warn};

use super::client::SshError;
use crate::carrier::error::{ConnectError, HostKeyError, LostReason};
use crate::carrier::failure::harmless;
use crate::carrier::link::Description;
use crate::plan::SshPlan;

/// Lines that are kept for the reason of an end.
const KEPT: usize = 24;

/// What one ssh has said so far.
#[derive(Debug, Default)]
pub(super) struct Words {
    peer: Option<SocketAddr>,
    host_key: Option<String>,
    cipher: Option<String>,
    key: Option<String>,
    method: Option<String>,
    /// The latest lines but for the details, made harmless.
    lines: VecDeque<String>,
}

/// Texts of ssh's with which it ends. They go into an error, and are not shown as they come.
const LAST_WORDS: [&str; 16] = [
    "Permission denied (",
    "Host key verification failed",
    "Could not resolve hostname",
    "ssh: connect to host",
    "Connection closed by",
    "Too many authentication failures",
    "Disconnected from",
    "banner exchange",
    "closed by remote host",
    "Connection reset by",
    "kex_exchange_identification:",
    "Unable to negotiate",
    "Timeout, server",
    "client_loop:",
    "stdio forwarding failed",
    "Killed by signal",
];

/// How ssh names the peer where it has no TCP connection of its own.
const NO_ADDRESS: &str = "UNKNOWN port 65535";
/// What ssh says of a way that has ended, whatever the reason.
const CUT_SHORT: &str = "kex_exchange_identification: Connection closed";

/// What a line that somebody should see contains, lower case.
const ALARMS: [&str; 8] = [
    "warning", "@@@", "fail", "error", "denied", "refused", "bad ", "changed",
];

impl Words {
    /// Takes a line, and shows it if it is for a person now.
    pub(super) fn hear(&mut self, line: &str) {
        let line = harmless(line.trim_end());
        let (is_detail, text) = untagged(&line);
        if is_detail || self.learn(text) {
            self.learn(text);
            debug!("ssh: {text}");
            return;
        }
        if text.is_empty() {
            return;
        }
        show(text);
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(text.to_owned());
    }

    /// Takes what a line tells about the login; whether it does.
    fn learn(&mut self, text: &str) -> bool {
        let to_server = "kex: client->server cipher: ";
        if let Some(rest) = text.strip_prefix("Connecting to ") {
            self.peer = peer(rest);
        } else if let Some(rest) = text.strip_prefix("Server host key: ") {
            self.host_key = Some(host_key(rest));
        } else if let Some(rest) = text.strip_prefix("Server host certificate: ") {
            let key = rest.split(", ").next().unwrap_or(rest);
            self.host_key = Some(host_key(key));
        } else if let Some(rest) = text.strip_prefix(to_server) {
            self.cipher = rest.split(' ').next().map(str::to_owned);
        } else if let Some(rest) = text.strip_prefix("Server accepts key: ") {
            self.key = Some(rest.to_owned());
        } else if let Some(rest) = text.strip_prefix("Authenticated to ") {
            self.method = rest.split('"').nth(1).map(str::to_owned);
        } else {
            return false;
        }
        true
    }

    /// Who answered, and how ssh got in. Empty where an ssh before 8.5 does not tell.
    pub(super) fn description(&self) -> Description {
        let key = self.key.as_ref().map(|key| format!("key {key}"));
        let method = self.method.clone();
        let is_by_key = method.as_deref().is_none_or(|method| method == "publickey");
        let authentication = match &method {
            Some(method) if method != "publickey" => Some(method.clone()),
            _ => key.or(method),
        };
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "of ssh's".to_owned());
        Description {
            server: self.peer,
            host_key: self
                .host_key
                .clone()
                .unwrap_or_else(|| "checked by ssh".to_owned()),
            cipher: self
                .cipher
                .clone()
                .unwrap_or_else(|| "ssh's cipher".to_owned()),
            authentication: text(&authentication),
            key: self.fingerprint().filter(|_| is_by_key),
            methods: Vec::new(),
        }
    }

    /// `SHA256:...` of the key that the server took last.
    fn fingerprint(&self) -> Option<String> {
        let mut words = self.key.as_ref()?.split(' ');
        words
            .find(|word| word.starts_with("SHA256:"))
            .map(str::to_owned)
    }

    /// Why the login failed; it took so long.
    pub(super) fn refusal(&self, plan: &SshPlan, taken: Duration) -> ConnectError {
        let Some(last) = self.lines.back() else {
            return self.ended(plan, "it says nothing");
        };
        let says = |text: &str| self.lines.iter().any(|line| line.contains(text));
        if says("Host key verification failed") {
            return self.host_key_error(plan).into();
        }
        if let Some(methods) = between(last, "Permission denied (", ").") {
            return ConnectError::Refused {
                user: plan.user.clone(),
                host: plan.alias.clone(),
                methods: methods.to_owned(),
                tried: "what ssh has".to_owned(),
                hint: "Name a key with -i FILE, or ssh-add it; -v shows what ssh tried",
            };
        }
        if says("Too many authentication failures") {
            return ConnectError::Refused {
                user: plan.user.clone(),
                host: plan.alias.clone(),
                methods: "no further attempt".to_owned(),
                tried: "too many keys of ssh's".to_owned(),
                hint: "Offer the right key alone: -o IdentitiesOnly=yes -i FILE",
            };
        }
        if last.contains(NO_ADDRESS) {
            return self.astray(plan, last);
        }
        self.unreached(plan, last, taken)
            .unwrap_or_else(|| self.ended(plan, last))
    }

    /// The way that is not a TCP connection of this ssh's, a ProxyCommand or a jump host, leads nowhere: what was said
    /// on it tells more than ssh, which knows only that it has ended.
    fn astray(&self, plan: &SshPlan, last: &str) -> ConnectError {
        let is_ssh = |line: &str| {
            [NO_ADDRESS, CUT_SHORT, "stdio forwarding"]
                .iter()
                .any(|text| line.contains(text))
        };
        let said = self.lines.iter().rev().find(|line| !is_ssh(line));
        let said = said.map_or(last, |line| line).to_owned();
        ConnectError::Ssh(SshError::Astray {
            host: plan.alias.clone(),
            said,
        })
    }

    fn ended(&self, plan: &SshPlan, said: &str) -> ConnectError {
        ConnectError::Ssh(SshError::Ended {
            host: plan.alias.clone(),
            said: said.to_owned(),
        })
    }

    /// The words of ssh before it has spoken with the server, or while.
    fn unreached(&self, plan: &SshPlan, last: &str, taken: Duration) -> Option<ConnectError> {
        if let Some(rest) = last.split("Could not resolve hostname ").nth(1) {
            let (host, why) = rest.split_once(": ")?;
            return Some(ConnectError::UnknownHost {
                host: host.to_owned(),
                source: io::Error::other(why.to_owned()),
            });
        }
        if last.contains("ssh: connect to host") {
            let (address, why) = (self.peer?, last.rsplit(": ").next()?);
            if why.contains("timed out") {
                return Some(ConnectError::TimedOut {
                    server: address.to_string(),
                    seconds: taken.as_secs(),
                    stage: "",
                });
            }
            let source = io::Error::other(why.to_owned());
            return Some(ConnectError::Unreachable { address, source });
        }
        if last.contains("Unable to negotiate") {
            return Some(ConnectError::Handshake {
                server: self.peer?.to_string(),
                compare: plan.alias.clone(),
                detail: last.to_owned(),
            });
        }
        let is_end = [
            "Connection closed by",
            "Connection reset by",
            "kex_exchange_identification:",
        ]
        .iter()
        .any(|text| last.contains(text));
        is_end.then(|| ConnectError::Ended {
            host: plan.alias.clone(),
            detail: last.to_owned(),
        })
    }

    fn host_key_error(&self, plan: &SshPlan) -> HostKeyError {
        let find = |text: &str| self.lines.iter().find(|line| line.contains(text));
        let offered = self.host_key.as_deref().unwrap_or("see above");
        let said = if let Some(line) = find("Offending ") {
            let place = line.split(" in ").nth(1).unwrap_or("known_hosts");
            let file = place.rsplit_once(':').map_or(place, |(file, _)| file);
            let host = find("Host key for ")
                .and_then(|line| between(line, "Host key for ", " has changed"));
            let host = host.unwrap_or(&plan.host);
            format!(
                "it has changed (offered: {offered}, known: {place}). Somebody may be listening in. If the change is \
                 expected: ssh-keygen -R '{host}' -f {file}"
            )
        } else if find("REVOKED").is_some() {
            format!(
                "{offered} is marked as revoked. Ask the server's administrator for its new key"
            )
        } else {
            format!(
                "it is not known (offered: {offered}). Compare the fingerprint, then connect once with ssh {}, or pass -o \
                 StrictHostKeyChecking=accept-new",
                plan.alias
            )
        };
        HostKeyError::Ssh {
            host: plan.alias.clone(),
            said,
        }
    }

    /// Why a connection ended that was up.
    pub(super) fn loss(&self) -> LostReason {
        let find = |text: &str| self.lines.iter().rev().find(|line| line.contains(text));
        if find("Timeout, server").is_some() {
            return LostReason::Silent;
        }
        if let Some(line) = find("closed by remote host").or_else(|| find("Connection closed by")) {
            return LostReason::Disconnected(line.clone());
        }
        let last = self.lines.back().map_or("ssh has ended", |line| line);
        LostReason::Broken(last.to_owned())
    }
}

/// Without the place in ssh's source that LogVerbose puts in front (log.c); and whether it was a detail.
fn untagged(line: &str) -> (bool, &str) {
    let (level, rest) = match line.split_once(": ") {
        Some((level, rest)) if level.starts_with("debug") => (Some(level), rest),
        _ => (None, line),
    };
    let text = match rest.split_once("): ") {
        Some((tag, text)) if tag.contains("():") && tag.contains(" (pid=") => text,
        _ => rest,
    };
    (level.is_some(), text)
}

fn show(text: &str) {
    if LAST_WORDS.iter().any(|last| text.contains(last)) {
        debug!("ssh: {text}");
        return;
    }
    let lower = text.to_ascii_lowercase();
    if ALARMS.iter().any(|alarm| lower.contains(alarm)) {
        warn!("ssh: {text}");
    } else {
        info!("ssh: {text}");
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?
        .1
        .split_once(after)
        .map(|(inner, _)| inner)
}

/// `NAME [ADDRESS] port PORT.`
fn peer(text: &str) -> Option<SocketAddr> {
    let address = between(text, "[", "]")?.split('%').next()?;
    let address: IpAddr = address.parse().ok()?;
    let port = text
        .rsplit("port ")
        .next()?
        .trim_end_matches('.')
        .parse()
        .ok()?;
    Some(SocketAddr::new(address, port))
}

/// `ssh-ed25519 SHA256:...` with the type as ssh names it to people.
fn host_key(text: &str) -> String {
    let (kind, fingerprint) = text.split_once(' ').unwrap_or((text, ""));
    let kind = match kind {
        kind if kind.contains("ed25519") => "ED25519",
        kind if kind.contains("ecdsa") => "ECDSA",
        kind if kind.contains("rsa") => "RSA",
        other => other,
    };
    format!("{kind} {fingerprint}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(lines: &[&str]) -> Words {
        let mut words = Words::default();
        lines.iter().for_each(|line| words.hear(line));
        words
    }

    fn refusal(lines: &[&str]) -> String {
        let plan = SshPlan {
            alias: "prod".into(),
            ..SshPlan::new("127.0.0.1", 2299, "root")
        };
        let error = words(lines)
            .refusal(&plan, Duration::from_secs(7))
            .to_string();
        assert_eq!(error.lines().count(), 1);
        error
    }

    const CONNECTING: &str = "debug1: sshconnect.c:ssh_connect_direct():485 (pid=18100): Connecting to prod [127.0.0.1] port 2299.\r";
    const KEY: &str = "debug1: sshconnect.c:verify_host_key():1477 (pid=1): Server host key: ssh-ed25519 SHA256:eHV4";

    #[test]
    fn a_login_that_succeeds() {
        let description = words(&[
            CONNECTING,
            "debug1: kex.c:kex_choose_conf():1091 (pid=1): kex: server->client cipher: other MAC: <implicit>",
            "debug1: kex.c:kex_choose_conf():1091 (pid=1): kex: client->server cipher: aes128-gcm@openssh.com MAC: <implicit>",
            KEY,
            "debug1: sshconnect2.c:input_userauth_pk_ok():840 (pid=1): Server accepts key: id ED25519 SHA256:2BPI agent",
            "sshconnect2.c:ssh_userauth2():580 (pid=1): Authenticated to 127.0.0.1 ([127.0.0.1]:2299) using \"publickey\".",
        ])
        .description();
        assert_eq!(
            description.to_string(),
            "127.0.0.1:2299 (host key ED25519 SHA256:eHV4, aes128-gcm@openssh.com, key id ED25519 SHA256:2BPI agent)"
        );
        // Before 8.5.
        let description = words(&[]).description().to_string();
        assert!(
            description.starts_with("(host key checked by ssh"),
            "{description}"
        );
    }

    #[test]
    fn logins_that_fail() {
        let refused = "sshconnect.c:ssh_connect_direct():530 (pid=1): ssh: connect to host prod port 2299: Connection refused";
        let timed_out = "ssh: connect to host prod port 2299: Connection timed out";
        for (lines, expected) in [
            (
                &["root@127.0.0.1: Permission denied (publickey)."][..],
                "root@prod: permission denied (the server takes: publickey",
            ),
            (
                &["ssh: Could not resolve hostname nx.invalid: Name or service not known"],
                "cannot resolve nx.invalid: Name or service",
            ),
            (
                &[CONNECTING, refused],
                "cannot connect to 127.0.0.1:2299: Connection refused. Is",
            ),
            (&[refused], "ssh ended: ssh: connect to host prod"),
            (
                &[CONNECTING, timed_out],
                "no answer from 127.0.0.1:2299 within 7 s",
            ),
            (
                &["kex_exchange_identification: Connection closed by remote host"],
                "ended the connection during login",
            ),
            (
                &[
                    CONNECTING,
                    "Unable to negotiate with 127.0.0.1 port 2299: no matching cipher found.",
                ],
                "the SSH handshake with 127.0.0.1:2299 failed",
            ),
            (
                &["command-line line 0: Bad SSH2 cipher spec 'nono'."],
                "ssh ended: command-line line 0",
            ),
            (&[], "it says nothing"),
            (
                &["token expired", "Connection closed by UNKNOWN port 65535"],
                "the ProxyCommand or jump host does not lead to it: token expired. Try",
            ),
            (
                &["banner exchange: Connection to UNKNOWN port 65535: invalid format"],
                "does not lead to it: banner exchange",
            ),
            (
                &[
                    "Received disconnect from 127.0.0.1 port 22:2: Too many authentication failures",
                    "Disconnected from 127.0.0.1 port 22",
                ],
                "-o IdentitiesOnly=yes -i FILE",
            ),
            (
                &[KEY, "Host key verification failed."],
                "it is not known (offered: ED25519 SHA256:eHV4)",
            ),
            (
                &[
                    KEY,
                    "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @",
                    "Offending ED25519 key in /k h/kh2:1",
                    "Host key for [127.0.0.1]:2299 has changed and you have requested strict checking.",
                    "Host key verification failed.",
                ],
                "known: /k h/kh2:1). Somebody may be listening in. If the change is expected: ssh-keygen -R '[127.0.0.1]:2299' -f /k h/kh2",
            ),
        ] {
            let said = refusal(lines);
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn connections_that_end() {
        for (line, expected) in [
            (
                "Timeout, server 127.0.0.1 not responding.",
                LostReason::Silent.to_string(),
            ),
            (
                "Connection to h closed by remote host.",
                "the server ended the connection: Connection to h".into(),
            ),
            (
                "client_loop: send disconnect: Broken pipe",
                "the connection broke: client_loop".into(),
            ),
        ] {
            let said = words(&[line]).loss().to_string();
            assert!(said.starts_with(&expected), "{said}");
        }
        assert!(words(&[]).loss().to_string().contains("ended"));
    }

    proptest! {
        #[test]
        fn no_line_panics(lines in proptest::collection::vec("\\PC{0,40}|Connecting to .{0,9}\\[.{0,9}|Offending .*|.*Host key verification failed.*|ssh: connect to host.*|debug1: .*\\):.*", 0..8)) {
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            let words = words(&lines);
            let _ = (words.description(), words.loss());
            refusal(&lines);
        }
    }
}
