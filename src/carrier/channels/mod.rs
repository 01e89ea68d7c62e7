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
//! its own channel and no other. So everything that arrives can always be taken off the socket at once. The other way, a channel
//! queues up to [`Config::max_queued`] and its peer's window; channels take turns (`line.rs`).
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
//! | bytes that a server may make the owners of channels hold | [`Budget::promised`], see `budget.rs`; in an [`Inbox`] each takes up to seven in memory (`frame.rs`), full packets up to four |
//! | data on its way out | [`Config::max_queued`] in all, then [`LEAST_QUEUE`] for each channel; and one [`BATCH`] in the `Outgoing` |
//! | answers owed to the server | 1,024, and 64 for each channel; beyond is a [`Fault::Flood`] |
//! | a packet | [`Config::max_payload`] |

mod budget;
mod channel;
mod fault;
mod frame;
mod half;
mod inbox;
mod line;
mod open;
mod output;
mod slots;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Buf, Bytes};

pub use budget::Budget;
use channel::{After, Channel, MAX_REQUESTS};
pub use fault::{Fault, Full, SendError};
pub use frame::Decoder;
pub use inbox::Inbox;
use line::Line;
pub use open::{ChannelType, Refusal};
pub use output::Outgoing;
pub use slots::ChannelId;
use slots::Slots;
pub use wire::WireError;
use wire::{About, DATA_HEAD, Message};

/// Bytes that one [`Channels::poll_output`] fills an [`Outgoing`] to. What is in there can no longer be overtaken.
pub const BATCH: usize = 128 * 1024;

/// What a channel may have queued when all together have queued [`Config::max_queued`].
pub const LEAST_QUEUE: usize = 4 * 1024;

/// What a channel may have queued otherwise.
const QUEUE: usize = 128 * 1024;

/// Answers that may be owed to the server, those of single channels aside.
const MAX_REPLIES: usize = 1024;

/// The longest text of a server that is kept, in characters.
const MAX_TEXT: usize = 200;

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

/// What has happened to a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The server has opened it.
    Opened(ChannelId),
    /// The server does not open it.
    Refused {
        /// Which one.
        id: ChannelId,
        /// The kind of reason.
        reason: Refusal,
        /// The server's own text: at most 200 characters, control characters removed. May be empty.
        text: String,
    },
    /// Bytes from the far side, never empty. They count against the window until they are
    /// [`consumed`](Channels::consumed).
    Data {
        /// Whose.
        id: ChannelId,
        /// The bytes. They may hold a larger buffer in memory.
        data: Bytes,
    },
    /// Bytes of another kind, such as stderr (1); they count like data.
    ExtendedData {
        /// Whose.
        id: ChannelId,
        /// The kind (RFC 4254 section 5.2).
        kind: u32,
        /// The bytes, never empty.
        data: Bytes,
    },
    /// No more data will come.
    Eof(ChannelId),
    /// The server has closed it. Before our own EOF, or before its own, that is no orderly end.
    Closed(ChannelId),
    /// The server tells something about it, such as `exit-status`. Is answered already if it wants an answer: not known.
    Request {
        /// About which.
        id: ChannelId,
        /// What kind.
        name: Bytes,
        /// What the kind adds.
        payload: Bytes,
    },
    /// The server has answered a [`request`](Channels::request), in their order.
    Answered {
        /// Of which channel.
        id: ChannelId,
        /// CHANNEL_SUCCESS or CHANNEL_FAILURE.
        success: bool,
    },
}

/// All channels of one connection.
#[derive(Debug)]
pub struct Channels {
    config: Config,
    slots: Slots,
    budget: Budget,
    line: Line,
    writable: VecDeque<ChannelId>,
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
        let channel = Channel::new(kind, self.budget.admit());
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
            self.queue(id);
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

    /// Takes one packet's payload.
    ///
    /// # Errors
    /// The connection is at its end, and why.
    pub fn handle(&mut self, now: Instant, payload: Bytes) -> Result<Option<Event>, Fault> {
        match Message::parse(payload)? {
            Message::Channel(number, about) => self.hear(now, ChannelId(number), about),
            Message::Ignored => Ok(None),
            Message::GlobalRequest { want_reply } => {
                self.global_failures += usize::from(want_reply);
                self.check_flood()
            }
            Message::Open { sender } => {
                self.unwanted.push(sender);
                self.check_flood()
            }
            Message::GlobalReply => Err(Fault::UnaskedReply),
            Message::Disconnect { reason, text } => {
                let text = readable(&text);
                Err(Fault::Disconnected { reason, text })
            }
        }
    }

    fn check_flood(&self) -> Result<Option<Event>, Fault> {
        if self.global_failures + self.unwanted.len() > MAX_REPLIES {
            return Err(Fault::Flood);
        }
        Ok(None)
    }

    fn hear(&mut self, now: Instant, id: ChannelId, about: About) -> Result<Option<Event>, Fault> {
        let message = about.name();
        let channel = self.slots.get(id).ok_or(Fault::UnknownChannel {
            message,
            channel: id.0,
        })?;
        if let Some(state) = out_of_turn(channel, &about) {
            return Err(Fault::OutOfTurn {
                message,
                channel: id.0,
                state,
            });
        }
        let has_owner = channel.has_owner();
        let event = match about {
            About::Confirmed {
                sender,
                window,
                max_packet,
            } => self.confirmed(now, id, sender, (window, max_packet)),
            About::Refused { reason, text } => self.refuse(now, id, reason, &text),
            About::Adjust(bytes) => self.adjusted(id, bytes)?,
            About::Data(data) => self
                .take(now, id, &data)?
                .then_some(Event::Data { id, data }),
            About::ExtendedData { kind, data } => self
                .take(now, id, &data)?
                .then_some(Event::ExtendedData { id, kind, data }),
            About::Eof => self.ended(id),
            About::Close => self.closed(id),
            About::Request {
                name,
                want_reply,
                payload,
            } => self.asked(id, name, want_reply, payload)?,
            About::Reply { success } => self.answered(id, success)?,
        };
        Ok(event.filter(|_| has_owner))
    }

    fn confirmed(
        &mut self,
        now: Instant,
        id: ChannelId,
        remote: u32,
        (window, max_packet): (u32, u32),
    ) -> Option<Event> {
        let channel = self.slots.get(id)?;
        if let Some(asked) = channel.asked_at() {
            self.budget.answered(now, asked);
        }
        channel.confirm(remote, window, max_packet);
        self.queue(id);
        Some(Event::Opened(id))
    }

    fn refuse(&mut self, now: Instant, id: ChannelId, reason: u32, text: &[u8]) -> Option<Event> {
        if let Some(asked) = self.slots.get(id)?.asked_at() {
            self.budget.answered(now, asked);
        }
        self.refused += 1;
        self.remove(id);
        Some(Event::Refused {
            id,
            reason: reason.into(),
            text: readable(text),
        })
    }

    fn adjusted(&mut self, id: ChannelId, bytes: u32) -> Result<Option<Event>, Fault> {
        let allowance = self.allowance();
        if let Some(channel) = self.slots.get(id) {
            let overflow = Fault::WindowOverflow { channel: id.0 };
            channel.sending.adjust(bytes).ok_or(overflow)?;
            if channel.sending.wake(allowance) {
                self.tell(id);
            }
        }
        Ok(None)
    }

    /// Checks data against the window and the packet size; whether its owner is to have it.
    fn take(&mut self, now: Instant, id: ChannelId, data: &Bytes) -> Result<bool, Fault> {
        let limit = self.config.max_packet;
        let Some(channel) = self.slots.get(id) else {
            return Ok(false);
        };
        let length = match u32::try_from(data.len()) {
            Ok(length) if length <= limit => length,
            _ => {
                return Err(Fault::PacketTooLarge {
                    channel: id.0,
                    length: data.len(),
                    limit,
                });
            }
        };
        if length > channel.receiving.open {
            let excess = (length - channel.receiving.open) as usize;
            return Err(Fault::WindowExceeded {
                channel: id.0,
                excess,
            });
        }
        let has_owner = channel.take(now, length, &mut self.budget);
        Ok(has_owner && length > 0)
    }

    fn ended(&mut self, id: ChannelId) -> Option<Event> {
        self.slots.get(id)?.receiving.is_ended = true;
        Some(Event::Eof(id))
    }

    fn closed(&mut self, id: ChannelId) -> Option<Event> {
        let channel = self.slots.get(id)?;
        channel.is_closed_by_peer = true;
        if channel.is_close_sent() {
            self.remove(id);
        } else {
            self.queued -= channel.cut();
            self.queue(id);
        }
        Some(Event::Closed(id))
    }

    fn asked(
        &mut self,
        id: ChannelId,
        name: Bytes,
        want_reply: bool,
        payload: Bytes,
    ) -> Result<Option<Event>, Fault> {
        if let Some(channel) = self.slots.get(id)
            && channel.has_owner()
            && want_reply
        {
            channel.failures += 1;
            if channel.failures > MAX_REQUESTS {
                return Err(Fault::Flood);
            }
            self.queue(id);
        }
        Ok(Some(Event::Request { id, name, payload }))
    }

    fn answered(&mut self, id: ChannelId, success: bool) -> Result<Option<Event>, Fault> {
        if self.slots.get(id).is_some_and(Channel::take_reply) {
            return Ok(Some(Event::Answered { id, success }));
        }
        Err(Fault::UnaskedReply)
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

/// Why the server may not say this about the channel now; `None` if it may.
fn out_of_turn(channel: &Channel, about: &About) -> Option<&'static str> {
    let is_answer = matches!(about, About::Confirmed { .. } | About::Refused { .. });
    let is_data = matches!(
        about,
        About::Data(_) | About::ExtendedData { .. } | About::Eof
    );
    if is_answer {
        let state = if channel.is_open() {
            "it is open already"
        } else {
            "it was not asked for"
        };
        return channel.asked_at().is_none().then_some(state);
    }
    if !channel.is_open() {
        return Some("it is not open yet");
    }
    // A window that still grows does no harm.
    if channel.is_closed_by_peer && !matches!(about, About::Adjust(_)) {
        return Some("the server has closed it");
    }
    (is_data && channel.receiving.is_ended).then_some("the server has said its EOF")
}

/// A server's text for a log line: control characters and the marks that turn the writing direction removed.
fn readable(text: &[u8]) -> String {
    let turns_direction = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let text = String::from_utf8_lossy(text);
    let shown = text
        .chars()
        .filter(|c| !c.is_control() && !turns_direction(*c));
    shown.take(MAX_TEXT).collect()
}
