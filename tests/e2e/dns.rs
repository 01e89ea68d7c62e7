//! Names of the far network, looked up through the server by programs of every kind, against a real name server there.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use super::rig::Rig;
use super::server::{NameServer, sshd_in, sshd_that_knows};
use crate::common::{V4, V6, finished};

/// The far name server.
const FAR: &str = "10.0.1.20";
/// The one that the host had before, as a stub resolver.
const NEAR: &str = "127.0.0.53";

/// Both name servers, and a user of the host.
struct Names {
    rig: Rig,
    far: NameServer,
    near: NameServer,
}

impl Names {
    fn new() -> Self {
        let mut rig = Rig::new();
        let texts: Vec<String> = (0..12).map(|n| format!("{n:_>200}")).collect();
        let far = [
            "--local=/corp.internal/",
            "--host-record=api.corp.internal,10.0.1.20,fd00:10:0:1::20",
            "--host-record=two.corp.internal,10.0.1.21",
            "--cname=alias.corp.internal,two.corp.internal",
            "--srv-host=_http._tcp.corp.internal,api.corp.internal,80,1,2",
            "--naptr-record=sip.corp.internal,10,20,s,SIP+D2U,,_sip._udp.corp.internal",
            "--mx-host=corp.internal,api.corp.internal,10",
            "--txt-record=small.corp.internal,one,two",
            "--caa-record=corp.internal,0,issue,ca.example",
            // HTTPS, SSHFP, and a type that nobody has heard of.
            "--dns-rr=api.corp.internal,65,0001000001000302683200",
            "--dns-rr=api.corp.internal,44,0401ba7816bf8f01cfea414140de5dae2223b00361a3",
            "--dns-rr=odd.corp.internal,65280,c00c00ff",
            // As seen from there, which is not as seen from the host.
            "--host-record=www.example.test,203.0.113.99",
        ];
        let mut options: Vec<String> = far.map(str::to_owned).to_vec();
        options.push(format!(
            "--txt-record=big.corp.internal,{}",
            texts.join(",")
        ));
        let huge: Vec<String> = (0..60).map(|n| format!("{n:x>250}")).collect();
        options.push(format!(
            "--txt-record=huge.corp.internal,{}",
            huge.join(",")
        ));
        let far = NameServer::start(&rig.lab, "vpc", FAR, &options);
        let near = ["--host-record=www.example.test,203.0.113.7".to_owned()];
        let near = NameServer::start(&rig.lab, "client", NEAR, &near);
        fs::write(rig.file("resolv"), format!("nameserver {NEAR}\n")).unwrap();
        // resolve and the like would look names up beside the network.
        fs::write(
            rig.file("nss"),
            "passwd: files\nhosts: mymachines resolve files dns\n",
        )
        .unwrap();
        rig.setup = "mount --bind \"$RIG/resolv\" /etc/resolv.conf; mount --bind \"$RIG/nss\" /etc/nsswitch.conf".to_owned();
        Self { rig, far, near }
    }

    /// What a shell script prints in a network made with `args`.
    fn prints(&self, args: &str, script: &str) -> String {
        self.rig.prints(args, &["sh", "-c", script])
    }

    fn near_was_asked_of(&self, name: &str) -> bool {
        self.near.asked().iter().any(|line| line.contains(name))
    }
}

/// What dig says of each question, as far as it is the name server's: the status, and the records without TTL.
fn dig(at: &str, questions: &[&str]) -> String {
    let ask = |question: &&str| {
        format!("dig {at} +nocmd +nostats +nocookie +nottlid +time=4 +tries=1 {question}")
    };
    questions.iter().map(ask).collect::<Vec<_>>().join("; ")
}

fn essence(dug: &str) -> Vec<String> {
    let mut answers: Vec<Vec<String>> = Vec::new();
    for line in dug.lines() {
        if let Some((_, rest)) = line.split_once("status: ") {
            answers.push(vec![rest.split(',').next().unwrap().to_owned()]);
        } else if !line.starts_with(';') && !line.trim().is_empty() {
            let words: Vec<&str> = line.split_whitespace().collect();
            answers.last_mut().expect("a status").push(words.join(" "));
        }
    }
    for records in &mut answers {
        records[1..].sort();
    }
    answers.concat()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn programs_find_private_names_and_reach_them() {
    let names = Names::new();
    for carrier in ["russh", "openssh"] {
        // Nobody answers at the first one.
        let servers = format!("--dns-server 10.0.1.21 --dns-server {FAR}");
        let args = format!("--carrier {carrier} --dns {servers} {}", V4.subnet);
        let script = "cat /etc/resolv.conf /etc/nsswitch.conf; getent ahostsv4 api.corp.internal; \
            curl -4 -sS -o /dev/null -w 'http %{http_code}\\n' http://alias.corp.internal/; \
            getent hosts gone.corp.internal || echo none; \
            python3 -c 'import socket; print(socket.getaddrinfo(\"two.corp.internal\", 80, socket.AF_INET)[0][4])' || echo failed";
        let printed = names.prints(&args, script);
        for part in [
            "nameserver 198.18.0.53\n",
            "hosts: files dns\n",
            "10.0.1.20 ",
            "http 200",
            "none",
            "('10.0.1.21', 80)",
        ] {
            assert!(printed.contains(part), "{carrier}, {part}: {printed}");
        }
    }
    assert_eq!(names.near.asked(), Vec::<String>::new());
    assert!(!names.far.asked().is_empty());
}

#[test]
fn answers_are_those_of_the_far_name_server_over_udp_and_tcp() {
    let names = Names::new();
    let questions = [
        "api.corp.internal A",
        "API.Corp.internal A",
        "api.corp.internal AAAA",
        "api.corp.internal HTTPS",
        "api.corp.internal SSHFP",
        "api.corp.internal A +tcp",
        "api.corp.internal A +noedns",
        "api.corp.internal A +dnssec",
        "alias.corp.internal A",
        "corp.internal MX",
        "corp.internal CAA",
        "_http._tcp.corp.internal SRV",
        "small.corp.internal TXT",
        "big.corp.internal TXT",
        "big.corp.internal TXT +tcp",
        "big.corp.internal TXT +bufsize=512",
        "odd.corp.internal TYPE65280",
        "big.corp.internal TXT +bufsize=4096",
        "huge.corp.internal TXT",
        "huge.corp.internal TXT +tcp",
        "sip.corp.internal NAPTR",
        "corp.internal SOA",
        "_http._tcp.corp.internal SRV +tcp +dnssec",
        "two.corp.internal AAAA",
        "gone.corp.internal A",
        "-x 10.0.1.20",
        "-x 10.0.1.21 +tcp",
        "www.example.test A",
    ];
    let mut direct = names.rig.lab.command("vpc", "sh");
    direct.args(["-c", &dig(&format!("@{FAR}"), &questions)]);
    let expected = essence(&String::from_utf8(finished(direct).stdout).unwrap());
    assert!(expected.len() > 2 * questions.len(), "{expected:?}");
    let args = format!("--dns --dns-server {FAR} {} {}", V4.subnet, V6.subnet);
    let through = essence(&names.prints(&args, &dig("", &questions)));
    assert_eq!(through, expected);
    assert_eq!(names.near.asked(), Vec::<String>::new());
}

#[test]
fn what_does_not_fit_a_datagram_is_cut_and_asked_for_again() {
    let names = Names::new();
    let args = format!("--dns --dns-server {FAR} {}", V4.subnet);
    let cut = "big.corp.internal TXT +ignore";
    let script = dig(
        "",
        &[
            &format!("{cut} +noedns"),
            &format!("{cut} +bufsize=1232"),
            "small.corp.internal TXT +ignore",
            "corp.internal ANY +notcp",
        ],
    );
    let printed = names.prints(&args, &script);
    let flags: Vec<bool> = printed
        .lines()
        .filter(|line| line.starts_with(";; flags:"))
        .map(|line| line.split(';').nth(2).unwrap().contains(" tc"))
        .collect();
    assert_eq!(flags, [true, true, false, false], "{printed}");
    assert!(printed.contains("RFC8482"), "{printed}");
}

#[test]
fn other_names_stay_with_the_hosts_resolver() {
    let names = Names::new();
    let args = format!("--dns corp.internal --dns-server {FAR} {}", V4.subnet);
    let questions = [
        "+short www.example.test A",
        "+short two.corp.internal A",
        "+short -x 10.0.1.21",
    ];
    let printed = names.prints(&args, &dig("", &questions));
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines, ["203.0.113.7", "10.0.1.21", "two.corp.internal."]);
    assert!(names.near_was_asked_of("www.example.test"));
    assert!(!names.near_was_asked_of("corp.internal") && !names.near_was_asked_of("in-addr"));
    let far = names.far.asked().join("\n");
    assert!(!far.contains("example.test"), "{far}");
    // Isolated, they have nobody to go to.
    let isolated = format!("{args} --isolate");
    let printed = names.prints(&isolated, &dig("", &questions[..2]));
    assert_eq!(printed.lines().last(), Some("10.0.1.21"), "{printed}");
    assert!(!printed.contains("203.0.113"), "{printed}");
    assert_eq!(names.near.asked().len(), 1);
}

#[test]
fn private_names_fail_while_the_tunnel_is_down_and_leak_nowhere() {
    let names = Names::new();
    let args = format!("--dns corp.internal --dns-server {FAR} {}", V4.subnet);
    let script = format!(
        "{}; echo ready; read -r _; {}",
        dig("", &["+short two.corp.internal A"]),
        dig(
            "",
            &[
                "+time=9 api.corp.internal A",
                "+short two.corp.internal A",
                "+short www.example.test A"
            ]
        )
    );
    let mut command: Command = names.rig.run_command(&args, &["sh", "-c", &script]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!((next(), next()), ("10.0.1.21".into(), "ready".into()));
    names.rig.lab.kill_sshd();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let rest: Vec<String> = std::iter::from_fn(|| lines.next())
        .map(Result::unwrap)
        .collect();
    let rest = rest.join("\n");
    assert!(rest.contains("status: SERVFAIL"), "{rest}");
    // Known already, and the host's own.
    assert!(rest.ends_with("10.0.1.21\n203.0.113.7"), "{rest}");
    assert!(!names.near_was_asked_of("corp.internal"));
    child.wait().unwrap();
}

#[test]
fn the_servers_own_name_servers_are_asked_where_none_is_named() {
    let names = Names::new();
    let resolv = names.rig.file("far-resolv");
    fs::write(
        &resolv,
        format!("# far\nnameserver {FAR}\nsearch corp.internal\n"),
    )
    .unwrap();
    let force = format!("ForceCommand cat {}", resolv.display());
    names.rig.lab.further_sshd(2210, "authorized_keys", &force);
    // The host keys of further ones are known by the lab's file only.
    fs::copy(
        names.rig.lab.file("known_hosts"),
        names.rig.file("known_hosts"),
    )
    .unwrap();
    for carrier in ["russh", "openssh"] {
        let args = format!("--carrier {carrier} -p 2210 --dns {}", V4.subnet);
        let printed = names.prints(&args, &dig("", &["+short two.corp.internal A"]));
        assert_eq!(printed.trim(), "10.0.1.21");
    }
}

/// As many accounts that are for files alone.
#[test]
fn the_servers_own_name_servers_are_read_where_no_command_runs() {
    let names = Names::new();
    sshd_in(
        &names.rig.lab,
        2212,
        "Subsystem sftp internal-sftp\nForceCommand internal-sftp",
        &[("/etc/resolv.conf", &format!("nameserver {FAR}\n"))],
    );
    fs::copy(
        names.rig.lab.file("known_hosts"),
        names.rig.file("known_hosts"),
    )
    .unwrap();
    for carrier in ["russh", "openssh"] {
        let args = format!("--carrier {carrier} -p 2212 --dns {}", V4.subnet);
        let printed = names.prints(&args, &dig("", &["+short two.corp.internal A"]));
        assert_eq!(printed.trim(), "10.0.1.21", "{carrier}");
    }
    // Without sftp, too, nobody knows.
    names
        .rig
        .lab
        .further_sshd(2213, "authorized_keys", "ForceCommand false");
    fs::copy(
        names.rig.lab.file("known_hosts"),
        names.rig.file("known_hosts"),
    )
    .unwrap();
    for carrier in ["russh", "openssh"] {
        let args = format!("--carrier {carrier} -p 2213 --dns {}", V4.subnet);
        let output = names.rig.run(&args, &["true"]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(125), "{text}");
        assert!(text.contains("--dns-server IP"), "{text}");
    }
}

#[test]
fn where_the_server_does_not_tell_somebody_is_to_be_named() {
    let names = Names::new();
    // MaxSessions 0.
    let output = names
        .rig
        .run(&format!("-p 2203 --dns {}", V4.subnet), &["true"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(125), "{text}");
    assert!(
        text.contains("--dns-server IP") && text.contains("169.254.169.253"),
        "{text}"
    );
}

/// `FAR=LOCAL`: names lead to where the far network is shown, and addresses there have the far names.
#[test]
fn names_are_those_of_the_addresses_that_are_shown() {
    let names = Names::new();
    let mapped = format!("{}=100.64.1.0/24 {}=fd64:10:0:1::/64", V4.subnet, V6.subnet);
    let args = format!("--dns corp.internal --dns-server {FAR} {mapped}");
    let script = dig(
        "",
        &[
            "+short api.corp.internal A",
            "+short api.corp.internal AAAA",
            "+short alias.corp.internal A +tcp",
            "+short -x 100.64.1.20",
            "+short -x fd64:10:0:1::20",
            "+short api.corp.internal TYPE44",
        ],
    );
    let http = "curl -sS -o /dev/null -w '%{http_code}\\n' http://api.corp.internal/";
    let printed = names.prints(&args, &format!("{script}; {http}"));
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(
        lines,
        [
            "100.64.1.20",
            "fd64:10:0:1::20",
            "two.corp.internal.",
            "100.64.1.21",
            "api.corp.internal.",
            "api.corp.internal.",
            "4 1 BA7816BF8F01CFEA414140DE5DAE2223B00361A3",
            "200",
        ]
    );
    assert_eq!(names.near.asked(), Vec::<String>::new());
}

/// IPv4 alone is captured.
#[test]
fn nobody_gets_an_address_that_leads_nowhere() {
    let names = Names::new();
    let questions = [
        "+short api.corp.internal AAAA",
        "+short -x fd00:10:0:1::20",
        "+short api.corp.internal A",
    ];
    for domains in ["", "corp.internal"] {
        let args = format!("--dns {domains} --dns-server {FAR} {}", V4.subnet);
        let printed = names.prints(&args, &dig("", &questions[..1]));
        assert_eq!(printed, "", "{domains}");
        let status = dig("", &["api.corp.internal AAAA", "gone.corp.internal AAAA"]);
        let answers = essence(&names.prints(&args, &status));
        assert_eq!(answers, ["NOERROR", "NXDOMAIN"], "{domains}");
    }
    let both = format!(
        "--dns corp.internal --dns-server {FAR} {} {}",
        V4.subnet, V6.subnet
    );
    let printed = names.prints(&both, &dig("", &questions));
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(
        lines,
        ["fd00:10:0:1::20", "api.corp.internal.", "10.0.1.20"]
    );
}

/// No name server of the far side is known, and no network named: the server looks up what is connected to.
#[test]
fn names_are_connected_to_where_nobody_can_be_asked_for_them() {
    let names = Names::new();
    sshd_that_knows(&names.rig.lab, 2211, "10.0.1.20 api.names.test\n");
    fs::copy(
        names.rig.lab.file("known_hosts"),
        names.rig.file("known_hosts"),
    )
    .unwrap();
    let connect = "import socket, sys\n\
        try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 9); print(\"open\")\n\
        except OSError as error: print(error.strerror)";
    let script = format!(
        "curl -4 -sS -o /dev/null -w 'http %{{http_code}}\\n' http://api.names.test/; \
         curl -6 -sS -o /dev/null -w 'http %{{http_code}}\\n' http://API.names.test/; \
         for at in 'api.names.test 81' 'gone.names.test 80' '198.19.0.99 80'; do python3 -c '{connect}' $at; done; {}",
        dig(
            "",
            &[
                "+short api.names.test",
                "+short -x 198.19.2.164",
                "+short api.names.test TXT",
                "+short www.example.test"
            ]
        )
    );
    for carrier in ["russh", "openssh"] {
        for (args, other) in [
            ("--dns-names", "198.19.2.211"),
            ("--dns names.test --dns-names", "203.0.113.7"),
            ("api.names.test *.names.test:80", "203.0.113.7"),
        ] {
            let printed = names.prints(&format!("--carrier {carrier} -p 2211 {args}"), &script);
            let lines: Vec<&str> = printed.lines().collect();
            let expected = [
                "http 200",
                "http 200",
                "Connection refused",
                "No route to host",
                "No route to host",
                "198.19.2.164",
                "api.names.test.",
                other,
            ];
            assert_eq!(lines, expected, "{carrier} {args}");
        }
    }
    assert!(!names.near_was_asked_of("names.test"));
    assert_eq!(names.far.asked(), Vec::<String>::new());
}
