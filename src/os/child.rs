//! Child processes that do not outlive us.

use std::io;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{getpid, getppid, setsid};
use tokio::process::Command;

/// Whether a child may ask on our terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// It may. It is in our process group, and must be: the terminal stops others that read from it.
    Shared,
    /// It has none, so whatever it would ask fails.
    None,
}

/// Makes the child of `command` end when the thread that spawns it ends, whatever ends it (`PR_SET_PDEATHSIG`,
/// prctl(2)). Spawn it from a thread that lives as long as the process. The child is deaf to the terminal's Ctrl-C
/// and Ctrl-\, which are for us: we end it in order.
#[expect(unsafe_code, reason = "work between fork and exec")]
pub fn tie(command: &mut Command, terminal: Terminal) {
    let us = getpid();
    let tie = move || -> io::Result<()> {
        set_pdeathsig(Signal::SIGKILL)?;
        // The signal is sent for an end from here on.
        if getppid() != us {
            return Err(io::ErrorKind::NotFound.into());
        }
        if terminal == Terminal::None {
            setsid()?;
        }
        for key in [Signal::SIGINT, Signal::SIGQUIT] {
            // SAFETY: the default action is replaced by none; no handler runs.
            unsafe { signal(key, SigHandler::SigIgn) }?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are made: prctl, getppid, setsid, signal. Nothing is
    // allocated; errors are plain numbers.
    unsafe { command.pre_exec(tie) };
}
