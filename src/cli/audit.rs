//! The arguments of the audit log.

use clap::{Args, ValueHint};

/// Whether flows are written down, and where.
#[derive(Args, Clone, Debug, Default)]
pub struct AuditArgs {
    /// Write down who connects where and when: to a file, journald or syslog
    ///
    /// A JSON object per line, for each connection one at its start and one at its end: user and process, source and
    /// target, bytes, outcome, server and the key that logged in. The file is made with mode 0600. When it cannot be
    /// written, lines are lost and counted; connections go on.
    #[arg(long, value_name = "FILE|journald|syslog", value_hint = ValueHint::FilePath)]
    pub audit_log: Option<String>,
}
