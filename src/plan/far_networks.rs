//! `-N`: the networks that a server has routes for, out of what its kernel tells, and which of them are captured.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{CapturePlan, Subnet};

/// More of them are no network of a person's, but a router's table.
pub const MOST: usize = 1024;

/// Reject routes (include/uapi/linux/route.h, `RTF_REJECT`).
const REJECT: u32 = 0x0200;
/// The server's own addresses, and those of its networks' routers (include/uapi/linux/ipv6_route.h, `RTF_ANYCAST`, `RTF_LOCAL`).
const OWN: u32 = 0xc000_0000;

/// Which of them are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoNets {
    /// IPv6, too.
    pub ipv6: bool,
}

/// What a server's routing table adds to what was named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FarNetworks {
    /// To capture.
    pub captured: Vec<IpNet>,
    /// Left alone, as this host has a route of its own for them.
    pub own: Vec<IpNet>,
    /// How many there were beyond [`MOST`].
    pub too_many: usize,
}

impl FarNetworks {
    /// Those in `text`, which are the lines of /proc/net/route and /proc/net/ipv6_route (proc(5)), but for default routes,
    /// loopback, link-local and multicast. `own` are the destinations of this host's routes, default routes apart: as under
    /// `0.0.0.0/0`, what they lead to is left alone.
    pub fn read(text: &str, wanted: AutoNets, own: &[IpNet]) -> Self {
        let is_wanted = |net: &IpNet| wanted.ipv6 || matches!(net, IpNet::V4(_));
        let networks: Vec<IpNet> = text.lines().filter_map(network).filter(is_wanted).collect();
        let mut networks = IpNet::aggregate(&networks);
        networks.sort_unstable();
        let too_many = networks.len().saturating_sub(MOST);
        networks.truncate(MOST);
        let is_own = |net: &IpNet| own.iter().any(|own| own.contains(net));
        let (here, captured): (Vec<_>, Vec<_>) = networks.into_iter().partition(is_own);
        let inside = own
            .iter()
            .filter(|own| captured.iter().any(|net| net.contains(*own)));
        let own = here.iter().chain(inside).copied().collect();
        Self {
            captured,
            own,
            too_many,
        }
    }

    /// What is captured with them. A network that was named stays as it was named.
    pub fn added_to(&self, capture: &CapturePlan) -> CapturePlan {
        let mut all = capture.clone();
        let is_named = |net: &IpNet| {
            capture
                .subnets
                .iter()
                .any(|subnet| subnet.net.contains(net))
        };
        let new = self.captured.iter().filter(|net| !is_named(net));
        all.subnets.extend(new.map(|net| Subnet {
            net: *net,
            ports: None,
            far: None,
        }));
        let new = self.own.iter().filter(|net| !is_named(net));
        all.excludes.extend(new);
        all
    }
}

/// The destination of one line, if it is one to reach.
fn network(line: &str) -> Option<IpNet> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    match fields[..] {
        [destination, length, _, _, _, _, _, _, flags, device] if destination.len() == 32 => {
            v6(destination, length, flags, device)
        }
        [device, destination, _, flags, _, _, _, mask, _, _, _] => {
            v4(device, destination, flags, mask)
        }
        _ => None,
    }
}

/// Both words as an x86 or ARM machine prints what it keeps in network order.
fn v4(device: &str, destination: &str, flags: &str, mask: &str) -> Option<IpNet> {
    let address = |word: &str| {
        let number = u32::from_str_radix(word, 16)
            .ok()
            .filter(|_| word.len() == 8)?;
        Some(Ipv4Addr::from(number.to_le_bytes()))
    };
    let net = Ipv4Net::with_netmask(address(destination)?, address(mask)?).ok()?;
    let first = net.network();
    let is_special = first.is_loopback() || first.is_link_local() || first.is_multicast();
    is_far(net.into(), flags, REJECT, device, is_special)
}

fn v6(destination: &str, length: &str, flags: &str, device: &str) -> Option<IpNet> {
    let address = Ipv6Addr::from(u128::from_str_radix(destination, 16).ok()?);
    let net = Ipv6Net::new(address, u8::from_str_radix(length, 16).ok()?).ok()?;
    let is_special =
        address.is_loopback() || address.is_unicast_link_local() || address.is_multicast();
    is_far(net.into(), flags, REJECT | OWN, device, is_special)
}

fn is_far(net: IpNet, flags: &str, unwanted: u32, device: &str, is_special: bool) -> Option<IpNet> {
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let is_far = net.prefix_len() > 0 && !is_special && device != "lo" && flags & unwanted == 0;
    is_far.then(|| net.trunc())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: AutoNets = AutoNets { ipv6: true };
    const TABLE: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0001000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth0\t0000000A\t020200C0\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t0000FEA9\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth1\t004DA8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
*\t0000100A\t00000000\t0200\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t0502000A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
eth0\t0002000A\t00000000\t0001\t0\t0\t0\tFF00FFFF\t0\t0\t0
fd000000000000010000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
fd000000000000010000000000000002 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000003 00000000 80200001     eth0
00000000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000003 00000000 80200001       lo
ff000000000000000000000000000000 08 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000003 00000000 00000001     eth0
";

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn networks_that_somebody_would_go_to() {
        let found = FarNetworks::read(TABLE, ALL, &[]);
        assert_eq!(
            found.captured,
            nets(&["10.0.0.0/16", "192.168.77.0/24", "fd00:0:0:1::/64"])
        );
        assert_eq!(found.own, []);
        let found = FarNetworks::read(TABLE, AutoNets { ipv6: false }, &[]);
        assert_eq!(found.captured, nets(&["10.0.0.0/16", "192.168.77.0/24"]));
    }

    #[test]
    fn what_this_host_has_itself_is_left_alone() {
        let own = nets(&["192.168.0.0/16", "10.0.9.0/24", "172.17.0.0/16"]);
        let found = FarNetworks::read(TABLE, ALL, &own);
        assert_eq!(found.captured, nets(&["10.0.0.0/16", "fd00:0:0:1::/64"]));
        assert_eq!(found.own, nets(&["192.168.77.0/24", "10.0.9.0/24"]));
    }

    #[test]
    fn what_was_named_stays_so() {
        let named = |net: &str| Subnet {
            net: net.parse().unwrap(),
            ports: Some(22..=22),
            far: None,
        };
        let capture = CapturePlan {
            subnets: vec![named("10.0.0.0/8"), named("192.168.77.0/24")],
            ..CapturePlan::default()
        };
        let own = nets(&["192.168.77.0/24"]);
        let all = FarNetworks::read(TABLE, ALL, &own).added_to(&capture);
        let shown: Vec<String> = all.subnets.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["10.0.0.0/8:22", "192.168.77.0/24:22", "fd00:0:0:1::/64"]
        );
        assert_eq!(all.excludes, []);
    }

    #[test]
    fn a_routers_table_is_cut() {
        let line = |n: usize| {
            format!(
                "e\t00{:02X}{:02X}0A\t0\t1\t0\t0\t0\t00FFFFFF\t0\t0\t0\n",
                n % 128 * 2,
                n / 128
            )
        };
        let found = FarNetworks::read(&(0..MOST + 5).map(line).collect::<String>(), ALL, &[]);
        assert_eq!((found.captured.len(), found.too_many), (MOST, 5));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(([0-9a-fA-F]{0,33}|lo|eth0)[\t ]){0,12}\\PC{0,20}") {
            let found = FarNetworks::read(&text, ALL, &[]);
            prop_assert!(found.captured.iter().all(|net| net.prefix_len() > 0));
        }
    }
}
