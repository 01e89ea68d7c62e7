//! What went wrong in an SSH session, for a person: russh's errors name its own parts, not what happened.

use russh::{AlgorithmKind, Error};

use crate::carrier::failure::{CLOSED, SILENT, broke, harmless, words};

/// The server's refusal left no method to go on with, and russh has ended the connection.
pub(super) const NO_METHOD: &str = "no way to log in is left";

const OVER: &str = "the session was ended";
const BROKEN_PROTOCOL: &str = "the server sent a message that does not belong there";
/// A text that is not UTF-8 is one of these to russh, a banner in Latin-1 for example.
const UNREADABLE: &str = "a message of the server cannot be read, as a banner that is not in UTF-8; --carrier openssh takes it";
const CANNOT_DECRYPT: &str =
    "what arrives cannot be decrypted: it was changed on the way, or the server has a fault";
const KEX: &str = "the server's part of the key exchange is not valid";

/// What `error` says about the connection.
pub(super) fn of(error: &Error) -> String {
    match error {
        Error::NoCommonAlgo { kind, ours, theirs } => no_common(kind, ours, theirs),
        Error::IO(error) => io(error),
        Error::PacketSize(bytes) => {
            format!("the server sent a packet of {bytes} bytes, which SSH does not allow")
        }
        Error::StrictKeyExchangeViolation { message_type, .. } => format!(
            "message {message_type} came in the middle of the key exchange, where none may (strict key exchange); somebody may have put it there"
        ),
        Error::InvalidConfig(text) => format!("the embedded SSH cannot be set up so: {text}"),
        error => fixed(error).to_owned(),
    }
}

fn fixed(error: &Error) -> &'static str {
    match error {
        Error::KexInit | Error::Kex | Error::UnknownAlgo => KEX,
        Error::Version => "the server's SSH version cannot be read",
        Error::PacketAuth | Error::DecryptionError => CANNOT_DECRYPT,
        Error::UnknownKey | Error::KeyChanged { .. } => {
            "the server showed another host key within the same connection"
        }
        Error::WrongServerSig | Error::Signature(_) => {
            "the server does not have the host key that it shows: its signature is wrong"
        }
        Error::Disconnect | Error::HUP => CLOSED,
        Error::ConnectionTimeout
        | Error::KeepaliveTimeout
        | Error::InactivityTimeout
        | Error::Elapsed(_) => SILENT,
        Error::NoAuthMethod => NO_METHOD,
        Error::SendError | Error::RecvError | Error::Join(_) => OVER,
        Error::Pending => "the server sent too much while keys were changed",
        Error::Compress(_) | Error::Decompress(_) => "what arrives cannot be decompressed",
        Error::CouldNotReadKey
        | Error::IndexOutOfBounds
        | Error::Keys(_)
        | Error::Utf8(_)
        | Error::SshKey(_)
        | Error::SshEncoding(_) => UNREADABLE,
        _ => BROKEN_PROTOCOL,
    }
}

fn io(error: &std::io::Error) -> String {
    match broke(error.kind()) {
        Some(how) => how.to_owned(),
        // Our own words, which are as long as they are.
        None if error.get_ref().is_some() => error.to_string(),
        None => words(error),
    }
}

fn no_common(kind: &AlgorithmKind, ours: &[String], theirs: &[String]) -> String {
    let option = match kind {
        AlgorithmKind::Kex => "KexAlgorithms",
        AlgorithmKind::Key => "HostKeyAlgorithms",
        AlgorithmKind::Cipher => "Ciphers",
        AlgorithmKind::Compression => "Compression",
        AlgorithmKind::Mac => "MACs",
    };
    format!(
        "no {option} in common: the server has {}; offered were {}; --carrier openssh may know more",
        list(theirs),
        list(ours)
    )
}

/// As many of `names` as fit into a line.
fn list(names: &[String]) -> String {
    let all = names.join(",");
    let shown = harmless(&all);
    if shown == all {
        return shown;
    }
    let whole = shown.rsplit_once(',').map_or("", |(whole, _)| whole);
    format!("{whole}, ...")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn all() -> Vec<Error> {
        let list = |text: &str| vec![text.to_owned()];
        vec![
            Error::NoCommonAlgo {
                kind: AlgorithmKind::Key,
                ours: list("ssh-ed25519"),
                theirs: list("ssh-dss"),
            },
            Error::CouldNotReadKey,
            Error::KexInit,
            Error::UnknownAlgo,
            Error::Version,
            Error::Kex,
            Error::PacketAuth,
            Error::Inconsistent,
            Error::NotAuthenticated,
            Error::UnsupportedAuthMethod,
            Error::IndexOutOfBounds,
            Error::UnknownKey,
            Error::WrongServerSig,
            Error::PacketSize(1 << 30),
            Error::WrongChannel,
            Error::ChannelOpenFailure(russh::ChannelOpenFailure::ConnectFailed),
            Error::Disconnect,
            Error::NoHomeDir,
            Error::KeyChanged { line: 7 },
            Error::HUP,
            Error::ConnectionTimeout,
            Error::KeepaliveTimeout,
            Error::InactivityTimeout,
            Error::NoAuthMethod,
            Error::SendError,
            Error::Pending,
            Error::DecryptionError,
            Error::RequestDenied,
            Error::Keys(russh::keys::Error::CouldNotReadKey),
            Error::IO(io::Error::new(io::ErrorKind::UnexpectedEof, "early eof")),
            Error::IO(io::ErrorKind::ConnectionReset.into()),
            Error::IO(io::ErrorKind::TimedOut.into()),
            Error::IO(io::Error::from_raw_os_error(113)),
            Error::Utf8(String::from_utf8(vec![0xff]).unwrap_err().utf8_error()),
            Error::StrictKeyExchangeViolation {
                message_type: 2,
                sequence_number: 1,
            },
            Error::InvalidConfig("x".to_owned()),
            Error::RecvError,
        ]
    }

    /// The words of russh and of what is below it say nothing to who only wants to be connected.
    #[test]
    fn every_error_in_words_of_our_own() {
        for error in all() {
            let (own, theirs) = (of(&error), error.to_string());
            assert!(!own.contains(&theirs), "{own}");
            assert!(
                !own.contains("os error") && !own.contains("early eof"),
                "{own}"
            );
            assert!(!own.chars().any(char::is_control), "{own}");
        }
        assert_eq!(
            of(&all()[0]),
            "no HostKeyAlgorithms in common: the server has ssh-dss; offered were ssh-ed25519; --carrier openssh may know more"
        );
    }
}
