//! `-o`: options in ssh's form, `Key=Value` or `Key Value` (ssh_config(5)); keys in any case.

use super::{HostKeyPolicy, PlanError};

/// The keys that are understood, as ssh_config(5) spells them.
pub(super) const KNOWN_OPTIONS: [&str; 2] = ["StrictHostKeyChecking", "UserKnownHostsFile"];

/// An option, read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SshOption {
    HostKeys(HostKeyPolicy),
    /// Unexpanded paths, at least one.
    KnownHosts(Vec<String>),
}

/// Reads one `-o`.
pub(super) fn parse(text: &str) -> Result<SshOption, PlanError> {
    let trimmed = text.trim();
    let end = trimmed
        .find(|c: char| c == '=' || c.is_whitespace())
        .unwrap_or(trimmed.len());
    let (key, rest) = trimmed.split_at(end);
    let rest = rest.trim_start();
    let value = rest.strip_prefix('=').unwrap_or(rest).trim();
    let known = KNOWN_OPTIONS
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(key))
        .ok_or_else(|| PlanError::UnknownOption {
            key: key.to_owned(),
        })?;
    if value.is_empty() {
        return Err(PlanError::OptionWithoutValue {
            text: text.to_owned(),
        });
    }
    if known == KNOWN_OPTIONS[0] {
        policy(known, value).map(SshOption::HostKeys)
    } else {
        Ok(SshOption::KnownHosts(words(value)))
    }
}

fn policy(key: &'static str, value: &str) -> Result<HostKeyPolicy, PlanError> {
    match value.to_ascii_lowercase().as_str() {
        "ask" => Ok(HostKeyPolicy::Ask),
        "accept-new" => Ok(HostKeyPolicy::AcceptNew),
        "yes" | "true" | "on" => Ok(HostKeyPolicy::Yes),
        "no" | "false" | "off" => Ok(HostKeyPolicy::No),
        _ => Err(PlanError::BadOptionValue {
            key,
            value: value.to_owned(),
            takes: "ask, accept-new, yes or no",
        }),
    }
}

/// Several files are separated by blanks; one with blanks in it stands in double quotes.
fn words(value: &str) -> Vec<String> {
    let quoted = value.split('"').enumerate();
    quoted
        .flat_map(|(index, part)| {
            if index % 2 == 1 {
                vec![part.to_owned()]
            } else {
                part.split_whitespace().map(str::to_owned).collect()
            }
        })
        .filter(|word| !word.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_and_any_case() {
        for typed in [
            "StrictHostKeyChecking=accept-new",
            "stricthostkeychecking accept-new",
            "STRICTHOSTKEYCHECKING = accept-new",
        ] {
            assert_eq!(
                parse(typed),
                Ok(SshOption::HostKeys(HostKeyPolicy::AcceptNew)),
                "{typed}"
            );
        }
        assert_eq!(
            parse("UserKnownHostsFile=/dev/null \"/a b\""),
            Ok(SshOption::KnownHosts(vec![
                "/dev/null".into(),
                "/a b".into()
            ]))
        );
    }

    #[test]
    fn an_unknown_key_is_told_which_are_known() {
        let message = parse("Compression=yes").unwrap_err().to_string();
        assert!(message.contains("Compression") && message.contains("UserKnownHostsFile"));
        assert!(parse("StrictHostKeyChecking").is_err());
        assert!(parse("StrictHostKeyChecking=maybe").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = parse(&text);
            let _ = parse(&format!("UserKnownHostsFile={text}"));
        }
    }
}
