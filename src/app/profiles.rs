//! `profiles`: what config.toml has.

use std::collections::HashSet;

use super::exit::Exit;
use super::{arguments, surroundings};
use crate::cli::ProfilesArgs;
use crate::plan::sources::{ConfigFile, Summary};

/// Lists the profiles: names alone, or with their servers and networks.
pub(super) fn run(args: &ProfilesArgs) -> Exit {
    let files = match files() {
        Ok(files) => files,
        Err(error) => return super::said(&error, Exit::Usage),
    };
    let profiles = listed(&files);
    if profiles.is_empty() && !args.names {
        tracing::info!(
            "there is no profile; write [profile.NAME] into ~/.config/underpass/config.toml"
        );
    }
    let widest = profiles.iter().map(|profile| profile.name.len()).max();
    let widest = widest.unwrap_or_default();
    let lines = profiles.iter().map(|profile| {
        if args.names {
            format!("{}\n", profile.name)
        } else {
            line(profile, widest)
        }
    });
    super::print(lines.collect::<String>().as_bytes())
}

fn files() -> anyhow::Result<Vec<ConfigFile>> {
    Ok(arguments::config_files(&surroundings::person()?)?)
}

/// Of those of one name the one that is taken: that of the first file.
fn listed(files: &[ConfigFile]) -> Vec<Summary<'_>> {
    let mut seen = HashSet::new();
    let all = files.iter().flat_map(ConfigFile::summaries);
    all.filter(|profile| seen.insert(profile.name)).collect()
}

fn line(profile: &Summary<'_>, widest: usize) -> String {
    let networks = profile.subnets.join(" ");
    let remote = profile.remote.unwrap_or("-");
    let line = format!("{:widest$}  {remote}  {networks}", profile.name);
    format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn of_one_name_there_is_the_one_that_is_taken() {
        let file = |path: &str, text: &str| ConfigFile::parse(Path::new(path), text).unwrap();
        let files = [
            file("own", "[profile.prod]\nremote = \"mine\"\n"),
            file(
                "system",
                "[profile.prod]\nremote = \"theirs\"\n[profile.stage]\nremote = \"h\"\n",
            ),
        ];
        let listed = listed(&files);
        let found: Vec<_> = listed.iter().map(|one| (one.name, one.remote)).collect();
        assert_eq!(found, [("prod", Some("mine")), ("stage", Some("h"))]);
    }
}
