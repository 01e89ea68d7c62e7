//! Where flows are written down.

use std::path::PathBuf;

/// Where the lines of the audit log go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditLog {
    /// Appended to this file.
    File(PathBuf),
    /// systemd's journal.
    Journald,
    /// The system's log, by `/dev/log`.
    Syslog,
}

impl AuditLog {
    /// As typed: one of the two services, or a file. A file of that name is `./journald`.
    pub(super) fn new(typed: &str) -> Self {
        match typed {
            "journald" => Self::Journald,
            "syslog" => Self::Syslog,
            path => Self::File(path.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_files_are_told_apart() {
        assert_eq!(AuditLog::new("journald"), AuditLog::Journald);
        assert_eq!(AuditLog::new("syslog"), AuditLog::Syslog);
        let file = AuditLog::new("./syslog");
        assert_eq!(file, AuditLog::File("./syslog".into()));
    }
}
