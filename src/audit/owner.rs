//! User and process behind a flow, within a budget of time.
//!
//! The user is asked of the kernel at once, for a socket of a short connection is soon gone. The process has to be looked for
//! among all descriptors of the host: that is done for many flows together, and for at most a fifth of the time.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};

use super::event::Flow;
use crate::os::{Process, Processes, SocketOwners, Transport, is_own_address};

/// For each time that a search took it is not repeated for so many of it.
const REST: u32 = 4;
/// But not for longer: a flow's first line waits for it.
const MAX_REST: Duration = Duration::from_millis(100);
/// Names of users that are kept.
const MAX_USERS: usize = 1_024;

/// Who is behind a flow, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: Option<u32>,
    pub(super) user: Option<Arc<str>>,
    pub(super) process: Option<Process>,
    /// The socket, where the process is not known yet.
    pub(super) inode: Option<u64>,
}

/// Who is asked about the owners of sockets.
#[derive(Debug)]
pub struct Lookup {
    /// Of which user a socket is; `None`: that is not known.
    pub sockets: Option<SocketOwners>,
    /// The addresses of the network where those are.
    pub addresses: Addresses,
    /// Of which process.
    pub processes: Processes,
}

/// The addresses of a network namespace: what comes from another one was forwarded.
#[derive(Debug)]
pub enum Addresses {
    /// Those of this process's.
    Here,
    /// These.
    Only(Vec<IpAddr>),
}

impl Addresses {
    fn contain(&self, address: IpAddr) -> bool {
        match self {
            Self::Here => is_own_address(address),
            Self::Only(all) => all.contains(&address),
        }
    }
}

impl Lookup {
    /// For the sockets of the network namespace in which this is called.
    pub fn here(processes: Processes) -> Self {
        let sockets = SocketOwners::new();
        if let Err(error) = &sockets {
            tracing::warn!("the audit log will not say who opens a connection: {error}");
        }
        Self {
            sockets: sockets.ok(),
            addresses: Addresses::Here,
            processes,
        }
    }

    /// For a network whose sockets nobody can be asked about.
    pub fn nowhere(processes: Processes) -> Self {
        Self {
            sockets: None,
            addresses: Addresses::Only(Vec::new()),
            processes,
        }
    }
}

/// Finds owners.
#[derive(Debug)]
pub(super) struct Finder {
    sockets: Option<SocketOwners>,
    addresses: Addresses,
    processes: Processes,
    users: HashMap<u32, Option<Arc<str>>>,
    not_before: Instant,
}

impl Finder {
    pub(super) fn new(lookup: Lookup) -> Self {
        Self {
            sockets: lookup.sockets,
            addresses: lookup.addresses,
            processes: lookup.processes,
            users: HashMap::new(),
            not_before: Instant::now(),
        }
    }

    /// The user behind a flow, and the socket to look for its process by.
    pub(super) fn user(&mut self, flow: &Flow) -> Owner {
        let Some((sockets, transport)) = self.sockets.as_mut().zip(flow.protocol.transport())
        else {
            return Owner::default();
        };
        let (source, target) = (flow.key.source.0, flow.key.target.0);
        // A socket that is bound to every address would pass for the one of a container with the same port.
        if transport == Transport::Udp && !self.addresses.contain(source.ip()) {
            return Owner::default();
        }
        match sockets.find(transport, source, target) {
            Ok(Some(found)) => Owner {
                uid: Some(found.uid),
                user: self.name(found.uid),
                process: None,
                inode: Some(found.inode),
            },
            Ok(None) => Owner::default(),
            Err(error) => {
                tracing::debug!("asking for the owner of a socket: {error}");
                Owner::default()
            }
        }
    }

    /// As `None` where it has none. Asking may take long (a directory service), so it is done once for each.
    fn name(&mut self, uid: u32) -> Option<Arc<str>> {
        if self.users.len() > MAX_USERS {
            self.users.clear();
        }
        let name = self.users.entry(uid).or_insert_with(|| {
            let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            user.map(|user| user.name.into())
        });
        name.clone()
    }

    /// When processes may be looked for again.
    pub(super) fn not_before(&self) -> Instant {
        self.not_before
    }

    /// The processes that have these sockets open, as far as they can be seen.
    pub(super) fn processes(&mut self, wanted: HashSet<u64>) -> HashMap<u64, Process> {
        let began = Instant::now();
        let found = self.processes.with_sockets(wanted);
        let rest = (began.elapsed() * REST).min(MAX_REST);
        self.not_before = Instant::now() + rest;
        found
    }
}
