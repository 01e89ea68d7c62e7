//! The other end of the control socket: a command that asks an instance.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use thiserror::Error;

use super::protocol::{self, Answer, MAX_ANSWER, Request};

/// How long an answer may take that needs no work.
const AT_ONCE: Duration = Duration::from_secs(10);
/// How long an instance may take to end, or to read its files again: it asks `ssh -G`, and the server for goodbye.
const AFTER_WORK: Duration = Duration::from_secs(60);

/// An instance could not be asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens: whoever left the socket there is gone.
    #[error("it is not running")]
    Gone,
    /// It is there and says nothing.
    #[error("it does not answer; it may be stopped or stuck")]
    Silent,
    /// The socket is somebody else's.
    #[error("it is another user's")]
    NotPermitted,
    /// What came is no answer.
    #[error("its answer is not understood: {0}")]
    Answer(String),
    /// Anything else.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Self::Gone,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            io::ErrorKind::PermissionDenied => Self::NotPermitted,
            _ => Self::Io(error),
        }
    }
}

/// A request that was made.
#[derive(Debug)]
pub struct Asked(BufReader<UnixStream>);

/// Asks the instance at `socket`.
///
/// # Errors
/// [`ClientError`].
pub fn ask(socket: &Path, request: Request) -> Result<Asked, ClientError> {
    let mut stream = UnixStream::connect(socket)?;
    let patience = match request {
        Request::Status {} | Request::Flows { .. } => AT_ONCE,
        Request::Down {} | Request::Reload {} => AFTER_WORK,
    };
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(AT_ONCE))?;
    let line = protocol::line(&request).map_err(io::Error::from)?;
    stream.write_all(&line)?;
    Ok(Asked(BufReader::new(stream)))
}

impl Asked {
    /// The next answer; `None` when there will be none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn answer(&mut self) -> Result<Option<Answer>, ClientError> {
        let mut line = Vec::new();
        let mut limited = (&mut self.0).take(MAX_ANSWER as u64);
        match limited.read_until(b'\n', &mut line) {
            // It ended before it read everything, as the kernel says when it is killed.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            other => other?,
        };
        if line.is_empty() {
            return Ok(None);
        }
        let answer = serde_json::from_slice(&line);
        let answer = answer.map_err(|error| ClientError::Answer(error.to_string()))?;
        Ok(Some(answer))
    }
}
