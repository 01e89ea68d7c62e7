//! What was tried, and the error when the server does not let us in.

use std::time::Duration;

use russh::MethodKind;

use super::super::load::Load;
use super::super::reason::NO_METHOD;
use super::{Authentication, METHODS};
use crate::carrier::error::{ConnectError, LostReason, refused, too_many_tries};
use crate::carrier::failure::harmless;

/// How long the reason of an end that is already seen may take to be known.
const REASON: Duration = Duration::from_millis(300);
/// So many attempts are let pass by every usual server; behind them an end without a word has another reason.
const FEW: usize = 3;
/// As many names as an error lists; an agent may hold any number.
const MANY: usize = 20;

/// What was tried, for the error.
#[derive(Debug, Default)]
pub(super) struct Tried {
    names: Vec<String>,
    /// How many of them the server has refused.
    refused: usize,
    /// Among them what a person has answered.
    pub(super) has_answers: bool,
}

impl Tried {
    /// The server did not take `name`, or not it alone.
    pub(super) fn refused(&mut self, name: &str, partial_success: bool) {
        self.refused += 1;
        self.names.push(if partial_success {
            format!("{name} (taken, but the server wants more)")
        } else {
            name.to_owned()
        });
    }

    /// `name` was not even offered.
    pub(super) fn unusable(&mut self, name: &str, why: impl std::fmt::Display) {
        self.names.push(format!("{name} ({why})"));
    }

    /// Comma separated; the same name once, with its number.
    fn list(&self) -> String {
        let mut names: Vec<(&str, usize)> = Vec::new();
        for name in &self.names {
            match names.iter_mut().find(|(known, _)| known == name) {
                Some((_, count)) => *count += 1,
                None => names.push((name, 1)),
            }
        }
        let more = names.len().saturating_sub(MANY);
        let mut words: Vec<String> = names.iter().take(MANY).map(counted).collect();
        if more > 0 {
            words.push(format!("{more} more"));
        }
        words.join(", ")
    }
}

fn counted((name, count): &(&str, usize)) -> String {
    match count {
        1 => (*name).to_owned(),
        count => format!("{name} ({count} times)"),
    }
}

impl Authentication<'_> {
    /// The error when nothing is left to try.
    pub(super) fn refused(&self) -> ConnectError {
        let methods: Vec<&str> = self.methods.iter().map(<&str>::from).collect();
        let or = |list: String, none: &str| {
            if list.is_empty() {
                none.to_owned()
            } else {
                list
            }
        };
        ConnectError::Refused {
            user: self.plan.user.clone(),
            host: self.plan.host.clone(),
            methods: or(methods.join(", "), "nothing it told"),
            tried: or(self.tried.list(), "no key found"),
            hint: self.hint().into(),
        }
    }

    /// What a person can do who was refused.
    fn hint(&self) -> String {
        let is_known = |method: &MethodKind| METHODS.contains(method);
        if !self.methods.is_empty() && !self.methods.iter().any(is_known) {
            return "The embedded SSH knows none of these; use --carrier openssh".to_owned();
        }
        let methods: Vec<&str> = self.methods.iter().map(<&str>::from).collect();
        refused(self.plan, &methods, self.tried.has_answers)
    }

    /// The error when the connection has ended: why, as far as the server has told.
    pub(super) async fn ended(&mut self) -> ConnectError {
        let said = last_words(self.load).await;
        if is_out_of_methods(self.load) {
            return self.refused();
        }
        let enough = match &said {
            Some(said) => said.to_ascii_lowercase().contains("too many auth"),
            None => self.tried.refused >= FEW,
        };
        if enough {
            return ConnectError::TooManyTries {
                user: self.plan.user.clone(),
                host: self.plan.host.clone(),
                said: said
                    .unwrap_or_else(|| "it closed the connection".to_owned())
                    .into(),
                count: self.tried.refused.max(1),
                tried: self.tried.list(),
                hint: too_many_tries(self.plan),
            };
        }
        ConnectError::Ended {
            host: self.plan.host.clone(),
            detail: match (said, self.load.lost()) {
                (Some(said), _) => format!("during the login: {said}"),
                (None, Some(LostReason::Broken(how))) => format!("during the login: {how}"),
                (None, _) => "during the login, without a word".to_owned(),
            },
        }
    }
}

/// The text of the server's DISCONNECT, if there was one.
async fn last_words(load: &Load) -> Option<String> {
    let known = async {
        while load.lost().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // Without a reason: none that we know.
    let _ = tokio::time::timeout(REASON, known).await;
    match load.lost() {
        Some(LostReason::Disconnected(text)) if !text.is_empty() => Some(harmless(text)),
        _ => None,
    }
}

/// Whether russh has ended the connection, since the server's refusal left no method to go on with.
fn is_out_of_methods(load: &Load) -> bool {
    matches!(load.lost(), Some(LostReason::Broken(text)) if text == NO_METHOD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tried_in_one_line() {
        let mut tried = Tried::default();
        tried.refused("password", false);
        tried.refused("/k", true);
        tried.refused("password", false);
        tried.unusable("/n", "no such file");
        assert_eq!(
            tried.list(),
            "password (2 times), /k (taken, but the server wants more), /n (no such file)"
        );
        for number in 0..MANY {
            tried.refused(&number.to_string(), false);
        }
        assert!(tried.list().ends_with(", 16, 3 more"), "{}", tried.list());
    }
}
