//! What is known of names: which were found quickly, and which took long and were not found.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::net::OpenFailure;

/// A lookup that takes longer is slow.
pub(super) const SLOW: Duration = Duration::from_secs(1);
/// How long a name that took long and was not found is refused: as long as it took, between these.
const REFUSED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// Names kept at most, of each kind.
const KEPT: usize = 16_384;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Memory {
    found: HashSet<Arc<str>>,
    /// Until when.
    failed: HashMap<Arc<str>, Instant>,
}

impl Memory {
    /// Whether `name` was found quickly, and nothing else was heard of it since.
    pub(super) fn has_found(&self, name: &str) -> bool {
        self.found.contains(name)
    }

    /// Whether `name` is not to be looked up now.
    pub(super) fn has_failed(&self, name: &str, now: Instant) -> bool {
        self.failed.get(name).is_some_and(|until| now < *until)
    }

    /// It took `took` until `name` was looked up, and the host that was asked for answered so, or has not yet (`Ok`).
    pub(super) fn note(
        &mut self,
        name: &Arc<str>,
        took: Duration,
        answer: Result<(), OpenFailure>,
        now: Instant,
    ) {
        let is_slow = took > SLOW;
        if is_slow && self.found.contains(name) {
            // Whoever looks names up is in trouble: where flows are, nobody is looked up for now.
            self.found.clear();
        }
        let is_found = match answer {
            Ok(()) => true,
            Err(failure) => is_of_the_host(failure),
        };
        if is_found && !is_slow {
            if self.found.len() >= KEPT {
                self.found.clear();
            }
            self.found.insert(Arc::clone(name));
        } else {
            self.found.remove(name);
        }
        if is_slow && !is_found {
            if self.failed.len() >= KEPT {
                self.failed.retain(|_, until| now < *until);
            }
            if self.failed.len() < KEPT {
                let until = now + took.clamp(REFUSED.0, REFUSED.1);
                self.failed.insert(Arc::clone(name), until);
            }
        }
    }
}

/// Whether somebody who was found answered so, or was found and did not answer.
fn is_of_the_host(failure: OpenFailure) -> bool {
    matches!(
        failure,
        OpenFailure::Refused
            | OpenFailure::TimedOut
            | OpenFailure::Prohibited
            | OpenFailure::Filtered
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_secs(10);
    const NONE: Result<(), OpenFailure> = Err(OpenFailure::HostUnreachable);

    fn name(text: &str) -> Arc<str> {
        text.into()
    }

    #[test]
    fn a_name_that_took_long_and_was_not_found_is_refused_as_long_again() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        memory.note(&name("dead"), LONG, NONE, now);
        assert!(memory.has_failed("dead", now) && !memory.has_failed("other", now));
        assert!(memory.has_failed("dead", now + LONG - QUICK));
        assert!(!memory.has_failed("dead", now + LONG));
        memory.note(&name("dead"), 60 * LONG, NONE, now);
        assert!(!memory.has_failed("dead", now + REFUSED.1));
    }

    #[test]
    fn one_that_is_quick_or_found_after_all_is_asked_for_again() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        memory.note(&name("none"), QUICK, NONE, now);
        memory.note(&name("slow"), LONG, Ok(()), now);
        memory.note(&name("slower"), LONG, Err(OpenFailure::Refused), now);
        for name in ["none", "slow", "slower"] {
            assert!(!memory.has_failed(name, now) && !memory.has_found(name));
        }
    }

    #[test]
    fn names_that_were_found_are_known_until_one_of_them_is_slow() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        memory.note(&name("a"), QUICK, Ok(()), now);
        memory.note(&name("b"), QUICK, Err(OpenFailure::Refused), now);
        memory.note(&name("new"), LONG, NONE, now);
        assert!(memory.has_found("a") && memory.has_found("b"));
        memory.note(&name("b"), LONG, NONE, now);
        assert!(!memory.has_found("a") && !memory.has_found("b"));
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        for n in 0..KEPT + 10 {
            memory.note(&name(&format!("a{n}")), QUICK, Ok(()), now);
            memory.note(&name(&format!("b{n}")), LONG, NONE, now);
        }
        assert!(memory.found.len() <= KEPT && memory.failed.len() <= KEPT);
    }
}
