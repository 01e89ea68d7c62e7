//! `run` costs little beyond the login.

use std::time::Instant;

use super::*;

/// What a command of an ordinary user takes at best, beside what it takes to log in with ssh: the two in turns, for the
/// machine may do much else.
#[test]
fn a_command_starts_within_half_a_second_of_the_login() {
    let rig = Rig::new();
    let login = rig.login();
    let [_, server, rest @ ..] = &login[..] else {
        panic!("{login:?}");
    };
    let ssh = || {
        let mut command = rig.as_user("ssh");
        command
            .args(["-F", "none", "-o", "BatchMode=yes"])
            .args(rest)
            .args([server.as_str(), "true"]);
        command
    };
    let took = |command: std::process::Command| {
        let began = Instant::now();
        let output = finished(command);
        assert!(output.status.success(), "{}", said(&output));
        began.elapsed()
    };
    let rounds = (0..5).map(|_| {
        let ours = took(rig.run_command(V4.subnet, &["true"]));
        (ours, took(ssh()))
    });
    let (ours, theirs): (Vec<_>, Vec<_>) = rounds.unzip();
    let (ours, theirs) = (ours.iter().min().unwrap(), theirs.iter().min().unwrap());
    let beyond = ours.saturating_sub(*theirs);
    assert!(
        beyond < Duration::from_millis(500),
        "run: {ours:?}, ssh: {theirs:?}"
    );
}
