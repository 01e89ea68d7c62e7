//! What `status` says of one instance: the form of `status --json`, which is kept stable. Fields may be added; none changes
//! its meaning. Times are seconds since 1970 (UTC).

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// One instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Its name.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Its version of underpass.
    pub version: String,
    /// When it was started.
    pub started_at: u64,
    /// How it stands.
    pub state: State,
    /// Since when it stands so.
    pub since: u64,
    /// Why it is not up, where it is not: one line.
    pub why: Option<String>,
    /// The server.
    pub server: Server,
    /// What carries the connections.
    pub carrier: Carrier,
    /// The device's name; `null` until there is one.
    pub device: Option<String>,
    /// What is captured, as the log says it: `10.0.0.0/16`, `10.1.0.0/16:80-443`, `10.2.0.0/16=100.64.0.0/16`; without the networks whose
    /// addresses stand for names.
    pub subnets: Vec<String>,
    /// What is not.
    pub excludes: Vec<String>,
    /// Numbers of the users whose packets alone are captured; empty for everybody's.
    pub users: Vec<u32>,
    /// Interfaces by which hosts come in that are captured, too, or `all`; empty for containers of this host alone.
    pub gateway: Vec<String>,
    /// The connections of applications.
    pub flows: Flows,
    /// What they carried.
    pub bytes: Bytes,
    /// Names that are looked up through the server; `null` where none are.
    pub names: Option<Names>,
    /// What is no TCP; `null` until packets flow.
    pub beside: Option<Beside>,
    /// Packets that were not carried, by reason.
    pub drops: BTreeMap<String, u64>,
    /// The last thing that went wrong with the SSH connection, also when it has been made good.
    pub last_error: Option<LastError>,
}

/// How what is no TCP goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Beside {
    /// As packets, where there is a tunnel.
    pub tunnel: Option<Tunnel>,
    /// Why there is none, where one was asked for: one line.
    pub no_tunnel: Option<String>,
    /// How datagrams go, for a person; empty where they are refused.
    pub udp: String,
    /// How pings go, for a person; empty where they are silent.
    pub ping: String,
}

/// A tunnel of packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tunnel {
    /// `hybrid`, `full` or `ethernet`, as for `--tunnel`.
    pub mode: String,
    /// Whether it is there at the moment.
    pub is_up: bool,
    /// The server's device.
    pub device: String,
    /// The addresses of our end.
    pub ours: Vec<String>,
    /// Those of the server's.
    pub far: Vec<String>,
    /// What has gone to the far side.
    pub up: Traffic,
    /// What has come from there.
    pub down: Traffic,
    /// Packets that did not get through: too many for the line, or too old.
    pub dropped: u64,
    /// Why it is not there, where that is known: one line.
    pub why: Option<String>,
    /// What keeps it from being of use while it is there, one line each.
    pub warnings: Vec<String>,
}

/// Packets or frames that went one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Traffic {
    /// How many.
    pub packets: u64,
    /// Their bytes, headers included.
    pub bytes: u64,
}

/// Names that are looked up through the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Names {
    /// Whether these are all names.
    pub is_all: bool,
    /// Otherwise the domains whose names these are.
    pub domains: Vec<String>,
    /// The name servers that are asked for them, address and port, as the server reaches them.
    pub servers: Vec<String>,
    /// Hosts that are captured by their names.
    pub hosts: Vec<String>,
    /// How programs are brought to our name server: `systemd-resolved`, `resolvconf` or `/etc/resolv.conf`.
    pub by: String,
    /// Addresses that stand for names; `null` where none do.
    pub pool: Option<NamePool>,
    /// Questions of programs, those of the next two among them.
    pub questions: u64,
    /// Answered from memory.
    pub remembered: u64,
    /// Answered that it failed (SERVFAIL).
    pub failed: u64,
    /// Messages of name servers that answer nothing that was asked.
    pub mismatched: u64,
    /// Answers of name servers with something behind their end, which was cut off.
    pub trailing: u64,
    /// Messages of programs that are no questions.
    pub noise: u64,
}

/// Addresses that stand for names: a connection to one is opened by the name, which the server looks up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NamePool {
    /// The networks that they are of.
    pub networks: Vec<String>,
    /// Whether they stand for all names of `domains`, or for `hosts` alone.
    pub is_for_all: bool,
    /// Names that have one now, and had use for it in the last five minutes.
    pub used: u32,
    /// Names that can have one.
    pub room: u32,
}

/// How an instance stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It logs in; nothing is captured yet.
    #[default]
    Starting,
    /// Packets flow.
    Up,
    /// The SSH connection was lost and is being made again; new connections wait.
    Reconnecting,
    /// The SSH connection was lost, and somebody has to log in on the terminal.
    NeedsPerson,
    /// It takes everything back.
    Stopping,
}

impl State {
    /// The word of the JSON form.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Reconnecting => "reconnecting",
            Self::NeedsPerson => "needs_person",
            Self::Stopping => "stopping",
        }
    }
}

/// The server, and how it let us in. What is not known yet is empty or `null`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Server {
    /// As typed: a name, an address or an alias of ssh's configuration.
    pub alias: String,
    /// Name or address that is connected to.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Login name there.
    pub user: String,
    /// Address and port; `null` where another program makes the connection.
    pub address: Option<String>,
    /// Type and fingerprint of its host key.
    pub host_key: String,
    /// What it let us in with, such as `key SHA256:... from the agent`.
    pub login: String,
    /// The cipher, as SSH names it.
    pub cipher: String,
}

/// What carries the connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Carrier {
    /// `russh` or `openssh`, as for `--carrier`.
    pub kind: String,
    /// Why this one.
    pub why: String,
    /// SSH connections at the moment.
    pub connections: usize,
}

/// The connections of applications.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Flows {
    /// Open, or asked for, at the moment.
    pub open: u64,
    /// All since the start.
    pub total: u64,
    /// Ended in order.
    pub finished: u64,
    /// Reset or lost.
    pub broken: u64,
    /// Given up by the application before there was an answer.
    pub withdrawn: u64,
    /// Not opened by the far side, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// One connection of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowReport {
    /// Its number.
    pub flow: u64,
    /// Whether the far side has opened it; else it is asked for.
    pub is_open: bool,
    /// Where it comes from, address and port.
    pub source: String,
    /// Where it goes to, as the application has it.
    pub target: String,
    /// Whom the target stands for (`FAR=LOCAL`): who was asked for in its place; `null` where it is itself.
    pub mapped_to: Option<String>,
    /// When it began.
    pub since: u64,
    /// What it carried.
    pub bytes: Bytes,
    /// The SSH connection that it is on; `null` until it is open, and where it goes past the server.
    pub connection: Option<u32>,
}

/// Bytes of all flows, or of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bytes {
    /// To the far side.
    pub up: u64,
    /// From the far side.
    pub down: u64,
}

/// Something that went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// One line.
    pub text: String,
    /// When.
    pub at: u64,
}

/// Now, in seconds since 1970; 0 on a host whose clock is before that.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scripts read these names.
    #[test]
    fn the_form_is_as_documented() {
        let report = Report {
            name: "prod".to_owned(),
            state: State::NeedsPerson,
            names: Some(Names {
                pool: Some(NamePool::default()),
                ..Names::default()
            }),
            beside: Some(Beside {
                tunnel: Some(Tunnel::default()),
                ..Beside::default()
            }),
            drops: [("udp".to_owned(), 3)].into(),
            last_error: Some(LastError::default()),
            ..Report::default()
        };
        insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap());
    }

    #[test]
    fn what_an_older_or_newer_one_says_is_read() {
        let report: Report = serde_json::from_str(
            "{\"name\":\"a\",\"state\":\"up\",\"mood\":\"fine\",\"bytes\":{\"up\":1}}",
        )
        .unwrap();
        assert_eq!((report.state, report.bytes.up), (State::Up, 1));
    }

    #[test]
    fn the_words_of_the_states_are_those_of_the_form() {
        for state in [
            State::Starting,
            State::Up,
            State::Reconnecting,
            State::NeedsPerson,
            State::Stopping,
        ] {
            let json = serde_json::to_string(&state).unwrap();
            assert_eq!(json, format!("{:?}", state.name()));
        }
    }
}
