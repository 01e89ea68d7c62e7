//! Addresses that cannot be swapped by mistake.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Who asks: the address and port of the application's socket, as its packets carry them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(pub SocketAddr);

/// Who is asked for: the address and port that the application connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target(pub SocketAddr);

/// Whom the far side is asked for: an address, or a host by its name, which the far side looks up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Far {
    /// The address and port. Where there is a name, the address only stands for that here, and nobody is there.
    pub target: Target,
    /// The name.
    pub name: Option<Arc<str>>,
}

impl Far {
    /// The host as the far side is told of it (RFC 4254 section 7.2).
    pub fn host(&self) -> String {
        match &self.name {
            Some(name) => name.to_string(),
            None => self.target.0.ip().to_canonical().to_string(),
        }
    }
}

impl From<Target> for Far {
    fn from(target: Target) -> Self {
        Self { target, name: None }
    }
}

impl fmt::Display for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name}:{}", self.target.0.port()),
            None => self.target.fmt(f),
        }
    }
}

/// What tells one flow from another: both ends of it. Source and target are of one IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// The initiating side.
    pub source: Source,
    /// The side that is asked for.
    pub target: Target,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.source, self.target)
    }
}
