//! The known_hosts files (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"): which keys they know for a host.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use russh::keys::{Algorithm, PublicKey};
use sha1::Sha1;

/// Where a key was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: PathBuf,
    /// From 1.
    pub(super) line: usize,
}

/// What the files say about one offered key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The key is known for the host.
    Known,
    /// No key of this type is known for the host.
    Unknown,
    /// Another key of this type is known for the host.
    Changed(Place),
    /// The key is marked `@revoked`.
    Revoked(Place),
}

/// One key line that names the host.
#[derive(Clone, Debug)]
struct Entry {
    key: PublicKey,
    revoked: bool,
    /// Named with its port (or on the default port). ssh takes a match without the port, but no change.
    exact: bool,
    place: Place,
}

/// The keys that a list of files knows for one host.
#[derive(Clone, Debug)]
pub(super) struct KnownKeys {
    entries: Vec<Entry>,
}

/// The name under which known_hosts has a host: `host`, or `[host]:port` off the default port.
pub(super) fn host_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 {
        host
    } else {
        format!("[{host}]:{port}")
    }
}

impl KnownKeys {
    /// Reads `files`. One that is missing or cannot be read knows nothing; lines that make no sense are passed
    /// over, as ssh does.
    pub(super) fn load(files: &[PathBuf], host: &str, port: u16) -> Self {
        let mut entries = Vec::new();
        for file in files {
            // Lossy: a comment in another encoding must not hide the file's keys.
            if let Ok(bytes) = fs::read(file) {
                let text = String::from_utf8_lossy(&bytes);
                entries.extend(parse(&text, file, host, port));
            }
        }
        Self { entries }
    }

    /// What the files say about `key`. A revocation counts whatever else is there.
    pub(super) fn verdict(&self, key: &PublicKey) -> Verdict {
        let same = |e: &&Entry| e.key.key_data() == key.key_data();
        if let Some(revoked) = self.entries.iter().filter(|e| e.revoked).find(same) {
            return Verdict::Revoked(revoked.place.clone());
        }
        let mut plain = self.entries.iter().filter(|e| !e.revoked);
        if plain.clone().any(|e| same(&e)) {
            return Verdict::Known;
        }
        let changed = plain.find(|e| e.exact && e.key.algorithm() == key.algorithm());
        changed.map_or(Verdict::Unknown, |e| Verdict::Changed(e.place.clone()))
    }

    /// The types of the host's known keys, without duplicates.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        let mut algorithms = Vec::new();
        for entry in self.entries.iter().filter(|e| !e.revoked) {
            let algorithm = entry.key.algorithm();
            if !algorithms.contains(&algorithm) {
                algorithms.push(algorithm);
            }
        }
        algorithms
    }

    /// A key of the host is known, of whatever type.
    pub(super) fn any_exact(&self) -> Option<&Place> {
        let mut plain = self.entries.iter().filter(|e| !e.revoked && e.exact);
        plain.next().map(|e| &e.place)
    }
}

fn parse<'a>(
    text: &'a str,
    file: &'a Path,
    host: &'a str,
    port: u16,
) -> impl Iterator<Item = Entry> + 'a {
    let name = host_name(host, port);
    let bare = host.to_ascii_lowercase();
    text.lines().enumerate().filter_map(move |(i, line)| {
        let (revoked, line) = marker(line.trim())?;
        let mut fields = line.split_ascii_whitespace();
        let hosts = fields.next()?;
        let exact = names(hosts, &name);
        if !exact && !names(hosts, &bare) {
            return None;
        }
        let (kind, blob) = (fields.next()?, fields.next()?);
        let key = PublicKey::from_openssh(&format!("{kind} {blob}")).ok()?;
        Some(Entry {
            key,
            revoked,
            exact,
            place: Place {
                file: file.to_owned(),
                line: i + 1,
            },
        })
    })
}

/// The line after its marker, and whether that is `@revoked`. `None` for comments and for the lines of
/// certificate authorities, which say nothing about a plain key.
fn marker(line: &str) -> Option<(bool, &str)> {
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    match line.split_once(char::is_whitespace) {
        Some(("@revoked", rest)) => Some((true, rest)),
        Some((first, _)) if first.starts_with('@') => None,
        _ => Some((false, line)),
    }
}

/// Whether the first field of a line names `name`: one hash, or patterns of which none may forbid it.
fn names(hosts: &str, name: &str) -> bool {
    if let Some(hashed) = hosts.strip_prefix("|1|") {
        return hash_matches(hashed, name).unwrap_or(false);
    }
    let mut named = false;
    for pattern in hosts.split(',') {
        let pattern = pattern.to_ascii_lowercase();
        match pattern.strip_prefix('!') {
            Some(forbidden) if glob(forbidden.as_bytes(), name.as_bytes()) => return false,
            Some(_) => {}
            None => named |= glob(pattern.as_bytes(), name.as_bytes()),
        }
    }
    named
}

/// `salt|hash`, both base64: HMAC-SHA1 of the name under the salt.
fn hash_matches(hashed: &str, name: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let mac = Hmac::<Sha1>::new_from_slice(&BASE64.decode(salt.as_bytes()).ok()?).ok()?;
    let mac = mac.chain_update(name.as_bytes());
    Some(
        mac.verify_slice(&BASE64.decode(hash.as_bytes()).ok()?)
            .is_ok(),
    )
}

/// Patterns of ssh_config(5): `*` is any run, `?` any one character. Linear, by remembering the last star.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
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

/// Appends `key` for the host to `file`, as ssh would read it. Makes the file (0600) and its directory (0700)
/// where they are missing.
///
/// # Errors
/// Whatever the file system says.
pub(super) fn learn(file: &Path, host: &str, port: u16, key: &PublicKey) -> io::Result<()> {
    if let Some(parent) = file.parent().filter(|p| !p.as_os_str().is_empty()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(file)?;
    let plain = PublicKey::new(key.key_data().clone(), "");
    let key = plain.to_openssh().map_err(io::Error::other)?;
    let mut line = String::new();
    if !ends_with_newline(&mut file)? {
        line.push('\n');
    }
    line.push_str(&format!("{} {}\n", host_name(host, port), key.trim_end()));
    // One write: a second process that learns a key at the same time must not cut into the line.
    file.write_all(line.as_bytes())
}

fn ends_with_newline(file: &mut fs::File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0u8; 1];
    file.read_exact(&mut last)?;
    Ok(last[0] == b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const A: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const B: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    fn key(text: &str) -> PublicKey {
        PublicKey::from_openssh(text).unwrap()
    }

    fn known(text: &str, host: &str, port: u16) -> KnownKeys {
        KnownKeys {
            entries: parse(text, Path::new("f"), host, port).collect(),
        }
    }

    fn verdict(text: &str, host: &str, port: u16) -> Verdict {
        known(text, host, port).verdict(&key(A))
    }

    fn place(line: usize) -> Place {
        Place {
            file: "f".into(),
            line,
        }
    }

    #[test]
    fn plain_names_ports_and_patterns() {
        assert_eq!(
            verdict(&format!("bastion {A}"), "Bastion", 22),
            Verdict::Known
        );
        assert_eq!(
            verdict(&format!("x,bastion {A} me"), "bastion", 22),
            Verdict::Known
        );
        assert_eq!(
            verdict(&format!("other {A}"), "bastion", 22),
            Verdict::Unknown
        );
        assert_eq!(
            verdict(&format!("[bastion]:2222 {A}"), "bastion", 2222),
            Verdict::Known
        );
        assert_eq!(
            verdict(&format!("[bastion]:2222 {A}"), "bastion", 22),
            Verdict::Unknown
        );
        assert_eq!(
            verdict(&format!("*.example.com {A}"), "a.example.com", 22),
            Verdict::Known
        );
        assert_eq!(
            verdict(&format!("*.example.com,!a.* {A}"), "a.example.com", 22),
            Verdict::Unknown
        );
        assert_eq!(
            verdict(&format!("10.0.0.? {A}"), "10.0.0.7", 22),
            Verdict::Known
        );
        assert_eq!(verdict(&format!("[*]:2222 {A}"), "h", 2222), Verdict::Known);
    }

    #[test]
    fn a_name_without_port_confirms_but_does_not_accuse() {
        assert_eq!(
            verdict(&format!("bastion {A}"), "bastion", 2222),
            Verdict::Known
        );
        assert_eq!(
            verdict(&format!("bastion {B}"), "bastion", 2222),
            Verdict::Unknown
        );
    }

    #[test]
    fn changed_and_revoked() {
        let text = format!("# c\n\nbastion {B}");
        assert_eq!(verdict(&text, "bastion", 22), Verdict::Changed(place(3)));
        let text = format!("bastion {B}\nbastion {A}");
        assert_eq!(verdict(&text, "bastion", 22), Verdict::Known);
        let text = format!("bastion {A}\n@revoked * {A}");
        assert_eq!(verdict(&text, "bastion", 22), Verdict::Revoked(place(2)));
        let text = format!("@revoked bastion {B}");
        assert_eq!(verdict(&text, "bastion", 22), Verdict::Unknown);
        let text = format!("@cert-authority bastion {A}");
        assert_eq!(verdict(&text, "bastion", 22), Verdict::Unknown);
    }

    #[test]
    fn hashed_by_ssh_keygen() {
        // ssh-keygen -H of "bastion" and "[bastion]:2222" with the salt of 20 bytes "01234567890123456789".
        let salt = b"01234567890123456789";
        for (name, port) in [("bastion", 22), ("[bastion]:2222", 2222)] {
            let mac = Hmac::<Sha1>::new_from_slice(salt).unwrap();
            let hash = mac.chain_update(name.as_bytes()).finalize().into_bytes();
            let line = format!("|1|{}|{} {A}", BASE64.encode(salt), BASE64.encode(&hash));
            assert_eq!(verdict(&line, "bastion", port), Verdict::Known);
            assert_eq!(verdict(&line, "bastioN", port), Verdict::Known);
            assert_eq!(verdict(&line, "bastion2", port), Verdict::Unknown);
        }
    }

    #[test]
    fn rubbish_is_passed_over() {
        for text in [
            "",
            "x",
            "bastion",
            "bastion ssh-ed25519",
            "bastion ssh-ed25519 !!!",
            "|1|x|y z w",
            "|1| a b",
            "@",
            "@revoked",
            "\u{0}",
        ] {
            assert_eq!(verdict(text, "bastion", 22), Verdict::Unknown, "{text:?}");
        }
    }

    #[test]
    fn the_known_types_are_told() {
        let keys = known(&format!("bastion {A}\nbastion {B}"), "bastion", 22);
        assert_eq!(keys.algorithms(), vec![Algorithm::Ed25519]);
        assert!(keys.any_exact().is_some());
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

    #[test]
    fn a_learned_key_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ssh/known_hosts");
        learn(&file, "Bastion", 2222, &key(A)).unwrap();
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            format!("[bastion]:2222 {A}\n")
        );
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let parent = file.parent().unwrap();
        assert_eq!(
            fs::metadata(parent).unwrap().permissions().mode() & 0o777,
            0o700
        );

        fs::write(&file, "half a line").unwrap();
        learn(&file, "bastion", 22, &key(A)).unwrap();
        let keys = KnownKeys::load(&[file], "bastion", 22);
        assert_eq!(keys.verdict(&key(A)), Verdict::Known);
    }
}
