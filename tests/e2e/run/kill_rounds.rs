//! SIGKILL of each process of a run, at random moments.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::watch::{Watch, go_first};
use super::{after_first_line, signal};
use crate::common::V4;
use crate::e2e::rig::{Rig, UNDERPASS, processes_with, stray_mounts};

/// How many rounds, over all labs.
const ROUNDS: usize = 100;
/// Labs beside each other, as many as a small machine has cores.
const LABS: usize = 2;
/// How long is looked, so that what stays is told apart from what is late.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is promised.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Ours, the one that looks for processes, the maker of sockets, the command or the process that waits to be it.
/// `UNDERPASS_SEED=N` plays the moments again.
#[test]
fn whoever_of_run_is_killed_whenever_nothing_is_left() {
    let seed: u64 = std::env::var("UNDERPASS_SEED")
        .map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("UNDERPASS_SEED={seed}");
    std::thread::scope(|scope| {
        for lab in 0..LABS {
            scope.spawn(move || {
                go_first();
                let mut ground = Ground::new(seed + lab as u64);
                for round in 0..ROUNDS / LABS {
                    ground.round(round % 3 == 0);
                }
                let state = ground.rig.lab.network_state("client");
                assert_eq!(state, ground.before);
            });
        }
    });
    assert_eq!(stray_mounts(), 0);
}

/// A lab, and what it was before.
struct Ground {
    rig: Rig,
    before: String,
    /// Among the arguments of every process of a run here.
    mark: String,
    random: StdRng,
    /// How long a start takes.
    start: Duration,
}

impl Ground {
    fn new(seed: u64) -> Self {
        let rig = Rig::new();
        Self {
            before: rig.lab.network_state("client"),
            mark: rig.file("a mark among the arguments").display().to_string(),
            rig,
            random: StdRng::seed_from_u64(seed),
            start: Duration::ZERO,
        }
    }

    fn command(&self) -> Command {
        let mut command = self.rig.as_user(UNDERPASS);
        command.arg("run").args(self.rig.login());
        command.args([V4.subnet, "--publish", "18080:80", "--audit-log"]);
        command.arg(self.rig.file("audit.log"));
        command.args(["--", "sh", "-c", "echo up; read line", &self.mark]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command
    }

    /// Somebody is killed when the command is at work, or at some moment before.
    fn round(&mut self, at_work: bool) {
        let began = Instant::now();
        let mut child = self.command().spawn().unwrap();
        // Held to the end: the command does not end by itself.
        let _input = child.stdin.take();
        if at_work {
            drop(after_first_line(&mut child));
            self.start = began.elapsed();
        } else {
            // The random moment itself, which is no event.
            std::thread::sleep(self.start.mul_f64(self.random.random()));
        }
        let victims = processes_with(&self.mark);
        let family: Vec<i32> = victims.iter().map(|pid| pid.parse().unwrap()).collect();
        let namespace = self.rig.lab.namespace("client");
        let mut watch = Watch::new(Path::new(&namespace), &family);
        let killed = Instant::now();
        if let Some(victim) = victims.choose(&mut self.random) {
            // It may have been one of those that lead to ours.
            let _ = kill(Pid::from_raw(victim.parse().unwrap()), Signal::SIGKILL);
        }
        signal(&child, Signal::SIGTERM);
        child.wait().unwrap();
        while !processes_with(&self.mark).is_empty() {
            watch.wait(Duration::from_millis(100));
            assert!(
                killed.elapsed() < PATIENCE,
                "{:?} are left",
                processes_with(&self.mark)
            );
        }
        let took = watch.last().saturating_duration_since(killed);
        assert!(took < AT_ONCE, "only after {took:?}");
    }
}
