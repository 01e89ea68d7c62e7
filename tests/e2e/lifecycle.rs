//! However underpass ends, the host is as before; and it captures what was asked for and nothing else.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{Lab, Underpass, V4, V6, assert_ok, eventually, finished};

fn connect(lab: &Lab, host: &str, port: u16) -> String {
    lab.result("client", &format!("connect {host} {port} --timeout 3000"))
}

fn a_signal_undoes_everything(signal: Signal) {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let mut underpass = lab.underpass(&format!("{} {} -x {}/32", V4.subnet, V6.subnet, V4.other));
    assert_ne!(lab.network_state("client"), before);
    let open = lab
        .start_probe("client", &format!("source {} 19 --wait", V4.host))
        .connected();
    assert_eq!(underpass.stop(signal).code(), Some(0));
    assert_eq!(lab.network_state("client"), before);
    assert_eq!(connect(&lab, V4.host, 80), "ENETUNREACH");
    drop(open);
}

#[test]
fn sigint_undoes_everything() {
    a_signal_undoes_everything(Signal::SIGINT);
}

#[test]
fn sigterm_undoes_everything() {
    a_signal_undoes_everything(Signal::SIGTERM);
}

/// `-r` is what `ssh` takes: the address, port, key and known hosts are those of ssh's configuration.
#[test]
fn an_alias_of_ssh_is_enough() {
    let lab = Lab::up();
    let mut command = lab.command("client", "setsid");
    command
        .args([env!("CARGO_BIN_EXE_underpass"), "up", V4.subnet])
        .args(["-F", &lab.file("ssh_config"), "-r", "bastion-2201"])
        .env_remove("SSH_AUTH_SOCK")
        .env("NO_COLOR", "1");
    let mut underpass = Underpass::start(command);
    assert_eq!(connect(&lab, V4.host, 80), "open");
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
}

/// Thousands of rules take long enough to be interrupted in the middle.
#[test]
fn a_signal_while_rules_are_made_undoes_them() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let ports: Vec<_> = (1..4000).map(|p| format!("{}:{p}", V4.host)).collect();
    let mut command = lab.up_command(&format!("-v {}", ports.join(" ")));
    let mut underpass = command.stderr(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(underpass.stderr.take().unwrap()).lines();
    let mut log = log.map(Result::unwrap);
    assert!(log.any(|line| line.contains("ip rule add")));
    kill(Pid::from_raw(underpass.id() as i32), Signal::SIGTERM).unwrap();
    assert!(log.any(|line| line.contains("as before")));
    assert_eq!(underpass.wait().unwrap().code(), Some(0));
    assert_eq!(lab.network_state("client"), before);
}

/// A far side that reads nothing would keep a flow whose application has long given up.
#[test]
fn who_gives_up_on_a_far_side_that_reads_nothing_is_let_go() {
    const GIVE_UP: &str = "import socket, struct, sys, time
s = socket.create_connection((sys.argv[1], 5008))
s.settimeout(1)
try:
    while True: s.send(bytes(1 << 20))
except TimeoutError: pass
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
s.close()";
    let lab = Lab::up();
    let _underpass = lab.underpass(&format!("--name a {}", V4.subnet));
    let mut program = lab.command("client", "python3");
    program.args(["-c", GIVE_UP, V4.host]);
    assert!(finished(program).status.success());
    let flows = || String::from_utf8(lab.ask("flows a --json").stdout).unwrap();
    // What came before is kept for a while.
    assert!(flows().contains(":5008"), "{}", flows());
    eventually("it is let go", || flows().trim() == "[]");
}

/// As systemd-networkd does when it starts, and who sets the device down and up.
#[test]
fn what_somebody_takes_away_is_there_again() {
    let lab = Lab::up();
    let mut underpass = lab.underpass(&format!("{} {} -x {}/32", V4.subnet, V6.subnet, V4.other));
    let before = lab.network_state("client");
    let table = before.split("\"table\":\"").find_map(|rest| {
        let table = rest.split('"').next()?;
        table.parse::<u32>().ok()
    });
    let flush = format!("route flush table {}", table.unwrap());
    for taken in [
        "-4 rule flush protocol 117",
        "-6 rule flush protocol 117",
        &flush,
    ] {
        let status = lab.command("client", "ip").args(taken.split(' ')).status();
        assert!(status.unwrap().success(), "{taken}");
        underpass.wait_for_line("they are there again");
        eventually(taken, || lab.network_state("client") == before);
    }
    let device = underpass_device(&before);
    for way in ["down", "up"] {
        let set = ["link", "set", &device, way];
        assert!(
            lab.command("client", "ip")
                .args(set)
                .status()
                .unwrap()
                .success()
        );
    }
    for net in [V4, V6] {
        eventually("its routes are there again", || {
            connect(&lab, net.host, 80) == "open"
        });
    }
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
}

fn underpass_device(state: &str) -> String {
    let (_, rest) = state.split_once("\"ifname\":\"underpass").unwrap();
    format!("underpass{}", rest.split('"').next().unwrap())
}

#[test]
fn sigkill_leaves_nothing_that_captures_and_the_next_start_clears_the_rest() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let subnets = format!("{} {} -x {}/32", V4.subnet, V6.subnet, V4.other);
    lab.underpass(&subnets).stop(Signal::SIGKILL);
    for net in [V4, V6] {
        assert_eq!(connect(&lab, net.host, 80), "ENETUNREACH");
    }
    eventually("the network is as before without any further start", || {
        lab.network_state("client") == before
    });
    let mut next = lab.underpass(&subnets);
    assert_eq!(connect(&lab, V4.host, 80), "open");
    next.stop(Signal::SIGTERM);
    assert_eq!(lab.network_state("client"), before);
}

#[test]
fn a_deleted_device_ends_it_with_a_word() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let mut underpass = lab.underpass(V4.subnet);
    assert_eq!(connect(&lab, V4.host, 80), "open");
    let mut delete = lab.command("client", "ip");
    delete.args(["link", "del", "underpass0"]);
    assert!(finished(delete).status.success());
    assert_eq!(underpass.wait().code(), Some(1));
    underpass.wait_for_line("the TUN device is gone");
    assert_eq!(lab.network_state("client"), before);
}

#[test]
fn two_of_them_side_by_side() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let mut first = lab.underpass(V4.subnet);
    let mut second = lab.underpass(&format!("-p 2201 {}", V6.subnet));
    assert_eq!(connect(&lab, V4.host, 80), "open");
    assert_eq!(connect(&lab, V6.host, 80), "open");
    first.stop(Signal::SIGTERM);
    assert_eq!(connect(&lab, V6.host, 80), "open");
    second.stop(Signal::SIGTERM);
    assert_eq!(lab.network_state("client"), before);
}

#[test]
fn a_range_of_ports_and_nothing_beside_it() {
    let lab = Lab::up();
    let _underpass = lab.underpass("10.0.1.0/24:80-443 [fd00:10:0:1::/64]:80");
    for net in [V4, V6] {
        assert_eq!(connect(&lab, net.host, 80), "open");
        assert_eq!(connect(&lab, net.host, 7), "ENETUNREACH");
        assert_eq!(connect(&lab, net.no_such_host, 80), "EHOSTUNREACH");
    }
    assert_eq!(connect(&lab, V4.host, 443), "ECONNREFUSED");
    assert_eq!(connect(&lab, V4.host, 444), "ENETUNREACH");
}

#[test]
fn an_exclusion_is_left_alone() {
    let lab = Lab::up();
    let _underpass = lab.underpass("10.0.0.0/16 fd00:10::/32 -x 10.0.1.21/32 -x fd00:10:0:1::21");
    for net in [V4, V6] {
        assert_eq!(connect(&lab, net.host, 80), "open");
        assert_eq!(connect(&lab, net.other, 80), "ENETUNREACH");
    }
    assert_eq!(connect(&lab, "10.0.2.20", 80), "open");
}

/// The SSH connection would otherwise run in a circle.
#[test]
fn everything_but_the_ssh_server() {
    let lab = Lab::up();
    let _underpass = lab.underpass("0.0.0.0/0 ::/0");
    for net in [V4, V6] {
        assert_eq!(connect(&lab, net.host, 80), "open");
        assert_ok(&lab.probe("client", &format!("get {} 5001 10000000", net.host)));
    }
    // Straight to the bastion, which has no service there.
    assert_eq!(connect(&lab, "192.168.77.1", 22), "open");
}

/// A network of our own, here that of a container, stays where it is: the answers find the way home.
#[test]
fn everything_but_a_network_of_our_own() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let mut underpass = lab.underpass("0.0.0.0/0 ::/0");
    for net in [V4, V6] {
        assert_ok(&lab.probe("box", &format!("get {} 5001 1000003", net.host)));
    }
    assert!(
        !underpass.log().iter().any(|line| line.contains("covers")),
        "{:?}",
        underpass.log()
    );
    underpass.stop(Signal::SIGTERM);
    assert_eq!(lab.network_state("client"), before);
}

/// rp_filter 1: the kernel takes a packet only from the device that leads back to its source.
#[test]
fn a_strict_reverse_path_filter_drops_nothing() {
    let lab = Lab::up();
    let mut strict = lab.command("client", "sh");
    strict.args(["-c", "echo 1 | tee /proc/sys/net/ipv4/conf/*/rp_filter"]);
    assert!(finished(strict).status.success());
    let _underpass = lab.underpass(V4.subnet);
    for role in ["client", "box"] {
        let connect = |host, port| lab.result(role, &format!("connect {host} {port}"));
        assert_eq!(connect(V4.host, 80), "open");
        assert_eq!(connect(V4.host, 81), "ECONNREFUSED");
        assert_eq!(connect(V4.no_such_host, 80), "EHOSTUNREACH");
    }
}

#[test]
fn the_server_by_its_ipv6_address() {
    let lab = Lab::up();
    let _underpass = lab.underpass("-r root@[fd00:77::1] 0.0.0.0/0 ::/0");
    assert_eq!(connect(&lab, V4.host, 80), "open");
    assert_eq!(connect(&lab, V6.host, 80), "open");
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_would_be() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let output = finished(lab.up_command("--dry-run 10.0.1.0/24 -x 10.0.1.21/32"));
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("10.0.1.0/24") && said.contains("10.0.1.21"),
        "{output:?}"
    );
    assert_eq!(lab.network_state("client"), before);
    let log = std::fs::read_to_string(lab.file("sshd-22.log")).unwrap();
    assert!(!log.contains("Connection from"), "{log}");
}
