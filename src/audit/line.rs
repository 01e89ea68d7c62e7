//! The schema: events as JSON objects, one per line, in printable ASCII.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;

use super::Protocol;
use super::event::{End, Flow, Login, Session, Totals};
use super::owner::Owner;
use crate::net::StreamError;
use crate::relay::Outcome;

/// Version of the schema, which the module's documentation describes.
const VERSION: u32 = 1;
/// More of a server's words is not written, in characters.
const MAX_REASON: usize = 300;

/// A time as RFC 3339 with milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time(pub(super) SystemTime);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // humantime writes no time before 1970, nor one after 9999.
        let after_1970 = self.0.max(SystemTime::UNIX_EPOCH);
        serializer.collect_str(&humantime::format_rfc3339_millis(after_1970))
    }
}

/// A line: what all have, and what is its own.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    v: u32,
    time: Time,
    instance: u32,
    #[serde(flatten)]
    body: Body<'a>,
}

/// What is a line's own.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Body<'a> {
    SessionStart(&'a Session),
    SessionLost {
        reason: &'a str,
    },
    SessionBack(&'a Login),
    SessionStop {
        reason: &'a str,
        #[serde(flatten)]
        totals: Totals,
    },
    FlowStart(FlowFields<'a>),
    FlowEnd {
        #[serde(flatten)]
        flow: FlowFields<'a>,
        #[serde(flatten)]
        end: EndFields,
    },
    LinesLost {
        count: u64,
    },
}

/// What is known of a flow from its start on.
#[derive(Debug, Serialize)]
pub(super) struct FlowFields<'a> {
    flow: u64,
    start: Time,
    uid: Option<u32>,
    user: Option<&'a str>,
    pid: Option<u32>,
    process: Option<&'a str>,
    program: Option<&'a str>,
    protocol: Protocol,
    source: SocketAddr,
    target: SocketAddr,
    mapped_to: Option<SocketAddr>,
    /// The name that the server was asked for.
    name: Option<&'a str>,
    carrier: Option<&'a str>,
    server: Option<&'a str>,
    address: Option<SocketAddr>,
    login: Option<&'a str>,
    key: Option<&'a str>,
}

impl<'a> FlowFields<'a> {
    pub(super) fn new(flow: &'a Flow, owner: &'a Owner, login: Option<&'a Login>) -> Self {
        let process = owner.process.as_ref();
        Self {
            flow: flow.number,
            start: Time(flow.start),
            uid: owner.uid,
            user: owner.user.as_deref(),
            pid: process.map(|process| process.pid),
            process: process.map(|process| process.name.as_str()),
            program: process.and_then(|process| process.program.as_deref()),
            protocol: flow.protocol,
            source: flow.key.source.0,
            target: flow.key.target.0,
            mapped_to: flow.mapped_to.map(|far| far.0),
            name: flow.name.as_deref(),
            carrier: login.map(|login| login.carrier),
            server: login.map(|login| login.server.as_str()),
            address: login.and_then(|login| login.address),
            login: login.map(|login| login.user.as_str()),
            key: login.and_then(|login| login.key.as_deref()),
        }
    }
}

/// How a flow ended.
#[derive(Debug, Serialize)]
pub(super) struct EndFields {
    end: Time,
    bytes_up: u64,
    bytes_down: u64,
    outcome: &'static str,
    reason: Option<String>,
}

impl EndFields {
    pub(super) fn new(flow: &Flow, end: &End) -> Self {
        let (outcome, reason) = words(end.outcome.as_ref());
        Self {
            end: Time(end.time),
            bytes_up: flow.traffic.up.load(Relaxed),
            bytes_down: flow.traffic.down.load(Relaxed),
            outcome,
            reason,
        }
    }
}

fn words(outcome: Option<&Outcome>) -> (&'static str, Option<String>) {
    match outcome {
        None => ("stopped", None),
        Some(Outcome::Finished) => ("finished", None),
        Some(Outcome::Broken(StreamError::Reset)) => ("reset", None),
        Some(Outcome::Broken(StreamError::Lost)) => ("lost", None),
        Some(Outcome::Withdrawn) => ("withdrawn", None),
        Some(Outcome::Refused(error)) => {
            let reason = error.to_string().chars().take(MAX_REASON).collect();
            ("refused", Some(reason))
        }
    }
}

/// Appends a line to `buffer`, with its end.
pub(super) fn write(buffer: &mut Vec<u8>, time: SystemTime, body: Body<'_>) {
    let line = Line {
        v: VERSION,
        time: Time(time),
        instance: std::process::id(),
        body,
    };
    let begin = buffer.len();
    let mut serializer = serde_json::Serializer::with_formatter(&mut *buffer, Ascii);
    if let Err(error) = line.serialize(&mut serializer) {
        // Nothing in these types can fail; half a line would be worse than none.
        tracing::debug!("an audit line could not be written: {error}");
        buffer.truncate(begin);
        return;
    }
    buffer.push(b'\n');
}

/// JSON in which every character that is not printable ASCII is escaped (RFC 8259 section 7).
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if fragment.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return writer.write_all(fragment.as_bytes());
        }
        for character in fragment.chars() {
            if matches!(character, ' '..='~') {
                write!(writer, "{character}")?;
                continue;
            }
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::net::{FlowKey, OpenError, OpenFailure, Source, Target};
    use crate::os::Process;

    fn flow() -> Flow {
        Flow::new(
            7,
            Protocol::Udp,
            FlowKey {
                source: Source("10.9.0.1:4242".parse().unwrap()),
                target: Target("[fd00::1]:80".parse().unwrap()),
            },
            Some(Target("[fd00:10::1]:80".parse().unwrap())),
            Some("db.test".into()),
        )
    }

    fn parsed(time: SystemTime, body: Body<'_>) -> Value {
        let mut buffer = Vec::new();
        write(&mut buffer, time, body);
        let line = buffer.strip_suffix(b"\n").unwrap();
        assert!(line.iter().all(|byte| matches!(byte, b' '..=b'~')));
        serde_json::from_slice(line).unwrap()
    }

    #[test]
    fn an_end_says_how_and_why() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_234);
        let owner = Owner::default();
        for (outcome, word, reason) in [
            (None, "stopped", None),
            (Some(Outcome::Finished), "finished", None),
            (Some(Outcome::Broken(StreamError::Reset)), "reset", None),
            (Some(Outcome::Broken(StreamError::Lost)), "lost", None),
            (Some(Outcome::Withdrawn), "withdrawn", None),
            (
                Some(Outcome::Refused(OpenError::new(OpenFailure::Refused, "no"))),
                "refused",
                Some("refused (no)"),
            ),
        ] {
            let flow = flow();
            let body = Body::FlowEnd {
                flow: FlowFields::new(&flow, &owner, None),
                end: EndFields::new(&flow, &End { time, outcome }),
            };
            let line = parsed(time, body);
            assert_eq!(line["v"], 1);
            assert_eq!(line["event"], "flow_end");
            assert_eq!(line["end"], "1970-01-01T00:00:01.234Z");
            assert_eq!(line["outcome"], word);
            assert_eq!(line["reason"].as_str(), reason);
            assert_eq!(line["protocol"], "udp");
            assert_eq!(line["target"], "[fd00::1]:80");
            assert_eq!(line["mapped_to"], "[fd00:10::1]:80");
            assert_eq!(line["name"], "db.test");
            assert!(line["uid"].is_null());
        }
    }

    proptest! {
        #[test]
        fn any_name_is_one_line_of_ascii_and_comes_back(name: String, user: String) {
            let process = Process { pid: 1, name: name.clone(), program: Some(name.clone()) };
            let owner = Owner { uid: Some(1), user: Some(user.as_str().into()), process: Some(process), ..Owner::default() };
            let flow = flow();
            let line = parsed(SystemTime::now(), Body::FlowStart(FlowFields::new(&flow, &owner, None)));
            prop_assert_eq!(line["process"].as_str(), Some(name.as_str()));
            prop_assert_eq!(line["user"].as_str(), Some(user.as_str()));
            let line = parsed(SystemTime::now(), Body::SessionLost { reason: &name });
            prop_assert_eq!(line["reason"].as_str(), Some(name.as_str()));
        }
    }
}
