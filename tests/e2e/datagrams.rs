//! Datagrams that are asked for, and that are answered.

#![allow(dead_code)] // each test file uses its part

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::common::{Lab, finished};

fn script() -> String {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .join("tests/e2e/datagrams.py")
        .display()
        .to_string()
}

/// A server on a host of the lab, until it is dropped.
pub(crate) struct Server(pub(crate) Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Fails when it has ended by itself, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends back what comes to this address.
pub(crate) fn answers(lab: &Lab, role: &str, address: &str, port: u16) -> Server {
    let mut command = lab.command(role, "python3");
    command.args([&script(), "serve", address, &port.to_string()]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    Server(child)
}

/// What becomes of datagrams of these lengths, a line for each.
pub(crate) fn ask(lab: &Lab, role: &str, address: &str, port: u16, lengths: &str) -> String {
    shell(
        lab,
        role,
        &format!("python3 {} ask {address} {port} {lengths}", script()),
    )
}

/// What a command of the shell says on a host of the lab.
pub(crate) fn shell(lab: &Lab, role: &str, command: &str) -> String {
    let mut shell = lab.command(role, "sh");
    shell.args(["-c", &format!("{{ {command}\n}} 2>&1")]);
    String::from_utf8_lossy(&finished(shell).stdout).into_owned()
}
