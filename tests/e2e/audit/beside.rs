//! What goes beside TCP stands in the log as well: UDP by the helper, pings, packets of a tunnel.

use std::path::PathBuf;

use nix::sys::signal::Signal;

use super::rig::{ends, lines, of};
use crate::common::{Lab, Underpass, V4, Value, carrier, eventually, result_of};
use crate::e2e::datagrams::{answers, ask, shell};

/// Where the bastion's sshd permits tunnels.
const TUNNELS: u16 = 2210;

fn audited(lab: &Lab, args: &str) -> (Underpass, PathBuf) {
    let log = lab.state.join("audit.log");
    let underpass = lab.underpass(&format!("{args} --audit-log {}", log.display()));
    (underpass, log)
}

fn tunnel(lab: &Lab, args: &str) -> (Underpass, PathBuf) {
    lab.further_sshd(TUNNELS, "authorized_keys", "PermitTunnel yes");
    let server = format!("-r root@192.168.77.1:{TUNNELS}");
    audited(lab, &format!("--carrier openssh {server} {args}"))
}

/// The ends of the flows that speak this.
fn speaking<'a>(lines: &'a [Value], protocol: &str) -> Vec<&'a Value> {
    let ends = of(lines, "flow_end").into_iter();
    ends.filter(|end| end["protocol"] == protocol).collect()
}

fn bytes(end: &Value) -> (u64, u64) {
    let count = |field: &str| end[field].as_u64().unwrap();
    (count("bytes_up"), count("bytes_down"))
}

fn starts_with(value: &Value, text: &str) -> bool {
    value.as_str().unwrap().starts_with(text)
}

#[test]
fn datagrams_by_the_helper_have_who_and_how_much() {
    let lab = Lab::up();
    let _server = answers(&lab, "vpc", V4.host, 7777);
    let _mapped = answers(&lab, "vpc", "10.0.2.20", 7777);
    // It has the port of the container's socket, and every address: it is not the container's.
    let _same_port = answers(&lab, "client", "0.0.0.0", 5353);
    let args = format!("--udp {} 10.0.2.0/24=10.9.2.0/24", V4.subnet);
    let (mut underpass, log) = audited(&lab, &args);
    // The first one waits for the helper: whose it is can be looked for.
    let said = ask(&lab, "client", V4.host, 7777, "0 1 1400");
    assert_eq!(said, "0 same\n1 same\n1400 same\n");
    assert_eq!(ask(&lab, "client", "10.9.2.20", 7777, "7"), "7 same\n");
    let refused = ask(&lab, "client", V4.host, 7778, "1");
    assert_eq!(refused, "1 Connection refused\n");
    let from_the_box = format!(
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(5); s.bind((\"\", 5353)); \
         s.sendto(b\"box\", (\"{}\", 7777)); print(s.recv(9))",
        V4.host
    );
    let said = shell(&lab, "box", &format!("python3 -c '{from_the_box}'"));
    assert_eq!(said, "b'box'\n");
    assert_eq!(
        lab.result("client", &format!("connect {} 80", V4.host)),
        "open"
    );
    lab.kill_sshd();
    underpass.wait_for_line("connection lost");
    eventually("their ends stand in the log", || {
        speaking(&lines(&log), "udp").len() == 4
    });
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
    let lines = lines(&log);
    let udp = speaking(&lines, "udp");
    let to = |target: &str, source: &str| -> &Value {
        let is_it = |end: &&&Value| end["target"] == target && starts_with(&end["source"], source);
        udp.iter().find(is_it).unwrap()
    };
    let first = to("10.0.1.20:7777", "198.");
    assert_eq!(bytes(first), (1401, 1401));
    assert_eq!(
        (&first["uid"], &first["user"], &first["process"]),
        (&0.into(), &"root".into(), &"python3".into())
    );
    assert!(first["pid"].as_u64().unwrap() > 1 && first["end"].as_str() > first["start"].as_str());
    assert_eq!(first["carrier"], carrier());
    assert!(first["mapped_to"].is_null());
    let mapped = to("10.9.2.20:7777", "");
    assert_eq!(mapped["mapped_to"], "10.0.2.20:7777");
    assert_eq!(bytes(mapped), (7, 7));
    assert_eq!(bytes(to("10.0.1.20:7778", "")), (1, 0));
    let forwarded = to("10.0.1.20:7777", "172.31.0.2:5353");
    assert_eq!(bytes(forwarded), (3, 3));
    assert!(forwarded["uid"].is_null() && forwarded["pid"].is_null());
    assert!(udp.iter().all(|end| end["outcome"] == "lost"));
    assert_eq!(of(&lines, "flow_start").len(), udp.len() + 1);
    assert_eq!(ends(&lines, 80)[0]["protocol"], "tcp");
}

#[test]
fn what_nothing_carries_was_refused_and_says_why() {
    let lab = Lab::up();
    // No command runs there.
    let args = format!("-r root@192.168.77.1:2203 --udp {}", V4.subnet);
    let (mut underpass, log) = audited(&lab, &args);
    ask(&lab, "client", V4.host, 7777, "1");
    eventually("it is known", || !speaking(&lines(&log), "udp").is_empty());
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
    let lines = lines(&log);
    let end = speaking(&lines, "udp")[0];
    assert_eq!((&end["outcome"], bytes(end)), (&"refused".into(), (0, 0)));
    let reason = end["reason"].as_str().unwrap();
    assert!(reason.contains("the server runs no command"), "{reason}");
}

#[test]
fn pings_are_one_conversation_with_each_host() {
    let lab = Lab::up();
    let args = format!("--ping {} 10.0.2.0/24=10.9.2.0/24", V4.subnet);
    let (mut underpass, log) = audited(&lab, &args);
    for host in [V4.host, V4.no_such_host, "10.9.2.20"] {
        shell(&lab, "client", &format!("ping -c 2 -W 2 -s 56 {host}"));
    }
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
    let lines = lines(&log);
    let pings = speaking(&lines, "icmp");
    assert_eq!(pings.len(), 3, "{pings:?}");
    for (host, far, expected) in [
        (V4.host, Value::Null, (112, 112)),
        (V4.no_such_host, Value::Null, (112, 0)),
        ("10.9.2.20", "10.0.2.20:0".into(), (112, 112)),
    ] {
        let target = format!("{host}:0");
        let end = pings.iter().find(|end| end["target"] == target.as_str());
        let end = end.unwrap_or_else(|| panic!("{host}: {pings:?}"));
        assert_eq!((&end["mapped_to"], bytes(end)), (&far, expected));
        assert!(starts_with(&end["source"], "198.") && end["uid"].is_null());
        assert_eq!(end["outcome"], "stopped");
    }
}

#[test]
fn in_a_commands_network_as_well() {
    let lab = Lab::up();
    let _server = answers(&lab, "vpc", V4.host, 7777);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/datagrams.py");
    let log = lab.state.join("audit.log");
    let said = shell(
        &lab,
        "client",
        &format!(
            "HOME={} {} run -q --carrier {} -r root@192.168.77.1 -i {} -o UserKnownHostsFile={} --udp --audit-log {} {} -- \
             python3 {script} ask {} 7777 1 1400",
            lab.file(""),
            env!("CARGO_BIN_EXE_underpass"),
            carrier(),
            lab.file("id"),
            lab.file("known_hosts"),
            log.display(),
            V4.subnet,
            V4.host,
        ),
    );
    assert_eq!(said, "1 same\n1400 same\n");
    let lines = lines(&log);
    let udp = speaking(&lines, "udp");
    assert_eq!(udp.len(), 1);
    assert_eq!(bytes(udp[0]), (1401, 1401));
    assert_eq!(
        (&udp[0]["uid"], &udp[0]["process"], &udp[0]["outcome"]),
        (&0.into(), &"python3".into(), &"stopped".into())
    );
}

#[test]
fn packets_of_a_tunnel_are_conversations() {
    let lab = Lab::up();
    let _server = answers(&lab, "vpc", V4.host, 7777);
    let (mut underpass, log) = tunnel(&lab, &format!("--tunnel {}", V4.subnet));
    // Held open: whose it is is asked of the kernel while it is there.
    let held = format!(
        "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); s.connect((\"{}\", 7777)); \
         s.send(bytes(100)); s.recv(999); sys.stdin.read()",
        V4.host
    );
    let mut command = lab.command("client", "python3");
    command
        .args(["-c", &held])
        .stdin(std::process::Stdio::piped());
    let mut held = command.spawn().unwrap();
    eventually("its start stands in the log", || {
        let lines = lines(&log);
        let mut starts = of(&lines, "flow_start").into_iter();
        starts.any(|start| start["protocol"] == "udp" && start["process"] == "python3")
    });
    drop(held.stdin.take());
    assert!(held.wait().unwrap().success());
    let said = ask(&lab, "client", V4.host, 7778, "1");
    assert_eq!(said, "1 Connection refused\n");
    let said = shell(&lab, "client", &format!("ping -c 2 -W 5 -s 56 {}", V4.host));
    assert!(said.contains(" 0% packet loss"), "{said}");
    assert_eq!(
        lab.result("client", &format!("connect {} 80", V4.host)),
        "open"
    );
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
    let lines = lines(&log);
    let udp = ends(&lines, 7777)[0];
    // Whole packets: 28 bytes of headers.
    assert_eq!((&udp["protocol"], bytes(udp)), (&"udp".into(), (128, 128)));
    assert_eq!(
        (&udp["uid"], &udp["outcome"]),
        (&0.into(), &"stopped".into())
    );
    // That nobody heard it is no talk.
    assert_eq!(bytes(ends(&lines, 7778)[0]), (29, 0));
    let pings = speaking(&lines, "icmp");
    assert_eq!(pings.len(), 1, "{pings:?}");
    assert_eq!(bytes(pings[0]), (168, 168));
    assert_eq!(pings[0]["target"], "10.0.1.20:0");
    // A flow as ever.
    assert_eq!(ends(&lines, 80)[0]["protocol"], "tcp");
    assert_eq!(speaking(&lines, "tcp").len(), 1);
}

#[test]
fn with_full_tcp_is_in_the_log_as_packets_and_so_is_who_comes_in() {
    let lab = Lab::up();
    let args = format!(
        "--tunnel=full --tunnel-address 10.77.0.1,10.77.0.2 {}",
        V4.subnet
    );
    let (mut underpass, log) = tunnel(&lab, &args);
    let got = lab.probe("client", &format!("get {} 5001 100003", V4.host));
    assert_eq!(result_of(&got), "ok", "{got}");
    shell(&lab, "vpc", "ip route add 10.77.0.1 via 10.0.1.1");
    let said = shell(&lab, "vpc", "ping -c 2 -W 5 -s 56 10.77.0.1");
    assert!(said.contains(" 0% packet loss"), "{said}");
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
    let lines = lines(&log);
    let tcp = ends(&lines, 5001)[0];
    assert_eq!((&tcp["protocol"], &tcp["uid"]), (&"tcp".into(), &0.into()));
    assert!(bytes(tcp).1 > 100_003, "with its headers: {tcp}");
    let pings = speaking(&lines, "icmp");
    assert_eq!(pings.len(), 1, "{pings:?}");
    assert_eq!(
        (&pings[0]["source"], &pings[0]["target"], bytes(pings[0])),
        (&"10.0.1.20:0".into(), &"10.77.0.1:0".into(), (168, 168))
    );
}

#[test]
fn what_frames_carry_is_in_the_log() {
    let lab = Lab::up();
    let (mut underpass, log) = tunnel(&lab, &format!("--tunnel=ethernet {}", V4.subnet));
    let got = lab.probe("client", &format!("get {} 5001 100003", V4.host));
    assert_eq!(result_of(&got), "ok", "{got}");
    let said = shell(&lab, "client", &format!("ping -c 2 -W 5 -s 56 {}", V4.host));
    assert!(said.contains(" 0% packet loss"), "{said}");
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
    let lines = lines(&log);
    let tcp = ends(&lines, 5001)[0];
    assert_eq!((&tcp["protocol"], &tcp["uid"]), (&"tcp".into(), &0.into()));
    let pings = speaking(&lines, "icmp");
    assert_eq!((pings.len(), bytes(pings[0])), (1, (168, 168)));
}
