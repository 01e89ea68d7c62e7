//! The instances that a command may mean.

use std::path::PathBuf;

use nix::unistd::Uid;

use super::client::{self, ClientError};
use super::protocol::{Answer, Request};
use super::report::Report;
use crate::app::surroundings;
use crate::os::run_dir::{self, Found};

/// Where this process has its socket.
pub fn own_places() -> Vec<PathBuf> {
    run_dir::places(Uid::effective().as_raw(), surroundings::variable)
}

/// Where instances are looked for: under sudo also those of who called it. Places that nobody else could fill.
pub fn all_places() -> Vec<PathBuf> {
    let mut places = run_dir::trusted(own_places(), Uid::effective().as_raw());
    if let Ok(person) = surroundings::person()
        && person.behind_sudo.is_some()
    {
        let theirs = run_dir::places(person.uid, surroundings::variable);
        for place in run_dir::trusted(theirs, person.uid) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    places
}

/// An instance that was asked how it is.
#[derive(Debug)]
pub struct Instance {
    /// Its name and socket.
    pub found: Found,
    /// What it said, or why it said nothing.
    pub report: Result<Report, ClientError>,
}

/// The instances that run, by name.
pub fn running() -> Vec<Instance> {
    let found = run_dir::find(&all_places()).into_iter();
    let asked = found.map(|found| Instance {
        report: report(&found),
        found,
    });
    asked
        .filter(|instance| !matches!(instance.report, Err(ClientError::Gone)))
        .collect()
}

fn report(found: &Found) -> Result<Report, ClientError> {
    match client::ask(found, Request::Status {})?.answer()? {
        Some(Answer::Report { report }) => Ok(*report),
        Some(other) => Err(ClientError::Answer(format!("{other:?}"))),
        // It ended under the question.
        None => Err(ClientError::Gone),
    }
}

/// The one that is meant: that of `name`, else the only one.
///
/// # Errors
/// A line for a person.
pub fn choose(name: Option<&str>) -> Result<Found, String> {
    let mut running = running();
    if let Some(name) = name {
        let at = running.iter().position(|one| one.found.name == name);
        return at
            .map(|at| running.swap_remove(at).found)
            .ok_or_else(|| format!("{name} is not running; {}", names(&running)));
    }
    match running.len() {
        0 => Err(names(&running)),
        1 => Ok(running.swap_remove(0).found),
        _ => Err(format!("say which one: {}", names(&running))),
    }
}

/// Which ones there are, in words.
pub fn names(running: &[Instance]) -> String {
    if running.is_empty() {
        return "no instance of yours runs".to_owned();
    }
    let names: Vec<_> = running.iter().map(|one| one.found.name.as_str()).collect();
    format!("running: {}", names.join(", "))
}
