//! Where lines go.

mod datagram;
mod file;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use self::datagram::{Datagrams, Form};
use self::file::LogFile;
use crate::plan::AuditLog;

/// Why there is no audit log.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The file cannot be opened.
    #[error(
        "--audit-log: cannot open {}: {source}. Its directory must be there, and be writable for who runs underpass", .path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// The file is not one that only we write.
    #[error("--audit-log: {} {reason}", .path.display())]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The log service is not there.
    #[error(
        "--audit-log: {service} does not listen at {}: {source}. Name a file instead", .path.display()
    )]
    Service {
        /// Its name.
        service: &'static str,
        /// Its socket.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// The writer could not be started.
    #[error("--audit-log: cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// Lines that were not written.
#[derive(Debug)]
pub(super) struct Failure {
    /// How many.
    pub(super) lines: u64,
    /// Why.
    pub(super) error: io::Error,
}

/// Where lines go.
#[derive(Debug)]
pub(super) enum Sink {
    File(LogFile),
    Datagrams(Datagrams),
}

impl Sink {
    /// # Errors
    /// [`AuditError`].
    pub(super) fn open(destination: &AuditLog) -> Result<Self, AuditError> {
        match destination {
            AuditLog::File(path) => LogFile::open(path).map(Self::File),
            AuditLog::Journald => Datagrams::open(Form::Journal).map(Self::Datagrams),
            AuditLog::Syslog => Datagrams::open(Form::Syslog).map(Self::Datagrams),
        }
    }

    /// Writes whole lines.
    ///
    /// # Errors
    /// How many of them are lost, and why.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), Failure> {
        match self {
            Self::File(file) => file.write(lines),
            Self::Datagrams(socket) => socket.write(lines),
        }
    }

    /// Opens a file anew. Where that fails the old one stays.
    pub(super) fn reopen(&mut self) {
        if let Self::File(file) = self {
            file.reopen();
        }
    }
}

/// How many lines end in these bytes.
fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}
