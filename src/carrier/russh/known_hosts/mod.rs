//! The known_hosts files (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"): which keys they know for a host.

mod learn;
mod line;
mod names;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, PublicKey};

pub(super) use self::learn::learn;
pub(super) use self::line::{Place, key};
pub(super) use self::names::{glob, host_name};

use self::line::{Line, Marker};

/// The longest file that is read, in bytes: some 100,000 lines.
const MAX_FILE: u64 = 32 << 20;

/// What the files say about one offered key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The key is known for the host.
    Known(Place),
    /// No key is known for the host.
    Unknown,
    /// Only other keys are known for the host.
    Changed(Known),
    /// The key is marked `@revoked`.
    Revoked(Place),
}

/// A key that is known for a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) algorithm: Algorithm,
    pub(super) place: Place,
    /// The line matches by a pattern alone.
    pub(super) by_pattern: bool,
}

/// All that a list of files knows.
#[derive(Debug)]
pub(super) struct KnownHosts {
    lines: Vec<Line>,
}

/// What they know for one host.
#[derive(Debug)]
pub(super) struct HostKeys<'a> {
    lines: Vec<&'a Line>,
    names: &'a [String],
}

impl KnownHosts {
    /// Reads `files`. One that is missing or cannot be read knows nothing, as in ssh.
    pub(super) fn load(files: &[PathBuf]) -> Self {
        let mut lines = Vec::new();
        for file in files {
            lines.extend(line::parse(&text(file), file));
        }
        Self { lines }
    }

    /// What is known for a host under any of `names`, which are as [`host_name`] spells them.
    pub(super) fn of<'a>(&'a self, names: &'a [String]) -> HostKeys<'a> {
        let covers = |line: &&Line| names.iter().any(|name| names::covers(&line.names, name));
        HostKeys {
            lines: self.lines.iter().filter(covers).collect(),
            names,
        }
    }

    /// Under which names the files know `key`; `None` for a hashed one.
    pub(super) fn names_of(&self, key: &PublicKey) -> impl Iterator<Item = (&Place, Option<&str>)> {
        let plain = self.lines.iter().filter(|l| l.marker == Marker::Plain);
        plain
            .filter(|l| l.key.key_data() == key.key_data())
            .map(|l| {
                let shown = (!names::is_hashed(&l.names)).then_some(l.names.as_str());
                (&l.place, shown)
            })
    }
}

/// Lossy: a comment in another encoding must not hide the file's keys.
fn text(file: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    if let Err(error) = read {
        tracing::debug!("{}: {error}", file.display());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl HostKeys<'_> {
    /// What the files say about `key`, as hostfile.c `check_key_in_hostkeys`: a revocation counts whatever else is there;
    /// where another key is known, of whatever type, the host's key has changed.
    pub(super) fn verdict(&self, key: &KeyData) -> Verdict {
        if let Some(place) = self.find(Marker::Revoked, key) {
            return Verdict::Revoked(place.clone());
        }
        if let Some(place) = self.find(Marker::Plain, key) {
            return Verdict::Known(place.clone());
        }
        match self.marked(Marker::Plain).last() {
            None => Verdict::Unknown,
            Some(line) => Verdict::Changed(Known {
                algorithm: line.key.algorithm(),
                place: line.place.clone(),
                by_pattern: !self
                    .names
                    .iter()
                    .any(|name| names::spells_out(&line.names, name)),
            }),
        }
    }

    /// Where `key` is marked as revoked for the host.
    pub(super) fn revoked(&self, key: &KeyData) -> Option<&Place> {
        self.find(Marker::Revoked, key)
    }

    /// Where `key` is named as one that signs certificates for the host.
    pub(super) fn authority(&self, key: &KeyData) -> Option<&Place> {
        self.find(Marker::Authority, key)
    }

    /// A line that names an authority for the host.
    pub(super) fn any_authority(&self) -> Option<&Place> {
        self.marked(Marker::Authority).next().map(|l| &l.place)
    }

    /// The types of the host's known keys, without duplicates.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        let mut algorithms = Vec::new();
        for line in self.marked(Marker::Plain) {
            let algorithm = line.key.algorithm();
            if !algorithms.contains(&algorithm) {
                algorithms.push(algorithm);
            }
        }
        algorithms
    }

    fn marked(&self, marker: Marker) -> impl Iterator<Item = &Line> {
        self.lines
            .iter()
            .copied()
            .filter(move |l| l.marker == marker)
    }

    fn find(&self, marker: Marker, key: &KeyData) -> Option<&Place> {
        self.marked(marker)
            .find(|l| l.key.key_data() == key)
            .map(|l| &l.place)
    }
}

#[cfg(test)]
mod tests;
