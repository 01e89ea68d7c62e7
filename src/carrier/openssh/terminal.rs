//! The terminal's settings while ssh may ask. An ssh that is ended in the middle of a question for a secret cannot
//! switch the echo on again.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;

use nix::sys::termios::{self, SetArg, Termios};
use nix::unistd::{getpgrp, tcgetpgrp};

/// Puts the settings back when it goes.
pub(super) struct Settings(Option<(File, Termios)>);

impl Settings {
    /// Of the controlling terminal, if there is one.
    pub(super) fn keep() -> Self {
        let tty = OpenOptions::new().read(true).write(true).open("/dev/tty");
        let kept = tty.ok().and_then(|tty| {
            let settings = termios::tcgetattr(tty.as_fd()).ok()?;
            Some((tty, settings))
        });
        Self(kept)
    }

    /// Whether there is a terminal.
    pub(super) fn is_there(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        let Some((tty, before)) = &self.0 else {
            return;
        };
        // The terminal would stop us if it were not ours now (SIGTTOU, tcsetattr(3)).
        let is_ours = tcgetpgrp(tty.as_fd()).is_ok_and(|group| group == getpgrp());
        let is_changed = termios::tcgetattr(tty.as_fd()).is_ok_and(|now| now != *before);
        if is_ours && is_changed {
            // A terminal that is gone needs no echo: nothing to do about an error.
            let _ = termios::tcsetattr(tty.as_fd(), SetArg::TCSADRAIN, before);
        }
    }
}
