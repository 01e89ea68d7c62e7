//! `up --dns` on a host with systemd-resolved: it asks our name server for the names that it is told, and nothing of that is left.

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::signal::Signal;

use super::host::{FAR, Host, MANAGER, script};
use crate::common::{V4, eventually, finished};
use crate::e2e::server::sshd_that_knows;

fn resolved() -> Host {
    let host = Host::new(&[("nsswitch.conf", "passwd: files\nhosts: files dns\n")]);
    symlink(
        "/run/systemd/resolve/stub-resolv.conf",
        host.etc.join("resolv.conf"),
    )
    .unwrap();
    host.with_resolved()
}

/// Whether our device asks with this.
const OWN: &str = "DNS a(iay) 1 2 4 198 19 255 53\n";

#[test]
fn names_below_a_domain_go_through_the_server_and_others_as_before() {
    let mut host = resolved();
    let before = host.all_links();
    let captured = host.capture();
    let mut underpass = host.up(&format!(
        "--dns corp.internal --dns-server {FAR} {}",
        V4.subnet
    ));
    let link = host.link();
    let expected = format!(
        "{OWN}Domains a(sb) 2 \"1.0.10.in-addr.arpa\" true \"corp.internal\" true\nDefaultRoute b false\n\
         LLMNR s \"no\"\nMulticastDNS s \"no\"\nDNSOverTLS s \"no\"\nDNSSEC s \"no\"\n"
    );
    assert_eq!(link, expected);
    // The C library, dig, and a program that reads resolv.conf itself as Go's do.
    let found = host.prints(&format!(
        "getent ahostsv4 api.corp.internal; curl -4 -sS -o /dev/null -w 'http %{{http_code}}\\n' http://api.corp.internal/; \
         dig +short api.corp.internal; dig +tcp +short api.corp.internal; dig +short -x 10.0.1.20; \
         python3 {} api.corp.internal; getent ahostsv4 www.example.com; dig +short www.example.com",
        script("like_go.py")
    ));
    let words = [
        "10.0.1.20 ",
        "http 200\n10.0.1.20\n10.0.1.20\napi.corp.internal.\nlike-go 10.0.1.20\n192.0.2.80 ",
        "\n192.0.2.80\n",
    ];
    assert!(words.iter().all(|word| found.contains(word)), "{found}");
    // D-Bus was spoken before it was confined, and has left no thread that is not.
    let threads = std::fs::read_dir(format!("/proc/{}/task", underpass.pid())).unwrap();
    for thread in threads.flatten() {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap();
        assert!(status.contains("\nSeccomp:\t2\n"), "{status}");
    }
    let status = underpass.stop(Signal::SIGTERM);
    let log = underpass.log().join("\n");
    assert!(status.success() && !log.contains("warning"), "{log}");
    assert_eq!(host.all_links(), before);
    let names = captured.names();
    assert!(names.contains("www.example.com"), "{names}");
    assert!(
        !names.contains("corp.internal") && !names.contains("1.0.10.in-addr"),
        "{names}"
    );
}

/// A reload changes which addresses have their names on the far side.
#[test]
fn names_of_addresses_follow_a_reload() {
    let host = resolved();
    let file = host.lab.file("subnets");
    fs::write(&file, "10.0.2.0/24\n").unwrap();
    let mut underpass = host.up(&format!("--dns corp.internal --dns-server {FAR} -s {file}"));
    let whose = || host.prints("dig +short +time=2 +tries=1 -x 10.0.1.20");
    assert!(!whose().contains("corp.internal"));
    assert!(host.link().contains("\"2.0.10.in-addr.arpa\""));
    fs::write(&file, format!("{}\n", V4.subnet)).unwrap();
    underpass.signal(Signal::SIGHUP);
    underpass.wait_for_line("1 subnet added, 1 removed");
    assert_eq!(whose(), "api.corp.internal.\n");
    assert!(
        host.link()
            .contains("Domains a(sb) 2 \"1.0.10.in-addr.arpa\" true")
    );
    assert!(underpass.stop(Signal::SIGTERM).success());
}

/// Each has addresses of its own that stand for its hosts.
#[test]
fn two_instances_capture_hosts_by_their_names() {
    let mut host = resolved();
    sshd_that_knows(
        &host.lab,
        2211,
        "10.0.1.20 a.one.test\n10.0.1.20 a.two.test\n",
    );
    let before = host.all_links();
    let captured = host.capture();
    let mut one = host.up("-p 2211 --name one *.one.test");
    let mut two = host.up("-p 2211 --name two a.two.test:80");
    for (underpass, networks) in [
        (&mut one, "ready: 198.19.0.0/20, fd75:6e64:6572:706f::/116"),
        (
            &mut two,
            "ready: 198.19.16.0/20, fd75:6e64:6572:706f::1000/116",
        ),
    ] {
        underpass.wait_for_line(networks);
    }
    let found = host.prints(
        "for name in a.one.test a.two.test; do curl -sS -o /dev/null -w \"$name %{http_code}\\n\" http://$name/; done; \
         getent ahostsv4 www.example.com",
    );
    assert!(
        found.starts_with("a.one.test 200\na.two.test 200\n192.0.2.80 "),
        "{found}"
    );
    for underpass in [&mut one, &mut two] {
        let status = underpass.stop(Signal::SIGTERM);
        let log = underpass.log().join("\n");
        assert!(status.success() && !log.contains("warning"), "{log}");
    }
    assert_eq!(host.all_links(), before);
    let names = captured.names();
    assert!(
        names.contains("www.example.com") && !names.contains(".test"),
        "{names}"
    );
}

#[test]
fn all_names_go_through_the_server() {
    let mut host = resolved();
    let captured = host.capture();
    let mut underpass = host.up(&format!(
        "--dns --dns-server {FAR} -r root@bastion.test -o HostKeyAlias=192.168.77.1 {}",
        V4.subnet
    ));
    let link = host.link();
    let expected = format!(
        "{OWN}Domains a(sb) 2 \".\" true \"1.0.10.in-addr.arpa\" true\nDefaultRoute b true\n"
    );
    assert!(link.starts_with(&expected), "{link}");
    let found = host.prints("getent ahostsv4 api.corp.internal; getent ahostsv4 www.example.com");
    assert!(
        found.contains("10.0.1.20 ") && found.contains("10.0.1.21 "),
        "{found}"
    );
    // The server's own name is found by who knew it before, and not by way of us again.
    host.lab.kill_sshd_at(22);
    underpass.wait_for_line("connection lost");
    host.lab.start_sshd_at(22);
    eventually("names are found again", || {
        host.prints("getent ahostsv4 api.corp.internal")
            .contains("10.0.1.20 ")
    });
    let status = underpass.stop(Signal::SIGTERM);
    assert!(status.success());
    let names = captured.names();
    assert!(names.contains("bastion.test"), "{names}");
    assert!(
        !names.contains("corp.internal") && !names.contains("www.example.com"),
        "{names}"
    );
}

/// As NetworkManager does.
#[test]
fn what_somebody_wipes_is_set_again() {
    let mut host = resolved();
    let mut underpass = host.up(&format!(
        "--dns corp.internal --dns-server {FAR} {}",
        V4.subnet
    ));
    let ours = host.link();
    let index = "i=$(ip -o link show underpass0 | cut -d: -f1)";
    host.prints(&format!(
        "{index}; {MANAGER} SetLinkDNS 'ia(iay)' $i 0; {MANAGER} SetLinkDomains 'ia(sb)' $i 0"
    ));
    underpass.wait_for_line("somebody has changed");
    eventually("it is as before", || host.link() == ours);
    // The domains alone, of which no signal tells.
    host.prints(&format!(
        "{index}; {MANAGER} SetLinkDomains 'ia(sb)' $i 1 . true"
    ));
    underpass.wait_for_further_line("somebody has changed");
    eventually("it is as before", || host.link() == ours);
    host.prints(&format!("{index}; {MANAGER} RevertLink i $i"));
    underpass.wait_for_further_line("somebody has changed");
    eventually("it is as before", || host.link() == ours);
    host.restart_resolved();
    eventually("it is as before", || host.link() == ours);
    assert!(
        host.prints("getent ahostsv4 api.corp.internal")
            .contains("10.0.1.20 ")
    );
    assert!(underpass.stop(Signal::SIGTERM).success());
}

/// The real one, which sees our device as "connected (externally)": whatever it is told, and however it is started, programs find
/// names by the server that has them.
#[test]
fn names_go_their_ways_beside_a_real_networkmanager() {
    const NM: &str = "busctl call org.freedesktop.NetworkManager /org/freedesktop/NetworkManager org.freedesktop.NetworkManager";
    let mut host = resolved().with_network_manager();
    let before = host.all_links();
    let mut underpass = host.up(&format!(
        "--dns corp.internal --dns-server {FAR} {}",
        V4.subnet
    ));
    eventually("NetworkManager has our device", || {
        host.is_external("underpass0")
    });
    let is_ours = |host: &Host| {
        let link = host.link();
        link.starts_with(OWN) && link.contains("\"corp.internal\" true\nDefaultRoute b false\n")
    };
    let find = |host: &Host| {
        eventually("it is ours", || is_ours(host));
        let found = host.prints("dig +short api.corp.internal; dig +short www.example.com");
        assert_eq!(found, "10.0.1.20\n192.0.2.80\n");
    };
    find(&host);
    // What it has is written anew: its configuration, then all names.
    for flags in [0, 4] {
        host.prints(&format!("{NM} Reload u {flags}"));
        find(&host);
    }
    host.restart_network_manager();
    eventually("NetworkManager has our device", || {
        host.is_external("underpass0")
    });
    find(&host);
    assert!(underpass.stop(Signal::SIGTERM).success());
    eventually("it is as before", || host.all_links() == before);
}

/// Both are asked then, and names leak.
#[test]
fn a_link_that_has_the_same_domain_is_told_of() {
    let host = resolved();
    host.prints(&format!(
        "i=$(ip -o link show wan | cut -d: -f1); {MANAGER} SetLinkDomains 'ia(sb)' $i 3 corp.internal false other.test true \
         dev.corp.internal true"
    ));
    let mut underpass = host.up(&format!(
        "--dns corp.internal --dns-server {FAR} {}",
        V4.subnet
    ));
    underpass.wait_for_line(
        " corp.internal: systemd-resolved asks the name servers of wan for these names as well",
    );
    underpass.wait_for_line(
        "dev.corp.internal: systemd-resolved asks the name servers of wan for these names and not underpass",
    );
    assert!(underpass.stop(Signal::SIGTERM).success());
}

/// With the privilege for devices and routes alone: systemd-resolved asks polkit then, which is not there.
#[test]
fn who_is_not_root_is_told_what_to_do() {
    let host = resolved();
    host.lab.open_to("nobody");
    // As it usually is (mode 0666).
    host.prints("mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200");
    let user = "--reuid=nobody --regid=nogroup --clear-groups --inh-caps=+net_admin --ambient-caps=+net_admin";
    let mut command = host.command("setsid");
    command.arg("setpriv").args(user.split(' '));
    command.arg(env!("CARGO_BIN_EXE_underpass"));
    let known = format!("UserKnownHostsFile={}", host.lab.file("known_hosts"));
    let key = host.lab.file("id_of_nobody");
    command.args(["up", "-r", "root@192.168.77.1", "-i", &key, "-o", &known]);
    command.args(["--dns", "--dns-server", FAR, V4.subnet]);
    host.lab.is_home_of(&mut command);
    command.env("UNDERPASS_RUNTIME_DIR", "/tmp");
    let output = finished(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("from root alone"),
        "{said}"
    );
}

#[test]
fn a_killed_run_leaves_nothing_at_once() {
    let host = resolved();
    let before = host.all_links();
    let mut underpass = host.up(&format!("--dns --dns-server {FAR} {}", V4.subnet));
    assert_ne!(host.all_links(), before);
    host.kill_all_of_it();
    underpass.wait();
    eventually("it is as before", || host.all_links() == before);
    assert!(
        host.prints("getent ahostsv4 www.example.com")
            .contains("192.0.2.80 ")
    );
    assert!(host.ask(&["cleanup"]).status.success());
}

/// Private names are for the far side alone, whether it is there or not.
#[test]
fn while_the_connection_is_away_private_names_are_asked_of_nobody() {
    let mut host = resolved();
    let captured = host.capture();
    let mut underpass = host.up(&format!(
        "--dns corp.internal --dns-server {FAR} {}",
        V4.subnet
    ));
    host.lab.kill_sshd_at(22);
    underpass.wait_for_line("connection lost");
    let said = host.prints("dig +tries=1 +time=15 db.corp.internal; getent ahostsv4 db2.corp.internal; dig +short www.example.com");
    assert!(
        said.contains("status: SERVFAIL") && said.contains("192.0.2.80"),
        "{said}"
    );
    underpass.stop(Signal::SIGTERM);
    let names = captured.names();
    assert!(
        names.contains("www.example.com") && !names.contains("corp.internal"),
        "{names}"
    );
}

#[test]
fn one_that_does_not_answer_is_named() {
    let host = Host::new(&[
        ("resolv.conf", "nameserver 127.0.0.53\n"),
        ("nsswitch.conf", "hosts: files dns\n"),
    ]);
    let output = finished(host.up_command(&format!("--dns {}", V4.subnet)));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("does not answer on D-Bus"), "{said}");
    let output = host.ask(&["doctor"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("it does not answer on D-Bus"), "{said}");
}

#[test]
fn doctor_names_it() {
    let host = resolved();
    let output = host.ask(&["doctor", "--json"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("systemd-resolved; servers: 127.0.0.53"),
        "{said}"
    );
}

/// It asks nobody here for a name of the far side's.
#[test]
fn doctor_has_the_server_look_private_names_up() {
    let mut host = resolved();
    sshd_that_knows(&host.lab, 2211, "10.0.1.20 a.one.test\n");
    let captured = host.capture();
    let (key, known) = (host.lab.file("id"), host.lab.file("known_hosts"));
    let known = format!("UserKnownHostsFile={known}");
    let server = [
        "doctor",
        "-r",
        "root@192.168.77.1:2211",
        "-i",
        &key,
        "-o",
        &known,
    ];
    let probes = ["--probe", "a.one.test:80", "--probe", "gone.one.test:80"];
    let output = host.ask(&[&server[..], &["*.one.test"], &probes].concat());
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("a.one.test:80 is open"), "{said}");
    assert!(said.contains("gone.one.test:80"), "{said}");
    assert!(!said.contains("gone.one.test:80 is open"), "{said}");
    assert!(
        !captured.names().contains("one.test"),
        "{}",
        captured.names()
    );
}
