//! It stays up: through servers that die and come back, networks that change, sleep; and ends when it should.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use common::{Lab, Probe, V4, assert_ok, eventually, finished, result_of};

/// What is promised after sleep and after changes of the network.
const SOON: Duration = Duration::from_secs(2);
const SECOND: Duration = Duration::from_secs(1);

fn ip(lab: &Lab, role: &str, args: &str) {
    let mut command = lab.command(role, "ip");
    command.args(args.split_whitespace());
    let output = finished(command);
    assert!(output.status.success(), "{args}: {output:?}");
}

/// Established TCP connections of the bastion: for each, the pid of who has it.
fn owners(lab: &Lab, what: [&str; 3]) -> Vec<i32> {
    let mut command = lab.command("bastion", "ss");
    command.args(["-Htnp", "state", "established"]).args(what);
    let output = finished(command);
    let text = String::from_utf8(output.stdout).unwrap();
    let pid = |line: &str| {
        let (_, rest) = line.split_once("pid=")?;
        rest.split(',').next()?.parse().ok()
    };
    text.lines().filter_map(pid).collect()
}

/// Who serves the SSH connections.
fn sessions(lab: &Lab) -> Vec<i32> {
    owners(lab, ["sport", "=", ":22"])
}

#[test]
fn a_server_that_is_killed_and_started_again() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let mut underpass = lab.underpass(V4.subnet);
    let routed = lab.network_state("client");
    let busy = lab
        .start_probe("client", &format!("source {} 19", V4.host))
        .connected();
    let idle = lab
        .start_probe("client", &format!("source {} 7", V4.host))
        .connected();
    eventually("both are open", || {
        lab.far_connections(19) + lab.far_connections(7) == 2
    });
    let killed = Instant::now();
    lab.kill_sshd();
    for flow in [busy, idle] {
        let line = flow.finish();
        assert_eq!(result_of(&line), "ECONNRESET", "{line}");
    }
    assert!(killed.elapsed() < Duration::from_secs(2));
    assert_eq!(lab.network_state("client"), routed);

    let waiting = lab.start_probe(
        "client",
        &format!("get {} 5001 100000 --timeout 30000", V4.host),
    );
    underpass.wait_for_line("reconnecting in");
    lab.start_sshd();
    let back = Instant::now();
    assert_ok(&waiting.finish());
    assert!(
        back.elapsed() < Duration::from_secs(1),
        "{:?}",
        back.elapsed()
    );

    let log = underpass.log();
    let ready = log.iter().position(|line| line.contains("ready")).unwrap();
    let [lost, reconnecting, up] = &log[ready + 1..] else {
        panic!("not three lines: {log:?}");
    };
    assert!(
        lost.contains("connection lost") && lost.contains("2 open connections reset"),
        "{lost}"
    );
    assert!(reconnecting.contains("refused"), "{reconnecting}");
    assert!(up.contains("up again after"), "{up}");
    for line in [lost, reconnecting, up] {
        assert!(line.contains("192.168.77.1: "), "{line}");
    }
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
    assert_eq!(lab.network_state("client"), before);
}

/// Files of known hosts may know several keys for a name; a run takes one.
#[test]
fn another_host_key_ends_it() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let other = std::fs::read_to_string(lab.file("other_host_key.pub")).unwrap();
    let key = other
        .split_whitespace()
        .take(2)
        .collect::<Vec<_>>()
        .join(" ");
    let known = std::fs::read_to_string(lab.file("known_hosts")).unwrap();
    let both = format!("{known}192.168.77.1 {key}\n");
    std::fs::write(lab.file("known_hosts"), both).unwrap();
    let mut underpass = lab.underpass(V4.subnet);
    lab.kill_sshd();
    std::fs::copy(lab.file("other_host_key"), lab.file("host_key")).unwrap();
    lab.start_sshd();
    assert_eq!(underpass.wait().code(), Some(6));
    let last = underpass.log().last().unwrap();
    assert!(last.contains("another host key than before"), "{last}");
    assert_eq!(lab.network_state("client"), before);
}

#[test]
fn a_link_that_goes_down_is_noticed_and_one_that_comes_back_is_used() {
    let lab = Lab::up();
    let mut underpass = lab.underpass(V4.subnet);
    let idle = lab
        .start_probe("client", &format!("source {} 7", V4.host))
        .connected();
    let down = Instant::now();
    ip(&lab, "client", "link set wan down");
    assert_eq!(result_of(&idle.finish()), "ECONNRESET");
    underpass.wait_for_line("connection lost");
    assert!(down.elapsed() < SOON, "{:?}", down.elapsed());

    let waiting = lab.start_probe(
        "client",
        &format!("get {} 5001 1000 --timeout 30000", V4.host),
    );
    underpass.wait_for_line("reconnecting in");
    ip(&lab, "client", "link set wan up");
    ip(&lab, "client", "route replace 192.168.77.0/24 dev wan");
    let up = Instant::now();
    assert_ok(&waiting.finish());
    assert!(up.elapsed() < SOON, "{:?}", up.elapsed());
}

#[test]
fn a_change_that_harms_nothing_is_survived() {
    let lab = Lab::up();
    let mut underpass = lab.underpass(V4.subnet);
    let mut flow = lab
        .start_probe("client", &format!("many {} 7 4 --hold", V4.host))
        .connected();
    for _ in 0..3 {
        ip(&lab, "client", "address add 203.0.113.7/32 dev wan");
        ip(&lab, "client", "address del 203.0.113.7/32 dev wan");
        std::thread::sleep(Duration::from_millis(700));
    }
    flow.go();
    assert_ok(&flow.finish());
    assert!(!underpass.log().iter().any(|line| line.contains("lost")));
}

/// The process is stopped instead of the host: time passes all the same.
#[test]
fn after_sleep_a_server_that_is_gone_is_noticed() {
    let lab = Lab::up();
    let mut underpass = lab.underpass(V4.subnet);
    underpass.signal(Signal::SIGSTOP);
    lab.signal_sshd(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(6500));
    let woken = Instant::now();
    underpass.signal(Signal::SIGCONT);
    underpass.wait_for_line("connection lost: the server does not answer");
    assert!(woken.elapsed() < SOON, "{:?}", woken.elapsed());
    lab.signal_sshd(Signal::SIGCONT);
    assert_ok(&lab.probe(
        "client",
        &format!("get {} 5001 1000 --timeout 30000", V4.host),
    ));
}

/// An upload fills the way to the server, which no question gets through then.
#[test]
fn a_silent_server_is_noticed_under_an_upload_too() {
    let lab = Lab::up();
    let quick = "-o ServerAliveInterval=2 -o ServerAliveCountMax=2";
    let mut underpass = lab.underpass(&format!("{quick} {}", V4.subnet));
    let upload = lab.start_probe(
        "client",
        &format!("put {} 5002 100000000000 --timeout 60000", V4.host),
    );
    eventually("it is under way", || lab.far_connections(5002) == 1);
    let stopped = Instant::now();
    lab.signal_sshd(Signal::SIGSTOP);
    underpass.wait_for_line("connection lost: the server does not answer");
    assert!(
        stopped.elapsed() < Duration::from_secs(9),
        "{:?}",
        stopped.elapsed()
    );
    assert_eq!(result_of(&upload.finish()), "ECONNRESET");
    lab.signal_sshd(Signal::SIGCONT);
    underpass.wait_for_line("up again");
}

/// A download that takes 20 KB a second of all that comes, once it has held its connection up.
fn hardly_read(lab: &Lab) -> Probe {
    let args = format!("source {} 5001 --ask 1000000000 --rate 20000", V4.host);
    let download = lab.start_probe("client", &args).connected();
    let left_on_the_wire = || {
        let mut command = lab.command("client", "ss");
        command.args(["-Htn", "state", "established", "dport", "=", ":22"]);
        let text = String::from_utf8(finished(command).stdout).unwrap();
        let lines = text.lines();
        lines
            .filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok())
            .max()
    };
    let (mut before, mut times) = (None, 0);
    eventually("what comes stays on the wire", || {
        // Over ssh itself the server is held back before it sends.
        let now = left_on_the_wire().filter(|bytes| *bytes > 0 || common::carrier() == "openssh");
        times = if now.is_some() && now == before {
            times + 1
        } else {
            0
        };
        before = now;
        times == 10
    });
    download
}

#[test]
fn a_session_that_is_killed_is_noticed_while_nobody_reads_much() {
    let lab = Lab::up();
    let mut underpass = lab.underpass(&format!("--connections 2 -v {}", V4.subnet));
    underpass.wait_for_line("connections to the server: 2");
    let _download = hardly_read(&lab);
    let victim = owners(&lab, ["dport", "=", ":5001"])[0];
    let killed = Instant::now();
    kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
    underpass.wait_for_line("lost 1 of the SSH connections");
    assert!(killed.elapsed() < 9 * SECOND, "{:?}", killed.elapsed());
}

#[test]
fn a_server_that_is_killed_is_noticed_while_nobody_reads_much() {
    let lab = Lab::up();
    let mut underpass = lab.underpass(&format!("--connections 1 {}", V4.subnet));
    let _download = hardly_read(&lab);
    let killed = Instant::now();
    sessions(&lab)
        .into_iter()
        .for_each(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap());
    underpass.wait_for_line("connection lost");
    assert!(killed.elapsed() < 9 * SECOND, "{:?}", killed.elapsed());
    underpass.wait_for_line("up again");
}

#[test]
fn a_silent_server_is_noticed_while_nobody_reads_much() {
    let lab = Lab::up();
    let quick = "-o ServerAliveInterval=2 -o ServerAliveCountMax=2 --connections 1";
    let mut underpass = lab.underpass(&format!("{quick} {}", V4.subnet));
    let _download = hardly_read(&lab);
    let silent = Instant::now();
    ip(&lab, "bastion", "route add blackhole 192.168.77.2/32");
    underpass.wait_for_line("connection lost: the server does not answer");
    assert!(silent.elapsed() < 9 * SECOND, "{:?}", silent.elapsed());
    ip(&lab, "bastion", "route del blackhole 192.168.77.2/32");
    underpass.wait_for_line("up again");
}

/// Nobody reads for longer than a server may be silent.
#[test]
fn a_server_that_is_held_up_is_not_taken_for_lost() {
    let lab = Lab::up();
    let quick = "-o ServerAliveInterval=2 -o ServerAliveCountMax=2 --connections 1";
    let mut underpass = lab.underpass(&format!("{quick} {}", V4.subnet));
    let len = 100_000_000;
    let args = format!("source {} 5001 --ask {len} --wait --bytes {len}", V4.host);
    let mut stopped = lab.start_probe("client", &args).connected();
    std::thread::sleep(10 * SECOND);
    stopped.go();
    assert_ok(&stopped.finish());
    assert!(!underpass.log().iter().any(|line| line.contains("lost")));
}

#[test]
fn as_many_connections_as_asked_for_and_each_is_replaced() {
    let lab = Lab::up();
    let mut underpass = lab.underpass(&format!("-v --connections 3 {}", V4.subnet));
    underpass.wait_for_line("connections to the server: 3");
    let mut flows = lab
        .start_probe("client", &format!("many {} 7 9 --hold", V4.host))
        .connected();
    let victim = sessions(&lab)[0];
    let its_own = owners(&lab, ["dport", "=", ":7"])
        .into_iter()
        .filter(|pid| *pid == victim)
        .count();
    assert!((1..9).contains(&its_own), "{its_own} flows");
    kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
    underpass.wait_for_line("lost 1 of the SSH connections");
    eventually("it is replaced", || {
        let now = sessions(&lab);
        now.len() == 3 && !now.contains(&victim)
    });
    flows.go();
    let line = flows.finish();
    assert_eq!(result_of(&line), "ECONNRESET", "{line}");
    // The others echo as before.
    assert_eq!(
        (&line["open"], &line["failed"]),
        (&9.into(), &its_own.into()),
        "{line}"
    );
    assert_ok(&lab.probe("client", &format!("get {} 5001 1000", V4.host)));
    assert!(
        !underpass
            .log()
            .iter()
            .any(|line| line.contains("connection lost:"))
    );
}

#[test]
fn it_ends_when_its_time_is_over() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let mut underpass = lab.underpass(&format!("--for 2s {}", V4.subnet));
    let ready = Instant::now();
    assert_eq!(underpass.wait().code(), Some(0));
    let took = ready.elapsed().as_secs_f32();
    assert!((1.5..4.0).contains(&took), "{took} s");
    let log = underpass.log();
    assert!(
        log.iter().any(|line| line.contains("2s are over (--for)")),
        "{log:?}"
    );
    assert_eq!(lab.network_state("client"), before);
}

#[test]
fn it_ends_when_nobody_uses_it() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let mut underpass = lab.underpass(&format!("--idle-timeout 2s {}", V4.subnet));
    let mut flow = lab
        .start_probe("client", &format!("many {} 7 1 --hold", V4.host))
        .connected();
    std::thread::sleep(Duration::from_secs(3));
    flow.go();
    assert_ok(&flow.finish());
    let unused = Instant::now();
    assert_eq!(underpass.wait().code(), Some(0));
    let took = unused.elapsed().as_secs_f32();
    assert!((1.5..4.0).contains(&took), "{took} s");
    let log = underpass.log();
    assert!(
        log.iter().any(|line| line.contains("--idle-timeout")),
        "{log:?}"
    );
    assert_eq!(lab.network_state("client"), before);
}
