//! The device: its name and MTU.

use super::{DevicePlan, PlanError, TunnelPlan};
use crate::cli::UpArgs;

/// IPv6 asks for 1280 bytes (RFC 8200 section 5); the kernel's TUN takes 65535, less room for headers.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 1280..=65520;
/// IFNAMSIZ less the final zero (linux/if.h).
const NAME_BYTES: usize = 15;

/// The device to make.
pub(super) fn plan(args: &UpArgs, tunnel: Option<&TunnelPlan>) -> Result<DevicePlan, PlanError> {
    let mtu = args.mtu.map(check_mtu).transpose()?;
    let name = args.tun.clone();
    name.as_deref().map(check_tun).transpose()?;
    let kind = tunnel.map(|tunnel| tunnel.mode.near()).unwrap_or_default();
    Ok(DevicePlan { name, mtu, kind })
}

impl DevicePlan {
    /// Whether it is one that [`super::resolve()`] may give, for a plan that comes from elsewhere.
    ///
    /// # Errors
    /// What makes no sense.
    pub fn check(&self) -> Result<(), PlanError> {
        self.mtu.map(|mtu| check_mtu(mtu.into())).transpose()?;
        self.name.as_deref().map_or(Ok(()), check_tun)
    }
}

fn check_mtu(mtu: u32) -> Result<u16, PlanError> {
    let bad = PlanError::BadMtu { mtu };
    if !MTU_RANGE.contains(&mtu) {
        return Err(bad);
    }
    u16::try_from(mtu).map_err(|_| bad)
}

/// Whether a text can stand behind `--mtu`.
pub(super) fn check_mtu_text(text: &str) -> Result<(), PlanError> {
    let mtu = text.parse().unwrap_or(0);
    check_mtu(mtu).map(drop)
}

/// Whether a text can stand behind `--tun`.
pub(super) fn check_tun(name: &str) -> Result<(), PlanError> {
    check_name(name).map_err(|reason| PlanError::BadDeviceName {
        name: name.to_owned(),
        reason,
    })
}

/// What dev_valid_name() of the kernel takes, and less: a name also stands in paths and commands.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("the name is empty");
    }
    if name.len() > NAME_BYTES {
        return Err("the name is longer than 15 bytes");
    }
    if matches!(name, "all" | "default" | "lo") {
        return Err("the name is reserved");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.chars().all(plain) || name.starts_with(['-', '.']) {
        return Err("the name has a character that a device cannot have");
    }
    Ok(())
}
