use hickory_proto::op::Message;
use proptest::prelude::*;

use super::super::answer::{Answer, Mismatch};
use super::super::question::{Asked, Way, lower, read};
use super::super::view::AsItIs;
use super::*;

fn asked(message: &[u8], way: Way) -> Asked {
    read(message, way).unwrap().1
}

fn whole(query: &[u8], message: &[u8]) -> Answer {
    Answer::read(message, &lower(section(query))).unwrap()
}

fn ttls(message: &[u8]) -> Vec<u32> {
    let parsed = Message::from_vec(message).unwrap();
    let sections = [parsed.answers, parsed.authorities, parsed.additionals];
    sections.iter().flatten().map(|record| record.ttl).collect()
}

/// A record of a type that nobody has heard of, with data that could be a pointer, one in a class of its own, a signature.
#[test]
fn all_but_number_spelling_and_ttls_is_as_it_came() {
    let lowered = query(0x0102, "api.corp.internal", 65_280);
    let mut odd = record(65_280, 300, &[0xc0, 12, 0xff, 0, 1, 2, 3]);
    odd[4..6].copy_from_slice(&[0xfe, 0xfe]);
    let signature = record(46, 300, &[0xab; 90]);
    let mut opt = vec![0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 6];
    opt.extend([0, 15, 0, 2, 0, 18]);
    let message = answer(&lowered, NOERROR, [&[odd, signature], &[], &[opt]]);
    let client = edns(query(0xbeef, "aPI.Corp.internal", 65_280), 1232, true, &[]);
    let copy = whole(&lowered, &message).copy_for(&asked(&client, Way::Datagram), 7, &AsItIs);
    let mut expected = message.clone();
    expected[..2].copy_from_slice(&[0xbe, 0xef]);
    let end = 12 + section(&client).len();
    expected[12..end].copy_from_slice(section(&client));
    // Only the last byte of 300 changes when it becomes 293.
    let mut changed = 0;
    for (at, byte) in copy.iter().enumerate() {
        if *byte != expected[at] {
            assert_eq!((expected[at], *byte), (44, 37), "at {at}");
            changed += 1;
        }
    }
    assert_eq!((changed, copy.len()), (2, expected.len()));
}

#[test]
fn ttls_count_down_to_zero_and_no_further() {
    let message = query(1, "api.corp.internal", A);
    let (one, other) = (record(A, 5, &[10, 0, 1, 2]), record(A, 300, &[10, 0, 1, 3]));
    let endless = record(A, 0x8000_0000, &[10, 0, 1, 4]);
    let answer = whole(
        &message,
        &answer(&message, NOERROR, [&[one, other, endless], &[], &[]]),
    );
    let asked = asked(&message, Way::Datagram);
    assert_eq!(ttls(&answer.copy_for(&asked, 0, &AsItIs)), [5, 300, 0]);
    assert_eq!(ttls(&answer.copy_for(&asked, 9, &AsItIs)), [0, 291, 0]);
}

/// RFC 2308: how long it holds that there is nothing is in the SOA record of the authority section.
#[test]
fn an_answer_holds_as_long_as_it_says() {
    let asked = query(1, "api.corp.internal", A);
    let a = |ttl| record(A, ttl, &[10, 0, 1, 2]);
    let alias = || record(CNAME, 60, &name("other.corp.internal"));
    let none: &[Vec<u8>] = &[];
    for (what, message, lifetime) in [
        (
            "addresses",
            answer(&asked, NOERROR, [&[a(300), a(20)], none, none]),
            20,
        ),
        (
            "an additional one",
            answer(&asked, NOERROR, [&[a(300)], none, &[a(10)]]),
            10,
        ),
        (
            "for ever",
            answer(&asked, NOERROR, [&[a(0x7fff_ffff)], none, none]),
            86_400,
        ),
        (
            "not at all",
            answer(&asked, NOERROR, [&[a(0)], none, none]),
            0,
        ),
        (
            "no such name, by the minimum",
            answer(&asked, NXDOMAIN, [none, &[soa(3600, 60)], none]),
            60,
        ),
        (
            "no such name, by the TTL",
            answer(&asked, NXDOMAIN, [none, &[soa(30, 900)], none]),
            30,
        ),
        (
            "no such type",
            answer(&asked, NOERROR, [none, &[soa(3600, 77)], none]),
            77,
        ),
        (
            "nothing for too long",
            answer(&asked, NXDOMAIN, [none, &[soa(90_000, 90_000)], none]),
            10_800,
        ),
        (
            "an alias of nothing",
            answer(&asked, NXDOMAIN, [&[alias()], &[soa(3600, 900)], none]),
            60,
        ),
        (
            "an alias of what has no such type",
            answer(&asked, NOERROR, [&[alias()], &[soa(3600, 9)], none]),
            9,
        ),
        (
            "nothing, and nobody in charge",
            answer(&asked, NXDOMAIN, [none, none, none]),
            0,
        ),
        (
            "a referral",
            answer(
                &asked,
                NOERROR,
                [none, &[record(2, 300, &name("ns.internal"))], none],
            ),
            0,
        ),
        (
            "the SOA record itself",
            answer(
                &query(1, "corp.internal", SOA),
                NOERROR,
                [&[soa(3600, 60)], none, none],
            ),
            3600,
        ),
        (
            "a failure",
            answer(&asked, SERVFAIL, [none, &[soa(3600, 60)], none]),
            0,
        ),
    ] {
        let read = Answer::read(&message, &lower(section(&message))).unwrap();
        assert_eq!(read.lifetime(), lifetime, "{what}");
        let mut truncated = message;
        truncated[2] |= 2;
        let read = Answer::read(&truncated, &lower(section(&truncated))).unwrap();
        assert_eq!(read.lifetime(), 0, "{what}, truncated");
    }
}

#[test]
fn what_does_not_fit_a_datagram_is_to_be_asked_for_on_a_stream() {
    let plain = query(1, "big.corp.internal", TXT);
    let texts: Vec<_> = (0..9).map(|_| record(TXT, 60, &[99; 100])).collect();
    let answer = whole(&plain, &answer(&plain, NOERROR, [&texts, &[], &[]]));
    let large = edns(plain.clone(), 1232, false, &[]);
    for (message, way, fits) in [
        (&plain, Way::Datagram, false),
        (&edns(plain.clone(), 900, false, &[]), Way::Datagram, false),
        (&large, Way::Datagram, true),
        (&plain, Way::Stream, true),
    ] {
        let copy = answer.copy_for(&asked(message, way), 0, &AsItIs);
        assert_eq!(is_truncated(&copy), !fits);
        let parsed = Message::from_vec(&copy).unwrap();
        assert_eq!(parsed.answers.len(), if fits { 9 } else { 0 });
        assert_eq!(section(&copy), section(message));
        assert!(fits || copy.len() <= 512);
    }
}

#[test]
fn an_answer_to_something_else_is_none() {
    let asked = query(1, "api.corp.internal", HTTPS);
    let section = lower(section(&asked));
    let good = answer(
        &asked,
        NOERROR,
        [&[record(HTTPS, 60, &[0, 1, 0])], &[], &[]],
    );
    assert!(Answer::read(&good, &section).is_ok());
    assert!(
        Answer::read(
            &answer(
                &query(1, "API.corp.internal", HTTPS),
                NOERROR,
                [&[], &[], &[]]
            ),
            &section
        )
        .is_ok()
    );
    let changed = |at: usize, byte: u8| {
        let mut message = good.clone();
        message[at] = byte;
        Answer::read(&message, &section)
    };
    assert_eq!(changed(2, 1), Err(Mismatch::NotAnAnswer));
    assert_eq!(changed(2, 0x80 | 5 << 3), Err(Mismatch::NotAnAnswer));
    assert_eq!(changed(13, b'b'), Err(Mismatch::OtherQuestion));
    // 97 is to 65 as a is to A.
    assert_eq!(
        changed(12 + section.len() - 3, 97),
        Err(Mismatch::OtherQuestion)
    );
    assert_eq!(changed(5, 0), Err(Mismatch::OtherQuestion));
    assert_eq!(changed(5, 2), Err(Mismatch::OtherQuestion));
    assert_eq!(changed(7, 2), Err(Mismatch::Malformed));
    for len in 0..good.len() {
        assert!(Answer::read(&good[..len], &section).is_err(), "{len}");
    }
}

/// Old servers send no more than that for what they do not understand.
#[test]
fn a_bare_header_says_what_is_wrong() {
    let message = query(7, "API.corp.internal", A);
    let mut bare = message[..12].to_vec();
    bare[2] = 0x81;
    bare[5] = 0;
    bare[3] = FORMERR;
    let read = whole(&message, &bare);
    let copy = read.copy_for(&asked(&message, Way::Datagram), 0, &AsItIs);
    assert_eq!((id(&copy), code(&copy), read.lifetime()), (7, FORMERR, 0));
    assert_eq!(section(&copy), section(&message));
    bare[3] = NOERROR;
    assert_eq!(
        Answer::read(&bare, &lower(section(&message))),
        Err(Mismatch::OtherQuestion)
    );
}

/// Bytes of a message up to the end of its records.
fn whole_part(message: &[u8]) -> usize {
    let ends = (12..message.len()).rev();
    let is_whole = |end: &usize| Answer::read(&message[..*end], section(message)).is_ok();
    ends.take_while(is_whole).last().unwrap()
}

proptest! {
    #[test]
    fn any_records_are_read_or_malformed(
        counts in prop::array::uniform3(0_u8..4), bytes in prop::collection::vec(any::<u8>(), 0..120), flags in any::<[u8; 2]>(), age in any::<u32>(),
    ) {
        let asked_for = query(7, "a", A);
        let mut message = answer(&asked_for, NOERROR, [&[], &[], &[]]);
        message[2] |= flags[0] & !0x78;
        message[3] = flags[1];
        (message[7], message[9], message[11]) = (counts[0], counts[1], counts[2]);
        message.extend(bytes);
        if let Ok(answer) = Answer::read(&message, &lower(section(&asked_for))) {
            for way in [Way::Datagram, Way::Stream] {
                let copy = answer.copy_for(&asked(&asked_for, way), age, &AsItIs);
                // But for what stands behind the end.
                let end = if answer.is_part_of(&message) { whole_part(&message) } else { message.len() };
                prop_assert!(copy.len() == end || is_truncated(&copy));
            }
        }
    }

    #[test]
    fn a_whole_answer_with_a_fault_is_read_or_malformed(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let asked_for = query(7, "api.corp.internal", A);
        let records = [record(CNAME, 60, &name("x.internal")), record(A, 60, &[10, 0, 1, 2])];
        let mut message = answer(&asked_for, NXDOMAIN, [&records, &[soa(60, 60)], &[]]);
        let at = at.index(message.len());
        message[at] = byte;
        if let Ok(answer) = Answer::read(&message, &lower(section(&asked_for))) {
            answer.copy_for(&asked(&asked_for, Way::Datagram), 1, &AsItIs);
        }
    }
}
