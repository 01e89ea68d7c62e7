//! From the arguments as typed to the plan as meant.

use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use super::ssh_config::{self, Effective, Query, Source};
use super::{
    CapturePlan, CarrierPlan, DevicePlan, Environment, LifePlan, Plan, PlanError, PlanWarning,
    Route, Span, SshClient, SshPlan, Subnet, subnet,
};
use crate::cli::UpArgs;

/// How many hosts may lie on the way to a server.
const MAX_JUMPS: usize = 16;
/// IPv6 asks for 1280 bytes (RFC 8200 section 5); the kernel's TUN takes 65535, less room for headers.
const MTU_RANGE: RangeInclusive<u32> = 1280..=65520;
/// A hundred years, which every clock here can count.
const MAX_SECONDS: u64 = 100 * 365 * 24 * 3600;
/// IFNAMSIZ less the final zero (linux/if.h).
const NAME_BYTES: usize = 15;

/// Makes the plan of `up`. What ssh's configuration says about a host is asked of `ask`: about the server, and about
/// each host on the way to it.
///
/// # Errors
/// The first argument that makes no sense, with what to change; and those of `ask`.
pub fn resolve(
    args: &UpArgs,
    environment: &Environment,
    ask: &mut dyn FnMut(&Query) -> Result<Effective, PlanError>,
) -> Result<(Plan, Vec<PlanWarning>), PlanError> {
    let mut warnings = Vec::new();
    let query = Query::new(args)?;
    let capture = capture(args, &mut warnings)?;
    let device = device(args)?;
    let client = SshClient {
        arguments: query.flags(),
    };
    let (ssh, source) = ssh(query, environment, ask, &mut warnings)?;
    warnings.extend(command_under_default(&ssh, &capture));
    let plan = Plan {
        carrier: CarrierPlan::new(args.carrier, &ssh, source, client),
        ssh: SshPlan {
            connections: args.connections.map(usize::from),
            ..ssh
        },
        capture,
        device,
        life: life(args)?,
    };
    Ok((plan, warnings))
}

/// Where a command connects to is not known before it is connected.
fn command_under_default(ssh: &SshPlan, capture: &CapturePlan) -> Option<PlanWarning> {
    let nearest = ssh.servers().last()?;
    if !matches!(nearest.route, Route::Command(_)) {
        return None;
    }
    let mut nets = capture.subnets.iter().map(|subnet| subnet.net);
    let subnet = nets.find(|net| net.prefix_len() == 0)?;
    Some(PlanWarning::CommandUnderDefault {
        subnet,
        host: nearest.alias.clone(),
    })
}

/// A server and, if need be, those on the way to it, each with a configuration of its own; and where it comes from.
fn ssh(
    query: Query,
    environment: &Environment,
    ask: &mut dyn FnMut(&Query) -> Result<Effective, PlanError>,
    warnings: &mut Vec<PlanWarning>,
) -> Result<(SshPlan, Source), PlanError> {
    let host = query.host.clone();
    let mut source = Source::Ssh;
    let mut servers = Vec::new();
    let mut next = Some(query);
    while let Some(query) = next {
        if servers.len() > MAX_JUMPS {
            return Err(PlanError::TooManyJumps {
                host,
                most: MAX_JUMPS,
            });
        }
        let effective = ask(&query)?;
        source = effective.source;
        let read = ssh_config::read(&query, &effective, environment, warnings)?;
        servers.push(read.plan);
        next = read.through;
    }
    let nearest_first = servers.into_iter().rev();
    let server = nearest_first.reduce(|hop, mut server| {
        server.route = Route::Jump(Box::new(hop));
        server
    });
    Ok((server.ok_or(PlanError::NoRemote)?, source))
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

fn life(args: &UpArgs) -> Result<LifePlan, PlanError> {
    Ok(LifePlan {
        limit: span("--for", args.limit.as_deref())?,
        idle: span("--idle-timeout", args.idle_timeout.as_deref())?,
    })
}

fn span(option: &'static str, typed: Option<&str>) -> Result<Option<Span>, PlanError> {
    let Some(typed) = typed else {
        return Ok(None);
    };
    let seconds = ssh_config::seconds(typed).filter(|seconds| (1..=MAX_SECONDS).contains(seconds));
    let time = seconds
        .map(Duration::from_secs)
        .ok_or_else(|| PlanError::BadDuration {
            option,
            text: typed.to_owned(),
        })?;
    let typed = typed.to_owned();
    Ok(Some(Span { time, typed }))
}

fn device(args: &UpArgs) -> Result<DevicePlan, PlanError> {
    let mtu = args.mtu.map(check_mtu).transpose()?;
    let name = args.tun.clone();
    if let Some(name) = &name {
        check_device_name(name)?;
    }
    Ok(DevicePlan { name, mtu })
}

impl DevicePlan {
    /// Whether it is one that [`resolve`] may give, for a plan that comes from elsewhere.
    ///
    /// # Errors
    /// What makes no sense.
    pub fn check(&self) -> Result<(), PlanError> {
        self.mtu.map(|mtu| check_mtu(mtu.into())).transpose()?;
        self.name.as_deref().map_or(Ok(()), check_device_name)
    }
}

impl CapturePlan {
    /// Whether it is one that [`resolve`] may give, for a plan that comes from elsewhere.
    ///
    /// # Errors
    /// The first network that makes no sense.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.subnets.is_empty() {
            return Err(PlanError::NoSubnets);
        }
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

fn check_mtu(mtu: u32) -> Result<u16, PlanError> {
    let bad = PlanError::BadMtu { mtu };
    if !MTU_RANGE.contains(&mtu) {
        return Err(bad);
    }
    u16::try_from(mtu).map_err(|_| bad)
}

fn check_device_name(name: &str) -> Result<(), PlanError> {
    check_name(name).map_err(|reason| PlanError::BadDeviceName {
        name: name.to_owned(),
        reason,
    })
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
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::ssh_config::Settings;
    use super::super::{
        AddressFamily, Agent, Algorithms, Dialling, HostKeyPolicy, Keepalive, Login, RekeyLimit,
    };
    use super::*;

    fn environment() -> Environment {
        Environment {
            user: Some("me".into()),
            uid: 1000,
            host_name: "laptop.lan".into(),
            home: Some("/home/me".into()),
            logged_in_from: None,
            exists: |path| {
                let there = [
                    "/home/me/.ssh/id_ed25519",
                    "/home/me/.ssh/id_rsa",
                    "/home/me/k",
                ];
                there.iter().any(|file| path == Path::new(file))
            },
            variable: |_| None,
        }
    }

    fn args(remote: &str, subnets: &[&str]) -> UpArgs {
        UpArgs {
            remote: Some(remote.into()),
            subnets: subnets.iter().map(|&text| text.into()).collect(),
            ..UpArgs::default()
        }
    }

    /// Without ssh and without files: the command line is all there is.
    fn resolved(
        args: &UpArgs,
        environment: &Environment,
    ) -> Result<(Plan, Vec<PlanWarning>), PlanError> {
        configured(args, environment, |_| "")
    }

    /// `file`: what ssh's configuration has for a host, in the form of `ssh -G`.
    fn configured(
        args: &UpArgs,
        environment: &Environment,
        file: fn(&str) -> &'static str,
    ) -> Result<(Plan, Vec<PlanWarning>), PlanError> {
        resolve(args, environment, &mut |query| {
            let mut settings = query.settings();
            settings.fill_up(Settings::parse(file(&query.host)));
            Ok(from(Source::Files, settings))
        })
    }

    fn from(source: Source, settings: Settings) -> Effective {
        Effective {
            settings,
            defaults: Settings::default(),
            source,
        }
    }

    fn error(args: &UpArgs) -> PlanError {
        resolved(args, &environment()).unwrap_err()
    }

    fn paths(paths: &[&str]) -> Vec<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn times_are_as_ssh_has_them() {
        let time = |typed| span("--for", Some(typed)).map(|span| span.unwrap().time.as_secs());
        assert_eq!(time("30s"), Ok(30));
        assert_eq!(time("10m"), Ok(600));
        assert_eq!(time("1h30m"), Ok(5400));
        assert_eq!(time("90"), Ok(90));
        for bad in ["", "0", "-1", "1.5h", "h", "1y", "1 h", "99999999999w", "é"] {
            let error = time(bad).unwrap_err();
            assert!(matches!(error, PlanError::BadDuration { .. }), "{bad}");
        }
    }

    #[test]
    fn the_defaults_are_those_of_ssh() {
        let (plan, warnings) = resolved(&args("bastion", &["10/8"]), &environment()).unwrap();
        assert_eq!(warnings, []);
        let identities = paths(&["/home/me/.ssh/id_ed25519", "/home/me/.ssh/id_rsa"]);
        let known_hosts = paths(&["/home/me/.ssh/known_hosts", "/home/me/.ssh/known_hosts2"]);
        let global_known_hosts = paths(&["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"]);
        assert_eq!(
            plan.ssh,
            SshPlan {
                identities,
                known_hosts,
                global_known_hosts,
                ..SshPlan::new("bastion", 22, "me")
            }
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
        let (plan, warnings) = resolved(&typed, &environment()).unwrap();
        assert_eq!(plan.ssh.identities, paths(&["/gone", "/home/me/k"]));
        assert_eq!(plan.ssh.known_hosts, paths(&["/home/me/kh"]));
        assert_eq!(plan.ssh.host_keys, HostKeyPolicy::No);
        assert_eq!(
            warnings,
            [PlanWarning::NoIdentity {
                path: "/gone".into()
            }]
        );
    }

    #[test]
    fn everything_that_a_configuration_sets_is_in_the_plan() {
        let file = |_: &str| {
            "hostname %h.example.com\nuser deploy\nport 2222\nidentityfile ~/k\nidentitiesonly yes\n\
             identityagent ~/agents/%u\ncertificatefile ~/%r-cert.pub\nproxycommand nc -X \"a b\" %h %p\n\
             userknownhostsfile ~/kh \"/a b\"\nglobalknownhostsfile none\nstricthostkeychecking accept-new\n\
             hostkeyalias alias\nhashknownhosts yes\ncheckhostip yes\nserveraliveinterval 1m\n\
             revokedhostkeys ~/revoked /etc/revoked\nnohostauthenticationforlocalhost yes\nrequiredrsasize 3072\n\
             serveralivecountmax 5\nconnecttimeout 7\nconnectionattempts 2\nciphers a,b\nmacs c\n\
             kexalgorithms d\nhostkeyalgorithms e\naddressfamily inet6\nbindaddress ::1\n\
             preferredauthentications publickey,password\nnumberofpasswordprompts 1\nbatchmode yes\n\
             compression yes\nrekeylimit 1G 1h\npubkeyauthentication no\npasswordauthentication no\n\
             kbdinteractiveauthentication no\ncasignaturealgorithms f\npubkeyacceptedalgorithms g"
        };
        let (plan, warnings) = configured(&args("prod", &["10/8"]), &environment(), file).unwrap();
        assert_eq!(warnings, []);
        let list = |name: &str| Some(vec![name.to_owned()]);
        let expected = SshPlan {
            alias: "prod".into(),
            route: Route::Command("nc -X \"a b\" prod.example.com 2222".into()),
            dialling: Dialling {
                family: AddressFamily::V6,
                bind_address: Some("::1".into()),
                timeout: Some(Duration::from_secs(7)),
                attempts: 2,
            },
            keepalive: Some(Keepalive {
                interval: Duration::from_secs(60),
                count: 5,
            }),
            identities: paths(&["/home/me/k"]),
            login: Login {
                identities_only: true,
                agent: Agent::Socket("/home/me/agents/me".into()),
                certificates: paths(&["/home/me/deploy-cert.pub"]),
                public_key: false,
                password: false,
                keyboard_interactive: false,
                preferred: Some(vec!["publickey".into(), "password".into()]),
                password_prompts: 1,
                batch: true,
            },
            host_keys: HostKeyPolicy::AcceptNew,
            known_hosts: paths(&["/home/me/kh", "/a b"]),
            host_key_alias: Some("alias".into()),
            hash_known_hosts: true,
            check_host_ip: true,
            revoked_host_keys: paths(&["/home/me/revoked", "/etc/revoked"]),
            trust_localhost: true,
            required_rsa_size: 3072,
            algorithms: Algorithms {
                ciphers: Some(vec!["a".into(), "b".into()]),
                macs: list("c"),
                kex: list("d"),
                host_keys: list("e"),
                user_keys: list("g"),
                authorities: list("f"),
            },
            compression: true,
            rekey: Some(RekeyLimit {
                bytes: Some(1 << 30),
                time: Some(Duration::from_secs(3600)),
            }),
            connections: None,
            unheeded: plan.ssh.unheeded.clone(),
            ..SshPlan::new("prod.example.com", 2222, "deploy")
        };
        assert_eq!(plan.ssh, expected);
    }

    #[test]
    fn each_host_on_the_way_has_its_own_configuration() {
        let file = |host: &str| match host {
            "prod" => "proxyjump a@outer:2200,inner\nuser deploy",
            "inner" => "hostname 10.0.0.1\nproxyjump none",
            "outer" => "hostname outer.example.com\nproxycommand tool %h",
            _ => "",
        };
        let (plan, _) = configured(&args("prod", &["10/8"]), &environment(), file).unwrap();
        let way: Vec<_> = plan
            .ssh
            .servers()
            .map(|server| format!("{}@{}:{}", server.user, server.host, server.port))
            .collect();
        assert_eq!(
            way,
            [
                "deploy@prod:22",
                "me@10.0.0.1:22",
                "a@outer.example.com:2200"
            ]
        );
        let nearest = plan.ssh.servers().last().unwrap();
        assert_eq!(
            nearest.route,
            Route::Command("tool outer.example.com".into())
        );
        assert_eq!(plan.ssh.dialled(), None);
        let mut direct = args("prod", &["10/8"]);
        direct.jump = Some("other".into());
        let (plan, _) = configured(&direct, &environment(), file).unwrap();
        assert_eq!(plan.ssh.dialled().unwrap().host, "other");
    }

    #[test]
    fn a_way_that_leads_back_ends() {
        let file = |host: &str| match host {
            "a" => "proxyjump b",
            _ => "proxyjump a",
        };
        let error = configured(&args("a", &["10/8"]), &environment(), file).unwrap_err();
        assert!(matches!(error, PlanError::TooManyJumps { .. }), "{error}");
    }

    #[test]
    fn a_value_that_makes_no_sense_is_named() {
        for (file, words) in [
            ((|_| "port x") as fn(&str) -> &'static str, "Port \"x\""),
            (|_| "port 0", "Port \"0\""),
            (|_| "batchmode perhaps", "BatchMode"),
            (|_| "connecttimeout soon", "ConnectTimeout"),
            (|_| "rekeylimit 1X", "RekeyLimit"),
            (|_| "addressfamily inet5", "AddressFamily"),
            (|_| "proxycommand nc %z", "%z"),
            (|_| "identityfile ${NOWHERE}/k", "NOWHERE"),
            (|_| "proxyjump a,,b", "jump host"),
            (|_| "refuseconnection gone", "gone"),
        ] {
            let error = configured(&args("h", &["10/8"]), &environment(), file).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(words) && text.lines().count() == 1, "{text}");
        }
    }

    #[test]
    fn duplicates_go_and_host_bits_are_said() {
        let (plan, warnings) =
            resolved(&args("h", &["10.0.1.5/24", "10.0.1.0/24"]), &environment()).unwrap();
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
            resolved(&args("h", &["10/8"]), &nobody).unwrap_err(),
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
            let _ = resolved(&typed, &environment());
        }

        #[test]
        fn no_configuration_panics(
            lines in proptest::collection::vec((any::<prop::sample::Index>(), "\\PC{0,12}|[0-9%~$,:/ {}a-z]{0,12}"), 0..8),
        ) {
            const KEYS: [&str; 12] = [
                "hostname", "user", "port", "proxyjump", "proxycommand", "identityfile", "identityagent",
                "certificatefile", "userknownhostsfile", "connecttimeout", "rekeylimit", "ciphers",
            ];
            for source in [Source::Ssh, Source::Files] {
                let mut settings = Settings::default();
                for (key, value) in &lines {
                    settings.push(KEYS[key.index(KEYS.len())], value.clone());
                }
                let mut ask = |_: &Query| Ok(from(source, settings.clone()));
                let _ = resolve(&args("h", &["10/8"]), &environment(), &mut ask);
            }
        }
    }
}
