//! `profiles`: what config.toml has.

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
    let profiles: Vec<_> = files.iter().flat_map(ConfigFile::summaries).collect();
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

fn line(profile: &Summary<'_>, widest: usize) -> String {
    let networks = profile.subnets.join(" ");
    let remote = profile.remote.unwrap_or("-");
    let line = format!("{:widest$}  {remote}  {networks}", profile.name);
    format!("{}\n", line.trim_end())
}
