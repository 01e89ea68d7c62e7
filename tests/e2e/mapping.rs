//! `FAR=LOCAL`: the far network under other addresses, where the host's own network has the same ones.

use std::fs::{self, File};
use std::net::TcpListener;
use std::process::Output;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;

use super::rig::Rig;
use crate::common::{Lab, Net, V4, V6, Value, assert_ok, carrier, eventually, finished, result_of};

const BRIDGE: &str = "br-b0c5b0c5b0c5";
/// Where the far networks are shown, and some of their hosts there.
const LOCAL: &str = "100.64.1.0/24";
const LOCAL_V6: &str = "fd64:10:0:1::/64";
const HOST: &str = "100.64.1.20";
const HOST_V6: &str = "fd64:10:0:1::20";
const OTHER: &str = "100.64.1.21";
/// Open on the host's own network, and closed on the far one, whose [`FAR_PORT`] is open.
const LAN_PORT: u16 = 4080;
const FAR_PORT: u16 = 80;

/// Gives the client a network of its own with the far network's addresses, and in it the box, as the same host; what listens
/// there, as long as it is held.
fn lan(lab: &Lab) -> Vec<TcpListener> {
    for (role, device, nets) in [
        ("client", BRIDGE, ["10.0.1.1/24", "fd00:10:0:1::1/64"]),
        ("box", "eth0", ["10.0.1.20/24", "fd00:10:0:1::20/64"]),
    ] {
        for net in nets {
            let mut ip = lab.command(role, "ip");
            ip.args(["addr", "add", net, "dev", device]);
            // At once: nobody else can have it.
            ip.args(net.contains(':').then_some("nodad"));
            assert!(finished(ip).status.success(), "{net}");
        }
    }
    let namespace = File::open(lab.namespace("box")).unwrap();
    let listen = move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        // The kernel takes connections by itself.
        [V4, V6].map(|net| TcpListener::bind((net.host, LAN_PORT)).unwrap())
    };
    std::thread::spawn(listen).join().unwrap().into()
}

fn connect(lab: &Lab, role: &str, host: &str, port: u16) -> String {
    lab.result(role, &format!("connect {host} {port} --timeout 5000"))
}

fn both() -> String {
    format!("{}={LOCAL} {}={LOCAL_V6}", V4.subnet, V6.subnet)
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8(text).unwrap()
}

fn json(lab: &Lab, args: &str) -> Vec<Value> {
    let output = lab.ask(args);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_local_network_and_the_far_one_are_both_reached() {
    let lab = &Lab::up();
    let _lan = lan(lab);
    let before = lab.network_state("client");
    let mut underpass = lab.underpass(&both());
    for (net, local) in [(V4, HOST), (V6, HOST_V6)] {
        assert_eq!(connect(lab, "client", net.host, LAN_PORT), "open");
        assert_eq!(connect(lab, "client", net.host, FAR_PORT), "ECONNREFUSED");
        assert_eq!(connect(lab, "client", local, FAR_PORT), "open");
        assert_eq!(connect(lab, "client", local, LAN_PORT), "ECONNREFUSED");
        // Of a container, which is on that network itself.
        for role in ["client", "box"] {
            assert_ok(&lab.probe(role, &format!("get {local} 5001 1000003")));
            assert_ok(&lab.probe(role, &format!("put {local} 5002 1000003")));
        }
    }
    let log = underpass.log().join("\n");
    assert!(!log.contains("covers"), "{log}");
    let ready = format!("ready: {}", both().replace(' ', ", "));
    assert!(log.contains(&ready), "{log}");
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
    assert_eq!(lab.network_state("client"), before);
}

/// The error that an application gets, for each of the far hosts, is that of the far host.
#[test]
fn every_answer_is_that_of_the_host_behind() {
    let lab = Lab::up();
    let nowhere = "10.0.9.0/24=100.64.9.0/24 fd00:10:0:9::/64=fd64:10:0:9::/64";
    let _underpass = lab.underpass(&format!("{} {nowhere}", both()));
    let moved = |host: &str| {
        let host = host.replace("10.0.", "100.64.");
        host.replace("fd00:", "fd64:")
    };
    for (net, prohibited) in [(V4, "EHOSTUNREACH"), (V6, "EACCES")] {
        let Net {
            host,
            no_such_host,
            no_such_net,
            ..
        } = net;
        for (host, port, expected) in [
            (host, 80, "open"),
            (host, 81, "ECONNREFUSED"),
            (net.prohibited, 80, prohibited),
            (no_such_host, 80, "EHOSTUNREACH"),
            (no_such_net, 80, "ENETUNREACH"),
        ] {
            let host = moved(host);
            assert_eq!(connect(&lab, "client", &host, port), expected, "{host}");
        }
        // Not at their own addresses.
        assert_eq!(connect(&lab, "client", host, 80), "ENETUNREACH");
    }
}

/// What a warning says can be pasted, and mends what it warns of.
#[test]
fn the_proposed_mapping_makes_both_reachable() {
    let lab = &Lab::up();
    let _lan = lan(lab);
    let output = finished(lab.up_command(&format!("--dry-run {} {}", V4.subnet, V6.subnet)));
    let text = said(&output);
    let proposed: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once(", or ")?.1.split_once(" instead of "))
        .map(|(write, _)| write)
        .collect();
    assert_eq!(
        proposed,
        [
            format!("{}={LOCAL}", V4.subnet),
            format!("{}={LOCAL_V6}", V6.subnet)
        ]
    );
    let mut underpass = lab.underpass(&proposed.join(" "));
    for (net, local) in [(V4, HOST), (V6, HOST_V6)] {
        assert_eq!(connect(lab, "client", net.host, LAN_PORT), "open");
        assert_eq!(connect(lab, "client", local, FAR_PORT), "open");
    }
    let log = underpass.log().join("\n");
    assert!(!log.contains("covers"), "{log}");
}

/// A network can be shown twice, its ports chosen, a part left out, and the server's own loopback shown.
#[test]
fn ports_exclusions_and_a_second_place() {
    let lab = Lab::up();
    let twice = format!("{0}={LOCAL} {0}=100.64.2.0/24:80-81", V4.subnet);
    let v6 = format!("{}=[{LOCAL_V6}]:80", V6.subnet);
    let loopback = "127.0.0.1=100.64.3.1:22";
    let _underpass = lab.underpass(&format!("{twice} {v6} {loopback} -x {OTHER}/32"));
    for (host, port, expected) in [
        (HOST, 7, "open"),
        (OTHER, 80, "ENETUNREACH"),
        ("100.64.2.20", 80, "open"),
        ("100.64.2.21", 80, "open"),
        ("100.64.2.20", 81, "ECONNREFUSED"),
        ("100.64.2.20", 7, "ENETUNREACH"),
        (HOST_V6, 80, "open"),
        (HOST_V6, 7, "ENETUNREACH"),
        ("100.64.3.1", 22, "open"),
    ] {
        assert_eq!(
            connect(&lab, "client", host, port),
            expected,
            "{host}:{port}"
        );
    }
}

/// Beside everything: an address that is mapped is the far host's whatever the port, and all others are themselves.
#[test]
fn a_default_is_what_no_mapping_is() {
    let lab = Lab::up();
    let _underpass = lab.underpass(&format!("0/0 {}={LOCAL}:80", V4.subnet));
    assert_eq!(connect(&lab, "client", HOST, 80), "open");
    assert_eq!(connect(&lab, "client", HOST, 7), "open");
    assert_eq!(connect(&lab, "client", V4.host, 80), "open");
    assert_eq!(connect(&lab, "client", V4.no_such_net, 80), "ENETUNREACH");
}

/// The server is reached as itself, and said to stand before another host.
#[test]
fn a_server_within_the_local_network_stays_reachable() {
    let lab = Lab::up();
    let mut underpass = lab.underpass("10.0.0.0/16=192.168.0.0/16");
    underpass.wait_for_line(
        "10.0.0.0/16=192.168.0.0/16 covers 192.168.77.1, the SSH server, which is never captured: 10.0.77.1 behind it is \
         not reached",
    );
    assert_ok(&lab.probe("client", "get 192.168.1.20 5001 1000003"));
    // The server itself, and not whom its address stands for.
    assert_eq!(connect(&lab, "client", "192.168.77.1", 2201), "open");
}

#[test]
fn a_reload_changes_the_mapping_of_new_flows_alone() {
    let lab = Lab::up();
    let before = lab.network_state("client");
    let file = lab.file("subnets");
    let write = |subnets: &str| fs::write(&file, format!("# ours\n{subnets}\n")).unwrap();
    write(&format!("{}={LOCAL} # shown elsewhere", V4.subnet));
    let mut underpass = lab.underpass(&format!("--name a -s {file}"));
    let echoes = format!("echo-latency {HOST} 7 100 --interval-ms 50");
    let held = lab.start_probe("client", &echoes);
    eventually("it is open", || lab.far_connections(7) == 1);
    assert_eq!(connect(&lab, "client", OTHER, 80), "open");

    // The same addresses stand for another network, which has no .21.
    write(&format!("10.0.2.0/24={LOCAL}"));
    let output = lab.ask("reload a");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(connect(&lab, "client", HOST, 80), "open");
    assert_eq!(connect(&lab, "client", OTHER, 80), "EHOSTUNREACH");

    // The same network is shown elsewhere.
    write("10.0.2.0/24=100.64.2.0/24");
    underpass.signal(Signal::SIGHUP);
    underpass.wait_for_line("captures 10.0.2.0/24=100.64.2.0/24: 1 subnet added, 1 removed");
    assert_eq!(connect(&lab, "client", "100.64.2.20", 80), "open");
    assert_eq!(connect(&lab, "client", HOST, 80), "ENETUNREACH");

    // What makes no sense changes nothing.
    write("10.0.2.0/24=100.64.2.0/25");
    let output = lab.ask("reload a");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let hint = "write 10.0.2.0/24=100.64.2.0/24";
    assert!(said(&output).contains(hint), "{output:?}");
    assert!(said(&output).contains(":2: subnet"), "{output:?}");
    assert_eq!(connect(&lab, "client", "100.64.2.20", 80), "open");

    // The first connection, all the time.
    write(&format!("{}={LOCAL}", V4.subnet));
    assert_eq!(lab.ask("reload a").status.code(), Some(0));
    assert_eq!(result_of(&held.finish()), "ok");
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
    assert_eq!(lab.network_state("client"), before);
}

#[test]
fn both_addresses_are_shown_and_written_down() {
    let lab = Lab::up();
    let log = lab.file("audit.log");
    let mut underpass = lab.underpass(&format!("--name a {} --audit-log {log}", both()));
    let [status] = json(&lab, "status --json").try_into().unwrap();
    let subnets: Vec<String> = both().split(' ').map(str::to_owned).collect();
    assert_eq!(status["subnets"], serde_json::json!(subnets));
    assert!(said(&lab.ask("status")).contains(&subnets.join(", ")));

    let held = lab
        .start_probe("client", &format!("many {HOST} 7 1 --hold"))
        .connected();
    let [flow] = json(&lab, "flows --json").try_into().unwrap();
    let (target, mapped_to) = (format!("{HOST}:7"), format!("{}:7", V4.host));
    assert_eq!(flow["target"], target.as_str());
    assert_eq!(flow["mapped_to"], mapped_to.as_str());
    // The application's socket has the address here.
    assert_eq!(flow["process"], "lab-probe");
    let table = said(&lab.ask("flows"));
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..2], [target, mapped_to], "{table}");
    assert_eq!(connect(&lab, "client", HOST_V6, 81), "ECONNREFUSED");
    drop(held);
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));

    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["subnets"], serde_json::json!(subnets));
    let of = |event: &str, target: &str| {
        let line = lines
            .iter()
            .find(|line| line["event"] == event && line["target"] == target);
        line.unwrap_or_else(|| panic!("no {event} of {target} in {text}"))
            .clone()
    };
    for event in ["flow_start", "flow_end"] {
        let v4 = of(event, &format!("{HOST}:7"));
        assert_eq!(v4["mapped_to"], format!("{}:7", V4.host));
        assert_eq!(v4["process"], "lab-probe", "{v4}");
        let v6 = of(event, &format!("[{HOST_V6}]:81"));
        assert_eq!(v6["mapped_to"], format!("[{}]:81", V6.host));
    }
    assert_eq!(
        of("flow_end", &format!("[{HOST_V6}]:81"))["outcome"],
        "refused"
    );
}

/// What the server's administrator has to permit is the address that the server knows.
#[test]
fn the_policy_is_told_of_by_the_far_address() {
    let lab = Lab::up();
    let mut underpass = lab.underpass(&format!("-p 2202 {}", both()));
    assert_eq!(connect(&lab, "client", HOST, 80), "open");
    assert_eq!(connect(&lab, "client", HOST, 81), "EHOSTUNREACH");
    underpass.wait_for_line(&format!(
        "the SSH server forbids {}:81 ({HOST}:81 here); its administrator can allow it with PermitOpen",
        V4.host
    ));
}

#[test]
fn a_probe_of_doctor_is_mapped_as_well() {
    let lab = Lab::up();
    let known_hosts = format!("UserKnownHostsFile={}", lab.file("known_hosts"));
    let mut doctor = lab.command("client", super::rig::UNDERPASS);
    doctor
        .args(["doctor", "--carrier", carrier(), "-r", "root@192.168.77.1"])
        .args(["-i", &lab.file("id"), "-o", &known_hosts])
        .args(both().split(' '))
        .args(["--probe", &format!("{HOST}:80"), "--probe", "10.0.1.20:81"])
        .env("HOME", &lab.state)
        .env("NO_COLOR", "1");
    let text = said(&finished(doctor));
    let open = format!("{HOST}:80 ({}:80 behind the server) is open", V4.host);
    assert!(text.contains(&open), "{text}");
    assert!(text.contains("10.0.1.20:81: refused"), "{text}");
}

/// In a network of its own a command has both at once, too: the way is by the address that it asks for.
#[test]
fn a_command_reaches_both() {
    let rig = Rig::new();
    let _lan = lan(&rig.lab);
    let args = both();
    let probe = |more: &str, host: &str, port: u16| {
        let probe = format!("connect {host} {port} --timeout 5000");
        rig.probe(&format!("{args} {more}"), &probe)
    };
    for (net, local) in [(V4, HOST), (V6, HOST_V6)] {
        assert_eq!(probe("", local, FAR_PORT), "open");
        assert_eq!(probe("", local, LAN_PORT), "ECONNREFUSED");
        assert_eq!(probe("", net.host, LAN_PORT), "open");
        assert_eq!(probe("--isolate", net.host, LAN_PORT), "ENETUNREACH");
        assert_eq!(probe("--isolate", local, FAR_PORT), "open");
        // Everything through the server: its network is at both of its addresses then.
        assert_eq!(probe("--all", net.host, FAR_PORT), "open");
        assert_eq!(probe("--all", local, FAR_PORT), "open");
    }
    // What is left out is nobody's here.
    assert_eq!(probe(&format!("-x {HOST}"), HOST, FAR_PORT), "ENETUNREACH");
    let get = format!("get {HOST} 5001 1000003");
    assert_eq!(rig.probe(&args, &get), "ok");
}
