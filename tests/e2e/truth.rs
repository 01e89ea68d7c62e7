//! Open means open, refused means refused: what an application sees through underpass is what it sees over a route of
//! its own, for every answer that the far side can give.

use crate::common::{Lab, Net, V4, V6};

/// Both networks: the one with the hosts, and the one that the bastion has no route to.
fn both(net: &Net) -> String {
    format!("{} {}", net.subnet, net.unrouted)
}

/// The same probe over the direct route and through underpass; the table holds what both must say.
fn truth(net: &Net, prohibited: &str) {
    let lab = Lab::up();
    let mut underpass = lab.underpass(&both(net));
    let table = [
        ("connect", net.host, "80", "open"),
        ("connect", net.host, "81", "ECONNREFUSED"),
        ("connect", net.no_such_host, "80", "EHOSTUNREACH"),
        ("connect", net.no_such_net, "80", "ENETUNREACH"),
        ("connect", net.prohibited, "80", prohibited),
        ("connect --timeout 2500", net.black_hole, "80", "timeout"),
        ("udp", net.host, "80", "ECONNREFUSED"),
    ];
    for (probe, host, port, expected) in table {
        let args = format!("{probe} {host} {port}");
        let direct = lab.result("direct", &args);
        let through = lab.result("client", &args);
        assert_eq!(
            (&*direct, &*through),
            (expected, expected),
            "{args}: direct, through underpass"
        );
    }
    // A packet filter in the far network is no policy of the SSH server.
    let log = underpass.log();
    assert!(
        !log.iter().any(|line| line.contains("PermitOpen")),
        "{log:?}"
    );
}

#[test]
fn every_answer_is_the_direct_routes_answer_over_ipv4() {
    truth(&V4, "EHOSTUNREACH");
}

#[test]
fn every_answer_is_the_direct_routes_answer_over_ipv6() {
    truth(&V6, "EACCES");
}

/// The refusals come as fast as the far side gives them, not after a retransmitted SYN.
#[test]
fn a_refusal_is_seen_at_once() {
    let lab = Lab::up();
    let _underpass = lab.underpass(&format!("{} {}", V4.subnet, V6.subnet));
    for net in [V4, V6] {
        let line = lab.probe("client", &format!("connect {} 81", net.host));
        assert!(line["ms"].as_f64().unwrap() < 500.0, "{line}");
    }
}

#[test]
fn nobody_answers_a_ping_in_the_far_hosts_name() {
    let lab = Lab::up();
    let _underpass = lab.underpass(&format!("{} {}", V4.subnet, V6.subnet));
    for net in [V4, V6] {
        let ping = format!("ping --timeout 700 {}", net.host);
        assert_eq!(lab.result("client", &ping), "timeout");
        let ping = format!("ping --timeout 700 {}", net.no_such_host);
        assert_eq!(lab.result("client", &ping), "timeout");
    }
}

#[test]
fn what_the_server_prohibits_is_prohibited_and_the_setting_is_named_once() {
    let lab = Lab::up();
    let mut underpass = lab.underpass(&format!("-p 2202 {} {}", V4.subnet, V6.subnet));
    for (net, errno) in [(V4, "EHOSTUNREACH"), (V6, "EACCES")] {
        assert_eq!(
            lab.result("client", &format!("connect {} 80", net.host)),
            "open"
        );
        for port in [7, 81] {
            assert_eq!(
                lab.result("client", &format!("connect {} {port}", net.host)),
                errno
            );
        }
    }
    underpass.wait_for_line("PermitOpen");
    let named = underpass
        .log()
        .iter()
        .filter(|line| line.contains("PermitOpen"))
        .count();
    assert_eq!(named, 1);
}
