//! The facts of a login, asked for one after the other, each within a limit of time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::net::lookup_host;
use tokio::time::timeout;

use super::check::Check;
use super::probe::Probe;
use super::security;
use super::server::{self, SCRIPT};
use crate::carrier::examine::{Answer, Request, Tunnel};
use crate::carrier::prompt;
use crate::carrier::{AnyCarrier, ConnectError, Description, Link, OpensshCarrier};
use crate::net::{Carrier, Far, OpenError, OpenFailure, Source, Target};
use crate::plan::far_side::probe_command;
use crate::plan::{DnsPlan, Mapping, Plan};
use crate::resolve::answer_over_streams;

/// How long a name may take.
pub(super) const LOOKUP: Duration = Duration::from_secs(5);
/// How long a login may take, with what a person has to type: sshd's LoginGraceTime.
const LOGIN: Duration = Duration::from_secs(130);
/// How long a target may take to be opened.
const OPEN: Duration = Duration::from_secs(10);
/// How long the goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// How often the round trip is measured.
const ROUNDS: usize = 5;
/// Where every sshd listens, seen from itself.
const ITSELF: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 22);

/// What was found.
pub(super) struct Examined {
    pub(super) server: Vec<Check>,
    /// What a login tells an officer.
    pub(super) security: Vec<Check>,
    /// `None` where there was none.
    pub(super) login: Option<Description>,
}

/// Logs in, and asks.
pub(super) async fn examine(plan: &Plan, probes: &[Probe]) -> Examined {
    let names = names(plan).await;
    let began = Instant::now();
    let prompter = prompt::usual(plan.ssh.login.batch, |name| std::env::var_os(name));
    let connect = AnyCarrier::connect(&plan.carrier, &plan.ssh, prompter);
    let connected = timeout(LOGIN, connect).await.unwrap_or_else(|_| {
        Err(ConnectError::Unanswered {
            host: plan.ssh.alias.clone(),
            seconds: LOGIN.as_secs(),
            hint: format!("Compare with: ssh -v {}", plan.ssh.arguments),
        })
    });
    let carrier = match connected {
        Ok(carrier) => carrier,
        Err(error) => {
            return Examined {
                server: server::not_logged_in(&error),
                security: Vec::new(),
                login: None,
            };
        }
    };
    let login = carrier.description().clone();
    let mut server = server::logged_in(&login, &names, began.elapsed());
    let mapping = Mapping::new(&plan.capture);
    server.extend(forwarding(&carrier, plan, &mapping, probes).await);
    let mut security = vec![security::methods(&login)];
    let tunnel = tunnel(plan).await;
    let (of_server, of_security) = sessions(&carrier, &tunnel, plan).await;
    server.extend(of_server);
    security.push(of_security);
    // A server that does not take the goodbye holds nobody up.
    let _ = timeout(GOODBYE, carrier.shutdown()).await;
    Examined {
        server,
        security,
        login: Some(login),
    }
}

/// The server's addresses, for the one that is connected to from here.
async fn names(plan: &Plan) -> String {
    let Some(server) = plan.ssh.dialled() else {
        return "another program connects (ProxyCommand)".to_owned();
    };
    let host = &server.host;
    match timeout(LOOKUP, lookup_host((host.as_str(), server.port))).await {
        Ok(Ok(addresses)) => {
            let mut list: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
            list.dedup();
            format!("{host} is {}", list.join(", "))
        }
        Ok(Err(error)) => format!("{host}: {error}"),
        Err(_) => format!("{host}: the resolver does not answer"),
    }
}

/// Connects from the server to itself, and to what was asked for.
async fn forwarding(
    carrier: &AnyCarrier,
    plan: &Plan,
    mapping: &Mapping,
    probes: &[Probe],
) -> Vec<Check> {
    let (own, _) = open(carrier, Target(ITSELF).into()).await;
    let mut results = Vec::new();
    let mut checks = Vec::new();
    for probe in probes {
        let (far, shown) = probe.leads(plan.dns.as_ref(), mapping).await;
        let (result, took) = open(carrier, far).await;
        checks.push(server::probe(&shown, &result, took));
        results.push(result);
    }
    checks.insert(0, server::forwarding(&own, &results));
    checks
}

async fn open(carrier: &AnyCarrier, far: Far) -> (Result<(), OpenError>, Duration) {
    let began = Instant::now();
    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let opened = timeout(OPEN, carrier.open_far(Source(any), far)).await;
    let result = match opened {
        Ok(Ok(_stream)) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(OpenError::new(OpenFailure::TimedOut, "")),
    };
    (result, began.elapsed())
}

/// Whether the server would make a tunnel device: by a login of its own, for whichever carrier there is.
async fn tunnel(plan: &Plan) -> Result<Tunnel, ConnectError> {
    let asked = OpensshCarrier::tunnel(&plan.ssh, &plan.carrier.client);
    timeout(LOGIN, asked).await.unwrap_or(Ok(Tunnel::Silent))
}

/// What sessions tell: for the server, and what the login may do.
async fn sessions(
    carrier: &AnyCarrier,
    tunnel: &Result<Tunnel, ConnectError>,
    plan: &Plan,
) -> (Vec<Check>, Check) {
    let exec = carrier.ask(Request::Exec(SCRIPT)).await;
    let terminal = carrier.ask(Request::Terminal).await;
    let sftp = carrier.ask(Request::Subsystem("sftp")).await;
    let mut round_trips = Vec::new();
    for _ in 0..ROUNDS {
        let Some(round_trip) = carrier.round_trip().await else {
            break;
        };
        round_trips.push(round_trip);
    }
    let output = match &exec {
        Answer::Granted(output) => output.as_slice(),
        _ => &[],
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let clock = server::clock(output, now.map_or(0, |now| now.as_secs()));
    let runs_ours = server::is_ours(output);
    let restrictions = security::restrictions(
        &exec,
        &terminal,
        &sftp,
        runs_ours,
        plan.beside.takes_commands(),
    );
    let mut checks = vec![
        server::exec(&exec),
        server::nodelay(&exec),
        super::tunnel::permitted(tunnel, &terminal, plan.beside.tunnel.is_some()),
    ];
    if let Some(tunnel) = &plan.beside.tunnel {
        let said = carrier.ask(Request::Exec(&probe_command())).await;
        checks.push(super::tunnel::set_up(&said, tunnel.mode.far()));
    }
    checks.extend(server::latency(&round_trips, |path| carrier.window(path)));
    checks.push(clock);
    checks.push(resolver(carrier, plan.dns.as_ref(), output).await);
    (checks, restrictions)
}

/// Whether somebody answers whom names would be asked of.
async fn resolver(carrier: &AnyCarrier, dns: Option<&DnsPlan>, output: &[u8]) -> Check {
    let typed = dns.map_or(&[][..], |dns| &dns.servers);
    let servers = match typed.is_empty() {
        true => server::name_servers(output),
        false => Ok(typed.to_vec()),
    };
    let servers = match servers {
        Ok(servers) => servers,
        Err(why) => return Check::skip("far-resolver", why),
    };
    let source = Source(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
    let targets: Vec<Target> = servers.iter().map(|server| Target(*server)).collect();
    let answers = answer_over_streams(carrier, source, &targets).await;
    let servers: Vec<_> = servers.into_iter().zip(answers).collect();
    let is_needed = dns.is_some_and(|dns| !dns.is_nobody_asked);
    server::far_resolver(&servers, is_needed)
}
