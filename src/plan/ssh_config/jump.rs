//! ProxyJump: the hosts to go through, `[user@]host[:port]` or `ssh://` URIs, separated by commas (ssh_config(5)).

use super::super::PlanError;
use super::super::remote::{self, Remote};

/// The hosts of `text`, the one that is dialled from here first. None for `none` and for nothing.
///
/// # Errors
/// [`PlanError::BadJump`].
pub(super) fn parse(text: &str) -> Result<Vec<Remote>, PlanError> {
    if text.is_empty() || text.eq_ignore_ascii_case("none") {
        return Ok(Vec::new());
    }
    text.split(',').map(hop).collect()
}

fn hop(text: &str) -> Result<Remote, PlanError> {
    let uri = text.trim().starts_with("ssh://");
    let place = if uri {
        text.trim_end_matches('/')
    } else {
        text
    };
    remote::parse(place).map_err(|error| match error {
        PlanError::BadRemote { text, reason } => PlanError::BadJump { text, reason },
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        let hops = parse(text).unwrap();
        let show = |hop: &Remote| format!("{:?} {} {:?}", hop.user, hop.host, hop.port);
        hops.iter().map(show).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn every_form_that_ssh_prints() {
        for (text, hops) in [
            ("", ""),
            ("none", ""),
            ("None", ""),
            ("gw", "None gw None"),
            ("u@gw:2222", "Some(\"u\") gw Some(2222)"),
            ("ssh://u@gw:2222", "Some(\"u\") gw Some(2222)"),
            ("ssh://gw/", "None gw None"),
            ("[10.0.0.1]", "None 10.0.0.1 None"),
            ("u@[::1]:23", "Some(\"u\") ::1 Some(23)"),
            (
                "a@h1:22,b@[::1]:23,[10.0.0.1]",
                "Some(\"a\") h1 Some(22); Some(\"b\") ::1 Some(23); None 10.0.0.1 None",
            ),
        ] {
            assert_eq!(shown(text), hops, "{text}");
        }
    }

    #[test]
    fn what_is_no_host_is_an_error() {
        for text in [",", "a,,b", "a:0", "[::1", "ssh://", "-oProxyCommand=x"] {
            assert!(
                matches!(parse(text), Err(PlanError::BadJump { .. })),
                "{text}"
            );
        }
        let error = parse("u:secret@h").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
