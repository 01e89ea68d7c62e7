//! The method "password" (RFC 4252 section 8), with ssh's prompts (sshconnect2.c `userauth_passwd`).

use std::time::Duration;

use tracing::info;

use super::{Authentication, PATIENCE, Progress, Step, ask};
use crate::carrier::error::ConnectError;

/// Silence after which the person is told what may be the matter.
const SILENCE: Duration = Duration::from_secs(10);

impl Authentication<'_> {
    /// Asks for a password, as often as NumberOfPasswordPrompts allows.
    pub(super) async fn password(&mut self) -> Result<Progress, ConnectError> {
        while self.passwords < self.plan.login.password_prompts {
            let question = question(&self.plan.user, &self.plan.host, self.passwords > 0);
            self.passwords += 1;
            let answer = ask(&self.prompter, move |person| person.secret(&question)).await;
            let Some(mut answer) = answer else {
                self.tried.unusable("password", "nobody to ask");
                return Ok(Progress::Exhausted);
            };
            self.tried.has_answers = true;
            // russh wipes what it is given.
            let verdict = self.try_password(std::mem::take(&mut *answer)).await?;
            if let Some(progress) = verdict.progress(|| Step::Person("password")) {
                return Ok(progress);
            }
        }
        Ok(Progress::Exhausted)
    }

    async fn try_password(&mut self, password: String) -> Result<super::Verdict, ConnectError> {
        let plan = self.plan;
        let mut asked = Box::pin(
            self.handle
                .authenticate_password(plan.user.as_str(), password),
        );
        let mut answer = tokio::time::timeout(SILENCE, asked.as_mut()).await.ok();
        if answer.is_none() {
            // russh passes over SSH_MSG_USERAUTH_PASSWD_CHANGEREQ, with which a server wants another password.
            info!(
                "{} has not answered the password yet; if it has expired, change it with: ssh {}",
                plan.host, plan.arguments
            );
            answer = tokio::time::timeout(PATIENCE, asked.as_mut()).await.ok();
        }
        drop(asked);
        match answer {
            Some(Ok(result)) => self.judge_as("password", &result).await,
            Some(Err(_)) => Err(self.ended().await),
            None => Err(ConnectError::Unanswered {
                host: plan.host.clone(),
                seconds: (SILENCE + PATIENCE).as_secs(),
                hint: format!(
                    "If the password has expired, change it with: ssh {}",
                    plan.arguments
                ),
            }),
        }
    }
}

fn question(user: &str, host: &str, again: bool) -> String {
    let again = if again {
        "Permission denied, please try again.\n"
    } else {
        ""
    };
    format!("{again}{user}@{host}'s password: ")
}
