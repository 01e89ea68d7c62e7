//! Which signature algorithms may be used to log in: PubkeyAcceptedAlgorithms of ssh_config(5).

use russh::keys::{Algorithm, HashAlg};

/// RSA signatures in the order of preference; `None` is `ssh-rsa`, with SHA-1.
const RSA: [Option<HashAlg>; 3] = [Some(HashAlg::Sha512), Some(HashAlg::Sha256), None];

/// The algorithms that the user allows, by the names of the protocol.
pub(super) struct Accepted<'a>(Option<&'a [String]>);

impl<'a> Accepted<'a> {
    /// `names` as configured; `None` is ssh's own list.
    pub(super) fn new(names: Option<&'a [String]>) -> Self {
        Self(names)
    }

    /// Whether a key of this type may be offered at all.
    pub(super) fn takes(&self, algorithm: &Algorithm, is_certificate: bool) -> bool {
        match algorithm {
            Algorithm::Rsa { .. } => RSA
                .iter()
                .any(|hash| self.allows(&rsa_name(*hash, is_certificate))),
            other => self.allows(&name(other, is_certificate)),
        }
    }

    /// The hash for RSA signatures. `told` is the best one that the server takes (RFC 8308 section 3.1), where it has said
    /// so; whoever takes SHA-512 takes SHA-256 too. `None` when there is no common one.
    pub(super) fn rsa_hash(
        &self,
        is_certificate: bool,
        told: Option<Option<HashAlg>>,
    ) -> Option<Option<HashAlg>> {
        // A server that says nothing takes SHA-256, or is older than what any list allows.
        let best = told.unwrap_or(Some(HashAlg::Sha256));
        let is_allowed = |hash: &Option<HashAlg>| self.allows(&rsa_name(*hash, is_certificate));
        let mut from_best = RSA.into_iter().skip_while(|hash| *hash != best);
        from_best.find(is_allowed)
    }

    fn allows(&self, name: &str) -> bool {
        // ssh no longer has these in its own list (release notes of OpenSSH 7.0 and 8.8).
        let is_usual = !name.starts_with("ssh-rsa") && !name.starts_with("ssh-dss");
        let Some(names) = self.0 else {
            return is_usual;
        };
        // `ssh -G` prints the result; only a configuration that was read without ssh has the signs.
        let sign = names.first().and_then(|first| first.chars().next());
        let is_named = names.iter().any(|pattern| matches(pattern, name));
        match sign {
            Some('+' | '^') => is_usual || is_named,
            Some('-') => is_usual && !is_named,
            _ => is_named,
        }
    }
}

/// A name, perhaps with a sign in front, or the beginning of names with a star behind it.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern = pattern.trim_start_matches(['+', '-', '^']);
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    }
}

fn rsa_name(hash: Option<HashAlg>, is_certificate: bool) -> String {
    name(&Algorithm::Rsa { hash }, is_certificate)
}

fn name(algorithm: &Algorithm, is_certificate: bool) -> String {
    if is_certificate {
        algorithm.to_certificate_type()
    } else {
        algorithm.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA512: Option<HashAlg> = Some(HashAlg::Sha512);
    const SHA256: Option<HashAlg> = Some(HashAlg::Sha256);
    const ANY_RSA: Algorithm = Algorithm::Rsa { hash: None };

    fn list(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn the_usual_list_has_no_sha1() {
        let usual = Accepted::new(None);
        assert!(usual.takes(&Algorithm::SkEd25519, true));
        assert!(usual.takes(&ANY_RSA, false));
        assert_eq!(usual.rsa_hash(false, Some(SHA512)), Some(SHA512));
        assert_eq!(usual.rsa_hash(true, None), Some(SHA256));
        assert_eq!(usual.rsa_hash(false, Some(None)), None);
    }

    #[test]
    fn a_list_of_the_user() {
        let names = list("ssh-ed25519,rsa-sha2-256,rsa-sha2-512-cert-v01@openssh.com");
        let accepted = Accepted::new(Some(&names));
        assert!(accepted.takes(&Algorithm::Ed25519, false));
        assert!(!accepted.takes(&Algorithm::Ed25519, true));
        assert_eq!(accepted.rsa_hash(false, Some(SHA512)), Some(SHA256));
        assert_eq!(accepted.rsa_hash(true, Some(SHA512)), Some(SHA512));
    }

    #[test]
    fn signs_change_the_usual_list() {
        for (text, ed25519, sha1) in [
            ("+ssh-rsa", true, true),
            ("-ssh-ed25519*,x", false, false),
            ("^ssh-rsa", true, true),
        ] {
            let names = list(text);
            let accepted = Accepted::new(Some(&names));
            assert_eq!(
                accepted.takes(&Algorithm::Ed25519, false),
                ed25519,
                "{text}"
            );
            let hash = accepted.rsa_hash(false, Some(None));
            assert_eq!(hash, sha1.then_some(None), "{text}");
        }
    }
}
