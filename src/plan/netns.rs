//! `NAME`, `PATH` or `pid:N` of a network namespace.

use std::path::PathBuf;

use super::PlanError;

/// Where ip-netns(8) keeps names.
const NAMES: &str = "/run/netns";
/// The same.
const NAMES_TOO: [&str; 2] = ["/run/netns/", "/var/run/netns/"];

/// A network namespace, as it was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Netns {
    /// By its name.
    Named(String),
    /// As that of a process.
    Process(i32),
    /// By another file that stands for it.
    File(PathBuf),
}

impl Netns {
    /// The one that `text` means.
    ///
    /// # Errors
    /// [`PlanError::BadNetns`].
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let bad = |reason| PlanError::BadNetns {
            text: text.to_owned(),
            reason,
        };
        if let Some(pid) = text.strip_prefix("pid:") {
            let pid = number(pid).ok_or(bad("that is no process number"))?;
            return Ok(Self::Process(pid));
        }
        if text.contains('\0') {
            return Err(bad("it has a zero byte"));
        }
        if text.contains('/') {
            return Ok(Self::of_file(text));
        }
        match text {
            "" => Err(bad("the name is empty")),
            "." | ".." => Err(bad("that is a directory")),
            name => Ok(Self::Named(name.to_owned())),
        }
    }

    fn of_file(path: &str) -> Self {
        let named = NAMES_TOO.iter().find_map(|names| path.strip_prefix(names));
        let named = named.filter(|name| !matches!(*name, "" | "." | "..") && !name.contains('/'));
        let process = path.strip_prefix("/proc/");
        let process = process.and_then(|rest| number(rest.strip_suffix("/ns/net")?));
        match (named, process) {
            (Some(name), _) => Self::Named(name.to_owned()),
            (_, Some(pid)) => Self::Process(pid),
            _ => Self::File(path.into()),
        }
    }

    /// The file that stands for it.
    pub fn file(&self) -> PathBuf {
        match self {
            Self::Named(name) => PathBuf::from(NAMES).join(name),
            Self::Process(pid) => format!("/proc/{pid}/ns/net").into(),
            Self::File(path) => path.clone(),
        }
    }
}

/// A process's.
fn number(text: &str) -> Option<i32> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|pid| is_number && *pid > 0)
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
            assert_eq!(Netns::parse(text).unwrap().file(), Path::new(file));
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
            let error = Netns::parse(text).unwrap_err().to_string();
            assert!(error.contains("pid:N"), "{error}");
        }
    }

    #[test]
    fn a_path_may_be_that_of_a_name_or_a_process() {
        let named = |name: &str| Netns::Named(name.to_owned());
        for (text, netns) in [
            ("/run/netns/lab", named("lab")),
            ("/var/run/netns/lab", named("lab")),
            ("/proc/17/ns/net", Netns::Process(17)),
        ] {
            assert_eq!(Netns::parse(text).unwrap(), netns);
        }
        for text in [
            "/run/netns/",
            "/run/netns/..",
            "/run/netns/a/b",
            "/proc/self/ns/net",
            "/proc/+1/ns/net",
            "/proc/1/ns/mnt",
            "/var/run/docker/netns/1a2b",
        ] {
            assert_eq!(Netns::parse(text).unwrap(), Netns::File(text.into()));
        }
    }

    proptest! {
        #[test]
        fn a_name_stays_in_its_directory(text in "\\PC{0,20}") {
            if let Ok(netns) = Netns::parse(&text) && !text.contains('/') && !text.starts_with("pid:") {
                let path = netns.file();
                prop_assert_eq!(path.parent().unwrap(), Path::new(NAMES));
            }
        }
    }
}
