//! Containers of a real dockerd, which runs in the lab's client: its bridges and filters are those of that namespace, its
//! data is in a directory of the test's own. Needs docker.io and busybox-static (scripts/test installs them).

use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::server::NameServer;
use crate::common::{Lab, Underpass, V4, eventually, finished};

/// Debian's.
const DOCKER: &str = "/usr/bin/docker";
const DOCKERD: &str = "/usr/sbin/dockerd";
const BUSYBOX: &str = "/bin/busybox";
const LENGTH: &str = "1000003";

/// A dockerd; it and its containerd are ended when dropped.
struct Docker<'a> {
    lab: &'a Lab,
    /// A directory that is its /etc.
    etc: Option<&'a Path>,
    dir: TempDir,
    daemon: Option<Child>,
}

impl<'a> Docker<'a> {
    fn start(lab: &'a Lab, options: &[&str]) -> Self {
        Self::with_etc(lab, options, None)
    }

    fn with_etc(lab: &'a Lab, options: &[&str], etc: Option<&'a Path>) -> Self {
        let dir = tempfile::Builder::new().prefix("upd").tempdir().unwrap();
        let mut docker = Self {
            lab,
            etc,
            dir,
            daemon: None,
        };
        docker.again(options);
        let script = "mkdir -p root/bin && cp /bin/busybox root/bin/ && tar -C root -c . | \"$@\"";
        let import = docker.client(&["import", "-", "box"]);
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(import.get_program());
        shell.args(import.get_args()).current_dir(docker.dir.path());
        succeeds(shell);
        docker
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Starts it, with what it has on its disk.
    fn again(&mut self, options: &[&str]) {
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let mut command = match self.etc {
            Some(etc) => {
                let within = within(etc);
                let mut command = self.lab.command("client", &within[0]);
                command.args(&within[1..]).arg(DOCKERD);
                command
            }
            None => self.lab.command("client", DOCKERD),
        };
        command
            .args(["--data-root", &self.path("data")])
            .args(["--exec-root", &self.path("exec")])
            .args(["--pidfile", &self.path("pid")])
            .args(["-H", &format!("unix://{}", self.path("socket"))])
            .args(["--storage-driver", "vfs"])
            .args(options)
            .stdout(Stdio::null())
            .stderr(log);
        self.daemon = Some(command.spawn().unwrap());
        eventually("dockerd answers", || {
            finished(self.client(&["version"])).status.success()
        });
    }

    fn stop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else {
            return;
        };
        // It ends its containerd and its containers.
        let _ = kill(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM);
        let _ = daemon.wait();
    }

    fn client(&self, args: &[&str]) -> Command {
        let mut command = Command::new(DOCKER);
        command
            .args(["-H", &format!("unix://{}", self.path("socket"))])
            .args(args)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> String {
        succeeds(self.client(args))
    }

    /// What a container of this network gets of a host behind the server, in bytes.
    fn get(&self, network: &str) -> String {
        let page = format!("http://{}/bytes/{LENGTH}", V4.host);
        let script = format!("{BUSYBOX} wget -qO- {page} | {BUSYBOX} wc -c");
        let run = ["run", "--rm", "--network", network, "box"];
        let shell = [BUSYBOX, "sh", "-c", &script];
        self.run(&[&run[..], &shell].concat())
    }

    /// A container that goes on, and the number of its process.
    fn sleeper(&self, network: &str) -> (String, String) {
        let run = ["run", "-d", "--network", network, "box"];
        let id = self.run(&[&run[..], &[BUSYBOX, "sleep", "600"]].concat());
        let pid = self.run(&["inspect", "-f", "{{.State.Pid}}", &id]);
        (id, pid)
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(20).collect();
            eprintln!("--- dockerd said last:\n{last:#?}");
        }
        self.stop();
    }
}

fn succeeds(command: Command) -> String {
    let shown = format!("{command:?}");
    let output = finished(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}: {said}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Runs what follows where /etc is `etc`.
fn within(etc: &Path) -> [String; 6] {
    let script = format!("mount --bind {} /etc && exec \"$@\"", etc.display());
    ["unshare", "-m", "sh", "-c", &script, "sh"].map(str::to_owned)
}

/// Containers of the default network, of one that is made meanwhile, and after a restart of dockerd.
fn containers_reach_it(options: &[&str]) {
    let lab = Lab::up();
    let options = [&["--mtu", "1500"], options].concat();
    let mut docker = Docker::start(&lab, &options);
    let underpass = lab.underpass(V4.subnet);
    assert_eq!(docker.get("bridge"), LENGTH);

    docker.run(&["network", "create", "later"]);
    eventually("the rule for the new network is there", || {
        let rules = lab.network_state("client");
        let id = docker.run(&["network", "inspect", "-f", "{{.Id}}", "later"]);
        rules.contains(&format!("\"iif\":\"br-{}\"", &id[..12]))
    });
    assert_eq!(docker.get("later"), LENGTH);

    let closed = format!("http://{}:81/", V4.host);
    let mut refused = docker.client(&["run", "--rm", "box", BUSYBOX, "wget", "-O-"]);
    refused.arg(&closed);
    let refused = finished(refused);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("Connection refused"), "{said}");

    docker.stop();
    docker.again(&options);
    assert_eq!(docker.get("bridge"), LENGTH);
    assert_eq!(docker.get("later"), LENGTH);
    drop(underpass);
}

#[test]
fn with_the_userland_proxy() {
    containers_reach_it(&[]);
}

#[test]
fn without_the_userland_proxy() {
    containers_reach_it(&["--userland-proxy=false"]);
}

#[test]
fn one_container_alone() {
    let lab = Lab::up();
    let docker = Docker::start(&lab, &[]);
    for network in ["none", "bridge"] {
        let (id, pid) = docker.sleeper(network);
        let mut underpass = lab.underpass(&format!("--netns pid:{pid} {}", V4.subnet));
        let page = format!("http://{}/bytes/{LENGTH}", V4.host);
        let script = format!("{BUSYBOX} wget -qO- {page} | {BUSYBOX} wc -c");
        let got = docker.run(&["exec", &id, BUSYBOX, "sh", "-c", &script]);
        assert_eq!(got, LENGTH, "{network}");
        // The host does not.
        let client = lab.result("client", &format!("connect {} 80", V4.host));
        assert_eq!(client, "ENETUNREACH");
        assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
        docker.run(&["rm", "-f", &id]);
    }
}

/// The default network hands on the host's name servers, others have one of dockerd's that asks them.
#[test]
fn containers_find_private_names() {
    let lab = Lab::up();
    let records = ["--host-record=api.corp.internal,10.0.1.20".to_owned()];
    let far = NameServer::start(&lab, "vpc", V4.host, &records);
    let etc = lab.state.join("etc");
    let mut copy = Command::new("cp");
    copy.arg("-a").arg("/etc").arg(&etc);
    succeeds(copy);
    std::fs::remove_file(etc.join("resolv.conf")).unwrap();
    std::fs::write(etc.join("resolv.conf"), "nameserver 192.168.77.1\n").unwrap();
    let nsswitch = "passwd: files\nhosts: files dns\n";
    std::fs::write(etc.join("nsswitch.conf"), nsswitch).unwrap();

    let docker = Docker::with_etc(&lab, &[], Some(&etc));
    let within = within(&etc);
    let within: Vec<&str> = within.iter().map(String::as_str).collect();
    let args = format!("--dns --dns-server {} {}", V4.host, V4.subnet);
    let underpass = Underpass::start(lab.wrapped_up_command(&within, &args));
    docker.run(&["network", "create", "own"]);
    eventually("containers of the new network reach it", || {
        docker.get("own") == LENGTH
    });
    for network in ["bridge", "own"] {
        let page = format!("http://api.corp.internal/bytes/{LENGTH}");
        let script = format!("{BUSYBOX} wget -qO- {page} | {BUSYBOX} wc -c");
        let run = ["run", "--rm", "--network", network, "box"];
        let got = docker.run(&[&run[..], &[BUSYBOX, "sh", "-c", &script]].concat());
        assert_eq!(got, LENGTH, "{network}");
    }
    let asked = far.asked();
    assert!(
        asked.iter().any(|name| name.contains("api.corp.internal")),
        "{asked:?}"
    );
    drop(underpass);
}

#[test]
fn nothing_is_left_of_a_dockerd() {
    let lab = Lab::up();
    let docker = Docker::start(&lab, &[]);
    let dir = docker.dir.path().to_owned();
    docker.run(&["run", "--rm", "box", BUSYBOX, "true"]);
    drop(docker);
    assert!(!dir.exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let path = dir.display().to_string();
    assert!(!mounts.contains(&path), "{mounts}");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    for process in processes {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        assert!(!command.contains(&path), "{command}");
    }
}
