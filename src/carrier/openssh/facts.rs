//! What ssh's own log tells about a login, while it logs in.
//!
//! Only ssh writes there (`-E`): a banner of the server's, and whatever a ProxyCommand says, go to stderr. But ssh logs some
//! texts of the server's as they come, line feeds included: that of a DISCONNECT (packet.c), and of a request for a new
//! password (sshconnect2.c). So a line counts only with the mark that LogVerbose puts in front, with ssh's process
//! number in it, which no server is told; the first one counts where there can be only one; and none after the login.
//! A ProxyCommand that lies on purpose could do all the same: it runs as the user, as ssh does.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::carrier::link::Description;

/// Names that an error lists, at most.
const MANY: usize = 20;

/// How far a login has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Looking a name up, or on a way that is not a TCP connection of this ssh's.
    #[default]
    Start,
    /// A TCP connection is asked for.
    Connecting,
    /// There is a way, and the server has not said its version.
    Greeting,
    /// Both agree on keys.
    Handshake,
    /// The server has shown its host key, which may have to be asked about.
    HostKey,
    /// Its key is good.
    Login,
    /// Logged in.
    Done,
}

/// What is known so far.
#[derive(Debug)]
pub(super) struct Facts {
    /// ssh's process.
    pid: i32,
    pub(super) stage: Stage,
    pub(super) peer: Option<SocketAddr>,
    /// The first line of what the server says that is no version of SSH.
    pub(super) greeting: Option<String>,
    pub(super) host_key: Option<String>,
    cipher: Option<String>,
    key: Option<String>,
    method: Option<String>,
    /// Keys and methods that ssh has tried.
    tried: Vec<String>,
    /// What the server takes, as it told who had shown nothing yet.
    methods: Vec<String>,
    /// How often the server has said no.
    pub(super) refusals: usize,
}

/// A line of the log, without the marks in front.
pub(super) struct Line<'a> {
    pub(super) text: &'a str,
    /// It is there because LogVerbose asks for it.
    pub(super) is_detail: bool,
    /// The process of the mark.
    pid: Option<i32>,
}

impl<'a> Line<'a> {
    /// `debug1: kex.c:kex_choose_conf():1091 (pid=1): text`; the level is there for details only (log.c).
    pub(super) fn read(line: &'a str) -> Self {
        let (is_detail, rest) = match line.split_once(": ") {
            Some((level, rest)) if level.starts_with("debug") => (true, rest),
            _ => (false, line),
        };
        let marked = rest.split_once("): ").and_then(|(mark, text)| {
            let (place, pid) = mark.split_once(" (pid=")?;
            place.contains("():").then_some((pid.parse().ok()?, text))
        });
        Self {
            text: marked.map_or(rest, |(_, text)| text),
            is_detail,
            pid: marked.map(|(pid, _)| pid),
        }
    }
}

impl Facts {
    /// None yet, about the login of the ssh that is process `pid`.
    pub(super) fn of(pid: i32) -> Self {
        Self {
            pid,
            stage: Stage::default(),
            peer: None,
            greeting: None,
            host_key: None,
            cipher: None,
            key: None,
            method: None,
            tried: Vec::new(),
            methods: Vec::new(),
            refusals: 0,
        }
    }

    /// Takes what `line` tells about the login; whether it tells something.
    pub(super) fn learn(&mut self, line: &Line<'_>) -> bool {
        if line.pid != Some(self.pid) || self.stage == Stage::Done {
            return false;
        }
        if self.stage < Stage::HostKey {
            self.learn_of_the_way(line.text)
        } else {
            self.learn_of_the_login(line.text)
        }
    }

    fn learn_of_the_way(&mut self, text: &str) -> bool {
        if let Some(rest) = text.strip_prefix("Connecting to ") {
            // One address after the other: the last is who answers.
            self.peer = peer(rest);
            self.stage = Stage::Connecting;
        } else if text.starts_with("Local version string ") {
            self.stage = Stage::Greeting;
        } else if let Some(rest) = text.strip_prefix("banner line ") {
            let said = rest.split_once(": ").map_or("", |(_, said)| said);
            self.greeting.get_or_insert_with(|| said.to_owned());
        } else if let Some(version) = text.strip_prefix("Remote protocol version ") {
            self.stage = Stage::Handshake;
            if !(version.starts_with("2.") || version.starts_with("1.99")) {
                self.greeting = Some(format!(
                    "SSH-{}",
                    version.replacen(", remote software version ", "-", 1)
                ));
            }
        } else if let Some(rest) = text.strip_prefix("kex: client->server cipher: ") {
            self.cipher = self
                .cipher
                .take()
                .or(rest.split(' ').next().map(str::to_owned));
        } else if let Some(rest) = text.strip_prefix("Server host key: ") {
            self.host_key = Some(host_key(rest));
            self.stage = Stage::HostKey;
        } else if let Some(rest) = text.strip_prefix("Server host certificate: ") {
            // Whose key it is counts, not who has signed it.
            let key = rest.split_once(',').map_or(rest, |(key, _)| key);
            self.host_key = Some(host_key(key));
            self.stage = Stage::HostKey;
        } else {
            return false;
        }
        true
    }

    fn learn_of_the_login(&mut self, text: &str) -> bool {
        let mut stage = Stage::Login;
        if let Some(methods) = text.strip_prefix("Authentications that can continue: ") {
            if self.refusals == 0 {
                let methods = methods.split(',').filter(|method| !method.is_empty());
                self.methods = methods.take(MANY).map(str::to_owned).collect();
            }
            self.refusals += 1;
        } else if let Some(method) = text.strip_prefix("Next authentication method: ") {
            if method != "publickey" {
                self.has_tried(method);
            }
        } else if let Some(rest) = text.strip_prefix("Offering public key: ") {
            self.has_tried(key_name(rest));
        } else if let Some(path) = text.strip_prefix("Trying private key: ") {
            // It says so of each of the usual names, too.
            if Path::new(path).exists() {
                self.has_tried(path);
            }
        } else if let Some(rest) = text.strip_prefix("Server accepts key: ") {
            // Where the key is from: that of a file that was named needs no word.
            let rest = rest.strip_suffix(" explicit").unwrap_or(rest);
            self.key = Some(rest.to_owned());
        } else if let Some(rest) = text.strip_prefix("Authenticated to ") {
            self.method = rest.split('"').nth(1).map(str::to_owned);
            stage = Stage::Done;
        } else {
            return false;
        }
        self.stage = stage;
        true
    }

    fn has_tried(&mut self, name: &str) {
        if self.tried.len() < MANY && !self.tried.iter().any(|known| known == name) {
            self.tried.push(name.to_owned());
        }
    }

    /// Keys and methods that ssh has tried.
    pub(super) fn tried(&self) -> &[String] {
        &self.tried
    }

    /// Whether the server has taken `key`, of those that were tried.
    pub(super) fn is_taken(&self, key: &str) -> bool {
        self.key
            .as_deref()
            .is_some_and(|taken| key_name(taken) == key)
    }

    /// Who answered, and how ssh got in. Empty where an ssh before 8.5 does not tell.
    pub(super) fn description(&self) -> Description {
        let key = self.key.as_ref().map(|key| format!("key {key}"));
        let method = self.method.clone();
        let is_by_key = method.as_deref().is_none_or(|method| method == "publickey");
        let authentication = match &method {
            Some(method) if method == "none" => Some("no authentication".to_owned()),
            Some(method) if method != "publickey" => Some(method.clone()),
            _ => key.or(method),
        };
        let or = |value: Option<&String>, none: &str| value.map_or(none, String::as_str).to_owned();
        Description {
            server: self.peer,
            host_key: or(self.host_key.as_ref(), "checked by ssh"),
            cipher: or(self.cipher.as_ref(), "ssh's cipher"),
            authentication: or(authentication.as_ref(), "of ssh's"),
            key: self.fingerprint().filter(|_| is_by_key),
            methods: self.methods.clone(),
        }
    }

    /// `SHA256:...` of the key that the server took last.
    fn fingerprint(&self) -> Option<String> {
        let mut words = self.key.as_ref()?.split(' ');
        let word = words.find(|word| word.starts_with("SHA256:"));
        word.map(str::to_owned)
    }
}

/// `NAME [ADDRESS] port PORT.`
fn peer(text: &str) -> Option<SocketAddr> {
    let (_, rest) = text.split_once('[')?;
    let (address, rest) = rest.split_once(']')?;
    let address: IpAddr = address.split('%').next()?.parse().ok()?;
    let port = rest.strip_prefix(" port ")?.trim_end_matches('.');
    Some(SocketAddr::new(address, port.parse().ok()?))
}

/// `PATH-OR-COMMENT TYPE FINGERPRINT ...`
fn key_name(text: &str) -> &str {
    let name = [" SHA256:", " MD5:"]
        .iter()
        .find_map(|hash| text.split_once(hash));
    let name = name.and_then(|(front, _)| front.rsplit_once(' '));
    name.map_or(text, |(name, _)| name)
}

/// `ssh-ed25519 SHA256:...`, of a certificate `ssh-ed25519-cert-v01@openssh.com SHA256:...`, with the type as ssh names it to
/// people.
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

    /// The login of ssh 9.2, process 7.
    const LOGIN: [&str; 10] = [
        "debug1: sshconnect.c:ssh_connect_direct():485 (pid=7): Connecting to prod [::1] port 22.",
        "debug1: sshconnect.c:ssh_connect_direct():485 (pid=7): Connecting to prod [127.0.0.1] port 2299.",
        "debug1: kex.c:kex_exchange_identification():1347 (pid=7): Local version string SSH-2.0-OpenSSH_9.2p1",
        "debug1: kex.c:kex_exchange_identification():1456 (pid=7): Remote protocol version 2.0, remote software version x",
        "debug1: kex.c:kex_choose_conf():1091 (pid=7): kex: client->server cipher: aes128-gcm@openssh.com MAC: <implicit>",
        "debug1: sshconnect.c:verify_host_key():1477 (pid=7): Server host key: ssh-ed25519 SHA256:eHV4",
        "debug1: sshconnect2.c:input_userauth_failure():743 (pid=7): Authentications that can continue: publickey",
        "debug1: sshconnect2.c:userauth_pubkey():2066 (pid=7): Offering public key: /a b/id ED25519 SHA256:2BPI agent",
        "debug1: sshconnect2.c:input_userauth_pk_ok():840 (pid=7): Server accepts key: /a b/id ED25519 SHA256:2BPI explicit",
        "sshconnect2.c:ssh_userauth2():580 (pid=7): Authenticated to 127.0.0.1 ([127.0.0.1]:2299) using \"publickey\".",
    ];

    fn facts<'a>(lines: impl IntoIterator<Item = &'a str>) -> Facts {
        let mut facts = Facts::of(7);
        for line in lines {
            facts.learn(&Line::read(line));
        }
        facts
    }

    #[test]
    fn a_login_that_succeeds() {
        let facts = facts(LOGIN);
        assert_eq!(
            facts.description().to_string(),
            "127.0.0.1:2299 (host key ED25519 SHA256:eHV4, aes128-gcm@openssh.com, key /a b/id ED25519 SHA256:2BPI)"
        );
        assert_eq!((facts.stage, facts.refusals), (Stage::Done, 1));
        assert_eq!(facts.tried(), ["/a b/id"]);
        assert!(facts.is_taken("/a b/id") && !facts.is_taken("/a"));
        // Before 8.5.
        let nothing = Facts::of(7).description().to_string();
        assert!(nothing.starts_with("(host key checked by ssh"), "{nothing}");
    }

    #[test]
    fn who_is_no_ssh_server_is_quoted() {
        let said = |text: &str| {
            let line = format!("debug1: kex.c:kex_exchange_identification():1430 (pid=7): {text}");
            facts([LOGIN[0], LOGIN[2], line.as_str()]).greeting
        };
        assert_eq!(
            said("banner line 0: HTTP/1.1 400: x").unwrap(),
            "HTTP/1.1 400: x"
        );
        let old = said("Remote protocol version 1.5, remote software version old");
        assert_eq!(old.unwrap(), "SSH-1.5-old");
        assert_eq!(
            said("Remote protocol version 1.99, remote software version x"),
            None
        );
    }

    /// What a server, its banner or a command can say at most: a line without the mark, or with another process.
    fn lie() -> impl Strategy<Value = String> {
        let marks = prop_oneof![
            Just("debug1: sshconnect.c:verify_host_key():1477 (pid=8): "),
            Just("debug1: sshconnect.c:verify_host_key():1477: "),
            Just("sshconnect2.c:ssh_userauth2():580 (pid=): "),
            Just("debug1: "),
            Just(""),
        ];
        let texts = prop_oneof![
            Just("Connecting to x [192.0.2.1] port 1."),
            Just("Server host key: ssh-rsa SHA256:LIE"),
            Just("kex: client->server cipher: none MAC: none"),
            Just("Server accepts key: lie"),
            Just("Authenticated to x ([192.0.2.1]:1) using \"none\"."),
        ];
        prop_oneof![
            (marks, texts).prop_map(|(mark, text)| format!("{mark}{text}")),
            "\\PC{0,60}",
        ]
    }

    proptest! {
        #[test]
        fn no_lie_is_believed(lies in proptest::collection::vec((0..=LOGIN.len(), lie()), 0..20)) {
            let mut lines: Vec<&str> = Vec::new();
            for at in 0..=LOGIN.len() {
                lines.extend(lies.iter().filter(|(place, _)| *place == at).map(|(_, lie)| lie.as_str()));
                lines.extend(LOGIN.get(at));
            }
            let told = facts(lines);
            prop_assert_eq!(told.description(), facts(LOGIN).description());
            prop_assert_eq!(told.stage, Stage::Done);
        }

        /// Even ssh itself tells nothing about a login after its end, nor another host key.
        #[test]
        fn what_is_settled_stays(later in proptest::collection::vec(0..LOGIN.len(), 0..9), from in 6..=LOGIN.len()) {
            let other: Vec<String> = LOGIN.iter().map(|line| line.replace("eHV4", "LIE").replace("2299", "1").replace("aes128", "no")).collect();
            let more = later.iter().map(|i| other[*i].as_str());
            let told = facts(LOGIN[..from].iter().copied().chain(more).chain(LOGIN[from..].iter().copied()));
            prop_assert_eq!(told.host_key.as_deref(), Some("ED25519 SHA256:eHV4"));
            prop_assert_eq!(told.peer, facts(LOGIN).peer);
            prop_assert_eq!(told.cipher.as_deref(), Some("aes128-gcm@openssh.com"));
        }

        #[test]
        fn no_line_panics(lines in proptest::collection::vec("((debug1: )?a.c:b\\(\\):1 \\(pid=7\\): (Connecting to |Server host key: |banner line |Remote protocol version |Offering public key: |Authenticated to |)?)?\\PC{0,30}", 0..12)) {
            let told = facts(lines.iter().map(String::as_str));
            let _ = told.description();
        }
    }
}
