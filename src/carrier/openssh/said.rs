//! What a person is shown of ssh's words, and once only: every ssh of a run says the same about the same server.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tracing::{debug, info, warn};

use crate::carrier::TO_PERSON;

/// Lines that are remembered, at most. Whatever comes then is shown each time.
const MOST: usize = 256;

/// What a line that somebody should see contains, lower case.
const ALARMS: [&str; 8] = [
    "warning", "@@@", "fail", "error", "denied", "refused", "bad ", "changed",
];

/// Texts of ssh's with which it ends. They go into an error, and are not shown as they come.
const LAST_WORDS: &[&str] = &[
    "Permission denied (",
    "Host key verification failed",
    "Could not resolve hostname",
    "ssh: connect to host",
    "Connection closed by",
    " timed out",
    "Protocol major versions differ",
    "Received disconnect from",
    "Disconnected from",
    "banner exchange",
    "closed by remote host",
    "Connection reset by",
    "kex_exchange_identification:",
    "Unable to negotiate",
    "Timeout, server",
    "client_loop:",
    "stdio forwarding failed",
    ": open failed: ",
    "Killed by signal",
];

/// An answer to what a person has just typed: that an earlier ssh gave the same one does not matter.
const ANSWERS: &str = "try again";

/// The lines that were shown, each with the ssh that said it first.
#[derive(Debug, Default)]
pub(super) struct Said(Mutex<HashMap<String, i32>>);

impl Said {
    /// Shows `text` of the ssh `pid`, unless another one has said it before, or it goes into an error.
    pub(super) fn show(&self, pid: i32, text: &str, is_alarm: bool) {
        if LAST_WORDS.iter().any(|last| text.contains(last)) || !self.is_news(pid, text) {
            debug!("ssh: {text}");
        } else if is_alarm || sounds_alarming(text) {
            warn!("ssh: {text}");
        } else {
            info!(target: TO_PERSON, "ssh: {text}");
        }
    }

    fn is_news(&self, pid: i32, text: &str) -> bool {
        // Texts for people: nothing depends on them.
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = said.get(text) {
            return *first == pid || text.contains(ANSWERS);
        }
        if said.len() < MOST {
            said.insert(text.to_owned(), pid);
        }
        true
    }
}

fn sounds_alarming(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    ALARMS.iter().any(|alarm| lower.contains(alarm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ssh_says_the_same_and_one_is_enough() {
        let said = Said::default();
        assert!(said.is_news(1, "@@@@"));
        assert!(said.is_news(1, "@@@@"), "its own frame has two of them");
        assert!(!said.is_news(2, "@@@@"));
        assert!(said.is_news(1, "Permission denied, please try again."));
        assert!(said.is_news(2, "Permission denied, please try again."));
        for number in 0..2 * MOST {
            assert!(said.is_news(1, &number.to_string()));
        }
        assert!(said.0.lock().unwrap().len() <= MOST);
    }
}
