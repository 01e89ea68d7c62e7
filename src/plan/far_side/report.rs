//! What the server says to a verb.

use thiserror::Error;

/// Done, as was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Chains of the server's own firewall that drop what is forwarded, whatever ours say: family, table and name.
    pub dropping: Vec<String>,
}

/// Where IPv6 alone is in the way.
const V4_ALONE: &str = "; for a tunnel without IPv6 capture none of it: --disable-ipv6";

/// Not done; what was begun has been taken back.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReportError {
    /// One step failed.
    #[error("the server's end of the tunnel could not be set up: {0}{hint}", hint = hint(.0))]
    Failed(String),
    /// It did not come to an end.
    #[error("the server's end of the tunnel was not set up: {0}")]
    Unfinished(String),
}

impl Report {
    /// Reads what a command of [`super::FarSide::command`] has printed.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn read(text: &str) -> Result<Self, ReportError> {
        let mut report = Self::default();
        for line in text.lines() {
            if let Some(why) = line.strip_prefix("failed ") {
                return Err(ReportError::Failed(shown(why)));
            }
            if let Some(chain) = line.strip_prefix("warning forward ") {
                report.dropping.push(shown(chain));
            }
            if line == "done" {
                return Ok(report);
            }
        }
        let said = text.lines().rfind(|line| !line.trim().is_empty());
        Err(ReportError::Unfinished(
            said.map_or_else(|| "it said nothing".to_owned(), shown),
        ))
    }
}

fn hint(step: &str) -> &'static str {
    match step.starts_with("IPv6") || step.starts_with("ip6") {
        true => V4_ALONE,
        false => "",
    }
}

/// Another's words, for a terminal.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn done_or_why_not() {
        let read = |text: &str| Report::read(text).map(|report| report.dropping);
        assert_eq!(read("done\n"), Ok(vec![]));
        assert_eq!(
            read("Hello\nwarning forward inet fw\ndone\n"),
            Ok(vec!["inet fw".to_owned()])
        );
        let error = read("failed IPv4 address: Operation not\x1b[1m permitted\n").unwrap_err();
        let why = "IPv4 address: Operation not[1m permitted".to_owned();
        assert_eq!(error, ReportError::Failed(why));
        let error = read("failed ip6 NAT: no such thing\n").unwrap_err();
        assert!(error.to_string().contains("--disable-ipv6"), "{error}");
        for (text, why) in [("", "it said nothing"), ("Hello\n\n", "Hello")] {
            assert_eq!(read(text), Err(ReportError::Unfinished(why.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_one_line(text in "(\\PC{0,20}|failed |done|\n|\x1b|\r){0,9}") {
            if let Err(error) = Report::read(&text) {
                prop_assert!(error.to_string().chars().all(|c| !c.is_control()));
            }
        }
    }
}
