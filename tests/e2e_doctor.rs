//! `doctor` tells what is so, for servers that allow more and less, changes nothing and never hangs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::process::{Command, Output};

use common::{Lab, V4, Value, carrier, finished};

/// `underpass doctor` in the client, with the lab's key and known_hosts.
fn command(lab: &Lab, wrapper: &[&str], args: &str) -> Command {
    let mut command = lab.command("client", "setsid");
    command
        .args(wrapper)
        .arg(env!("CARGO_BIN_EXE_underpass"))
        .arg("doctor");
    if args.contains("-r ") {
        command.args(["--carrier", carrier()]);
        command.args([
            "-o",
            &format!("UserKnownHostsFile={}", lab.file("known_hosts")),
        ]);
        if !args.contains("-i ") {
            command.args(["-i", &lab.file("id")]);
        }
    }
    command
        .args(args.split_whitespace())
        .env("HOME", &lab.state)
        .env_remove("SSH_AUTH_SOCK")
        .env("NO_COLOR", "1");
    command
}

fn doctor(lab: &Lab, args: &str) -> Findings {
    let before = lab.network_state("client");
    let findings = Findings::of(&finished(command(lab, &[], &format!("{args} --json"))));
    assert_eq!(lab.network_state("client"), before);
    findings
}

struct Findings {
    code: i32,
    report: Value,
}

impl Findings {
    fn of(output: &Output) -> Self {
        let said = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_slice(&output.stdout);
        Self {
            code: output.status.code().unwrap(),
            report: report.unwrap_or_else(|error| panic!("{error}: {said}")),
        }
    }

    fn check(&self, name: &str) -> &Value {
        let groups = self.report["groups"].as_array().unwrap().iter();
        let mut checks = groups.flat_map(|group| group["checks"].as_array().unwrap());
        checks
            .find(|check| check["check"] == name)
            .unwrap_or_else(|| panic!("no {name} in {:#}", self.report))
    }

    fn expect(&self, code: i32, verdicts: &[(&str, &str)]) {
        for (name, verdict) in verdicts {
            let check = self.check(name);
            assert_eq!(check["verdict"], *verdict, "{check:#}");
            if matches!(*verdict, "warn" | "fail") {
                assert!(check["advice"].is_string(), "{check:#}");
            }
        }
        assert_eq!(self.code, code, "{:#}", self.report);
    }
}

#[test]
fn a_server_that_allows_everything() {
    let lab = Lab::up();
    let args = format!("-r root@192.168.77.1 {} --probe {}:80", V4.subnet, V4.host);
    let found = doctor(&lab, &args);
    found.expect(
        0,
        &[
            ("carrier", "pass"),
            ("reach", "pass"),
            ("host-key", "pass"),
            ("login", "pass"),
            ("forwarding", "pass"),
            ("probe", "pass"),
            ("exec", "pass"),
            ("nodelay", "pass"),
            ("latency", "pass"),
            ("window", "pass"),
            ("far-clock", "pass"),
            ("far-resolver", "pass"),
            ("overlap", "pass"),
            ("leftovers", "pass"),
            ("key-type", "pass"),
            ("key-age", "pass"),
            ("password-login", "warn"),
            ("passphrase", "warn"),
            ("root-login", "warn"),
            ("restrictions", "warn"),
        ],
    );
    assert_eq!(found.report["v"], 1);
    assert_eq!(found.report["verdict"], "warn");
}

#[test]
fn a_key_that_is_restricted() {
    let lab = Lab::up();
    let found = doctor(&lab, "-r root@192.168.77.1:2201");
    found.expect(
        0,
        &[
            ("forwarding", "pass"),
            ("restrictions", "pass"),
            ("tun", "skip"),
        ],
    );
    assert!(
        found.check("restrictions")["found"]
            .as_str()
            .unwrap()
            .contains("restricted")
    );
}

#[test]
fn a_server_that_forwards_to_some_targets_only() {
    let lab = Lab::up();
    let server = "-r root@192.168.77.1:2202";
    doctor(&lab, server).expect(0, &[("forwarding", "warn")]);
    let permitted = doctor(&lab, &format!("{server} --probe {}:80", V4.host));
    permitted.expect(0, &[("forwarding", "pass"), ("probe", "pass")]);
    let forbidden = doctor(&lab, &format!("{server} --probe {}:80", V4.other));
    forbidden.expect(1, &[("forwarding", "fail"), ("probe", "fail")]);
}

#[test]
fn a_server_without_sessions() {
    let lab = Lab::up();
    let found = doctor(&lab, "-r root@192.168.77.1:2203");
    found.expect(
        0,
        &[
            ("exec", "pass"),
            ("nodelay", "pass"),
            ("far-resolver", "skip"),
        ],
    );
    assert!(
        found.check("restrictions")["found"]
            .as_str()
            .unwrap()
            .contains("forwarding only")
    );
}

#[test]
fn a_login_that_fails_says_where() {
    let lab = Lab::up();
    let changed = doctor(&lab, "-r root@192.168.77.1:2204");
    changed.expect(
        1,
        &[("reach", "pass"), ("host-key", "fail"), ("login", "skip")],
    );
    doctor(&lab, "-r root@192.168.77.1:2299").expect(1, &[("reach", "fail"), ("login", "skip")]);
    let wrong = format!("-r root@192.168.77.1 -i {}", lab.file("id_wrong"));
    doctor(&lab, &wrong).expect(1, &[("host-key", "pass"), ("login", "fail")]);
    doctor(&lab, "-r root@no-such-host.invalid").expect(1, &[("name", "fail"), ("reach", "skip")]);
}

#[test]
fn targets_as_the_server_sees_them() {
    let lab = Lab::up();
    for (target, code, verdict) in [
        (format!("{}:81", V4.host), 0, "warn"),
        (format!("{}:80", V4.no_such_host), 1, "fail"),
        (format!("{}:80", V4.black_hole), 1, "fail"),
        ("no-port".to_owned(), 1, "fail"),
    ] {
        let found = doctor(&lab, &format!("-r root@192.168.77.1 --probe {target}"));
        found.expect(code, &[("probe", verdict)]);
    }
}

/// No root, no server, no configuration: this host only, as a table.
#[test]
fn a_host_as_an_ordinary_user() {
    let lab = Lab::up();
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let output = finished(command(&lab, &nobody, ""));
    let table = String::from_utf8(output.stdout).unwrap();
    for name in [
        "kernel",
        "tun-device",
        "privilege",
        "user-namespaces",
        "resolver",
        "leftovers",
    ] {
        assert!(table.contains(name), "no {name} in {table}");
    }
    assert!(!table.contains("login"), "{table}");
    assert_eq!(output.status.code(), Some(0), "{table}");
}

#[test]
fn subnets_that_meet_a_network_of_this_host() {
    let lab = Lab::up();
    let found = doctor(&lab, "-r root@192.168.77.1 172.31.0.0/16");
    found.expect(0, &[("overlap", "warn")]);
    doctor(&lab, "-r root@192.168.77.1 10.0.0.0/99").expect(1, &[("arguments", "fail")]);
}
