//! The ground that the other end-to-end tests stand on, looked at over the direct route: there is no carrier.

use crate::common::{Lab, V4, V6, assert_ok};

#[test]
fn two_labs_side_by_side() {
    let labs = [Lab::up(), Lab::up()];
    for lab in &labs {
        for net in [V4, V6] {
            assert_ok(&lab.probe("direct", &format!("get {} 5001 1000003", net.host)));
            // It has a route only through underpass.
            let alone = lab.result("client", &format!("connect {} 80", net.host));
            assert_eq!(alone, "ENETUNREACH");
        }
    }
}

#[test]
fn nothing_is_left_of_a_lab() {
    let lab = Lab::up();
    let state = lab.state.clone();
    let name = state.file_name().unwrap().to_str().unwrap().to_owned();
    let prefix = name.strip_prefix("underpass-lab-").unwrap().to_owned();
    assert!(state.exists());
    drop(lab);
    assert!(!state.exists());
    let left = std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(
        !left
            .iter()
            .any(|name| name.to_str().unwrap().starts_with(&format!("{prefix}-")))
    );
}

#[test]
fn a_link_with_a_delay() {
    let lab = Lab::with(&["--rtt", "20"]);
    let line = lab.probe("direct", &format!("echo-latency {} 7 10", V4.host));
    assert_ok(&line);
    let p50 = line["p50_us"].as_u64().unwrap();
    assert!((20_000..40_000).contains(&p50), "{line}");
    assert_ok(&lab.probe("direct", &format!("get {} 5001 50000000", V6.host)));
}
