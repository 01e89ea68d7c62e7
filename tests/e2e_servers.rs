//! The servers that people have, as `servers.rs` has them for the carriers: here `underpass up` captures a network through each of
//! them, pages come from behind it and a closed port is refused; over what `--carrier auto` takes, which is the built-in SSH unless
//! only ssh will do, and over the user's own ssh. A server that is not installed fails its row.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "servers/client.rs"]
mod client;
mod common;
#[path = "servers/forwarder.rs"]
mod forwarder;
#[path = "e2e_servers/ground.rs"]
mod ground;
#[path = "servers/openssh.rs"]
mod openssh;
#[path = "servers/place.rs"]
mod place;
#[path = "servers/python.rs"]
mod python;
#[path = "carrier/rig.rs"]
mod rig;
#[path = "servers/small.rs"]
mod small;
#[path = "servers/ways.rs"]
mod ways;

use common::{V4, eventually};
use forwarder::Forwarder;
use ground::{CHOICES, NEEDS_SSH, REFUSED, Run, carries, carries_by, in_the_bastion};
use openssh::{Openssh, PASSWORD};
use python::Asyncssh;
use rig::Sshd;
use small::{Dropbear, Tinysshd};

fn sshd_carries(extra: &'static str, key_options: &'static str) {
    in_the_bastion(move |lab| {
        let sshd = Sshd::start_with_key_options(extra, key_options);
        carries(lab, &sshd.plan());
    });
}

#[test]
fn openssh_as_it_comes() {
    sshd_carries("", "");
}

#[test]
fn openssh_with_a_key_for_port_forwarding_only() {
    sshd_carries("", "restrict,port-forwarding");
}

#[test]
fn openssh_with_a_forced_command() {
    sshd_carries("ForceCommand echo no shell here; exit 1", "");
}

#[test]
fn openssh_with_a_forced_command_that_goes_on() {
    sshd_carries("ForceCommand exec sleep 600", "");
}

#[test]
fn openssh_without_sessions() {
    sshd_carries("MaxSessions 0", "");
}

#[test]
fn openssh_that_takes_certificates_only() {
    in_the_bastion(|lab| carries(lab, &Openssh::of_certificates().plan()));
}

#[test]
fn openssh_with_what_only_ssh_honours() {
    in_the_bastion(|lab| {
        let sshd = Sshd::start("");
        carries_by(lab, &sshd.plan(), &NEEDS_SSH, None, REFUSED);
    });
}

/// For who knows the password.
fn carries_for_who_knows_the_password(start: fn() -> Openssh) {
    in_the_bastion(move |lab| {
        let sshd = start();
        let dir = tempfile::TempDir::new_in("/tmp").unwrap();
        let program = client::askpass(dir.path(), &format!("echo '{PASSWORD}'"));
        for choice in &CHOICES {
            carries_by(lab, &sshd.plan(), choice, Some(&program), REFUSED);
        }
    });
}

#[test]
fn openssh_that_takes_passwords_only() {
    carries_for_who_knows_the_password(Openssh::of_passwords);
}

#[test]
fn openssh_that_asks_by_keyboard_interactive_only() {
    carries_for_who_knows_the_password(Openssh::of_questions);
}

#[test]
fn openssh_behind_two_jump_hosts() {
    in_the_bastion(|lab| {
        let servers = [(); 3].map(|()| Sshd::start(""));
        carries(lab, &ways::two_jump_hosts(&servers));
    });
}

#[test]
fn openssh_through_nc() {
    in_the_bastion(|lab| {
        let server = Sshd::start("");
        carries(lab, &ways::nc(&server));
    });
}

/// When the tool's time is over, it is run again.
#[test]
fn openssh_through_a_cloud_session_tool() {
    in_the_bastion(|lab| {
        let server = Sshd::start("");
        let (plan, end) = ways::cloud_session_tool(&server);
        for choice in &CHOICES {
            let mut run = Run::start(lab, &plan, choice, None);
            run.carries(REFUSED);
            std::fs::write(&end, "").unwrap();
            run.underpass.wait_for_line("connection lost");
            std::fs::remove_file(&end).unwrap();
            run.underpass.wait_for_line("up again after");
            run.carries(REFUSED);
            run.ends();
        }
    });
}

#[test]
fn dropbear() {
    in_the_bastion(|lab| carries(lab, &Dropbear::start(&[]).plan()));
}

/// It forwards nothing, and may end when what is run to begin with has ended: nothing looks open, and the log says why.
#[test]
fn tinysshd() {
    in_the_bastion(|lab| {
        let server = Tinysshd::start();
        for choice in &CHOICES {
            let mut run = Run::start(lab, &server.plan(), choice, None);
            let connect = format!("connect {} 80 --timeout 5000", V4.host);
            eventually("it says that it is forbidden", || {
                let found = run.result(&connect);
                assert_ne!(found, "open");
                found == "EHOSTUNREACH"
            });
            let told = format!("the SSH server forbids {}:80", V4.host);
            run.underpass.wait_for_line(&told);
            run.ends();
        }
    });
}

#[test]
fn asyncssh() {
    python::python();
    in_the_bastion(|lab| carries(lab, &Asyncssh::start("forwarder.py").plan()));
}

/// russh's server says nothing of the reason: a closed port cannot be told from a host that is not there.
#[test]
fn russh() {
    in_the_bastion(|lab| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let server = runtime.block_on(Forwarder::start());
        for choice in &CHOICES {
            carries_by(lab, &server.plan(), choice, None, "EHOSTUNREACH");
        }
    });
}
