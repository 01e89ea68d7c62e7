//! `up --dry-run`: says what would be set up, in the words of ip(8), and changes nothing.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context;

use super::exit::Exit;
use super::up::beside::wished;
use super::up::far_networks;
use crate::carrier::AnyCarrier;
use crate::carrier::prompt;
use crate::os::names::By;
use crate::os::{self, DEFAULT_MTU, Netlink, Slot, first_free_name, host, routes, source};
use crate::plan::advice::{self, HostNetworks};
use crate::plan::far_side::TunnelAddress;
use crate::plan::{CapturePlan, DeviceKind, DnsPlan, Plan, PlanError, Subnet};

/// Prints the set-up of `plan` on stdout and its warnings on stderr. `by`: how programs are brought to our name server, if they are.
pub async fn run(plan: &Plan, by: Option<By>) -> Exit {
    match commands(plan, by).await {
        Ok(text) => super::print(text.as_bytes()),
        Err(error) => {
            let exit = super::failed(&format_args!("{error:#}"));
            if error.is::<PlanError>() {
                Exit::Usage
            } else {
                exit
            }
        }
    }
}

async fn commands(plan: &Plan, by: Option<By>) -> anyhow::Result<String> {
    let netlink = Netlink::new()?;
    let slot = Slot::claim()?;
    let networks = host::networks(&netlink, slot.number())
        .await
        .context("could not read the host's networks")?;
    let from = super::surroundings::logged_in_from();
    let carrier = logged_in(plan).await?;
    let mut capture = captured(plan, &networks, carrier.as_ref()).await?;
    for line in advice::advise(&capture, &networks, from)? {
        tracing::warn!("{line}");
    }
    let own = source::find(&netlink, &slot, &capture).await?;
    let tunnel = match carrier.as_ref().zip(plan.beside.tunnel.as_ref()) {
        Some((carrier, tunnel)) => wished::shown(plan, tunnel, &networks, carrier).await?,
        None => wished::Shown::default(),
    };
    let source = source::in_tunnel(own, tunnel.address, plan.device.kind == DeviceKind::Tap);
    let far = tunnel.address.iter().flat_map(TunnelAddress::far);
    capture.subnets.extend(far.map(Subnet::host));
    let exempt = server_addresses(plan).await;
    let device = plan.device.name.clone().unwrap_or_else(first_free_name);
    let entries = routes::desired(
        &capture,
        &routes::Setting {
            device: &device,
            mtu: plan.device.mtu.unwrap_or(DEFAULT_MTU),
            tables: slot.tables(),
            source,
            exempt: &exempt,
            bridges: &os::bridges(&netlink).await?,
        },
    );
    let mut text = String::new();
    for subnet in &capture.subnets {
        if let Some(far) = subnet.far {
            writeln!(text, "# {} here is {far} behind the server", subnet.net)?;
        }
    }
    for host in plan.dns.iter().flat_map(|dns| &dns.hosts) {
        writeln!(text, "# {host} by its name")?;
    }
    if let Some((dns, by)) = plan.dns.as_ref().zip(by) {
        let server = routes::name_server(slot.number());
        writeln!(text, "# {}", names(dns, by, server, &device))?;
    }
    for entry in entries {
        writeln!(text, "{entry}")?;
    }
    for line in tunnel.lines {
        writeln!(text, "# {line}")?;
    }
    Ok(text)
}

/// How programs would be brought to our name server, and for which names that asks the far side.
fn names(dns: &DnsPlan, by: By, server: Ipv4Addr, device: &str) -> String {
    let hosts = dns.hosts.iter().map(|host| match host.is_below {
        true => format!("*.{}", host.name),
        false => host.name.clone(),
    });
    let which: Vec<String> = dns.domains.iter().cloned().chain(hosts).collect();
    let which = match dns.is_all {
        true => "all names".to_owned(),
        false => which.join(", "),
    };
    match by {
        By::Resolved => format!("systemd-resolved asks {server} for {which}, by {device}"),
        By::Program => format!(
            "resolvconf has /etc/resolv.conf name {server} until the end; for the far side: {which}"
        ),
        By::File | By::Netns | By::Process => format!(
            "/etc/resolv.conf is replaced until the end, and names {server}; for the far side: {which}"
        ),
    }
}

/// A connection, only where the server has to be asked for something.
async fn logged_in(plan: &Plan) -> anyhow::Result<Option<AnyCarrier>> {
    if plan.auto_nets.is_none() && plan.beside.tunnel.is_none() {
        return Ok(None);
    }
    let prompter = prompt::usual(plan.ssh.login.batch, |name| std::env::var_os(name));
    let carrier = AnyCarrier::connect(&plan.carrier, &plan.ssh, prompter).await?;
    Ok(Some(carrier))
}

/// What is captured.
async fn captured(
    plan: &Plan,
    here: &HostNetworks,
    carrier: Option<&AnyCarrier>,
) -> anyhow::Result<CapturePlan> {
    let Some((wanted, carrier)) = plan.auto_nets.zip(carrier) else {
        return Ok(plan.capture.clone());
    };
    let found = far_networks::find(plan, wanted, carrier, here).await?;
    Ok(found.added_to(&plan.capture))
}

/// Resolved as the real run would; a name that does not resolve only costs its `throw` routes here.
async fn server_addresses(plan: &Plan) -> Vec<IpAddr> {
    let Some(server) = plan.ssh.servers().last() else {
        return Vec::new();
    };
    if plan.ssh.dialled().is_none() {
        tracing::warn!(
            "a ProxyCommand connects to {}: other addresses that it uses are missing in the list below",
            server.host
        );
    }
    match tokio::net::lookup_host((server.host.as_str(), server.port)).await {
        Ok(addresses) => {
            let mut addresses: Vec<_> = addresses.map(|address| address.ip()).collect();
            addresses.sort_unstable();
            addresses.dedup();
            addresses
        }
        Err(error) => {
            tracing::warn!(
                "{}: {error}; its addresses are missing in the list below",
                server.host
            );
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::HostTarget;

    #[test]
    fn what_becomes_of_names_is_said() {
        let server = Ipv4Addr::new(198, 19, 255, 53);
        let mut dns = DnsPlan {
            domains: vec!["corp.internal".to_owned()],
            hosts: vec![HostTarget {
                name: "db.test".to_owned(),
                is_below: true,
                ports: None,
            }],
            ..DnsPlan::default()
        };
        let said = |dns: &DnsPlan, by| names(dns, by, server, "underpass0");
        assert_eq!(
            said(&dns, By::Resolved),
            "systemd-resolved asks 198.19.255.53 for corp.internal, *.db.test, by underpass0"
        );
        dns.is_all = true;
        assert_eq!(
            said(&dns, By::File),
            "/etc/resolv.conf is replaced until the end, and names 198.19.255.53; for the far side: all names"
        );
        assert!(said(&dns, By::Program).starts_with("resolvconf has /etc/resolv.conf name 198"));
    }
}
