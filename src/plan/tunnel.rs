//! What TCP cannot carry: as packets, or not at all.

use super::far_side::TunnelAddress;
use super::{DeviceKind, PlanError};
use crate::cli::{TunnelArg, UpArgs};

/// A tunnel of packets to a device of the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelPlan {
    /// What goes through it.
    pub mode: TunnelMode,
    /// The number of the server's device; a free one where it is `None`.
    pub unit: Option<u32>,
    /// The addresses of both ends; free ones where it is `None`.
    pub address: Option<TunnelAddress>,
}

/// What goes through a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelMode {
    /// What is no TCP.
    Hybrid,
    /// Everything.
    Full,
    /// Everything, as frames of Ethernet.
    Ethernet,
}

impl TunnelMode {
    /// The device here that it takes.
    pub fn device(self) -> DeviceKind {
        match self {
            Self::Hybrid => DeviceKind::Tun,
            Self::Full => DeviceKind::PlainTun,
            Self::Ethernet => DeviceKind::Tap,
        }
    }
}

/// What `--tunnel` and its like say.
pub(super) fn plan(args: &UpArgs) -> Result<Option<TunnelPlan>, PlanError> {
    let tunnel = &args.tunnel;
    let address = tunnel.tunnel_address.as_deref().map(read).transpose()?;
    let Some(mode) = tunnel.tunnel else {
        return match address.is_some() || tunnel.tunnel_unit.is_some() {
            true => Err(PlanError::NoTunnel),
            false => Ok(None),
        };
    };
    Ok(Some(TunnelPlan {
        mode: match mode {
            TunnelArg::Hybrid => TunnelMode::Hybrid,
            TunnelArg::Full => TunnelMode::Full,
            TunnelArg::Ethernet => TunnelMode::Ethernet,
        },
        unit: tunnel.tunnel_unit,
        address,
    }))
}

/// Whether a text can stand behind `--tunnel-address`.
pub(super) fn check_address(text: &str) -> Result<(), PlanError> {
    read(text).map(drop)
}

fn read(text: &str) -> Result<TunnelAddress, PlanError> {
    Ok(text.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::TunnelArgs;

    fn of(tunnel: TunnelArgs) -> Result<Option<TunnelPlan>, PlanError> {
        let args = UpArgs {
            tunnel,
            ..UpArgs::default()
        };
        plan(&args)
    }

    #[test]
    fn each_mode_has_its_device() {
        for (mode, device) in [
            (TunnelArg::Hybrid, DeviceKind::Tun),
            (TunnelArg::Full, DeviceKind::PlainTun),
            (TunnelArg::Ethernet, DeviceKind::Tap),
        ] {
            let args = TunnelArgs {
                tunnel: Some(mode),
                tunnel_address: Some("10.9.0.1,10.9.0.2".to_owned()),
                tunnel_unit: Some(7),
            };
            let plan = of(args).unwrap().unwrap();
            assert_eq!(plan.mode.device(), device);
            assert_eq!(plan.unit, Some(7));
            assert_eq!(plan.address, "10.9.0.1,10.9.0.2".parse().ok());
        }
    }

    #[test]
    fn what_belongs_to_a_tunnel_takes_one() {
        assert_eq!(of(TunnelArgs::default()).unwrap(), None);
        let unit = TunnelArgs {
            tunnel_unit: Some(7),
            ..TunnelArgs::default()
        };
        assert!(matches!(of(unit), Err(PlanError::NoTunnel)));
        let address = |text: &str| TunnelArgs {
            tunnel_address: Some(text.to_owned()),
            ..TunnelArgs::default()
        };
        let alone = of(address("10.9.0.1,10.9.0.2"));
        assert!(matches!(alone, Err(PlanError::NoTunnel)));
        let wrong = of(address("10.9.0.1"));
        assert!(matches!(wrong, Err(PlanError::BadTunnelAddress(_))));
    }
}
