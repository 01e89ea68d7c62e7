//! Child processes that do not outlive us.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{getpid, getppid, setsid};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

use super::limits;

/// Whether a child may ask on our terminal.
#[derive(Debug)]
pub enum Terminal {
    /// It may. It is in our process group, and must be: the terminal stops others that read from it.
    Shared,
    /// It has none, nor a window of ssh's, so whatever it would ask fails.
    None,
    /// It has this one, to ask on as it likes.
    Own(OwnedFd),
}

/// Keeps ssh, and an ssh that it starts, from asking in a window where there is no terminal (ssh(1), SSH_ASKPASS_REQUIRE). One
/// from before 8.4 does not know that; the program it runs instead gives no answer.
const NO_WINDOW: [(&str, &str); 2] = [
    ("SSH_ASKPASS_REQUIRE", "never"),
    ("SSH_ASKPASS", "/bin/false"),
];

nix::ioctl_write_int_bad!(
    /// Makes a terminal the controlling one of the session (ioctl_tty(2)).
    set_controlling,
    nix::libc::TIOCSCTTY
);

/// A child that is wanted, and who waits for it.
struct Wanted {
    command: Command,
    runtime: Handle,
    answer: SyncSender<io::Result<Child>>,
}

/// To the thread that all children are of, once there is one.
static PARENT: Mutex<Option<SyncSender<Wanted>>> = Mutex::new(None);

/// Starts a child that gets `last` when this process ends, whatever ends it (`PR_SET_PDEATHSIG`, prctl(2)); what the child
/// has started itself is left to it. It is deaf to the terminal's Ctrl-C, Ctrl-\ and Ctrl-Z, which are for us: we end
/// it in order. What we have blocked it has not, `last` has its default action, and it may have as many files open as we were
/// started with.
///
/// # Errors
/// Those of fork(2) and exec(2); no thread can be made; called outside a runtime.
pub fn spawn_tied(mut command: Command, terminal: Terminal, last: Signal) -> io::Result<Child> {
    if matches!(terminal, Terminal::None) {
        command.envs(NO_WINDOW);
    }
    tie(&mut command, terminal, last);
    let runtime = Handle::try_current().map_err(io::Error::other)?;
    let (answer, answered) = sync_channel(1);
    let wanted = Wanted {
        command,
        runtime,
        answer,
    };
    let gone = || io::Error::other("the thread that starts programs has ended");
    parent()?.send(wanted).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

/// The kernel takes the end of the thread that forked for the parent's, and a runtime's threads come and go. So one
/// thread does it that stays.
fn parent() -> io::Result<SyncSender<Wanted>> {
    // Nothing panics between two changes that belong together.
    let mut parent = PARENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(parent) = &*parent {
        return Ok(parent.clone());
    }
    let (sender, wanted) = sync_channel(0);
    thread::Builder::new()
        .name("children".to_owned())
        .spawn(move || bear(&wanted))?;
    Ok(parent.insert(sender).clone())
}

fn bear(wanted: &Receiver<Wanted>) {
    for mut wanted in wanted {
        let _context = wanted.runtime.enter();
        // Who has asked waits for it.
        let _ = wanted.answer.send(wanted.command.spawn());
    }
}

#[expect(unsafe_code, reason = "work between fork and exec")]
fn tie(command: &mut Command, terminal: Terminal, last: Signal) {
    let us = getpid();
    let tie = move || -> io::Result<()> {
        // A handler of ours would take it until exec(2) has done away with handlers, and the child would live on.
        if last != Signal::SIGKILL {
            // SAFETY: a handler is replaced by the default action; none is put in its place.
            unsafe { signal(last, SigHandler::SigDfl) }?;
        }
        set_pdeathsig(last)?;
        // The signal is sent for an end from here on.
        if getppid() != us {
            return Err(io::ErrorKind::NotFound.into());
        }
        if !matches!(terminal, Terminal::Shared) {
            setsid()?;
        }
        if let Terminal::Own(own) = &terminal {
            // SAFETY: the descriptor is open, and the argument a plain number.
            unsafe { set_controlling(own.as_raw_fd(), 0) }?;
        }
        SigSet::empty().thread_set_mask()?;
        for key in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP] {
            // SAFETY: the default action is replaced by none; no handler runs.
            unsafe { signal(key, SigHandler::SigIgn) }?;
        }
        limits::give_back_open_files();
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are made: prctl, getppid, setsid, ioctl, pthread_sigmask, signal,
    // getrlimit, setrlimit. Nothing is allocated; errors are plain numbers.
    unsafe { command.pre_exec(tie) };
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_child_outlives_the_thread_that_asked_for_it() {
        let runtime = Handle::current();
        let asked = thread::spawn(move || {
            let _context = runtime.enter();
            let mut command = Command::new("sleep");
            command.arg("60").kill_on_drop(true);
            spawn_tied(command, Terminal::None, Signal::SIGKILL)
        });
        let mut child = asked.join().unwrap().unwrap();
        let ended = tokio::time::timeout(Duration::from_millis(200), child.wait());
        assert!(ended.await.is_err());
        child.kill().await.unwrap();
    }

    #[tokio::test]
    async fn a_child_that_is_no_program_yet_heeds_the_last_signal() {
        use std::os::unix::process::ExitStatusExt;
        use tokio::signal::unix::SignalKind;

        // The program has handlers while it starts its children.
        let _handled = tokio::signal::unix::signal(SignalKind::terminate()).unwrap();
        let mut command = Command::new("sleep");
        command.arg("60").kill_on_drop(true);
        tie(&mut command, Terminal::None, Signal::SIGTERM);
        // As if the parent ended now: behind the last look for it, before the program is there.
        // SAFETY: kill(2) may be called there.
        #[expect(unsafe_code)]
        unsafe {
            command.pre_exec(|| Ok(nix::sys::signal::kill(getpid(), Signal::SIGTERM)?))
        };
        let mut child = command.spawn().unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(10), child.wait()).await;
        assert_eq!(ended.unwrap().unwrap().signal(), Some(15));
    }

    /// ssh-keygen asks as ssh does, by a window where there is no terminal.
    #[tokio::test]
    async fn a_child_without_a_terminal_opens_no_window() {
        let dir = tempfile::tempdir().unwrap();
        let (key, window) = (dir.path().join("key"), dir.path().join("window"));
        let keygen = || {
            let mut keygen = Command::new("ssh-keygen");
            keygen.stdin(Stdio::null()).stdout(Stdio::null());
            keygen.stderr(Stdio::null()).arg("-f").arg(&key);
            keygen
        };
        let mut make = keygen();
        make.args(["-q", "-t", "ed25519", "-N", "secret"]);
        assert!(make.status().await.unwrap().success());
        let askpass = dir.path().join("askpass");
        // Another process writes it: were it open for writing while a thread forks, it could not be run (ETXTBSY).
        let write = "printf '#!/bin/sh\ntouch %s\n' \"$2\" > \"$1\"; chmod 700 \"$1\"";
        let mut script = Command::new("sh");
        script.args(["-c", write, "sh"]).arg(&askpass).arg(&window);
        assert!(script.status().await.unwrap().success());
        for (terminal, is_asked) in [(Terminal::None, false), (Terminal::Shared, true)] {
            let mut ask = keygen();
            ask.arg("-y").env("SSH_ASKPASS", &askpass);
            ask.env("DISPLAY", ":0").env_remove("SSH_ASKPASS_REQUIRE");
            let mut asking = spawn_tied(ask, terminal, Signal::SIGKILL).unwrap();
            assert!(!asking.wait().await.unwrap().success());
            assert_eq!(window.exists(), is_asked);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_started_is_told() {
        let command = Command::new("/no/such/program");
        let error = spawn_tied(command, Terminal::None, Signal::SIGKILL);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
