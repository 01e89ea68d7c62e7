//! What was meant: the arguments as typed become one valid [`Plan`], once, or an error that says what to
//! change. Nothing below this room parses text that a person wrote.

pub mod advice;
mod audit_log;
mod capture;
mod carrier;
mod command;
mod device;
pub mod dns;
mod domains;
mod environment;
mod error;
pub mod far_networks;
pub mod far_side;
mod host_target;
mod instance;
mod life;
pub mod mapping;
pub mod names;
pub mod netns;
mod remote;
mod resolve;
pub mod run;
mod shell;
pub mod sources;
mod spare;
mod ssh;
pub mod ssh_config;
mod ssh_option;
mod subnet;
mod tunnel;
mod whose;

use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

pub use audit_log::AuditLog;
pub use carrier::{CarrierKind, CarrierPlan, SshClient};
pub use dns::{DnsPlan, NamePool};
pub use environment::Environment;
pub use error::{PlanError, PlanWarning};
pub use far_networks::{AutoNets, FarNetworks};
pub use host_target::HostTarget;
pub use instance::InstancePlan;
pub use mapping::Mapping;
pub use resolve::resolve;
pub use run::{Publish, RunPlan, Way};
pub use shell::quoted;
pub use ssh::{
    AddressFamily, Agent, Algorithms, Dialling, HostKeyPolicy, Keepalive, Login, RekeyLimit, Route,
    SshPlan,
};
pub use subnet::Ports;
pub use tunnel::{BesidePlan, PingPlan, TunnelMode, TunnelPlan};
pub use whose::{Forwarded, Group, Whose};

/// Everything that `up` needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The server, and how to log in.
    pub ssh: SshPlan,
    /// What carries the connections.
    pub carrier: CarrierPlan,
    /// What to capture.
    pub capture: CapturePlan,
    /// Whether the networks that the server has routes for are captured, too.
    pub auto_nets: Option<AutoNets>,
    /// The device to make.
    pub device: DevicePlan,
    /// When to end.
    pub life: LifePlan,
    /// Where flows are written down, if they are.
    pub audit: Option<AuditLog>,
    /// What the run is called, and whether it goes to the background.
    pub instance: InstancePlan,
    /// Which names are asked for through the server, if any.
    pub dns: Option<DnsPlan>,
    /// How what is no TCP goes.
    pub beside: BesidePlan,
}

/// When to end by itself, and in good order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LifePlan {
    /// So long after the start.
    pub limit: Option<Span>,
    /// When no connection has been open, or asked for, for so long.
    pub idle: Option<Span>,
}

/// A time, and how it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The time.
    pub time: Duration,
    /// As typed.
    pub typed: String,
}

/// What to capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapturePlan {
    /// Networks to capture, in the order typed, duplicates removed.
    pub subnets: Vec<Subnet>,
    /// Networks never to capture, whatever `subnets` say.
    pub excludes: Vec<IpNet>,
    /// Whose packets.
    pub whose: Whose,
    /// No mapping will do: some of it goes as whole packets, with the addresses that it has (`--tunnel`).
    pub keeps_addresses: bool,
}

/// A network to capture, and which of its TCP ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The network, as it is here; host bits are zero.
    pub net: IpNet,
    /// `None`: every port and every protocol. `Some`: TCP to these ports only.
    pub ports: Option<RangeInclusive<u16>>,
    /// The network behind the server that it stands for, of the same size, where that is another one.
    pub far: Option<IpNet>,
}

impl Subnet {
    /// One host, with every port.
    pub fn host(address: std::net::IpAddr) -> Self {
        Self {
            net: address.into(),
            ports: None,
            far: None,
        }
    }
}

/// The device to make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DevicePlan {
    /// The interface's name, at most 15 bytes; `None` takes the first free `underpassN`.
    pub name: Option<String>,
    /// The MTU in bytes, 1280 to 65520; `None` leaves it to the program.
    pub mtu: Option<u16>,
    /// What it gives and takes.
    pub kind: DeviceKind,
}

/// What a device gives and takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceKind {
    /// IP packets; TCP as segments to be cut later, where the kernel can do that.
    #[default]
    Tun,
    /// IP packets as they would be on a wire, for a tunnel that carries TCP as well.
    PlainTun,
    /// Ethernet frames.
    Tap,
}
