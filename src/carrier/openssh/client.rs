//! Which ssh is installed, and how it is run.

use std::env;
use std::io::{self, PipeReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use nix::sys::signal::Signal;
use thiserror::Error;
use tokio::process::{Child, Command};
use tracing::debug;

use super::said::Said;
use crate::carrier::failure::harmless;
use crate::os::child::{self, Terminal};
use crate::plan::{HostKeyPolicy, SshClient, SshPlan};

/// Mux proxy mode came with OpenSSH 7.4.
const PROXY_MODE: Version = Version(7, 4);

/// LogVerbose came with OpenSSH 8.5.
const TELLS: Version = Version(8, 5);

/// StrictHostKeyChecking=accept-new came with OpenSSH 7.6.
const ACCEPTS_NEW: Version = Version(7, 6);

/// What a login tells about itself: the address, the greeting, the cipher, the host key, what was tried and what the server
/// took. LogVerbose names the functions that say it (log.c), without the line for each channel that LogLevel DEBUG brings.
const TELLING: &str = "LogVerbose=*:ssh_connect_direct():*,*:kex_exchange_identification():*,*:kex_choose_conf():*,\
                       *:verify_host_key():*,*:authmethod_get():*,*:userauth_pubkey():*,*:input_userauth_failure():*,\
                       *:input_userauth_pk_ok():*,*:ssh_userauth2():*";

/// What the server says in debug messages (packet.c).
const REMARKS: &str = "*:ssh_packet_read_poll_seqnr():*";

/// Where its log goes: to a pipe that nobody else speaks on, for the server's banner and what ssh runs use stderr.
const LOG: &str = "/dev/stdout";

/// Where the user set none: a dead peer is noticed within 15 seconds. ssh gives up one interval after the last question
/// (clientloop.c `server_alive_check`).
const KEEPALIVE: [&str; 2] = ["ServerAliveInterval=5", "ServerAliveCountMax=2"];
/// Where the user set none, in seconds.
const CONNECT_TIMEOUT: &str = "ConnectTimeout=30";
/// Where the user chose no ciphers: with AES-NI 1.5 to 2 times as fast as ssh's first choice.
const CIPHERS: &str = "Ciphers=^aes128-gcm@openssh.com,aes256-gcm@openssh.com";

/// Why the user's ssh carries nothing.
#[derive(Debug, Error)]
pub enum SshError {
    /// There is none in `PATH`.
    #[error(
        "no ssh client is installed. Install one (apt install openssh-client), or use --carrier russh"
    )]
    Missing,
    /// It is no OpenSSH, or one from before 7.4.
    #[error(
        "ssh is {version}, and only OpenSSH 7.4 or later can carry connections. Use --carrier russh"
    )]
    TooOld {
        /// What it says of itself.
        version: String,
    },
    /// It, or its control socket, could not be set up.
    #[error("cannot start ssh: {step}: {source}. Use --carrier russh")]
    Start {
        /// What was tried.
        step: &'static str,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("ssh ended: {said}. Try it by itself: ssh {arguments}")]
    Ended {
        /// Arguments that lead ssh there.
        arguments: String,
        /// Its last words.
        said: String,
    },
    /// It came to no server on the way that it was told to take.
    #[error(
        "{host}: the ProxyCommand or jump host does not lead to it: {}. Try it by itself: ssh -v {arguments}", .said.trim_end_matches('.')
    )]
    Astray {
        /// The host as typed.
        host: String,
        /// Arguments that lead ssh there.
        arguments: String,
        /// What was said on the way.
        said: String,
    },
    /// It does not speak on its control socket as it should.
    #[error("ssh does not carry channels: {0}. Use --carrier russh")]
    Socket(String),
}

/// OpenSSH's major and minor version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

/// The user's ssh, and what to log in to with it.
#[derive(Clone, Debug)]
pub(super) struct Client {
    version: Version,
    has_aes_gcm: bool,
    arguments: Vec<String>,
    plan: SshPlan,
    said: Arc<Said>,
    /// Its log has the server's debug messages.
    hears_remarks: bool,
}

/// Who may be asked during a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// A person at the terminal.
    Person,
    /// Nobody.
    Nobody,
}

impl Client {
    /// Asks the installed ssh for its version.
    ///
    /// # Errors
    /// There is none, or one that cannot carry us.
    pub(super) async fn find(plan: &SshPlan, client: &SshClient) -> Result<Self, SshError> {
        let output = Command::new("ssh").arg("-V").stdin(Stdio::null()).output();
        let output = output.await.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => SshError::Missing,
            _ => SshError::Start {
                step: "ssh -V",
                source,
            },
        })?;
        let said = harmless(&String::from_utf8_lossy(&output.stderr));
        debug!("ssh is {said}");
        let version = version(&said).filter(|version| *version >= PROXY_MODE);
        let Some(version) = version else {
            return Err(SshError::TooOld { version: said });
        };
        Ok(Self {
            version,
            has_aes_gcm: !said.contains("without OpenSSL"),
            arguments: client.arguments.clone(),
            plan: plan.clone(),
            said: Arc::default(),
            hears_remarks: false,
        })
    }

    /// Whose log has the server's debug messages, too, where it tells about a login. They may come before the server is known.
    pub(super) fn with_remarks(self) -> Self {
        Self {
            hears_remarks: true,
            ..self
        }
    }

    /// For a carrier of one master alone.
    pub(super) fn with_one_master(mut self) -> Self {
        self.plan.connections = Some(1);
        self
    }

    pub(super) fn plan(&self) -> &SshPlan {
        &self.plan
    }

    /// What was shown of its words in this run.
    pub(super) fn said(&self) -> Arc<Said> {
        Arc::clone(&self.said)
    }

    /// Whether its log tells about a login.
    pub(super) fn tells(&self) -> bool {
        self.version >= TELLS
    }

    /// Starts a master with its control socket at `socket`, and `terminal`; and its log.
    ///
    /// # Errors
    /// Those of fork(2) and exec(2).
    pub(super) fn master(
        &self,
        socket: &Path,
        asks: Asks,
        terminal: Terminal,
    ) -> io::Result<(Child, PipeReader)> {
        let (log, end) = io::pipe()?;
        let mut command = Command::new("ssh");
        command
            .args(self.options(socket, asks))
            .envs(self.allocator(|name| env::var_os(name).is_some()))
            .stdin(Stdio::null())
            .stdout(end)
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // It then ends its ProxyCommand, and puts the echo of a terminal back where it asks.
        let last = Signal::SIGTERM;
        Ok((child::spawn_tied(command, terminal, last)?, log))
    }

    /// The first value of an option counts: what must be as it is comes before what the user typed, and what the user
    /// may choose behind it, and only where no file chose either.
    fn options(&self, socket: &Path, asks: Asks) -> Vec<String> {
        // ssh expands tokens in the path.
        let socket = socket.display().to_string().replace('%', "%%");
        let mut all: Vec<String> = ["-E", LOG, "-N", "-T", "-a", "-x", "-S", &socket]
            .map(str::to_owned)
            .into();
        let mut set = |option: &str| all.extend(["-o".to_owned(), option.to_owned()]);
        if self.hears_remarks && self.tells() {
            set(&format!("{TELLING},{REMARKS}"));
        }
        for (since, option) in FIXED {
            if self.version >= since {
                set(option);
            }
        }
        if asks == Asks::Nobody {
            set("BatchMode=yes");
        }
        if let Some(policy) = self.host_key_policy() {
            set(policy);
        }
        all.extend(self.arguments.iter().cloned());
        for option in self.unless_chosen() {
            all.extend(["-o".to_owned(), option.to_owned()]);
        }
        all.extend(["--".to_owned(), self.plan.alias.clone()]);
        all
    }

    /// A key that has changed lets no traffic pass: ssh goes on with StrictHostKeyChecking=no, without forwardings of the user's, but
    /// those over a control socket it leaves alone. A new one is taken, as with `no`.
    fn host_key_policy(&self) -> Option<&'static str> {
        (self.plan.host_keys == HostKeyPolicy::No).then_some(match self.version >= ACCEPTS_NEW {
            true => "StrictHostKeyChecking=accept-new",
            false => "StrictHostKeyChecking=ask",
        })
    }

    /// What is added to ssh's environment: nothing that `is_set` there, and nothing that a ProxyCommand would inherit.
    fn allocator(
        &self,
        is_set: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = (&'static str, &'static str)> {
        let has_command = self.plan.dialled().is_none();
        let all = ALLOCATOR.into_iter();
        all.filter(move |(name, _)| !has_command && !is_set(name))
    }

    fn unless_chosen(&self) -> Vec<&'static str> {
        let mut options = Vec::new();
        if self.plan.keepalive.is_none() {
            options.extend(KEEPALIVE);
        }
        if self.plan.dialling.timeout.is_none() {
            options.push(CONNECT_TIMEOUT);
        }
        let may_choose = self.version >= Version(8, 1) && self.has_aes_gcm;
        if may_choose && self.plan.algorithms.ciphers.is_none() {
            options.push(CIPHERS);
        }
        options
    }
}

/// What a master of ours must be, each with the version that knows it (ssh's release notes).
const FIXED: [(Version, &str); 13] = [
    (PROXY_MODE, "ControlMaster=yes"),
    (PROXY_MODE, "ControlPersist=no"),
    (PROXY_MODE, "ClearAllForwardings=yes"),
    (PROXY_MODE, "ExitOnForwardFailure=no"),
    (PROXY_MODE, "Tunnel=no"),
    (PROXY_MODE, "EscapeChar=none"),
    // A LocalCommand is for a login of the user's, not for each connection of ours.
    (PROXY_MODE, "PermitLocalCommand=no"),
    // With a key that it has learned in one login, ssh may ask for that one in the next, which has to show the same as the first.
    (PROXY_MODE, "UpdateHostKeys=no"),
    // Its errors are wanted, whatever the configuration says.
    (PROXY_MODE, "LogLevel=INFO"),
    (Version(7, 6), "RemoteCommand=none"),
    (TELLS, TELLING),
    (Version(8, 7), "SessionType=none"),
    (Version(8, 7), "ForkAfterAuthentication=no"),
];

/// How glibc's allocator is to serve ssh (mallopt(3)): from the heap up to 32 MiB, the most that it takes, and 64 MiB of what is
/// free stay in it. ssh's output buffer grows by a new one for each packet (sshbuf.c, sshbuf_allocate); where each is a mapping
/// of its own, with pages to be cleared and mapped, that takes about twice as long, and more comes meanwhile than it hands on.
const ALLOCATOR: [(&str, &str); 2] = [
    ("MALLOC_MMAP_THRESHOLD_", "33554432"),
    ("MALLOC_TRIM_THRESHOLD_", "67108864"),
];

/// Reads `OpenSSH_9.2p1 Debian-2, OpenSSL 3.0`, also with words in front as `OpenSSH_for_Windows_9.5p1` has them.
fn version(said: &str) -> Option<Version> {
    let rest = said.strip_prefix("OpenSSH_")?;
    let from = rest.find(|c: char| c.is_ascii_digit())?;
    let (major, rest) = rest[from..].split_once('.')?;
    let end = rest.find(|c: char| !c.is_ascii_digit());
    let minor = &rest[..end.unwrap_or(rest.len())];
    Some(Version(major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Route;

    fn client(version: Version) -> Client {
        Client {
            version,
            has_aes_gcm: true,
            arguments: vec!["-o".into(), "LogLevel=QUIET".into()],
            plan: SshPlan::new("h", 22, "me"),
            said: Arc::default(),
            hears_remarks: false,
        }
    }

    #[test]
    fn versions_are_read() {
        for (said, expected) in [
            (
                "OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3",
                Some(Version(9, 2)),
            ),
            ("OpenSSH_10.2p1", Some(Version(10, 2))),
            ("OpenSSH_for_Windows_9.5p1, LibreSSL", Some(Version(9, 5))),
            ("OpenSSH_7.3", Some(Version(7, 3))),
            ("Dropbear v2022.83", None),
            ("", None),
        ] {
            assert_eq!(version(said), expected, "{said}");
        }
    }

    #[test]
    fn what_must_be_goes_first_and_what_may_be_last() {
        let options = client(Version(9, 2)).options(Path::new("/tmp/a%b/m"), Asks::Nobody);
        let at = |text: &str| options.iter().position(|option| option == text);
        assert!(at("LogLevel=INFO") < at("LogLevel=QUIET"));
        assert!(at("LogLevel=QUIET") < at("ServerAliveInterval=5"));
        assert!(at("BatchMode=yes").is_some() && at("/tmp/a%%b/m").is_some());
        assert_eq!(options[options.len() - 2..], ["--", "h"]);
        let old = client(Version(7, 4)).options(Path::new("/m"), Asks::Person);
        assert!(!old.iter().any(|option| option.starts_with("LogVerbose")));
    }

    /// A server's further keys are not learned: the next login would be shown another one than the first.
    #[test]
    fn what_the_user_wants_learned_is_not_learned_by_us() {
        let mut client = client(Version(7, 4));
        client.arguments = vec!["-o".into(), "UpdateHostKeys=yes".into()];
        let options = client.options(Path::new("/m"), Asks::Nobody);
        let first = options.iter().find(|o| o.starts_with("UpdateHostKeys"));
        assert_eq!(first.unwrap(), "UpdateHostKeys=no");
    }

    #[test]
    fn what_a_server_remarks_is_heard_only_where_it_is_asked_for() {
        let heard = |client: &Client| {
            let options = client.options(Path::new("/m"), Asks::Nobody);
            // The first one counts.
            let first = options.iter().find(|o| o.starts_with("LogVerbose="));
            first.is_some_and(|first| first.contains(REMARKS) && first.contains("ssh_userauth2"))
        };
        let new = client(Version(9, 2));
        assert!(!heard(&new) && heard(&new.with_remarks()));
        assert!(!heard(&client(Version(8, 4)).with_remarks()));
    }

    #[test]
    fn an_allocator_that_was_set_stays() {
        let client = client(Version(9, 2));
        let added = client.allocator(|name| name == "MALLOC_TRIM_THRESHOLD_");
        let added: Vec<_> = added.collect();
        assert_eq!(added, [("MALLOC_MMAP_THRESHOLD_", "33554432")]);
    }

    #[test]
    fn a_command_on_the_way_keeps_its_own_allocator() {
        let by_command = Route::Command("ssh -W h:22 gw".to_owned());
        let mut gateway = SshPlan::new("gw", 22, "me");
        gateway.route = by_command.clone();
        for route in [by_command, Route::Jump(Box::new(gateway))] {
            let mut client = client(Version(9, 2));
            client.plan.route = route;
            assert_eq!(client.allocator(|_| false).count(), 0);
        }
    }

    #[test]
    fn a_changed_key_never_passes() {
        for (version, policy) in [
            (Version(9, 2), "StrictHostKeyChecking=accept-new"),
            (Version(7, 5), "StrictHostKeyChecking=ask"),
        ] {
            let mut client = client(version);
            client.arguments = vec!["-o".into(), "StrictHostKeyChecking=no".into()];
            client.plan.host_keys = HostKeyPolicy::No;
            let options = client.options(Path::new("/m"), Asks::Person);
            let mut strict = options.iter().filter(|o| o.starts_with("Strict"));
            assert_eq!(strict.next().unwrap(), policy);
        }
        assert_eq!(client(Version(9, 2)).host_key_policy(), None);
    }

    #[test]
    fn what_the_user_chose_stays() {
        let mut client = client(Version(9, 2));
        client.plan.keepalive = Some(crate::plan::Keepalive {
            interval: std::time::Duration::from_secs(60),
            count: 1,
        });
        client.plan.algorithms.ciphers = Some(vec!["aes256-ctr".into()]);
        assert_eq!(client.unless_chosen(), [CONNECT_TIMEOUT]);
    }
}
