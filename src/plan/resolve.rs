//! From the arguments as typed to the plan as meant.

use std::path::PathBuf;

use ipnet::IpNet;

use super::ssh_option::{self, SshOption};
use super::{
    CapturePlan, DevicePlan, Environment, HostKeyPolicy, Plan, PlanError, PlanWarning, SshPlan,
    Subnet, remote, subnet,
};
use crate::cli::UpArgs;

/// ssh's port (RFC 4253 section 4.1).
const SSH_PORT: u16 = 22;
/// ssh's usual key files, in its order (ssh_config(5), IdentityFile).
const KEY_FILES: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];
/// Known hosts of the whole machine (ssh_config(5), GlobalKnownHostsFile).
const GLOBAL_KNOWN_HOSTS: &str = "/etc/ssh/ssh_known_hosts";
/// IPv6 asks for 1280 bytes (RFC 8200 section 5); the kernel's TUN takes 65535, less room for headers.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 1280..=65520;
/// IFNAMSIZ less the final zero (linux/if.h).
const NAME_BYTES: usize = 15;

/// Makes the plan of `up`.
///
/// # Errors
/// The first argument that makes no sense, with what to change.
pub fn resolve(
    args: &UpArgs,
    environment: &Environment,
) -> Result<(Plan, Vec<PlanWarning>), PlanError> {
    let mut warnings = Vec::new();
    let plan = Plan {
        ssh: ssh(args, environment, &mut warnings)?,
        capture: capture(args, &mut warnings)?,
        device: device(args)?,
    };
    Ok((plan, warnings))
}

fn ssh(
    args: &UpArgs,
    environment: &Environment,
    warnings: &mut Vec<PlanWarning>,
) -> Result<SshPlan, PlanError> {
    let typed = args.remote.as_deref().ok_or(PlanError::NoRemote)?;
    let remote = remote::parse(typed)?;
    let (host_keys, known_hosts) = options(args, environment)?;
    Ok(SshPlan {
        host: remote.host,
        port: port(remote.port, args.port)?,
        user: remote
            .user
            .or_else(|| environment.user.clone())
            .ok_or(PlanError::NoUser)?,
        identities: identities(args, environment, warnings),
        host_keys,
        known_hosts,
    })
}

fn port(remote: Option<u16>, option: Option<u16>) -> Result<u16, PlanError> {
    match (remote, option) {
        (Some(remote), Some(option)) if remote != option => {
            Err(PlanError::PortTwice { remote, option })
        }
        (remote, option) => Ok(remote.or(option).unwrap_or(SSH_PORT)),
    }
}

fn identities(
    args: &UpArgs,
    environment: &Environment,
    warnings: &mut Vec<PlanWarning>,
) -> Vec<PathBuf> {
    if args.identities.is_empty() {
        let usual = KEY_FILES
            .iter()
            .filter_map(|name| environment.dot_ssh(name));
        return usual.filter(|path| (environment.exists)(path)).collect();
    }
    let named = args.identities.iter().map(|path| environment.expand(path));
    let (there, missing): (Vec<_>, Vec<_>) = named.partition(|path| (environment.exists)(path));
    warnings.extend(
        missing
            .into_iter()
            .map(|path| PlanWarning::NoIdentity { path }),
    );
    there
}

/// As in ssh_config(5), the first value of an option counts.
fn options(
    args: &UpArgs,
    environment: &Environment,
) -> Result<(HostKeyPolicy, Vec<PathBuf>), PlanError> {
    let mut policy = None;
    let mut files: Option<Vec<PathBuf>> = None;
    for text in &args.options {
        match ssh_option::parse(text)? {
            SshOption::HostKeys(value) => policy = policy.or(Some(value)),
            SshOption::KnownHosts(paths) => {
                let expanded = || paths.iter().map(|path| environment.expand(path)).collect();
                files = files.or_else(|| Some(expanded()));
            }
        }
    }
    let mut known_hosts = files.unwrap_or_else(|| {
        let usual = ["known_hosts", "known_hosts2"];
        usual
            .iter()
            .filter_map(|name| environment.dot_ssh(name))
            .collect()
    });
    known_hosts.push(GLOBAL_KNOWN_HOSTS.into());
    Ok((policy.unwrap_or(HostKeyPolicy::Ask), known_hosts))
}

fn capture(args: &UpArgs, warnings: &mut Vec<PlanWarning>) -> Result<CapturePlan, PlanError> {
    let subnets = subnets(&args.subnets, warnings)?;
    let excludes = excludes(&args.excludes, warnings)?;
    let plan = CapturePlan { subnets, excludes };
    if plan.subnets.iter().all(|subnet| plan.excluded(&subnet.net)) {
        return Err(PlanError::NothingLeft);
    }
    Ok(plan)
}

fn subnets(typed: &[String], warnings: &mut Vec<PlanWarning>) -> Result<Vec<Subnet>, PlanError> {
    let mut subnets: Vec<Subnet> = Vec::new();
    for text in typed {
        let parsed = subnet::parse(text).map_err(|reason| PlanError::BadSubnet {
            text: text.clone(),
            reason,
        })?;
        check_routable(parsed.subnet.net)?;
        note_masked(text, parsed.subnet.net, parsed.masked, warnings);
        if !subnets.contains(&parsed.subnet) {
            warnings.extend(last_port(&parsed.subnet));
            subnets.push(parsed.subnet);
        }
    }
    if subnets.is_empty() {
        return Err(PlanError::NoSubnets);
    }
    Ok(subnets)
}

fn excludes(typed: &[String], warnings: &mut Vec<PlanWarning>) -> Result<Vec<IpNet>, PlanError> {
    let mut excludes = Vec::new();
    for text in typed {
        let (net, masked) =
            subnet::parse_network(text).map_err(|reason| PlanError::BadExclude {
                text: text.clone(),
                reason,
            })?;
        note_masked(text, net, masked, warnings);
        if !excludes.contains(&net) {
            excludes.push(net);
        }
    }
    Ok(excludes)
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

fn note_masked(text: &str, net: IpNet, masked: bool, warnings: &mut Vec<PlanWarning>) {
    if masked {
        warnings.push(PlanWarning::Masked {
            text: text.to_owned(),
            net,
        });
    }
}

/// `1-65535` needs no port selector at all; any other range that ends there loses its last port.
fn last_port(subnet: &Subnet) -> Option<PlanWarning> {
    let ports = subnet.ports.as_ref()?;
    (*ports.end() == u16::MAX && *ports.start() > 1)
        .then_some(PlanWarning::LastPort { net: subnet.net })
}

fn device(args: &UpArgs) -> Result<DevicePlan, PlanError> {
    let mtu = args.mtu.map(check_mtu).transpose()?;
    let name = args.tun.clone();
    if let Some(name) = &name {
        check_name(name).map_err(|reason| PlanError::BadDeviceName {
            name: name.clone(),
            reason,
        })?;
    }
    Ok(DevicePlan { name, mtu })
}

fn check_mtu(mtu: u32) -> Result<u16, PlanError> {
    let bad = PlanError::BadMtu { mtu };
    if !MTU_RANGE.contains(&mtu) {
        return Err(bad);
    }
    u16::try_from(mtu).map_err(|_| bad)
}

/// What dev_valid_name() of the kernel takes, and less: a name also stands in paths and commands.
fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("the name is empty");
    }
    if name.len() > NAME_BYTES {
        return Err("the name is longer than 15 bytes");
    }
    if matches!(name, "all" | "default" | "lo") {
        return Err("the name is reserved");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.chars().all(plain) || name.starts_with(['-', '.']) {
        return Err("the name has a character that a device cannot have");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn environment() -> Environment {
        Environment {
            user: Some("me".into()),
            home: Some("/home/me".into()),
            logged_in_from: None,
            exists: |path| path != Path::new("/home/me/.ssh/id_ecdsa") && !path.ends_with("gone"),
        }
    }

    fn args(remote: &str, subnets: &[&str]) -> UpArgs {
        UpArgs {
            remote: Some(remote.into()),
            subnets: subnets.iter().map(|&text| text.into()).collect(),
            ..UpArgs::default()
        }
    }

    fn error(args: &UpArgs) -> PlanError {
        resolve(args, &environment()).unwrap_err()
    }

    #[test]
    fn the_defaults_are_those_of_ssh() {
        let (plan, warnings) = resolve(&args("bastion", &["10/8"]), &environment()).unwrap();
        assert_eq!(warnings, []);
        assert_eq!((plan.ssh.user.as_str(), plan.ssh.port), ("me", 22));
        assert_eq!(plan.ssh.host_keys, HostKeyPolicy::Ask);
        assert_eq!(
            plan.ssh.identities,
            ["/home/me/.ssh/id_ed25519", "/home/me/.ssh/id_rsa"].map(PathBuf::from)
        );
        assert_eq!(
            plan.ssh.known_hosts,
            [
                "/home/me/.ssh/known_hosts",
                "/home/me/.ssh/known_hosts2",
                "/etc/ssh/ssh_known_hosts"
            ]
            .map(PathBuf::from)
        );
    }

    #[test]
    fn named_files_replace_the_usual_ones() {
        let mut typed = args("u@h:2200", &["10/8"]);
        typed.identities = vec!["~/k".into(), "/gone".into()];
        typed.options = vec![
            "UserKnownHostsFile=~/kh".into(),
            "StrictHostKeyChecking no".into(),
            "StrictHostKeyChecking yes".into(),
        ];
        let (plan, warnings) = resolve(&typed, &environment()).unwrap();
        assert_eq!(plan.ssh.identities, [PathBuf::from("/home/me/k")]);
        assert_eq!(plan.ssh.known_hosts[0], PathBuf::from("/home/me/kh"));
        assert_eq!(plan.ssh.host_keys, HostKeyPolicy::No);
        assert_eq!(
            warnings,
            [PlanWarning::NoIdentity {
                path: "/gone".into()
            }]
        );
    }

    #[test]
    fn duplicates_go_and_host_bits_are_said() {
        let (plan, warnings) =
            resolve(&args("h", &["10.0.1.5/24", "10.0.1.0/24"]), &environment()).unwrap();
        assert_eq!(plan.capture.subnets.len(), 1);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].to_string().contains("10.0.1.0/24"));
    }

    #[test]
    fn what_makes_no_plan() {
        assert_eq!(error(&UpArgs::default()), PlanError::NoRemote);
        assert_eq!(error(&args("h", &[])), PlanError::NoSubnets);
        assert!(matches!(
            error(&args("h", &["127.0.0.0/8"])),
            PlanError::NotRoutable { .. }
        ));
        assert!(matches!(
            error(&args("h", &["ff02::/16"])),
            PlanError::NotRoutable { .. }
        ));
        let mut all_excluded = args("h", &["10.0.1.0/24:80"]);
        all_excluded.excludes = vec!["10/8".into()];
        assert_eq!(error(&all_excluded), PlanError::NothingLeft);
        let mut two_ports = args("h:22", &["10/8"]);
        two_ports.port = Some(23);
        assert!(matches!(error(&two_ports), PlanError::PortTwice { .. }));
        let mut small = args("h", &["10/8"]);
        small.mtu = Some(576);
        assert_eq!(error(&small), PlanError::BadMtu { mtu: 576 });
        for name in ["", "a-name-of-16-byt", "a/b", "lo", "a b", "-x", "un%d"] {
            let mut named = args("h", &["10/8"]);
            named.tun = Some(name.into());
            assert!(
                matches!(error(&named), PlanError::BadDeviceName { .. }),
                "{name}"
            );
        }
    }

    #[test]
    fn without_a_login_name_one_must_be_written() {
        let nobody = Environment {
            user: None,
            home: None,
            ..environment()
        };
        assert_eq!(
            resolve(&args("h", &["10/8"]), &nobody).unwrap_err(),
            PlanError::NoUser
        );
    }

    proptest! {
        #[test]
        fn no_arguments_panic(
            remote in "\\PC{0,20}", subnet in "\\PC{0,20}", exclude in "\\PC{0,20}",
            option in "\\PC{0,20}", tun in "\\PC{0,20}", mtu in any::<u32>(),
        ) {
            let typed = UpArgs {
                remote: Some(remote), subnets: vec![subnet], excludes: vec![exclude],
                options: vec![option], tun: Some(tun), mtu: Some(mtu), ..UpArgs::default()
            };
            let _ = resolve(&typed, &environment());
        }
    }
}
