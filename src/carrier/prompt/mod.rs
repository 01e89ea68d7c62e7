//! The questions that a login asks of a person: a passphrase, a password, or whether a new host key may be taken.
//!
//! [`TtyPrompter`] asks on the terminal, [`AskpassPrompter`] through a program with a window (`SSH_ASKPASS` of ssh(1)),
//! [`NoPrompter`] asks nobody. [`usual`] chooses as ssh does.

mod askpass;
mod tty;

use std::ffi::OsString;
use std::sync::Arc;

use zeroize::Zeroizing;

pub use self::askpass::AskpassPrompter;
pub(super) use self::tty::Asking;
pub use self::tty::{TtyPrompter, give_back_terminal};

/// The longest answer that is read, in bytes. Longer ones are refused.
const MAX_ANSWER: usize = 1024;

/// Asks a person. Both calls block; they are made on a thread that may.
pub trait Prompter: Send + Sync {
    /// Asks without echo. `None` when nobody can be asked or the input ended.
    fn secret(&self, prompt: &str) -> Option<Zeroizing<String>>;

    /// Asks with echo. `None` when nobody can be asked or the input ended.
    fn line(&self, prompt: &str) -> Option<String>;

    /// Whether a question would reach somebody now. That need not mean an answer.
    fn has_person(&self) -> bool {
        true
    }
}

/// Asks nobody: every question stays unanswered, as ssh's `BatchMode yes`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPrompter;

impl Prompter for NoPrompter {
    fn secret(&self, _prompt: &str) -> Option<Zeroizing<String>> {
        None
    }

    fn line(&self, _prompt: &str) -> Option<String> {
        None
    }

    fn has_person(&self) -> bool {
        false
    }
}

/// Who is asked, as ssh does it (ssh(1), `SSH_ASKPASS_REQUIRE`; readpass.c `read_passphrase`): the terminal, or where
/// there is none the askpass program. `batch` is `BatchMode`: nobody.
/// `variable` looks the environment up.
pub fn usual(batch: bool, variable: impl Fn(&str) -> Option<OsString>) -> Arc<dyn Prompter> {
    if batch {
        return Arc::new(NoPrompter);
    }
    let (allowed, preferred) = askpass_allowed_preferred(&variable);
    let askpass = allowed.then(|| AskpassPrompter::new(variable("SSH_ASKPASS")));
    match askpass {
        None => Arc::new(TtyPrompter),
        Some(askpass) if preferred => Arc::new(askpass),
        Some(askpass) => Arc::new(TtyOrAskpass(askpass)),
    }
}

/// Whether a question, if there were one now, would run the askpass program.
pub fn asks_by_program(batch: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let (allowed, preferred) = askpass_allowed_preferred(&variable);
    !batch && allowed && (preferred || !TtyPrompter.has_person())
}

fn askpass_allowed_preferred(variable: &impl Fn(&str) -> Option<OsString>) -> (bool, bool) {
    let require = variable("SSH_ASKPASS_REQUIRE").unwrap_or_default();
    let require = require.to_string_lossy().to_ascii_lowercase();
    let has_display = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| variable(name).is_some_and(|value| !value.is_empty()));
    match require.as_str() {
        "force" => (true, true),
        "prefer" => (has_display, has_display),
        "never" => (false, false),
        _ => (has_display, false),
    }
}

/// The terminal where there is one at the time of the question, else the program.
struct TtyOrAskpass(AskpassPrompter);

impl TtyOrAskpass {
    fn prompter(&self) -> &dyn Prompter {
        if TtyPrompter.has_person() {
            &TtyPrompter
        } else {
            &self.0
        }
    }
}

impl Prompter for TtyOrAskpass {
    fn secret(&self, prompt: &str) -> Option<Zeroizing<String>> {
        self.prompter().secret(prompt)
    }

    fn line(&self, prompt: &str) -> Option<String> {
        self.prompter().line(prompt)
    }

    fn has_person(&self) -> bool {
        self.prompter().has_person()
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::*;

    /// A shell script that can be run. Another process writes it: were it open for writing here while a thread forks, it
    /// could not be run (ETXTBSY).
    pub(super) fn script(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join("askpass");
        let write = Command::new("sh")
            .args([
                "-c",
                "printf '#!/bin/sh\\n%s\\n' \"$2\" > \"$1\"; chmod 700 \"$1\"",
                "sh",
            ])
            .args([path.as_os_str(), text.as_ref()])
            .status();
        assert!(write.unwrap().success());
        path
    }

    #[test]
    fn who_is_there_to_be_asked() {
        let there = |environment: &[(&str, &str)]| {
            let find = |name: &str| environment.iter().find(|(key, _)| *key == name);
            let prompter = usual(false, |name| find(name).map(|(_, value)| value.into()));
            prompter.has_person()
        };
        let force = ("SSH_ASKPASS_REQUIRE", "force");
        assert!(there(&[force, ("SSH_ASKPASS", "/bin/true")]));
        assert!(!there(&[force, ("SSH_ASKPASS", "/nonexistent/askpass")]));
        assert!(!usual(true, |_| None).has_person());
        assert_eq!(there(&[]), TtyPrompter.has_person());
    }

    /// Who answers under this environment, the program being one that says `window`.
    fn answer(batch: bool, environment: &[(&str, &str)]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let program = script(dir.path(), "echo window");
        let prompter = usual(batch, |name| match name {
            "SSH_ASKPASS" => Some(program.clone().into()),
            _ => {
                let found = environment.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| value.into())
            }
        });
        prompter.secret("? ").map(|text| text.to_string())
    }

    #[test]
    fn the_window_is_used_as_ssh_uses_it() {
        let force = ("SSH_ASKPASS_REQUIRE", "force");
        let prefer = ("SSH_ASKPASS_REQUIRE", "Prefer");
        let display = ("WAYLAND_DISPLAY", "wayland-0");
        let window = Some("window".to_owned());
        assert_eq!(answer(false, &[force]), window);
        assert_eq!(answer(false, &[prefer, display]), window);
        assert_eq!(answer(true, &[force, display]), None);
        if !TtyPrompter.has_person() {
            assert_eq!(answer(false, &[display]), window);
            assert_eq!(answer(false, &[prefer, ("DISPLAY", "")]), None);
            assert_eq!(
                answer(false, &[("SSH_ASKPASS_REQUIRE", "never"), display]),
                None
            );
            assert_eq!(answer(false, &[]), None);
        }
    }
}
