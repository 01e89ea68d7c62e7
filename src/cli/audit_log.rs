//! The arguments of the audit log.

use clap::{Args, ValueHint};

use super::up::RUN;

/// Whether flows are written down, and where.
#[derive(Args, Clone, Debug, Default)]
pub struct AuditArgs {
    /// Write each flow to FILE, journald or syslog
    ///
    /// A JSON object per line, one at a connection's start and one at its end: user and process, source and target,
    /// bytes, outcome, server and the key that logged in. The file is made with mode 0600. When it cannot be written,
    /// lines are lost and counted; connections go on.
    #[arg(long, value_name = "FILE", help_heading = RUN, value_hint = ValueHint::FilePath)]
    pub audit_log: Option<String>,
}
