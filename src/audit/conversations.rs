//! Conversations of which nobody says when they are over: each lasts until both ends are silent.
//!
//! A packet's line stands behind one of many locks, so that two conversations rarely meet. In each part as many as [`MOST`] can be;
//! where one more begins, the one that has been silent for longest goes.

use std::array;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Audit, FlowEntry, Protocol};
use crate::net::{FlowKey, Source, Target};
use crate::relay::{Meter, Outcome};

/// Who was silent for so long has ended.
const SILENCE: Duration = Duration::from_secs(60);
/// Parts with a lock each.
const PARTS: usize = 16;
/// Conversations in a part.
const MOST: usize = 1_024;

/// What has passed from one end to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// What they speak.
    pub protocol: Protocol,
    /// Who has sent it.
    pub source: SocketAddr,
    /// To whom.
    pub target: SocketAddr,
    /// How much it is.
    pub bytes: u64,
}

/// The two ends of a conversation, whoever speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Between {
    protocol: Protocol,
    lower: SocketAddr,
    higher: SocketAddr,
}

impl Between {
    fn of(passed: &Passed) -> Self {
        Self {
            protocol: passed.protocol,
            lower: passed.source.min(passed.target),
            higher: passed.source.max(passed.target),
        }
    }
}

#[derive(Debug)]
struct Conversation {
    /// Who has begun it.
    source: SocketAddr,
    last: Instant,
    entry: FlowEntry,
}

type Part = HashMap<Between, Conversation>;

/// Writes down who talks with whom. Whoever speaks first has begun it.
#[derive(Debug)]
pub struct Conversations {
    audit: Arc<Audit>,
    hasher: RandomState,
    parts: [Mutex<Part>; PARTS],
}

impl Conversations {
    /// Nobody has spoken yet.
    pub fn new(audit: Arc<Audit>) -> Self {
        Self {
            audit,
            hasher: RandomState::new(),
            parts: array::from_fn(|_| Mutex::default()),
        }
    }

    fn part(&self, between: &Between) -> MutexGuard<'_, Part> {
        // No number of parts that fits in memory is cut short here.
        let number = self.hasher.hash_one(between) as usize % PARTS;
        lock(&self.parts[number])
    }

    /// Counts what has passed. Where it begins a conversation, `mapped_to` is whom its target stands for, if that is another.
    pub fn passed(&self, now: Instant, passed: &Passed, mapped_to: Option<Target>) {
        let between = Between::of(passed);
        let mut part = self.part(&between);
        if !part.contains_key(&between) && part.len() >= MOST {
            let oldest = part
                .iter()
                .min_by_key(|(_, conversation)| conversation.last);
            if let Some(oldest) = oldest.map(|(oldest, _)| *oldest) {
                part.remove(&oldest);
            }
        }
        let conversation = part
            .entry(between)
            .or_insert_with(|| self.begun(now, passed, mapped_to));
        conversation.last = now;
        match conversation.source == passed.source {
            true => conversation.entry.add_up(passed.bytes),
            false => conversation.entry.add_down(passed.bytes),
        }
    }

    fn begun(&self, now: Instant, passed: &Passed, mapped_to: Option<Target>) -> Conversation {
        let key = FlowKey {
            source: Source(passed.source),
            target: Target(passed.target),
        };
        Conversation {
            source: passed.source,
            last: now,
            entry: self.audit.flow(passed.protocol, key, mapped_to, None),
        }
    }

    /// Ends those that are silent by now. To be called every few seconds.
    pub fn end_silent(&self, now: Instant) {
        let is_silent =
            |_: &Between, it: &mut Conversation| now.saturating_duration_since(it.last) >= SILENCE;
        for part in &self.parts {
            let silent: Vec<_> = lock(part).extract_if(is_silent).collect();
            for (_, conversation) in silent {
                conversation.entry.end(&Outcome::Finished);
            }
        }
    }
}

/// Everything behind these locks is whole at every moment, whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
