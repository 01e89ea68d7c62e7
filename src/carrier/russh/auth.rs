//! Public key authentication, in ssh's order: the agent's keys that a key file names, the agent's other
//! keys, then the key files.

use std::sync::Arc;

use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, HashAlg, PublicKey};
use russh::{MethodKind, MethodSet};
use tokio::net::UnixStream;
use tracing::debug;

use super::handler::ClientHandler;
use super::host_key::{fingerprint, type_name};
use super::keys::{FileSigner, KeyFile, needs_touch};
use crate::carrier::error::ConnectError;
use crate::carrier::failure::harmless;
use crate::carrier::prompt::Prompter;
use crate::plan::SshPlan;

type Agent = AgentClient<UnixStream>;

/// What let us in, and lets a further connection in.
#[derive(Clone)]
pub(super) enum Credential {
    /// The server asks for none.
    Nothing,
    /// A key or certificate in the agent.
    Agent(Box<AgentIdentity>),
    /// A key file, unlocked: the passphrase was typed once.
    File(Arc<KeyFile>, super::keys::Unlocked),
}

impl Credential {
    /// Whether it can be used again with nobody there.
    pub(super) fn is_silent(&self) -> bool {
        match self {
            Self::Agent(identity) => !needs_touch(&identity.public_key().algorithm()),
            Self::Nothing | Self::File(..) => true,
        }
    }

    /// For the ready line.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Nothing => "no authentication".to_owned(),
            Self::Agent(identity) => {
                format!("key {} from the agent", fingerprint(&identity.public_key()))
            }
            Self::File(file, key) => {
                let how = if key.asked { " with passphrase" } else { "" };
                format!("key {}{how}", file.path.display())
            }
        }
    }
}

/// One login in progress.
pub(super) struct Authentication<'a> {
    pub(super) handle: &'a mut Handle<ClientHandler>,
    pub(super) plan: &'a SshPlan,
    pub(super) prompter: Option<Arc<dyn Prompter>>,
    /// What was tried, for the error.
    tried: Vec<String>,
    methods: MethodSet,
    /// The server's choice of hash for RSA keys, asked for once.
    rsa_hash: Option<Option<HashAlg>>,
}

impl<'a> Authentication<'a> {
    pub(super) fn new(
        handle: &'a mut Handle<ClientHandler>,
        plan: &'a SshPlan,
        prompter: Option<Arc<dyn Prompter>>,
    ) -> Self {
        Self {
            handle,
            plan,
            prompter,
            tried: Vec::new(),
            methods: MethodSet::empty(),
            rsa_hash: None,
        }
    }

    /// Tries what there is until the server takes a key.
    ///
    /// # Errors
    /// [`ConnectError::Refused`], or [`ConnectError::Ended`] when the server had enough.
    pub(super) async fn any(mut self) -> Result<Credential, ConnectError> {
        let files = self.load_files();
        let mut agent = connect_agent().await;
        let identities = match &mut agent {
            Some(agent) => agent.request_identities().await.unwrap_or_default(),
            None => Vec::new(),
        };
        if let Some(agent) = &mut agent {
            for identity in in_order(&identities, &files) {
                if self.agent_key(agent, &identity).await? {
                    return Ok(Credential::Agent(Box::new(identity)));
                }
            }
        }
        for file in files {
            let held = file.public.as_ref().is_some_and(|p| holds(&identities, p));
            if held || !file.can_sign() {
                continue;
            }
            if let Some(credential) = self.file_key(file).await? {
                return Ok(credential);
            }
        }
        if self.methods.is_empty() && self.none().await? {
            return Ok(Credential::Nothing);
        }
        Err(self.refused())
    }

    /// Tries `credential` alone, which let us in before.
    ///
    /// # Errors
    /// As [`any`](Self::any).
    pub(super) async fn again(mut self, credential: &Credential) -> Result<(), ConnectError> {
        let taken = match credential {
            Credential::Nothing => self.none().await?,
            Credential::Agent(identity) => match connect_agent().await {
                Some(mut agent) => self.agent_key(&mut agent, identity).await?,
                None => false,
            },
            Credential::File(file, unlocked) => {
                let public = unlocked.key.public_key().clone();
                let mut signer = FileSigner {
                    file: Arc::clone(file),
                    prompter: None,
                    unlocked: Some(unlocked.clone()),
                };
                self.offer_file(public, &mut signer).await?
            }
        };
        if taken { Ok(()) } else { Err(self.refused()) }
    }

    fn load_files(&mut self) -> Vec<Arc<KeyFile>> {
        let mut files = Vec::new();
        for path in &self.plan.identities {
            match KeyFile::load(path) {
                Ok(file) => files.push(Arc::new(file)),
                Err(error) => self.tried.push(format!("{} ({error})", path.display())),
            }
        }
        files
    }

    async fn agent_key(
        &mut self,
        agent: &mut Agent,
        identity: &AgentIdentity,
    ) -> Result<bool, ConnectError> {
        let public = identity.public_key().into_owned();
        let hash = self.hash_for(&public).await?;
        let user = self.plan.user.clone();
        let result = match identity {
            AgentIdentity::PublicKey { key, .. } => {
                let key = key.clone();
                self.handle
                    .authenticate_publickey_with(user, key, hash, agent)
                    .await
            }
            AgentIdentity::Certificate { certificate, .. } => {
                let certificate = certificate.clone();
                self.handle
                    .authenticate_certificate_with(user, certificate, hash, agent)
                    .await
            }
        };
        let name = format!("{} from the agent", name_of(&public));
        match result {
            Ok(result) => self.note(name, &result),
            Err(error) => {
                self.tried.push(format!("{name} ({error})"));
                self.still_there()?;
                Ok(false)
            }
        }
    }

    async fn file_key(&mut self, file: Arc<KeyFile>) -> Result<Option<Credential>, ConnectError> {
        let mut signer = FileSigner {
            file: Arc::clone(&file),
            prompter: self.prompter.clone(),
            unlocked: None,
        };
        let public = match &file.public {
            Some(public) => public.clone(),
            // An old format without a .pub file: nothing to offer before the passphrase.
            None => {
                let (locked, prompter) = (Arc::clone(&file), self.prompter.clone());
                let opened =
                    tokio::task::spawn_blocking(move || locked.unlock(prompter.as_deref())).await;
                match opened {
                    Ok(Ok(unlocked)) => {
                        let public = unlocked.key.public_key().clone();
                        signer.unlocked = Some(unlocked);
                        public
                    }
                    Ok(Err(error)) => {
                        self.tried
                            .push(format!("{} ({error})", file.path.display()));
                        return Ok(None);
                    }
                    Err(_) => return Ok(None),
                }
            }
        };
        let taken = self.offer_file(public, &mut signer).await?;
        Ok(match signer.unlocked {
            Some(unlocked) if taken => Some(Credential::File(file, unlocked)),
            _ => None,
        })
    }

    async fn offer_file(
        &mut self,
        public: PublicKey,
        signer: &mut FileSigner,
    ) -> Result<bool, ConnectError> {
        let hash = self.hash_for(&public).await?;
        let user = self.plan.user.clone();
        let result = self
            .handle
            .authenticate_publickey_with(user, public, hash, signer)
            .await;
        let name = signer.file.path.display().to_string();
        match result {
            Ok(result) => self.note(name, &result),
            Err(error) => {
                self.tried.push(format!("{name} ({error})"));
                self.still_there()?;
                Ok(false)
            }
        }
    }

    /// The hash that RSA signatures are to use: what the server says it takes (RFC 8308), else SHA-256.
    async fn hash_for(&mut self, key: &PublicKey) -> Result<Option<HashAlg>, ConnectError> {
        if !matches!(key.algorithm(), Algorithm::Rsa { .. }) {
            return Ok(None);
        }
        if let Some(hash) = self.rsa_hash {
            return Ok(hash);
        }
        let told = self.handle.best_supported_rsa_hash().await;
        let hash = told
            .map_err(|error| self.ended(&error.to_string()))?
            .unwrap_or(Some(HashAlg::Sha256));
        self.rsa_hash = Some(hash);
        Ok(hash)
    }

    fn note(&mut self, name: String, result: &AuthResult) -> Result<bool, ConnectError> {
        match result {
            AuthResult::Success => Ok(true),
            AuthResult::Failure {
                remaining_methods,
                partial_success,
            } => {
                debug!("{name}: not taken");
                let more = if *partial_success {
                    " (taken, but the server wants a second factor)"
                } else {
                    ""
                };
                self.tried.push(format!("{name}{more}"));
                if !remaining_methods.is_empty() {
                    self.methods = remaining_methods.clone();
                }
                self.still_there()?;
                Ok(false)
            }
        }
    }

    /// The method "none", which tells what the server takes (RFC 4252 section 5.2), or lets in.
    async fn none(&mut self) -> Result<bool, ConnectError> {
        let user = self.plan.user.clone();
        match self.handle.authenticate_none(user).await {
            Ok(AuthResult::Success) => Ok(true),
            Ok(AuthResult::Failure {
                remaining_methods, ..
            }) => {
                self.methods = remaining_methods;
                Ok(false)
            }
            Err(error) => Err(self.ended(&error.to_string())),
        }
    }

    fn still_there(&self) -> Result<(), ConnectError> {
        if self.handle.is_closed() {
            let tried = self.tried.len();
            return Err(self.ended(&format!(
                "after {tried} keys, perhaps more than it lets one try: name the right one with -i"
            )));
        }
        Ok(())
    }

    fn ended(&self, detail: &str) -> ConnectError {
        ConnectError::Ended {
            host: self.plan.host.clone(),
            detail: harmless(detail),
        }
    }

    fn refused(&self) -> ConnectError {
        let methods: Vec<&str> = self.methods.iter().map(method_name).collect();
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
            tried: or(self.tried.join(", "), "no key found"),
        }
    }
}

fn method_name(method: &MethodKind) -> &'static str {
    method.into()
}

fn name_of(key: &PublicKey) -> String {
    format!("{} {}", type_name(&key.algorithm()), fingerprint(key))
}

async fn connect_agent() -> Option<Agent> {
    AgentClient::connect_env().await.ok()
}

fn holds(identities: &[AgentIdentity], key: &PublicKey) -> bool {
    identities
        .iter()
        .any(|identity| is_key(identity, key.key_data()))
}

fn is_key(identity: &AgentIdentity, key: &KeyData) -> bool {
    identity.public_key().key_data() == key
}

/// The agent's keys, those that `files` name first and in the order of the files.
fn in_order(identities: &[AgentIdentity], files: &[Arc<KeyFile>]) -> Vec<AgentIdentity> {
    let rank = |identity: &AgentIdentity| {
        let named = files.iter().position(|file| {
            let public = file.public.as_ref();
            public.is_some_and(|p| is_key(identity, p.key_data()))
        });
        named.unwrap_or(files.len())
    };
    let mut sorted = identities.to_vec();
    sorted.sort_by_key(rank);
    sorted
}
