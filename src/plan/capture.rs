//! What to capture: the networks as typed become values.

use std::fmt::Display;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::mapping::{conflict, meet};
use super::spare::spare;
use super::subnet::{self, Parsed};
use super::{
    CapturePlan, Environment, Mapping, PlanError, PlanWarning, Subnet, dns, host_target, whose,
};
use crate::cli::UpArgs;

/// What to capture.
pub(super) fn plan(
    args: &UpArgs,
    environment: &Environment,
    warnings: &mut Vec<PlanWarning>,
) -> Result<CapturePlan, PlanError> {
    let mut subnets = subnets(&args.subnets, warnings)?;
    let targets: Vec<IpNet> = subnets.iter().map(|subnet| subnet.net).collect();
    subnets.extend(for_names(args)?);
    if subnets.is_empty() && !args.auto_nets {
        return Err(PlanError::NoSubnets);
    }
    let excludes = excludes(&args.excludes, warnings)?;
    dns::check_place(args, &targets, &excludes)?;
    if args.disable_ipv6 {
        without_v6(&mut subnets, warnings);
        if subnets.is_empty() && !args.auto_nets {
            return Err(PlanError::OnlyIpv6);
        }
    }
    warnings.extend(only_ports(args, &subnets));
    let plan = CapturePlan {
        subnets,
        excludes,
        whose: whose::plan(args, environment)?,
        keeps_addresses: args.tunnel.tunnel.is_some(),
    };
    if let Some((wider, narrower)) = conflict(&plan.subnets) {
        return Err(two_meanings(&plan, wider, narrower));
    }
    warnings.extend(excludes_far(&plan));
    let is_any_left = plan
        .subnets
        .iter()
        .any(|subnet| !plan.excluded(&subnet.net));
    if !is_any_left && !args.auto_nets {
        return Err(PlanError::NothingLeft);
    }
    Ok(plan)
}

impl CapturePlan {
    /// Whether it is one that [`super::resolve()`] may give, for a plan that comes from elsewhere.
    ///
    /// # Errors
    /// The first network that makes no sense.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.subnets.is_empty() {
            return Err(PlanError::NoSubnets);
        }
        self.whose.check()?;
        for subnet in &self.subnets {
            check_routable(subnet.net)?;
            let has_ports = |ports: &RangeInclusive<u16>| *ports.start() > 0 && !ports.is_empty();
            if subnet.net != subnet.net.trunc() || !subnet.ports.as_ref().is_none_or(has_ports) {
                return Err(PlanError::BadSubnet {
                    text: subnet.to_string(),
                    reason: "bits of the host are set, or there is no such range of ports",
                });
            }
        }
        match self.excludes.iter().find(|net| **net != net.trunc()) {
            Some(net) => Err(PlanError::BadExclude {
                text: net.to_string(),
                reason: "bits of the host are set",
            }),
            None => Ok(()),
        }
    }
}

fn subnets(typed: &[String], warnings: &mut Vec<PlanWarning>) -> Result<Vec<Subnet>, PlanError> {
    let mut subnets: Vec<Subnet> = Vec::new();
    let networks = typed
        .iter()
        .filter(|text| host_target::parse(text).is_none());
    for text in networks {
        let parsed = read_subnet(text)?;
        note_masked(text, &parsed.subnet, parsed.masked, warnings);
        if !subnets.contains(&parsed.subnet) {
            warnings.extend(last_port(&parsed.subnet));
            subnets.push(parsed.subnet);
        }
    }
    Ok(subnets)
}

/// What stands for names is captured as any network is.
fn for_names(args: &UpArgs) -> Result<impl Iterator<Item = Subnet>, PlanError> {
    let nets = dns::pool(args)?.into_iter().flat_map(|pool| pool.nets());
    Ok(nets.map(|net| Subnet {
        net,
        ports: None,
        far: None,
    }))
}

fn excludes(typed: &[String], warnings: &mut Vec<PlanWarning>) -> Result<Vec<IpNet>, PlanError> {
    let mut excludes = Vec::new();
    for text in typed {
        let (net, masked) = read_exclude(text)?;
        note_masked(text, &net, masked, warnings);
        if !excludes.contains(&net) {
            excludes.push(net);
        }
    }
    Ok(excludes)
}

/// As sshuttle's `--disable-ipv6`.
fn without_v6(subnets: &mut Vec<Subnet>, warnings: &mut Vec<PlanWarning>) {
    let left_out = |subnet: &Subnet| matches!(subnet.net, IpNet::V6(_));
    let nets = subnets.iter().filter(|subnet| left_out(subnet));
    warnings.extend(nets.map(|subnet| PlanWarning::Ipv6LeftOut { net: subnet.net }));
    subnets.retain(|subnet| !left_out(subnet));
}

fn read_subnet(text: &str) -> Result<Parsed, PlanError> {
    let parsed = match text.split_once('=') {
        Some((far, local)) => {
            subnet::parse_mapped(far, local).map_err(|mistake| PlanError::BadMapping {
                text: text.to_owned(),
                reason: mistake.reason,
                write: mistake.write,
            })?
        }
        None => subnet::parse(text).map_err(|reason| PlanError::BadSubnet {
            text: text.to_owned(),
            reason: match host_target::has_width(text) {
                true => "a host by its name has no width: leave that out",
                false => reason,
            },
        })?,
    };
    check_routable(parsed.subnet.net)?;
    Ok(parsed)
}

fn read_exclude(text: &str) -> Result<(IpNet, bool), PlanError> {
    let read = match text.contains('=') {
        true => Err("an exclusion is one network, by its addresses here"),
        false if host_target::parse(text).is_some() || host_target::has_width(text) => Err(
            "hosts are excluded by their addresses, not by name (getent ahosts NAME shows them)",
        ),
        false => subnet::parse_network(text),
    };
    read.map_err(|reason| PlanError::BadExclude {
        text: text.to_owned(),
        reason,
    })
}

fn two_meanings(plan: &CapturePlan, wider: &Subnet, narrower: &Subnet) -> PlanError {
    let advice = match [narrower, wider].map(|subnet| (subnet, elsewhere(plan, subnet))) {
        [(old, Some(new)), _] | [_, (old, Some(new))] => format!("write {new} instead of {old}"),
        _ => "map one of them to another network".to_owned(),
    };
    PlanError::TwoMeanings {
        wider: wider.to_string(),
        narrower: narrower.to_string(),
        advice,
    }
}

/// The same network, mapped to where no other subnet is.
fn elsewhere(plan: &CapturePlan, subnet: &Subnet) -> Option<Subnet> {
    let narrower = plan.subnets.iter().filter(|other| !other.is_default());
    let taken: Vec<IpNet> = narrower.map(|other| other.net).collect();
    Some(Subnet {
        net: spare(&subnet.far?, &taken)?,
        ..subnet.clone()
    })
}

/// Rules with ports are of TCP alone.
fn only_ports(args: &UpArgs, subnets: &[Subnet]) -> Option<PlanWarning> {
    let asked = [
        (args.tunnel.tunnel.is_some(), "--tunnel"),
        (args.tunnel.udp, "--udp"),
        (args.tunnel.ping.is_some(), "--ping"),
    ];
    let asked = asked.into_iter().filter(|(is_asked, _)| *is_asked);
    let options: Vec<&str> = asked.map(|(_, option)| option).collect();
    let first = subnets.first()?;
    let is_all = !args.auto_nets && subnets.iter().all(|subnet| subnet.ports.is_some());
    (is_all && !options.is_empty()).then(|| PlanWarning::OnlyPorts {
        options: options.join(" and "),
        subnet: first.to_string(),
    })
}

/// Exclusions are by the addresses here; of those behind the server somebody may think as well.
fn excludes_far(plan: &CapturePlan) -> Vec<PlanWarning> {
    let mapping = Mapping::new(plan);
    let is_in_vain = |exclude: &&IpNet| {
        let mut subnets = plan.subnets.iter();
        !subnets.any(|subnet| meet(&subnet.net, exclude))
    };
    let in_vain = plan.excludes.iter().filter(is_in_vain);
    let far = in_vain.filter_map(|exclude| {
        Some(PlanWarning::ExcludesFar {
            exclude: *exclude,
            local: mapping.local(exclude)?,
        })
    });
    far.collect()
}

/// Whether a text is a subnet.
pub(super) fn check_subnet(text: &str) -> Result<(), PlanError> {
    read_subnet(text).map(drop)
}

/// Whether a text is a subnet or a host's name.
pub(super) fn check_target(text: &str) -> Result<(), PlanError> {
    host_target::parse(text).map_or_else(|| check_subnet(text), |read| read.map(drop))
}

/// Whether a text is an exclusion.
pub(super) fn check_exclude(text: &str) -> Result<(), PlanError> {
    read_exclude(text).map(drop)
}

fn check_routable(net: IpNet) -> Result<(), PlanError> {
    let what = if subnet::is_loopback(&net) {
        "loopback"
    } else if subnet::is_multicast(&net) {
        "multicast"
    } else {
        return Ok(());
    };
    Err(PlanError::NotRoutable { net, what })
}

fn note_masked(text: &str, meant: &impl Display, masked: bool, warnings: &mut Vec<PlanWarning>) {
    if masked {
        warnings.push(PlanWarning::Masked {
            text: text.to_owned(),
            meant: meant.to_string(),
        });
    }
}

/// `1-65535` needs no port selector at all; any other range that ends there loses its last port.
fn last_port(subnet: &Subnet) -> Option<PlanWarning> {
    let ports = subnet.ports.as_ref()?;
    (*ports.end() == u16::MAX && *ports.start() > 1)
        .then_some(PlanWarning::LastPort { net: subnet.net })
}
