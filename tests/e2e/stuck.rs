//! An instance that does not answer: whoever asks is told soon, and what to do.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::{Lab, V4, eventually};

/// Each question waits five seconds, and `down` asks who is there first.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_stopped_instance_is_told_of_and_can_be_ended() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let mut underpass = lab.underpass(&format!("--name a {}", V4.subnet));
    underpass.signal(Signal::SIGSTOP);
    let advice = format!("kill -KILL {}", underpass.pid());
    for question in ["status", "down a", "flows"] {
        let began = Instant::now();
        let output = lab.ask(question);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{question}: {said}");
        assert!(said.contains(&advice), "{question}: {said}");
        assert!(began.elapsed() < SOON, "{question}: {:?}", began.elapsed());
    }
    underpass.stop(Signal::SIGKILL);
    eventually("the host is as before", || {
        lab.network_state("client") == before
    });
    let output = lab.ask("cleanup");
    assert!(output.status.success(), "{output:?}");
    lab.nothing_runs();
}
