//! What is in a command's network, as a value.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::net::if_::if_nametoindex;

use crate::os::namespace::{PrivateFile, Setting, reaches_ipv6};
use crate::os::source;
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
    /// Our own name server's, where names are looked up through the server.
    pub(super) name_server: Option<NameServer>,
}

/// A name server of ours in a command's network.
pub(super) struct NameServer {
    /// Its address there: one that the network's own address stands beside, and that no host has.
    pub(super) address: IpAddr,
    /// Who the command is there.
    pub(super) client: IpAddr,
    /// Who is asked, from this host, for names that the far side is not asked for.
    pub(super) near: Vec<SocketAddr>,
}

/// The network of `plan` on this host.
pub(super) fn of(plan: &RunPlan) -> Network {
    let source = source::choose(0, &[], &plan.plan.capture, source::has_ipv6());
    let text = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    let mut routes = plan.routes(source.v6.is_some(), reaches_ipv6());
    let mut stand_ins = Vec::new();
    let mut name_server = None;
    let resolv_conf = if plan.plan.dns.is_some() {
        let address = beside(source.v4, 0);
        routes.push(IpAddr::from(address).into());
        name_server = Some(NameServer {
            address: address.into(),
            client: source.v4.into(),
            near: near(plan, &text),
        });
        names::resolv_conf_for(&text, address)
    } else {
        let (text, found) = resolv_conf(plan, &text, source.v4);
        stand_ins = found;
        text
    };
    let mut files = vec![PrivateFile {
        path: RESOLV_CONF,
        text: resolv_conf,
    }];
    // Services of the host that look names up for others would leave the private network.
    if (plan.isolate || plan.all || name_server.is_some())
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
        routes,
        files,
        sockets: !plan.publish.is_empty(),
        owners: plan.plan.audit.is_some(),
    };
    Network {
        setting,
        stand_ins,
        name_server,
    }
}

fn resolv_conf(plan: &RunPlan, text: &str, source: Ipv4Addr) -> (String, Vec<StandIn>) {
    let stand_in = |number| (!plan.isolate).then(|| beside(source, number));
    let is_reached = |server| plan.way(server) != Way::Nowhere;
    names::resolv_conf(text, stand_in, is_reached, scope)
}

/// The name servers that this host has had all along.
fn near(plan: &RunPlan, text: &str) -> Vec<SocketAddr> {
    match plan.isolate {
        true => Vec::new(),
        false => names::servers(text, scope),
    }
}

/// The address of the n-th name server in a network with this address.
fn beside(source: Ipv4Addr, number: u8) -> Ipv4Addr {
    let [a, b, c, _] = source.octets();
    Ipv4Addr::new(a, b, c, FIRST_SERVER.saturating_add(number))
}

fn scope(name: &str) -> Option<u32> {
    if_nametoindex(name).ok()
}
