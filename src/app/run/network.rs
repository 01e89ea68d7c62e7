//! What is in a command's network, as a value.

use std::fs;
use std::net::Ipv4Addr;

use ipnet::IpNet;
use nix::net::if_::if_nametoindex;

use crate::os::host;
use crate::os::namespace::{PrivateFile, Setting, everything, reaches_ipv6};
use crate::os::routes::Source;
use crate::plan::names::{self, StandIn};
use crate::plan::{RunPlan, Way};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const NSSWITCH_CONF: &str = "/etc/nsswitch.conf";
/// The last byte of the first name server's address inside.
const FIRST_SERVER: u8 = 53;

/// What is to be made, and who stands for whom in it.
pub(super) struct Network {
    pub(super) setting: Setting,
    pub(super) stand_ins: Vec<StandIn>,
}

/// The network of `plan` on this host.
pub(super) fn of(plan: &RunPlan) -> Network {
    let source = host::choose_source(0, &[], &plan.plan.capture, host::has_ipv6());
    let (resolv_conf, stand_ins) = resolv_conf(plan, source.v4);
    let mut files = vec![PrivateFile {
        path: RESOLV_CONF,
        text: resolv_conf,
    }];
    // Services of the host that look names up for others would leave the private network.
    if (plan.isolate || plan.all)
        && let Ok(text) = fs::read_to_string(NSSWITCH_CONF)
    {
        files.push(PrivateFile {
            path: NSSWITCH_CONF,
            text: names::nsswitch_conf(&text),
        });
    }
    let setting = Setting {
        device: plan.plan.device.clone(),
        source,
        routes: routes(plan, source, reaches_ipv6()),
        files,
        sockets: !plan.publish.is_empty(),
    };
    Network { setting, stand_ins }
}

fn resolv_conf(plan: &RunPlan, source: Ipv4Addr) -> (String, Vec<StandIn>) {
    let text = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    let [a, b, c, _] = source.octets();
    let stand_in = |number| {
        let host = FIRST_SERVER.saturating_add(number);
        (!plan.isolate).then(|| Ipv4Addr::new(a, b, c, host))
    };
    let is_reached = |server| plan.way(server) != Way::Nowhere;
    let scope = |name: &str| if_nametoindex(name).ok();
    names::resolv_conf(&text, stand_in, is_reached, scope)
}

/// What leads to the device. Where the rest is reached as from this host that is everything; IPv6 only where the host
/// has it, for applications take a route for a promise.
fn routes(plan: &RunPlan, source: Source, host_has_v6: bool) -> Vec<IpNet> {
    let subnets = plan.plan.capture.subnets.iter().map(|subnet| subnet.net);
    let mut routes: Vec<IpNet> = subnets
        .filter(|net| source.v6.is_some() || matches!(net, IpNet::V4(_)))
        .collect();
    if !plan.isolate {
        routes.push(everything(false));
        routes.extend((host_has_v6 && source.v6.is_some()).then(|| everything(true)));
    }
    routes.sort_unstable();
    routes.dedup();
    routes
}
