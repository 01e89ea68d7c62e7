//! What of a session is written down: its start, what becomes of its connection, and its end.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use nix::unistd::{Uid, User};

use super::flows::Listed;
use super::session::Session;
use crate::app::surroundings;
use crate::audit::{self, Audit, AuditError, FlowEntry, Login, Lookup, Totals};
use crate::carrier::steady::State;
use crate::carrier::{Description, Link, Steady};
use crate::plan::Plan;
use crate::relay::{Meter, Traffic};
use crate::stats::Stats;

/// How long the last lines may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Opens the log that the plan names; `lookup` finds who opens a connection.
///
/// # Errors
/// [`AuditError`].
pub(in crate::app) fn open(
    plan: &Plan,
    lookup: impl FnOnce() -> Lookup,
) -> Result<Option<Arc<Audit>>, AuditError> {
    let destination = plan.audit.as_ref();
    let audit = destination.map(|destination| Audit::open(destination, lookup()).map(Arc::new));
    audit.transpose()
}

/// Counts a flow's bytes for all, for itself, and where it is written down once more.
pub(super) struct Metered<'a>(
    pub(super) &'a Traffic,
    pub(super) &'a Listed<'a>,
    pub(super) Option<&'a FlowEntry>,
);

impl Meter for Metered<'_> {
    fn opened(&self, connection: Option<u32>) {
        self.1.opened(connection);
    }

    fn add_up(&self, bytes: u64) {
        self.0.add_up(bytes);
        self.1.add_up(bytes);
        if let Some(entry) = self.2 {
            entry.add_up(bytes);
        }
    }

    fn add_down(&self, bytes: u64) {
        self.0.add_down(bytes);
        self.1.add_down(bytes);
        if let Some(entry) = self.2 {
            entry.add_down(bytes);
        }
    }
}

/// Who logs in, and where: what of a [`Login`] stays when it is done again.
#[derive(Clone, Debug)]
pub(in crate::app) struct Who {
    carrier: &'static str,
    server: String,
    user: String,
}

impl Who {
    pub(in crate::app) fn new(plan: &Plan) -> Self {
        let ssh = &plan.ssh;
        Self {
            carrier: plan.carrier.kind.name(),
            server: match ssh.host.contains(':') {
                true => format!("[{}]:{}", ssh.host, ssh.port),
                false => format!("{}:{}", ssh.host, ssh.port),
            },
            user: ssh.user.clone(),
        }
    }

    fn login(&self, description: &Description) -> Login {
        Login {
            carrier: self.carrier,
            server: self.server.clone(),
            address: description.server,
            user: self.user.clone(),
            host_key: description.host_key.clone(),
            cipher: description.cipher.clone(),
            authentication: description.authentication.clone(),
            key: description.key.clone(),
        }
    }
}

/// Writes down that a session begins.
pub(in crate::app) fn begin(audit: &Audit, plan: &Plan, device: &str, login: &Description) {
    let uid = Uid::current();
    let user = User::from_uid(uid).ok().flatten();
    audit.session(audit::Session {
        version: env!("CARGO_PKG_VERSION"),
        uid: uid.as_raw(),
        user: user.map(|user| user.name),
        sudo_user: surroundings::behind_sudo(),
        subnets: plan
            .capture
            .subnets
            .iter()
            .map(ToString::to_string)
            .collect(),
        excludes: plan
            .capture
            .excludes
            .iter()
            .map(ToString::to_string)
            .collect(),
        users: plan.capture.whose.users.clone(),
        gateway: plan.capture.whose.forwarded.typed(),
        device: device.to_owned(),
        login: Who::new(plan).login(login),
    });
}

/// Writes down what becomes of the connection to `server`, where that is wanted. Never ends then.
pub(in crate::app) async fn follow<L: Link>(
    audit: Option<&Arc<Audit>>,
    server: &Steady<L>,
    who: Who,
) {
    let Some(audit) = audit else { return };
    let mut last = server.state();
    loop {
        let now = server.other_than(&last).await;
        let was_up = matches!(last, State::Up { .. });
        match &now {
            State::Down { why, .. } | State::NeedsPerson { why, .. } if was_up => {
                audit.lost(why.clone());
            }
            State::Down { .. } | State::NeedsPerson { .. } => {}
            State::Up { .. } => {
                if was_up {
                    // Lost and back between two looks.
                    audit.lost("not known".to_owned());
                }
                if let Some(link) = server.link() {
                    audit.back(who.login(link.description()));
                }
            }
        }
        last = now;
    }
}

/// Opens the log's file anew, after it was renamed.
pub(in crate::app) fn reopen<C>(session: &Session<C>) {
    if let Some(audit) = &session.audit {
        audit.reopen();
    }
}

/// Writes down that the session is over.
pub(in crate::app) fn end<C>(session: &Session<C>, why: &str) {
    if let Some(audit) = &session.audit {
        audit.stop(why, totals(&session.stats), PATIENCE);
    }
}

fn totals(stats: &Stats) -> Totals {
    let ended = [&stats.finished, &stats.broken, &stats.withdrawn];
    let ended: u64 = ended.iter().map(|count| count.load(Relaxed)).sum();
    Totals {
        flows: ended + stats.refused.total(),
        bytes_up: stats.traffic.up.load(Relaxed),
        bytes_down: stats.traffic.down.load(Relaxed),
    }
}
