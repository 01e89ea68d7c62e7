//! What a person is told and asked about a host key, in ssh's words (sshconnect.c `check_host_key`).

use std::fmt::Display;

use super::super::known_hosts::{Known, Place};
use crate::carrier::failure::harmless;
use crate::plan::quoted;

/// Other names of a key that are shown, at most (sshconnect.c `MAX_OTHER_NAMES`).
const MAX_OTHER_NAMES: usize = 8;

/// A key that no file knows for the host.
pub(super) struct Stranger<'a> {
    /// The host as known_hosts spells it.
    pub(super) host: &'a str,
    /// Its address, where that is known.
    pub(super) address: Option<String>,
    pub(super) algorithm: &'a str,
    pub(super) fingerprint: &'a str,
    /// Names under which the key is known: place and names, `None` for hashed ones.
    pub(super) others: Vec<(&'a Place, Option<&'a str>)>,
    /// What is wrong with the host's certificate, where it is expected to have one.
    pub(super) fault: Option<String>,
    /// The file that the key would be written to.
    pub(super) file: Option<String>,
}

/// ssh's question, with a line that says where the key will be written.
pub(super) fn question(stranger: &Stranger<'_>) -> String {
    let Stranger {
        host,
        algorithm,
        fingerprint,
        ..
    } = stranger;
    let address = stranger.address.as_ref();
    let address = address.map_or_else(String::new, |address| format!(" ({address})"));
    let fault = stranger.fault.as_ref();
    let fault = fault.map_or_else(String::new, |fault| {
        format!("It is known by a certificate authority only, and {fault}.\n")
    });
    let kept = match &stranger.file {
        Some(file) => format!("The key will be added to {file}."),
        None => "The key will not be kept: there is no known_hosts file to write it to.".to_owned(),
    };
    format!(
        "The authenticity of host '{host}{address}' can't be established.\n\
         {fault}\
         {algorithm} key fingerprint is {fingerprint}.\n\
         {}\n\
         {kept}\n\
         Are you sure you want to continue connecting (yes/no/[fingerprint])? ",
        other_names(&stranger.others)
    )
}

fn other_names(others: &[(&Place, Option<&str>)]) -> String {
    if others.is_empty() {
        return "This key is not known by any other names.".to_owned();
    }
    let mut text = "This host key is known by the following other names/addresses:".to_owned();
    for (place, names) in others.iter().take(MAX_OTHER_NAMES) {
        let names = names.map_or_else(|| "[hashed name]".to_owned(), harmless);
        text.push_str(&format!("\n    {}: {names}", at(place)));
    }
    if let Some(more @ 1..) = others.len().checked_sub(MAX_OTHER_NAMES) {
        text.push_str(&format!("\n    ({more} additional names omitted)"));
    }
    text
}

/// A key of a host that is known by another.
pub(super) struct Change<'a> {
    pub(super) algorithm: &'a str,
    pub(super) fingerprint: &'a str,
    pub(super) known: &'a Known,
    /// [`type_name`](super::type_name) of the known key.
    pub(super) known_algorithm: &'a str,
    /// The host's address and what is known of its key, where CheckHostIP asks for it and it does not tell the same.
    pub(super) address: Option<(String, &'static str)>,
    pub(super) remove: &'a str,
}

/// ssh's warning, line by line.
pub(super) fn changed(change: &Change<'_>) -> Vec<String> {
    let rule = "@".repeat(59);
    let mut lines = Vec::new();
    if let Some((address, what)) = &change.address {
        lines.extend([
            rule.clone(),
            "@       WARNING: POSSIBLE DNS SPOOFING DETECTED!          @".to_owned(),
            rule.clone(),
            format!(
                "The key of the corresponding address {address} {what}: either somebody spoofs"
            ),
            "DNS, or the address of the host and its key have changed at the same time.".to_owned(),
        ]);
    }
    lines.extend([
        rule.clone(),
        "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @".to_owned(),
        rule,
        "IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!".to_owned(),
        "Someone could be eavesdropping on you right now (man-in-the-middle attack)!".to_owned(),
        "It is also possible that a host key has just been changed.".to_owned(),
        format!(
            "The fingerprint for the {} key sent by the remote host is {}.",
            change.algorithm, change.fingerprint
        ),
        "Please contact your system administrator.".to_owned(),
        format!(
            "Offending {} key in {}, remove with:",
            change.known_algorithm,
            at(&change.known.place)
        ),
        format!("  {}", change.remove),
    ]);
    lines
}

/// `file:line`.
pub(super) fn at(place: &Place) -> impl Display {
    format!("{}:{}", place.file.display(), place.line)
}

/// The command that takes `known` out of its file. ssh-keygen leaves lines with patterns alone.
pub(super) fn remove(known: &Known, name: &str) -> String {
    let file = quoted(&known.place.file.to_string_lossy());
    if known.by_pattern {
        format!("sed -i.old {}d {file}", known.place.line)
    } else {
        format!("ssh-keygen -f {file} -R {}", quoted(name))
    }
}

#[cfg(test)]
mod tests {
    use russh::keys::Algorithm;

    use super::*;

    fn place() -> Place {
        Place {
            file: "/home/me/it's".into(),
            line: 7,
        }
    }

    fn known(by_pattern: bool) -> Known {
        Known {
            algorithm: Algorithm::Ed25519,
            place: place(),
            by_pattern,
        }
    }

    fn stranger<'a>(others: Vec<(&'a Place, Option<&'a str>)>) -> Stranger<'a> {
        Stranger {
            host: "[bastion]:2222",
            address: Some("10.0.0.1".to_owned()),
            algorithm: "ED25519",
            fingerprint: "SHA256:x",
            others,
            fault: None,
            file: Some("/home/me/.ssh/known_hosts".to_owned()),
        }
    }

    #[test]
    fn the_question() {
        assert_eq!(
            question(&stranger(vec![])),
            "The authenticity of host '[bastion]:2222 (10.0.0.1)' can't be established.\n\
             ED25519 key fingerprint is SHA256:x.\n\
             This key is not known by any other names.\n\
             The key will be added to /home/me/.ssh/known_hosts.\n\
             Are you sure you want to continue connecting (yes/no/[fingerprint])? "
        );
    }

    #[test]
    fn other_names_are_shown_up_to_a_bound() {
        let place = place();
        let mut others = vec![(&place, Some("a,b\u{1b}[2J")), (&place, None)];
        let text = question(&stranger(others.clone()));
        assert!(
            text.contains(
                "This host key is known by the following other names/addresses:\n    \
                 /home/me/it's:7: a,b[2J\n    /home/me/it's:7: [hashed name]\n"
            ),
            "{text}"
        );
        others.resize(10, (&place, Some("c")));
        let text = question(&stranger(others));
        assert!(
            text.contains("\n    (2 additional names omitted)\n"),
            "{text}"
        );
    }

    #[test]
    fn the_line_to_remove() {
        assert_eq!(
            remove(&known(false), "[bastion]:2222"),
            r"ssh-keygen -f '/home/me/it'\''s' -R '[bastion]:2222'"
        );
        assert_eq!(
            remove(&known(true), "bastion"),
            r"sed -i.old 7d '/home/me/it'\''s'"
        );
    }

    #[test]
    fn the_warning() {
        let known = known(false);
        let mut change = Change {
            algorithm: "RSA",
            fingerprint: "SHA256:x",
            known: &known,
            known_algorithm: "ED25519",
            address: None,
            remove: "rm",
        };
        let lines = changed(&change);
        assert_eq!(lines.len(), 10);
        assert!(lines[1].contains("WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!"));
        assert!(lines[..3].iter().all(|line| line.len() == 59));
        assert_eq!(
            lines[8],
            "Offending ED25519 key in /home/me/it's:7, remove with:"
        );
        change.address = Some(("10.0.0.1".to_owned(), "is unknown"));
        assert!(changed(&change)[1].contains("POSSIBLE DNS SPOOFING"));
    }
}
