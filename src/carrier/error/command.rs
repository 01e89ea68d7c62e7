//! Whose doing the end of a ProxyCommand was, as far as its words tell.

/// Why a ProxyCommand ended before we were logged in at the server: what a further try costs depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandEnd {
    /// Nothing had come out of it, and it blames no login: no host took a connection, or one on the way leads no further.
    NoWay,
    /// Nothing had come out of it: a host on the way took its connection, and ended it before the login was done.
    HungUp,
    /// Nothing had come out of it: a host on the way refused its login.
    Refused,
    /// Nothing had come out of it: it does not take the host key of a host on the way.
    HostKey,
    /// The server had said something.
    Late,
}

/// What an ssh says with which a command goes on its way (`ssh -W %h:%p gateway`), and others that say the like. The first text
/// that is found decides: who is refused by one host may hear from the next ssh that the connection was closed.
const TEXTS: [(&str, CommandEnd); 10] = [
    ("Permission denied (", CommandEnd::Refused),
    ("Too many authentication failures", CommandEnd::Refused),
    ("Host key verification failed", CommandEnd::HostKey),
    // It was let in, or no host was reached: the other ssh processes of a way through several hosts speak of closed connections.
    (": open failed: ", CommandEnd::NoWay),
    ("ssh: connect to host ", CommandEnd::NoWay),
    // A warning alone, where it goes on all the same.
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        CommandEnd::HostKey,
    ),
    ("Could not resolve hostname", CommandEnd::NoWay),
    ("Connection closed by", CommandEnd::HungUp),
    ("kex_exchange_identification", CommandEnd::HungUp),
    ("Connection reset", CommandEnd::HungUp),
];

impl CommandEnd {
    /// Of one that has `said` this, out of which nothing has come.
    pub(in crate::carrier) fn of_mute<'a>(said: impl IntoIterator<Item = &'a str>) -> Self {
        let said: Vec<_> = said.into_iter().collect();
        let is_said = |text: &str| said.iter().any(|line| line.contains(text));
        let found = TEXTS.iter().find(|(text, _)| is_said(text));
        found.map_or(Self::NoWay, |(_, end)| *end)
    }
}

#[cfg(test)]
pub(in crate::carrier) mod tests {
    use super::*;

    /// The last words of commands, each as lines.
    pub(in crate::carrier) const LAST_WORDS: [(&[&str], CommandEnd); 14] = [
        (&[], CommandEnd::NoWay),
        (&["starting", "token expired"], CommandEnd::NoWay),
        (
            &["me@gw: Permission denied (publickey)."],
            CommandEnd::Refused,
        ),
        (
            &[
                "Received disconnect from 192.0.2.1 port 22:2: Too many authentication failures",
                "Disconnected from 192.0.2.1 port 22",
            ],
            CommandEnd::Refused,
        ),
        (
            &[
                "No ED25519 host key is known for gw and you have requested strict checking.",
                "Host key verification failed.",
            ],
            CommandEnd::HostKey,
        ),
        (
            &["@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @"],
            CommandEnd::HostKey,
        ),
        (
            &["Connection closed by 192.0.2.1 port 22"],
            CommandEnd::HungUp,
        ),
        (
            &["kex_exchange_identification: read: Connection reset by peer"],
            CommandEnd::HungUp,
        ),
        (
            &["kex_exchange_identification: Connection closed by remote host"],
            CommandEnd::HungUp,
        ),
        (
            &["Connection reset by 192.0.2.1 port 22"],
            CommandEnd::HungUp,
        ),
        // Two hosts on the way, and the first refuses.
        (
            &[
                "me@a: Permission denied (publickey).",
                "kex_exchange_identification: Connection closed by remote host",
                "Connection closed by UNKNOWN port 65535",
            ],
            CommandEnd::Refused,
        ),
        // It is not reached.
        (
            &[
                "ssh: connect to host a port 22: Connection refused",
                "kex_exchange_identification: Connection closed by remote host",
                "Connection closed by UNKNOWN port 65535",
            ],
            CommandEnd::NoWay,
        ),
        // It leads no further, though it has another key than it should.
        (
            &[
                "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @",
                "channel 0: open failed: connect failed: Connection reset by peer",
                "stdio forwarding failed",
            ],
            CommandEnd::NoWay,
        ),
        (
            &["ssh: Could not resolve hostname gw: Name or service not known"],
            CommandEnd::NoWay,
        ),
    ];

    #[test]
    fn what_its_last_words_tell() {
        for (said, end) in LAST_WORDS {
            assert_eq!(CommandEnd::of_mute(said.iter().copied()), end, "{said:?}");
        }
    }
}
