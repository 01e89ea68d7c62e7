//! The other end of the control socket: a command that asks an instance.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use thiserror::Error;

use super::protocol::{self, Answer, MAX_ANSWER, Request};
use crate::os::run_dir::Found;

/// How long an answer may take that needs no work.
const AT_ONCE: Duration = Duration::from_secs(5);
/// How long an instance may take to end, or to read its files again: it asks `ssh -G`, and the server for goodbye.
const AFTER_WORK: Duration = Duration::from_secs(60);

/// An instance could not be asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens: whoever left the socket there is gone.
    #[error("it is not running")]
    Gone,
    /// It is there and says nothing.
    #[error(
        "it does not answer: process {pid} may be stopped or stuck; kill -CONT {pid} lets it go on, kill -KILL {pid} ends it, and what it captures"
    )]
    Silent {
        /// Its process; `PID` where that is not known.
        pid: String,
    },
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

impl ClientError {
    fn new(error: io::Error, found: &Found) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Self::Gone,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent {
                pid: found.pid().unwrap_or_else(|| "PID".to_owned()),
            },
            io::ErrorKind::PermissionDenied => Self::NotPermitted,
            _ => Self::Io(error),
        }
    }
}

/// A request that was made, of whom.
#[derive(Debug)]
pub struct Asked<'a>(BufReader<UnixStream>, &'a Found);

/// Asks an instance.
///
/// # Errors
/// [`ClientError`].
pub fn ask(found: &Found, request: Request) -> Result<Asked<'_>, ClientError> {
    let asked = || {
        let mut stream = UnixStream::connect(&found.socket)?;
        // That it will end is answered before it does.
        stream.set_read_timeout(Some(match request {
            Request::Status {} | Request::Flows { .. } | Request::Down {} => AT_ONCE,
            Request::Reload {} => AFTER_WORK,
        }))?;
        stream.set_write_timeout(Some(AT_ONCE))?;
        stream.write_all(&protocol::line(&request)?)?;
        Ok(stream)
    };
    let stream = asked().map_err(|error| ClientError::new(error, found))?;
    Ok(Asked(BufReader::new(stream), found))
}

impl Asked<'_> {
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
            other => other.map_err(|error| ClientError::new(error, self.1))?,
        };
        // What comes next takes work. An error says that it is gone already.
        let _ = self.0.get_ref().set_read_timeout(Some(AFTER_WORK));
        if line.is_empty() {
            return Ok(None);
        }
        let answer = serde_json::from_slice(&line);
        let answer = answer.map_err(|error| ClientError::Answer(error.to_string()))?;
        Ok(Some(answer))
    }
}
