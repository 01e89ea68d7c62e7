//! A program in the namespaces.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, rlim_t, setrlimit};
use nix::sys::signal::SigSet;
use thiserror::Error;

use super::Inside;

/// Added to the number of an error on the way in, to tell it from one of execve(2): between fork and exec there is no
/// other way to say so. Linux's own numbers end at 4095 (MAX_ERRNO, include/linux/err.h).
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

/// What a program finds as we found it, though it is otherwise with us by now.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// Soft and hard limit of open files.
    pub open_files: Option<(rlim_t, rlim_t)>,
    /// Signals that are blocked.
    pub blocked: SigSet,
}

/// What a new process does to get in, with calls that are allowed between fork and exec.
struct Way {
    user: Option<RawFd>,
    network: RawFd,
    mount: RawFd,
    directory: Option<CString>,
    /// The same directory, where its path leads nowhere.
    opened: Option<OwnedFd>,
    before: Before,
}

impl Inside {
    /// Starts `command` inside, in the directory where this process is, with our terminal, process group and user.
    ///
    /// # Errors
    /// [`EnterError`].
    pub fn spawn(&self, mut command: Command, before: Before) -> Result<Child, EnterError> {
        let way = self.way(before);
        #[expect(unsafe_code, reason = "work between fork and exec")]
        // SAFETY: between fork and exec only async-signal-safe calls are made: pthread_sigmask, setrlimit, setns, chdir, fchdir. Nothing is
        // allocated; errors are plain numbers. The descriptors outlive the call: `self` is borrowed, `way` owns its own.
        unsafe {
            command.pre_exec(move || way.go().map_err(on_the_way));
        }
        let program = command.get_program().to_string_lossy().into_owned();
        command.spawn().map_err(|error| told(program, error))
    }

    fn way(&self, before: Before) -> Way {
        let path = std::env::current_dir().ok();
        Way {
            user: self.user.as_ref().map(AsRawFd::as_raw_fd),
            network: self.network.as_raw_fd(),
            mount: self.mount.as_raw_fd(),
            directory: path.and_then(|path| CString::new(path.as_os_str().as_bytes()).ok()),
            opened: File::open(".").ok().map(OwnedFd::from),
            before,
        }
    }
}

impl Way {
    /// The user namespace first: it gives the privileges for the others, which execve(2) takes away again. Entering a
    /// mount namespace leads to its root (setns(2)).
    fn go(&self) -> Result<(), Errno> {
        self.before.blocked.thread_set_mask()?;
        if let Some((soft, hard)) = self.before.open_files {
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
        }
        if let Some(user) = self.user {
            enter(user, libc::CLONE_NEWUSER)?;
        }
        enter(self.network, libc::CLONE_NEWNET)?;
        enter(self.mount, libc::CLONE_NEWNS)?;
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
        // fork(2), or the pipe that tells of execve(2).
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
