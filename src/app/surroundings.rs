//! The surroundings of this process, read once.

use std::path::Path;

use nix::unistd::{Uid, User};

use crate::plan::Environment;

/// Reads the environment. Under sudo the person is who called sudo: their login name, keys and known
/// hosts count, not root's.
pub fn environment() -> Environment {
    let person = person();
    Environment {
        user: person.as_ref().map(|user| user.name.clone()),
        home: person.map(|user| user.dir),
        logged_in_from: variable("SSH_CONNECTION")
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

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
