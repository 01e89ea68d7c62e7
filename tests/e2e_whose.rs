//! Whose packets are captured.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use common::{Lab, V4, V6, Value, assert_ok, example, finished};

/// What a probe of the client finds that is run by the user of this number.
fn probe(lab: &Lab, user: u32, args: &str) -> Value {
    let (reuid, regid) = (format!("--reuid={user}"), format!("--regid={user}"));
    let mut command = lab.command("client", "setpriv");
    command.args([&reuid, &regid, "--clear-groups"]);
    // The build directory may be closed to others.
    let program = lab.state.join("probe");
    if !program.exists() {
        std::fs::copy(example("lab-probe"), &program).unwrap();
        open_to_all(lab);
    }
    command.arg(program).args(args.split_whitespace());
    let output = finished(command);
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{args}: {line}: {error}"))
}

fn open_to_all(lab: &Lab) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&lab.state, PermissionsExt::from_mode(0o711)).unwrap();
}

fn connect(lab: &Lab, user: u32, host: &str, port: u16) -> String {
    let found = probe(lab, user, &format!("connect {host} {port}"));
    common::result_of(&found).to_owned()
}

#[test]
fn only_the_users_that_are_named() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let args = format!("--user 1000 --user nobody {} {}", V4.subnet, V6.subnet);
    let mut underpass = lab.underpass(&args);
    for net in [V4, V6] {
        for user in [1000, 65534] {
            let got = probe(&lab, user, &format!("get {} 5001 1000003", net.host));
            assert_ok(&got);
            let put = probe(&lab, user, &format!("put {} 5002 1000003", net.host));
            assert_ok(&put);
            assert_eq!(connect(&lab, user, net.host, 81), "ECONNREFUSED");
            assert_eq!(connect(&lab, user, net.no_such_host, 80), "EHOSTUNREACH");
        }
        for user in [0, 999, 1001] {
            assert_eq!(connect(&lab, user, net.host, 80), "ENETUNREACH");
        }
        // What is forwarded is nobody's here.
        let forwarded = lab.result("box", &format!("connect {} 80", net.host));
        assert_eq!(forwarded, "ENETUNREACH");
    }
    assert!(underpass.stop(Signal::SIGTERM).success());
    assert_eq!(lab.network_state("client"), before);
}

/// The last packets of a connection are the kernel's own (TIME_WAIT), and must get to us all the same: else what was said
/// last is said again and again.
#[test]
fn a_users_connection_ends_in_order_on_both_sides() {
    let lab = Lab::up();
    let underpass = lab.underpass(&format!("--user 1000 {}", V4.subnet));
    assert_ok(&probe(&lab, 1000, &format!("short {} 5007 50", V4.host)));
    common::eventually("no flow is open", || {
        let status = lab.ask("status --json");
        let status: Value = serde_json::from_slice(&status.stdout).unwrap();
        status[0]["flows"]["open"] == 0 && status[0]["flows"]["finished"] == 50
    });
    drop(underpass);
}

#[test]
fn ports_and_everything_for_a_user() {
    let lab = Lab::up();
    let _underpass = lab.underpass(&format!("--user 1000 0.0.0.0/0 {}:80", "10.0.1.0/24"));
    assert_eq!(connect(&lab, 1000, V4.host, 80), "open");
    assert_eq!(connect(&lab, 1000, V4.no_such_host, 80), "EHOSTUNREACH");
    assert_eq!(connect(&lab, 1000, "10.0.2.20", 80), "open");
    assert_eq!(connect(&lab, 0, V4.host, 80), "ENETUNREACH");
    // Under a default the host's own networks stay.
    assert_eq!(connect(&lab, 1000, "192.168.77.1", 22), "open");
}

#[test]
fn two_users_with_an_instance_each() {
    let lab = Lab::up();
    let mut first = lab.underpass(&format!("--name a --user 1000 {}", V4.subnet));
    let mut second = lab.underpass(&format!("--name b --user 1001 {}", V4.subnet));
    for underpass in [&mut first, &mut second] {
        let log = underpass.log().join("\n");
        assert!(!log.contains("another running underpass"), "{log}");
    }
    first.stop(Signal::SIGTERM);
    assert_eq!(connect(&lab, 1000, V4.host, 80), "ENETUNREACH");
    assert_eq!(connect(&lab, 1001, V4.host, 80), "open");
}

#[test]
fn a_dry_run_shows_the_rules() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_underpass"));
    command
        .args(["up", "-r", "127.0.0.1", "--user", "1000"])
        .args(["198.51.100.0/24", "--dry-run"])
        .stdin(Stdio::null());
    let output = finished(command);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains(" iif lo uidrange 1000-1000 lookup "),
        "{text}"
    );
    assert!(text.contains(" iif lo uidrange 0-0 lookup "), "{text}");
}
