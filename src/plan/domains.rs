//! The words of `--dns`: domains, or `all`.

use super::{PlanError, host_target};

/// The words of a text: one, or several with commas between them.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

/// Whether each word of a text can be a domain, with `*.` in front or without. A switch, as which `--dns` might be taken, would be
/// one, and is not meant so.
///
/// # Errors
/// [`PlanError::BadDns`].
pub(super) fn check(text: &str) -> Result<(), PlanError> {
    let wrong = words(text).find(|word| is_switch(word) || !is_domain(word));
    match wrong {
        Some(word) => Err(PlanError::BadDns {
            text: word.to_owned(),
        }),
        None => Ok(()),
    }
}

fn is_switch(word: &str) -> bool {
    matches!(word, "true" | "false" | "yes" | "no")
}

fn is_domain(word: &str) -> bool {
    let bare = word.strip_prefix("*.").unwrap_or(word);
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    host_target::is_name(&host_target::ascii(bare))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_taken_in_every_form() {
        for text in [
            "all",
            "corp",
            "corp.internal.",
            "*.b.test",
            "a.test, b.test,",
            "büro.test",
            "_tcp.x-1.test",
            "2.0.10.in-addr.arpa",
            "",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_no_domain_is_named() {
        let long = "a".repeat(64);
        for word in [
            "a..b", "..", ".", "*", "*.", ".a", "a*.b", "a b", "a/b", "-a", &long, "true", "no",
        ] {
            let text = format!("corp.internal,{word}");
            let wrong = PlanError::BadDns {
                text: word.to_owned(),
            };
            assert_eq!(check(&text), Err(wrong), "{word}");
        }
    }
}
