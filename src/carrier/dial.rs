//! The dial budget in front of every open.
//!
//! An open that the server has begun cannot be taken back (RFC 4254 has no message for it), and one to a host
//! that never answers stays for about two minutes. Without a bound a scan of silent addresses would fill the
//! server's channel table, and everybody would wait behind it. So opens in flight are counted per host and
//! in all, and what is over waits in a queue of its host:
//!
//! - a host alone may have many in flight, so that a burst to a live host is not held up;
//! - the fuller the budget, the fewer each host may have, down to one: silent hosts share what is there, and the
//!   first open to a further host still goes out at once;
//! - the last quarter is for hosts that have answered before.
//!
//! `Budget` decides and knows neither time nor tasks; [`DialBudget`] waits.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::net::{OpenError, OpenFailure};

/// Opens in flight at most.
const TOTAL: usize = 4096;
/// Of these, kept for hosts that have answered before.
const RESERVE: usize = TOTAL / 4;
/// In flight per host, by how many are in flight in all: below the first number the second holds.
const PER_HOST: [(usize, usize); 4] = [(2048, 256), (2560, 16), (2816, 4), (TOTAL, 1)];
/// The same for hosts that have answered before.
const PER_LIVE_HOST: [(usize, usize); 2] = [(2048, 256), (TOTAL, 64)];
/// Hosts remembered as having answered, at most; beyond it the idle ones are forgotten.
const REMEMBERED: usize = 16_384;
/// Waiting hosts looked at in vain before an end stops looking.
const LOOKS: usize = 64;

/// An open that waits, named by its owner.
type Ticket = u64;

/// Who may go out now. Order of calls: [`request`](Self::request) once per open; when it waits, either
/// it comes out of [`ended`](Self::ended) later or [`withdraw`](Self::withdraw) takes it back; whoever was let out
/// calls `ended` once.
#[derive(Debug, Default)]
struct Budget {
    pending: usize,
    hosts: HashMap<IpAddr, Host>,
    /// Hosts with a queue, each once, in turn.
    turn: VecDeque<IpAddr>,
}

#[derive(Debug, Default)]
struct Host {
    pending: usize,
    queue: VecDeque<Ticket>,
    /// It took or refused a connection.
    live: bool,
}

impl Host {
    fn may_start(&self, pending: usize) -> bool {
        let (tiers, total): (&[_], _) = if self.live {
            (&PER_LIVE_HOST, TOTAL)
        } else {
            (&PER_HOST, TOTAL - RESERVE)
        };
        let tier = tiers.iter().find(|(below, _)| pending < *below);
        pending < total && tier.is_some_and(|(_, cap)| self.pending < *cap)
    }

    fn is_idle(&self) -> bool {
        self.pending == 0 && self.queue.is_empty()
    }
}

impl Budget {
    /// Whether `ticket` may go out to `host` now; otherwise it waits.
    fn request(&mut self, host: IpAddr, ticket: Ticket) -> bool {
        let entry = self.hosts.entry(host).or_default();
        if entry.queue.is_empty() && entry.may_start(self.pending) {
            entry.pending += 1;
            self.pending += 1;
            return true;
        }
        if entry.queue.is_empty() {
            self.turn.push_back(host);
        }
        entry.queue.push_back(ticket);
        false
    }

    /// An open to `host` is over; `live` when the host itself answered, `None` when that is not known.
    /// Returns the tickets that may go out now.
    fn ended(&mut self, host: IpAddr, live: Option<bool>) -> Vec<Ticket> {
        self.pending = self.pending.saturating_sub(1);
        if let Some(entry) = self.hosts.get_mut(&host) {
            entry.pending = entry.pending.saturating_sub(1);
            entry.live = live.unwrap_or(entry.live);
        }
        let started = self.start_waiting(host);
        self.forget(host);
        started
    }

    /// Takes a waiting ticket back. `false` when it does not wait any more.
    fn withdraw(&mut self, host: IpAddr, ticket: Ticket) -> bool {
        let Some(entry) = self.hosts.get_mut(&host) else {
            return false;
        };
        let Some(at) = entry.queue.iter().position(|t| *t == ticket) else {
            return false;
        };
        entry.queue.remove(at);
        if entry.queue.is_empty() {
            self.turn.retain(|h| *h != host);
        }
        self.forget(host);
        true
    }

    /// The host whose open ended goes first, then the others in turn.
    fn start_waiting(&mut self, first: IpAddr) -> Vec<Ticket> {
        let mut started: Vec<Ticket> = self.start_one(first).into_iter().collect();
        let mut in_vain = 0;
        while in_vain < LOOKS.min(self.turn.len()) {
            let Some(host) = self.turn.pop_front() else {
                break;
            };
            self.turn.push_back(host);
            match self.start_one(host) {
                Some(ticket) => {
                    started.push(ticket);
                    in_vain = 0;
                }
                None => in_vain += 1,
            }
        }
        started
    }

    fn start_one(&mut self, host: IpAddr) -> Option<Ticket> {
        let entry = self.hosts.get_mut(&host)?;
        if !entry.may_start(self.pending) {
            return None;
        }
        let ticket = entry.queue.pop_front()?;
        entry.pending += 1;
        self.pending += 1;
        if entry.queue.is_empty() {
            self.turn.retain(|h| *h != host);
        }
        Some(ticket)
    }

    /// Keeps the table small: idle hosts stay only while they are worth remembering.
    fn forget(&mut self, host: IpAddr) {
        if self
            .hosts
            .get(&host)
            .is_some_and(|h| h.is_idle() && !h.live)
        {
            self.hosts.remove(&host);
        }
        if self.hosts.len() > REMEMBERED {
            self.hosts.retain(|_, h| !h.is_idle());
        }
    }
}

/// The budget of one carrier, shared by all its opens.
#[derive(Debug, Default)]
pub struct DialBudget {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    budget: Budget,
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
    next: Ticket,
}

impl State {
    /// Lets go whoever may go now.
    fn wake(&mut self, tickets: &[Ticket]) {
        for ticket in tickets {
            if let Some(waiter) = self.waiting.remove(ticket) {
                // A waiter that is gone gives its place back by itself: see Waiting.
                let _ = waiter.send(());
            }
        }
    }
}

impl DialBudget {
    fn state(&self) -> MutexGuard<'_, State> {
        // Counters of a budget: wrong by one at worst, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place for an open to `host`. Cancel safe: a dropped future has taken none.
    pub async fn acquire(self: &Arc<Self>, host: IpAddr) -> DialPermit {
        if let Some(mut waiting) = self.enter(host) {
            // The sender is only dropped after it has sent.
            let _ = (&mut waiting.let_out).await;
            waiting.done = true;
        }
        DialPermit {
            budget: Arc::clone(self),
            host,
            live: None,
        }
    }

    /// `None`: go out now.
    fn enter(self: &Arc<Self>, host: IpAddr) -> Option<Waiting> {
        let mut state = self.state();
        let ticket = state.next;
        state.next += 1;
        if state.budget.request(host, ticket) {
            return None;
        }
        let (sender, let_out) = oneshot::channel();
        state.waiting.insert(ticket, sender);
        Some(Waiting {
            budget: Arc::clone(self),
            host,
            ticket,
            let_out,
            done: false,
        })
    }

    fn ended(&self, host: IpAddr, live: Option<bool>) {
        let mut state = self.state();
        let tickets = state.budget.ended(host, live);
        state.wake(&tickets);
    }
}

/// An open in the queue.
struct Waiting {
    budget: Arc<DialBudget>,
    host: IpAddr,
    ticket: Ticket,
    let_out: oneshot::Receiver<()>,
    done: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut state = self.budget.state();
        state.waiting.remove(&self.ticket);
        if !state.budget.withdraw(self.host, self.ticket) {
            // Let out already, but nobody is there to go.
            let tickets = state.budget.ended(self.host, None);
            state.wake(&tickets);
        }
    }
}

/// A place for one open, given back when dropped.
#[derive(Debug)]
pub struct DialPermit {
    budget: Arc<DialBudget>,
    host: IpAddr,
    live: Option<bool>,
}

impl DialPermit {
    /// Gives the place back, and tells what the answer says about the host.
    pub fn give_back(mut self, error: Option<&OpenError>) {
        self.live = match error.map(|error| error.failure) {
            None | Some(OpenFailure::Refused) => Some(true),
            Some(OpenFailure::TimedOut | OpenFailure::HostUnreachable) => Some(false),
            // The server's word, not the host's.
            Some(_) => None,
        };
    }
}

impl Drop for DialPermit {
    fn drop(&mut self) {
        self.budget.ended(self.host, self.live);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn host(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n))
    }

    /// Opens `ports` ports of each of `hosts`, none of which ever answers.
    fn scan(budget: &mut Budget, hosts: std::ops::Range<u32>, ports: u64) {
        for port in 0..ports {
            for n in hosts.clone() {
                budget.request(host(n), u64::from(n) << 32 | port);
            }
        }
    }

    #[test]
    fn a_burst_to_one_host_goes_out_by_the_hundreds() {
        let mut budget = Budget::default();
        let out = (0..1000).filter(|t| budget.request(host(1), *t)).count();
        assert_eq!(out, 256);
        let mut started = out;
        let mut ended = 0;
        while ended < started {
            started += budget.ended(host(1), Some(true)).len();
            ended += 1;
        }
        assert_eq!(ended, 1000);
        assert_eq!(budget.pending, 0);
    }

    #[test]
    fn a_scan_of_silent_hosts_does_not_delay_a_further_host() {
        let mut budget = Budget::default();
        scan(&mut budget, 0..254, 1000);
        assert!(budget.pending < TOTAL - RESERVE);
        assert!(budget.request(host(1000), 0));
    }

    #[test]
    fn the_order_of_a_scan_does_not_matter() {
        let mut budget = Budget::default();
        for n in 0..254 {
            scan(&mut budget, n..n + 1, 1000);
        }
        assert!(budget.request(host(1000), 0));
    }

    #[test]
    fn a_live_host_has_room_beside_a_scan_of_everything() {
        let mut budget = Budget::default();
        assert!(budget.request(host(1_000_000), 0));
        budget.ended(host(1_000_000), Some(true));
        scan(&mut budget, 0..65_536, 2);
        assert_eq!(budget.pending, TOTAL - RESERVE);
        assert!(!budget.request(host(2_000_000), 0));
        let out = (1..1000).filter(|t| budget.request(host(1_000_000), *t));
        assert_eq!(out.count(), 64);
    }

    #[test]
    fn hosts_are_not_remembered_without_bound() {
        let mut budget = Budget::default();
        for n in 0..100_000 {
            assert!(budget.request(host(n), u64::from(n)));
            budget.ended(host(n), Some(n % 2 == 0));
        }
        assert!(budget.hosts.len() <= REMEMBERED);
        assert!(budget.turn.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Request(u32),
        End(usize, Option<bool>),
        Withdraw(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0u32..6).prop_map(Step::Request),
            2 => (any::<usize>(), any::<Option<bool>>()).prop_map(|(i, l)| Step::End(i, l)),
            1 => any::<usize>().prop_map(Step::Withdraw),
        ];
        proptest::collection::vec(step, 0..3000)
    }

    fn take<T>(list: &mut Vec<T>, i: usize) -> Option<T> {
        let len = list.len();
        (len > 0).then(|| list.remove(i % len))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Nobody is let out twice, nobody is forgotten, and counts agree with a plain model.
        #[test]
        fn every_ticket_goes_out_once(steps in steps()) {
            let mut budget = Budget::default();
            let (mut out, mut waiting) = (Vec::new(), Vec::new());
            for (ticket, step) in steps.into_iter().enumerate() {
                let ticket = ticket as u64;
                match step {
                    Step::Request(n) if budget.request(host(n), ticket) => out.push((n, ticket)),
                    Step::Request(n) => waiting.push((n, ticket)),
                    Step::End(i, live) => if let Some((n, _)) = take(&mut out, i) {
                        for started in budget.ended(host(n), live) {
                            let at = waiting.iter().position(|(_, t)| *t == started).unwrap();
                            out.push(waiting.remove(at));
                        }
                    },
                    Step::Withdraw(i) => if let Some((n, t)) = take(&mut waiting, i) {
                        prop_assert!(budget.withdraw(host(n), t));
                        prop_assert!(!budget.withdraw(host(n), t));
                    },
                }
                prop_assert_eq!(budget.pending, out.len());
                prop_assert!(out.len() <= TOTAL);
            }
            // Whatever waits goes out when the others end.
            while let Some((n, _)) = out.pop() {
                for started in budget.ended(host(n), Some(false)) {
                    let at = waiting.iter().position(|(_, t)| *t == started).unwrap();
                    out.push(waiting.remove(at));
                }
            }
            prop_assert!(waiting.is_empty());
            prop_assert!(budget.turn.is_empty());
            prop_assert!(budget.hosts.values().all(|h| h.is_idle() && h.live));
        }
    }

    #[tokio::test]
    async fn a_dropped_wait_takes_no_place() {
        let budget = Arc::new(DialBudget::default());
        let mut permits = Vec::new();
        for _ in 0..256 {
            permits.push(budget.acquire(host(1)).await);
        }
        let mut gone = Box::pin(budget.acquire(host(1)));
        let mut next = Box::pin(budget.acquire(host(1)));
        assert!(futures_util::poll!(&mut gone).is_pending());
        assert!(futures_util::poll!(&mut next).is_pending());
        // Let out, but dropped before it went: the place goes to the next one.
        permits.pop();
        drop(gone);
        let permit = next.await;
        drop((permit, permits));
        assert_eq!(budget.state().budget.pending, 0);
        assert!(budget.state().waiting.is_empty());
    }
}
