//! `run` as cron starts it, and ports that are published on one address, or the wrong way round.

use std::process::Command;

use super::*;

/// What cron(8) leaves: no HOME, no TERM, no terminal, nothing to read, and hardly a PATH.
fn bare(rig: &Rig, environment: &[&str], args: &str) -> Command {
    let mut command = rig.as_user("setsid");
    command
        .args(["--wait", "env", "-i"])
        .args(environment)
        .args([UNDERPASS, "run"])
        .args(rig.login())
        .args(args.split_whitespace());
    command
}

#[test]
fn in_a_bare_environment() {
    let rig = Rig::new();
    let get = [&probe_program(), "get", V4.host, "5001", "300001"].map(str::to_owned);
    for carrier in ["russh", "openssh"] {
        for environment in [&["PATH=/usr/bin:/bin"][..], &[]] {
            let args = format!("--carrier {carrier} {} --", V4.subnet);
            let mut command = bare(&rig, environment, &args);
            command.args(&get).stdin(Stdio::null());
            let output = finished(command);
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{carrier}: {}", said(&output));
            assert!(printed.contains("\"ok\""), "{carrier}: {printed}");
            assert_eq!(said(&output), "", "{carrier}");
        }
    }
    // The command's environment is no richer than ours.
    let args = format!("{} -- /usr/bin/env", V4.subnet);
    let output = finished(bare(&rig, &["PATH=/usr/bin:/bin"], &args));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(printed, "PATH=/usr/bin:/bin\n", "{}", said(&output));
    // Nobody is there to be asked, and that is said, in one line, and soon.
    let unknown = "-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=ask";
    let mut command = rig.as_user("setsid");
    command
        .args([
            "--wait",
            "env",
            "-i",
            "PATH=/usr/bin:/bin",
            UNDERPASS,
            "run",
        ])
        .args(unknown.split(' '))
        .args(rig.login())
        .args([V4.subnet, "--", "true"]);
    let output = finished(command);
    assert_eq!(output.status.code(), Some(125), "{}", said(&output));
    assert_eq!(said(&output).lines().count(), 1, "{}", said(&output));
    assert!(said(&output).contains("host key"), "{}", said(&output));
}

/// A command in its network, which has begun and waits.
struct Published {
    child: Child,
}

impl Published {
    fn start(rig: &Rig, args: &str, script: &str) -> Self {
        let script = format!("echo up; {script}");
        let args = format!("{} {args}", V4.subnet);
        let mut command = rig.run_command(&args, &["sh", "-c", &script]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut first = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut first).unwrap();
        child.stdout = Some(output.into_inner());
        Self { child }
    }

    /// Lets the command end; what was said meanwhile.
    fn end(mut self) -> String {
        drop(self.child.stdin.take());
        let output = self.child.wait_with_output().unwrap();
        said(&output)
    }
}

/// What a host of the lab gets from a port.
fn ask(rig: &Rig, role: &str, address: &str, port: &str) -> String {
    let mut nc = rig.lab.command(role, "nc");
    nc.args(["-d", "-w", "5", address, port]);
    String::from_utf8(finished(nc).stdout).unwrap()
}

#[test]
fn a_port_is_published_on_the_address_that_was_named_alone() {
    let rig = Rig::new();
    let published = "--publish 172.31.0.1:18080:8080 --publish [fd00:31::1]:18081:8080";
    let script = "echo hello | nc -lN 127.0.0.1 8080; echo hello | nc -lN 127.0.0.1 8080";
    let run = Published::start(&rig, published, script);
    let mut ss = rig.lab.command("client", "ss");
    ss.args(["-Htln"]);
    let listeners = String::from_utf8(finished(ss).stdout).unwrap();
    let mut ours: Vec<&str> = listeners
        .split_whitespace()
        .filter(|word| word.ends_with(":18080") || word.ends_with(":18081"))
        .collect();
    ours.sort_unstable();
    assert_eq!(ours, ["172.31.0.1:18080", "[fd00:31::1]:18081"]);
    for (role, address, port) in [
        ("client", "127.0.0.1", "18080"),
        ("client", "::1", "18081"),
        ("bastion", "192.168.77.2", "18080"),
        ("box", "172.31.0.1", "18081"),
    ] {
        let refused = rig.lab.result(role, &format!("connect {address} {port}"));
        assert_eq!(refused, "ECONNREFUSED", "{role} {address} {port}");
    }
    for (address, port) in [("172.31.0.1", "18080"), ("fd00:31::1", "18081")] {
        // From a host beside this one; and the listener inside may not be there yet.
        eventually("it is reached", || {
            ask(&rig, "box", address, port) == "hello\n"
        });
    }
    assert_eq!(run.end(), "");
}

#[test]
fn ports_the_wrong_way_round_are_noticed() {
    let rig = Rig::new();
    // A port that the user may not have.
    let args = format!("{} --publish 80:8080", V4.subnet);
    let output = rig.run(&args, &["true"]);
    assert_eq!(output.status.code(), Some(125));
    let hint = "this host's port stands before the command's: --publish 8080:80\n";
    assert!(said(&output).ends_with(hint), "{}", said(&output));
    // A port that the command does not have, and the other one it has.
    let listen = "nc -l 127.0.0.1 8080 >&2 & read line; kill $!";
    let run = Published::start(&rig, "--publish 8080:18080", listen);
    eventually("the command listens", || {
        let Some(command) = descendant(run.child.id(), "nc") else {
            return false;
        };
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--net", "--target", &command, "ss", "-Htln"]);
        String::from_utf8_lossy(&finished(nsenter).stdout).contains(":8080")
    });
    for _ in 0..3 {
        assert_eq!(ask(&rig, "client", "127.0.0.1", "8080"), "");
    }
    let said = run.end();
    let line = "--publish 8080:18080: the command listens on port 8080, not 18080; this host's port stands before the \
                command's: --publish 18080:8080";
    assert_eq!(said.matches(line).count(), 1, "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// The process below `pid` that runs `name`.
fn descendant(pid: u32, name: &str) -> Option<String> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().find_map(|child| {
        let comm = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
        if comm.trim_end() == name {
            return Some(child.to_owned());
        }
        descendant(child.parse().ok()?, name)
    })
}

/// `doctor` tries what `run` does, and says what it would say.
#[test]
fn doctor_says_of_namespaces_what_run_says() {
    let script = "echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --bounding-set -all --inh-caps -all \"$@\"";
    let forbidden = Rig::with_user(&["unshare", "-Ur", "sh", "-c", script, "sh"], 0);
    for (rig, verdict, words) in [
        (
            forbidden,
            "warn",
            "run: sudo sysctl -w user.max_user_namespaces=15000",
        ),
        (Rig::new(), "pass", "one was made"),
    ] {
        let before = rig.lab.network_state("client");
        let mut doctor = rig.as_user(UNDERPASS);
        doctor.args(["doctor", "--json"]);
        let report: crate::common::Value =
            serde_json::from_slice(&finished(doctor).stdout).unwrap();
        let checks = report["groups"][0]["checks"].as_array().unwrap();
        let check = checks
            .iter()
            .find(|check| check["check"] == "user-namespaces")
            .unwrap();
        assert_eq!(check["verdict"], verdict, "{check}");
        assert!(check.to_string().contains(words), "{check}");
        assert_eq!(rig.lab.network_state("client"), before);
    }
}
