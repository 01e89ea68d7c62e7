//! What is asked of a server beside carrying flows, over either carrier: by a doctor, and to find its name servers.

use std::time::Duration;

/// How long the server may take for each answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// More output than this is not kept, in bytes.
pub(super) const MOST_OUTPUT: usize = 64 << 10;
/// A terminal as ssh asks for it, in columns and rows.
pub(super) const TERMINAL: (u32, u32) = (80, 24);

/// What is asked of a session (RFC 4254 sections 6.2 and 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// To run a command.
    Exec(&'a str),
    /// To start a subsystem, such as `sftp`.
    Subsystem(&'a str),
    /// To read a file over sftp.
    File(&'a str),
    /// To have a terminal; nothing is started in it.
    Terminal,
}

/// What the server says to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Granted. For a command: its output; for a file: what is in it.
    Granted(Vec<u8>),
    /// The request is refused, or there is no such file.
    Refused,
    /// No session is opened at all.
    NoSession,
    /// It does not answer in time.
    Silent,
}

/// What the server says to a tunnel of whole packets, as `ssh -w` asks for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// It would make a device for us; none was made.
    Permitted,
    /// It has made one, which went with the question.
    Made,
    /// It makes none, by its configuration.
    Forbidden,
    /// It knows no such thing.
    Unknown,
    /// It makes none, and does not say why.
    Refused,
    /// It does not answer in time.
    Silent,
    /// The installed ssh is too old to tell what the server says.
    Unheard,
}
