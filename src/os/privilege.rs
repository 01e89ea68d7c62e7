//! What this process may do, and giving it up.

use std::ffi::{CString, OsString};
use std::io;
use std::path::PathBuf;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, initgroups, setresgid, setresuid};

/// Who called sudo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Number of the user.
    pub uid: u32,
    /// Number of their group.
    pub gid: u32,
    /// Login name.
    pub name: String,
    /// Home.
    pub home: PathBuf,
    /// Login shell.
    pub shell: PathBuf,
}

/// Whether devices and routes can be set by this process as it is (`CAP_NET_ADMIN`, capabilities(7)).
pub fn may_set_network() -> bool {
    caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap_or(false)
}

/// Keeps `keep`, of what there is, and no other capability. For this thread and those that it makes later; a program
/// that root runs later has its own again, unless [`no_new_privileges`] was called.
///
/// # Errors
/// capset(2).
pub fn keep_capabilities(keep: &[Capability]) -> io::Result<()> {
    let keep: CapsHashSet = keep.iter().copied().collect();
    // In this order: each set is bounded by the next.
    for set in [
        CapSet::Ambient,
        CapSet::Effective,
        CapSet::Permitted,
        CapSet::Inheritable,
    ] {
        let now = caps::read(None, set).map_err(io::Error::other)?;
        let kept = now.intersection(&keep).copied().collect();
        match caps::set(None, set, &kept) {
            // A kernel without ambient capabilities has none.
            Err(_) if matches!(set, CapSet::Ambient) && now.is_empty() => {}
            result => result.map_err(io::Error::other)?,
        }
    }
    Ok(())
}

/// No program that is run from here on gets more rights than this process has (`PR_SET_NO_NEW_PRIVS`, prctl(2)). For
/// this thread and those that it makes later.
///
/// # Errors
/// prctl(2).
pub fn no_new_privileges() -> io::Result<()> {
    Ok(prctl::set_no_new_privs()?)
}

/// Leaves no image of the memory behind, and lets no process of the same user read it (`PR_SET_DUMPABLE`, prctl(2);
/// core(5)).
///
/// # Errors
/// setrlimit(2), prctl(2).
pub fn no_core_dumps() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    Ok(prctl::set_dumpable(false)?)
}

/// Becomes `caller` for good, with their groups and nothing of root's, and their home, shell and name in the environment;
/// `variables` are set too.
///
/// # Errors
/// When the kernel refuses; `Unsupported` when there is a second thread, which would stay as it is.
pub fn become_caller(caller: &Caller, variables: &[(&str, OsString)]) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(caller.uid), Gid::from_raw(caller.gid));
    let name = CString::new(caller.name.as_bytes())?;
    let fixed = [
        ("HOME", caller.home.as_os_str()),
        ("SHELL", caller.shell.as_os_str()),
        ("USER", caller.name.as_ref()),
        ("LOGNAME", caller.name.as_ref()),
    ];
    let given = variables
        .iter()
        .map(|(name, value)| (*name, value.as_os_str()));
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    initgroups(&name, gid)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    for (name, value) in fixed.into_iter().chain(given) {
        #[expect(unsafe_code, reason = "the environment belongs to all threads")]
        // SAFETY: this is the only thread.
        unsafe {
            std::env::set_var(name, value);
        }
    }
    Ok(())
}
