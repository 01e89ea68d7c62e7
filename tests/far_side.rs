//! The server's end of a tunnel, set up and taken back by a shell in network namespaces, without SSH.

// The lint's exception for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "far_side/rig.rs"]
mod rig;

use underpass::app::up::beside::far_side::{Found, Wish};
use underpass::plan::far_side::{DeviceKind, MayNot};

use rig::{Rig, wish};

const MAY_ALL: &str = "nobody ALL=(ALL) NOPASSWD: ALL\n";

/// From nothing to packets that flow, and back.
async fn works(rig: &Rig, wish: &Wish) {
    let before = rig.state();
    let end = rig.end(wish).await;
    end.prepare(rig).await.unwrap();
    let cable = rig.cable(wish, end.unit(), end.address());
    end.set_up(rig).await.unwrap();
    assert_flows(rig, true);
    end.undo(rig).await;
    assert!(!rig.hears("client", "10.55.0.2"));
    drop(cable);
    rig.is_soon(&before);
}

fn assert_flows(rig: &Rig, ipv6: bool) {
    // The hosts know no way to the client: they see the server.
    assert!(rig.hears("client", "10.55.0.2"));
    assert!(rig.hears("client", "10.56.0.2"));
    assert!(rig.hears("client", "10.55.0.1"), "the server itself");
    if ipv6 {
        // The client has just got its address.
        rig.is_within(5, || rig.hears("client", "fd55::2"));
    }
}

#[tokio::test]
async fn packets_flow_and_all_is_as_before() {
    works(&Rig::new(), &wish(1)).await;
}

#[tokio::test]
async fn by_busybox() {
    works(&Rig::new().with_busybox(), &wish(1)).await;
}

#[tokio::test]
async fn frames_flow() {
    let wish = Wish {
        kind: DeviceKind::Tap,
        inbound: true,
        ..wish(1)
    };
    works(&Rig::new(), &wish).await;
}

#[tokio::test]
async fn by_sudo() {
    works(&Rig::new().for_nobody(MAY_ALL), &wish(1)).await;
}

#[tokio::test]
async fn once_more_changes_nothing() {
    let rig = Rig::new();
    let before = rig.state();
    let end = rig.end(&wish(1)).await;
    let cable = rig.cable(&wish(1), end.unit(), end.address());
    end.set_up(&rig).await.unwrap();
    // Rules are new ones, by their numbers.
    let once = rig.state();
    end.set_up(&rig).await.unwrap();
    assert_eq!(rig.state(), once);
    assert!(once.contains("\"mtu\":1400"), "{once}");
    assert_flows(&rig, true);
    drop(cable);
    rig.is_soon(&before);
}

/// Whether it is sshd's or was made for it.
#[tokio::test]
async fn the_watchdog_takes_it_back_when_nobody_holds_it() {
    for rig in [
        Rig::new(),
        Rig::new().with_busybox(),
        Rig::new().for_nobody(MAY_ALL),
    ] {
        let before = rig.state();
        let end = rig.end(&wish(1)).await;
        end.prepare(&rig).await.unwrap();
        let cable = rig.cable(&wish(1), end.unit(), end.address());
        end.set_up(&rig).await.unwrap();
        assert_ne!(rig.state(), before);
        drop(cable);
        rig.is_soon(&before);
    }
}

/// A session that is ended by whoever runs the server.
#[tokio::test]
async fn the_watchdog_takes_it_back_when_it_is_told_to_end() {
    let rig = Rig::new();
    let end = rig.end(&wish(1)).await;
    let cable = rig.cable(&wish(1), end.unit(), end.address());
    end.set_up(&rig).await.unwrap();
    assert_flows(&rig, true);
    let watchdog = rig.watchdog("tun64");
    rig.in_netns(
        "server",
        &format!("kill -HUP {watchdog} && kill {watchdog}"),
    );
    // The device is still there.
    let is_undone = || {
        let state = rig.state();
        !state.contains("underpass") && state.contains("ip_forward:0")
    };
    rig.is_within(5, is_undone);
    drop(cable);
}

#[tokio::test]
async fn made_and_never_opened_it_goes() {
    let rig = Rig::new().for_nobody(MAY_ALL);
    let before = rig.state();
    rig.end(&wish(1)).await.prepare(&rig).await.unwrap();
    let prepared = rig.state();
    assert!(prepared.contains("tun64"), "{prepared}");
    rig.is_within(20, || rig.state() == before);
}

#[tokio::test]
async fn two_do_not_disturb_each_other() {
    for rig in [Rig::new(), without_nft(Rig::new())] {
        let before = rig.state();
        let one = rig.end(&wish(1)).await;
        let first = rig.cable(&wish(1), one.unit(), one.address());
        one.set_up(&rig).await.unwrap();
        let alone = rig.state();
        let two = rig.end(&wish(2)).await;
        assert_ne!(one.unit(), two.unit());
        assert_ne!(one.address(), two.address());
        let second = rig.cable(&wish(2), two.unit(), two.address());
        two.set_up(&rig).await.unwrap();
        // The client's routes lead to the second one now.
        assert_flows(&rig, true);
        let ping = format!("-I {} 10.55.0.2", one.address().v4.ours);
        assert!(rig.hears("client", &ping));
        two.undo(&rig).await;
        assert!(!rig.hears("client", "10.55.0.2"));
        drop(second);
        rig.is_soon(&alone);
        // The second's end has not closed what the first needs.
        let via = format!("ip route replace 10.48.0.0/12 dev near{}", one.unit());
        rig.in_netns("client", &via);
        assert!(rig.hears("client", "10.55.0.2"));
        drop(first);
        rig.is_soon(&before);
    }
}

/// The server has not noticed that the first connection is lost.
#[tokio::test]
async fn after_a_reconnect_the_earlier_one_is_gone() {
    let rig = Rig::new();
    let before = rig.state();
    let wish = Wish {
        address: Some("198.19.200.1,198.19.200.2".parse().unwrap()),
        ..wish(1)
    };
    let lost = rig.end(&wish).await;
    let stale = rig.cable(&wish, lost.unit(), lost.address());
    lost.set_up(&rig).await.unwrap();
    rig.in_netns("client", &format!("ip link set near{} down", lost.unit()));
    let end = rig.end(&wish).await;
    assert_ne!(end.unit(), lost.unit());
    let cable = rig.cable(&wish, end.unit(), end.address());
    end.set_up(&rig).await.unwrap();
    assert_flows(&rig, false);
    drop(stale);
    assert_flows(&rig, false);
    // Too late, and of another one.
    lost.undo(&rig).await;
    assert_flows(&rig, false);
    end.undo(&rig).await;
    drop(cable);
    rig.is_soon(&before);
}

/// Addresses that another client has named, too.
#[tokio::test]
async fn one_address_is_not_given_twice() {
    let rig = Rig::new();
    let address = "198.19.200.1,198.19.200.2".parse().unwrap();
    let named = |id| Wish {
        address: Some(address),
        ..wish(id)
    };
    let one = rig.end(&named(1)).await;
    let first = rig.cable(&named(1), one.unit(), address);
    one.set_up(&rig).await.unwrap();
    let alone = rig.state();
    let two = rig.end(&named(2)).await;
    let mut wish = wish(2);
    wish.address = Some("198.19.201.1,198.19.201.2".parse().unwrap());
    let second = rig.cable(&wish, two.unit(), wish.address.unwrap());
    let error = two.set_up(&rig).await.unwrap_err().to_string();
    assert!(error.contains("--tunnel-address"), "{error}");
    drop(second);
    rig.is_soon(&alone);
    rig.in_netns("client", "ip route replace 10.48.0.0/12 dev near64");
    assert_flows(&rig, false);
    drop(first);
}

#[tokio::test]
async fn who_may_not_gets_commands_that_work() {
    let rig = Rig::new().for_nobody("");
    let wish = wish(1);
    let Ok(Found::MayNot { why, commands }) = wish.find(&rig, &[]).await else {
        panic!("nobody may");
    };
    assert_eq!(why, MayNot::Rights);
    for command in commands.iter().filter(|command| !command.contains("ssh")) {
        rig.in_netns("server", command);
    }
    let Ok(Found::Prepared(prepared)) = wish.find(&rig, &[]).await else {
        panic!("it is prepared");
    };
    let cable = rig.cable(&wish, prepared.unit, prepared.address);
    assert_flows(&rig, true);
    // Somebody uses it.
    let found = wish.find(&rig, &[]).await;
    assert!(matches!(found, Ok(Found::MayNot { .. })), "{found:?}");
    drop(cable);
}

/// As a kernel without it does.
fn without_nft(rig: Rig) -> Rig {
    rig.program("nft", Some("exit 1"));
    // iptables leaves its own chains behind, empty.
    for tables in ["iptables", "ip6tables"] {
        let line = format!("{tables} -w -nL && {tables} -w -t nat -nL");
        rig.in_netns("server", &line);
        for (table, chain) in [("filter", "FORWARD"), ("nat", "POSTROUTING")] {
            let line = format!(
                "{tables} -w -t {table} -N x; {tables} -w -t {table} -A {chain} -j x; {tables} -w -t {table} -D {chain} -j x; {tables} -w -t {table} -X x"
            );
            rig.in_netns("server", &line);
        }
    }
    rig
}

#[tokio::test]
async fn by_iptables() {
    works(&without_nft(Rig::new()), &wish(1)).await;
    works(&without_nft(Rig::new().with_busybox()), &wish(1)).await;
}

/// As Docker leaves it.
#[tokio::test]
async fn a_policy_of_iptables_that_drops_is_overruled() {
    for rig in [without_nft(Rig::new()), Rig::new()] {
        rig.in_netns(
            "server",
            "iptables -w -P FORWARD DROP && ip6tables -w -P FORWARD DROP && iptables -w -A FORWARD -i br9 -j ACCEPT",
        );
        works(&rig, &wish(1)).await;
    }
}

#[tokio::test]
async fn a_firewall_that_drops_is_named_and_left_alone() {
    let rig = Rig::new();
    rig.in_netns("server", "nft 'add table inet fw; add chain inet fw forward { type filter hook forward priority 0; policy drop; }'");
    let end = rig.end(&wish(1)).await;
    let foreseen: Vec<String> = end.dropped_there().collect();
    let _cable = rig.cable(&wish(1), end.unit(), end.address());
    let warnings = end.set_up(&rig).await.unwrap();
    assert!(
        warnings.len() == 1 && warnings[0].contains("inet fw"),
        "{warnings:?}"
    );
    assert_eq!(foreseen, warnings);
    assert!(!rig.hears("client", "10.55.0.2"));
    assert!(rig.hears("client", "10.55.0.1"), "the server itself");
    // What it says to do does.
    let (_, commands) = warnings[0].split_once("as root there: ").unwrap();
    for command in commands.split("; ") {
        rig.in_netns("server", command);
    }
    assert!(rig.hears("client", "10.55.0.2"));
    assert_eq!(end.set_up(&rig).await.unwrap(), Vec::<String>::new());
    let again = rig.end(&wish(2)).await;
    assert_eq!(again.dropped_there().count(), 0);
}

/// The commands of a dry run make the rules that are made.
#[tokio::test]
async fn what_is_shown_is_what_is_done() {
    let rig = Rig::new();
    let end = rig.end(&wish(1)).await;
    let list = |family: &str| {
        let table = format!("nft list table {family} underpass_tun{}", end.unit());
        rig.in_netns("server", &table)
    };
    let cable = rig.cable(&wish(1), end.unit(), end.address());
    end.set_up(&rig).await.unwrap();
    let done = [list("ip"), list("ip6")];
    end.undo(&rig).await;
    drop(cable);
    let shown = end.shown();
    assert!(
        shown
            .iter()
            .any(|line| line.contains("add table ip underpass; ")),
        "{shown:?}"
    );
    for command in shown.iter().filter(|line| line.contains("masquerade")) {
        rig.in_netns("server", command);
    }
    assert_eq!([list("ip"), list("ip6")], done);
}

/// A server is no router but for its tunnels.
#[tokio::test]
async fn nothing_else_is_forwarded() {
    for rig in [Rig::new(), without_nft(Rig::new())] {
        assert!(!rig.hears("host", "10.56.0.2"));
        let end = rig.end(&wish(1)).await;
        let cable = rig.cable(&wish(1), end.unit(), end.address());
        end.set_up(&rig).await.unwrap();
        assert_flows(&rig, true);
        assert!(!rig.hears("host", "10.56.0.2"));
        // Nor what nobody here has asked for.
        let far = "ip route add 198.19.128.0/17 via 10.55.0.1";
        rig.in_netns("host", far);
        let ours = end.address().v4.ours.to_string();
        assert!(!rig.hears("host", &ours));
        drop(cable);
    }
}

#[tokio::test]
async fn a_router_stays_one() {
    let rig = Rig::new();
    rig.in_netns(
        "server",
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
    );
    let before = rig.state();
    let end = rig.end(&wish(1)).await;
    let cable = rig.cable(&wish(1), end.unit(), end.address());
    end.set_up(&rig).await.unwrap();
    assert_flows(&rig, true);
    assert!(rig.hears("host", "10.56.0.2"));
    end.undo(&rig).await;
    drop(cable);
    rig.is_soon(&before);
    assert!(rig.hears("host", "10.56.0.2"));
}

/// Docker starts meanwhile.
#[tokio::test]
async fn what_became_a_router_meanwhile_stays_one() {
    let rig = Rig::new();
    let end = rig.end(&wish(1)).await;
    let cable = rig.cable(&wish(1), end.unit(), end.address());
    end.set_up(&rig).await.unwrap();
    rig.in_netns("server", "sysctl -qw net.ipv4.ip_forward=1");
    end.undo(&rig).await;
    drop(cable);
    assert!(rig.hears("host", "10.56.0.2"));
}

#[tokio::test]
async fn inbound_connections_are_let_in_where_that_is_asked_for() {
    for rig in [Rig::new(), without_nft(Rig::new())] {
        let wish = Wish {
            inbound: true,
            ..wish(1)
        };
        let end = rig.end(&wish).await;
        let cable = rig.cable(&wish, end.unit(), end.address());
        end.set_up(&rig).await.unwrap();
        let far = "ip route add 198.19.128.0/17 via 10.55.0.1";
        rig.in_netns("host", far);
        let ours = end.address().v4.ours.to_string();
        assert!(rig.hears("host", &ours));
        assert!(!rig.hears("host", "10.56.0.2"));
        drop(cable);
    }
}

/// Containers of ours.
#[tokio::test]
async fn networks_behind_us_are_shown_as_the_server() {
    for rig in [Rig::new(), without_nft(Rig::new())] {
        let before = rig.state();
        let wish = Wish {
            back: vec![
                "172.20.0.0/16".parse().unwrap(),
                "fd20::/64".parse().unwrap(),
            ],
            ..wish(1)
        };
        let end = rig.end(&wish).await;
        let cable = rig.cable(&wish, end.unit(), end.address());
        end.set_up(&rig).await.unwrap();
        rig.in_netns(
            "client",
            "ip addr add 172.20.0.5/32 dev lo && ip addr add fd20::5/128 dev lo",
        );
        assert!(rig.hears("client", "-I 172.20.0.5 10.55.0.2"));
        rig.is_within(5, || rig.hears("client", "-I fd20::5 fd55::2"));
        drop(cable);
        rig.is_soon(&before);
    }
}

/// Linux before 6.17 knows one setting for all of IPv6, which changes others.
#[tokio::test]
async fn an_older_kernel_forwards_too_and_keeps_what_it_learns_from_routers() {
    let mut rig = Rig::new();
    rig.other = Some(("force_forwarding", "no_such_setting"));
    rig.in_netns(
        "server",
        "sysctl -qw net.ipv6.conf.eth0.forwarding=1 net.ipv6.conf.eth1.accept_ra=1 net.ipv6.conf.lo.accept_ra=0",
    );
    let before = rig.state();
    let end = rig.end(&wish(1)).await;
    let cable = rig.cable(&wish(1), end.unit(), end.address());
    end.set_up(&rig).await.unwrap();
    assert_flows(&rig, true);
    let during = rig.state();
    assert!(during.contains("conf/all/forwarding:1"), "{during}");
    assert!(during.contains("conf/eth1/accept_ra:2"), "{during}");
    assert!(during.contains("conf/lo/accept_ra:0"), "{during}");
    drop(cable);
    rig.is_soon(&before);
}

#[tokio::test]
async fn what_fails_leaves_nothing() {
    let rig = Rig::new();
    let before = rig.state();
    let end = rig.end(&wish(1)).await;
    let error = end.set_up(&rig).await.unwrap_err().to_string();
    assert!(error.contains("there is no tun64"), "{error}");
    assert_eq!(rig.state(), before);
    // After most of it is done.
    rig.program("nft", Some("case $* in *list*) exec /usr/sbin/nft $* ;; esac; cat >/dev/null; echo no such luck >&2; exit 1"));
    let cable = rig.cable(&wish(1), end.unit(), end.address());
    let error = end.set_up(&rig).await.unwrap_err().to_string();
    assert!(error.contains("no such luck"), "{error}");
    drop(cable);
    rig.is_soon(&before);
}

/// Nobody is left to take it back but the next one.
#[tokio::test]
async fn what_a_killed_watchdog_left_goes_with_the_next_tunnel() {
    let rig = Rig::new();
    let before = rig.state();
    let end = rig.end(&wish(1)).await;
    let cable = rig.cable(&wish(1), end.unit(), end.address());
    end.set_up(&rig).await.unwrap();
    rig.in_netns("server", &format!("kill -9 {}", rig.watchdog("tun64")));
    drop(cable);
    // In the first one's place, then in another.
    for id in [2, 3] {
        let end = rig.end(&wish(id)).await;
        let cable = rig.cable(&wish(id), end.unit(), end.address());
        end.set_up(&rig).await.unwrap();
        assert_flows(&rig, true);
        drop(cable);
        rig.is_soon(&before);
    }
}
