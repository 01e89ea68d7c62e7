//! Keys and certificates in the order to offer them (sshconnect2.c `pubkey_prepare`).

use std::sync::Arc;

use russh::keys::agent::AgentIdentity;
use russh::keys::ssh_key::Certificate;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, PublicKey};

use super::super::host_key::{fingerprint, type_name};
use super::agent::needs_touch;
use super::certificate::{CertificateFile, remark};
use super::key_file::KeyFile;

/// What is shown to the server.
#[derive(Clone)]
pub(super) enum Offer {
    Key(PublicKey),
    Certificate(Box<Certificate>),
    /// A key file of an old format, whose public half is not known before its passphrase.
    Locked,
}

/// Who signs.
#[derive(Clone)]
pub(super) enum SignWith {
    Agent(Box<AgentIdentity>),
    File(Arc<KeyFile>),
}

/// Something to log in with.
#[derive(Clone)]
pub(in super::super) struct Candidate {
    pub(super) offer: Offer,
    pub(super) sign_with: SignWith,
    /// The certificate's file, where it came from one.
    pub(super) certificate_file: Option<String>,
}

impl Candidate {
    fn of_agent(identity: &AgentIdentity) -> Self {
        Self {
            offer: match identity {
                AgentIdentity::PublicKey { key, .. } => Offer::Key(key.clone()),
                AgentIdentity::Certificate { certificate, .. } => {
                    Offer::Certificate(Box::new(certificate.clone()))
                }
            },
            sign_with: SignWith::Agent(Box::new(identity.clone())),
            certificate_file: None,
        }
    }

    fn of_file(file: &Arc<KeyFile>) -> Self {
        Self {
            offer: file.public.clone().map_or(Offer::Locked, Offer::Key),
            sign_with: SignWith::File(Arc::clone(file)),
            certificate_file: None,
        }
    }

    /// The certificate with the key that belongs to it, in the agent or in a file.
    fn of_certificate(
        file: &CertificateFile,
        agent: &[AgentIdentity],
        keys: &[Arc<KeyFile>],
        beside: Option<&Arc<KeyFile>>,
    ) -> Option<Self> {
        let key = file.certificate.public_key();
        let same = agent
            .iter()
            .find(|one| is_certificate(one, &file.certificate));
        let held = same.or_else(|| agent.iter().find(|one| is_key(one, key)));
        let by_key = keys.iter().find(|one| {
            let public = one.public.as_ref();
            public.is_some_and(|public| public.key_data() == key)
        });
        let by_name = beside.filter(|one| one.public.is_none());
        let in_file = by_key.or(by_name).filter(|one| one.can_sign());
        let sign_with = match (held, in_file) {
            (Some(identity), _) => SignWith::Agent(Box::new(identity.clone())),
            (None, Some(file)) => SignWith::File(Arc::clone(file)),
            (None, None) => return None,
        };
        Some(Self {
            offer: Offer::Certificate(Box::new(file.certificate.clone())),
            sign_with,
            certificate_file: Some(file.path.display().to_string()),
        })
    }

    /// The type of the key, where it is known.
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        match &self.offer {
            Offer::Key(key) => Some(key.algorithm()),
            Offer::Certificate(certificate) => Some(certificate.algorithm()),
            Offer::Locked => None,
        }
    }

    pub(super) fn is_certificate(&self) -> bool {
        matches!(self.offer, Offer::Certificate(_))
    }

    /// Length of an RSA key in bits, where it is one that is known.
    pub(super) fn rsa_bits(&self) -> Option<u32> {
        let key = match &self.offer {
            Offer::Key(key) => key.key_data(),
            Offer::Certificate(certificate) => certificate.public_key(),
            Offer::Locked => return None,
        };
        key.rsa().map(|key| key.key_size())
    }

    /// Whether both would be the same to the server.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (&self.offer, &other.offer) {
            (Offer::Key(a), Offer::Key(b)) => a.key_data() == b.key_data(),
            (Offer::Certificate(a), Offer::Certificate(b)) => a == b,
            _ => false,
        }
    }

    /// Whether it can be used again with nobody there.
    pub(super) fn is_silent(&self) -> bool {
        match &self.sign_with {
            SignWith::Agent(identity) => !needs_touch(&identity.public_key().algorithm()),
            SignWith::File(file) => file.is_open(),
        }
    }

    /// For the list of what was tried.
    pub(super) fn name(&self) -> String {
        let remark = match &self.offer {
            Offer::Certificate(certificate) => remark(certificate),
            _ => "",
        };
        let name = match (&self.certificate_file, &self.sign_with) {
            (Some(path), SignWith::Agent(_)) => format!("{path} with its key from the agent"),
            (Some(path), SignWith::File(_)) => path.clone(),
            (None, SignWith::File(file)) => file.path.display().to_string(),
            (None, SignWith::Agent(identity)) => {
                let key = identity.public_key();
                let kind = type_name(&key.algorithm());
                let what = if self.is_certificate() { "-CERT" } else { "" };
                format!("{kind}{what} {} from the agent", fingerprint(&key))
            }
        };
        name + remark
    }

    /// `SHA256:...` of the key, once it is known.
    pub(super) fn fingerprint(&self) -> Option<String> {
        match (&self.offer, &self.sign_with) {
            (Offer::Key(key), _) => Some(fingerprint(key)),
            (Offer::Certificate(certificate), _) => {
                let key = certificate.public_key();
                Some(key.fingerprint(russh::keys::HashAlg::Sha256).to_string())
            }
            (Offer::Locked, SignWith::File(file)) => {
                let unlocked = file.opened()?;
                Some(fingerprint(unlocked.key.public_key()))
            }
            (Offer::Locked, SignWith::Agent(_)) => None,
        }
    }

    /// For the ready line.
    pub(super) fn describe(&self) -> String {
        let what = if self.is_certificate() {
            "certificate"
        } else {
            "key"
        };
        let how = match &self.sign_with {
            SignWith::File(file) if file.was_asked_for() => " with passphrase",
            _ => "",
        };
        format!("{what} {}{how}", self.name())
    }
}

fn is_key(identity: &AgentIdentity, key: &KeyData) -> bool {
    matches!(identity, AgentIdentity::PublicKey { key: held, .. } if held.key_data() == key)
}

fn is_certificate(identity: &AgentIdentity, certificate: &Certificate) -> bool {
    matches!(identity, AgentIdentity::Certificate { certificate: held, .. } if held == certificate)
}

/// What there is to log in with.
pub(super) struct Sources {
    /// IdentityFile.
    pub(super) files: Vec<Arc<KeyFile>>,
    /// CertificateFile; where there is none, [`beside`](Self::beside) counts.
    pub(super) certificates: Vec<CertificateFile>,
    /// Certificates beside key files, with the index of the key file.
    pub(super) beside: Vec<(usize, CertificateFile)>,
    /// The agent's, in its order.
    pub(super) agent: Vec<AgentIdentity>,
    /// IdentitiesOnly.
    pub(super) only_named: bool,
}

impl Sources {
    /// Certificates that were named, then what the agent has of the files' keys, then what else it has, then the files. Of
    /// what the agent has, its own order counts.
    pub(super) fn in_order(&self) -> Vec<Candidate> {
        let agent = &self.agent;
        let named = |file| Candidate::of_certificate(file, agent, &self.files, None);
        let mut preferred: Vec<_> = self.certificates.iter().filter_map(named).collect();
        let mut of_files = self.of_files();
        let mut others = Vec::new();
        for identity in agent {
            let candidate = Candidate::of_agent(identity);
            if preferred.iter().any(|one| one.is_same(&candidate)) {
                continue;
            }
            match of_files.iter().position(|one| one.is_same(&candidate)) {
                Some(index) => {
                    let certificate_file = of_files.remove(index).certificate_file;
                    preferred.push(Candidate {
                        certificate_file,
                        ..candidate
                    });
                }
                None if self.only_named => {}
                None => others.push(candidate),
            }
        }
        preferred.extend(others);
        preferred.extend(of_files.into_iter().filter(can_sign));
        preferred
    }

    /// Key files in their order, each followed by the certificate beside it.
    fn of_files(&self) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for (index, file) in self.files.iter().enumerate() {
            candidates.push(Candidate::of_file(file));
            let beside = self.beside.iter().filter(|(owner, _)| *owner == index);
            let beside = beside.filter_map(|(_, certificate)| {
                Candidate::of_certificate(certificate, &self.agent, &self.files, Some(file))
            });
            candidates.extend(beside);
        }
        candidates
    }
}

/// A key file may be there only to name a key of the agent.
fn can_sign(candidate: &Candidate) -> bool {
    match &candidate.sign_with {
        SignWith::Agent(_) => true,
        SignWith::File(file) => file.can_sign(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use russh::keys::PrivateKey;
    use russh::keys::ssh_key::LineEnding;
    use russh::keys::ssh_key::certificate::{Builder, CertType};
    use tempfile::TempDir;

    use super::*;

    fn key() -> PrivateKey {
        PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap()
    }

    fn certificate(key: &PrivateKey) -> Certificate {
        let public = key.public_key();
        let mut builder =
            Builder::new_with_random_nonce(&mut rand::rng(), public, 0, u64::MAX >> 1).unwrap();
        builder.key_id("test").unwrap();
        builder.cert_type(CertType::User).unwrap();
        builder.valid_principal("me").unwrap();
        builder.sign(&self::key()).unwrap()
    }

    fn certificate_file(certificate: &Certificate) -> CertificateFile {
        CertificateFile {
            path: "/cert.pub".into(),
            certificate: certificate.clone(),
        }
    }

    fn held(key: &PrivateKey) -> AgentIdentity {
        key.public_key().clone().into()
    }

    /// The key as a file, in full or its public half only.
    fn file(dir: &TempDir, name: &str, key: &PrivateKey, private: bool) -> Arc<KeyFile> {
        let path = dir.path().join(name);
        if private {
            key.write_openssh_file(&path, LineEnding::LF).unwrap();
        } else {
            let public = path.with_extension("pub");
            key.public_key()
                .write_openssh_file(Path::new(&public))
                .unwrap();
        }
        Arc::new(KeyFile::load(&path).unwrap())
    }

    fn names(sources: &Sources, known: &[(&str, &PrivateKey)]) -> Vec<String> {
        let name = |candidate: &Candidate| {
            let (data, kind) = match &candidate.offer {
                Offer::Key(key) => (key.key_data(), ""),
                Offer::Certificate(certificate) => (certificate.public_key(), "-cert"),
                Offer::Locked => return "locked".to_owned(),
            };
            let (name, _) = known
                .iter()
                .find(|(_, key)| key.public_key().key_data() == data)
                .unwrap();
            let by = match candidate.sign_with {
                SignWith::Agent(_) => "agent",
                SignWith::File(_) => "file",
            };
            format!("{name}{kind} by {by}")
        };
        sources.in_order().iter().map(name).collect()
    }

    #[test]
    fn the_order_of_ssh() {
        let dir = TempDir::new().unwrap();
        let (a, b, c, d) = (key(), key(), key(), key());
        let known = [("a", &a), ("b", &b), ("c", &c), ("d", &d)];
        let mut sources = Sources {
            // Of d only the public half is there.
            files: vec![
                file(&dir, "a", &a, true),
                file(&dir, "b", &b, true),
                file(&dir, "d", &d, false),
            ],
            certificates: Vec::new(),
            beside: vec![(0, certificate_file(&certificate(&a)))],
            agent: vec![held(&c), held(&b)],
            only_named: false,
        };
        assert_eq!(
            names(&sources, &known),
            ["b by agent", "c by agent", "a by file", "a-cert by file"]
        );
        sources.only_named = true;
        assert_eq!(
            names(&sources, &known),
            ["b by agent", "a by file", "a-cert by file"]
        );
        sources.agent = vec![held(&d), held(&a)];
        assert_eq!(
            names(&sources, &known),
            ["d by agent", "a by agent", "a-cert by agent", "b by file"]
        );
    }

    #[test]
    fn a_certificate_goes_with_its_key_wherever_that_is() {
        let dir = TempDir::new().unwrap();
        let (a, b) = (key(), key());
        let known = [("a", &a), ("b", &b)];
        let signed = certificate(&a);
        let mut sources = Sources {
            files: vec![file(&dir, "a", &a, true)],
            certificates: vec![
                certificate_file(&signed),
                certificate_file(&certificate(&b)),
            ],
            beside: Vec::new(),
            agent: Vec::new(),
            only_named: false,
        };
        // Nobody has the key of b.
        assert_eq!(names(&sources, &known), ["a-cert by file", "a by file"]);
        sources.agent = vec![held(&b), signed.into()];
        assert_eq!(
            names(&sources, &known),
            [
                "a-cert by agent",
                "b-cert by agent",
                "b by agent",
                "a by file"
            ]
        );
        sources.only_named = true;
        assert_eq!(
            names(&sources, &known),
            ["a-cert by agent", "b-cert by agent", "a by file"]
        );
    }
}
