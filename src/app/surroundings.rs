//! The surroundings of this process, read once.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User};

use super::sudo::{self, SudoError};
use crate::carrier::russh::{KeyLock, has_algorithm, key_facts};
use crate::os::accounts;
use crate::os::privilege::{Caller, become_caller};
use crate::plan::{Environment, quoted};

/// Set by sshd: the client's address and port, then the server's (ssh(1), ENVIRONMENT).
const SSH_CONNECTION: &str = "SSH_CONNECTION";
/// Where the agent listens (ssh-agent(1), ENVIRONMENT).
const AUTH_SOCK: &str = "SSH_AUTH_SOCK";
/// How many ancestors are asked at most.
const ANCESTORS: usize = 32;

/// The person who asked: under sudo who called it, and their login name, keys, known hosts and configuration of ssh
/// count, not root's.
#[derive(Clone, Debug)]
pub struct Person {
    /// Login name here.
    pub name: Option<String>,
    /// Home, where `.ssh` is.
    pub home: Option<PathBuf>,
    /// Number of the user.
    pub uid: u32,
    /// User and group of who called sudo.
    pub behind_sudo: Option<(u32, u32)>,
    /// Their login shell.
    pub shell: Option<PathBuf>,
}

/// Reads the environment as the plan needs it.
pub fn environment(person: &Person) -> Environment {
    Environment {
        user: person.name.clone(),
        uid: person.uid,
        host_name: host_name(),
        home: person.home.clone(),
        logged_in_from: logged_in_from(),
        exists: Path::exists,
        is_krl,
        is_hardware_key,
        has_algorithm,
        variable,
        without_sudo: without_sudo(person),
        user_number,
        group_users,
    }
}

/// What was typed, for a person whose agent sudo has hidden too well.
fn without_sudo(person: &Person) -> Option<String> {
    let called_sudo = person.name.is_some() && behind_sudo() == person.name;
    (called_sudo && variable(AUTH_SOCK).is_none()).then(|| {
        let words = std::env::args_os().map(|word| quoted(&word.to_string_lossy()));
        words.collect::<Vec<_>>().join(" ")
    })
}

fn caller(person: &Person) -> Option<Caller> {
    let (uid, gid) = person.behind_sudo?;
    Some(Caller {
        uid,
        gid,
        name: person.name.clone()?,
        home: person.home.clone()?,
        shell: person.shell.clone()?,
    })
}

/// Becomes who called sudo, where somebody did, for good: from here on everything is done with their rights, and finds
/// their files and their agent. To be called before there is a second thread.
///
/// # Errors
/// Where it is not known who called sudo, and when the kernel refuses.
pub fn become_person() -> anyhow::Result<()> {
    let Some(caller) = caller(&person()?) else {
        return Ok(());
    };
    // Read as root: nobody else may read the environment of sudo and of what is before it.
    let lost = [SSH_CONNECTION, AUTH_SOCK].into_iter().filter_map(|name| {
        let value = variable(name).or_else(|| inherited(name, Some(caller.uid)))?;
        Some((name, OsString::from(value)))
    });
    Ok(become_caller(&caller, &lost.collect::<Vec<_>>())?)
}

/// Where the person is logged in from, when over SSH.
pub fn logged_in_from() -> Option<IpAddr> {
    let connection = variable(SSH_CONNECTION).or_else(|| inherited(SSH_CONNECTION, None))?;
    connection.split(' ').next()?.parse().ok()
}

/// How a key revocation list begins (PROTOCOL.krl).
const KRL: &[u8] = b"SSHKRL\n\0";

fn is_krl(file: &Path) -> bool {
    let mut head = [0; KRL.len()];
    let read = File::open(file).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head == KRL
}

fn is_hardware_key(file: &Path) -> bool {
    key_facts(file).is_ok_and(|key| key.lock == KeyLock::Hardware)
}

/// Who called sudo, by name, also where that is root.
pub(super) fn behind_sudo() -> Option<String> {
    variable("SUDO_USER")
}

fn user_number(name: &str) -> Option<u32> {
    let user = User::from_name(name).ok().flatten()?;
    Some(user.uid.as_raw())
}

/// Members by name, and whose own group it is: those are not among its members (group(5)).
fn group_users(text: &str) -> Option<Vec<u32>> {
    let found = match text.parse() {
        Ok(number) => Group::from_gid(Gid::from_raw(number)),
        Err(_) => Group::from_name(text),
    };
    let group = found.ok().flatten()?;
    let members = group.mem.iter().filter_map(|name| user_number(name));
    let own = accounts::with_group(group.gid.as_raw());
    let mut users: Vec<u32> = members.chain(own).collect();
    users.sort_unstable();
    users.dedup();
    Some(users)
}

/// What gethostname(2) says.
fn host_name() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    text.trim_end().to_owned()
}

/// The caller of sudo, else the process's own user. As in ssh, passwd(5) goes before `$USER` and `$HOME`.
///
/// # Errors
/// [`SudoError`] where sudo has left traces that lead to nobody.
pub fn person() -> Result<Person, SudoError> {
    let own = Uid::effective();
    if own.is_root()
        && let Some(user) = sudo::caller()?
    {
        tracing::debug!(
            "run by sudo: using the keys and known hosts of {} in {}",
            user.name,
            user.dir.display()
        );
        return Ok(Person {
            uid: user.uid.as_raw(),
            behind_sudo: Some((user.uid.as_raw(), user.gid.as_raw())),
            shell: Some(user.shell),
            name: Some(user.name),
            home: Some(user.dir),
        });
    }
    let user = User::from_uid(own).ok().flatten();
    let (name, home) = user.map(|user| (user.name, user.dir)).unzip();
    Ok(Person {
        name: name.or_else(|| variable("USER")),
        home: home.or_else(|| variable("HOME").map(PathBuf::from)),
        uid: own.as_raw(),
        behind_sudo: None,
        shell: None,
    })
}

/// The name of the user of this number; the number where nobody has it.
pub fn user_name(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

/// The login shell of who runs this process.
pub fn login_shell() -> Option<PathBuf> {
    let user = User::from_uid(Uid::effective()).ok().flatten()?;
    Some(user.shell).filter(|shell| !shell.as_os_str().is_empty())
}

/// sudo hides a variable from what it runs, but was given it, and the shell that called it may have been, too
/// (proc_pid_environ(5): what a process was started with, so that of sudo knows more). Of processes that `uid` has started
/// only, where one is given: nobody else's word counts.
fn inherited(name: &str, uid: Option<u32>) -> Option<String> {
    let mut process = nix::unistd::getppid().as_raw();
    for _ in 0..ANCESTORS {
        let directory = format!("/proc/{process}");
        let status = std::fs::read_to_string(format!("{directory}/status")).ok()?;
        if uid.is_none_or(|uid| started_by(&status) == Some(uid))
            && let Ok(environment) = std::fs::read(format!("{directory}/environ"))
            && let Some(value) = entry(&environment, name)
        {
            return Some(value);
        }
        process = parent(&status)?;
    }
    None
}

fn entry(environment: &[u8], name: &str) -> Option<String> {
    let mut entries = environment.split(|byte| *byte == 0);
    let value = entries.find_map(|entry| {
        let rest = entry.strip_prefix(name.as_bytes())?;
        rest.strip_prefix(b"=")
    })?;
    String::from_utf8(value.to_vec()).ok()
}

/// The real user, which sudo, too, has from its caller: the first number of the line `Uid` of proc_pid_status(5).
fn started_by(status: &str) -> Option<u32> {
    line(status, "Uid:")?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

fn parent(status: &str) -> Option<i32> {
    line(status, "PPid:")?.trim().parse().ok()
}

/// The name, which may hold anything, stands before it with its line breaks escaped.
fn line<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(key))
}

/// A variable of the environment that is set, and not to nothing.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_and_the_parent_are_read() {
        let environment = b"A=b\0SSH_CONNECTION=203.0.113.9 5022 10.0.0.1 22\0C=d\0";
        let value = entry(environment, SSH_CONNECTION).unwrap();
        assert!(value.starts_with("203.0.113.9 "));
        assert_eq!(entry(b"XSSH_CONNECTION=no", SSH_CONNECTION), None);
        let sudo = "Name:\tsudo\nPid:\t7\nPPid:\t42\nUid:\t1000\t0\t0\t0\n";
        assert_eq!((parent(sudo), started_by(sudo)), (Some(42), Some(1000)));
        assert_eq!((parent("Pid:\t7"), started_by("Uid:\t")), (None, None));
    }

    #[test]
    fn asking_the_ancestors_ends() {
        assert_eq!(inherited("NO_SUCH_VARIABLE_ANYWHERE", None), None);
    }
}
