//! `up --netns`: the capture is in a network namespace that somebody else made, SSH leaves from the one we are in.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::common::{Lab, V4, V6, assert_ok, eventually, finished};

fn path(lab: &Lab, role: &str) -> String {
    let command = lab.command(role, "true");
    let argument = command.get_args().next().unwrap().to_str().unwrap();
    argument.strip_prefix("--net=").unwrap().to_owned()
}

/// The box reaches the subnets by a device of its own, and the client between it and the server does not.
fn reaches_from_the_box(lab: &Lab, netns: &str) {
    let before = ["box", "client"].map(|role| lab.network_state(role));
    let mut underpass = lab.underpass(&format!("--netns {netns} {} {}", V4.subnet, V6.subnet));
    for net in [V4, V6] {
        assert_ok(&lab.probe("box", &format!("get {} 5001 1000003", net.host)));
        let refused = lab.result("box", &format!("connect {} 81", net.host));
        assert_eq!(refused, "ECONNREFUSED");
        let client = lab.result("client", &format!("connect {} 80", net.host));
        assert_eq!(client, "ENETUNREACH");
    }
    assert_eq!(lab.network_state("client"), before[1]);
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
    assert_eq!(
        ["box", "client"].map(|role| lab.network_state(role)),
        before
    );
}

#[test]
fn by_path() {
    let lab = Lab::up();
    let path = path(&lab, "box");
    reaches_from_the_box(&lab, &path);
}

#[test]
fn by_name() {
    let lab = Lab::up();
    let path = path(&lab, "box");
    let name = path.strip_prefix("/run/netns/").unwrap();
    reaches_from_the_box(&lab, name);
}

#[test]
fn by_process() {
    let lab = Lab::up();
    let mut sleep = lab.command("box", "sleep");
    let mut process = sleep.arg("600").stdout(Stdio::null()).spawn().unwrap();
    let network = format!("/proc/{}/ns/net", process.id());
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    // It enters the namespace before it runs the program.
    eventually("it is in the box", || {
        std::fs::read_link(&network).unwrap() != own
    });
    reaches_from_the_box(&lab, &format!("pid:{}", process.id()));
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn killed_it_captures_nothing_any_more() {
    let lab = Lab::up();
    let before = lab.network_state("box");
    let mut underpass = lab.underpass(&format!("--netns {} {}", path(&lab, "box"), V4.subnet));
    underpass.stop(Signal::SIGKILL);
    eventually("the box is as before", || {
        lab.network_state("box") == before
    });
}

#[test]
fn ones_own_is_captured_as_without() {
    let lab = Lab::up();
    // The server is in the subnet and must be left out.
    let args = format!(
        "--netns {} {} 192.168.77.0/24",
        path(&lab, "client"),
        V4.subnet
    );
    let mut underpass = lab.underpass(&args);
    assert_ok(&lab.probe("client", &format!("get {} 5001 1000003", V4.host)));
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
}

/// What is captured elsewhere meets no network of the client's, at a reload as at the start.
#[test]
fn a_reload_warns_of_no_network_of_ours() {
    let lab = Lab::up();
    let nets = lab.state.join("nets");
    let clients = "192.168.77.0/24";
    std::fs::write(&nets, V4.subnet).unwrap();
    let args = format!("--netns {} -s {}", path(&lab, "box"), nets.display());
    let mut underpass = lab.underpass(&args);
    std::fs::write(&nets, format!("{}\n{clients}\n", V4.subnet)).unwrap();
    let reloaded = lab.ask("reload");
    let said = String::from_utf8_lossy(&reloaded.stderr);
    assert!(
        reloaded.status.success() && said.contains(clients),
        "{said}"
    );
    let log = underpass.log().join("\n");
    assert!(!log.contains("this host's own network"), "{log}");
    assert_ok(&lab.probe("box", &format!("get {} 5001 1003", V4.host)));
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn what_is_none_is_refused() {
    for (netns, words) in [
        ("/dev/null", "no network namespace"),
        ("/proc/self/ns/mnt", "no network namespace"),
        ("no-such-name-of-a-namespace", "ip netns list"),
        ("pid:x", "pid:N"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_underpass"));
        command.args(["up", "-r", "me@192.0.2.1", "--netns", netns, "10.0.0.0/8"]);
        let output = finished(command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{netns}: {said}");
        assert!(said.contains(words), "{netns}: {said}");
    }
}
