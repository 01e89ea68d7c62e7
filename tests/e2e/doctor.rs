//! `doctor` tells what is so, for servers that allow more and less, changes nothing and never hangs.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::server::{NameServer, sshd_in};
use crate::common::{Lab, V4, Value, carrier, finished};

/// `underpass doctor` in the client, with the lab's key and known_hosts.
fn command(lab: &Lab, wrapper: &[&str], args: &str) -> Command {
    let mut command = lab.command("client", "setsid");
    command
        .args(wrapper)
        .arg(env!("CARGO_BIN_EXE_underpass"))
        .arg("doctor");
    if args.contains("-r ") {
        command.args(["--carrier", carrier()]);
        command.args([
            "-o",
            &format!("UserKnownHostsFile={}", lab.file("known_hosts")),
        ]);
        if !args.contains("-i ") {
            command.args(["-i", &lab.file("id")]);
        }
    }
    command
        .args(args.split_whitespace())
        .env("HOME", &lab.state)
        .env_remove("SSH_AUTH_SOCK")
        .env("NO_COLOR", "1");
    command
}

fn doctor(lab: &Lab, args: &str) -> Findings {
    let before = lab.network_state("client");
    let findings = Findings::of(&finished(command(lab, &[], &format!("{args} --json"))));
    assert_eq!(lab.network_state("client"), before);
    findings
}

struct Findings {
    code: i32,
    report: Value,
}

impl Findings {
    fn of(output: &Output) -> Self {
        let said = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_slice(&output.stdout);
        Self {
            code: output.status.code().unwrap(),
            report: report.unwrap_or_else(|error| panic!("{error}: {said}")),
        }
    }

    fn check(&self, name: &str) -> &Value {
        let groups = self.report["groups"].as_array().unwrap().iter();
        let mut checks = groups.flat_map(|group| group["checks"].as_array().unwrap());
        checks
            .find(|check| check["check"] == name)
            .unwrap_or_else(|| panic!("no {name} in {:#}", self.report))
    }

    fn expect(&self, code: i32, verdicts: &[(&str, &str)]) {
        for (name, verdict) in verdicts {
            let check = self.check(name);
            assert_eq!(check["verdict"], *verdict, "{check:#}");
            if matches!(*verdict, "warn" | "fail") {
                assert!(check["advice"].is_string(), "{check:#}");
            }
        }
        assert_eq!(self.code, code, "{:#}", self.report);
    }
}

#[test]
fn a_server_that_allows_everything() {
    let lab = Lab::up();
    let _far = NameServer::start(&lab, "vpc", V4.host, &[]);
    let args = format!(
        "-r root@192.168.77.1 {subnet} --probe {host}:80 --dns --dns-server {host}",
        subnet = V4.subnet,
        host = V4.host
    );
    let found = doctor(&lab, &args);
    found.expect(
        0,
        &[
            ("carrier", "pass"),
            ("reach", "pass"),
            ("host-key", "pass"),
            ("login", "pass"),
            ("forwarding", "pass"),
            ("probe", "pass"),
            ("exec", "pass"),
            ("nodelay", "pass"),
            ("latency", "pass"),
            ("window", "pass"),
            ("far-clock", "pass"),
            ("far-resolver", "pass"),
            ("overlap", "pass"),
            ("leftovers", "pass"),
            ("key-type", "pass"),
            ("key-age", "pass"),
            ("password-login", "warn"),
            ("passphrase", "warn"),
            ("root-login", "warn"),
            ("restrictions", "warn"),
        ],
    );
    assert_eq!(found.report["v"], 1);
    assert_eq!(found.report["verdict"], "warn");
}

#[test]
fn a_key_that_is_restricted() {
    let lab = Lab::up();
    let found = doctor(&lab, "-r root@192.168.77.1:2201");
    found.expect(
        0,
        &[
            ("forwarding", "pass"),
            ("restrictions", "pass"),
            ("tun", "pass"),
        ],
    );
    assert!(
        found.check("restrictions")["found"]
            .as_str()
            .unwrap()
            .contains("restricted")
    );
}

#[test]
fn a_server_that_forwards_to_some_targets_only() {
    let lab = Lab::up();
    let server = "-r root@192.168.77.1:2202";
    doctor(&lab, server).expect(0, &[("forwarding", "warn")]);
    let permitted = doctor(&lab, &format!("{server} --probe {}:80", V4.host));
    permitted.expect(0, &[("forwarding", "pass"), ("probe", "pass")]);
    let forbidden = doctor(&lab, &format!("{server} --probe {}:80", V4.other));
    forbidden.expect(1, &[("forwarding", "fail"), ("probe", "fail")]);
}

/// Of whom the server asks, and of whom was named: who is not there, and who takes a connection and says nothing.
#[test]
fn a_name_server_that_never_answers() {
    let lab = Lab::up();
    let _far = NameServer::start(&lab, "vpc", V4.host, &[]);
    let silent = "import socket,time; s=socket.create_server(('10.0.1.20',5353)); print('up',flush=True); time.sleep(999)";
    let mut command = lab.command("vpc", "python3");
    command.args(["-c", silent]).stdout(Stdio::piped());
    let mut silent = command.spawn().unwrap();
    silent
        .stdout
        .take()
        .unwrap()
        .read_exact(&mut [0; 3])
        .unwrap();
    let resolv = format!("nameserver {}\nnameserver {}\n", V4.black_hole, V4.host);
    sshd_in(&lab, 2212, "", &[("/etc/resolv.conf", &resolv)]);
    let dead = format!("nameserver {}\n", V4.black_hole);
    sshd_in(&lab, 2213, "", &[("/etc/resolv.conf", &dead)]);
    for (port, names, code, verdict, words) in [
        (2212, "--dns", 0, "warn", "no answer from"),
        (2213, "", 0, "warn", "no answer from"),
        (2213, "--dns", 1, "fail", "no answer from"),
        (2213, "--dns --dns-server 10.0.1.20", 0, "pass", "10.0.1.20"),
        (
            2213,
            "--dns --dns-server 10.0.1.20:5353",
            1,
            "fail",
            "no answer from 10.0.1.20:5353",
        ),
    ] {
        let found = doctor(
            &lab,
            &format!("-r root@192.168.77.1:{port} {} {names}", V4.subnet),
        );
        found.expect(code, &[("far-resolver", verdict)]);
        let check = found.check("far-resolver");
        assert!(
            check["found"].as_str().unwrap().contains(words),
            "{check:#}"
        );
        let advice = check["advice"].as_str().unwrap_or("--dns-server");
        assert!(advice.contains("--dns-server"), "{check:#}");
    }
    silent.kill().unwrap();
    silent.wait().unwrap();
}

#[test]
fn a_server_without_sessions() {
    let lab = Lab::up();
    let found = doctor(&lab, "-r root@192.168.77.1:2203");
    found.expect(
        0,
        &[
            ("exec", "pass"),
            ("nodelay", "pass"),
            ("far-resolver", "skip"),
        ],
    );
    assert!(
        found.check("restrictions")["found"]
            .as_str()
            .unwrap()
            .contains("forwarding only")
    );
}

#[test]
fn a_login_that_fails_says_where() {
    let lab = Lab::up();
    let changed = doctor(&lab, "-r root@192.168.77.1:2204");
    changed.expect(
        1,
        &[("reach", "pass"), ("host-key", "fail"), ("login", "skip")],
    );
    doctor(&lab, "-r root@192.168.77.1:2299").expect(1, &[("reach", "fail"), ("login", "skip")]);
    let wrong = format!("-r root@192.168.77.1 -i {}", lab.file("id_wrong"));
    doctor(&lab, &wrong).expect(1, &[("host-key", "pass"), ("login", "fail")]);
    doctor(&lab, "-r root@no-such-host.invalid").expect(1, &[("name", "fail"), ("reach", "skip")]);
}

#[test]
fn targets_as_the_server_sees_them() {
    let lab = Lab::up();
    for (target, code, verdict) in [
        (format!("{}:81", V4.host), 0, "warn"),
        (format!("{}:80", V4.no_such_host), 1, "fail"),
        (format!("{}:80", V4.black_hole), 1, "fail"),
        ("no-such-host.invalid:80".to_owned(), 1, "fail"),
    ] {
        let found = doctor(&lab, &format!("-r root@192.168.77.1 --probe {target}"));
        found.expect(code, &[("probe", verdict)]);
    }
}

/// No root, no server, no configuration: this host only, as a table.
#[test]
fn a_host_as_an_ordinary_user() {
    let lab = Lab::up();
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let output = finished(command(&lab, &nobody, ""));
    let table = String::from_utf8(output.stdout).unwrap();
    for name in [
        "kernel",
        "tun-device",
        "privilege",
        "user-namespaces",
        "resolver",
        "leftovers",
    ] {
        assert!(table.contains(name), "no {name} in {table}");
    }
    assert!(!table.contains("login"), "{table}");
    assert_eq!(output.status.code(), Some(0), "{table}");
}

#[test]
fn subnets_that_meet_a_network_of_this_host() {
    let lab = Lab::up();
    let found = doctor(&lab, "-r root@192.168.77.1 172.31.0.0/16");
    found.expect(0, &[("overlap", "warn")]);
    doctor(&lab, "-r root@192.168.77.1 10.0.0.0/99").expect(1, &[("arguments", "fail")]);
}

/// Asked for in a way that makes no device, for whatever key.
#[test]
fn whether_a_server_makes_tunnels() {
    let lab = Lab::up();
    lab.further_sshd(2210, "authorized_keys", "PermitTunnel yes");
    lab.further_sshd(
        2211,
        "authorized_keys.restricted",
        "PermitTunnel point-to-point",
    );
    let before = lab.network_state("bastion");
    let number = newest_link(&lab);
    for (port, verdict, found) in [
        (22, "pass", "not permitted"),
        (2201, "pass", "not permitted"),
        (2210, "pass", "is permitted"),
        (2211, "warn", "seems to be restricted"),
    ] {
        let findings = doctor(&lab, &format!("-r root@192.168.77.1:{port}"));
        findings.expect(0, &[("tun", verdict)]);
        let said = findings.check("tun")["found"].as_str().unwrap();
        assert!(said.contains(found), "{port}: {said}");
    }
    assert_eq!(lab.network_state("bastion"), before);
    // Numbers of devices are given out in turn, those of devices that came and went, too.
    assert_eq!(newest_link(&lab), number + 1);
}

/// The number of a device that is made on the bastion, and goes.
fn newest_link(lab: &Lab) -> u64 {
    let mut command = lab.command("bastion", "sh");
    let script =
        "ip link add probe type bridge && cat /sys/class/net/probe/ifindex; ip link del probe";
    command.args(["-c", &format!("mount -t sysfs sys /sys; {script}")]);
    let mut private = Command::new("unshare");
    private
        .arg("-m")
        .arg(command.get_program())
        .args(command.get_args());
    let output = finished(private);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.trim().parse().unwrap_or_else(|_| panic!("{output:?}"))
}

/// `doctor` where `script` was run before, in a mount namespace of its own.
fn doctor_after(lab: &Lab, script: &str, args: &str) -> Findings {
    let script = format!("{script} && exec \"$@\"");
    let wrapper = ["unshare", "-m", "sh", "-c", &script, "sh"];
    Findings::of(&finished(command(lab, &wrapper, &format!("{args} --json"))))
}

#[test]
fn a_host_that_names_no_resolver() {
    let lab = Lab::up();
    let empty = lab.file("empty_known_hosts");
    let mount = format!("mount --bind {empty} /etc/resolv.conf");
    doctor_after(&lab, &mount, "").expect(0, &[("resolver", "warn")]);
    std::fs::write(&empty, "nameserver 192.0.2.53\n").unwrap();
    doctor_after(&lab, &mount, "").expect(0, &[("resolver", "pass")]);
}

#[test]
fn a_container_that_filters_strictly() {
    let lab = Lab::up();
    let set = |value: u8| {
        let mut command = lab.command("client", "sh");
        let file = "/proc/sys/net/ipv4/conf/all/rp_filter";
        command.args(["-c", &format!("echo {value} >{file}")]);
        assert!(finished(command).status.success());
    };
    let fixed = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys";
    set(1);
    doctor_after(&lab, fixed, "").expect(0, &[("rp-filter", "warn")]);
    doctor(&lab, "").expect(0, &[("rp-filter", "pass")]);
    set(2);
    doctor_after(&lab, fixed, "").expect(0, &[("rp-filter", "pass")]);
}

/// Guard and worker killed in one moment: nobody was left to take the rules back.
#[test]
fn what_a_killed_run_has_left() {
    let lab = Lab::up();
    let mut underpass = lab.underpass(V4.subnet);
    let is_helper = |pid: &Pid| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.ends_with(b"helper\0")
    };
    let helpers: Vec<Pid> = lab
        .processes("client")
        .into_iter()
        .filter(is_helper)
        .collect();
    assert_eq!(helpers.len(), 2);
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        for helper in &helpers {
            kill(*helper, signal).unwrap();
        }
    }
    assert_eq!(underpass.wait().code(), Some(1));
    underpass.wait_for_line("sudo underpass cleanup");
    let found = doctor(&lab, "");
    found.expect(0, &[("leftovers", "warn")]);
    let said = found.check("leftovers")["found"].as_str().unwrap();
    assert!(said.contains("rule"), "{said}");
    assert!(lab.ask("cleanup").status.success());
    doctor(&lab, "").expect(0, &[("leftovers", "pass")]);
}

#[test]
fn a_key_that_is_old_and_an_agent_that_is_forwarded() {
    let lab = Lab::up();
    let key = std::fs::File::open(lab.file("id")).unwrap();
    let three_years = Duration::from_secs(3 * 365 * 24 * 3600);
    key.set_modified(SystemTime::now() - three_years).unwrap();
    let found = doctor(&lab, "-r root@192.168.77.1 -o ForwardAgent=yes");
    found.expect(0, &[("key-age", "warn"), ("agent-forwarding", "warn")]);
    let advice = found.check("key-age")["advice"].as_str().unwrap();
    let id = lab.file("id");
    for part in [
        format!("ssh-keygen -t ed25519 -f {id}.new && ssh "),
        format!(" 192.168.77.1 'cat >>.ssh/authorized_keys' <{id}.new.pub"),
    ] {
        assert!(advice.contains(&part), "{advice}");
    }
    let found = doctor(&lab, "-r root@192.168.77.1 -o ForwardAgent=no");
    found.expect(0, &[("agent-forwarding", "pass")]);
}

/// Ends with the test.
struct Agent(std::process::Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// No file of it is named: the agent says of which type it is, and the rest is said to be unknown.
#[test]
fn a_key_that_only_the_agent_has() {
    let lab = Lab::up();
    let socket = lab.file("agent");
    let mut agent = Command::new("ssh-agent");
    agent
        .args(["-D", "-a", &socket])
        .stdout(std::process::Stdio::null());
    let agent = Agent(agent.spawn().unwrap());
    crate::common::eventually("the agent listens", || UnixStream::connect(&socket).is_ok());
    let mut add = Command::new("ssh-add");
    add.args(["-q", &lab.file("id")])
        .env("SSH_AUTH_SOCK", &socket);
    assert!(finished(add).status.success());
    let other = lab.file("id_wrong");
    let found = doctor(
        &lab,
        &format!("-r root@192.168.77.1 -i {other} -o IdentityAgent={socket}"),
    );
    drop(agent);
    found.expect(
        0,
        &[
            ("credential", "pass"),
            ("key-type", "pass"),
            ("passphrase", "skip"),
            ("key-age", "skip"),
        ],
    );
    let said = found.check("key-type")["found"].as_str().unwrap();
    assert!(
        said.starts_with("the agent's key SHA256:") && said.ends_with(": ED25519"),
        "{said}"
    );
}
