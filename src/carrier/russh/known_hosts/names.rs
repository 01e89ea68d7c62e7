//! Whom a line is about: its first field, a list of patterns or one hash.

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

/// What stands before salt and hash.
const HASHED: &str = "|1|";
/// Salts are as long as the hash (hostfile.c `extract_salt`).
pub(super) const SALT_BYTES: usize = 20;

/// The name under which known_hosts has a host: `host`, or `[host]:port` off the default port.
pub(in super::super) fn host_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 {
        host
    } else {
        format!("[{host}]:{port}")
    }
}

/// Whether the field `names` covers `name`, which is in small letters: one hash, or patterns of which none may
/// forbid it.
pub(super) fn covers(names: &str, name: &str) -> bool {
    if is_hashed(names) {
        return hash_matches(names, name).unwrap_or(false);
    }
    let mut covered = false;
    for pattern in names.split(',') {
        let pattern = pattern.to_ascii_lowercase();
        match pattern.strip_prefix('!') {
            Some(forbidden) if glob(forbidden.as_bytes(), name.as_bytes()) => return false,
            Some(_) => {}
            None => covered |= glob(pattern.as_bytes(), name.as_bytes()),
        }
    }
    covered
}

/// ssh takes every field that begins so for a hash.
pub(super) fn is_hashed(names: &str) -> bool {
    names.starts_with('|')
}

/// Whether the field says `name` itself, as a name or a hash: `ssh-keygen -R` removes no line that only a
/// pattern makes match.
pub(super) fn spells_out(names: &str, name: &str) -> bool {
    is_hashed(names) || names.split(',').any(|n| n.eq_ignore_ascii_case(name))
}

/// `|1|salt|hash`, both base64: HMAC-SHA1 of the name under the salt. `None` where it is no such thing.
fn hash_matches(hashed: &str, name: &str) -> Option<bool> {
    let (salt, hash) = hashed.strip_prefix(HASHED)?.split_once('|')?;
    let salt = BASE64.decode(salt.as_bytes()).ok()?;
    if salt.len() != SALT_BYTES {
        return None;
    }
    let hash = BASE64.decode(hash.as_bytes()).ok()?;
    Some(mac(&salt, name)?.verify_slice(&hash).is_ok())
}

/// `name` hashed under `salt`, as ssh writes it with HashKnownHosts.
pub(super) fn hashed(name: &str, salt: &[u8; SALT_BYTES]) -> Option<String> {
    let hash = mac(salt, name)?.finalize().into_bytes();
    let (salt, hash) = (BASE64.encode(salt), BASE64.encode(&hash));
    Some(format!("{HASHED}{salt}|{hash}"))
}

fn mac(salt: &[u8], name: &str) -> Option<Hmac<Sha1>> {
    let mac = Hmac::<Sha1>::new_from_slice(salt).ok()?;
    Some(mac.chain_update(name.as_bytes()))
}

/// Patterns of ssh_config(5): `*` is any run, `?` any one character. Linear in memory and, by remembering the last
/// star only, at most quadratic in time.
pub(in super::super) fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_patterns_and_negation() {
        for (names, name, covered) in [
            ("bastion", "bastion", true),
            ("Bastion", "bastion", true),
            ("x,bastion", "bastion", true),
            ("bastion", "bastion2", false),
            ("[bastion]:2222", "[bastion]:2222", true),
            ("[bastion]:2222", "bastion", false),
            ("[*]:2222", "[h]:2222", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com,!a.*", "a.example.com", false),
            ("!a.*,*.example.com", "a.example.com", false),
            ("!a.*,*.example.com", "b.example.com", true),
            // sshd(8): "if the host name matches a negated pattern, it is not accepted (by that line)".
            ("!bastion", "other", false),
            ("10.0.0.?", "10.0.0.7", true),
            ("10.0.0.?", "10.0.0.77", false),
            ("", "bastion", false),
            (",", "bastion", false),
            ("|1|x|y", "bastion", false),
            ("|2|x,bastion", "bastion", false),
        ] {
            assert_eq!(covers(names, name), covered, "{names} {name}");
        }
    }

    #[test]
    fn a_hash_covers_its_name_alone() {
        let names = hashed("[bastion]:2222", b"01234567890123456789").unwrap();
        assert!(covers(&names, "[bastion]:2222"));
        assert!(!covers(&names, "bastion"));
        // A salt of another length is none of ssh's.
        let short = names.replace("MDEyMzQ1Njc4OTAxMjM0NTY3ODk=", "MDEy");
        assert_ne!(short, names);
        assert!(!covers(&short, "[bastion]:2222"));
    }

    #[test]
    fn what_ssh_keygen_would_remove() {
        assert!(spells_out("a,Bastion", "bastion"));
        assert!(spells_out("|1|x|y", "bastion"));
        assert!(!spells_out("*", "bastion"));
    }

    #[test]
    fn globs() {
        for (pattern, text, matches) in [
            ("*", "", true),
            ("a*b*c", "aXbYbc", true),
            ("a*b", "aXc", false),
            ("??", "a", false),
            ("a", "ab", false),
            ("***a", "bba", true),
        ] {
            assert_eq!(
                glob(pattern.as_bytes(), text.as_bytes()),
                matches,
                "{pattern}"
            );
        }
    }
}
