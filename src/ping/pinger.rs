//! Requests with a clock.

use std::convert::Infallible;
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

/// Asks hosts whether they are there.
#[derive(Debug)]
pub struct Pinger<T, R> {
    hosts: Mutex<Hosts<T>>,
    trouble: Mutex<Option<Trouble>>,
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
            trouble: Mutex::default(),
            bell: Notify::new(),
            timer: Notify::new(),
            reply,
        }
    }

    /// Somebody asks whether `host`, an address of the far side, is there.
    pub fn handle_request(&self, host: IpAddr, request: T) {
        if self.trouble().is_some() {
            return;
        }
        self.hosts().handle_request(now(), host, request);
        self.bell.notify_one();
        self.timer.notify_one();
    }

    /// Why nobody is asked for now.
    pub fn trouble(&self) -> Option<Trouble> {
        lock(&self.trouble).clone()
    }

    pub(super) fn set_trouble(&self, trouble: Option<Trouble>) {
        *lock(&self.trouble) = trouble;
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
