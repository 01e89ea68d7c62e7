//! What TCP cannot carry: how it goes, or that it does not.

use std::path::PathBuf;

use super::far_side::{self, TunnelAddress};
use super::{CapturePlan, DeviceKind, DnsPlan, Environment, Forwarded, PlanError};
use crate::cli::{PingArg, TunnelArg, TunnelArgs, UpArgs};

/// How UDP, ping and everything else go; without anything UDP is refused, and ping is silent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BesidePlan {
    /// As packets, where the server permits it.
    pub tunnel: Option<TunnelPlan>,
    /// Datagrams by a helper on the server, where there is no tunnel.
    pub udp: bool,
    /// The program that is sent to a server that has none that carries all of it.
    pub upload: Option<PathBuf>,
    /// Who asks for hosts that are pinged, where there is no tunnel.
    pub pings: Option<PingPlan>,
}

/// A tunnel of packets to a device of the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelPlan {
    /// What goes through it.
    pub mode: TunnelMode,
    /// The number of the server's device; a free one where it is `None`.
    pub unit: Option<u32>,
    /// The addresses of both ends; chosen where it is `None`.
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

/// Who asks whether a host is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingPlan {
    /// The server's own ping.
    Server,
    /// We, by opening TCP ports.
    Probe,
}

impl TunnelMode {
    /// What the server's device is.
    pub fn far(self) -> far_side::DeviceKind {
        match self {
            Self::Hybrid | Self::Full => far_side::DeviceKind::Tun,
            Self::Ethernet => far_side::DeviceKind::Tap,
        }
    }

    /// What ours is.
    pub fn near(self) -> DeviceKind {
        match self {
            Self::Hybrid => DeviceKind::Tun,
            Self::Full => DeviceKind::PlainTun,
            Self::Ethernet => DeviceKind::Tap,
        }
    }

    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hybrid => "hybrid",
            Self::Full => "full",
            Self::Ethernet => "ethernet",
        }
    }
}

/// What `--tunnel` and its like say.
pub(super) fn plan(args: &UpArgs, environment: &Environment) -> Result<BesidePlan, PlanError> {
    read(args, &|path| environment.expand(path))
}

fn read(args: &UpArgs, expand: &dyn Fn(&str) -> PathBuf) -> Result<BesidePlan, PlanError> {
    let TunnelArgs {
        tunnel,
        tunnel_address,
        tunnel_unit,
        udp,
        upload_helper,
        ping,
    } = &args.tunnel;
    let address = tunnel_address.as_deref().map(read_address).transpose()?;
    if tunnel.is_none() && (address.is_some() || tunnel_unit.is_some()) {
        return Err(PlanError::NoTunnel);
    }
    if upload_helper.is_some() && !udp {
        return Err(PlanError::NoUdp);
    }
    let tunnel = tunnel.map(|mode| TunnelPlan {
        mode: match mode {
            TunnelArg::Hybrid => TunnelMode::Hybrid,
            TunnelArg::Full => TunnelMode::Full,
            TunnelArg::Ethernet => TunnelMode::Ethernet,
        },
        unit: *tunnel_unit,
        address,
    });
    let pings = ping.map(|by| match by {
        PingArg::Server => PingPlan::Server,
        PingArg::Probe => PingPlan::Probe,
    });
    Ok(BesidePlan {
        tunnel,
        udp: *udp,
        // A shell leaves the tilde behind an equals sign to us.
        upload: upload_helper
            .as_deref()
            .map(|file| expand(&file.to_string_lossy())),
        pings,
    })
}

/// Whether a text can stand behind `--tunnel-address`.
pub(super) fn check_address(text: &str) -> Result<(), PlanError> {
    read_address(text).map(drop)
}

fn read_address(text: &str) -> Result<TunnelAddress, PlanError> {
    Ok(text.parse()?)
}

impl BesidePlan {
    /// Whether the server has to run commands for it.
    pub fn takes_commands(&self) -> bool {
        self.tunnel.is_some() || self.udp || self.pings == Some(PingPlan::Server)
    }
}

impl TunnelPlan {
    /// Whether `capture` and `dns` can go through it: what is a whole packet carries the addresses that it has.
    pub(super) fn check(
        &self,
        capture: &CapturePlan,
        dns: Option<&DnsPlan>,
    ) -> Result<(), PlanError> {
        if let Some(mapped) = capture.subnets.iter().find(|subnet| subnet.far.is_some()) {
            let subnet = mapped.net;
            return Err(PlanError::TunnelMapped { subnet });
        }
        if capture.whose.forwarded != Forwarded::Containers {
            return Err(PlanError::TunnelGateway);
        }
        match (self.mode, dns) {
            (TunnelMode::Ethernet, Some(_)) => Err(PlanError::TunnelNames {
                mode: self.mode.name(),
            }),
            (TunnelMode::Full, Some(dns)) if dns.by_name.is_some() || !dns.hosts.is_empty() => {
                Err(PlanError::TunnelNames {
                    mode: self.mode.name(),
                })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{HostTarget, Subnet};

    fn of(tunnel: TunnelArgs) -> Result<BesidePlan, PlanError> {
        let args = UpArgs {
            tunnel,
            ..UpArgs::default()
        };
        read(&args, &|path| path.replace('~', "/home/me").into())
    }

    #[test]
    fn each_mode_has_its_devices() {
        for (arg, near, far) in [
            (TunnelArg::Hybrid, DeviceKind::Tun, "tun"),
            (TunnelArg::Full, DeviceKind::PlainTun, "tun"),
            (TunnelArg::Ethernet, DeviceKind::Tap, "tap"),
        ] {
            let args = TunnelArgs {
                tunnel: Some(arg),
                tunnel_address: Some("10.9.0.1,10.9.0.2".to_owned()),
                tunnel_unit: Some(7),
                ..TunnelArgs::default()
            };
            let plan = of(args).unwrap().tunnel.unwrap();
            assert_eq!((plan.mode.near(), plan.mode.far().word()), (near, far));
            assert_eq!(plan.unit, Some(7));
            assert_eq!(plan.address, "10.9.0.1,10.9.0.2".parse().ok());
        }
    }

    #[test]
    fn what_belongs_to_a_tunnel_takes_one() {
        assert_eq!(of(TunnelArgs::default()).unwrap(), BesidePlan::default());
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

    #[test]
    fn a_helper_is_uploaded_for_udp() {
        let args = |udp| TunnelArgs {
            udp,
            upload_helper: Some("~/underpass".into()),
            ..TunnelArgs::default()
        };
        assert!(matches!(of(args(false)), Err(PlanError::NoUdp)));
        let plan = of(args(true)).unwrap();
        assert_eq!(plan.upload, Some("/home/me/underpass".into()));
    }

    #[test]
    fn what_packets_cannot_carry_is_refused() {
        let check = |mode, capture: &CapturePlan, dns: Option<&DnsPlan>| {
            let plan = TunnelPlan {
                mode,
                unit: None,
                address: None,
            };
            plan.check(capture, dns).is_ok()
        };
        let mut capture = CapturePlan {
            subnets: vec![Subnet::host([10, 0, 0, 1].into())],
            ..CapturePlan::default()
        };
        let dns = DnsPlan::default();
        assert!(check(TunnelMode::Hybrid, &capture, Some(&dns)));
        assert!(check(TunnelMode::Full, &capture, Some(&dns)));
        assert!(!check(TunnelMode::Ethernet, &capture, Some(&dns)));
        let by_name = DnsPlan {
            hosts: vec![HostTarget {
                name: "db.example.com".to_owned(),
                is_below: false,
                ports: None,
            }],
            ..DnsPlan::default()
        };
        assert!(check(TunnelMode::Hybrid, &capture, Some(&by_name)));
        assert!(!check(TunnelMode::Full, &capture, Some(&by_name)));
        // Its answers would need a way back there, which may be that of the server's own networks.
        capture.whose.forwarded = Forwarded::All;
        assert!(!check(TunnelMode::Hybrid, &capture, None));
        capture.whose.forwarded = Forwarded::Containers;
        assert!(check(TunnelMode::Hybrid, &capture, None));
        capture.subnets[0].far = Some("10.9.0.1/32".parse().unwrap());
        assert!(!check(TunnelMode::Hybrid, &capture, None));
    }
}
