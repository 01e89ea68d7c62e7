use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::pool::{Named, Pools};
use super::super::question::Way;
use super::super::resolver::{Config, Resolver, Taken};
use super::super::view::AsItIs;
use super::super::zones::Zones;
use super::*;

const API: &str = "api.corp.internal";

/// For the names of a zone, with room for six of them, and a near resolver.
fn resolver(v6: bool) -> Resolver<u32> {
    let networks = ["198.19.0.0/29", "fd75::/64"].map(|net| net.parse().unwrap());
    Resolver::new(Config {
        zones: Zones::below(&["corp.internal", "arpa", "invalid"], &networks).unwrap(),
        view: Arc::new(AsItIs),
        pools: Some(Pools {
            v4: "198.19.0.0/29".parse().unwrap(),
            v6: v6.then(|| "fd75::/64".parse().unwrap()),
        }),
        far: 0,
        near: 1,
    })
}

fn says(resolver: &mut Resolver<u32>, now: Instant, asked: &[u8]) -> Vec<u8> {
    match resolver.ask(now, 1, Way::Datagram, asked) {
        Taken::Answered(reply) => reply.message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_name_is_answered_with_an_address_that_stands_for_it() {
    let (mut resolver, now) = (resolver(true), Instant::now());
    let mut v6 = [0; 16];
    (v6[0], v6[1], v6[15]) = (0xfd, 0x75, 1);
    let pointer = name(API);
    for (asked, kind, data) in [
        (API, A, &[198, 19, 0, 1][..]),
        ("API.corp.internal", AAAA, &v6),
        ("1.0.19.198.in-addr.arpa", PTR, &pointer),
    ] {
        let asked = query(7, asked, kind);
        let expected = answer(&asked, NOERROR, [&[record(kind, 60, data)], &[], &[]]);
        assert_eq!(says(&mut resolver, now, &asked), expected, "{kind}");
        // To one who knows EDNS there is an OPT record behind it.
        let message = says(&mut resolver, now, &edns(asked, 1232, false, &[]));
        assert_eq!(message.len(), expected.len() + 11);
    }
    // Nobody else's names.
    let other = resolver.ask(now, 1, Way::Datagram, &query(7, "www.example.com", A));
    assert_eq!(other, Taken::Waits);
}

/// Others of the far side's names go to its name servers.
#[test]
fn an_address_stands_for_the_hosts_that_were_named_alone() {
    let networks = ["198.19.0.0/29"].map(|net| net.parse().unwrap());
    let zones = Zones::below(&["corp.internal"], &networks).unwrap();
    let hosts = [
        (API, false),
        ("svc.corp.internal", true),
        ("db.ad.local", false),
    ];
    let mut resolver = Resolver::new(Config {
        zones: zones.with_hosts(&hosts).unwrap(),
        view: Arc::new(AsItIs),
        pools: Some(Pools {
            v4: "198.19.0.0/29".parse().unwrap(),
            v6: None,
        }),
        far: 1,
        near: 1,
    });
    let now = Instant::now();
    let names = [
        ("API.corp.internal", 1),
        ("a.svc.corp.internal", 6),
        ("db.ad.local", 2),
    ];
    for (asked, last) in names {
        let asked = query(7, asked, A);
        let expected = record(A, 60, &[198, 19, 0, last]);
        let expected = answer(&asked, NOERROR, [&[expected], &[], &[]]);
        assert_eq!(says(&mut resolver, now, &asked), expected);
    }
    let asked = query(7, "1.0.19.198.in-addr.arpa", PTR);
    assert_eq!(code(&says(&mut resolver, now, &asked)), NOERROR);
    for other in [
        "x.api.corp.internal",
        "svc.corp.internal",
        "db.corp.internal",
    ] {
        let taken = resolver.ask(now, 1, Way::Datagram, &query(7, other, A));
        assert_eq!(taken, Taken::Waits, "{other}");
    }
}

#[test]
fn what_no_host_has_is_not_given_a_place() {
    let (mut resolver, now) = (resolver(false), Instant::now());
    let mut class = query(7, API, A);
    *class.last_mut().unwrap() = 3;
    for (asked, expected) in [
        (query(7, API, TXT), NOERROR),
        (query(7, API, HTTPS), NOERROR),
        (query(7, "check.underpass.invalid", A), NXDOMAIN),
        (query(7, "-oProxyCommand.corp.internal", A), NXDOMAIN),
        (query(7, "a b.corp.internal", A), NXDOMAIN),
        (query(7, "a\u{7f}.corp.internal", A), NXDOMAIN),
        (query(7, "9.0.19.198.in-addr.arpa", PTR), NXDOMAIN),
        (query(7, "2.0.19.198.in-addr.arpa", PTR), NXDOMAIN),
        (class, REFUSED),
    ] {
        let message = says(&mut resolver, now, &asked);
        assert_eq!((code(&message), message[7]), (expected, 0), "{asked:?}");
    }
    // No address of IPv6; and this one is the first that has a place.
    let message = says(&mut resolver, now, &query(7, API, AAAA));
    assert_eq!((code(&message), message[7]), (NOERROR, 0));
    let message = says(&mut resolver, now, &query(7, API, A));
    assert_eq!(message[message.len() - 4..], [198, 19, 0, 1]);
}

#[test]
fn an_address_keeps_its_name_while_a_connection_uses_it() {
    let (mut resolver, mut now) = (resolver(true), Instant::now());
    let ip = "198.19.0.1".parse().unwrap();
    assert_eq!(resolver.enter(now, ip), Named::Nobody);
    says(&mut resolver, now, &query(7, API, A));
    let api = Named::Name(API.into());
    assert_eq!(resolver.enter(now, ip), api);
    for n in 0..20 {
        now += Duration::from_secs(400);
        says(
            &mut resolver,
            now,
            &query(7, &format!("h{n}.corp.internal"), A),
        );
        assert_eq!(resolver.enter(now, ip), api);
        resolver.leave(now, ip);
    }
    // No room, while everybody may still go by what they heard.
    for n in 20..24 {
        let asked = query(7, &format!("h{n}.corp.internal"), A);
        assert_eq!(code(&says(&mut resolver, now, &asked)), NOERROR);
    }
    let asked = query(7, "more.corp.internal", A);
    assert_eq!(code(&says(&mut resolver, now, &asked)), SERVFAIL);
    resolver.leave(now, ip);
    now += Duration::from_secs(400);
    assert_eq!(code(&says(&mut resolver, now, &asked)), NOERROR);
    let other = "10.0.0.1".parse().unwrap();
    assert_eq!(resolver.enter(now, other), Named::Other);
}
