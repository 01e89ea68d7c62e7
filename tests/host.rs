//! The host's state before, during and after, in network namespaces of this test's own. Needs root.

// The lint's exception for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use underpass::os::{Netlink, Slot, TunDevice, TunError, Undo, apply, host, routes, source, stale};
use underpass::plan::{CapturePlan, DevicePlan, Subnet};

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM` of linux/virtio_net.h.
const NEEDS_CSUM: u8 = 1;
/// Tells the helper process below that it is one.
const HOLD: &str = "UNDERPASS_TEST_HOLD";

/// Runs `test` in a thread with a network namespace and a runtime of its own; the namespace goes with it.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root (CAP_SYS_ADMIN)");
        run("ip", &["link", "set", "lo", "up"]);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
    })
    .join()
    .unwrap();
}

/// What a command prints.
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Everything that underpass may touch.
fn state() -> String {
    [
        &["-j", "rule"][..],
        &["-j", "-6", "rule"],
        &["-j", "route", "show", "table", "all"],
        &["-j", "-6", "route", "show", "table", "all"],
        &["-j", "addr"],
    ]
    .map(|args| run("ip", args))
    .join("\n")
}

/// All is as before, once the devices are gone. One goes with its last descriptor, which a child of another test may hold
/// until it becomes the program that it runs.
fn is_again(before: &str) {
    let end = Instant::now() + Duration::from_secs(10);
    while run("ip", &["-j", "link"]).contains("underpass") && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(before, state());
}

fn capture(subnets: &[&str], excludes: &[&str]) -> CapturePlan {
    let subnet = |text: &&str| {
        let (net, ports) = text.split_once('@').unwrap_or((text, ""));
        let ports = ports
            .split_once('-')
            .map(|(a, b)| a.parse().unwrap()..=b.parse().unwrap());
        Subnet {
            net: net.parse().unwrap(),
            ports,
            far: None,
        }
    };
    CapturePlan {
        subnets: subnets.iter().map(subnet).collect(),
        excludes: excludes.iter().map(|net| net.parse().unwrap()).collect(),
        ..CapturePlan::default()
    }
}

fn device(name: Option<&str>) -> Result<TunDevice, TunError> {
    TunDevice::open(&DevicePlan {
        name: name.map(str::to_owned),
        ..DevicePlan::default()
    })
}

/// An instance that is up.
struct Up {
    tun: TunDevice,
    undo: Undo,
    netlink: Netlink,
    slot: Slot,
    source: routes::Source,
}

impl Up {
    async fn start(capture: &CapturePlan, exempt: &[&str]) -> Self {
        let netlink = Netlink::new().unwrap();
        let slot = Slot::claim().unwrap();
        stale::clear(&netlink, Some(&slot)).await.unwrap();
        let tun = device(None).unwrap();
        let exempt: Vec<IpAddr> = exempt.iter().map(|ip| ip.parse().unwrap()).collect();
        let source = source::find(&netlink, &slot, capture).await.unwrap();
        let setting = routes::Setting {
            device: tun.name(),
            mtu: tun.mtu(),
            tables: slot.tables(),
            source,
            exempt: &exempt,
            bridges: &[],
        };
        let entries = routes::desired(capture, &setting);
        let undo = apply(&netlink, tun.name(), &entries).await.unwrap();
        Self {
            tun,
            undo,
            netlink,
            slot,
            source,
        }
    }

    /// The server has these addresses from now on.
    async fn exempt(&mut self, capture: &CapturePlan, exempt: &[&str]) {
        let exempt: Vec<IpAddr> = exempt.iter().map(|ip| ip.parse().unwrap()).collect();
        let setting = routes::Setting {
            device: self.tun.name(),
            mtu: self.tun.mtu(),
            tables: self.slot.tables(),
            source: self.source,
            exempt: &exempt,
            bridges: &[],
        };
        let entries = routes::desired(capture, &setting);
        self.undo.change(&entries).await.unwrap();
    }

    async fn stop(mut self) {
        assert_eq!(self.undo.undo().await, Vec::<String>::new());
    }
}

#[test]
fn a_new_address_of_the_server_is_left_alone_from_then_on() {
    in_namespace(|| async {
        let before = state();
        let plan = capture(&["10.0.0.0/8", "192.0.2.7/32", "fd00:1::/64"], &[]);
        let mut up = Up::start(&plan, &["10.9.9.9"]).await;
        let addresses = ["10.9.9.9", "10.1.2.3", "192.0.2.7", "fd00:1::7"];
        let captured = || addresses.map(|address| way(&[address]) == "underpass0");
        assert_eq!(captured(), [false, true, true, true]);
        for _ in 0..2 {
            up.exempt(&plan, &addresses).await;
            assert_eq!(captured(), [false; 4]);
        }
        assert_eq!(way(&["10.1.2.4"]), "underpass0");
        up.stop().await;
        is_again(&before);
    });
}

/// The device that a packet would leave by; empty when there is no route.
fn way(args: &[&str]) -> String {
    let output = Command::new("ip")
        .args(["-j", "route", "get"])
        .args(args)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let name = text
        .split("\"dev\":\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    name.unwrap_or_default().to_owned()
}

#[test]
fn undo_leaves_the_host_as_it_was() {
    in_namespace(|| async {
        let before = state();
        let plan = capture(
            &[
                "10.0.0.0/8",
                "fd00:1::/64",
                "10.0.1.0/24",
                "192.168.7.0/24@80-443",
                "0.0.0.0/0",
                "::/0@1-65535",
            ],
            &["10.0.5.0/24", "fd00:1::7/128"],
        );
        let up = Up::start(&plan, &["10.9.9.9", "2001:db8::1"]).await;
        assert_ne!(before, state());
        up.stop().await;
        is_again(&before);
    });
}

#[test]
fn only_what_was_asked_for_is_captured() {
    in_namespace(|| async {
        let plan = capture(
            &[
                "10.0.0.0/8",
                "fd00:1::/64",
                "192.168.7.0/24@80-443",
                "192.168.8.0/24@1-65535",
            ],
            &["10.0.5.0/24"],
        );
        let up = Up::start(&plan, &["10.9.9.9"]).await;
        let ours = up.tun.name().to_owned();
        for taken in [
            &["10.0.1.7"][..],
            &["10.0.1.7", "ipproto", "udp", "dport", "53"],
            &["fd00:1::5"],
            &["192.168.7.1", "ipproto", "tcp", "dport", "80"],
            &["192.168.7.1", "ipproto", "tcp", "dport", "443"],
            &["192.168.8.1", "ipproto", "tcp", "dport", "65535"],
        ] {
            assert_eq!(way(taken), ours, "{taken:?}");
        }
        for left in [
            &["10.0.5.7"][..],
            &["10.9.9.9"],
            &["11.0.0.1"],
            &["fd00:2::1"],
            &["192.168.7.1"],
            &["192.168.7.1", "ipproto", "tcp", "dport", "79"],
            &["192.168.7.1", "ipproto", "tcp", "dport", "444"],
            &["192.168.7.1", "ipproto", "udp", "dport", "80"],
            &["192.168.8.1", "ipproto", "icmp"],
        ] {
            assert_eq!(way(left), "", "{left:?}");
        }
        up.stop().await;
    });
}

/// As a default route does: what the host has a route of its own for stays where it is.
#[test]
fn a_default_goes_after_the_hosts_own_routes() {
    in_namespace(|| async {
        for args in [
            &["link", "add", "lan", "type", "veth", "peer", "lan-peer"][..],
            // Nothing of it changes by itself later.
            &["link", "set", "lan", "addrgenmode", "none"],
            &["link", "set", "lan-peer", "addrgenmode", "none"],
            &["link", "set", "lan-peer", "up"],
            &["addr", "add", "192.168.9.1/24", "dev", "lan"],
            &["addr", "add", "fd00:9::1/64", "dev", "lan", "nodad"],
            &["link", "set", "lan", "up"],
            &["route", "add", "10.8.0.0/16", "dev", "lan"],
            &["route", "add", "default", "via", "192.168.9.254"],
            &["-6", "route", "add", "default", "via", "fd00:9::fe"],
        ] {
            run("ip", args);
        }
        // The kernel says a moment later that a link is up.
        while !run("ip", &["-br", "link", "show", "lan-peer"]).contains(" UP ") {}
        let before = state();
        let plan = capture(
            &["0.0.0.0/0", "::/0@443-443", "10.8.1.0/24"],
            &["203.0.113.0/24"],
        );
        let up = Up::start(&plan, &["198.51.100.9"]).await;
        let ours = up.tun.name().to_owned();
        for taken in [
            &["11.0.0.1"][..],
            &["10.8.1.1"],
            &["2001:db8::1", "ipproto", "tcp", "dport", "443"],
        ] {
            assert_eq!(way(taken), ours, "{taken:?}");
        }
        for left in [
            &["192.168.9.7"][..],
            &["10.8.2.1"],
            &["203.0.113.7"],
            &["198.51.100.9"],
            &["fd00:9::7", "ipproto", "tcp", "dport", "443"],
            &["2001:db8::1"],
        ] {
            assert_eq!(way(left), "lan", "{left:?}");
        }
        up.stop().await;
        is_again(&before);
    });
}

#[test]
fn a_connection_arrives_as_a_packet_behind_its_header() {
    in_namespace(|| async {
        for target in ["10.0.1.7:443", "[fd00:1::7]:443"] {
            let plan = capture(&["10.0.1.0/24", "fd00:1::/64"], &[]);
            let up = Up::start(&plan, &[]).await;
            assert!(up.tun.offload());
            let link = run("ip", &["-j", "link", "show", "dev", up.tun.name()]);
            assert!(
                link.contains("\"mtu\":1500") && link.contains("\"txqlen\":10000"),
                "{link}"
            );
            let target: SocketAddr = target.parse().unwrap();
            let caller = std::thread::spawn(move || {
                TcpStream::connect_timeout(&target, Duration::from_millis(300))
            });
            let (packet, offered) = syn(&up.tun, target);
            // The kernel leaves the checksum to us, and offers the MSS of the MTU.
            assert_eq!(packet[0], NEEDS_CSUM);
            assert_eq!(offered, if target.is_ipv4() { 1460 } else { 1440 });
            assert!(caller.join().unwrap().is_err());
            up.stop().await;
        }
    });
}

/// The SYN for `target` from the device, with its header, and the MSS that it offers.
fn syn(tun: &TunDevice, target: SocketAddr) -> (Vec<u8>, u16) {
    let mut buffer = vec![0_u8; 70_000];
    loop {
        match tun.read(&mut buffer) {
            Ok(length) => {
                let packet = buffer[..length].to_vec();
                let tcp = if target.is_ipv4() { 10 + 20 } else { 10 + 40 };
                if packet[tcp + 2..tcp + 4] == target.port().to_be_bytes() {
                    assert_eq!(packet[tcp + 20..tcp + 22], [2, 4]);
                    return (
                        packet.clone(),
                        u16::from_be_bytes([packet[tcp + 22], packet[tcp + 23]]),
                    );
                }
            }
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_dropped_device_takes_its_routes_along_and_undo_goes_on() {
    in_namespace(|| async {
        let before = state();
        let mut up = Up::start(&capture(&["10.0.0.0/8"], &["10.1.0.0/16"]), &[]).await;
        let name = up.tun.name().to_owned();
        drop(up.tun);
        assert!(!run("ip", &["-j", "link"]).contains(&name));
        assert_eq!(way(&["10.0.0.1"]), "");
        assert_eq!(up.undo.undo().await, Vec::<String>::new());
        is_again(&before);
    });
}

#[test]
fn instances_stand_side_by_side() {
    in_namespace(|| async {
        let before = state();
        let first = Up::start(&capture(&["10.0.1.0/24"], &[]), &[]).await;
        let second = Up::start(&capture(&["10.0.2.0/24"], &[]), &[]).await;
        assert_eq!(way(&["10.0.1.1"]), first.tun.name());
        assert_eq!(way(&["10.0.2.1"]), second.tun.name());
        // Nothing of a run that is alive is stale.
        assert!(stale::clear(&first.netlink, None).await.unwrap().is_empty());
        first.stop().await;
        assert_eq!(way(&["10.0.2.1"]), second.tun.name());
        second.stop().await;
        is_again(&before);
    });
}

#[test]
fn an_instance_sees_what_the_others_capture() {
    in_namespace(|| async {
        let plan = capture(
            &[
                "10.0.0.0/8",
                "::/0",
                "10.3.0.0/16@80-443",
                "10.4.0.0/16@1-65535",
            ],
            &["10.1.0.0/16"],
        );
        let up = Up::start(&plan, &[]).await;
        let slot = Slot::claim().unwrap();
        let seen = host::networks(&up.netlink, slot.number()).await.unwrap();
        let mut others: Vec<_> = seen.others.iter().map(|o| o.subnet.to_string()).collect();
        others.sort();
        assert_eq!(
            others,
            ["10.0.0.0/8", "10.3.0.0/16:80-443", "10.4.0.0/16", "::/0"]
        );
        assert!(
            seen.others
                .iter()
                .all(|o| o.first && o.device == up.tun.name())
        );
        up.stop().await;
        let seen = host::networks(&Netlink::new().unwrap(), slot.number())
            .await
            .unwrap();
        assert!(seen.others.is_empty());
    });
}

#[test]
fn a_subnet_of_one_instance_goes_before_the_default_of_another() {
    in_namespace(|| async {
        let before = state();
        let default = Up::start(&capture(&["0.0.0.0/0"], &[]), &[]).await;
        let subnet = Up::start(&capture(&["10.0.2.0/24"], &[]), &[]).await;
        assert_eq!(way(&["10.0.1.1"]), default.tun.name());
        assert_eq!(way(&["10.0.2.1"]), subnet.tun.name());
        assert!(
            stale::clear(&subnet.netlink, None)
                .await
                .unwrap()
                .is_empty()
        );
        default.stop().await;
        subnet.stop().await;
        is_again(&before);
    });
}

#[test]
fn the_users_own_rules_are_left_alone() {
    in_namespace(|| async {
        // In our range and at our priority, but without our protocol number.
        for args in [
            &["rule", "add", "priority", "5000", "lookup", "30064"][..],
            &[
                "rule",
                "add",
                "priority",
                "5001",
                "to",
                "10.7.0.0/16",
                "lookup",
                "4242",
                "protocol",
                "117",
            ],
            &["route", "add", "throw", "10.7.0.0/16", "table", "30066"],
            &[
                "rule",
                "add",
                "priority",
                "5064",
                "lookup",
                "main",
                "suppress_prefixlength",
                "0",
            ],
            &[
                "rule", "add", "priority", "4000", "lookup", "main", "protocol", "117",
            ],
        ] {
            run("ip", args);
        }
        let before = state();
        let netlink = Netlink::new().unwrap();
        assert!(stale::clear(&netlink, None).await.unwrap().is_empty());
        let up = Up::start(&capture(&["10.0.0.0/8"], &[]), &[]).await;
        up.stop().await;
        is_again(&before);
    });
}

#[test]
fn what_a_failed_start_made_is_taken_back() {
    in_namespace(|| async {
        // The same throw route in the way makes the second entry fail.
        run(
            "ip",
            &["route", "add", "throw", "10.2.0.0/16", "table", "30064"],
        );
        let before = state();
        let netlink = Netlink::new().unwrap();
        let slot = Slot::claim().unwrap();
        let tun = device(None).unwrap();
        let plan = capture(&["10.0.0.0/8"], &["10.1.0.0/16", "10.2.0.0/16"]);
        let setting = routes::Setting {
            device: tun.name(),
            mtu: 1500,
            tables: slot.tables(),
            source: source::find(&netlink, &slot, &plan).await.unwrap(),
            exempt: &[],
            bridges: &[],
        };
        let error = apply(&netlink, tun.name(), &routes::desired(&plan, &setting)).await;
        let line = error.unwrap_err().to_string();
        assert!(
            line.contains("10.2.0.0/16") && line.contains("File exists"),
            "{line}"
        );
        drop(tun);
        is_again(&before);
    });
}

#[test]
fn after_sigkill_nothing_captures_and_the_next_start_clears() {
    in_namespace(|| async {
        let before = state();
        let (mut child, name) = hold();
        assert_eq!(way(&["10.0.0.1"]), name);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(way(&["10.0.0.1"]), "");
        assert!(!run("ip", &["-j", "link"]).contains(&name));
        assert_ne!(before, state());
        let cleared = stale::clear(&Netlink::new().unwrap(), None).await.unwrap();
        assert_eq!((cleared.rules, cleared.routes), (4, 5));
        is_again(&before);
    });
}

/// Starts [`holder`] in a process of its own, in this namespace; gives it and its device's name.
fn hold() -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holder", "--nocapture"])
        .env(HOLD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let name = lines
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("up on ")?.1.to_owned()));
    (child, name.expect("the helper process came up"))
}

/// The helper process of the test above: up until it is killed. Without [`HOLD`] there is nothing to do.
#[test]
fn holder() {
    if std::env::var_os(HOLD).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let plan = capture(
            &["10.0.0.0/8", "fd00:1::/64@80-80", "0.0.0.0/0"],
            &["10.1.0.0/16", "fd00:1::1/128"],
        );
        let up = Up::start(&plan, &[]).await;
        println!("up on {}", up.tun.name());
        std::future::pending::<()>().await;
    });
}

/// A process that is killed while it makes its device leaves one as `ip tuntap add` makes it: persistent, held by nobody.
#[test]
fn a_device_that_was_killed_in_the_making_is_removed() {
    in_namespace(|| async {
        let netlink = Netlink::new().unwrap();
        for name in ["underpass-mine", "mine", "underpass3"] {
            run("ip", &["tuntap", "add", "dev", name, "mode", "tun"]);
        }
        run("ip", &["tuntap", "add", "dev", "underpass4", "mode", "tap"]);
        let held = device(None).unwrap();
        let before = run("ip", &["-j", "link"]);
        assert!(before.contains("underpass3") && before.contains(held.name()));
        let cleared = stale::clear(&netlink, None).await.unwrap();
        assert_eq!(cleared.to_string(), "1 device");
        let after = run("ip", &["-j", "link"]);
        for name in ["underpass-mine", "mine", "underpass4", held.name()] {
            assert!(after.contains(name), "{name} in {after}");
        }
        assert!(!after.contains("underpass3"), "{after}");
        assert!(stale::clear(&netlink, None).await.unwrap().is_empty());
    });
}

#[test]
fn a_device_that_is_there_is_not_taken_over() {
    in_namespace(|| async {
        run("ip", &["tuntap", "add", "dev", "mine", "mode", "tun"]);
        assert!(matches!(
            device(Some("mine")),
            Err(TunError::NameTaken { .. })
        ));
        assert!(run("ip", &["-j", "link"]).contains("mine"));
        let first = device(None).unwrap();
        let second = device(None).unwrap();
        assert_eq!((first.name(), second.name()), ("underpass0", "underpass1"));
        assert_eq!(
            device(Some("vpc-of-15-bytes")).unwrap().name(),
            "vpc-of-15-bytes"
        );
    });
}

#[test]
fn the_hosts_networks_are_seen() {
    in_namespace(|| async {
        for args in [
            &["link", "add", "br-test", "type", "bridge"][..],
            &["addr", "add", "172.17.0.1/16", "dev", "br-test"],
            &["link", "set", "br-test", "up"],
            &["route", "add", "default", "via", "172.17.0.9"],
        ] {
            run("ip", args);
        }
        let seen = host::networks(&Netlink::new().unwrap(), Slot::claim().unwrap().number())
            .await
            .unwrap();
        let bridge = seen
            .interfaces
            .iter()
            .find(|interface| interface.name == "br-test")
            .unwrap();
        assert!(bridge.bridge);
        assert!(bridge.addresses.contains(&"172.17.0.1/16".parse().unwrap()));
        assert_eq!(seen.gateways[0].address.to_string(), "172.17.0.9");
        assert_eq!(seen.gateways[0].interface, "br-test");
    });
}
