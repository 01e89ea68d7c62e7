//! What can go wrong between the two seams, as values: an inlet spells them on its wire.

use std::fmt;

/// Why the far side did not open a stream. Each has one spelling per inlet (for the TUN: a RST, an ICMP
/// error, or silence), so that an application sees what it would see on the real network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OpenFailure {
    /// The target answered with a reset: nobody listens.
    Refused,
    /// No route to the host, or its neighbour does not answer.
    HostUnreachable,
    /// The far side has no route to the network.
    NetworkUnreachable,
    /// The target never answered. The application is left to its own timeout.
    TimedOut,
    /// The server's policy forbids the target (`PermitOpen`, `AllowTcpForwarding`).
    Prohibited,
    /// A packet filter on the server's way to the target said "prohibited", or the server's own did.
    Filtered,
    /// The SSH connection went away before the answer.
    ConnectionLost,
    /// The server, or our own bound, has no room for a further stream now.
    NoResources,
    /// A failure with a text that no table knows.
    Other,
}

impl OpenFailure {
    /// Every one of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Refused,
        Self::HostUnreachable,
        Self::NetworkUnreachable,
        Self::TimedOut,
        Self::Prohibited,
        Self::Filtered,
        Self::ConnectionLost,
        Self::NoResources,
        Self::Other,
    ];

    /// The label of the counter, and the word in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::HostUnreachable => "host_unreachable",
            Self::NetworkUnreachable => "network_unreachable",
            Self::TimedOut => "timed_out",
            Self::Prohibited => "prohibited",
            Self::Filtered => "filtered",
            Self::ConnectionLost => "connection_lost",
            Self::NoResources => "no_resources",
            Self::Other => "other",
        }
    }
}

/// A failed open: the kind that an inlet acts on, and the far side's own words for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenError {
    /// What an inlet acts on.
    pub failure: OpenFailure,
    /// The far side's own text, control characters removed. May be empty.
    pub text: String,
}

impl OpenError {
    /// An error of `failure` with the far side's `text`.
    pub fn new(failure: OpenFailure, text: impl Into<String>) -> Self {
        Self {
            failure,
            text: text.into(),
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text.is_empty() {
            f.write_str(self.failure.name())
        } else {
            write!(f, "{} ({})", self.failure.name(), self.text)
        }
    }
}

impl std::error::Error for OpenError {}

/// How an open stream broke. The orderly end is no error: it is `None` of [`crate::net::ByteReader::read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// The peer ended the stream abruptly: a RST, or a channel closed before our own EOF.
    Reset,
    /// What carries the stream is gone (the SSH connection, the device).
    Lost,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "reset by the peer",
            Self::Lost => "the carrier was lost",
        })
    }
}

impl std::error::Error for StreamError {}
