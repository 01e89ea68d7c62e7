//! `-o`: options in ssh's form, `Key=Value` or `Key Value` (ssh_config(5)); keys in any case.

use super::{HostKeyPolicy, PlanError};

/// Checks one `-o` as far as that is possible without ssh: it has a value, and a policy for host keys is one.
pub(super) fn check(text: &str) -> Result<(), PlanError> {
    let (key, value) = split(text);
    if key.is_empty() || value.is_empty() {
        return Err(PlanError::OptionWithoutValue {
            text: text.to_owned(),
        });
    }
    if key.eq_ignore_ascii_case(STRICT) {
        policy(value.trim_matches('"'))?;
    }
    Ok(())
}

const STRICT: &str = "StrictHostKeyChecking";

/// Key and value of one `-o`.
pub(super) fn split(text: &str) -> (&str, &str) {
    let trimmed = text.trim();
    let end = trimmed
        .find(|c: char| c == '=' || c.is_whitespace())
        .unwrap_or(trimmed.len());
    let (key, rest) = trimmed.split_at(end);
    let rest = rest.trim_start();
    (key, rest.strip_prefix('=').unwrap_or(rest).trim())
}

/// Reads the value of StrictHostKeyChecking.
pub(super) fn policy(value: &str) -> Result<HostKeyPolicy, PlanError> {
    match value.to_ascii_lowercase().as_str() {
        "ask" => Ok(HostKeyPolicy::Ask),
        "accept-new" => Ok(HostKeyPolicy::AcceptNew),
        "yes" | "true" | "on" => Ok(HostKeyPolicy::Yes),
        "no" | "false" | "off" => Ok(HostKeyPolicy::No),
        _ => Err(PlanError::BadOptionValue {
            key: STRICT,
            value: value.to_owned(),
            takes: "ask, accept-new, yes or no",
        }),
    }
}

/// Several files are separated by blanks; one with blanks in it stands in double quotes.
pub(super) fn words(value: &str) -> Vec<String> {
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
    fn both_forms() {
        for typed in [
            "StrictHostKeyChecking=accept-new",
            "StrictHostKeyChecking accept-new",
            " StrictHostKeyChecking = accept-new ",
        ] {
            assert_eq!(split(typed), ("StrictHostKeyChecking", "accept-new"));
            assert_eq!(check(typed), Ok(()), "{typed}");
        }
        assert_eq!(split("SetEnv A=b"), ("SetEnv", "A=b"));
        assert_eq!(policy("ON"), Ok(HostKeyPolicy::Yes));
    }

    #[test]
    fn files_are_words() {
        assert_eq!(words("/dev/null \"/a b\""), ["/dev/null", "/a b"]);
    }

    #[test]
    fn what_is_no_option_is_said() {
        assert!(check("stricthostkeychecking").is_err());
        assert!(check("=yes").is_err());
        let message = check("strictHostKeyChecking=maybe")
            .unwrap_err()
            .to_string();
        assert!(message.contains("accept-new"), "{message}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = check(&text);
            let _ = check(&format!("StrictHostKeyChecking={text}"));
            let _ = words(&text);
        }
    }
}
