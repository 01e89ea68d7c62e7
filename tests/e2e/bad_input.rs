//! What cannot work is said in one clear line, with the exit code of its kind, and nothing is changed.

use std::process::Command;

use crate::common::{Lab, V4, carrier, finished};

// The exit codes that `underpass help` lists.
const USAGE: i32 = 2;
const PRIVILEGE: i32 = 3;
const LOGIN_REFUSED: i32 = 4;
const HOST_KEY: i32 = 6;
const SSH: i32 = 255;

/// Runs a command that has to fail with `code`, saying each of `words`.
fn refused(lab: &Lab, command: Command, code: i32, words: &[&str]) {
    let before = lab.network_state("client");
    let output = finished(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(
            said.to_lowercase().contains(&word.to_lowercase()),
            "no {word:?} in: {said}"
        );
    }
    assert!(!said.contains("panicked"), "{said}");
    // ssh's warning of a changed host key has ten lines, and in its own words fourteen; nothing else has more than an error
    // and a hint.
    let is_warned = said.contains("HOST IDENTIFICATION HAS CHANGED");
    let warning = match (is_warned, carrier()) {
        (false, _) => 0,
        (true, "openssh") => 14,
        (true, _) => 10,
    };
    assert!(
        said.lines().count() <= 4 + warning,
        "more than an error and a hint: {said}"
    );
    assert_eq!(lab.network_state("client"), before);
}

fn usage(args: &str, words: &[&str]) {
    let lab = Lab::up();
    refused(&lab, lab.up_command(args), USAGE, words);
}

fn ssh_failure(code: i32, args: impl Fn(&Lab) -> String, words: &[&str]) {
    let lab = Lab::up();
    let command = lab.up_command(&format!("{} {}", args(&lab), V4.subnet));
    refused(&lab, command, code, words);
}

#[test]
fn a_bad_subnet() {
    usage("10.0.1.0/33", &["10.0.1.0/33"]);
}

#[test]
fn a_bad_port_range() {
    usage("10.0.1.0/24:443-80", &["443-80"]);
}

#[test]
fn a_bad_exclusion() {
    usage("10.0.1.0/24 -x 10.0.1", &["10.0.1"]);
}

#[test]
fn no_subnet() {
    usage("", &["subnet"]);
}

#[test]
fn an_unknown_host() {
    ssh_failure(
        SSH,
        |_| "-r root@no-such-host.invalid".into(),
        &["no-such-host.invalid"],
    );
}

#[test]
fn a_server_that_does_not_listen() {
    ssh_failure(
        SSH,
        |_| "-p 2299".into(),
        &["192.168.77.1", "2299", "refused"],
    );
}

#[test]
fn a_key_that_is_refused() {
    ssh_failure(
        LOGIN_REFUSED,
        |lab| format!("-i {}", lab.file("id_wrong")),
        &["id_wrong", "root"],
    );
}

#[test]
fn a_key_that_is_not_there() {
    ssh_failure(
        LOGIN_REFUSED,
        |lab| format!("-i {}", lab.file("id_none")),
        &["id_none"],
    );
}

/// There is no tty to ask for the passphrase on.
#[test]
fn a_key_with_a_passphrase_and_nobody_to_ask() {
    ssh_failure(
        LOGIN_REFUSED,
        |lab| format!("-i {}", lab.file("id_passphrase")),
        &["id_passphrase", "passphrase"],
    );
}

#[test]
fn a_host_key_that_has_changed() {
    ssh_failure(
        HOST_KEY,
        |_| "-p 2204".into(),
        &[
            "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!",
            "host key",
            "changed",
            "ssh-keygen -f",
            "-R",
        ],
    );
    // Not even when new keys are accepted.
    let accept = "-p 2204 -o StrictHostKeyChecking=accept-new";
    ssh_failure(HOST_KEY, |_| accept.into(), &["host key", "changed"]);
}

/// ssh itself goes on then, but forwards nothing.
#[test]
fn a_host_key_that_has_changed_where_nobody_cares() {
    let careless = "-p 2204 -o StrictHostKeyChecking=no";
    ssh_failure(
        HOST_KEY,
        |_| careless.into(),
        &[
            "IDENTIFICATION HAS CHANGED!",
            "changed",
            "ssh-keygen -f",
            "-R",
        ],
    );
}

/// A configuration by which the server is behind a jump host, which has this in it.
fn behind(lab: &Lab, jump_host: &str) -> String {
    let file = lab.file("jump_config");
    let text = format!(
        "Host gw\n{jump_host}\nHost gw server\nHostName 192.168.77.1\nUser root\nUserKnownHostsFile {}\n\
         Host server\nProxyJump gw\n",
        lab.file("known_hosts")
    );
    std::fs::write(&file, text).unwrap();
    format!("-F {file} -r server")
}

/// ssh tells of a jump host only by the words of another ssh.
#[test]
fn a_jump_host_that_refuses_the_login() {
    ssh_failure(
        LOGIN_REFUSED,
        |lab| {
            behind(
                lab,
                &format!("IdentityFile {}\nIdentitiesOnly yes", lab.file("id_wrong")),
            )
        },
        &["jump host gw: root@", "permission denied", "IdentityFile"],
    );
}

#[test]
fn a_jump_host_with_a_key_that_has_changed() {
    for policy in ["yes", "no"] {
        // Where it may ask for no password, ssh goes on behind its warning.
        let methods = "PasswordAuthentication no\nKbdInteractiveAuthentication no";
        ssh_failure(
            HOST_KEY,
            |lab| {
                let key = lab.file("id");
                let jump_host = format!(
                    "Port 2204\nStrictHostKeyChecking {policy}\n{methods}\nIdentityFile {key}"
                );
                behind(lab, &jump_host)
            },
            &["jump host gw: ", "changed", "ssh-keygen"],
        );
    }
}

#[test]
fn a_jump_host_with_a_key_that_is_unknown() {
    ssh_failure(
        HOST_KEY,
        |lab| {
            behind(
                lab,
                &format!("UserKnownHostsFile {}", lab.file("empty_known_hosts")),
            )
        },
        &[
            "jump host gw: ",
            "known",
            "ssh -F ",
            "gw",
            "for it in ssh's configuration",
        ],
    );
}

#[test]
fn a_host_key_that_is_unknown_and_nobody_to_ask() {
    let args = |lab: &Lab| format!("-o UserKnownHostsFile={}", lab.file("empty_known_hosts"));
    ssh_failure(HOST_KEY, args, &["host key", "192.168.77.1"]);
}

#[test]
fn a_host_key_that_is_unknown_and_to_be_accepted() {
    let lab = Lab::up();
    let known_hosts = lab.file("empty_known_hosts");
    // Debian's own configuration hashes names.
    let accept = format!(
        "-o UserKnownHostsFile={known_hosts} -o StrictHostKeyChecking=accept-new -o HashKnownHosts=no"
    );
    let _underpass = lab.underpass(&format!("{accept} {}", V4.subnet));
    assert!(
        std::fs::read_to_string(known_hosts)
            .unwrap()
            .contains("192.168.77.1 ssh-ed25519")
    );
}

#[test]
fn no_right_to_change_the_network() {
    let lab = Lab::up();
    let wrapper = [
        "setpriv",
        "--bounding-set=-net_admin",
        "--inh-caps=-net_admin",
    ];
    let command = lab.wrapped_up_command(&wrapper, V4.subnet);
    refused(&lab, command, PRIVILEGE, &["CAP_NET_ADMIN", "sudo"]);
}

#[test]
fn no_tun_device() {
    let lab = Lab::up();
    let hide = [
        "unshare",
        "-m",
        "sh",
        "-c",
        r#"mount -t tmpfs none /dev/net && exec "$@""#,
        "sh",
    ];
    let command = lab.wrapped_up_command(&hide, V4.subnet);
    refused(&lab, command, PRIVILEGE, &["/dev/net/tun"]);
}

#[test]
fn a_tun_device_that_is_something_else() {
    let lab = Lab::up();
    let cover = [
        "unshare",
        "-m",
        "sh",
        "-c",
        r#"mount --bind /dev/null /dev/net/tun && exec "$@""#,
        "sh",
    ];
    let command = lab.wrapped_up_command(&cover, V4.subnet);
    refused(&lab, command, PRIVILEGE, &["/dev/net/tun", "mknod"]);
}
