//! UDP and ping without a tunnel: by a helper on the server, by its own ping, by TCP ports; and what is refused where none of that
//! can be.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::datagrams::{answers, ask, shell};
use crate::common::{Lab, V4, V6, Value, eventually};

/// The port of a server that permits tunnels.
const TUNNELS: u16 = 2251;

/// What `status --json` says of what is no TCP.
fn report(lab: &Lab) -> Value {
    let status = lab.ask("status --json");
    let mut reports: Value = serde_json::from_slice(&status.stdout).unwrap();
    reports[0]["beside"].take()
}

/// How many of two pings each of some hosts answers.
fn pinged(lab: &Lab, hosts: &[&str]) -> Vec<u32> {
    let hosts = hosts.join(" ");
    let each = "ping -c 2 -W 2 $host | sed -n \"s/.*transmitted, \\(.\\).*/$host \\1/p\"";
    let said = shell(
        lab,
        "client",
        &format!("for host in {hosts}; do {each} & done; wait"),
    );
    let of = |host: &str| {
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{host} ")));
        line.unwrap_or_else(|| panic!("{host}: {said}"))
            .parse()
            .unwrap()
    };
    hosts.split(' ').map(of).collect()
}

#[test]
fn datagrams_go_by_a_helper_on_the_server() {
    let lab = Lab::up();
    let before = (lab.network_state("bastion"), lab.processes("bastion").len());
    let _v4 = answers(&lab, "vpc", V4.host, 7777);
    let _v6 = answers(&lab, "vpc", V6.host, 7777);
    let mut underpass = lab.underpass(&format!(
        "--udp {} {}=10.9.2.0/24 {}",
        V4.subnet, "10.0.2.0/24", V6.subnet
    ));
    assert_eq!(
        report(&lab)["udp"],
        "by a helper on the server, once there is something to carry"
    );
    for host in [V4.host, V6.host] {
        // From here, and from a container.
        for role in ["client", "box"] {
            let said = ask(&lab, role, host, 7777, "0 1 1400");
            assert_eq!(said, "0 same\n1 same\n1400 same\n", "{role}");
        }
        let said = ask(&lab, "client", host, 7778, "1");
        assert_eq!(said, "1 Connection refused\n");
    }
    assert_eq!(report(&lab)["udp"], "by python3");
    // An address that stands for another.
    let _other = answers(&lab, "vpc", "10.0.2.20", 7777);
    assert_eq!(ask(&lab, "client", "10.9.2.20", 7777, "100"), "100 same\n");
    // The way: the server, then the host.
    let said = shell(&lab, "client", &format!("ping -c 1 -t 1 -W 1 {}", V4.host));
    assert!(said.contains("100% packet loss"), "{said}");
    // A lost connection, and its end.
    lab.kill_sshd_at(22);
    underpass.wait_for_line("connection lost");
    lab.start_sshd_at(22);
    eventually("datagrams go again", || {
        ask(&lab, "client", V4.host, 7777, "9") == "9 same\n"
    });
    assert!(underpass.stop(Signal::SIGTERM).success());
    eventually("nothing stays on the server", || {
        (lab.network_state("bastion"), lab.processes("bastion").len()) == before
    });
}

#[test]
fn where_nothing_carries_datagrams_they_are_refused_and_it_says_why() {
    let lab = Lab::up();
    // No command runs there.
    let mut underpass = lab.underpass(&format!(
        "-r root@192.168.77.1:2203 --udp --ping {}",
        V4.subnet
    ));
    let said = ask(&lab, "client", V4.host, 7777, "1");
    assert_eq!(said, "1 silence\n", "the first one waits for the helper");
    eventually("it is known", || {
        ask(&lab, "client", V4.host, 7777, "1") == "1 Connection refused\n"
    });
    let udp = report(&lab)["udp"].as_str().unwrap().to_owned();
    assert!(
        udp.starts_with("not carried: the server runs no command for this login"),
        "{udp}"
    );
    assert_eq!(pinged(&lab, &[V4.host]), [0]);
    assert!(underpass.stop(Signal::SIGTERM).success());
    // Nobody has asked for it.
    let mut underpass = lab.underpass(V4.subnet);
    assert_eq!(
        ask(&lab, "client", V4.host, 7777, "1"),
        "1 Connection refused\n"
    );
    assert_eq!(pinged(&lab, &[V4.host]), [0]);
    assert_eq!(
        (&report(&lab)["udp"], &report(&lab)["ping"]),
        (&"".into(), &"".into())
    );
    assert!(underpass.stop(Signal::SIGTERM).success());
}

/// Never an answer for a host that was not heard from.
#[test]
fn pings_are_answered_for_hosts_that_were_heard_from() {
    let lab = Lab::up();
    for (how, server) in [("--ping", 22), ("--ping=probe", 22), ("--ping=probe", 2201)] {
        let mut underpass = lab.underpass(&format!(
            "-r root@192.168.77.1:{server} {how} {} {}",
            V4.subnet, V6.subnet
        ));
        let hosts = [
            V4.host,
            V6.host,
            V4.no_such_host,
            V6.no_such_host,
            V4.black_hole,
        ];
        assert_eq!(pinged(&lab, &hosts), [2, 2, 0, 0, 0], "{how}");
        let said = shell(&lab, "client", &format!("ping -c 1 -t 1 -W 2 {}", V4.host));
        assert!(
            said.contains("From 192.168.77.1 ") && said.contains("Time to live"),
            "{said}"
        );
        assert!(underpass.stop(Signal::SIGTERM).success());
    }
}

#[test]
fn a_commands_network_has_them_as_well() {
    let lab = Lab::up();
    let _server = answers(&lab, "vpc", V4.host, 7777);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/datagrams.py");
    let command = format!(
        "python3 {script} ask {} 7777 1 1400; python3 {script} ask 192.168.77.1 7777 1; ping -c 1 -W 5 {}",
        V4.host, V4.host
    );
    let said = shell(
        &lab,
        "client",
        &format!(
            "HOME={} {} run -q --carrier {} -r root@192.168.77.1 -i {} -o UserKnownHostsFile={} --udp --ping {} -- sh -c '{command}'",
            lab.file(""),
            env!("CARGO_BIN_EXE_underpass"),
            crate::common::carrier(),
            lab.file("id"),
            lab.file("known_hosts"),
            V4.subnet
        ),
    );
    assert!(
        said.starts_with("1 same\n1400 same\n1 Connection refused\n")
            && said.contains(" 0% packet loss"),
        "{said}"
    );
}

#[test]
fn what_is_in_use_does_not_end_as_idle() {
    let lab = Lab::up();
    lab.further_sshd(TUNNELS, "authorized_keys", "PermitTunnel yes");
    let _server = answers(&lab, "vpc", V4.host, 7777);
    let tunnel = format!("--carrier openssh -r root@192.168.77.1:{TUNNELS} --tunnel=full");
    for how in ["--udp", &tunnel] {
        let mut underpass = lab.underpass(&format!("{how} --idle-timeout 3s {}", V4.subnet));
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(6) {
            assert_eq!(ask(&lab, "client", V4.host, 7777, "9"), "9 same\n", "{how}");
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(underpass.wait().success());
        let log = underpass.log();
        let line = "no connection was open for 3s, and no datagram, ping or packet passed (--idle-timeout)";
        assert!(log.iter().any(|said| said.contains(line)), "{log:?}");
    }
}
