//! `doctor`: looks at this host, the server and the login, and says for each thing whether it passes and what to do.
//!
//! Nothing is changed, and root is not needed. Facts are read first, each within a limit of time; the checks are pure functions
//! of them.
//!
//! | file | idea |
//! |---|---|
//! | `check`, `report` | one finding; all of them as a table or as JSON |
//! | `host`, `resolver`, `networks` | this host: what it has and may do, names, where subnets meet its own networks |
//! | `server` | from the name to a flow |
//! | `security` | what an officer asks |
//! | `probe` | a target of `--probe` |
//! | `examine` | the facts of a login, asked for |

mod check;
mod examine;
mod host;
mod networks;
mod probe;
mod report;
pub(super) mod resolver;
mod security;
mod server;
mod tunnel;

use std::time::Duration;

use tokio::time::timeout;

use self::check::Check;
use self::examine::Examined;
use self::probe::Probe;
use self::report::{Group, Report};
use self::security::KeyFile;
use super::exit::Exit;
use super::{arguments, ssh_config, surroundings};
use crate::carrier::prompt;
use crate::carrier::russh::agent_key_facts;
use crate::cli::{DoctorArgs, UpArgs};
use crate::os::names::Facts;
use crate::os::{Netlink, Slot, host as os_host, stale};
use crate::plan::sources::Use;
use crate::plan::{self, Plan};

/// Stands for the subnets where none are named: nobody has it (RFC 5737), and nothing is captured here.
const NO_SUBNET: &str = "192.0.2.0/24";
/// How long the kernel may take to list what it knows.
const NETLINK: Duration = Duration::from_secs(5);

/// Looks at everything, and says it.
pub fn run(args: &DoctorArgs) -> Exit {
    let probes: Result<Vec<_>, _> = args.probes.iter().map(|text| Probe::parse(text)).collect();
    let probes = match probes {
        Ok(probes) => probes,
        Err(error) => return super::said(&error, Exit::Usage),
    };
    // As who started it: what follows is done as the person behind sudo, and before there is a second thread.
    let facts = host::Facts::read();
    if let Err(error) = surroundings::become_person() {
        return super::failed(&error);
    }
    let facts = facts.with_private_network();
    let planned = Planned::new(&args.up);
    if planned.is_none() && !probes.is_empty() {
        let nowhere =
            "--probe connects through a server: add -r [user@]host[:port], or name a profile";
        return super::said(&nowhere, Exit::Usage);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let report = match runtime {
        Ok(runtime) => {
            let report = runtime.block_on(look(&probes, &facts, planned));
            prompt::give_back_terminal();
            // A question that nobody answers holds nobody up.
            runtime.shutdown_background();
            report
        }
        Err(error) => return super::failed(&error),
    };
    let text = if args.json {
        match report.json() {
            Ok(text) => text,
            Err(error) => return super::failed(&error),
        }
    } else {
        report.table()
    };
    match super::print(text.as_bytes()) {
        Exit::Success if report.has_failed() => Exit::Failure,
        exit => exit,
    }
}

/// What was asked for, as `up` would understand it.
struct Planned {
    plan: Result<Plan, String>,
    /// Whether ssh's configuration forwards the agent to the server.
    forwards_agent: Option<bool>,
    has_subnets: bool,
}

impl Planned {
    /// `None` where no server is named, nowhere.
    fn new(typed: &UpArgs) -> Option<Self> {
        let person = match surroundings::person() {
            Ok(person) => person,
            Err(error) => return Some(Self::nonsense(error.to_string())),
        };
        let mut args = match arguments::gather(typed, &person, Use::Doctor) {
            Ok(args) => args,
            Err(error) => return Some(Self::nonsense(error.to_string())),
        };
        args.remote.as_ref()?;
        let has_subnets = !args.subnets.is_empty();
        if !has_subnets {
            args.subnets.push(NO_SUBNET.to_owned());
        }
        let environment = surroundings::environment(&person);
        let mut config = ssh_config::SshConfig::new(person);
        let mut forwards_agent = None;
        let plan = plan::resolve(&args, &environment, &mut |query| {
            let effective = config.ask(query)?;
            // The first question is about the server itself; a path or a variable names a socket that is forwarded.
            let value = effective.settings.first("forwardagent");
            forwards_agent = forwards_agent.or(value.map(|value| value != "no"));
            Ok(effective)
        });
        Some(Self {
            plan: plan
                .map(|(plan, _)| plan)
                .map_err(|error| error.to_string()),
            forwards_agent,
            has_subnets,
        })
    }

    fn nonsense(error: String) -> Self {
        Self {
            plan: Err(error),
            forwards_agent: None,
            has_subnets: false,
        }
    }
}

async fn look(probes: &[Probe], facts: &host::Facts, planned: Option<Planned>) -> Report {
    let mut checks = host::checks(facts);
    checks.push(resolver::check(&Facts::read().await));
    let capture = planned
        .as_ref()
        .filter(|planned| planned.has_subnets)
        .and_then(|planned| planned.plan.as_ref().ok());
    checks.extend(networks(capture).await);
    let mut groups = vec![Group {
        group: "host",
        checks,
    }];
    if let Some(planned) = planned {
        groups.extend(server(&planned, probes).await);
    }
    Report::new(groups)
}

/// What the kernel knows of networks. It tells that to everybody.
async fn networks(plan: Option<&Plan>) -> Vec<Check> {
    let listed = timeout(NETLINK, async {
        let netlink = Netlink::new()?;
        let slot = Slot::claim();
        let networks = match &slot {
            Ok(slot) => Some(os_host::networks(&netlink, slot.number()).await?),
            Err(_) => None,
        };
        // Ours is no run's: let go before it is looked for what nobody claims.
        drop(slot);
        Ok::<_, crate::os::NetlinkError>((networks, stale::left(&netlink).await?))
    });
    match listed.await {
        Ok(Ok((networks, left))) => {
            let mut checks = vec![networks::leftovers(&left)];
            let Some(networks) = networks else {
                return checks;
            };
            checks.push(networks::tunnels(&networks));
            if let Some(plan) = plan {
                let from = surroundings::logged_in_from();
                checks.extend(networks::overlaps(&plan.capture, &networks, from));
            }
            checks
        }
        Ok(Err(error)) => vec![Check::error("networks", &error)],
        Err(_) => vec![Check::skip("networks", "the kernel does not answer")],
    }
}

async fn server(planned: &Planned, probes: &[Probe]) -> Vec<Group> {
    let plan = match &planned.plan {
        Ok(plan) => plan,
        Err(error) => {
            let checks = vec![Check::error("arguments", error)];
            return vec![Group {
                group: "server",
                checks,
            }];
        }
    };
    let files: Vec<KeyFile> = plan
        .ssh
        .identities
        .iter()
        .cloned()
        .map(KeyFile::read)
        .collect();
    let Examined {
        mut server,
        security,
        login,
    } = examine::examine(plan, probes).await;
    server.insert(0, server::carrier(&plan.carrier));
    let agent = agent_key_facts(&plan.ssh.login.agent).await;
    let mut officer = security::keys(&files, &agent, login.as_ref(), &plan.ssh);
    officer.extend(security);
    officer.extend(security::configuration(
        &plan.ssh,
        planned.forwards_agent,
        plan.beside.tunnel.is_some(),
    ));
    vec![
        Group {
            group: "server",
            checks: server,
        },
        Group {
            group: "security",
            checks: officer,
        },
    ]
}
