//! A network namespace that somebody else has made.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use thiserror::Error;

/// This process's own.
const OWN: &str = "/proc/self/ns/net";

/// There is no such namespace for us.
#[derive(Debug, Error)]
pub enum ExistingError {
    /// It cannot be opened.
    #[error("--netns: cannot open {}: {source}{}", path.display(), hint(path, .source))]
    Open {
        /// What was named.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("--netns: {} is no network namespace; ip netns list, or lsns -t net, shows those there are", path.display())]
    Other {
        /// What was named.
        path: PathBuf,
    },
}

/// Whoever may trace a process may open its namespaces (proc_pid_ns(5), ptrace(2)).
fn hint(path: &Path, error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; ip netns list, or lsns -t net, shows those there are",
        io::ErrorKind::PermissionDenied if path.starts_with("/proc") => {
            "; it is not a process of yours; type it with sudo in front"
        }
        io::ErrorKind::PermissionDenied => "; type it with sudo in front",
        _ => "",
    }
}

/// Opens the network namespace `path` with this process's own rights; `None` where it is the one that it is in.
///
/// # Errors
/// [`ExistingError`].
pub fn open(path: &Path) -> Result<Option<OwnedFd>, ExistingError> {
    let failed = |source| ExistingError::Open {
        path: path.to_owned(),
        source,
    };
    // A named pipe would make us wait.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    if !is_network(&file) {
        return Err(ExistingError::Other {
            path: path.to_owned(),
        });
    }
    let own = std::fs::metadata(OWN).map_err(failed)?;
    let named = file.metadata().map_err(failed)?;
    let is_own = (own.dev(), own.ino()) == (named.dev(), named.ino());
    Ok((!is_own).then(|| file.into()))
}

/// Moves this thread there.
///
/// # Errors
/// `InvalidInput` when `namespace` is none of a network; setns(2).
pub fn enter(namespace: OwnedFd) -> io::Result<()> {
    let file = File::from(namespace);
    if !is_network(&file) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(setns(file, CloneFlags::CLONE_NEWNET)?)
}

/// The file system first: the number of the question means something else to other devices (ioctl_nsfs(2)).
fn is_network(file: &File) -> bool {
    let is_namespace = fstatfs(file).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC);
    is_namespace && kind(file) == Ok(libc::CLONE_NEWNET)
}

fn kind(file: &File) -> nix::Result<libc::c_int> {
    nix::ioctl_none!(ns_get_nstype, 0xb7, 3);
    #[expect(unsafe_code, reason = "NS_GET_NSTYPE")]
    // SAFETY: the request takes no argument and gives a number; the file is open, and of nsfs.
    unsafe {
        ns_get_nstype(file.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_networks_are_taken() {
        for other in ["/proc/self/ns/mnt", "/dev/null", "/etc/hostname", "/tmp"] {
            let error = open(Path::new(other)).unwrap_err();
            assert!(matches!(error, ExistingError::Other { .. }), "{error}");
        }
        let error = open(Path::new("/run/netns/no-such-name")).unwrap_err();
        assert!(error.to_string().contains("ip netns list"), "{error}");
        let null = File::open("/dev/null").unwrap();
        assert_eq!(
            enter(null.into()).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }

    #[test]
    fn ones_own_is_no_other() {
        assert!(open(Path::new(OWN)).unwrap().is_none());
    }
}
