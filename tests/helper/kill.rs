//! SIGKILL of each process of a run, at random moments of its start, its work and its end.
//!
//! `UNDERPASS_SEED=N` plays the moments of an earlier run again; a failure names the number.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::watch::{FIRST, Watch, go_first};
use super::*;

/// How many rounds, over all labs.
const ROUNDS: usize = 100;
/// Labs beside each other, as many as a small machine has cores.
const LABS: usize = 2;
/// What is promised.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Main,
    Guard,
    Worker,
    /// Both in one moment: nobody is left to take anything back.
    GuardAndWorker,
    Ssh,
    Sudo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Start,
    Work,
    End,
}

/// How it is run, and who there is to be killed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Direct,
    BySudo,
    Openssh,
}

/// Over every combination once in 39 rounds.
const PLANS: [(Kind, Victim); 13] = {
    use Kind::{BySudo, Direct, Openssh};
    use Victim::{Guard, GuardAndWorker, Main, Ssh, Sudo, Worker};
    [
        (Direct, Main),
        (Openssh, Ssh),
        (Direct, Guard),
        (BySudo, Sudo),
        (Direct, Worker),
        (Openssh, Main),
        (Direct, GuardAndWorker),
        (BySudo, Guard),
        (Openssh, Worker),
        (BySudo, Main),
        (Openssh, GuardAndWorker),
        (BySudo, Worker),
        (BySudo, GuardAndWorker),
    ]
};
const PHASES: [Phase; 3] = [Phase::Start, Phase::Work, Phase::End];

/// Every process that comes from `main`, whichever thread has started it, and itself; parents first.
fn family(main: i32) -> Vec<i32> {
    let mut all = vec![main];
    let mut at = 0;
    while let Some(pid) = all.get(at) {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(
                children
                    .split_whitespace()
                    .map(|pid| pid.parse::<i32>().unwrap()),
            );
        }
        at += 1;
    }
    all
}

/// A lab, and what it was before.
struct Ground {
    lab: Lab,
    before: String,
    ways: Vec<String>,
    key: String,
    by_sudo: Vec<String>,
    _dir: TempDir,
    random: StdRng,
    /// How long a start takes, by kind.
    starts: [Duration; 3],
}

/// From when on is measured, and what changes since.
struct Moment {
    began: Instant,
    family: Vec<i32>,
    watch: Watch,
}

impl Moment {
    /// Now.
    fn new(ground: &Ground, family: Vec<i32>) -> Self {
        let watch = Watch::new(Path::new(&ground.lab.namespace("client")), &family);
        let began = Instant::now();
        Self {
            began,
            family,
            watch,
        }
    }

    /// Those of the family that live.
    fn left(&self) -> impl Iterator<Item = i32> {
        self.family.iter().copied().filter(|pid| is_alive(*pid))
    }
}

/// A run that is being played with.
struct Run {
    child: Child,
    /// Held, so that nothing that is said fails.
    words: BufReader<std::process::ChildStderr>,
}

impl Run {
    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn until_ready(&mut self) {
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert_ne!(self.words.read_line(&mut line).unwrap(), 0, "it ended");
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }
}

impl Ground {
    fn new(seed: u64) -> Self {
        let lab = Lab::up();
        let key = nobody_may_enter(&lab);
        let dir = TempDir::new().unwrap();
        let mut ground = Self {
            before: lab.network_state("client"),
            ways: Vec::new(),
            by_sudo: as_nobody(&sudoers_rule(&dir)).to_vec(),
            lab,
            key,
            _dir: dir,
            random: StdRng::seed_from_u64(seed),
            starts: [Duration::ZERO; 3],
        };
        ground.ways = ground.ways();
        for kind in [Kind::Direct, Kind::BySudo, Kind::Openssh] {
            let began = Instant::now();
            let mut run = ground.start(kind);
            run.until_ready();
            ground.starts[kind as usize] = began.elapsed();
            let mut moment = Moment::new(&ground, family(run.pid()));
            run.signal(Signal::SIGTERM);
            run.child.wait().unwrap();
            ground.is_as_before(&mut moment, "the first start and stop");
        }
        ground
    }

    fn start(&self, kind: Kind) -> Run {
        let first = ["nice", "-n", &FIRST.to_string()].map(str::to_owned);
        let sudo = if kind == Kind::BySudo {
            &self.by_sudo[..]
        } else {
            &[]
        };
        let wrapper: Vec<&str> = first.iter().chain(sudo).map(String::as_str).collect();
        let carrier = if kind == Kind::Openssh {
            "openssh"
        } else {
            "russh"
        };
        let args = format!(
            "--carrier {carrier} -i {} {} {} 0.0.0.0/0 -x {}/32 --name a",
            self.key,
            V4.subnet,
            common::V6.subnet,
            V4.other
        );
        let mut command = self.lab.wrapped_up_command(&wrapper, &args);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let words = BufReader::new(child.stderr.take().unwrap());
        Run { child, words }
    }

    /// Where packets to some hosts go.
    fn ways(&self) -> Vec<String> {
        let hosts = [V4.host, V4.other, common::V6.host, "203.0.113.9"];
        let ways = hosts.map(|host| {
            let mut command = self.lab.command("client", "ip");
            command.args(["route", "get", host]);
            let output = finished(command);
            String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
        });
        ways.to_vec()
    }

    fn moment(&mut self, longest: Duration) {
        // The random moment itself, which is no event.
        std::thread::sleep(longest.mul_f64(self.random.random::<f64>()));
    }

    /// Within [`AT_ONCE`] of the moment no process was left, and `holds`. What is late is told apart from what stays.
    fn at_once(&self, moment: &mut Moment, what: &str, holds: impl Fn(&Self) -> bool) {
        while moment.left().count() > 0 || !holds(self) {
            moment.watch.wait(Duration::from_millis(100));
            assert!(
                moment.began.elapsed() < PATIENCE,
                "{what}: {:?} are left, and {}",
                moment.left().collect::<Vec<_>>(),
                self.lab.network_state("client")
            );
        }
        let took = moment.watch.last().saturating_duration_since(moment.began);
        assert!(took < AT_ONCE, "{what}: only after {took:?}");
    }

    fn is_as_before(&self, moment: &mut Moment, what: &str) {
        self.at_once(moment, what, |ground| {
            ground.lab.network_state("client") == ground.before
        });
    }

    /// The process of `victim`, where it is there.
    fn find(&self, victim: Victim, family: &[i32]) -> Vec<i32> {
        let named = |name: &str| {
            let mut found = family.iter().copied();
            found.find(|pid| status(*pid, "Name").as_deref() == Some(name))
        };
        // The guard is the worker's parent, so it comes first.
        let helpers: Vec<i32> = family
            .iter()
            .copied()
            .filter(|pid| is_helper(*pid))
            .collect();
        match (victim, helpers.as_slice()) {
            (Victim::Main, _) => vec![family[0]],
            (Victim::Guard, [guard, ..]) => vec![*guard],
            (Victim::Worker, [_, worker]) => vec![*worker],
            (Victim::GuardAndWorker, both @ [_, _]) => both.to_vec(),
            (Victim::Ssh, _) => named("ssh").into_iter().collect(),
            (Victim::Sudo, _) => named("sudo").into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn round(&mut self, kind: Kind, wanted: Victim, phase: Phase) -> Victim {
        let mut run = self.start(kind);
        let start = self.starts[kind as usize];
        if phase == Phase::Start {
            self.moment(start);
        } else {
            run.until_ready();
            self.moment(Duration::from_millis(20));
        }
        let family = family(run.pid());
        if phase == Phase::End {
            run.signal(Signal::SIGTERM);
            self.moment(Duration::from_millis(20));
        }
        let mut victim = wanted;
        let mut victims = self.find(victim, &family);
        if victims.is_empty() {
            // It is not there yet.
            victim = Victim::Main;
            victims = vec![run.pid()];
        }
        // Stopped first, they die in one moment. sudo stops with what it runs, and would stay so: there they are killed one
        // behind the other, and the second may have begun to take something back.
        let is_one_moment = victims.len() > 1 && kind != Kind::BySudo;
        if is_one_moment {
            send(&victims, Signal::SIGSTOP);
        }
        let mut moment = Moment::new(self, family);
        send(&victims, Signal::SIGKILL);
        let what = format!("{kind:?}, {victim:?} killed in {phase:?}");
        match victim {
            Victim::Ssh | Victim::Sudo => {
                // The run may go on; it has to end in order then.
                run.signal(Signal::SIGTERM);
                self.is_as_before(&mut moment, &what);
            }
            Victim::GuardAndWorker => {
                let all_is_left = is_one_moment && phase == Phase::Work;
                self.nothing_captures(&mut moment, all_is_left, &what);
            }
            Victim::Main | Victim::Guard | Victim::Worker => {
                self.is_as_before(&mut moment, &what);
            }
        }
        run.child.wait().unwrap();
        assert_eq!(self.lab.ask("cleanup").status.code(), Some(0), "{what}");
        // Whose sudo was killed may be about to take its directory along.
        let directory = self.lab.state.join("run");
        common::eventually("the run has ended", || !directory.exists());
        self.lab.nothing_runs();
        victim
    }

    /// Rules may stay, but what they lead to is empty; `cleanup` finds and removes them.
    fn nothing_captures(&self, moment: &mut Moment, all_is_left: bool, what: &str) {
        self.at_once(moment, what, |ground| ground.ways() == ground.ways);
        let state = self.lab.network_state("client");
        assert!(!state.contains(r#""dev":"underpass0""#), "{what}: {state}");
        let output = self.lab.ask("cleanup");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{what}: {said}");
        if all_is_left {
            // Two rules of each version and those for 0.0.0.0/0; what throws out in their tables.
            assert!(
                said.contains("rules") && said.contains("routes"),
                "{what}: {said}"
            );
        }
        assert_eq!(
            self.lab.network_state("client"),
            self.before,
            "{what}: {said}"
        );
    }
}

fn send(pids: &[i32], signal: Signal) {
    for pid in pids {
        // It may have ended by itself.
        let _ = kill(Pid::from_raw(*pid), signal);
    }
}

fn is_helper(pid: i32) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.ends_with(b"helper\0") && status(pid, "Name").as_deref() == Some("underpass")
}

fn seed() -> u64 {
    match std::env::var("UNDERPASS_SEED") {
        Ok(seed) => seed.parse().expect("UNDERPASS_SEED is a number"),
        Err(_) => rand::random(),
    }
}

#[test]
fn whoever_is_killed_whenever_the_host_is_as_before() {
    let seed = seed();
    println!("UNDERPASS_SEED={seed}");
    let resolver = || fs::read("/etc/resolv.conf").ok();
    let resolver_before = resolver();
    let killed = std::thread::scope(|scope| {
        let labs: Vec<_> = (0..LABS)
            .map(|lab| {
                scope.spawn(move || {
                    go_first();
                    let mut ground = Ground::new(seed + lab as u64);
                    let rounds = (lab..ROUNDS).step_by(LABS);
                    let killed = rounds.map(|round| {
                        let (kind, victim) = PLANS[round / LABS % PLANS.len()];
                        let phase = *PHASES.choose(&mut ground.random).unwrap();
                        ground.round(kind, victim, phase)
                    });
                    killed.collect::<BTreeSet<_>>()
                })
            })
            .collect();
        let killed = labs.into_iter().map(|lab| lab.join().unwrap());
        killed.flatten().collect::<BTreeSet<_>>()
    });
    assert_eq!(killed.len(), 6, "not everybody was killed: {killed:?}");
    assert_eq!(resolver(), resolver_before);
}
