//! Which algorithms are offered: the user's choice as far as russh has it, else our own order.

use std::borrow::Cow;

use russh::keys::Algorithm;
use russh::{Preferred, cipher, compression, kex, mac};
use tracing::debug;

use super::host_key::HostKeyCheck;
use crate::carrier::error::ConnectError;
use crate::plan::SshPlan;

/// AES-GCM first: with AES-NI it is 1.5 to 2 times as fast as chacha20.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// Names that russh has for its own use, and no encryption at all, are nobody's choice.
const NO_CHOICE: &[&str] = &["none", "clear"];

/// What marks a name in the list of key exchanges as no key exchange (RFC 8308 section 2.1, OpenSSH PROTOCOL 1.10).
const EXTENSIONS: &[kex::Name] = &[
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
];

/// What to offer to the server of `plan`. Of the host keys those types come first of which a key is known, whoever chose
/// the list: as in ssh, but where its user wrote all of it out, which `ssh -G` does not tell from `+ssh-rsa`.
///
/// # Errors
/// [`ConnectError::NoAlgorithm`] when russh has nothing of what the user wants.
pub(super) fn offered(plan: &SshPlan, check: &HostKeyCheck) -> Result<Preferred, ConnectError> {
    let chosen = &plan.algorithms;
    let mut preferred = Preferred {
        key: Cow::Owned(check.preferred(&modern())),
        host_key_certificates: Cow::Owned(check.certificates(&Preferred::DEFAULT.key)),
        cipher: Cow::Borrowed(CIPHERS),
        // Compressing what is mostly compressed or encrypted already costs CPU for nothing.
        compression: Cow::Borrowed(&[compression::NONE]),
        ..Preferred::DEFAULT
    };
    let choice = Choice { host: &plan.alias };
    if let Some(names) = &chosen.ciphers {
        preferred.cipher = choice.of("Ciphers", names, cipher_of, &names_of(CIPHERS))?;
    }
    if let Some(names) = &chosen.macs {
        let all = names_of(&Preferred::DEFAULT.mac);
        preferred.mac = choice.of("MACs", names, mac_of, &all)?;
    }
    if let Some(names) = &chosen.kex {
        let exchanges = Preferred::DEFAULT
            .kex
            .iter()
            .filter(|name| is_exchange(name));
        let all: Vec<&str> = exchanges.map(AsRef::as_ref).collect();
        let list = choice.of("KexAlgorithms", names, exchange_of, &all.join(","))?;
        preferred.kex = list.iter().chain(EXTENSIONS).copied().collect();
    }
    if let Some(names) = &chosen.host_keys {
        let all: Vec<_> = Preferred::DEFAULT
            .key
            .iter()
            .map(Algorithm::to_string)
            .collect();
        let list = choice.of("HostKeyAlgorithms", names, host_key_of, &all.join(","))?;
        preferred.key = Cow::Owned(check.preferred(&list));
    }
    if plan.compression {
        preferred.compression = Cow::Borrowed(&[
            compression::ZLIB_LEGACY,
            compression::ZLIB,
            compression::NONE,
        ]);
    }
    Ok(preferred)
}

/// Whether `option` of ssh_config(5) may name this algorithm: Ciphers, MACs, KexAlgorithms or HostKeyAlgorithms. What else there is
/// has no say in it.
pub fn has_algorithm(option: &str, name: &str) -> bool {
    match option {
        "Ciphers" => cipher_of(name).is_some(),
        "MACs" => mac_of(name).is_some(),
        "KexAlgorithms" => exchange_of(name).is_some(),
        "HostKeyAlgorithms" => host_key_of(name).is_some(),
        _ => true,
    }
}

fn is_choice(name: &str) -> bool {
    !NO_CHOICE.contains(&name)
}

fn cipher_of(name: &str) -> Option<cipher::Name> {
    cipher::Name::try_from(name)
        .ok()
        .filter(|_| is_choice(name))
}

fn mac_of(name: &str) -> Option<mac::Name> {
    mac::Name::try_from(name).ok().filter(|_| is_choice(name))
}

fn exchange_of(name: &str) -> Option<kex::Name> {
    let exchange = kex::Name::try_from(name).ok().filter(is_exchange);
    exchange.filter(|_| is_choice(name))
}

fn host_key_of(name: &str) -> Option<Algorithm> {
    let all = Preferred::DEFAULT.key;
    Algorithm::new(name).ok().filter(|key| all.contains(key))
}

/// Host keys that are asked for by default. SHA-1 signatures (`ssh-rsa`) only for who names them, as in ssh since 8.8.
fn modern() -> Vec<Algorithm> {
    let is_modern = |key: &&Algorithm| !matches!(key, Algorithm::Rsa { hash: None });
    let all = Preferred::DEFAULT.key;
    all.iter().filter(is_modern).cloned().collect()
}

fn is_exchange(name: &kex::Name) -> bool {
    let name = name.as_ref();
    !name.starts_with("ext-info-") && !name.starts_with("kex-strict-")
}

fn names_of<N: AsRef<str>>(list: &[N]) -> String {
    let names: Vec<&str> = list.iter().map(AsRef::as_ref).collect();
    names.join(",")
}

/// What a user chose for one server.
struct Choice<'a> {
    host: &'a str,
}

impl Choice<'_> {
    /// Those of `names` that are `known`, in their order.
    fn of<N: Clone>(
        &self,
        option: &'static str,
        names: &[String],
        known: impl Fn(&str) -> Option<N>,
        all: &str,
    ) -> Result<Cow<'static, [N]>, ConnectError> {
        let mut list = Vec::new();
        for name in names {
            match known(name) {
                Some(found) => list.push(found),
                None => debug!("{}: {option}: the embedded SSH has no {name}", self.host),
            }
        }
        if list.is_empty() {
            return Err(ConnectError::NoAlgorithm {
                host: self.host.to_owned(),
                option,
                asked: names.join(","),
                known: all.to_owned(),
            });
        }
        Ok(Cow::Owned(list))
    }
}

#[cfg(test)]
mod tests {
    use russh::keys::{EcdsaCurve, PrivateKey};

    use super::*;
    use crate::carrier::russh::host_key::Accepted;
    use crate::plan::Algorithms;

    fn preferred(algorithms: Algorithms) -> Result<Preferred, ConnectError> {
        let plan = SshPlan {
            algorithms,
            ..SshPlan::new("h", 22, "me")
        };
        offered(&plan, &HostKeyCheck::new(&plan, None))
    }

    fn list(names: &str) -> Option<Vec<String>> {
        Some(names.split(',').map(str::to_owned).collect())
    }

    #[test]
    fn what_the_user_chose_in_its_order() {
        let preferred = preferred(Algorithms {
            ciphers: list("aes256-ctr,made-up,none,clear,aes128-gcm@openssh.com"),
            macs: list("none,hmac-sha1,hmac-sha2-256"),
            kex: list("sntrup761x25519-sha512,ext-info-c,ecdh-sha2-nistp256"),
            host_keys: list(
                "ssh-dss,rsa-sha2-256,ssh-ed25519-cert-v01@openssh.com,ssh-ed25519,ssh-rsa",
            ),
            ..Algorithms::default()
        })
        .unwrap();
        assert_eq!(
            names_of(&preferred.cipher),
            "aes256-ctr,aes128-gcm@openssh.com"
        );
        assert_eq!(names_of(&preferred.mac), "hmac-sha1,hmac-sha2-256");
        assert_eq!(
            names_of(&preferred.kex),
            "ecdh-sha2-nistp256,ext-info-c,kex-strict-c-v00@openssh.com"
        );
        let keys: Vec<_> = preferred.key.iter().map(Algorithm::to_string).collect();
        assert_eq!(keys, ["rsa-sha2-256", "ssh-ed25519", "ssh-rsa"]);
    }

    /// The list is what `ssh -G` makes of `HostKeyAlgorithms +ssh-rsa`.
    #[test]
    fn a_known_key_comes_first_in_a_list_of_the_users() {
        let key = |algorithm| PrivateKey::random(&mut rand::rng(), algorithm).unwrap();
        let curve = EcdsaCurve::NistP256;
        let ecdsa = key(Algorithm::Ecdsa { curve }).public_key().clone();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known_hosts");
        std::fs::write(&file, format!("h {}\n", ecdsa.to_openssh().unwrap())).unwrap();
        let mut plan = SshPlan::new("h", 22, "me");
        plan.known_hosts = vec![file];
        plan.algorithms.host_keys =
            list("ssh-ed25519,ecdsa-sha2-nistp256,rsa-sha2-512,rsa-sha2-256,ssh-rsa");
        let order = |check: &HostKeyCheck| {
            let keys = offered(&plan, check).unwrap().key;
            let names: Vec<_> = keys.iter().map(Algorithm::to_string).collect();
            names.join(",")
        };
        let check = HostKeyCheck::new(&plan, None);
        let rest = "rsa-sha2-512,rsa-sha2-256,ssh-rsa";
        let known = format!("ecdsa-sha2-nistp256,ssh-ed25519,{rest}");
        assert_eq!(order(&check), known);
        // That of the first connection, whatever the files know.
        let key = key(Algorithm::Ed25519).public_key().clone();
        let before = format!("ssh-ed25519,ecdsa-sha2-nistp256,{rest}");
        assert_eq!(order(&check.after(Some(Accepted { key }))), before);
    }

    #[test]
    fn without_a_choice_the_order_is_ours() {
        let preferred = preferred(Algorithms::default()).unwrap();
        assert_eq!(preferred.cipher[0].as_ref(), "aes128-gcm@openssh.com");
        assert_eq!(preferred.kex, Preferred::DEFAULT.kex);
        assert_eq!(names_of(&preferred.compression), "none");
        let sha1 = Algorithm::Rsa { hash: None };
        assert!(!preferred.key.contains(&sha1) && preferred.key.len() > 3);
    }

    #[test]
    fn what_there_is_is_told() {
        for (option, has, lacks) in [
            ("Ciphers", "aes128-gcm@openssh.com", "none"),
            ("MACs", "hmac-sha2-256", "umac-64@openssh.com"),
            (
                "KexAlgorithms",
                "curve25519-sha256",
                "sntrup761x25519-sha512",
            ),
            ("HostKeyAlgorithms", "ssh-ed25519", "ssh-dss"),
        ] {
            assert!(has_algorithm(option, has), "{has}");
            assert!(!has_algorithm(option, lacks), "{lacks}");
        }
    }

    #[test]
    fn nothing_of_the_choice_is_an_error_that_says_what_there_is() {
        let error = preferred(Algorithms {
            ciphers: list("none,made-up"),
            ..Algorithms::default()
        })
        .unwrap_err()
        .to_string();
        assert!(
            error.starts_with(
                "h: the embedded SSH has none of Ciphers none,made-up; it has aes128-gcm@"
            ),
            "{error}"
        );
    }
}
