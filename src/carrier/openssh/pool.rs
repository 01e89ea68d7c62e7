//! The masters of one carrier: which one a new flow goes to, when a further one is started, and when an old one is
//! let go.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use super::client::{Asks, Client};
use super::connection::Connection;
use super::life;
use super::master::Master;
use super::shared::Burden;
use crate::carrier::error::{ConnectError, LostReason};
use crate::carrier::expired::Expiry;
use crate::carrier::link::Description;
use crate::net::{OpenError, OpenFailure};

/// Masters at most, those that are being let go included.
const MOST: usize = 16;
/// How often is looked at what no event tells.
const TICK: Duration = Duration::from_secs(10);
/// How long a login that asks nobody may take.
const LOGIN: Duration = Duration::from_secs(60);
/// Wait after such a login has failed; doubled each time, up to the second.
const WAITS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(600)];

/// The masters.
pub(super) struct Pool {
    client: Client,
    masters: Mutex<Vec<Arc<Connection>>>,
    /// Rung when something has happened to a master.
    changed: Arc<Notify>,
    /// Why nothing is left, once that is so.
    lost: watch::Sender<Option<LostReason>>,
    next_try: Mutex<NextTry>,
    /// How often all were asked for a sign of life.
    checks: AtomicU64,
    /// A login is under way.
    is_growing: AtomicBool,
    is_closing: AtomicBool,
}

/// When the next login may be tried.
#[derive(Debug, Default)]
struct NextTry {
    after: Option<Instant>,
    wait: Duration,
    /// It was said that no fresh master comes.
    is_told: bool,
}

/// How many of `burdens` may take new flows.
fn fresh(burdens: impl Iterator<Item = Burden>) -> usize {
    burdens.filter(|b| !b.is_due() && !b.is_crowded()).count()
}

/// Whether none of those that are left should take new flows.
fn is_used_up(burdens: &[Burden]) -> bool {
    !burdens.is_empty() && fresh(burdens.iter().copied()) == 0
}

/// Whether a further master is wanted: fewer than `spread` may take new flows.
fn should_grow(burdens: &[Burden], spread: usize) -> bool {
    burdens.len() < MOST && fresh(burdens.iter().copied()) < spread
}

/// The place in `burdens` of the master for the next flow: flows gather on the first that has room, or `spread` over those
/// that have, else they go where the fewest are.
fn choose(burdens: &[Option<Burden>], spread: usize) -> Option<usize> {
    let live = || {
        let all = burdens.iter().enumerate();
        all.filter_map(|(index, burden)| Some((index, (*burden)?)))
    };
    let mut roomy = live().filter(|(_, b)| !b.is_due() && !b.is_crowded());
    let roomy = match spread {
        0 | 1 => roomy.next(),
        _ => roomy.min_by_key(|(_, b)| b.channels),
    };
    let fewest = || live().min_by_key(|(_, b)| (b.is_full(), b.is_due(), b.channels));
    roomy.or_else(fewest).map(|(index, _)| index)
}

/// The master that is needed no more, if there is one: without a flow, and beside `spread` that may take new ones.
fn superfluous(burdens: &[Option<Burden>], spread: usize) -> Option<usize> {
    let others = |index: usize| {
        let others = burdens.iter().enumerate().filter(|(i, _)| *i != index);
        fresh(others.filter_map(|(_, burden)| *burden))
    };
    let idle = |index: &usize| burdens[*index].is_some_and(|b| b.flows == 0);
    let mut indices = (0..burdens.len()).rev();
    indices.find(|index| idle(index) && others(*index) >= spread)
}

impl Pool {
    /// Starts the first master.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub(super) async fn start(
        client: Client,
        asks: Asks,
    ) -> Result<(Arc<Self>, Description), ConnectError> {
        let (master, socket) = Master::start(&client, asks).await?;
        let description = master.description();
        let changed = Arc::new(Notify::new());
        let first = Connection::start(master, socket, Arc::clone(&changed));
        if !first.run_true(Some(Expiry::of(client.plan()))).await {
            debug!("the server runs no session: short exchanges may take 40 ms");
        }
        let pool = Arc::new(Self {
            client,
            masters: Mutex::new(vec![first]),
            changed,
            lost: watch::Sender::new(None),
            next_try: Mutex::default(),
            checks: AtomicU64::new(0),
            is_growing: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
        });
        tokio::spawn(Arc::clone(&pool).tend_always());
        Ok((pool, description))
    }

    /// How many masters take new flows (`--connections`).
    fn spread(&self) -> usize {
        self.client.plan().connections.unwrap_or(1)
    }

    /// The ssh that the masters are.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Where the masters' TCP connections go.
    pub(super) fn peers(&self) -> Vec<IpAddr> {
        let masters = self.masters();
        masters.iter().flat_map(|m| m.peers()).copied().collect()
    }

    /// The master for a new flow.
    ///
    /// # Errors
    /// There is none any more.
    pub(super) fn place(&self) -> Result<Arc<Connection>, OpenError> {
        let masters = self.masters();
        let index = choose(&burdens(&masters), self.spread());
        let master = index.and_then(|index| masters.get(index));
        master
            .cloned()
            .ok_or_else(|| OpenError::new(OpenFailure::ConnectionLost, ""))
    }

    /// Resolves when no master is left.
    pub(super) async fn lost(&self) -> LostReason {
        let mut lost = self.lost.subscribe();
        match lost.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(reason)) => reason.clone(),
            // The sender lives as long as self.
            _ => LostReason::Broken("ssh has ended".to_owned()),
        }
    }

    /// All masters that there are.
    pub(super) fn all(&self) -> Vec<Arc<Connection>> {
        self.masters().clone()
    }

    /// Asks every master's server for a sign of life; those that give none are lost.
    pub(super) async fn check(&self) {
        let all = {
            // Under the lock: who joins later knows of it.
            let masters = self.masters();
            self.checks.fetch_add(1, Relaxed);
            masters.clone()
        };
        life::check_all(all).await;
    }

    /// Ends all masters.
    pub(super) fn close(&self) {
        self.is_closing.store(true, Relaxed);
        self.masters().iter().for_each(|master| master.stop());
        self.changed.notify_one();
    }

    /// Resolves when all masters have ended after [`close`](Self::close).
    pub(super) async fn ended(&self) {
        self.lost().await;
    }

    fn masters(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.masters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_try(&self) -> MutexGuard<'_, NextTry> {
        self.next_try.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tend_always(self: Arc<Self>) {
        while self.tend().is_continue() {
            // The time-out is a reason to look too.
            let _ = tokio::time::timeout(TICK, self.changed.notified()).await;
        }
    }

    fn tend(self: &Arc<Self>) -> ControlFlow<()> {
        if let Some(reason) = self.clear() {
            let _ = self.lost.send_replace(Some(reason));
            return ControlFlow::Break(());
        }
        let now = Instant::now();
        let masters = self.all();
        masters.iter().for_each(|master| master.sweep(now));
        let burdens = burdens(&masters);
        if let Some(index) = superfluous(&burdens, self.spread()) {
            debug!("an ssh that is needed no more is ended");
            masters[index].stop();
        }
        let live: Vec<_> = burdens.into_iter().flatten().collect();
        let is_time = self.next_try().after.is_none_or(|after| now >= after);
        let may_grow = is_time && !self.is_closing.load(Relaxed);
        if may_grow && should_grow(&live, self.spread()) && !self.is_growing.swap(true, Relaxed) {
            // Beside this task: a login that hangs must not hide a loss.
            let pool = Arc::clone(self);
            tokio::spawn(async move {
                pool.grow().await;
                pool.is_growing.store(false, Relaxed);
                pool.changed.notify_one();
            });
        }
        ControlFlow::Continue(())
    }

    /// Removes masters that have ended. The reason of the last one when none is left.
    fn clear(&self) -> Option<LostReason> {
        let mut masters = self.masters();
        let mut ended = Vec::new();
        masters.retain(|master| {
            let lost = master
                .lost()
                .map(|lost| (lost.clone(), master.was_stopped()));
            ended.extend(lost.clone());
            lost.is_none()
        });
        if masters.is_empty() {
            return ended.pop().map(|(lost, _)| lost);
        }
        let mut lost = ended.iter().filter(|(_, was_stopped)| !was_stopped);
        let count = lost.clone().count();
        if let Some((reason, _)) = lost.next() {
            let server = &self.client.plan().alias;
            warn!("{server}: lost {count} of the SSH connections, and the flows there: {reason}");
        }
        None
    }

    async fn grow(&self) {
        let mut checks = self.checks.load(Relaxed);
        let login = Master::start(&self.client, Asks::Nobody);
        let failure = match tokio::time::timeout(LOGIN, login).await {
            Ok(Ok((master, socket))) => {
                let fresh = Connection::start(master, socket, Arc::clone(&self.changed));
                fresh.run_true(None).await;
                *self.next_try() = NextTry::default();
                // Where the host has slept since, it has to give a sign of life, as the others had to: it may have been let
                // in before.
                while let Some(now) = self.add(&fresh, checks) {
                    fresh.check().await;
                    checks = now;
                }
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the login takes too long".to_owned(),
        };
        self.put_off(&failure);
    }

    /// The number of checks, where it is not `checks`; adds a master otherwise.
    fn add(&self, fresh: &Arc<Connection>, checks: u64) -> Option<u64> {
        let mut masters = self.masters();
        let now = self.checks.load(Relaxed);
        if now != checks {
            return Some(now);
        }
        if masters.is_empty() || self.is_closing.load(Relaxed) {
            // Nobody waits for it: it ends by itself.
            fresh.stop();
        } else if fresh.burden().is_some() {
            // In front: flows gather on the first.
            masters.insert(0, Arc::clone(fresh));
            debug!("connections to the server: {}", masters.len());
        }
        None
    }

    fn put_off(&self, failure: &str) {
        let live: Vec<_> = burdens(&self.masters()).into_iter().flatten().collect();
        if live.is_empty() {
            // All is lost, and told as that.
            debug!("no further ssh: {failure}");
            return;
        }
        let mut next = self.next_try();
        next.wait = (next.wait * 2).clamp(WAITS[0], WAITS[1]);
        next.after = Some(Instant::now() + next.wait);
        if std::mem::replace(&mut next.is_told, true) {
            info!("no further ssh for now: {failure}");
            return;
        }
        if !is_used_up(&live) {
            warn!(
                "--connections: a further ssh cannot log in by itself ({failure}). A key in an agent helps"
            );
            return;
        }
        warn!(
            "this ssh has nearly used itself up, with refused or with open connections, and a further one cannot log in by \
             itself ({failure}). When its 16,000 places are gone there will be no new connections until the open ones have \
             ended. A key in an agent helps"
        );
    }
}

fn burdens(masters: &[Arc<Connection>]) -> Vec<Option<Burden>> {
    masters.iter().map(|master| master.burden()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burden(channels: usize, refused: u64) -> Option<Burden> {
        Some(Burden {
            channels,
            flows: channels,
            refused,
        })
    }

    #[test]
    fn flows_gather_where_there_is_room() {
        assert_eq!(choose(&[], 1), None);
        assert_eq!(choose(&[None], 1), None);
        assert_eq!(choose(&[burden(5, 0), burden(1, 0)], 1), Some(0));
        assert_eq!(choose(&[burden(900, 0), burden(5, 7_999)], 1), Some(1));
        assert_eq!(choose(&[None, burden(0, 8_000)], 1), Some(1));
        assert_eq!(choose(&[burden(1_500, 0), burden(1_000, 0)], 1), Some(1));
        assert_eq!(choose(&[burden(0, 16_000), burden(9_000, 0)], 1), Some(1));
    }

    #[test]
    fn one_more_is_started_before_the_last_one_is_used_up() {
        let grows = |burdens: &[Option<Burden>]| {
            should_grow(&burdens.iter().flatten().copied().collect::<Vec<_>>(), 1)
        };
        assert!(!grows(&[burden(899, 7_999)]));
        assert!(grows(&[burden(0, 8_000)]));
        assert!(grows(&[burden(900, 0)]));
        assert!(!grows(&[burden(900, 0), burden(3, 0)]));
        assert!(!grows(&[burden(900, 0); MOST]));
    }

    /// With three of them and a server that is killed, each fails to be replaced while the others go.
    #[test]
    fn where_none_is_left_none_is_used_up() {
        assert!(!is_used_up(&[]));
        let [some, full] = [burden(3, 0).unwrap(), burden(0, 8_000).unwrap()];
        assert!(!is_used_up(&[some, full]));
        assert!(is_used_up(&[full]));
    }

    #[test]
    fn as_many_as_were_asked_for_share_the_flows() {
        let fresh = burden(3, 0).unwrap();
        assert!(should_grow(&[fresh; 2], 3));
        assert!(!should_grow(&[fresh; 3], 3));
        assert_eq!(
            choose(&[burden(3, 0), burden(1, 0), burden(2, 0)], 3),
            Some(1)
        );
        assert_eq!(superfluous(&[burden(3, 0), burden(0, 0)], 2), None);
        assert_eq!(
            superfluous(&[burden(3, 0), burden(0, 0), burden(1, 0)], 2),
            Some(1)
        );
    }

    #[test]
    fn what_is_needed_no_more_goes() {
        assert_eq!(superfluous(&[burden(0, 0)], 1), None);
        assert_eq!(superfluous(&[burden(0, 8_000)], 1), None);
        assert_eq!(superfluous(&[burden(3, 0), burden(0, 8_000)], 1), Some(1));
        assert_eq!(superfluous(&[burden(3, 0), burden(1, 8_000)], 1), None);
        assert_eq!(superfluous(&[burden(3, 0), None, burden(0, 0)], 1), Some(2));
    }
}
