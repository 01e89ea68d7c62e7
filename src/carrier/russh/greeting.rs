//! The exchange of versions (RFC 4253 section 4.2), before russh begins: who does not speak SSH is told by what it
//! says, and on a path without a TCP connection of ours the round trip is measured.
//!
//! russh then says its version and hears the server's once more: from [`SshStream`](super::route::SshStream), not from the wire.

use std::io;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use crate::carrier::failure::{harmless, words};

/// Our version; russh sends the same.
pub(super) const VERSION: &str = concat!("SSH-2.0-underpass_", env!("CARGO_PKG_VERSION"));
/// The same, as it is sent.
pub(super) const VERSION_LINE: &str =
    concat!("SSH-2.0-underpass_", env!("CARGO_PKG_VERSION"), "\r\n");
/// A server may say this much before its version, in bytes. ssh reads 1,024 lines (kex.c SSH_MAX_PRE_BANNER_LINES).
const MAX_TALK: usize = 64 << 10;
/// The longest version, in bytes (RFC 4253 section 4.2).
const MAX_LINE: usize = 255;
/// Silence after which it is said whom we wait for.
const SILENCE: Duration = Duration::from_secs(3);
/// How long the answer to our version is waited for, to measure the round trip.
const MEASURE: Duration = Duration::from_secs(2);

/// Why there is no version.
#[derive(Debug, Error)]
pub(super) enum GreetingError {
    /// It ended the connection without a word.
    #[error("before its SSH banner, without a word (MaxStartups, or a penalty for this address?)")]
    Mute,
    /// It ended the connection with a word, as sshd does to whom it will not serve now.
    #[error("before its SSH banner: it said {0:?}")]
    Sent(String),
    /// It says something else.
    #[error("it is not an SSH server: it says {0:?}")]
    NotSsh(String),
    /// It speaks another SSH.
    #[error("it does not speak SSH 2: it says {0:?}")]
    OldSsh(String),
    /// The stream broke.
    #[error("{}", words(.error))]
    Io {
        /// How.
        error: io::Error,
        /// What had come before that is no SSH.
        said: Option<String>,
    },
}

impl From<io::Error> for GreetingError {
    fn from(error: io::Error) -> Self {
        Self::Io { error, said: None }
    }
}

/// What the server said.
#[derive(Debug)]
pub(super) struct Greeting {
    /// Its version, and what came after it.
    pub(super) heard: Bytes,
    /// The time to the answer to our version, where it was asked for and can be told.
    pub(super) round_trip: Option<Duration>,
}

/// What sshd says instead of its version where it takes no connection for now (sshd.c `drop_connection`).
const SENT_AWAY: [&str; 2] = ["Exceeded MaxStartups", "Not allowed at this time"];

/// Exchanges versions over `stream` with `server`, and measures the round trip if `measured`.
///
/// A server may wait for our version before it says its own, so ours goes first where nothing is measured.
///
/// # Errors
/// [`GreetingError`].
pub(super) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    server: &str,
    measured: bool,
) -> Result<Greeting, GreetingError> {
    let mut talk = Talk::default();
    if !measured {
        send(stream).await?;
    }
    let first = tokio::select! {
        found = talk.version(stream) => Some(found?),
        () = sleep(SILENCE) => None,
    };
    let silent = first.is_none();
    if silent {
        match measured {
            true => info!("waiting for the SSH banner of {server}"),
            false => info!("connected to {server}, waiting for its SSH banner"),
        }
        if measured {
            send(stream).await?;
        }
        talk.version(stream).await?;
    }
    let round_trip = match measured && !silent {
        true => talk.measure(stream).await?,
        false => None,
    };
    Ok(Greeting {
        heard: talk.heard.freeze(),
        round_trip,
    })
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    match stream.write_all(VERSION_LINE.as_bytes()).await {
        // Whoever closed at once may have said why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        sent => sent,
    }
}

/// What was heard, from the last line that is not yet known to be something else.
#[derive(Debug, Default)]
struct Talk {
    heard: BytesMut,
    /// The first line that is no version.
    first: Option<String>,
    /// Bytes of such lines.
    skipped: usize,
}

impl Talk {
    /// Reads until the version begins what was heard. Cancel safe.
    async fn version<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> Result<(), GreetingError> {
        loop {
            while let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                if self.heard.starts_with(b"SSH-") {
                    return self.check(end);
                }
                self.skip(end + 1);
            }
            let is_version = b"SSH-".starts_with(&self.heard) || self.heard.starts_with(b"SSH-");
            let too_long = is_version && self.heard.len() > MAX_LINE;
            if too_long || self.skipped + self.heard.len() > MAX_TALK {
                self.skip(self.heard.len());
                return Err(self.not_ssh());
            }
            match stream.read_buf(&mut self.heard).await {
                Ok(0) => return Err(self.ended()),
                Ok(_) => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    fn check(&self, end: usize) -> Result<(), GreetingError> {
        let line = &self.heard[..end];
        if line.starts_with(b"SSH-2.0-") || line.starts_with(b"SSH-1.99-") {
            debug!("the server is {}", beginning(line));
            return Ok(());
        }
        Err(GreetingError::OldSsh(beginning(line)))
    }

    fn skip(&mut self, bytes: usize) {
        let line = beginning(&self.heard[..bytes]);
        debug!("the server says before its version: {line}");
        if self.first.is_none() && !line.is_empty() {
            self.first = Some(line);
        }
        self.heard.advance(bytes);
        self.skipped += bytes;
    }

    fn ended(&mut self) -> GreetingError {
        if !self.heard.is_empty() {
            self.skip(self.heard.len());
        }
        match &self.first {
            None => GreetingError::Mute,
            Some(_) => self.sent_away().unwrap_or_else(|| self.not_ssh()),
        }
    }

    fn broken(&mut self, error: io::Error) -> GreetingError {
        if !self.heard.is_empty() {
            self.skip(self.heard.len());
        }
        // Where it had not read our version its goodbye is followed by a reset.
        self.sent_away().unwrap_or_else(|| GreetingError::Io {
            error,
            said: self.first.take(),
        })
    }

    fn sent_away(&self) -> Option<GreetingError> {
        let line = self.first.as_ref()?;
        let is_so = SENT_AWAY.iter().any(|away| line.starts_with(away));
        is_so.then(|| GreetingError::Sent(line.clone()))
    }

    fn not_ssh(&self) -> GreetingError {
        GreetingError::NotSsh(self.first.clone().unwrap_or_default())
    }

    /// Sends our version and waits for what a server says to it. Nothing is known where it went on by itself.
    async fn measure<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
    ) -> Result<Option<Duration>, GreetingError> {
        let end = self.heard.iter().position(|byte| *byte == b'\n');
        let is_all = end.is_none_or(|end| end + 1 == self.heard.len());
        let began = Instant::now();
        send(stream).await?;
        if !is_all {
            return Ok(None);
        }
        match timeout(MEASURE, stream.read_buf(&mut self.heard)).await {
            Ok(Ok(0)) => Err(GreetingError::Mute),
            Ok(Ok(_)) => Ok(Some(began.elapsed())),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Ok(None),
        }
    }
}

/// The beginning of a line, for a person.
fn beginning(line: &[u8]) -> String {
    let line = &line[..line.len().min(100)];
    harmless(&String::from_utf8_lossy(line))
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{ReadBuf, duplex};

    use super::*;

    async fn heard(text: &'static [u8]) -> Result<Bytes, GreetingError> {
        let (mut ours, mut theirs) = duplex(1 << 20);
        theirs.write_all(text).await.unwrap();
        theirs.shutdown().await.unwrap();
        greet(&mut ours, "h", false).await.map(|g| g.heard)
    }

    #[tokio::test]
    async fn a_version_after_other_lines() {
        let heard = heard(b"Welcome\r\n\r\nSSH-2.0-x y\r\nrest").await.unwrap();
        assert_eq!(&heard[..], b"SSH-2.0-x y\r\nrest");
    }

    #[tokio::test]
    async fn who_does_not_speak_ssh_is_told_by_its_beginning() {
        for (text, said) in [
            (&b""[..], "before its SSH banner, without a word"),
            (
                b"HTTP/1.1 400 Bad\x1b[31m\r\n\r\n",
                "it is not an SSH server: it says \"HTTP/1.1 400 Bad[31m\"",
            ),
            (b"220 smtp", "it says \"220 smtp\""),
            (
                b"SSH-1.5-old\r\n",
                "it does not speak SSH 2: it says \"SSH-1.5-old\"",
            ),
            (b"SSH-2", "it says \"SSH-2\""),
            (
                b"Not allowed at this time\r\n",
                "before its SSH banner: it said \"Not allowed at this time\"",
            ),
        ] {
            let error = heard(text).await.unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    /// A stream that was reset.
    struct Reset;

    impl AsyncRead for Reset {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }

    #[tokio::test]
    async fn a_goodbye_is_heard_though_a_reset_follows() {
        for (text, said) in [
            (
                "Exceeded MaxStartups\r\n",
                "before its SSH banner: it said \"Exceeded MaxStartups\"",
            ),
            ("220 smtp\r\n", "connection reset"),
            ("", "connection reset"),
        ] {
            let mut stream = AsyncReadExt::chain(text.as_bytes(), Reset);
            let error = Talk::default().version(&mut stream).await.unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            let is_sent = matches!(error, GreetingError::Sent(_));
            assert_eq!(is_sent, text.starts_with("Exceeded"), "{error}");
        }
    }

    #[tokio::test]
    async fn endless_talk_ends() {
        static LINES: [u8; 2 * MAX_TALK] = [b'\n'; 2 * MAX_TALK];
        static LINE: [u8; 2 * MAX_TALK] = [b'x'; 2 * MAX_TALK];
        static VERSION: &[u8] = b"SSH-";
        assert!(matches!(heard(&LINES).await, Err(GreetingError::NotSsh(_))));
        assert!(matches!(heard(&LINE).await, Err(GreetingError::NotSsh(_))));
        assert!(matches!(
            heard(VERSION).await,
            Err(GreetingError::NotSsh(_))
        ));
    }

    #[tokio::test]
    async fn the_answer_to_our_version_is_the_round_trip() {
        let (mut ours, mut theirs) = duplex(1 << 10);
        let server = tokio::spawn(async move {
            theirs.write_all(b"SSH-2.0-x\r\n").await.unwrap();
            let mut version = [0; VERSION_LINE.len()];
            theirs.read_exact(&mut version).await.unwrap();
            assert_eq!(version, VERSION_LINE.as_bytes());
            theirs.write_all(b"kexinit").await.unwrap();
            theirs
        });
        let greeting = greet(&mut ours, "h", true).await.unwrap();
        assert!(greeting.round_trip.is_some());
        assert_eq!(&greeting.heard[..], b"SSH-2.0-x\r\nkexinit");
        drop(server.await.unwrap());
    }

    #[tokio::test]
    async fn who_waits_for_our_version_gets_it() {
        let (mut ours, mut theirs) = duplex(1 << 10);
        tokio::spawn(async move {
            let mut version = [0; VERSION_LINE.len()];
            theirs.read_exact(&mut version).await.unwrap();
            theirs.write_all(b"SSH-2.0-x\r\n").await.unwrap();
        });
        let greeting = greet(&mut ours, "h", true).await.unwrap();
        assert_eq!(greeting.round_trip, None);
    }
}
