//! What the server says: each message is checked against the state of its channel, and becomes an event, an answer
//! that is owed, or a fault.

use std::time::Instant;

use bytes::Bytes;

use super::Channels;
use super::channel::{Channel, MAX_REQUESTS};
use super::event::Event;
use super::fault::Fault;
use super::slots::ChannelId;
use super::wire::{About, Message};

/// Answers that may be owed to the server, those of single channels aside.
const MAX_REPLIES: usize = 1024;

/// The longest text of a server that is kept, in characters.
const MAX_TEXT: usize = 200;

impl Channels {
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
            About::Adjust(bytes) => self.adjusted(now, id, bytes)?,
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

    fn adjusted(
        &mut self,
        now: Instant,
        id: ChannelId,
        bytes: u32,
    ) -> Result<Option<Event>, Fault> {
        let allowance = self.allowance();
        if let Some(channel) = self.slots.get(id) {
            let overflow = Fault::WindowOverflow { channel: id.0 };
            channel.adjust(now, bytes).ok_or(overflow)?;
            if channel.sending.wake(allowance) {
                self.tell(id);
            }
            self.queue(id);
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
