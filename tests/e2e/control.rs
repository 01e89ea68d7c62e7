//! A running instance can be asked, reloaded and ended; by its own user, and by nobody else.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::{Lab, Probe, Underpass, V4, V6, Value, eventually, finished, result_of};

const NONE_RUNS: Option<i32> = Some(1);
const TAKEN: Option<i32> = Some(5);
const NOT_CONNECTED: Option<i32> = Some(8);

fn connect(lab: &Lab, host: &str, port: u16) -> String {
    lab.result("client", &format!("connect {host} {port} --timeout 3000"))
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8(text).unwrap()
}

/// `status --json`; how many there are is asserted.
fn status<const N: usize>(lab: &Lab, args: &str) -> [Value; N] {
    let output = lab.ask(&format!("status --json {args}"));
    let reports: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    reports.try_into().unwrap_or_else(|_| panic!("{output:?}"))
}

fn socket(lab: &Lab, name: &str) -> PathBuf {
    lab.state.join(format!("run/{name}.sock"))
}

/// A connection that stays, and where it is.
fn idle(lab: &Lab, host: &str) -> Probe {
    lab.start_probe("client", &format!("source {host} 19 --wait"))
        .connected()
}

#[test]
fn status_tells_and_down_ends() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let mut underpass = lab.underpass(&format!("--name prod {} -x {}/32", V4.subnet, V4.other));
    assert_eq!(connect(&lab, V4.host, 80), "open");
    assert_eq!(connect(&lab, V4.host, 81), "ECONNREFUSED");
    let held = idle(&lab, V4.host);
    eventually("the first flow has ended", || {
        let [report] = status(&lab, "");
        report["flows"]["open"] == 1
    });
    let [report] = status(&lab, "prod");
    assert_eq!(report["name"], "prod");
    assert_eq!(report["pid"], underpass.pid());
    assert_eq!(report["state"], "up");
    assert_eq!(report["server"]["user"], "root");
    assert_eq!(report["server"]["address"], "192.168.77.1:22");
    let key = report["server"]["host_key"].as_str().unwrap();
    assert!(key.contains("SHA256:"), "{report}");
    assert!(report["server"]["login"].as_str().unwrap().contains("id"));
    assert_eq!(report["subnets"], serde_json::json!([V4.subnet]));
    assert_eq!(
        report["excludes"],
        serde_json::json!([format!("{}/32", V4.other)])
    );
    assert_eq!(report["device"], "underpass0");
    assert_eq!(report["flows"]["total"], 3);
    assert_eq!(report["flows"]["refused"]["refused"], 1);
    let output = lab.ask("status");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for line in [
        "name      prod\n",
        "state     up for ",
        V4.subnet,
        "not opened: refused 1",
    ] {
        assert!(said(&output).contains(line), "no {line:?} in {output:?}");
    }
    let output = lab.ask("down prod");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // Not only told to end: it has ended.
    assert_eq!(lab.network_state("client"), before);
    assert!(!Path::new(&format!("/proc/{}/fd/0", underpass.pid())).exists());
    assert_eq!(underpass.wait().code(), Some(0));
    drop(held);
    lab.nothing_runs();
    let output = lab.ask("status prod");
    assert_eq!(output.status.code(), NONE_RUNS, "{output:?}");
    assert!(said(&output).contains("prod is not running"), "{output:?}");
    let [] = status(&lab, "");
}

#[test]
fn flows_lists_each_connection_with_its_process_and_bytes() {
    let lab = Lab::up();
    let _underpass = lab.underpass(&format!("--name a {}", V4.subnet));
    let flows = || -> Vec<Value> {
        let output = lab.ask("flows --json");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert_eq!(flows(), Vec::<Value>::new());
    // An echo of 64 bytes each way, and one that nobody answers.
    let held = lab
        .start_probe("client", &format!("many {} 7 1 --hold", V4.host))
        .connected();
    let target = format!("{}:7", V4.host);
    let all = flows();
    let [flow] = all.as_slice() else {
        panic!("{all:?}");
    };
    assert_eq!(
        (&flow["target"], &flow["is_open"]),
        (&Value::from(target.as_str()), &true.into())
    );
    assert!(
        flow["source"].as_str().unwrap().starts_with("198.18."),
        "{flow}"
    );
    assert_eq!(flow["bytes"], serde_json::json!({"up": 64, "down": 64}));
    assert_eq!(
        (&flow["user"], &flow["process"]),
        (&"root".into(), &"lab-probe".into())
    );
    assert!(flow["connection"].as_u64().unwrap() >= 1, "{flow}");
    assert_eq!(flow["name"], "a");
    let asked = lab.start_probe("client", &format!("connect {} 80", V4.black_hole));
    eventually("it is asked for", || flows().len() == 2);
    assert_eq!(flows()[1]["is_open"], false);
    let table = said(&lab.ask("flows a"));
    assert!(table.starts_with("TARGET "), "{table}");
    assert!(
        table.contains(&target) && table.contains("lab-probe ("),
        "{table}"
    );
    assert!(
        table.contains(&format!("({}:80)", V4.black_hole)),
        "{table}"
    );
    drop((held, asked));
    eventually("they have ended", || flows().is_empty());
    let output = lab.ask("flows b");
    assert_eq!(output.status.code(), NONE_RUNS, "{output:?}");
    assert!(
        said(&output).contains("b is not running; running: a"),
        "{output:?}"
    );
}

/// More than are in one answer; each once.
#[test]
fn thousands_of_flows_are_listed_whole() {
    let lab = Lab::up();
    let _underpass = lab.underpass(&format!("--name a {}", V4.subnet));
    let held = lab
        .start_probe("client", &format!("many {} 7 2000 --hold", V4.host))
        .connected();
    let output = lab.ask("flows --json");
    let flows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let numbers: std::collections::BTreeSet<_> =
        flows.iter().map(|flow| flow["flow"].as_u64()).collect();
    assert_eq!((flows.len(), numbers.len()), (2000, 2000));
    assert!(flows.iter().all(|flow| flow["process"] == "lab-probe"));
    let answer = answer(&socket(&lab, "a"), b"{\"request\":\"flows\",\"after\":0}\n");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["flows"].as_array().unwrap().len(), 512);
    assert!(answer["next"].is_u64(), "{}", answer["next"]);
    drop(held);
}

#[test]
fn a_name_is_taken_once_and_two_live_side_by_side() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let mut first = lab.underpass(&format!("--name one {}", V4.subnet));
    let again = finished(lab.up_command(&format!("--name one {}", V6.subnet)));
    assert_eq!(again.status.code(), TAKEN, "{again:?}");
    let hint = format!(
        "one runs already, as process {}; underpass down one",
        first.pid()
    );
    assert!(said(&again).contains(&hint), "{again:?}");
    let mut second = lab.underpass(&format!("--name two {}", V6.subnet));
    let [one, two] = status(&lab, "");
    assert_eq!(
        (one["name"].as_str(), two["name"].as_str()),
        (Some("one"), Some("two"))
    );
    let table = said(&lab.ask("status"));
    assert_eq!(table.lines().count(), 3, "{table}");
    let output = lab.ask("down");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said(&output).contains("running: one, two"), "{output:?}");
    assert_eq!(lab.ask("down one").status.code(), Some(0));
    assert_eq!(first.wait().code(), Some(0));
    assert_eq!(connect(&lab, V6.host, 80), "open");
    assert_eq!(lab.ask("down --all").status.code(), Some(0));
    assert_eq!(second.wait().code(), Some(0));
    assert_eq!(lab.network_state("client"), before);
    assert_eq!(lab.ask("down").status.code(), NONE_RUNS);
}

#[test]
fn what_a_killed_one_left_is_no_obstacle() {
    let lab = Lab::up();
    lab.underpass(&format!("--name a {}", V4.subnet))
        .stop(Signal::SIGKILL);
    assert!(socket(&lab, "a").exists());
    assert_eq!(lab.ask("status").status.code(), NONE_RUNS);
    assert_eq!(lab.ask("down a").status.code(), NONE_RUNS);
    let output = lab.ask("cleanup");
    assert!(
        said(&output).contains("removed the control socket of a killed run"),
        "{output:?}"
    );
    lab.nothing_runs();
    lab.underpass(&format!("--name a {}", V4.subnet))
        .stop(Signal::SIGKILL);
    let mut next = lab.underpass(&format!("--name a {}", V4.subnet));
    let [report] = status(&lab, "a");
    assert_eq!(report["pid"], next.pid());
    assert_eq!(next.stop(Signal::SIGTERM).code(), Some(0));
    lab.nothing_runs();
}

#[test]
fn a_lost_connection_is_told() {
    let lab = Lab::up();
    let mut underpass = lab.underpass(&format!("--name a {}", V4.subnet));
    lab.kill_sshd();
    underpass.wait_for_line("connection lost");
    eventually("it reconnects", || {
        lab.ask("status").status.code() == NOT_CONNECTED
    });
    let [report] = status(&lab, "");
    assert_eq!(report["state"], "reconnecting", "{report}");
    assert_eq!(report["carrier"]["connections"], 0);
    // Who it was before the loss.
    assert_eq!(report["server"]["address"], "192.168.77.1:22");
    lab.start_sshd();
    underpass.wait_for_line("up again");
    eventually("it is up", || lab.ask("status").status.success());
    let [report] = status(&lab, "");
    assert!(report["last_error"]["text"].is_string(), "{report}");
}

/// A server that takes the connection and says nothing: the login never ends.
#[test]
fn one_that_starts_can_be_ended() {
    let lab = Lab::up();
    lab.signal_sshd(Signal::SIGSTOP);
    let mut up = lab.up_command(&format!("--name slow {}", V4.subnet));
    let mut up = up.stderr(std::process::Stdio::null()).spawn().unwrap();
    eventually("it answers", || {
        let reports = lab.ask("status --json slow");
        String::from_utf8_lossy(&reports.stdout).contains("\"starting\"")
    });
    let output = lab.ask("reload slow");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said(&output).contains("it is starting"), "{output:?}");
    assert_eq!(lab.ask("down slow").status.code(), Some(0));
    assert_eq!(up.wait().unwrap().code(), Some(0));
    lab.signal_sshd(Signal::SIGCONT);
}

#[test]
fn a_reload_changes_what_is_captured_and_drops_no_flow() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let file = lab.file("subnets");
    fs::write(&file, format!("{}\n", V4.subnet)).unwrap();
    let mut underpass = lab.underpass(&format!("--name a -s {file}"));
    let echoes = format!("echo-latency {} 7 100 --interval-ms 50", V4.host);
    let held = lab.start_probe("client", &echoes);
    eventually("it is open", || lab.far_connections(7) == 1);
    assert_eq!(connect(&lab, V6.host, 80), "ENETUNREACH");
    // A network more, of the other IP version, and one less.
    fs::write(&file, format!("{}/32\n{}\n", V4.host, V6.subnet)).unwrap();
    let output = lab.ask("reload a");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        said(&output).contains("2 subnets added, 1 removed"),
        "{output:?}"
    );
    assert_eq!(connect(&lab, V6.host, 80), "open");
    assert_eq!(connect(&lab, V4.host, 80), "open");
    assert_eq!(connect(&lab, V4.other, 80), "ENETUNREACH");
    let [report] = status(&lab, "");
    assert_eq!(report["subnets"].as_array().unwrap().len(), 2);
    // By a signal, as it has no terminal; back to what it was.
    fs::write(&file, format!("{}\n", V4.subnet)).unwrap();
    underpass.signal(Signal::SIGHUP);
    underpass.wait_for_line("1 subnet added, 2 removed");
    assert_eq!(connect(&lab, V4.other, 80), "open");
    assert_eq!(connect(&lab, V6.host, 80), "ENETUNREACH");
    // The same connection, all the time.
    assert_eq!(result_of(&held.finish()), "ok");
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
    assert_eq!(lab.network_state("client"), before);
}

#[test]
fn a_bad_file_leaves_what_is_captured() {
    let lab = Lab::up();
    let file = lab.file("subnets");
    fs::write(&file, V4.subnet).unwrap();
    let mut underpass = lab.underpass(&format!("--name a -s {file}"));
    let captured = lab.network_state("client");
    for bad in ["10.0.1.0/33", ""] {
        fs::write(&file, bad).unwrap();
        let output = lab.ask("reload");
        assert_eq!(output.status.code(), Some(1), "{bad:?}: {output:?}");
        underpass.wait_for_line("not reloaded, the old subnets and exclusions stay");
        assert_eq!(lab.network_state("client"), captured, "{bad:?}");
        assert_eq!(connect(&lab, V4.host, 80), "open");
    }
    fs::remove_file(&file).unwrap();
    let output = lab.ask("reload");
    assert!(said(&output).contains(&file), "{output:?}");
    assert_eq!(connect(&lab, V4.host, 80), "open");
}

#[test]
fn a_reload_that_would_change_what_carries_packets_is_refused() {
    let lab = Lab::up();
    let config = lab.state.join("underpass");
    fs::create_dir(&config).unwrap();
    let profile = |keys: &str, subnet: &str| {
        let text = format!("[profile.p]\nsubnets = [\"{subnet}\"]\n{keys}\n");
        fs::write(config.join("config.toml"), text).unwrap();
    };
    profile("ping = \"probe\"", V4.subnet);
    let mut command = lab.up_command("--name a p");
    command.env("XDG_CONFIG_HOME", &lab.state);
    let mut underpass = Underpass::start(command);
    underpass.wait_for_line("ready");
    for keys in ["tunnel = \"full\"", "udp = true\nping = \"probe\"", ""] {
        profile(keys, V6.subnet);
        let output = lab.ask("reload a");
        assert_eq!(output.status.code(), Some(1), "{keys}: {output:?}");
        let line = "(--tunnel, --udp, --ping) cannot change while it runs; start underpass again";
        assert!(said(&output).contains(line), "{keys}: {output:?}");
        let [report] = status(&lab, "");
        assert_eq!(report["subnets"][0], V4.subnet, "{keys}");
    }
    profile("ping = \"probe\"", V6.subnet);
    assert_eq!(lab.ask("reload a").status.code(), Some(0));
    assert!(underpass.stop(Signal::SIGTERM).success());
}

/// What comes back for `bytes`, up to the end.
fn answer(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    // It may hang up before it has everything.
    let _ = stream.write_all(bytes);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn hostile_clients_harm_nothing() {
    let lab = Lab::up();
    let mut underpass = lab.underpass(&format!("--name a {}", V4.subnet));
    let socket = socket(&lab, "a");
    for bytes in [
        b"rubbish\n".as_slice(),
        b"{\"request\":\"exec\",\"what\":\"id\"}\n",
        b"\xff\xfe\0\n",
        b"{\"request\":\"flows\"}\n",
        b"{\"request\":\"flows\",\"after\":-1}\n",
        &[b'['; 5000],
        &[b'{'; 2_000_000],
    ] {
        let answer = answer(&socket, bytes);
        assert!(
            answer.is_empty() || answer.contains("\"failed\""),
            "{answer}"
        );
    }
    // More than are heard at a time, and none says a word; one asks without end and reads nothing.
    let silent: Vec<_> = (0..64)
        .map(|_| UnixStream::connect(&socket).unwrap())
        .collect();
    assert_eq!(connect(&lab, V4.host, 80), "open");
    let [report] = status(&lab, "a");
    assert_eq!(report["state"], "up");
    drop(silent);
    // One that wants it to end, and goes before it has.
    assert_eq!(lab.ask("down a").status.code(), Some(0));
    assert_eq!(underpass.wait().code(), Some(0));
}

/// The directory keeps them out. Were it open, the peer's credentials would.
#[test]
fn another_user_is_refused() {
    let lab = Lab::up();
    let _underpass = lab.underpass(&format!("--name a {}", V4.subnet));
    let run = lab.state.join("run");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&run), mode(&socket(&lab, "a"))), (0o700, 0o600));
    let open = |path: &Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    };
    open(&lab.state);
    open(&run);
    open(&socket(&lab, "a"));
    let mut other = lab.command("client", "setpriv");
    let ask = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
               s.sendall(b'{\"request\":\"status\"}\\n'); print(s.recv(100))";
    other
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .args(["/usr/bin/python3", "-c", ask])
        .arg(socket(&lab, "a"));
    let output = finished(other);
    let text = said(&output);
    assert!(
        ["b''", "ConnectionResetError", "BrokenPipeError"]
            .iter()
            .any(|end| text.contains(end)),
        "{output:?}"
    );
    assert!(!text.contains("PermissionError"), "{output:?}");
    let root = answer(&socket(&lab, "a"), b"{\"request\":\"status\"}\n");
    assert!(root.contains("\"report\""), "{root}");
}

/// What cannot be written to is gone around.
#[test]
fn without_run_and_with_a_home_that_is_read_only() {
    let lab = Lab::up();
    let temporary = lab.state.join("tmp");
    fs::create_dir(&temporary).unwrap();
    let hide = "mount -t tmpfs -o ro none /run && mount -t tmpfs -o ro none /root && exec \"$@\"";
    let mut command = lab.wrapped_up_command(
        &["unshare", "-m", "sh", "-c", hide, "sh"],
        &format!("--name a {}", V4.subnet),
    );
    command
        .env_remove("UNDERPASS_RUNTIME_DIR")
        .env("TMPDIR", &temporary);
    let mut underpass = crate::common::Underpass::start(command);
    let socket = temporary.join("underpass-0/a.sock");
    assert!(answer(&socket, b"{\"request\":\"status\"}\n").contains("\"up\""));
    assert_eq!(connect(&lab, V4.host, 80), "open");
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
    assert!(!temporary.join("underpass-0").exists());
}

/// Nothing can be written anywhere: no control socket, no file for what a program does not read, no known hosts.
#[test]
fn with_a_full_disk_packets_flow() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let full = lab.state.join("full");
    fs::create_dir(&full).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=4k,nr_inodes=2 none {0} && ! head -c 1M /dev/zero 2>/dev/null >{0}/big && exec \"$@\"",
        full.display()
    );
    let wrapper = ["unshare", "-m", "sh", "-c", &script, "sh"];
    let options = format!(
        "-o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={}/known_hosts",
        full.display()
    );
    let mut command = lab.wrapped_up_command(&wrapper, &format!("{options} {}", V4.subnet));
    command
        .env("TMPDIR", &full)
        .env("HOME", &full)
        .env("UNDERPASS_RUNTIME_DIR", full.join("run"));
    let mut underpass = crate::common::Underpass::start(command);
    underpass.wait_for_line("status, down and reload will not find this run");
    underpass.wait_for_line("No space left");
    for _ in 0..2 {
        let get = lab.probe("client", &format!("get {} 5001 3000000", V4.host));
        assert_eq!(result_of(&get), "ok");
    }
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
    assert_eq!(lab.network_state("client"), before);
}

/// A result of a flow that was there before and goes on.
#[test]
fn an_instance_without_a_name_has_one() {
    let lab = Lab::up();
    let mut underpass = lab.underpass(V4.subnet);
    let [report] = status(&lab, "");
    let name = report["name"].as_str().unwrap();
    assert!(name.contains("192.168.77.1"), "{name}");
    assert_eq!(lab.ask(&format!("down {name}")).status.code(), Some(0));
    assert_eq!(underpass.wait().code(), Some(0));
    assert_eq!(
        result_of(&lab.probe("client", &format!("connect {} 80", V4.host))),
        "ENETUNREACH"
    );
}
