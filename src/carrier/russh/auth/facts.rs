//! What a key is, in a file or in an agent, without unlocking it.

use std::path::Path;

use russh::keys::PublicKey;
use tracing::debug;

use super::super::host_key::{fingerprint, type_name};
use super::agent::{self, needs_touch};
use super::key_file::KeyFile;
use crate::plan;

/// What a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFacts {
    /// `ED25519`, `RSA`, `ECDSA`; `None` for an old format that hides it until it is unlocked.
    pub kind: Option<String>,
    /// Length of an RSA key, in bits.
    pub bits: Option<u32>,
    /// `SHA256:...`
    pub fingerprint: Option<String>,
    /// How the private half is kept.
    pub lock: KeyLock,
}

/// How the private half of a key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyLock {
    /// In clear.
    Open,
    /// Behind a passphrase.
    Locked,
    /// In hardware.
    Hardware,
    /// Not in this file: perhaps in an agent.
    Elsewhere,
}

/// What the key file at `path` is. Blocks.
///
/// # Errors
/// Why it cannot be used: a few words.
pub fn key_facts(path: &Path) -> Result<KeyFacts, String> {
    let file = KeyFile::load(path).map_err(|error| error.to_string())?;
    let lock = if file.is_in_hardware() {
        KeyLock::Hardware
    } else if !file.can_sign() {
        KeyLock::Elsewhere
    } else if file.is_open() {
        KeyLock::Open
    } else {
        KeyLock::Locked
    };
    Ok(facts(file.public.as_ref(), lock))
}

/// What the keys in the user's agent are; none where there is no agent, or it says nothing.
pub async fn agent_key_facts(choice: &plan::Agent) -> Vec<KeyFacts> {
    let Some(socket) = agent::socket(choice) else {
        return Vec::new();
    };
    let keys = agent::public_keys(&socket).await.unwrap_or_else(|error| {
        debug!("the agent's keys cannot be listed: {error}");
        Vec::new()
    });
    let lock = |key: &PublicKey| match needs_touch(&key.algorithm()) {
        true => KeyLock::Hardware,
        false => KeyLock::Elsewhere,
    };
    keys.iter().map(|key| facts(Some(key), lock(key))).collect()
}

fn facts(public: Option<&PublicKey>, lock: KeyLock) -> KeyFacts {
    KeyFacts {
        kind: public.map(|key| type_name(&key.algorithm())),
        bits: public.and_then(rsa_bits),
        fingerprint: public.map(fingerprint),
        lock,
    }
}

fn rsa_bits(key: &PublicKey) -> Option<u32> {
    key.key_data().rsa().map(|key| key.key_size())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn key_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let made = |name: &str, arguments: &[&str]| {
            let path = dir.path().join(name);
            let status = Command::new("ssh-keygen")
                .args(["-q", "-f"])
                .arg(&path)
                .args(arguments)
                .status();
            assert!(status.unwrap().success());
            key_facts(&path).unwrap()
        };
        let open = made("open", &["-t", "ed25519", "-N", ""]);
        assert_eq!(
            (open.kind.as_deref(), open.lock),
            (Some("ED25519"), KeyLock::Open)
        );
        assert!(open.fingerprint.unwrap().starts_with("SHA256:"));
        let locked = made(
            "locked",
            &["-t", "rsa", "-b", "2048", "-N", "secret", "-a", "1"],
        );
        assert_eq!((locked.bits, locked.lock), (Some(2048), KeyLock::Locked));
        std::fs::remove_file(dir.path().join("open")).unwrap();
        let public = key_facts(&dir.path().join("open")).unwrap();
        assert_eq!(public.lock, KeyLock::Elsewhere);
        assert!(key_facts(&dir.path().join("none")).is_err());
    }
}
