//! Whether a host certificate is valid for a host, once its authority is known to be trusted (PROTOCOL.certkeys;
//! sshkey.c `sshkey_cert_check_host`).

use russh::keys::ssh_key::HashAlg;
use russh::keys::{Certificate, PublicKey};

use super::super::known_hosts::glob;
use crate::carrier::error::CertificateFault;
use crate::carrier::failure::harmless;

/// Signatures under certificates where CASignatureAlgorithms is not set (ssh_config(5)): no SHA-1.
const SIGNATURES: [&str; 8] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
];

/// The names of a certificate that are told, at most.
const MAX_NAMES: usize = 5;

/// What a certificate must stand up to.
pub(super) struct Demands<'a> {
    /// The host's name, without port, or its HostKeyAlias.
    pub(super) name: &'a str,
    /// Seconds since 1970.
    pub(super) now: u64,
    /// CASignatureAlgorithms, where set.
    pub(super) signatures: Option<&'a [String]>,
}

/// Checks all of `certificate` but who its authority is.
///
/// # Errors
/// [`CertificateFault`].
pub(super) fn check(
    certificate: &Certificate,
    demands: &Demands<'_>,
) -> Result<(), CertificateFault> {
    if !certificate.cert_type().is_host() {
        return Err(CertificateFault::NotHost);
    }
    let (from, until) = (certificate.valid_after(), certificate.valid_before());
    if demands.now < from {
        return Err(CertificateFault::Early(duration(from - demands.now)));
    }
    if demands.now >= until {
        return Err(CertificateFault::Expired(duration(demands.now - until)));
    }
    check_name(certificate, demands.name)?;
    let critical = certificate.critical_options();
    if !critical.is_empty() {
        return Err(CertificateFault::Critical(list(critical.keys())));
    }
    check_signature(certificate, demands)
}

/// As OpenSSH from 10.3 on: a name may be a pattern, and a certificate without names is for nobody (before, it was
/// for everybody).
fn check_name(certificate: &Certificate, name: &str) -> Result<(), CertificateFault> {
    let principals = certificate.valid_principals();
    let name = name.to_ascii_lowercase();
    let is_for =
        |principal: &String| glob(principal.to_ascii_lowercase().as_bytes(), name.as_bytes());
    if principals.iter().any(is_for) {
        return Ok(());
    }
    let principals = match principals {
        [] => "no host".to_owned(),
        names => list(names.iter()),
    };
    Err(CertificateFault::Name { name, principals })
}

fn check_signature(
    certificate: &Certificate,
    demands: &Demands<'_>,
) -> Result<(), CertificateFault> {
    let algorithm = certificate.signature().algorithm();
    let allowed = match demands.signatures {
        Some(allowed) => allowed.iter().any(|name| name == algorithm.as_str()),
        None => SIGNATURES.contains(&algorithm.as_str()),
    };
    if !allowed {
        return Err(CertificateFault::Algorithm(harmless(algorithm.as_str())));
    }
    let authority = certificate.signature_key().fingerprint(HashAlg::Sha256);
    certificate
        .validate_at(demands.now, [&authority])
        .map_err(|_| CertificateFault::Signature)
}

/// The key that signed `certificate`.
pub(super) fn authority(certificate: &Certificate) -> PublicKey {
    PublicKey::new(certificate.signature_key().clone(), "")
}

fn list<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let more = names.len().saturating_sub(MAX_NAMES);
    let shown: Vec<_> = names.take(MAX_NAMES).map(|name| harmless(name)).collect();
    let shown = shown.join(", ");
    if more > 0 {
        format!("{shown} and {more} more")
    } else {
        shown
    }
}

/// Seconds in the largest unit that leaves one or more.
fn duration(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use russh::keys::ssh_key::certificate::{Builder, CertType};
    use russh::keys::{Algorithm, PrivateKey};

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const DAY: u64 = 86_400;

    fn key() -> PrivateKey {
        PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap()
    }

    /// A certificate for `bastion`, changed by `change`.
    fn certificate(from: u64, until: u64, change: impl FnOnce(&mut Builder)) -> Certificate {
        of_type(CertType::Host, from, until, change)
    }

    fn of_type(
        kind: CertType,
        from: u64,
        until: u64,
        change: impl FnOnce(&mut Builder),
    ) -> Certificate {
        let mut builder = Builder::new_with_random_nonce(
            &mut rand::rng(),
            key().public_key().key_data().clone(),
            from,
            until,
        )
        .unwrap();
        builder.cert_type(kind).unwrap();
        change(&mut builder);
        builder.sign(&key()).unwrap()
    }

    fn named(names: &[&str]) -> Certificate {
        certificate(NOW - DAY, NOW + DAY, |builder| {
            for name in names {
                builder.valid_principal(*name).unwrap();
            }
        })
    }

    fn valid_for(certificate: &Certificate, name: &str) -> Result<(), CertificateFault> {
        let demands = Demands {
            name,
            now: NOW,
            signatures: None,
        };
        check(certificate, &demands)
    }

    #[test]
    fn names() {
        for (names, name, valid) in [
            (&["bastion"][..], "bastion", true),
            (&["a", "Bastion"], "bastion", true),
            (&["bastion"], "BASTION", true),
            (&["*.example.com"], "a.example.com", true),
            (&["*.example.com"], "example.com", false),
            (&["bastion"], "bastion2", false),
            (&["bastion2"], "bastion", false),
        ] {
            let found = valid_for(&named(names), name);
            assert_eq!(found.is_ok(), valid, "{names:?} {name}");
        }
        let text = valid_for(&named(&["1", "2", "3", "4", "5", "6\n", "7"]), "x");
        assert_eq!(
            text.unwrap_err().to_string(),
            "the server's certificate is not for x (it is for: 1, 2, 3, 4, 5 and 2 more)"
        );
    }

    #[test]
    fn without_names_it_is_for_nobody() {
        let certificate = certificate(NOW - DAY, NOW + DAY, |builder| {
            builder.all_principals_valid().unwrap();
        });
        let fault = valid_for(&certificate, "bastion").unwrap_err();
        assert!(
            fault.to_string().ends_with("(it is for: no host)"),
            "{fault}"
        );
    }

    #[test]
    fn time() {
        let named = |builder: &mut Builder| {
            builder.valid_principal("bastion").unwrap();
        };
        for (from, until, expected) in [
            (NOW, NOW + 1, None),
            (
                NOW - DAY,
                NOW,
                Some("the server's certificate expired 0 seconds ago"),
            ),
            (
                0,
                NOW - 3 * DAY,
                Some("the server's certificate expired 3 days ago"),
            ),
            (
                NOW + 61,
                NOW + DAY,
                Some("the server's certificate is not valid before 1 minute from now"),
            ),
        ] {
            let fault = valid_for(&certificate(from, until, named), "bastion").err();
            assert_eq!(fault.map(|fault| fault.to_string()).as_deref(), expected);
        }
        // "always:forever" of ssh-keygen.
        valid_for(&certificate(0, u64::MAX, named), "bastion").unwrap();
    }

    #[test]
    fn type_conditions_and_algorithm() {
        let user = of_type(CertType::User, NOW, NOW + DAY, |builder| {
            builder.valid_principal("bastion").unwrap();
        });
        assert_eq!(valid_for(&user, "bastion"), Err(CertificateFault::NotHost));
        let critical = certificate(NOW, NOW + DAY, |builder| {
            builder.valid_principal("bastion").unwrap();
            builder
                .critical_option("source-address", "10.0.0.0/8")
                .unwrap();
        });
        assert_eq!(
            valid_for(&critical, "bastion"),
            Err(CertificateFault::Critical("source-address".to_owned()))
        );
        let certificate = named(&["bastion"]);
        for (allowed, valid) in [("ssh-ed25519", true), ("rsa-sha2-512", false)] {
            let allowed = [allowed.to_owned()];
            let demands = Demands {
                name: "bastion",
                now: NOW,
                signatures: Some(&allowed),
            };
            assert_eq!(check(&certificate, &demands).is_ok(), valid);
        }
    }

    #[test]
    fn a_changed_certificate_is_not_the_authoritys() {
        let good = named(&["bastion"]);
        let mut bytes = good.to_bytes().unwrap();
        let at = bytes.windows(7).position(|w| w == b"bastion").unwrap();
        bytes[at..at + 7].copy_from_slice(b"gateway");
        let forged = Certificate::from_bytes(&bytes).unwrap();
        assert_eq!(
            valid_for(&forged, "gateway"),
            Err(CertificateFault::Signature)
        );
    }
}
