//! What the plan takes from its surroundings, handed in so that planning stays pure.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The surroundings of a run, as plain values.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Login name of the person who asked, for a remote without `user@`.
    pub user: Option<String>,
    /// Home of that person: `.ssh` is looked for here, and `~/` means it.
    pub home: Option<PathBuf>,
    /// Where the person is logged in from (`SSH_CONNECTION`), when over SSH.
    pub logged_in_from: Option<IpAddr>,
    /// Whether a file is there. Only asked for key files.
    pub exists: fn(&Path) -> bool,
}

impl Environment {
    /// `path` with a leading `~/` replaced by the home.
    pub(super) fn expand(&self, path: &str) -> PathBuf {
        match (path.strip_prefix("~/"), &self.home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(path),
        }
    }

    /// `.ssh/name` in the home, when there is a home.
    pub(super) fn dot_ssh(&self, name: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(".ssh").join(name))
    }
}
