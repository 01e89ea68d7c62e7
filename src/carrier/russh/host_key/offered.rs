//! What a server offers to prove who it is, and what we ask it for.

use russh::keys::{Algorithm, Certificate, PublicKey, PublicKeyOrCertificate};

use super::HostKeyCheck;

/// A host key as offered, with the certificate that it came in.
#[derive(Clone, Debug)]
pub(in super::super) struct Offered {
    pub(in super::super) key: PublicKey,
    pub(super) certificate: Option<Certificate>,
}

impl From<&PublicKeyOrCertificate> for Offered {
    fn from(offered: &PublicKeyOrCertificate) -> Self {
        Self {
            key: offered.public_key(),
            certificate: offered.certificate().cloned(),
        }
    }
}

impl From<PublicKey> for Offered {
    fn from(key: PublicKey) -> Self {
        Self {
            key,
            certificate: None,
        }
    }
}

impl HostKeyCheck {
    /// The host key algorithms to offer: `all`, those of the host's known keys first, as ssh does (sshconnect2.c
    /// `order_hostkeyalgs`). A known key is then not missed because the server has one of another type too. The type that was accepted before comes first,
    /// whatever the files have learned since.
    pub(in super::super) fn preferred(&self, all: &[Algorithm]) -> Vec<Algorithm> {
        let known = self.known.of(&self.names).algorithms();
        let is_known = |offered: &&Algorithm| known.iter().any(|k| same_type(k, offered));
        let (mut first, rest): (Vec<_>, Vec<_>) = all.iter().partition(is_known);
        first.extend(rest);
        if let Some(before) = &self.before {
            let before = before.key.algorithm();
            first.sort_by_key(|offered| !same_type(&before, offered));
        }
        first.into_iter().cloned().collect()
    }

    /// The algorithms of `all` to ask a certificate for, before any plain key: none unless an authority is known for
    /// the host (sshconnect2.c `order_hostkeyalgs`). SHA-1 never; HostKeyAlgorithms, where it is set, says which.
    pub(in super::super) fn certificates(&self, all: &[Algorithm]) -> Vec<Algorithm> {
        if self.known.of(&self.names).any_authority().is_none() {
            return Vec::new();
        }
        let modern = |a: &&Algorithm| !matches!(a, Algorithm::Rsa { hash: None });
        let all = all.iter().filter(modern);
        match &self.plan.algorithms.host_keys {
            None => all.cloned().collect(),
            Some(chosen) => {
                let all: Vec<_> = all.map(|a| (a.to_certificate_type(), a)).collect();
                let find = |name: &String| all.iter().find(|(certificate, _)| certificate == name);
                chosen
                    .iter()
                    .filter_map(find)
                    .map(|(_, a)| (*a).clone())
                    .collect()
            }
        }
    }
}

/// RSA keys are of one type whatever hash signs.
fn same_type(a: &Algorithm, b: &Algorithm) -> bool {
    a == b || matches!((a, b), (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }))
}
