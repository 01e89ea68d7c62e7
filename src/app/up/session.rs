//! What every flow's task shares, and the task.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{debug, warn};

use super::beside::{Beside, Inlet};
use super::flows::{Flows, Listed};
use super::in_turn::in_turn;
use super::leads::Leads;
use super::life::Activity;
use super::names::{Guest, Names, Unfit};
use super::records::Metered;
use crate::audit::{Audit, FlowEntry, Protocol};
use crate::inlet::tun::TunInbound;
use crate::net::{Far, FlowKey, Inbound, OpenError, OpenFailure, Target};
use crate::os::TunDevice;
use crate::relay::{Outcome, relay};
use crate::stats::Stats;

/// Inlet, carriers and counters: what every flow's task shares.
pub(in crate::app) struct Session<L> {
    pub(in crate::app) inlet: Inlet,
    pub(in crate::app) leads: L,
    pub(in crate::app) stats: Stats,
    pub(in crate::app) activity: Activity,
    pub(super) flows: Flows,
    pub(in crate::app) audit: Option<Arc<Audit>>,
    /// Where names are looked up through the server.
    pub(in crate::app) names: Option<Names>,
    /// What is no flow.
    pub(in crate::app) beside: Beside,
    told_of_policy: AtomicBool,
    is_stopping: AtomicBool,
}

impl<L: Leads + 'static> Session<L> {
    pub(in crate::app) fn new(
        inlet: Inlet,
        leads: L,
        audit: Option<Arc<Audit>>,
        names: Option<Names>,
        beside: Beside,
    ) -> Self {
        Self {
            inlet,
            leads,
            stats: Stats::default(),
            activity: Activity::new(beside.passed()),
            flows: Flows::default(),
            audit,
            names,
            beside,
            told_of_policy: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
        }
    }

    /// Runs the inlet; each flow gets a task of its own. How many there can be is bounded by the engine.
    pub(in crate::app) async fn drive(self: Arc<Self>) -> io::Result<()> {
        let session = &self;
        let asks = |target| {
            let names = session.names.as_ref();
            names.is_some_and(|names| names.are_at(target))
        };
        self.inlet
            .run(
                |inbound| {
                    let session = Arc::clone(session);
                    if asks(inbound.target()) {
                        tokio::spawn(session.answer(inbound));
                    } else {
                        tokio::spawn(in_turn(Box::pin(session.carry(inbound))));
                    }
                },
                |datagram| {
                    if let Some(names) = &session.names {
                        names.ask(datagram.source, datagram.target, datagram.payload);
                    }
                },
                |beside| session.beside.take(beside, &session.leads),
            )
            .await
    }

    /// Somebody asks for names over TCP: no flow, and none that is shown.
    async fn answer(self: Arc<Self>, inbound: TunInbound<TunDevice>) {
        if let Some(names) = &self.names {
            names.serve(inbound).await;
        }
    }

    /// What is open is ended by us from here on, and by nobody else.
    pub(in crate::app) fn stopping(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    async fn carry(self: Arc<Self>, inbound: TunInbound<TunDevice>) {
        let _active = self.activity.begin();
        // Few values are kept here: each lives in the flow's future to its end.
        let guest = self.guest(inbound.target());
        let (carrier, far) = self.lead(inbound.target(), guest.as_ref());
        let (listed, entry) = self.begin(key(&inbound), &far);
        let meter = Metered(&self.stats.traffic, &listed, entry.as_ref());
        let outcome = match guest.as_ref().map(|guest| &guest.name) {
            Some(Err(unfit)) => refuse(inbound, *unfit),
            // Boxed: awaited in place, a future is kept twice.
            _ => Box::pin(relay(inbound, &carrier, far, &meter)).await,
        };
        self.stats.count(&outcome);
        let is_ours =
            matches!(outcome, Outcome::Broken(_)) && self.is_stopping.load(Ordering::Relaxed);
        // One without an end was stopped.
        if let Some(entry) = entry.filter(|_| !is_ours) {
            entry.end(&outcome);
        }
        let whom = Whom {
            far: listed.far(),
            here: listed.target(),
        };
        debug!("{whom}: {outcome}");
        if let Outcome::Refused(error) = &outcome
            && error.failure == OpenFailure::Prohibited
        {
            self.tell_of_policy(&whom);
        }
    }

    /// The host that is asked for by its name, where `target` stands for one.
    fn guest(&self, target: Target) -> Option<Guest<'_>> {
        self.names.as_ref().and_then(|names| names.guest(target))
    }

    /// Who opens a flow to `target`, and whom they are asked for.
    fn lead(&self, target: Target, guest: Option<&Guest<'_>>) -> (L::Carrier<'_>, Far) {
        let (carrier, target) = self.leads.lead(target);
        let name = guest.and_then(|guest| guest.name.clone().ok());
        (carrier, Far { target, name })
    }

    /// A flow to `far` begins: it is listed, and written down.
    fn begin(&self, key: FlowKey, far: &Far) -> (Listed<'_>, Option<FlowEntry>) {
        let entry = self.audit.as_ref().map(|audit| {
            let mapped_to = (far.target != key.target).then_some(far.target);
            audit.flow(Protocol::Tcp, key, mapped_to, far.name.clone())
        });
        let mapped_to = (*far != key.target.into()).then(|| far.clone());
        (self.flows.begin(key, mapped_to), entry)
    }

    /// Once: an application that tries again must not fill the log.
    fn tell_of_policy(&self, far: &Whom) {
        if !self.told_of_policy.swap(true, Ordering::Relaxed) {
            warn!(
                "the SSH server forbids {far}; its administrator can allow it with PermitOpen or \
                 AllowTcpForwarding in sshd_config, or permitopen= in authorized_keys"
            );
        }
    }
}

fn key(inbound: &impl Inbound) -> FlowKey {
    FlowKey {
        source: inbound.source(),
        target: inbound.target(),
    }
}

/// Refuses a connection to an address that stands for nobody, or for a host by other ports.
fn refuse(inbound: impl Inbound, unfit: Unfit) -> Outcome {
    let error = match unfit {
        Unfit::Nobody => OpenError::new(
            OpenFailure::HostUnreachable,
            "the address stands for no name any more",
        ),
        Unfit::Port => OpenError::new(
            OpenFailure::NetworkUnreachable,
            "this port of the host is not captured",
        ),
    };
    inbound.refuse(&error);
    Outcome::Refused(error)
}

/// A target as the server knows it, and as it is here where that differs.
struct Whom {
    far: Far,
    here: Target,
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { far, here } = self;
        match *far == Far::from(*here) {
            true => far.fmt(f),
            false => write!(f, "{far} ({here} here)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::leads::Mapped;
    use super::*;
    use crate::carrier::{AnyCarrier, Steady};

    /// The size of what `f` returns, in bytes.
    fn size_of_output<A, B, F>(_: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_flows_task_is_small() {
        let bytes = size_of_output(Session::<Mapped<Steady<AnyCarrier>>>::carry);
        assert!(bytes <= 320, "{bytes} bytes for each open flow");
    }
}
