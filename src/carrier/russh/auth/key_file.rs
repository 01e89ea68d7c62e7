//! Key files: what they hold, and signing with one after asking for its passphrase.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use russh::keys::agent::AgentIdentity;
use russh::keys::signature::Signer as _;
use russh::keys::ssh_encoding::Encode;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{HashAlg, PrivateKey, PublicKey, decode_secret_key, load_public_key};
use russh::{SendError, Signer};
use thiserror::Error;
use zeroize::Zeroizing;

use super::agent::needs_touch;
use crate::carrier::failure::words;
use crate::carrier::prompt::Prompter;

/// A key file larger than this is none (ssh's MAX_KEY_FILE_SIZE, authfile.c).
const MAX_KEY_FILE: u64 = 1024 * 1024;

/// Why a key cannot be used. Short, for a list of the keys tried.
#[derive(Debug, Error)]
pub(super) enum KeyError {
    #[error("{}", words(.0))]
    Unreadable(#[from] io::Error),
    #[error("permissions {0:04o} are too open, chmod 600 it")]
    TooOpen(u32),
    #[error("not a private key that can be read")]
    Malformed,
    #[error("not a certificate that can be read")]
    NoCertificate,
    #[error("a host certificate, not a user's")]
    HostCertificate,
    #[error("its private key is not that of its public key file")]
    OtherKey,
    #[error(
        "locked with {0}, which is not known here; ssh-keygen -p -f FILE writes it anew, or use --carrier openssh"
    )]
    Cipher(String),
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
    /// Set once the key was needed.
    unlocked: OnceLock<Unlocked>,
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
            unlocked: OnceLock::new(),
        })
    }

    fn public_only(path: &Path, public: PublicKey) -> Self {
        Self {
            path: path.to_owned(),
            public: Some(public),
            secret: Secret::Absent,
            unlocked: OnceLock::new(),
        }
    }

    /// Whether the file itself can sign, perhaps after a passphrase.
    pub(super) fn can_sign(&self) -> bool {
        !matches!(self.secret, Secret::Absent) && !self.is_in_hardware()
    }

    /// Whether the key itself is in hardware, and this only says which one it is.
    pub(super) fn is_in_hardware(&self) -> bool {
        let public = self.public.as_ref();
        public.is_some_and(|public| needs_touch(&public.algorithm()))
    }

    /// Whether it can sign without asking.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.secret, Secret::Open(_)) || self.opened().is_some()
    }

    /// The key, once it was needed.
    pub(super) fn opened(&self) -> Option<&Unlocked> {
        self.unlocked.get()
    }

    /// Whether a person typed a passphrase for it.
    pub(super) fn was_asked_for(&self) -> bool {
        self.opened().is_some_and(|unlocked| unlocked.asked)
    }

    /// Takes a key that was unlocked before.
    pub(super) fn open_with(&self, unlocked: Unlocked) {
        // The first one stays: it is the same.
        let _ = self.unlocked.set(unlocked);
    }

    /// The private key; asks for the passphrase where it is locked, `tries` times at most. Blocks.
    ///
    /// # Errors
    /// [`KeyError::NoPassphrase`], [`KeyError::WrongPassphrase`], [`KeyError::CannotSign`].
    pub(super) fn unlock(
        &self,
        prompter: Option<&dyn Prompter>,
        tries: u32,
    ) -> Result<Unlocked, KeyError> {
        if let Some(unlocked) = self.opened() {
            return Ok(unlocked.clone());
        }
        let unlocked = match &self.secret {
            Secret::Absent => return Err(KeyError::CannotSign),
            Secret::Open(key) => Unlocked {
                key: Arc::clone(key),
                asked: false,
            },
            Secret::Locked(text) => Unlocked {
                key: Arc::new(self.decrypt(text, prompter, tries)?),
                asked: true,
            },
        };
        self.open_with(unlocked.clone());
        Ok(unlocked)
    }

    /// ssh's question (sshconnect2.c `load_identity_file`).
    fn decrypt(
        &self,
        text: &str,
        prompter: Option<&dyn Prompter>,
        tries: u32,
    ) -> Result<PrivateKey, KeyError> {
        let prompter = prompter.ok_or(KeyError::NoPassphrase)?;
        let question = format!("Enter passphrase for key '{}': ", self.path.display());
        for _ in 0..tries {
            let passphrase = prompter.secret(&question).ok_or(KeyError::NoPassphrase)?;
            if passphrase.is_empty() {
                // As in ssh: an empty passphrase passes the key over.
                return Err(KeyError::NoPassphrase);
            }
            if let Ok(key) = decode_secret_key(text, Some(&passphrase)) {
                return Ok(key);
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

/// The text of a file that is no longer than a key.
///
/// # Errors
/// [`KeyError::Unreadable`], [`KeyError::Malformed`].
pub(super) fn read_text(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    let metadata = std::fs::metadata(path)?;
    if metadata.len() > MAX_KEY_FILE || !metadata.is_file() {
        return Err(KeyError::Malformed);
    }
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(KeyError::Malformed),
        Err(e) => Err(e.into()),
    }
}

fn read_private(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    let text = read_text(path)?;
    let metadata = std::fs::metadata(path)?;
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
    if let Some(cipher) = unknown_cipher(&text) {
        return Err(KeyError::Cipher(cipher.to_owned()));
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

/// The cipher of a key in the old format (RFC 1421 section 4.6.1.3), where russh does not know it: whatever was typed would be a
/// wrong passphrase.
fn unknown_cipher(text: &str) -> Option<&str> {
    let mut lines = text.lines();
    let cipher = lines.find_map(|line| line.strip_prefix("DEK-Info: "))?;
    let name = cipher.split(',').next()?;
    (name != "AES-128-CBC").then_some(name)
}

/// Signs with a key file. russh calls it only when the server has said that it would take the key, so a
/// passphrase is asked for no key in vain.
pub(super) struct FileSigner {
    pub(super) file: Arc<KeyFile>,
    pub(super) prompter: Option<Arc<dyn Prompter>>,
    /// How often a passphrase may be typed.
    pub(super) tries: u32,
}

impl Signer for FileSigner {
    type Error = KeyError;

    async fn auth_sign(
        &mut self,
        offered: &AgentIdentity,
        hash_alg: Option<HashAlg>,
        mut to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, KeyError> {
        let (file, prompter, tries) = (Arc::clone(&self.file), self.prompter.clone(), self.tries);
        // It asks a person, and derives the key from the passphrase for a good part of a second.
        let unlocked = tokio::task::spawn_blocking(move || file.unlock(prompter.as_deref(), tries))
            .await
            .map_err(|_| KeyError::Ended)??;
        if unlocked.key.public_key().key_data() != offered.public_key().key_data() {
            return Err(KeyError::OtherKey);
        }
        let signature = sign(&unlocked.key, hash_alg, &to_sign)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cipher_that_is_not_known_is_no_wrong_passphrase() {
        let key = |cipher: &str| {
            format!(
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: {cipher},0011\n\nAAAA\n"
            )
        };
        let error = open(Zeroizing::new(key("DES-EDE3-CBC"))).err().unwrap();
        assert!(
            error.to_string().starts_with("locked with DES-EDE3-CBC,"),
            "{error}"
        );
        let (secret, _) = open(Zeroizing::new(key("AES-128-CBC"))).unwrap();
        assert!(matches!(secret, Secret::Locked(_)));
    }
}
