//! The command while it runs: its signals, its stops and its end.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgrp, tcgetpgrp};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tracing::{debug, error};

use crate::app::exit::CANNOT_RUN;
use crate::os::signals::{Come, Signals, stop_ourselves};

/// Notices what becomes of the command; there before it is, so that nothing goes unnoticed.
pub(super) struct Running {
    children: Stream,
}

impl Running {
    pub(super) fn new() -> io::Result<Self> {
        let children = signal(SignalKind::child())?;
        Ok(Self { children })
    }

    /// Passes signals on, but for those that are taken by `takes`, until the command has ended; the exit code that says how.
    pub(super) async fn until_end(
        &mut self,
        pid: Pid,
        signals: &mut Signals,
        takes: impl Fn(Come) -> bool,
    ) -> u8 {
        loop {
            if let Some(code) = look(pid) {
                return code;
            }
            tokio::select! {
                _ = self.children.recv() => {}
                come = signals.next() => match come {
                    Ok(come) if takes(come) => {}
                    Ok(come) => pass_on(pid, come),
                    Err(error) => {
                        error!("signals are not passed on any more: {error}");
                        return self.wait(pid).await;
                    }
                },
            }
        }
    }

    async fn wait(&mut self, pid: Pid) -> u8 {
        loop {
            if let Some(code) = look(pid) {
                return code;
            }
            self.children.recv().await;
        }
    }
}

fn pass_on(pid: Pid, come: Come) {
    if come.by_terminal {
        return;
    }
    debug!("passing {} on", come.signal);
    // It has not been waited for, so the number is still its own.
    let _ = kill(pid, come.signal);
}

/// The exit code of the command, if it has ended. When it has stopped, so do we: the shell that waits for us is to have its
/// terminal back.
fn look(pid: Pid) -> Option<u8> {
    let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED;
    loop {
        match waitpid(pid, Some(flags)) {
            Ok(WaitStatus::Exited(_, code)) => return Some(code as u8),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Some(by_signal(signal as i32)),
            Ok(WaitStatus::Stopped(..)) if has_terminal() => {
                stop_ourselves();
                let _ = kill(pid, Signal::SIGCONT);
            }
            Ok(WaitStatus::StillAlive) => return None,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                error!("the command's end cannot be seen: {error}");
                return Some(CANNOT_RUN);
            }
        }
    }
}

/// Whether a shell has given us its terminal. Without one nobody would let us go on.
fn has_terminal() -> bool {
    let terminal = File::open("/dev/tty");
    terminal.is_ok_and(|terminal| tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp()))
}

/// As shells say it.
pub(super) fn by_signal(number: i32) -> u8 {
    128 | (number as u8 & 0x7f)
}
