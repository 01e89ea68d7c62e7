//! The method "password" (RFC 4252 section 8), with ssh's prompts (sshconnect2.c `userauth_passwd`).

use std::time::Duration;

use super::{Authentication, Progress, Step, Verdict, ask, in_time};
use crate::carrier::error::ConnectError;

/// How long a server is quiet that has answered a password, but with neither yes nor no.
const QUIET: Duration = Duration::from_secs(1);

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

    async fn try_password(&mut self, password: String) -> Result<Verdict, ConnectError> {
        let plan = self.plan;
        let cut = self.load.cut();
        cut.explain();
        let asked = self
            .handle
            .authenticate_password(plan.user.as_str(), password);
        let answer = tokio::select! {
            biased;
            answer = in_time(plan, asked) => Some(answer?),
            () = cut.until_unexplained(QUIET) => None,
        };
        match answer {
            Some(Ok(result)) => self.judge_as("password", &result).await,
            Some(Err(_)) => Err(self.ended().await),
            None => self.after_no_verdict().await,
        }
    }

    /// The server wants another password in its place (SSH_MSG_USERAUTH_PASSWD_CHANGEREQ), which russh passes over; or it
    /// has said something of no meaning, and is still busy with the password. The next request tells: a server answers
    /// them in order.
    async fn after_no_verdict(&mut self) -> Result<Verdict, ConnectError> {
        if self.none().await? {
            return Ok(Verdict::Taken);
        }
        Err(ConnectError::Expired {
            user: self.plan.user.clone(),
            host: self.plan.host.clone(),
            compare: self.plan.arguments.clone(),
        })
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
