//! `FAR=LOCAL`: a network behind the server is shown as another one here, address by address.
//!
//! Plain values: who asks for an address is told whom it stands for, and the other way round. Nothing here meets a packet.

use std::cmp::Reverse;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{CapturePlan, Subnet};

/// Two networks of one size. An address of the one stands for that of the other which has the same host bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    local: IpNet,
    far: IpNet,
}

impl Pair {
    /// `None` where they differ in size or IP version.
    pub fn new(far: IpNet, local: IpNet) -> Option<Self> {
        let is_one_size = far.max_prefix_len() == local.max_prefix_len()
            && far.prefix_len() == local.prefix_len();
        is_one_size.then(|| Self {
            local: local.trunc(),
            far: far.trunc(),
        })
    }

    /// What `net`, an address or a network of the local one, stands for. `None` where it is not in that.
    pub fn far(&self, net: &IpNet) -> Option<IpNet> {
        moved(net, &self.local, &self.far)
    }

    /// What stands for `net`, an address or a network of the far one. `None` where it is not in that.
    pub fn local(&self, net: &IpNet) -> Option<IpNet> {
        moved(net, &self.far, &self.local)
    }
}

fn moved(net: &IpNet, from: &IpNet, to: &IpNet) -> Option<IpNet> {
    if !from.contains(net) {
        return None;
    }
    match (net, to) {
        (IpNet::V4(net), IpNet::V4(to)) => {
            let host = net.addr().to_bits() & to.hostmask().to_bits();
            let address = Ipv4Addr::from_bits(to.network().to_bits() | host);
            Ipv4Net::new(address, net.prefix_len()).ok().map(IpNet::V4)
        }
        (IpNet::V6(net), IpNet::V6(to)) => {
            let host = net.addr().to_bits() & to.hostmask().to_bits();
            let address = Ipv6Addr::from_bits(to.network().to_bits() | host);
            Ipv6Net::new(address, net.prefix_len()).ok().map(IpNet::V6)
        }
        _ => None,
    }
}

impl Subnet {
    /// Its two networks, where it stands for another one.
    pub fn pair(&self) -> Option<Pair> {
        Pair::new(self.far?, self.net)
    }

    /// What `net`, an address or a network of it, is behind the server.
    pub(super) fn meaning(&self, net: &IpNet) -> Option<IpNet> {
        match self.pair() {
            Some(pair) => pair.far(net),
            None => self.net.contains(net).then_some(*net),
        }
    }
}

/// All pairs of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// By their local networks, none of which is in another.
    pairs: Vec<Pair>,
}

impl Mapping {
    /// Of what `capture` captures.
    pub fn new(capture: &CapturePlan) -> Self {
        Self::of(capture.subnets.iter().filter_map(Subnet::pair))
    }

    /// The same, where `before` was captured until now: an address that only that one captured keeps its meaning, for
    /// packets to it may be on their way still.
    pub fn after(before: &CapturePlan, capture: &CapturePlan) -> Self {
        let is_new = |pair: &Pair| {
            let mut narrower = capture.subnets.iter().filter(|net| !net.is_default());
            narrower.any(|subnet| meet(&subnet.net, &pair.local))
        };
        let kept = before.subnets.iter().filter_map(Subnet::pair);
        let kept = kept.filter(|pair| !is_new(pair));
        Self::of(capture.subnets.iter().filter_map(Subnet::pair).chain(kept))
    }

    fn of(pairs: impl Iterator<Item = Pair>) -> Self {
        let mut pairs: Vec<Pair> = pairs.collect();
        pairs.sort_unstable();
        // One within another means the same as that: see `conflict`.
        pairs.dedup_by(|inner, outer| outer.local.contains(&inner.local));
        Self { pairs }
    }

    /// What `net`, an address or a network that is shown here, stands for. `None` where it stands for itself.
    pub fn far(&self, net: &IpNet) -> Option<IpNet> {
        let behind = self
            .pairs
            .partition_point(|pair| pair.local.network() <= net.addr());
        self.pairs.get(behind.checked_sub(1)?)?.far(net)
    }

    /// What `net`, an address or a network behind the server, is shown as here. `None` where it is not, but under its own
    /// address. Where it is shown several times, that of the narrowest pair counts.
    pub fn local(&self, net: &IpNet) -> Option<IpNet> {
        let showing = self.pairs.iter().filter(|pair| pair.far.contains(net));
        let narrowest = showing.min_by_key(|pair| Reverse(pair.far.prefix_len()));
        narrowest?.local(net)
    }
}

/// Whether two networks have an address in common.
pub(super) fn meet(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Two subnets by which an address would stand for two hosts, the wider one first. A default means what no narrower subnet
/// says.
pub(super) fn conflict(subnets: &[Subnet]) -> Option<(&Subnet, &Subnet)> {
    let mut sorted: Vec<&Subnet> = subnets.iter().filter(|net| !net.is_default()).collect();
    sorted.sort_by_key(|subnet| subnet.net);
    // Each within the one before it.
    let mut around: Vec<&Subnet> = Vec::new();
    for subnet in sorted {
        while around
            .pop_if(|one| !one.net.contains(&subnet.net))
            .is_some()
        {}
        if let Some(outer) = around.last()
            && outer.meaning(&subnet.net) != subnet.meaning(&subnet.net)
        {
            return Some((outer, subnet));
        }
        around.push(subnet);
    }
    None
}

#[cfg(test)]
mod tests;
