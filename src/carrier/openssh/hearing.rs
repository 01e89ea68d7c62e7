//! Hearing what one ssh says, in its order: the lines of its log, and of stderr, come before the question on its terminal
//! that it has asked behind them.

use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::unistd::read;
use tokio::net::unix::pipe;

use super::terminal::Screen;
use super::words::Words;

/// The longest line of ssh's that is taken, in bytes.
const MAX_LINE: usize = 4096;
/// What is taken at a time, in bytes, so that much talk keeps nobody waiting.
const MAX_TAKEN: usize = 64 << 10;

/// A descriptor that somebody writes to, and what has come so far.
pub(super) struct Source {
    pipe: pipe::Receiver,
    pub(super) heard: Vec<u8>,
    is_open: bool,
}

impl Source {
    pub(super) fn new(pipe: pipe::Receiver) -> Self {
        Self {
            pipe,
            heard: Vec::new(),
            is_open: true,
        }
    }

    /// Resolves when there is something to take; never after the end.
    pub(super) async fn ready(&self) {
        if !self.is_open {
            std::future::pending::<()>().await;
        }
        // An error shows when it is read.
        let _ = self.pipe.readable().await;
    }

    /// Takes what is there now. Whether the runtime knows of it does not matter: what was written before something else that
    /// was heard is there.
    pub(super) fn take(&mut self) {
        let mut piece = [0; MAX_LINE];
        while self.is_open && self.heard.len() < MAX_TAKEN {
            match read(&self.pipe, &mut piece) {
                Ok(length @ 1..) => self.heard.extend_from_slice(&piece[..length]),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                // A terminal that nobody else has open any more gives an error.
                Ok(0) | Err(_) => self.is_open = false,
            }
        }
        // The runtime learns that there is no more.
        if let Ok(length) = self.pipe.try_read(&mut piece) {
            self.heard.extend_from_slice(&piece[..length]);
        }
    }

    /// The lines that are whole, and at the end what is left.
    fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut rest = &self.heard[..];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            lines.push(text(&rest[..end]));
            rest = &rest[end + 1..];
        }
        if !rest.is_empty() && (!self.is_open || rest.len() >= MAX_LINE) {
            lines.push(text(rest));
            rest = &[];
        }
        self.heard = rest.to_vec();
        lines
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(MAX_LINE)]).into_owned()
}

/// All that one ssh says.
pub(super) struct Hearing {
    pub(super) log: Source,
    pub(super) asides: Source,
    pub(super) screen: Option<Screen>,
    pub(super) words: Arc<Mutex<Words>>,
}

impl Hearing {
    /// Hears to the end of its log and of its stderr.
    pub(super) async fn listen(mut self) {
        while self.log.is_open || self.asides.is_open {
            let screen = async {
                match &self.screen {
                    Some(screen) => screen.ready().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.log.ready() => {}
                () = self.asides.ready() => {}
                () = screen => {}
            }
            self.hear();
        }
    }

    /// Takes what there is: first what comes last. What ssh has said before a question on its terminal is in its log by
    /// then, and on stderr what came before that: the server's banner, the words of a jump host's ssh.
    fn hear(&mut self) {
        if let Some(screen) = &mut self.screen {
            screen.type_keys();
            screen.take();
        }
        self.log.take();
        self.asides.take();
        self.tell(|hearing| hearing.asides.lines(), Words::overhear);
        self.tell(|hearing| hearing.log.lines(), Words::hear);
        if let Some(screen) = &mut self.screen {
            screen.show();
        }
    }

    fn tell(&mut self, lines: fn(&mut Self) -> Vec<String>, to: fn(&mut Words, &str)) {
        let lines = lines(self);
        // Texts for people: nothing depends on them.
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().for_each(|line| to(&mut words, line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_whole_and_short() {
        let (reader, writer) = std::io::pipe().unwrap();
        let pipe = pipe::Receiver::from_owned_fd(reader.into()).unwrap();
        let mut source = Source::new(pipe);
        let say = |text: &str| std::io::Write::write_all(&mut &writer, text.as_bytes()).unwrap();
        say("one\r\ntwo\nth");
        source.ready().await;
        source.take();
        assert_eq!(source.lines(), ["one\r", "two"]);
        say("ree\n");
        source.take();
        assert_eq!(source.lines(), ["three"]);
        say(&"x".repeat(MAX_LINE));
        say("rest");
        source.take();
        assert_eq!(source.lines()[0].len(), MAX_LINE);
        drop(writer);
        source.take();
        assert_eq!(source.lines().len(), 0);
        assert!(!source.is_open);
    }
}
