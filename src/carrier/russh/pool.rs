//! The connections of one carrier: which one a new flow goes to, when a further one is made, and when an old
//! one is let go.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::backlog::Store;
use super::connection::Connection;
use super::load::ChannelGuard;
use super::login::{self, Access};
use crate::carrier::error::LostReason;
use crate::net::{OpenError, OpenFailure};
use crate::plan::SshPlan;

/// Connections at most, those that are being let go included.
const MAX_CONNECTIONS: usize = 16;
/// Connections at least, where a login asks nobody: a flow that comes while another transfers in bulk has one to itself,
/// and of many the two share the work (measured with 8 flows: 1.1 times the download, 1.4 times the upload of one).
const CONNECTIONS_MIN: usize = 2;
/// Connections up to which bulk transfers are kept apart from what comes next.
const CONNECTIONS_APART: usize = 4;
/// Channels per connection above which a further one is made. russh walks all channels of a connection for each packet
/// (`has_any_pending_data`), so a busy flow pays for the idle ones beside it; and sshd needs a descriptor for
/// each, of which a process has 1,024 by default.
const CHANNELS_WANTED: usize = 900;
/// A connection with fewer channels is quick: sshd and russh both walk all channels of a connection again and again
/// (measured: 100 idle ones halve a download beside them, 1,100 bring it down to a sixteenth). One such is kept ready.
const CHANNELS_QUICK: usize = 32;
/// Channels per connection on average from which more than [`CONNECTIONS_APART`] are worth their logins.
const CHANNELS_MANY: usize = 256;
/// Channels on one connection at most. sshd ends the session at 16,384 (channels.h CHANNELS_MAX_CHANNELS).
const CHANNELS_MAX: usize = 16_000;
/// How long an open waits for a connection that is not stalled.
const STALL_WAIT: Duration = Duration::from_secs(10);
/// How often ages are looked at.
const TICK: Duration = Duration::from_secs(30);
/// How long a login in the background may take.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections lost within this time are lost together.
const LOST_TOGETHER: Duration = Duration::from_millis(300);
/// Wait after a login that failed; doubled each time.
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_LAST: Duration = Duration::from_secs(600);

/// The connections.
pub(super) struct Pool {
    plan: SshPlan,
    access: Access,
    connections: Mutex<Vec<Arc<Connection>>>,
    changed: Arc<Notify>,
    /// Rung after every look at the connections.
    tended: Notify,
    store: Arc<Store>,
    lost: watch::Sender<Option<LostReason>>,
    losses: Mutex<Losses>,
    retry: Mutex<Retry>,
    rush: Mutex<Rush>,
    /// A login is under way.
    growing: AtomicBool,
    /// No further connection is to be made.
    closing: AtomicBool,
}

/// A connection, and a place on it.
pub(super) struct Place {
    pub(super) connection: Arc<Connection>,
    pub(super) place: ChannelGuard,
}

/// What a connection looks like to the choice of the next flow: the least is best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Burden {
    full: bool,
    stalled: bool,
    due: bool,
    slow: bool,
    busy: bool,
    channels: usize,
}

impl Burden {
    fn of(connection: &Connection, now: Instant) -> Self {
        let load = connection.load();
        Self {
            full: load.channels() >= CHANNELS_MAX,
            stalled: load.stalled() + load.waiting() > 0,
            due: connection.is_due(now),
            slow: load.channels() >= CHANNELS_QUICK,
            busy: load.is_busy(now),
            channels: load.channels(),
        }
    }

    /// Whether it counts as a place for new flows.
    fn is_open(&self) -> bool {
        !self.full && !self.stalled && !self.due
    }
}

/// Whether a further connection is to be made now: there should be two, and one that is quick and carries no bulk
/// transfer, as long as that takes few connections or the flows are many.
/// Where a number was `asked` for, there should be so many.
fn should_grow(burdens: &[Burden], asked: Option<usize>) -> bool {
    if let Some(asked) = asked {
        let staying = burdens.iter().filter(|b| !b.due).count();
        return staying < asked && burdens.len() <= MAX_CONNECTIONS;
    }
    let open: Vec<_> = burdens.iter().filter(|b| b.is_open()).collect();
    let channels: usize = open.iter().map(|b| b.channels).sum();
    let none_quick = open.iter().all(|b| b.slow);
    let none_free = open.iter().all(|b| b.slow || b.busy);
    let wanted = open.len() < CONNECTIONS_MIN
        || (none_free && open.len() < CONNECTIONS_APART)
        || (none_quick && channels >= open.len() * CHANNELS_MANY);
    burdens.len() < MAX_CONNECTIONS && wanted
}

/// The place in `burdens` of the connection for the next flow. Flows gather on one connection while it is quick and
/// carries no bulk transfer: eight downloads that begin together take a fifth less CPU over one connection than over two,
/// and the next flow finds a connection to itself. In a rush (a scan, an application that opens thousands) they are packed
/// together beyond that, so that the quick connection stays so for who comes next. Where a number of connections was
/// `asked` for, flows are spread over them.
fn choose(burdens: &[Burden], in_rush: bool, asked: Option<usize>) -> Option<usize> {
    let fits = |b: &Burden| b.is_open() && !b.busy && b.slow && b.channels < CHANNELS_WANTED;
    let packed = || {
        let fitting = burdens.iter().enumerate().filter(|(_, b)| fits(b));
        fitting.max_by_key(|(_, b)| b.channels)
    };
    let gathered = || {
        let quick = |b: &Burden| b.is_open() && !b.busy && !b.slow;
        let fitting = burdens.iter().enumerate().filter(|(_, b)| quick(b));
        // Of those with as many, the oldest.
        fitting.rev().max_by_key(|(_, b)| b.channels)
    };
    let least = || burdens.iter().enumerate().min_by_key(|(_, b)| **b);
    let chosen = match (asked, in_rush) {
        (Some(_), _) => None,
        (None, true) => packed().or_else(gathered),
        (None, false) => gathered(),
    };
    let chosen = chosen.or_else(least);
    chosen.map(|(index, _)| index)
}

/// Notices when many flows come at once.
#[derive(Debug)]
struct Rush {
    since: Instant,
    count: u32,
    last: u32,
}

impl Rush {
    /// Time over which new flows are counted, and how many of them make a rush.
    const SPAN: Duration = Duration::from_millis(100);
    const MANY: u32 = 50;

    fn new(now: Instant) -> Self {
        Self {
            since: now,
            count: 0,
            last: 0,
        }
    }

    /// Counts a new flow; whether it is one of many.
    fn is_on(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= Self::SPAN {
            self.last = if elapsed < 2 * Self::SPAN {
                self.count
            } else {
                0
            };
            (self.since, self.count) = (now, 0);
        }
        self.count += 1;
        self.count.max(self.last) > Self::MANY
    }
}

impl Pool {
    pub(super) fn new(
        plan: SshPlan,
        access: Access,
        first: Connection,
        changed: Arc<Notify>,
    ) -> Arc<Self> {
        if plan.connections.is_some_and(|asked| asked > 1) && !access.is_silent() {
            warn!(
                "this login asks somebody each time: there is one connection, whatever --connections says"
            );
        }
        let pool = Arc::new(Self {
            plan,
            access,
            connections: Mutex::new(vec![Arc::new(first)]),
            changed,
            tended: Notify::new(),
            store: Arc::default(),
            lost: watch::Sender::new(None),
            losses: Mutex::default(),
            retry: Mutex::default(),
            rush: Mutex::new(Rush::new(Instant::now())),
            growing: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        });
        pool.changed.notify_one();
        // Weak inside: the task must not keep alive what its end depends on.
        let weak = Arc::downgrade(&pool);
        let bell = Arc::clone(&pool.changed);
        tokio::spawn(async move {
            loop {
                // An elapsed tick is as good as a bell.
                let _ = tokio::time::timeout(TICK, bell.notified()).await;
                let Some(pool) = weak.upgrade() else {
                    return;
                };
                if pool.tend().is_break() {
                    return;
                }
            }
        });
        pool
    }

    pub(super) fn plan(&self) -> &SshPlan {
        &self.plan
    }

    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// Asks every connection for a sign of life; those that give none are lost.
    pub(super) async fn check(&self) {
        let mut checks = JoinSet::new();
        for connection in self.all() {
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
        should_grow(&burdens(&self.list(), now), self.plan.connections)
    }

    /// Whether a further connection could be made now.
    fn can_grow(&self) -> bool {
        self.access.is_silent()
            && self.list().len() <= MAX_CONNECTIONS
            && self.retry().is_time(Instant::now())
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
            self.changed.notify_one();
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
        let index = choose(&burdens, in_rush, self.plan.connections)
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
            self.tell_of(count, reason);
        }
        let now = Instant::now();
        let grow = self.should_grow(now) && self.can_grow();
        if grow && !self.growing.swap(true, Relaxed) {
            // Beside this task: a login that hangs must not hide a loss.
            let pool = Arc::clone(self);
            tokio::spawn(async move {
                pool.grow().await;
                pool.growing.store(false, Relaxed);
                // Perhaps more are wanted already.
                pool.changed.notify_one();
            });
        }
        self.tended.notify_waiters();
        ControlFlow::Continue(())
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
                warn!("lost {count} of the SSH connections, and the flows on it: {reason}");
            }
        });
    }

    async fn grow(&self) {
        let changed = Arc::clone(&self.changed);
        let login = login::further(&self.plan, &self.access, changed);
        let error = match tokio::time::timeout(LOGIN_TIMEOUT, login).await {
            Ok(Ok(connection)) => {
                *self.retry() = Retry::default();
                if !self.is_over() {
                    let mut list = self.list();
                    list.push(Arc::new(connection));
                    debug!("connections to the server: {}", list.len());
                }
                return;
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

fn burdens(list: &[Arc<Connection>], now: Instant) -> Vec<Burden> {
    list.iter().map(|c| Burden::of(c, now)).collect()
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

/// When the next login may be tried.
#[derive(Debug, Default)]
struct Retry {
    not_before: Option<Instant>,
    wait: Duration,
}

impl Retry {
    fn is_time(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| now >= at)
    }

    /// How long to wait now.
    fn failed(&mut self, now: Instant) -> Duration {
        self.wait = (self.wait * 2).clamp(RETRY_FIRST, RETRY_LAST);
        self.not_before = Some(now + self.wait);
        self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Burden = Burden {
        full: false,
        stalled: false,
        due: false,
        slow: false,
        busy: false,
        channels: 0,
    };

    fn with(channels: usize) -> Burden {
        Burden {
            channels,
            slow: channels >= CHANNELS_QUICK,
            ..FRESH
        }
    }

    #[test]
    fn there_are_two_and_one_of_them_is_quick() {
        assert!(should_grow(&[FRESH], None));
        assert!(!should_grow(&[FRESH, FRESH], None));
        let some = with(CHANNELS_QUICK);
        assert!(!should_grow(&[some, FRESH], None));
        assert!(should_grow(&[some, some], None));
        assert!(!should_grow(&[some; CONNECTIONS_APART], None));
        let many = with(CHANNELS_MANY);
        assert!(should_grow(&[many; CONNECTIONS_APART], None));
        assert!(!should_grow(&[many, many, many, many, FRESH], None));
        assert!(!should_grow(&[many; MAX_CONNECTIONS], None));
    }

    #[test]
    fn as_many_as_asked_for_and_flows_are_spread() {
        let asked = Some(3);
        let (busy, due) = (true, true);
        assert!(should_grow(&[FRESH, FRESH], asked));
        assert!(!should_grow(&[with(900), with(900), with(900)], asked));
        assert!(!should_grow(&[Burden { busy, ..FRESH }], Some(1)));
        assert!(should_grow(&[FRESH, FRESH, Burden { due, ..FRESH }], asked));
        assert_eq!(choose(&[with(3), with(5), with(2)], false, asked), Some(2));
        assert_eq!(
            choose(&[with(300), with(899), with(5)], true, asked),
            Some(2)
        );
    }

    #[test]
    fn flows_gather_where_it_is_quick() {
        let busy = Burden {
            busy: true,
            ..with(20)
        };
        assert_eq!(choose(&[with(3), with(5), FRESH], false, None), Some(1));
        assert_eq!(choose(&[FRESH, FRESH], false, None), Some(0));
        assert_eq!(choose(&[busy, FRESH], false, None), Some(1));
        assert_eq!(
            choose(&[with(CHANNELS_QUICK), with(2)], false, None),
            Some(1)
        );
        assert_eq!(choose(&[busy, with(CHANNELS_QUICK)], false, None), Some(0));
    }

    #[test]
    fn in_a_rush_flows_are_packed() {
        let burdens = [with(300), with(899), with(900), with(5)];
        assert_eq!(choose(&burdens, true, None), Some(1));
        assert_eq!(choose(&burdens, false, None), Some(3));
        assert_eq!(choose(&[with(900), with(7)], true, None), Some(1));
        assert_eq!(choose(&[], true, None), None);
    }

    #[test]
    fn many_at_once_are_a_rush_and_few_are_none() {
        let now = Instant::now();
        let mut rush = Rush::new(now);
        assert!((0..Rush::MANY).all(|_| !rush.is_on(now)));
        assert!(rush.is_on(now));
        assert!(rush.is_on(now + Rush::SPAN));
        assert!(!rush.is_on(now + 5 * Rush::SPAN));
    }

    #[test]
    fn what_takes_no_new_flows_is_replaced() {
        let (stalled, due, full) = (true, true, true);
        for closed in [
            Burden { stalled, ..FRESH },
            Burden { due, ..FRESH },
            Burden { full, ..FRESH },
        ] {
            assert!(should_grow(&[closed, FRESH], None));
            assert!(!should_grow(&[closed, FRESH, FRESH], None));
            assert!(FRESH < closed);
        }
    }

    #[test]
    fn a_new_flow_keeps_away_from_bulk_but_not_at_any_price() {
        let busy = Burden {
            busy: true,
            ..FRESH
        };
        assert!(with(CHANNELS_QUICK - 1) < busy);
        assert!(busy < with(CHANNELS_QUICK));
        assert!(should_grow(&[busy, busy], None));
        assert!(!should_grow(&[busy, FRESH], None));
        assert!(!should_grow(&[busy; CONNECTIONS_APART], None));
    }

    #[test]
    fn logins_that_fail_are_retried_less_and_less() {
        let now = Instant::now();
        let mut retry = Retry::default();
        assert!(retry.is_time(now));
        assert_eq!(retry.failed(now), RETRY_FIRST);
        assert!(!retry.is_time(now));
        assert!(retry.is_time(now + RETRY_FIRST));
        assert_eq!(retry.failed(now), RETRY_FIRST * 2);
        for _ in 0..20 {
            retry.failed(now);
        }
        assert_eq!(retry.failed(now), RETRY_LAST);
    }
}
