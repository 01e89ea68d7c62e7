//! `flows`: the connections of applications, one by one.

use std::net::SocketAddr;

use nix::unistd::{Uid, User};
use serde::Serialize;
use tracing::{debug, error, info};

use super::control::client::{self, ClientError};
use super::control::instances;
use super::control::protocol::{Answer, Request};
use super::control::report::{self, FlowReport};
use super::exit::Exit;
use super::json;
use super::table::{Size, Span, columns};
use crate::os::run_dir::{self, Found};
use crate::os::{Process, Processes, SocketOwner, SocketOwners, Transport};

/// One of them.
#[derive(Debug, Serialize)]
struct Line {
    /// The instance that carries it.
    name: String,
    #[serde(flatten)]
    flow: FlowReport,
    uid: Option<u32>,
    user: Option<String>,
    pid: Option<u32>,
    process: Option<String>,
    program: Option<String>,
}

/// Prints those of the instance of `name`, or of all. [`Exit::Failure`] where none runs, or one does not answer.
pub(super) fn run(name: Option<&str>, json: bool) -> Exit {
    let found = run_dir::find(&instances::all_places()).into_iter();
    let asked = found.filter(|found| name.is_none_or(|name| found.name == name));
    let (mut lines, mut answered, mut exit) = (Vec::new(), 0, Exit::Success);
    for found in asked {
        match ask(&found) {
            Ok(flows) => {
                answered += 1;
                lines.extend(flows.into_iter().map(|flow| Line::new(&found.name, flow)));
            }
            // What a killed one left.
            Err(ClientError::Gone) => {}
            Err(error) => {
                error!("{}: {error}", found.name);
                exit = Exit::Failure;
            }
        }
    }
    find_owners(&mut lines);
    let shown = match json {
        true => json::pretty(&lines),
        false => Ok(table(&lines, report::now())),
    };
    match shown {
        Ok(text) => drop(super::print(text.as_bytes())),
        Err(error) => return super::failed(&error),
    }
    if answered == 0 && exit == Exit::Success {
        let running = instances::names(&instances::running());
        match name {
            Some(name) => info!("{name} is not running; {running}"),
            None => info!("{running}"),
        }
        return Exit::Failure;
    }
    exit
}

/// Page by page: the instance holds nothing for us in between.
fn ask(found: &Found) -> Result<Vec<FlowReport>, ClientError> {
    let mut all: Vec<FlowReport> = Vec::new();
    let mut after = 0;
    loop {
        match client::ask(found, Request::Flows { after })?.answer()? {
            Some(Answer::Flows { flows, next }) => {
                all.extend(flows);
                match next {
                    Some(next) if next > after => after = next,
                    _ => return Ok(all),
                }
            }
            Some(Answer::Failed { why }) => return Err(ClientError::Answer(why)),
            Some(other) => return Err(ClientError::Answer(format!("{other:?}"))),
            // It ended under the question.
            None => return Err(ClientError::Gone),
        }
    }
}

impl Line {
    fn new(name: &str, flow: FlowReport) -> Self {
        Self {
            name: name.to_owned(),
            flow,
            uid: None,
            user: None,
            pid: None,
            process: None,
            program: None,
        }
    }

    fn socket(&self) -> Option<(SocketAddr, SocketAddr)> {
        Some((
            self.flow.source.parse().ok()?,
            self.flow.target.parse().ok()?,
        ))
    }

    fn set_owner(&mut self, owner: SocketOwner, process: Option<&Process>) {
        let user = User::from_uid(Uid::from_raw(owner.uid)).ok().flatten();
        self.uid = Some(owner.uid);
        self.user = user.map(|user| user.name);
        if let Some(process) = process {
            self.pid = Some(process.pid);
            self.process = Some(process.name.clone());
            self.program.clone_from(&process.program);
        }
    }

    fn owner(&self) -> String {
        match (&self.process, self.pid, &self.user, self.uid) {
            (Some(process), Some(pid), ..) => format!("{process} ({pid})"),
            (.., Some(user), _) => format!("of {user}"),
            (.., Some(uid)) => format!("of user {uid}"),
            _ => "-".to_owned(),
        }
    }
}

/// Of the sockets of this host, in this network namespace.
fn find_owners(lines: &mut [Line]) {
    let mut sockets = match SocketOwners::new() {
        Ok(sockets) => sockets,
        Err(error) => return debug!("whose connections these are is not known: {error}"),
    };
    let owners: Vec<Option<SocketOwner>> = lines
        .iter()
        .map(|line| {
            let (source, target) = line.socket()?;
            sockets.find(Transport::Tcp, source, target).ok().flatten()
        })
        .collect();
    let wanted = owners.iter().flatten().map(|owner| owner.inode).collect();
    let processes = Processes::default().with_sockets(wanted);
    for (line, owner) in lines.iter_mut().zip(owners) {
        if let Some(owner) = owner {
            line.set_owner(owner, processes.get(&owner.inode));
        }
    }
}

/// A line for each, under a head line.
fn table(lines: &[Line], now: u64) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let head = [
        "TARGET", "SOURCE", "AGE", "UP", "DOWN", "SSH", "PROCESS", "INSTANCE",
    ];
    let mut rows: Vec<Vec<String>> = vec![head.map(str::to_owned).into()];
    rows.extend(lines.iter().map(|line| {
        let flow = &line.flow;
        let connection = flow.connection.map(|number| number.to_string());
        vec![
            match flow.is_open {
                true => flow.target.clone(),
                false => format!("({})", flow.target),
            },
            flow.source.clone(),
            Span(now.saturating_sub(flow.since)).to_string(),
            Size(flow.bytes.up).to_string(),
            Size(flow.bytes.down).to_string(),
            connection.unwrap_or_else(|| "-".to_owned()),
            line.owner(),
            line.name.clone(),
        ]
    }));
    if lines.iter().any(|line| line.flow.mapped_to.is_some()) {
        let head = std::iter::once("MAPPED TO");
        let far = lines
            .iter()
            .map(|line| line.flow.mapped_to.as_deref().unwrap_or("-"));
        for (row, cell) in rows.iter_mut().zip(head.chain(far)) {
            row.insert(1, cell.to_owned());
        }
    }
    columns(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::control::report::Bytes;

    #[test]
    fn a_line_for_each() {
        let flow = FlowReport {
            flow: 7,
            is_open: true,
            source: "10.9.0.1:4242".to_owned(),
            target: "10.0.1.20:443\x1b[2J".to_owned(),
            mapped_to: None,
            since: 1_000,
            bytes: Bytes {
                up: 517,
                down: 12_345_678,
            },
            connection: Some(2),
        };
        let mut open = Line::new("prod", flow.clone());
        let owner = SocketOwner { uid: 0, inode: 1 };
        let process = Process {
            pid: 4711,
            name: "cu\x1b[31mrl".to_owned(),
            program: None,
        };
        open.set_owner(owner, Some(&process));
        let asked = FlowReport {
            is_open: false,
            connection: None,
            ..flow
        };
        insta::assert_snapshot!(table(&[open, Line::new("prod", asked)], 4_800));
        assert_eq!(table(&[], 0), "");
    }

    #[test]
    fn whom_a_target_stands_for_has_a_column_where_any_does() {
        let flow = |target: &str, mapped_to: Option<&str>| FlowReport {
            target: target.to_owned(),
            mapped_to: mapped_to.map(str::to_owned),
            ..FlowReport::default()
        };
        let mapped = flow("100.64.1.20:443", Some("10.0.1.20:443"));
        let lines = [mapped, flow("192.0.2.7:80", None)].map(|flow| Line::new("prod", flow));
        insta::assert_snapshot!(table(&lines, 60));
    }

    /// Two instances number their flows alike.
    #[test]
    fn owners_are_of_their_own_line() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let flow = |source: SocketAddr| FlowReport {
            flow: 1,
            source: source.to_string(),
            target: stream.peer_addr().unwrap().to_string(),
            ..FlowReport::default()
        };
        let mut lines = [
            Line::new("a", flow(stream.local_addr().unwrap())),
            Line::new("b", flow("192.0.2.1:1".parse().unwrap())),
        ];
        find_owners(&mut lines);
        assert_eq!(lines[0].pid, Some(std::process::id()));
        assert_eq!(lines[1].uid, None);
    }
}
