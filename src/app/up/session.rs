//! What every flow's task shares, and the task.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{debug, warn};

use super::beside::{Beside, Inlet};
use super::flows::Flows;
use super::in_turn::in_turn;
use super::leads::Leads;
use super::life::Activity;
use super::names::{Names, Unfit};
use super::records::Metered;
use crate::audit::{Audit, Protocol};
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
            activity: Activity::default(),
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
        let (source, target) = (inbound.source(), inbound.target());
        let key = FlowKey { source, target };
        let (carrier, whom) = self.leads.lead(target);
        let guest = self.names.as_ref().and_then(|names| names.guest(target));
        let far = Far {
            target: whom,
            name: guest.as_ref().and_then(|guest| guest.name.clone().ok()),
        };
        let entry = self.audit.as_ref();
        let entry = entry.map(|audit| {
            let mapped_to = (whom != target).then_some(whom);
            audit.flow(Protocol::Tcp, key, mapped_to, far.name.clone())
        });
        let listed = self
            .flows
            .begin(key, (far != target.into()).then(|| far.clone()));
        let meter = Metered(&self.stats.traffic, &listed, entry.as_ref());
        let unfit = guest.as_ref().and_then(|guest| guest.name.as_ref().err());
        let outcome = if let Some(unfit) = unfit {
            refuse(inbound, *unfit)
        } else {
            // Boxed: awaited in place, a future is kept twice.
            Box::pin(relay(inbound, &carrier, far.clone(), &meter)).await
        };
        self.stats.count(&outcome);
        let is_ours =
            matches!(outcome, Outcome::Broken(_)) && self.is_stopping.load(Ordering::Relaxed);
        // One without an end was stopped.
        if let Some(entry) = entry.filter(|_| !is_ours) {
            entry.end(&outcome);
        }
        let far = Whom { far, here: target };
        debug!("{far}: {outcome}");
        if let Outcome::Refused(error) = &outcome
            && error.failure == OpenFailure::Prohibited
        {
            self.tell_of_policy(&far);
        }
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
        assert!(bytes <= 1024, "{bytes} bytes for each open flow");
    }
}
