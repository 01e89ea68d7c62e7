//! What is captured, and what it was made of: the addresses of the server may change while it stands.

use std::net::IpAddr;
use std::sync::Arc;

use tracing::debug;

use crate::os::helper::{Hand, HandError};
use crate::os::names::Wish;
use crate::plan::far_side::TunnelAddress;
use crate::plan::{CapturePlan, DnsPlan};

/// What is captured, or shall be.
pub(super) struct Setup {
    hand: Arc<Hand>,
    capture: CapturePlan,
    /// Never captured.
    exempt: Vec<IpAddr>,
    /// What programs ask us for.
    names: Option<Wish>,
    dns: Option<DnsPlan>,
    /// The addresses of a tunnel, where the device is that of one.
    ends: Option<TunnelAddress>,
}

impl Setup {
    /// Of nothing yet; `exempt` are the addresses of the server, and of name servers that are asked without it.
    pub(super) fn new(
        hand: Arc<Hand>,
        capture: &CapturePlan,
        exempt: Vec<IpAddr>,
        names: Option<Wish>,
        dns: Option<DnsPlan>,
    ) -> Self {
        Self {
            hand,
            capture: capture.clone(),
            exempt,
            names,
            dns,
            ends: None,
        }
    }

    /// With a device that has the addresses of a tunnel.
    pub(super) fn in_tunnel(self, ends: Option<TunnelAddress>) -> Self {
        Self { ends, ..self }
    }

    /// What is never captured.
    pub(super) fn exempted(&self) -> &[IpAddr] {
        &self.exempt
    }

    /// Whether it is captured in a network namespace that is not ours: no connection of ours goes through it.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.hand.is_elsewhere()
    }

    /// Has it captured from here on.
    ///
    /// # Errors
    /// [`HandError`].
    pub(super) async fn apply(&self) -> Result<(), HandError> {
        let (capture, exempt) = (&self.capture, self.exempted());
        let names = self.names.as_ref();
        self.hand.hold(capture, exempt, names, self.ends).await
    }

    /// Captures none of `addresses` from here on, as it does with those of the server that are known already. Elsewhere no
    /// connection of ours to them has to be left alone.
    ///
    /// # Errors
    /// [`HandError`].
    pub(super) async fn exempt(&mut self, addresses: &[IpAddr]) -> Result<(), HandError> {
        if self.is_elsewhere() {
            return Ok(());
        }
        let exempt = &mut self.exempt;
        let known = exempt.len();
        for address in addresses.iter().map(IpAddr::to_canonical) {
            if !exempt.contains(&address) {
                exempt.push(address);
            }
        }
        if exempt.len() == known {
            return Ok(());
        }
        self.apply().await
    }

    /// Resolves when the privileged part is gone.
    pub(super) fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        let hand = Arc::clone(&self.hand);
        async move { hand.gone().await }
    }

    /// Captures `capture` from here on, and what was captured before only where that is among it. What stays is captured all
    /// the time.
    ///
    /// # Errors
    /// [`HandError`]; what was captured before is again, as far as that goes.
    pub(super) async fn capture(&mut self, capture: &CapturePlan) -> Result<(), HandError> {
        let before = std::mem::replace(&mut self.capture, capture.clone());
        self.wish();
        let Err(error) = self.apply().await else {
            return Ok(());
        };
        self.capture = before;
        self.wish();
        self.apply().await?;
        Err(error)
    }

    /// The names of addresses go where the addresses are.
    fn wish(&mut self) {
        if let Some((names, dns)) = self.names.as_mut().zip(self.dns.as_ref()) {
            names.networks = dns.networks(&self.capture);
        }
    }

    /// Takes everything back; a line for each part that could not be.
    pub(super) async fn undo(&self) -> Vec<String> {
        self.hand.release().await.unwrap_or_else(|error| {
            debug!("{error}");
            Vec::new()
        })
    }
}
