//! The flows: whose answers are whose, and until when.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::record::{End, Record};
use crate::net::{FlowKey, OpenError, OpenFailure};

/// Flows at most, unless the far end has room for fewer.
pub const MOST: usize = 4096;
/// How long a flow lasts after its last datagram (RFC 4787 section 4.3, REQ-5).
const IDLE: Duration = Duration::from_secs(120);
/// The same to a well-known port, as that permits.
const IDLE_WELL_KNOWN: Duration = Duration::from_secs(60);
/// The last of these.
const LAST_WELL_KNOWN: u16 = 1023;
/// The same where none was ever answered.
const UNANSWERED: Duration = Duration::from_secs(30);
/// By less than this the end of a flow is not moved on.
const COARSE: Duration = Duration::from_secs(1);

/// A flow.
#[derive(Debug)]
pub(super) struct Flow<R> {
    /// Who sends, and to whom.
    pub(super) key: FlowKey,
    /// Where that is on the far side.
    pub(super) far: SocketAddr,
    /// Whether the far end knows of it.
    pub(super) is_open: bool,
    is_answered: bool,
    /// Why its last datagram that was told of has reached nobody.
    pub(super) failure: Option<OpenFailure>,
    due: Instant,
    /// What is kept of it.
    pub(super) record: R,
}

impl<R> Flow<R> {
    /// How long it lasts without a datagram.
    fn patience(&self) -> Duration {
        match self.is_answered {
            false => UNANSWERED,
            true if self.far.port() <= LAST_WELL_KNOWN => IDLE_WELL_KNOWN,
            true => IDLE,
        }
    }
}

impl<R: Record> Flow<R> {
    /// It has come to its end by itself.
    pub(super) fn end(self) {
        let failure = self.failure.filter(|_| !self.is_answered);
        self.record.end(match failure {
            Some(failure) => End::Refused(OpenError::new(failure, "")),
            None => End::Idle,
        });
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Table<R> {
    flows: HashMap<u32, Flow<R>>,
    numbers: HashMap<FlowKey, u32>,
    by_end: BTreeSet<(Instant, u32)>,
    last: u32,
    most: usize,
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self {
            flows: HashMap::new(),
            numbers: HashMap::new(),
            by_end: BTreeSet::new(),
            last: 0,
            most: MOST,
        }
    }
}

impl<R> Table<R> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// The number of a flow, made where there is none; where there are too many, the flow that would end next goes
    /// and is given back. `began` makes what is kept of a new one.
    pub(super) fn enter(
        &mut self,
        now: Instant,
        key: FlowKey,
        far: SocketAddr,
        began: impl FnOnce() -> R,
    ) -> (u32, Option<(u32, Flow<R>)>) {
        if let Some(&number) = self.numbers.get(&key) {
            self.used(now, number, false);
            return (number, None);
        }
        let gone = match self.flows.len() >= self.most {
            true => self.by_end.first().map(|(_, number)| *number),
            false => None,
        };
        let gone = gone.and_then(|number| Some((number, self.remove(number)?)));
        // Four thousand million datagrams on, an old number is used again, unless its flow is still there.
        self.last = self.last.wrapping_add(1);
        while self.flows.contains_key(&self.last) {
            self.last = self.last.wrapping_add(1);
        }
        let flow = Flow {
            key,
            far,
            is_open: false,
            is_answered: false,
            failure: None,
            due: now + UNANSWERED,
            record: began(),
        };
        self.by_end.insert((flow.due, self.last));
        self.numbers.insert(key, self.last);
        self.flows.insert(self.last, flow);
        (self.last, gone)
    }

    /// The flow of this number.
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Flow<R>> {
        self.flows.get_mut(&number)
    }

    /// A datagram of it came, from the far side where `is_answer`.
    pub(super) fn used(&mut self, now: Instant, number: u32, is_answer: bool) {
        let Some(flow) = self.flows.get_mut(&number) else {
            return;
        };
        flow.is_answered |= is_answer;
        let due = now + flow.patience();
        if due >= flow.due + COARSE {
            self.by_end.remove(&(flow.due, number));
            flow.due = due;
            self.by_end.insert((due, number));
        }
    }

    /// Takes it out.
    pub(super) fn remove(&mut self, number: u32) -> Option<Flow<R>> {
        let flow = self.flows.remove(&number)?;
        self.numbers.remove(&flow.key);
        self.by_end.remove(&(flow.due, number));
        Some(flow)
    }

    /// When the next one ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.by_end.first().map(|(due, _)| *due)
    }

    /// One whose time has come, taken out.
    pub(super) fn pop_ended(&mut self, now: Instant) -> Option<(u32, Flow<R>)> {
        let (_, number) = *self.by_end.first().filter(|(due, _)| *due <= now)?;
        Some((number, self.remove(number)?))
    }

    /// All of them, taken out.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Flow<R>> {
        std::mem::take(self).flows.into_values()
    }

    /// The far end has no room for more than there are now.
    pub(super) fn is_full(&mut self) {
        self.most = self.flows.len().max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Source, Target};

    /// How long a flow to `port` lasts, with an answer or without.
    fn lasts(port: u16, is_answered: bool) -> Duration {
        let (start, mut table) = (Instant::now(), Table::<()>::default());
        let far = SocketAddr::from(([10, 0, 0, 1], port));
        let key = FlowKey {
            source: Source(([10, 9, 9, 9], 40_000).into()),
            target: Target(far),
        };
        let (number, _) = table.enter(start, key, far, || ());
        if is_answered {
            table.used(start, number, true);
        }
        let end = table.next_end().unwrap();
        assert!(table.pop_ended(end - Duration::from_millis(1)).is_none());
        assert!(table.pop_ended(end).is_some());
        end - start
    }

    #[test]
    fn an_answered_flow_to_no_well_known_port_lasts_two_minutes() {
        for port in [1024, 51_820] {
            assert_eq!(lasts(port, true), Duration::from_secs(120), "{port}");
        }
        for port in [53, 1023] {
            assert_eq!(lasts(port, true), Duration::from_secs(60), "{port}");
        }
        assert_eq!(lasts(51_820, false), Duration::from_secs(30));
    }
}
