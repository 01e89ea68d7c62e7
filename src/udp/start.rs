//! How a far end begins, and why there may be none.

use std::time::Duration;

use tokio::time::timeout;

use super::far::{Found, PROBE};
use super::frame::Fault;
use super::upload::UploadError;
use crate::net::{ByteReader, ByteWriter, Exec, OpenError, OpenFailure, StreamError};

/// How long the server may take to say what it has, and a far end to greet.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// More than this is no answer to [`PROBE`], in bytes.
const MOST_OUTPUT: usize = 64 << 10;
/// How long nothing is tried after a failure: first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A far end that lasted so long did not fail at its start.
const LASTING: Duration = Duration::from_secs(10);

/// Why there is no far end: one line for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The server runs no commands for us.
    #[error("the server runs no command for this login ({0}): use --tunnel where it permits that")]
    NoExec(OpenError),
    /// It has none of the programs.
    #[error(
        "the server has no python3, perl, socat or nc: install one of them there, add --upload-helper, or use \
         --tunnel"
    )]
    NoMeans,
    /// It was to be sent one.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// Its ping is missing, or may not send.
    #[error("the server has no ping that this login may use: use --ping=probe")]
    NoPing,
    /// A program said nothing, or not in time.
    #[error("{0} on the server does not answer")]
    Silent(&'static str),
    /// Something else said something.
    #[error("{0}")]
    Foreign(#[from] Fault),
    /// The program has ended.
    #[error("the helper has ended on the server")]
    Ended,
    /// The connection is lost, and the stream with it.
    #[error("the connection was lost")]
    Lost,
}

impl From<StreamError> for Trouble {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Reset => Self::Ended,
            StreamError::Lost => Self::Lost,
        }
    }
}

impl From<OpenError> for Trouble {
    /// A command was not run.
    fn from(error: OpenError) -> Self {
        match error.failure {
            OpenFailure::ConnectionLost => Self::Lost,
            _ => Self::NoExec(error),
        }
    }
}

/// Asks the server what it has.
///
/// # Errors
/// [`Trouble`]: it runs no commands, or says nothing.
pub async fn probe(exec: &impl Exec) -> Result<Found, Trouble> {
    // No deadline here: whoever has no connection for now waits for the next one.
    let (mut reader, mut writer) = exec.exec(PROBE).await?;
    let mut output = Vec::new();
    let hear = async {
        writer.finish().await?;
        while let Some(piece) = reader.read().await? {
            let room = MOST_OUTPUT.saturating_sub(output.len());
            output.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        Ok(())
    };
    match timeout(PATIENCE, hear).await {
        Ok(Ok(())) => Ok(Found::read(&output)),
        Ok(Err(error)) => Err(StreamError::into(error)),
        Err(_) => Err(Trouble::Silent("the shell")),
    }
}

/// Runs `command`, which takes `program` from its input and becomes it. `name` is the server's name for that.
///
/// # Errors
/// [`Trouble`]: it is not run, or does not listen.
pub async fn start<E: Exec>(
    exec: &E,
    name: &'static str,
    command: &str,
    program: String,
) -> Result<(E::Reader, E::Writer), Trouble> {
    let (reader, mut writer) = exec.exec(command).await?;
    match timeout(PATIENCE, writer.write(program.into())).await {
        Ok(written) => written?,
        Err(_) => return Err(Trouble::Silent(name)),
    }
    writer.flush();
    Ok((reader, writer))
}

/// How long to wait before a far end is started again.
#[derive(Debug)]
pub struct Pauses {
    next: Duration,
    /// What the log has already.
    told: Option<Trouble>,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            next: PAUSES.0,
            told: None,
        }
    }
}

impl Pauses {
    /// `what` has ended by `trouble`, after it had listened for so long: how long nothing is tried. `None`: it was a good one, and
    /// is started again as soon as it is needed.
    pub fn after(
        &mut self,
        what: &str,
        trouble: &Trouble,
        lasted: Option<Duration>,
    ) -> Option<Duration> {
        let was_good = lasted.is_some_and(|lasted| lasted >= LASTING);
        if was_good || *trouble == Trouble::Lost {
            tracing::info!("{what}: {trouble}; it starts again when it is needed");
            *self = Self::default();
            return None;
        }
        let pause = self.next;
        self.next = (pause * 2).min(PAUSES.1);
        let seconds = pause.as_secs();
        if self.told.as_ref() == Some(trouble) {
            tracing::debug!("{what} is not carried for {seconds} s: {trouble}");
        } else {
            tracing::warn!("{what} is not carried: {trouble}; it is tried again when it is needed");
            self.told = Some(trouble.clone());
        }
        Some(pause)
    }
}
