//! Logging in (RFC 4252), in ssh's order (sshconnect2.c `userauth`): first `none`, which tells what the server takes, then
//! the methods of PreferredAuthentications, each until it has nothing left to try. A server may want several, one
//! after the other ("partial success").
//!
//! | file | idea |
//! |---|---|
//! | `public_key` | offering keys, in the order of `candidates`; which RSA signatures: `accepted` |
//! | `agent`, `key_file`, `certificate` | where keys are; `keyring`: those that a passphrase has unlocked |
//! | `password`, `dialog` | what a person is asked (RFC 4252 section 8, RFC 4256) |
//! | `credential` | what let us in, for further connections |
//! | `facts` | what a key file is, for a doctor |
//! | `report` | what was tried, for the error |
//!
//! # Secrets
//! Passphrases, passwords and answers are wiped when they have been used, and private keys when the last connection that
//! may need them is gone; a key that a passphrase has unlocked stays in memory as it would in ssh-agent, so that a
//! reconnection asks nobody. Passwords and answers are not kept: a reconnection asks for them again. What cannot be wiped
//! is russh's: its packet buffers, in which a password or an answer is encrypted, and its copy of an answer.

mod accepted;
mod agent;
mod candidates;
mod certificate;
mod credential;
mod dialog;
mod facts;
mod key_file;
mod keyring;
mod password;
mod public_key;
mod report;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{AuthResult, Handle};
use russh::keys::HashAlg;
use russh::{MethodKind, MethodSet};
use tracing::{debug, info};

use self::agent::Agent;
use self::candidates::Candidate;
use self::report::Tried;
use super::handler::ClientHandler;
use super::load::Load;
use crate::carrier::error::ConnectError;
use crate::carrier::prompt::Prompter;
use crate::plan::SshPlan;

pub use self::facts::{KeyFacts, KeyLock, agent_key_facts, key_facts};

pub(super) use self::credential::{Credential, Step};
pub(super) use self::keyring::Keyring;

/// How long the server may take to answer, with the time that a person takes to touch a key or to type a passphrase:
/// sshd's LoginGraceTime, after which it is gone.
const PATIENCE: Duration = Duration::from_secs(120);
/// A login has at most so many parts: a server that always wants one more ends it.
const MAX_STEPS: usize = 8;

/// The methods that are known here, in ssh's order (readconf.c, PreferredAuthentications).
const METHODS: [MethodKind; 3] = [
    MethodKind::PublicKey,
    MethodKind::KeyboardInteractive,
    MethodKind::Password,
];

/// What came of a method.
enum Progress {
    /// In.
    Done(Step),
    /// Taken, but the server wants more.
    Partly(Step),
    /// Nothing is left to try with it.
    Exhausted,
}

/// What the server said to one request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Taken,
    Partly,
    Refused,
}

impl Verdict {
    fn progress(self, step: impl FnOnce() -> Step) -> Option<Progress> {
        match self {
            Self::Taken => Some(Progress::Done(step())),
            Self::Partly => Some(Progress::Partly(step())),
            Self::Refused => None,
        }
    }
}

/// One login in progress.
pub(super) struct Authentication<'a> {
    handle: &'a mut Handle<ClientHandler>,
    plan: &'a SshPlan,
    load: &'a Load,
    /// `None` where nobody may be asked.
    prompter: Option<Arc<dyn Prompter>>,
    /// What may ask somebody who is not there is left out.
    is_silent: bool,
    keyring: Keyring,
    tried: Tried,
    /// What the server told who had shown nothing yet.
    offered: Vec<String>,
    /// What it has taken so far, and which keys it would not take next.
    steps: Vec<Step>,
    not_taken: Vec<Candidate>,
    /// `SHA256:...` of those that let us in before.
    own_keys: Vec<String>,
    /// What the server would go on with.
    methods: MethodSet,
    agent: Option<Agent>,
    /// Keys in the order to try them; made when first needed.
    candidates: Option<Vec<Candidate>>,
    /// The server's choice of hash for RSA keys, asked for once.
    rsa_hash: Option<Option<Option<HashAlg>>>,
    passwords: u32,
    dialogs: u32,
}

impl<'a> Authentication<'a> {
    /// `load` tells why the connection ended; `keyring` has the keys unlocked before, and gets those unlocked now.
    pub(super) fn new(
        handle: &'a mut Handle<ClientHandler>,
        plan: &'a SshPlan,
        load: &'a Load,
        prompter: Option<Arc<dyn Prompter>>,
        keyring: Keyring,
    ) -> Self {
        Self {
            handle,
            plan,
            load,
            prompter: prompter.filter(|_| !plan.login.batch),
            is_silent: false,
            keyring,
            tried: Tried::default(),
            offered: Vec::new(),
            steps: Vec::new(),
            not_taken: Vec::new(),
            own_keys: Vec::new(),
            methods: MethodSet::empty(),
            agent: None,
            candidates: None,
            rsa_hash: None,
            passwords: 0,
            dialogs: 0,
        }
    }

    /// The same, of which nobody is to know where `is_silent`: no key is used that is to be touched, and none but those that let us in
    /// before, whose certificates may have been renewed.
    pub(super) fn silently(self, is_silent: bool) -> Self {
        Self { is_silent, ..self }
    }

    /// Tries what there is until the server lets us in, but for what it has refused by now.
    ///
    /// # Errors
    /// [`ConnectError::Refused`], [`ConnectError::TooManyTries`], [`ConnectError::Unanswered`] or
    /// [`ConnectError::Ended`].
    pub(super) async fn any(mut self) -> Result<Credential, ConnectError> {
        if self.methods.is_empty() {
            if self.none().await? {
                return Ok(Credential::new(vec![Step::Nothing], Vec::new()));
            }
            self.offered = names(&self.methods);
        }
        let mut left = self.enabled();
        while self.steps.len() < MAX_STEPS {
            let next = left.iter().position(|method| self.methods.contains(method));
            let Some(index) = next else {
                break;
            };
            match self.attempt(left[index]).await? {
                Progress::Done(step) => {
                    self.steps.push(step);
                    return Ok(Credential::new(self.steps, self.offered));
                }
                Progress::Partly(step) => {
                    info!("{} was taken; the server wants more", step.describe());
                    self.went_on(step);
                    left = self.enabled();
                }
                Progress::Exhausted => {
                    left.remove(index);
                }
            }
        }
        Err(self.refused())
    }

    /// Does what let us in before, and asks nobody.
    ///
    /// # Errors
    /// As [`any`](Self::any), which may go on from there.
    pub(super) async fn again(&mut self, credential: &Credential) -> Result<(), ConnectError> {
        self.offered = credential.methods().to_vec();
        self.own_keys = credential.keys().collect();
        for step in credential.steps() {
            let verdict = match step {
                Step::Nothing if self.none().await? => Verdict::Taken,
                Step::Key(candidate) => self.offer_again(candidate).await?,
                Step::Nothing | Step::Person(_) => Verdict::Refused,
            };
            match verdict {
                Verdict::Taken => return Ok(()),
                Verdict::Partly => self.went_on(step.clone()),
                Verdict::Refused => break,
            }
        }
        Err(self.refused())
    }

    /// The server has taken `step` and wants more, for which it may take what it refused before.
    fn went_on(&mut self, step: Step) {
        self.steps.push(step);
        self.not_taken.clear();
    }

    /// The methods that the plan allows, in order.
    fn enabled(&self) -> Vec<MethodKind> {
        let login = &self.plan.login;
        let is_on = |method: &MethodKind| match method {
            MethodKind::PublicKey => login.public_key,
            MethodKind::KeyboardInteractive => login.keyboard_interactive && !login.batch,
            MethodKind::Password => login.password && !login.batch,
            _ => false,
        };
        let order: Vec<MethodKind> = match &login.preferred {
            Some(names) => names.iter().filter_map(|name| name.parse().ok()).collect(),
            None => METHODS.to_vec(),
        };
        order.into_iter().filter(is_on).collect()
    }

    async fn attempt(&mut self, method: MethodKind) -> Result<Progress, ConnectError> {
        match method {
            MethodKind::PublicKey => self.public_key().await,
            MethodKind::KeyboardInteractive => self.dialog().await,
            MethodKind::Password => self.password().await,
            _ => Ok(Progress::Exhausted),
        }
    }

    /// The method "none", which tells what the server takes (RFC 4252 section 5.2), or lets in.
    async fn none(&mut self) -> Result<bool, ConnectError> {
        let user = self.plan.user.clone();
        let asked = in_time(self.plan, self.handle.authenticate_none(user)).await?;
        match asked {
            Ok(result) => Ok(self.judge(&result).await? == Verdict::Taken),
            Err(_) => Err(self.ended().await),
        }
    }

    /// Notes what the server goes on with.
    async fn judge(&mut self, result: &AuthResult) -> Result<Verdict, ConnectError> {
        match result {
            AuthResult::Success => Ok(Verdict::Taken),
            AuthResult::Failure {
                remaining_methods,
                partial_success,
            } => self.failure(remaining_methods, *partial_success).await,
        }
    }

    async fn failure(
        &mut self,
        methods: &MethodSet,
        partial_success: bool,
    ) -> Result<Verdict, ConnectError> {
        if !methods.is_empty() {
            self.methods = methods.clone();
        }
        if partial_success {
            return Ok(Verdict::Partly);
        }
        if self.handle.is_closed() {
            // russh reports a connection that has ended as a refusal.
            return Err(self.ended().await);
        }
        Ok(Verdict::Refused)
    }

    /// [`judge`](Self::judge), with `name` for the list of what was tried.
    async fn judge_as(&mut self, name: &str, result: &AuthResult) -> Result<Verdict, ConnectError> {
        if let AuthResult::Failure {
            partial_success, ..
        } = result
        {
            debug!("{name}: not enough, or not taken");
            self.tried.refused(name, *partial_success);
        }
        self.judge(result).await
    }
}

fn names(methods: &MethodSet) -> Vec<String> {
    let names = methods.iter().map(<&str>::from);
    names.map(str::to_owned).collect()
}

/// Awaits the server's answer, as long as sshd itself would wait.
async fn in_time<T>(plan: &SshPlan, answer: impl Future<Output = T>) -> Result<T, ConnectError> {
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    answer.map_err(|_| ConnectError::Unanswered {
        host: plan.host.clone(),
        seconds: PATIENCE.as_secs(),
        hint: format!("Compare with: ssh -v {}", plan.arguments),
    })
}

/// Runs what asks a person on a thread that may block. `None` when nobody answered.
async fn ask<T: Send + 'static>(
    prompter: &Option<Arc<dyn Prompter>>,
    question: impl FnOnce(&dyn Prompter) -> Option<T> + Send + 'static,
) -> Option<T> {
    let prompter = Arc::clone(prompter.as_ref()?);
    let asked = tokio::task::spawn_blocking(move || question(&*prompter)).await;
    // An error: the prompter panicked, or the runtime ends.
    asked.ok().flatten()
}
