//! ssh_config(5), option by option, as a person writes it: over each carrier its effect is seen, or it is said that there is
//! none. The ways (ProxyJump, ProxyCommand) are in `rows.rs`, NumberOfPasswordPrompts in `terminal.rs`, the signs of life in
//! `carrier/openssh.rs` and `carrier/russh.rs`, RekeyLimit in the first of these, CheckHostIP, which ssh leaves alone on loopback, in `e2e/route.rs`.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use underpass::plan::SshPlan;

use crate::client::Configured;
use crate::place::Daemon;
use crate::rig::{Sshd, keygen};

const CARRIERS: [&str; 2] = ["russh", "openssh"];

/// What came of a login, and what was said.
struct Outcome {
    is_in: bool,
    said: String,
}

impl Outcome {
    fn gets_in(self) -> String {
        assert!(self.is_in, "{}", self.said);
        self.said
    }

    /// It failed, and was told so.
    fn fails(self, why: &str) {
        assert!(
            !self.is_in && self.said.contains(why),
            "{why}: {}",
            self.said
        );
    }
}

/// Logs in over `carrier` to the server of `plan`, with these options before all others. Nobody can be asked.
fn login(carrier: &str, plan: &SshPlan, options: &[&str]) -> Outcome {
    let ssh = Configured::new(plan);
    let mut command = Command::new("setsid");
    command.args(["--wait", env!("CARGO_BIN_EXE_underpass"), "run", "-v"]);
    command
        .args(["--carrier", carrier])
        .args(&ssh.client.arguments);
    for option in options {
        command.args(["-o", option]);
    }
    command.args(["-r", "server-0", "10.77.0.0/16", "--", "true"]);
    command
        .env_remove("SSH_AUTH_SOCK")
        .env_remove("SSH_ASKPASS_REQUIRE");
    let output = command.stdin(Stdio::null()).output().unwrap();
    Outcome {
        is_in: output.status.success(),
        said: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Over each carrier, with a fresh log of the server's.
fn each(extra: &str, test: impl Fn(&str, &Sshd)) {
    for carrier in CARRIERS {
        test(carrier, &Sshd::start(extra));
    }
}

fn option(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

#[test]
fn host_name_user_port_and_identity_file() {
    each("", |carrier, sshd| {
        login(carrier, &sshd.plan(), &[]).gets_in();
        assert!(sshd.log().contains("Accepted publickey for root"));
        login(carrier, &sshd.plan(), &["User=nobody"]).gets_in();
        assert!(sshd.log().contains("Accepted publickey for nobody"));
        let port = format!("Port={}", crate::rig::free_port());
        login(carrier, &sshd.plan(), &[&port]).fails("Connection refused");
        let nowhere = &["HostName=host.invalid"];
        login(carrier, &sshd.plan(), nowhere).fails("cannot resolve host.invalid");
        let none = SshPlan {
            identities: vec![sshd.path("no_such_key")],
            ..sshd.plan()
        };
        login(carrier, &none, &[]).fails("permission denied");
    });
}

/// An agent with a key that lets in.
fn agent(sshd: &Sshd) -> (Daemon, PathBuf) {
    let socket = sshd.path("agent");
    let mut command = Command::new("ssh-agent");
    let daemon = Daemon::spawn(
        command
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::null()),
    );
    let until = Instant::now() + Duration::from_secs(10);
    while UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < until, "no agent");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut add = Command::new("ssh-add");
    add.arg("-q").arg(sshd.path("id_ed25519"));
    crate::place::output(add.env("SSH_AUTH_SOCK", &socket));
    (daemon, socket)
}

#[test]
fn identity_agent_and_identities_only() {
    each("", |carrier, sshd| {
        let (_daemon, socket) = agent(sshd);
        keygen(&sshd.path("other"), "ed25519", "");
        let plan = SshPlan {
            identities: vec![sshd.path("other")],
            ..sshd.plan()
        };
        let socket = option("IdentityAgent", &socket);
        login(carrier, &plan, &[&socket, "IdentitiesOnly=no"]).gets_in();
        login(carrier, &plan, &[&socket, "IdentitiesOnly=yes"]).fails("permission denied");
        login(carrier, &plan, &["IdentityAgent=none", "IdentitiesOnly=no"])
            .fails("permission denied");
    });
}

#[test]
fn certificate_file() {
    for carrier in CARRIERS {
        let dir = tempfile::TempDir::new_in("/tmp").unwrap();
        let ca = dir.path().join("ca");
        keygen(&ca, "ed25519", "");
        let extra = format!(
            "TrustedUserCAKeys {}\nAuthorizedKeysFile none",
            dir.path().join("ca.pub").display()
        );
        // The first value of a setting counts: without the rig's own AuthorizedKeysFile the key alone would do.
        let sshd = Sshd::start(&extra);
        fs::write(sshd.path("authorized_keys"), "").unwrap();
        login(carrier, &sshd.plan(), &[]).fails("permission denied");
        let public = sshd.path("elsewhere.pub");
        fs::copy(sshd.path("id_ed25519.pub"), &public).unwrap();
        let mut sign = Command::new("ssh-keygen");
        sign.args(["-q", "-I", "me", "-n", "root", "-V", "-1h:+1h", "-s"]);
        crate::place::output(sign.arg(&ca).arg(&public));
        let certificate = option("CertificateFile", &sshd.path("elsewhere-cert.pub"));
        login(carrier, &sshd.plan(), &[&certificate]).gets_in();
    }
}

#[test]
fn the_files_of_known_hosts() {
    each("", |carrier, sshd| {
        let (known, none) = (sshd.path("known_hosts"), sshd.path("none"));
        let user = option("UserKnownHostsFile", &none);
        let refused = "host key verification failed";
        login(carrier, &sshd.plan(), &[&user]).fails(refused);
        let global = option("GlobalKnownHostsFile", &known);
        login(carrier, &sshd.plan(), &[&user, &global]).gets_in();
        let both = format!("UserKnownHostsFile={} {}", none.display(), known.display());
        login(carrier, &sshd.plan(), &[&both]).gets_in();
    });
}

#[test]
fn strict_host_key_checking_and_hash_known_hosts() {
    each("", |carrier, sshd| {
        for (policy, is_in) in [
            ("yes", false),
            ("ask", false),
            ("accept-new", true),
            ("no", true),
        ] {
            let file = sshd.path(policy);
            let (user, strict) = (
                option("UserKnownHostsFile", &file),
                format!("StrictHostKeyChecking={policy}"),
            );
            let outcome = login(
                carrier,
                &sshd.plan(),
                &[&user, &strict, "HashKnownHosts=yes"],
            );
            assert_eq!(outcome.is_in, is_in, "{carrier} {policy}: {}", outcome.said);
            let written = fs::read_to_string(&file).unwrap_or_default();
            assert_eq!(
                written.starts_with("|1|"),
                is_in,
                "{carrier} {policy}: {written}"
            );
        }
        let file = sshd.path("plain");
        let user = option("UserKnownHostsFile", &file);
        let options = [
            &user,
            "StrictHostKeyChecking=accept-new",
            "HashKnownHosts=no",
        ];
        login(carrier, &sshd.plan(), &options).gets_in();
        let written = fs::read_to_string(&file).unwrap();
        assert!(written.starts_with("[127.0.0.1]:"), "{written}");
    });
}

#[test]
fn host_key_alias() {
    each("", |carrier, sshd| {
        let key = fs::read_to_string(sshd.path("host_key.pub")).unwrap();
        let file = sshd.path("names");
        fs::write(&file, format!("prod {key}")).unwrap();
        let user = option("UserKnownHostsFile", &file);
        let refused = "host key verification failed";
        login(carrier, &sshd.plan(), &[&user]).fails(refused);
        login(carrier, &sshd.plan(), &[&user, "HostKeyAlias=prod"]).gets_in();
    });
}

#[test]
fn connect_timeout_and_connection_attempts() {
    each("", |carrier, sshd| {
        sshd.stop();
        let began = Instant::now();
        login(carrier, &sshd.plan(), &["ConnectTimeout=1"]).fails("within 1 s");
        assert!(began.elapsed() < Duration::from_secs(20));
        sshd.resume();
        let port = format!("Port={}", crate::rig::free_port());
        let began = Instant::now();
        let options = [&port, "ConnectionAttempts=3"];
        login(carrier, &sshd.plan(), &options).fails("Connection refused");
        assert!(began.elapsed() >= Duration::from_secs(2));
    });
}

#[test]
fn algorithms_and_compression() {
    each("LogLevel DEBUG1", |carrier, sshd| {
        let options = [
            "Ciphers=aes256-ctr",
            "MACs=hmac-sha2-256-etm@openssh.com",
            "KexAlgorithms=ecdh-sha2-nistp256",
            "HostKeyAlgorithms=ssh-ed25519",
            "Compression=yes",
        ];
        login(carrier, &sshd.plan(), &options).gets_in();
        let log = sshd.log();
        for text in [
            "kex: algorithm: ecdh-sha2-nistp256",
            "kex: host key algorithm: ssh-ed25519",
            "cipher: aes256-ctr MAC: hmac-sha2-256-etm@openssh.com compression: zlib@openssh.com",
        ] {
            assert!(log.contains(text), "{carrier}: no {text:?} in {log}");
        }
        // One that the server does not have.
        let options = ["HostKeyAlgorithms=rsa-sha2-512"];
        login(carrier, &sshd.plan(), &options).fails("handshake");
    });
}

#[test]
fn address_family_and_bind_address() {
    each("", |carrier, sshd| {
        login(carrier, &sshd.plan(), &["BindAddress=127.0.0.5"]).gets_in();
        let log = sshd.log();
        assert!(
            log.contains("for root from 127.0.0.5 port"),
            "{carrier}: {log}"
        );
        let options = ["HostName=::1", "AddressFamily=inet"];
        login(carrier, &sshd.plan(), &options).fails("cannot resolve ::1");
    });
}

#[test]
fn preferred_authentications_and_batch_mode() {
    each("PasswordAuthentication yes", |carrier, sshd| {
        let options = ["PreferredAuthentications=password", "BatchMode=yes"];
        login(carrier, &sshd.plan(), &options).fails("permission denied");
        assert!(!sshd.log().contains("Accepted publickey"));
        let options = [
            "PreferredAuthentications=password,publickey",
            "BatchMode=yes",
        ];
        login(carrier, &sshd.plan(), &options).gets_in();
    });
}

#[test]
fn what_is_not_followed_is_said_and_what_does_not_matter_is_not() {
    each("", |carrier, sshd| {
        let options = ["SetEnv=A=b", "SendEnv=LANG", "RekeyLimit=1M"];
        let said = login(carrier, &sshd.plan(), &options).gets_in();
        assert!(!said.contains("Env"), "{said}");
        let is_said = said.contains("RekeyLimit") && said.contains("is not honoured");
        assert_eq!(is_said, carrier == "russh", "{said}");
    });
}
