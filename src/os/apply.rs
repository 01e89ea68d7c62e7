//! Desired state in, undo out.

use std::path::Path;

use thiserror::Error;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::names::patience::Patience;
use super::netlink::{Netlink, NetlinkError, route_message, rule_message};
use super::routes::Entry;

/// Something that could not be made; everything before it was taken back.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// The kernel refused for want of privileges.
    #[error(
        "setting routes is not permitted; run it with sudo, or once: sudo setcap cap_net_admin+ep \"$(command -v underpass)\""
    )]
    NotPermitted,
    /// No rule is among the entries: what was asked for is the SSH server itself, or excluded.
    #[error(
        "nothing is left to capture: the SSH server's own addresses and every -x are left out; add a subnet"
    )]
    Nothing,
    /// An entry failed.
    #[error("could not set up the host: {entry}: {source}")]
    Entry {
        /// What failed, as a command.
        entry: String,
        /// Why.
        #[source]
        source: NetlinkError,
    },
    /// The device is not there.
    #[error("the device is gone: {0}")]
    Device(#[source] NetlinkError),
}

/// Takes back what [`apply`] made. Dropped without [`Undo::undo`] it leaves rules behind, which capture
/// nothing once the device is gone, and which the next start clears.
#[must_use = "rules stay behind unless undone"]
#[derive(Debug)]
pub struct Undo {
    netlink: Netlink,
    index: u32,
    made: Vec<Entry>,
    /// With who takes it away.
    patience: Patience,
}

/// Makes `entries` hold, in their order; `device` is that of [`super::TunDevice::name`].
///
/// # Errors
/// The first entry that fails, after what was made before it has been taken back.
pub async fn apply(netlink: &Netlink, device: &str, entries: &[Entry]) -> Result<Undo, ApplyError> {
    if !entries.iter().any(|entry| matches!(entry, Entry::Rule(_))) {
        return Err(ApplyError::Nothing);
    }
    let index = netlink.index(device).await.map_err(ApplyError::Device)?;
    let mut undo = Undo {
        netlink: netlink.clone(),
        index,
        made: Vec::with_capacity(entries.len()),
        patience: Patience::new(Instant::now()),
    };
    for entry in entries {
        debug!("{entry}");
        if let Err(source) = make(netlink, index, entry).await {
            report(&undo.undo().await);
            return Err(failed(entry, source));
        }
        undo.made.push(entry.clone());
    }
    Ok(undo)
}

fn failed(entry: &Entry, source: NetlinkError) -> ApplyError {
    if source.errno() == Some(nix::libc::EPERM) {
        return ApplyError::NotPermitted;
    }
    ApplyError::Entry {
        entry: entry.to_string(),
        source,
    }
}

/// Makes `entry` hold; `index` is that of its device.
pub(super) async fn make(netlink: &Netlink, index: u32, entry: &Entry) -> Result<(), NetlinkError> {
    match entry {
        Entry::Link { mtu, queue, .. } => netlink.set_link(index, *mtu, *queue).await,
        Entry::Sysctl { path, value } => {
            set_sysctl(path, value);
            Ok(())
        }
        Entry::Up { .. } => netlink.set_up(index).await,
        Entry::Address { address, .. } => netlink.add_address(index, *address).await,
        Entry::Route(route) => netlink.add_route(route, index).await,
        Entry::Rule(rule) => netlink.add_rule(rule).await,
    }
}

/// `/proc/sys` is read-only in many containers, and its defaults mostly do: no reason to stop.
fn set_sysctl(path: &str, value: &str) {
    if let Err(error) = std::fs::write(Path::new("/proc/sys").join(path), value) {
        debug!("sysctl {path}={value} was not set: {error}");
    }
}

impl Undo {
    /// Makes `entries` hold instead of those that were made before: what is missing is made, then routes and rules that are
    /// no longer among them go, so that what is captured before and after is captured all the time. What was made is taken
    /// back also when this is not run to its end.
    ///
    /// # Errors
    /// The first entry that fails. What was changed before it stays so.
    pub async fn change(&mut self, entries: &[Entry]) -> Result<(), ApplyError> {
        if !entries.iter().any(|entry| matches!(entry, Entry::Rule(_))) {
            return Err(ApplyError::Nothing);
        }
        for entry in entries.iter().filter(|entry| is_lasting(entry)) {
            if self.made.contains(entry) {
                continue;
            }
            self.drop_where(|made| is_in_the_way(made, entry)).await?;
            debug!("{entry}");
            // Before it is made: taking back what is not there is no error.
            self.made.push(entry.clone());
            if let Err(source) = make(&self.netlink, self.index, entry).await {
                self.made.pop();
                return Err(failed(entry, source));
            }
        }
        let is_held = |entry: &Entry| matches!(entry, Entry::Route(_) | Entry::Rule(_));
        self.drop_where(|made| is_held(made) && !entries.contains(made))
            .await
    }

    /// Makes what somebody else took away. systemd-networkd does when it starts (`ManageForeignRoutes=` and
    /// `ManageForeignRoutingPolicyRules=` of networkd.conf(5)), and what is captured would go out in clear from then on.
    pub(super) async fn make_again(&mut self) {
        let mut was_missing = Ok(false);
        for entry in self.made.iter().filter(|entry| is_lasting(entry)) {
            match make(&self.netlink, self.index, entry).await {
                Err(error) if error.errno() == Some(nix::libc::EEXIST) => {}
                made => was_missing = made.map(|()| true),
            }
        }
        let plainly = "somebody took routes or rules of ours away; they are there again";
        let last = "somebody goes on taking routes or rules of ours away; they are made again, but what should be captured until then is not";
        self.patience
            .tell("routes and rules", was_missing, plainly, last);
    }

    /// Takes back what `is_it` says.
    async fn drop_where(&mut self, is_it: impl Fn(&Entry) -> bool) -> Result<(), ApplyError> {
        for entry in self.made.iter().filter(|entry| is_it(entry)) {
            debug!("taking back: {entry}");
            match self.take_back(entry).await {
                Err(source) if !is_gone(&source) => return Err(failed(entry, source)),
                _ => {}
            }
        }
        self.made.retain(|entry| !is_it(entry));
        Ok(())
    }

    async fn take_back(&self, entry: &Entry) -> Result<(), NetlinkError> {
        match entry {
            Entry::Rule(rule) => self.netlink.delete_rule(rule_message(rule)).await,
            Entry::Route(route) => {
                let message = route_message(route, self.index);
                self.netlink.delete_route(message).await
            }
            _ => Ok(()),
        }
    }

    /// Takes everything back in reverse order, going on when a part fails; addresses and settings of the
    /// device go with the device. Gives a line for each part that could not be taken back.
    pub async fn undo(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        for entry in std::mem::take(&mut self.made).iter().rev() {
            match self.take_back(entry).await {
                Err(error) if !is_gone(&error) => left.push(format!("{entry}: {error}")),
                _ => {}
            }
        }
        left
    }
}

/// What holds until it is taken away, and can be made while the device is up.
fn is_lasting(entry: &Entry) -> bool {
    matches!(
        entry,
        Entry::Address { .. } | Entry::Route(_) | Entry::Rule(_)
    )
}

/// A table has one route to a network: to the device, or none.
fn is_in_the_way(made: &Entry, wanted: &Entry) -> bool {
    match (made, wanted) {
        (Entry::Route(made), Entry::Route(wanted)) => {
            (made.table, made.net) == (wanted.table, wanted.net)
        }
        _ => false,
    }
}

/// Somebody else took it away, or the device went and took its routes along.
pub(super) fn is_gone(error: &NetlinkError) -> bool {
    let gone = [nix::libc::ESRCH, nix::libc::ENOENT, nix::libc::ENODEV];
    error.errno().is_some_and(|errno| gone.contains(&errno))
}

fn report(left: &[String]) {
    for line in left {
        warn!("could not take back: {line}; underpass cleanup removes it");
    }
}
