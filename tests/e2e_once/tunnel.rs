//! `up --tunnel`: what TCP cannot carry goes as packets, by a device that is made on the server, and leaves nothing there.

mod login;

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use login::{Account, as_root, sshd_for};

use crate::common::{Lab, Underpass, V4, V6, Value, assert_ok, eventually, finished};
use crate::e2e::datagrams::{answers, ask, shell};

/// Where the bastion's sshd permits tunnels.
const PORT: u16 = 2210;
const SERVER: &str = "-r root@192.168.77.1:2210";

/// A lab whose bastion permits tunnels as `permitted` says.
fn lab(permitted: &str) -> Lab {
    let lab = Lab::up();
    lab.further_sshd(
        PORT,
        "authorized_keys",
        &format!("PermitTunnel {permitted}"),
    );
    lab
}

/// For TCP one carrier or the other; packets go by the installed ssh.
fn up(lab: &Lab, args: &str) -> Underpass {
    lab.underpass(&format!("{SERVER} {args}"))
}

/// What `status --json` says of what is no TCP.
fn report(lab: &Lab) -> Value {
    let status = lab.ask("status --json");
    let mut reports: Value = serde_json::from_slice(&status.stdout).unwrap();
    reports[0].take()
}

fn tunnel(lab: &Lab) -> Value {
    report(lab)["beside"]["tunnel"].take()
}

/// A host that answers every one of its pings.
fn is_pinged(lab: &Lab, role: &str, args: &str) {
    let said = shell(lab, role, &format!("ping -c 2 -i 0.2 -W 5 {args}"));
    assert!(said.contains(" 0% packet loss"), "{said}");
}

#[test]
fn all_but_tcp_goes_as_packets_and_nothing_of_it_stays() {
    all_but_tcp_goes_as_packets("russh");
}

#[test]
fn all_but_tcp_goes_as_packets_over_the_connection_of_tcp() {
    all_but_tcp_goes_as_packets("openssh");
}

fn all_but_tcp_goes_as_packets(carrier: &str) {
    let lab = lab("yes");
    let before = lab.network_state("bastion");
    let _v4 = answers(&lab, "vpc", V4.host, 7777);
    let _v6 = answers(&lab, "vpc", V6.host, 7777);
    let args = format!("--carrier {carrier} --tunnel {} {}", V4.subnet, V6.subnet);
    let mut underpass = up(&lab, &args);
    let whole = report(&lab);
    let found = &whole["beside"]["tunnel"];
    assert_eq!(
        (&found["mode"], &found["is_up"]),
        (&"hybrid".into(), &true.into())
    );
    assert_eq!(whole["beside"]["udp"], "by the tunnel");
    let far = found["far"][0].as_str().unwrap().to_owned();
    // Up to the MTU and over it, and the server's own end.
    for host in [V4.host, V6.host, V4.other, &far] {
        for length in [0, 56, 1400, 8000] {
            is_pinged(&lab, "client", &format!("-s {length} {host}"));
        }
    }
    // From a container as well.
    let said = shell(
        &lab,
        "client",
        "nft add table ip docker && \
        nft 'add chain ip docker nat { type nat hook postrouting priority 100; }' && \
        nft add rule ip docker nat ip saddr 172.31.0.0/24 oifname != br-b0c5b0c5b0c5 masquerade",
    );
    assert_eq!(said, "");
    is_pinged(&lab, "box", V4.host);
    // The way: the server, then the host.
    let said = shell(&lab, "client", &format!("ping -c 1 -t 1 -W 5 {}", V4.host));
    assert!(
        said.contains(&format!("From {far} ")) && said.contains("Time to live"),
        "{said}"
    );
    let said = shell(
        &lab,
        "client",
        &format!("ping -c 1 -M do -s 1473 -W 5 {}", V4.host),
    );
    assert!(
        said.contains("mtu=1500") || said.contains("mtu = 1500"),
        "{said}"
    );
    for host in [V4.host, V6.host] {
        let said = ask(&lab, "client", host, 7777, "1 1400 1472 1473 3000 60000");
        assert_eq!(
            said,
            "1 same\n1400 same\n1472 same\n1473 same\n3000 same\n60000 same\n"
        );
        let said = ask(&lab, "client", host, 7778, "1");
        assert_eq!(said, "1 Connection refused\n");
    }
    // A host that is not there is told of by the server.
    let said = shell(
        &lab,
        "client",
        &format!("ping -c 1 -W 5 {}", V4.no_such_host),
    );
    assert!(said.contains("Destination Host Unreachable"), "{said}");
    // TCP is a flow.
    assert_ok(&lab.probe("client", &format!("get {} 5001 1000000", V4.host)));
    assert_eq!(report(&lab)["flows"]["total"], 1);
    // Nobody over there comes in, the server itself included, whose packets are not forwarded.
    let ours = found["ours"][0].as_str().unwrap();
    shell(&lab, "vpc", &format!("ip route add {ours} via 10.0.1.1"));
    let _open = answers(&lab, "client", ours, 7777);
    for role in ["vpc", "bastion"] {
        let said = shell(&lab, role, &format!("ping -c 1 -W 1 {ours}"));
        assert!(said.contains("100% packet loss"), "{role}: {said}");
        assert_eq!(ask(&lab, role, ours, 7777, "1"), "1 silence\n", "{role}");
    }
    assert!(report(&lab)["drops"]["unasked"].as_u64() > Some(0));
    assert_eq!(tunnel(&lab)["dropped"], 0);
    assert!(underpass.stop(Signal::SIGTERM).success());
    assert_eq!(lab.network_state("bastion"), before);
}

#[test]
fn with_full_the_far_network_reaches_this_host_as_well() {
    let lab = lab("point-to-point");
    let before = lab.network_state("bastion");
    let mut underpass = up(
        &lab,
        &format!(
            "--tunnel=full --tunnel-unit 5 --tunnel-address 10.77.0.1,10.77.0.2 {} {}",
            V4.subnet, V6.subnet
        ),
    );
    let found = tunnel(&lab);
    assert_eq!(
        (&found["mode"], &found["device"]),
        (&"full".into(), &"tun5".into())
    );
    assert_eq!(
        (&found["ours"][0], &found["far"][0]),
        (&"10.77.0.1".into(), &"10.77.0.2".into())
    );
    for host in [V4.host, V6.host] {
        assert_ok(&lab.probe("client", &format!("get {host} 5001 1000000")));
    }
    is_pinged(&lab, "client", V4.host);
    shell(&lab, "vpc", "ip route add 10.77.0.1 via 10.0.1.1");
    is_pinged(&lab, "vpc", "10.77.0.1");
    // Of a header alone sshd would make the end of the tunnel.
    let bare = "import socket; raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 59); raw.sendto(b'', ('10.77.0.1', 0))";
    let said = shell(&lab, "vpc", &format!("python3 -c \"{bare}\""));
    assert_eq!(said, "");
    is_pinged(&lab, "vpc", "10.77.0.1");
    let _server = answers(&lab, "client", "10.77.0.1", 7777);
    assert_eq!(ask(&lab, "vpc", "10.77.0.1", 7777, "1000"), "1000 same\n");
    let mut listener = lab.command("client", "nc");
    listener
        .args(["-l", "10.77.0.1", "7778"])
        .stdout(Stdio::piped());
    let listener = listener.spawn().unwrap();
    eventually("a connection comes in", || {
        shell(
            &lab,
            "vpc",
            "echo from the far network | nc -N -w 2 10.77.0.1 7778 && echo done",
        )
        .contains("done")
    });
    let heard = listener.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&heard.stdout),
        "from the far network\n"
    );
    let log = underpass.log().join("\n");
    assert!(!log.contains("carries packets again"), "{log}");
    assert!(underpass.stop(Signal::SIGTERM).success());
    assert_eq!(lab.network_state("bastion"), before);
}

#[test]
fn ethernet_finds_its_neighbours() {
    let lab = lab("ethernet");
    let before = lab.network_state("bastion");
    let mut underpass = up(
        &lab,
        &format!("--tunnel=ethernet {} {}", V4.subnet, V6.subnet),
    );
    let found = tunnel(&lab);
    assert_eq!(
        (&found["mode"], &found["device"]),
        (&"ethernet".into(), &"tap64".into())
    );
    for host in [V4.host, V6.host] {
        is_pinged(&lab, "client", host);
        assert_ok(&lab.probe("client", &format!("get {host} 5001 1000000")));
    }
    let neighbours = shell(&lab, "client", "ip neigh show dev underpass0");
    for far in found["far"].as_array().unwrap() {
        let line = format!("{} lladdr ", far.as_str().unwrap());
        assert!(neighbours.contains(&line), "{neighbours}");
    }
    assert!(underpass.stop(Signal::SIGTERM).success());
    assert_eq!(lab.network_state("bastion"), before);
}

#[test]
fn a_lost_connection_leaves_nothing_there_and_the_tunnel_comes_back() {
    a_lost_tunnel_comes_back("--carrier openssh", "the installed ssh");
}

/// That of packets goes with it.
#[test]
fn a_lost_connection_of_tcp_takes_that_of_packets_along_and_both_come_back() {
    a_lost_tunnel_comes_back("", "the built-in SSH");
}

/// Of those two connections. TCP goes on meanwhile.
#[test]
fn a_lost_connection_of_packets_comes_back_at_once() {
    let lab = lab("yes");
    let mut underpass = up(&lab, &format!("--tunnel {}", V4.subnet));
    is_pinged(&lab, "client", V4.host);
    let script = "for pid in $(ip netns pids $(ip netns identify $$)); do \
                  ls -l /proc/$pid/fd 2>/dev/null | grep -q /dev/net/tun && kill $pid && echo killed; done";
    assert_eq!(shell(&lab, "bastion", script), "killed\n");
    underpass.wait_for_line("on the server carries packets again");
    is_pinged(&lab, "client", V4.host);
    assert!(underpass.stop(Signal::SIGTERM).success());
    let log = underpass.log().join("\n");
    assert!(!log.contains("is tried again"), "{log}");
}

fn a_lost_tunnel_comes_back(carrier: &str, name: &str) {
    let lab = lab("yes");
    let before = lab.network_state("bastion");
    let mut underpass = up(&lab, &format!("{carrier} --tunnel {}", V4.subnet));
    let log = underpass.log().join("\n");
    assert!(log.contains(&format!("carrier: {name}")), "{log}");
    is_pinged(&lab, "client", V4.host);
    let first = tunnel(&lab);
    lab.kill_sshd_at(PORT);
    let lost = Instant::now();
    underpass.wait_for_line("connection lost");
    eventually("the server has taken its end back", || {
        lab.network_state("bastion") == before
    });
    assert!(
        lost.elapsed() < Duration::from_secs(10),
        "{:?}",
        lost.elapsed()
    );
    let now = tunnel(&lab);
    assert_eq!(now["is_up"], false, "{now}");
    lab.start_further_sshd_at(PORT);
    underpass.wait_for_line("on the server carries packets again");
    is_pinged(&lab, "client", V4.host);
    let again = tunnel(&lab);
    assert_eq!(
        (&again["ours"], &again["far"]),
        (&first["ours"], &first["far"])
    );
    // One that somebody takes away there is opened again, too.
    shell(&lab, "bastion", "ip link del tun64");
    underpass.wait_for_further_line("on the server carries packets again");
    is_pinged(&lab, "client", V4.host);
    assert!(underpass.stop(Signal::SIGTERM).success());
    assert_eq!(lab.network_state("bastion"), before);
    // Killed, all of it: the server notices.
    let mut underpass = up(&lab, &format!("--tunnel {}", V4.subnet));
    underpass.stop(Signal::SIGKILL);
    eventually("the server has taken its end back", || {
        lab.network_state("bastion") == before
    });
}

#[test]
fn two_tunnels_on_one_server_do_not_disturb_one_another() {
    let lab = lab("yes");
    let before = lab.network_state("bastion");
    let mut first = up(&lab, &format!("--name first --tunnel {}", V4.subnet));
    let mut second = up(&lab, "--name second --tunnel 10.0.2.0/24");
    is_pinged(&lab, "client", V4.host);
    is_pinged(&lab, "client", "10.0.2.20");
    assert!(first.stop(Signal::SIGTERM).success());
    is_pinged(&lab, "client", "10.0.2.20");
    assert!(second.stop(Signal::SIGTERM).success());
    assert_eq!(lab.network_state("bastion"), before);
}

#[test]
fn where_no_tunnel_is_permitted_tcp_goes_on_and_says_so() {
    for (permitted, args, line) in [
        (
            "no",
            "--tunnel",
            "add \"PermitTunnel point-to-point\" to /etc/ssh/sshd_config",
        ),
        (
            "ethernet",
            "--tunnel=full",
            "add \"PermitTunnel point-to-point\" to /etc/ssh/sshd_config",
        ),
    ] {
        let lab = lab(permitted);
        let before = lab.network_state("bastion");
        let mut underpass = up(&lab, &format!("{args} {}", V4.subnet));
        underpass.wait_for_line(line);
        assert_ok(&lab.probe("client", &format!("get {} 5001 1000000", V4.host)));
        let said = ask(&lab, "client", V4.host, 7777, "1");
        assert_eq!(said, "1 Connection refused\n");
        assert!(tunnel(&lab).is_null());
        assert!(underpass.stop(Signal::SIGTERM).success());
        assert_eq!(lab.network_state("bastion"), before);
    }
    let lab = lab("point-to-point");
    let refused = |args: &str, code: i32, line: &str| {
        let output =
            finished(lab.up_command(&format!("--carrier openssh {SERVER} {args} {}", V4.subnet)));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(line), "{said}");
    };
    refused("--tunnel=ethernet", 1, "\"PermitTunnel ethernet\"");
    refused(
        "--tunnel --tunnel-address 10.0.1.1,10.77.0.2",
        2,
        "name another pair",
    );
    // A session that the login may not have.
    let mut underpass = lab.underpass(&format!(
        "--carrier openssh -r root@192.168.77.1:2203 --tunnel {}",
        V4.subnet
    ));
    underpass.wait_for_line("permit exec for this login");
    assert!(underpass.stop(Signal::SIGTERM).success());
}

/// What is shown is what is done; nothing is done.
#[test]
fn a_dry_run_shows_the_servers_end() {
    let lab = lab("yes");
    let before = (lab.network_state("client"), lab.network_state("bastion"));
    let args = format!(
        "--carrier openssh {SERVER} --tunnel --dry-run {}",
        V4.subnet
    );
    let output = finished(lab.up_command(&args));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    for part in [
        "# on the server:\n",
        "dev tun64\n",
        "oifname tun64 drop'\n",
        "ip addr add 198.19.",
        "# whether the server permits the tunnel (PermitTunnel) was not asked: underpass doctor --tunnel asks\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(
        (lab.network_state("client"), lab.network_state("bastion")),
        before
    );
}

/// Who may not set it up gets the commands for who may; these are all that it takes.
#[test]
fn an_administrator_is_told_what_to_do() {
    let lab = Lab::up();
    sshd_for(&lab, PORT, Account::Plain, "PermitTunnel yes");
    let server = format!("--carrier openssh -r tester@192.168.77.1:{PORT}");
    let mut underpass = lab.underpass(&format!("{server} --tunnel {}", V4.subnet));
    underpass.wait_for_line("not root on the server, and may not use sudo without a password");
    assert_ok(&lab.probe("client", &format!("get {} 5001 1000000", V4.host)));
    let commands: Vec<String> = underpass
        .log()
        .iter()
        .filter_map(|line| Some(line.split_once("underpass:   ")?.1.to_owned()))
        .filter(|line| {
            line.starts_with("ip ") || line.starts_with("nft ") || line.starts_with("iptables ")
        })
        .collect();
    assert!(commands.len() > 3, "{commands:?}");
    assert!(underpass.stop(Signal::SIGTERM).success());
    for command in &commands {
        assert_eq!(as_root(&lab, PORT, command), "", "{command}");
    }
    // What is the administrator's stays, and does again.
    for _ in 0..2 {
        let mut underpass = lab.underpass(&format!("{server} --tunnel {}", V4.subnet));
        underpass.wait_for_line("is ready for this login");
        is_pinged(&lab, "client", V4.host);
        assert!(underpass.stop(Signal::SIGTERM).success());
    }
}

#[test]
fn sudo_without_a_password_does() {
    let lab = Lab::up();
    sshd_for(&lab, PORT, Account::Sudoer, "PermitTunnel yes");
    let before = lab.network_state("bastion");
    let mut underpass = lab.underpass(&format!(
        "--carrier openssh -r tester@192.168.77.1:{PORT} --tunnel {}",
        V4.subnet
    ));
    is_pinged(&lab, "client", V4.host);
    assert!(underpass.stop(Signal::SIGTERM).success());
    eventually("the server has taken its end back", || {
        lab.network_state("bastion") == before
    });
}

#[test]
fn for_one_user_alone() {
    let lab = lab("yes");
    let _server = answers(&lab, "vpc", V4.host, 7777);
    let mut underpass = up(&lab, &format!("--tunnel --user 1000 {}", V4.subnet));
    let talk = format!(
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(5); \
         s.connect((\"{}\", 7777)); s.send(b\"talk\"); print(s.recv(9))",
        V4.host
    );
    let said = |user: u32| {
        let command = format!("setpriv --reuid={user} --clear-groups /usr/bin/python3 -c '{talk}'");
        shell(&lab, "client", &command)
    };
    assert_eq!(said(1000), "b'talk'\n");
    let of_root = said(0);
    assert!(of_root.contains("Network is unreachable"), "{of_root}");
    let said = shell(&lab, "client", &format!("ping -c 1 -W 1 {}", V4.host));
    assert!(said.contains("Network is unreachable"), "{said}");
    assert!(underpass.stop(Signal::SIGTERM).success());
}

#[test]
fn in_another_network_namespace() {
    let lab = lab("yes");
    let before = ["bastion", "box", "client"].map(|role| lab.network_state(role));
    let _server = answers(&lab, "vpc", V4.host, 7777);
    let command = lab.command("box", "true");
    let path = command.get_args().next().unwrap().to_str().unwrap();
    let path = path.strip_prefix("--net=").unwrap();
    let mut underpass = up(&lab, &format!("--tunnel --netns {path} {}", V4.subnet));
    is_pinged(&lab, "box", V4.host);
    let said = ask(&lab, "box", V4.host, 7777, "1 1400");
    assert_eq!(said, "1 same\n1400 same\n");
    assert_ok(&lab.probe("box", &format!("get {} 5001 1000000", V4.host)));
    let said = shell(&lab, "client", &format!("ping -c 1 -W 1 {}", V4.host));
    assert!(said.contains("Network is unreachable"), "{said}");
    assert!(underpass.stop(Signal::SIGTERM).success());
    assert_eq!(
        ["bastion", "box", "client"].map(|role| lab.network_state(role)),
        before
    );
}
