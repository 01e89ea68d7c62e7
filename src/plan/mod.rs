//! What was meant: the arguments as typed become one valid [`Plan`], once, or an error that says what to
//! change. Nothing below this room parses text that a person wrote.

pub mod advice;
mod environment;
mod error;
mod remote;
mod resolve;
mod ssh_option;
mod subnet;

use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::IpNet;

pub use environment::Environment;
pub use error::{PlanError, PlanWarning};
pub use resolve::resolve;

/// Everything that `up` needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The server, and how to log in.
    pub ssh: SshPlan,
    /// What to capture.
    pub capture: CapturePlan,
    /// The device to make.
    pub device: DevicePlan,
}

/// The server, and how to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshPlan {
    /// Host name or address, as typed.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Login name on the server.
    pub user: String,
    /// Key files to try, in order: those named by the user, else the usual ones that exist (as ssh does).
    pub identities: Vec<PathBuf>,
    /// Whether a new host key may be taken.
    pub host_keys: HostKeyPolicy,
    /// Files of known host keys; new keys are written to the first.
    pub known_hosts: Vec<PathBuf>,
}

/// `StrictHostKeyChecking` of ssh_config(5). A changed key is refused by all of them but [`Self::No`],
/// which never refuses, as in ssh, and says so in a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKeyPolicy {
    /// `ask`: a new key is shown and asked for on the terminal; without one it is refused.
    Ask,
    /// `accept-new`: a new key is taken and written down.
    AcceptNew,
    /// `yes`: a new key is refused.
    Yes,
    /// `no`: a new key is taken and written down.
    No,
}

/// What to capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturePlan {
    /// Networks to capture, in the order typed, duplicates removed.
    pub subnets: Vec<Subnet>,
    /// Networks never to capture, whatever `subnets` say.
    pub excludes: Vec<IpNet>,
}

/// A network to capture, and which of its TCP ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The network; host bits are zero.
    pub net: IpNet,
    /// `None`: every port and every protocol. `Some`: TCP to these ports only.
    pub ports: Option<RangeInclusive<u16>>,
}

/// The device to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePlan {
    /// The interface's name, at most 15 bytes; `None` takes the first free `underpassN`.
    pub name: Option<String>,
    /// The MTU in bytes, 1280 to 65520; `None` leaves it to the program.
    pub mtu: Option<u16>,
}
