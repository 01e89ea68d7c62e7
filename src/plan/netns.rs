//! `NAME`, `PATH` or `pid:N` of a network namespace.

use std::path::PathBuf;

use super::PlanError;

/// Where ip-netns(8) keeps names.
const NAMES: &str = "/run/netns";

/// The file of the namespace that `text` means.
///
/// # Errors
/// [`PlanError::BadNetns`].
pub fn path(text: &str) -> Result<PathBuf, PlanError> {
    let bad = |reason| PlanError::BadNetns {
        text: text.to_owned(),
        reason,
    };
    if let Some(number) = text.strip_prefix("pid:") {
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        return match number.parse::<i32>() {
            Ok(pid) if digits && pid > 0 => Ok(format!("/proc/{pid}/ns/net").into()),
            _ => Err(bad("that is no process number")),
        };
    }
    if text.contains('\0') {
        return Err(bad("it has a zero byte"));
    }
    if text.contains('/') {
        return Ok(text.into());
    }
    match text {
        "" => Err(bad("the name is empty")),
        "." | ".." => Err(bad("that is a directory")),
        name => Ok(PathBuf::from(NAMES).join(name)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_three_forms() {
        for (text, file) in [
            ("lab-client", "/run/netns/lab-client"),
            ("pid:17", "/proc/17/ns/net"),
            ("./ns", "./ns"),
            ("/var/run/docker/netns/1a2b", "/var/run/docker/netns/1a2b"),
        ] {
            assert_eq!(path(text).unwrap(), Path::new(file));
        }
        for text in [
            "",
            ".",
            "..",
            "pid:",
            "pid:x",
            "pid:0",
            "pid:-1",
            "pid:+1",
            "pid:99999999999",
        ] {
            let error = path(text).unwrap_err().to_string();
            assert!(error.contains("pid:N"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_name_stays_in_its_directory(text in "\\PC{0,20}") {
            if let Ok(path) = path(&text) && !text.contains('/') && !text.starts_with("pid:") {
                prop_assert_eq!(path.parent().unwrap(), Path::new(NAMES));
            }
        }
    }
}
