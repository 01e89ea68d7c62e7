//! Two processes that watch each other, so that whichever is killed, the other takes back what was made.
//!
//! The worker serves. The guard, its parent, only waits for it: when the worker dies out of turn, the guard removes what
//! the worker's slot holds, which is free by then. When the guard dies, the worker's end of a socket pair that the two
//! share says so, and the worker undoes everything and ends.

use std::io;
use std::os::unix::net::UnixStream;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setsid};
use tokio::io::AsyncReadExt;
use tracing::{debug, error, warn};

use super::serve::serve;
use crate::os::names::{By, Place};
use crate::os::{Netlink, NetlinkError, signals, stale};

/// Becomes guard and worker, and serves the other end of `socket`, which has greeted and may ask for `names`, in another network in
/// `place`. Returns in both processes; whether
/// everything went in order. To be called before there is a second thread.
///
/// # Errors
/// fork(2) and the like; nothing was changed then.
pub fn guarded(socket: UnixStream, names: Option<By>, place: Option<Place>) -> io::Result<bool> {
    // The end that asks decides when this ends.
    signals::ignore()?;
    let (lifeline, guards) = UnixStream::pair()?;
    #[expect(unsafe_code, reason = "the only way to have two processes")]
    // SAFETY: there is no second thread whose locks could be held in the child.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(guards);
            Ok(work(socket, (names, place), lifeline))
        }
        ForkResult::Parent { child } => {
            drop(lifeline);
            let in_order = watch(child, &socket, place.as_ref());
            drop(guards);
            in_order
        }
    }
}

fn work(
    socket: UnixStream,
    (names, place): (Option<By>, Option<Place>),
    lifeline: UnixStream,
) -> bool {
    // Out of the terminal's reach. Fails only for the leader of a process group, which a forked process is not.
    if let Err(errno) = setsid() {
        debug!("setsid: {errno}");
    }
    let served = block_on(async {
        lifeline.set_nonblocking(true)?;
        let mut lifeline = tokio::net::UnixStream::from_std(lifeline)?;
        // Nothing is ever written there.
        let guard_is_gone = async {
            let _ = lifeline.read(&mut [0]).await;
            warn!("the guard of the privileged part was killed; undoing everything");
        };
        serve(socket, names, place, guard_is_gone).await
    });
    match served {
        Ok(()) => true,
        Err(error) => {
            error!("the privileged part could not begin: {error}");
            false
        }
    }
}

/// Waits for the worker's end, and takes back what it left.
fn watch(worker: Pid, socket: &UnixStream, place: Option<&Place>) -> io::Result<bool> {
    let status = loop {
        match waitpid(worker, None) {
            Err(nix::errno::Errno::EINTR) => {}
            status => break status?,
        }
    };
    if status == WaitStatus::Exited(worker, 0) {
        return Ok(true);
    }
    if let Some(Err(error)) = place.map(Place::restore) {
        warn!("the resolv.conf of that network could not be put back: {error}");
    }
    let cleared = block_on(async {
        let netlink = Netlink::new().map_err(io::Error::other)?;
        clear(&netlink).await.map_err(io::Error::other)
    });
    match cleared {
        Ok(cleared) if cleared.is_empty() => debug!("the worker ended out of turn: {status:?}"),
        Ok(cleared) => warn!("the privileged part was killed; removed what it left: {cleared}"),
        Err(error) => error!(
            "the privileged part was killed, and what it left could not be removed: {error}; underpass cleanup removes it"
        ),
    }
    // For who still holds this end too, as sudo does: the other end learns of it now, and of what was made nothing is left.
    let _ = socket.shutdown(std::net::Shutdown::Both);
    Ok(false)
}

async fn clear(netlink: &Netlink) -> Result<stale::Cleared, NetlinkError> {
    stale::clear(netlink, None).await
}

fn block_on<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
