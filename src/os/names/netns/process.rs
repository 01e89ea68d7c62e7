//! The resolv.conf that a process sees, in a mount namespace of its own. Whoever is in there may be hostile.
//!
//! Nothing of theirs is run, and no link of theirs is followed. The file is opened with the rights of root as they have it: who can
//! mount there, in a user namespace of their own, can mount any file of this host that they see over it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid, setgroups};

use super::super::RESOLV_CONF;
use super::ApartError;
use crate::os::resolv_conf::beginning;

/// What stands for a file, and with which no more can be done.
const PATH: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);
/// Whose files are the host's: ours, which may be others than those of its first process, as services have.
const HOST: [&str; 2] = ["self", "1"];
const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_CLOEXEC);
/// A pipe or a terminal holds nobody up.
const WRITE: OFlag = OFlag::O_RDWR
    .union(OFlag::O_CLOEXEC)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOCTTY);

/// A process, also when its number is another's by now.
struct Process {
    pid: i32,
    directory: OwnedFd,
}

/// Opens the file of process `pid`, which has to be in the network namespace that we are in where `is_here`.
pub(super) fn open_file(pid: i32, is_here: bool) -> Result<File, ApartError> {
    let directory = open(format!("/proc/{pid}").as_str(), PATH, Mode::empty());
    let process = Process {
        pid,
        directory: directory.map_err(|_| ApartError::Gone(pid))?,
    };
    if is_here && !process.shares("ns/net", "self")? {
        return Err(ApartError::Gone(pid));
    }
    let others = process.others(is_here);
    let shared = |other: &String| ApartError::Shared(pid, whose(other));
    let with_mounts = |other: &&String| matches!(process.shares("ns/mnt", other), Ok(true));
    if let Some(other) = others.iter().find(with_mounts) {
        return Err(shared(other));
    }
    let root = process.open("root", PATH)?;
    let file = match process.root_of_mounts()? {
        None => open_below(&root),
        Some(user) => as_user(user, || open_below(&root)),
    };
    let file = file.map_err(|error| ApartError::File(pid, error))?;
    match others.iter().find(|other| sees(other, &file)) {
        Some(other) => Err(shared(other)),
        None => Ok(file),
    }
}

impl Process {
    fn open(&self, name: &str, flags: OFlag) -> Result<OwnedFd, ApartError> {
        let opened = openat(&self.directory, name, flags, Mode::empty());
        opened.map_err(|errno| match errno {
            nix::Error::EACCES | nix::Error::EPERM => ApartError::Rights(self.pid),
            _ => ApartError::Gone(self.pid),
        })
    }

    /// Whose files are not to be written: the host's, and with `and_all` those of whoever is in another network, or may be.
    fn others(&self, and_all: bool) -> Vec<String> {
        let pids = pids().filter(|_| and_all);
        let elsewhere = pids.filter(|pid| !matches!(self.shares("ns/net", pid), Ok(true)));
        HOST.map(str::to_owned)
            .into_iter()
            .chain(elsewhere)
            .collect()
    }

    /// Whether it is in the namespace of that kind of another.
    fn shares(&self, kind: &str, other: &str) -> Result<bool, ApartError> {
        let own = open(
            format!("/proc/{other}/{kind}").as_str(),
            PATH,
            Mode::empty(),
        );
        Ok(is_same(
            self.open(kind, PATH)?,
            own.map_err(io::Error::from)?,
        ))
    }

    /// Who is root where its mounts are made; `None` for root of this host.
    fn root_of_mounts(&self) -> Result<Option<(Uid, Gid)>, ApartError> {
        let owner = user_namespace(self.open("ns/mnt", READ)?)?;
        if is_same(&owner, File::open("/proc/self/ns/user")?) {
            return Ok(None);
        }
        // Who stands for whom there is to be had from a process in it alone.
        if !is_same(&owner, self.open("ns/user", PATH)?) {
            return Err(ApartError::Rights(self.pid));
        }
        let root = |table: &str| {
            let table = self.open(table, READ)?;
            let text = beginning(format!("/proc/self/fd/{}", table.as_raw_fd()).as_ref())?;
            root_of(&text).ok_or(ApartError::Rights(self.pid))
        };
        Ok(Some((root("uid_map")?.into(), root("gid_map")?.into())))
    }
}

/// Whether `file` is what `pid` reads, where that can be looked at. A link leads where it does for them.
fn sees(pid: &str, file: &File) -> bool {
    let theirs = || {
        let root = open(format!("/proc/{pid}/root").as_str(), PATH, Mode::empty())?;
        let inside = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        openat2(
            root,
            RESOLV_CONF,
            OpenHow::new().flags(PATH).resolve(inside),
        )
    };
    theirs().is_ok_and(|theirs| is_same(file, theirs))
}

/// For a person.
fn whose(pid: &str) -> String {
    match HOST.contains(&pid) {
        true => "this host".to_owned(),
        false => format!("process {pid}"),
    }
}

fn is_same(one: impl AsFd, other: impl AsFd) -> bool {
    let identity = |file| fstat(file).map(|found| (found.st_dev, found.st_ino));
    matches!((identity(one.as_fd()), identity(other.as_fd())), (Ok(one), Ok(other)) if one == other)
}

/// Whose namespace it is (ioctl_nsfs(2)).
fn user_namespace(namespace: OwnedFd) -> io::Result<OwnedFd> {
    nix::ioctl_none!(ns_get_userns, 0xb7, 1);
    #[expect(unsafe_code, reason = "NS_GET_USERNS")]
    // SAFETY: the request takes no argument; what it gives is a descriptor that nobody else knows of.
    unsafe {
        Ok(OwnedFd::from_raw_fd(ns_get_userns(namespace.as_raw_fd())?))
    }
}

/// Whom number 0 stands for (user_namespaces(7)).
fn root_of(table: &str) -> Option<u32> {
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("0")).then(|| words.next()?.parse().ok())?
    })
}

/// The file system sees this thread as that user meanwhile, without what root may there (setfsuid(2), capabilities(7)).
fn as_user((uid, gid): (Uid, Gid), open: impl FnOnce() -> io::Result<File>) -> io::Result<File> {
    setgroups(&[])?;
    let (was_gid, was_uid) = (setfsgid(gid), setfsuid(uid));
    // They say who one was before, and not whether it was done.
    let file = match setfsuid(uid) == uid && setfsgid(gid) == gid {
        true => open(),
        false => Err(io::ErrorKind::PermissionDenied.into()),
    };
    setfsuid(was_uid);
    setfsgid(was_gid);
    file
}

/// In two steps: what is no file, a device for example, must not even be opened.
fn open_below(root: &OwnedFd) -> io::Result<File> {
    let inside = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let found = openat2(
        root,
        RESOLV_CONF,
        OpenHow::new().flags(PATH).resolve(inside),
    )?;
    if fstat(&found)?.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let own = format!("/proc/self/fd/{}", found.as_raw_fd());
    Ok(open(own.as_str(), WRITE, Mode::empty())?.into())
}

/// The processes of this host.
fn pids() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// One for each mount namespace that can be seen.
pub(super) fn apart() -> Vec<i32> {
    let mut seen = BTreeSet::new();
    let is_new = |pid: &String| {
        let mounts = fs::read_link(format!("/proc/{pid}/ns/mnt"));
        mounts.is_ok_and(|mounts| seen.insert(mounts))
    };
    pids()
        .filter(is_new)
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_root_stands_for() {
        let docker = "         0     100000      65536\n";
        assert_eq!(root_of(docker), Some(100_000));
        assert_eq!(root_of("1 100000 65535\n0 1000 1\n"), Some(1000));
        assert_eq!(root_of("1000 1000 1\n"), None);
        assert_eq!(root_of("0 x 1\n"), None);
        assert_eq!(root_of(""), None);
    }

    #[test]
    fn who_sees_the_files_of_the_host_is_refused() {
        let own = i32::try_from(std::process::id()).unwrap();
        let error = open_file(own, true).unwrap_err();
        assert!(matches!(error, ApartError::Shared(..)), "{error}");
        let error = open_file(i32::MAX, true).unwrap_err();
        assert!(matches!(error, ApartError::Gone(_)), "{error}");
    }

    /// A link is not followed, wherever it leads; nor is what is no file opened.
    #[test]
    fn only_a_file_is_opened() {
        let root = tempfile::tempdir().unwrap();
        let (etc, outside) = (root.path().join("etc"), tempfile::tempdir().unwrap());
        let conf = etc.join("resolv.conf");
        let open_it = || open_below(&File::open(root.path()).unwrap().into());
        fs::create_dir(&etc).unwrap();
        assert_eq!(open_it().unwrap_err().kind(), io::ErrorKind::NotFound);
        for target in ["/proc/self/exe", "real", "../../../etc/resolv.conf"] {
            std::os::unix::fs::symlink(target, &conf).unwrap();
            let error = open_it().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(nix::libc::ELOOP), "{target}");
            fs::remove_file(&conf).unwrap();
        }
        nix::unistd::mkfifo(&conf, Mode::S_IRWXU).unwrap();
        assert_eq!(open_it().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        fs::remove_file(&conf).unwrap();
        fs::write(&conf, "").unwrap();
        assert!(open_it().is_ok());
        // The directory may be one as well.
        fs::rename(&etc, outside.path().join("etc")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("etc"), &etc).unwrap();
        let error = open_it().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ELOOP));
    }
}
