//! Routes captured through a server that lies behind a jump host or a command.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Lab, V4, V6, assert_ok};
use nix::sys::signal::Signal;

/// The configuration of a person: the bastion is the jump host of its own second sshd.
fn config(lab: &Lab) -> String {
    let text = format!(
        "Host *\n  User root\n  IdentityFile {id}\n  UserKnownHostsFile {known}\n\
         Host gw\n  HostName 192.168.77.1\n\
         Host target\n  HostName 192.168.77.1\n  Port 2201\n  ProxyJump gw\n\
         Host tool\n  HostName 192.168.77.1\n  ProxyCommand nc %h %p\n",
        id = lab.file("id"),
        known = lab.file("known_hosts"),
    );
    let path = lab.file("route_config");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn through_a_jump_host_and_a_command() {
    let lab = Lab::up();
    let config = config(&lab);
    let before = lab.network_state("client");
    for host in ["target", "tool"] {
        let args = format!("-F {config} -r {host} {} {}", V4.subnet, V6.subnet);
        let mut underpass = lab.underpass(&args);
        for net in [V4, V6] {
            assert_ok(&lab.probe("client", &format!("get {} 5001 1000003", net.host)));
            let closed = lab.result("client", &format!("connect {} 81", net.host));
            assert_eq!(closed, "ECONNREFUSED", "{host}");
        }
        assert!(underpass.stop(Signal::SIGTERM).success());
        assert_eq!(lab.network_state("client"), before, "{host}");
    }
}

#[test]
fn what_a_command_connects_to_is_not_captured() {
    let lab = Lab::up();
    let config = config(&lab);
    let mut underpass = lab.underpass(&format!("-F {config} -r tool 0.0.0.0/0"));
    let said = underpass.log().join("\n");
    assert!(said.contains("a ProxyCommand connects to tool"), "{said}");
    assert_ok(&lab.probe("client", &format!("get {} 5001 1000003", V4.host)));
    // The pool makes its second connection by a command that is started under the capture.
    assert_ok(&lab.probe("client", &format!("get {} 5001 100000003", V4.host)));
}
