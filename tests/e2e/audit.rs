//! The audit log: every connection stands in it with who, where, when and how it ended, and it never costs one.

mod beside;
mod rig;
mod services;

use std::collections::HashSet;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::Signal;

use rig::{Audited, ends, fingerprint, lines, of};

use crate::common::{Lab, Underpass, V4, V6, Value, assert_ok, carrier, eventually, finished};

#[test]
fn each_connection_with_who_where_and_how_it_ended() {
    let lab = Lab::up();
    let audited = Audited::start(&lab);
    // Held open: whose they are is asked of the kernel while they are there.
    for (host, bytes) in [(V4.host, 1_000_003), (V6.host, 1_003)] {
        let ask = format!("source {host} 5001 --ask {bytes} --wait");
        let mut held = lab.start_probe("client", &ask).connected();
        eventually("its start stands in the log", || {
            let lines = audited.lines();
            let starts = of(&lines, "flow_start").into_iter();
            starts.last().is_some_and(|start| {
                let target = start["target"].as_str().unwrap();
                target.contains(host) && target.ends_with(":5001")
            })
        });
        held.go();
        let whole = held.finish();
        assert_eq!(
            (&whole["result"], &whole["bytes"]),
            (&"eof".into(), &bytes.into())
        );
    }
    assert_eq!(
        lab.result("client", &format!("connect {} 81", V4.host)),
        "ECONNREFUSED"
    );
    lab.probe("client", &format!("rst {} 5006", V4.host));
    // A container: its packets are forwarded, and its processes are not this host's.
    assert_ok(&lab.probe("box", &format!("put {} 5002 1000", V4.host)));
    let lines = audited.stop();

    let session = of(&lines, "session_start")[0];
    assert_eq!(session["server"], "192.168.77.1:22");
    assert_eq!(session["login"], "root");
    assert_eq!(session["carrier"], carrier());
    assert_eq!(session["subnets"][0], V4.subnet);
    let key = fingerprint(&lab.state.join("id.pub"));
    assert_eq!(session["key"], key.as_str());
    let host_key = fingerprint(&lab.state.join("host_key.pub"));
    assert!(session["host_key"].as_str().unwrap().ends_with(&host_key));

    assert_eq!(ends(&lines, 5001).len(), 2);
    for (end, bytes) in ends(&lines, 5001).iter().zip([1_000_003, 1_003]) {
        assert_eq!(end["outcome"], "finished");
        assert_eq!(end["bytes_down"], bytes);
        assert_eq!(end["uid"], 0);
        assert_eq!(end["user"], "root");
        assert_eq!(end["process"], "lab-probe");
        assert!(end["pid"].as_u64().unwrap() > 1);
        assert_eq!(end["key"], key.as_str());
        assert_eq!(end["address"], "192.168.77.1:22");
        assert!(end["end"].as_str() >= end["start"].as_str());
    }
    let refused = ends(&lines, 81)[0];
    assert_eq!(refused["outcome"], "refused");
    assert!(refused["reason"].as_str().unwrap().contains("refused"));
    // sshd sends an EOF for a reset, too: which of the two it was is not known here.
    assert_eq!(ends(&lines, 5006)[0]["bytes_down"], 1000);
    let forwarded = ends(&lines, 5002)[0];
    assert!(
        forwarded["source"]
            .as_str()
            .unwrap()
            .starts_with("172.31.0.2:")
    );
    assert!(forwarded["uid"].is_null() && forwarded["pid"].is_null());

    let number = |line: &&Value| line["flow"].as_u64().unwrap();
    let begun: HashSet<u64> = of(&lines, "flow_start").iter().map(number).collect();
    let ended: HashSet<u64> = of(&lines, "flow_end").iter().map(number).collect();
    assert_eq!(begun, ended);
    let last = lines.last().unwrap();
    assert_eq!(last["event"], "session_stop");
    assert_eq!(last["flows"].as_u64().unwrap(), ended.len() as u64);
}

/// A line of proc_pid_status(5).
fn status(pid: i32, key: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap().trim_start_matches(':').trim().to_owned()
}

/// The log is one place more to write to, and processes are looked for by somebody else.
#[test]
fn the_main_process_is_confined_as_without_a_log() {
    let lab = Lab::up();
    let audited = Audited::start(&lab);
    let pid = audited.underpass.pid();
    let rights = |pid| ["NoNewPrivs", "Seccomp", "CapEff"].map(|key| status(pid, key));
    let without = lab.underpass(&format!("--name without {}", V4.other));
    assert_eq!(rights(pid), rights(without.pid()));
    drop(without);
    // Over the user's ssh it has what a program of the user's choice may need.
    if carrier() == "russh" {
        let [no_new_privileges, seccomp, kept] = rights(pid);
        assert_eq!((&*no_new_privileges, &*seccomp), ("1", "2"));
        // Numbers 1, 2, 6 and 7 (linux/capability.h): what concerns files.
        let kept = u64::from_str_radix(&kept, 16).unwrap();
        assert_eq!(kept & !0b1100_0110, 0);
    }
    let held = lab
        .start_probe("client", &format!("many {} 7 1 --hold", V4.host))
        .connected();
    eventually("its process stands in the log", || {
        let lines = audited.lines();
        let starts = of(&lines, "flow_start");
        starts
            .first()
            .is_some_and(|start| start["process"] == "lab-probe")
    });
    drop(held);
    audited.stop();
}

/// The caller's: made with their rights, and with those alone.
#[test]
fn under_sudo_the_log_is_the_callers() {
    let lab = Lab::up();
    lab.open_to("nobody");
    let mine = lab.state.join("of-nobody");
    std::fs::create_dir(&mine).unwrap();
    chown(&mine, Some(65534), None).unwrap();
    let up = |log: &Path| {
        let key = lab.file("id_of_nobody");
        let args = format!("-i {key} {} --audit-log {}", V4.subnet, log.display());
        let mut command = lab.up_command(&args);
        command.env("SUDO_USER", "nobody").env("SUDO_UID", "65534");
        command
    };
    let log = mine.join("audit.log");
    let mut underpass = Underpass::start(up(&log));
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
    let metadata = std::fs::metadata(&log).unwrap();
    assert_eq!((metadata.uid(), metadata.mode() & 0o777), (65534, 0o600));
    let session = &lines(&log)[0];
    assert_eq!(
        (&session["user"], &session["sudo_user"]),
        (&"nobody".into(), &"nobody".into())
    );
    let output = finished(up(&lab.state.join("of-root.log")));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("of-root.log: Permission denied"), "{said}");
    assert!(!lab.state.join("of-root.log").exists());
}

/// Who is connected now, for days perhaps, is seen; and what is open at the end has an end.
#[test]
fn an_open_connection_is_seen() {
    let lab = Lab::up();
    let audited = Audited::start(&lab);
    let open = lab
        .start_probe("client", &format!("source {} 19 --wait", V4.host))
        .connected();
    eventually("its start stands in the log", || {
        !of(&audited.lines(), "flow_start").is_empty()
    });
    assert!(of(&audited.lines(), "flow_end").is_empty());
    let lines = audited.stop();
    assert_eq!(ends(&lines, 19).len(), 1);
    assert_eq!(ends(&lines, 19)[0]["outcome"], "stopped");
    drop(open);
}

#[test]
fn a_lost_connection_and_the_next_one() {
    let lab = Lab::up();
    let mut audited = Audited::start(&lab);
    let open = lab
        .start_probe("client", &format!("source {} 19 --wait", V4.host))
        .connected();
    let idle = lab
        .start_probe("client", &format!("many {} 7 1 --hold", V4.host))
        .connected();
    lab.kill_sshd();
    audited.underpass.wait_for_line("connection lost");
    // One is idle, the other one is not read: both end, for their applications are to try again.
    eventually("their ends stand in the log", || {
        let lines = audited.lines();
        ends(&lines, 19).len() == 1 && ends(&lines, 7).len() == 1
    });
    lab.start_sshd();
    audited.underpass.wait_for_line("up again");
    let lines = audited.stop();
    assert_eq!(ends(&lines, 19)[0]["outcome"], "lost");
    assert_eq!(ends(&lines, 7)[0]["outcome"], "lost");
    drop((open, idle));
    let lines: Vec<Value> = lines
        .into_iter()
        .filter(|line| !line["event"].as_str().unwrap().starts_with("flow"))
        .collect();
    let session: Vec<_> = lines
        .iter()
        .map(|line| line["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        session,
        [
            "session_start",
            "session_lost",
            "session_back",
            "session_stop"
        ]
    );
    assert!(!lines[1]["reason"].as_str().unwrap().is_empty());
    assert_eq!(lines[2]["key"], lines[0]["key"]);
}

#[test]
fn ten_thousand_short_connections_lose_no_line() {
    let lab = Lab::up();
    let audited = Audited::start(&lab);
    assert_ok(&lab.probe(
        "client",
        &format!("short {} 5007 10000 --parallel 32", V4.host),
    ));
    let lines = audited.stop();
    assert!(of(&lines, "lines_lost").is_empty());
    let numbers = |event| -> HashSet<u64> {
        let lines = of(&lines, event).into_iter();
        lines.map(|line| line["flow"].as_u64().unwrap()).collect()
    };
    assert_eq!(numbers("flow_start").len(), 10_000);
    assert_eq!(numbers("flow_end").len(), 10_000);
    // Their sockets live for a millisecond: most users are known, and that of none is wrong.
    let ends = of(&lines, "flow_end");
    assert!(
        ends.iter()
            .all(|end| end["uid"].is_null() || end["uid"] == 0)
    );
    let known = ends.iter().filter(|end| end["uid"] == 0).count();
    assert!(known > 1_000, "{known} of 10,000 users are known");
}

#[test]
fn a_process_with_a_hostile_name() {
    let lab = Lab::up();
    let audited = Audited::start(&lab);
    let name = "a\"}\n\u{1b}[31m\u{9b}";
    let program = lab.state.join(name);
    let probe = Path::new(env!("CARGO_BIN_EXE_underpass")).with_file_name("examples/lab-probe");
    std::fs::copy(probe, &program).unwrap();
    let mut command = lab.command("client", &program);
    // Held open: it is looked for while it is there.
    command.args(["source", V4.host, "5001", "--ask", "1003", "--wait"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut held = command.spawn().unwrap();
    eventually("its start stands in the log", || {
        !of(&audited.lines(), "flow_start").is_empty()
    });
    held.kill().unwrap();
    held.wait().unwrap();
    let lines = audited.stop();
    assert_eq!(ends(&lines, 5001)[0]["process"], name);
    assert!(
        ends(&lines, 5001)[0]["program"]
            .as_str()
            .unwrap()
            .ends_with(name)
    );
}

/// A disk without room costs lines, which are counted, and no connection.
#[test]
fn a_full_disk() {
    let lab = Lab::up();
    let disk = lab.state.join("disk");
    std::fs::create_dir(&disk).unwrap();
    let pid = lab.file("underpass.pid");
    let mount = format!(
        "mount -t tmpfs -o size=4m none {disk} && head -c 4190208 /dev/zero >{disk}/filler && echo $$ >{pid} && exec \"$@\"",
        disk = disk.display()
    );
    let wrapper = ["unshare", "-m", "sh", "-c", &mount, "sh"];
    let args = format!("{} --audit-log {}/audit.log", V4.subnet, disk.display());
    let mut underpass = Underpass::start(lab.wrapped_up_command(&wrapper, &args));
    let short = format!("short {} 5007 200 --parallel 8", V4.host);
    assert_ok(&lab.probe("client", &short));
    underpass.wait_for_line("the audit log loses lines");
    assert_ok(&lab.probe("client", &short));

    let pid = std::fs::read_to_string(pid).unwrap();
    let inside = PathBuf::from(format!("/proc/{}/root{}", pid.trim(), disk.display()));
    // Room for every line that may still be waiting.
    std::fs::remove_file(inside.join("filler")).unwrap();
    underpass.wait_for_line("the audit log is written again");
    assert_eq!(
        lab.result("client", &format!("connect {} 80", V4.host)),
        "open"
    );
    let log = inside.join("audit.log");
    let lost = || -> Option<u64> {
        let text = std::fs::read_to_string(&log).unwrap();
        let mut lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["event"] == "lines_lost")?["count"].as_u64()
    };
    assert!(lost().unwrap() > 100);
    eventually("the next connection stands in the log", || {
        std::fs::read_to_string(&log).unwrap().contains(":80\"")
    });
    eventually("no line stays that was cut short", || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok())
    });
    let told = underpass
        .log()
        .iter()
        .filter(|line| line.contains("audit log"))
        .count();
    assert_eq!(told, 2);
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
}

/// Where nothing can be written down, nothing is carried.
#[test]
fn a_file_that_is_not_ours_alone() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    std::os::unix::fs::symlink("/etc/passwd", lab.state.join("link")).unwrap();
    let command = lab.up_command(&format!("{} --audit-log {}", V4.subnet, lab.file("link")));
    let output = finished(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("symbolic link"), "{said}");
    assert_eq!(lab.network_state("client"), before);
}

/// As logrotate does it: the file is renamed, and SIGHUP has a new one made.
#[test]
fn a_log_that_is_rotated() {
    let lab = Lab::up();
    let mut audited = Audited::start(&lab);
    let connect = || lab.result("client", &format!("connect {} 80", V4.host));
    assert_eq!(connect(), "open");
    eventually("the first connection is written down", || {
        of(&lines(&audited.log), "flow_end").len() == 1
    });
    let old = audited.log.with_extension("log.1");
    std::fs::rename(&audited.log, &old).unwrap();
    audited.underpass.signal(Signal::SIGHUP);
    audited.underpass.wait_for_line("reloaded");
    eventually("the new file is there", || audited.log.exists());
    assert_eq!(connect(), "open");
    let new = audited.stop();
    assert_eq!(of(&new, "flow_end").len(), 1);
    assert_eq!(of(&new, "session_stop").len(), 1);
    assert_eq!(of(&lines(&old), "flow_end").len(), 1);
}
