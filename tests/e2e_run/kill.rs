//! SIGKILL of each process of a run, at random moments.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::common::V4;
use super::rig::{Rig, UNDERPASS, processes_with, stray_mounts};
use super::watch::Watch;
use super::{after_first_line, signal};

/// How long is looked, so that what stays is told apart from what is late.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is promised.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Ours, the maker of sockets, the command or the process that waits to be it. `UNDERPASS_SEED=N` plays the moments again.
#[test]
fn whoever_of_run_is_killed_whenever_nothing_is_left() {
    let rig = Rig::new();
    let state = rig.lab.network_state("client");
    let mark = rig.file("a mark among the arguments").display().to_string();
    let seed = std::env::var("UNDERPASS_SEED")
        .map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("UNDERPASS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut start = Duration::ZERO;
    for round in 0..30 {
        let mut command = rig.as_user(UNDERPASS);
        command.arg("run").args(rig.login());
        command.args([
            V4.subnet,
            "--publish",
            "18080:80",
            "--",
            "sh",
            "-c",
            "echo up; read line",
            &mark,
        ]);
        let began = Instant::now();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        if round % 3 == 0 {
            drop(after_first_line(&mut child));
            start = began.elapsed();
        } else {
            // The random moment itself, which is no event.
            std::thread::sleep(start.mul_f64(random.random()));
        }
        let victims = processes_with(&mark);
        let family: Vec<i32> = victims.iter().map(|pid| pid.parse().unwrap()).collect();
        let mut watch = Watch::new(Path::new(&rig.lab.namespace("client")), &family);
        let killed = Instant::now();
        if let Some(victim) = victims.choose(&mut random) {
            // It may have been one of those that lead to ours.
            let _ = kill(Pid::from_raw(victim.parse().unwrap()), Signal::SIGKILL);
        }
        signal(&child, Signal::SIGTERM);
        drop(child.stdin.take());
        child.wait().unwrap();
        while !processes_with(&mark).is_empty() {
            watch.wait(Duration::from_millis(100));
            assert!(
                killed.elapsed() < PATIENCE,
                "{:?} are left",
                processes_with(&mark)
            );
        }
        let took = watch.last().saturating_duration_since(killed);
        assert!(took < AT_ONCE, "only after {took:?}");
    }
    assert_eq!(rig.lab.network_state("client"), state);
    assert_eq!(stray_mounts(), 0);
}
