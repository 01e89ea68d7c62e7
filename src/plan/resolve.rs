//! From the arguments as typed to the plan as meant.

use super::ssh_config::{self, Effective, Query, Source};
use super::{
    AuditLog, CarrierPlan, Environment, InstancePlan, Plan, PlanError, PlanWarning, Route,
    SshClient, SshPlan, capture, command, device, dns, life, tunnel,
};
use crate::cli::UpArgs;

/// How many hosts may lie on the way to a server.
const MAX_JUMPS: usize = 16;
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
    let capture = capture::plan(args, environment, &mut warnings)?;
    let beside = tunnel::plan(args, environment)?;
    let device = device::plan(args, beside.tunnel.as_ref())?;
    let instance = InstancePlan::new(args, &query.host, query.port)?;
    let client = SshClient {
        arguments: query.flags(),
    };
    let (ssh, source) = ssh(query, environment, ask, &mut warnings)?;
    let ssh = SshPlan {
        connections: args.connections.map(usize::from),
        ..ssh
    };
    let dns = dns::plan(args)?;
    let asked = dns.as_ref().filter(|_| args.netns.is_none());
    warnings.extend(command::warnings(&ssh, &capture, asked));
    let mut hosts = dns.iter().flat_map(|dns| &dns.hosts);
    if let Some(host) = hosts.find(|host| !host.is_below && host.has(&ssh.host)) {
        return Err(PlanError::HostIsServer {
            host: host.to_string(),
        });
    }
    let asked = args.carrier.unwrap_or_default();
    let carrier = match &beside.tunnel {
        Some(tunnel) => {
            tunnel.check(&capture, dns.as_ref())?;
            CarrierPlan::for_tunnel(tunnel.mode, asked, &ssh, source, client)?
        }
        None => CarrierPlan::new(asked, &ssh, source, client),
    };
    let plan = Plan {
        carrier,
        ssh,
        capture,
        auto_nets: args.auto_nets.then_some(super::AutoNets {
            ipv6: !args.disable_ipv6,
        }),
        device,
        life: life::plan(args)?,
        audit: args.audit.audit_log.as_deref().map(AuditLog::new),
        instance,
        dns,
        beside,
    };
    Ok((plan, warnings))
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
        servers.push(SshPlan {
            is_hop: !servers.is_empty(),
            ..read.plan
        });
        next = read.through;
    }
    let nearest_first = servers.into_iter().rev();
    let server = nearest_first.reduce(|hop, mut server| {
        server.route = Route::Jump(Box::new(hop));
        server
    });
    Ok((server.ok_or(PlanError::NoRemote)?, source))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::ssh_config::Settings;
    use super::super::{
        AddressFamily, Agent, Algorithms, CarrierKind, Dialling, HostKeyPolicy, Keepalive, Login,
        RekeyLimit,
    };
    use super::*;

    fn environment() -> Environment {
        Environment {
            user: Some("me".into()),
            uid: 1000,
            host_name: "laptop.lan".into(),
            home: Some("/home/me".into()),
            logged_in_from: None,
            is_krl: |_| false,
            is_hardware_key: |_| false,
            has_algorithm: |_, _| true,
            exists: |path| {
                let there = [
                    "/home/me/.ssh/id_ed25519",
                    "/home/me/.ssh/id_rsa",
                    "/home/me/k",
                ];
                there.iter().any(|file| path == Path::new(file))
            },
            variable: |_| None,
            without_sudo: None,
            user_number: |name| (name == "me").then_some(1000),
            group_users: |name| match name {
                "staff" => Some(vec![1001, 1000]),
                "empty" => Some(vec![]),
                "crowd" => Some((0..257).collect()),
                _ => None,
            },
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
    fn the_defaults_are_those_of_ssh() {
        let (plan, warnings) = resolved(&args("bastion", &["10/8"]), &environment()).unwrap();
        assert_eq!(warnings, []);
        let identities = paths(&["/home/me/.ssh/id_ed25519", "/home/me/.ssh/id_rsa"]);
        let known_hosts = paths(&["/home/me/.ssh/known_hosts", "/home/me/.ssh/known_hosts2"]);
        let global_known_hosts = paths(&["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"]);
        assert_eq!(
            plan.ssh,
            SshPlan {
                arguments: "bastion".into(),
                arguments_to_ask: "bastion".into(),
                identities,
                known_hosts,
                global_known_hosts,
                ..SshPlan::new("bastion", 22, "me")
            }
        );
    }

    #[test]
    fn the_name_server_of_up_is_not_excluded() {
        let checked = |dns: &[&str], exclude: &str| {
            let mut typed = args("h", &["10/8"]);
            typed.dns = dns.iter().map(|&text| text.into()).collect();
            typed.excludes = vec![exclude.into()];
            let (plan, _) = resolved(&typed, &environment()).unwrap();
            plan.check_name_server()
        };
        let error = checked(&["all"], "198.18.0.0/15").unwrap_err().to_string();
        assert!(
            error.contains("its name server in 198.19.255.0/24"),
            "{error}"
        );
        assert_eq!(checked(&[], "198.18.0.0/15"), Ok(()));
        assert_eq!(checked(&["all"], "198.18.0.0/16"), Ok(()));
    }

    #[test]
    fn a_key_in_hardware_is_for_ssh_unless_there_is_another_or_an_agent() {
        let taken = |named: &[&str], environment: &Environment| {
            let mut typed = args("h", &["10/8"]);
            typed.identities = named.iter().map(|&name| name.into()).collect();
            let ask = &mut |query: &Query| Ok(from(Source::Ssh, query.settings()));
            let (plan, _) = resolve(&typed, environment, ask).unwrap();
            (plan.carrier.kind, plan.carrier.why)
        };
        let one = Environment {
            is_hardware_key: |path| path.ends_with("k"),
            ..environment()
        };
        let (kind, why) = taken(&["~/k"], &one);
        assert_eq!(kind, CarrierKind::Openssh);
        assert_eq!(why, "only ssh signs with the hardware key /home/me/k");
        let (kind, _) = taken(&["~/k", "~/.ssh/id_rsa"], &one);
        assert_eq!(kind, CarrierKind::Russh);

        let all = Environment {
            is_hardware_key: |_| true,
            ..environment()
        };
        let with_agent = Environment {
            variable: |name| (name == "SSH_AUTH_SOCK").then(|| "/a".to_owned()),
            ..all.clone()
        };
        assert_eq!(taken(&["~/k"], &with_agent).0, CarrierKind::Openssh);
        let usual = |environment: &Environment| {
            let typed = args("h", &["10/8"]);
            let ask = &mut |query: &Query| {
                let mut settings = query.settings();
                settings.fill_up(Settings::parse("identityfile ~/.ssh/id_rsa"));
                let mut all = from(Source::Ssh, settings);
                all.defaults = Settings::parse("identityfile ~/.ssh/id_rsa");
                Ok(all)
            };
            let (plan, _) = resolve(&typed, environment, ask).unwrap();
            plan.carrier.kind
        };
        assert_eq!(usual(&all), CarrierKind::Openssh);
        assert_eq!(usual(&with_agent), CarrierKind::Russh);
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
            arguments: "prod".into(),
            arguments_to_ask: "-o BatchMode=no prod".into(),
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
        let are_hops: Vec<_> = plan.ssh.servers().map(|server| server.is_hop).collect();
        assert_eq!(are_hops, [false, true, true]);
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

    /// Where some of the names are known, those are taken.
    #[test]
    fn algorithms_that_only_ssh_has_are_a_reason_to_take_it() {
        let knows_aes = Environment {
            has_algorithm: |_, name| name.starts_with("aes"),
            ..environment()
        };
        let chosen = |file: &'static str| {
            let typed = args("h", &["10/8"]);
            let mut ask = |_: &Query| {
                let mut effective = from(Source::Ssh, Settings::parse(file));
                effective
                    .settings
                    .fill_up(Settings::parse("user me\nport 22"));
                Ok(effective)
            };
            resolve(&typed, &knows_aes, &mut ask).unwrap().0.carrier
        };
        let foreign = chosen("ciphers 3des-cbc,blowfish-cbc");
        assert_eq!(foreign.kind, CarrierKind::Openssh);
        assert_eq!(
            foreign.why,
            "only ssh has one of Ciphers 3des-cbc,blowfish-cbc"
        );
        let known = chosen("ciphers 3des-cbc,aes128-ctr");
        assert_eq!(known.kind, CarrierKind::Russh);
        assert_eq!(chosen("macs umac-64").kind, CarrierKind::Openssh);
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
    fn the_server_is_no_host_behind_itself() {
        let server = |hosts: &[&str]| resolved(&args("bastion.test", hosts), &environment()).err();
        let error = PlanError::HostIsServer {
            host: "bastion.test:80".into(),
        };
        assert_eq!(server(&["10/8", "bastion.test:80"]), Some(error));
        assert_eq!(server(&["*.test", "bastion2.test"]), None);
    }

    #[test]
    fn users_are_names_or_numbers_and_each_counts_once() {
        assert_eq!(users(&[], &[]), Ok(vec![]));
        assert_eq!(users(&["me", "0", "1000"], &[]), Ok(vec![1000, 0]));
        for name in ["", "you", "-1", "4294967295", "4294967296", "1 000"] {
            let error = users(&[name], &[]).unwrap_err();
            assert!(matches!(error, PlanError::NoSuchUser { .. }), "{name}");
        }
    }

    fn users(users: &[&str], groups: &[&str]) -> Result<Vec<u32>, PlanError> {
        let mut typed = args("h", &["10/8"]);
        typed.users = users.iter().map(|&user| user.into()).collect();
        typed.groups = groups.iter().map(|&group| group.into()).collect();
        resolved(&typed, &environment()).map(|(plan, _)| plan.capture.whose.users)
    }

    #[test]
    fn a_group_stands_for_its_users() {
        assert_eq!(users(&[], &["staff", "staff"]), Ok(vec![1001, 1000]));
        assert_eq!(users(&["me", "0"], &["staff"]), Ok(vec![1000, 0, 1001]));
        let error = users(&["me"], &["stuff"]).unwrap_err();
        assert!(matches!(error, PlanError::NoSuchGroup { .. }), "{error}");
        for (name, size) in [("empty", 0), ("crowd", 257)] {
            let error = users(&["me"], &[name]).unwrap_err();
            assert!(
                matches!(error, PlanError::GroupSize { count, .. } if count == size),
                "{error}"
            );
        }
        // Never everybody's packets where a group was named.
        let mut both = args("h", &["10/8"]);
        (both.groups, both.gateway) = (vec!["staff".into()], vec!["all".into()]);
        let error = resolved(&both, &environment()).unwrap_err();
        assert_eq!(error, PlanError::UserAndGateway);
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
