//! The end-to-end tests over the user's own ssh (`tests/common/mod.rs` tells the carrier by this file's name), and those of its own.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
mod e2e;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;

use common::{Lab, Underpass, V4, assert_ok, eventually};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

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
    lab.open_to("nobody");
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let mut command = lab.up_command(&format!("-i {key} {}", V4.subnet));
    command.env("SUDO_USER", "nobody").env("SUDO_UID", "65534");
    let mut underpass = Underpass::start(command);
    assert_ok(&lab.probe("client", &format!("get {} 5001 1000000", V4.host)));
    let ssh = ssh_processes(&lab);
    let owner = fs::metadata(format!("/proc/{}", ssh[0])).unwrap().uid();
    assert_eq!((ssh.len(), owner), (1, nobody.uid.as_raw()));
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
}

/// Killed while it logs in to a server that says nothing, it can remove nothing: its ssh ends, and the next start removes
/// the directory.
#[test]
fn killed_in_the_middle_of_a_login_it_leaves_nothing() {
    let lab = Lab::up();
    let place = lab.file("of-the-user");
    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, PermissionsExt::from_mode(0o700)).unwrap();
    let directories = || fs::read_dir(&place).unwrap().count();
    let command = || {
        let mut command = lab.up_command(V4.subnet);
        command.env("XDG_RUNTIME_DIR", &place);
        command
    };
    lab.signal_sshd(Signal::SIGSTOP);
    let mut child = command().stderr(Stdio::null()).spawn().unwrap();
    eventually("ssh is at it", || {
        directories() == 1 && ssh_processes(&lab).len() == 1
    });
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("ssh has ended", || ssh_processes(&lab).is_empty());
    assert_eq!(directories(), 1);
    lab.signal_sshd(Signal::SIGCONT);
    let mut underpass = Underpass::start(command());
    assert_eq!(directories(), 0);
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
}

/// In the middle of a login ssh tells its ProxyCommand nothing when it is ended, and that need not care for its stdin.
#[test]
fn a_command_does_not_outlive_a_login() {
    for has_terminal in [false, true] {
        let lab = Lab::up();
        let script = lab.file("stubborn");
        let text = "trap '' HUP TERM\nwhile :; do sleep 1; done\n";
        fs::write(&script, text).unwrap();
        let running = || {
            let all = fs::read_dir("/proc").unwrap().flatten();
            let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
            let own = lines.filter(|line| line.starts_with(format!("sh\0{script}\0").as_bytes()));
            own.count()
        };
        let terminal = openpty(None, None).unwrap();
        let wrapper: &[&str] = match has_terminal {
            true => &["python3", "-c", WITH_TERMINAL],
            false => &[],
        };
        let mut command = lab.wrapped_up_command(wrapper, V4.subnet);
        command.args(["-o", &format!("ProxyCommand=sh {script} %h")]);
        command.stdin(terminal.slave.try_clone().unwrap());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        eventually("the command runs", || running() == 1);
        kill(
            Pid::from_raw(child.id().try_into().unwrap()),
            Signal::SIGTERM,
        )
        .unwrap();
        child.wait().unwrap();
        eventually("the command has ended", || running() == 0);
        assert!(ssh_processes(&lab).is_empty());
    }
}

/// Makes its stdin the controlling terminal of the session.
const WITH_TERMINAL: &str = "import fcntl, os, sys, termios\n\
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)\nos.execvp(sys.argv[1], sys.argv[1:])";

/// It has switched the echo off for the passphrase of a key.
#[test]
fn where_ssh_is_killed_at_its_prompt_the_echo_comes_back() {
    let lab = Lab::up();
    let terminal = openpty(None, None).unwrap();
    let has_echo = || {
        let settings = tcgetattr(&terminal.master).unwrap();
        settings.local_flags.contains(LocalFlags::ECHO)
    };
    assert!(has_echo());
    let args = format!("-i {} {}", lab.file("id_passphrase"), V4.subnet);
    let mut command = lab.wrapped_up_command(&["python3", "-c", WITH_TERMINAL], &args);
    command.stdin(terminal.slave.try_clone().unwrap());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    eventually("ssh asks", || !has_echo());
    let ssh = ssh_processes(&lab);
    kill(Pid::from_raw(ssh[0].parse().unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(255));
    assert!(has_echo());
}
