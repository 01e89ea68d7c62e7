//! A program in the namespaces.
//!
//! It is forked before this process gives anything up, and before it knows a secret: a fork gets what its parent has left,
//! and a command has to find all that it would find outside.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::SigSet;
use nix::unistd::{Pid, getpid};
use thiserror::Error;

use super::Inside;
use super::child::tie_to;

/// Added to the number of an error on the way in, to tell it from one of execve(2): exec gives numbers alone.
/// Linux's own numbers end at 4095 (MAX_ERRNO, include/linux/err.h).
const ON_THE_WAY: i32 = 1 << 16;

/// The program does not run.
#[derive(Debug, Error)]
pub enum EnterError {
    /// There is no such program.
    #[error("{program}: no such program; is it in PATH?")]
    NotFound {
        /// As typed.
        program: String,
    },
    /// There is one, but it cannot be run.
    #[error("{program} cannot be run: {source}")]
    NotExecutable {
        /// As typed.
        program: String,
        /// What execve(2) says.
        #[source]
        source: io::Error,
    },
    /// The namespaces could not be entered, or there is no process to be had.
    #[error("could not start the command in its network: {0}")]
    Io(#[source] io::Error),
}

/// The number of an error that execve(2) does not have.
const UNKNOWN: i32 = libc::EINVAL;

/// What a new process does to get in.
struct Way {
    user: Option<RawFd>,
    network: RawFd,
    mount: RawFd,
    directory: Option<CString>,
    /// The same directory, where its path leads nowhere.
    opened: Option<OwnedFd>,
    blocked: SigSet,
    /// Whose end is the program's.
    parent: Pid,
}

/// A process that will be the program, and waits. It ends when this is dropped.
#[derive(Debug)]
pub struct Waiting {
    process: Pid,
    program: String,
    /// A byte that way lets it go. What comes back is the number of an error, or the end: execve(2) closed it.
    word: UnixStream,
}

impl Inside {
    /// Makes the process that will be `command` inside, in the directory where this process is, with our terminal, process
    /// group and user, with `blocked` signals blocked, and else with what this process has now. It is killed when the calling
    /// thread ends: what it had started itself is left without a network. The caller has one thread: a copy of a process with
    /// several may hold locks that nobody will open.
    ///
    /// # Errors
    /// Those of socketpair(2) and fork(2).
    pub fn prepare(self, command: Command, blocked: SigSet) -> io::Result<Waiting> {
        let program = command.get_program().to_string_lossy().into_owned();
        let (ours, theirs) = UnixStream::pair()?;
        let parent = getpid();
        match super::fork()? {
            Some(process) => Ok(Waiting {
                process,
                program,
                word: ours,
            }),
            None => {
                drop(ours);
                self.become_it(command, blocked, parent, theirs)
            }
        }
    }

    /// Waits for the word, and runs the program in place of this process.
    fn become_it(
        self,
        mut command: Command,
        blocked: SigSet,
        parent: Pid,
        mut word: UnixStream,
    ) -> ! {
        // Nothing comes where nobody wants the program any more.
        if word.read_exact(&mut [0]).is_ok() {
            let way = self.way(blocked, parent);
            #[expect(unsafe_code, reason = "work before exec")]
            // SAFETY: it runs in this process, which is as good as any: it was forked from one with one thread. The descriptors
            // outlive the call: `self` lives until then, `way` owns its own.
            unsafe {
                command.pre_exec(move || way.go().map_err(on_the_way));
            }
            let number = command.exec().raw_os_error().unwrap_or(UNKNOWN);
            // Who waits for it may have been killed.
            let _ = word.write_all(&number.to_be_bytes());
        }
        super::leave()
    }

    fn way(&self, blocked: SigSet, parent: Pid) -> Way {
        let path = std::env::current_dir().ok();
        Way {
            user: self.user.as_ref().map(AsRawFd::as_raw_fd),
            network: self.network.as_raw_fd(),
            mount: self.mount.as_raw_fd(),
            directory: path.and_then(|path| CString::new(path.as_os_str().as_bytes()).ok()),
            opened: File::open(".").ok().map(OwnedFd::from),
            blocked,
            parent,
        }
    }
}

impl Waiting {
    /// Has it be the program, and waits until it is; its number.
    ///
    /// # Errors
    /// [`EnterError`].
    pub fn go(mut self) -> Result<Pid, EnterError> {
        self.word.write_all(&[1]).map_err(EnterError::Io)?;
        let mut number = [0; size_of::<i32>()];
        match self.word.read_exact(&mut number) {
            Ok(()) => Err(told(
                self.program,
                io::Error::from_raw_os_error(i32::from_be_bytes(number)),
            )),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(self.process),
            Err(error) => Err(EnterError::Io(error)),
        }
    }
}

impl Way {
    /// The user namespace first: it gives the privileges for the others, which execve(2) takes away again. Entering a
    /// mount namespace leads to its root (setns(2)).
    fn go(&self) -> Result<(), Errno> {
        self.blocked.thread_set_mask()?;
        if let Some(user) = self.user {
            enter(user, libc::CLONE_NEWUSER)?;
        }
        enter(self.network, libc::CLONE_NEWNET)?;
        enter(self.mount, libc::CLONE_NEWNS)?;
        tie_to(self.parent)?;
        let by_path = self.directory.as_deref().map(nix::unistd::chdir);
        match (by_path, &self.opened) {
            (Some(Ok(())), _) => Ok(()),
            (_, Some(opened)) => nix::unistd::fchdir(opened),
            (Some(Err(errno)), None) => Err(errno),
            (None, None) => Err(Errno::ENOENT),
        }
    }
}

fn enter(namespace: RawFd, kind: libc::c_int) -> Result<(), Errno> {
    #[expect(unsafe_code, reason = "setns(2) of a plain number")]
    // SAFETY: the call reads its two numbers; a descriptor that is none gives an error.
    let outcome = unsafe { libc::setns(namespace, kind) };
    Errno::result(outcome).map(drop)
}

fn on_the_way(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(ON_THE_WAY | errno as i32)
}

fn told(program: String, error: io::Error) -> EnterError {
    match error.raw_os_error() {
        Some(number) if number & ON_THE_WAY != 0 => {
            EnterError::Io(io::Error::from_raw_os_error(number & !ON_THE_WAY))
        }
        // Not the program's fault.
        Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => EnterError::Io(error),
        Some(libc::ENOENT) => EnterError::NotFound { program },
        _ => EnterError::NotExecutable {
            program,
            source: error,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_told_apart() {
        let told = |number| told("x".into(), io::Error::from_raw_os_error(number));
        assert!(matches!(told(libc::ENOENT), EnterError::NotFound { .. }));
        assert!(matches!(
            told(libc::EACCES),
            EnterError::NotExecutable { .. }
        ));
        assert!(matches!(
            told(libc::ENOEXEC),
            EnterError::NotExecutable { .. }
        ));
        assert!(matches!(told(libc::EAGAIN), EnterError::Io(_)));
        for errno in [Errno::ENOENT, Errno::EACCES, Errno::EPERM] {
            let number = on_the_way(errno).raw_os_error().unwrap();
            let EnterError::Io(error) = told(number) else {
                panic!("{errno} was not told as ours");
            };
            assert_eq!(error.raw_os_error(), Some(errno as i32));
        }
    }
}
