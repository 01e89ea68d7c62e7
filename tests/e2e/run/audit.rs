//! The audit log of a command's network.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::Signal;

use super::{after_first_line, signal};
use crate::common::{V4, Value, eventually};
use crate::e2e::rig::{Rig, UNDERPASS, probe_program, processes_with};

/// Started, with pipes to and from it.
fn piped(mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().unwrap()
}

fn events(log: &Path, event: &str) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap_or_default();
    // The last line may be half there.
    let lines = text
        .lines()
        .map_while(|line| serde_json::from_str(line).ok());
    lines
        .filter(|line: &Value| line["event"] == event)
        .collect()
}

/// The flow's end of a connection that is held until its start stands in the log.
fn held(rig: &Rig) -> Value {
    let log = rig.file("audit.log");
    let probe = probe_program();
    let args = format!("{} --audit-log {}", V4.subnet, log.display());
    let words = [&probe, "source", V4.host, "5001", "--ask", "1003", "--wait"];
    let mut child = piped(rig.run_command(&args, &words));
    let lines = after_first_line(&mut child);
    eventually("its start stands in the log", || {
        !events(&log, "flow_start").is_empty()
    });
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert!(lines.last().unwrap().contains("\"eof\""));
    assert!(child.wait().unwrap().success());
    eventually("its end stands in the log", || {
        !events(&log, "flow_end").is_empty()
    });
    let end = events(&log, "flow_end").remove(0);
    fs::remove_file(log).unwrap();
    end
}

#[test]
fn the_audit_log_says_who_in_the_commands_network() {
    let user = held(&Rig::new());
    let root = held(&Rig::with_user(&["env"], 0));
    for (end, uid, name) in [(user, 65534, "nobody"), (root, 0, "root")] {
        assert_eq!((&end["uid"], &end["user"]), (&uid.into(), &name.into()));
        assert_eq!(end["process"], "lab-probe", "{end}");
        assert!(end["pid"].as_u64().unwrap() > 1, "{end}");
        let program = end["program"].as_str().unwrap();
        assert!(program.ends_with("/lab-probe"), "{program}");
        assert_eq!(end["bytes_down"], 1003);
    }
}

#[test]
fn a_lost_connection_stands_in_the_commands_log() {
    let rig = Rig::new();
    let log = rig.file("audit.log");
    let args = format!("{} --audit-log {}", V4.subnet, log.display());
    let mut child = piped(rig.run_command(&args, &["sh", "-c", "echo up; read line"]));
    let lines = after_first_line(&mut child);
    rig.lab.kill_sshd();
    eventually("the loss stands in the log", || {
        !events(&log, "session_lost").is_empty()
    });
    rig.lab.start_sshd();
    eventually("the new connection stands in the log", || {
        !events(&log, "session_back").is_empty()
    });
    drop(child.stdin.take());
    assert_eq!(lines.count(), 0);
    child.wait().unwrap();
    let lost = events(&log, "session_lost").remove(0);
    assert!(!lost["reason"].as_str().unwrap().is_empty(), "{lost}");
    let back = events(&log, "session_back").remove(0);
    let start = events(&log, "session_start").remove(0);
    assert!(start["key"].is_string());
    assert_eq!(back["key"], start["key"]);
}

/// As logrotate(8) does it. The command has nothing to do with it.
#[test]
fn at_a_hangup_the_log_is_opened_anew_and_the_command_goes_on() {
    let rig = Rig::new();
    let (log, old) = (rig.file("audit.log"), rig.file("audit.log.1"));
    let script = format!(
        "trap 'echo HUP' HUP; echo up; read line; {} connect {} 80",
        probe_program(),
        V4.host
    );
    let mut command = rig.as_user(UNDERPASS);
    command.arg("run").args(rig.login()).arg("--audit-log");
    command
        .arg(&log)
        .args([V4.subnet, "--", "sh", "-c", &script]);
    let mut child = piped(command);
    let lines = after_first_line(&mut child);
    fs::rename(&log, &old).unwrap();
    signal(&child, Signal::SIGHUP);
    eventually("there is a new file", || log.exists());
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let said: Vec<String> = lines.collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("\"open\""), "{said:?}");
    assert!(child.wait().unwrap().success());
    assert_eq!(events(&old, "session_start").len(), 1);
    assert_eq!(events(&log, "flow_end").len(), 1);
    assert_eq!(events(&log, "session_stop").len(), 1);
}

/// Without a file there is nothing to rotate.
#[test]
fn without_a_log_a_hangup_is_the_commands() {
    let rig = Rig::new();
    let script = "trap 'echo HUP; exit 7' HUP; echo up; while :; do sleep 0.05; done";
    let mut command = rig.as_user(UNDERPASS);
    command.arg("run").args(rig.login());
    command.args([V4.subnet, "--", "sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = after_first_line(&mut child);
    signal(&child, Signal::SIGHUP);
    assert_eq!(lines.collect::<Vec<_>>(), ["HUP"]);
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

/// Both ends of a terminal. Who keeps the first one open keeps it from going away, so no child gets it.
fn terminal() -> (fs::File, fs::File) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let screen = posix_openpt(flags).unwrap();
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let mut options = fs::File::options();
    let options = options
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits());
    let terminal = options.open(ptsname_r(&screen).unwrap()).unwrap();
    (fs::File::from(OwnedFd::from(screen)), terminal)
}

/// A terminal that goes away takes the command along, with a log as without.
#[test]
fn a_terminals_hangup_is_the_commands() {
    let rig = Rig::new();
    let (log, told) = (rig.file("audit.log"), rig.file("told"));
    let script = "trap 'echo HUP >told; exit 7' HUP; echo up; while :; do sleep 0.05; done";
    let (mut screen, terminal) = terminal();
    let mut command = rig.as_user("setsid");
    command.args(["--ctty", "--wait", UNDERPASS, "run"]);
    command.args(rig.login()).arg("--audit-log").arg(&log);
    let mark = log.display().to_string();
    command.args([V4.subnet, "--", "sh", "-c", script, &mark]);
    command.stdin(terminal.try_clone().unwrap());
    command.stdout(terminal.try_clone().unwrap());
    command.stderr(terminal);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut shown = String::new();
    while !shown.contains("up") {
        let mut bytes = [0; 256];
        let count = screen.read(&mut bytes).unwrap();
        shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    drop(screen);
    eventually("the command was told", || told.exists());
    child.wait().unwrap();
    eventually("nothing is left", || processes_with(&mark).is_empty());
}
