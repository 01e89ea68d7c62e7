//! What a person reads when a login fails, or happens more than once.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::common::{Lab, Underpass, V4, eventually, finished};

/// The last line of an `up` that fails.
fn failure(command: Command) -> String {
    let output = finished(command);
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    said.lines().last().unwrap_or_default().to_owned()
}

/// SSH connections of the client to a port of the bastion.
fn connections(lab: &Lab, port: u16) -> usize {
    let mut ss = lab.command("client", "ss");
    ss.args([
        "-Htn",
        "state",
        "established",
        "dport",
        "=",
        &format!(":{port}"),
    ]);
    let output = finished(ss);
    String::from_utf8(output.stdout).unwrap().lines().count()
}

#[test]
fn the_hint_follows_what_is_wrong() {
    let lab = Lab::up();
    let up = |args: &str| failure(lab.up_command(&format!("{args} {}", V4.subnet)));
    let no_route = up("-r root@203.0.113.7");
    assert!(
        no_route.contains("Network is unreachable. The route there: ip route get 203.0.113.7"),
        "{no_route}"
    );
    let refused = up("-r root@192.168.77.1:2999");
    assert!(
        refused.contains("Connection refused. Nothing listens on port 2999 there"),
        "{refused}"
    );
    let not_ssh = up("-r root@192.168.77.1 -o ConnectTimeout=5 -p 2201 -o Ciphers=3des-cbc");
    assert!(not_ssh.contains("Ciphers"), "{not_ssh}");
}

/// What is to be pasted leads where underpass was led to: with the file, the port and the options.
#[test]
fn the_hint_can_be_pasted() {
    let lab = Lab::up();
    let file = lab.file("a configuration");
    fs::write(&file, "Host target\n  HostName 192.168.77.1\n  User root\n").unwrap();
    let mut command = lab.up_command(&format!(
        "-r target -p 2201 -o KexAlgorithms=diffie-hellman-group1-sha1 {}",
        V4.subnet
    ));
    command.args(["-F", &file]);
    let said = failure(command);
    let (_, hint) = said
        .split_once("ssh -v ")
        .unwrap_or_else(|| panic!("no hint in {said}"));
    let mut paste = lab.command("client", "sh");
    paste.args(["-c", &format!("ssh -G {hint}")]);
    let effective = String::from_utf8(finished(paste).stdout).unwrap();
    for line in [
        "hostname 192.168.77.1",
        "port 2201",
        "user root",
        "kexalgorithms diffie-hellman-group1-sha1",
    ] {
        assert!(
            effective.lines().any(|found| found == line),
            "{line}: {said}\n{effective}"
        );
    }
}

/// What a ProxyCommand tells a person, it tells once.
#[test]
fn further_commands_are_not_heard() {
    let lab = Lab::up();
    let script = lab.file("tool");
    let text = "echo starting session >&2\nexec nc \"$1\" \"$2\"\n";
    fs::write(&script, text).unwrap();
    let mut command = lab.up_command(&format!("--connections 3 {}", V4.subnet));
    command.args(["-o", &format!("ProxyCommand=sh {script} %h %p")]);
    let mut underpass = Underpass::start(command);
    eventually("three connections", || connections(&lab, 22) == 3);
    underpass.stop(Signal::SIGTERM);
    let heard = underpass
        .log()
        .iter()
        .filter(|line| line.contains("starting session"));
    assert_eq!(heard.count(), 1, "{:?}", underpass.log());
}
