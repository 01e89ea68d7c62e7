//! What can be wrong with a source of arguments. Each message says where, and what to change.

use std::path::PathBuf;

use thiserror::Error;

use super::super::PlanError;

/// A file or a variable that cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SourceError {
    /// A file that was named cannot be read.
    #[error("cannot read {}: {why}", path.display())]
    Unreadable {
        /// As named.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// A configuration file that others may have written.
    #[error(
        "{} {what}; it could name a command to run, so it is not used: {remedy}",
        path.display()
    )]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
        /// A command that mends it.
        remedy: String,
    },
    /// A configuration file that is no TOML, or not in the form that is wanted.
    #[error("{place}: {said}")]
    Form {
        /// File and line.
        place: String,
        /// What is wrong there.
        said: String,
    },
    /// A key that there is not.
    #[error("{place}: there is no key {key:?}{}", hint(.nearest.as_deref(), .keys))]
    UnknownKey {
        /// File and line.
        place: String,
        /// As written.
        key: String,
        /// What was perhaps meant.
        nearest: Option<String>,
        /// Where all of them are listed.
        keys: &'static str,
    },
    /// A value of the wrong kind.
    #[error("{place}: {key} takes {takes}")]
    Kind {
        /// File and line, or the variable.
        place: String,
        /// The key.
        key: &'static str,
        /// What it takes.
        takes: &'static str,
    },
    /// A value that makes no sense.
    #[error("{place}: {source}")]
    Value {
        /// File and line, or the variable.
        place: String,
        /// What is wrong with it.
        source: Box<PlanError>,
    },
    /// A variable named as an option that is none of the environment's.
    #[error(
        "{name}: {option} is an option of the command line alone; type it there, and: unset {name}"
    )]
    OptionAlone {
        /// The variable.
        name: String,
        /// The option.
        option: String,
    },
    /// A variable for another command.
    #[error("{name} is for {command}, and this command cannot do what it says: unset {name}")]
    OfAnother {
        /// The variable.
        name: String,
        /// The command.
        command: &'static str,
    },
    /// A line of a file of arguments.
    #[error("{place}: {said}")]
    Arguments {
        /// File and line.
        place: String,
        /// What is wrong there.
        said: String,
    },
    /// A profile that there is not.
    #[error("{}{}{}", no_profile(name, files, known, *.typed_alone), interface(name, *.after_gateway), value(name))]
    NoProfile {
        /// As typed.
        name: String,
        /// The files that were looked at and exist.
        files: Vec<PathBuf>,
        /// The profiles there.
        known: Vec<String>,
        /// Whether it was typed among the networks.
        typed_alone: bool,
        /// Whether `--gateway` was typed without a name.
        after_gateway: bool,
    },
    /// Two profiles at once.
    #[error(
        "two profiles are named, {first} and {second}; take one, or write {second} as an address if it is a host"
    )]
    TwoProfiles {
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
}

fn hint(nearest: Option<&str>, keys: &str) -> String {
    match nearest {
        Some(name) => format!("; did you mean {name}?"),
        None => format!("; {keys}"),
    }
}

fn interface(name: &str, after_gateway: bool) -> String {
    match after_gateway {
        true => format!("; an interface is given with a =: --gateway={name}"),
        false => String::new(),
    }
}

/// Words that an option takes behind an equals sign alone.
fn value(name: &str) -> String {
    let option = match name {
        "full" | "ethernet" => "--tunnel",
        "probe" => "--ping",
        _ => return String::new(),
    };
    format!("; a value of {option} is given with a =: {option}={name}")
}

fn no_profile(name: &str, files: &[PathBuf], known: &[String], typed_alone: bool) -> String {
    let what = if typed_alone {
        format!("{name:?} is no network and no profile")
    } else {
        format!("there is no profile {name:?}")
    };
    let files: Vec<_> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    let there = match (files.is_empty(), known.is_empty()) {
        (true, _) => {
            ": there is no config.toml; write [profile.NAME] into ~/.config/underpass/config.toml"
                .to_owned()
        }
        (false, true) => format!(": {} has none", files.join(" and ")),
        (false, false) => format!(": {} has {}", files.join(" and "), known.join(", ")),
    };
    let host = if typed_alone {
        format!("; a host is given by its address (getent ahosts {name} shows it)")
    } else {
        String::new()
    };
    format!("{what}{there}{host}")
}
