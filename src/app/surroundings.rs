//! The surroundings of this process, read once.

use std::path::Path;

use nix::unistd::{Uid, User};

use crate::plan::Environment;

/// Set by sshd: the client's address and port, then the server's (ssh(1), ENVIRONMENT).
const SSH_CONNECTION: &str = "SSH_CONNECTION";
/// How many ancestors are asked at most.
const ANCESTORS: usize = 32;

/// Reads the environment. Under sudo the person is who called sudo: their login name, keys and known
/// hosts count, not root's.
pub fn environment() -> Environment {
    let person = person();
    Environment {
        user: person.as_ref().map(|user| user.name.clone()),
        home: person.map(|user| user.dir),
        logged_in_from: variable(SSH_CONNECTION)
            .or_else(inherited_connection)
            .and_then(|text| text.split(' ').next()?.parse().ok()),
        exists: Path::exists,
    }
}

/// The caller of sudo, else `$USER` and `$HOME` where set, else the passwd entry.
fn person() -> Option<User> {
    if Uid::effective().is_root()
        && let Some(name) = variable("SUDO_USER").filter(|name| name != "root")
        && let Ok(Some(user)) = User::from_name(&name)
    {
        tracing::debug!(
            "run by sudo: using the keys and known hosts of {name} in {}",
            user.dir.display()
        );
        return Some(user);
    }
    let mut user = User::from_uid(Uid::effective()).ok().flatten();
    if let Some(user) = &mut user {
        if let Some(name) = variable("USER") {
            user.name = name;
        }
        if let Some(home) = variable("HOME") {
            user.dir = home.into();
        }
    }
    user
}

/// sudo clears the variable, but the shell that called it still has it (proc_pid_environ(5)).
fn inherited_connection() -> Option<String> {
    let mut process = nix::unistd::getppid().as_raw();
    for _ in 0..ANCESTORS {
        let environment = std::fs::read(format!("/proc/{process}/environ")).ok()?;
        if let Some(value) = entry(&environment) {
            return Some(value);
        }
        process = parent(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?)?;
    }
    None
}

fn entry(environment: &[u8]) -> Option<String> {
    let mut entries = environment.split(|byte| *byte == 0);
    let value = entries.find_map(|entry| {
        let rest = entry.strip_prefix(SSH_CONNECTION.as_bytes())?;
        rest.strip_prefix(b"=")
    })?;
    String::from_utf8(value.to_vec()).ok()
}

/// The fourth field of proc_pid_stat(5); the second, in parentheses, may hold anything.
fn parent(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_and_the_parent_are_read() {
        let environment = b"A=b\0SSH_CONNECTION=203.0.113.9 5022 10.0.0.1 22\0C=d\0";
        let value = entry(environment).unwrap();
        assert!(value.starts_with("203.0.113.9 "));
        assert_eq!(entry(b"XSSH_CONNECTION=no"), None);
        assert_eq!(parent("7 (a) b) S 42 7 7"), Some(42));
        assert_eq!(parent("7"), None);
    }

    #[test]
    fn asking_the_ancestors_ends() {
        let _ = inherited_connection();
    }
}
