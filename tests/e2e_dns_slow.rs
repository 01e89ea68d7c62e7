//! Names that the server's resolver never answers for, beside everything else.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "e2e/rig.rs"]
mod rig;
#[path = "e2e/server.rs"]
mod server;

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{CARRIERS, V4, Value};
use rig::Rig;
use server::sshd_in;

/// What is measured here is who waits for whom: one lab at a time has the machine.
static ALONE: Mutex<()> = Mutex::new(());
const PORT: u16 = 2214;
const BESIDE: &str = include_str!("e2e_dns_slow/beside_dead_names.py");
const FOUND: &str = "api.corp.internal";
/// Which nobody is to notice, in milliseconds. A lookup takes 5 seconds.
const NOTICED: u64 = 1000;
const LOOKUP: u64 = 5000;

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A server that knows some hosts, and asks a black hole for all others.
fn rig() -> Rig {
    let rig = Rig::new();
    let resolv = format!(
        "nameserver {}\noptions timeout:5 attempts:1\n",
        V4.black_hole
    );
    let hosts = format!("{} {FOUND}\n{} two.corp.internal\n", V4.host, V4.other);
    let files = [
        ("/etc/hosts", hosts.as_str()),
        ("/etc/nsswitch.conf", "passwd: files\nhosts: files dns\n"),
        ("/etc/resolv.conf", resolv.as_str()),
    ];
    sshd_in(&rig.lab, PORT, "", &files);
    // The host keys of further ones are known by the lab's file only.
    fs::copy(rig.lab.file("known_hosts"), rig.file("known_hosts")).unwrap();
    rig
}

/// What the others get beside lookups of these names; and what underpass said.
fn beside(rig: &Rig, args: &str, dead: &[&str]) -> (Value, String) {
    let args = format!("-p {PORT} {args} *.corp.internal {}", V4.subnet);
    let python = ["python3", "-c", BESIDE, V4.host, FOUND, "two.corp.internal"];
    let output = rig.run(&args, &[&python, dead].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    (serde_json::from_slice(&output.stdout).unwrap(), said)
}

fn ms(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

#[test]
fn names_that_nobody_answers_for_delay_nobody_else() {
    let _alone = alone();
    let rig = rig();
    let dead = [
        "dead1.corp.internal",
        "dead2.corp.internal",
        "dead3.corp.internal",
    ];
    for carrier in CARRIERS {
        let (got, said) = beside(&rig, &format!("--carrier {carrier}"), &dead);
        let whole = format!("{carrier}: {got} {said}");
        assert!(ms(&got["rounds"]) > 10, "{whole}");
        for what in ["echo", "open"] {
            for host in [V4.host, FOUND] {
                assert!(ms(&got[what][host]) < NOTICED, "{what} {host}, {whole}");
            }
        }
        for name in dead {
            let how = &got["dead"][name];
            assert_eq!(how[1], "No route to host", "{whole}");
            // Its other address shares that.
            let took = ms(&how[0]);
            assert!((LOOKUP - 500..2 * LOOKUP - 500).contains(&took), "{whole}");
        }
        assert_eq!(got["again"][1], "No route to host", "{whole}");
        assert!(ms(&got["again"][0]) < NOTICED, "{whole}");
        assert_eq!(got["new"][1], "open", "{whole}");
    }
}

/// Where one connection is all that there is to be, they wait for one another, and that is said.
#[test]
fn names_that_share_the_connection_are_looked_up_one_at_a_time() {
    let _alone = alone();
    let rig = rig();
    for carrier in CARRIERS {
        let args = format!("--connections 1 --carrier {carrier}");
        let (got, said) = beside(&rig, &args, &["dead1.corp.internal"]);
        let whole = format!("{carrier}: {got} {said}");
        assert!(
            said.contains("over the connection of everything else"),
            "{whole}"
        );
        assert!(ms(&got["echo"][V4.host]) > LOOKUP / 2, "{whole}");
        assert!(
            ms(&got["dead"]["dead1.corp.internal"][0]) < 2 * LOOKUP - 500,
            "{whole}"
        );
        assert!(ms(&got["again"][0]) < NOTICED, "{whole}");
        assert_eq!(got["new"][1], "open", "{whole}");
    }
}
