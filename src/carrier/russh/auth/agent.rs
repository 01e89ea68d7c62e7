//! The user's ssh-agent (draft-miller-ssh-agent): which keys it has, and signing with one of them.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use russh::client::Handle;
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::{AgentClient, AgentStream};
use russh::keys::ssh_key::Certificate;
use russh::keys::{Algorithm, Error as KeysError, HashAlg, PublicKey};
use russh::{SendError, Signer};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tracing::{debug, info};

use super::super::handler::ClientHandler;
use super::super::host_key::{fingerprint, type_name};
use crate::carrier::TO_PERSON;
use crate::carrier::failure::words;
use crate::plan;

type Client = AgentClient<Box<dyn AgentStream + Send + Unpin>>;

/// How long the agent may take to answer; it may ask its owner to unlock it.
const ANSWER: Duration = Duration::from_secs(60);
/// SSH_AGENTC_REQUEST_IDENTITIES (section 3.5) as a frame.
const REQUEST_IDENTITIES: [u8; 5] = [0, 0, 0, 1, 11];
/// SSH_AGENT_IDENTITIES_ANSWER.
const IDENTITIES_ANSWER: u8 = 12;
/// The longest answer (OpenSSH's AGENT_MAX_LEN), in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// As many certificates within certificates as a blob may claim: each is one level of recursion to read it.
const MAX_NESTED: usize = 2;

/// Why the agent is of no use. Short, for the list of what was tried.
#[derive(Debug, Error)]
pub(super) enum AgentError {
    #[error("{}", words(.0))]
    Io(#[from] io::Error),
    #[error("it does not answer")]
    Silent,
    #[error("its answer cannot be read")]
    Malformed,
    #[error("the agent refused to sign")]
    Refused,
    #[error("the agent's signature cannot be read")]
    BadSignature,
    #[error("the connection ended")]
    Ended,
}

impl From<SendError> for AgentError {
    fn from(_: SendError) -> Self {
        Self::Ended
    }
}

impl From<KeysError> for AgentError {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::IO(error) => Self::Io(error),
            KeysError::AgentFailure => Self::Refused,
            _ => Self::BadSignature,
        }
    }
}

/// A connection to the agent.
pub(super) struct Agent {
    client: Client,
}

/// The socket of the agent that `choice` names, where there is one.
pub(super) fn socket(choice: &plan::Agent) -> Option<PathBuf> {
    match choice {
        plan::Agent::None => None,
        plan::Agent::Socket(path) => Some(path.clone()),
        plan::Agent::Environment => {
            let path = std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty());
            path.map(PathBuf::from)
        }
    }
}

impl Agent {
    /// Connects to the agent at `socket`, and tells it which server it is for: keys that may be used for some servers only
    /// are not even listed otherwise (PROTOCOL.agent, `session-bind@openssh.com`).
    ///
    /// # Errors
    /// [`AgentError::Io`], or [`AgentError::Silent`].
    pub(super) async fn connect(
        socket: &PathBuf,
        handle: &Handle<ClientHandler>,
    ) -> Result<Self, AgentError> {
        let binding = handle.agent_session_binding();
        let bind = async |client: &mut AgentClient<UnixStream>| match binding {
            Some(binding) => client.bind_session(binding, false).await,
            None => Ok(()),
        };
        Self::bound(socket, bind).await
    }

    /// Connects to the agent at `socket`, which `bind` then tells what it is for.
    async fn bound(
        socket: &PathBuf,
        bind: impl AsyncFnOnce(&mut AgentClient<UnixStream>) -> Result<(), KeysError>,
    ) -> Result<Self, AgentError> {
        let mut client = AgentClient::connect(UnixStream::connect(socket).await?);
        match in_time(bind(&mut client)).await? {
            Ok(()) => {}
            // It does not know what that is.
            Err(KeysError::AgentFailure) => debug!("the agent binds no sessions"),
            Err(error) => {
                debug!("the agent does not understand session-bind: {error}");
                client = AgentClient::connect(UnixStream::connect(socket).await?);
            }
        }
        Ok(Self {
            client: client.dynamic(),
        })
    }

    /// Its keys and certificates, in its order. Those of a type that is not known here are left out.
    ///
    /// # Errors
    /// [`AgentError`].
    pub(super) async fn identities(self) -> Result<(Self, Vec<AgentIdentity>), AgentError> {
        // russh's own listing fails as a whole for one key that it does not know.
        let mut stream = self.client.into_inner();
        let identities = in_time(list(&mut stream)).await??;
        let client = AgentClient::connect(stream);
        Ok((Self { client }, identities))
    }
}

/// The public halves of the keys that the agent at `socket` shows to whoever does not say which server they are for.
///
/// # Errors
/// [`AgentError`].
pub(super) async fn public_keys(socket: &PathBuf) -> Result<Vec<PublicKey>, AgentError> {
    let mut stream = UnixStream::connect(socket).await?;
    let identities = in_time(list(&mut stream)).await??;
    let keys = identities
        .iter()
        .map(|identity| identity.public_key().into_owned());
    Ok(keys.collect())
}

/// Awaits what the agent says.
async fn in_time<T>(answer: impl Future<Output = T>) -> Result<T, AgentError> {
    let answer = tokio::time::timeout(ANSWER, answer).await;
    answer.map_err(|_| AgentError::Silent)
}

async fn list(
    stream: &mut (dyn AgentStream + Send + Unpin),
) -> Result<Vec<AgentIdentity>, AgentError> {
    stream.write_all(&REQUEST_IDENTITIES).await?;
    stream.flush().await?;
    let length = stream.read_u32().await? as usize;
    if length > MAX_ANSWER {
        return Err(AgentError::Malformed);
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    parse(&answer).ok_or(AgentError::Malformed)
}

/// SSH_AGENT_IDENTITIES_ANSWER: a count, then a key blob and a comment for each. `None` when it is none. An agent that
/// is locked answers with an empty list.
fn parse(answer: &[u8]) -> Option<Vec<AgentIdentity>> {
    let mut rest = answer.strip_prefix(&[IDENTITIES_ANSWER])?;
    let count = u32::from_be_bytes(*rest.split_off(..4)?.first_chunk()?);
    let mut identities = Vec::new();
    for _ in 0..count {
        let blob = string(&mut rest)?;
        let comment = String::from_utf8_lossy(string(&mut rest)?).into_owned();
        match identity(blob, comment) {
            Some(identity) => identities.push(identity),
            None => debug!("the agent has a key that cannot be read here"),
        }
    }
    Some(identities)
}

/// An SSH string (RFC 4251 section 5), taken off the front of `rest`.
fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_be_bytes(*rest.split_off(..4)?.first_chunk()?);
    rest.split_off(..usize::try_from(length).ok()?)
}

fn identity(blob: &[u8], comment: String) -> Option<AgentIdentity> {
    const MARK: &[u8] = b"-cert-v01@openssh.com";
    let nested = blob.windows(MARK.len()).filter(|part| *part == MARK);
    if nested.count() > MAX_NESTED {
        return None;
    }
    let mut rest = blob;
    if string(&mut rest)?.ends_with(MARK) {
        let certificate = Certificate::from_bytes(blob).ok()?;
        return Some(AgentIdentity::Certificate {
            certificate,
            comment,
        });
    }
    let key = PublicKey::from_bytes(blob).ok()?;
    Some(AgentIdentity::PublicKey { key, comment })
}

/// Signs with `identity` of the agent, whatever is offered: a certificate may belong to a key that the agent holds.
pub(super) struct AgentSigner<'a> {
    pub(super) agent: &'a mut Agent,
    pub(super) identity: &'a AgentIdentity,
}

impl Signer for AgentSigner<'_> {
    type Error = AgentError;

    async fn auth_sign(
        &mut self,
        _offered: &AgentIdentity,
        hash_alg: Option<HashAlg>,
        to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, AgentError> {
        let key = self.identity.public_key();
        let algorithm = key.algorithm();
        if needs_touch(&algorithm) {
            info!(
                target: TO_PERSON,
                "confirm that you are there: touch key {} {}",
                type_name(&algorithm),
                fingerprint(&key)
            );
        }
        let signed = self
            .agent
            .client
            .sign_request(self.identity, hash_alg, to_sign);
        Ok(signed.await?)
    }
}

/// Keys that live in hardware ask for a touch.
pub(super) fn needs_touch(algorithm: &Algorithm) -> bool {
    matches!(
        algorithm,
        Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use russh::keys::PrivateKey;
    use tokio::time::Instant;

    use super::*;

    fn answer(entries: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut answer = vec![IDENTITIES_ANSWER];
        answer.extend(u32::try_from(entries.len()).unwrap().to_be_bytes());
        for part in entries.iter().flat_map(|(blob, comment)| [blob, comment]) {
            answer.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
            answer.extend(*part);
        }
        answer
    }

    /// As a stopped one does: the system accepts for it.
    #[tokio::test(start_paused = true)]
    async fn an_agent_that_accepts_and_says_nothing_is_not_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent");
        let _stopped = tokio::net::UnixListener::bind(&socket).unwrap();
        let began = Instant::now();
        let bind = async |client: &mut AgentClient<UnixStream>| {
            client.request_identities().await.map(drop)
        };
        let bound = Agent::bound(&socket, bind);
        let bound = tokio::time::timeout(2 * ANSWER, bound).await.unwrap();
        assert!(matches!(bound, Err(AgentError::Silent)));
        assert_eq!(began.elapsed(), ANSWER);
    }

    #[test]
    fn a_key_that_is_not_known_hides_no_other() {
        let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
        let blob = key.public_key().to_bytes().unwrap();
        let odd = b"\0\0\0\x07ssh-foo\0\0\0\x01x";
        let listed = parse(&answer(&[(odd, b""), (&blob, b"\xff\xfe")])).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(
            listed[0].public_key().key_data(),
            key.public_key().key_data()
        );
    }

    #[test]
    fn what_is_no_list() {
        let key = answer(&[(b"\0\0\0\x01a", b"b")]);
        assert!(parse(&key).unwrap().is_empty());
        assert!(parse(&key[..key.len() - 1]).is_none());
        assert!(parse(&[5]).is_none());
        assert!(parse(&[]).is_none());
        assert!(parse(&[IDENTITIES_ANSWER, 255, 255, 255, 255]).is_none());
        let nested = [&b"\0\0\0\x20ssh-ed25519-cert-v01@openssh.com"[..]; 50].concat();
        assert!(parse(&answer(&[(&nested, b"")])).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn no_answer_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            blob in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = parse(&bytes);
            let mut key = b"\0\0\0\x20ssh-ed25519-cert-v01@openssh.com".to_vec();
            key.extend(blob);
            let _ = parse(&answer(&[(&key, &bytes)]));
        }
    }
}
