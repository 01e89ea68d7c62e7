//! What everybody shares of one master's channels: who owns them, and what becomes of what the server says.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::examine::Question;
use super::flow::{End, Flow, Opening};
use super::packets::Packets;
use crate::carrier::channels::{ChannelId, Channels, Config, Decoder, Event, Fault, Refusal};
use crate::carrier::command::no_command;
use crate::carrier::dial::DialPermit;
use crate::carrier::expired::Expiry;
use crate::carrier::failure::open_error;
use crate::net::{OpenError, OpenFailure, StreamError};

/// Places that a master has for channels; each refused open costs one for good. It dies at 16,384 (channels.c
/// CHANNELS_MAX_CHANNELS).
const PLACES: u64 = 16_000;
/// Refused opens after which a master is to be replaced.
const REFUSALS: u64 = 8_000;
/// Channels from which on a further master is wanted: sshd needs a descriptor for each, of which a process has 1,024
/// by default.
const CROWD: usize = 900;

/// How long a server may take to close a channel that is at EOF both ways, before we close it.
const CLOSE_WAIT: Duration = Duration::from_secs(30);
/// Signs of life that are left out when a session was refused: each refusal costs a place.
pub(super) const LEFT_OUT: u32 = 64;

/// What a connection looks like to the choice of the next flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Burden {
    /// Channels now.
    pub(super) channels: usize,
    /// Those of them that belong to somebody. What runs in the first session may stay for as long as it likes.
    pub(super) flows: usize,
    /// Opens that were refused, in all.
    pub(super) refused: u64,
}

impl Burden {
    /// Whether no further channel fits.
    pub(super) fn is_full(self) -> bool {
        self.channels as u64 + self.refused >= PLACES
    }

    /// Whether it should get no new flows, if another one can take them.
    pub(super) fn is_due(self) -> bool {
        self.refused >= REFUSALS || self.is_full()
    }

    /// Whether new flows are better off elsewhere.
    pub(super) fn is_crowded(self) -> bool {
        self.channels >= CROWD
    }

    /// What the pool decides upon: it looks when one of these changes.
    pub(super) fn marks(self) -> [bool; 4] {
        let is_over = self.flows == 0 && self.is_due();
        [self.is_full(), self.is_due(), self.is_crowded(), is_over]
    }
}

/// Behind one lock: the channels, and who hears of them.
pub(super) struct Shared {
    pub(super) channels: Channels,
    pub(super) owners: HashMap<ChannelId, Owner>,
    /// One of the owners is the first session's.
    pub(super) has_session: bool,
    /// So many signs of life are to be left out, as a session was refused.
    pub(super) left_out: u32,
    /// The writer has nothing to do, and waits to be told.
    pub(super) is_writer_idle: bool,
    /// Then it has something to do all the same.
    pub(super) writer_wakes: Option<Instant>,
    /// Nothing works any more.
    pub(super) is_lost: bool,
}

/// Who hears of a channel.
pub(super) enum Owner {
    /// A stream, or who waits for one.
    Flow(Arc<Flow>),
    /// Whole packets, or who waits for them.
    Packets(Arc<Packets>),
    /// The first session.
    Session(Session),
    /// Who asks something of a session.
    Question(Question),
    /// Who asks for a tunnel.
    Tunnel(oneshot::Sender<Result<(), Refusal>>),
    /// Who waits for a sign of life; dropped with the answer.
    Sign {
        /// By a session, which costs a place only where it is refused.
        by_session: bool,
        _asks: oneshot::Sender<()>,
    },
}

/// The first session of a connection.
pub(super) struct Session {
    /// Who waits for its answer.
    pub(super) answer: Option<oneshot::Sender<bool>>,
    /// Who listens to its stderr.
    pub(super) expiry: Option<Expiry>,
}

/// What is to be done when the lock is free again.
#[derive(Default)]
pub(super) struct After {
    pub(super) wakers: Vec<Waker>,
    pub(super) permits: Vec<(DialPermit, Option<OpenError>)>,
    /// The writer has work.
    pub(super) is_work: bool,
    /// The pool should look.
    pub(super) is_change: bool,
}

impl After {
    pub(super) fn wake(&mut self, waker: &mut Option<Waker>) {
        self.wakers.extend(waker.take());
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            channels: Channels::new(Config::default()),
            owners: HashMap::new(),
            has_session: false,
            left_out: 0,
            is_writer_idle: false,
            writer_wakes: None,
            is_lost: false,
        }
    }
}

impl Shared {
    pub(super) fn burden(&self) -> Burden {
        Burden {
            channels: self.channels.len(),
            flows: self.owners.len() - usize::from(self.has_session),
            refused: self.channels.refused(),
        }
    }

    /// From here on nothing is carried: everybody is told.
    pub(super) fn lose(&mut self, after: &mut After) {
        self.is_lost = true;
        self.has_session = false;
        for owner in std::mem::take(&mut self.owners).into_values() {
            let flow = match owner {
                Owner::Flow(flow) => flow,
                Owner::Packets(packets) => {
                    packets.lose(after);
                    continue;
                }
                _ => continue,
            };
            let mut state = flow.state();
            let lost = OpenError::new(OpenFailure::ConnectionLost, "");
            let opening = std::mem::replace(&mut state.opening, Opening::Refused(lost.clone()));
            if let Opening::Asked(Some(permit)) = opening {
                after.permits.push((permit, Some(lost)));
            }
            state.close(End::Broken(StreamError::Lost));
            after.wake(&mut state.reader);
            after.wake(&mut state.writer);
        }
    }

    /// Closes channels that are at EOF both ways and that the server should have closed long ago.
    pub(super) fn close_late(&mut self, now: Instant) {
        let Shared {
            channels, owners, ..
        } = self;
        owners.retain(|id, owner| {
            let Owner::Flow(flow) = owner else {
                return true;
            };
            let since = flow.state().lingers_since;
            let is_late = since.is_some_and(|since| now.duration_since(since) > CLOSE_WAIT);
            if is_late {
                channels.close(*id);
            }
            !is_late
        });
    }

    /// Forgets a channel's owner.
    pub(super) fn remove(&mut self, id: ChannelId) -> Option<Owner> {
        let owner = self.owners.remove(&id);
        self.has_session &= !matches!(owner, Some(Owner::Session(_)));
        owner
    }

    /// Whether the writer is to be called; true once for each time that it waits.
    pub(super) fn calls_writer(&mut self) -> bool {
        let is_sooner = match (self.channels.due(), self.writer_wakes) {
            (Some(due), Some(wakes)) => due < wakes,
            (due, None) => due.is_some(),
            (None, Some(_)) => false,
        };
        let calls = self.is_writer_idle && (self.channels.has_output() || is_sooner);
        self.is_writer_idle &= !calls;
        calls
    }

    /// Wakes senders for whom there is room now.
    pub(super) fn tell_writers(&mut self, after: &mut After) {
        while let Some(id) = self.channels.poll_writable() {
            if let Some(Owner::Flow(flow)) = self.owners.get(&id) {
                after.wake(&mut flow.state().writer);
            }
        }
    }

    /// All packets that are complete.
    pub(super) fn hear_all(
        &mut self,
        decoder: &mut Decoder,
        after: &mut After,
    ) -> Result<(), Fault> {
        let now = Instant::now();
        while let Some(payload) = decoder.packet()? {
            if let Some(event) = self.channels.handle(now, payload)? {
                self.hear(now, event, after);
            }
        }
        Ok(())
    }

    pub(super) fn hear(&mut self, now: Instant, event: Event, after: &mut After) {
        match event {
            Event::Opened(id) => self.opened(id, after),
            Event::Refused { id, reason, text } => self.refused(id, reason, &text, after),
            Event::Data { id, data } => self.data(now, id, data, after),
            Event::ExtendedData { id, data, .. } => {
                match self.owners.get_mut(&id) {
                    Some(Owner::Session(session)) => {
                        session.expiry.iter_mut().for_each(|e| e.hear(&data));
                    }
                    Some(Owner::Flow(flow)) => flow.state().stderr.hear(&data),
                    _ => {}
                }
                self.channels.consumed(now, id, data.len());
            }
            Event::Eof(id) => {
                if let Some(Owner::Flow(flow)) = self.owners.get(&id) {
                    let mut state = flow.state();
                    state.end.get_or_insert(End::Eof);
                    state.is_whole = true;
                    after.wake(&mut state.reader);
                }
                self.no_more_packets(id, after);
            }
            Event::Closed(id) => self.closed(id, after),
            Event::Answered { id, success } => self.answered(id, success, after),
            Event::Request { .. } => {}
        }
    }

    fn opened(&mut self, id: ChannelId, after: &mut After) {
        match self.owners.get_mut(&id) {
            Some(Owner::Flow(flow)) => {
                let flow = Arc::clone(flow);
                self.flow_opened(id, &flow, after);
            }
            Some(Owner::Packets(packets)) => packets.answered(Ok(())),
            Some(Owner::Session(session)) => {
                let command = [&4u32.to_be_bytes()[..], b"true"].concat();
                if self.channels.request(id, "exec", true, &command).is_err() {
                    session.answer = None;
                }
            }
            Some(Owner::Question(question)) => {
                let (name, specific) = question.request();
                if self.channels.request(id, name, true, specific).is_err() {
                    self.remove(id);
                }
            }
            Some(Owner::Tunnel(_) | Owner::Sign { .. }) | None => {
                if let Some(Owner::Tunnel(answer)) = self.remove(id) {
                    // Who has asked may have stopped waiting.
                    let _ = answer.send(Ok(()));
                }
                self.channels.abort(id);
            }
        }
    }

    fn refused(&mut self, id: ChannelId, reason: Refusal, text: &str, after: &mut After) {
        // The sender of a session or of a sign of life is dropped with its owner.
        let flow = match self.remove(id) {
            Some(Owner::Flow(flow)) => flow,
            Some(Owner::Packets(packets)) => return packets.answered(Err(reason)),
            Some(Owner::Question(question)) => return question.refused(),
            Some(Owner::Tunnel(answer)) => {
                // Who has asked may have stopped waiting.
                let _ = answer.send(Err(reason));
                return;
            }
            Some(Owner::Sign { by_session, .. }) => {
                if by_session {
                    self.left_out = LEFT_OUT;
                }
                return;
            }
            _ => return,
        };
        let error = match flow.command() {
            Some(_) => no_command(),
            None => open_error(code(reason), text),
        };
        let mut state = flow.state();
        let refused = Opening::Refused(error.clone());
        if let Opening::Asked(Some(permit)) = std::mem::replace(&mut state.opening, refused) {
            after.permits.push((permit, Some(error)));
        }
        after.wake(&mut state.reader);
    }

    fn data(&mut self, now: Instant, id: ChannelId, data: Bytes, after: &mut After) {
        if let Some(Owner::Flow(flow)) = self.owners.get(&id) {
            let mut state = flow.state();
            state.inbox.push(data);
            after.wake(&mut state.reader);
            return;
        }
        if let Some(Owner::Packets(_)) = self.owners.get(&id) {
            return self.packet(now, id, data, after);
        }
        // The session's output.
        self.channels.consumed(now, id, data.len());
        if let Some(Owner::Question(question)) = self.owners.get_mut(&id) {
            let heard = question.hear(&data);
            self.go_on(id, heard);
        }
    }

    /// A request is granted or refused.
    fn answered(&mut self, id: ChannelId, success: bool, after: &mut After) {
        match self.owners.get_mut(&id) {
            Some(Owner::Question(question)) => {
                let answered = question.answered(success);
                self.go_on(id, answered);
            }
            Some(Owner::Session(session)) => {
                // Who has asked may have stopped waiting.
                let _ = session.answer.take().map(|answer| answer.send(success));
            }
            Some(Owner::Flow(flow)) => {
                let flow = Arc::clone(flow);
                self.command_answered(id, &flow, success, after);
            }
            _ => {}
        }
    }

    /// Says `reply` for a question, or ends it.
    fn go_on(&mut self, id: ChannelId, (reply, is_over): (Vec<u8>, bool)) {
        // A server that leaves no room for a few bytes is not waited for.
        let is_said = reply.is_empty()
            || (self.channels.send(id, reply.into())).is_ok_and(|left| left.is_empty());
        if is_over || !is_said {
            self.remove(id);
            self.channels.abort(id);
        }
    }

    fn closed(&mut self, id: ChannelId, after: &mut After) {
        if self.no_more_packets(id, after) {
            return;
        }
        match self.remove(id) {
            Some(Owner::Flow(flow)) => {
                let mut state = flow.state();
                state.refuse(no_command());
                state.closed_by_peer();
                after.wake(&mut state.reader);
                after.wake(&mut state.writer);
            }
            Some(Owner::Question(question)) => question.closed(),
            _ => {}
        }
    }
}

/// The number of RFC 4254 section 5.1.
fn code(reason: Refusal) -> u32 {
    match reason {
        Refusal::AdministrativelyProhibited => 1,
        Refusal::ConnectFailed => 2,
        Refusal::UnknownChannelType => 3,
        Refusal::ResourceShortage => 4,
        Refusal::Other(code) => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carrier::channels::{ChannelType, Outgoing};

    /// A message of numbers, and what follows them.
    fn message(number: u8, fields: &[u32], rest: &[u8]) -> Bytes {
        let fields = fields.iter().flat_map(|field| field.to_be_bytes());
        let message = std::iter::once(number).chain(fields);
        message.chain(rest.iter().copied()).collect()
    }

    /// What is due later than it wakes calls nobody: it finds that out by itself.
    #[test]
    fn the_writer_is_called_for_an_earlier_moment() {
        let (mut shared, mut out) = (Shared::default(), Outgoing::default());
        let start = Instant::now();
        let id = shared.channels.open(ChannelType::session()).unwrap();
        shared.channels.poll_output(start, &mut out);
        let now = start + Duration::from_millis(100);
        let mut hear = |message| shared.channels.handle(now, message).unwrap();
        // The first channel is number 0.
        hear(message(91, &[0, 70, 1000, 1000], b""));
        for _ in 0..32 {
            hear(message(94, &[0, 32 * 1024], &[0; 32 * 1024]));
        }
        shared.channels.consumed(now, id, 1 << 20);
        shared.channels.poll_output(now, &mut out);
        assert!(!shared.channels.has_output());
        let due = shared.channels.due().unwrap();
        let mut calls = |wakes| {
            shared.is_writer_idle = true;
            shared.writer_wakes = wakes;
            let first = shared.calls_writer();
            (first, shared.calls_writer())
        };
        assert_eq!(calls(None), (true, false));
        assert_eq!(calls(Some(due + Duration::from_nanos(1))), (true, false));
        assert_eq!(calls(Some(due)), (false, false));
    }
}
