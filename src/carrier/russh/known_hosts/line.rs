//! One line of a known_hosts file: marker, names, key.

use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use russh::keys::{Algorithm, PublicKey};

/// Where a key was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Place {
    pub(in super::super) file: PathBuf,
    /// From 1.
    pub(in super::super) line: usize,
}

/// What a line says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// It is the host's.
    Plain,
    /// `@cert-authority`: it signs certificates for the host.
    Authority,
    /// `@revoked`: it must not be taken.
    Revoked,
}

/// A line that makes sense.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) marker: Marker,
    /// The field with the names, as written.
    pub(super) names: String,
    pub(super) key: PublicKey,
    pub(super) place: Place,
}

/// The lines of `text`. What makes no sense is passed over, as ssh does.
pub(super) fn parse<'a>(text: &'a str, file: &'a Path) -> impl Iterator<Item = Line> + 'a {
    text.lines().enumerate().filter_map(move |(i, line)| {
        let (marker, line) = marker(line.trim_matches([' ', '\t', '\r']))?;
        let mut fields = line.split([' ', '\t']).filter(|field| !field.is_empty());
        let (names, kind, blob) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Line {
            marker,
            names: names.to_owned(),
            key: key(kind, blob)?,
            place: Place {
                file: file.to_owned(),
                line: i + 1,
            },
        })
    })
}

/// The marker of a line, and what follows. `None` for comments and for markers that ssh does not know; there may
/// be one only.
fn marker(line: &str) -> Option<(Marker, &str)> {
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    if !line.starts_with('@') {
        return Some((Marker::Plain, line));
    }
    let (word, rest) = line.split_once([' ', '\t'])?;
    let marker = match word {
        "@cert-authority" => Marker::Authority,
        "@revoked" => Marker::Revoked,
        _ => return None,
    };
    let rest = rest.trim_start_matches([' ', '\t']);
    (!rest.starts_with('@')).then_some((marker, rest))
}

/// A plain key of a type that is known, from its two fields.
///
/// The library reads a certificate's authority as a key again, however deep they are nested: only a blob that says
/// itself that it is of the plain type `kind` is given to it.
pub(in super::super) fn key(kind: &str, blob: &str) -> Option<PublicKey> {
    let bytes = BASE64.decode(blob.as_bytes()).ok()?;
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    if rest.get(..length)? != kind.as_bytes() {
        return None;
    }
    match Algorithm::new(kind).ok()? {
        // In a key, RSA has one name whatever hash signs.
        Algorithm::Other(_) | Algorithm::Rsa { hash: Some(_) } => None,
        _ => PublicKey::from_bytes(&bytes).ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    fn lines(text: &str) -> Vec<Line> {
        parse(text, Path::new("f")).collect()
    }

    #[test]
    fn markers_comments_and_blanks() {
        let text = format!(
            "# {KEY}\n\n  a {KEY} comment\r\n@cert-authority\t*.x,b  {KEY}\n@revoked * {KEY}\n\ta\t{}\n",
            KEY.replace(' ', "\t")
        );
        let found: Vec<_> = lines(&text)
            .into_iter()
            .map(|l| (l.marker, l.names, l.place.line))
            .collect();
        assert_eq!(
            found,
            [
                (Marker::Plain, "a".to_owned(), 3),
                (Marker::Authority, "*.x,b".to_owned(), 4),
                (Marker::Revoked, "*".to_owned(), 5),
                (Marker::Plain, "a".to_owned(), 6),
            ]
        );
    }

    #[test]
    fn rubbish_is_passed_over() {
        for text in [
            "",
            "x",
            "bastion",
            "bastion ssh-ed25519",
            "bastion ssh-ed25519 !!!",
            "bastion ssh-ed25519 AAAA",
            "bastion ssh-ed25519 /////w==",
            "bastion 1024 35 1234567890",
            "|1|x|y z w",
            "|1| a b",
            "@",
            "@revoked",
            "\u{0}",
        ] {
            assert!(lines(text).is_empty(), "{text:?}");
        }
        let blob = KEY.split_once(' ').unwrap().1;
        for line in [
            format!("@unknown a {KEY}"),
            format!("@revoked @cert-authority a {KEY}"),
            format!("a ssh-rsa {blob}"),
        ] {
            assert!(lines(&line).is_empty(), "{line}");
        }
    }

    #[test]
    fn nested_certificates_are_not_unfolded() {
        // Each level is an authority in the place of a key; decoding thousands of them would overflow the stack.
        let name = b"ssh-ed25519-cert-v01@openssh.com";
        let mut blob = Vec::new();
        for _ in 0..20_000 {
            blob.extend((name.len() as u32).to_be_bytes());
            blob.extend(name);
        }
        let blob = BASE64.encode(&blob);
        for kind in ["ssh-ed25519-cert-v01@openssh.com", "ssh-ed25519"] {
            assert!(lines(&format!("a {kind} {blob}")).is_empty());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            lines(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn no_blob_panics(
            kind in prop_oneof![
                Just("ssh-ed25519"), Just("ssh-rsa"), Just("ssh-dss"), Just("ecdsa-sha2-nistp256"),
                Just("sk-ssh-ed25519@openssh.com"), Just("ssh-ed25519-cert-v01@openssh.com"),
            ],
            rest in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut blob = (kind.len() as u32).to_be_bytes().to_vec();
            blob.extend(kind.as_bytes());
            blob.extend(rest);
            lines(&format!("a {kind} {}", BASE64.encode(&blob)));
        }
    }
}
