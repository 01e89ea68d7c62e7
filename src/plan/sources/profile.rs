//! Which profile is meant, and what it says.

use super::super::whose;
use super::{ConfigFile, Layer, SourceError};
use crate::cli::UpArgs;

/// A name that stands among networks has to be short and plain.
const NAME_BYTES: usize = 64;

/// Whether a word names a profile: letters, digits, `-` and `_`, a letter first. No network is such a word, and no host
/// with a domain.
pub fn is_profile_name(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.len() <= NAME_BYTES
        && word.chars().all(plain)
}

/// Takes the profile out of the networks, where one was typed there, and notes it in `args`; then the one of the
/// environment counts. Its layer comes first, then the defaults of `files`, the nearest file first.
///
/// # Errors
/// [`SourceError`] for a profile that is in no file, and for two of them.
pub fn take_profile(
    args: &mut UpArgs,
    environment: Option<String>,
    files: &[ConfigFile],
) -> Result<Vec<Layer>, SourceError> {
    let typed_alone = typed(args)?;
    args.profile = args.profile.take().or(environment);
    let mut layers = Vec::new();
    if let Some(name) = &args.profile {
        let found = files.iter().find_map(|file| file.profiles.get(name));
        let after_gateway = typed_alone && args.gateway.iter().any(|name| name == whose::ALL);
        let found = found.ok_or_else(|| no_profile(name, files, (typed_alone, after_gateway)))?;
        layers.push(found.clone());
    }
    layers.extend(files.iter().map(|file| file.defaults.clone()));
    Ok(layers)
}

/// Whether the profile was typed as a word alone.
fn typed(args: &mut UpArgs) -> Result<bool, SourceError> {
    let words = args.subnets.iter().filter(|word| is_profile_name(word));
    let mut names = args.profile.iter().chain(words);
    let (first, second) = (names.next().cloned(), names.next().cloned());
    if let (Some(first), Some(second)) = (&first, second) {
        let first = first.clone();
        return Err(SourceError::TwoProfiles { first, second });
    }
    let typed_alone = args.profile.is_none() && first.is_some();
    args.profile = first;
    args.subnets.retain(|word| !is_profile_name(word));
    Ok(typed_alone)
}

fn no_profile(
    name: &str,
    files: &[ConfigFile],
    (typed_alone, after_gateway): (bool, bool),
) -> SourceError {
    let known = files.iter().flat_map(ConfigFile::profile_names);
    SourceError::NoProfile {
        name: name.to_owned(),
        files: files.iter().map(|file| file.path.clone()).collect(),
        known: known.map(str::to_owned).collect(),
        typed_alone,
        after_gateway,
    }
}
