use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn subnet(far: &str, local: &str) -> Subnet {
    Subnet {
        net: local.parse().unwrap(),
        ports: None,
        far: (!far.is_empty()).then(|| far.parse().unwrap()),
    }
}

fn plan(subnets: &[(&str, &str)]) -> CapturePlan {
    let subnets = subnets.iter().map(|(far, local)| subnet(far, local));
    CapturePlan {
        subnets: subnets.collect(),
        ..CapturePlan::default()
    }
}

fn net(text: &str) -> IpNet {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address.unwrap_or_else(|_| text.parse().unwrap())
}

fn shown(net: Option<IpNet>) -> String {
    net.map_or_else(|| "-".to_owned(), |net| net.to_string())
}

const SOME: [(&str, &str); 5] = [
    ("10.0.0.0/16", "100.64.0.0/16"),
    ("10.0.0.0/16", "100.65.0.0/16"),
    ("10.0.5.0/24", "100.66.0.0/24"),
    ("fd00:10::/32", "fd64::/32"),
    ("", "192.0.2.0/24"),
];

#[test]
fn addresses_and_networks_keep_their_host_bits() {
    let mapping = Mapping::new(&plan(&SOME));
    for (local, far) in [
        ("100.64.1.20", "10.0.1.20/32"),
        ("100.65.255.255", "10.0.255.255/32"),
        ("100.66.0.7", "10.0.5.7/32"),
        ("100.64.8.0/24", "10.0.8.0/24"),
        ("fd64:0:0:1::20", "fd00:10:0:1::20/128"),
        ("100.63.255.255", "-"),
        ("100.66.1.0", "-"),
        ("100.64.0.0/15", "-"),
        ("10.0.1.20", "-"),
        ("192.0.2.1", "-"),
        ("fd65::1", "-"),
    ] {
        assert_eq!(shown(mapping.far(&net(local))), far, "{local}");
    }
    for (far, local) in [
        // Shown twice: the first; thrice: the narrowest.
        ("10.0.1.20", "100.64.1.20/32"),
        ("10.0.5.7", "100.66.0.7/32"),
        ("fd00:10:0:1::20", "fd64:0:0:1::20/128"),
        ("10.0.4.0/22", "100.64.4.0/22"),
        ("100.64.1.20", "-"),
        ("10.1.0.0", "-"),
    ] {
        assert_eq!(shown(mapping.local(&net(far))), local, "{far}");
    }
    let none = Mapping::new(&plan(&[("", "10.0.0.0/16")]));
    assert_eq!(none, Mapping::default());
    assert_eq!(none.far(&net("10.0.0.1")), None);
}

#[test]
fn no_address_stands_for_two_hosts() {
    let found = |subnets: &[(&str, &str)]| {
        let plan = plan(subnets);
        let found = conflict(&plan.subnets);
        found.map(|(outer, inner)| (outer.to_string(), inner.to_string()))
    };
    assert_eq!(found(&SOME), None);
    let both = |outer: &str, inner: &str| Some((outer.to_owned(), inner.to_owned()));
    for (subnets, expected) in [
        (
            &[("10.0.0.0/16", "100.64.0.0/16"), ("", "100.64.0.0/10")][..],
            both("100.64.0.0/10", "10.0.0.0/16=100.64.0.0/16"),
        ),
        (
            &[
                ("10.0.0.0/16", "100.64.0.0/16"),
                ("10.1.0.0/16", "100.64.0.0/16"),
            ],
            both("10.0.0.0/16=100.64.0.0/16", "10.1.0.0/16=100.64.0.0/16"),
        ),
        // A narrower network between, and the same meaning around it.
        (
            &[
                ("", "10.0.0.0/8"),
                ("", "10.1.0.0/16"),
                ("172.16.0.0/24", "10.2.0.0/24"),
            ],
            both("10.0.0.0/8", "172.16.0.0/24=10.2.0.0/24"),
        ),
        // Another way to say the same.
        (
            &[
                ("10.0.0.0/16", "100.64.0.0/16"),
                ("10.0.5.0/24", "100.64.5.0/24"),
            ],
            None,
        ),
        // A default is what nothing else is.
        (&[("", "0.0.0.0/0"), ("10.0.0.0/16", "100.64.0.0/16")], None),
        // They are each other.
        (
            &[
                ("10.0.0.0/16", "10.1.0.0/16"),
                ("10.1.0.0/16", "10.0.0.0/16"),
            ],
            None,
        ),
    ] {
        assert_eq!(found(subnets), expected, "{subnets:?}");
    }
}

#[test]
fn what_is_on_its_way_keeps_its_meaning() {
    let before = plan(&[
        ("10.0.0.0/16", "100.64.0.0/16"),
        ("10.1.0.0/16", "100.65.0.0/16"),
        ("10.2.0.0/16", "100.66.0.0/16"),
    ]);
    let now = plan(&[
        ("", "0.0.0.0/0"),
        ("10.9.0.0/16", "100.64.0.0/16"),
        ("", "100.65.3.0/24"),
    ]);
    let mapping = Mapping::after(&before, &now);
    let far = |local| shown(mapping.far(&net(local)));
    assert_eq!(far("100.64.0.1"), "10.9.0.1/32");
    assert_eq!(far("100.65.3.1"), "-");
    assert_eq!(far("100.66.0.1"), "10.2.0.1/32");
    // Once: the next change knows nothing of it.
    assert_eq!(Mapping::after(&now, &now), Mapping::new(&now));
}

fn any_pair() -> impl Strategy<Value = (Pair, IpNet)> {
    let v4 = (any::<[u32; 3]>(), 0..=32_u8).prop_map(|([far, local, address], width)| {
        let net = |bits| IpNet::from(Ipv4Net::new(Ipv4Addr::from_bits(bits), width).unwrap());
        let address = IpNet::from(IpAddr::from(Ipv4Addr::from_bits(address)));
        (Pair::new(net(far), net(local)).unwrap(), address)
    });
    let v6 = (any::<[u128; 3]>(), 0..=128_u8).prop_map(|([far, local, address], width)| {
        let net = |bits| IpNet::from(Ipv6Net::new(Ipv6Addr::from_bits(bits), width).unwrap());
        let address = IpNet::from(IpAddr::from(Ipv6Addr::from_bits(address)));
        (Pair::new(net(far), net(local)).unwrap(), address)
    });
    prop_oneof![v4, v6]
}

/// An address of `net` with the host bits of `any`, worked out another way: one bit after the other.
fn within(net: &IpNet, any: &IpNet) -> IpNet {
    let bits = |net: &IpNet| match net {
        IpNet::V4(net) => net.addr().octets().to_vec(),
        IpNet::V6(net) => net.addr().octets().to_vec(),
    };
    let (network, host, width) = (bits(net), bits(any), usize::from(net.prefix_len()));
    let mut octets = network.clone();
    for bit in width..octets.len() * 8 {
        let mask = 0x80 >> (bit % 8);
        octets[bit / 8] = (octets[bit / 8] & !mask) | (host[bit / 8] & mask);
    }
    let address = match <[u8; 4]>::try_from(octets.as_slice()) {
        Ok(octets) => IpAddr::from(octets),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(octets).unwrap()),
    };
    address.into()
}

proptest! {
    #[test]
    fn there_and_back_is_the_same((pair, any) in any_pair()) {
        let local = within(&pair.local, &any);
        let far = pair.far(&local).unwrap();
        prop_assert_eq!(far, within(&pair.far, &any));
        prop_assert_eq!(pair.local(&far), Some(local));
    }

    /// Different ones stay different, and what is outside stands for nobody.
    #[test]
    fn it_is_one_to_one((pair, any) in any_pair(), (_, other) in any_pair()) {
        if any.max_prefix_len() == other.max_prefix_len() {
            let (a, b) = (within(&pair.local, &any), within(&pair.local, &other));
            prop_assert_eq!(a == b, pair.far(&a) == pair.far(&b));
        }
        prop_assert_eq!(pair.far(&other).is_some(), pair.local.contains(&other));
        prop_assert_eq!(pair.local(&other).is_some(), pair.far.contains(&other));
    }

    /// All at once say what each says by itself.
    #[test]
    fn all_pairs_are_each_of_them(pairs in prop::collection::vec(any_pair(), 0..8)) {
        let subnets: Vec<Subnet> = pairs.iter()
            .map(|(pair, _)| Subnet { net: pair.local, ports: None, far: Some(pair.far) })
            .filter(|subnet| !subnet.is_default())
            .collect();
        prop_assume!(conflict(&subnets).is_none());
        let capture = CapturePlan { subnets: subnets.clone(), ..CapturePlan::default() };
        let mapping = Mapping::new(&capture);
        for (_, address) in pairs {
            let alone = subnets.iter().find_map(|subnet| subnet.pair().unwrap().far(&address));
            prop_assert_eq!(mapping.far(&address), alone);
            if let Some(local) = mapping.local(&address) {
                prop_assert_eq!(mapping.far(&local), Some(address));
            }
        }
    }
}
