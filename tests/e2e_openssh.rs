//! The end-to-end tests over the user's own ssh (`tests/common/mod.rs` tells the carrier by this file's name), and those of its own.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(
    clippy::duplicate_mod,
    reason = "each of the files has the common module for itself"
)]

mod common;
#[path = "e2e_integrity.rs"]
mod integrity;
#[path = "e2e_lifecycle.rs"]
mod lifecycle;
#[path = "e2e_truth.rs"]
mod truth;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use common::{Lab, Underpass, V4, assert_ok, eventually};
use nix::sys::signal::Signal;

/// The ssh processes with a file of the lab's among their arguments.
fn ssh_processes(lab: &Lab) -> Vec<String> {
    let state = lab.file("");
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|pid| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments).into_owned();
            arguments.starts_with("ssh\0") && arguments.contains(&state)
        })
        .collect()
}

#[test]
fn ssh_does_not_outlive_us() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let lab = Lab::up();
        let mut underpass = lab.underpass(V4.subnet);
        assert_ok(&lab.probe("client", &format!("get {} 5001 1000000", V4.host)));
        assert_eq!(ssh_processes(&lab).len(), 1);
        underpass.stop(signal);
        eventually("ssh has ended", || ssh_processes(&lab).is_empty());
    }
}

/// Under sudo ssh is the caller's: its keys, and what its configuration runs.
#[test]
fn under_sudo_ssh_runs_as_who_called_it() {
    let lab = Lab::up();
    let key = lab.file("id_of_nobody");
    fs::copy(lab.file("id"), &key).unwrap();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    chown(&key, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).unwrap();
    for file in ["", "known_hosts"] {
        let mut mode = fs::metadata(lab.file(file)).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
        fs::set_permissions(lab.file(file), mode).unwrap();
    }
    let mut command = lab.up_command(&format!("-i {key} {}", V4.subnet));
    command.env("SUDO_USER", "nobody").env("SUDO_UID", "65534");
    let mut underpass = Underpass::start(command);
    assert_ok(&lab.probe("client", &format!("get {} 5001 1000000", V4.host)));
    let ssh = ssh_processes(&lab);
    let owner = fs::metadata(format!("/proc/{}", ssh[0])).unwrap().uid();
    assert_eq!((ssh.len(), owner), (1, nobody.uid.as_raw()));
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
}
