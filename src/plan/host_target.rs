//! `NAME[:PORT[-PORT]]` and `*.DOMAIN[:PORT[-PORT]]`: hosts behind the server that are captured by their names. Those with other letters
//! than ASCII's become what the DNS has for them (RFC 5890 section 2.3.2.1).

use std::fmt;
use std::ops::RangeInclusive;

use super::PlanError;
use super::subnet::{self, Ports};
use crate::cli::UpArgs;

/// The longest name, in letters (RFC 1035 section 2.3.4), and the longest part of one.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// A host, or every host below a domain, and which of its TCP ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTarget {
    /// The name, in lower case and without a dot at its end.
    pub name: String,
    /// Whether the hosts below it are meant, as opposed to itself.
    pub is_below: bool,
    /// `None`: every port.
    pub ports: Option<RangeInclusive<u16>>,
}

impl HostTarget {
    /// Whether `name` is one of them; in any case, and with or without a dot at its end.
    pub fn has(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        let Some(front) = name.len().checked_sub(self.name.len()) else {
            return false;
        };
        let Some((front, own)) = name.split_at_checked(front) else {
            return false;
        };
        own.eq_ignore_ascii_case(&self.name)
            && match self.is_below {
                true => front.len() > 1 && front.ends_with('.'),
                false => front.is_empty(),
            }
    }

    /// Whether `port` is one of the ports.
    pub fn has_port(&self, port: u16) -> bool {
        self.ports
            .as_ref()
            .is_none_or(|ports| ports.contains(&port))
    }
}

impl fmt::Display for HostTarget {
    /// As it is read back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = if self.is_below { "*." } else { "" };
        write!(f, "{below}{}", self.name)?;
        match &self.ports {
            Some(ports) => write!(f, ":{}", Ports(ports)),
            None => Ok(()),
        }
    }
}

/// Those among the networks of `args`.
///
/// # Errors
/// [`PlanError::BadHost`].
pub(super) fn among(args: &UpArgs) -> Result<Vec<HostTarget>, PlanError> {
    let mut all = Vec::new();
    for target in args.subnets.iter().filter_map(|text| parse(text)) {
        let target = target?;
        if !all.contains(&target) {
            all.push(target);
        }
    }
    Ok(all)
}

/// Reads what is a name and no network; `None` where it is none: no letter but in a scheme of numbers, or no dot.
///
/// # Errors
/// [`PlanError::BadHost`].
pub(super) fn parse(text: &str) -> Option<Result<HostTarget, PlanError>> {
    let text = text.trim();
    let (host, ports) = match text.split_once(':') {
        Some((host, ports)) => (host, Some(ports)),
        None => (text, None),
    };
    is_named(host).then(|| {
        read(host, ports).map_err(|reason| PlanError::BadHost {
            text: text.to_owned(),
            reason,
        })
    })
}

/// Whether a text is such a name with the width of a network.
pub(super) fn has_width(text: &str) -> bool {
    let name = text.split_once('/').map(|(name, _)| name.trim());
    name.is_some_and(is_named)
}

/// A name as the DNS has it; as it is where it can be none.
pub(super) fn ascii(name: &str) -> String {
    match name.is_ascii() {
        true => name.to_owned(),
        false => idna::domain_to_ascii(name).unwrap_or_else(|_| name.to_owned()),
    }
}

/// Whether a text is meant as a name with a dot: its last part begins with a letter, and it is none of the forms of a network.
fn is_named(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let numbers = host
        .split('.')
        .filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    let last = host.rsplit_once('.').map(|(_, last)| last);
    last.is_some_and(|last| last.starts_with(char::is_alphabetic))
        && numbers.count() < 2
        && !host.contains(['/', '=', '[', ']'])
}

/// Whether a text can be a name of the DNS, of one part or more.
pub(super) fn is_name(text: &str) -> bool {
    let is_part = |part: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=MAX_LABEL).contains(&part.len())
            && part.bytes().all(is_plain)
            && !part.starts_with('-')
    };
    text.len() <= MAX_NAME && text.split('.').all(is_part)
}

fn read(host: &str, ports: Option<&str>) -> Result<HostTarget, &'static str> {
    let (is_below, name) = match host.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, host),
    };
    let name = ascii(name.strip_suffix('.').unwrap_or(name)).to_ascii_lowercase();
    if name.contains('*') {
        return Err("a * stands alone in front, as in *.example.com");
    }
    if !is_named(&format!("*.{name}")) || !is_name(&name) {
        return Err("no host has such a name");
    }
    let ports = ports.map(subnet::port_range).transpose()?;
    Ok(HostTarget {
        name,
        is_below,
        ports,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(text: &str) -> HostTarget {
        parse(text).unwrap().unwrap()
    }

    #[test]
    fn names_and_what_is_none() {
        for (typed, meant) in [
            ("db.example.com", "db.example.com"),
            ("DB.Example.com.:5432", "db.example.com:5432"),
            ("büro.example.com:443", "xn--bro-hoa.example.com:443"),
            ("*.BÜRO.example", "*.xn--bro-hoa.example"),
            ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
            ("*.internal.example.com", "*.internal.example.com"),
            ("*.corp:80-443", "*.corp:80-443"),
            ("a_b.x-1.io", "a_b.x-1.io"),
            ("1.pool.ntp.org", "1.pool.ntp.org"),
        ] {
            assert_eq!(target(typed).to_string(), meant, "{typed}");
        }
        for network in [
            "10.0.1.0/24",
            "10.0.1.x",
            "10.0.1.7:22",
            "fd00::1",
            "[fd00::1]:22",
            "prod",
            "10.0.0.0/16=100.64.0.0/16",
            "0/0",
            "10.0.1.256",
            "",
        ] {
            assert_eq!(parse(network), None, "{network}");
        }
        for wrong in [
            "*.*.example.com",
            "a.*.com",
            "\u{fffd}.example.com",
            "a..example.com",
            "-a.example.com",
            "a b.example.com",
            "db.example.com:0",
            "db.example.com:http",
        ] {
            let error = parse(wrong).unwrap().unwrap_err();
            assert!(
                matches!(error, PlanError::BadHost { .. }),
                "{wrong}: {error}"
            );
        }
    }

    #[test]
    fn whose_name_it_is() {
        let (one, below) = (target("db.example.com:5432"), target("*.example.com"));
        assert!(one.has("db.example.com") && one.has("DB.example.com."));
        assert!(!one.has("x.db.example.com") && !one.has("adb.example.com"));
        assert!(below.has("a.example.com.") && below.has("a.b.Example.COM"));
        assert!(
            !below.has("example.com") && !below.has(".example.com") && !below.has("aexample.com")
        );
        assert!(one.has_port(5432) && !one.has_port(80) && below.has_port(80));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\*\\.)?\\PC{0,12}(\\.[a-zé]{1,4})?(:\\PC{0,6})?") {
            if let Some(Ok(target)) = parse(&text) {
                prop_assert_eq!(super::parse(&target.to_string()), Some(Ok(target.clone())));
                target.has(&text);
            }
        }
    }
}
