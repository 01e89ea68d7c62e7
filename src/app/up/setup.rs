//! What is set up on the host, and what it was made of: the addresses of the server may change while it stands.

use std::net::IpAddr;

use crate::os::{ApplyError, Netlink, Slot, TunDevice, Undo, apply, routes};
use crate::plan::CapturePlan;

/// What shall hold on the host.
pub(super) struct Wanted {
    capture: CapturePlan,
    /// The device's name.
    pub(super) device: String,
    mtu: u16,
    tables: crate::os::Tables,
    source: routes::Source,
    /// Never captured.
    exempt: Vec<IpAddr>,
}

impl Wanted {
    pub(super) fn new(
        capture: &CapturePlan,
        device: &TunDevice,
        slot: &Slot,
        source: routes::Source,
        exempt: Vec<IpAddr>,
    ) -> Self {
        Self {
            capture: capture.clone(),
            device: device.name().to_owned(),
            mtu: device.mtu(),
            tables: slot.tables(),
            source,
            exempt,
        }
    }

    fn entries(&self) -> Vec<routes::Entry> {
        let setting = routes::Setting {
            device: &self.device,
            mtu: self.mtu,
            tables: self.tables,
            source: self.source,
            exempt: &self.exempt,
        };
        routes::desired(&self.capture, &setting)
    }

    pub(super) async fn apply(self, netlink: &Netlink) -> Result<Setup, ApplyError> {
        let undo = apply(netlink, &self.device, &self.entries()).await?;
        Ok(Setup { wanted: self, undo })
    }
}

/// What holds on the host.
pub(super) struct Setup {
    wanted: Wanted,
    undo: Undo,
}

impl Setup {
    /// Captures none of `addresses` from here on, as it does with those of the server that are known already.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub(super) async fn exempt(&mut self, addresses: &[IpAddr]) -> Result<(), ApplyError> {
        let exempt = &mut self.wanted.exempt;
        let known = exempt.len();
        for address in addresses.iter().map(IpAddr::to_canonical) {
            if !exempt.contains(&address) {
                exempt.push(address);
            }
        }
        if exempt.len() == known {
            return Ok(());
        }
        self.undo.change(&self.wanted.entries()).await
    }

    /// Captures `capture` from here on, and what was captured before only where that is among it. What stays is captured all
    /// the time.
    ///
    /// # Errors
    /// [`ApplyError`]; what was captured before is again, as far as that goes.
    pub(super) async fn capture(&mut self, capture: &CapturePlan) -> Result<(), ApplyError> {
        let before = std::mem::replace(&mut self.wanted.capture, capture.clone());
        let Err(error) = self.hold().await else {
            return Ok(());
        };
        self.wanted.capture = before;
        self.hold().await?;
        Err(error)
    }

    async fn hold(&mut self) -> Result<(), ApplyError> {
        let entries = self.wanted.entries();
        if !entries
            .iter()
            .any(|entry| matches!(entry, routes::Entry::Rule(_)))
        {
            return Err(ApplyError::Nothing);
        }
        self.undo.change(&entries).await
    }

    /// Takes everything back; a line for each part that could not be.
    pub(super) async fn undo(&mut self) -> Vec<String> {
        self.undo.undo().await
    }
}
