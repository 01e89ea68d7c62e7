//! Logging in with the embedded SSH carrier at a real sshd: agent, certificates, hardware keys, several keys.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::time::{sleep, sleep_until};
use underpass::carrier::prompt::usual;
use underpass::carrier::{AnyCarrier, ConnectError, Link, NoPrompter, Prompter, RusshCarrier};
use underpass::net::{Carrier, Far};
use underpass::plan::{Agent, CarrierKind, CarrierPlan, Login, SshPlan};

use crate::agent::{HardwareAgent, RealAgent};
use crate::person::Person;
use crate::rig::{Echo, Sshd, keygen, local};

/// Logs in with nobody there, and tells by what.
async fn login(plan: &SshPlan) -> Result<String, ConnectError> {
    let carrier = RusshCarrier::connect(plan, Arc::new(NoPrompter)).await?;
    let how = carrier.description().authentication.clone();
    carrier.shutdown().await;
    Ok(how)
}

async fn refused(plan: &SshPlan) -> String {
    let error = login(plan).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
    error.to_string()
}

fn with_agent(plan: SshPlan, socket: &Path) -> SshPlan {
    SshPlan {
        login: Login {
            agent: Agent::Socket(socket.to_owned()),
            ..plan.login
        },
        ..plan
    }
}

/// Lets the keys of these files in, and no other.
fn authorize(sshd: &Sshd, names: &[&str]) {
    let read = |name: &&str| fs::read_to_string(sshd.path(&format!("{name}.pub"))).unwrap();
    let keys: String = names.iter().map(read).collect();
    fs::write(sshd.path("authorized_keys"), keys).unwrap();
}

fn ssh_keygen(arguments: &[&str]) {
    let status = Command::new("ssh-keygen")
        .arg("-q")
        .args(arguments)
        .status();
    assert!(status.unwrap().success());
}

/// An sshd that takes the certificates of a CA and nothing else, with `extra` lines, and the directory of that CA.
fn sshd_with_ca(extra: &str) -> (Sshd, TempDir) {
    let dir = TempDir::new_in("/tmp").unwrap();
    keygen(&dir.path().join("ca"), "ed25519", "");
    let trusted = format!("TrustedUserCAKeys {}/ca.pub", dir.path().display());
    let sshd = Sshd::start(&format!("{trusted}\n{extra}"));
    fs::write(sshd.path("authorized_keys"), "").unwrap();
    (sshd, dir)
}

/// Has the CA sign the key of this name, beside which the certificate is then.
fn sign(sshd: &Sshd, ca: &TempDir, name: &str, validity: &str) {
    let (ca, public) = (ca.path().join("ca"), sshd.path(&format!("{name}.pub")));
    let (ca, public) = (ca.to_str().unwrap(), public.to_str().unwrap());
    ssh_keygen(&["-s", ca, "-I", "test", "-n", "root", "-V", validity, public]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agents_keys() {
    let sshd = Sshd::start("");
    let agent = RealAgent::start(&sshd.path("agent"));
    for name in ["a", "b", "c"] {
        keygen(&sshd.path(name), "ed25519", "");
        agent.add(&sshd.path(name));
        fs::remove_file(sshd.path(name)).unwrap();
    }
    authorize(&sshd, &["c"]);
    let plan = SshPlan {
        identities: vec![sshd.path("b")],
        ..with_agent(sshd.plan(), agent.socket())
    };
    let how = login(&plan).await.unwrap();
    assert!(how.ends_with(" from the agent"), "{how}");

    let only_named = |name: &str| {
        let mut plan = plan.clone();
        plan.login.identities_only = true;
        plan.identities = vec![sshd.path(name)];
        plan
    };
    login(&only_named("c")).await.unwrap();
    let error = refused(&only_named("b")).await;
    assert_eq!(error.matches("from the agent").count(), 1, "{error}");

    let mut none = plan.clone();
    none.login.agent = Agent::None;
    none.identities.clear();
    assert!(refused(&none).await.contains("no key found"));

    let gone = with_agent(plan, Path::new("/nonexistent/agent"));
    let error = refused(&gone).await;
    let said = "the agent at /nonexistent/agent (No such file or directory";
    assert!(error.contains(said), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_keys_than_the_server_lets_one_try() {
    let sshd = Sshd::start("MaxAuthTries 2");
    let agent = RealAgent::start(&sshd.path("agent"));
    for name in ["a", "b", "c"] {
        keygen(&sshd.path(name), "ed25519", "");
        agent.add(&sshd.path(name));
    }
    let plan = with_agent(sshd.plan(), agent.socket());
    let error = login(&plan).await.unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, ConnectError::TooManyTries { count: 2, .. }),
        "{text}"
    );
    for part in [
        "Too many authentication failures",
        "-o IdentitiesOnly=yes -i FILE",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let mut right = plan;
    right.login.identities_only = true;
    login(&right).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates() {
    let (sshd, ca) = sshd_with_ca("");
    let sign = |name: &str, validity: &str| sign(&sshd, &ca, name, validity);
    for (name, kind) in [("rsa", "rsa"), ("ec", "ecdsa"), ("ed", "ed25519")] {
        keygen(&sshd.path(name), kind, "");
        sign(name, "-1h:+1h");
        // Beside its key file.
        let plan = SshPlan {
            identities: vec![sshd.path(name)],
            ..sshd.plan()
        };
        let how = login(&plan).await.unwrap();
        assert!(
            how.starts_with("certificate ") && how.ends_with("-cert.pub"),
            "{how}"
        );
        // Named, somewhere else.
        let elsewhere = sshd.path(&format!("{name}.certificate"));
        fs::rename(sshd.path(&format!("{name}-cert.pub")), &elsewhere).unwrap();
        assert!(login(&plan).await.is_err());
        let mut named = plan.clone();
        named.login.certificates = vec![elsewhere.clone()];
        let how = login(&named).await.unwrap();
        assert!(how.contains(elsewhere.to_str().unwrap()), "{how}");
        // With its key in the agent.
        let agent = RealAgent::start(&sshd.path(&format!("agent-{name}")));
        agent.add(&sshd.path(name));
        fs::remove_file(sshd.path(name)).unwrap();
        let how = login(&with_agent(named, agent.socket())).await.unwrap();
        assert!(how.ends_with("with its key from the agent"), "{how}");
    }
    // In the agent, with its key.
    let agent = RealAgent::start(&sshd.path("agent"));
    keygen(&sshd.path("whole"), "rsa", "");
    sign("whole", "-1h:+1h");
    agent.add(&sshd.path("whole"));
    let plan = SshPlan {
        identities: Vec::new(),
        ..with_agent(sshd.plan(), agent.socket())
    };
    let how = login(&plan).await.unwrap();
    assert!(how.starts_with("certificate RSA-CERT SHA256:"), "{how}");
    // No longer valid: the server only says no.
    keygen(&sshd.path("old"), "ed25519", "");
    sign("old", "-2h:-1h");
    let plan = SshPlan {
        identities: vec![sshd.path("old")],
        ..sshd.plan()
    };
    let error = refused(&plan).await;
    assert!(error.contains("old-cert.pub, expired"), "{error}");
}

/// As some authorities give them for hours, here for seconds. What is shown fits into the tries that the server allows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_lets_further_connections_in() {
    let (sshd, ca) = sshd_with_ca("MaxAuthTries 3");
    keygen(&sshd.path("short"), "ed25519", "");
    sign(&sshd, &ca, "short", "-1h:+20s");
    let expired = Instant::now() + Duration::from_secs(22);
    let plan = SshPlan {
        identities: vec![sshd.path("short")],
        ..sshd.plan()
    };
    let by = CarrierPlan {
        kind: CarrierKind::Russh,
        why: "a test".into(),
        client: sshd.client(&[]),
    };
    let carrier = AnyCarrier::connect(&by, &plan, Arc::new(NoPrompter));
    let carrier = carrier.await.unwrap();
    while carrier.connections() < 2 {
        assert!(Instant::now() < expired);
        sleep(Duration::from_millis(50)).await;
    }
    sleep_until(expired.into()).await;
    sign(&sshd, &ca, "short", "-1h:+1h");
    // Names have a connection of their own.
    let echo = Echo::start().await;
    let far = Far {
        target: echo.target(),
        name: Some("localhost".into()),
    };
    carrier.open_far(local(1), far).await.unwrap();
    assert_eq!(carrier.connections(), 3);
    carrier.shutdown().await;
}

/// RequiredRSASize counts for the user's keys as for the server's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_rsa_key_is_not_offered() {
    let sshd = Sshd::start("");
    let short = sshd.path("short");
    // Of 3,072 bits.
    keygen(&short, "rsa", "");
    authorize(&sshd, &["short"]);
    let agent = RealAgent::start(&sshd.path("agent"));
    agent.add(&short);
    let by_file = SshPlan {
        identities: vec![short],
        ..sshd.plan()
    };
    let by_agent = SshPlan {
        identities: Vec::new(),
        ..with_agent(sshd.plan(), agent.socket())
    };
    for mut plan in [by_file, by_agent] {
        plan.required_rsa_size = 3072;
        login(&plan).await.unwrap();
        plan.required_rsa_size = 3073;
        let error = refused(&plan).await;
        assert!(error.contains("(shorter than RequiredRSASize)"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_in_hardware() {
    let sshd = Sshd::start("");
    let agent = HardwareAgent::start(&sshd.path("agent"), &sshd.path("sk.pub"));
    authorize(&sshd, &["sk"]);
    let plan = SshPlan {
        identities: Vec::new(),
        ..with_agent(sshd.plan(), agent.socket())
    };
    let how = login(&plan).await.unwrap();
    assert!(how.starts_with("key ED25519-SK SHA256:"), "{how}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_wants_two_keys() {
    let sshd = Sshd::start("AuthenticationMethods publickey,publickey");
    for name in ["one", "two"] {
        keygen(&sshd.path(name), "ed25519", "");
    }
    authorize(&sshd, &["one", "two"]);
    let plan = SshPlan {
        identities: vec![sshd.path("one"), sshd.path("two")],
        ..sshd.plan()
    };
    let how = login(&plan).await.unwrap();
    assert!(
        how.contains("/one, then key ") && how.ends_with("/two"),
        "{how}"
    );
    let one = SshPlan {
        identities: vec![sshd.path("one")],
        ..plan
    };
    let error = refused(&one).await;
    assert!(
        error.contains("one (taken, but the server wants more)"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passphrase_is_asked_for_once() {
    let sshd = Sshd::start("");
    keygen(&sshd.path("locked"), "ed25519", "secret");
    authorize(&sshd, &["locked"]);
    let plan = SshPlan {
        identities: vec![sshd.path("locked")],
        ..sshd.plan()
    };
    let person = Person::saying(&["secret"]);
    let prompter = Arc::clone(&person) as Arc<dyn Prompter>;
    let first = RusshCarrier::connect(&plan, prompter).await.unwrap();
    let path = sshd.path("locked").display().to_string();
    assert_eq!(
        person.questions(),
        [format!("Enter passphrase for key '{path}': *")]
    );
    first.again(None).await.unwrap().shutdown().await;
    // Another key under the same name is another key.
    fs::remove_file(sshd.path("locked")).unwrap();
    keygen(&sshd.path("locked"), "ed25519", "other");
    authorize(&sshd, &["locked"]);
    let error = first.again(None).await.err().unwrap().to_string();
    first.shutdown().await;
    assert!(error.contains("no passphrase given"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passphrase_from_a_window() {
    let sshd = Sshd::start("");
    keygen(&sshd.path("locked"), "ed25519", "secret");
    authorize(&sshd, &["locked"]);
    let askpass = sshd.path("askpass");
    fs::write(
        &askpass,
        "#!/bin/sh\ncase $1 in *\"/locked': \") echo secret;; esac\n",
    )
    .unwrap();
    fs::set_permissions(&askpass, fs::Permissions::from_mode(0o700)).unwrap();
    let plan = SshPlan {
        identities: vec![sshd.path("locked")],
        ..sshd.plan()
    };
    let prompter = usual(false, |name| match name {
        "SSH_ASKPASS" => Some(askpass.clone().into()),
        "SSH_ASKPASS_REQUIRE" => Some("force".into()),
        _ => None,
    });
    let carrier = RusshCarrier::connect(&plan, prompter).await.unwrap();
    carrier.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_sign_is_the_users_choice() {
    let sshd = Sshd::start("");
    keygen(&sshd.path("rsa"), "rsa", "");
    authorize(&sshd, &["rsa", "id_ed25519"]);
    let plan = |names: &[&str]| {
        let mut plan = sshd.plan();
        plan.identities = vec![sshd.path("rsa"), sshd.path("id_ed25519")];
        plan.algorithms.user_keys = Some(names.iter().map(ToString::to_string).collect());
        plan
    };
    let how = login(&plan(&["ssh-ed25519"])).await.unwrap();
    assert!(how.ends_with("id_ed25519"), "{how}");
    let how = login(&plan(&["rsa-sha2-256"])).await.unwrap();
    assert!(how.ends_with("rsa"), "{how}");
    let error = refused(&plan(&["ecdsa-sha2-nistp256"])).await;
    assert!(
        error.contains("rsa (not in PubkeyAcceptedAlgorithms)"),
        "{error}"
    );

    let mut off = sshd.plan();
    off.login.public_key = false;
    refused(&off).await;
    let mut preferred = sshd.plan();
    preferred.login.preferred = Some(vec!["password".to_owned()]);
    refused(&preferred).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_files_that_do_not_fit() {
    let sshd = Sshd::start("");
    // OpenSSH's own format has the public half inside, so only an old one can have another beside it.
    let old = sshd.path("old");
    ssh_keygen(&[
        "-t",
        "rsa",
        "-m",
        "PEM",
        "-N",
        "secret",
        "-f",
        old.to_str().unwrap(),
    ]);
    fs::copy(sshd.path("id_ed25519.pub"), sshd.path("old.pub")).unwrap();
    let plan = SshPlan {
        identities: vec![old],
        ..sshd.plan()
    };
    let person = Person::saying(&["secret"]);
    let error = RusshCarrier::connect(&plan, person).await.err().unwrap();
    let text = error.to_string();
    assert!(text.contains("not that of its public key file"), "{text}");
}
