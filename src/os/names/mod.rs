//! Whom programs on this host ask for names: found out by [`Facts::keeper`], changed by [`Names`], kept so, and put back.
//!
//! Each way has a file of its own: systemd-resolved over D-Bus, which alone parts names by their domains itself; resolvconf(8); and
//! `/etc/resolv.conf`, which is replaced as a whole. NetworkManager without the first writes that file, and can be told of
//! name servers for the devices alone that it made: its file is replaced, too, and again whenever it writes it. In another network
//! namespace ([`netns`]) nothing but a file counts, which is its own.

mod bus;
mod domains;
mod file;
mod keeper;
pub(super) mod left;
pub(super) mod netns;
pub(super) mod patience;
mod program;
mod resolved;

use std::future::pending;
use std::io;
use std::net::Ipv4Addr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::domains::are_sound;
use self::file::File;
use self::program::Entry;
use self::resolved::Link;
use super::routes::name_server;

pub use self::domains::left_out;
pub use self::keeper::{Facts, Keeper, RESOLV_CONF, asks_resolved, others_slot, upstream};
pub use self::netns::{Apart, ApartError, Place};

/// What programs shall ask our name server for, and how they are brought to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// The way.
    pub by: By,
    /// Domains in ASCII, without a dot at the end; all names where there are none.
    pub domains: Vec<String>,
    /// Whose addresses have their names there too.
    pub networks: Vec<IpNet>,
}

impl Wish {
    /// Whether it can be: what is parted by domains, or is no domain, is not for a file.
    pub fn is_sound(&self) -> bool {
        let is_for_all = self.domains.is_empty();
        let are_networks = self.networks.iter().all(|net| net.trunc() == *net);
        (is_for_all || self.by == By::Resolved) && are_sound(&self.domains) && are_networks
    }
}

/// Ways to bring programs to a name server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// systemd-resolved asks for them, by the device.
    Resolved,
    /// resolvconf(8) has `/etc/resolv.conf` name it.
    Program,
    /// `/etc/resolv.conf` names it.
    File,
    /// That of a network namespace with a name does.
    Netns,
    /// That which a process elsewhere sees does.
    Process,
}

impl By {
    /// What is written to for it, below these directories.
    pub(super) fn writes(self) -> &'static [&'static str] {
        match self {
            // The one is spoken to, the other open.
            Self::Resolved | Self::Process => &[],
            // Its state, and what it passes it on to.
            Self::Program => &["/etc", "/run"],
            Self::File | Self::Netns => &["/etc"],
        }
    }
}

/// Why programs were not brought to it.
#[derive(Debug, Error)]
pub enum NamesError {
    /// `/etc/resolv.conf`.
    #[error(
        "/etc/resolv.conf cannot be replaced: {0}; leave names out (--dns, hosts by name), or have them looked up for one command: underpass run"
    )]
    File(#[source] io::Error),
    /// Another instance was faster.
    #[error(
        "/etc/resolv.conf names the name server of another underpass; end that first: underpass down --all"
    )]
    Taken,
    /// resolvconf(8).
    #[error(
        "resolvconf takes no name server from us: {0}; leave names out (--dns, hosts by name), or have them looked up for one command: underpass run"
    )]
    Program(#[source] io::Error),
    /// That of another network.
    #[error(
        "the resolv.conf of that network cannot be written: {0}; leave names out (--dns, hosts by name)"
    )]
    Elsewhere(#[source] io::Error),
    /// systemd-resolved would not.
    #[error(
        "systemd-resolved takes no name server from us: {0}; leave names out (--dns, hosts by name), or have them looked up for one command: underpass run"
    )]
    Resolved(#[from] zbus::Error),
    /// systemd-resolved asks polkit, which asks nobody here.
    #[error(
        "systemd-resolved takes name servers from root alone; start it by sudo: sudo setcap -r {program}, then underpass up as before",
        program = super::helper::program().display()
    )]
    NotRoot,
}

/// The device and the name server behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    /// Number of the slot.
    pub(super) slot: u32,
    /// The device's name.
    pub(super) device: &'a str,
    /// The device's index.
    pub(super) index: u32,
    /// The file, where it is one of another network.
    pub(super) place: Option<&'a Place>,
}

impl At<'_> {
    fn server(self) -> Ipv4Addr {
        name_server(self.slot)
    }
}

/// Programs ask our name server as long as nobody else changes that, and [`Names::changed`] says when to look.
#[derive(Debug)]
pub(super) enum Names {
    Resolved(Box<Link>),
    Program(Entry),
    File(File),
    Elsewhere(Box<netns::Held>),
}

impl Names {
    /// Brings programs to the name server.
    ///
    /// # Errors
    /// [`NamesError`], with everything as it was.
    pub(super) async fn hold(wish: &Wish, at: At<'_>) -> Result<Self, NamesError> {
        Ok(match wish.by {
            By::Resolved => Self::Resolved(Box::new(Link::hold(wish, at).await?)),
            By::Program => {
                let held = Entry::hold(at).await;
                Self::Program(held.map_err(NamesError::Program)?)
            }
            By::File => Self::File(File::hold(at).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => NamesError::Taken,
                _ => NamesError::File(error),
            })?),
            By::Netns | By::Process => Self::Elsewhere(netns::Held::hold(at)?),
        })
    }

    /// Brings programs to it for what is wished now.
    ///
    /// # Errors
    /// [`NamesError`].
    pub(super) async fn change(&mut self, wish: &Wish) -> Result<(), NamesError> {
        match self {
            Self::Resolved(link) => link.change(wish).await,
            // It is asked for all names.
            Self::Program(_) | Self::File(_) | Self::Elsewhere(_) => Ok(()),
        }
    }

    /// Waits until somebody may have changed it; for ever where there is nothing to change. Cancel safe.
    pub(super) async fn changed(names: &mut Option<Self>) -> &mut Self {
        let Some(names) = names else {
            return pending().await;
        };
        match names {
            Self::Resolved(link) => link.changed().await,
            // It looks after its file itself.
            Self::Program(_) => pending().await,
            Self::File(file) => file.changed().await,
            Self::Elsewhere(held) => held.changed().await,
        }
        names
    }

    /// Brings programs to it again, where somebody has changed that; says so.
    pub(super) async fn assert_again(&mut self) {
        match self {
            Self::Resolved(link) => link.assert_again().await,
            Self::Program(_) => {}
            Self::File(file) => file.assert_again(),
            Self::Elsewhere(held) => held.assert_again(),
        }
    }

    /// Programs ask whom they asked before.
    ///
    /// # Errors
    /// A line for a person; `cleanup` tries again.
    pub(super) async fn release(self) -> Result<(), String> {
        let done = match self {
            Self::Resolved(link) => {
                link.release().await;
                Ok(())
            }
            Self::Program(entry) => entry.release().await,
            Self::File(file) => file.release(),
            Self::Elsewhere(held) => held.release(),
        };
        done.map_err(|error| format!("the name server of programs: {error}"))
    }
}
