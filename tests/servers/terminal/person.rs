//! A person at a terminal in front of underpass.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};

use crate::client::Configured;

/// How long anything may take that should take a moment.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Person {
    terminal: File,
    pieces: Receiver<Vec<u8>>,
    /// All that was shown.
    shown: String,
    /// How much of it was looked at.
    seen: usize,
    child: Child,
    _ssh: Configured,
}

impl Person {
    /// Runs underpass with a terminal of its own.
    pub(crate) fn at(args: &[String], ssh: Configured) -> Self {
        let pair = openpty(None, None).unwrap();
        let [stdout, stderr] = [(); 2].map(|()| pair.slave.try_clone().unwrap());
        let child = Command::new("setsid")
            .args(["--ctty", "--wait", env!("CARGO_BIN_EXE_underpass")])
            .args(args)
            .env_remove("SSH_ASKPASS_REQUIRE")
            .env_remove("SSH_AUTH_SOCK")
            .stdin(pair.slave)
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        let terminal = File::from(pair.master);
        let mut reader = terminal.try_clone().unwrap();
        let (sender, pieces) = channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // An error is the end of all that have it open.
            while let Ok(length @ 1..) = reader.read(&mut piece) {
                if sender.send(piece[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            terminal,
            pieces,
            shown: String::new(),
            seen: 0,
            child,
            _ssh: ssh,
        }
    }

    /// All that was shown so far.
    pub(crate) fn said(&self) -> String {
        self.shown.clone()
    }

    /// Waits until `text` is shown; with what was shown before it since the last time.
    pub(crate) fn sees(&mut self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let new = &self.shown[self.seen..];
            if let Some(at) = new.find(text) {
                let said = new[..at + text.len()].to_owned();
                self.seen += said.len();
                return said;
            }
            let piece = self.pieces.recv_timeout(until - Instant::now());
            let piece = piece.unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.shown));
            self.shown += &String::from_utf8_lossy(&piece);
        }
    }

    /// The same, where `text` asks for an answer: nothing follows it.
    pub(crate) fn is_asked(&mut self, text: &str) -> String {
        let said = self.sees(text);
        assert_eq!(
            &self.shown[self.seen..],
            "",
            "after {text:?}: {:?}",
            self.shown
        );
        said
    }

    pub(crate) fn types(&mut self, text: &str) {
        self.terminal.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn has_echo(&self) -> bool {
        let settings = tcgetattr(&self.terminal).unwrap();
        settings.local_flags.contains(LocalFlags::ECHO)
    }

    /// Waits for the end, and takes what is still shown; with the exit code.
    pub(crate) fn sees_the_end(&mut self) -> i32 {
        let until = Instant::now() + PATIENCE;
        while let Ok(piece) = self.pieces.recv_timeout(until - Instant::now()) {
            self.shown += &String::from_utf8_lossy(&piece);
        }
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the terminal showed:\n{}", self.shown);
        }
        crate::rig::kill(&self.child.id().to_string());
        let _ = self.child.wait();
    }
}
