//! What the server's words for a refused open mean.
//!
//! RFC 4254 section 5.1 gives four reason codes and a free text. OpenSSH puts `strerror` of the connect
//! into the text of reason 2 (`channels.c channel_post_connecting`), so the text tells a closed port from
//! a missing route. It depends on libc, locale and server: the table knows the usual wordings, and whatever
//! it does not know is [`OpenFailure::Other`].

use std::io;

use crate::net::{OpenError, OpenFailure};

/// The longest text that is kept, in characters.
const MAX_TEXT: usize = 200;
/// The longest line that is shown to a person who is to do something: addresses to log in at are longer.
const MAX_SHOWN: usize = 1000;

/// Wordings by substring, lower case; the first that matches decides. Sources: glibc, musl and BSD
/// `strerror`, Go's `net` package, `gai_strerror`, Python's `OSError`.
const TEXTS: &[(&str, OpenFailure)] = &[
    ("refused", OpenFailure::Refused),
    ("network is unreachable", OpenFailure::NetworkUnreachable),
    ("network unreachable", OpenFailure::NetworkUnreachable),
    ("network is down", OpenFailure::NetworkUnreachable),
    (
        "address family not supported",
        OpenFailure::NetworkUnreachable,
    ),
    ("no route to host", OpenFailure::HostUnreachable),
    ("host is unreachable", OpenFailure::HostUnreachable),
    ("host unreachable", OpenFailure::HostUnreachable),
    ("host is down", OpenFailure::HostUnreachable),
    ("not known", OpenFailure::HostUnreachable),
    ("no such host", OpenFailure::HostUnreachable),
    ("unknown host", OpenFailure::HostUnreachable),
    // gai_strerror of glibc and of musl, and Go's.
    ("name resolution", OpenFailure::HostUnreachable),
    ("no address associated", OpenFailure::HostUnreachable),
    ("does not resolve", OpenFailure::HostUnreachable),
    ("no usable address", OpenFailure::HostUnreachable),
    ("try again", OpenFailure::HostUnreachable),
    ("server misbehaving", OpenFailure::HostUnreachable),
    ("timed out", OpenFailure::TimedOut),
    ("timeout", OpenFailure::TimedOut),
    // connect() after ICMPv6 1/1 (EACCES), and where the server's own filter stops it (EPERM). The server's
    // policy, PermitOpen for example, has a reason of its own.
    ("permission denied", OpenFailure::Filtered),
    ("operation not permitted", OpenFailure::Filtered),
    ("prohibited", OpenFailure::Filtered),
    ("too many open files", OpenFailure::NoResources),
    ("cannot allocate memory", OpenFailure::NoResources),
    ("no buffer space", OpenFailure::NoResources),
    ("cannot assign requested address", OpenFailure::NoResources),
    ("resource temporarily unavailable", OpenFailure::NoResources),
    // sshd's text when connect() itself fails at once (channels.c connect_next): no route to the network,
    // nearly always, since every other error of a non-blocking connect comes later and has its own text.
    ("open failed", OpenFailure::NetworkUnreachable),
    // Python's asyncio, so asyncssh, puts words of its own in the place of strerror's (selector_events.py
    // _sock_connect_cb): only the number tells. Linux's numbers, then those of the BSDs and macOS.
    ("[errno 111]", OpenFailure::Refused),
    ("[errno 113]", OpenFailure::HostUnreachable),
    ("[errno 112]", OpenFailure::HostUnreachable),
    ("[errno 101]", OpenFailure::NetworkUnreachable),
    ("[errno 110]", OpenFailure::TimedOut),
    ("[errno 13]", OpenFailure::Filtered),
    ("[errno 1]", OpenFailure::Filtered),
    ("[errno 61]", OpenFailure::Refused),
    ("[errno 65]", OpenFailure::HostUnreachable),
    ("[errno 64]", OpenFailure::HostUnreachable),
    ("[errno 51]", OpenFailure::NetworkUnreachable),
    ("[errno 60]", OpenFailure::TimedOut),
];

/// Reason codes of a refused open (RFC 4254 section 5.1); every other one is as good as `CONNECT_FAILED`, 2.
const ADMINISTRATIVELY_PROHIBITED: u32 = 1;
const UNKNOWN_CHANNEL_TYPE: u32 = 3;
const RESOURCE_SHORTAGE: u32 = 4;

/// The error for a refused open: the kind by reason code and `text`, and the text made harmless.
pub(super) fn open_error(reason: u32, text: &str) -> OpenError {
    let failure = match reason {
        // A server without direct-tcpip forbids all of it.
        ADMINISTRATIVELY_PROHIBITED | UNKNOWN_CHANNEL_TYPE => OpenFailure::Prohibited,
        RESOURCE_SHORTAGE => OpenFailure::NoResources,
        _ => by_text(text),
    };
    OpenError::new(failure, harmless(text))
}

/// The kind of failure that `text` tells of.
pub(super) fn by_text(text: &str) -> OpenFailure {
    let text = text.to_ascii_lowercase();
    TEXTS
        .iter()
        .find(|(known, _)| text.contains(known))
        .map_or(OpenFailure::Other, |(_, failure)| *failure)
}

/// The system's words for `error`, without what Rust's libraries put around them.
pub(super) fn words(error: &io::Error) -> String {
    use io::ErrorKind::{BrokenPipe, UnexpectedEof, WriteZero};
    if matches!(error.kind(), BrokenPipe | UnexpectedEof | WriteZero) {
        return "the other side closed the connection".to_owned();
    }
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let text = text.strip_prefix(LOOKUP).unwrap_or(text);
    harmless(text)
}

/// How connections break.
pub(super) const CLOSED: &str = "the server closed the connection";
pub(super) const SILENT: &str = "the server does not answer";

/// How a connection broke, for a person: the system's words name what was tried then.
pub(super) fn broke(kind: io::ErrorKind) -> Option<&'static str> {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof};
    match kind {
        BrokenPipe | UnexpectedEof => Some(CLOSED),
        ConnectionReset => Some("it was reset, by the server or on the way"),
        TimedOut => Some(SILENT),
        _ => None,
    }
}

/// What the standard library says before the words of gai_strerror(3).
const LOOKUP: &str = "failed to lookup address information: ";

/// `text` for a log line or a terminal: control characters and the marks that turn the writing direction
/// removed, at most [`MAX_TEXT`] characters.
pub(super) fn harmless(text: &str) -> String {
    without_marks(text).take(MAX_TEXT).collect()
}

/// The same of a line that a person is to read whole, at most [`MAX_SHOWN`] characters.
pub(super) fn harmless_line(text: &str) -> String {
    without_marks(text).take(MAX_SHOWN).collect()
}

fn without_marks(text: &str) -> impl Iterator<Item = char> {
    text.chars()
        .filter(|c| !c.is_control() && !turns_direction(*c))
}

/// Unicode's explicit directional marks (UAX 9 section 2) can make a text read as another.
fn turns_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_failed_connect() {
        for (text, failure) in [
            ("Connection refused", OpenFailure::Refused),
            ("Error connecting: Connection refused", OpenFailure::Refused),
            (
                "dial tcp 10.0.0.1:80: connect: connection refused",
                OpenFailure::Refused,
            ),
            ("No route to host", OpenFailure::HostUnreachable),
            ("Host is unreachable", OpenFailure::HostUnreachable),
            ("Host is down", OpenFailure::HostUnreachable),
            ("Name or service not known", OpenFailure::HostUnreachable),
            ("Connection timed out", OpenFailure::TimedOut),
            ("Operation timed out", OpenFailure::TimedOut),
            ("dial tcp 10.0.0.1:80: i/o timeout", OpenFailure::TimedOut),
            ("Network is unreachable", OpenFailure::NetworkUnreachable),
            ("NETWORK UNREACHABLE", OpenFailure::NetworkUnreachable),
            ("open failed", OpenFailure::NetworkUnreachable),
            (
                "Address family not supported by protocol",
                OpenFailure::NetworkUnreachable,
            ),
            ("Permission denied", OpenFailure::Filtered),
            ("Operation not permitted", OpenFailure::Filtered),
            ("Too many open files", OpenFailure::NoResources),
            ("Verbindungsaufbau abgelehnt", OpenFailure::Other),
            (
                "[Errno 111] Connect call failed ('10.0.0.1', 80)",
                OpenFailure::Refused,
            ),
            (
                "[Errno 113] Connect call failed ('10.0.0.1', 80)",
                OpenFailure::HostUnreachable,
            ),
            (
                "[Errno 110] Connect call failed ('10.0.0.1', 80)",
                OpenFailure::TimedOut,
            ),
            // russh's server, whatever the reason was.
            ("Connect failed", OpenFailure::Other),
            ("", OpenFailure::Other),
        ] {
            let error = open_error(2, text);
            assert_eq!(error.failure, failure, "{text:?}");
            assert_eq!(error.text, text);
        }
    }

    #[test]
    fn the_reason_decides_where_it_is_plain() {
        let kind = |reason| open_error(reason, "open failed").failure;
        assert_eq!(kind(ADMINISTRATIVELY_PROHIBITED), OpenFailure::Prohibited);
        assert_eq!(kind(UNKNOWN_CHANNEL_TYPE), OpenFailure::Prohibited);
        assert_eq!(kind(RESOURCE_SHORTAGE), OpenFailure::NoResources);
    }

    #[test]
    fn the_systems_words_are_alone() {
        for (error, text) in [
            (io::Error::from_raw_os_error(111), "Connection refused"),
            (io::Error::from_raw_os_error(113), "No route to host"),
            (
                io::Error::other(format!("{LOOKUP}Name or service not known")),
                "Name or service not known",
            ),
            (
                io::Error::new(io::ErrorKind::UnexpectedEof, "early eof"),
                "the other side closed the connection",
            ),
        ] {
            assert_eq!(words(&error), text);
        }
    }

    #[test]
    fn foreign_text_is_made_harmless() {
        assert_eq!(harmless("a\x1b[31m\r\nb\u{202e}c\0"), "a[31mbc");
        assert_eq!(harmless(&"é".repeat(1000)).chars().count(), MAX_TEXT);
    }
}
