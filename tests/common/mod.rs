//! The end-to-end tests' ground: a lab of network namespaces per test (`netns-fixtures/lab` draws it), underpass in its
//! client, probes in any of its hosts. Needs root; a test that cannot have its lab fails.
//!
//! With `LAB_KEEP=1` in the environment the lab of a failed test stays, to be looked at.

#![allow(dead_code, unreachable_pub)] // each test file uses its part
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
pub use serde_json::Value;

/// Both carriers, for a test that runs over each of them in one lab.
pub const CARRIERS: [&str; 2] = ["russh", "openssh"];

/// Which carrier a test runs over: its crate's name says so. `tests/e2e_openssh*.rs` hold the tests of other files again.
pub fn carrier() -> &'static str {
    if env!("CARGO_CRATE_NAME").starts_with("e2e_openssh") {
        "openssh"
    } else {
        "russh"
    }
}

const UNDERPASS: &str = env!("CARGO_BIN_EXE_underpass");
/// How long anything may take that should take a moment.
const PATIENCE: Duration = Duration::from_secs(30);

/// The addresses of one family in the lab.
pub struct Net {
    /// What underpass is asked to capture.
    pub subnet: &'static str,
    /// The services; every other port is closed.
    pub host: &'static str,
    /// A second host with the services.
    pub other: &'static str,
    /// Answers everything with "administratively prohibited".
    pub prohibited: &'static str,
    pub black_hole: &'static str,
    pub no_such_host: &'static str,
    /// In a network that the bastion has no route to, and that network.
    pub no_such_net: &'static str,
    pub unrouted: &'static str,
}

pub const V4: Net = Net {
    subnet: "10.0.1.0/24",
    host: "10.0.1.20",
    other: "10.0.1.21",
    prohibited: "10.0.1.30",
    black_hole: "10.0.1.66",
    no_such_host: "10.0.1.99",
    no_such_net: "10.0.9.1",
    unrouted: "10.0.9.0/24",
};

pub const V6: Net = Net {
    subnet: "fd00:10:0:1::/64",
    host: "fd00:10:0:1::20",
    other: "fd00:10:0:1::21",
    prohibited: "fd00:10:0:1::30",
    black_hole: "fd00:10:0:1::66",
    no_such_host: "fd00:10:0:1::99",
    no_such_net: "fd00:10:0:9::1",
    unrouted: "fd00:10:0:9::/64",
};

/// A lab of its own for one test; gone when dropped.
pub struct Lab {
    prefix: String,
    /// Keys, known_hosts, logs: see `netns-fixtures/lab`.
    pub state: PathBuf,
}

impl Lab {
    pub fn up() -> Self {
        Self::with(&[])
    }

    /// With options of `lab up`, such as `--rtt 20`.
    pub fn with(options: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("t{}-{count}", std::process::id());
        let state = output(lab_script(&["state", &prefix]));
        // Made before `up`, so that its drop also clears a lab that came up halfway.
        let lab = Self {
            prefix,
            state: state.trim().into(),
        };
        output(lab_script(&[&["up", &lab.prefix], options].concat()));
        lab
    }

    /// The file of a host's network namespace.
    pub fn namespace(&self, role: &str) -> String {
        format!("/run/netns/{}-{role}", self.prefix)
    }

    /// A command to be run on a host of the lab.
    pub fn command(&self, role: &str, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.namespace(role)))
            .arg(program.as_ref());
        command.stdin(Stdio::null());
        command
    }

    /// Lets another user in: to the state directory, known_hosts, and a key of their own, `id_of_NAME`.
    pub fn open_to(&self, name: &str) {
        let user = nix::unistd::User::from_name(name).unwrap().unwrap();
        let key = self.file(&format!("id_of_{name}"));
        std::fs::copy(self.file("id"), &key).unwrap();
        let owner = (user.uid.as_raw(), user.gid.as_raw());
        std::os::unix::fs::chown(&key, Some(owner.0), Some(owner.1)).unwrap();
        for file in ["", "known_hosts"] {
            let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(self.file(file), readable).unwrap();
        }
    }

    /// A file of the lab's state directory, as an argument.
    pub fn file(&self, name: &str) -> String {
        self.state.join(name).display().to_string()
    }

    /// `underpass up` in the client with the lab's key and known_hosts; `args` are split at blanks.
    pub fn up_command(&self, args: &str) -> Command {
        self.wrapped_up_command(&[], args)
    }

    /// The same, run by way of another program such as `setpriv`. A session of its own: there is no tty to ask on.
    pub fn wrapped_up_command(&self, wrapper: &[&str], args: &str) -> Command {
        let mut command = self.command("client", "setsid");
        command.args(wrapper).arg(UNDERPASS).arg("up");
        let given = |option: &str| args.split_whitespace().any(|arg| arg == option);
        if !given("--carrier") {
            command.args(["--carrier", carrier()]);
        }
        if !given("-r") {
            command.args(["-r", "root@192.168.77.1"]);
        }
        if !given("-i") {
            command.args(["-i", &self.file("id")]);
        }
        if !args.contains("UserKnownHostsFile=") {
            command.args([
                "-o",
                &format!("UserKnownHostsFile={}", self.file("known_hosts")),
            ]);
        }
        command.args(args.split_whitespace());
        self.is_home_of(&mut command);
        command
    }

    /// An underpass or its user has nothing of this machine's, and can be found by [`ask`](Self::ask).
    pub fn is_home_of(&self, command: &mut Command) {
        command
            .env("HOME", &self.state)
            .env("UNDERPASS_RUNTIME_DIR", self.state.join("run"))
            .env_remove("SSH_AUTH_SOCK")
            .env("NO_COLOR", "1");
    }

    /// A further host that nothing leads to: a role of its own.
    pub fn further_host(&self, role: &str) -> Host<'_> {
        let mut command = Command::new("ip");
        command.args(["netns", "add", &format!("{}-{role}", self.prefix)]);
        output(command);
        Host {
            lab: self,
            role: role.to_owned(),
        }
    }

    /// Another command of underpass, such as `status`, that is to find what runs in this lab.
    pub fn ask(&self, args: &str) -> Output {
        let mut command = self.command("client", UNDERPASS);
        command
            .args(args.split_whitespace())
            .env("UNDERPASS_RUNTIME_DIR", self.state.join("run"))
            .env("NO_COLOR", "1");
        finished(command)
    }

    /// Fails where an instance has left its socket, its lock or their directory in this lab.
    pub fn nothing_runs(&self) {
        let directory = self.state.join("run");
        let left = std::fs::read_dir(&directory).into_iter().flatten();
        let left: Vec<_> = left
            .map(|entry| entry.expect("it can be read").path())
            .collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(!directory.exists(), "the directory stayed");
    }

    /// Underpass at work in the client: returns when it has said that it is ready.
    pub fn underpass(&self, args: &str) -> Underpass {
        Underpass::start(self.up_command(args))
    }

    /// A probe's last word; `args` as for `lab-probe`, split at blanks.
    pub fn probe(&self, role: &str, args: &str) -> Value {
        self.start_probe(role, args).finish()
    }

    /// A probe's `result` only.
    pub fn result(&self, role: &str, args: &str) -> String {
        result_of(&self.probe(role, args)).to_owned()
    }

    /// A probe that goes on while the test does something else.
    pub fn start_probe(&self, role: &str, args: &str) -> Probe {
        let mut command = self.command(role, example("lab-probe"));
        command
            .args(args.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("nsenter starts");
        let lines = lines_of(child.stdout.take().expect("stdout is piped"));
        Probe {
            args: args.to_owned(),
            child,
            lines,
        }
    }

    /// What a host's kernel knows about links, addresses, rules, routes and filters. Two of these are compared.
    pub fn network_state(&self, role: &str) -> String {
        const PARTS: [&str; 7] = [
            "ip -j link",
            "ip -j address",
            "ip -j -4 rule",
            "ip -j -6 rule",
            "ip -j -4 route show table all",
            "ip -j -6 route show table all",
            "nft list ruleset",
        ];
        let part = |line: &&str| {
            let (program, args) = line.split_once(' ').expect("a program and arguments");
            let mut command = self.command(role, program);
            command.args(args.split(' '));
            format!("{line}\n{}", output(command))
        };
        PARTS.iter().map(part).collect()
    }

    /// Kills every sshd of the bastion, sessions included, as a crash would.
    pub fn kill_sshd(&self) {
        self.signal_sshd(Signal::SIGKILL);
    }

    /// Sends a signal to every sshd of the bastion, sessions included.
    pub fn signal_sshd(&self, signal: Signal) {
        for pid in self.processes("bastion") {
            // One may be gone by now because its parent is.
            let _ = kill(pid, signal);
        }
    }

    /// What runs on a host of the lab.
    pub fn processes(&self, role: &str) -> Vec<Pid> {
        let mut command = Command::new("ip");
        command.args(["netns", "pids", &format!("{}-{role}", self.prefix)]);
        let pids = output(command);
        let pids = pids.split_whitespace();
        pids.map(|pid| Pid::from_raw(pid.parse().expect("a pid")))
            .collect()
    }

    /// A further sshd in the bastion, as that on port 22 but for `port`, its keys and what `more` says. It goes with the lab.
    pub fn further_sshd(&self, port: u16, authorized_keys: &str, more: &str) {
        let config = std::fs::read_to_string(self.file("sshd-22.conf")).expect("the lab's own");
        let config = config
            .replace("Port 22\n", &format!("Port {port}\n"))
            .replace("sshd-22.pid", &format!("sshd-{port}.pid"))
            .replace("/authorized_keys\n", &format!("/{authorized_keys}\n"));
        let file = self.file(&format!("sshd-{port}.conf"));
        std::fs::write(&file, format!("{config}{more}\n")).expect("it can be written");
        self.start_further_sshd_at(port);
        // As its fellows' is, on port 22.
        let known = std::fs::read_to_string(self.file("known_hosts")).expect("the lab's own");
        let own = known.replace("[192.168.77.1]:2201", &format!("[192.168.77.1]:{port}"));
        std::fs::write(self.file("known_hosts"), format!("{known}{own}"))
            .expect("it can be written");
    }

    /// Starts such a one again.
    pub fn start_further_sshd_at(&self, port: u16) {
        // Its parent ends before it listens; its pid file is written when it does.
        let pid_file = self.state.join(format!("sshd-{port}.pid"));
        let _ = std::fs::remove_file(&pid_file);
        let file = self.file(&format!("sshd-{port}.conf"));
        let mut sshd = self.command("bastion", "/usr/sbin/sshd");
        sshd.args(["-f", &file, "-E", &self.file(&format!("sshd-{port}.log"))]);
        output(sshd);
        eventually("sshd listens", || pid_file.exists());
    }

    /// Starts them again.
    pub fn start_sshd(&self) {
        output(lab_script(&["sshd", &self.prefix]));
    }

    /// Kills the bastion's sshd at one of its ports, sessions included.
    pub fn kill_sshd_at(&self, port: u16) {
        let file = self.state.join(format!("sshd-{port}.pid"));
        let listener = std::fs::read_to_string(file).expect("it runs");
        for pid in descendants(listener.trim().parse().expect("a pid")) {
            // One may be gone by now because its parent is.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// Starts it again.
    pub fn start_sshd_at(&self, port: u16) {
        output(lab_script(&["sshd", &self.prefix, &port.to_string()]));
    }

    /// TCP connections that the far side has at one of its ports.
    pub fn far_connections(&self, port: u16) -> usize {
        let mut command = self.command("vpc", "ss");
        command.args([
            "-Htn",
            "state",
            "established",
            "sport",
            "=",
            &format!(":{port}"),
        ]);
        output(command).lines().count()
    }
}

/// A further host of a lab; gone when dropped.
pub struct Host<'a> {
    lab: &'a Lab,
    pub role: String,
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        let mut command = Command::new("ip");
        let name = format!("{}-{}", self.lab.prefix, self.role);
        if let Err(error) = command.args(["netns", "del", &name]).status() {
            eprintln!("ip netns del {name}: {error}");
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- look inside (the lab stays with LAB_KEEP=1):");
            eprintln!("    nsenter --net={}", self.namespace("client"));
            if std::env::var_os("LAB_KEEP").is_some() {
                eprintln!("    netns-fixtures/lab down {}   # when done", self.prefix);
                return;
            }
        }
        if let Err(error) = lab_script(&["down", &self.prefix]).status() {
            eprintln!("lab down: {error}");
        }
    }
}

fn lab_script(args: &[&str]) -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/netns-fixtures/lab"));
    command
        .args(args)
        .env("LAB_BIN", example(""))
        .stdin(Stdio::null());
    command
}

/// A fixture program: `cargo test` builds the examples beside the program under test.
pub fn example(name: &str) -> PathBuf {
    Path::new(UNDERPASS).with_file_name("examples").join(name)
}

/// The output of a command that has to succeed.
fn output(mut command: Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}: {stderr}",
        output.status
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The process `pid`, and all that it and its children have started.
fn descendants(pid: i32) -> Vec<i32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        // A thread's children are its own; whoever is gone has none.
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter();
        for task in tasks.flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children"));
            let children = children.unwrap_or_default();
            all.extend(
                children
                    .split_whitespace()
                    .map(|pid| pid.parse::<i32>().expect("a pid")),
            );
        }
        next += 1;
    }
    all
}

/// The lines of a pipe; disconnected at its end.
fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Asks until `done` says yes; fails when that takes too long.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(
            Instant::now() < deadline,
            "still not so after {PATIENCE:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a command that is expected to end by itself and soon.
pub fn finished(command: Command) -> Output {
    finished_within(PATIENCE, command)
}

/// Runs a command that is expected to end by itself, and has much to do.
pub fn finished_within(patience: Duration, mut command: Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let pid = Pid::from_raw(child.id() as i32);
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    match receiver.recv_timeout(patience) {
        Ok(output) => output.expect("its output can be read"),
        Err(_) => {
            let _ = kill(pid, Signal::SIGKILL);
            panic!("still running after {patience:?}: {command:?}");
        }
    }
}

/// A running `underpass up`; killed when dropped.
pub struct Underpass {
    child: Child,
    /// The lines of its stderr; disconnected when it has ended.
    lines: Receiver<String>,
    log: Vec<String>,
    ended: bool,
}

impl Underpass {
    /// Runs `command`, an `underpass up`, and returns when it has said that it is ready.
    pub fn start(mut command: Command) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = lines_of(child.stderr.take().expect("stderr is piped"));
        let mut underpass = Self {
            child,
            lines,
            log: Vec::new(),
            ended: false,
        };
        underpass.wait_for_line("ready: ");
        underpass
    }

    /// Waits for a line on stderr that contains `text`.
    pub fn wait_for_line(&mut self, text: &str) {
        if self.log.iter().any(|line| line.contains(text)) {
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    self.log.push(line);
                    if self.log.last().is_some_and(|line| line.contains(text)) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no line with {text:?} came"),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended without {text:?}"),
            }
        }
    }

    /// Waits for a further line that contains `text`, beside those in its log.
    pub fn wait_for_further_line(&mut self, text: &str) {
        let told = std::mem::take(&mut self.log);
        self.wait_for_line(text);
        self.log.splice(0..0, told);
    }

    /// What it has said on stderr so far.
    pub fn log(&mut self) -> &[String] {
        self.log.extend(self.lines.try_iter());
        &self.log
    }

    /// The number of its process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The most memory that its process and those that it has started, ssh above all, have had resident, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let of = |pid: i32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find(|line| line.starts_with("VmHWM"));
            let kib = line.and_then(|line| line.split_whitespace().nth(1));
            kib.map_or(0, |kib| kib.parse::<u64>().expect("a number") * 1024)
        };
        descendants(self.pid()).into_iter().map(of).sum()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
    }

    /// Sends a signal and waits for the end.
    pub fn stop(&mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
        self.wait()
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => self.log.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end"),
            }
        }
        self.ended = true;
        self.child.wait().expect("it was not waited for before")
    }
}

impl Drop for Underpass {
    fn drop(&mut self) {
        if !self.ended {
            // Fails when it has ended by itself, which is as good.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let log = self.log().join("\n    ");
            eprintln!("--- underpass said:\n    {log}");
        }
    }
}

/// A probe at work on a host of the lab; killed when dropped.
pub struct Probe {
    args: String,
    child: Child,
    lines: Receiver<String>,
}

impl Probe {
    /// Its next line, if there is one before it ends.
    fn line(&self) -> Option<Value> {
        let line = match self.lines.recv_timeout(2 * PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => panic!("probe {}: no end", self.args),
        };
        let value = serde_json::from_str(&line);
        Some(value.unwrap_or_else(|error| panic!("probe {}: {line}: {error}", self.args)))
    }

    /// Waits until it has its connections open.
    pub fn connected(self) -> Self {
        let line = self.line().unwrap_or_default();
        assert_eq!(result_of(&line), "connected", "probe {}: {line}", self.args);
        self
    }

    /// Tells a waiting probe to go on.
    pub fn go(&mut self) {
        self.child
            .stdin
            .as_mut()
            .expect("stdin is piped")
            .write_all(b"go\n")
            .expect("it waits");
    }

    /// Waits for the end; its last line.
    pub fn finish(self) -> Value {
        let last = std::iter::from_fn(|| self.line()).last();
        last.unwrap_or_else(|| panic!("probe {}: no result", self.args))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // Fails when it has ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The `result` of a probe's line.
pub fn result_of(line: &Value) -> &str {
    line["result"]
        .as_str()
        .unwrap_or_else(|| panic!("no result in {line}"))
}

/// Fails unless a probe ended with `ok`.
pub fn assert_ok(line: &Value) {
    assert_eq!(result_of(line), "ok", "{line}");
}
