//! What is asked of one server, over one stream at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::MAX_WAITING;
use crate::resolve::question::Question;

/// Questions under way on one stream; resolvers hold few for one client.
const MAX_UNDER_WAY: usize = 128;
/// Tickets that may wait: each question has one here, and some have been answered by another server meanwhile.
const MAX_OUTBOX: usize = 2 * MAX_WAITING;
/// How long a server that could not be reached is asked last.
const DISTRUST: Duration = Duration::from_secs(10);

/// A question as the queues name it.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    pub(super) question: Arc<Question>,
    /// Tells it from an earlier one that asked the same.
    pub(super) serial: u64,
}

#[derive(Debug, Default)]
pub(super) struct Line {
    outbox: VecDeque<Ticket>,
    under_way: HashMap<u16, Ticket>,
    next_id: u16,
    heard_at: Option<Instant>,
    distrusted_until: Option<Instant>,
    /// The stream brought an answer.
    has_answered: bool,
    /// Nothing came from the stream for long; it may be slow.
    is_suspect: bool,
    /// The stream is to be given up.
    is_silent: bool,
}

impl Line {
    pub(super) fn is_trusted(&self, now: Instant) -> bool {
        self.distrusted_until.is_none_or(|until| until <= now)
    }

    /// Queues a question; where that is too much, those go that nobody waits for any more.
    pub(super) fn queue(&mut self, ticket: Ticket, is_current: impl Fn(&Ticket) -> bool) {
        if self.outbox.len() >= MAX_OUTBOX {
            self.outbox.retain(is_current);
        }
        self.outbox.push_back(ticket);
    }

    /// Queues a question that was under way already, in front of the others.
    pub(super) fn queue_again(&mut self, ticket: Ticket) {
        self.outbox.push_front(ticket);
    }

    /// Whether there is something to be sent.
    pub(super) fn has_work(&self) -> bool {
        !self.outbox.is_empty() && self.under_way.len() < MAX_UNDER_WAY
    }

    /// The next question to send, and its number on the stream.
    pub(super) fn send(&mut self, is_current: impl Fn(&Ticket) -> bool) -> Option<(u16, Ticket)> {
        while self.has_work() {
            let ticket = self.outbox.pop_front()?;
            if is_current(&ticket) {
                let id = self.free_id();
                self.under_way.insert(id, ticket.clone());
                return Some((id, ticket));
            }
        }
        None
    }

    /// There is one: far fewer are under way than there are.
    fn free_id(&mut self) -> u16 {
        while self.under_way.contains_key(&self.next_id) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        id
    }

    /// The question that has number `id` on the stream.
    pub(super) fn asked(&self, id: u16) -> Option<&Ticket> {
        self.under_way.get(&id)
    }

    /// Its answer has come.
    pub(super) fn answered(&mut self, now: Instant, id: u16) {
        self.under_way.remove(&id);
        self.heard_at = Some(now);
        self.has_answered = true;
        self.is_suspect = false;
        self.distrusted_until = None;
    }

    /// Where nothing came for `time` although something was asked: others are asked first, and the stream is not worth much.
    pub(super) fn suspect(&mut self, now: Instant, time: Duration) {
        let heard_at = self.heard_at;
        if heard_at.is_none_or(|heard| now.saturating_duration_since(heard) >= time) {
            self.is_suspect = true;
            self.distrust(now);
        }
    }

    /// Nobody waits any longer for what was asked: a stream that is not worth much is to be given up.
    pub(super) fn judge(&mut self) {
        self.is_silent |= std::mem::take(&mut self.is_suspect);
    }

    pub(super) fn distrust(&mut self, now: Instant) {
        self.distrusted_until = Some(now + DISTRUST);
    }

    /// Whether the stream is to be given up. Told once.
    pub(super) fn take_silent(&mut self) -> bool {
        std::mem::take(&mut self.is_silent)
    }

    /// Questions that the server leaves unanswered while it answers others make room, once nobody waits for them.
    pub(super) fn make_room(&mut self, is_current: impl Fn(&Ticket) -> bool) {
        if self.under_way.len() >= MAX_UNDER_WAY {
            self.under_way.retain(|_, ticket| is_current(ticket));
        }
    }

    /// The stream is gone: what was under way on it, in the order of asking, and whether it brought an answer before.
    pub(super) fn lose(&mut self) -> (Vec<Ticket>, bool) {
        let under_way = std::mem::take(&mut self.under_way);
        let mut lost: Vec<Ticket> = under_way.into_values().collect();
        lost.sort_by_key(|ticket| ticket.serial);
        self.is_suspect = false;
        (lost, std::mem::take(&mut self.has_answered))
    }

    /// Everything that waits to be sent.
    pub(super) fn empty(&mut self) -> impl Iterator<Item = Ticket> + '_ {
        self.outbox.drain(..)
    }
}
