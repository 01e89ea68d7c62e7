//! A process of its own, that goes on when the shell has its prompt back (daemon(3)).
//!
//! The process forks at once, before there is a thread. The child does all the work with the terminal still at hand, for a
//! login may ask; the parent waits. When packets flow the child leaves the terminal and tells the parent, which ends.
//! A child that ends before hands its exit code on. A parent that ends before ends the child as well: whoever started it has
//! heard of a failure, and is not to find packets captured later.
//!
//! The working directory stays: relative paths of keys and of files of subnets are looked up again later.

use std::fs::{File, OpenOptions, read_dir};
use std::io::{self, PipeReader, PipeWriter, Read, Write, pipe, stderr};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Side {
    /// The one that was started, and waits for the other.
    Parent(Waiting),
    /// The one that does the work.
    Child(Attached),
}

/// The parent, while the child is at its start.
#[derive(Debug)]
pub struct Waiting {
    child: Pid,
    ready: PipeReader,
}

/// The child, while it has the terminal.
#[derive(Debug)]
pub struct Attached {
    ready: PipeWriter,
}

/// The parent, as the child sees it.
#[derive(Debug)]
pub struct Front {
    pipe: Sender,
}

/// Makes the second process.
///
/// # Errors
/// Those of fork(2); where there are threads already, which would be missing in the child.
pub fn split() -> io::Result<Side> {
    if read_dir("/proc/self/task")?.count() > 1 {
        return Err(io::Error::other("the process has threads already"));
    }
    let (reader, writer) = pipe()?;
    #[expect(unsafe_code, reason = "fork(2)")]
    // SAFETY: there is no other thread that could hold a lock which the child would wait for in vain.
    let forked = unsafe { fork() }?;
    match forked {
        ForkResult::Parent { child } => {
            drop(writer);
            Ok(Side::Parent(Waiting {
                child,
                ready: reader,
            }))
        }
        ForkResult::Child => Ok(Side::Child(Attached { ready: writer })),
    }
}

impl Waiting {
    /// Waits until the child is ready, or has ended: its exit code, 128 and the number for a signal. `None`: it is ready.
    ///
    /// # Errors
    /// Those of waitpid(2).
    pub fn wait(mut self) -> io::Result<Option<u8>> {
        for key in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
            #[expect(unsafe_code, reason = "sigaction(2)")]
            // SAFETY: the default action is replaced by none; no handler runs. The child hears the terminal, too, and ends.
            unsafe { signal(key, SigHandler::SigIgn) }?;
        }
        let mut word = Vec::new();
        self.ready.read_to_end(&mut word)?;
        if !word.is_empty() {
            return Ok(None);
        }
        loop {
            match waitpid(self.child, None) {
                Ok(WaitStatus::Exited(_, code)) => return Ok(Some(code as u8)),
                Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Some(128 + signal as u8)),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Front {
    /// Waits until the parent is gone, with or without a word from us. Cancel safe.
    pub async fn gone(&self) {
        // Of the end that is written to, an error is that nobody reads (poll(2)).
        while let Ok(ready) = self.pipe.ready(Interest::ERROR).await {
            if ready.is_error() {
                return;
            }
        }
        std::future::pending().await
    }
}

impl Attached {
    /// What tells of the parent's end. To be dropped with us: the parent waits for the end of both.
    ///
    /// # Errors
    /// Those of dup(2) and epoll(7); called outside a runtime.
    pub fn front(&self) -> io::Result<Front> {
        let pipe = Sender::from_owned_fd(OwnedFd::from(self.ready.try_clone()?))?;
        Ok(Front { pipe })
    }

    /// Leaves the terminal, the session and the shell's job, and tells the parent that all is ready. stdin and stdout lead to
    /// /dev/null from here on, and stderr unless it [is a file][stderr_is_file].
    ///
    /// # Errors
    /// No /dev/null, and the parent is told nothing then; or it is gone.
    pub fn detach(self) -> io::Result<()> {
        let null = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        match setsid() {
            // It leads a session already: there is no terminal to leave.
            Ok(_) | Err(Errno::EPERM) => {}
            Err(error) => return Err(error.into()),
        }
        redirect(&null)?;
        self.tell()
    }

    fn tell(mut self) -> io::Result<()> {
        self.ready
            .write_all(b"1")
            .map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => {
                    io::Error::other("the process that waited for it is gone")
                }
                _ => error,
            })
    }
}

fn redirect(null: &File) -> nix::Result<()> {
    dup2_stdin(null)?;
    dup2_stdout(null)?;
    if !stderr_is_file() {
        dup2_stderr(null)?;
    }
    Ok(())
}

/// Whether stderr was led to a regular file, as with `2>>/var/log/underpass.log`: no pipe or terminal, whose other end would
/// wait for it.
pub fn stderr_is_file() -> bool {
    let status = fstat(stderr().as_fd());
    status.is_ok_and(|status| status.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// The test's own threads are others.
    #[test]
    fn a_process_with_threads_is_not_split() {
        assert!(split().is_err());
    }

    #[tokio::test]
    async fn a_parent_that_is_gone_is_noticed() {
        let (reader, writer) = pipe().unwrap();
        let attached = Attached { ready: writer };
        let front = attached.front().unwrap();
        assert!(front.gone().now_or_never().is_none());
        drop(reader);
        timeout(PATIENCE, front.gone()).await.unwrap();
        let error = attached.tell().unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
    }

    #[test]
    fn a_parent_that_waits_hears_of_it() {
        let (mut reader, writer) = pipe().unwrap();
        Attached { ready: writer }.tell().unwrap();
        let mut word = Vec::new();
        reader.read_to_end(&mut word).unwrap();
        assert_eq!(word, b"1");
    }
}
