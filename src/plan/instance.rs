//! What this run is called, and whether it goes to the background.

use std::path::PathBuf;

use super::PlanError;
use crate::cli::UpArgs;

/// As long as a file's name may be beside what is added to it (NAME_MAX is 255).
const NAME_BYTES: usize = 64;

/// How the run is found again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstancePlan {
    /// Its name, fit for a file's: `--name`, else the profile's, else the host's as typed.
    pub name: String,
    /// Whether it goes to the background once packets flow.
    pub background: bool,
    /// Where the process number is written.
    pub pid_file: Option<PathBuf>,
}

impl InstancePlan {
    /// `host` and `port` as typed.
    pub(super) fn new(args: &UpArgs, host: &str, port: Option<u16>) -> Result<Self, PlanError> {
        let name = match (&args.instance.name, &args.profile) {
            (Some(name), _) => {
                check_name(name)?;
                name.clone()
            }
            (None, Some(profile)) => profile.clone(),
            // Another port is mostly another server.
            (None, None) => match port {
                Some(port) => plain(&format!("{host}-{port}")),
                None => plain(host),
            },
        };
        Ok(Self {
            name,
            background: args.daemon.daemon,
            pid_file: args.daemon.pidfile.clone(),
        })
    }
}

/// Whether a name can be one: it stands in paths and in commands.
pub(super) fn check_name(name: &str) -> Result<(), PlanError> {
    let reason = if name.is_empty() {
        "the name is empty"
    } else if name.len() > NAME_BYTES {
        "the name is longer than 64 bytes"
    } else if name.starts_with(['.', '-']) || !name.chars().all(is_plain) {
        "the name has a character that it cannot have"
    } else {
        return Ok(());
    };
    Err(PlanError::BadInstanceName {
        name: name.to_owned(),
        reason,
    })
}

/// A host as a name: an address of IPv6 has colons.
fn plain(host: &str) -> String {
    let plain = host.chars().map(|c| if is_plain(c) { c } else { '-' });
    let name: String = plain.take(NAME_BYTES).collect();
    let name = name.trim_start_matches(['.', '-']);
    if name.is_empty() { "up" } else { name }.to_owned()
}

const fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(name: Option<&str>, profile: Option<&str>, host: &str) -> Result<String, PlanError> {
        let mut args = UpArgs {
            profile: profile.map(str::to_owned),
            ..UpArgs::default()
        };
        args.instance.name = name.map(str::to_owned);
        InstancePlan::new(&args, host, None).map(|plan| plan.name)
    }

    #[test]
    fn the_nearest_name_is_taken() {
        assert_eq!(name(Some("a"), Some("b"), "c").unwrap(), "a");
        assert_eq!(name(None, Some("b"), "c").unwrap(), "b");
        assert_eq!(name(None, None, "bastion.lan").unwrap(), "bastion.lan");
        assert_eq!(name(None, None, "fe80::1%eth0").unwrap(), "fe80--1-eth0");
        assert_eq!(name(None, None, "::").unwrap(), "up");
        let other_port = InstancePlan::new(&UpArgs::default(), "::1", Some(2222)).unwrap();
        assert_eq!(other_port.name, "1-2222");
        for bad in ["", "a/b", "..", "-a", "a b", "é"] {
            assert!(name(Some(bad), None, "c").is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_host_makes_a_name(host in "\\PC*") {
            prop_assert!(check_name(&plain(&host)).is_ok());
        }
    }
}
