//! `-N`: asks the server which networks it has routes for.

use thiserror::Error;
use tracing::{info, warn};

use crate::carrier::AnyCarrier;
use crate::carrier::examine::{Answer, Request};
use crate::plan::advice::HostNetworks;
use crate::plan::far_networks::MOST;
use crate::plan::{AutoNets, CapturePlan, FarNetworks, Plan};

/// Prints a Linux server's routing table (proc(5)). One without IPv6 lacks the second file.
const COMMAND: &str = "cat /proc/net/route /proc/net/ipv6_route";

/// Why the server's networks are not known.
#[derive(Debug, Error)]
pub(in crate::app) enum FarNetworksError {
    /// Nothing was told.
    #[error("-N: {0}; name the networks instead, for example 10.0.0.0/16")]
    Unknown(&'static str),
    /// Nothing that could be captured.
    #[error(
        "-N: the SSH server has no route but its default one, and to what this host has itself; name the networks, for example 10.0.0.0/16"
    )]
    Nothing,
}

/// What the server has routes for, but for what `here` has routes for itself.
///
/// # Errors
/// [`FarNetworksError`].
pub(in crate::app) async fn find(
    plan: &Plan,
    wanted: AutoNets,
    carrier: &AnyCarrier,
    here: &HostNetworks,
) -> Result<FarNetworks, FarNetworksError> {
    let answer = carrier.ask(Request::Exec(COMMAND)).await;
    let is_named = !plan.capture.subnets.is_empty();
    let text = heard(&answer, is_named)?;
    let found = FarNetworks::read(&text, wanted, &here.routes);
    tell(&found);
    match found.captured.is_empty() && !is_named {
        true => Err(FarNetworksError::Nothing),
        false => Ok(found),
    }
}

/// What was told. Nothing, where something was named all the same: then that is captured.
fn heard(answer: &Answer, is_named: bool) -> Result<String, FarNetworksError> {
    match text(answer) {
        Err(FarNetworksError::Unknown(why)) if is_named => {
            warn!("-N: {why}; only what was named is captured");
            Ok(String::new())
        }
        told => told,
    }
}

fn text(answer: &Answer) -> Result<String, FarNetworksError> {
    let why = match answer {
        Answer::Granted(output) => {
            let text = String::from_utf8_lossy(output).into_owned();
            // Its first line.
            if text.contains("Destination") {
                return Ok(text);
            }
            "the SSH server has no /proc/net/route, or does not show it"
        }
        Answer::Refused | Answer::NoSession => {
            "the SSH server runs no command that could tell its networks"
        }
        Answer::Silent => "the SSH server did not tell its networks in time",
    };
    Err(FarNetworksError::Unknown(why))
}

fn tell(found: &FarNetworks) {
    if !found.captured.is_empty() {
        info!("-N: the server has routes for {}", words(&found.captured));
    }
    if !found.own.is_empty() {
        info!(
            "-N: not captured, as this host has a route of its own: {}; name what is to be captured nevertheless",
            words(&found.own)
        );
    }
    if found.too_many > 0 {
        warn!(
            "-N: {MOST} networks are captured, and {} left out; name the ones that you need",
            found.too_many
        );
    }
}

fn words(networks: &[impl ToString]) -> String {
    let words: Vec<String> = networks.iter().map(ToString::to_string).collect();
    words.join(", ")
}

/// What a reload captures: `named`, and what was found at the start.
pub(in crate::app) fn with_found(named: CapturePlan, found: Option<&FarNetworks>) -> CapturePlan {
    match found {
        Some(found) => found.added_to(&named),
        None => named,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_is_told_they_have_to_be_named() {
        for answer in [
            Answer::Granted(b"This account is currently not available.\n".to_vec()),
            Answer::Granted(vec![0xff, 0xfe]),
            Answer::Refused,
            Answer::NoSession,
            Answer::Silent,
        ] {
            let error = heard(&answer, false).unwrap_err().to_string();
            assert!(error.contains("name the networks"), "{error}");
            assert!(heard(&answer, true).unwrap().is_empty());
        }
    }
}
