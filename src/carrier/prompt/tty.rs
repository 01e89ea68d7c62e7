//! Questions on the terminal.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{self, LocalFlags, SetArg, SpecialCharacterIndices as Key, Termios};
use nix::unistd::getpid;
use zeroize::{Zeroize, Zeroizing};

use super::{MAX_ANSWER, Prompter};

/// How long a question that was interrupted stays without an answer. The process ends meanwhile.
const FAREWELL: Duration = Duration::from_secs(1);

/// The terminal of the question that waits for an answer, and its settings before; one person answers one question at a
/// time.
static ASKED: Mutex<Option<(File, Termios)>> = Mutex::new(None);

fn asked() -> MutexGuard<'static, Option<(File, Termios)>> {
    // It is whole at every moment, whoever panicked.
    ASKED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives the terminal its settings back, echo above all, where a question still waits for its answer. To be called
/// before the process ends: the thread that reads the answer cannot be stopped and takes nothing back.
pub fn give_back_terminal() {
    if let Some((tty, before)) = asked().take() {
        // As with `Asking`: a terminal that is gone needs no settings.
        let _ = termios::tcsetattr(tty.as_fd(), SetArg::TCSANOW, &before);
        let _ = (&tty).write_all(b"\n");
    }
}

/// Asks on the controlling terminal, `/dev/tty`, whatever stdin and stdout are (as ssh does).
#[derive(Clone, Copy, Debug, Default)]
pub struct TtyPrompter;

impl Prompter for TtyPrompter {
    fn secret(&self, prompt: &str) -> Option<Zeroizing<String>> {
        on_tty(&open_tty()?, prompt, Echo::Off)
    }

    fn line(&self, prompt: &str) -> Option<String> {
        let answer = on_tty(&open_tty()?, prompt, Echo::On)?;
        Some(answer.to_string())
    }

    fn has_person(&self) -> bool {
        open_tty().is_some()
    }
}

fn open_tty() -> Option<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .ok()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Echo {
    On,
    Off,
}

fn on_tty(mut tty: &File, prompt: &str, echo: Echo) -> Option<Zeroizing<String>> {
    let asking = Asking::new(tty, echo)?;
    let interrupt = asking.interrupt();
    let answer = ask(&mut tty, prompt, interrupt);
    drop(asking);
    if echo == Echo::Off || matches!(answer, Ok(Answer::Interrupted)) {
        // The person's own newline was not echoed.
        tty.write_all(b"\n").ok()?;
    }
    match answer.ok()? {
        Answer::Line(line) => Some(line),
        Answer::None => None,
        Answer::Interrupted => {
            // What Ctrl-C would have done, to this process: the signal may be waited for by any of its threads. There is no
            // answer whether it is handled or not.
            let _ = kill(getpid(), Signal::SIGINT);
            // Told at once, the missing answer would be the reason that is told of the end.
            sleep(FAREWELL);
            None
        }
    }
}

/// What came from the terminal.
enum Answer {
    Line(Zeroizing<String>),
    /// The end of input, or nothing that could be an answer.
    None,
    /// Ctrl-C.
    Interrupted,
}

/// Writes `prompt` and reads one line, without its newline.
fn ask(tty: &mut (impl Read + Write), prompt: &str, interrupt: Option<u8>) -> io::Result<Answer> {
    tty.write_all(prompt.as_bytes())?;
    tty.flush()?;
    // The full size at once: growing would leave copies of a secret behind.
    let mut answer = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
    let mut byte = [0u8; 1];
    loop {
        if tty.read(&mut byte)? == 0 {
            return Ok(Answer::None);
        }
        match byte[0] {
            b'\n' | b'\r' => break,
            b if Some(b) == interrupt => return Ok(Answer::Interrupted),
            _ if answer.len() == MAX_ANSWER => return Ok(Answer::None),
            b => answer.push(b),
        }
    }
    byte.zeroize();
    Ok(match std::str::from_utf8(&answer) {
        Ok(text) => Answer::Line(Zeroizing::new(text.to_owned())),
        Err(_) => Answer::None,
    })
}

/// The terminal's settings for a question; the former ones are back when this goes.
///
/// Ctrl-C is read as the end of a line instead of raising a signal: the thread that reads cannot be stopped, and the
/// process could not end before the person has typed a line; the terminal would stay without echo.
pub(in crate::carrier) struct Asking {
    tty: File,
    before: Termios,
}

impl Asking {
    fn new(tty: &File, echo: Echo) -> Option<Self> {
        Self::with(tty, |settings| {
            let interrupt = settings.control_chars[Key::VINTR as usize];
            settings.control_chars[Key::VEOL as usize] = interrupt;
            if echo == Echo::On {
                return SetArg::TCSADRAIN;
            }
            settings.local_flags.remove(LocalFlags::ECHO);
            // FLUSH drops what was typed ahead, before anybody could see what it would answer.
            SetArg::TCSAFLUSH
        })
    }

    /// For somebody else who asks, and edits and echoes lines: each key is read as it is typed.
    pub(in crate::carrier) fn keys(tty: &File) -> Option<Self> {
        Self::with(tty, |settings| {
            let each = LocalFlags::ICANON | LocalFlags::ECHO;
            settings.local_flags.remove(each);
            settings.control_chars[Key::VMIN as usize] = 1;
            settings.control_chars[Key::VTIME as usize] = 0;
            SetArg::TCSAFLUSH
        })
    }

    /// Without signals, and as `change` has it, which tells when that holds.
    fn with(tty: &File, change: impl FnOnce(&mut Termios) -> SetArg) -> Option<Self> {
        let tty = tty.try_clone().ok()?;
        let before = termios::tcgetattr(tty.as_fd()).ok()?;
        let mut settings = before.clone();
        settings.local_flags.remove(LocalFlags::ISIG);
        let when = change(&mut settings);
        *asked() = Some((tty.try_clone().ok()?, before.clone()));
        let asking = Self { tty, before };
        termios::tcsetattr(asking.tty.as_fd(), when, &settings).ok()?;
        Some(asking)
    }

    /// The key that interrupts, usually Ctrl-C. Where it is 0 (_POSIX_VDISABLE), none does.
    pub(in crate::carrier) fn interrupt(&self) -> Option<u8> {
        let key = self.before.control_chars[Key::VINTR as usize];
        (key != 0).then_some(key)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        *asked() = None;
        // A terminal that is gone needs no settings: nothing to do about an error.
        let _ = termios::tcsetattr(self.tty.as_fd(), SetArg::TCSADRAIN, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// The tests of one process have one terminal each, which no process has.
    static QUESTIONS: Mutex<()> = Mutex::new(());

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
        let answer = ask(&mut tty, "Passphrase: ", Some(3)).unwrap();
        assert_eq!(tty.output, b"Passphrase: ");
        match answer {
            Answer::Line(line) => Some(line.to_string()),
            Answer::None => None,
            Answer::Interrupted => Some("interrupted".to_owned()),
        }
    }

    #[test]
    fn an_interrupt_ends_the_question() {
        assert_eq!(answer(b"ab\x03cd\n").as_deref(), Some("interrupted"));
    }

    #[test]
    fn the_terminal_is_as_before() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let (mut master, tty) = (File::from(pty.master), File::from(pty.slave));
        let settings = || termios::tcgetattr(tty.as_fd()).unwrap();
        let before = settings();
        let _one_at_a_time = QUESTIONS.lock().unwrap();
        let person = std::thread::spawn(move || {
            let mut shown = [0u8; 64];
            let len = master.read(&mut shown).unwrap();
            // Nothing is read before it: TCSAFLUSH would drop it.
            master.write_all(b"xy\x7fz\n").unwrap();
            let echo = master.read(&mut shown[len..]).unwrap();
            (
                String::from_utf8_lossy(&shown[..len + echo]).into_owned(),
                master,
            )
        });
        let answer = on_tty(&tty, "Secret: ", Echo::Off).unwrap();
        assert_eq!(*answer, "xz");
        let (shown, _master) = person.join().unwrap();
        assert_eq!(shown, "Secret: \r\n");
        assert_eq!(settings(), before);
    }

    #[test]
    fn an_end_before_the_answer_gives_the_terminal_back() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let tty = File::from(pty.slave);
        let settings = || termios::tcgetattr(tty.as_fd()).unwrap();
        let before = settings();
        let _one_at_a_time = QUESTIONS.lock().unwrap();
        let asking = Asking::new(&tty, Echo::Off).unwrap();
        assert!(!settings().local_flags.contains(LocalFlags::ECHO));
        give_back_terminal();
        assert_eq!(settings(), before);
        drop(asking);
        assert_eq!(settings(), before);
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
