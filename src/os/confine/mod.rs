//! What a process gives up for good, so that whoever takes it over by way of the network has little of it.
//!
//! All of it holds for the calling thread and those that it makes later: it is called before there is a second one. Where
//! a kernel lacks a part, the others hold.

mod calls;
mod files;

use std::io;
use std::path::{Path, PathBuf};

use caps::Capability;
use nix::unistd::Uid;
use tracing::debug;

use super::names::By;
use super::privilege::{keep_capabilities, no_core_dumps, no_new_privileges};

/// What the privileged part writes to: the device, and settings of the device.
const HELPER_WRITES: [&str; 2] = ["/dev/net/tun", "/proc/sys/net"];
/// What everybody may write to: the terminal, to ask somebody.
const WRITES: [&str; 2] = ["/dev/null", "/dev/tty"];

/// What the main process still needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needs {
    /// It runs programs of the user's choice, which need what they need: it leaves no core dump, and no capability to
    /// itself unless it is root.
    Programs,
    /// It runs none, and writes only there.
    Writes(Writes),
}

/// Where a process writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// Below these directories; one that is missing stands for the nearest that is not.
    pub below: Vec<PathBuf>,
    /// Below these too, and it removes them when they are empty.
    pub own: Vec<PathBuf>,
}

/// What the main process is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// `up`.
    Capture,
    /// `run`: signals go to the command, whoever it has become.
    Command,
}

impl Task {
    /// What root keeps where it runs no programs: permissions of files do not count, and a new host key is written down as
    /// who owns the directory.
    fn capabilities(self) -> &'static [Capability] {
        match self {
            Self::Capture => &FILES,
            Self::Command => &FILES_AND_SIGNALS,
        }
    }
}

const FILES: [Capability; 4] = [
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
];
const FILES_AND_SIGNALS: [Capability; 5] = [
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_KILL,
];

/// Confines the main process, after the privileged part, or the process that becomes the command, was started. Root stays
/// root, with few capabilities.
///
/// # Errors
/// When the kernel refuses what every kernel has.
pub fn main_process(needs: &Needs, task: Task) -> io::Result<()> {
    no_core_dumps()?;
    let is_root = Uid::effective().is_root();
    match needs {
        // A program that has more capabilities than its parent is not ended with it (prctl(2), PR_SET_PDEATHSIG), and
        // what root runs has all again.
        Needs::Programs if is_root => {}
        Needs::Programs => keep_capabilities(&[])?,
        Needs::Writes(writes) => {
            keep_capabilities(if is_root { task.capabilities() } else { &[] })?;
            no_new_privileges()?;
            confine_thread(writes);
        }
    }
    Ok(())
}

/// Writing only there, and no calls but those of a network program. Needs [`no_new_privileges`].
fn confine_thread(writes: &Writes) {
    let everybodys = WRITES.iter().map(PathBuf::from);
    let asked = writes.below.iter().chain(&writes.own);
    let below = everybodys.chain(asked.filter_map(|path| there(path)));
    let parents = writes.own.iter().filter_map(|path| path.parent());
    let parents = parents.map(Path::to_owned);
    tell("Landlock", files::write_only_below(below, parents));
    tell("seccomp", calls::deny());
}

/// Confines the privileged part: it keeps `CAP_NET_ADMIN` alone, and what root may write, but for what it is for; to bring
/// programs to a name server is that as well, where it is to do that.
///
/// # Errors
/// As [`main_process`].
pub fn helper(names: Option<By>) -> io::Result<()> {
    no_core_dumps()?;
    keep_capabilities(&[Capability::CAP_NET_ADMIN])?;
    no_new_privileges()?;
    let names = names.map_or(&[][..], By::writes);
    let paths = HELPER_WRITES.iter().chain(names);
    confine_thread(&Writes {
        below: paths.map(PathBuf::from).collect(),
        own: Vec::new(),
    });
    Ok(())
}

/// What root needs to see the descriptors of all processes (proc_pid_fd(5)).
const LOOKER: &[Capability] = &[Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];

/// Confines the process that looks for others. It keeps what shows them, and is the one part without Landlock, which would
/// hide them.
///
/// # Errors
/// As [`main_process`].
pub fn looker() -> io::Result<()> {
    no_core_dumps()?;
    keep_capabilities(LOOKER)?;
    no_new_privileges()?;
    tell("seccomp", calls::deny());
    Ok(())
}

/// Confines a process that writes below `directory` as who it is, and does nothing else.
///
/// # Errors
/// As [`main_process`].
pub fn writer(directory: PathBuf) -> io::Result<()> {
    no_core_dumps()?;
    keep_capabilities(&[])?;
    no_new_privileges()?;
    confine_thread(&Writes {
        below: vec![directory],
        own: Vec::new(),
    });
    Ok(())
}

/// `path`, or the nearest directory above it that exists.
fn there(path: &Path) -> Option<PathBuf> {
    path.ancestors()
        .find(|path| path.exists())
        .map(Path::to_owned)
}

/// A kernel without it is no reason to stop.
fn tell(what: &str, done: Result<(), impl std::fmt::Display>) {
    if let Err(error) = done {
        debug!("this process is not confined by {what}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::errno::Errno;
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// The lines of this thread's proc_pid_status(5).
    fn status(key: &str) -> String {
        let text = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap().trim_start_matches(':').trim().to_owned()
    }

    /// All of it holds for a thread, so a thread of its own leaves the other tests alone.
    #[test]
    fn a_confined_thread_writes_where_it_may_and_nowhere_else() {
        let (allowed, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                keep_capabilities(&FILES).unwrap();
                no_new_privileges().unwrap();
                let missing = allowed.path().join("not/there");
                let (kept, own) = (other.path().join("kept"), other.path().join("own"));
                fs::create_dir(&kept).unwrap();
                fs::create_dir(&own).unwrap();
                confine_thread(&Writes {
                    below: vec![missing.clone()],
                    own: vec![own.clone()],
                });
                assert_eq!(status("NoNewPrivs"), "1");
                assert_eq!(status("Seccomp"), "2");
                fs::create_dir_all(&missing).unwrap();
                fs::write(missing.join("file"), "text").unwrap();
                let denied = |path: &Path| {
                    fs::write(path, "text").unwrap_err().kind() == io::ErrorKind::PermissionDenied
                };
                assert!(denied(&other.path().join("file")));
                assert!(denied(&kept.join("file")));
                fs::write(own.join("file"), "text").unwrap();
                fs::remove_file(own.join("file")).unwrap();
                fs::remove_dir(&own).unwrap();
                assert!(denied(Path::new("/etc/underpass-test")));
                fs::read_to_string("/etc/passwd").unwrap();
                fs::write("/dev/null", "text").unwrap();
                assert_eq!(unshare(CloneFlags::CLONE_NEWUSER), Err(Errno::EPERM));
                assert!(std::net::TcpListener::bind("127.0.0.1:0").is_ok());
            });
        });
        fs::write(other.path().join("file"), "text").unwrap();
    }

    #[test]
    fn capabilities_that_are_not_kept_are_gone() {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                keep_capabilities(&FILES).unwrap();
                // Their numbers are 1, 2, 6 and 7 (linux/capability.h).
                for set in ["CapEff", "CapPrm"] {
                    let kept = u64::from_str_radix(&status(set), 16).unwrap();
                    assert_eq!(kept & !0b1100_0110, 0, "{set}");
                }
                assert_eq!(status("CapInh"), "0000000000000000");
            });
        });
    }
}
