//! The name server of a command's network: planned before there is a login, made after.

use std::net::SocketAddr;

use super::network::NameServer;
use crate::app::up::names::{Names, NamesError, World, far_servers};
use crate::carrier::AnyCarrier;
use crate::inlet::tun::{NameServers, Tun};
use crate::os::TunDevice;
use crate::plan::{DnsPlan, RunPlan};

/// What is known before the login.
pub(super) struct Wanted {
    dns: DnsPlan,
    world: World,
    own: NameServer,
}

/// And after it.
pub(super) struct Known {
    world: World,
    own: NameServer,
    far: Vec<SocketAddr>,
}

impl Wanted {
    /// What `plan` wants of the name server `own`; `None` where it wants none.
    pub(super) fn new(plan: &RunPlan, own: Option<NameServer>) -> Result<Option<Self>, NamesError> {
        let (Some(dns), Some(own)) = (&plan.plan.dns, own) else {
            return Ok(None);
        };
        Ok(Some(Self {
            dns: dns.clone(),
            world: World::new(dns, &plan.plan.capture)?,
            own,
        }))
    }

    /// Finds out who is to be asked.
    pub(super) async fn ask(self, link: &AnyCarrier) -> Result<Known, NamesError> {
        let Self { dns, world, own } = self;
        let far = far_servers(&dns, link).await?;
        Ok(Known { world, own, far })
    }
}

/// Where it is to be asked.
pub(super) fn at(known: Option<&Known>) -> NameServers {
    NameServers([known.map(|known| known.own.address), None])
}

impl Known {
    /// The name server behind `inlet`.
    pub(super) fn behind(self, inlet: &Tun<TunDevice>) -> Names {
        let at = at(Some(&self));
        let Self { world, own, far } = self;
        Names::new(inlet, at, own.client, world, (&far, &own.near))
    }
}
