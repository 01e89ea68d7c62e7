//! `status`: how instances are, for a person or for a script.

mod beside;
mod names;

use std::fmt::{self, Display, Write};

use super::control::instances::{self, Instance};
use super::control::report::{self, Report, State};
use super::exit::Exit;
use super::json;
use super::surroundings;
use super::table::{Size, Span, columns, list, plain};

/// How many subnets the table for all shows of each.
const SOME: usize = 3;

/// Prints how the instance of `name` is, or how all are. [`Exit::Success`] where all that were asked for are up,
/// [`Exit::NotConnected`] where one is not, [`Exit::Failure`] where none runs, or one does not answer.
pub fn run(name: Option<&str>, json: bool) -> Exit {
    let all = instances::running();
    let (asked, others): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|one| name.is_none_or(|name| one.found.name == name));
    let (reports, silent) = sort(asked);
    if json {
        match json::pretty(&reports) {
            Ok(text) => drop(super::print(text.as_bytes())),
            Err(error) => return super::failed(&error),
        }
    } else {
        let _ = super::print(shown(&reports).as_bytes());
    }
    if reports.is_empty() && !silent {
        match name {
            Some(name) => tracing::info!("{name} is not running; {}", instances::names(&others)),
            None => tracing::info!("{}", instances::names(&others)),
        }
    }
    exit(&reports, silent)
}

/// The reports, and whether somebody gave none; each of those is told of.
fn sort(asked: Vec<Instance>) -> (Vec<Report>, bool) {
    let mut reports = Vec::new();
    let mut silent = false;
    for Instance { found, report } in asked {
        match report {
            Ok(report) => reports.push(report),
            Err(error) => {
                silent = true;
                tracing::error!("{}: {error}", found.name);
            }
        }
    }
    (reports, silent)
}

fn exit(reports: &[Report], silent: bool) -> Exit {
    if silent || reports.is_empty() {
        Exit::Failure
    } else if reports.iter().all(|report| report.state == State::Up) {
        Exit::Success
    } else {
        Exit::NotConnected
    }
}

fn shown(reports: &[Report]) -> String {
    let now = report::now();
    match reports {
        [] => String::new(),
        [one] => Whole(one, now).to_string(),
        several => table(several, now),
    }
}

/// All there is to say of one, a line for each thing.
struct Whole<'a>(&'a Report, u64);

impl Display for Whole<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report, now) = *self;
        // Whatever of it the instance has from elsewhere, or is itself.
        let mut line =
            |name: &str, text: &dyn Display| writeln!(f, "{name:<10}{}", plain(&text.to_string()));
        line("name", &report.name)?;
        line("state", &state(report, now))?;
        line("server", &server(report))?;
        if !report.server.host_key.is_empty() {
            line("host key", &report.server.host_key)?;
            line("login", &report.server.login)?;
        }
        let carrier = &report.carrier;
        let connections = count(carrier.connections as u64, "connection");
        line(
            "carrier",
            &format_args!("{} ({}), {connections}", carrier.kind, carrier.why),
        )?;
        line("subnets", &list(&report.subnets, usize::MAX))?;
        if !report.excludes.is_empty() {
            line("excludes", &list(&report.excludes, usize::MAX))?;
        }
        if !report.users.is_empty() {
            let users = report.users.iter().copied();
            let users: Vec<String> = users.map(surroundings::user_name).collect();
            line("users", &format_args!("{} alone", list(&users, usize::MAX)))?;
        }
        if !report.gateway.is_empty() {
            line("gateway", &list(&report.gateway, usize::MAX))?;
        }
        line("device", &report.device.as_deref().unwrap_or("none yet"))?;
        line("flows", &flows(report))?;
        let bytes = report.bytes;
        line(
            "bytes",
            &format_args!("{} up, {} down", Size(bytes.up), Size(bytes.down)),
        )?;
        if let Some(names) = &report.names {
            for (name, text) in names::lines(names) {
                line(name, &text)?;
            }
        }
        if let Some(beside) = &report.beside {
            for (name, text) in beside::lines(beside) {
                line(name, &text)?;
            }
        }
        if !report.drops.is_empty() {
            line("drops", &counts(&report.drops))?;
        }
        if let Some(last) = &report.last_error {
            let ago = Span(now.saturating_sub(last.at));
            line("last error", &format_args!(" {}, {ago} ago", last.text))?;
        }
        line(
            "process",
            &format_args!(
                "{}, underpass {}, for {}",
                report.pid,
                report.version,
                Span(now.saturating_sub(report.started_at))
            ),
        )
    }
}

fn state(report: &Report, now: u64) -> String {
    let time = Span(now.saturating_sub(report.since));
    let why = report.why.as_deref().filter(|why| !why.is_empty());
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    match report.state {
        State::Starting => format!("starting for {time}"),
        State::Up => format!("up for {time}"),
        State::Reconnecting => format!("reconnecting for {time}{why}"),
        State::NeedsPerson => format!("waiting for you to log in on its terminal, for {time}{why}"),
        State::Stopping => format!("stopping for {time}"),
    }
}

fn server(report: &Report) -> String {
    let server = &report.server;
    let mut text = format!("{}@{}", server.user, server.alias);
    if let Some(address) = &server.address {
        let _ = write!(text, " ({address})");
    }
    text
}

fn flows(report: &Report) -> String {
    let flows = &report.flows;
    let mut text = format!("{} open, {} in all", flows.open, flows.total);
    for (count, word) in [
        (flows.finished, "finished"),
        (flows.broken, "broken"),
        (flows.withdrawn, "withdrawn"),
    ] {
        if count > 0 {
            let _ = write!(text, ", {count} {word}");
        }
    }
    if !flows.refused.is_empty() {
        let _ = write!(text, "; not opened: {}", counts(&flows.refused));
    }
    text
}

fn counts(counts: &std::collections::BTreeMap<String, u64>) -> String {
    let counts = counts.iter().map(|(name, count)| format!("{name} {count}"));
    counts.collect::<Vec<_>>().join(", ")
}

/// A line for each, under a head line.
fn table(reports: &[Report], now: u64) -> String {
    let head = [
        "NAME", "STATE", "FOR", "SERVER", "FLOWS", "UP", "DOWN", "SUBNETS",
    ];
    let mut rows = vec![head.map(str::to_owned).into()];
    rows.extend(reports.iter().map(|report| {
        vec![
            report.name.clone(),
            report.state.name().to_owned(),
            Span(now.saturating_sub(report.since)).to_string(),
            format!("{}@{}", report.server.user, report.server.alias),
            report.flows.open.to_string(),
            Size(report.bytes.up).to_string(),
            Size(report.bytes.down).to_string(),
            list(&report.subnets, SOME),
        ]
    }));
    columns(&rows)
}

fn count(count: u64, word: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {word}{plural}")
}

#[cfg(test)]
mod tests {
    use super::super::control::report::{
        Beside, Bytes, Carrier, Flows, LastError, NamePool, Names, Server,
    };
    use super::*;

    fn report(name: &str) -> Report {
        Report {
            name: name.to_owned(),
            pid: 4711,
            version: "0.1.0".to_owned(),
            started_at: 1000,
            state: State::Reconnecting,
            since: 4600,
            why: Some("the server closed\x1b[2J the connection".to_owned()),
            server: Server {
                alias: "bastion".to_owned(),
                user: "me".to_owned(),
                address: Some("203.0.113.9:22".to_owned()),
                host_key: "ED25519 SHA256:abc".to_owned(),
                login: "key /home/me/.ssh/id_ed25519".to_owned(),
                ..Server::default()
            },
            carrier: Carrier {
                kind: "russh".to_owned(),
                why: "nothing asks for ssh itself".to_owned(),
                connections: 1,
            },
            device: Some("underpass0".to_owned()),
            subnets: [
                "10.0.0.0/16",
                "10.1.0.0/16:80-443",
                "fd00::/64",
                "::1:0/112",
            ]
            .map(str::to_owned)
            .into(),
            excludes: vec!["10.0.5.0/24".to_owned()],
            users: vec![0, 4_294_967_294],
            gateway: vec!["eth1".to_owned()],
            flows: Flows {
                open: 3,
                total: 12,
                finished: 7,
                refused: [("refused".to_owned(), 1), ("timed_out".to_owned(), 1)].into(),
                ..Flows::default()
            },
            bytes: Bytes {
                up: 999,
                down: 12_345_678,
            },
            beside: Some(Beside {
                udp: "by python3".to_owned(),
                ..Beside::default()
            }),
            names: Some(Names {
                domains: vec!["corp.internal".to_owned(), "db.example.com".to_owned()],
                servers: vec!["10.0.0.2:53".to_owned()],
                hosts: vec!["db.example.com:5432".to_owned()],
                by: "systemd-resolved".to_owned(),
                pool: Some(NamePool {
                    networks: vec!["198.19.0.0/20".to_owned()],
                    is_for_all: false,
                    used: 1,
                    room: 4094,
                }),
                questions: 12,
                remembered: 3,
                mismatched: 1,
                ..Names::default()
            }),
            drops: [("udp".to_owned(), 5)].into(),
            last_error: Some(LastError {
                text: "timed out".to_owned(),
                at: 4700,
            }),
        }
    }

    #[test]
    fn one_for_a_person() {
        insta::assert_snapshot!(Whole(&report("prod"), 4800).to_string());
    }

    #[test]
    fn several_for_a_person() {
        let up = Report {
            state: State::Up,
            ..report("lab")
        };
        insta::assert_snapshot!(table(&[up, report("production")], 400_000));
    }

    /// Whoever answers may say anything.
    #[test]
    fn no_text_of_a_report_steers_a_terminal() {
        let mut report = report("prod\x1b[2J");
        for text in [
            &mut report.server.alias,
            &mut report.carrier.why,
            &mut report.version,
            &mut report.subnets[0],
            &mut report.excludes[0],
            &mut report.gateway[0],
        ] {
            text.push_str("\x1b[2J\r\n");
        }
        report.device = Some("\u{9b}2J".to_owned());
        report.drops.insert("\x07".to_owned(), 1);
        let whole = Whole(&report, 4800).to_string();
        for text in [whole, table(&[report.clone(), report], 4800)] {
            let steers = |c: char| c.is_control() && c != '\n';
            assert!(!text.contains(steers), "{text:?}");
        }
    }

    #[test]
    fn what_the_exit_code_says() {
        let up = Report {
            state: State::Up,
            ..report("a")
        };
        assert_eq!(exit(&[], false), Exit::Failure);
        assert_eq!(exit(std::slice::from_ref(&up), false), Exit::Success);
        assert_eq!(exit(std::slice::from_ref(&up), true), Exit::Failure);
        assert_eq!(exit(&[up, report("b")], false), Exit::NotConnected);
    }
}
