//! `up --dns` on a host with a plain /etc/resolv.conf: every program finds private names, and the file comes back however it ends.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::{Signal, kill};

use crate::common::{Lab, Underpass, V4, eventually, finished};
use crate::e2e::server::{NameServer, sshd_that_knows};

/// The far name server.
const FAR: &str = "10.0.1.20";
/// The one that the host had before.
const NEAR: &str = "127.0.0.1";
const BEFORE: &str = "# by hand\nnameserver 127.0.0.1\nsearch corp.internal\n";

/// A mount namespace in which /etc is the lab's own copy, and what `$MORE` does.
const SURROUNDINGS: &str = "set -e; mount --bind \"$ETC\" /etc; eval \"$MORE\"; exec \"$@\"";

struct Host {
    lab: Lab,
    near: NameServer,
    _far: NameServer,
    etc: PathBuf,
    more: &'static str,
}

impl Host {
    fn new() -> Self {
        let lab = Lab::up();
        let far = ["--host-record=api.corp.internal,10.0.1.20".to_owned()];
        let far = NameServer::start(&lab, "vpc", FAR, &far);
        let near = [
            "--host-record=bastion.test,192.168.77.1".to_owned(),
            "--host-record=gw.corp.internal,192.168.77.1".to_owned(),
            "--host-record=svc.test,192.0.2.31".to_owned(),
            "--host-record=www.api.names.test,192.0.2.32".to_owned(),
            "--ptr-record=20.1.0.10.in-addr.arpa,near.test".to_owned(),
        ];
        let near = NameServer::start(&lab, "client", NEAR, &near);
        let etc = lab.state.join("etc");
        let copied = Command::new("cp").arg("-a").arg("/etc").arg(&etc).status();
        assert!(copied.unwrap().success());
        let conf = etc.join("resolv.conf");
        fs::remove_file(&conf).unwrap();
        fs::write(&conf, BEFORE).unwrap();
        fs::write(
            etc.join("nsswitch.conf"),
            "passwd: files\nhosts: files dns\n",
        )
        .unwrap();
        Self {
            lab,
            near,
            _far: far,
            etc,
            more: "true",
        }
    }

    fn wrapper(&self) -> Vec<String> {
        let etc = format!("ETC={}", self.etc.display());
        let more = format!("MORE={}", self.more);
        [
            "env",
            &etc,
            &more,
            "unshare",
            "-m",
            "sh",
            "-c",
            SURROUNDINGS,
            "sh",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn up(&self) -> Underpass {
        self.up_with(&format!("--dns --dns-server {FAR} {}", V4.subnet))
    }

    fn up_with(&self, args: &str) -> Underpass {
        self.up_at("bastion.test", args)
    }

    fn up_at(&self, server: &str, args: &str) -> Underpass {
        let args = format!("-r root@{server} -o HostKeyAlias=192.168.77.1 {args}");
        let wrapper = self.wrapper();
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        Underpass::start(self.lab.wrapped_up_command(&wrapper, &args))
    }

    /// `status --json`.
    fn status(&self) -> serde_json::Value {
        let mut command = self.lab.command("client", env!("CARGO_BIN_EXE_underpass"));
        command
            .args(["status", "--json"])
            .env("UNDERPASS_RUNTIME_DIR", self.lab.state.join("run"));
        let output = finished(command);
        let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        all[0].clone()
    }

    /// What resolv.conf says outside of the namespace: the same file, unless something is mounted on it inside.
    fn conf(&self) -> String {
        fs::read_to_string(self.etc.join("resolv.conf")).unwrap()
    }

    /// A program on the host, where `underpass` runs.
    fn prints(&self, underpass: &Underpass, program: &str) -> String {
        let mount = format!("--mount=/proc/{}/ns/mnt", underpass.pid());
        let mut command = self.lab.command("client", "nsenter");
        command.arg(mount).args(["--", "sh", "-c", program]);
        String::from_utf8(finished(command).stdout).unwrap()
    }

    fn left(&self) -> Vec<String> {
        let names = fs::read_dir(&self.etc).unwrap().flatten();
        let names = names.map(|entry| entry.file_name().into_string().unwrap());
        names
            .filter(|name| name.starts_with("resolv.conf."))
            .collect()
    }

    fn is_as_before(&self) -> bool {
        self.conf() == BEFORE && self.left().is_empty()
    }

    /// All of its processes at once, so that its file stays.
    fn kill_all_of(&self, mut underpass: Underpass) {
        let ours = self.conf();
        let is_its = |pid: &nix::unistd::Pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.starts_with("underpass")
        };
        let mut pids = self.lab.processes("client");
        pids.retain(is_its);
        for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
            for pid in &pids {
                let _ = kill(*pid, signal);
            }
        }
        underpass.wait();
        assert_eq!(self.conf(), ours);
    }

    fn cleanup(&self) {
        let wrapper = self.wrapper();
        let mut command = self.lab.command("client", &wrapper[0]);
        command
            .args(&wrapper[1..])
            .args([env!("CARGO_BIN_EXE_underpass"), "cleanup"])
            .env("UNDERPASS_RUNTIME_DIR", self.lab.state.join("run"));
        let output = finished(command);
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn every_program_finds_private_names_until_the_end() {
    let host = Host::new();
    let mut underpass = host.up();
    let conf = host.conf();
    assert!(
        conf.contains("\nnameserver 198.19.255.53\nsearch corp.internal\n"),
        "{conf}"
    );
    let found = host.prints(
        &underpass,
        "getent ahostsv4 api; curl -4 -sS -o /dev/null -w 'http %{http_code}\\n' http://api.corp.internal/; \
         dig +short api.corp.internal; dig +tcp +short api.corp.internal; dig @198.19.255.54 +tries=1 +time=2 x.test | grep -c refused",
    );
    assert!(
        found.contains("10.0.1.20 ") && found.contains("http 200\n10.0.1.20\n10.0.1.20\n"),
        "{found}"
    );
    let status = underpass.stop(Signal::SIGTERM);
    let log = underpass.log().join("\n");
    assert!(status.success() && !log.contains("do not ask"), "{log}");
    assert!(host.is_as_before(), "{}", host.conf());
    let near = host.near.asked().join("\n");
    assert!(
        near.contains("bastion.test") && !near.contains("corp.internal"),
        "{near}"
    );
}

fn comes_back(host: &Host, mut underpass: Underpass) {
    host.lab.kill_sshd();
    underpass.wait_for_line("connection lost");
    host.lab.start_sshd();
    eventually("names are found again", || {
        host.prints(&underpass, "getent ahostsv4 api.corp.internal")
            .contains("10.0.1.20 ")
    });
    underpass.stop(Signal::SIGTERM);
    assert!(host.is_as_before(), "{}", host.conf());
}

/// The server's own name is asked of who knew it before.
#[test]
fn a_lost_connection_comes_back_by_name() {
    let host = Host::new();
    comes_back(&host, host.up());
    let near = host.near.asked().join("\n");
    assert!(!near.contains("corp.internal"), "{near}");
}

/// So are those that a command names, and what the C library makes of a short one.
#[test]
fn a_lost_connection_comes_back_by_a_commands_name_and_by_a_short_one() {
    let host = Host::new();
    let config = host.lab.state.join("by-command");
    fs::write(&config, "Host prod\n  ProxyCommand nc bastion.test 22\n").unwrap();
    let names = format!("--dns --dns-server {FAR} {}", V4.subnet);
    let by_command = format!("-F {} {names}", config.display());
    for (server, args) in [("prod", by_command), ("gw", names)] {
        comes_back(&host, host.up_at(server, &args));
    }
}

#[test]
fn a_killed_run_leaves_the_file_as_before() {
    let host = Host::new();
    let mut underpass = host.up();
    underpass.stop(Signal::SIGKILL);
    // By the privileged part, which is left.
    eventually("the file is put back", || host.is_as_before());
    host.kill_all_of(host.up());
    host.cleanup();
    assert!(host.is_as_before(), "{}", host.conf());
    // A run that has nothing to do with names puts it back, too.
    host.kill_all_of(host.up());
    let mut underpass = host.up_at("192.168.77.1", V4.subnet);
    assert!(host.is_as_before(), "{}", host.conf());
    assert!(underpass.stop(Signal::SIGTERM).success());
    assert!(host.is_as_before(), "{}", host.conf());
}

#[test]
fn where_programs_ask_somebody_else_that_is_said() {
    let host = Host::new();
    fs::write(host.etc.join("nsswitch.conf"), "hosts: files\n").unwrap();
    // No name is found so.
    fs::write(host.etc.join("hosts"), "192.168.77.1 bastion.test\n").unwrap();
    let mut underpass = host.up();
    underpass.wait_for_line("do not ask the name server of underpass");
    underpass.stop(Signal::SIGTERM);
    assert!(host.is_as_before(), "{}", host.conf());
}

/// As in a container.
#[test]
fn a_file_that_is_mounted_is_written_over_and_back() {
    let mut host = Host::new();
    let real = host.lab.state.join("mounted");
    fs::write(&real, BEFORE).unwrap();
    host.more = "mount --bind \"$ETC/../mounted\" /etc/resolv.conf";
    let mut underpass = host.up();
    let found = host.prints(&underpass, "getent ahostsv4 api.corp.internal");
    assert!(found.contains("10.0.1.20 "), "{found}");
    assert!(fs::read_to_string(&real).unwrap().contains("198.19.255.53"));
    underpass.stop(Signal::SIGTERM);
    assert_eq!(fs::read_to_string(&real).unwrap(), BEFORE);
    assert!(host.is_as_before());
}

#[test]
fn what_cannot_be_done_here_is_said_before_a_login() {
    let host = Host::new();
    for (conf, args, words) in [
        (
            "nameserver 127.0.0.53\n",
            "--dns",
            "--dns: systemd-resolved",
        ),
        (
            "nameserver 127.0.0.53\n",
            "db.example.com",
            "hosts by name: systemd-resolved",
        ),
        (
            "nameserver 100.100.100.100\n",
            "--dns",
            "--dns: Tailscale looks after the names of this host, and cannot be asked to ask us; write: underpass run --dns",
        ),
        (
            "nameserver 100.100.100.100\n",
            "db.example.com",
            "hosts by name: Tailscale",
        ),
        (BEFORE, "--dns --user root", "--user"),
    ] {
        fs::write(host.etc.join("resolv.conf"), conf).unwrap();
        let wrapper = host.wrapper();
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        let args = format!("{args} {}", V4.subnet);
        let output = finished(host.lab.wrapped_up_command(&wrapper, &args));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
        assert_eq!(host.conf(), conf);
    }
}

/// Without --dns: hosts are named where networks are.
#[test]
fn hosts_are_captured_by_their_names() {
    let host = Host::new();
    let hosts = "10.0.1.20 api.names.test\n10.0.1.20 a.svc.test\n";
    sshd_that_knows(&host.lab, 2211, hosts);
    let known = fs::read_to_string(host.lab.file("known_hosts")).unwrap();
    let known = known.replace("[192.168.77.1]:2211", "192.168.77.1");
    fs::write(host.lab.file("known_hosts"), known).unwrap();
    let file = host.lab.file("targets");
    fs::write(
        &file,
        "api.names.test:80\n*.svc.test # all of them\n10.0.1.0/24\n",
    )
    .unwrap();
    let mut underpass = host.up_with(&format!("-p 2211 -s {file}"));
    underpass.wait_for_line("captured by name: api.names.test:80, *.svc.test");
    let found = host.prints(
        &underpass,
        "for url in api.names.test/ a.svc.test/; do \
         curl -sS -m 5 -o /dev/null -w \"$url %{http_code}\\n\" http://$url 2>&1; done; \
         for url in api.names.test:5001 gone.svc.test; do curl -v -m 5 http://$url/ 2>&1; done; \
         getent hosts bastion.test; for name in svc.test www.api.names.test; do getent hosts $name; done; getent hosts 10.0.1.20",
    );
    for part in [
        "192.0.2.31 ",
        "192.0.2.32 ",
        "10.0.1.20       near.test\n",
        "api.names.test/ 200\n",
        "a.svc.test/ 200\n",
        "Network is unreachable",
        "No route to host",
        "192.168.77.1 ",
    ] {
        assert!(found.contains(part), "{part}: {found}");
    }
    let report = host.status();
    let names = &report["names"];
    let expected = serde_json::json!(["api.names.test:80", "*.svc.test"]);
    assert_eq!(
        (&report["subnets"], &names["hosts"]),
        (&serde_json::json!(["10.0.1.0/24"]), &expected)
    );
    assert_eq!(names["by"], "/etc/resolv.conf");
    assert_eq!(names["servers"], serde_json::json!([]));
    let pool = &names["pool"];
    assert_eq!(pool["networks"][0], "198.19.0.0/20");
    assert_eq!((&pool["used"], &pool["room"]), (&3.into(), &4094.into()));
    fs::write(&file, "10.0.1.0/24\n").unwrap();
    underpass.signal(Signal::SIGHUP);
    underpass.wait_for_line("hosts by name) cannot change while it runs; start underpass again");
    let found = host.prints(&underpass, "getent ahostsv4 api.names.test");
    assert!(found.starts_with("198.19."), "{found}");
    assert!(underpass.stop(Signal::SIGTERM).success());
    assert!(host.is_as_before(), "{}", host.conf());
    let near = host.near.asked().join("\n");
    assert!(
        !near.contains(" api.names.test ") && !near.contains(".svc.test "),
        "{near}"
    );
    assert!(near.contains("bastion.test"), "{near}");
}

/// Six names have addresses there.
#[test]
fn where_no_address_is_left_for_a_name_that_is_told_once() {
    let host = Host::new();
    let mut underpass = host.up_with("--dns names.test --dns-names=10.99.0.0/29");
    let found = host.prints(
        &underpass,
        "for n in 1 2 3 4 5 6 7 8; do getent ahostsv4 n$n.names.test | head -n 1; done",
    );
    assert_eq!(found.lines().count(), 6, "{found}");
    underpass.wait_for_line(
        "all 6 addresses that stand for names are taken (6 in use), and further names fail",
    );
    let pool = &host.status()["names"]["pool"];
    assert_eq!((&pool["used"], &pool["room"]), (&6.into(), &6.into()));
    assert!(underpass.stop(Signal::SIGTERM).success());
    let log = underpass.log();
    let told = log.iter().filter(|line| line.contains("--dns-names="));
    assert_eq!(told.count(), 1, "{log:#?}");
}

/// It is set again, but not as often as that.
#[test]
fn who_writes_the_file_again_and_again_is_told_what_that_means() {
    let host = Host::new();
    let mut underpass = host.up();
    let ours = host.conf();
    for _ in 0..10 {
        fs::write(host.etc.join("resolv.conf"), BEFORE).unwrap();
        eventually("the file is ours again", || host.conf() == ours);
    }
    fs::write(host.etc.join("resolv.conf"), BEFORE).unwrap();
    underpass.wait_for_line(
        "once a minute from here on: meanwhile all names, private ones too, are asked of the name servers that they write",
    );
    assert!(underpass.stop(Signal::SIGTERM).success());
    assert!(host.is_as_before(), "{}", host.conf());
}

/// Some names by the server, the others as before.
#[test]
fn some_names_are_connected_to_and_others_looked_up_as_before() {
    let host = Host::new();
    sshd_that_knows(&host.lab, 2211, "10.0.1.20 api.names.test\n");
    let known = fs::read_to_string(host.lab.file("known_hosts")).unwrap();
    let known = known.replace("[192.168.77.1]:2211", "192.168.77.1");
    fs::write(host.lab.file("known_hosts"), known).unwrap();
    let mut underpass = host.up_with("-p 2211 --dns names.test --dns-names");
    let found = host.prints(
        &underpass,
        "curl -sS -o /dev/null -w 'http %{http_code}\\n' http://api.names.test/; getent hosts bastion.test; \
         curl -v http://gone.names.test/ 2>&1; ip route get 198.19.0.9",
    );
    for part in [
        "http 200\n",
        "192.168.77.1 ",
        "No route to host",
        "dev underpass",
    ] {
        assert!(found.contains(part), "{part}: {found}");
    }
    let status = underpass.stop(Signal::SIGTERM);
    let log = underpass.log().join("\n");
    assert!(status.success() && !log.contains("do not ask"), "{log}");
    assert!(host.is_as_before(), "{}", host.conf());
    let near = host.near.asked().join("\n");
    assert!(!near.contains("names.test"), "{near}");
}
