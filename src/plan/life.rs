//! When to end: times as ssh has them.

use std::time::Duration;

use super::{LifePlan, PlanError, Span, ssh_config};
use crate::cli::UpArgs;

/// A hundred years, which every clock here can count.
const MAX_SECONDS: u64 = 100 * 365 * 24 * 3600;

/// When to end.
pub(super) fn plan(args: &UpArgs) -> Result<LifePlan, PlanError> {
    Ok(LifePlan {
        limit: span("--for", args.limit.as_deref())?,
        idle: span("--idle-timeout", args.idle_timeout.as_deref())?,
    })
}

/// Whether a text can stand behind `--for`.
pub(super) fn check_limit(text: &str) -> Result<(), PlanError> {
    span("--for", Some(text)).map(drop)
}

/// Whether a text can stand behind `--idle-timeout`.
pub(super) fn check_idle(text: &str) -> Result<(), PlanError> {
    span("--idle-timeout", Some(text)).map(drop)
}

fn span(option: &'static str, typed: Option<&str>) -> Result<Option<Span>, PlanError> {
    let Some(typed) = typed else {
        return Ok(None);
    };
    let seconds = ssh_config::seconds(typed).filter(|seconds| (1..=MAX_SECONDS).contains(seconds));
    let time = seconds
        .map(Duration::from_secs)
        .ok_or_else(|| PlanError::BadDuration {
            option,
            text: typed.to_owned(),
        })?;
    let typed = typed.to_owned();
    Ok(Some(Span { time, typed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_ssh_has_them() {
        let time = |typed| span("--for", Some(typed)).map(|span| span.unwrap().time.as_secs());
        assert_eq!(time("30s"), Ok(30));
        assert_eq!(time("10m"), Ok(600));
        assert_eq!(time("1h30m"), Ok(5400));
        assert_eq!(time("90"), Ok(90));
        for bad in ["", "0", "-1", "1.5h", "h", "1y", "1 h", "99999999999w", "é"] {
            let error = time(bad).unwrap_err();
            assert!(matches!(error, PlanError::BadDuration { .. }), "{bad}");
        }
    }
}
