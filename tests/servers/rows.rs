//! The servers that people have, one row each: what it is, how one logs in, and what it must carry. A server that
//! is not installed fails its row. `e2e_servers.rs` has the program and a captured network before them.

use underpass::carrier::{ConnectError, Link, OpensshCarrier, RusshCarrier};
use underpass::net::{OpenError, OpenFailure};
use underpass::plan::SshPlan;

use crate::check::{Forwards, Row, carries_both_ways};
use crate::client::{Configured, runs_again_with_answers};
use crate::forwarder::Forwarder;
use crate::openssh::{Openssh, PASSWORD};
use crate::person::Person;
use crate::python::Asyncssh;
use crate::rig::{Echo, Sshd};
use crate::small::{Dropbear, Tinysshd};

const REFUSED: &str = "Connection refused";

async fn sshd_forwards(sshd: &Sshd) {
    Row::new(sshd.plan(), Forwards::all(REFUSED)).holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_as_it_comes() {
    sshd_forwards(&Sshd::start("")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_with_a_key_for_port_forwarding_only() {
    let options = "restrict,port-forwarding";
    sshd_forwards(&Sshd::start_with_key_options("", options)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_with_a_forced_command() {
    sshd_forwards(&Sshd::start("ForceCommand echo no shell here; exit 1")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_with_a_forced_command_that_goes_on() {
    sshd_forwards(&Sshd::start("ForceCommand exec sleep 600")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_without_sessions() {
    sshd_forwards(&Sshd::start("MaxSessions 0")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_that_compresses_rekeys_and_asks_for_signs_of_life() {
    let extra = "Compression yes\nRekeyLimit 1M\nClientAliveInterval 1\nClientAliveCountMax 20";
    sshd_forwards(&Sshd::start(extra)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_that_permits_one_target() {
    let echo = Echo::start().await;
    let sshd = Sshd::start(&format!("PermitOpen {}", echo.target()));
    let forwards = Forwards::Only {
        target: echo.target(),
        others: OpenError::new(OpenFailure::Prohibited, "open failed"),
    };
    Row::new(sshd.plan(), forwards).holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_that_forwards_nothing() {
    let sshd = Sshd::start("AllowTcpForwarding no");
    let error = OpenError::new(OpenFailure::Prohibited, "open failed");
    Row::new(sshd.plan(), Forwards::Nothing(error))
        .holds()
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_that_takes_certificates_only() {
    let sshd = Openssh::of_certificates();
    Row::new(sshd.plan(), Forwards::all(REFUSED)).holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_that_takes_passwords_only() {
    if !runs_again_with_answers(
        module_path!(),
        "openssh_that_takes_passwords_only",
        PASSWORD,
    ) {
        holds_for_who_knows_the_password(&Openssh::of_passwords()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_that_asks_by_keyboard_interactive_only() {
    if !runs_again_with_answers(
        module_path!(),
        "openssh_that_asks_by_keyboard_interactive_only",
        PASSWORD,
    ) {
        holds_for_who_knows_the_password(&Openssh::of_questions()).await;
    }
}

/// Each try that comes to nothing counts as a wrong login there, and none may be taken for the end of the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_to_answer_and_does_not_is_refused() {
    let sshd = Openssh::of_questions();
    let plan = sshd.plan();
    let carrier = RusshCarrier::connect(&plan, Person::saying(&[PASSWORD])).await;
    let carrier = carrier.unwrap();
    let nobody = carrier.again(None).await.err().unwrap();
    let silent = RusshCarrier::connect(&plan, Person::saying(&[])).await;
    for (error, why) in [
        (nobody, "keyboard-interactive (nobody to ask)"),
        (silent.err().unwrap(), "keyboard-interactive (not answered)"),
    ] {
        assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
    carrier.shutdown().await;
    let ssh = Configured::new(&SshPlan {
        login: underpass::plan::Login {
            batch: true,
            ..plan.login.clone()
        },
        ..plan
    });
    let error = OpensshCarrier::connect(&ssh.plan, &ssh.client).await;
    let error = error.err().unwrap();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
}

async fn holds_for_who_knows_the_password(sshd: &Openssh) {
    let row = Row {
        prompter: Person::saying(&[PASSWORD]),
        ..Row::new(sshd.plan(), Forwards::all(REFUSED))
    };
    row.holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_behind_two_jump_hosts() {
    let servers = [(); 3].map(|()| Sshd::start(""));
    let plan = crate::ways::two_jump_hosts(&servers);
    Row::new(plan, Forwards::all(REFUSED)).holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_through_nc() {
    let server = Sshd::start("");
    Row::new(crate::ways::nc(&server), Forwards::all(REFUSED))
        .holds()
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_through_a_cloud_session_tool() {
    let server = Sshd::start("");
    let (plan, end) = crate::ways::cloud_session_tool(&server);
    Row::new(plan, Forwards::Until(end)).holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropbear() {
    let dropbear = Dropbear::start(&[]);
    Row::new(dropbear.plan(), Forwards::all(REFUSED))
        .holds()
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropbear_that_forwards_nothing() {
    let dropbear = Dropbear::start(&["-j"]);
    let error = OpenError::new(OpenFailure::Prohibited, "");
    Row::new(dropbear.plan(), Forwards::Nothing(error))
        .holds()
        .await;
}

/// It knows neither forwarding nor a second channel, and ends with its session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tinysshd() {
    let tinysshd = Tinysshd::start();
    let text = "only one 'session' channel allowed";
    let error = OpenError::new(OpenFailure::Prohibited, text);
    Row::new(tinysshd.plan(), Forwards::NothingAndEnds(error))
        .holds()
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asyncssh() {
    let asyncssh = Asyncssh::start("forwarder.py");
    let text = "[Errno 111] Connect call failed ('127.0.0.1', PORT)";
    Row::new(asyncssh.plan(), Forwards::all(text)).holds().await;
}

/// russh's server says nothing of the reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn russh() {
    let server = Forwarder::start().await;
    let refused = OpenError::new(OpenFailure::Other, "Connect failed");
    Row::new(server.plan(), Forwards::All { refused })
        .holds()
        .await;
}

/// It writes and reads by turns, as underpass does: neither may wait for the other to read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn russh_with_much_both_ways() {
    carries_both_ways(Forwarder::start().await.plan()).await;
}
