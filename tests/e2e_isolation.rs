//! A flow that nobody reads, or reads slowly, or that nobody answers, slows no other flow.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{Lab, Probe, V4, assert_ok};

/// What is measured here is who waits for whom: one lab at a time has the machine.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the others must get while a flow misbehaves: quick echoes, a download, an upload and new connections.
/// A network of which no host says a word.
const BLACK_NETWORK: &str = "10.0.66.0/24";

fn assert_lively(lab: &Lab) {
    let host = V4.host;
    let echo = lab.probe(
        "client",
        &format!("echo-latency {host} 7 300 --timeout 5000"),
    );
    assert_ok(&echo);
    assert!(echo["max_us"].as_u64().unwrap() < 1_000_000, "{echo}");
    assert_ok(&lab.probe(
        "client",
        &format!("get {host} 5001 100000000 --timeout 5000"),
    ));
    assert_ok(&lab.probe(
        "client",
        &format!("put {host} 5002 100000000 --timeout 5000"),
    ));
    let short = lab.probe("client", &format!("short {host} 5007 50 --timeout 5000"));
    assert_ok(&short);
    assert!(short["max_us"].as_u64().unwrap() < 1_000_000, "{short}");
}

/// A download that is not read before `go`.
fn stalled(lab: &Lab) -> Probe {
    // Below the bounds of one flow's backlog: what happens there is in `carrier/russh.rs`.
    let len = 100_000_000;
    let args = format!("source {} 5001 --ask {len} --wait --bytes {len}", V4.host);
    lab.start_probe("client", &args).connected()
}

#[test]
fn readers_that_stall_stop_nobody_and_lose_nothing() {
    let _alone = alone();
    let lab = Lab::up();
    let _underpass = lab.underpass(V4.subnet);
    let mut readers: Vec<_> = (0..4).map(|_| stalled(&lab)).collect();
    assert_lively(&lab);
    readers.iter_mut().for_each(Probe::go);
    for reader in readers {
        assert_ok(&reader.finish());
    }
}

#[test]
fn a_slow_reader_slows_nobody_and_loses_nothing() {
    let _alone = alone();
    let lab = Lab::up();
    let _underpass = lab.underpass(V4.subnet);
    let args = format!(
        "source {} 5001 --ask 200000000 --rate 2000000 --bytes 12000000",
        V4.host
    );
    let slow = lab.start_probe("client", &args).connected();
    assert_lively(&lab);
    assert_ok(&slow.finish());
}

/// One that stops for 20 seconds, and one that takes 1 MB in each of them.
#[test]
fn readers_that_stop_or_are_slow_cost_little_memory_and_lose_nothing() {
    let _alone = alone();
    let lab = Lab::up();
    let underpass = lab.underpass(V4.subnet);
    let args = |bytes: u64, how: &str| {
        format!(
            "source {} 5001 --ask {bytes} --bytes {bytes} {how}",
            V4.host
        )
    };
    let stopped = args(500_000_000, "--wait");
    let mut stopped = lab.start_probe("client", &stopped).connected();
    let slow = args(20_000_000, "--rate 1000000");
    let slow = lab.start_probe("client", &slow).connected();
    assert_lively(&lab);
    assert_ok(&slow.finish());
    stopped.go();
    assert_ok(&stopped.finish());
    let peak = underpass.peak_memory();
    assert!(peak < 100_000_000, "{peak} bytes");
}

#[test]
fn a_far_side_that_never_reads_stops_nobody() {
    let _alone = alone();
    let lab = Lab::up();
    let _underpass = lab.underpass(V4.subnet);
    let args = format!("put {} 5008 500000000 --timeout 60000", V4.host);
    let _stuck: Vec<_> = (0..4).map(|_| lab.start_probe("client", &args)).collect();
    assert_lively(&lab);
}

#[test]
fn a_scan_of_a_black_hole_delays_no_connection_to_a_live_host() {
    let _alone = alone();
    let lab = Lab::up();
    let _underpass = lab.underpass(V4.subnet);
    let scan = format!("many {} 80 1000 --timeout 60000", V4.black_hole);
    let _scan = lab.start_probe("client", &scan);
    assert_lively(&lab);
}

#[test]
fn a_scan_of_a_black_holed_network_delays_no_connection_to_a_live_host() {
    let _alone = alone();
    let lab = Lab::up();
    let _underpass = lab.underpass(&format!("{} {BLACK_NETWORK}", V4.subnet));
    // Four times each of its 254 hosts.
    let _scan = lab.start_probe(
        "client",
        "many 10.0.66.1 80 1016 --hosts 254 --timeout 60000",
    );
    assert_lively(&lab);
}

#[test]
fn an_echo_stays_quick_beside_downloads_and_uploads() {
    let _alone = alone();
    let lab = Lab::up();
    let _underpass = lab.underpass(V4.subnet);
    let downloads = (0..2).map(|_| format!("source {} 19", V4.host));
    let uploads = (0..2).map(|_| format!("put {} 5002 100000000000", V4.host));
    let _busy: Vec<_> = downloads
        .chain(uploads)
        .map(|args| lab.start_probe("client", &args))
        .collect();
    let echo = lab.probe(
        "client",
        &format!("echo-latency {} 7 300 --timeout 5000", V4.host),
    );
    assert_ok(&echo);
    assert!(echo["p50_us"].as_u64().unwrap() < 250_000, "{echo}");
}
