//! Requests with a clock.

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::hosts::{Counters, Hosts, Pace};
use crate::udp::Trouble;
use crate::udp::clock::{is_due, now};

/// Answers requests. It never waits.
pub trait Reply<T>: Send + Sync {
    /// The host of `request` was heard from, because of it.
    fn reply(&self, request: T);
}

/// How the server's `ping` is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing is known against it.
    #[default]
    Fine,
    /// Nobody is asked for now.
    Failed(Trouble),
    /// Nobody was asked, and the next request has it tried again.
    Again(Trouble),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fine => f.write_str("by the server's own"),
            Self::Failed(trouble) => write!(f, "not carried: {trouble}"),
            Self::Again(trouble) => write!(
                f,
                "not carried: {trouble}; it is tried again with the next ping"
            ),
        }
    }
}

/// Asks hosts whether they are there.
#[derive(Debug)]
pub struct Pinger<T, R> {
    hosts: Mutex<Hosts<T>>,
    state: Mutex<State>,
    /// Rung when there may be a question.
    pub(super) bell: Notify,
    timer: Notify,
    reply: Arc<R>,
}

impl<T: Send, R: Reply<T>> Pinger<T, R> {
    /// One that nobody has asked anything yet: [`Pace::Steady`] for [`run_exec`](Self::run_exec), [`Pace::Slowing`] for
    /// [`run_probe`](Self::run_probe).
    pub fn new(pace: Pace, reply: Arc<R>) -> Self {
        Self {
            hosts: Mutex::new(Hosts::new(pace)),
            state: Mutex::default(),
            bell: Notify::new(),
            timer: Notify::new(),
            reply,
        }
    }

    /// Somebody asks whether `host`, an address of the far side, is there.
    pub fn handle_request(&self, host: IpAddr, request: T) {
        if matches!(*lock(&self.state), State::Failed(_)) {
            return;
        }
        self.hosts().handle_request(now(), host, request);
        self.bell.notify_one();
        self.timer.notify_one();
    }

    /// How the server's `ping` is.
    pub fn state(&self) -> State {
        lock(&self.state).clone()
    }

    pub(super) fn set(&self, state: State) {
        *lock(&self.state) = state;
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.hosts().counters()
    }

    pub(super) fn hosts(&self) -> MutexGuard<'_, Hosts<T>> {
        lock(&self.hosts)
    }

    /// The host of question `number` was heard from, or was not.
    pub(super) fn answered(&self, number: u32, is_alive: bool) {
        let request = self.hosts().handle_answer(now(), number, is_alive);
        if let Some(request) = request {
            self.reply.reply(request);
        }
        self.timer.notify_one();
    }

    pub(super) async fn keep_time(&self) -> Infallible {
        loop {
            let due = self.hosts().poll_timeout();
            if is_due(due, &self.timer).await {
                self.hosts().handle_timeout(now());
                self.bell.notify_one();
            }
        }
    }
}

/// Everything behind these locks is whole at every moment, whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
