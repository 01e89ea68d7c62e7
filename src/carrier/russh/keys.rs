//! The keys to log in with: what the key files hold, and signing with one after asking for its passphrase.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::agent::AgentIdentity;
use russh::keys::signature::Signer as _;
use russh::keys::ssh_encoding::Encode;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey, decode_secret_key, load_public_key};
use russh::{SendError, Signer};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::carrier::prompt::Prompter;

/// How often a wrong passphrase may be typed (ssh's NumberOfPasswordPrompts default).
const PASSPHRASE_TRIES: usize = 3;
/// A key file larger than this is none (ssh's MAX_KEY_FILE_SIZE, authfile.c).
const MAX_KEY_FILE: u64 = 1024 * 1024;

/// Why a key cannot be used. Short, for a list of the keys tried.
#[derive(Debug, Error)]
pub(super) enum KeyError {
    #[error("{}", .0.kind())]
    Unreadable(#[from] io::Error),
    #[error("permissions {0:04o} are too open, chmod 600 it")]
    TooOpen(u32),
    #[error("not a private key that can be read")]
    Malformed,
    #[error("no passphrase given")]
    NoPassphrase,
    #[error("wrong passphrase")]
    WrongPassphrase,
    #[error("cannot sign with this type of key")]
    CannotSign,
    #[error("the connection ended")]
    Ended,
}

impl From<SendError> for KeyError {
    fn from(_: SendError) -> Self {
        Self::Ended
    }
}

/// A key file, read but perhaps still locked.
pub(super) struct KeyFile {
    pub(super) path: PathBuf,
    /// Known without a passphrase for OpenSSH's own format, and where a `.pub` file lies beside it.
    pub(super) public: Option<PublicKey>,
    secret: Secret,
}

enum Secret {
    /// A public key only: the agent may have the rest.
    Absent,
    Locked(Zeroizing<String>),
    Open(Arc<PrivateKey>),
}

impl KeyFile {
    /// Reads the key file at `path`.
    ///
    /// # Errors
    /// [`KeyError::Unreadable`], [`KeyError::TooOpen`], [`KeyError::Malformed`].
    pub(super) fn load(path: &Path) -> Result<Self, KeyError> {
        let public = load_public_key(beside(path)).ok();
        let text = match read_private(path) {
            Ok(text) => text,
            Err(error) => {
                // The private half may be in the agent alone.
                return match public {
                    Some(public) if matches!(error, KeyError::Unreadable(_)) => {
                        Ok(Self::public_only(path, public))
                    }
                    _ => Err(error),
                };
            }
        };
        if let Ok(key) = PublicKey::from_openssh(text.trim()) {
            return Ok(Self::public_only(path, key));
        }
        let (secret, inner) = open(text)?;
        Ok(Self {
            path: path.to_owned(),
            public: inner.or(public),
            secret,
        })
    }

    fn public_only(path: &Path, public: PublicKey) -> Self {
        Self {
            path: path.to_owned(),
            public: Some(public),
            secret: Secret::Absent,
        }
    }

    /// Whether the file itself can sign, perhaps after a passphrase.
    pub(super) fn can_sign(&self) -> bool {
        !matches!(self.secret, Secret::Absent)
    }

    /// The private key; asks for the passphrase where it is locked. Blocks.
    ///
    /// # Errors
    /// [`KeyError::NoPassphrase`], [`KeyError::WrongPassphrase`], [`KeyError::CannotSign`].
    pub(super) fn unlock(&self, prompter: Option<&dyn Prompter>) -> Result<Unlocked, KeyError> {
        let text = match &self.secret {
            Secret::Absent => return Err(KeyError::CannotSign),
            Secret::Open(key) => {
                return Ok(Unlocked {
                    key: Arc::clone(key),
                    asked: false,
                });
            }
            Secret::Locked(text) => text,
        };
        let prompter = prompter.ok_or(KeyError::NoPassphrase)?;
        let question = format!("Enter passphrase for key '{}': ", self.path.display());
        for _ in 0..PASSPHRASE_TRIES {
            let passphrase = prompter.secret(&question).ok_or(KeyError::NoPassphrase)?;
            if passphrase.is_empty() {
                // As in ssh: an empty passphrase passes the key over.
                return Err(KeyError::NoPassphrase);
            }
            if let Ok(key) = decode_secret_key(text, Some(&passphrase)) {
                return Ok(Unlocked {
                    key: Arc::new(key),
                    asked: true,
                });
            }
        }
        Err(KeyError::WrongPassphrase)
    }
}

/// A private key that can sign.
#[derive(Clone)]
pub(super) struct Unlocked {
    pub(super) key: Arc<PrivateKey>,
    /// A person typed a passphrase.
    pub(super) asked: bool,
}

/// `path.pub`
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    PathBuf::from(name)
}

fn read_private(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    let metadata = std::fs::metadata(path)?;
    if metadata.len() > MAX_KEY_FILE || !metadata.is_file() {
        return Err(KeyError::Malformed);
    }
    let text = match std::fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(KeyError::Malformed),
        Err(e) => return Err(e.into()),
    };
    // As ssh does (authfile.c sshkey_perm_ok): only for one's own files, and not for public keys.
    let mode = metadata.mode() & 0o777;
    let own = metadata.uid() == nix::unistd::getuid().as_raw();
    if own && mode & 0o077 != 0 && text.contains("PRIVATE KEY") {
        return Err(KeyError::TooOpen(mode));
    }
    Ok(text)
}

/// Whether the text of a private key is locked, and its public half where that is in clear.
fn open(text: Zeroizing<String>) -> Result<(Secret, Option<PublicKey>), KeyError> {
    if let Ok(key) = PrivateKey::from_openssh(text.as_bytes()) {
        let public = key.public_key().clone();
        let secret = if key.is_encrypted() {
            Secret::Locked(text)
        } else {
            Secret::Open(Arc::new(key))
        };
        return Ok((secret, Some(public)));
    }
    match decode_secret_key(&text, None) {
        Ok(key) => {
            let public = key.public_key().clone();
            Ok((Secret::Open(Arc::new(key)), Some(public)))
        }
        Err(russh::keys::Error::KeyIsEncrypted) => Ok((Secret::Locked(text), None)),
        Err(_) if text.contains("ENCRYPTED") => Ok((Secret::Locked(text), None)),
        Err(_) => Err(KeyError::Malformed),
    }
}

/// Signs with a key file. russh calls it only when the server has said that it would take the key, so a
/// passphrase is asked for no key in vain.
pub(super) struct FileSigner {
    pub(super) file: Arc<KeyFile>,
    pub(super) prompter: Option<Arc<dyn Prompter>>,
    /// Set once the key was needed.
    pub(super) unlocked: Option<Unlocked>,
}

impl Signer for FileSigner {
    type Error = KeyError;

    async fn auth_sign(
        &mut self,
        _key: &AgentIdentity,
        hash_alg: Option<HashAlg>,
        mut to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, KeyError> {
        let unlocked = match &self.unlocked {
            Some(unlocked) => unlocked.clone(),
            None => {
                let (file, prompter) = (Arc::clone(&self.file), self.prompter.clone());
                // It asks a person, and derives the key from the passphrase for a good part of a second.
                tokio::task::spawn_blocking(move || file.unlock(prompter.as_deref()))
                    .await
                    .map_err(|_| KeyError::Ended)??
            }
        };
        let signature = sign(&unlocked.key, hash_alg, &to_sign)?;
        self.unlocked = Some(unlocked);
        to_sign.extend_from_slice(&signature);
        Ok(to_sign)
    }
}

/// The signature as an SSH string (RFC 4252 section 7).
fn sign(key: &PrivateKey, hash: Option<HashAlg>, data: &[u8]) -> Result<Vec<u8>, KeyError> {
    let signature = match key.key_data() {
        KeypairData::Rsa(pair) => (pair, hash).try_sign(data),
        pair => pair.try_sign(data),
    };
    let signature = signature.map_err(|_| KeyError::CannotSign)?;
    let mut bytes = Vec::new();
    signature
        .encode_prefixed(&mut bytes)
        .map_err(|_| KeyError::CannotSign)?;
    Ok(bytes)
}

/// Keys that live in hardware ask for a touch.
pub(super) fn needs_touch(algorithm: &Algorithm) -> bool {
    matches!(
        algorithm,
        Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256
    )
}
