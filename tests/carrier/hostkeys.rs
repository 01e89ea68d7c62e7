//! Host keys against a real sshd, and beside a real ssh: both take and refuse the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;
use underpass::carrier::{CertificateFault, ConnectError, HostKeyError};
use underpass::carrier::{Link, NoPrompter, OpensshCarrier, RusshCarrier};
use underpass::plan::{HostKeyPolicy, SshPlan};

use crate::client::Configured;
use crate::rig::{Sshd, keygen};

/// A certificate authority.
struct Authority {
    dir: TempDir,
}

impl Authority {
    fn new(kind: &str) -> Self {
        let dir = TempDir::new_in("/tmp").unwrap();
        keygen(&dir.path().join("ca"), kind, "");
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn public(&self) -> String {
        fs::read_to_string(self.path("ca.pub")).unwrap()
    }

    /// A server with a host key of `kind` and a certificate for it, made with these options of ssh-keygen(1).
    fn sshd(&self, kind: &str, options: &[&str]) -> Sshd {
        let key = self.path(&format!("{kind}_host"));
        keygen(&key, kind, "");
        let signed = Command::new("ssh-keygen")
            .args(["-q", "-I", "test", "-h", "-s"])
            .arg(self.path("ca"))
            .args(options)
            .arg(&key)
            .status()
            .unwrap();
        assert!(signed.success());
        let key = key.display();
        Sshd::start(&format!("HostKey {key}\nHostCertificate {key}-cert.pub"))
    }

    /// How to log in there, the host being known as `known`.
    fn plan(&self, sshd: &Sshd, known: &str) -> SshPlan {
        let plan = sshd.plan();
        fs::write(&plan.known_hosts[0], known).unwrap();
        plan
    }
}

async fn connect(plan: &SshPlan) -> Result<(), HostKeyError> {
    match RusshCarrier::connect(plan, Arc::new(NoPrompter)).await {
        Ok(carrier) => {
            carrier.shutdown().await;
            Ok(())
        }
        Err(ConnectError::HostKey(error)) => Err(error),
        Err(error) => panic!("{error}"),
    }
}

async fn fault(plan: &SshPlan) -> CertificateFault {
    match connect(plan).await {
        Err(error @ HostKeyError::Certificate { .. }) => {
            let text = error.to_string();
            assert!(!text.contains('\n'), "{text}");
            let HostKeyError::Certificate { fault, .. } = error else {
                unreachable!()
            };
            *fault
        }
        other => panic!("{other:?}"),
    }
}

/// Whether a real ssh takes the host key, with the same files of known hosts. It has no key of its own: a server that it
/// takes turns it away.
fn ssh_takes(plan: &SshPlan) -> bool {
    let known = plan.known_hosts.iter().map(|f| f.display().to_string());
    let known = known.collect::<Vec<_>>().join(" ");
    let options = [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "PubkeyAuthentication=no",
        "GlobalKnownHostsFile=none",
        &format!("UserKnownHostsFile={known}"),
    ];
    let output = Command::new("ssh")
        .args(["-F", "none", "-p", &plan.port.to_string()])
        .args(options.iter().flat_map(|option| ["-o", option]))
        .args(["root@127.0.0.1", "true"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let refused = said.contains("Host key verification failed");
    assert!(refused || said.contains("Permission denied"), "{said}");
    !refused
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_enough() {
    for (authority, host) in [("ed25519", "ed25519"), ("rsa", "ecdsa"), ("ecdsa", "rsa")] {
        let ca = Authority::new(authority);
        let sshd = ca.sshd(host, &["-n", "127.0.0.1"]);
        for names in [
            "*",
            "127.0.0.?",
            &format!("[127.0.0.1]:{}", sshd.plan().port),
        ] {
            let plan = ca.plan(&sshd, &format!("@cert-authority {names} {}", ca.public()));
            connect(&plan).await.unwrap();
            assert!(ssh_takes(&plan));
        }
    }
}

/// Both carriers know whose key it is, and which one let us in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_ssh_a_certificate_tells_the_key_too() {
    let ca = Authority::new("ed25519");
    for host in ["ed25519", "ecdsa", "rsa"] {
        let sshd = ca.sshd(host, &["-n", "127.0.0.1"]);
        let plan = ca.plan(&sshd, &format!("@cert-authority * {}", ca.public()));
        let russh = RusshCarrier::connect(&plan, Arc::new(NoPrompter));
        let russh = russh.await.unwrap();
        let ssh = Configured::new(&plan);
        let openssh = OpensshCarrier::connect(&ssh.plan, &ssh.client);
        let openssh = openssh.await.unwrap();
        let (expected, seen) = (russh.description(), openssh.description());
        assert!(
            expected.host_key.contains(" SHA256:"),
            "{}",
            expected.host_key
        );
        assert_eq!(seen.host_key, expected.host_key);
        assert_eq!(seen.key, expected.key);
        assert_eq!(seen.server, expected.server);
        russh.shutdown().await;
        openssh.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_valid_is_not() {
    let ca = Authority::new("ed25519");
    let line = format!("@cert-authority * {}", ca.public());

    let sshd = ca.sshd("ed25519", &["-n", "127.0.0.1", "-V", "20200101:20200102"]);
    let plan = ca.plan(&sshd, &line);
    assert!(matches!(fault(&plan).await, CertificateFault::Expired(_)));
    assert!(!ssh_takes(&plan));
    // The plain key does, where it is known.
    let key = fs::read_to_string(ca.path("ed25519_host.pub")).unwrap();
    let plan = ca.plan(&sshd, &format!("{line}[127.0.0.1]:{} {key}", plan.port));
    connect(&plan).await.unwrap();
    assert!(ssh_takes(&plan));

    let ca = Authority::new("ed25519");
    let line = format!("@cert-authority * {}", ca.public());
    let sshd = ca.sshd("ed25519", &["-n", "prod,gateway"]);
    let plan = ca.plan(&sshd, &line);
    assert!(matches!(fault(&plan).await, CertificateFault::Name { .. }));
    assert!(!ssh_takes(&plan));
    let alias = SshPlan {
        host_key_alias: Some("prod".to_owned()),
        ..plan
    };
    connect(&alias).await.unwrap();
    let mut other = alias;
    other.algorithms.authorities = Some(vec!["rsa-sha2-512".to_owned()]);
    assert!(matches!(
        fault(&other).await,
        CertificateFault::Algorithm(_)
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_authority_is_not() {
    let (ca, other) = (Authority::new("ed25519"), Authority::new("ed25519"));
    let sshd = ca.sshd("ed25519", &["-n", "127.0.0.1"]);
    let plan = ca.plan(&sshd, &format!("@cert-authority * {}", other.public()));
    assert!(matches!(fault(&plan).await, CertificateFault::Stranger(_)));
    let lines = format!("@cert-authority * {0}@revoked * {0}", ca.public());
    let plan = ca.plan(&sshd, &lines);
    let error = connect(&plan).await.unwrap_err();
    assert!(
        matches!(error, HostKeyError::Revoked { line: 2, .. }),
        "{error}"
    );
    assert!(!ssh_takes(&plan));

    // A server without a certificate, where one is expected.
    let sshd = Sshd::start("");
    let plan = ca.plan(&sshd, &format!("@cert-authority * {}", ca.public()));
    assert_eq!(fault(&plan).await, CertificateFault::Missing);
    assert!(!ssh_takes(&plan));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ssh_and_underpass_take_the_same() {
    let sshd = Sshd::start("");
    let plan = sshd.plan();
    let plan = SshPlan {
        known_hosts: vec![sshd.path("known_1"), sshd.path("known_2")],
        ..plan
    };
    let port = plan.port;
    let read = |name: &str| fs::read_to_string(sshd.path(name)).unwrap();
    keygen(&sshd.path("ecdsa"), "ecdsa", "");
    let (key, other, ecdsa) = (
        read("host_key.pub"),
        read("id_ed25519.pub"),
        read("ecdsa.pub"),
    );
    let name = format!("[127.0.0.1]:{port}");
    for (first, second, taken) in [
        (format!("{name} {key}"), String::new(), true),
        (String::new(), format!("# c\n\n {name} {key}"), true),
        (format!("{name} {other}"), format!("{name} {key}"), true),
        (format!("{name} {other}"), String::new(), false),
        (format!("{name} {ecdsa}"), String::new(), false),
        (format!("{name} {ecdsa}"), format!("127.0.0.1 {key}"), false),
        (format!("127.0.0.1 {key}"), String::new(), true),
        (format!("127.0.0.1 {other}"), String::new(), false),
        (format!("127.0.*,!127.0.0.1 {key}"), String::new(), false),
        (format!("127.0.*,!127.0.1.? {key}"), String::new(), true),
        (format!("[127.0.0.*]:* {key}"), String::new(), true),
        (format!("{name} {key}"), format!("@revoked * {key}"), false),
        (format!("{name} {key}"), format!("@revoked x {key}"), true),
        (
            format!("{name} {key}"),
            format!("@revoked {name} {other}"),
            true,
        ),
        (format!("@cert-authority * {key}"), String::new(), false),
        (format!("@other {name} {key}"), String::new(), false),
        (
            format!("rubbish\n{name} rubbish\n{name} {key}"),
            "\0".to_owned(),
            true,
        ),
    ] {
        write(&plan.known_hosts[0], &first);
        write(&plan.known_hosts[1], &second);
        assert_eq!(
            connect(&plan).await.is_ok(),
            taken,
            "underpass: {first}{second}"
        );
        assert_eq!(ssh_takes(&plan), taken, "ssh: {first}{second}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ssh_reads_what_was_written() {
    let sshd = Sshd::start("");
    for hash_known_hosts in [false, true] {
        let plan = SshPlan {
            host_keys: HostKeyPolicy::AcceptNew,
            hash_known_hosts,
            known_hosts: vec![sshd.path(&format!("new/known_hosts_{hash_known_hosts}"))],
            ..sshd.plan()
        };
        assert!(!ssh_takes(&plan));
        connect(&plan).await.unwrap();
        assert!(ssh_takes(&plan));
        let found = Command::new("ssh-keygen")
            .args(["-F", &format!("[127.0.0.1]:{}", plan.port), "-f"])
            .arg(&plan.known_hosts[0])
            .output()
            .unwrap();
        assert!(found.status.success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_known_type_is_asked_for() {
    let sshd = Sshd::start("");
    let plan = sshd.plan();
    let dir = TempDir::new_in("/tmp").unwrap();
    let ecdsa = dir.path().join("ecdsa");
    keygen(&ecdsa, "ecdsa", "");
    let two = Sshd::start(&format!("HostKey {}", ecdsa.display()));
    let port = two.plan().port;
    let line = fs::read_to_string(dir.path().join("ecdsa.pub")).unwrap();
    // Known in the second file, of a type that is not the first choice, and beside a key of another server.
    let other = fs::read_to_string(sshd.path("host_key.pub")).unwrap();
    let files = [dir.path().join("1"), dir.path().join("2")];
    write(&files[0], &format!("[127.0.0.1]:{} {other}", plan.port));
    write(&files[1], &format!("[127.0.0.1]:{port} {line}"));
    let plan = SshPlan {
        global_known_hosts: files.to_vec(),
        known_hosts: Vec::new(),
        ..two.plan()
    };
    connect(&plan).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_revoked_keys() {
    let sshd = Sshd::start("");
    let plan = SshPlan {
        revoked_host_keys: vec![sshd.path("host_key.pub")],
        ..sshd.plan()
    };
    let error = connect(&plan).await.unwrap_err();
    assert!(
        matches!(error, HostKeyError::Revoked { line: 1, .. }),
        "{error}"
    );
    // A binary list, as ssh-keygen -k makes it, cannot be read: that lets nothing pass, and says what to do.
    let made = Command::new("ssh-keygen")
        .args(["-q", "-k", "-f"])
        .args([sshd.path("krl"), sshd.path("id_ed25519.pub")])
        .status()
        .unwrap();
    assert!(made.success());
    let plan = SshPlan {
        revoked_host_keys: vec![sshd.path("krl")],
        ..plan
    };
    let text = connect(&plan).await.unwrap_err().to_string();
    assert!(text.contains("--carrier openssh"), "{text}");
}
