//! Protocols over UDP as their own programs speak them, by a tunnel and by a helper on the server. A lab for each of the two ways.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "e2e/datagrams.rs"]
mod datagrams;
#[path = "e2e_protocols/quic.rs"]
mod quic;
#[path = "e2e/server.rs"]
mod server;
#[path = "e2e_protocols/sntp.rs"]
mod sntp;
#[path = "e2e_protocols/wireguard.rs"]
mod wireguard;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use nix::sys::signal::Signal;

use common::{Lab, Net, V4, V6, Value, eventually};
use datagrams::{Server, shell};
use server::NameServer;

fn everything(lab: &Lab) {
    names(lab);
    quic::both_ways(lab);
    sntp::asks_for_the_time(lab);
    management(lab);
    wireguard::carries_packets(lab);
    a_steady_stream(lab);
}

#[test]
fn by_a_tunnel() {
    const PORT: u16 = 2210;
    let lab = Lab::up();
    lab.further_sshd(PORT, "authorized_keys", "PermitTunnel yes");
    let mut underpass = lab.underpass(&format!(
        "--carrier openssh -r root@192.168.77.1:{PORT} --tunnel {} {}",
        V4.subnet, V6.subnet
    ));
    everything(&lab);
    assert!(underpass.stop(Signal::SIGTERM).success());
}

#[test]
fn by_a_helper_on_the_server() {
    let lab = Lab::up();
    let mut underpass = lab.underpass(&format!("--udp {} {}", V4.subnet, V6.subnet));
    everything(&lab);
    assert!(underpass.stop(Signal::SIGTERM).success());
}

/// DNS: a short answer, and one that travels in fragments.
fn names(lab: &Lab) {
    let strings = vec!["x".repeat(250); 16].join(",");
    let records = [
        "--address=/short.test/10.0.1.20".to_owned(),
        format!("--txt-record=long.test,{strings}"),
    ];
    for Net { host, .. } in [V4, V6] {
        let options = [&records[..], &["--edns-packet-max=8192".to_owned()]].concat();
        let _server = NameServer::start(lab, "vpc", host, &options);
        let dig = |question: &str| {
            // Nothing of it over TCP; a datagram that is lost is not asked for again.
            let options = "+notcp +ignore +tries=1 +time=5 +bufsize=8192";
            shell(lab, "client", &format!("dig @{host} {options} {question}"))
        };
        assert_eq!(dig("+short short.test A"), "10.0.1.20\n");
        let answer = dig("long.test TXT");
        let size = answer
            .lines()
            .find_map(|line| line.strip_prefix(";; MSG SIZE  rcvd: "));
        assert!(
            size.is_some_and(|size| size.parse::<usize>().unwrap() > 4000),
            "{answer}"
        );
        assert_eq!(answer.matches(&"x".repeat(250)).count(), 16, "{answer}");
    }
}

/// SNMP: a value, and many of them in one answer.
fn management(lab: &Lab) {
    let configuration = lab.file("snmpd.conf");
    std::fs::write(
        &configuration,
        "rocommunity public\nrocommunity6 public\nsysName far.test\n",
    )
    .unwrap();
    let addresses = format!("udp:{}:161,udp6:[{}]:161", V4.host, V6.host);
    // What it keeps, else in /var/lib.
    let kept = lab.file("snmp");
    let mut command = lab.command("vpc", "snmpd");
    command
        .args(["-f", "-LE", "0", "-C", "-c", &configuration])
        .args(["-I", "system_mib", &addresses])
        .env("SNMP_PERSISTENT_DIR", &kept)
        .stderr(Stdio::null());
    let _server = Server(command.spawn().expect("snmpd is installed by scripts/test"));
    eventually("snmpd listens", || {
        shell(lab, "vpc", "ss -Hlnu sport = :161").lines().count() == 2
    });
    for agent in [V4.host.to_owned(), format!("udp6:[{}]", V6.host)] {
        let get = |program: &str, object: &str| {
            let options = "-v 2c -c public -r 0 -t 5 -Oqvn";
            let command =
                format!("SNMP_PERSISTENT_DIR={kept} {program} {options} {agent} {object}");
            shell(lab, "client", &command)
        };
        assert_eq!(get("snmpget", ".1.3.6.1.2.1.1.5.0"), "\"far.test\"\n");
        let all = get("snmpbulkget -Cr20", ".1.3.6.1.2.1.1");
        assert!(
            all.contains("far.test") && all.contains("No more variables"),
            "{all}"
        );
    }
}

/// 20 Mbit/s for two seconds, there and back.
fn a_steady_stream(lab: &Lab) {
    for back in ["", "--reverse"] {
        let mut command = lab.command("vpc", "iperf3");
        command.args(["--server", "--one-off", "--forceflush", "--bind", V4.host]);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("iperf3 is installed by scripts/test");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let _server = Server(child);
        let mut lines = lines.map_while(Result::ok);
        assert!(lines.any(|line| line.contains("Server listening")));
        let said = shell(
            lab,
            "client",
            &format!(
                "iperf3 --client {} --udp --bitrate 20M --time 2 --json {back}",
                V4.host
            ),
        );
        let report: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
        let end = &report["end"];
        let number = |sum: &str, name: &str| {
            let number = end[sum][name].as_f64();
            number.unwrap_or_else(|| panic!("{sum} {name}: {said}"))
        };
        let sent = number("sum_sent", "bytes");
        assert!(sent > 4_500_000.0, "{back}: {end}");
        // By their numbers; what was still under way at the end is in no count of those.
        assert!(number("sum", "lost_percent") < 1.0, "{back}: {end}");
        let arrived = number("sum_received", "bytes");
        assert!(arrived > 0.95 * sent, "{back}: {end}");
    }
}
