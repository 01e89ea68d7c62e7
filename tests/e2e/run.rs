//! `run`: a command of an ordinary user gets a network of its own, and is else as it was.

mod audit;
mod bare;
mod kill_rounds;
mod names;
mod quick;
#[path = "../helper/watch.rs"]
mod watch;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::rig::{Rig, UID, UNDERPASS, probe_program, processes_with, stray_mounts};
use crate::common::{V4, V6, carrier, eventually, finished, finished_within};

/// How long fifty runs may take, one after the other, on a machine that does much else.
const LONG: Duration = Duration::from_secs(300);

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
}

/// The lines of a child's stdout, of which the first is awaited.
fn after_first_line(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    lines.map(Result::unwrap)
}

#[test]
fn the_subnets_go_through_the_server_and_the_rest_goes_as_from_the_host() {
    let rig = Rig::new();
    let both = format!("{} {}", V4.subnet, V6.subnet);
    for net in [V4, V6] {
        for (probe, result) in [
            (format!("get {} 5001 3000001", net.host), "ok"),
            (format!("put {} 5002 3000001", net.host), "ok"),
            (format!("connect {} 81", net.host), "ECONNREFUSED"),
            (format!("udp {} 81", net.host), "ECONNREFUSED"),
            (format!("connect {} 80", net.no_such_host), "EHOSTUNREACH"),
            (format!("connect {} 80", net.no_such_net), "ENETUNREACH"),
        ] {
            assert_eq!(rig.probe(&both, &probe), result, "{probe}");
        }
    }
    // The client has no route to it, but the bastion has.
    assert_eq!(rig.probe(V6.subnet, "connect 10.0.1.20 80"), "ENETUNREACH");
    for (probe, result) in [
        ("connect 192.168.77.1 22", "open"),
        ("connect fd00:77::1 22", "open"),
        ("connect 192.168.77.1 81", "ECONNREFUSED"),
        ("connect 127.0.0.1 22", "ECONNREFUSED"),
        ("connect ::1 22", "ECONNREFUSED"),
    ] {
        assert_eq!(rig.probe(V4.subnet, probe), result, "{probe}");
    }
}

#[test]
fn isolated_it_reaches_nothing_else() {
    let rig = Rig::new();
    let args = format!("--isolate {} 10.0.2.20:80 -x 10.0.1.21", V4.subnet);
    for (probe, result) in [
        ("connect 10.0.1.20 80", "open"),
        ("connect 10.0.1.21 80", "ENETUNREACH"),
        ("connect 10.0.2.20 80", "open"),
        ("connect 10.0.2.20 7", "ENETUNREACH"),
        ("connect 192.168.77.1 22", "ENETUNREACH"),
        ("connect fd00:77::1 22", "ENETUNREACH"),
    ] {
        assert_eq!(rig.probe(&args, probe), result, "{probe}");
    }
}

/// From every place: what is set somewhere and not heeded would let out what shall stay in.
#[test]
fn isolated_by_the_environment_or_by_a_profile() {
    let rig = Rig::new();
    let configs = rig.file("config");
    let config = configs.join("underpass");
    fs::create_dir_all(&config).unwrap();
    let text = format!(
        "[profile.p]\nsubnets = [\"{}\"]\nisolate = true\n",
        V4.subnet
    );
    fs::write(config.join("config.toml"), text).unwrap();
    let probe = probe_program();
    for (args, variable, result) in [
        (V4.subnet, "", "open"),
        (V4.subnet, "1", "ENETUNREACH"),
        ("p", "", "ENETUNREACH"),
        ("p", "false", "open"),
        ("p --isolate", "false", "ENETUNREACH"),
    ] {
        let connect = [probe.as_str(), "connect", "192.168.77.1", "22"];
        let mut command = rig.run_command(args, &connect);
        command.env("UNDERPASS_ISOLATE", variable);
        command.env("XDG_CONFIG_HOME", &configs);
        let output = finished(command);
        let found = String::from_utf8_lossy(&output.stdout);
        let expected = format!("\"{result}\"");
        assert!(
            found.contains(&expected),
            "{args} {variable}: {found} {}",
            said(&output)
        );
    }
}

#[test]
fn everything_goes_through_the_server() {
    let rig = Rig::new();
    for (probe, result) in [
        ("connect 10.0.2.20 80", "open"),
        ("connect fd00:10:0:2::20 80", "open"),
        // The bastion's own port 22, from the bastion.
        ("connect 10.0.1.1 22", "open"),
    ] {
        assert_eq!(rig.probe("--all", probe), result, "{probe}");
    }
    // The box behind the client is out of the bastion's reach.
    assert_eq!(
        rig.probe(V4.subnet, "connect 172.31.0.2 80"),
        "ECONNREFUSED"
    );
    assert_eq!(rig.probe("--all", "connect 172.31.0.2 80"), "ENETUNREACH");
    assert_eq!(
        rig.probe("--all -x 172.31.0.0/24", "connect 172.31.0.2 80"),
        "ECONNREFUSED"
    );
}

#[test]
fn the_command_is_as_it_was() {
    let rig = Rig::new();
    let script = r#"id -u; id -g; pwd; echo "$MARK $1"; cat; ulimit -n; grep SigBlk /proc/self/status; ls /proc/self/fd | wc -l"#;
    let shell = ["sh", "-c", script, "sh", "an argument"];
    let run = |mut command: std::process::Command| {
        command
            .env("MARK", "kept")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(said(&output), "");
        String::from_utf8(output.stdout).unwrap()
    };
    let mut outside = rig.as_user("sh");
    outside.args(&shell[1..]);
    let expected = run(outside);
    assert!(expected.starts_with("65534\n65534\n/"), "{expected}");
    assert_eq!(run(rig.run_command(V4.subnet, &shell)), expected);
}

/// The line of proc_pid_status(5) of a process.
fn status(pid: &str, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap().trim_start_matches(':').trim().to_owned()
}

/// What holds keys and parses packets gives up what `up` gives up, and nothing of that is taken from the command. Where it runs
/// ssh, which needs what it needs, it has no more than the command.
#[test]
fn the_process_beside_the_command_is_confined_and_the_command_is_not() {
    let published = format!("{} --publish 80:80", V4.subnet);
    for (rig, args, kept) in [
        (Rig::new(), V4.subnet, "0000000000000000"),
        // What `up` keeps, and CAP_KILL.
        (
            Rig::with_user(&["env"], 0),
            published.as_str(),
            "00000000000000e6",
        ),
    ] {
        let script = "echo $$ $PPID; read line";
        let mut command = rig.run_command(args, &["sh", "-c", script]);
        let mut outside = rig.as_user("grep");
        outside.args(["-E", "^(CapPrm|NoNewPrivs|Seccomp):", "/proc/self/status"]);
        let outside = String::from_utf8(finished(outside).stdout).unwrap();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let pids = lines.next().unwrap().unwrap();
        let (command, main) = pids.split_once(' ').unwrap();
        let confined = [("CapPrm", kept), ("NoNewPrivs", "1"), ("Seccomp", "2")];
        let outside: Vec<(&str, &str)> = outside
            .lines()
            .map(|line| line.split_once(":\t").unwrap())
            .collect();
        let expected = match carrier() {
            "russh" => &confined[..],
            _ => &outside,
        };
        for (key, value) in expected {
            assert_eq!(status(main, key), *value, "{key}");
        }
        for (key, value) in outside {
            assert_eq!(status(command, key), value, "{key}");
        }
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}

#[test]
fn the_exit_code_is_the_commands() {
    let rig = Rig::new();
    let text = rig.file("text");
    fs::write(&text, "no program").unwrap();
    fs::set_permissions(&text, fs::Permissions::from_mode(0o644)).unwrap();
    for (command, code, words) in [
        (&["true"][..], 0, ""),
        (&["sh", "-c", "exit 7"], 7, ""),
        (&["sh", "-c", "kill -TERM $$"], 143, ""),
        (&["sh", "-c", "kill -KILL $$"], 137, ""),
        (&["no-such-program"], 127, "no such program"),
        (&["./text"], 126, "cannot be run"),
        (&["/"], 126, "cannot be run"),
    ] {
        let output = rig.run(V4.subnet, command);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{command:?} {}",
            said(&output)
        );
        assert!(said(&output).contains(words), "{}", said(&output));
        assert_eq!(
            said(&output).is_empty(),
            words.is_empty(),
            "{}",
            said(&output)
        );
    }
    for (args, words) in [
        ("-p 9 10.0.1.0/24", "refused"),
        ("10.0.1.0/33", "width is over 32"),
        ("10.0.1.0/24 --publish 80", "a port is missing"),
        ("10.0.1.0/24 --publish 22:22", "take a port from 1024"),
        ("10.0.1.0/24 -p 2204", "host key"),
        ("10.0.1.0/24 --no-such-option", "unexpected argument"),
    ] {
        let output = rig.run(args, &["true"]);
        assert_eq!(output.status.code(), Some(125), "{args}: {}", said(&output));
        assert!(said(&output).contains(words), "{args}: {}", said(&output));
    }
}

#[test]
fn a_shell_of_ones_own() {
    let rig = Rig::new();
    let mut command = rig.as_user("setsid");
    command
        .args(["--wait", UNDERPASS, "shell"])
        .args(rig.login())
        .arg(V4.subnet);
    command
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let probe = format!("{} connect {} 80\nexit 3\n", probe_program(), V4.host);
    input.write_all(probe.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("\"open\""), "{printed}");
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn signals_are_the_commands() {
    let rig = Rig::new();
    let script = "trap 'echo TERM; exit 9' TERM; trap 'echo INT; exit 8' INT; echo up; while :; do sleep 0.05; done";
    for (sent, word, code) in [(Signal::SIGTERM, "TERM", 9), (Signal::SIGINT, "INT", 8)] {
        let mut command = rig.as_user(UNDERPASS);
        command.arg("run").args(rig.login());
        command.args([V4.subnet, "--", "sh", "-c", script]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = after_first_line(&mut child);
        signal(&child, sent);
        assert_eq!(lines.collect::<Vec<_>>(), [word]);
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
}

/// As nohup(1) does it.
#[test]
fn what_was_ignored_stays_ignored() {
    let rig = Rig::new();
    let mut command = rig.as_user("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh", UNDERPASS, "run"]);
    command
        .args(rig.login())
        .args([V4.subnet, "--", "sh", "-c"]);
    command.arg("echo up; kill -HUP $$; echo alive");
    let output = finished(command);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "up\nalive\n");
}

#[test]
fn killed_it_takes_the_command_along_and_leaves_nothing() {
    let rig = Rig::new();
    let mark = rig.file("a mark among the arguments").display().to_string();
    let mark = mark.as_str();
    let mut command = rig.as_user(UNDERPASS);
    command.arg("run").args(rig.login());
    command.args([V4.subnet, "--publish", "8080:80", "--", "sh", "-c"]);
    command.args(["echo up; read line", mark]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Held to the end: the command does not end by itself.
    let _input = child.stdin.take();
    drop(after_first_line(&mut child));
    assert_eq!(
        processes_with(mark).len(),
        3,
        "ours, the maker of sockets, the command"
    );
    signal(&child, Signal::SIGKILL);
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    eventually("nothing is left", || processes_with(mark).is_empty());
    assert_eq!(stray_mounts(), 0);
}

/// What the command has started itself is nobody's to end; it keeps the network without its way out.
#[test]
fn killed_it_leaves_what_the_command_started_without_a_network() {
    let rig = Rig::new();
    let script = format!(
        "(read line; {} connect {} 80) <&3 & echo up; wait",
        probe_program(),
        V4.host
    );
    let mut command = rig.as_user(UNDERPASS);
    command.arg("run").args(rig.login());
    command.args([V4.subnet, "--", "sh", "-c", &format!("exec 3<&0; {script}")]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines = after_first_line(&mut child);
    signal(&child, Signal::SIGKILL);
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    input.write_all(b"go\n").unwrap();
    let line = lines.last().unwrap();
    assert!(line.contains("ENETUNREACH"), "{line}");
    assert_eq!(stray_mounts(), 0);
}

#[test]
fn nothing_is_left_after_an_orderly_end() {
    let rig = Rig::new();
    let state = rig.lab.network_state("client");
    let mark = rig.file("a mark among the arguments").display().to_string();
    rig.prints(
        &format!("{} --publish 8080:80", V4.subnet),
        &["sh", "-c", "true", &mark],
    );
    eventually("nothing is left", || processes_with(&mark).is_empty());
    let login = rig.login();
    eventually("no ssh is left", || {
        processes_with(login.last().unwrap()).is_empty()
    });
    assert_eq!(rig.lab.network_state("client"), state);
    assert_eq!(stray_mounts(), 0);
}

/// A shell with job control stops us as it stops the command.
#[test]
fn a_shell_stops_it_and_goes_on_with_it() {
    let rig = Rig::new();
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut bash = rig.as_user("setsid");
    bash.args(["--ctty", "bash", "--norc", "--noprofile", "-i"]);
    bash.stdin(pty.slave.try_clone().unwrap());
    bash.stdout(pty.slave.try_clone().unwrap());
    bash.stderr(pty.slave);
    let mut child = bash.spawn().unwrap();
    drop(bash);
    let mut keyboard = fs::File::from(pty.master.try_clone().unwrap());
    let (sender, screen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // At its end the terminal gives EIO.
        for line in BufReader::new(fs::File::from(pty.master))
            .lines()
            .map_while(Result::ok)
        {
            let _ = sender.send(line);
        }
    });
    let shows = |word: &str| {
        let mut seen = Vec::new();
        while let Ok(line) = screen.recv_timeout(Duration::from_secs(20)) {
            if line.contains(word) {
                return;
            }
            seen.push(line);
        }
        panic!("the terminal does not show {word:?} but {seen:?}");
    };
    let mut type_in = |text: &str| keyboard.write_all(text.as_bytes()).unwrap();
    type_in("stty -echo; PS1='pro''mpt\\n'\n");
    shows("prompt");
    let login = rig.login().join(" ");
    type_in(&format!(
        "{UNDERPASS} run {login} {} -- sh -c 'echo u''p; cat'\n",
        V4.subnet
    ));
    shows("up");
    type_in("one\n");
    shows("one");
    type_in("\x1a");
    shows("Stopped");
    shows("prompt");
    type_in("fg >/dev/null\ntwo\n");
    shows("two");
    // What is typed before the shell has its terminal back may be lost.
    type_in("\x03");
    shows("prompt");
    type_in("echo code=$?\n");
    shows("code=130");
    type_in("exit\n");
    child.wait().unwrap();
}

#[test]
fn what_was_sent_before_the_end_arrives() {
    let rig = Rig::new();
    let script = format!(
        "exec 3<>/dev/tcp/{}/5009; read -u 3 line; head -c 50000000 /dev/zero >&3",
        V4.host
    );
    rig.prints(V4.subnet, &["bash", "-c", &script]);
    let ask = format!(
        "exec 3<>/dev/tcp/{}/80; printf 'GET /far-close HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3",
        V4.host
    );
    let answer = || {
        let mut direct = rig.lab.command("vpc", "bash");
        direct.args(["-c", &ask]);
        String::from_utf8(finished(direct).stdout).unwrap()
    };
    eventually("the far side has read to the end", || {
        !answer().contains("Content-Length: 0\r\n")
    });
    assert!(answer().contains("50000000"), "{}", answer());
}

#[test]
fn several_at_once_and_one_in_another() {
    let rig = Rig::new();
    let script = "echo up; read line";
    let mut first = rig
        .run_command(V4.subnet, &["sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = after_first_line(&mut first);
    let login = rig.login();
    let mut inner = vec![UNDERPASS, "run"];
    inner.extend(login.iter().map(String::as_str));
    let probe = probe_program();
    inner.extend([
        "10.0.2.0/24",
        "--",
        &probe,
        "get",
        "10.0.2.20",
        "5001",
        "300001",
    ]);
    // ssh, where there is one, is in the inner one's network.
    let output = rig.prints(V4.subnet, &inner);
    assert!(output.contains("\"ok\""), "{output}");
    drop(first.stdin.take());
    assert_eq!(lines.count(), 0);
    first.wait().unwrap();
}

#[test]
fn a_home_that_is_read_only_and_no_run_directory() {
    let mut rig = Rig::new();
    rig.setup = "mount -t tmpfs -o ro,mode=0 none /run; mount --bind \"$RIG\" \"$RIG\"; mount -o remount,bind,ro \"$RIG\""
        .to_owned();
    assert_eq!(rig.prints(V4.subnet, &["echo", "fine"]), "fine\n");
}

/// Nothing can be written to `$HOME` and `$TMPDIR`.
#[test]
fn a_full_disk() {
    let mut rig = Rig::new();
    let full = rig.file("full");
    fs::create_dir(&full).unwrap();
    rig.setup = "mount -t tmpfs -o size=4k,nr_inodes=2,mode=777 none \"$RIG/full\"; head -c 1M /dev/zero 2>/dev/null >\"$RIG/full/big\" || :"
        .to_owned();
    let probe = probe_program();
    let get = [probe.as_str(), "get", V4.host, "5001", "3000000"];
    let mut command = rig.run_command(V4.subnet, &get);
    // ssh's control socket goes to another directory.
    command.env("HOME", &full).env("TMPDIR", &full);
    let output = finished(command);
    let result = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(result.contains("\"ok\""), "{}", said(&output));
}

/// Runs a program as nobody in a user namespace that may have 40 namespaces of each kind: the kernel takes its time to let
/// those go that have ended, and all of the fifty would be too many.
const FEW_NAMESPACES: &str = r#"
outside=$(readlink /proc/self/ns/user)
export INSIDE='
    for kind in user net mnt; do echo 40 >/proc/sys/user/max_${kind}_namespaces; done
    exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"'
unshare -U sh -c 'until [ "$(id -u)" = 0 ]; do :; done; exec sh -c "$INSIDE" sh "$@"' sh "$@" &
until [ "$(readlink /proc/$!/ns/user)" != "$outside" ]; do :; done
for map in uid_map gid_map; do printf "0 0 1\n65534 65534 1\n" >/proc/$!/$map; done
wait $!
"#;

/// The kernel counts: in user namespaces that may have fewer namespaces than there are runs, each run has its own. `a_hundred_starts_and_stops_leave_nothing` has as many of `up`.
#[test]
fn a_hundred_runs_leave_no_namespace() {
    let rig = Rig::with_user(&["sh", "-c", FEW_NAMESPACES, "sh"], UID);
    let state = rig.lab.network_state("client");
    let mark = rig.file("a mark among the arguments").display().to_string();
    let many = "for i in $(seq 50); do \"$@\" || exit; done";
    std::thread::scope(|scope| {
        for port in ["18001:80", "18002:80"] {
            let (rig, mark) = (&rig, &mark);
            scope.spawn(move || {
                let mut command = rig.as_user("sh");
                command.args(["-c", many, "sh", UNDERPASS, "run"]);
                command.args(rig.login());
                command.args([V4.subnet, "--publish", port, "--", "true", mark]);
                let output = finished_within(LONG, command);
                assert!(output.status.success(), "{}", said(&output));
            });
        }
    });
    eventually("nothing is left", || processes_with(&mark).is_empty());
    assert_eq!(rig.lab.network_state("client"), state);
    assert_eq!(stray_mounts(), 0);
}

#[test]
fn root_needs_no_user_namespace() {
    let rig = Rig::with_user(&["env"], 0);
    let script = "id -u; readlink /proc/self/ns/user";
    let inside = rig.prints(V4.subnet, &["sh", "-c", script]);
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    assert_eq!(inside, format!("0\n{}\n", own.display()));
    assert_eq!(rig.probe(V4.subnet, "connect 10.0.1.20 80"), "open");
}

#[test]
fn where_namespaces_are_not_permitted_it_says_what_to_do() {
    let script = "echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --bounding-set -all --inh-caps -all \"$@\"";
    let rig = Rig::with_user(&["unshare", "-Ur", "sh", "-c", script, "sh"], 0);
    let output = rig.run(V4.subnet, &["true"]);
    assert_eq!(output.status.code(), Some(125), "{}", said(&output));
    let words = "user.max_user_namespaces is 0; run: sudo sysctl -w user.max_user_namespaces=15000";
    assert!(said(&output).contains(words), "{}", said(&output));
}

#[test]
fn a_device_that_the_user_may_not_open() {
    let mut rig = Rig::new();
    rig.setup = "chmod 600 /dev/net/tun".to_owned();
    let output = rig.run(V4.subnet, &["true"]);
    assert_eq!(output.status.code(), Some(125), "{}", said(&output));
    assert!(
        said(&output).contains("sudo chmod 0666 /dev/net/tun"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_published_port_reaches_a_listener_inside() {
    let rig = Rig::new();
    let script =
        "echo up; read line; echo hello | nc -lN 127.0.0.1 8080; echo six | nc -lN ::1 8080";
    let mut command = rig.run_command(
        &format!("{} --publish 18080:8080", V4.subnet),
        &["sh", "-c", script],
    );
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines = after_first_line(&mut child);
    let ask = || {
        let mut nc = rig.lab.command("client", "nc");
        nc.args(["-d", "127.0.0.1", "18080"]);
        String::from_utf8(finished(nc).stdout).unwrap()
    };
    assert_eq!(ask(), "", "nobody listens yet");
    input.write_all(b"go\n").unwrap();
    eventually("the first listener is reached", || ask() == "hello\n");
    eventually("the second listener is reached", || ask() == "six\n");
    assert_eq!(lines.count(), 0);
    assert!(child.wait().unwrap().success());
}

/// The client reads late, and has not closed its side when the command ends.
#[test]
fn what_a_published_listener_has_sent_arrives_after_its_end() {
    let rig = Rig::new();
    let serve = "import socket\n\
                 s = socket.create_server(('127.0.0.1', 8080))\n\
                 print('up', flush=True)\n\
                 c = s.accept()[0]\n\
                 c.sendall(bytes(8_000_000))\n\
                 c.close()";
    let mut child = rig
        .run_command(
            &format!("{} --publish 18080:8080", V4.subnet),
            &["python3", "-c", serve],
        )
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = after_first_line(&mut child);
    let read = "import socket, time\n\
                c = socket.create_connection(('127.0.0.1', 18080))\n\
                time.sleep(1)\n\
                count = 0\n\
                while chunk := c.recv(65536):\n    count += len(chunk); time.sleep(0.005)\n\
                print(count)";
    let mut client = rig.lab.command("client", "python3");
    client.args(["-c", read]);
    let output = finished(client);
    let count = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        count,
        "8000000\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(lines.count(), 0);
    assert!(child.wait().unwrap().success());
}
