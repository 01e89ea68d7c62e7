//! Passwords that have expired: what a server says then, and what comes of it over both carriers.

use std::time::{Duration, Instant};

use underpass::carrier::{ConnectError, Link, OpensshCarrier, RusshCarrier};
use underpass::net::OpenFailure;
use underpass::plan::SshPlan;

use crate::client::{Configured, runs_again_with};
use crate::openssh::{NEW_PASSWORD, Openssh, PASSWORD};
use crate::person::Person;
use crate::python::Asyncssh;
use crate::rig::{Echo, local};

/// ssh asks for the old password and twice for a new one.
const ANSWERS: &str =
    "case \"$1\" in\n*[Nn]ew*) echo 'correct horse 7' ;;\n*) echo 'open sesame' ;;\nesac";

async fn by_ssh(plan: &SshPlan) -> OpensshCarrier {
    let ssh = Configured::new(plan);
    OpensshCarrier::connect(&ssh.plan, &ssh.client)
        .await
        .unwrap()
}

/// Whether it does, or why not.
async fn forwards(link: &impl Link) -> Result<(), OpenFailure> {
    let echo = Echo::start().await;
    let opened = link.open(local(1), echo.target()).await;
    opened.map(drop).map_err(|error| error.failure)
}

/// SSH_MSG_USERAUTH_PASSWD_CHANGEREQ (RFC 4252 section 8) is neither yes nor no.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_wants_another_password_first() {
    let server = Asyncssh::start("expired.py");
    let began = Instant::now();
    let person = Person::saying(&[PASSWORD]);
    let error = RusshCarrier::connect(&server.plan(), person)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, ConnectError::Expired { .. }), "{error}");
    let advice = format!("Log in once to change it: ssh {}", server.plan().arguments);
    assert!(error.to_string().ends_with(&advice), "{error}");
    // Not when the server's patience ends, two minutes later.
    assert!(began.elapsed() < Duration::from_secs(30));
    // A wrong one is a wrong one.
    let person = Person::saying(&["wrong", "wrong", "wrong"]);
    let error = RusshCarrier::connect(&server.plan(), person)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ssh_asks_for_another_password_itself() {
    if !runs_again_with(
        module_path!(),
        "ssh_asks_for_another_password_itself",
        ANSWERS,
    ) {
        let server = Asyncssh::start("expired.py");
        let carrier = by_ssh(&server.plan()).await;
        assert_eq!(forwards(&carrier).await, Ok(()));
        carrier.shutdown().await;
    }
}

/// PAM asks for a new one in the same dialogue; the next login is with that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pam_asks_for_another_password() {
    if runs_again_with(module_path!(), "pam_asks_for_another_password", ANSWERS) {
        return;
    }
    let sshd = Openssh::of_expired_questions();
    let person = Person::saying(&[PASSWORD, PASSWORD, NEW_PASSWORD, NEW_PASSWORD]);
    let connected = RusshCarrier::connect(&sshd.plan(), person.clone()).await;
    let carrier = connected.unwrap_or_else(|e| panic!("{e} {:?}", person.questions()));
    assert_eq!(forwards(&carrier).await, Ok(()));
    carrier.shutdown().await;
    let questions = person.questions();
    assert_eq!(questions.len(), 4, "{questions:?}");
    assert!(
        questions[1].contains("required to change your password"),
        "{questions:?}"
    );
    let again = RusshCarrier::connect(&sshd.plan(), Person::saying(&[NEW_PASSWORD])).await;
    again.unwrap().shutdown().await;
    let fresh = Openssh::of_expired_questions();
    let carrier = by_ssh(&fresh.plan()).await;
    assert_eq!(forwards(&carrier).await, Ok(()));
    carrier.shutdown().await;
}

/// sshd takes the old password, and then forwards nothing. What the log says is in `terminal.rs`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_lets_in_and_forwards_nothing() {
    let test = "openssh_lets_in_and_forwards_nothing";
    if runs_again_with(module_path!(), test, ANSWERS) {
        return;
    }
    let sshd = Openssh::of_expired_passwords();
    let person = Person::saying(&[PASSWORD]);
    let carrier = RusshCarrier::connect(&sshd.plan(), person).await.unwrap();
    assert_eq!(forwards(&carrier).await, Err(OpenFailure::Prohibited));
    carrier.shutdown().await;
    let carrier = by_ssh(&sshd.plan()).await;
    assert_eq!(forwards(&carrier).await, Err(OpenFailure::Prohibited));
    carrier.shutdown().await;
}
