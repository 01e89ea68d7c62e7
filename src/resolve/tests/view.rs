use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use hickory_proto::op::Message;

use super::super::frame::Deframer;
use super::super::question::Way;
use super::super::resolver::{Config, Resolver, Taken};
use super::super::view::View;
use super::super::zones::Zones;
use super::*;

const API: &str = "api.corp.internal";
const AD: u8 = 0x20;

/// 10.0.0.0/16 as 100.64.0.0/16, and fd00:: as fd64::.
#[derive(Debug)]
struct Moved;

impl View for Moved {
    fn near(&self, far: IpAddr) -> Option<IpAddr> {
        match far {
            IpAddr::V4(ip) => match ip.octets() {
                [10, 0, c, d] => Some([100, 64, c, d].into()),
                _ => None,
            },
            IpAddr::V6(ip) => match ip.segments() {
                [0xfd00, rest @ ..] => Some(v6(0xfd64, rest)),
                _ => None,
            },
        }
    }

    fn far(&self, near: IpAddr) -> Option<IpAddr> {
        match near {
            IpAddr::V4(ip) => match ip.octets() {
                [100, 64, c, d] => Some([10, 0, c, d].into()),
                _ => None,
            },
            IpAddr::V6(ip) => match ip.segments() {
                [0xfd64, rest @ ..] => Some(v6(0xfd00, rest)),
                _ => None,
            },
        }
    }

    fn is_dead(&self, far: IpAddr) -> bool {
        matches!(far, IpAddr::V6(ip) if ip.segments()[0] == 0xfdff)
    }
}

fn v6(first: u16, [b, c, d, e, f, g, h]: [u16; 7]) -> IpAddr {
    [first, b, c, d, e, f, g, h].into()
}

/// What goes to the resolver of `server`, and what comes of the answer that is made of it.
fn through(asked: &[u8], server: usize, answer: impl Fn(&[u8]) -> Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let networks = ["100.64.0.0/16", "fd64::/16"].map(|net| net.parse().unwrap());
    let mut resolver = Resolver::new(Config {
        zones: Zones::below(&["corp.internal"], &networks).unwrap(),
        view: Arc::new(Moved),
        pools: None,
        far: 1,
        near: 1,
    });
    let now = Instant::now();
    assert_eq!(resolver.ask(now, 7, Way::Datagram, asked), Taken::Waits);
    let mut deframer = Deframer::default();
    deframer.push(&resolver.next_frame(server).unwrap());
    let sent = deframer.next_message().unwrap();
    let mut replies = resolver.handle_message(now, server, &answer(&sent));
    // Once more, from memory.
    if let Taken::Answered(reply) = resolver.ask(now, 8, Way::Datagram, asked) {
        assert_eq!(reply.message, replies[0].message);
    }
    assert_eq!(replies.len(), 1);
    (sent, replies.remove(0).message)
}

fn in_class(mut record: Vec<u8>, class: u8) -> Vec<u8> {
    record[5] = class;
    record
}

const FAR_V6: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

/// Priority 1, no name, ALPN h2, one and two addresses of each kind.
fn https() -> Vec<u8> {
    let mut data = vec![0, 1, 0, 0, 1, 0, 3, 2, b'h', b'2', 0, 4, 0, 8];
    data.extend([10, 0, 1, 20, 203, 0, 113, 1, 0, 6, 0, 16]);
    data.extend(FAR_V6);
    data
}

#[test]
fn addresses_are_written_over_where_they_stand_and_nothing_else_is() {
    let asked = query(7, API, A);
    let mut edge = https();
    // Longer than the record has bytes.
    edge[13] = 200;
    let records = [
        record(A, 60, &[10, 0, 1, 20]),
        record(A, 60, &[10, 1, 1, 20]),
        record(AAAA, 60, &FAR_V6),
        record(HTTPS, 60, &https()),
        record(HTTPS, 60, &edge),
        // Text, another class, and what only looks like an address.
        record(TXT, 60, &[10, 0, 1, 20]),
        in_class(record(A, 60, &[10, 0, 1, 20]), 3),
        record(A, 60, &[10, 0, 1, 20, 0]),
    ];
    let more = [record(A, 60, &[10, 0, 1, 21])];
    let came = |sent: &[u8]| {
        let mut message = answer(sent, NOERROR, [&records, &[], &more]);
        message[3] |= AD;
        message
    };
    let (sent, shown) = through(&asked, 0, came);
    let mut expected = came(&sent);
    expected[..2].copy_from_slice(&[0, 7]);
    expected[3] &= !AD;
    let place = |record: usize| {
        let before: usize = records[..record].iter().map(Vec::len).sum();
        12 + section(&asked).len() + before + 12
    };
    for at in [place(0), place(8), place(3) + 14] {
        expected[at..at + 2].copy_from_slice(&[100, 64]);
    }
    for at in [place(2), place(3) + 26] {
        expected[at + 1] = 0x64;
    }
    assert_eq!(shown, expected);
}

#[test]
fn where_nothing_stands_for_another_all_is_as_it_came() {
    let came = |sent: &[u8], last: u8| {
        let mut message = answer(
            sent,
            NOERROR,
            [&[record(A, 60, &[10, last, 1, 20])], &[], &[]],
        );
        message[3] |= AD;
        message
    };
    // An address of no pair, and the host's own resolver, whose addresses are those of the host's own network.
    for (name, server, second) in [(API, 0, 1), ("www.example.com", 1, 0)] {
        let (sent, shown) = through(&query(7, name, A), server, |sent| came(sent, second));
        assert_eq!(shown[2..], came(&sent, second)[2..], "{name}");
    }
}

#[test]
fn the_name_of_an_address_is_asked_for_where_it_is() {
    let v6 = |net: &str| format!("9{}.1.0.0.0.{net}.d.f.ip6.arpa", ".0".repeat(23));
    for (near, far) in [
        ("20.1.64.100.in-addr.arpa", "20.1.0.10.in-addr.arpa"),
        (&*v6("4.6"), &*v6("0.0")),
    ] {
        let target = record(PTR, 60, &name(API));
        let alias = record(CNAME, 60, &name("20.0-25.1.0.10.in-addr.arpa"));
        for records in [vec![target], vec![alias]] {
            let came = |sent: &[u8]| {
                let mut message = answer(sent, NOERROR, [&records, &[], &[]]);
                message[3] |= AD;
                message
            };
            let (sent, shown) = through(&query(7, near, PTR), 0, came);
            let want = &[name(far), vec![0, 12, 0, 1]].concat();
            assert_eq!(section(&sent), want);
            let shown = Message::from_vec(&shown).unwrap();
            let asked = format!("{near}.");
            assert_eq!(shown.metadata.id, 7);
            assert!(!shown.metadata.authentic_data);
            assert_eq!(shown.queries[0].name.to_string(), asked);
            assert_eq!(shown.answers[0].name.to_string(), asked);
            let sent = Message::from_vec(&came(&sent)).unwrap();
            assert_eq!(shown.answers[0].data, sent.answers[0].data);
        }
        // That there is none, too.
        let gone = |sent: &[u8]| answer(sent, NXDOMAIN, [&[], &[soa(60, 60)], &[]]);
        let (_, shown) = through(&query(7, near, PTR), 0, gone);
        assert_eq!(code(&shown), NXDOMAIN);
        assert_eq!(section(&shown), section(&query(7, near, PTR)));
    }
    // The far network under its own addresses is not shown here.
    let own = query(7, "20.1.0.10.in-addr.arpa", PTR);
    let (sent, _) = through(&own, 1, |sent| answer(sent, NXDOMAIN, [&[], &[], &[]]));
    assert_eq!(section(&sent), section(&own));
}

#[test]
fn who_asks_for_addresses_that_lead_nowhere_hears_that_there_are_none() {
    let dead = {
        let mut address = FAR_V6;
        address[1] = 0xff;
        record(AAAA, 60, &address)
    };
    let alive = record(AAAA, 60, &FAR_V6);
    let alias = record(CNAME, 60, &name("two.corp.internal"));
    let asked = query(7, API, AAAA);
    let through = |asked: &[u8], records: &[Vec<u8>], more: &[Vec<u8>]| {
        let (_, shown) = through(asked, 0, |sent| answer(sent, NOERROR, [records, &[], more]));
        (code(&shown), shown[7], shown)
    };
    let (code, answers, shown) = through(&asked, &[alias.clone(), dead.clone()], &[]);
    assert_eq!((code, answers), (NOERROR, 0));
    assert_eq!(section(&shown), section(&asked));
    for (asked, records) in [
        // One can be reached.
        (&asked, vec![dead.clone(), alive]),
        // There is none anyway, and what is beside the answer is no answer.
        (&asked, vec![alias]),
        // Not asked for as addresses.
        (&query(7, API, HTTPS), vec![record(HTTPS, 60, &https())]),
    ] {
        let (_, answers, _) = through(asked, &records, std::slice::from_ref(&dead));
        assert_eq!(usize::from(answers), records.len());
    }
}
