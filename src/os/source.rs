//! What our device is called, and which addresses it has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::netlink::address;
use super::routes::Source;
use super::{Netlink, NetlinkError, Slot};
use crate::plan::CapturePlan;
use crate::plan::far_side::TunnelAddress;

/// Names of devices that we made begin with this.
pub const DEVICE_PREFIX: &str = "underpass";
/// Absent when the kernel has no IPv6; otherwise whether new devices get none.
const IPV6_DISABLED: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
/// The prefix of our IPv6 addresses: unique local, "underpa" in its bits (RFC 4193).
const SOURCE_V6: [u16; 4] = [0xfd75, 0x6e64, 0x6572, 0x7061];

/// Whether a new device gets IPv6.
pub fn has_ipv6() -> bool {
    std::fs::read_to_string(IPV6_DISABLED).is_ok_and(|text| text.trim() == "0")
}

/// Addresses for our device that the host does not use and, where possible, no subnet takes.
///
/// # Errors
/// When the kernel refuses to list.
pub async fn find(
    netlink: &Netlink,
    slot: &Slot,
    capture: &CapturePlan,
) -> Result<Source, NetlinkError> {
    let used: Vec<IpAddr> = netlink
        .addresses()
        .await?
        .iter()
        .filter_map(address)
        .collect();
    Ok(choose(slot.number(), &used, capture, has_ipv6()))
}

/// The same where the device may be that of a tunnel, which has its addresses there, in place of those of `source`. Where it `is_ethernet`
/// the far end takes the packets.
pub fn in_tunnel(source: Source, ends: Option<TunnelAddress>, is_ethernet: bool) -> Source {
    let Some(ends) = ends else {
        return source;
    };
    let far = [
        Some(ends.v4.far.into()),
        ends.v6.map(|ends| ends.far.into()),
    ];
    let v6 = ends
        .v6
        .map(|ends| ends.ours)
        .filter(|_| source.v6.is_some());
    Source {
        v4: ends.v4.ours,
        v6: v6.or(source.v6),
        neighbour: far.map(|far| far.filter(|_| is_ethernet)),
    }
}

/// The same, where `used` are the host's own addresses and `slot` is the instance's number.
pub fn choose(slot: u32, used: &[IpAddr], capture: &CapturePlan, ipv6: bool) -> Source {
    let number = u8::try_from(slot).unwrap_or_default().saturating_add(1);
    let v4 = (18..=19).flat_map(|b| (0..=255).map(move |c| Ipv4Addr::new(198, b, c, number)));
    let [a, b, c, d] = SOURCE_V6;
    let v6 = (0..=255).map(|e| Ipv6Addr::new(a, b, c, d, e, 0, 0, number.into()));
    Source {
        v4: first_free(v4, used, capture).unwrap_or(Ipv4Addr::new(198, 18, 0, number)),
        v6: first_free(v6, used, capture).filter(|_| ipv6),
        neighbour: [None; 2],
    }
}

/// The first candidate that is free; a subnet of the plan is only a reason to look further.
fn first_free<A: Into<IpAddr> + Copy>(
    candidates: impl Iterator<Item = A> + Clone,
    used: &[IpAddr],
    capture: &CapturePlan,
) -> Option<A> {
    let mut free = candidates.filter(|address| !used.contains(&(*address).into()));
    let taken = |address: IpAddr| {
        capture
            .subnets
            .iter()
            .any(|subnet| subnet.net.contains(&address))
    };
    let first = free.clone().next();
    free.find(|address| !taken((*address).into())).or(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Subnet;

    fn of(net: &str) -> CapturePlan {
        let net = net.parse().unwrap();
        CapturePlan {
            subnets: vec![Subnet {
                net,
                ports: None,
                far: None,
            }],
            ..CapturePlan::default()
        }
    }

    #[test]
    fn a_source_is_free_and_outside_the_subnets() {
        let capture = of("198.18.0.0/24");
        let used = ["198.18.1.1".parse().unwrap()];
        let source = choose(0, &used, &capture, true);
        assert_eq!(source.v4.to_string(), "198.18.2.1");
        assert_eq!(source.v6.unwrap().to_string(), "fd75:6e64:6572:7061::1");
        assert_eq!(choose(3, &[], &capture, false).v6, None);
    }

    #[test]
    fn under_a_default_the_first_free_one_is_taken() {
        let capture = of("0.0.0.0/0");
        assert_eq!(choose(1, &[], &capture, true).v4.to_string(), "198.18.0.2");
    }
}
