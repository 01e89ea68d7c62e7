//! A terminal of ssh's own, shown on the person's. ssh writes its log to us and its questions to its terminal: were that the
//! person's, a question would overtake the lines that ssh has written before it.
//!
//! Its line discipline echoes, erases and ends lines as ssh has set it; the person's passes each key on, from a question,
//! which is a line that was begun, until it is answered.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, OutputFlags, tcgetattr};
use nix::unistd::getpid;
use tokio::net::unix::pipe;
use zeroize::Zeroizing;

use super::hearing::Source;
use crate::carrier::prompt::Asking;

/// See the module.
pub(super) struct Screen {
    /// What ssh writes.
    source: Source,
    /// Where it reads.
    typed: File,
    /// Kept open: ssh opens it for each question, and in between it would look as if nobody ever did again.
    _far_end: OwnedFd,
    person: File,
    keys: pipe::Receiver,
    turn: Arc<Mutex<Turn>>,
    /// What is shown last is no whole line: a question, with what is typed so far.
    is_mid_line: bool,
    /// It has its answer, though that may not show yet; what is typed now is not for it.
    is_answered: bool,
}

/// Whether the person's keys are ssh's.
enum Turn {
    Nobody,
    Ssh(Asking),
    Over,
}

/// The time in which ssh may ask. The terminal is as before when it goes.
pub(super) struct Login(Arc<Mutex<Turn>>);

impl Drop for Login {
    fn drop(&mut self) {
        *lock(&self.0) = Turn::Over;
    }
}

fn lock(turn: &Mutex<Turn>) -> MutexGuard<'_, Turn> {
    // It is whole at every moment, whoever panicked.
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Screen {
    /// With the time in which ssh may ask, and ssh's end. `None` where this process has no terminal, or can make none.
    pub(super) fn open() -> Option<(Self, Login, OwnedFd)> {
        Self::try_open().ok()
    }

    fn try_open() -> io::Result<(Self, Login, OwnedFd)> {
        let tty = |flags: OFlag| {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true);
            options.custom_flags(flags.bits()).open("/dev/tty")
        };
        let person = tty(OFlag::empty())?;
        let mut settings = tcgetattr(person.as_fd())?;
        // Lines end on the person's terminal, and what interrupts is for us.
        settings.output_flags.remove(OutputFlags::OPOST);
        settings.local_flags.remove(LocalFlags::ISIG);
        let pair = openpty(None, &settings)?;
        for end in [&pair.master, &pair.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        fcntl(&pair.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let turn = Arc::new(Mutex::new(Turn::Nobody));
        let screen = Self {
            typed: pair.master.try_clone()?.into(),
            source: Source::new(pipe::Receiver::from_owned_fd_unchecked(pair.master)?),
            _far_end: pair.slave.try_clone()?,
            person,
            keys: pipe::Receiver::from_owned_fd_unchecked(tty(OFlag::O_NONBLOCK)?.into())?,
            turn: Arc::clone(&turn),
            is_mid_line: false,
            is_answered: false,
        };
        Ok((screen, Login(turn), pair.slave))
    }

    /// Resolves when ssh has written something, or the person has typed something for it.
    pub(super) async fn ready(&self) {
        let keys = async {
            // An error is a terminal that is gone.
            if !self.is_asking() || self.keys.readable().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.source.ready() => {}
            () = keys => {}
        }
    }

    fn is_asking(&self) -> bool {
        !self.is_answered && matches!(*lock(&self.turn), Turn::Ssh(_))
    }

    /// Takes what ssh has written; the end of a line that was begun, an answer's, is shown at once.
    pub(super) fn take(&mut self) {
        self.source.take();
        let end = self.source.heard.iter().position(|byte| *byte == b'\n');
        if let (true, Some(end)) = (self.is_mid_line, end) {
            let line: Vec<u8> = self.source.heard.drain(..=end).collect();
            self.write(&line);
        }
    }

    /// Shows what was taken.
    pub(super) fn show(&mut self) {
        let all = std::mem::take(&mut self.source.heard);
        if !all.is_empty() {
            self.write(&all);
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.is_mid_line = bytes.last() != Some(&b'\n');
        self.is_answered &= !self.is_mid_line;
        let mut turn = lock(&self.turn);
        *turn = match std::mem::replace(&mut *turn, Turn::Over) {
            Turn::Over => Turn::Over,
            _ if !self.is_mid_line => Turn::Nobody,
            // Without it the person's own terminal would edit the answer, and show it.
            Turn::Nobody => Asking::keys(&self.person).map_or(Turn::Nobody, Turn::Ssh),
            asking => asking,
        };
        drop(turn);
        // A terminal that is gone shows nothing.
        let _ = self.person.write_all(bytes);
    }

    /// Passes on what the person has typed, to the end of the line.
    pub(super) fn type_keys(&mut self) {
        let turn = lock(&self.turn);
        let Turn::Ssh(asking) = &*turn else {
            return;
        };
        let mut key = Zeroizing::new([0]);
        while !self.is_answered && matches!(self.keys.try_read(&mut *key), Ok(1)) {
            if asking.interrupt() == Some(key[0]) {
                // As a terminal does, to this process: the signal may be waited for by any of its threads.
                let _ = self.person.write_all(b"\n");
                let _ = kill(getpid(), Signal::SIGINT);
                return;
            }
            self.is_answered = matches!(key[0], b'\n' | b'\r');
            // More than any answer has, or for an ssh that is gone.
            let _ = self.typed.write_all(&*key);
        }
    }
}
