//! The name servers that a host had before are asked as its programs asked them: by datagrams, and over TCP for what is too big.

use std::fs;

use nix::sys::signal::Signal;

use super::host::{FAR, Host};
use crate::common::{Lab, Underpass, V4, finished};
use crate::e2e::rig::Rig;
use crate::e2e::server::NameServer;

const FILES: [(&str, &str); 2] = [
    ("resolv.conf", "nameserver 192.168.77.1\n"),
    ("nsswitch.conf", "passwd: files\nhosts: files dns\n"),
];

fn nft(lab: &Lab, role: &str, words: &str) -> String {
    let mut command = lab.command(role, "nft");
    command.arg(words);
    let output = finished(command);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What comes to `role` is filtered so, until the lab is gone.
fn filter(lab: &Lab, role: &str, rules: &[&str]) {
    nft(lab, role, "add table inet t");
    nft(
        lab,
        role,
        "add chain inet t in { type filter hook input priority 0; }",
    );
    for rule in rules {
        nft(lab, role, &format!("add rule inet t in {rule}"));
    }
}

/// With what the host's name server hears filtered by `rules`.
fn up(host: &Host, rules: &[&str]) -> Underpass {
    filter(&host.lab, "bastion", rules);
    host.up(&format!(
        "--dns corp.internal --dns-server {FAR} {}",
        V4.subnet
    ))
}

fn finds_both(host: &Host) {
    let found = host.prints(
        "getent ahostsv4 www.example.com; dig +tries=1 +time=4 +short bastion.test; \
         dig +tries=1 +time=4 +short api.corp.internal",
    );
    assert!(
        found.contains("192.0.2.80 ") && found.ends_with("192.168.77.1\n10.0.1.20\n"),
        "{found}"
    );
}

#[test]
fn a_name_server_that_speaks_udp_alone_goes_on_answering() {
    let host = Host::new(&FILES);
    let mut underpass = up(&host, &["tcp dport 53 reject with tcp reset"]);
    finds_both(&host);
    assert!(underpass.stop(Signal::SIGTERM).success());
    let log = underpass.log().join("\n");
    assert!(!log.contains("do not answer"), "{log}");
}

#[test]
fn one_that_refuses_datagrams_is_asked_over_tcp() {
    let host = Host::new(&FILES);
    let mut underpass = up(&host, &["udp dport 53 reject"]);
    finds_both(&host);
    assert!(underpass.stop(Signal::SIGTERM).success());
    let log = underpass.log().join("\n");
    assert!(!log.contains("do not answer"), "{log}");
}

#[test]
fn a_lost_datagram_is_no_lost_answer() {
    let host = Host::new(&FILES);
    // Every other one.
    let mut underpass = up(&host, &["udp dport 53 numgen inc mod 2 0 counter drop"]);
    finds_both(&host);
    let dropped = nft(&host.lab, "bastion", "list table inet t");
    assert!(!dropped.contains("packets 0 "), "{dropped}");
    assert!(underpass.stop(Signal::SIGTERM).success());
}

#[test]
fn an_answer_that_is_too_big_for_a_datagram_comes_whole() {
    let mut host = Host::new(&FILES);
    let texts: Vec<String> = (0..12).map(|n| format!("{n:x>200}")).collect();
    let big = [format!("--txt-record=big.example.com,{}", texts.join(","))];
    host.near = NameServer::start(&host.lab, "bastion", "fd00:77::1", &big);
    fs::write(host.etc.join("resolv.conf"), "nameserver fd00:77::1\n").unwrap();
    let mut underpass = up(&host, &["tcp dport 53 counter accept"]);
    let found = host.prints("dig +tries=1 +time=4 +short TXT big.example.com");
    let whole: Vec<String> = texts.iter().map(|text| format!("\"{text}\"")).collect();
    assert_eq!(found.trim(), whole.join(" "));
    let counted = nft(&host.lab, "bastion", "list table inet t");
    assert!(!counted.contains("packets 0 "), "{counted}");
    assert!(underpass.stop(Signal::SIGTERM).success());
}

#[test]
fn where_none_answers_that_is_said() {
    let host = Host::new(&FILES);
    let mut underpass = up(&host, &["meta l4proto { tcp, udp } th dport 53 drop"]);
    underpass.wait_for_further_line("do not answer underpass: 192.168.77.1;");
    // The far side's are found all the same.
    assert_eq!(host.prints("dig +short api.corp.internal"), "10.0.1.20\n");
    assert!(underpass.stop(Signal::SIGTERM).success());
}

/// In a command's network, too, with names through the server and without.
#[test]
fn a_command_finds_the_hosts_names_where_those_are_asked_by_udp_alone() {
    let mut rig = Rig::new();
    let near = ["--host-record=www.example.test,203.0.113.7".to_owned()];
    let _near = NameServer::start(&rig.lab, "client", "127.0.0.53", &near);
    fs::write(rig.file("resolv"), "nameserver 127.0.0.53\n").unwrap();
    fs::write(rig.file("nss"), "passwd: files\nhosts: files dns\n").unwrap();
    rig.setup = "mount --bind \"$RIG/resolv\" /etc/resolv.conf; mount --bind \"$RIG/nss\" /etc/nsswitch.conf".to_owned();
    filter(&rig.lab, "client", &["tcp dport 53 reject with tcp reset"]);
    for names in ["", "--dns corp.internal --dns-server 10.0.1.20"] {
        let found = rig.prints(
            &format!("{names} {}", V4.subnet),
            &["getent", "ahostsv4", "www.example.test"],
        );
        assert!(found.contains("203.0.113.7 "), "{names}: {found}");
    }
}
