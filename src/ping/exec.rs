//! By the server's own `ping`: one command for all, which is told a number and a host, and says the number and how `ping` ended.

use std::convert::Infallible;

use tokio::time::{Instant, sleep, timeout_at};

use super::pinger::{Pinger, Reply, State};
use crate::net::{ByteReader, ByteWriter, Exec};
use crate::udp::clock::now;
use crate::udp::{PATIENCE, Pauses, Trouble, probe, start};

const HELPER: &str = include_str!("helper.sh");
/// What it says first.
const GREETING: &[u8] = b"underpass-ping-1";
/// No line is longer, in bytes.
const LONGEST: usize = 4096;

impl<T: Send, R: Reply<T>> Pinger<T, R> {
    /// Answers requests as long as it is polled, by the `ping` of the server that `exec` runs commands on.
    pub async fn run_exec(&self, exec: &impl Exec) -> Infallible {
        tokio::select! {
            never = self.keep_time() => never,
            never = self.keep_helper(exec) => never,
        }
    }

    async fn keep_helper(&self, exec: &impl Exec) -> Infallible {
        let mut pauses = Pauses::default();
        loop {
            while !self.hosts().wants() {
                self.bell.notified().await;
            }
            let mut up = None;
            let trouble = match self.ask_helper(exec, &mut up).await {
                Ok(never) => match never {},
                Err(trouble) => trouble,
            };
            self.hosts().handle_lost();
            match pauses.after("ping", &trouble, up.map(|up| now() - up)) {
                Some(pause) => {
                    self.set(State::Failed(trouble.clone()));
                    sleep(pause).await;
                    self.set(State::Again(trouble));
                }
                None => self.set(State::Fine),
            }
        }
    }

    /// Starts the helper and asks it, to its end.
    async fn ask_helper(
        &self,
        exec: &impl Exec,
        up: &mut Option<std::time::Instant>,
    ) -> Result<Infallible, Trouble> {
        if !probe(exec).await?.pings {
            return Err(Trouble::NoPing);
        }
        let command = format!(
            "exec sh -c 'LC_ALL=C; export LC_ALL; eval \"$(dd bs=1 count={} 2>/dev/null)\"'",
            HELPER.len()
        );
        let (mut reader, writer) = start(exec, "ping", &command, HELPER.to_owned()).await?;
        let mut lines = Lines::default();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let piece = timeout_at(deadline, reader.read()).await;
            let piece = piece.map_err(|_| Trouble::Silent("ping"))??;
            lines.push(&piece.ok_or(Trouble::Ended)?);
            if std::iter::from_fn(|| lines.next_line()).any(|line| line == GREETING) {
                break;
            }
        }
        *up = Some(now());
        self.set(State::Fine);
        tokio::select! {
            ended = self.hear(reader, lines) => ended,
            ended = self.say(writer) => ended,
        }
    }

    async fn hear(
        &self,
        mut reader: impl ByteReader,
        mut lines: Lines,
    ) -> Result<Infallible, Trouble> {
        loop {
            while let Some(line) = lines.next_line() {
                if let Some((number, is_alive)) = answer(&line) {
                    self.answered(number, is_alive);
                }
            }
            lines.push(&reader.read().await?.ok_or(Trouble::Ended)?);
        }
    }

    async fn say(&self, mut writer: impl ByteWriter) -> Result<Infallible, Trouble> {
        loop {
            let question = self.hosts().next_question();
            match question {
                Some((number, host)) => {
                    let line = format!("{number} {}\n", host.to_canonical());
                    writer.write(line.into()).await?;
                }
                None => {
                    writer.flush();
                    self.bell.notified().await;
                }
            }
        }
    }
}

/// Question and end of `ping`: 0 is a reply, everything else is none.
fn answer(line: &[u8]) -> Option<(u32, bool)> {
    let (number, status) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    Some((number.parse().ok()?, status == "0"))
}

/// Lines out of pieces. Holds one that is not whole; of one that is too long, what follows is a line of its own.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(piece);
    }

    /// The next line, without its end.
    fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.0.iter().position(|byte| *byte == b'\n');
        let Some(end) = end else {
            if self.0.len() > LONGEST {
                self.0.clear();
            }
            return None;
        };
        let mut line: Vec<u8> = self.0.drain(..=end).collect();
        line.truncate(line.trim_ascii_end().len());
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_helper_is_plain_text() {
        assert!(HELPER.is_ascii() && !HELPER.contains('\0'));
    }

    #[test]
    fn only_a_zero_is_a_reply() {
        assert_eq!(answer(b"7 0"), Some((7, true)));
        for line in ["7 1", "7 2", "7 00", "7 127", "7 "] {
            assert_eq!(answer(line.as_bytes()), Some((7, false)), "{line}");
        }
        for line in ["", "7", "x 0", "-1 0", "4294967296 0"] {
            assert_eq!(answer(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_line_has_an_end() {
        let mut lines = Lines::default();
        lines.push(&[b'x'; LONGEST]);
        assert_eq!(lines.next_line(), None);
        lines.push(b"x");
        assert_eq!((lines.next_line(), lines.0.len()), (None, 0));
        lines.push(b"a\r\n\nb");
        assert_eq!(lines.next_line(), Some(b"a".to_vec()));
        assert_eq!(lines.next_line(), Some(Vec::new()));
        assert_eq!(lines.next_line(), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let mut lines = Lines::default();
            for piece in pieces {
                lines.push(&piece);
                while let Some(line) = lines.next_line() {
                    let _ = answer(&line);
                }
            }
        }
    }
}
