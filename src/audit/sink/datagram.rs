//! The system's log services: a datagram for each line.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{AuditError, Failure};

/// systemd's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).
const JOURNAL: &str = "/run/systemd/journal/socket";
/// syslog(3).
const SYSLOG: &str = "/dev/log";
/// How long a service may keep its socket full before a line is lost.
const PATIENCE: Duration = Duration::from_millis(500);
/// Facility LOG_AUTHPRIV (10), severity informational (6): 8 x 10 + 6 (RFC 5424 section 6.2.1).
const PRIORITY: u32 = 86;

/// How a line is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::audit) enum Form {
    /// For systemd's journal.
    Journal,
    /// For what listens at `/dev/log`.
    Syslog,
}

impl Form {
    fn service(self) -> &'static str {
        match self {
            Self::Journal => "systemd's journal",
            Self::Syslog => "syslog",
        }
    }

    fn path(self) -> &'static Path {
        Path::new(match self {
            Self::Journal => JOURNAL,
            Self::Syslog => SYSLOG,
        })
    }

    /// A line has no line break within: the schema escapes it. Local services take the time of receipt, so that a syslog
    /// line needs no header but priority and tag (RFC 3164 section 4.1, as syslog(3) sends it; the time is in the line).
    fn wrap(self, line: &[u8]) -> Vec<u8> {
        let head = match self {
            Self::Journal => {
                "PRIORITY=6\nSYSLOG_FACILITY=10\nSYSLOG_IDENTIFIER=underpass-audit\nMESSAGE="
                    .to_owned()
            }
            Self::Syslog => format!("<{PRIORITY}>underpass-audit[{}]: ", std::process::id()),
        };
        let mut datagram = [head.as_bytes(), line].concat();
        if self == Self::Journal {
            datagram.push(b'\n');
        }
        datagram
    }
}

/// A connection to a log service; made again when the service was restarted.
#[derive(Debug)]
pub(in crate::audit) struct Datagrams {
    form: Form,
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Datagrams {
    /// # Errors
    /// [`AuditError::Service`].
    pub(super) fn open(form: Form) -> Result<Self, AuditError> {
        Self::at(form, form.path())
    }

    fn at(form: Form, path: &Path) -> Result<Self, AuditError> {
        let socket = connect(path).map_err(|source| AuditError::Service {
            service: form.service(),
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            form,
            path: path.to_owned(),
            socket: Some(socket),
        })
    }

    /// Sends each line.
    ///
    /// # Errors
    /// How many did not go, and why the last one did not. After the first that did not the others are not tried: a service
    /// that is held up would hold up the queue. One that is too long for any datagram says nothing of the others.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), Failure> {
        let mut lines = lines.split_inclusive(|byte| *byte == b'\n');
        let (mut lost, mut last) = (0, None);
        while let Some(line) = lines.next() {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let Err(error) = self.send(&self.form.wrap(line)) else {
                continue;
            };
            lost += 1;
            if !is_too_long(&error) {
                lost += lines.by_ref().count() as u64;
            }
            last = Some(error);
        }
        match last {
            Some(error) => Err(Failure { lines: lost, error }),
            None => Ok(()),
        }
    }

    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        if let Some(socket) = &self.socket {
            match socket.send(datagram) {
                Ok(_) => return Ok(()),
                // It was restarted: its socket is another one.
                Err(error) if is_gone(&error) => self.socket = None,
                Err(error) => return Err(error),
            }
        }
        let socket = self.socket.insert(connect(&self.path)?);
        socket.send(datagram).map(drop)
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::EMSGSIZE)
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, NotConnected, NotFound};
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | NotConnected | NotFound
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(service: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let length = service.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn each_line_is_a_datagram_in_the_services_form() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let service = UnixDatagram::bind(&path).unwrap();
        let mut journal = Datagrams::at(Form::Journal, &path).unwrap();
        journal.write(b"{\"a\":1}\n{\"a\":2}\n").unwrap();
        let first = received(&service);
        assert!(first.starts_with("PRIORITY=6\n"), "{first}");
        assert!(first.ends_with("\nMESSAGE={\"a\":1}\n"), "{first}");
        assert!(received(&service).ends_with("MESSAGE={\"a\":2}\n"));
        let mut syslog = Datagrams::at(Form::Syslog, &path).unwrap();
        syslog.write(b"{\"a\":3}\n").unwrap();
        let pid = std::process::id();
        assert_eq!(
            received(&service),
            format!("<86>underpass-audit[{pid}]: {{\"a\":3}}")
        );
    }

    #[test]
    fn a_line_that_is_too_long_costs_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let service = UnixDatagram::bind(&path).unwrap();
        let mut log = Datagrams::at(Form::Syslog, &path).unwrap();
        let long = "x".repeat(64 << 20);
        let lines = format!("a\n{long}\nb\n");
        let failure = log.write(lines.as_bytes()).unwrap_err();
        assert_eq!(failure.lines, 1);
        assert!(is_too_long(&failure.error), "{failure:?}");
        assert!(received(&service).ends_with(": a"));
        assert!(received(&service).ends_with(": b"));
    }

    #[test]
    fn a_service_that_was_restarted_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let service = UnixDatagram::bind(&path).unwrap();
        let mut log = Datagrams::at(Form::Syslog, &path).unwrap();
        drop(service);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(log.write(b"a\nb\n").unwrap_err().lines, 2);
        let service = UnixDatagram::bind(&path).unwrap();
        log.write(b"c\n").unwrap();
        assert!(received(&service).ends_with(": c"));
    }

    #[test]
    fn a_service_that_is_not_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let error = Datagrams::at(Form::Journal, &dir.path().join("none")).unwrap_err();
        assert!(error.to_string().contains("journal"), "{error}");
    }
}
