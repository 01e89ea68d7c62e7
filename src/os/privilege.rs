//! Whether the process may set up a host, asked before a person types a passphrase.

use std::path::Path;

use super::TunError;
use super::tun::CLONE_DEVICE;

/// Bit of `CAP_NET_ADMIN` (linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;

/// Looks for `/dev/net/tun` and for `CAP_NET_ADMIN` in the effective set (proc_pid_status(5)).
///
/// # Errors
/// What is missing, with what to do.
pub fn check() -> Result<(), TunError> {
    if !Path::new(CLONE_DEVICE).exists() {
        return Err(TunError::NoTun);
    }
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    match effective(&status) {
        Some(set) if set >> CAP_NET_ADMIN & 1 == 0 => Err(TunError::NotPermitted),
        // Without the line the kernel's own answer counts.
        _ => Ok(()),
    }
}

fn effective(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_is_read() {
        assert_eq!(
            effective("Name:\tx\nCapEff:\t0000000000001000\n"),
            Some(1 << CAP_NET_ADMIN)
        );
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
