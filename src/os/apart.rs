//! A process apart: it does one thing for us that we may not do ourselves from some moment on.
//!
//! It is forked while we may still do it, before there is a second thread, and answers questions on a socket, one at a
//! time, until our end of it is closed: then it ends, however we have ended. It has no other descriptor of ours and
//! no terminal, and is deaf to the signals of one.

use std::fs::{OpenOptions, read_dir};
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::libc;
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};

use super::signals;

/// Starts a process that does `work` with its end of a socket. Ours is closed in every program that we run.
///
/// # Errors
/// Those of socketpair(2) and fork(2); where there are threads already, which would be missing in the other.
pub(super) fn start(work: impl FnOnce(UnixStream)) -> io::Result<UnixStream> {
    if read_dir("/proc/self/task")?.count() > 1 {
        return Err(io::Error::other("the process has threads already"));
    }
    let (ours, theirs) = UnixStream::pair()?;
    #[expect(unsafe_code, reason = "fork(2)")]
    // SAFETY: there is no other thread that could hold a lock which the child would wait for in vain.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => Ok(ours),
        ForkResult::Child => {
            if let Ok(socket) = alone_with(theirs.into()) {
                work(socket);
            }
            #[expect(unsafe_code, reason = "_exit(2)")]
            // SAFETY: ends the process at once; what we had registered for our end must not run here.
            unsafe {
                libc::_exit(0)
            }
        }
    }
}

/// Lets go of everything but `socket`.
fn alone_with(socket: OwnedFd) -> io::Result<UnixStream> {
    signals::ignore()?;
    setsid()?;
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    drop(null);
    let socket = socket.into_raw_fd();
    let open: Vec<RawFd> = read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open {
        if descriptor > libc::STDERR_FILENO && descriptor != socket {
            #[expect(unsafe_code, reason = "close(2)")]
            // SAFETY: its owners are of the process that we are a copy of, and never run here.
            unsafe {
                libc::close(descriptor);
            }
        }
    }
    #[expect(unsafe_code, reason = "a descriptor becomes a socket again")]
    // SAFETY: it was taken out of its owner above, and is open.
    Ok(unsafe { UnixStream::from_raw_fd(socket) })
}
