//! Whose packets are captured.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::common::{Lab, V4, V6, Value, assert_ok, example, finished};

/// What a probe of the client finds that is run by the user of this number.
fn probe(lab: &Lab, user: u32, args: &str) -> Value {
    probe_as(lab, (user, user), args)
}

fn probe_as(lab: &Lab, (user, group): (u32, u32), args: &str) -> Value {
    let (reuid, regid) = (format!("--reuid={user}"), format!("--regid={group}"));
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
    crate::common::result_of(&found).to_owned()
}

/// For a person, and the JSON form.
fn status(lab: &Lab) -> (String, Value) {
    let text = String::from_utf8(lab.ask("status").stdout).unwrap();
    let json: Value = serde_json::from_slice(&lab.ask("status --json").stdout).unwrap();
    (text, json[0].clone())
}

fn session_start(log: &str) -> Value {
    let mut line = String::new();
    crate::common::eventually("the session's start is written down", || {
        line = std::fs::read_to_string(log).unwrap_or_default();
        line.contains('\n')
    });
    serde_json::from_str(line.lines().next().unwrap()).unwrap()
}

#[test]
fn only_the_users_that_are_named() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let args = format!("--user 1000 --user nobody {} {}", V4.subnet, V6.subnet);
    let log = lab.file("audit");
    let mut underpass = lab.underpass(&format!("{args} --audit-log {log}"));
    // Whoever looks is told whose packets these are.
    let name = "nobody alone through root@192.168.77.1";
    assert!(underpass.log().last().unwrap().contains(name));
    assert!(status(&lab).0.contains("nobody alone"));
    assert_eq!(status(&lab).1["users"], serde_json::json!([1000, 65534]));
    assert_eq!(status(&lab).1["gateway"], serde_json::json!([]));
    assert_eq!(
        session_start(&log)["users"],
        serde_json::json!([1000, 65534])
    );
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
    crate::common::eventually("no flow is open", || {
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

/// The kernel's rules know users alone, so a group is its users: of these everything, of others nothing.
#[test]
fn the_users_of_a_group_and_who_they_are() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let log = lab.file("audit");
    // Everywhere the group of nobody, who is no member of it by name.
    let args = format!("--group nogroup --audit-log {log} {}", V4.subnet);
    let mut underpass = lab.underpass(&args);
    let told = underpass.log().join("\n");
    let of_group = told.lines().find(|line| line.contains("--group nogroup:"));
    assert!(of_group.unwrap().contains("nobody"), "{told}");
    let users = session_start(&log)["users"].clone();
    assert!(users.as_array().unwrap().contains(&65534.into()), "{users}");
    assert_eq!(connect(&lab, 65534, V4.host, 80), "open");
    // Nobody is asked which group a program runs with.
    let foreign = probe_as(&lab, (65534, 12345), &format!("connect {} 80", V4.host));
    assert_eq!(crate::common::result_of(&foreign), "open");
    let foreign = probe_as(&lab, (12345, 65534), &format!("connect {} 80", V4.host));
    assert_eq!(crate::common::result_of(&foreign), "ENETUNREACH");
    assert!(underpass.stop(Signal::SIGTERM).success());
    assert_eq!(lab.network_state("client"), before);
}

/// In a mount namespace with a group of the test's own.
#[test]
fn members_by_name_and_those_whose_own_group_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("group");
    std::fs::write(&file, "crew:x:65534:daemon,no-such-user-here,nobody\n").unwrap();
    let script = "mount --bind \"$1\" /etc/group && shift && exec \"$@\"";
    for group in ["crew", "65534"] {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(&file);
        command.arg(env!("CARGO_BIN_EXE_underpass")).args([
            "up",
            "-r",
            "127.0.0.1",
            "198.51.100.0/24",
            "--dry-run",
        ]);
        command.env("UNDERPASS_GROUP", group).stdin(Stdio::null());
        let output = finished(command);
        let text = String::from_utf8(output.stdout).unwrap();
        let of = |user| {
            text.matches(&format!(" iif lo uidrange {user}-{user} "))
                .count()
        };
        assert_eq!((of(1), of(65534), of(2)), (1, 1, 0), "{group}: {text}");
    }
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

const BRIDGE: &str = "br-b0c5b0c5b0c5";
/// The client's addresses on the side of the box, and how they are given.
const NETS: [(&str, &str); 2] = [("172.31.0.1/24", ""), ("fd00:31::1/64", " nodad")];

/// A command in the client.
fn client(lab: &Lab, line: &str) {
    let mut words = line.split(' ');
    let mut command = lab.command("client", words.next().unwrap());
    command.args(words);
    let output = finished(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
}

/// Makes the box a host of a network behind the client: no bridge is between them.
fn without_bridge(lab: &Lab) {
    client(lab, &format!("ip link del {BRIDGE}"));
    for (net, how) in NETS {
        client(lab, &format!("ip addr add {net} dev box{how}"));
    }
    crate::common::eventually("no address changes by itself any more", || {
        !lab.network_state("client").contains("tentative")
    });
}

fn with_bridge(lab: &Lab, name: &str) {
    client(lab, &format!("ip link add {name} type bridge"));
    client(lab, &format!("ip link set {name} up"));
    client(lab, "ip addr flush dev box");
    client(lab, &format!("ip link set box master {name}"));
    for (net, how) in NETS {
        client(lab, &format!("ip addr add {net} dev {name}{how}"));
    }
}

fn from_box(lab: &Lab, host: &str) -> String {
    lab.result("box", &format!("connect {host} 80"))
}

#[test]
fn of_others_only_containers_unless_it_is_a_gateway() {
    let lab = Lab::up();
    let subnets = format!("{} {}", V4.subnet, V6.subnet);
    without_bridge(&lab);
    let before = lab.network_state("client");
    for (option, expected, told) in [
        ("", "ENETUNREACH", serde_json::json!([])),
        ("--gateway=wan", "ENETUNREACH", serde_json::json!(["wan"])),
        ("--gateway=box", "open", serde_json::json!(["box"])),
        (
            "--gateway=wan --gateway=box",
            "open",
            serde_json::json!(["wan", "box"]),
        ),
        ("--gateway", "open", serde_json::json!(["all"])),
    ] {
        let mut underpass = lab.underpass(&format!("{option} {subnets}"));
        assert_eq!(status(&lab).1["gateway"], told);
        let ready = underpass.log().last().unwrap();
        assert_eq!(
            ready.contains("hosts behind"),
            !option.is_empty(),
            "{ready}"
        );
        for net in [V4, V6] {
            assert_eq!(from_box(&lab, net.host), expected, "{option}");
            let own = lab.result("client", &format!("connect {} 80", net.host));
            assert_eq!(own, "open", "{option}");
        }
        assert!(underpass.stop(Signal::SIGTERM).success());
        assert_eq!(lab.network_state("client"), before, "{option}");
    }
}

#[test]
fn a_bridge_that_appears_goes_and_comes_again_is_followed() {
    let lab = Lab::up();
    without_bridge(&lab);
    let underpass = lab.underpass(&format!("{} {}", V4.subnet, V6.subnet));
    for _ in 0..2 {
        assert_eq!(from_box(&lab, V4.host), "ENETUNREACH");
        with_bridge(&lab, "br-0123456789ab");
        crate::common::eventually("the container reaches it", || {
            from_box(&lab, V4.host) == "open" && from_box(&lab, V6.host) == "open"
        });
        client(&lab, "ip link del br-0123456789ab");
        for (net, how) in NETS {
            client(&lab, &format!("ip addr add {net} dev box{how}"));
        }
        crate::common::eventually("no rule is for it any more", || {
            !lab.network_state("client").contains("br-0123456789ab")
        });
    }
    drop(underpass);
}

/// What a person calls a bridge may lead anywhere.
#[test]
fn a_bridge_of_another_name_is_no_containers() {
    let lab = Lab::up();
    without_bridge(&lab);
    with_bridge(&lab, "br-lan");
    let mut underpass = lab.underpass(V4.subnet);
    assert_eq!(from_box(&lab, V4.host), "ENETUNREACH");
    underpass.stop(Signal::SIGTERM);
    let _underpass = lab.underpass(&format!("--gateway=br-lan {}", V4.subnet));
    assert_eq!(from_box(&lab, V4.host), "open");
}

#[test]
fn a_gateway_that_does_not_forward_is_warned_of() {
    let lab = Lab::up();
    let words = "does not forward IPv4";
    let mut underpass = lab.underpass(&format!("--gateway {}", V4.subnet));
    assert!(!underpass.log().join("\n").contains(words));
    underpass.stop(Signal::SIGTERM);
    let words_of_another = "--gateway=nosuch: there is no such interface";
    let mut underpass = lab.underpass(&format!("--gateway=nosuch {}", V4.subnet));
    assert!(underpass.log().join("\n").contains(words_of_another));
    underpass.stop(Signal::SIGTERM);
    client(&lab, "sysctl -qw net.ipv4.ip_forward=0");
    for (option, expected) in [("--gateway", true), ("", false)] {
        let mut underpass = lab.underpass(&format!("{option} {}", V4.subnet));
        let log = underpass.log().join("\n");
        assert_eq!(log.contains(words), expected, "{log}");
        underpass.stop(Signal::SIGTERM);
    }
}
