//! Has subnets, mappings and exclusions read again, while everything goes on.

use std::sync::Arc;

use tokio::sync::{Mutex, oneshot};
use tokio::task::spawn_blocking;
use tracing::{error, info};

use super::board::Board;
use super::far_networks::with_found;
use super::leads::Mapped;
use super::session::Session;
use super::setup::Setup;
use super::{Captured, Replan, advise, advise_of_server, whose};
use crate::carrier::{AnyCarrier, Steady};
use crate::os::notify;
use crate::plan::{CapturePlan, FarNetworks, Mapping};

/// Reloads. Connections that are captured before and after are not touched; those that no longer are lose their way.
#[derive(Clone)]
pub(super) struct Reloader {
    pub(super) replan: Replan,
    /// What the server has added at the start.
    pub(super) found: Option<FarNetworks>,
    pub(super) slot: u32,
    pub(super) session: Arc<Session<Mapped<Steady<AnyCarrier>>>>,
    pub(super) setup: Arc<Mutex<Setup>>,
    pub(super) board: Arc<Board>,
}

impl Reloader {
    /// Reloads, and tells the log, systemd and `reply` what came of it. Where the new set makes no sense, the old one stays.
    pub(super) async fn run(self, reply: Option<oneshot::Sender<Result<String, String>>>) {
        notify::reloading();
        let done = self.reload().await;
        match &done {
            Ok(what) => info!("reloaded: {what}"),
            Err(why) => error!("not reloaded, the old subnets and exclusions stay: {why}"),
        }
        notify::ready(&self.board.line());
        if let Some(reply) = reply {
            // Whoever has asked may have gone.
            let _ = reply.send(done);
        }
    }

    async fn reload(&self) -> Result<String, String> {
        let replan = Arc::clone(&self.replan);
        let capture = spawn_blocking(move || replan()).await;
        let capture = capture.map_err(|error| error.to_string())??;
        let capture = with_found(capture.in_slot(self.slot), self.found.as_ref());
        let before = self.board.capture();
        if capture == before {
            return Ok("captures the same as before".to_owned());
        }
        let mut setup = self.setup.lock().await;
        // What is elsewhere meets no network of ours, and that one's is not ours to look at.
        if !setup.is_elsewhere() {
            let told = advise(self.slot, &capture).await;
            told.map_err(|error| error.to_string())?;
            let told = advise_of_server(self.slot, &capture, setup.exempted()).await;
            told.map_err(|error| error.to_string())?;
        }
        // First: what is captured anew is never asked for under the address that it has here.
        let leads = &self.session.leads;
        let remap = |mapping: Mapping, capture: &CapturePlan| {
            if let Some(names) = &self.session.names {
                names.change(mapping.clone(), capture);
            }
            leads.remap(mapping);
        };
        remap(Mapping::after(&before, &capture), &capture);
        let held = setup.capture(&capture).await;
        held.map_err(|error| {
            remap(Mapping::new(&before), &before);
            error.to_string()
        })?;
        self.board.captures(&capture);
        if capture.whose != before.whose {
            let whose = whose::told(&capture.whose).await;
            whose.groups.iter().for_each(|line| info!("{line}"));
        }
        Ok(in_words(&before, &capture))
    }
}

/// `captures 10.0.0.0/16 without 10.0.5.0/24: 1 subnet added, 0 removed; 1 exclusion added, 0 removed`.
fn in_words(before: &CapturePlan, after: &CapturePlan) -> String {
    let subnets = changes(&before.subnets, &after.subnets, "subnet");
    let excludes = changes(&before.excludes, &after.excludes, "exclusion");
    format!("captures {}: {subnets}; {excludes}", Captured(after))
}

fn changes<T: PartialEq>(before: &[T], after: &[T], word: &str) -> String {
    let missing_in =
        |others: &[T], all: &[T]| all.iter().filter(|one| !others.contains(one)).count();
    let (added, removed) = (missing_in(before, after), missing_in(after, before));
    let plural = if added == 1 { "" } else { "s" };
    format!("{added} {word}{plural} added, {removed} removed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Subnet;

    #[test]
    fn what_changed_in_words() {
        let subnet = |net: &str| Subnet {
            net: net.parse().unwrap(),
            ports: None,
            far: None,
        };
        let before = CapturePlan {
            subnets: vec![subnet("10.0.0.0/16"), subnet("10.1.0.0/16")],
            ..CapturePlan::default()
        };
        let after = CapturePlan {
            subnets: vec![subnet("10.0.0.0/16")],
            excludes: vec!["10.0.5.0/24".parse().unwrap()],
            ..CapturePlan::default()
        };
        assert_eq!(
            in_words(&before, &after),
            "captures 10.0.0.0/16: 0 subnets added, 1 removed; 1 exclusion added, 0 removed"
        );
    }
}
