//! `up --netns ... --dns`: programs of that network find private names by a resolv.conf of their own, which comes back however it
//! ends, and the host's stays as it is.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};

use crate::common::{Lab, Underpass, V4, eventually, finished};
use crate::e2e::server::{NameServer, sshd_that_knows};

/// The far name server.
const FAR: &str = "10.0.1.20";
/// The host's resolver, which is nobody's business here.
const HOSTS: &str = "# by hand\nnameserver 192.168.77.1\nsearch host.test\n";
/// The one that the namespace has itself.
const OWN: &str = "# the box's\nnameserver 127.0.0.1\noptions ndots:1";
const OURS: &str = "\nnameserver 198.19.255.53\n";

/// A mount namespace with an /etc of the lab's own, in the client's network.
struct Rig {
    lab: Lab,
    _far: NameServer,
    etc: PathBuf,
    held: Vec<Child>,
}

impl Rig {
    fn new() -> Self {
        let lab = Lab::up();
        let far = ["--host-record=api.corp.internal,10.0.1.20".to_owned()];
        let far = NameServer::start(&lab, "vpc", FAR, &far);
        let etc = lab.state.join("etc");
        let copied = Command::new("cp").arg("-a").arg("/etc").arg(&etc).status();
        assert!(copied.unwrap().success());
        fs::remove_file(etc.join("resolv.conf")).ok();
        fs::remove_dir_all(etc.join("netns")).ok();
        fs::write(etc.join("resolv.conf"), HOSTS).unwrap();
        fs::write(etc.join("nsswitch.conf"), "hosts: files dns\n").unwrap();
        let mut rig = Self {
            lab,
            _far: far,
            etc,
            held: Vec::new(),
        };
        let mut command = rig.lab.command("client", "unshare");
        let script = "mount --bind \"$1\" /etc && echo made && exec sleep infinity";
        command.args(["-m", "sh", "-c", script, "sh"]).arg(&rig.etc);
        rig.hold(command);
        rig
    }

    /// Runs until the end of the test, after it has said that everything is made; its number.
    fn hold(&mut self, mut command: Command) -> u32 {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 5];
        let stdout = child.stdout.as_mut().unwrap();
        stdout.read_exact(&mut said).unwrap();
        self.held.push(child);
        self.held.last().unwrap().id()
    }

    /// The arguments that run the rest of them on the host.
    fn inside(&self) -> [String; 3] {
        let mount = format!("--mount=/proc/{}/ns/mnt", self.held[0].id());
        ["nsenter".to_owned(), mount, "--".to_owned()]
    }

    fn command(&self, program: &str) -> Command {
        let inside = self.inside();
        let mut command = self.lab.command("client", &inside[0]);
        command.args(&inside[1..]).arg(program);
        command
    }

    /// The name of the box's network.
    fn name(&self) -> String {
        self.lab.namespace("box").replace("/run/netns/", "")
    }

    /// What a shell prints that ip-netns(8) starts in the box.
    fn prints(&self, script: &str) -> String {
        let mut command = self.command("ip");
        command.args(["netns", "exec", &self.name(), "sh", "-c", script]);
        String::from_utf8(finished(command).stdout).unwrap()
    }

    /// A program that goes on there, and says for each line whom its resolv.conf names.
    fn asker(&mut self) -> usize {
        let name = self.name();
        let mut command = self.command("ip");
        let script = "echo made; while read name; do grep -m1 ^nameserver /etc/resolv.conf; done";
        command.args(["netns", "exec", &name, "sh", "-c", script]);
        self.hold(command);
        self.held.len() - 1
    }

    fn asks(&mut self, asker: usize) -> String {
        let child = &mut self.held[asker];
        child.stdin.as_mut().unwrap().write_all(b"x\n").unwrap();
        let mut line = String::new();
        let stdout = child.stdout.as_mut().unwrap();
        // Not a byte too many: the next line is somebody else's.
        BufReader::with_capacity(1, stdout)
            .read_line(&mut line)
            .unwrap();
        line
    }

    /// A process of the box with files of its own, over which `script` does what it likes.
    fn container(&mut self, script: &str) -> u32 {
        self.container_in("box", script)
    }

    fn container_in(&mut self, role: &str, script: &str) -> u32 {
        let mut command = self.lab.command(role, "unshare");
        command
            .args(["-m", "sh", "-ec"])
            .arg(format!("{script}; echo made; exec sleep infinity"));
        command.current_dir(&self.lab.state);
        self.hold(command)
    }

    /// Ends one that is held.
    fn end(&mut self, pid: u32) {
        let index = self.held.iter().position(|child| child.id() == pid);
        let mut child = self.held.remove(index.unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn up_command(&self, args: &str) -> Command {
        let inside = self.inside();
        let inside: Vec<&str> = inside.iter().map(String::as_str).collect();
        self.lab.wrapped_up_command(&inside, args)
    }

    fn up(&self, netns: &str, args: &str) -> Underpass {
        let args = format!("--netns {netns} {args} {}", V4.subnet);
        Underpass::start(self.up_command(&args))
    }

    /// With all names.
    fn up_for_all(&self, netns: &str) -> Underpass {
        self.up(netns, &format!("--dns --dns-server {FAR}"))
    }

    /// What is said where it does not begin.
    fn refused(&self, netns: &str, args: &str) -> String {
        let args = format!("--netns {netns} {args} {}", V4.subnet);
        let output = finished(self.up_command(&args));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{said}");
        said
    }

    fn conf(&self) -> PathBuf {
        self.etc.join("netns").join(self.name()).join("resolv.conf")
    }

    /// The box has a resolv.conf with this text.
    fn with_own(self, text: &str) -> Self {
        fs::create_dir_all(self.conf().parent().unwrap()).unwrap();
        fs::write(self.conf(), text).unwrap();
        self
    }

    fn kill_all_of_it(&self) {
        let own = |pid: &nix::unistd::Pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.starts_with("underpass")
        };
        let mut pids = self.lab.processes("client");
        pids.extend(self.lab.processes("box"));
        pids.retain(own);
        for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
            for pid in &pids {
                let _ = kill(*pid, signal);
            }
        }
    }

    fn cleanup(&self) -> String {
        let mut command = self.command(env!("CARGO_BIN_EXE_underpass"));
        command
            .arg("cleanup")
            .env("UNDERPASS_RUNTIME_DIR", self.lab.state.join("run"));
        let output = finished(command);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The host's own is never touched.
    fn hosts_is_as_before(&self) -> bool {
        let beside = fs::read_dir(&self.etc).unwrap().flatten();
        let beside = beside.filter(|entry| {
            let name = entry.file_name().into_string().unwrap();
            name.starts_with("resolv.conf")
        });
        fs::read_to_string(self.etc.join("resolv.conf")).unwrap() == HOSTS && beside.count() == 1
    }

    fn has_no_file(&self) -> bool {
        !self.etc.join("netns").exists() && self.hosts_is_as_before()
    }

    fn has_own(&self) -> bool {
        let directory = fs::read_dir(self.conf().parent().unwrap()).unwrap();
        directory.count() == 1 && text(&self.conf()) == OWN && self.hosts_is_as_before()
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

impl Drop for Rig {
    fn drop(&mut self) {
        for child in self.held.iter_mut().rev() {
            // The number is its own until it was waited for.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

const LOOK: &str = "getent ahostsv4 api.corp.internal; dig +short api.corp.internal; \
    curl -4 -sS -m 5 -o /dev/null -w 'http %{http_code}\\n' http://api.corp.internal/";

fn finds_private_names(found: &str) {
    assert!(
        found.contains("10.0.1.20 ") && found.ends_with("10.0.1.20\nhttp 200\n"),
        "{found}"
    );
}

#[test]
fn a_network_without_a_file_has_one_until_the_end() {
    let rig = Rig::new();
    let mut underpass = rig.up_for_all(&rig.name());
    finds_private_names(&rig.prints(LOOK));
    assert!(text(&rig.conf()).contains(&format!("{OURS}search host.test\n")));
    assert!(rig.hosts_is_as_before());
    // By its path it is the same network.
    let said = rig.refused(&rig.lab.namespace("box"), "--dns --dns-server 10.0.1.20");
    assert!(said.contains("underpass down"), "{said}");
    assert!(underpass.stop(Signal::SIGTERM).success());
    assert!(rig.has_no_file(), "{}", text(&rig.conf()));
    // Killed: by the privileged part, which is left.
    let mut underpass = rig.up_for_all(&rig.lab.namespace("box"));
    finds_private_names(&rig.prints(LOOK));
    underpass.stop(Signal::SIGKILL);
    eventually("the file is gone", || rig.has_no_file());
    // All of it at once.
    let mut underpass = rig.up_for_all(&rig.name());
    rig.kill_all_of_it();
    underpass.wait();
    assert!(text(&rig.conf()).contains(OURS));
    let said = rig.cleanup();
    assert!(said.contains("1 name server setting"), "{said}");
    assert!(rig.has_no_file(), "{}", text(&rig.conf()));
}

/// ip-netns(8) mounts the file: who runs already has it open for good, whatever stands in its place later.
#[test]
fn a_file_that_is_there_is_written_over_for_who_runs_already() {
    let mut rig = Rig::new().with_own(OWN);
    let asker = rig.asker();
    assert_eq!(rig.asks(asker), "nameserver 127.0.0.1\n");
    let mut underpass = rig.up_for_all(&rig.name());
    assert_eq!(rig.asks(asker), "nameserver 198.19.255.53\n");
    finds_private_names(&rig.prints(LOOK));
    let later = rig.asker();
    // Somebody else writes it, in place and as a new file.
    let other = "nameserver 192.0.2.7\n";
    fs::write(rig.conf(), other).unwrap();
    underpass.wait_for_further_line("somebody has written the resolv.conf of that network");
    assert!(text(&rig.conf()).contains(OURS));
    let new = rig.etc.join("netns/new");
    fs::write(&new, OWN).unwrap();
    fs::rename(&new, rig.conf()).unwrap();
    underpass.wait_for_further_line("somebody has written the resolv.conf of that network");
    finds_private_names(&rig.prints(LOOK));
    assert!(underpass.stop(Signal::SIGTERM).success());
    assert!(rig.has_own(), "{}", text(&rig.conf()));
    for asker in [asker, later] {
        assert_eq!(rig.asks(asker), other);
    }
}

#[test]
fn a_file_that_is_there_comes_back_after_a_kill() {
    let rig = Rig::new().with_own(OWN);
    let mut underpass = rig.up_for_all(&rig.name());
    underpass.stop(Signal::SIGKILL);
    eventually("the file is put back", || rig.has_own());
    let mut underpass = rig.up_for_all(&rig.name());
    rig.kill_all_of_it();
    underpass.wait();
    assert!(text(&rig.conf()).contains(OURS));
    // What it found is what it puts back.
    let mut underpass = rig.up_for_all(&rig.name());
    finds_private_names(&rig.prints(LOOK));
    underpass.stop(Signal::SIGTERM);
    assert!(rig.has_own(), "{}", text(&rig.conf()));
    let mut underpass = rig.up_for_all(&rig.name());
    rig.kill_all_of_it();
    underpass.wait();
    rig.cleanup();
    assert!(rig.has_own(), "{}", text(&rig.conf()));
}

/// The name alone: what runs there goes on.
#[test]
fn a_namespace_that_is_deleted_meanwhile_leaves_nothing() {
    let rig = Rig::new();
    let name = format!("{}-gone", rig.name());
    let ip = |args: &[&str]| {
        let mut command = rig.command("ip");
        command.arg("netns").args(args);
        assert!(finished(command).status.success());
    };
    ip(&["add", &name]);
    let mut underpass = rig.up_for_all(&name);
    ip(&["delete", &name]);
    assert!(underpass.stop(Signal::SIGTERM).success());
    assert!(rig.has_no_file());
}

/// Names of the far side alone go there, and the others to whom programs in that network asked before, from there.
#[test]
fn other_names_are_asked_for_in_that_network() {
    let rig = Rig::new().with_own(OWN);
    let own = ["--host-record=www.example.com,192.0.2.80".to_owned()];
    let own = NameServer::start(&rig.lab, "box", "127.0.0.1", &own);
    let args = format!("--dns corp.internal --dns-server {FAR}");
    let mut underpass = rig.up(&rig.name(), &args);
    finds_private_names(&rig.prints(LOOK));
    let found = rig.prints("getent ahostsv4 www.example.com");
    assert!(found.contains("192.0.2.80 "), "{found}");
    assert!(underpass.stop(Signal::SIGTERM).success());
    assert!(rig.has_own());
    let asked = own.asked().join("\n");
    assert!(
        asked.contains("www.example.com") && !asked.contains("corp.internal"),
        "{asked}"
    );
}

#[test]
fn names_stand_for_addresses_there_too() {
    let rig = Rig::new().with_own(OWN);
    let own = ["--host-record=www.example.com,192.0.2.80".to_owned()];
    let _own = NameServer::start(&rig.lab, "box", "127.0.0.1", &own);
    sshd_that_knows(&rig.lab, 2211, "10.0.1.20 api.names.test\n");
    let known = fs::read_to_string(rig.lab.file("known_hosts")).unwrap();
    let known = known.replace("[192.168.77.1]:2211", "192.168.77.1");
    fs::write(rig.lab.file("known_hosts"), known).unwrap();
    let script = "curl -sS -m 5 -o /dev/null -w 'http %{http_code}\\n' http://api.names.test/; getent ahostsv4 www.example.com";
    let server = "-p 2211 -o HostKeyAlias=192.168.77.1";
    for args in ["--dns names.test --dns-names", "api.names.test:80"] {
        let mut underpass = rig.up(&rig.name(), &format!("{server} {args}"));
        let found = rig.prints(script);
        assert!(
            found.starts_with("http 200\n") && found.contains("192.0.2.80 "),
            "{args}: {found}"
        );
        assert!(underpass.stop(Signal::SIGTERM).success());
        assert!(rig.has_own());
    }
}

/// As Docker has it: a file of the host's mounted where the container has its own.
#[test]
fn a_container_is_brought_to_it_by_its_own_file() {
    let mut rig = Rig::new();
    let real = rig.lab.state.join("mounted");
    fs::write(&real, OWN).unwrap();
    let pid = rig.container("mount --bind mounted /etc/resolv.conf");
    let inside = |rig: &Rig, script: &str| {
        let mut command = rig.command("nsenter");
        let target = pid.to_string();
        command.args(["-t", &target, "-n", "-m", "sh", "-c", script]);
        String::from_utf8(finished(command).stdout).unwrap()
    };
    for netns in [format!("pid:{pid}"), format!("/proc/{pid}/ns/net")] {
        let mut underpass = rig.up_for_all(&netns);
        finds_private_names(&inside(&rig, LOOK));
        fs::write(&real, "nameserver 192.0.2.7\n").unwrap();
        underpass.wait_for_further_line("somebody has written the resolv.conf of that network");
        finds_private_names(&inside(&rig, LOOK));
        assert!(underpass.stop(Signal::SIGTERM).success());
        assert_eq!(text(&real), "nameserver 192.0.2.7\n");
        fs::write(&real, OWN).unwrap();
    }
    let mut underpass = rig.up_for_all(&format!("pid:{pid}"));
    underpass.stop(Signal::SIGKILL);
    eventually("it is put back", || text(&real) == OWN);
    let mut underpass = rig.up_for_all(&format!("pid:{pid}"));
    rig.kill_all_of_it();
    underpass.wait();
    assert!(text(&real).contains(OURS));
    rig.cleanup();
    assert_eq!(text(&real), OWN);
    assert!(rig.has_no_file());
}

/// By the mounts of the container, or by a mount of the same file: one that is neither the host's nor in that network.
#[test]
fn a_file_that_another_network_reads_as_well_is_left_alone() {
    let mut rig = Rig::new();
    let real = rig.lab.state.join("mounted");
    fs::write(&real, OWN).unwrap();
    let mount = "mount --bind mounted /etc/resolv.conf";
    let pid = rig.container(mount);
    let mut command = rig.lab.command("vpc", "nsenter");
    command.args(["-t", &pid.to_string(), "-m", "sh", "-c"]);
    command.arg("echo made; exec sleep infinity");
    let by_mounts = rig.hold(command);
    let by_file = rig.container_in("vpc", mount);
    let netns = format!("pid:{pid}");
    for other in [by_mounts, by_file] {
        let said = rig.refused(&netns, "--dns --dns-server 10.0.1.20");
        assert!(
            said.contains(&format!("as process {other}, in another")),
            "{said}"
        );
        assert!(said.contains("ip netns attach"), "{said}");
        assert_eq!(text(&real), OWN);
        rig.end(other);
    }
    // Who comes later does not keep it from being put back.
    let mut underpass = rig.up_for_all(&netns);
    assert!(text(&real).contains(OURS));
    rig.container_in("vpc", mount);
    rig.kill_all_of_it();
    underpass.wait();
    rig.cleanup();
    assert_eq!(text(&real), OWN);
    assert!(rig.has_no_file());
}

/// What is in there is not ours: a link leads nowhere, and what root there may not write is not written.
#[test]
fn a_hostile_container_leads_to_no_file_of_the_host() {
    let mut rig = Rig::new();
    let victim = rig.lab.state.join("victim");
    fs::write(&victim, HOSTS).unwrap();
    let own_etc = "mkdir -p t; mount -t tmpfs tmpfs t; mkdir t/etc; mount --bind t/etc /etc";
    for link in [
        victim.display().to_string(),
        format!("/proc/{}/root{}", std::process::id(), victim.display()),
        "/proc/self/exe".to_owned(),
    ] {
        let pid = rig.container(&format!("{own_etc}; ln -s {link} /etc/resolv.conf"));
        let said = rig.refused(&format!("pid:{pid}"), "--dns --dns-server 10.0.1.20");
        assert!(said.contains("no link"), "{said}");
        // It reads what it leads to.
        rig.end(pid);
    }
    // Anybody is root in a user namespace, and may mount there what they may not write.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&rig.lab.state, readable).unwrap();
    let script = "mount --bind victim /etc/resolv.conf; echo made; exec sleep infinity";
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.args(["unshare", "-Urmn", "sh", "-ec", script]);
    command.current_dir(&rig.lab.state);
    let netns = format!("pid:{}", rig.hold(command));
    let said = rig.refused(&netns, "--dns --dns-server 10.0.1.20");
    assert!(said.contains("cannot be written: Permission"), "{said}");
    assert_eq!(text(&victim), HOSTS);
    // What is theirs is theirs.
    std::os::unix::fs::chown(&victim, Some(65534), Some(65534)).unwrap();
    let mut underpass = rig.up_for_all(&netns);
    assert!(text(&victim).contains(OURS));
    assert!(underpass.stop(Signal::SIGTERM).success());
    assert_eq!(text(&victim), HOSTS);
    assert!(rig.has_no_file());
}

#[test]
fn what_cannot_be_done_there_is_said_before_a_login() {
    let mut rig = Rig::new();
    // Its files are those of whom we are the host.
    let mut command = rig.lab.command("box", "nsenter");
    command.args(&rig.inside()[1..]);
    command.args(["sh", "-c", "echo made; exec sleep infinity"]);
    let shares = rig.hold(command);
    let bare = rig.container("mkdir -p u; mount -t tmpfs tmpfs u; mount --bind u /etc");
    let all = "--dns --dns-server 10.0.1.20";
    let copy = rig.lab.state.join("netns");
    fs::write(&copy, "").unwrap();
    // In a mount namespace of the test's own, with which it goes.
    let mut mount = rig.command("mount");
    mount.args(["--bind", &rig.lab.namespace("box")]).arg(&copy);
    assert!(finished(mount).status.success());
    for (netns, args, words) in [
        (format!("pid:{shares}"), all, "ip netns attach"),
        (format!("pid:{bare}"), all, "cannot be written"),
        (copy.display().to_string(), all, "pid:$(docker inspect"),
    ] {
        let said = rig.refused(&netns, args);
        assert!(said.contains(words), "{netns}: {said}");
    }
    let stub = "nameserver 127.0.0.53\n";
    fs::write(rig.etc.join("resolv.conf"), stub).unwrap();
    let said = rig.refused(&rig.name(), "--dns corp.internal --dns-server 10.0.1.20");
    assert!(said.contains("on its loopback"), "{said}");
    fs::write(rig.etc.join("resolv.conf"), HOSTS).unwrap();
    fs::create_dir_all(rig.conf().parent().unwrap()).unwrap();
    symlink(rig.etc.join("resolv.conf"), rig.conf()).unwrap();
    let said = rig.refused(&rig.name(), all);
    assert!(said.contains("cp --remove-destination"), "{said}");
    assert!(rig.hosts_is_as_before());
}
