//! Where the arguments of `up` come from: what is typed, then the environment, then the profile, then the defaults.
//!
//! The highest place with a value counts. Exclusions, keys and options of ssh add up instead, the highest place first: what
//! must not be captured stays so. The networks and the files of networks come from one place together, as do users and groups.
//!
//! No file is opened here and no variable read: their texts are handed in.

mod arguments_file;
mod environment;
mod error;
mod file;
mod key;
mod list;
mod profile;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

pub use arguments_file::expand;
pub use environment::Variables;
pub use error::SourceError;
pub use file::{ConfigFile, Summary};
pub use key::Use;
pub use list::{excludes, subnets};
pub use profile::{is_profile_name, take_profile};

use self::key::{KEYS, Key, Kind, Refused, Slot};
use super::remote;
use crate::cli::UpArgs;

/// Every key with what it takes, for the manual.
pub fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    let takes = |key: &Key| (key.slot)(&mut UpArgs::default()).takes().0;
    KEYS.iter().map(move |key| (key.name, takes(key)))
}

/// A place that a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A variable of the environment.
    Variable(String),
    /// A line of a file; the first is 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
        }
    }
}

impl Origin {
    fn wrong_kind(&self, key: &Key) -> SourceError {
        let (takes, _) = (key.slot)(&mut UpArgs::default()).takes();
        self.refused(key, Refused::Takes(takes))
    }

    fn refused(&self, key: &Key, refused: Refused) -> SourceError {
        let place = self.to_string();
        match refused {
            Refused::Takes(takes) => SourceError::Kind {
                place,
                key: key.name,
                takes,
            },
            Refused::Plan(source) => SourceError::Value {
                place,
                source: Box::new(source),
            },
        }
    }
}

/// A value, and where it is from.
#[derive(Clone, Debug)]
struct Entry {
    key: &'static Key,
    text: String,
    origin: Origin,
}

/// What one place sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    entries: Vec<Entry>,
    /// Also those of an empty list, which sets nothing but counts.
    mentioned: BTreeSet<&'static str>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.key.name, &self.text, &self.origin) == (other.key.name, &other.text, &other.origin)
    }
}

impl Eq for Entry {}

impl Layer {
    /// Takes a value that makes sense; one value only where no list belongs.
    fn push(&mut self, entry: Entry) -> Result<(), SourceError> {
        let mut alone = UpArgs::default();
        let key = entry.key;
        let (_, is_list) = (key.slot)(&mut alone).takes();
        let again = self.entries.iter().any(|other| other.key.name == key.name);
        if again && !is_list {
            return Err(entry.origin.wrong_kind(key));
        }
        let set = key.set(&mut alone, &entry.text);
        set.map_err(|refused| entry.origin.refused(key, refused))?;
        self.mention(key);
        self.entries.push(entry);
        Ok(())
    }

    fn texts(&self, key: &str) -> impl Iterator<Item = &str> {
        let of_key = self
            .entries
            .iter()
            .filter(move |entry| entry.key.name == key);
        of_key.map(|entry| entry.text.as_str())
    }

    fn mention(&mut self, key: &'static Key) {
        self.mentioned.insert(key.name);
    }
}

/// A value that was not typed, for those who ask where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// The key.
    pub key: &'static str,
    /// The value.
    pub value: String,
    /// Its place.
    pub origin: Origin,
}

impl fmt::Display for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} comes from {}", self.key, self.value, self.origin)
    }
}

/// Fills up what was not typed from `layers`, the highest first. What was filled is returned.
///
/// # Errors
/// [`SourceError`] for a value that cannot be set; [`Layer`]s have been looked at before, so there is none today.
pub fn fill(args: &mut UpArgs, layers: &[Layer]) -> Result<Vec<Filled>, SourceError> {
    let mut filled = Vec::new();
    let mut decided: BTreeSet<&str> = KEYS
        .iter()
        .filter(|key| (key.slot)(args).is_set())
        .map(|key| key.name)
        .collect();
    for layer in layers {
        for entry in &layer.entries {
            let is_decided = match entry.key.kind {
                Kind::One => decided.contains(entry.key.name),
                Kind::Added => false,
                kind @ (Kind::Networks | Kind::Users) => KEYS
                    .iter()
                    .any(|key| key.kind == kind && decided.contains(key.name)),
            };
            if is_decided || names_it_already(args, entry.key, &decided) {
                continue;
            }
            set(args, entry, &decided)?;
            filled.push(Filled {
                key: entry.key.name,
                value: entry.text.clone(),
                origin: entry.origin.clone(),
            });
        }
        decided.extend(&layer.mentioned);
    }
    Ok(filled)
}

fn set(args: &mut UpArgs, entry: &Entry, decided: &BTreeSet<&str>) -> Result<(), SourceError> {
    let text = resolved(entry);
    let text = text.as_deref().unwrap_or(&entry.text);
    let set = entry.key.set(args, text);
    set.map_err(|refused| entry.origin.refused(entry.key, refused))?;
    if entry.key.name == "remote" {
        args.remote = args.remote.take().map(|remote| without(&remote, decided));
    }
    Ok(())
}

/// A file that a configuration file names relative to itself; `~/` is left to who opens it.
fn resolved(entry: &Entry) -> Option<String> {
    let Origin::File { path, .. } = &entry.origin else {
        return None;
    };
    let slot = (entry.key.slot)(&mut UpArgs::default()).takes_file();
    let beside = path.parent()?.join(&entry.text);
    (slot && !entry.text.starts_with("~/")).then(|| beside.to_string_lossy().into_owned())
}

/// The port and the login name may also stand in the server's text, and there they go with it: of two places, the higher
/// one counts. Here: whether a server that was set higher names the port or login already.
fn names_it_already(args: &UpArgs, key: &Key, decided: &BTreeSet<&str>) -> bool {
    let Some(Ok(remote)) = args.remote.as_deref().map(remote::parse) else {
        return false;
    };
    decided.contains("remote")
        && match key.name {
            "port" => remote.port.is_some(),
            "login" => remote.user.is_some(),
            _ => false,
        }
}

/// A server without what was set higher.
fn without(text: &str, decided: &BTreeSet<&str>) -> String {
    let Ok(mut remote) = remote::parse(text) else {
        return text.to_owned();
    };
    if decided.contains("port") {
        remote.port = None;
    }
    if decided.contains("login") {
        remote.user = None;
    }
    remote.to_string()
}

impl Slot<'_> {
    const fn takes_file(&self) -> bool {
        matches!(self, Self::File(_) | Self::Files(_))
    }
}

#[cfg(test)]
mod tests;
