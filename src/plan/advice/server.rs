//! Where a mapping meets the server's own address, which is never captured.

use std::net::IpAddr;

use ipnet::IpNet;

use super::both::both;
use super::{Advice, HostNetworks};
use crate::plan::{CapturePlan, Subnet};

impl CapturePlan {
    /// Who cannot be reached because an address of the server is left alone, and the subnet that they are in.
    pub fn hidden_by(&self, server: IpAddr) -> Option<(&Subnet, IpAddr)> {
        let server = IpNet::from(server);
        let mut subnets = self.subnets.iter().filter(|_| !self.excluded(&server));
        subnets.find_map(|subnet| Some((subnet, subnet.pair()?.far(&server)?.addr())))
    }
}

/// The warnings for the addresses of the server, which are known once it is connected to.
pub fn advise_of_server(
    capture: &CapturePlan,
    mut host: HostNetworks,
    servers: &[IpAddr],
) -> Vec<Advice> {
    host.used.extend(servers.iter().copied().map(IpNet::from));
    let hidden = servers.iter().filter_map(|address| {
        let (subnet, far) = capture.hidden_by(*address)?;
        Some(Advice::Server {
            subnet: subnet.clone(),
            address: *address,
            far,
            both: both(capture, &host, subnet, None),
        })
    });
    hidden.collect()
}
