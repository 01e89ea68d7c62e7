//! Routes captured through a server that lies behind a jump host or a command.

use std::fs;

use nix::sys::signal::Signal;

use crate::common::{Lab, Underpass, V4, V6, assert_ok, eventually, finished};

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
    fs::write(&path, text).unwrap();
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

/// The ProxyCommands of the lab: `nc` to its server, in its client's network.
fn commands(lab: &Lab) -> Vec<String> {
    let client = lab
        .command("client", "readlink")
        .arg("/proc/self/ns/net")
        .output();
    let client = String::from_utf8(client.unwrap().stdout).unwrap();
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|pid| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let network = fs::read_link(format!("/proc/{pid}/ns/net")).unwrap_or_default();
            arguments == b"nc\x00192.168.77.1\x0022\0" && network.to_str() == Some(client.trim())
        })
        .collect()
}

/// This `nc` goes on when its stdin is at the end.
#[test]
fn a_command_does_not_outlive_us() {
    let lab = Lab::up();
    let config = config(&lab);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut underpass = lab.underpass(&format!("-F {config} -r tool {}", V4.subnet));
        assert_ok(&lab.probe("client", &format!("get {} 5001 1000003", V4.host)));
        assert!(!commands(&lab).is_empty());
        underpass.stop(signal);
        eventually("the command has ended", || commands(&lab).is_empty());
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

/// CheckHostIP: the name's key is right, and the address is known with another one.
#[test]
fn the_key_of_the_address_counts_where_that_is_asked_for() {
    let lab = Lab::up();
    let (hosts, known) = (lab.file("hosts"), lab.file("names"));
    fs::write(&hosts, "127.0.0.1 localhost\n192.168.77.1 prod\n").unwrap();
    let key = |name: &str| fs::read_to_string(lab.file(name)).unwrap();
    let (right, other) = (key("host_key.pub"), key("other_host_key.pub"));
    fs::write(&known, format!("prod {right}192.168.77.1 {other}")).unwrap();
    let script = format!("mount --bind {hosts} /etc/hosts && exec \"$@\"");
    let command = |check: &str| {
        let options = format!("-o UserKnownHostsFile={known} -o StrictHostKeyChecking=yes");
        let args = format!(
            "-r root@prod {options} -o CheckHostIP={check} {}",
            V4.subnet
        );
        lab.wrapped_up_command(&["unshare", "-m", "sh", "-c", &script, "sh"], &args)
    };
    let output = finished(command("yes"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("host key verification failed"), "{said}");
    let mut underpass = Underpass::start(command("no"));
    assert!(underpass.stop(Signal::SIGTERM).success());
}

/// `-N`.
#[test]
fn what_the_server_has_routes_for() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let mut underpass = lab.underpass("-N -v");
    let says = |underpass: &mut Underpass, words: &str| {
        let said = underpass.log().iter().find(|line| line.contains(words));
        said.unwrap_or_else(|| panic!("nothing of {words}")).clone()
    };
    let there = says(&mut underpass, "the server has routes for");
    for net in ["10.0.1.0/24", "10.0.2.0/24", "fd00:10:0:2::/64"] {
        assert!(there.contains(net), "{there}");
    }
    let own = says(&mut underpass, "not captured, as this host has");
    assert!(own.contains("192.168.77.0/24"), "{own}");
    for net in [V4, V6] {
        assert_ok(&lab.probe("client", &format!("get {} 5001 1000003", net.host)));
    }
    assert!(underpass.stop(Signal::SIGTERM).success());
    assert_eq!(lab.network_state("client"), before);

    let dry = finished(lab.up_command("-N --dry-run -x 10.0.2.0/24"));
    let routes = String::from_utf8(dry.stdout).unwrap();
    assert!(
        dry.status.success() && routes.contains("10.0.1.0/24"),
        "{routes}"
    );
    assert!(!routes.contains("192.168.77.0/24"), "{routes}");
    assert_eq!(lab.network_state("client"), before);

    let dry = finished(lab.up_command("-N --dry-run --disable-ipv6 10.0.0.0/16"));
    let routes = String::from_utf8(dry.stdout).unwrap();
    assert!(routes.contains("10.0.0.0/16"), "{routes}");
    assert!(
        !routes.contains("10.0.1.0/24") && !routes.contains("fd00"),
        "{routes}"
    );
}

#[test]
fn a_server_that_opens_no_session_tells_no_networks() {
    let lab = Lab::up();
    let failed = finished(lab.up_command("-N -p 2203 -o HostKeyAlias=192.168.77.1"));
    let said = String::from_utf8(failed.stderr).unwrap();
    assert!(!failed.status.success(), "{said}");
    let why = "-N: the SSH server runs no command that could tell its networks; name the networks instead";
    assert!(said.contains(why), "{said}");
    // What was named is captured all the same.
    let args = format!("-N -p 2203 -o HostKeyAlias=192.168.77.1 {}", V4.subnet);
    let mut underpass = lab.underpass(&args);
    let warning = "only what was named is captured";
    assert!(underpass.log().iter().any(|line| line.contains(warning)));
    let connect = format!("connect {} 80 --timeout 3000", V4.host);
    assert_eq!(lab.result("client", &connect), "open");
}
