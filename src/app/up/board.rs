//! What there is to say of this instance, gathered for `status`, systemd and whoever else asks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::leads::Mapped;
use super::session::Session;
use super::told_names;
use crate::app::control::report::{
    Bytes, Carrier, FlowReport, Flows, LastError, Names, Report, Server, State as Word, now,
};
use crate::app::control::server::{PAGE, Tells};
use crate::app::table::list;
use crate::carrier::link::Description;
use crate::carrier::steady::State;
use crate::carrier::{AnyCarrier, Link, Steady};
use crate::os::notify;
use crate::plan::{CapturePlan, NamePool, Plan};

/// How many networks and hosts the one line shows.
const SOME: usize = 3;

/// What there is to say.
pub(super) struct Board {
    /// What does not change.
    fixed: Report,
    now: Mutex<Now>,
}

struct Now {
    capture: CapturePlan,
    /// The networks whose addresses stand for names.
    pool: Option<NamePool>,
    live: Option<Live>,
    /// Of the last connection, for the time when there is none.
    description: Option<Description>,
    last_error: Option<LastError>,
    /// Since when it takes everything back.
    stopping: Option<u64>,
}

/// Packets flow.
#[derive(Clone)]
struct Live {
    session: Arc<Session<Mapped<Steady<AnyCarrier>>>>,
    device: String,
    /// What of names does not change.
    names: Option<Names>,
}

impl Board {
    /// Of an instance that starts now.
    pub(super) fn new(name: &str, plan: &Plan) -> Self {
        let fixed = Report {
            name: name.to_owned(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: now(),
            since: now(),
            server: Server {
                alias: plan.ssh.alias.clone(),
                host: plan.ssh.host.clone(),
                port: plan.ssh.port,
                user: plan.ssh.user.clone(),
                ..Server::default()
            },
            carrier: Carrier {
                kind: plan.carrier.kind.name().to_owned(),
                why: plan.carrier.why.clone(),
                connections: 0,
            },
            ..Report::default()
        };
        let now = Now {
            capture: plan.capture.clone(),
            pool: plan.dns.as_ref().and_then(|dns| dns.by_name),
            live: None,
            description: None,
            last_error: None,
            stopping: None,
        };
        Self {
            fixed,
            now: Mutex::new(now),
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        // It is whole at every moment, whoever panicked.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Packets flow from here on.
    pub(super) fn up(
        &self,
        session: &Arc<Session<Mapped<Steady<AnyCarrier>>>>,
        device: &str,
        names: Option<Names>,
    ) {
        let live = Live {
            session: Arc::clone(session),
            device: device.to_owned(),
            names,
        };
        self.now().live = Some(live);
    }

    /// It is known where `plan` has its place.
    pub(super) fn is_placed(&self, plan: &Plan) {
        let mut board = self.now();
        board.capture = plan.capture.clone();
        board.pool = plan.dns.as_ref().and_then(|dns| dns.by_name);
    }

    /// Something else is captured from here on.
    pub(super) fn captures(&self, capture: &CapturePlan) {
        self.now().capture = capture.clone();
    }

    /// What is captured.
    pub(super) fn capture(&self) -> CapturePlan {
        self.now().capture.clone()
    }

    /// Everything is taken back from here on.
    pub(super) fn stopping(&self) {
        self.now().stopping = Some(now());
    }

    /// Follows the connection of `session`, and tells systemd of it. Never ends.
    pub(super) async fn follow(&self, session: &Session<Mapped<Steady<AnyCarrier>>>) {
        loop {
            let state = session.leads.server().state();
            self.note(&state, session);
            notify::status(&self.line());
            session.leads.server().other_than(&state).await;
        }
    }

    fn note(&self, state: &State, session: &Session<Mapped<Steady<AnyCarrier>>>) {
        let link = session.leads.server().link();
        let mut board = self.now();
        if let Some(link) = link {
            board.description = Some(link.description().clone());
        }
        if let State::Down { why, .. } | State::NeedsPerson { why, .. } = state
            && !why.is_empty()
        {
            board.last_error = Some(LastError {
                text: why.clone(),
                at: now(),
            });
        }
    }

    /// How it stands, in one line.
    pub(super) fn line(&self) -> String {
        let report = self.report();
        let server = format!("{}@{}", report.server.user, report.server.alias);
        let why = report.why.unwrap_or_default();
        match report.state {
            Word::Starting => format!("logging in to {server}"),
            Word::Up => {
                let hosts = report.names.unwrap_or_default().hosts;
                let captured = list(&[report.subnets, hosts].concat(), SOME);
                format!("{captured} through {server}")
            }
            Word::Reconnecting => format!("reconnecting to {server}: {why}"),
            Word::NeedsPerson => format!("somebody has to log in to {server}: {why}"),
            Word::Stopping => "taking routes and rules back".to_owned(),
        }
    }

    /// All there is to say.
    pub(super) fn report(&self) -> Report {
        let (live, stopping) = {
            let board = self.now();
            (board.live.clone(), board.stopping)
        };
        let mut report = self.fixed.clone();
        if let Some(Live {
            session,
            device,
            names,
        }) = live
        {
            report.device = Some(device);
            let names = names.zip(session.names.as_ref());
            report.names = names.map(|(fixed, names)| told_names::now(fixed, names));
            counters(&session, &mut report);
            state(&session, &mut report);
            if let Some(link) = session.leads.server().link() {
                report.carrier.connections = link.connections();
                self.now().description = Some(link.description().clone());
            }
        }
        if let Some(since) = stopping {
            (report.state, report.since, report.why) = (Word::Stopping, since, None);
        }
        let board = self.now();
        let stands_for_names = |net| {
            board
                .pool
                .is_some_and(|pool| pool.nets().any(|own| own == net))
        };
        let subnets = board.capture.subnets.iter();
        report.subnets = subnets
            .filter(|subnet| !stands_for_names(subnet.net))
            .map(ToString::to_string)
            .collect();
        report.excludes = board
            .capture
            .excludes
            .iter()
            .map(ToString::to_string)
            .collect();
        let whose = &board.capture.whose;
        report.users.clone_from(&whose.users);
        report.gateway = whose.forwarded.typed();
        report.last_error.clone_from(&board.last_error);
        if let Some(description) = &board.description {
            describe(description, &mut report.server);
        }
        report
    }
}

impl Tells for Board {
    fn report(&self) -> Report {
        Self::report(self)
    }

    fn flows(&self, after: u64) -> (Vec<FlowReport>, Option<u64>) {
        let live = self.now().live.clone();
        live.map_or_else(Default::default, |live| {
            live.session.flows.page(after, PAGE)
        })
    }
}

fn describe(description: &Description, server: &mut Server) {
    server.address = description.server.map(|address| address.to_string());
    server.host_key.clone_from(&description.host_key);
    server.login.clone_from(&description.authentication);
    server.cipher.clone_from(&description.cipher);
}

fn state(session: &Session<Mapped<Steady<AnyCarrier>>>, report: &mut Report) {
    let at = |since: Instant| now().saturating_sub(since.elapsed().as_secs());
    (report.state, report.since, report.why) = match session.leads.server().state() {
        State::Up { since } => (Word::Up, at(since), None),
        State::Down { since, why, .. } => (Word::Reconnecting, at(since), Some(why)),
        State::NeedsPerson { since, why } => (Word::NeedsPerson, at(since), Some(why)),
    };
}

fn counters(session: &Session<Mapped<Steady<AnyCarrier>>>, report: &mut Report) {
    let Session {
        inlet,
        stats,
        activity,
        ..
    } = session;
    let get = |counter: &AtomicU64| counter.load(Relaxed);
    let owned = |(name, count): (&str, u64)| (name.to_owned(), count);
    let mut flows = Flows {
        open: activity.open() as u64,
        total: 0,
        finished: get(&stats.finished),
        broken: get(&stats.broken),
        withdrawn: get(&stats.withdrawn),
        refused: stats.refused.nonzero().map(owned).collect(),
    };
    flows.total = flows.open
        + flows.finished
        + flows.broken
        + flows.withdrawn
        + flows.refused.values().sum::<u64>();
    report.flows = flows;
    report.bytes = Bytes {
        up: get(&stats.traffic.up),
        down: get(&stats.traffic.down),
    };
    report.drops = inlet.drops().into_iter().map(owned).collect();
    report.beside = Some(session.beside.report());
}
