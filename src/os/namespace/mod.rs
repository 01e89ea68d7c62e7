//! Namespaces of our own, with a TUN device in them: the network of one command, and nobody else's.
//!
//! # Theory of operation
//!
//! [`make`] forks. The child makes a user, a network and a mount namespace (user_namespaces(7)), and in them the device,
//! its routes and the files that say which name servers there are. It hands back descriptors (`SCM_RIGHTS`, unix(7)) of
//! the device and of the namespaces, and ends. So no process with a privilege is left, and nothing has to be undone:
//! the device goes with its descriptor, and a namespace goes with the last process or descriptor that holds it.
//!
//! [`Inside::prepare`] forks a second child, which waits until it is wanted, enters the namespaces, goes back to the
//! directory where it was, and becomes the program. What this process gives up meanwhile the program still has. User and group are mapped to themselves, so the program has the rights that it has outside,
//! and execve(2) takes the namespace's own privileges from it (capabilities(7)). Where the process may make namespaces
//! without a user namespace (root), there is none: it could not map more than one user.
//!
//! A socket belongs to the network namespace where it was made, whoever connects it. Where connections into the
//! namespace are wanted, the child stays and makes [`Sockets`] for us until we are gone. Where it is wanted whose the sockets
//! there are, the child makes the one that the kernel is asked by, and hands it back too.

mod child;
mod enter;
pub mod existing;
mod files;
mod obstacle;
mod passing;
mod sockets;

use std::io;
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid};
use thiserror::Error;

pub use self::enter::{EnterError, Waiting};
pub use self::files::PrivateFile;
pub use self::obstacle::profile;
use self::passing::Report;
pub use self::sockets::Sockets;
use super::routes::Source;
use super::{SocketOwners, TunDevice};
use crate::plan::DevicePlan;

/// What shall be in the namespaces.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The device to make.
    pub device: DevicePlan,
    /// Its addresses.
    pub source: Source,
    /// What is routed to it; each network once.
    pub routes: Vec<IpNet>,
    /// Files that look different there.
    pub files: Vec<PrivateFile>,
    /// Whether [`Private::sockets`] is wanted.
    pub sockets: bool,
    /// Whether [`Private::owners`] is wanted.
    pub owners: bool,
}

/// The namespaces could not be made.
#[derive(Debug, Error)]
pub enum NamespaceError {
    /// Something failed within them, or something forbids them: one line, with what to do.
    #[error("{0}")]
    Refused(String),
    /// The process that makes them could not be started, or ended without a word.
    #[error("could not make a private network: {0}")]
    Io(#[from] io::Error),
}

/// What was made.
#[derive(Debug)]
pub struct Private {
    /// The device in the namespaces.
    pub device: TunDevice,
    /// Makes sockets there, where that was asked for.
    pub sockets: Option<Sockets>,
    /// Says whose the sockets there are, where that was asked for and the kernel can.
    pub owners: Option<SocketOwners>,
    /// The namespaces.
    pub inside: Inside,
}

/// Namespaces: they go when this and every process in them is gone.
#[derive(Debug)]
pub struct Inside {
    /// `None`: our own.
    user: Option<OwnedFd>,
    mount: OwnedFd,
    network: OwnedFd,
}

/// Makes the namespaces and what is in them. The caller has one thread: a copy of a process with several may hold
/// locks that nobody will open.
///
/// # Errors
/// [`NamespaceError`].
pub fn make(setting: &Setting) -> Result<Private, NamespaceError> {
    let (ours, theirs) = passing::pair()?;
    let parent = getpid();
    let Some(child) = fork()? else {
        drop(ours);
        child::run(setting, &theirs, parent);
    };
    drop(theirs);
    let report = passing::receive_report(&ours);
    if !(setting.sockets && matches!(report, Ok(Report::Made(_)))) {
        reap(child);
    }
    match report? {
        Report::Made(made) => Ok(Private {
            device: made.device,
            sockets: setting.sockets.then(|| Sockets::new(ours)),
            owners: made.owners,
            inside: made.inside,
        }),
        Report::Refused(why) => Err(NamespaceError::Refused(why)),
    }
}

/// The child's number; `None` in the child.
fn fork() -> io::Result<Option<Pid>> {
    #[expect(unsafe_code, reason = "fork(2)")]
    // SAFETY: the caller has one thread (see `make`), so the child finds every lock open.
    let outcome = unsafe { nix::unistd::fork() }?;
    Ok(match outcome {
        nix::unistd::ForkResult::Parent { child } => Some(child),
        nix::unistd::ForkResult::Child => None,
    })
}

/// Ends a forked process at once.
fn leave() -> ! {
    #[expect(unsafe_code, reason = "_exit(2)")]
    // SAFETY: what the parent had registered for its end must not run here, and does not.
    unsafe {
        nix::libc::_exit(0)
    }
}

/// It has ended, or is about to: it has said its last word.
fn reap(child: Pid) {
    while waitpid(child, None) == Err(nix::errno::Errno::EINTR) {}
}

/// Whether this host has an IPv6 address that reaches further than its links.
pub fn reaches_ipv6() -> bool {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return false;
    };
    let mut addresses =
        interfaces.filter_map(|interface| Some(interface.address?.as_sockaddr_in6()?.ip()));
    addresses.any(|ip| !ip.is_loopback() && !ip.is_unicast_link_local())
}
