//! Standard input and output of a program that waits for neither.

use std::io::{self, Stdin, Stdout, stdin, stdout};
use std::os::fd::{AsFd, AsRawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Both, as the runtime watches them.
///
/// # Errors
/// `PermissionDenied` where one is a file, which nobody has to wait for (epoll_ctl(2)); called outside a runtime.
pub fn streams() -> io::Result<(AsyncFd<Stdin>, AsyncFd<Stdout>)> {
    let input = watched(stdin(), Interest::READABLE)?;
    Ok((input, watched(stdout(), Interest::WRITABLE)?))
}

fn watched<F: AsFd + AsRawFd>(file: F, interest: Interest) -> io::Result<AsyncFd<F>> {
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    #[expect(unsafe_code, reason = "the runtime keeps the descriptor's number")]
    // SAFETY: standard input and output stay open, and the same, as long as the process lives.
    let watched = unsafe { AsyncFd::register_with_interest(file, interest) }?;
    Ok(watched)
}
