//! `config.toml`: defaults and profiles.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::key::{self, KEYS, Key};
use super::{Entry, Layer, Origin, SourceError, is_profile_name};

/// Where the keys are listed.
const LISTED: &str = "\"underpass man\" lists them under FILES";

/// What a configuration file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFile {
    /// Where it is.
    pub(super) path: PathBuf,
    /// `[defaults]`.
    pub(super) defaults: Layer,
    /// `[profile.NAME]`.
    pub(super) profiles: BTreeMap<String, Layer>,
}

impl ConfigFile {
    /// Reads the text of the file at `path`.
    ///
    /// # Errors
    /// [`SourceError`] with the line: no TOML, a key that there is not, a value that makes no sense.
    pub fn parse(path: &Path, text: &str) -> Result<Self, SourceError> {
        let reader = Reader { path, text };
        let document = DeTable::parse(text).map_err(|error| reader.syntax(&error))?;
        let mut file = Self {
            path: path.to_owned(),
            ..Self::default()
        };
        for (name, value) in document.get_ref() {
            match name.get_ref().as_ref() {
                "defaults" => file.defaults = reader.layer(value, "[defaults]")?,
                "profile" => file.profiles = reader.profiles(value)?,
                other => return Err(reader.unknown_table(other, name.span())),
            }
        }
        Ok(file)
    }

    /// The names of the profiles, in order.
    pub fn profile_names(&self) -> impl Iterator<Item = &str> {
        self.profiles.keys().map(String::as_str)
    }
}

/// A profile, for a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its server.
    pub remote: Option<&'a str>,
    /// Its networks.
    pub subnets: Vec<&'a str>,
}

impl ConfigFile {
    /// What each profile is about, by name.
    pub fn summaries(&self) -> impl Iterator<Item = Summary<'_>> {
        self.profiles.iter().map(|(name, layer)| {
            let of = |key| layer.texts(key);
            Summary {
                name,
                remote: of("remote").next(),
                subnets: of("subnets").collect(),
            }
        })
    }
}

/// A text, and where it is from.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    /// Of the first byte; the first line is 1.
    fn line(&self, span: Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..span.start);
        let breaks = before.map_or(0, |before| {
            before.iter().filter(|byte| **byte == b'\n').count()
        });
        breaks + 1
    }

    fn origin(&self, span: Range<usize>) -> Origin {
        Origin::File {
            path: self.path.to_owned(),
            line: self.line(span),
        }
    }

    fn form(&self, span: Range<usize>, said: impl Into<String>) -> SourceError {
        SourceError::Form {
            place: self.origin(span).to_string(),
            said: said.into(),
        }
    }

    fn syntax(&self, error: &toml::de::Error) -> SourceError {
        let said = error.message().lines().collect::<Vec<_>>().join("; ");
        self.form(error.span().unwrap_or_default(), said)
    }

    /// A key of a profile at the top is the likeliest mistake.
    fn unknown_table(&self, name: &str, span: Range<usize>) -> SourceError {
        let said = if key::find(name).is_some() {
            format!("{name} stands in no table; put it below [defaults] or [profile.NAME]")
        } else {
            format!("there is no {name:?} here; the tables are [defaults] and [profile.NAME]")
        };
        self.form(span, said)
    }

    fn profiles(
        &self,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<BTreeMap<String, Layer>, SourceError> {
        let wrong = || self.form(value.span(), "write a profile as [profile.NAME]");
        let mut profiles = BTreeMap::new();
        for (name, table) in value.get_ref().as_table().ok_or_else(wrong)? {
            let text = name.get_ref().as_ref();
            if !is_profile_name(text) {
                let said = format!(
                    "{text:?} names no profile; take letters, digits, '-' and '_', a letter first, 64 at most"
                );
                return Err(self.form(name.span(), said));
            }
            let header = format!("[profile.{text}]");
            profiles.insert(text.to_owned(), self.layer(table, &header)?);
        }
        Ok(profiles)
    }

    fn layer(&self, value: &Spanned<DeValue<'_>>, header: &str) -> Result<Layer, SourceError> {
        let wrong = || {
            self.form(
                value.span(),
                format!("{header} is a table: write {header} on a line of its own"),
            )
        };
        let mut layer = Layer::default();
        for (name, value) in value.get_ref().as_table().ok_or_else(wrong)? {
            let text = name.get_ref().as_ref();
            let key = key::find(text).ok_or_else(|| SourceError::UnknownKey {
                place: self.origin(name.span()).to_string(),
                key: text.to_owned(),
                nearest: key::nearest(text, KEYS.iter().map(|key| key.name)).map(str::to_owned),
                keys: LISTED,
            })?;
            for value in items(value) {
                layer.push(self.entry(key, value)?)?;
            }
            layer.mention(key);
        }
        Ok(layer)
    }

    fn entry(&self, key: &'static Key, value: &Spanned<DeValue<'_>>) -> Result<Entry, SourceError> {
        let origin = self.origin(value.span());
        let text = match value.get_ref() {
            DeValue::String(text) => text.clone().into_owned(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            DeValue::Boolean(truth) => truth.to_string(),
            _ => return Err(origin.wrong_kind(key)),
        };
        Ok(Entry { key, text, origin })
    }
}

/// A list, or one value for a list of one. A list where one value belongs is found when the second one is set.
fn items<'a, 'i>(value: &'a Spanned<DeValue<'i>>) -> Vec<&'a Spanned<DeValue<'i>>> {
    match value.get_ref().as_array() {
        Some(array) => array.iter().collect(),
        None => vec![value],
    }
}
