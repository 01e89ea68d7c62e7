//! The method "keyboard-interactive" (RFC 4256): the server asks what it likes, in several rounds. What it says is
//! foreign text, made harmless before a person sees it.

use russh::client::{KeyboardInteractiveAuthResponse as Reply, Prompt};
use tracing::info;
use zeroize::Zeroizing;

use super::{Authentication, Progress, Step, Verdict, ask, in_time};
use crate::carrier::TO_PERSON;
use crate::carrier::error::ConnectError;
use crate::carrier::failure::harmless;
use crate::carrier::prompt::Prompter;

const METHOD: &str = "keyboard-interactive";
/// More rounds than any login has, and more questions in one: a server that never ends is given up.
const MAX_ROUNDS: usize = 20;
const MAX_QUESTIONS: usize = 20;
/// Lines of a text that are shown.
const MAX_LINES: usize = 50;

/// One round: what the server says, and its questions.
struct Round {
    /// Shown above the first question.
    text: String,
    questions: Vec<Question>,
}

struct Question {
    text: String,
    echo: bool,
}

impl Round {
    /// With ssh's way to show them (sshconnect2.c `input_userauth_info_req`).
    fn new(login: &str, name: &str, instructions: &str, prompts: &[Prompt]) -> Self {
        let texts = [shown(name), shown(instructions)];
        let texts: Vec<_> = texts.into_iter().filter(|text| !text.is_empty()).collect();
        let question = |prompt: &Prompt| Question {
            text: format!("({login}) {}", shown(&prompt.prompt)),
            echo: prompt.echo,
        };
        Self {
            text: texts.join("\n"),
            questions: prompts.iter().map(question).collect(),
        }
    }

    /// Asks everything, in order. `None` when something stays unanswered.
    fn ask(&self, person: &dyn Prompter) -> Option<Vec<Zeroizing<String>>> {
        let mut above = self.text.as_str();
        let mut answers = Vec::new();
        for question in &self.questions {
            let text = match std::mem::take(&mut above) {
                "" => question.text.clone(),
                above => format!("{above}\n{}", question.text),
            };
            answers.push(if question.echo {
                Zeroizing::new(person.line(&text)?)
            } else {
                person.secret(&text)?
            });
        }
        Some(answers)
    }
}

/// A foreign text for a terminal: its lines, without what could disturb one, and without empty ones at its end.
fn shown(text: &str) -> String {
    let lines = text.split('\n').take(MAX_LINES);
    let lines: Vec<_> = lines
        .map(|line| harmless(&line.replace('\t', " ")))
        .collect();
    lines.join("\n").trim_end_matches('\n').to_owned()
}

impl Authentication<'_> {
    /// Goes through the server's questions, as often as NumberOfPasswordPrompts allows.
    pub(super) async fn dialog(&mut self) -> Result<Progress, ConnectError> {
        if self.prompter.is_none() {
            // Not even begun: sshd counts every one that comes to nothing as a wrong login.
            self.tried.unusable(METHOD, "nobody to ask");
            return Ok(Progress::Exhausted);
        }
        while self.dialogs < self.plan.login.password_prompts {
            self.dialogs += 1;
            let mut was_asked = false;
            let verdict = self.one_dialog(&mut was_asked).await?;
            let step = || Step::Person(METHOD);
            if let Some(progress) = verdict.and_then(|verdict| verdict.progress(step)) {
                return Ok(progress);
            }
            // As ssh: who was asked nothing has nothing to answer better, and who did not answer will not.
            if !was_asked || verdict.is_none() {
                break;
            }
        }
        Ok(Progress::Exhausted)
    }

    /// One attempt. `None` when nobody answered.
    async fn one_dialog(&mut self, was_asked: &mut bool) -> Result<Option<Verdict>, ConnectError> {
        let user = self.plan.user.clone();
        let started = self
            .handle
            .authenticate_keyboard_interactive_start(user, None);
        let mut reply = in_time(self.plan, started).await?;
        let mut gave_up = false;
        for _ in 0..MAX_ROUNDS {
            let (name, instructions, prompts) = match reply {
                Ok(Reply::Success) => return Ok(Some(Verdict::Taken)),
                Ok(Reply::Failure {
                    remaining_methods,
                    partial_success,
                }) => {
                    if !gave_up {
                        self.tried.refused(METHOD, partial_success);
                    }
                    let verdict = self.failure(&remaining_methods, partial_success).await?;
                    return Ok((!gave_up).then_some(verdict));
                }
                Ok(Reply::InfoRequest {
                    name,
                    instructions,
                    prompts,
                }) => (name, instructions, prompts),
                Err(_) => return Err(self.ended().await),
            };
            let answers = match gave_up {
                true => None,
                false => self.round(&name, &instructions, &prompts).await,
            };
            if answers.is_none() && !gave_up {
                self.tried.unusable(METHOD, "not answered");
                gave_up = true;
            }
            // russh waits for answers, and sshd ends the connection where there are not as many as it has questions
            // (auth2-chall.c, `input_userauth_info_response`): as ssh, empty ones.
            let answers = answers.unwrap_or_else(|| vec![String::new(); prompts.len()]);
            *was_asked |= !prompts.is_empty();
            let responded = self
                .handle
                .authenticate_keyboard_interactive_respond(answers);
            reply = in_time(self.plan, responded).await?;
        }
        Err(ConnectError::Ended {
            host: self.plan.host.clone(),
            detail: format!(
                "during the login: given up after {MAX_ROUNDS} rounds of its questions"
            ),
        })
    }

    /// The answers to one round, for russh, which does not wipe them. `None` when nobody answered.
    async fn round(
        &mut self,
        name: &str,
        instructions: &str,
        prompts: &[Prompt],
    ) -> Option<Vec<String>> {
        if prompts.len() > MAX_QUESTIONS {
            return None;
        }
        let login = format!("{}@{}", self.plan.user, self.plan.host);
        let round = Round::new(&login, name, instructions, prompts);
        if round.questions.is_empty() {
            for line in round.text.lines() {
                info!(target: TO_PERSON, "the server says: {line}");
            }
            return Some(Vec::new());
        }
        let mut answers = ask(&self.prompter, move |person| round.ask(person)).await?;
        self.tried.has_answers = true;
        Some(
            answers
                .iter_mut()
                .map(|answer| std::mem::take(&mut **answer))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn foreign_text_keeps_its_lines_and_nothing_else() {
        assert_eq!(shown("a\tb\r\n\u{1b}[2J 1. c\u{202e}\n\n"), "a b\n[2J 1. c");
        assert_eq!(shown(&"x\n".repeat(1000)).lines().count(), MAX_LINES);
    }

    proptest! {
        #[test]
        fn no_text_disturbs_a_terminal(text in "(?s).{0,300}") {
            let shown = shown(&text);
            prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n'));
        }
    }
}
