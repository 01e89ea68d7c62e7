//! The near end of the stream, without I/O and without a clock.
//!
//! In: [`Mux::handle_datagram`], [`Mux::handle_bytes`], [`Mux::handle_timeout`]. Out: what `handle_bytes` heard,
//! [`Mux::next_bytes`] after each of them, and [`Mux::poll_timeout`]. A stream ends with [`Mux::handle_lost`], and the next
//! one begins.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::Carries;
use super::frame::{Deframer, Fault, Frame, Kind, put};
use super::queue::Queue;
use super::record::{End, Record};
use super::table::Table;
use crate::net::{FlowKey, OpenError, OpenFailure};

/// How long a datagram may wait once the far end listens: one that comes later than this is worth nothing.
const AGE: Duration = Duration::from_millis(250);
/// The same where each datagram takes a process there.
const AGE_OF_QUESTIONS: Duration = Duration::from_secs(2);
/// How long one may have waited for the far end to listen.
const AGE_AT_START: Duration = Duration::from_secs(3);
/// Questions under way at a time.
const QUESTIONS: usize = 64;
/// The far end forgets a question long before this.
const QUESTION: Duration = Duration::from_secs(10);

/// What the far side says to a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A datagram.
    Datagram(Bytes),
    /// One of the flow's own has reached nobody.
    Failed(OpenFailure),
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Flows that there are now.
    pub flows: u64,
    /// Datagrams to the far side.
    pub sent: u64,
    /// Datagrams from there.
    pub received: u64,
    /// Datagrams for which there was no room, or no time.
    pub dropped: u64,
}

/// Flows over one stream; of each an `R` is kept.
#[derive(Debug)]
pub struct Mux<R = ()> {
    carries: Carries,
    table: Table<R>,
    queue: Queue,
    deframer: Deframer,
    /// Frames beside datagrams.
    control: BytesMut,
    /// The flow of each datagram that is under way as a question, and when it is forgotten.
    questions: HashMap<u32, (u32, Instant)>,
    last_question: u32,
    /// Since when the far end listens.
    up: Option<Instant>,
    counters: Counters,
}

impl<R> Default for Mux<R> {
    fn default() -> Self {
        Self {
            carries: Carries::default(),
            table: Table::default(),
            queue: Queue::default(),
            deframer: Deframer::default(),
            control: BytesMut::new(),
            questions: HashMap::new(),
            last_question: 0,
            up: None,
            counters: Counters::default(),
        }
    }
}

impl<R: Record> Mux<R> {
    /// A far end of this kind is about to be heard.
    pub fn handle_start(&mut self, carries: Carries) {
        self.carries = carries;
    }

    /// Since when the far end listens.
    pub fn up(&self) -> Option<Instant> {
        self.up
    }

    /// Whether something waits to be sent.
    pub fn wants(&self) -> bool {
        !self.queue.is_empty()
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        Counters {
            flows: self.table.len() as u64,
            dropped: self.queue.dropped(),
            ..self.counters
        }
    }

    /// A datagram of an application, whose target is `far` on the far side. `began` makes what is kept of a new flow.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        key: FlowKey,
        far: SocketAddr,
        payload: &[u8],
        began: impl FnOnce() -> R,
    ) {
        let (number, gone) = self.table.enter(now, key, far, began);
        if let Some((number, flow)) = gone {
            self.forget(number, flow.is_open);
        }
        self.queue
            .push(now, number, Bytes::copy_from_slice(payload));
    }

    /// A flow is no more: the far end forgets it.
    fn forget(&mut self, number: u32, is_open: bool) {
        self.queue.forget(number);
        if is_open {
            put(&mut self.control, number, Kind::Close, b"");
        }
    }

    /// What there is for the far end, about `most` bytes; nothing before it has greeted.
    pub fn next_bytes(&mut self, now: Instant, most: usize) -> Bytes {
        let Some(up) = self.up else {
            return Bytes::new();
        };
        let age = match self.carries {
            Carries::Everything => AGE,
            Carries::Questions => AGE_OF_QUESTIONS,
        };
        // What came before the far end listened may have waited for that.
        let oldest = match now.checked_sub(age).filter(|oldest| *oldest > up) {
            Some(oldest) => Some(oldest),
            None => up.checked_sub(AGE_AT_START),
        };
        let mut out = std::mem::take(&mut self.control);
        while out.len() < most && self.questions.len() < QUESTIONS {
            let Some((number, payload)) = self.queue.pop(oldest) else {
                break;
            };
            self.put_datagram(now, &mut out, number, &payload);
        }
        out.freeze()
    }

    fn put_datagram(&mut self, now: Instant, out: &mut BytesMut, number: u32, payload: &[u8]) {
        let Some(flow) = self.table.get_mut(number) else {
            return;
        };
        let (number, is_open) = match self.carries {
            Carries::Everything => (number, std::mem::replace(&mut flow.is_open, true)),
            Carries::Questions => {
                self.last_question = self.last_question.wrapping_add(1);
                let under_way = (number, now + QUESTION);
                self.questions.insert(self.last_question, under_way);
                (self.last_question, false)
            }
        };
        if !is_open {
            let far = format!("{} {}", flow.far.ip().to_canonical(), flow.far.port());
            put(out, number, Kind::Open, far.as_bytes());
        }
        put(out, number, Kind::Data, payload);
        self.counters.sent += 1;
        flow.record.sent(payload.len() as u64);
    }

    /// A piece of what the far end says.
    ///
    /// # Errors
    /// [`Fault`]: it is not the far end that says this.
    pub fn handle_bytes(
        &mut self,
        now: Instant,
        piece: &[u8],
        heard: &mut dyn FnMut(FlowKey, Heard),
    ) -> Result<(), Fault> {
        self.deframer.push(piece);
        if self.up.is_none() && self.deframer.greeted()? {
            self.up = Some(now);
        }
        while let Some(frame) = self.deframer.next_frame()? {
            self.handle_frame(now, frame, heard);
        }
        Ok(())
    }

    fn handle_frame(&mut self, now: Instant, frame: Frame, heard: &mut dyn FnMut(FlowKey, Heard)) {
        let number = match self.carries {
            Carries::Everything => Some(frame.flow),
            Carries::Questions => self.questions.get(&frame.flow).map(|question| question.0),
        };
        let failure = frame.failure();
        if frame.kind == Kind::Close {
            self.closed(frame.flow);
        }
        let Some(number) = number else {
            return;
        };
        let Some(flow) = self.table.get_mut(number) else {
            return;
        };
        let key = flow.key;
        match (frame.kind, failure) {
            (Kind::Data, _) => {
                flow.record.received(frame.payload.len() as u64);
                self.table.used(now, number, true);
                self.counters.received += 1;
                heard(key, Heard::Datagram(frame.payload));
            }
            (_, Some(OpenFailure::NoResources)) => self.no_room(number),
            (_, Some(failure)) if failure != OpenFailure::Other => {
                flow.failure = Some(failure);
                heard(key, Heard::Failed(failure));
            }
            _ => {}
        }
    }

    /// The far end has forgotten a flow, or a question.
    fn closed(&mut self, number: u32) {
        match self.carries {
            Carries::Questions => drop(self.questions.remove(&number)),
            Carries::Everything => {
                if let Some(flow) = self.table.remove(number) {
                    self.queue.forget(number);
                    flow.end();
                }
            }
        }
    }

    /// The far end has no room for this flow: it begins anew with its next datagram, in the place of another one.
    fn no_room(&mut self, number: u32) {
        if let Some(flow) = self.table.remove(number) {
            self.forget(number, flow.is_open);
            self.table.is_full();
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let questions = self.questions.values().map(|question| question.1).min();
        self.table.next_end().into_iter().chain(questions).min()
    }

    /// Ends what has come to its end.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((number, flow)) = self.table.pop_ended(now) {
            self.forget(number, flow.is_open);
            flow.end();
        }
        self.questions.retain(|_, question| question.1 > now);
    }

    /// The stream is lost, and all flows with it; or there was none, which `why` tells then.
    pub fn handle_lost(&mut self, why: &str) {
        let counters = self.counters();
        let end = match self.up {
            Some(_) => End::Lost,
            None => End::Refused(OpenError::new(OpenFailure::Other, why)),
        };
        for flow in self.table.take_all() {
            flow.record.end(end.clone());
        }
        self.queue.clear();
        *self = Self {
            // Its count goes on.
            queue: std::mem::take(&mut self.queue),
            last_question: self.last_question,
            counters,
            ..Self::default()
        };
    }
}
