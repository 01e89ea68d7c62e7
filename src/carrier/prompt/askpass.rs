//! Questions through a program that has a window: `SSH_ASKPASS` of ssh(1).

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tracing::warn;
use zeroize::Zeroizing;

use super::{MAX_ANSWER, Prompter};

/// What is run where `SSH_ASKPASS` is not set (Debian's `_PATH_SSH_ASKPASS_DEFAULT`).
const USUAL: &str = "/usr/bin/ssh-askpass";

/// Runs a program with the question as its only argument, and takes what it prints. A program that fails was closed
/// without an answer (readpass.c `ssh_askpass`).
#[derive(Clone, Debug)]
pub struct AskpassPrompter {
    program: PathBuf,
}

impl AskpassPrompter {
    /// `program` is the value of `SSH_ASKPASS`, where it is set.
    pub fn new(program: Option<OsString>) -> Self {
        let program = program.filter(|program| !program.is_empty());
        Self {
            program: program.map_or_else(|| USUAL.into(), PathBuf::from),
        }
    }

    fn ask(&self, prompt: &str) -> Option<Zeroizing<String>> {
        let program = self.program.display();
        // An argument ends at a NUL.
        let prompt = prompt.replace('\0', "");
        let mut command = Command::new(&self.program);
        let child = command
            .arg(OsStr::new(&prompt))
            // Its values, "confirm" and "none", are for questions without a text as answer.
            .env_remove("SSH_ASKPASS_PROMPT")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child
            .inspect_err(|error| {
                warn!("cannot ask through {program}: {error}. Install it, or set SSH_ASKPASS")
            })
            .ok()?;
        let answer = read_answer(&mut child);
        let status = child.wait().ok()?;
        answer.filter(|_| status.success())
    }
}

/// The first line of what the program prints. What is too long or no text is no answer.
fn read_answer(child: &mut Child) -> Option<Zeroizing<String>> {
    // Dropped when read: a program that prints without end is ended by SIGPIPE.
    let stdout = child.stdout.take()?;
    // The full size at once: growing would leave copies of a secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_ANSWER + 1));
    stdout
        .take(MAX_ANSWER as u64 + 1)
        .read_to_end(&mut bytes)
        .ok()?;
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let line = bytes.get(..end.unwrap_or(bytes.len()))?;
    if line.len() > MAX_ANSWER {
        return None;
    }
    let text = std::str::from_utf8(line).ok()?;
    Some(Zeroizing::new(text.to_owned()))
}

impl Prompter for AskpassPrompter {
    fn secret(&self, prompt: &str) -> Option<Zeroizing<String>> {
        self.ask(prompt)
    }

    fn line(&self, prompt: &str) -> Option<String> {
        self.ask(prompt).map(|answer| answer.to_string())
    }

    fn has_person(&self) -> bool {
        // A bare name is looked for in $PATH when it is run.
        self.program.components().count() == 1 || self.program.exists()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::script;
    use super::*;

    fn answer(text: &str) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let program = script(dir.path(), text);
        AskpassPrompter::new(Some(program.into())).line("Pass 'a b'? ")
    }

    #[test]
    fn the_question_goes_in_and_the_first_line_comes_out() {
        assert_eq!(
            answer("echo \"$1|$#|$SSH_ASKPASS_PROMPT\"; echo more").as_deref(),
            Some("Pass 'a b'? |1|")
        );
        assert_eq!(answer("echo").as_deref(), Some(""));
        assert_eq!(answer("printf x").as_deref(), Some("x"));
    }

    #[test]
    fn what_is_no_answer() {
        assert_eq!(answer("echo x; exit 1"), None);
        assert_eq!(answer("printf '\\377\\n'"), None);
        assert_eq!(answer("yes xxxxxxxx | tr -d '\\n'"), None);
        let nobody = AskpassPrompter::new(Some("/nonexistent/askpass".into()));
        assert_eq!(nobody.line("? "), None);
    }
}
