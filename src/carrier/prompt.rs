//! The questions that a login asks of a person: a passphrase, or whether a new host key may be taken.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use zeroize::{Zeroize, Zeroizing};

/// The longest answer that is read, in bytes. Longer ones are refused.
const MAX_ANSWER: usize = 1024;

/// Asks a person. Both calls block; they are made on a thread that may.
pub trait Prompter: Send + Sync {
    /// Asks without echo. `None` when nobody can be asked or the input ended.
    fn secret(&self, prompt: &str) -> Option<Zeroizing<String>>;

    /// Asks with echo. `None` when nobody can be asked or the input ended.
    fn line(&self, prompt: &str) -> Option<String>;
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
}

/// Asks on the controlling terminal, `/dev/tty`, whatever stdin and stdout are (as ssh does).
#[derive(Clone, Copy, Debug, Default)]
pub struct TtyPrompter;

impl Prompter for TtyPrompter {
    fn secret(&self, prompt: &str) -> Option<Zeroizing<String>> {
        let tty = open_tty()?;
        let quiet = EchoOff::new(&tty)?;
        let answer = ask(&mut &tty, prompt);
        drop(quiet);
        // The person's own newline was not echoed.
        (&tty).write_all(b"\n").ok()?;
        answer.ok().flatten()
    }

    fn line(&self, prompt: &str) -> Option<String> {
        let mut tty = open_tty()?;
        let answer = ask(&mut tty, prompt).ok().flatten()?;
        Some(answer.to_string())
    }
}

fn open_tty() -> Option<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .ok()
}

/// Writes `prompt` and reads one line, without its newline. `None` at the end of input.
fn ask(tty: &mut (impl Read + Write), prompt: &str) -> io::Result<Option<Zeroizing<String>>> {
    tty.write_all(prompt.as_bytes())?;
    tty.flush()?;
    // The full size at once: growing would leave copies of a secret behind.
    let mut answer = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
    let mut byte = [0u8; 1];
    loop {
        if tty.read(&mut byte)? == 0 {
            return Ok(None);
        }
        match byte[0] {
            b'\n' | b'\r' => break,
            _ if answer.len() == MAX_ANSWER => return Ok(None),
            b => answer.push(b),
        }
    }
    byte.zeroize();
    Ok(std::str::from_utf8(&answer)
        .ok()
        .map(|text| Zeroizing::new(text.to_owned())))
}

/// Echo is off while this lives, and is put back when it goes.
struct EchoOff<'a> {
    tty: &'a File,
    before: Termios,
}

impl<'a> EchoOff<'a> {
    fn new(tty: &'a File) -> Option<Self> {
        let before = termios::tcgetattr(tty.as_fd()).ok()?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        // FLUSH drops what was typed ahead, before anybody could see what it would answer.
        termios::tcsetattr(tty.as_fd(), SetArg::TCSAFLUSH, &quiet).ok()?;
        Some(Self { tty, before })
    }
}

impl Drop for EchoOff<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo: nothing to do about an error.
        let _ = termios::tcsetattr(self.tty.as_fd(), SetArg::TCSADRAIN, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    struct Tty {
        input: Cursor<Vec<u8>>,
        output: Vec<u8>,
    }

    impl Read for Tty {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.input.read(buf)
        }
    }

    impl Write for Tty {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.output.write(buf)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn answer(input: &[u8]) -> Option<String> {
        let mut tty = Tty {
            input: Cursor::new(input.to_vec()),
            output: Vec::new(),
        };
        let answer = ask(&mut tty, "Passphrase: ").unwrap();
        assert_eq!(tty.output, b"Passphrase: ");
        answer.map(|a| a.to_string())
    }

    #[test]
    fn one_line_is_read_without_its_newline() {
        assert_eq!(answer(b"yes\nmore").as_deref(), Some("yes"));
        assert_eq!(answer(b"\n").as_deref(), Some(""));
    }

    #[test]
    fn the_end_of_input_is_no_answer() {
        assert_eq!(answer(b""), None);
        assert_eq!(answer(b"ye"), None);
    }

    #[test]
    fn bad_input_is_no_answer() {
        assert_eq!(answer(b"\xff\xfe\n"), None);
        assert_eq!(answer(&[b'a'; MAX_ANSWER + 1]), None);
    }
}
