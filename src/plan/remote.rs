//! `[user@]host[:port]`.

use std::fmt;

use super::PlanError;

/// The server as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) user: Option<String>,
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

impl fmt::Display for Remote {
    /// As [`parse`] and ssh's `-J` read it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// Reads a login name.
pub(super) fn user(text: &str) -> Result<String, PlanError> {
    if is_listener(text) {
        let reason = "nothing listens here as sshuttle does: containers are routed as they are, and hosts behind this one with --gateway";
        return Err(PlanError::BadLogin { reason });
    }
    check_user(text).map_err(|reason| PlanError::BadLogin { reason })
}

/// Reads a server. `ssh://` in front is taken as ssh takes it.
pub(super) fn parse(text: &str) -> Result<Remote, PlanError> {
    let trimmed = text.trim();
    let rest = trimmed.strip_prefix("ssh://").unwrap_or(trimmed);
    let (user, place) = match rest.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, rest),
    };
    let bad = |reason| PlanError::BadRemote {
        text: without_password(user, place),
        reason,
    };
    let user = user.map(check_user).transpose().map_err(bad)?;
    let (host, port) = split_port(place).map_err(bad)?;
    check_host(host).map_err(bad)?;
    let port = port.map(read_port).transpose().map_err(bad)?;
    Ok(Remote {
        user,
        host: host.to_owned(),
        port,
    })
}

/// What may be shown again: arguments end up in logs.
fn without_password(user: Option<&str>, place: &str) -> String {
    match user.map(|user| user.split(':').next().unwrap_or_default()) {
        Some(name) => format!("{name}@{place}"),
        None => place.to_owned(),
    }
}

/// sshuttle's `-l [ip:]port`.
fn is_listener(text: &str) -> bool {
    let first = text.split(',').next().unwrap_or_default();
    first.parse::<std::net::SocketAddr>().is_ok()
}

fn check_user(user: &str) -> Result<String, &'static str> {
    if user.is_empty() {
        return Err("the user's name is empty");
    }
    if user.contains(':') {
        return Err(
            "a password cannot be given here, for every user of this host could read it; use a key, or type it when asked",
        );
    }
    if user.chars().any(|c| c.is_control() || c.is_whitespace()) || user.starts_with('-') {
        return Err("this is no user's name");
    }
    Ok(user.to_owned())
}

fn split_port(place: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("the bracket is not closed")?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err("the text after the bracket is not understood"),
        };
    }
    if place.matches(':').count() > 1 {
        return Ok((place, None));
    }
    Ok(match place.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (place, None),
    })
}

fn check_host(host: &str) -> Result<(), &'static str> {
    if host.is_empty() {
        return Err("the host's name is empty");
    }
    let odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '/' | '[' | ']');
    if host.starts_with('-') || host.chars().any(odd) {
        return Err("this is no host's name");
    }
    if host.contains(':') && scoped_v6(host).is_none() {
        return Err("this is no IPv6 address");
    }
    Ok(())
}

/// The address in front of a zone such as `%eth0`.
fn scoped_v6(host: &str) -> Option<std::net::Ipv6Addr> {
    host.split('%').next()?.parse().ok()
}

fn read_port(text: &str) -> Result<u16, &'static str> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
        .filter(|port| *port > 0)
        .ok_or("the port is no number from 1 to 65535")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn remote(user: Option<&str>, host: &str, port: Option<u16>) -> Remote {
        Remote {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn forms() {
        for (typed, meant) in [
            ("bastion", remote(None, "bastion", None)),
            ("me@bastion:2222", remote(Some("me"), "bastion", Some(2222))),
            ("me@corp@bastion", remote(Some("me@corp"), "bastion", None)),
            ("[2001:db8::1]:22", remote(None, "2001:db8::1", Some(22))),
            ("me@2001:db8::1", remote(Some("me"), "2001:db8::1", None)),
            ("fe80::1%eth0", remote(None, "fe80::1%eth0", None)),
            ("ssh://me@host:1", remote(Some("me"), "host", Some(1))),
        ] {
            assert_eq!(parse(&meant.to_string()).as_ref(), Ok(&meant), "{typed}");
            assert_eq!(parse(typed), Ok(meant), "{typed}");
        }
    }

    #[test]
    fn bad_forms_and_no_password_in_the_message() {
        for typed in [
            "",
            "me@",
            "@host",
            "host:0",
            "host:99999",
            "[::1",
            "-oProxy=x",
            "a b",
            "::g",
        ] {
            assert!(parse(typed).is_err(), "{typed}");
        }
        let message = parse("me:secret@host").unwrap_err().to_string();
        assert!(!message.contains("secret"), "{message}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
