//! What this host has, and may do.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::Uid;

use super::check::Check;
use crate::os::helper::{capability, program};
use crate::os::namespace::{self, Setting};
use crate::os::source;
use crate::plan::{CapturePlan, DevicePlan};

/// NETLINK_GET_STRICT_CHK came with it.
const OLDEST_KERNEL: (u32, u32) = (4, 20);
/// CAP_NET_ADMIN (linux/capability.h).
const NET_ADMIN: u32 = 12;
const TUN: &str = "/dev/net/tun";
/// No clock that is right is before this program was written: 2025-01-01, in seconds since 1970.
const EARLIEST: u64 = 1_735_689_600;

/// What is read from the host, as plain values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    kernel: String,
    /// What opening /dev/net/tun says.
    tun: Option<std::io::ErrorKind>,
    is_root: bool,
    /// Effective capabilities, a bit each.
    capabilities: u64,
    /// Programs that become root.
    helpers: Vec<&'static str>,
    /// Why there can be no private network, where it was tried in vain.
    no_private_network: Option<String>,
    /// Whether a new device drops what comes from where it would not send to: net.ipv4.conf.{all,default}.rp_filter.
    is_strict: bool,
    /// /proc/sys cannot be written.
    is_fixed: bool,
    ipv6: bool,
    /// Seconds since 1970.
    now: u64,
    has_ssh: bool,
}

impl Facts {
    pub(super) fn read() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let number =
            |path: &str| -> Option<u64> { fs::read_to_string(path).ok()?.trim().parse().ok() };
        let helpers = ["sudo", "doas", "pkexec"];
        Self {
            kernel: text("/proc/sys/kernel/osrelease"),
            tun: OpenOptions::new()
                .read(true)
                .write(true)
                .open(TUN)
                .err()
                .map(|error| error.kind()),
            is_root: Uid::effective().is_root(),
            capabilities: capabilities(&text("/proc/self/status")),
            helpers: helpers
                .into_iter()
                .filter(|name| is_in_path(name))
                .collect(),
            no_private_network: None,
            // Of `all` and the device the larger counts (ip-sysctl).
            is_strict: ["all", "default"]
                .map(|scope| number(&format!("/proc/sys/net/ipv4/conf/{scope}/rp_filter")))
                .into_iter()
                .max()
                == Some(Some(1)),
            is_fixed: is_read_only("/proc/sys/net"),
            ipv6: source::has_ipv6(),
            now: now.map_or(0, |now| now.as_secs()),
            has_ssh: is_in_path("ssh"),
        }
    }

    /// Makes a private network as `run` does, and lets it go. To be called as who would run it, before there is a second
    /// thread.
    pub(super) fn with_private_network(self) -> Self {
        let nothing = CapturePlan::default();
        let setting = Setting {
            device: DevicePlan::default(),
            source: source::choose(0, &[], &nothing, self.ipv6),
            routes: Vec::new(),
            files: Vec::new(),
            sockets: false,
            owners: false,
        };
        let made = namespace::make(&setting);
        Self {
            no_private_network: made.err().map(|error| error.to_string()),
            ..self
        }
    }

    /// Whether the network may be changed as we are.
    fn is_admin(&self) -> bool {
        self.capabilities >> NET_ADMIN & 1 == 1
    }
}

fn text(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The line `CapEff:` of proc_pid_status(5), in hexadecimal.
fn capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let number = line.and_then(|number| u64::from_str_radix(number.trim(), 16).ok());
    number.unwrap_or_default()
}

/// Whether nothing below `path` can be written, by whomever.
fn is_read_only(path: &str) -> bool {
    statvfs(path).is_ok_and(|found| found.flags().contains(FsFlags::ST_RDONLY))
}

fn is_in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| Path::new(&dir).join(name).is_file())
}

/// All of them.
pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    vec![
        kernel(facts),
        tun(facts),
        privilege(facts),
        private_network(facts),
        ipv6(facts),
        rp_filter(facts),
        clock(facts),
        ssh(facts),
    ]
}

fn kernel(facts: &Facts) -> Check {
    let found = format!("Linux {}", facts.kernel);
    match version(&facts.kernel) {
        Some(version) if version < OLDEST_KERNEL => {
            let (major, minor) = OLDEST_KERNEL;
            Check::fail(
                "kernel",
                found,
                format!("underpass needs Linux {major}.{minor}"),
            )
        }
        Some(_) => Check::pass("kernel", found),
        None => Check::skip("kernel", "its version cannot be read"),
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn tun(facts: &Facts) -> Check {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    match facts.tun {
        None => Check::pass("tun-device", format!("{TUN} can be opened")),
        Some(NotFound) => Check::fail(
            "tun-device",
            format!("there is no {TUN}"),
            "sudo modprobe tun; in a container: --device /dev/net/tun",
        ),
        Some(PermissionDenied) if !facts.is_root => Check::warn(
            "tun-device",
            format!("{TUN} may be opened by root only"),
            format!("only for use without root: sudo chmod 666 {TUN}, which is its usual mode"),
        ),
        Some(kind) => Check::fail(
            "tun-device",
            format!("{TUN} cannot be opened: {kind}"),
            "sudo modprobe tun; in a container: --device /dev/net/tun",
        ),
    }
}

fn privilege(facts: &Facts) -> Check {
    let helpers = facts.helpers.join(", ");
    match (facts.is_admin(), facts.is_root, facts.helpers.first()) {
        (true, ..) => Check::pass("privilege", "the network may be changed (CAP_NET_ADMIN)"),
        (false, true, _) => Check::fail(
            "privilege",
            "root without CAP_NET_ADMIN, as in a container",
            "start the container with --cap-add NET_ADMIN --device /dev/net/tun",
        ),
        (false, false, Some(helper)) => Check::pass(
            "privilege",
            format!(
                "`up` asks {helper} for the part that needs it: type it as yourself (there is: {helpers})"
            ),
        ),
        (false, false, None) => Check::warn(
            "privilege",
            "`up` needs CAP_NET_ADMIN, and there is no sudo, doas or pkexec",
            format!("install sudo, or once as root: {}", capability(&program())),
        ),
    }
}

/// What `run` and `shell` need, and nothing else does.
fn private_network(facts: &Facts) -> Check {
    match &facts.no_private_network {
        None => Check::pass(
            "user-namespaces",
            "`run` can have a private network: one was made, and is gone",
        ),
        Some(why) => Check::warning("user-namespaces", &format!("for `run` alone: {why}")),
    }
}

fn ipv6(facts: &Facts) -> Check {
    match facts.ipv6 {
        true => Check::pass("ipv6", "new devices get IPv6"),
        false => Check::warn(
            "ipv6",
            "switched off: IPv6 subnets cannot be captured",
            "sudo sysctl -w net.ipv6.conf.default.disable_ipv6=0",
        ),
    }
}

/// The way back of an answer for a range of ports is not that of the port: a strict filter drops it. `up` makes its device
/// loose, where it can.
fn rp_filter(facts: &Facts) -> Check {
    match (facts.is_strict, facts.is_fixed) {
        (false, _) => Check::pass("rp-filter", "not strict"),
        (true, false) => Check::pass("rp-filter", "strict; `up` makes its own device loose"),
        (true, true) => Check::warn(
            "rp-filter",
            "strict, and /proc/sys is read-only: answers for a subnet with ports are dropped",
            "outside of the container: sysctl -w net.ipv4.conf.all.rp_filter=2, or docker run --sysctl net.ipv4.conf.all.rp_filter=2",
        ),
    }
}

fn clock(facts: &Facts) -> Check {
    let day = facts.now / 86_400;
    if facts.now < EARLIEST {
        return Check::fail(
            "clock",
            format!("the clock says day {day} after 1970: certificates and logs will be wrong"),
            "set it: sudo timedatectl set-ntp true",
        );
    }
    Check::pass("clock", "plausible")
}

fn ssh(facts: &Facts) -> Check {
    match facts.has_ssh {
        true => Check::pass(
            "ssh-client",
            "installed: its configuration is asked with ssh -G",
        ),
        false => Check::warn(
            "ssh-client",
            "no ssh is installed: its configuration is read without it, and Match and some tokens are not heeded",
            "apt install openssh-client",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict::{self, Fail, Pass, Skip, Warn};
    use super::*;

    /// A host on which all is well, but for what `change` does to it.
    fn verdict(check: fn(&Facts) -> Check, change: impl Fn(&mut Facts)) -> Verdict {
        let mut facts = Facts {
            kernel: "6.1.0-13-amd64".to_owned(),
            now: EARLIEST,
            ipv6: true,
            has_ssh: true,
            ..Facts::default()
        };
        change(&mut facts);
        check(&facts).verdict
    }

    #[test]
    fn the_kernel_is_new_enough() {
        for (kernel, expected) in [
            ("6.1.0-13-amd64", Pass),
            ("4.20", Pass),
            ("4.19.0", Fail),
            ("3.10.0-1160.el7", Fail),
            ("", Skip),
            ("x", Skip),
        ] {
            assert_eq!(
                verdict(super::kernel, |facts| facts.kernel = kernel.into()),
                expected,
                "{kernel}"
            );
        }
    }

    #[test]
    fn the_device_is_there() {
        use std::io::ErrorKind::{NotFound, Other, PermissionDenied};
        assert_eq!(verdict(tun, |_| {}), Pass);
        for (kind, expected) in [(NotFound, Fail), (PermissionDenied, Warn), (Other, Fail)] {
            assert_eq!(verdict(tun, |facts| facts.tun = Some(kind)), expected);
        }
    }

    #[test]
    fn the_network_may_be_changed_one_way_or_another() {
        assert_eq!(
            verdict(privilege, |facts| facts.capabilities = 1 << 12),
            Pass
        );
        assert_eq!(
            verdict(privilege, |facts| facts.helpers = vec!["sudo"]),
            Pass
        );
        assert_eq!(verdict(privilege, |facts| facts.is_root = true), Fail);
        assert_eq!(verdict(privilege, |_| {}), Warn);
    }

    #[test]
    fn a_private_network_is_told_as_run_would() {
        assert_eq!(verdict(private_network, |_| {}), Pass);
        let refused = Facts {
            no_private_network: Some("x is 0; run: sudo sysctl -w x=1".to_owned()),
            ..Facts::default()
        };
        let check = private_network(&refused);
        assert_eq!(check.verdict, Warn);
        assert_eq!(check.found, "for `run` alone: x is 0");
        assert_eq!(check.advice.as_deref(), Some("run: sudo sysctl -w x=1"));
        // The line is cut before what is to be pasted.
        let profile = namespace::profile("/usr/bin/underpass");
        let restricted = Facts {
            no_private_network: Some(format!("x; allow them to this program, once: {profile}")),
            ..Facts::default()
        };
        let advice = private_network(&restricted).advice.unwrap();
        assert!(advice.ends_with(&format!(": {profile}")), "{advice}");
    }

    #[test]
    fn the_rest() {
        assert_eq!(verdict(ipv6, |facts| facts.ipv6 = false), Warn);
        assert_eq!(verdict(clock, |_| {}), Pass);
        assert_eq!(verdict(clock, |facts| facts.now = 5), Fail);
        assert_eq!(verdict(super::ssh, |facts| facts.has_ssh = false), Warn);
        assert_eq!(verdict(rp_filter, |facts| facts.is_fixed = true), Pass);
        assert_eq!(verdict(rp_filter, |facts| facts.is_strict = true), Pass);
        let both = |facts: &mut Facts| (facts.is_strict, facts.is_fixed) = (true, true);
        assert_eq!(verdict(rp_filter, both), Warn);
    }

    #[test]
    fn capabilities_are_read() {
        assert_eq!(
            capabilities("Name:\tx\nCapEff:\t0000000000001000\n"),
            1 << 12
        );
        assert_eq!(capabilities("CapEff:\tzz"), 0);
        assert_eq!(checks(&Facts::read()).len(), 8);
    }
}
