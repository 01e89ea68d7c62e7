//! The files of RevokedHostKeys (ssh_config(5)): a public key on each line. Where one cannot be read, no key passes.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use russh::keys::ssh_key::public::KeyData;

use super::super::known_hosts::{Place, key};
use crate::carrier::error::HostKeyError;
use crate::carrier::failure::words;

/// The longest file that is read, in bytes.
const MAX_FILE: u64 = 32 << 20;
/// How a key revocation list begins (PROTOCOL.krl).
const KRL: &[u8] = b"SSHKRL\n\0";

/// Where one of `keys` is revoked.
///
/// # Errors
/// [`HostKeyError::Revocations`] for a file that cannot be read in full.
pub(super) fn find(files: &[PathBuf], keys: &[&KeyData]) -> Result<Option<Place>, HostKeyError> {
    for file in files {
        let unreadable = |reason: String| HostKeyError::Revocations {
            file: file.clone(),
            reason,
        };
        let text = read(file).map_err(unreadable)?;
        let line = find_in(&text, keys).map_err(unreadable)?;
        if let Some(line) = line {
            return Ok(Some(Place {
                file: file.clone(),
                line,
            }));
        }
    }
    Ok(None)
}

fn read(file: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| words(&error))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("it is longer than {} MiB", MAX_FILE >> 20));
    }
    if bytes.starts_with(KRL) {
        return Err(
            "it is a binary key revocation list, which the embedded SSH does not read; use --carrier openssh, or a list of plain keys"
                .to_owned(),
        );
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The line of one of `keys`, from 1.
fn find_in(text: &str, keys: &[&KeyData]) -> Result<Option<usize>, String> {
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut fields = line.split_ascii_whitespace();
        let revoked = fields.next().zip(fields.next());
        // A line that cannot be read may be the one that matters.
        let revoked = revoked
            .and_then(|(kind, blob)| key(kind, blob))
            .ok_or_else(|| format!("line {} is no plain public key", i + 1))?;
        if keys.contains(&revoked.key_data()) {
            return Ok(Some(i + 1));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use russh::keys::PublicKey;

    use super::*;

    const A: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const B: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    fn found(text: &[u8]) -> Result<Option<Place>, HostKeyError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("revoked");
        std::fs::write(&file, text).unwrap();
        let key = PublicKey::from_openssh(A).unwrap();
        find(&[file], &[key.key_data()])
    }

    #[test]
    fn keys_line_by_line() {
        let text = format!("# why\n\n{B} comment\n  {A}\n");
        assert_eq!(found(text.as_bytes()).unwrap().unwrap().line, 4);
        assert_eq!(found(B.as_bytes()).unwrap(), None);
        assert_eq!(found(b"").unwrap(), None);
    }

    #[test]
    fn a_file_that_cannot_be_read_in_full_lets_nothing_pass() {
        let broken = format!("{B}\nrubbish\n");
        for text in [broken.as_bytes(), b"SSHKRL\n\0\0\0\0\x01", b"\xff\xfe x"] {
            let error = found(text).unwrap_err();
            assert!(matches!(error, HostKeyError::Revocations { .. }), "{error}");
        }
        let key = PublicKey::from_openssh(A).unwrap();
        assert!(find(&["/nowhere".into()], &[key.key_data()]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = found(&bytes);
        }
    }
}
