//! SNTP: a client's four time stamps (RFC 4330).

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::common::{Lab, V4, V6};
use crate::datagrams::{Server, shell};

/// Both ends have this machine's clock: what lies between the clocks is no more than the way takes.
pub(crate) fn asks_for_the_time(lab: &Lab) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e_protocols/sntp.py");
    let script = script.display().to_string();
    for host in [V4.host, V6.host] {
        let mut command = lab.command("vpc", "python3");
        command
            .args([&script, "serve", host])
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = child.stdout.take().unwrap();
        let _server = Server(child);
        let line = BufReader::new(output).lines().next().unwrap().unwrap();
        assert_eq!(line, "ready");
        let said = shell(lab, "client", &format!("python3 {script} ask {host}"));
        let (offset, delay) = said
            .trim()
            .split_once(' ')
            .unwrap_or_else(|| panic!("{said}"));
        let (offset, delay): (f64, f64) = (offset.parse().unwrap(), delay.parse().unwrap());
        assert!(
            (0.0..5.0).contains(&delay) && offset.abs() <= delay,
            "{said}"
        );
    }
}
