//! A real name server on a host of the lab.

#![allow(dead_code, unreachable_pub)] // as in the other fixtures, and each test file uses its part
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use crate::common::{Lab, eventually, finished};

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
        // Added to, so that who reads it meanwhile sees all that came before.
        let mut file = File::create(&log).unwrap();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                writeln!(file, "{line}").ok();
            }
        });
        Self { child, log }
    }

    /// What it was asked, a line for each question.
    pub fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        // But for the one that finds out whether it answers at all.
        let is_check = |line: &str| line.contains("query[NS] . ");
        let questions = text.lines();
        let questions = questions.filter(|line| line.contains("query[") && !is_check(line));
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

/// What sshd runs in: these files are mounted over the host's.
const MOUNTED: &str = "set -e; conf=$1; shift; while [ $# -gt 0 ]; do mount --bind \"$1\" \"$2\"; shift 2; done; \
    exec /usr/sbin/sshd -f \"$conf\" -E \"$conf.log\"";

/// A further sshd on the bastion, with `more` in its configuration, where these files have these texts.
pub fn sshd_in(lab: &Lab, port: u16, more: &str, files: &[(&str, &str)]) {
    lab.further_sshd(port, "authorized_keys", more);
    let pid_file = lab.state.join(format!("sshd-{port}.pid"));
    // It is there before its text is.
    let is_written = || fs::read_to_string(&pid_file).is_ok_and(|text| text.ends_with('\n'));
    eventually("sshd has written its pid", is_written);
    lab.kill_sshd_at(port);
    fs::remove_file(&pid_file).unwrap();
    let mut sshd = lab.command("bastion", "unshare");
    sshd.args(["-m", "sh", "-c", MOUNTED, "sh"])
        .arg(lab.file(&format!("sshd-{port}.conf")));
    for (number, (path, text)) in files.iter().enumerate() {
        let file = lab.file(&format!("sshd-{port}-{number}"));
        fs::write(&file, text).unwrap();
        sshd.args([&file, *path]);
    }
    let started = finished(sshd);
    assert!(started.status.success(), "{started:?}");
    eventually("sshd listens", is_written);
}

/// One that knows the hosts of `hosts` by name, and nobody else.
pub fn sshd_that_knows(lab: &Lab, port: u16, hosts: &str) {
    let nss = "passwd: files\nhosts: files\n";
    let files = [("/etc/hosts", hosts), ("/etc/nsswitch.conf", nss)];
    sshd_in(lab, port, "", &files);
}
