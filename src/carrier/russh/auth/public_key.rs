//! The method "publickey" (RFC 4252 section 7): each key is shown first, and signs only when the server would take it.

use std::sync::Arc;

use russh::client::AuthResult;
use russh::keys::{Algorithm, HashAlg};

use super::accepted::Accepted;
use super::agent::{self, Agent, AgentSigner};
use super::candidates::{Candidate, Offer, SignWith, Sources};
use super::certificate::CertificateFile;
use super::key_file::{FileSigner, KeyFile};
use super::{Authentication, Progress, Step, Verdict, ask, in_time};
use crate::carrier::error::ConnectError;

impl Authentication<'_> {
    /// Offers one key after the other, but for those that the server has taken: one that wants two keys wants two
    /// different ones. Nor is one offered again that it has just refused.
    pub(super) async fn public_key(&mut self) -> Result<Progress, ConnectError> {
        let candidates = match self.candidates.take() {
            Some(candidates) => candidates,
            None => self.prepare().await,
        };
        for candidate in &candidates {
            if !self.is_to_be_tried(candidate) {
                continue;
            }
            let verdict = self.offer(candidate).await?;
            let step = || Step::Key(Box::new(candidate.clone()));
            if let Some(progress) = verdict.progress(step) {
                self.candidates = Some(candidates);
                return Ok(progress);
            }
        }
        self.candidates = Some(candidates);
        Ok(Progress::Exhausted)
    }

    fn is_to_be_tried(&self, candidate: &Candidate) -> bool {
        let is_used = |step: &Step| matches!(step, Step::Key(used) if used.is_same(candidate));
        let is_refused = |refused: &Candidate| refused.is_same(candidate);
        // Others may ask by themselves (ssh-add -c), and are not what somebody has logged in with.
        let is_own = || {
            let key = candidate.fingerprint();
            key.is_some_and(|key| self.own_keys.contains(&key))
        };
        let asks = self.is_silent && !(candidate.is_silent() && is_own());
        !asks && !self.steps.iter().any(is_used) && !self.not_taken.iter().any(is_refused)
    }

    /// Offers what was taken before, with nobody there.
    pub(super) async fn offer_again(
        &mut self,
        candidate: &Candidate,
    ) -> Result<Verdict, ConnectError> {
        if matches!(candidate.sign_with, SignWith::Agent(_)) && self.agent.is_none() {
            self.agent = self.connect_agent().await;
        }
        self.offer(candidate).await
    }

    /// Looks for keys. What cannot be used is noted.
    async fn prepare(&mut self) -> Vec<Candidate> {
        let login = &self.plan.login;
        let mut sources = Sources {
            files: Vec::new(),
            certificates: Vec::new(),
            beside: Vec::new(),
            agent: Vec::new(),
            only_named: login.identities_only,
        };
        for path in &login.certificates {
            match CertificateFile::load(path) {
                Ok(file) => sources.certificates.push(file),
                Err(error) => self.tried.unusable(&path.display().to_string(), error),
            }
        }
        for path in &self.plan.identities {
            match KeyFile::load(path) {
                Ok(file) => {
                    if login.certificates.is_empty() {
                        let beside = CertificateFile::beside(path);
                        sources
                            .beside
                            .extend(beside.map(|found| (sources.files.len(), found)));
                    }
                    self.keyring
                        .recall(&file)
                        .into_iter()
                        .for_each(|key| file.open_with(key));
                    sources.files.push(Arc::new(file));
                }
                Err(error) => self.tried.unusable(&path.display().to_string(), error),
            }
        }
        sources.agent = self.agent_identities().await;
        let candidates = sources.in_order();
        self.note_hardware_files(&sources);
        candidates
    }

    async fn agent_identities(&mut self) -> Vec<russh::keys::agent::AgentIdentity> {
        let Some(agent) = self.connect_agent().await else {
            return Vec::new();
        };
        match agent.identities().await {
            Ok((agent, identities)) => {
                self.agent = Some(agent);
                identities
            }
            Err(error) => {
                self.tried.unusable("the agent", error);
                Vec::new()
            }
        }
    }

    async fn connect_agent(&mut self) -> Option<Agent> {
        let socket = agent::socket(&self.plan.login.agent)?;
        match Agent::connect(&socket, self.handle).await {
            Ok(agent) => Some(agent),
            Err(error) => {
                let name = format!("the agent at {}", socket.display());
                self.tried.unusable(&name, error);
                None
            }
        }
    }

    /// A hardware key's file alone cannot sign.
    fn note_hardware_files(&mut self, sources: &Sources) {
        for file in sources.files.iter().filter(|file| file.is_in_hardware()) {
            let public = file.public.as_ref().map(|key| key.key_data());
            let is_held = |key: &russh::keys::agent::AgentIdentity| {
                public.is_some_and(|public| key.public_key().key_data() == public)
            };
            if !sources.agent.iter().any(is_held) {
                let path = file.path.display().to_string();
                let why = format!("a hardware key: ssh-add {path}, or use --carrier openssh");
                self.tried.unusable(&path, why);
            }
        }
    }

    async fn offer(&mut self, candidate: &Candidate) -> Result<Verdict, ConnectError> {
        let name = candidate.name();
        match self.unlocked_offer(candidate).await {
            Some(Offer::Locked) | None => Ok(Verdict::Refused),
            Some(offer) => {
                let candidate = Candidate {
                    offer,
                    ..candidate.clone()
                };
                self.show(&name, &candidate).await
            }
        }
    }

    /// What to show: where it is not known without the passphrase, that is asked for now.
    async fn unlocked_offer(&mut self, candidate: &Candidate) -> Option<Offer> {
        let (Offer::Locked, SignWith::File(file)) = (&candidate.offer, &candidate.sign_with) else {
            return Some(candidate.offer.clone());
        };
        let (locked, tries) = (Arc::clone(file), self.plan.login.password_prompts);
        let opened = match file.opened() {
            Some(opened) => Ok(opened.clone()),
            None => {
                let asked = ask(&self.prompter, move |person| {
                    Some(locked.unlock(Some(person), tries))
                });
                asked
                    .await
                    .unwrap_or(Err(super::key_file::KeyError::NoPassphrase))
            }
        };
        match opened {
            Ok(unlocked) => {
                self.keyring.keep(file, &unlocked);
                Some(Offer::Key(unlocked.key.public_key().clone()))
            }
            Err(error) => {
                self.tried.unusable(&candidate.name(), error);
                None
            }
        }
    }

    async fn show(&mut self, name: &str, candidate: &Candidate) -> Result<Verdict, ConnectError> {
        let Some(hash) = self.hash_for(name, candidate).await? else {
            return Ok(Verdict::Refused);
        };
        let result = match &candidate.sign_with {
            SignWith::Agent(identity) => {
                let Some(mut agent) = self.agent.take() else {
                    return Ok(Verdict::Refused);
                };
                let mut signer = AgentSigner {
                    agent: &mut agent,
                    identity,
                };
                let result = self.authenticate(candidate, hash, &mut signer).await?;
                self.agent = Some(agent);
                result.map_err(|error| error.to_string())
            }
            SignWith::File(file) => {
                let mut signer = FileSigner {
                    file: Arc::clone(file),
                    prompter: self.prompter.clone(),
                    tries: self.plan.login.password_prompts,
                };
                let result = self.authenticate(candidate, hash, &mut signer).await?;
                if let Some(unlocked) = file.opened() {
                    self.keyring.keep(file, unlocked);
                }
                result.map_err(|error| error.to_string())
            }
        };
        match result {
            Ok(result) => {
                let verdict = self.judge_as(name, &result).await?;
                if verdict == Verdict::Refused {
                    self.not_taken.push(candidate.clone());
                }
                Ok(verdict)
            }
            Err(error) => {
                self.tried.unusable(name, error);
                if self.handle.is_closed() {
                    return Err(self.ended().await);
                }
                Ok(Verdict::Refused)
            }
        }
    }

    async fn authenticate<S: russh::Signer>(
        &mut self,
        candidate: &Candidate,
        hash: Option<HashAlg>,
        signer: &mut S,
    ) -> Result<Result<AuthResult, S::Error>, ConnectError> {
        let user = self.plan.user.clone();
        match candidate.offer.clone() {
            Offer::Certificate(certificate) => {
                let asked =
                    self.handle
                        .authenticate_certificate_with(user, *certificate, hash, signer);
                in_time(self.plan, asked).await
            }
            Offer::Key(key) => {
                let asked = self
                    .handle
                    .authenticate_publickey_with(user, key, hash, signer);
                in_time(self.plan, asked).await
            }
            Offer::Locked => Ok(Ok(AuthResult::Failure {
                remaining_methods: self.methods.clone(),
                partial_success: false,
            })),
        }
    }

    /// The hash that an RSA signature is to use, `None` for other keys. The outer `None`: the user's list or the
    /// server's does not have this type of key, or it is too short, which is noted.
    async fn hash_for(
        &mut self,
        name: &str,
        candidate: &Candidate,
    ) -> Result<Option<Option<HashAlg>>, ConnectError> {
        let Some(algorithm) = candidate.algorithm() else {
            return Ok(None);
        };
        let is_certificate = candidate.is_certificate();
        let names = self.plan.algorithms.user_keys.as_deref();
        if !Accepted::new(names).takes(&algorithm, is_certificate) {
            let why = "not in PubkeyAcceptedAlgorithms";
            self.tried.unusable(name, why);
            return Ok(None);
        }
        let required = self.plan.required_rsa_size;
        if candidate.rsa_bits().is_some_and(|bits| bits < required) {
            self.tried.unusable(name, "shorter than RequiredRSASize");
            return Ok(None);
        }
        if !matches!(algorithm, Algorithm::Rsa { .. }) {
            return Ok(Some(None));
        }
        let told = self.told_hash().await?;
        let hash = Accepted::new(names).rsa_hash(is_certificate, told);
        if hash.is_none() {
            let why = "the server takes RSA with SHA-1 only; allow it with -o PubkeyAcceptedAlgorithms=+ssh-rsa";
            self.tried.unusable(name, why);
        }
        Ok(hash)
    }

    async fn told_hash(&mut self) -> Result<Option<Option<HashAlg>>, ConnectError> {
        if let Some(told) = self.rsa_hash {
            return Ok(told);
        }
        match in_time(self.plan, self.handle.best_supported_rsa_hash()).await? {
            Ok(told) => {
                self.rsa_hash = Some(told);
                Ok(told)
            }
            Err(_) => Err(self.ended().await),
        }
    }
}
