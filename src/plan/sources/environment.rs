//! `UNDERPASS_*`: a variable for every key, `UNDERPASS_REMOTE` for `remote`.

use super::key::{self, KEYS, Slot};
use super::{Entry, Layer, Origin, SourceError};
use crate::cli::UpArgs;

/// How the names of our variables begin.
const PREFIX: &str = "UNDERPASS_";
/// Names a profile.
const PROFILE: &str = "UNDERPASS_PROFILE";
/// Where control sockets are: no matter of the plan.
const RUNTIME_DIR: &str = "UNDERPASS_RUNTIME_DIR";
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

    fn variable(&mut self, name: String, value: String) -> Result<(), SourceError> {
        if name == PROFILE {
            self.profile = Some(value);
            return Ok(());
        }
        if name == RUNTIME_DIR {
            return Ok(());
        }
        let Some(key) = KEYS.iter().find(|key| variable(key.name) == name) else {
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

    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Variables, SourceError> {
        let owned = variables.iter().map(|(a, b)| ((*a).into(), (*b).into()));
        Variables::parse(owned)
    }

    #[test]
    fn a_variable_for_every_key() {
        for key in KEYS {
            let name = variable(key.name);
            let read = ["true", "auto", "10.1.0.0/16", "1500", "A=b", "15"]
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

    proptest! {
        #[test]
        fn no_value_panics(index in 0..KEYS.len(), value in "\\PC*", name in "[A-Z_]*") {
            let _ = parse(&[(&variable(KEYS[index].name), &value), (&format!("{PREFIX}{name}"), &value)]);
        }
    }
}
