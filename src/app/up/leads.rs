//! Where a flow leads: who opens it, and whom they are asked for.

use std::sync::{PoisonError, RwLock};

use crate::net::{Carrier, Target};
use crate::plan::{CapturePlan, Mapping};

/// Decides for each flow, once: what is shown of a flow is then what was done.
pub(in crate::app) trait Leads: Send + Sync {
    /// Who opens flows.
    type Carrier<'a>: Carrier
    where
        Self: 'a;

    /// Who opens a flow to `target`, and whom they are asked for: `target` itself, or whom that stands for.
    fn lead(&self, target: Target) -> (Self::Carrier<'_>, Target);

    /// Whom the server knows as `target`; `None` where that does not lead to it.
    fn at_server(&self, target: Target) -> Option<Target>;
}

/// Everything leads to the server; an address that is mapped stands for another one there.
pub(in crate::app) struct Mapped<C> {
    server: C,
    mapping: RwLock<Mapping>,
}

impl<C> Mapped<C> {
    pub(in crate::app) fn new(server: C, capture: &CapturePlan) -> Self {
        Self {
            server,
            mapping: RwLock::new(Mapping::new(capture)),
        }
    }

    pub(in crate::app) fn server(&self) -> &C {
        &self.server
    }

    /// Flows that begin from here on lead by `mapping`.
    pub(super) fn remap(&self, mapping: Mapping) {
        // It is whole at every moment, whoever panicked.
        *self.mapping.write().unwrap_or_else(PoisonError::into_inner) = mapping;
    }
}

impl<C: Carrier> Leads for Mapped<C> {
    type Carrier<'a>
        = &'a C
    where
        Self: 'a;

    fn lead(&self, target: Target) -> (&C, Target) {
        let mapping = self.mapping.read().unwrap_or_else(PoisonError::into_inner);
        (&self.server, far(&mapping, target))
    }

    fn at_server(&self, target: Target) -> Option<Target> {
        Some(self.lead(target).1)
    }
}

/// Whom `target` stands for.
pub(in crate::app) fn far(mapping: &Mapping, target: Target) -> Target {
    let Target(mut address) = target;
    if let Some(far) = mapping.far(&address.ip().into()) {
        address.set_ip(far.addr());
    }
    Target(address)
}
