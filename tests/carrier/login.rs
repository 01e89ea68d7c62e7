//! Logging in with the embedded SSH carrier: keys, agent, passphrases, host keys, and every way to fail.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};
use underpass::carrier::Link;
use underpass::carrier::{ConnectError, HostKeyError, NoPrompter, Prompter, RusshCarrier};
use underpass::net::Carrier;
use underpass::plan::{HostKeyPolicy, Route, SshPlan};

use crate::person::Person;
use crate::rig::{self, Echo, Sshd, keygen, local};

async fn failure(plan: &SshPlan) -> ConnectError {
    RusshCarrier::connect(plan, Arc::new(NoPrompter))
        .await
        .err()
        .unwrap()
}

/// One line, and nothing that could disturb a terminal.
fn assert_is_one_line(error: &ConnectError) {
    let text = error.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_every_type_and_format() {
    let sshd = Sshd::start("");
    for (kind, passphrase) in [
        ("rsa", ""),
        ("ecdsa", ""),
        ("ed25519", "secret"),
        ("rsa", "secret"),
    ] {
        let name = format!("{kind}{}", passphrase.len());
        let path = sshd.path(&name);
        keygen(&path, kind, passphrase);
        let public = fs::read_to_string(sshd.path(&format!("{name}.pub"))).unwrap();
        fs::write(sshd.path("authorized_keys"), public).unwrap();
        let plan = SshPlan {
            identities: vec![sshd.path("missing"), sshd.path("id_ed25519"), path.clone()],
            ..sshd.plan()
        };
        let person = Person::saying(&["wrong", "secret"]);
        let prompter = Arc::clone(&person) as Arc<dyn Prompter>;
        let carrier = RusshCarrier::connect(&plan, prompter).await.unwrap();
        let how = &carrier.description().authentication;
        assert!(how.contains(path.to_str().unwrap()), "{how}");
        assert_eq!(person.asked(), if passphrase.is_empty() { 0 } else { 2 });
        carrier.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_key_files_too() {
    let sshd = Sshd::start("");
    let path = sshd.path("old");
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "rsa", "-m", "PEM", "-N", "secret", "-f"])
        .arg(&path)
        .status()
        .unwrap();
    assert!(status.success());
    fs::copy(sshd.path("old.pub"), sshd.path("authorized_keys")).unwrap();
    fs::remove_file(sshd.path("old.pub")).unwrap();
    let plan = SshPlan {
        identities: vec![path],
        ..sshd.plan()
    };
    let person = Person::saying(&["secret"]);
    let carrier = RusshCarrier::connect(&plan, person).await.unwrap();
    carrier.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_is_asked_for_in_vain() {
    let sshd = Sshd::start("");
    keygen(&sshd.path("other"), "ed25519", "secret");
    let plan = SshPlan {
        identities: vec![sshd.path("other")],
        ..sshd.plan()
    };
    let person = Person::saying(&["secret"]);
    let prompter = Arc::clone(&person) as Arc<dyn Prompter>;
    let error = RusshCarrier::connect(&plan, prompter).await.err().unwrap();
    assert!(
        matches!(&error, ConnectError::Refused { methods, tried, .. }
        if methods == "publickey" && tried.contains("other")),
        "{error}"
    );
    assert_is_one_line(&error);
    assert_eq!(person.asked(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_cannot_be_used_are_told() {
    let sshd = Sshd::start("");
    fs::write(sshd.path("rubbish"), "rubbish").unwrap();
    let open = sshd.path("open");
    keygen(&open, "ed25519", "");
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    keygen(&sshd.path("locked"), "ed25519", "secret");
    fs::copy(sshd.path("locked.pub"), sshd.path("authorized_keys")).unwrap();
    let plan = SshPlan {
        identities: ["missing", "rubbish", "open", "locked"]
            .map(|n| sshd.path(n))
            .to_vec(),
        ..sshd.plan()
    };
    let text = failure(&plan).await.to_string();
    for part in [
        "missing (No such file or directory)",
        "rubbish (not a private key",
        "chmod 600",
        "no passphrase given",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_to_log_in_with() {
    let sshd = Sshd::start("");
    let plan = SshPlan {
        identities: Vec::new(),
        ..sshd.plan()
    };
    let error = failure(&plan).await;
    assert!(
        matches!(&error, ConnectError::Refused { tried, .. } if tried == "no key found"),
        "{error}"
    );
    let plan = SshPlan {
        user: "nobody-here".to_owned(),
        ..sshd.plan()
    };
    assert!(matches!(failure(&plan).await, ConnectError::Refused { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_host_key_is_asked_for_once() {
    let sshd = Sshd::start("");
    let plan = SshPlan {
        host_keys: HostKeyPolicy::Ask,
        known_hosts: vec![sshd.path("new/known_hosts")],
        ..sshd.plan()
    };
    let no = Person::saying(&["no"]);
    let error = RusshCarrier::connect(&plan, no).await.err().unwrap();
    assert!(
        matches!(error, ConnectError::HostKey(HostKeyError::Unknown { .. })),
        "{error}"
    );
    assert_is_one_line(&error);
    let yes = Person::saying(&["yes"]);
    let prompter = Arc::clone(&yes) as Arc<dyn Prompter>;
    RusshCarrier::connect(&plan, prompter)
        .await
        .unwrap()
        .shutdown()
        .await;
    assert_eq!(yes.asked(), 1);
    // ssh itself reads what was written.
    let known = Command::new("ssh-keygen")
        .args(["-F", &format!("[127.0.0.1]:{}", plan.port), "-f"])
        .arg(&plan.known_hosts[0])
        .output()
        .unwrap();
    assert!(known.status.success());
    RusshCarrier::connect(&plan, Arc::new(NoPrompter))
        .await
        .unwrap()
        .shutdown()
        .await;
}

/// Nothing can be written there: the answer holds for all connections of the run, and for no other key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_key_that_cannot_be_written_is_asked_for_once() {
    let (hop, server) = (Sshd::start(""), Sshd::start(""));
    let unwritten = |sshd: &Sshd| SshPlan {
        host_keys: HostKeyPolicy::Ask,
        known_hosts: vec!["/dev/null".into()],
        ..sshd.plan()
    };
    let plan = SshPlan {
        route: Route::Jump(Box::new(unwritten(&hop))),
        ..unwritten(&server)
    };
    let yes = Person::saying(&["yes", "yes"]);
    let prompter = Arc::clone(&yes) as Arc<dyn Prompter>;
    let carrier = RusshCarrier::connect(&plan, prompter).await.unwrap();
    let two = async {
        while server.connections() < 2 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), two).await.unwrap();
    carrier.again(None).await.unwrap().shutdown().await;
    carrier.shutdown().await;
    assert_eq!(yes.asked(), 2);
}

/// Refused in the key exchange: a server that is another one gets no login to see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_host_key_than_before_is_refused_without_a_login() {
    let mut sshd = Sshd::start("");
    let plan = SshPlan {
        host_keys: HostKeyPolicy::No,
        known_hosts: vec!["/dev/null".into()],
        connections: Some(1),
        ..sshd.plan()
    };
    let nobody = Arc::new(NoPrompter);
    let carrier = RusshCarrier::connect(&plan, nobody).await.unwrap();
    sshd.restart_with_another_host_key();
    let error = carrier.again(None).await.err().unwrap();
    assert!(
        matches!(
            error,
            ConnectError::HostKey(HostKeyError::NotAsBefore { .. })
        ),
        "{error}"
    );
    assert!(!sshd.log().contains("Accepted"), "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_host_key_is_refused() {
    let sshd = Sshd::start("");
    let other = fs::read_to_string(sshd.path("id_ed25519.pub")).unwrap();
    let plan = sshd.plan();
    fs::write(
        &plan.known_hosts[0],
        format!("[127.0.0.1]:{} {other}", plan.port),
    )
    .unwrap();
    let error = failure(&plan).await;
    assert!(
        matches!(
            error,
            ConnectError::HostKey(HostKeyError::Changed { line: 1, .. })
        ),
        "{error}"
    );
    assert_is_one_line(&error);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_are_not_there() {
    let sshd = Sshd::start("");
    let plan = SshPlan {
        host: "no-such-host.invalid".to_owned(),
        ..sshd.plan()
    };
    assert!(matches!(
        failure(&plan).await,
        ConnectError::UnknownHost { .. }
    ));
    let plan = SshPlan {
        port: rig::closed_port().await.0.port(),
        ..sshd.plan()
    };
    let error = failure(&plan).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert_is_one_line(&error);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_do_not_speak_ssh() {
    let sshd = Sshd::start("");
    for greeting in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "SSH-1.5-old\r\n",
        "SSH-2.0-x\r\n\x1b\0\0\0rubbish",
        "",
    ] {
        let address = rig::serve(move |mut stream| async move {
            let _ = stream.write_all(greeting.as_bytes()).await;
        })
        .await;
        let plan = SshPlan {
            host: Ipv4Addr::LOCALHOST.to_string(),
            port: address.port(),
            ..sshd.plan()
        };
        let error = timeout(Duration::from_secs(10), failure(&plan))
            .await
            .unwrap();
        assert!(
            matches!(
                error,
                ConnectError::Handshake { .. } | ConnectError::Ended { .. }
            ),
            "{greeting:?}: {error}"
        );
        assert_is_one_line(&error);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_open_is_closed_when_it_succeeds() {
    let sshd = Sshd::start("");
    let echo = Echo::start().await;
    let carrier = rig::connect(&sshd).await;
    for _ in 0..200 {
        let mut open = Box::pin(carrier.open(local(1), echo.target()));
        // Begun, and given up at once.
        let _ = futures_util::poll!(&mut open);
        drop(open);
    }
    let gone = async {
        while echo.open() > 0 || echo.seen() < 200 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.unwrap();
    carrier.shutdown().await;
}

/// Runs in a process of its own, started by the test below: the agent is found through the environment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the_agent_is_asked_first"]
async fn inside_the_agents_environment() {
    let dir = std::path::PathBuf::from(std::env::var_os("RIG_DIR").unwrap());
    let port = std::env::var("RIG_PORT").unwrap().parse().unwrap();
    let plan = SshPlan {
        // Its private half is in the agent alone.
        identities: vec![dir.join("in_agent")],
        host_keys: HostKeyPolicy::Yes,
        known_hosts: vec![dir.join("known_hosts")],
        ..SshPlan::new("127.0.0.1", port, "root")
    };
    let carrier = RusshCarrier::connect(&plan, Arc::new(NoPrompter))
        .await
        .unwrap();
    let how = &carrier.description().authentication;
    assert!(how.ends_with(" from the agent"), "{how}");
    carrier.shutdown().await;
}

#[test]
fn the_agent_is_asked_first() {
    // A second refusal would end the connection: the key that -i names must be offered first.
    let sshd = Sshd::start("MaxAuthTries 1");
    let socket = sshd.path("agent");
    let mut agent = Command::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while UnixStream::connect(&socket).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    for (name, kind) in [
        ("first", "ed25519"),
        ("second", "ecdsa"),
        ("in_agent", "rsa"),
    ] {
        keygen(&sshd.path(name), kind, "");
        let add = Command::new("ssh-add")
            .arg("-q")
            .arg(sshd.path(name))
            .env("SSH_AUTH_SOCK", &socket)
            .status();
        assert!(add.unwrap().success());
        fs::remove_file(sshd.path(name)).unwrap();
    }
    fs::copy(sshd.path("in_agent.pub"), sshd.path("authorized_keys")).unwrap();
    let mut inside = rig::one_test(module_path!(), "inside_the_agents_environment");
    inside
        .env("SSH_AUTH_SOCK", &socket)
        .env("RIG_DIR", sshd.path(""))
        .env("RIG_PORT", sshd.plan().port.to_string());
    rig::assert_passes(inside);
    let _ = agent.kill();
    let _ = agent.wait();
}
