//! `sudoers`: a rule that lets a user have packets captured without a password, and nothing else.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::exit::Exit;
use super::surroundings;
use crate::os::helper::{SUBCOMMAND, program};

/// Prints the rule for `user`, or for the person who asks.
/// [`Exit::Failure`] where it would make them root, unless with `force`.
pub(super) fn run(user: Option<String>, force: bool) -> Exit {
    let asks = || surroundings::person().ok().and_then(|person| person.name);
    let Some(user) = user.or_else(asks) else {
        tracing::error!("who may? --user NAME");
        return Exit::Usage;
    };
    if !is_name(&user) {
        tracing::error!("--user {user}: no login name that fits into sudoers");
        return Exit::Usage;
    }
    let program = match program().canonicalize() {
        Ok(program) => program,
        Err(error) => return super::failed(&error),
    };
    let Some(command) = command(&program) else {
        let path = program.display();
        tracing::error!("{path} does not fit into sudoers; install underpass elsewhere");
        return Exit::Usage;
    };
    if let Some(loose) = writable_by_others(&program) {
        let said = format!(
            "others than root can replace {}, and with a rule for it become root; install underpass where root alone can \
             write: sudo install {} /usr/local/bin/",
            loose.display(),
            program.display()
        );
        if !force {
            tracing::error!("{said}; --force prints the rule all the same");
            return Exit::Failure;
        }
        tracing::warn!("{said}");
    }
    super::print(rule(&user, &command).as_bytes())
}

/// The rule, with all that it allows.
pub(super) fn rule(user: &str, command: &str) -> String {
    format!(
        "# Lets {user} run the privileged part of underpass without a password. It makes TUN devices, and routes and\n\
         # rules to them, and takes them back, also those that a killed run of anybody has left. It does so in the network\n\
         # of this host, and in every other network namespace that {user} can open: those of ip netns, and of {user}'s own\n\
         # processes. So {user} can have any address lead to a server of their choice: for themselves, for every other\n\
         # user, for containers, and for hosts that this one forwards for. It takes no arguments, runs no program, and\n\
         # writes to no file but the settings of its devices in /proc/sys/net and, for --dns, the resolv.conf of this host or\n\
         # of such a namespace, which names underpass then.\n\
         # Printed by underpass sudoers; to be kept as /etc/sudoers.d/underpass, mode 0440.\n\
         {user} ALL=(root) NOPASSWD: {command} {SUBCOMMAND}\n"
    )
}

/// Names that sudoers takes as they are.
fn is_name(user: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    user.starts_with(|c: char| c.is_ascii_lowercase() || c == '_') && user.chars().all(plain)
}

/// The path as sudoers(5) wants it: what has a meaning there, and what matches more than itself, with a backslash.
fn command(program: &Path) -> Option<String> {
    let path = program
        .to_str()
        .filter(|path| !path.chars().any(char::is_control))?;
    let mut escaped = String::new();
    for character in path.chars() {
        if !character.is_alphanumeric() && !matches!(character, '/' | '_' | '-' | '.' | '+') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    Some(escaped)
}

/// The file, or the directory on the way to it, that others than root can write to or replace.
fn writable_by_others(program: &Path) -> Option<PathBuf> {
    let is_loose = |path: &&Path| {
        path.metadata()
            .map_or(true, |file| file.uid() != 0 || file.mode() & 0o022 != 0)
    };
    program.ancestors().find(is_loose).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stands_for_itself_alone() {
        let shown = |path: &str| command(Path::new(path));
        assert_eq!(shown("/usr/bin/underpass").unwrap(), "/usr/bin/underpass");
        assert_eq!(shown("/opt/a b/u*:1").unwrap(), r"/opt/a\ b/u\*\:1");
        assert_eq!(shown("/opt/a\nroot ALL=ALL"), None);
    }

    #[test]
    fn a_name_cannot_say_more() {
        for name in ["me", "first.last", "_svc-1"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "ALL", "%wheel", "#0", "a b", "a,b", "a\nb", "-x"] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn a_file_of_a_user_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        assert!(writable_by_others(dir.path()).is_some());
        assert_eq!(writable_by_others(Path::new("/")), None);
    }
}
