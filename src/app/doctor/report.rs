//! The findings as a table, or as JSON.

use std::fmt::Write;

use serde::Serialize;

use super::check::{Check, Verdict};
use crate::app::json;

/// Version of the JSON form. Fields and checks are added within one; none changes its meaning.
const VERSION: u32 = 1;

/// Findings that belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Group {
    pub(super) group: &'static str,
    pub(super) checks: Vec<Check>,
}

/// All findings.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    v: u32,
    /// The worst of them.
    verdict: Verdict,
    groups: Vec<Group>,
}

impl Report {
    pub(super) fn new(groups: Vec<Group>) -> Self {
        let all = groups.iter().flat_map(|group| &group.checks);
        let worst = all.map(|check| check.verdict).max();
        Self {
            v: VERSION,
            verdict: worst.unwrap_or(Verdict::Pass).max(Verdict::Pass),
            groups,
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.verdict == Verdict::Fail
    }

    /// # Errors
    /// Those of the serializer, which has nothing to fail at here.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        json::pretty(self)
    }

    /// A line for each finding, and one for what to do.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        for Group { group, checks } in &self.groups {
            line(&mut text, group);
            for check in checks {
                let word = check.verdict.word();
                line(
                    &mut text,
                    &format!("  {word}  {:<18} {}", check.check, check.found),
                );
                if let Some(advice) = &check.advice {
                    line(&mut text, &format!("        {:<18} -> {advice}", ""));
                }
            }
        }
        let count = |verdict| {
            let all = self.groups.iter().flat_map(|group| &group.checks);
            all.filter(|check| check.verdict == verdict).count()
        };
        let _ = writeln!(
            text,
            "{} passed, {} to look at, {} failed",
            count(Verdict::Pass),
            count(Verdict::Warn),
            count(Verdict::Fail)
        );
        text
    }
}

/// Control characters are escaped: a server's words must not steer a terminal.
fn line(text: &mut String, line: &str) {
    for character in line.chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(checks: Vec<Check>) -> Report {
        Report::new(vec![Group {
            group: "host",
            checks,
        }])
    }

    #[test]
    fn the_worst_counts() {
        let pass = || Check::pass("a", "fine");
        let warn = || Check::warn("b", "so so", "look");
        let fail = || Check::fail("c", "broken", "mend");
        assert!(!report(vec![]).has_failed());
        assert!(!report(vec![pass(), warn()]).has_failed());
        assert!(report(vec![fail(), pass()]).has_failed());
        assert_eq!(report(vec![Check::skip("d", "")]).verdict, Verdict::Pass);
    }

    #[test]
    fn a_table_and_json_of_the_same() {
        let report = report(vec![
            Check::pass("kernel", "6.1"),
            Check::warn("agent", "a \u{1b}[31m\nb", "do"),
        ]);
        let table = report.table();
        assert_eq!(
            table.lines().map(str::trim_end).collect::<Vec<_>>(),
            [
                "host",
                "  pass  kernel             6.1",
                "  warn  agent              a \\u{1b}[31m\\nb",
                "                           -> do",
                "1 passed, 1 to look at, 0 failed",
            ]
        );
        let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!(json["v"], 1);
        assert_eq!(json["verdict"], "warn");
        assert_eq!(json["groups"][0]["checks"][1]["check"], "agent");
        assert_eq!(json["groups"][0]["checks"][1]["advice"], "do");
        assert!(json["groups"][0]["checks"][0]["advice"].is_null());
    }
}
