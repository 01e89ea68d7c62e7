use super::*;

/// Of `NET` or `FAR=LOCAL`.
fn subnet(text: &str) -> Subnet {
    let (far, net) = text
        .split_once('=')
        .map_or((None, text), |(far, net)| (Some(far), net));
    Subnet {
        net: net.parse().unwrap(),
        ports: None,
        far: far.map(|far| far.parse().unwrap()),
    }
}

fn capture(subnets: &[&str], excludes: &[&str]) -> CapturePlan {
    CapturePlan {
        subnets: subnets.iter().map(|text| subnet(text)).collect(),
        excludes: excludes.iter().map(|net| net.parse().unwrap()).collect(),
        ..CapturePlan::default()
    }
}

fn host() -> HostNetworks {
    let interface = |name: &str, bridge, addresses: &[&str]| Interface {
        name: name.into(),
        bridge,
        addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
    };
    HostNetworks {
        forwards: false,
        interfaces: vec![
            interface(
                "eth0",
                false,
                &["10.0.5.7/24", "fe80::7/64", "fd00:5::7/64"],
            ),
            interface("docker0", true, &["172.17.0.1/16"]),
            interface("wg0", false, &["10.9.0.2/32"]),
        ],
        gateways: vec![Gateway {
            address: "10.0.5.1".parse().unwrap(),
            interface: "eth0".into(),
        }],
        routes: ["10.0.5.0/24", "fe80::/64", "fd00:5::/64", "172.17.0.0/16"]
            .map(|net| net.parse().unwrap())
            .to_vec(),
        used: vec![],
        others: vec![],
        ipv6: true,
    }
}

fn lines(subnets: &[&str], excludes: &[&str], from: Option<&str>) -> Vec<String> {
    let from = from.map(|address| address.parse().unwrap());
    advise(&capture(subnets, excludes), &host(), from)
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn nothing_to_say_about_a_foreign_network() {
    assert!(lines(&["10.0.1.0/24", "fd00:1::/64"], &[], Some("10.0.5.9")).is_empty());
}

#[test]
fn a_covered_local_network_is_named_once_with_the_way_out() {
    let lines = lines(&["10.0.0.0/8"], &[], None);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("10.0.0.0/8 covers 10.0.5.0/24 of eth0, this host's own"));
    assert!(lines[0].contains("-x 10.0.5.0/24"));
}

#[test]
fn the_way_out_silences_it() {
    assert!(lines(&["10.0.0.0/8"], &["10.0.5.0/24"], None).is_empty());
}

#[test]
fn a_part_of_the_local_network_counts() {
    let lines = lines(&["10.0.5.128/25"], &[], None);
    assert!(lines[0].contains("-x 10.0.5.128/25"), "{lines:?}");
}

#[test]
fn defaults_leave_local_networks_alone() {
    assert!(lines(&["0.0.0.0/0", "::/0"], &[], Some("10.0.5.9")).is_empty());
    // A narrower subnet beside it does not.
    let lines = lines(&["0.0.0.0/0", "172.16.0.0/12"], &[], None);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("172.16.0.0/12 covers 172.17.0.0/16 of docker0, a bridge"));
}

#[test]
fn a_default_takes_what_the_host_has_no_route_for() {
    let from = lines(&["0.0.0.0/0"], &[], Some("203.0.113.9"));
    assert!(from[0].contains("logged in from"), "{from:?}");
    let host = HostNetworks {
        routes: vec![],
        ..host()
    };
    let advice = advise(&capture(&["0.0.0.0/0"], &[]), &host, None).unwrap();
    assert_eq!(advice.len(), 2, "{advice:?}");
}

#[test]
fn a_gateway_outside_the_warned_networks_is_named() {
    let lines = lines(&["10.0.5.0/30"], &["10.0.5.2/32"], None);
    assert!(
        lines.iter().any(|line| line.contains("default gateway")),
        "{lines:?}"
    );
}

#[test]
fn the_place_of_the_person_is_named() {
    let lines = lines(&["203.0.113.0/24"], &[], Some("203.0.113.9"));
    assert!(lines[0].contains("logged in from"), "{lines:?}");
}

/// What a warning proposes for `subnets` where `net` is of `device`, and `used` is routed elsewhere.
fn proposed(subnets: &[&str], device: &str, net: &str, used: &[&str]) -> String {
    let host = HostNetworks {
        interfaces: vec![Interface {
            name: device.into(),
            bridge: false,
            addresses: vec![net.parse().unwrap()],
        }],
        gateways: vec![],
        routes: vec![],
        used: used.iter().map(|net| net.parse().unwrap()).collect(),
        ..host()
    };
    let advice = advise(&capture(subnets, &[]), &host, None).unwrap();
    assert_eq!(advice.len(), 1, "{advice:?}");
    let line = advice[0].to_string();
    line.rsplit_once("keep it local").unwrap().1.to_owned()
}

#[test]
fn a_mapping_is_proposed_that_is_free_here() {
    for (subnets, net, used, expected) in [
        (
            &["10.0.0.0/16"][..],
            "10.0.5.7/24",
            &[][..],
            ", or 10.0.0.0/16=100.64.0.0/16 instead of 10.0.0.0/16 to reach both",
        ),
        // Routed, captured, or of a pool that somebody gave an address out of.
        (
            &["10.0.0.0/16"],
            "10.0.5.7/24",
            &["100.64.7.0/24"],
            ", or 10.0.0.0/16=100.65.0.0/16 instead of 10.0.0.0/16 to reach both",
        ),
        (
            &["10.0.0.0/16", "10.9.0.0/16=100.64.0.0/15"],
            "10.0.5.7/24",
            &[],
            ", or 10.0.0.0/16=100.66.0.0/16 instead of 10.0.0.0/16 to reach both",
        ),
        (
            &["100.64.0.0/16"],
            "100.64.0.7/24",
            &[],
            ", or 100.64.0.0/16=198.18.0.0/16 instead of 100.64.0.0/16 to reach both",
        ),
        // Mapped, but to where something is already.
        (
            &["10.0.0.0/16=172.16.0.0/16"],
            "172.16.5.7/24",
            &[],
            ", or 10.0.0.0/16=100.64.0.0/16 instead of 10.0.0.0/16=172.16.0.0/16 to reach both",
        ),
        // No network of that size is free: the part in question is enough.
        (
            &["10.0.0.0/8"],
            "10.0.5.7/24",
            &[],
            ", and with that 10.0.5.0/24=100.64.5.0/24 to reach both",
        ),
        (
            &["10.0.0.0/16"],
            "10.0.5.7/24",
            &["100.64.0.0/10", "198.18.0.0/15"],
            "",
        ),
        (
            &["fd00:5::/32"],
            "fd00:5::7/64",
            &["fd64:5::/48"],
            ", or fd00:5::/32=fd64:6::/32 instead of fd00:5::/32 to reach both",
        ),
        (
            &["2000::/12"],
            "2001:db8::7/64",
            &[],
            ", and with that 2001:db8::/64=fd64:db8::/64 to reach both",
        ),
        (&["fd00::/8"], "fd00:5::7/64", &[], ""),
        // Everything else keeps its place.
        (&["0.0.0.0/0"], "10.0.5.7/24", &[], ""),
    ] {
        assert_eq!(
            proposed(subnets, "eth0", net, used),
            expected,
            "{subnets:?}"
        );
    }
}

#[test]
fn what_is_proposed_silences_the_warning() {
    let host = host();
    for typed in ["10.0.0.0/16", "172.17.0.0/16", "fd00:5::/48"] {
        let advice = advise(&capture(&[typed], &[]), &host, None).unwrap();
        let Some(Advice::LocalNetwork {
            both: Both::Instead { write, .. },
            ..
        }) = advice.first()
        else {
            panic!("{advice:?}");
        };
        let mapped = capture(&[&write.to_string()], &[]);
        assert_eq!(advise(&mapped, &host, None), Ok(vec![]));
        let tunnel = CapturePlan {
            keeps_addresses: true,
            ..capture(&[typed], &[])
        };
        let advice = advise(&tunnel, &host, None).unwrap();
        let Some(Advice::LocalNetwork { both, .. }) = advice.first() else {
            panic!("{advice:?}");
        };
        assert_eq!(*both, Both::No);
    }
}

#[test]
fn a_host_that_the_server_stands_before_is_named() {
    let plan = capture(&["10.0.0.0/16=100.64.0.0/16"], &[]);
    let servers = ["192.0.2.1", "100.64.0.9", "100.65.0.1"].map(|ip| ip.parse().unwrap());
    let lines = |plan: &CapturePlan| {
        let advice = advise_of_server(plan, host(), &servers);
        advice.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        lines(&plan),
        [
            "10.0.0.0/16=100.64.0.0/16 covers 100.64.0.9, the SSH server, which is never captured: 10.0.0.9 behind it is not \
          reached; leave it so if nobody needs that, or 10.0.0.0/16=100.66.0.0/16 instead of 10.0.0.0/16=100.64.0.0/16 to \
          reach both"
        ]
    );
    // An ordinary subnet leaves the server out because it is meant so, and an exclusion because it says so.
    assert!(lines(&capture(&["100.64.0.0/16"], &[])).is_empty());
    assert!(lines(&capture(&["10.0.0.0/16=100.64.0.0/16"], &["100.64.0.0/24"])).is_empty());
}

#[test]
fn ports_stay_with_what_is_proposed() {
    let mut capture = capture(&["10.0.0.0/16"], &[]);
    capture.subnets[0].ports = Some(443..=443);
    let advice = advise(&capture, &host(), None).unwrap();
    let line = advice[0].to_string();
    assert!(
        line.ends_with("or 10.0.0.0/16=100.64.0.0/16:443 instead of 10.0.0.0/16:443 to reach both"),
        "{line}"
    );
}

fn beside(subnets: &[&str], theirs: &str, ports: Option<(u16, u16)>) -> Vec<String> {
    beside_user(subnets, theirs, ports, (&[], None))
}

/// `users`: those whose packets are ours, and theirs.
fn beside_user(
    subnets: &[&str],
    theirs: &str,
    ports: Option<(u16, u16)>,
    (users, user): (&[u32], Option<u32>),
) -> Vec<String> {
    let subnet = Subnet {
        net: theirs.parse().unwrap(),
        ports: ports.map(|(first, last)| first..=last),
        far: None,
    };
    let others = vec![Other {
        device: "underpass0".into(),
        subnet,
        user,
        first: true,
    }];
    let host = HostNetworks { others, ..host() };
    let mut capture = capture(subnets, &[]);
    capture.subnets[0].ports = ports.map(|_| 80..=90);
    capture.whose.users = users.to_vec();
    let advice = advise(&capture, &host, None).unwrap();
    advice.iter().map(ToString::to_string).collect()
}

#[test]
fn what_another_instance_captures_is_said() {
    assert_eq!(
        beside(&["10.1.1.0/24"], "10.1.0.0/16", None),
        [
            "10.1.1.0/24: another running underpass captures 10.1.0.0/16 on underpass0, and that one comes first; \
             stop one of the two, or 10.1.1.0/24=100.65.1.0/24 instead of 10.1.1.0/24 to reach both"
        ]
    );
    assert_eq!(
        beside(&["10.1.0.0/16"], "10.1.1.0/24", Some((85, 99))).len(),
        1
    );
    assert_eq!(beside(&["0.0.0.0/0"], "0.0.0.0/0", None).len(), 1);
}

#[test]
fn instances_of_different_users_are_fine() {
    let net = "10.1.0.0/16";
    let lines = |users, user| beside_user(&[net], net, None, (users, user)).len();
    assert_eq!(lines(&[1000], Some(1001)), 0);
    for (users, user) in [
        (&[][..], None),
        (&[], Some(1000)),
        (&[1000], None),
        (&[1000, 1001], Some(1001)),
    ] {
        assert_eq!(lines(users, user), 1, "{users:?} {user:?}");
    }
}

#[test]
fn instances_that_share_nothing_are_fine() {
    assert!(beside(&["10.1.1.0/24"], "10.1.2.0/24", None).is_empty());
    assert!(beside(&["10.1.1.0/24"], "10.1.1.0/24", Some((443, 443))).is_empty());
    assert!(beside(&["10.1.1.0/24"], "0.0.0.0/0", None).is_empty());
    assert!(beside(&["10.1.1.0/24"], "fd00::/64", None).is_empty());
}

#[test]
fn a_subnet_that_is_excluded_is_said() {
    let lines = lines(&["10.1.1.0/24", "10.2.0.0/16"], &["10.1.0.0/16"], None);
    assert_eq!(
        lines,
        ["10.1.1.0/24 is not captured: -x 10.1.0.0/16 covers all of it"]
    );
}

#[test]
fn without_ipv6_a_part_is_warned_of_and_all_is_an_error() {
    let host = HostNetworks {
        ipv6: false,
        ..host()
    };
    let advice = advise(&capture(&["10.1.0.0/16", "fd01::/64"], &[]), &host, None);
    assert_eq!(advice, Ok(vec![Advice::NoIpv6]));
    let advice = advise(&capture(&["fd01::/64"], &[]), &host, None);
    assert_eq!(advice, Err(PlanError::NoIpv6));
}
