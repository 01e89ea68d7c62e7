//! How a key is shown to people.

use russh::keys::ssh_key::HashAlg;
use russh::keys::{Algorithm, PublicKey};

/// `SHA256:...`
pub(in super::super) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// The type as ssh names it to people: `ED25519`, `RSA`, `ECDSA`.
pub(in super::super) fn type_name(algorithm: &Algorithm) -> String {
    match algorithm {
        Algorithm::Ed25519 => "ED25519".to_owned(),
        Algorithm::Rsa { .. } => "RSA".to_owned(),
        Algorithm::Ecdsa { .. } => "ECDSA".to_owned(),
        Algorithm::SkEd25519 => "ED25519-SK".to_owned(),
        Algorithm::SkEcdsaSha2NistP256 => "ECDSA-SK".to_owned(),
        other => other.as_str().to_owned(),
    }
}

/// Type and fingerprint.
pub(in super::super) fn describe(key: &PublicKey) -> String {
    format!("{} {}", type_name(&key.algorithm()), fingerprint(key))
}
