//! The arguments of the audit log.

use clap::{Args, ValueHint};

use super::up::RUN;

/// Whether flows are written down, and where.
#[derive(Args, Clone, Debug, Default)]
pub struct AuditArgs {
    /// Write each flow to FILE, journald or syslog
    ///
    /// A JSON object per line, one at a connection's start and one at its end: user and process, source and target,
    /// bytes, outcome, server and the key that logged in. The file is made with mode 0600 and belongs to who runs underpass,
    /// with sudo to its caller. It is opened anew at SIGHUP and reload; of run at a SIGHUP to it alone, which the command then does not get. When it cannot be written, lines are lost and counted;
    /// connections go on.
    ///
    /// The user is known of every connection of this host; the process where it is of who runs underpass, and of
    /// everybody where that is root without a caller of sudo. Neither is known of what containers and other hosts open.
    #[arg(long, value_name = "FILE", help_heading = RUN, value_hint = ValueHint::FilePath)]
    pub audit_log: Option<String>,
}
