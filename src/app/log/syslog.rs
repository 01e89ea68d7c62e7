//! Lines for syslog(3): datagrams to /dev/log, in the form that all its daemons read (RFC 3164 section 4.1, without the time:
//! whoever receives them knows it).

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::IDENTIFIER;

/// Where syslog listens (syslog(3), glibc's `_PATH_LOG`).
const PATH: &str = "/dev/log";
/// LOG_DAEMON of syslog.h, as sshd and most others.
const FACILITY: u8 = 3 << 3;

/// Writes lines. A line that cannot be taken at once is lost: nothing waits for its log.
#[derive(Debug)]
pub(super) struct Syslog {
    path: PathBuf,
    socket: Mutex<UnixDatagram>,
}

impl Syslog {
    /// Writes to the syslog of this host.
    ///
    /// # Errors
    /// Nobody listens.
    pub(super) fn connect() -> io::Result<Self> {
        Self::at(PATH.into())
    }

    fn at(path: PathBuf) -> io::Result<Self> {
        let socket = Mutex::new(dial(&path)?);
        Ok(Self { path, socket })
    }

    fn send(&self, severity: u8, text: &[u8]) -> io::Result<()> {
        let head = format!(
            "<{}>{IDENTIFIER}[{}]: ",
            FACILITY | severity,
            std::process::id()
        );
        let mut line = head.into_bytes();
        line.extend(text.strip_suffix(b"\n").unwrap_or(text));
        let mut socket = self.socket();
        match socket.send(&line) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            // The daemon was started anew.
            Err(_) => {
                *socket = dial(&self.path)?;
                socket.send(&line).map(drop)
            }
        }
    }

    fn socket(&self) -> MutexGuard<'_, UnixDatagram> {
        // A socket is whole at every moment, whoever panicked.
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn dial(path: &PathBuf) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The severities of syslog.h.
const fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Takes one line at a time.
pub(super) struct Line<'a> {
    syslog: &'a Syslog,
    severity: u8,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.syslog.send(self.severity, line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line {
            syslog: self,
            severity: severity(Level::INFO),
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        Line {
            syslog: self,
            severity: severity(*metadata.level()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut line = [0; 200];
        let length = socket.recv(&mut line).unwrap();
        String::from_utf8_lossy(&line[..length]).replace(&format!("{}", std::process::id()), "PID")
    }

    #[test]
    fn a_line_is_a_datagram_also_after_the_daemon_was_started_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let first = UnixDatagram::bind(&path).unwrap();
        let syslog = Syslog::at(path.clone()).unwrap();
        syslog.send(severity(Level::WARN), b"warning: a\n").unwrap();
        assert_eq!(heard(&first), "<28>underpass[PID]: warning: a");
        drop(first);
        std::fs::remove_file(&path).unwrap();
        assert!(syslog.send(3, b"lost\n").is_err());
        let second = UnixDatagram::bind(&path).unwrap();
        syslog.send(severity(Level::INFO), b"b\n").unwrap();
        assert_eq!(heard(&second), "<30>underpass[PID]: b");
    }

    #[test]
    fn nobody_waits_for_a_daemon_that_does_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let syslog = Syslog::at(path).unwrap();
        let sent = (0..100_000).find_map(|_| syslog.send(6, b"line\n").err());
        assert_eq!(sent.unwrap().kind(), io::ErrorKind::WouldBlock);
    }
}
