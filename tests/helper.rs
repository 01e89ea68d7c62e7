//! The privileged part: what it lets be asked, who may have it, and that it takes everything back whoever is killed.
//! Needs root, and sudo; a test that cannot have its lab fails. Where the carrier counts, for it decides which rights are kept, a
//! test says over which; what happens before a login, and to the privileged part alone, does not hang on it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "helper/agent.rs"]
mod agent;
mod common;
#[path = "helper/elevators.rs"]
mod elevators;
#[path = "helper/kill.rs"]
mod kill;
#[path = "helper/netns.rs"]
mod netns;
#[path = "helper/watch.rs"]
mod watch;

use std::fs;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::Pid;
use tempfile::TempDir;

use common::{CARRIERS, Lab, Underpass, V4, eventually, finished};

const UNDERPASS: &str = env!("CARGO_BIN_EXE_underpass");
/// CAP_NET_ADMIN, as in proc_pid_status(5).
const NET_ADMIN: &str = "0000000000001000";
/// How long the privileged part may take for an answer or its end, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
const NONE: &str = "0000000000000000";

/// A line of proc_pid_status(5).
fn status(pid: i32, key: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim_start_matches(':').trim().to_owned())
}

fn children(pid: i32) -> Vec<i32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    // What a second thread has started is not the helper.
    text.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// Every process that `main` has started, and those that they have.
fn descendants(main: i32) -> Vec<i32> {
    let mut all = Vec::new();
    let mut next = children(main);
    while let Some(pid) = next.pop() {
        next.extend(children(pid));
        all.push(pid);
    }
    all
}

/// The guard and the worker of an underpass, where they are there yet; sudo may stand in between.
fn helpers(main: i32) -> Vec<i32> {
    let is_helper = |pid: &i32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.ends_with(b"helper\0") && status(*pid, "Name").as_deref() == Some("underpass")
    };
    let all = descendants(main).into_iter();
    all.filter(is_helper).collect()
}

// ---- what may be asked ----

/// A privileged part in a network namespace of its own, and the other end of its socket.
struct Helper {
    child: Child,
    socket: UnixStream,
    /// The device: it goes when nobody holds it.
    device: Option<OwnedFd>,
}

const HELLO: &str = r#"{"protocol":6,"log":{"verbose":0,"quiet":true,"json":false,"plain":true}}"#;

impl Helper {
    fn start() -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let child = Command::new("unshare")
            .args(["-n", UNDERPASS, "helper"])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            socket,
            device: None,
        }
    }

    fn greeted() -> Self {
        let mut helper = Self::start();
        assert_eq!(helper.ask(HELLO), r#""Ready""#);
        helper
    }

    fn say(&mut self, text: &str) {
        let mut bytes = (text.len() as u32).to_be_bytes().to_vec();
        bytes.extend(text.as_bytes());
        // It may have ended already.
        let _ = self.socket.write_all(&bytes);
    }

    /// What it says; `None` when it has ended. That it says nothing and goes on is neither.
    fn hear(&mut self) -> Option<String> {
        let mut length = [0; 4];
        self.read_length(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.socket.read_exact(&mut body).unwrap();
        Some(String::from_utf8(body).unwrap())
    }

    /// The four bytes before a message, and the descriptor that may come along.
    fn read_length(&mut self, length: &mut [u8; 4]) -> Option<()> {
        loop {
            return match self.receive(length) {
                // A socket with a limit of time does not go on by itself after a signal (signal(7)).
                Err(Errno::EINTR) => continue,
                // It has not read all that was said.
                Err(Errno::ECONNRESET) => None,
                bytes => (bytes.expect("it answers, or ends") == 4).then_some(()),
            };
        }
    }

    fn receive(&mut self, length: &mut [u8; 4]) -> nix::Result<usize> {
        let mut space = nix::cmsg_space!(RawFd);
        let mut pieces = [IoSliceMut::new(length)];
        let flags = MsgFlags::MSG_WAITALL | MsgFlags::MSG_CMSG_CLOEXEC;
        let socket = self.socket.as_raw_fd();
        let message = recvmsg::<()>(socket, &mut pieces, Some(&mut space), flags)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = control {
                // SAFETY: the kernel has just made it for us.
                #[allow(unsafe_code)]
                let device = unsafe { OwnedFd::from_raw_fd(descriptors[0]) };
                self.device = Some(device);
            }
        }
        Ok(message.bytes)
    }

    fn ask(&mut self, text: &str) -> String {
        self.say(text);
        self.hear().unwrap_or_default()
    }

    fn namespace(&self) -> fs::File {
        fs::File::open(format!("/proc/{}/ns/net", self.child.id())).unwrap()
    }

    /// What is in its network namespace.
    fn ip(&self, args: &str) -> String {
        ip(&self.namespace(), args)
    }

    fn end(mut self) -> ExitStatus {
        drop(self.socket);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// ip(8) in a network namespace.
fn ip(namespace: &fs::File, args: &str) -> String {
    let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={path}"))
        .arg("ip")
        .args(args.split(' '));
    String::from_utf8(finished(command).stdout).unwrap()
}

#[test]
fn it_makes_a_device_and_sets_routes_and_nothing_else() {
    let mut helper = Helper::greeted();
    let opened = helper.ask(r#"{"Open":{"name":null,"mtu":1400}}"#);
    assert!(opened.contains("underpass0"), "{opened}");
    let hold = r#"{"Hold":{"subnets":[{"net":"10.0.0.0/8","ports":null}],"excludes":["10.1.0.0/16"],"exempt":[]}}"#;
    assert_eq!(helper.ask(hold), r#""Held""#);
    let routes = helper.ip("route show table all");
    assert!(routes.contains("10.0.0.0/8 dev underpass0"), "{routes}");
    assert!(routes.contains("throw 10.1.0.0/16"), "{routes}");
    // Something else from here on.
    let other = hold
        .replace("10.0.0.0/8", "172.16.0.0/12")
        .replace("10.1.0.0", "172.17.0.0");
    assert_eq!(helper.ask(&other), r#""Held""#);
    let routes = helper.ip("route show table all");
    assert!(
        !routes.contains("10.0.0.0/8") && routes.contains("172.16.0.0/12"),
        "{routes}"
    );
    assert_eq!(
        helper.ask(r#"{"Release":{}}"#),
        r#"{"Released":{"left":[]}}"#
    );
    assert!(!helper.ip("rule").contains("30064"));
    assert!(helper.end().success());
}

#[test]
fn senseless_requests_end_it_and_leave_nothing() {
    let hold =
        r#"{"Hold":{"subnets":[{"net":"10.0.0.0/8","ports":null}],"excludes":[],"exempt":[]}}"#;
    let open = r#"{"Open":{"name":null,"mtu":null}}"#;
    for senseless in [
        r#"{"Open":{"name":"../../etc","mtu":null}}"#,
        r#"{"Open":{"name":"underpass1","mtu":null}}"#, // a second one
        r#"{"Hold":{"subnets":[{"net":"127.0.0.0/8","ports":null}],"excludes":[],"exempt":[]}}"#,
        // Names, which were not greeted for.
        r#"{"Hold":{"subnets":[{"net":"10.0.0.0/8","ports":null}],"excludes":[],"exempt":[],"names":{"by":"Resolved","domains":[],"networks":[]}}}"#,
        r#"{"Hold":{"subnets":[{"net":"10.0.0.0/8","ports":null}],"excludes":[],"exempt":[],"names":{"by":"File","domains":[],"networks":[]}}}"#,
        r#"{"Run":{"command":"sh"}}"#,
        HELLO,
        "{",
        "\u{0}\u{0}\u{0}",
    ] {
        let mut helper = Helper::greeted();
        assert!(helper.ask(open).contains("Opened"));
        assert_eq!(helper.ask(hold), r#""Held""#);
        let (namespace, device) = (helper.namespace(), helper.device.take());
        let said = helper.ask(senseless);
        assert!(said.contains("Senseless"), "{senseless}: {said}");
        assert_eq!(helper.hear(), None, "{senseless}");
        // The device goes although its descriptor is still held here.
        helper.end();
        for args in ["link", "rule", "route show table all"] {
            let left = ip(&namespace, args);
            assert!(
                !left.contains("underpass") && !left.contains("30064"),
                "{left}"
            );
        }
        drop(device);
    }
}

#[test]
fn it_ends_when_the_first_message_is_none_or_of_another_version() {
    for first in [
        "{}",
        &HELLO.replace("\"protocol\":6", "\"protocol\":0"),
        // The files of another network, without that network.
        &HELLO.replace("\"log\"", "\"apart\":{\"Process\":1},\"log\""),
        "\u{0}",
    ] {
        let mut helper = Helper::start();
        assert_eq!(helper.ask(first), "", "{first}");
        assert!(!helper.end().success(), "{first}");
    }
    let mut helper = Helper::start();
    helper.socket.write_all(&[0xff; 64]).unwrap();
    assert_eq!(helper.hear(), None);
    assert!(!helper.end().success());
    // Nobody said anything: who started it has gone.
    assert!(Helper::start().end().success());
}

/// Requests before the answer to the last: a client of ours never does that.
#[test]
fn a_flood_of_requests_ends_it() {
    let mut helper = Helper::greeted();
    let open = r#"{"Open":{"name":null,"mtu":null}}"#;
    let hold =
        r#"{"Hold":{"subnets":[{"net":"10.0.0.0/8","ports":null}],"excludes":[],"exempt":[]}}"#;
    helper.ask(open);
    let mut flood = Vec::new();
    for _ in 0..10_000 {
        flood.extend((hold.len() as u32).to_be_bytes());
        flood.extend(hold.as_bytes());
    }
    let _ = helper.socket.write_all(&flood);
    while helper.hear().is_some() {}
    helper.end();
}

#[test]
fn a_person_who_types_it_is_told() {
    for stdin in [Stdio::null(), Stdio::piped()] {
        let output = Command::new(UNDERPASS)
            .arg("helper")
            .stdin(stdin)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("underpass up"));
    }
}

// ---- who has it, and with which rights ----

/// A user of the lab: their key, and the lab's directory open to them.
fn nobody_may_enter(lab: &Lab) -> String {
    let key = lab.file("id_of_nobody");
    fs::copy(lab.file("id"), &key).unwrap();
    std::os::unix::fs::chown(&key, Some(65534), Some(65534)).unwrap();
    for file in ["", "known_hosts"] {
        fs::set_permissions(lab.file(file), fs::Permissions::from_mode(0o755)).unwrap();
    }
    key
}

/// Runs the program that follows as nobody, with this /etc/sudoers, in a mount namespace of its own.
fn as_nobody(sudoers: &Path) -> [String; 6] {
    let script = format!(
        "mount --bind {} /etc/sudoers && exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"",
        sudoers.display()
    );
    ["unshare", "-m", "sh", "-c", &script, "sh"].map(str::to_owned)
}

fn sudoers_rule(dir: &TempDir) -> std::path::PathBuf {
    let rule = Command::new(UNDERPASS)
        .args(["sudoers", "--user", "nobody", "--force"])
        .output()
        .unwrap();
    assert!(rule.status.success());
    let path = dir.path().join("sudoers");
    // As many distributions have it: sudo stays, and gives the program a terminal of its own.
    let text = [b"Defaults use_pty\n", &rule.stdout[..]].concat();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
    path
}

#[test]
fn the_rule_for_sudo_is_one_that_sudo_takes() {
    let dir = TempDir::new().unwrap();
    let path = sudoers_rule(&dir);
    let mut check = Command::new("visudo");
    check.arg("-cf").arg(&path);
    let output = finished(check);
    assert!(output.status.success(), "{output:?}");
    // It says all that it allows.
    let said = fs::read_to_string(&path).unwrap();
    for part in [
        "every other network namespace that nobody can open",
        "every other",
        "for containers",
        "/proc/sys/net",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // The helper alone: not with an argument, and nothing else of underpass.
    let list = |args: &[&str]| {
        let wrapper = as_nobody(&path);
        let mut command = Command::new(&wrapper[0]);
        command
            .args(&wrapper[1..])
            .args(["sudo", "-n", "-l", "--"])
            .arg(UNDERPASS)
            .args(args);
        finished(command).status.success()
    };
    assert!(list(&["helper"]));
    for args in [&["helper", "-v"][..], &["up"], &[]] {
        assert!(!list(args), "{args:?}");
    }
}

/// What no program that it starts could gain again, and what it may not call: nothing of that is given up where it runs ssh,
/// which may need it.
fn is_confined_as_over(carrier: &str, pid: i32) {
    let outside = std::process::id() as i32;
    let expected = match carrier {
        "russh" => ["1", "2"].map(str::to_owned),
        _ => CONFINEMENT.map(|key| status(outside, key).unwrap()),
    };
    let found = CONFINEMENT.map(|key| status(pid, key).unwrap());
    assert_eq!(found, expected, "{carrier}");
}

const CONFINEMENT: [&str; 2] = ["NoNewPrivs", "Seccomp"];

#[test]
fn a_user_with_sudo_has_packets_flow_and_no_privileges() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let key = nobody_may_enter(&lab);
    let dir = TempDir::new().unwrap();
    let wrapper = as_nobody(&sudoers_rule(&dir));
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    for carrier in CARRIERS {
        let options = format!("--carrier {carrier} -o BatchMode=yes");
        let args = format!("-i {key} {options} {}", V4.subnet);
        let mut underpass = Underpass::start(lab.wrapped_up_command(&wrapper, &args));
        assert_eq!(
            lab.result("client", &format!("connect {} 80", V4.host)),
            "open"
        );
        let main = underpass.pid();
        assert_eq!(status(main, "Uid").unwrap(), "65534\t65534\t65534\t65534");
        assert_eq!(status(main, "CapPrm").unwrap(), NONE);
        is_confined_as_over(carrier, main);
        let helpers = helpers(main);
        assert_eq!(helpers.len(), 2, "guard and worker");
        for helper in &helpers {
            assert_eq!(status(*helper, "CapPrm").unwrap(), NET_ADMIN);
            assert_eq!(status(*helper, "NoNewPrivs").unwrap(), "1");
            assert_eq!(status(*helper, "Seccomp").unwrap(), "2");
        }
        assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
        assert_eq!(lab.network_state("client"), before);
        assert!(helpers.iter().all(|pid| status(*pid, "Name").is_none()));
    }
}

#[test]
fn a_user_whom_sudo_does_not_allow_is_told() {
    let lab = Lab::up();
    let key = nobody_may_enter(&lab);
    let dir = TempDir::new().unwrap();
    let sudoers = dir.path().join("sudoers");
    fs::write(&sudoers, "root ALL=(ALL) ALL\n").unwrap();
    fs::set_permissions(&sudoers, fs::Permissions::from_mode(0o440)).unwrap();
    let wrapper = as_nobody(&sudoers);
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let output = finished(lab.wrapped_up_command(&wrapper, &format!("-i {key} {}", V4.subnet)));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains("underpass sudoers") && said.contains("setcap"),
        "{said}"
    );
}

#[test]
fn a_user_without_sudo_is_told() {
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .args(["env", "PATH=/nonexistent", UNDERPASS])
        .args(["up", "-r", "127.0.0.1:1", "10.0.1.0/24"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains("install sudo") && said.contains("setcap cap_net_admin+ep"),
        "{said}"
    );
}

/// `up` as nobody, by a program of `dir` that has the capability.
fn with_capability(lab: &Lab, dir: &TempDir, args: &str) -> Command {
    let copy = dir.path().join("underpass");
    fs::copy(UNDERPASS, &copy).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut setcap = Command::new("setcap");
    setcap.arg("cap_net_admin+ep").arg(&copy);
    assert!(finished(setcap).status.success());
    // As udev makes it: open to everybody.
    let device = format!(
        "mknod {0} c 10 200 && chmod 666 {0} && mount --bind {0} /dev/net/tun && exec \"$@\"",
        dir.path().join("tun").display()
    );
    let mut command = lab.command("client", "setsid");
    command
        .args(["unshare", "-m", "sh", "-c", &device, "sh"])
        .args([
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ])
        .arg(&copy)
        // Its run directory is that user's, whom others of these tests run as: it heeds no variable then.
        .arg("up")
        .arg("--name")
        .args(lab.state.file_name())
        .args(["-r", "root@192.168.77.1", "-o"])
        .arg(format!("UserKnownHostsFile={}", lab.file("known_hosts")))
        .args(args.split(' '))
        .env("NO_COLOR", "1");
    command
}

#[test]
fn file_capabilities_are_enough_and_go_to_the_helper_alone() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let key = nobody_may_enter(&lab);
    for carrier in CARRIERS {
        let dir = TempDir::new().unwrap();
        let args = format!("-i {key} --carrier {carrier} {}", V4.subnet);
        let mut underpass = Underpass::start(with_capability(&lab, &dir, &args));
        assert_eq!(
            lab.result("client", &format!("connect {} 80", V4.host)),
            "open"
        );
        let main = underpass.pid();
        assert_eq!(status(main, "CapPrm").unwrap(), NONE);
        for helper in helpers(main) {
            assert_eq!(status(helper, "CapPrm").unwrap(), NET_ADMIN);
        }
        assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
        assert_eq!(lab.network_state("client"), before);
    }
}

#[test]
fn run_by_sudo_it_becomes_who_called() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let key = nobody_may_enter(&lab);
    for carrier in CARRIERS {
        let args = format!("-i {key} --carrier {carrier} {}", V4.subnet);
        let mut command = lab.up_command(&args);
        command.env("SUDO_USER", "nobody");
        let mut underpass = Underpass::start(command);
        let main = underpass.pid();
        assert_eq!(status(main, "Uid").unwrap(), "65534\t65534\t65534\t65534");
        assert_eq!(status(main, "Gid").unwrap(), "65534\t65534\t65534\t65534");
        assert_eq!(status(main, "CapPrm").unwrap(), NONE);
        is_confined_as_over(carrier, main);
        assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
        assert_eq!(lab.network_state("client"), before);
    }
}

/// ssh, where it is run, may need all of them.
#[test]
fn run_by_root_it_keeps_few_capabilities() {
    let lab = Lab::up();
    let own = status(std::process::id() as i32, "CapPrm").unwrap();
    for (carrier, kept) in [
        // CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SETGID and CAP_SETUID.
        ("russh", "00000000000000c6"),
        ("openssh", &own),
    ] {
        let underpass = lab.underpass(&format!("--carrier {carrier} {}", V4.subnet));
        let main = underpass.pid();
        assert_eq!(status(main, "CapPrm").unwrap(), kept);
        is_confined_as_over(carrier, main);
    }
}

// ---- whoever is killed ----

fn is_alive(pid: i32) -> bool {
    status(pid, "State").is_some_and(|state| !state.starts_with('Z'))
}

#[test]
fn a_killed_worker_ends_up_with_a_word() {
    let lab = Lab::up();
    for (index, carrier) in [(0, "russh"), (1, "russh"), (0, "openssh"), (1, "openssh")] {
        let before = lab.network_state("client");
        let mut underpass = lab.underpass(&format!("--carrier {carrier} {}", V4.subnet));
        let helpers = helpers(underpass.pid());
        kill(Pid::from_raw(helpers[index]), Signal::SIGKILL).unwrap();
        assert_eq!(underpass.wait().code(), Some(1));
        underpass.wait_for_line("the privileged part of underpass has ended");
        // The other one of the two has taken it back by then, or does so at once.
        let log = underpass.log().join("\n");
        assert!(!log.contains("has left"), "{log}");
        eventually("the state is as before", || {
            lab.network_state("client") == before
        });
    }
}
