//! Underpass with an audit log, and what stands in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::common::{Lab, Underpass, V4, V6, Value};

/// Underpass with its log in the state directory.
pub(super) struct Audited {
    pub(super) underpass: Underpass,
    pub(super) log: PathBuf,
}

impl Audited {
    pub(super) fn start(lab: &Lab) -> Self {
        let log = lab.state.join("audit.log");
        let args = format!("{} {} --audit-log {}", V4.subnet, V6.subnet, log.display());
        Self {
            underpass: lab.underpass(&args),
            log,
        }
    }

    pub(super) fn lines(&self) -> Vec<Value> {
        lines(&self.log)
    }

    /// All lines, once it has ended.
    pub(super) fn stop(mut self) -> Vec<Value> {
        assert_eq!(self.underpass.stop(Signal::SIGTERM).code(), Some(0));
        self.lines()
    }
}

/// Every line is JSON in printable ASCII, with what all have.
pub(super) fn lines(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap();
    let line = |line: &str| {
        assert!(
            line.bytes().all(|byte| matches!(byte, b' '..=b'~')),
            "{line}"
        );
        let value: Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["v"], 1);
        assert!(value["time"].as_str().unwrap().ends_with('Z'));
        value
    };
    text.lines().map(line).collect()
}

pub(super) fn of<'a>(lines: &'a [Value], event: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["event"] == event).collect()
}

/// The ends of the flows to one port.
pub(super) fn ends(lines: &[Value], port: u16) -> Vec<&Value> {
    let suffix = format!(":{port}");
    let ends = of(lines, "flow_end").into_iter();
    ends.filter(|line| line["target"].as_str().unwrap().ends_with(&suffix))
        .collect()
}

pub(super) fn fingerprint(public: &Path) -> String {
    let output = Command::new("ssh-keygen").arg("-lf").arg(public).output();
    let output = String::from_utf8(output.unwrap().stdout).unwrap();
    output.split(' ').nth(1).unwrap().to_owned()
}
