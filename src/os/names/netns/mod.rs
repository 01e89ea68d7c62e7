//! The resolv.conf of a network namespace that is not ours: of one with a name, or that a process in it sees.
//!
//! Both are mounted elsewhere, and so written over where they stand ([`written`]). The host's own is never touched.

pub(super) mod left;
mod named;
mod process;
mod written;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::time::Instant;
use tracing::warn;

use self::named::Named;
use self::written::{Former, Written};
use super::patience::Patience;
use super::{At, By, NamesError, RESOLV_CONF};
use crate::os::made::Made;
use crate::os::resolv_conf::{Owner, beginning};
use crate::plan::names;

/// Whose resolv.conf it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Apart {
    /// That of the namespace of this name.
    Named(String),
    /// What this process sees.
    Process(i32),
}

/// Why it cannot be written.
#[derive(Debug, Error)]
pub enum ApartError {
    /// The process, or its network.
    #[error(
        "--netns pid:{0}: that process is gone, or is in another network by now; name one that stays"
    )]
    Gone(i32),
    /// It has no files of its own.
    #[error(
        "names: process {0} has a network of its own, but reads the same /etc/resolv.conf as {1}, in another network; give that network a \
         name, and start programs by it: sudo ip netns attach NAME {0}, --netns NAME, sudo ip netns exec NAME COMMAND"
    )]
    Shared(i32, String),
    /// It cannot be told who they belong to.
    #[error(
        "names: the files of process {0} are of a user namespace that it is not in; name a process that is (lsns -t user)"
    )]
    Rights(i32),
    /// No file, a link, or not to be written.
    #[error(
        "names: /etc/resolv.conf as process {0} sees it cannot be written: {why}; it has to be a file, which root there may write, no \
         link; leave names out (--dns, hosts by name)",
        why = .1
    )]
    File(i32, #[source] io::Error),
    /// The same for a name.
    #[error(
        "names: {path} cannot be written: {why}; where it is a link, put a file of its own there: sudo cp --remove-destination /etc/resolv.conf \
         {path}",
        path = .0,
        why = .1
    )]
    Named(String, #[source] io::Error),
    /// Another instance.
    #[error(
        "names: another underpass has names looked up in that network; end that first: underpass down --all"
    )]
    Taken,
    /// The system.
    #[error("names: it cannot be found out which resolv.conf that network has: {0}")]
    Io(#[from] io::Error),
}

impl Apart {
    /// How programs are brought to our name server.
    pub fn by(&self) -> By {
        match self {
            Self::Named(_) => By::Netns,
            Self::Process(_) => By::Process,
        }
    }
}

/// The file, with what it takes to write it.
#[derive(Clone, Debug)]
pub struct Place(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// By its path: it need not be there.
    Named(Named),
    /// Open, and nobody else's.
    Process(Written),
}

impl Place {
    /// Finds it, with all rights of root, for the network namespace that we are in.
    ///
    /// # Errors
    /// [`ApartError`].
    pub fn find(apart: &Apart) -> Result<Self, ApartError> {
        let kind = match apart {
            Apart::Named(name) => {
                let named = Named::here(name)?;
                // Said before anything is done.
                match named.open() {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        let path = named.file().display().to_string();
                        return Err(ApartError::Named(path, error));
                    }
                    _ => Kind::Named(named),
                }
            }
            Apart::Process(pid) => {
                let file = process::open_file(*pid, true)?;
                Kind::Process(Written::new(file).map_err(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => ApartError::Taken,
                    _ => ApartError::File(*pid, error),
                })?)
            }
        };
        Ok(Self(kind))
    }

    /// Whom programs there would ask without us. Where they have no file of their own, those of this host's that are not on its
    /// loopback.
    pub fn servers(&self) -> Vec<SocketAddr> {
        let read = |text: &str| names::servers(text, |name| if_nametoindex(name).ok());
        let former = match &self.0 {
            Kind::Named(named) => named.former(),
            Kind::Process(written) => written.former(),
        };
        if let Ok(Former::Text(text)) = former {
            return read(&text);
        }
        let mut servers = read(&beginning(RESOLV_CONF.as_ref()).unwrap_or_default());
        servers.retain(|server| !server.ip().is_loopback() && !server.ip().is_unspecified());
        servers
    }

    /// Begins a connection of `kind` to one of those servers, the first where `server` is none, as programs there would.
    ///
    /// # Errors
    /// socket(2), connect(2); `NotFound` where there are none.
    pub(in crate::os) fn connect(&self, server: SocketAddr, kind: SockType) -> io::Result<OwnedFd> {
        let servers = self.servers();
        let found = servers.iter().find(|found| **found == server);
        let found = found.or(servers.first()).ok_or(io::ErrorKind::NotFound)?;
        let family = match found {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let made = socket(family, kind, flags, None)?;
        match connect(made.as_raw_fd(), &SockaddrStorage::from(*found)) {
            Ok(()) | Err(Errno::EINPROGRESS) => Ok(made),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Puts back what was there, where who wrote it is gone.
    ///
    /// # Errors
    /// Those of the file system.
    pub(in crate::os) fn restore(&self) -> io::Result<()> {
        match &self.0 {
            // Found by its path ([`left`]).
            Kind::Named(_) => Ok(()),
            Kind::Process(written) => written.restore().map(drop),
        }
    }
}

/// It names our name server.
#[derive(Debug)]
pub(in crate::os) struct Held {
    place: Place,
    written: Written,
    owner: Owner,
    server: Ipv4Addr,
    /// `None` where there is no way to hear of it.
    watch: Option<Made>,
    patience: Patience,
}

impl Held {
    pub(super) fn hold(at: At<'_>) -> Result<Box<Self>, NamesError> {
        let place = at.place.ok_or(io::ErrorKind::NotFound);
        let place = place.map_err(io::Error::from);
        let held = place.and_then(|place| Self::hold_at(place, at));
        held.map(Box::new).map_err(NamesError::Elsewhere)
    }

    fn hold_at(place: &Place, at: At<'_>) -> io::Result<Self> {
        let (owner, server) = (Owner::here(at.slot)?, at.server());
        let written = place.write(&owner, server)?;
        let watch = place.watch(&written).inspect_err(|error| {
            warn!("who writes the resolv.conf of that network goes unnoticed: {error}");
        });
        Ok(Self {
            place: place.clone(),
            written,
            owner,
            server,
            watch: watch.ok(),
            patience: Patience::new(Instant::now()),
        })
    }

    pub(super) async fn changed(&mut self) {
        let change = Made::changed(&mut self.watch, "the resolv.conf of that network");
        self.patience.wait(change).await;
    }

    pub(super) fn assert_again(&mut self) {
        let written = self.write_again();
        let plainly = "somebody has written the resolv.conf of that network: it names the name server of underpass again, and what \
                       they wrote comes back at the end";
        let last = "somebody writes the resolv.conf of that network again and again, and underpass once a minute from here on; have them \
                    leave it alone";
        let what = "the resolv.conf of that network";
        self.patience.tell(what, written, plainly, last);
    }

    fn write_again(&mut self) -> io::Result<bool> {
        match &self.place.0 {
            Kind::Named(named) if !named.has(&self.written) => {
                // Another one stands there. Whoever has the former one mounted is to find others when we are gone.
                self.written.restore()?;
                self.written = self.place.write(&self.owner, self.server)?;
                self.watch = Some(self.place.watch(&self.written)?);
                Ok(true)
            }
            _ => self.written.name(&self.owner, self.server, None),
        }
    }

    pub(super) fn release(&self) -> io::Result<()> {
        match &self.place.0 {
            Kind::Named(named) => named.restore(&self.written),
            Kind::Process(written) => written.restore().map(drop),
        }
    }
}

impl Place {
    /// Has it name `server`.
    fn write(&self, owner: &Owner, server: Ipv4Addr) -> io::Result<Written> {
        let (written, made) = match &self.0 {
            Kind::Named(named) => {
                let (file, made) = named.open_or_make()?;
                (Written::new(file)?, made)
            }
            Kind::Process(written) => (written.clone(), None),
        };
        written.name(owner, server, made)?;
        Ok(written)
    }

    fn watch(&self, written: &Written) -> io::Result<Made> {
        match &self.0 {
            Kind::Named(named) => {
                let made = Made::watch_changes(named.directory())?;
                made.watch_also(named.file())?;
                Ok(made)
            }
            Kind::Process(_) => Made::watch_changes(&written.path()),
        }
    }
}
