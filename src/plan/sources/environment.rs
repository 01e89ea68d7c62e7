//! `UNDERPASS_*`: a variable for every key, `UNDERPASS_REMOTE` for `remote`.

use clap::Arg;

use super::key::{self, KEYS, Slot};
use super::{Entry, Layer, Origin, SourceError, Use};
use crate::cli::UpArgs;

/// How the names of our variables begin.
const PREFIX: &str = "UNDERPASS_";
/// Names a profile.
const PROFILE: &str = "UNDERPASS_PROFILE";
/// Where control sockets are: no matter of the plan.
const RUNTIME_DIR: &str = "UNDERPASS_RUNTIME_DIR";
/// Options that do nothing else; others may call a variable so.
const ABOUT: [&str; 2] = ["help", "version"];
/// More than this is no list of networks, in bytes.
const MOST: usize = 64 * 1024;

/// What the environment sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    /// The keys.
    pub layer: Layer,
    /// The profile.
    pub profile: Option<String>,
    /// A line for each variable that looks like ours and is none.
    pub unknown: Vec<String>,
}

impl Variables {
    /// Reads those of the variables that are ours. An empty one counts as none.
    ///
    /// # Errors
    /// [`SourceError`] with the variable: a value that makes no sense.
    pub fn parse(variables: impl Iterator<Item = (String, String)>) -> Result<Self, SourceError> {
        let mut ours: Vec<_> = variables
            .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
            .collect();
        ours.sort();
        let mut read = Self::default();
        for (name, value) in ours {
            read.variable(name, value)?;
        }
        Ok(read)
    }

    /// Whether the command has a use for all of them; what is switched off it need not have.
    ///
    /// # Errors
    /// [`SourceError::OfAnother`].
    pub fn check(&self, used: Use) -> Result<(), SourceError> {
        for Entry { key, text, origin } in &self.layer.entries {
            let mut args = UpArgs::default();
            let is_on = key.set(&mut args, text).is_ok() && (key.slot)(&mut args).is_set();
            if let Some(command) = used.other_for(key).filter(|_| is_on) {
                let name = origin.to_string();
                return Err(SourceError::OfAnother { name, command });
            }
        }
        Ok(())
    }

    fn variable(&mut self, name: String, value: String) -> Result<(), SourceError> {
        if name == PROFILE {
            self.profile = Some(value);
            return Ok(());
        }
        if name == RUNTIME_DIR {
            return Ok(());
        }
        let Some(key) = KEYS.iter().find(|key| variable(key.name) == name) else {
            if let Some(option) = option_alone(&name) {
                return Err(SourceError::OptionAlone { name, option });
            }
            self.unknown.push(unknown(&name));
            return Ok(());
        };
        let origin = Origin::Variable(name);
        if value.len() > MOST {
            return Err(origin.wrong_kind(key));
        }
        for text in parts(&(key.slot)(&mut UpArgs::default()), &value) {
            let (text, origin) = (text.to_owned(), origin.clone());
            self.layer.push(Entry { key, text, origin })?;
        }
        Ok(())
    }
}

/// The option that a variable seems to stand for, and does not. It may be one that changes nothing, or that captures
/// elsewhere: to pass it over would do what was not asked for.
fn option_alone(name: &str) -> Option<String> {
    let definition = crate::cli::definition();
    // It has all of `up`.
    let run = definition.find_subcommand("run")?;
    let global = definition.get_arguments();
    let longs = run.get_arguments().chain(global).filter_map(Arg::get_long);
    let mut options = longs.filter(|long| !ABOUT.contains(long));
    options
        .find(|long| variable(long) == name)
        .map(|long| format!("--{long}"))
}

/// Networks are separated by blanks or commas; anything else may have these inside, and is one value.
fn parts<'a>(slot: &Slot<'_>, value: &'a str) -> Vec<&'a str> {
    if matches!(slot, Slot::Networks(_)) {
        let parts = value.split(|c: char| c == ',' || c.is_whitespace());
        parts.filter(|part| !part.is_empty()).collect()
    } else {
        vec![value.trim()]
    }
}

fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('-', "_").to_uppercase())
}

fn unknown(name: &str) -> String {
    let names: Vec<_> = KEYS.iter().map(|key| variable(key.name)).collect();
    let known = names.iter().map(String::as_str).chain([PROFILE]);
    match key::nearest(name, known) {
        Some(near) => format!("the variable {name} means nothing here; did you mean {near}?"),
        None => format!("the variable {name} means nothing here"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::key::VALUES;
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Variables, SourceError> {
        let owned = variables.iter().map(|(a, b)| ((*a).into(), (*b).into()));
        Variables::parse(owned)
    }

    #[test]
    fn a_variable_for_every_key() {
        for key in KEYS {
            let name = variable(key.name);
            let read = VALUES
                .into_iter()
                .find_map(|value| parse(&[(&name, value)]).ok())
                .unwrap();
            assert!(read.layer.mentioned.contains(key.name), "{name}");
        }
    }

    #[test]
    fn networks_are_a_list_and_a_key_file_is_not() {
        let read = parse(&[
            ("UNDERPASS_SUBNETS", "10/8, 172.16/12\n[fd00::/64]:443"),
            ("UNDERPASS_IDENTITY", "/a b,c"),
            ("UNDERPASS_REMOTE", ""),
            ("UNDERPASS_PROFILE", "prod"),
            ("HOME", "/"),
        ])
        .unwrap();
        let texts: Vec<_> = read.layer.entries.iter().map(|e| e.text.as_str()).collect();
        assert_eq!(texts, ["/a b,c", "10/8", "172.16/12", "[fd00::/64]:443"]);
        assert_eq!(read.profile.as_deref(), Some("prod"));
        assert!(read.unknown.is_empty());
    }

    #[test]
    fn a_mistake_names_the_variable() {
        let error = parse(&[("UNDERPASS_PORT", "x")]).unwrap_err().to_string();
        assert_eq!(error, "UNDERPASS_PORT: port takes a number from 1 to 65535");
        let error = parse(&[("UNDERPASS_EXCLUDE", "10/8,x")]).unwrap_err();
        assert!(error.to_string().starts_with("UNDERPASS_EXCLUDE: "));
        let read = parse(&[("UNDERPASS_SUBNET", "10/8")]).unwrap();
        assert!(read.unknown[0].contains("did you mean UNDERPASS_SUBNETS?"));
    }

    #[test]
    fn what_is_an_option_and_no_variable_is_not_passed_over() {
        for (name, option) in [
            ("UNDERPASS_DRY_RUN", "--dry-run"),
            ("UNDERPASS_NETNS", "--netns"),
            ("UNDERPASS_DAEMON", "--daemon"),
            ("UNDERPASS_VERBOSE", "--verbose"),
            ("UNDERPASS_QUIET", "--quiet"),
            ("UNDERPASS_LOG_FORMAT", "--log-format"),
        ] {
            let error = parse(&[(name, "1")]).unwrap_err().to_string();
            assert!(error.starts_with(name) && error.contains(option), "{error}");
        }
        assert_eq!(
            parse(&[("UNDERPASS_VERSION", "1")]).unwrap().unknown.len(),
            1
        );
    }

    #[test]
    fn what_another_command_has_a_use_for_is_not_passed_over() {
        let check = |name, value, used| parse(&[(name, value)]).unwrap().check(used);
        for (name, value, not) in [
            ("UNDERPASS_ISOLATE", "1", Use::Up),
            ("UNDERPASS_PUBLISH", "80:80", Use::Up),
            ("UNDERPASS_FOR", "1h", Use::Run),
            ("UNDERPASS_GATEWAY", "eth0", Use::Run),
        ] {
            for used in [Use::Up, Use::Run, Use::Doctor] {
                let done = check(name, value, used);
                assert_eq!(done.is_err(), used == not, "{name} {used:?}");
            }
        }
        assert_eq!(check("UNDERPASS_ISOLATE", "0", Use::Up), Ok(()));
    }

    proptest! {
        #[test]
        fn no_value_panics(index in 0..KEYS.len(), value in "\\PC*", name in "[A-Z_]*") {
            let _ = parse(&[(&variable(KEYS[index].name), &value), (&format!("{PREFIX}{name}"), &value)]);
        }
    }
}
