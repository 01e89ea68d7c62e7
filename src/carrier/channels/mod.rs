//! SSH channels without I/O: the connection protocol of RFC 4254 for a client, over any byte stream that carries it in
//! clear, such as the control socket of an `ssh -M` in mux proxy mode.
//!
//! # Theory of operation
//!
//! Bytes from the socket go through a [`Decoder`], packet by packet into [`Channels::handle`], which gives at most one
//! [`Event`] each. What is to be written comes out of [`Channels::poll_output`] into an [`Outgoing`]. Decoder and
//! `Outgoing` belong to whoever reads and writes; `Channels` is what all tasks of a connection share behind one
//! lock, so that the decision to close and the queueing of data are one step. Data that an owner does not take at once
//! waits in an [`Inbox`].
//!
//! Nobody waits for anybody. Every channel has a window in each direction: a server sends what was granted to it,
//! and is granted more as the owner says [`consumed`](Channels::consumed); an owner that does not read stops
//! its own channel and no other. So everything that arrives can always be taken off the socket at once. On a long path a
//! window is granted in parts, the next of them at a moment that [`Channels::due`] tells. The other way, a channel
//! queues up to [`Config::max_queued`] and its peer's window; channels take turns (`line.rs`).
//!
//! A channel of datagrams (`datagrams.rs`) has a queue of its own, `fair.rs`, in the place of all that: it takes everything,
//! and drops the oldest. Of its window it uses what the path takes without a queue (`flight.rs`).
//!
//! # Order of calls
//!
//! [`open`](Channels::open), and once the channel is [`Opened`](Event::Opened): [`send`](Channels::send) (again after
//! [`poll_writable`](Channels::poll_writable) if something was left), [`consumed`](Channels::consumed) for all
//! [`Data`](Event::Data), [`eof`](Channels::eof), and at last [`close`](Channels::close) or [`abort`](Channels::abort).
//! [`Refused`](Event::Refused) and [`Closed`](Event::Closed) are the last events of their channel, and after `close` or
//! `abort` there is none. After any of these calls, and after `handle`, there may be output. A CLOSE of the server's
//! is answered without anybody's help. Numbers are used again only after CLOSE went both ways.
//!
//! A [`Fault`] ends the connection: nothing may be called after it. A socket may be shut without harm to the ssh process
//! behind it once [`is_empty`](Channels::is_empty).
//!
//! # Bounds
//!
//! | what | bound |
//! |---|---|
//! | channels | [`Config::max_channels`] |
//! | bytes that a server may make the owners of channels hold | [`Budget::promised`], see `budget.rs`; in an [`Inbox`] each takes up to five in memory (`frame.rs`), full packets about two |
//! | data on its way out | [`Config::max_queued`] in all, then [`LEAST_QUEUE`] for each channel; and one [`BATCH`] in the `Outgoing` |
//! | datagrams on their way out | 2 MiB for each channel of datagrams, 1 MiB of one flow, 100 ms |
//! | answers owed to the server | 1,024, and 64 for each channel; beyond is a [`Fault::Flood`] |
//! | a packet | [`Config::max_payload`] |

mod budget;
mod channel;
mod datagrams;
mod due;
mod event;
mod fair;
mod fault;
mod flight;
mod frame;
mod half;
mod hear;
mod inbox;
mod line;
mod open;
mod output;
mod pace;
mod slots;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Buf, Bytes};

pub use budget::Budget;
use channel::{After, Channel};
use due::Due;
pub use event::Event;
pub use fair::Drops;
pub use fault::{Fault, Full, SendError};
pub use frame::Decoder;
pub use inbox::Inbox;
use line::Line;
pub use open::{ChannelType, Refusal, TunLayer};
pub use output::Outgoing;
pub use slots::ChannelId;
use slots::Slots;
use wire::DATA_HEAD;
pub use wire::WireError;

/// Bytes that one [`Channels::poll_output`] fills an [`Outgoing`] to. What is in there can no longer be overtaken.
pub const BATCH: usize = 128 * 1024;

/// What a channel may have queued when all together have queued [`Config::max_queued`].
pub const LEAST_QUEUE: usize = 4 * 1024;

/// What a channel may have queued otherwise.
const QUEUE: usize = 256 * 1024;

/// Room for the fields of messages that hold no data.
const MAX_FIELDS: usize = 4096;

/// What a connection is made for; constant over its life.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Channels at a time. sshd ends a session at 16,384.
    pub max_channels: u16,
    /// Bytes of data in one packet, both ways.
    pub max_packet: u32,
    /// Bytes on their way out over all channels, beyond which a channel may have queued no more than [`LEAST_QUEUE`].
    pub max_queued: usize,
}

impl Config {
    /// Bytes in the longest payload that a server may send, for [`Decoder::new`].
    pub fn max_payload(&self) -> usize {
        let data = usize::try_from(self.max_packet).unwrap_or(usize::MAX);
        data.saturating_add(DATA_HEAD + MAX_FIELDS)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_channels: 16_000,
            // RFC 4253 section 6.1: what every implementation takes.
            max_packet: 32 * 1024,
            max_queued: 4 * 1024 * 1024,
        }
    }
}

/// All channels of one connection.
#[derive(Debug)]
pub struct Channels {
    config: Config,
    slots: Slots,
    budget: Budget,
    line: Line,
    writable: VecDeque<ChannelId>,
    due: Due,
    /// Bytes of data that are queued over all channels.
    queued: usize,
    refused: u64,
    /// REQUEST_FAILUREs that we owe.
    global_failures: usize,
    /// Channels that the server wants: its numbers.
    unwanted: Vec<u32>,
}

impl Channels {
    /// No channels yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            slots: Slots::new(config.max_channels),
            budget: Budget::default(),
            line: Line::default(),
            writable: VecDeque::new(),
            due: Due::default(),
            queued: 0,
            refused: 0,
            global_failures: 0,
            unwanted: Vec::new(),
        }
    }

    /// Asks the server for a channel. It is answered by [`Event::Opened`] or [`Event::Refused`].
    ///
    /// # Errors
    /// As many channels exist as may, those included that wait for the server's CLOSE.
    pub fn open(&mut self, kind: ChannelType) -> Result<ChannelId, Full> {
        if self.slots.len() >= usize::from(self.config.max_channels) {
            return Err(Full);
        }
        let flow = match kind.is_of_datagrams {
            true => self.budget.admit_datagrams(),
            false => self.budget.admit(),
        };
        let channel = Channel::new(kind, flow);
        let id = self.slots.insert(channel).ok_or(Full)?;
        self.queue(id);
        Ok(id)
    }

    /// Queues `data` as far as the peer's window and the bounds allow, and returns what is left.
    /// [`poll_writable`](Self::poll_writable) names the channel when it is worth to try again.
    ///
    /// # Errors
    /// The channel is not open, or its end has been said.
    pub fn send(&mut self, id: ChannelId, mut data: Bytes) -> Result<Bytes, SendError> {
        let allowance = self.allowance();
        let channel = self.slots.get(id).filter(|channel| channel.may_send());
        let channel = channel.ok_or(SendError::Closed)?;
        let taken = channel.push(&mut data, allowance);
        self.queued += taken;
        if taken > 0 {
            self.queue(id);
        }
        Ok(data)
    }

    /// Queues a datagram of the flow with this hash. It may be dropped, or others for it: [`drops`](Self::drops) counts.
    ///
    /// # Errors
    /// The channel is not open, its end has been said, or the datagram is longer than [`max_datagram`](Self::max_datagram), or
    /// empty: sshd's device takes none, and sshd would close the channel for that (channels.c, `channel_handle_wfd`).
    pub fn send_datagram(
        &mut self,
        now: Instant,
        id: ChannelId,
        flow: u64,
        data: Bytes,
    ) -> Result<(), SendError> {
        let most = self.config.max_packet;
        let channel = self.slots.get(id).filter(|channel| channel.may_send());
        let channel = channel.ok_or(SendError::Closed)?;
        let datagrams = channel.datagrams.as_mut().ok_or(SendError::TooLong)?;
        if data.is_empty() || data.len() > datagrams.max_length(most) {
            return Err(SendError::TooLong);
        }
        datagrams.push(now, flow, data);
        self.queue(id);
        Ok(())
    }

    /// The longest datagram that the channel takes; `None` where it carries none.
    pub fn max_datagram(&mut self, id: ChannelId) -> Option<usize> {
        let most = self.config.max_packet;
        let datagrams = self.slots.get(id)?.datagrams.as_ref()?;
        Some(datagrams.max_length(most))
    }

    /// Datagrams of a channel that were dropped.
    pub fn drops(&mut self, id: ChannelId) -> Drops {
        let datagrams = self.slots.get(id).and_then(|c| c.datagrams.as_ref());
        datagrams
            .map(|datagrams| datagrams.drops())
            .unwrap_or_default()
    }

    /// Says that no more data follows what is queued. The other direction goes on.
    ///
    /// # Errors
    /// The channel is not open, or its end has been said.
    pub fn eof(&mut self, id: ChannelId) -> Result<(), SendError> {
        let channel = self.slots.get(id).filter(|channel| channel.may_send());
        channel.ok_or(SendError::Closed)?.end();
        self.queue(id);
        Ok(())
    }

    /// Sends a channel request (RFC 4254 section 5.4) of kind `name` with what the kind adds. If `want_reply`,
    /// [`Event::Answered`] follows.
    ///
    /// # Errors
    /// The channel is not open, or too many requests wait.
    pub fn request(
        &mut self,
        id: ChannelId,
        name: &str,
        want_reply: bool,
        specific: &[u8],
    ) -> Result<(), SendError> {
        let channel = self.slots.get(id).filter(|channel| channel.may_send());
        let channel = channel.ok_or(SendError::Closed)?;
        if !channel.request(name, want_reply, specific) {
            return Err(SendError::TooMany);
        }
        self.queue(id);
        Ok(())
    }

    /// Lets the channel go, after what is queued has been sent. An open that is still to be answered is closed when it is confirmed.
    pub fn close(&mut self, id: ChannelId) {
        if let Some(channel) = self.slots.get(id) {
            channel.close();
            self.queue(id);
        }
    }

    /// Lets the channel go, and what is queued with it.
    pub fn abort(&mut self, id: ChannelId) {
        if let Some(channel) = self.slots.get(id) {
            channel.close();
            self.queued -= channel.cut();
            self.queue(id);
        }
    }

    /// The owner has passed `length` bytes of data on: the server may send as many more, by and by.
    pub fn consumed(&mut self, now: Instant, id: ChannelId, length: usize) {
        if let Some(channel) = self.slots.get(id) {
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            channel.consumed(now, length, &mut self.budget);
            self.grant(now, id);
        }
    }

    /// A channel whose sender was left with bytes, and that takes some now.
    pub fn poll_writable(&mut self) -> Option<ChannelId> {
        loop {
            let id = self.writable.pop_front()?;
            if let Some(channel) = self.slots.get(id) {
                channel.is_to_be_told = false;
                if channel.may_send() {
                    return Some(id);
                }
            }
        }
    }

    /// Moves packets into `out` until it holds [`BATCH`] bytes or there are no more. Writing them may make channels writable.
    pub fn poll_output(&mut self, now: Instant, out: &mut Outgoing) {
        while let Some(id) = self.due.pop(now) {
            if let Some(channel) = self.slots.get(id) {
                channel.due = None;
                self.grant(now, id);
            }
        }
        self.put_replies(out);
        while out.remaining() < BATCH
            && let Some(id) = self.line.next()
        {
            self.turn(now, id, out);
        }
    }

    /// Whether [`poll_output`](Self::poll_output) has something.
    pub fn has_output(&self) -> bool {
        !self.line.is_empty() || self.global_failures > 0 || !self.unwanted.is_empty()
    }

    /// When to call [`poll_output`](Self::poll_output) even if nothing has happened: a channel may be granted more.
    pub fn due(&self) -> Option<Instant> {
        self.due.first()
    }

    /// Bytes of data that wait to be sent, over all channels.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Channels whose numbers are in use: not yet answered, open, or not yet closed from both sides.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// No channel is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Opens that the server has refused, in all. Each costs an OpenSSH master a slot for good.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// What is promised to the server, and what is known of the path.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Puts the channel in line if it has something to send and is not there yet.
    fn queue(&mut self, id: ChannelId) {
        if let Some(channel) = self.slots.get(id)
            && !channel.is_in_line
            && channel.has_output()
        {
            channel.is_in_line = true;
            self.line.join(id);
        }
    }

    fn grant(&mut self, now: Instant, id: ChannelId) {
        if let Some(channel) = self.slots.get(id) {
            let before = channel.due;
            channel.grant(now, &mut self.budget);
            self.due.replace(id, before, channel.due);
            self.queue(id);
        }
    }

    fn turn(&mut self, now: Instant, id: ChannelId, out: &mut Outgoing) {
        let Some(channel) = self.slots.get(id) else {
            return;
        };
        let (sent, after) = channel.turn(now, id, &self.config, &self.budget, out);
        self.queued -= sent;
        match after {
            After::More => self.line.rejoin(id),
            After::Idle => channel.is_in_line = false,
            After::Gone => return self.remove(id),
        }
        let allowance = self.allowance();
        if sent > 0
            && let Some(channel) = self.slots.get(id)
            && channel.sending.wake(allowance)
        {
            self.tell(id);
        }
    }

    /// Names the channel to its sender with the next [`poll_writable`](Self::poll_writable).
    fn tell(&mut self, id: ChannelId) {
        if let Some(channel) = self.slots.get(id)
            && !channel.is_to_be_told
        {
            channel.is_to_be_told = true;
            self.writable.push_back(id);
        }
    }

    fn remove(&mut self, id: ChannelId) {
        if let Some(channel) = self.slots.remove(id) {
            self.due.replace(id, channel.due, None);
            self.budget.release(&channel.receiving.flow);
        }
    }

    fn put_replies(&mut self, out: &mut Outgoing) {
        for _ in 0..std::mem::take(&mut self.global_failures) {
            out.message(wire::put_global_failure);
        }
        for sender in self.unwanted.drain(..) {
            out.message(|tail| wire::put_open_refusal(tail, sender));
        }
    }

    fn allowance(&self) -> usize {
        if self.queued < self.config.max_queued {
            QUEUE
        } else {
            LEAST_QUEUE
        }
    }
}
