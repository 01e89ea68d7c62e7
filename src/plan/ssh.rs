//! The server, how to get there and how to log in: ssh's effective configuration as values.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::command;
use super::ssh_config::{Query, Unheeded};

/// RequiredRSASize where nothing was set, in bits.
pub(super) const REQUIRED_RSA_SIZE: u32 = 1024;

/// The server, how to get there, and how to log in. Names are those of ssh_config(5); tokens are expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshPlan {
    /// The host as typed: a name, an address or an alias of the configuration.
    pub alias: String,
    /// Arguments that lead ssh(1) there as underpass was told to, for a person to paste into a shell.
    pub arguments: String,
    /// The same, for an ssh that asks about a new host key whatever was said of StrictHostKeyChecking and BatchMode.
    pub arguments_to_ask: String,
    /// A host on the way to another one: only files say anything about it, no option of the command line, as with ssh.
    pub is_hop: bool,
    /// Host name or address to connect to.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Login name on the server.
    pub user: String,
    /// How bytes get to the server.
    pub route: Route,
    /// How the TCP connection is made, where underpass makes it.
    pub dialling: Dialling,
    /// How a dead peer is noticed; `None` leaves it to the carrier.
    pub keepalive: Option<Keepalive>,
    /// Key files to try, in order: those named on the command line, those of the configuration, or ssh's usual ones.
    /// Those that are not there are left out, but for those named on the command line.
    pub identities: Vec<PathBuf>,
    /// How to log in.
    pub login: Login,
    /// What is to be typed to have the agent, where sudo was called and leaves none.
    pub without_sudo: Option<String>,
    /// Whether a new host key may be taken.
    pub host_keys: HostKeyPolicy,
    /// The user's files of known host keys; new keys are written to the first. May be empty.
    pub known_hosts: Vec<PathBuf>,
    /// Files of known host keys for the whole machine, only read.
    pub global_known_hosts: Vec<PathBuf>,
    /// The name that the server has in these files, where it is not `host`.
    pub host_key_alias: Option<String>,
    /// Whether names are written hashed.
    pub hash_known_hosts: bool,
    /// Whether the server's address is looked for in these files too.
    pub check_host_ip: bool,
    /// RevokedHostKeys: files of keys that must not be taken; one that cannot be read lets no key pass.
    pub revoked_host_keys: Vec<PathBuf>,
    /// NoHostAuthenticationForLocalhost: whether any key will do at a loopback address.
    pub trust_localhost: bool,
    /// RequiredRSASize: the shortest RSA key that is taken, in bits.
    pub required_rsa_size: u32,
    /// Algorithms that were chosen by the user.
    pub algorithms: Algorithms,
    /// Whether to compress.
    pub compression: bool,
    /// When to change keys; `None` leaves it to the carrier.
    pub rekey: Option<RekeyLimit>,
    /// How many SSH connections to hold; `None` leaves it to the carrier.
    pub connections: Option<usize>,
    /// Options that the embedded carrier does not honour, for a warning each.
    pub unheeded: Vec<Unheeded>,
    /// What is asked for that only ssh does: a way to log in, where that is likely to be the one that works, or algorithms. For
    /// the log, after "only ssh".
    pub only_by_ssh: Option<String>,
}

impl SshPlan {
    /// What ssh's configuration says where nothing was set, without key files and known hosts.
    pub fn new(host: &str, port: u16, user: &str) -> Self {
        let query = Query {
            host: host.to_owned(),
            user: Some(user.to_owned()),
            port: Some(port),
            ..Query::default()
        };
        Self {
            alias: host.to_owned(),
            arguments: query.typed(),
            arguments_to_ask: query.typed(),
            is_hop: false,
            host: host.to_owned(),
            port,
            user: user.to_owned(),
            route: Route::Direct,
            dialling: Dialling::default(),
            keepalive: None,
            identities: Vec::new(),
            login: Login::default(),
            without_sudo: None,
            host_keys: HostKeyPolicy::Ask,
            known_hosts: Vec::new(),
            global_known_hosts: Vec::new(),
            host_key_alias: None,
            hash_known_hosts: false,
            check_host_ip: false,
            revoked_host_keys: Vec::new(),
            trust_localhost: false,
            required_rsa_size: REQUIRED_RSA_SIZE,
            algorithms: Algorithms::default(),
            compression: false,
            rekey: None,
            connections: None,
            unheeded: Vec::new(),
            only_by_ssh: None,
        }
    }

    /// The servers on the way, the target first: the last is the one that is connected to from here.
    pub fn servers(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |plan| match &plan.route {
            Route::Jump(hop) => Some(hop),
            Route::Direct | Route::Command(_) => None,
        })
    }

    /// The server that underpass itself makes a TCP connection to; `None` where a command does.
    pub fn dialled(&self) -> Option<&Self> {
        let nearest = self.servers().last()?;
        matches!(nearest.route, Route::Direct).then_some(nearest)
    }

    /// The host that a command connects to, and the command; `None` where underpass does.
    pub fn commanded(&self) -> Option<(&Self, &str)> {
        let nearest = self.servers().last()?;
        match &nearest.route {
            Route::Command(command) => Some((nearest, command)),
            Route::Direct | Route::Jump(_) => None,
        }
    }

    /// The names of the servers on the way.
    pub fn server_names(&self) -> Vec<&str> {
        let hosts = self.servers().map(|server| server.host.as_str());
        hosts
            .filter(|host| host.parse::<IpAddr>().is_err())
            .collect()
    }

    /// The names that a command looks up here when it connects to the server, as far as they are known: the hosts among its words.
    pub fn command_names(&self) -> Vec<&str> {
        let text = self.commanded().map(|(_, text)| text);
        text.into_iter().flat_map(command::hosts).collect()
    }

    /// Whether there is to be one connection alone: as many as the user asks for. A command may be a cloud session that is slow,
    /// counted or opens a browser: one where nobody asks for more.
    pub fn is_one_connection(&self) -> bool {
        match self.connections {
            Some(asked) => asked == 1,
            None => self.dialled().is_none(),
        }
    }

    /// The file that a new host key is written to.
    pub fn file_for_keys(&self) -> Option<&Path> {
        let first = self.known_hosts.first().map(PathBuf::as_path);
        first.filter(|file| *file != Path::new("/dev/null"))
    }

    /// Whether files were named, and what is written to the first is gone.
    fn keeps_no_key(&self) -> bool {
        !self.known_hosts.is_empty() && self.file_for_keys().is_none()
    }
}

/// The server in a message.
impl SshPlan {
    /// Its host and port: `host:port`, or `[address]:port` for IPv6.
    pub fn place(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// What a person can do about a failure, for a hint that can be pasted.
impl SshPlan {
    /// What makes the server's key a known one.
    pub fn to_learn_its_key(&self) -> String {
        if self.keeps_no_key() {
            return "Compare the fingerprint. UserKnownHostsFile names no file that keeps the key: pass -o \
                    UserKnownHostsFile=~/.ssh/known_hosts -o StrictHostKeyChecking=accept-new"
                .to_owned();
        }
        let or = match (self.is_hop, self.host_keys) {
            (true, _) => "set StrictHostKeyChecking accept-new for it in ssh's configuration",
            (false, HostKeyPolicy::Yes) => {
                "pass -o StrictHostKeyChecking=accept-new in place of yes"
            }
            (false, _) => "pass -o StrictHostKeyChecking=accept-new",
        };
        let arguments = &self.arguments_to_ask;
        format!("Compare the fingerprint, then connect once with: ssh {arguments}; or {or}")
    }

    /// What gives the server a key that it may take.
    pub fn to_name_a_key(&self) -> String {
        let name = match self.is_hop {
            true => {
                "Name a key for it in ssh's configuration (IdentityFile): -i does not reach it, as with ssh"
            }
            false => "Name a key with -i FILE",
        };
        match &self.without_sudo {
            Some(typed) => {
                format!("{name}; or, for no agent was found behind sudo, type it without: {typed}")
            }
            None if self.is_hop => format!("{name}; or ssh-add it"),
            None => format!("{name}, or ssh-add it"),
        }
    }
}

/// How bytes get to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// By a TCP connection from here.
    Direct,
    /// By a channel of another server, which has a route of its own (ProxyJump).
    Jump(Box<SshPlan>),
    /// Over stdin and stdout of a command, for the user's shell to `exec` (ProxyCommand).
    Command(String),
}

/// How a TCP connection is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialling {
    /// AddressFamily.
    pub family: AddressFamily,
    /// BindAddress: the address to connect from.
    pub bind_address: Option<String>,
    /// ConnectTimeout, for TCP and the SSH handshake; `None` is the system's.
    pub timeout: Option<Duration>,
    /// ConnectionAttempts, a second apart; at least 1.
    pub attempts: u32,
}

impl Default for Dialling {
    fn default() -> Self {
        Self {
            family: AddressFamily::Any,
            bind_address: None,
            timeout: None,
            attempts: 1,
        }
    }
}

/// AddressFamily of ssh_config(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFamily {
    /// `any`.
    Any,
    /// `inet`: IPv4 only.
    V4,
    /// `inet6`: IPv6 only.
    V6,
}

/// ServerAliveInterval and ServerAliveCountMax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence after which the server is asked for a sign of life.
    pub interval: Duration,
    /// How many questions may go unanswered.
    pub count: u32,
}

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// IdentitiesOnly: of the agent's keys only those that a key file or certificate names.
    pub identities_only: bool,
    /// IdentityAgent.
    pub agent: Agent,
    /// CertificateFile, in order; beside those that lie next to a key file.
    pub certificates: Vec<PathBuf>,
    /// PubkeyAuthentication.
    pub public_key: bool,
    /// PasswordAuthentication.
    pub password: bool,
    /// KbdInteractiveAuthentication.
    pub keyboard_interactive: bool,
    /// PreferredAuthentications, in order, where set; methods that are not named are not tried.
    pub preferred: Option<Vec<String>>,
    /// NumberOfPasswordPrompts.
    pub password_prompts: u32,
    /// BatchMode: nobody is asked anything.
    pub batch: bool,
}

impl Default for Login {
    fn default() -> Self {
        Self {
            identities_only: false,
            agent: Agent::Environment,
            certificates: Vec::new(),
            public_key: true,
            password: true,
            keyboard_interactive: true,
            preferred: None,
            password_prompts: 3,
            batch: false,
        }
    }
}

/// IdentityAgent of ssh_config(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agent {
    /// The socket that `SSH_AUTH_SOCK` names.
    Environment,
    /// The agent at this socket.
    Socket(PathBuf),
    /// No agent.
    None,
}

/// Algorithms in the order to offer them; `None` where the user left them alone, which leaves the choice to the
/// carrier. Names are those of the protocol (RFC 4253 section 7.1 and the names with `@`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Algorithms {
    /// Ciphers.
    pub ciphers: Option<Vec<String>>,
    /// MACs.
    pub macs: Option<Vec<String>>,
    /// KexAlgorithms.
    pub kex: Option<Vec<String>>,
    /// HostKeyAlgorithms.
    pub host_keys: Option<Vec<String>>,
    /// PubkeyAcceptedAlgorithms: signatures to log in with.
    pub user_keys: Option<Vec<String>>,
    /// CASignatureAlgorithms: signatures under certificates.
    pub authorities: Option<Vec<String>>,
}

/// RekeyLimit of ssh_config(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RekeyLimit {
    /// After so many bytes; `None` is the cipher's own limit.
    pub bytes: Option<u64>,
    /// After so long; `None` is never.
    pub time: Option<Duration>,
}

/// `StrictHostKeyChecking` of ssh_config(5). A changed key and a revoked one are always refused: with [`Self::No`] ssh goes on,
/// but forwards nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKeyPolicy {
    /// `ask`: a new key is shown and asked for on the terminal; without one it is refused.
    Ask,
    /// `accept-new`: a new key is taken and written down.
    AcceptNew,
    /// `yes`: a new key is refused.
    Yes,
    /// `no`: a new key is taken and written down.
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_way_are_those_of_servers_and_of_a_commands_hosts() {
        let mut target = SshPlan::new("inner.example.com", 22, "me");
        let mut hop = SshPlan::new("10.0.0.7", 22, "me");
        hop.route = Route::Command("ssh -W 10.0.0.7:22 me@gw.example.com".into());
        target.route = Route::Jump(Box::new(hop));
        assert_eq!(target.server_names(), ["inner.example.com"]);
        assert_eq!(target.command_names(), ["gw.example.com"]);
    }

    #[test]
    fn a_file_that_keeps_nothing_is_no_place_for_a_key() {
        let with = |files: &[&str]| {
            let mut plan = SshPlan::new("h", 22, "me");
            plan.known_hosts = files.iter().map(PathBuf::from).collect();
            plan
        };
        let kept = with(&["/home/me/kh", "/dev/null"]);
        assert_eq!(kept.file_for_keys(), Some(Path::new("/home/me/kh")));
        assert!(kept.to_learn_its_key().contains("connect once with: ssh "));
        let lost = with(&["/dev/null"]);
        assert_eq!(lost.file_for_keys(), None);
        let advice = lost.to_learn_its_key();
        assert!(!advice.contains("connect once"), "{advice}");
        assert!(
            advice.contains("-o UserKnownHostsFile=~/.ssh/known_hosts"),
            "{advice}"
        );
    }
}
