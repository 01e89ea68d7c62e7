//! A carrier with a life: it was connected, and may be lost.

use std::fmt;
use std::future::{Future, ready};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::error::LostReason;
use crate::net::Carrier;

/// How long a link may take to give a sign of life.
pub const LIFE: Duration = Duration::from_millis(1500);

/// A number for a connection to the server, which no other of this process has.
pub(super) fn next_number() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    1 + LAST.fetch_add(1, Relaxed)
}

/// A carrier that is logged in to a server, until it is lost.
pub trait Link: Carrier {
    /// Who answered, and how we got in.
    fn description(&self) -> &Description;

    /// All addresses that its connections go to, and those that they may go to. They must never be captured. Empty where
    /// the way is another program's.
    fn server_addresses(&self) -> Vec<IpAddr>;

    /// How many SSH connections it holds at the moment.
    fn connections(&self) -> usize {
        1
    }

    /// Resolves when it carries no flow any more, and never will.
    fn lost(&self) -> impl Future<Output = LostReason> + Send;

    /// Asks for a sign of life, and ends at once what gives none within [`LIFE`]: the network has changed, or the host has
    /// slept. A carrier that cannot tell does nothing.
    fn check(&self) -> impl Future<Output = ()> + Send {
        ready(())
    }

    /// Ends it in good order, within a second. Streams that are still open are [`crate::net::StreamError::Lost`].
    fn shutdown(&self) -> impl Future<Output = ()> + Send;
}

/// Each of `addresses` once, and none as an IPv4 address in IPv6's clothes.
pub(super) fn distinct(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = addresses.map(|address| address.to_canonical()).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// Who answered, and how we got in: for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The server's address and port; `None` where another program makes the connection.
    pub server: Option<SocketAddr>,
    /// Type and fingerprint of its host key, `ED25519 SHA256:...`.
    pub host_key: String,
    /// The cipher, as SSH names it.
    pub cipher: String,
    /// What the server took: `key SHA256:... from the agent`, `key /home/me/.ssh/id_ed25519`.
    pub authentication: String,
    /// `SHA256:...` of the key that let us in; `None` where it was no key, or ssh does not tell.
    pub key: Option<String>,
    /// The methods that the server takes, as it told who had shown nothing yet (RFC 4252 section 5.2). Empty where it
    /// asked for nothing, or ssh does not tell.
    pub methods: Vec<String>,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            server,
            host_key,
            cipher,
            authentication,
            ..
        } = self;
        if let Some(server) = server {
            write!(f, "{server} ")?;
        }
        write!(f, "(host key {host_key}, {cipher}, {authentication})")
    }
}
