//! What is in a command's network, as a value.

use std::fs;
use std::net::Ipv4Addr;

use nix::net::if_::if_nametoindex;

use crate::os::host;
use crate::os::namespace::{PrivateFile, Setting, reaches_ipv6};
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
        routes: plan.routes(source.v6.is_some(), reaches_ipv6()),
        files,
        sockets: !plan.publish.is_empty(),
        owners: plan.plan.audit.is_some(),
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
