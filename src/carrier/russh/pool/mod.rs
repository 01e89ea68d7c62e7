//! The connections of one carrier: which one a new flow goes to, when a further one is made, and when an old
//! one is let go.

mod choice;
mod retry;
mod rush;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use self::choice::{Burden, burdens, choose, should_grow};
use self::retry::Retry;
use self::rush::Rush;
use super::backlog::Store;
use super::connection::Connection;
use super::load::{ChannelGuard, Common};
use super::login::{self, Access};
use super::vigil;
use crate::carrier::error::LostReason;
use crate::net::{OpenError, OpenFailure};
use crate::plan::SshPlan;

/// How long an open waits for a connection that is not stalled.
const STALL_WAIT: Duration = Duration::from_secs(10);
/// How often ages are looked at.
const TICK: Duration = Duration::from_secs(30);
/// How long a login in the background may take.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections lost within this time are lost together.
const LOST_TOGETHER: Duration = Duration::from_millis(300);
/// The connections.
pub(super) struct Pool {
    plan: SshPlan,
    /// How many connections there should be, where that does not depend on the flows.
    asked: Option<usize>,
    /// What let the last connection in.
    access: Mutex<Access>,
    connections: Mutex<Vec<Arc<Connection>>>,
    common: Arc<Common>,
    /// Rung after every look at the connections.
    tended: Notify,
    store: Arc<Store>,
    lost: watch::Sender<Option<LostReason>>,
    losses: Mutex<Losses>,
    retry: Mutex<Retry>,
    rush: Mutex<Rush>,
    /// How often all were asked for a sign of life.
    checks: AtomicU64,
    /// A login is under way.
    growing: AtomicBool,
    /// No further connection is to be made.
    closing: AtomicBool,
    /// It was said how much a connection keeps.
    is_told_of_kept: AtomicBool,
}

/// A connection, and a place on it.
pub(super) struct Place {
    pub(super) connection: Arc<Connection>,
    pub(super) place: ChannelGuard,
}

impl Pool {
    pub(super) fn new(
        plan: SshPlan,
        access: Access,
        first: Connection,
        common: Arc<Common>,
    ) -> Arc<Self> {
        if plan.connections.is_some_and(|asked| asked > 1) && !access.is_silent() {
            warn!(
                "this login asks somebody each time: there is one connection, whatever --connections says"
            );
        }
        let pool = Arc::new(Self {
            asked: asked(&plan),
            plan,
            access: Mutex::new(access),
            connections: Mutex::new(vec![Arc::new(first)]),
            common,
            tended: Notify::new(),
            store: Arc::default(),
            lost: watch::Sender::new(None),
            losses: Mutex::default(),
            retry: Mutex::default(),
            rush: Mutex::new(Rush::new(Instant::now())),
            checks: AtomicU64::new(0),
            growing: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            is_told_of_kept: AtomicBool::new(false),
        });
        pool.common.changed.notify_one();
        // Weak inside: the task must not keep alive what its end depends on.
        let weak = Arc::downgrade(&pool);
        let common = Arc::clone(&pool.common);
        tokio::spawn(async move {
            let mut pause = TICK;
            loop {
                // An elapsed tick is as good as a bell.
                let _ = tokio::time::timeout(pause, common.changed.notified()).await;
                let Some(pool) = weak.upgrade() else {
                    return;
                };
                if pool.tend().is_break() {
                    return;
                }
                pause = pool.watch();
            }
        });
        pool
    }

    pub(super) fn plan(&self) -> &SshPlan {
        &self.plan
    }

    pub(super) fn access(&self) -> Access {
        self.lock_access().clone()
    }

    /// From here on this lets further connections in.
    pub(super) fn renew(&self, access: Access) {
        *self.lock_access() = access;
    }

    fn lock_access(&self) -> MutexGuard<'_, Access> {
        // It is whole at every moment, whoever panicked.
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks every connection for a sign of life; those that give none are lost.
    pub(super) async fn check(&self) {
        let all = {
            // Under the lock: who joins later knows of it.
            let list = self.list();
            self.checks.fetch_add(1, Relaxed);
            list.clone()
        };
        let mut checks = JoinSet::new();
        for connection in all {
            checks.spawn(async move { connection.check().await });
        }
        while checks.join_next().await.is_some() {}
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        // The list is whole at every moment, whoever panicked.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no connection is left, or none is to be.
    fn is_over(&self) -> bool {
        self.closing.load(Relaxed) || self.lost.borrow().is_some()
    }

    fn should_grow(&self, now: Instant) -> bool {
        should_grow(&burdens(&self.list(), now), self.asked)
    }

    /// Whether a further connection is to be made, and can be now.
    fn can_grow(&self) -> bool {
        let now = Instant::now();
        self.lock_access().is_silent()
            && self.should_grow(now)
            && self.retry().is_time(now)
            && !self.closing.load(Relaxed)
    }

    fn rush(&self) -> MutexGuard<'_, Rush> {
        self.rush.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retry(&self) -> MutexGuard<'_, Retry> {
        self.retry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All connections, and no further one from here on.
    pub(super) fn close(&self) -> Vec<Arc<Connection>> {
        self.closing.store(true, Relaxed);
        self.all()
    }

    /// All connections.
    pub(super) fn all(&self) -> Vec<Arc<Connection>> {
        self.list().clone()
    }

    /// The connection for the next flow, with a place on it. While all are stalled it waits a moment for a better
    /// one: an open on a stalled connection is not answered before the stall ends.
    ///
    /// # Errors
    /// [`OpenFailure::ConnectionLost`], or [`OpenFailure::NoResources`] when all are full.
    pub(super) async fn place(&self) -> Result<Place, OpenError> {
        // Once per open, not per look: a look rings the bell that the next one waits for.
        if self.should_grow(Instant::now()) {
            self.common.changed.notify_one();
        }
        let patience = tokio::time::sleep(STALL_WAIT);
        tokio::pin!(patience);
        loop {
            // Made before the look: it hears what rings from here on.
            let tended = self.tended.notified();
            let place = self.best()?;
            let load = place.connection.load();
            let is_held_up = load.stalled() > 0 || (load.waiting() > 0 && self.can_grow());
            if !is_held_up {
                return Ok(place);
            }
            drop(place);
            tokio::select! {
                () = tended => {}
                () = &mut patience => return self.best(),
            }
        }
    }

    fn best(&self) -> Result<Place, OpenError> {
        let now = Instant::now();
        let list = self.list();
        let live: Vec<_> = list.iter().filter(|c| c.load().lost().is_none()).collect();
        let burdens: Vec<_> = live.iter().map(|c| Burden::of(c, now)).collect();
        let in_rush = self.rush().is_on(now);
        let index = choose(&burdens, in_rush, self.asked)
            .ok_or_else(|| OpenError::new(OpenFailure::ConnectionLost, ""))?;
        if burdens[index].full {
            return Err(OpenError::new(OpenFailure::NoResources, ""));
        }
        let best = live[index];
        let place = Place {
            connection: Arc::clone(best),
            place: best.load().channel(),
        };
        Ok(place)
    }

    /// Resolves when no connection is left.
    pub(super) async fn lost(&self) -> LostReason {
        let mut lost = self.lost.subscribe();
        match lost.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(reason)) => reason.clone(),
            // The sender lives as long as self.
            _ => no_connection(),
        }
    }

    fn tend(self: &Arc<Self>) -> ControlFlow<()> {
        let (left, lost) = self.sweep();
        if !left {
            let reason = lost.map_or_else(no_connection, |(_, reason)| reason);
            let _ = self.lost.send_replace(Some(reason));
            self.tended.notify_waiters();
            return ControlFlow::Break(());
        }
        if let Some((count, reason)) = lost {
            self.all().iter().for_each(|other| other.load().suspect());
            self.tell_of(count, reason);
        }
        if self.can_grow() && !self.growing.swap(true, Relaxed) {
            // Beside this task: a login that hangs must not hide a loss.
            let pool = Arc::clone(self);
            tokio::spawn(async move {
                pool.grow().await;
                pool.growing.store(false, Relaxed);
                // Perhaps more are wanted already.
                pool.common.changed.notify_one();
            });
        }
        self.tell_of_kept();
        self.tended.notify_waiters();
        ControlFlow::Continue(())
    }

    /// One line for a connection that none has replaced, however much it keeps.
    fn tell_of_kept(&self) {
        let keeps_much = self.list().iter().any(|c| c.load().keeps_much());
        if keeps_much && !self.is_told_of_kept.swap(true, Relaxed) {
            let server = &self.plan.alias;
            warn!(
                "{server}: an SSH connection keeps 256 MiB for flows that are over. A fresh one would free them, but cannot be made \
                 without asking somebody: start underpass again, with a key in an agent if there can be one"
            );
        }
    }

    /// Watches the connections that flows hold up; when to look again.
    fn watch(&self) -> Duration {
        let now = Instant::now();
        let mut all = self.all();
        all.retain(|connection| connection.load().waiting() > 0);
        all.iter().for_each(|connection| connection.watch(now));
        if all.is_empty() { TICK } else { vigil::LOOK }
    }

    /// Removes connections that are lost, and old ones whose last flow has ended. Whether any is left, and how many
    /// were lost, with the reason of the last.
    fn sweep(&self) -> (bool, Option<(usize, LostReason)>) {
        let now = Instant::now();
        let mut list = self.list();
        let mut lost: Option<(usize, LostReason)> = None;
        list.retain(|c| {
            let Some(reason) = c.load().lost() else {
                return true;
            };
            let count = lost.as_ref().map_or(0, |(count, _)| *count);
            lost = Some((count + 1, reason.clone()));
            false
        });
        if list.iter().any(|c| Burden::of(c, now).is_open()) {
            list.retain(|c| !c.is_due(now) || c.load().channels() > 0);
        }
        (!list.is_empty(), lost)
    }

    /// One line for connections that are lost together, and none when all are: that has a line of its own.
    fn tell_of(self: &Arc<Self>, count: usize, reason: LostReason) {
        let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        losses.count += count;
        losses.reason = Some(reason);
        if std::mem::replace(&mut losses.is_told_of, true) {
            return;
        }
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(LOST_TOGETHER).await;
            let mut losses = pool.losses.lock().unwrap_or_else(PoisonError::into_inner);
            let Losses { count, reason, .. } = std::mem::take(&mut *losses);
            if let (false, Some(reason)) = (pool.is_over(), reason) {
                let server = &pool.plan.alias;
                warn!(
                    "{server}: lost {count} of the SSH connections, and the flows there: {reason}"
                );
            }
        });
    }

    /// Adds a connection whose login began after so many `checks`. Where the host has slept since, it has to give a sign of
    /// life first, as the others had to: it may have been let in before.
    async fn add(&self, fresh: Arc<Connection>, mut checks: u64) {
        while let Some(now) = self.join(&fresh, checks) {
            fresh.check().await;
            checks = now;
        }
    }

    /// The number of checks, where there was another one; adds it otherwise, if it is not lost.
    fn join(&self, fresh: &Arc<Connection>, checks: u64) -> Option<u64> {
        let mut list = self.list();
        let now = self.checks.load(Relaxed);
        if now != checks {
            return Some(now);
        }
        if !self.is_over() && fresh.load().lost().is_none() {
            list.push(Arc::clone(fresh));
            debug!("connections to the server: {}", list.len());
        }
        None
    }

    async fn grow(&self) {
        let checks = self.checks.load(Relaxed);
        let common = Arc::clone(&self.common);
        let access = self.access();
        let login = login::further(&self.plan, &access, common);
        let error = match tokio::time::timeout(LOGIN_TIMEOUT, login).await {
            Ok(Ok((connection, access))) => {
                self.renew(access);
                *self.retry() = Retry::default();
                return self.add(Arc::new(connection), checks).await;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the login takes too long".to_owned(),
        };
        let wait = self.retry().failed(Instant::now()).as_secs();
        // Where the server is gone, the last connection goes with it: that has a line of its own.
        tokio::time::sleep(LOST_TOGETHER).await;
        if self.is_over() {
            return;
        }
        info!("no further connection for now (next try in {wait} s): {error}");
    }
}

/// How many connections there should be, where that does not depend on the flows.
fn asked(plan: &SshPlan) -> Option<usize> {
    plan.connections.or(plan.is_one_connection().then_some(1))
}

fn no_connection() -> LostReason {
    LostReason::Broken("no connection".to_owned())
}

/// Connections that were lost and not told of yet.
#[derive(Debug, Default)]
struct Losses {
    count: usize,
    reason: Option<LostReason>,
    /// A line is to come.
    is_told_of: bool,
}
