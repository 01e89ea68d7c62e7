//! One channel: what it may say, what its peer may say, and what is to be sent when it has its turn.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{BufMut, Bytes};

use super::Config;
use super::budget::{Budget, Flow};
use super::datagrams::Datagrams;
use super::half::{Receiving, Sending};
use super::open::ChannelType;
use super::output::Outgoing;
use super::slots::ChannelId;
use super::wire;

/// Requests of ours that may wait for their answers, and answers of ours that may wait for their turn.
pub(super) const MAX_REQUESTS: usize = 64;

/// How far the opening of a channel has come.
#[derive(Debug)]
enum Opening {
    /// The open has not been sent yet.
    Queued(ChannelType),
    /// The server has not answered yet.
    Asked(Instant),
    /// The server has confirmed, and this is its number of the channel.
    Done(u32),
}

/// How far its end has come, on our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Anything may be sent.
    None,
    /// EOF follows what is queued.
    Eof,
    /// EOF has been sent: no more data.
    EofSent,
    /// CLOSE follows what is queued, with an EOF before it if one was asked for.
    Close { eof: bool },
    /// CLOSE has been sent: nothing more, of no kind. sshd ends the session over a second CLOSE.
    CloseSent,
}

/// What is to become of a channel after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It has more to send.
    More,
    /// It has nothing more to send.
    Idle,
    /// CLOSE went both ways, or the open was never sent: the number is free.
    Gone,
}

#[derive(Debug)]
pub(super) struct Channel {
    opening: Opening,
    ending: Ending,
    pub(super) sending: Sending,
    /// In the place of `sending`, where each message is a datagram.
    pub(super) datagrams: Option<Box<Datagrams>>,
    pub(super) receiving: Receiving,
    /// The peer has sent CLOSE.
    pub(super) is_closed_by_peer: bool,
    /// The owner has closed the channel and hears no more of it.
    is_let_go: bool,
    /// Is among those that wait for their turn.
    pub(super) is_in_line: bool,
    /// When it is granted more.
    pub(super) due: Option<Instant>,
    /// Is among those whose sender is to be told that there is room.
    pub(super) is_to_be_told: bool,
    requests: VecDeque<Vec<u8>>,
    awaited_replies: usize,
    /// CHANNEL_FAILUREs that we owe.
    pub(super) failures: usize,
}

impl Channel {
    pub(super) fn new(kind: ChannelType, flow: Flow) -> Self {
        Self {
            datagrams: kind.is_of_datagrams.then(Box::default),
            opening: Opening::Queued(kind),
            ending: Ending::None,
            sending: Sending::default(),
            receiving: Receiving::new(flow),
            is_closed_by_peer: false,
            is_let_go: false,
            is_in_line: false,
            due: None,
            is_to_be_told: false,
            requests: VecDeque::new(),
            awaited_replies: 0,
            failures: 0,
        }
    }

    /// When the open was sent, if the server has not answered it.
    pub(super) fn asked_at(&self) -> Option<Instant> {
        match self.opening {
            Opening::Asked(at) => Some(at),
            _ => None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.opening, Opening::Done(_))
    }

    /// Whether its owner still wants to hear of it.
    pub(super) fn has_owner(&self) -> bool {
        !self.is_let_go
    }

    pub(super) fn is_close_sent(&self) -> bool {
        self.ending == Ending::CloseSent
    }

    /// The server has opened the channel.
    pub(super) fn confirm(&mut self, remote: u32, window: u32, max_packet: u32) {
        self.opening = Opening::Done(remote);
        match &mut self.datagrams {
            Some(datagrams) => datagrams.confirm(window, max_packet),
            None => self.sending = Sending::new(window, max_packet),
        }
    }

    /// The peer's window grows. `None` beyond 2^32 - 1.
    pub(super) fn adjust(&mut self, now: Instant, bytes: u32) -> Option<()> {
        match &mut self.datagrams {
            Some(datagrams) => datagrams.adjust(now, bytes),
            None => self.sending.adjust(bytes),
        }
    }

    /// Whether data, an EOF or a request may still be said.
    pub(super) fn may_send(&self) -> bool {
        self.is_open() && !self.is_let_go && !self.is_closed_by_peer && self.ending == Ending::None
    }

    /// EOF after what is queued. Only where [`may_send`](Self::may_send).
    pub(super) fn end(&mut self) {
        self.ending = Ending::Eof;
    }

    /// CLOSE after what is queued; the owner is gone.
    pub(super) fn close(&mut self) {
        self.is_let_go = true;
        self.ending = match self.ending {
            Ending::None | Ending::EofSent => Ending::Close { eof: false },
            Ending::Eof => Ending::Close { eof: true },
            ending => ending,
        };
    }

    /// CLOSE with the next turn: what is queued is dropped, and so much of it there was.
    pub(super) fn cut(&mut self) -> usize {
        if self.ending != Ending::CloseSent {
            self.ending = Ending::Close { eof: false };
        }
        self.requests.clear();
        if let Some(datagrams) = &mut self.datagrams {
            datagrams.clear();
        }
        self.sending.clear()
    }

    /// Queues a request. `false` when too many wait already.
    pub(super) fn request(&mut self, name: &str, want_reply: bool, specific: &[u8]) -> bool {
        let Opening::Done(remote) = self.opening else {
            return false;
        };
        if self.requests.len() + self.awaited_replies >= MAX_REQUESTS {
            return false;
        }
        let mut message = Vec::new();
        wire::put_request(&mut message, remote, name, want_reply, specific);
        self.requests.push_back(message);
        self.awaited_replies += usize::from(want_reply);
        true
    }

    /// The server has answered a request; whether one was made.
    pub(super) fn take_reply(&mut self) -> bool {
        let is_awaited = self.awaited_replies > 0;
        self.awaited_replies -= usize::from(is_awaited);
        is_awaited
    }

    /// Data has come: its owner holds it now. `false` when nobody wants it any more.
    pub(super) fn take(&mut self, now: Instant, length: u32, budget: &mut Budget) -> bool {
        self.receiving.open -= length;
        if self.is_let_go {
            return false;
        }
        self.receiving.held += length;
        budget.received(now, &mut self.receiving.flow, length);
        true
    }

    /// The owner has consumed `length` bytes of what it held, which may make room for more: [`grant`](Self::grant) follows.
    pub(super) fn consumed(&mut self, now: Instant, length: u32, budget: &mut Budget) {
        let receiving = &mut self.receiving;
        let length = length.min(receiving.held);
        receiving.held -= length;
        budget.consumed(now, &mut receiving.flow, length);
    }

    /// Grants what may be granted now, and finds out when there is more.
    pub(super) fn grant(&mut self, now: Instant, budget: &mut Budget) {
        self.due = None;
        let receiving = &mut self.receiving;
        if receiving.is_ended || self.is_closed_by_peer || self.is_let_go {
            return;
        }
        let open = receiving.open + receiving.grant;
        let part = budget.grant(now, &mut receiving.flow, open, receiving.held);
        receiving.grant += part.bytes;
        self.due = part.rest_at;
    }

    /// Whether it wants a turn.
    pub(super) fn has_output(&self) -> bool {
        match self.opening {
            Opening::Queued(_) => true,
            Opening::Asked(_) => false,
            Opening::Done(_) => match self.ending {
                Ending::CloseSent => false,
                Ending::Close { .. } | Ending::Eof => true,
                Ending::None | Ending::EofSent => self.has_more(),
            },
        }
    }

    fn has_more(&self) -> bool {
        !self.sending.is_empty()
            || (self.datagrams.as_ref()).is_some_and(|datagrams| datagrams.has_output())
            || self.receiving.grant > 0
            || self.failures > 0
            || !self.requests.is_empty()
    }

    /// Its turn: at most one data message, and whatever else there is to say. Returns the bytes of data that left
    /// the queue.
    pub(super) fn turn(
        &mut self,
        now: Instant,
        id: ChannelId,
        config: &Config,
        budget: &Budget,
        out: &mut Outgoing,
    ) -> (usize, After) {
        let remote = match &self.opening {
            Opening::Queued(_) if self.is_let_go => return (0, After::Gone),
            Opening::Queued(kind) => {
                let offer = (self.receiving.open, config.max_packet);
                out.message(|tail| wire::put_open(tail, kind.name, id.0, offer, &kind.specific));
                self.opening = Opening::Asked(now);
                return (0, After::Idle);
            }
            Opening::Asked(_) => return (0, After::Idle),
            Opening::Done(remote) => *remote,
        };
        if !matches!(self.ending, Ending::Close { .. } | Ending::CloseSent) {
            self.say(now, remote, budget, out);
        }
        if let Some(datagrams) = &mut self.datagrams {
            datagrams.send(now, remote, config.max_packet, out);
        }
        let sent = self.sending.send(remote, config.max_packet, out);
        if self.sending.is_empty() {
            self.say_end(remote, out);
        }
        let after = match self.ending {
            Ending::CloseSent if self.is_closed_by_peer => After::Gone,
            _ if self.has_output() => After::More,
            _ => After::Idle,
        };
        (sent, after)
    }

    /// Grants, replies and requests.
    fn say(&mut self, now: Instant, remote: u32, budget: &Budget, out: &mut Outgoing) {
        let receiving = &mut self.receiving;
        let grant = std::mem::take(&mut receiving.grant);
        if grant > 0 {
            receiving.open += grant;
            budget.granted(now, &mut receiving.flow, receiving.open, grant);
            out.message(|tail| wire::put_adjust(tail, remote, grant));
        }
        for _ in 0..std::mem::take(&mut self.failures) {
            out.message(|tail| wire::put_failure(tail, remote));
        }
        for request in self.requests.drain(..) {
            out.message(|tail| tail.put_slice(&request));
        }
    }

    fn say_end(&mut self, remote: u32, out: &mut Outgoing) {
        if matches!(self.ending, Ending::Eof | Ending::Close { eof: true }) {
            out.message(|tail| wire::put_eof(tail, remote));
        }
        self.ending = match self.ending {
            Ending::Eof => Ending::EofSent,
            Ending::Close { .. } => {
                out.message(|tail| wire::put_close(tail, remote));
                Ending::CloseSent
            }
            ending => ending,
        };
    }

    /// Queues what fits of `data`; how much that was.
    pub(super) fn push(&mut self, data: &mut Bytes, allowance: usize) -> usize {
        self.sending.push(data, allowance)
    }
}
