//! Where a subnet meets what is here already: a mapping under which both are reached.

use std::fmt;

use ipnet::IpNet;

use super::HostNetworks;
use crate::plan::spare::{POOLS, spare};
use crate::plan::{CapturePlan, Subnet};

/// What to write to reach both, as the end of a sentence that says what else can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Both {
    /// This one instead.
    Instead {
        /// What to write.
        write: Subnet,
        /// The subnet as it is.
        of: Subnet,
    },
    /// This one for a part of the subnet, once the part itself is left out.
    Beside(Subnet),
    /// There is no room, or no need.
    No,
}

impl fmt::Display for Both {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instead { write, of } => {
                write!(f, ", or {write} instead of {of} to reach both")
            }
            Self::Beside(subnet) => write!(f, ", and with that {subnet} to reach both"),
            Self::No => Ok(()),
        }
    }
}

/// For a subnet that meets what is here. All of it is mapped; where so large a network is nowhere free, that `part` of it
/// which can be left out. A default makes way by itself, and a tunnel takes no mapping.
pub(super) fn both(
    capture: &CapturePlan,
    host: &HostNetworks,
    subnet: &Subnet,
    part: Option<&IpNet>,
) -> Both {
    if subnet.is_default() || capture.keeps_addresses {
        return Both::No;
    }
    let taken = taken(capture, host);
    let shown = |net: &IpNet| {
        let far = subnet.meaning(net)?;
        let net = spare(&far, &taken)?;
        Some(Subnet {
            net,
            far: Some(far),
            ports: subnet.ports.clone(),
        })
    };
    let whole = shown(&subnet.net).map(|write| Both::Instead {
        write,
        of: subnet.clone(),
    });
    whole
        .or_else(|| shown(part?).map(Both::Beside))
        .unwrap_or(Both::No)
}

/// What is in use here, or shall be.
fn taken(capture: &CapturePlan, host: &HostNetworks) -> Vec<IpNet> {
    let addresses = host
        .interfaces
        .iter()
        .flat_map(|interface| &interface.addresses);
    let captured = capture.subnets.iter().map(|subnet| subnet.net);
    let others = host.others.iter().map(|other| other.subnet.net);
    let gateways = host.gateways.iter().map(|hop| hop.address.into());
    // Whoever gave this host an address out of a pool (a provider, Tailscale) may give others the rest of it.
    let pools = POOLS.into_iter().filter(|pool| {
        let mut addresses = addresses.clone();
        addresses.any(|net| pool.contains(&net.addr()))
    });
    let all = captured
        .chain(others)
        .chain(gateways)
        .chain(pools)
        .chain(addresses.clone().map(IpNet::trunc))
        .chain(capture.excludes.iter().copied())
        .chain(host.used.iter().copied());
    all.filter(|net| net.prefix_len() > 0).collect()
}
