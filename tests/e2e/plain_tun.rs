//! A kernel whose TUN devices know no offload: underpass says so in one line, takes a large MTU instead, and everything
//! else is as ever.

use std::process::{Command, Stdio};

use crate::common::{Lab, Underpass, V4, V6, assert_ok};

/// Builds the library that plays that kernel, into the lab's state directory.
fn kernel_without_offload(lab: &Lab) -> String {
    let library = lab.file("no_offload.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/netns-fixtures/no_offload.c");
    let built = Command::new("cc")
        .args([
            "-shared", "-fPIC", "-Wall", "-Werror", "-o", &library, source,
        ])
        .stdin(Stdio::null())
        .status()
        .expect("cc starts");
    assert!(built.success(), "{built}");
    library
}

#[test]
fn without_offload_a_large_mtu_does() {
    let lab = Lab::up();
    let library = kernel_without_offload(&lab);
    let mut command = lab.up_command(&format!("{} {}", V4.subnet, V6.subnet));
    command.env("LD_PRELOAD", library);
    let mut underpass = Underpass::start(command);
    let said: Vec<_> = underpass
        .log()
        .iter()
        .filter(|line| line.contains("no offload"))
        .cloned()
        .collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("using a large MTU instead"), "{said:?}");
    let state = lab.network_state("client");
    assert!(state.contains("\"mtu\":65520"), "{state}");

    for net in [V4, V6] {
        for size in [0, 1, 65_480, 65_481, 300_000_017_u64] {
            assert_ok(&lab.probe("client", &format!("get {} 5001 {size}", net.host)));
            assert_ok(&lab.probe("client", &format!("put {} 5002 {size}", net.host)));
        }
        assert_eq!(
            lab.result("client", &format!("connect {} 81", net.host)),
            "ECONNREFUSED"
        );
        // A host behind the client has an MTU of 1500: what comes from it says so, and gets packets that fit.
        assert_ok(&lab.probe("box", &format!("get {} 5001 5000011", net.host)));
    }
}
