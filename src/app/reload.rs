//! `reload`: has an instance read its subnets and exclusions again.

use tracing::info;

use super::control::client::{self, ClientError};
use super::control::instances;
use super::control::protocol::{Answer, Request};
use super::exit::Exit;
use crate::os::run_dir::Found;

/// Reloads the instance of `name`, or the only one. [`Exit::Success`] when the new set holds, [`Exit::Failure`] when the old
/// one still does, or none runs.
pub fn run(name: Option<&str>) -> Exit {
    let found = match instances::choose(name) {
        Ok(found) => found,
        Err(line) => return super::failed(&line),
    };
    let name = &found.name;
    match ask(&found) {
        Ok(what) => {
            info!("{name} {what}");
            Exit::Success
        }
        Err(error) => super::failed(&format_args!("{name}: {error}")),
    }
}

fn ask(found: &Found) -> anyhow::Result<String> {
    match client::ask(found, Request::Reload {})?.answer()? {
        Some(Answer::Reloaded { what }) => Ok(what),
        Some(Answer::Failed { why }) => anyhow::bail!("{why}"),
        _ => Err(ClientError::Gone.into()),
    }
}
