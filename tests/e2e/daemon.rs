//! In the background, and under systemd.

mod journal;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{Lab, Underpass, V4, V6, eventually, finished};

const UNDERPASS: &str = env!("CARGO_BIN_EXE_underpass");

fn connect(lab: &Lab, host: &str, port: u16) -> String {
    lab.result("client", &format!("connect {host} {port} --timeout 3000"))
}

/// As long as one of its threads is: the first may be gone before the others, which hold its files. Nobody may have waited for it
/// yet: a zombie has ended (proc_pid_stat(5)).
fn is_alive(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    threads.into_iter().flatten().flatten().any(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    })
}

#[test]
fn it_returns_when_packets_flow_and_ends_when_told() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let (pid_file, log) = (lab.state.join("pid"), lab.state.join("log"));
    let mut command = lab.up_command(&format!(
        "-D --name bg --pidfile {} {}",
        pid_file.display(),
        V4.subnet
    ));
    command
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap());
    assert!(command.status().unwrap().success());
    // At once: no waiting here.
    assert_eq!(connect(&lab, V4.host, 80), "open");
    let pid: i32 = fs::read_to_string(&pid_file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // A session of its own, and no terminal (proc_pid_stat(5)).
    assert_eq!((fields[3], fields[4]), (pid.to_string().as_str(), "0"));
    for (fd, target) in [
        (0, Path::new("/dev/null")),
        (1, Path::new("/dev/null")),
        (2, &log),
    ] {
        assert_eq!(
            fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap(),
            target
        );
    }
    // The log goes on in the file.
    let hangup = |text: &str| {
        kill(Pid::from_raw(pid), Signal::SIGHUP).unwrap();
        eventually("the log has it", || {
            fs::read_to_string(&log).unwrap().contains(text)
        });
    };
    hangup("reloaded: captures the same as before");
    let output = lab.ask("down");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // The kernel closes its socket a moment before it is gone.
    eventually("it is gone", || !is_alive(pid));
    assert!(!pid_file.exists());
    assert_eq!(lab.network_state("client"), before);
}

#[test]
fn what_fails_at_the_start_is_said_and_its_exit_code_handed_on() {
    let lab = Lab::up();
    let command = lab.up_command(&format!(
        "-D --name bg -i {} {}",
        lab.file("id_wrong"),
        V4.subnet
    ));
    let output = finished(command);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("id_wrong"),
        "{output:?}"
    );
    assert_eq!(
        finished(lab.up_command("-D 10.0.1.0/33")).status.code(),
        Some(2)
    );
    assert_eq!(lab.ask("status").status.code(), Some(1));
}

/// Whoever started it has heard of a failure: nothing is to be captured later.
#[test]
fn it_ends_when_who_waits_for_it_does() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    lab.signal_sshd(Signal::SIGSTOP);
    let mut command = lab.up_command(&format!("-D --name bg {}", V4.subnet));
    let mut front = command.stderr(Stdio::null()).spawn().unwrap();
    eventually("it is starting", || {
        lab.ask("status bg").status.code() == Some(8)
    });
    front.kill().unwrap();
    assert!(!front.wait().unwrap().success());
    eventually("it is gone", || {
        lab.ask("status bg").status.code() == Some(1)
    });
    lab.signal_sshd(Signal::SIGCONT);
    lab.nothing_runs();
    assert_eq!(lab.network_state("client"), before);
}

/// A pipe for stderr is not kept open, or whoever reads it would wait for the daemon's end.
#[test]
fn who_reads_its_words_sees_their_end() {
    let lab = Lab::up();
    let output = finished(lab.up_command(&format!("-D --name bg {}", V4.subnet)));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    for word in [
        "ready: ",
        "in the background as process",
        "underpass down bg",
    ] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    assert_eq!(lab.ask("down bg").status.code(), Some(0));
}

/// On a host that keeps no log, as many containers are.
#[test]
fn without_journald_and_syslog_the_log_is_in_the_run_directory() {
    let lab = Lab::up();
    let script = "journal=/run/systemd/journal; [ ! -d $journal ] || mount -t tmpfs none $journal; \
                  [ ! -e /dev/log ] || mount --bind /dev/null /dev/log; exec \"$@\"";
    let wrapper = ["unshare", "-m", "sh", "-c", script, "sh"];
    let log = lab.state.join("run/bg.log");
    let start = || {
        let args = format!("-D --name bg {}", V4.subnet);
        let output = finished(lab.wrapped_up_command(&wrapper, &args));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        let told = format!("the log goes to {}", log.display());
        assert!(said.contains(&told), "{said}");
    };
    let written = || fs::read_to_string(&log).unwrap_or_default();
    start();
    assert_eq!(fs::metadata(&log).unwrap().mode() & 0o777, 0o600);
    lab.kill_sshd();
    eventually("the loss stands in it", || {
        written().contains("connection lost")
    });
    lab.start_sshd();
    eventually("it is up again", || written().contains("up again"));
    // Whoever asks why it is gone can look.
    let report: serde_json::Value =
        serde_json::from_slice(&lab.ask("status --json bg").stdout).unwrap();
    let pid = report[0]["pid"].as_i64().unwrap() as i32;
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    eventually("it is gone", || !is_alive(pid));
    assert!(written().contains("connection lost"));
    // Nobody asks that of one that was told to end.
    start();
    assert_eq!(lab.ask("down bg").status.code(), Some(0));
    lab.nothing_runs();
}

#[test]
fn a_full_disk_for_the_pid_file_is_an_error_and_leaves_nothing() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let full = lab.state.join("full");
    fs::create_dir(&full).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=16k none {0} && ! head -c 1M /dev/zero 2>/dev/null >{0}/big && exec \"$@\"",
        full.display()
    );
    let wrapper = ["unshare", "-m", "sh", "-c", &script, "sh"];
    for daemon in ["", "-D"] {
        let args = format!(
            "{daemon} --name a --pidfile {}/pid {}",
            full.display(),
            V4.subnet
        );
        let output = finished(lab.wrapped_up_command(&wrapper, &args));
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("pid file") && said.contains("No space left"),
            "{said}"
        );
        assert_eq!(lab.network_state("client"), before);
    }
    lab.nothing_runs();
}

/// As with sshuttle: `sudo underpass up -D --pidfile /run/underpass.pid`. The caller may not write there; root does, and takes
/// it away again, however the run ends. The file may be named in the caller's config.toml.
#[test]
fn under_sudo_the_pid_file_may_be_in_run() {
    let lab = Lab::up();
    lab.open_to("nobody");
    let config = lab.state.join("config-of-nobody");
    let up = |name: &str, typed: &str| {
        let key = lab.file("id_of_nobody");
        let args = format!("-D --name {name} -i {key} {typed} {}", V4.subnet);
        let mut command = lab.up_command(&args);
        command
            .env("SUDO_USER", "nobody")
            .env("SUDO_UID", "65534")
            .env("XDG_CONFIG_HOME", &config)
            .env("UNDERPASS_RUNTIME_DIR", lab.state.join("run-of-nobody"));
        command
    };
    let run = lab.state.join("run-of-nobody");
    fs::create_dir(&run).unwrap();
    chown(&run, Some(65534), None).unwrap();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).unwrap();
    let file = format!("/run/underpass-test-{}.pid", std::process::id());
    fs::create_dir_all(config.join("underpass")).unwrap();
    let text = format!("[defaults]\npidfile = \"{file}\"\n");
    fs::write(config.join("underpass/config.toml"), text).unwrap();
    let typed = format!("--pidfile {file}");
    for (signal, typed) in [
        (Signal::SIGTERM, typed.as_str()),
        (Signal::SIGKILL, typed.as_str()),
        (Signal::SIGKILL, ""),
    ] {
        let output = finished(up("a", typed));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let pid: i32 = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (0, 0o644));
        assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 65534);
        // A second one does not take the file of one that runs.
        let taken = String::from_utf8(finished(up("b", typed)).stderr).unwrap();
        assert!(
            taken.contains(&format!("that of process {pid}, which runs")),
            "{taken}"
        );
        kill(Pid::from_raw(pid), signal).unwrap();
        eventually("it is gone", || !is_alive(pid));
        eventually("its file, too", || !Path::new(&file).exists());
    }
    // Nothing else of root's can be named.
    for (file, word) in [
        ("/run/underpass-test", "let its name end in .pid"),
        ("/etc/underpass-test.pid", "Permission denied"),
    ] {
        let output = finished(up("a", &format!("--pidfile {file}")));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains(word) && said.contains("/run/NAME.pid"),
            "{said}"
        );
        assert!(!Path::new(file).exists());
    }
}

/// A terminal of its own (script(1)) that goes away with who sits at it.
#[test]
fn the_loss_of_its_terminal_ends_it() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let args = format!("--name a {}", V4.subnet);
    let up = lab.up_command(&args);
    let words: Vec<String> = up
        .get_args()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    // Without setsid: script makes the session and its terminal.
    let line = words.iter().skip(2).cloned().collect::<Vec<_>>().join(" ");
    let mut script = lab.command("client", "script");
    script
        .args(["-qec", &format!("exec {line}"), "/dev/null"])
        .env("HOME", &lab.state)
        .env("UNDERPASS_RUNTIME_DIR", lab.state.join("run"))
        .env_remove("SSH_AUTH_SOCK")
        .stdout(Stdio::null());
    let mut script = script.spawn().unwrap();
    let reports = || lab.ask("status --json a").stdout;
    eventually("it is up", || {
        String::from_utf8_lossy(&reports()).contains("\"up\"")
    });
    let report: serde_json::Value = serde_json::from_slice(&reports()).unwrap();
    let pid = report[0]["pid"].as_i64().unwrap() as i32;
    // nsenter execs script: killing it closes the terminal's other end.
    script.kill().unwrap();
    script.wait().unwrap();
    eventually("it ends", || !is_alive(pid));
    assert_eq!(lab.network_state("client"), before);
}

#[test]
fn a_hundred_starts_and_stops_leave_nothing() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let temporary = lab.state.join("tmp");
    fs::create_dir(&temporary).unwrap();
    // One that lives all the time, and hears of every change of the network.
    let mut keeper = lab.underpass(&format!("--name keeper {}", V6.subnet));
    let descriptors = || {
        fs::read_dir(format!("/proc/{}/fd", keeper.pid()))
            .unwrap()
            .count()
    };
    let had = descriptors();
    for _ in 0..100 {
        let mut command = lab.up_command(&format!("-q -D --name a --connections 1 {}", V4.subnet));
        command.env("TMPDIR", &temporary);
        let output = finished(command);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let output = lab.ask("down a");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    assert_eq!(lab.ask("status keeper").status.code(), Some(0));
    eventually("it has the descriptors that it had", || {
        descriptors() == had
    });
    assert_eq!(keeper.stop(Signal::SIGTERM).code(), Some(0));
    assert_eq!(lab.network_state("client"), before);
    lab.nothing_runs();
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
    // Of the lab's own nobody is there, nor of any other test.
    eventually("nobody is left in the client", || {
        lab.processes("client").is_empty()
    });
}

/// What systemd hears, until a line is among it.
struct Systemd {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Systemd {
    fn new(lab: &Lab) -> Self {
        let path = lab.state.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        Self { socket, path }
    }

    fn until(&self, wanted: &str) -> Vec<String> {
        let mut heard = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let Ok(length) = self.socket.recv(&mut buffer) else {
                panic!("no {wanted:?} among {heard:?}");
            };
            // A longer one is dropped (NOTIFY_BUFFER_MAX).
            assert!(length < 4096, "a message of {length} bytes");
            let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
            heard.extend(text.lines().map(str::to_owned));
            if heard.iter().any(|line| line.starts_with(wanted)) {
                return heard;
            }
        }
    }
}

#[test]
fn systemd_hears_how_it_stands() {
    let lab = Lab::up();
    let systemd = Systemd::new(&lab);
    let file = lab.file("subnets");
    fs::write(&file, V4.subnet).unwrap();
    let mut command = lab.up_command(&format!("--name a -s {file}"));
    command
        .env("NOTIFY_SOCKET", &systemd.path)
        .env("WATCHDOG_USEC", "200000");
    let mut underpass = Underpass::start(command);
    let heard = systemd.until("READY=1");
    assert!(
        heard[0].starts_with("STATUS=logging in to root@"),
        "{heard:?}"
    );
    // Not before packets flow.
    assert_eq!(connect(&lab, V4.host, 80), "open");
    let heard = systemd.until("WATCHDOG=1");
    assert!(!heard.iter().any(|line| line == "STOPPING=1"), "{heard:?}");
    fs::write(&file, V6.subnet).unwrap();
    underpass.signal(Signal::SIGHUP);
    let heard = systemd.until("RELOADING=1");
    assert!(
        heard.iter().any(|line| line.starts_with("MONOTONIC_USEC=")),
        "{heard:?}"
    );
    let heard = systemd.until("READY=1");
    assert!(
        heard.iter().any(|line| line.contains(V6.subnet)),
        "{heard:?}"
    );
    lab.kill_sshd();
    systemd.until("STATUS=reconnecting to root@");
    lab.start_sshd();
    systemd.until(&format!("STATUS={} through root@", V6.subnet));
    underpass.signal(Signal::SIGTERM);
    systemd.until("STOPPING=1");
    assert_eq!(underpass.wait().code(), Some(0));
}

#[test]
fn systemd_hears_of_many_networks() {
    let lab = Lab::up();
    let systemd = Systemd::new(&lab);
    let file = lab.file("subnets");
    let nets = (0..400).map(|number| format!("10.{}.{}.0/24\n", 100 + number / 200, number % 200));
    fs::write(&file, nets.collect::<String>()).unwrap();
    let mut command = lab.up_command(&format!("--name a -s {file}"));
    command.env("NOTIFY_SOCKET", &systemd.path);
    let mut underpass = Underpass::start(command);
    let heard = systemd.until("READY=1");
    let line = " and 397 more through root@";
    assert!(heard.iter().any(|heard| heard.contains(line)), "{heard:?}");
    underpass.signal(Signal::SIGTERM);
    assert_eq!(underpass.wait().code(), Some(0));
}

/// A unit of the repository, with the program under test in it.
fn unit(path: &str, to: &Path) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scripts/systemd")
        .join(path);
    let text = fs::read_to_string(from)
        .unwrap()
        .replace("/usr/bin/underpass", UNDERPASS);
    let unit = to.join("underpass@.service");
    fs::write(&unit, text).unwrap();
    unit
}

fn analyze(args: &[&str], unit: &Path) -> String {
    let output = Command::new("systemd-analyze")
        // --user looks for it.
        .env("XDG_RUNTIME_DIR", unit.parent().unwrap())
        .args(args)
        .arg(unit)
        // Of a user, where nobody is logged in.
        .env("XDG_RUNTIME_DIR", unit.parent().unwrap())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    assert!(output.status.success(), "{args:?}: {text}");
    text
}

#[test]
fn the_units_make_sense_to_systemd() {
    let dir = tempfile::tempdir().unwrap();
    for (path, args) in [
        ("underpass@.service", vec!["verify", "--man=no"]),
        (
            "user/underpass@.service",
            vec!["verify", "--man=no", "--user"],
        ),
    ] {
        let unit = unit(path, dir.path());
        let said = analyze(&args, &unit);
        assert!(!said.contains("underpass@"), "{path}: {said}");
    }
}

/// 0 is best, 10 is worst; below 3 is what systemd calls OK for a service that has to reach the network as root.
#[test]
fn the_system_unit_is_confined() {
    let dir = tempfile::tempdir().unwrap();
    let unit = unit("underpass@.service", dir.path());
    analyze(&["security", "--offline=yes", "--threshold=30"], &unit);
}
