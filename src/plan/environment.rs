//! What the plan takes from its surroundings, handed in so that planning stays pure.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The surroundings of a run, as plain values.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Login name of the person who asked, for a remote without `user@`.
    pub user: Option<String>,
    /// Number of that person (`%i` in ssh's configuration).
    pub uid: u32,
    /// Name of this host, with its domain where it has one (gethostname(2)).
    pub host_name: String,
    /// Home of that person: `.ssh` is looked for here, and `~/` means it.
    pub home: Option<PathBuf>,
    /// Where the person is logged in from (`SSH_CONNECTION`), when over SSH.
    pub logged_in_from: Option<IpAddr>,
    /// Whether a file is there. Only asked for key files and Kerberos tickets.
    pub exists: fn(&Path) -> bool,
    /// Whether a file is a binary key revocation list (PROTOCOL.krl). Only asked for RevokedHostKeys.
    pub is_krl: fn(&Path) -> bool,
    /// Whether a file is the private half of a key in hardware, which ssh alone can sign with where no agent has it. Only asked for
    /// key files.
    pub is_hardware_key: fn(&Path) -> bool,
    /// Whether the embedded carrier has an algorithm: the option of ssh_config(5) that names it, and its name there.
    pub has_algorithm: fn(&str, &str) -> bool,
    /// The value of an environment variable, for `${NAME}` in ssh's configuration.
    pub variable: fn(&str) -> Option<String>,
    /// What was typed, without sudo in front, where sudo was called and no agent was found behind it.
    pub without_sudo: Option<String>,
    /// The number of the user of a name on this host.
    pub user_number: fn(&str) -> Option<u32>,
    /// The numbers of the users of a group, by its name or number: its members, and whose own group it is.
    pub group_users: fn(&str) -> Option<Vec<u32>>,
}

impl Environment {
    /// `path` with a leading `~/` replaced by the home.
    pub(super) fn expand(&self, path: &str) -> PathBuf {
        match (path.strip_prefix("~/"), &self.home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(path),
        }
    }
}
