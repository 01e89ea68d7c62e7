//! Every byte arrives, in order, exactly once, and both directions close on their own.

use crate::common::{Lab, Net, V4, V6, assert_ok, eventually};

const GB: u64 = 1_000_000_000;

fn both() -> String {
    format!("{} {}", V4.subnet, V6.subnet)
}

/// Each probe of `probes` (`NAME PORT`) with each of `sizes`.
fn transfer(lab: &Lab, role: &str, net: &Net, probes: &[(&str, u16)], sizes: &[u64]) {
    for (probe, port) in probes {
        for size in sizes {
            assert_ok(&lab.probe(role, &format!("{probe} {} {port} {size}", net.host)));
        }
    }
}

const BOTH_WAYS: [(&str, u16); 5] = [
    ("get", 5001),
    ("put", 5002),
    ("half-close", 5003),
    ("far-close", 5009),
    ("http", 80),
];

/// Around the sizes of a segment, a channel packet, a window and a GSO packet.
const SMALL: [u64; 10] = [
    0, 1, 1460, 1461, 32_768, 32_769, 65_536, 262_145, 1_048_577, 5_000_011,
];

#[test]
fn small_transfers_over_ipv4() {
    let lab = Lab::up();
    let _underpass = lab.underpass(V4.subnet);
    transfer(&lab, "client", &V4, &BOTH_WAYS, &SMALL);
}

#[test]
fn small_transfers_over_ipv6() {
    let lab = Lab::up();
    let _underpass = lab.underpass(V6.subnet);
    transfer(&lab, "client", &V6, &BOTH_WAYS, &SMALL);
}

#[test]
fn a_gigabyte_down() {
    let lab = Lab::up();
    let _underpass = lab.underpass(V4.subnet);
    transfer(&lab, "client", &V4, &[("get", 5001)], &[GB]);
}

#[test]
fn a_gigabyte_up() {
    let lab = Lab::up();
    let _underpass = lab.underpass(V4.subnet);
    transfer(&lab, "client", &V4, &[("put", 5002)], &[GB]);
}

/// Over IPv6 the device cuts our packets by what smoltcp does not do itself.
#[test]
fn large_transfers_over_ipv6() {
    let lab = Lab::up();
    let _underpass = lab.underpass(V6.subnet);
    transfer(
        &lab,
        "client",
        &V6,
        &[("get", 5001), ("put", 5002)],
        &[300_000_007],
    );
}

/// The client is then a router: underpass meets packets of an MTU of 1500 that it has not made itself.
#[test]
fn a_container_behind_the_client() {
    let lab = Lab::up();
    let _underpass = lab.underpass(&both());
    for net in [V4, V6] {
        transfer(&lab, "box", &net, &BOTH_WAYS, &[0, 1461, 50_000_017]);
        assert_eq!(
            lab.result("box", &format!("connect {} 81", net.host)),
            "ECONNREFUSED"
        );
    }
}

#[test]
fn the_server_may_speak_first() {
    let lab = Lab::up();
    let _underpass = lab.underpass(&both());
    for net in [V4, V6] {
        assert_ok(&lab.probe("client", &format!("banner {} 5005", net.host)));
    }
}

/// sshd tells a reset as an end of data (its channel_handle_rfd), and the bytes before it have to be there. It closes the
/// channel when it cannot write on, and that is a reset again.
#[test]
fn a_reset_of_the_far_side_ends_the_flow() {
    let lab = Lab::up();
    let _underpass = lab.underpass(&both());
    for net in [V4, V6] {
        let line = lab.probe("client", &format!("rst {} 5006", net.host));
        assert_eq!(line["bytes"], 1000, "{line}");
        match crate::common::result_of(&line) {
            "ECONNRESET" => {}
            "eof" => assert!(
                ["EPIPE", "ECONNRESET"].iter().any(|e| line["then"] == *e),
                "{line}"
            ),
            _ => panic!("{line}"),
        }
    }
}

#[test]
fn an_application_that_dies_midway_frees_the_far_side() {
    let lab = Lab::up();
    let _underpass = lab.underpass(V4.subnet);
    let download = lab
        .start_probe("client", &format!("source {} 19", V4.host))
        .connected();
    eventually("the far side has the connection", || {
        lab.far_connections(19) == 1
    });
    drop(download);
    eventually("the far side has lost it", || lab.far_connections(19) == 0);
}

#[test]
fn a_thousand_connections_at_a_time() {
    let lab = Lab::up();
    let _underpass = lab.underpass(&both());
    for net in [V4, V6] {
        let line = lab.probe("client", &format!("many {} 7 1000", net.host));
        assert_ok(&line);
        assert_eq!(line["open"], 1000);
    }
}

#[test]
fn short_connections_come_and_go() {
    let lab = Lab::up();
    let _underpass = lab.underpass(V4.subnet);
    assert_ok(&lab.probe(
        "client",
        &format!("short {} 5007 1000 --parallel 16", V4.host),
    ));
    eventually("the far side has none left", || {
        lab.far_connections(5007) == 0
    });
}

#[test]
fn a_restricted_key_is_enough() {
    let lab = Lab::up();
    let _underpass = lab.underpass(&format!("-p 2201 {}", V4.subnet));
    transfer(&lab, "client", &V4, &BOTH_WAYS, &[1_000_003]);
}

#[test]
fn a_server_that_allows_no_session_is_enough() {
    let lab = Lab::up();
    let _underpass = lab.underpass(&format!("-p 2203 {}", V4.subnet));
    transfer(&lab, "client", &V4, &BOTH_WAYS, &[1_000_003]);
}
