//! The servers that people have, one row each: what it is, how one logs in, and what it must carry. A server that
//! is not installed fails its row.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "servers/check.rs"]
mod check;
#[path = "servers/client.rs"]
mod client;
#[path = "servers/forwarder.rs"]
mod forwarder;
#[path = "servers/openssh.rs"]
mod openssh;
#[path = "carrier_russh/person.rs"]
mod person;
#[path = "servers/place.rs"]
mod place;
#[path = "servers/python.rs"]
mod python;
#[path = "carrier_russh/rig.rs"]
mod rig;
#[path = "servers/small.rs"]
mod small;

use check::{Forwards, Row};
use client::runs_again_with_answers;
use forwarder::Forwarder;
use openssh::{Openssh, PASSWORD};
use person::Person;
use python::Asyncssh;
use rig::{Echo, Sshd};
use small::{Dropbear, Tinysshd};
use underpass::net::{OpenError, OpenFailure};
use underpass::plan::{Route, SshPlan};

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
    if !runs_again_with_answers("openssh_that_takes_passwords_only", PASSWORD) {
        holds_for_who_knows_the_password(&Openssh::of_passwords()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_that_asks_by_keyboard_interactive_only() {
    if !runs_again_with_answers("openssh_that_asks_by_keyboard_interactive_only", PASSWORD) {
        holds_for_who_knows_the_password(&Openssh::of_questions()).await;
    }
}

async fn holds_for_who_knows_the_password(sshd: &Openssh) {
    let row = Row {
        prompter: Person::saying(&[PASSWORD]),
        ..Row::new(sshd.plan(), Forwards::all(REFUSED))
    };
    row.holds().await;
}

fn by(route: Route, server: SshPlan) -> SshPlan {
    SshPlan { route, ..server }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_behind_two_jump_hosts() {
    let (outer, inner, server) = (Sshd::start(""), Sshd::start(""), Sshd::start(""));
    let inner_plan = by(Route::Jump(Box::new(outer.plan())), inner.plan());
    let plan = by(Route::Jump(Box::new(inner_plan)), server.plan());
    Row::new(plan, Forwards::all(REFUSED)).holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_through_nc() {
    let server = Sshd::start("");
    let nc = format!("nc 127.0.0.1 {}", server.plan().port);
    let plan = by(Route::Command(nc), server.plan());
    Row::new(plan, Forwards::all(REFUSED)).holds().await;
}

/// It starts slowly, has much to say, and ends when its time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_through_a_cloud_session_tool() {
    let server = Sshd::start("");
    let (tool, end) = (server.path("tool"), server.path("end"));
    let text = format!(
        "echo 'Starting session with SessionId: x-0123' >&2\nsleep 1\necho 'still busy' >&2\n\
         (for i in $(seq 600); do [ -e {end} ] && break; sleep 0.1; done\n\
         echo 'Session timed out' >&2; kill $$) &\nexec nc 127.0.0.1 {port}\n",
        end = end.display(),
        port = server.plan().port
    );
    std::fs::write(&tool, text).unwrap();
    let command = Route::Command(format!("sh {}", tool.display()));
    let plan = SshPlan {
        connections: Some(1),
        ..by(command, server.plan())
    };
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
