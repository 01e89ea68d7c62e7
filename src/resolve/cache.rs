//! Answers that are remembered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::Answer;
use super::question::Question;
use super::zones::Side;

/// Half of the bounds: there are two generations.
const MAX_BYTES: usize = 4 << 20;
const MAX_ANSWERS: usize = 8192;
/// What an answer costs beside its bytes: its question, its places in maps.
const OVERHEAD: usize = 256;

/// An answer, and when it came.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    answer: Arc<Answer>,
    at: Instant,
}

impl Kept {
    /// The answer and its age in seconds, while it holds.
    fn fresh(&self, now: Instant) -> Option<(Arc<Answer>, u32)> {
        let age = now.saturating_duration_since(self.at);
        let holds = age < Duration::from_secs(self.answer.lifetime().into());
        holds.then(|| (Arc::clone(&self.answer), age.as_secs() as u32))
    }

    fn size(&self) -> usize {
        self.answer.size() + OVERHEAD
    }
}

/// Two generations: what is used moves to the young one, and when that is full, the old one is forgotten. So every step costs the
/// same, however many answers there are.
#[derive(Debug, Default)]
pub(super) struct Cache {
    young: HashMap<Question, Kept>,
    old: HashMap<Question, Kept>,
    /// What the young ones take.
    bytes: usize,
}

impl Cache {
    /// The answer to `question`, and its age in seconds.
    pub(super) fn get(&mut self, question: &Question, now: Instant) -> Option<(Arc<Answer>, u32)> {
        if let Some(kept) = self.young.get(question) {
            return kept.fresh(now);
        }
        let (question, kept) = self.old.remove_entry(question)?;
        let fresh = kept.fresh(now)?;
        self.insert(question, kept);
        Some(fresh)
    }

    /// Remembers `answer`, as long as it says that it holds.
    pub(super) fn put(&mut self, question: Question, answer: Arc<Answer>, now: Instant) {
        if answer.lifetime() > 0 {
            self.old.remove(&question);
            self.insert(question, Kept { answer, at: now });
        }
    }

    /// Forgets what was heard of `side`.
    pub(super) fn forget(&mut self, side: Side) {
        for answers in [&mut self.young, &mut self.old] {
            answers.retain(|question, _| question.side != side);
        }
        self.bytes = self.young.values().map(Kept::size).sum();
    }

    fn insert(&mut self, question: Question, kept: Kept) {
        let size = kept.size();
        if self.bytes + size > MAX_BYTES || self.young.len() >= MAX_ANSWERS {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += size;
        if let Some(before) = self.young.insert(question, kept) {
            self.bytes -= before.size();
        }
    }

    /// How many answers there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// What they take, in bytes.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        let all = self.young.values().chain(self.old.values());
        all.map(Kept::size).sum()
    }
}
