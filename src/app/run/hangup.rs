//! What a SIGHUP to us is about: the audit log, or the command.
//!
//! Whoever rotates a log sends it to us alone, and the command has nothing to do with that. A hangup is another matter: a
//! shell sends it to each of its jobs, and the kernel to the foreground group once the shell is gone, so mostly the command
//! has it of its own. Where it does not, as in a shell inside, or where no shell is between us and the terminal, the terminal
//! that we had is gone by then, and the command is told.

use nix::sys::signal::Signal;

use crate::os::signals::{Come, has_terminal};
use crate::plan::{AuditLog, Plan};

/// Tells the two apart.
pub(super) struct Hangup {
    logs_to_file: bool,
    had_terminal: bool,
}

impl Hangup {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            logs_to_file: matches!(plan.audit, Some(AuditLog::File(_))),
            had_terminal: has_terminal(),
        }
    }

    /// Whether it asks for the file to be opened anew, and is not the command's.
    pub(super) fn is_for_log(&self, come: Come) -> bool {
        self.is_for_log_with(come, has_terminal())
    }

    fn is_for_log_with(&self, come: Come, has_terminal: bool) -> bool {
        let is_one = come.signal == Signal::SIGHUP && !come.by_terminal;
        is_one && self.logs_to_file && (has_terminal || !self.had_terminal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hangup_is_told_from_a_rotation() {
        let is_for_log = |signal, by_terminal, logs_to_file, (before, now)| {
            let hangup = Hangup {
                logs_to_file,
                had_terminal: before,
            };
            let come = Come {
                signal,
                by_terminal,
            };
            hangup.is_for_log_with(come, now)
        };
        let hup = Signal::SIGHUP;
        for terminal in [(true, true), (false, false)] {
            assert!(is_for_log(hup, false, true, terminal));
            assert!(!is_for_log(hup, false, false, terminal));
            assert!(!is_for_log(hup, true, true, terminal));
            assert!(!is_for_log(Signal::SIGTERM, false, true, terminal));
        }
        // The shell passes on that the terminal is gone.
        assert!(!is_for_log(hup, false, true, (true, false)));
    }
}
