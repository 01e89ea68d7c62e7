//! A real name server on a host of the lab.

#![allow(dead_code, unreachable_pub)] // as in the other fixtures
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use super::common::Lab;

/// dnsmasq, which answers over UDP and TCP; gone when dropped.
pub struct NameServer {
    child: Child,
    log: String,
}

impl NameServer {
    /// On `role` at `address`, with these options; what it is asked is written down.
    pub fn start(lab: &Lab, role: &str, address: &str, options: &[String]) -> Self {
        let log = lab.file(&format!("dns-{role}-{address}.log"));
        let mut command = lab.command(role, "dnsmasq");
        command
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--user=root",
            ])
            .args([
                "--no-resolv",
                "--no-hosts",
                "--bind-interfaces",
                "--pid-file=",
            ])
            .args(["--local-ttl=60", "--log-queries", "--port=53"])
            .arg(format!("--listen-address={address}"))
            // stderr.
            .arg("--log-facility=-")
            .args(options)
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .expect("dnsmasq is installed by scripts/test");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        loop {
            let line = lines
                .next()
                .unwrap_or_else(|| panic!("{}", said.join("\n")))
                .unwrap();
            let is_up = line.contains("started, version");
            said.push(line);
            if is_up {
                break;
            }
        }
        let file = log.clone();
        std::thread::spawn(move || {
            let mut text = String::new();
            for line in lines.map_while(Result::ok) {
                text.push_str(&line);
                text.push('\n');
                fs::write(&file, &text).ok();
            }
        });
        Self { child, log }
    }

    /// What it was asked, a line for each question.
    pub fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let questions = text.lines().filter(|line| line.contains("query["));
        questions.map(str::to_owned).collect()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        // The number is its own until it was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
