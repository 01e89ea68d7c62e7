//! One finding, and how bad it is.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// Cannot be known, or was not asked for.
    Skip,
    /// As it should be.
    Pass,
    /// Works, but somebody should look.
    Warn,
    /// Does not work.
    Fail,
}

impl Verdict {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What was looked at: a word that stays, for scripts.
    pub(super) check: &'static str,
    pub(super) verdict: Verdict,
    /// What was found: one line.
    pub(super) found: String,
    /// What to do: one line.
    pub(super) advice: Option<String>,
}

impl Check {
    fn new(check: &'static str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self {
            check,
            verdict,
            found: found.into(),
            advice: None,
        }
    }

    fn advised(
        check: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            advice: Some(advice.into()),
            ..Self::new(check, verdict, found)
        }
    }

    pub(super) fn skip(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Verdict::Skip, found)
    }

    pub(super) fn pass(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Verdict::Pass, found)
    }

    pub(super) fn warn(
        check: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::advised(check, Verdict::Warn, found, advice)
    }

    pub(super) fn fail(
        check: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::advised(check, Verdict::Fail, found, advice)
    }

    /// An error as others say it: what failed, and behind the first full stop or the last semicolon what to do.
    pub(super) fn error(check: &'static str, error: &dyn std::fmt::Display) -> Self {
        Self::said(check, Verdict::Fail, error)
    }

    /// The same of something that nothing else needs.
    pub(super) fn warning(check: &'static str, error: &dyn std::fmt::Display) -> Self {
        Self::said(check, Verdict::Warn, error)
    }

    fn said(check: &'static str, verdict: Verdict, error: &dyn std::fmt::Display) -> Self {
        let text = error.to_string();
        match text.split_once(". ").or_else(|| text.rsplit_once("; ")) {
            Some((found, advice)) => Self::advised(check, verdict, found, advice),
            None => Self::new(check, verdict, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_found_and_advised() {
        let check = Check::error("login", &"permission denied (publickey). Add the key");
        assert_eq!(check.found, "permission denied (publickey)");
        assert_eq!(check.advice.as_deref(), Some("Add the key"));
        let check = Check::error("arguments", &"no such width; write ADDRESS/WIDTH");
        assert_eq!(check.advice.as_deref(), Some("write ADDRESS/WIDTH"));
        assert_eq!(Check::error("login", &"no").advice, None);
    }
}
