use proptest::prelude::*;

use super::super::question::{Question, Unfit, Way, lower, read};
use super::*;

fn taken(message: &[u8], way: Way) -> (Question, usize) {
    let (question, asked) = read(message, way).unwrap();
    (question, asked.room)
}

fn answered(message: &[u8]) -> Vec<u8> {
    match read(message, Way::Datagram) {
        Err(Unfit::Answered(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_room_for_an_answer_is_what_the_client_says_within_bounds() {
    let plain = query(7, "api.corp.internal", A);
    assert_eq!(taken(&plain, Way::Datagram).1, 512);
    for (said, room) in [(0, 512), (512, 512), (900, 900), (1232, 1232), (4096, 1232)] {
        let message = edns(plain.clone(), said, false, &[]);
        assert_eq!(taken(&message, Way::Datagram).1, room, "{said}");
        assert_eq!(taken(&message, Way::Stream).1, 65_535);
    }
}

#[test]
fn one_answer_serves_who_asks_the_same_in_any_case_and_not_who_asks_otherwise() {
    let plain = query(7, "api.corp.internal", A);
    let question = |message: &[u8]| taken(message, Way::Datagram).0;
    assert_eq!(
        question(&plain),
        question(&query(9, "API.corp.Internal", A))
    );
    let mut others = vec![
        query(7, "api.corp.internal", HTTPS),
        query(7, "api.corp.interna", A),
        edns(plain.clone(), 1232, false, &[]),
        edns(plain.clone(), 1232, true, &[]),
    ];
    // Recursion desired, authentic data, checking disabled.
    for (byte, bit) in [(2, 1), (3, 0x20), (3, 0x10)] {
        let mut other = plain.clone();
        other[byte] ^= bit;
        others.push(other);
    }
    let mut all: Vec<Question> = others.iter().map(|other| question(other)).collect();
    all.push(question(&plain));
    for (at, one) in all.iter().enumerate() {
        assert!(!all[..at].contains(one), "{one:?}");
    }
}

#[test]
fn the_same_question_is_asked_further_without_what_concerns_one_hop() {
    let cookie = [0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
    let asked = edns(query(7, "API.corp.internal", HTTPS), 4096, true, &cookie);
    let (question, _) = taken(&asked, Way::Datagram);
    let further = question.message(&lower(section(&asked)), 0x1234);
    let expected = edns(query(0x1234, "api.corp.internal", HTTPS), 1232, true, &[]);
    assert_eq!(further, expected);
}

/// Types are numbers: that of HTTPS records has the value of a letter.
#[test]
fn only_a_name_has_letters() {
    let message = query(7, "AZ.Internal", HTTPS);
    let mut expected = name("az.internal");
    expected.extend([0, 65, 0, 1]);
    assert_eq!(*lower(section(&message)), expected);
}

#[test]
fn what_is_not_to_be_passed_on_is_answered_here() {
    let plain = query(7, "api.corp.internal", A);
    let mut update = plain.clone();
    update[2] |= 5 << 3;
    let mut two = plain.clone();
    two[5] = 2;
    two.extend(section(&plain).to_vec());
    let mut none = plain[..12].to_vec();
    none[5] = 0;
    let mut next_edns = edns(plain.clone(), 1232, false, &[]);
    let version = next_edns.len() - 5;
    next_edns[version] = 1;
    for (message, expected, questions) in [
        (update, 4, 0),
        (two, FORMERR, 0),
        (none, FORMERR, 0),
        (plain[..20].to_vec(), FORMERR, 0),
        (query(7, "corp.internal", 252), REFUSED, 1),
        (query(7, "corp.internal", 251), REFUSED, 1),
        // BADVERS is 16: its upper bits are in the OPT record.
        (next_edns, NOERROR, 1),
    ] {
        let answer = answered(&message);
        assert_eq!((id(&answer), code(&answer)), (7, expected), "{message:?}");
        assert_eq!(answer[2] & 0x80, 0x80);
        assert_eq!(answer[5], questions, "{message:?}");
    }
}

#[test]
fn everything_there_is_is_one_record_that_says_so() {
    for (message, len) in [
        (query(7, "corp.internal", 255), 0),
        (edns(query(7, "corp.internal", 255), 1232, true, &[]), 11),
    ] {
        let parsed = hickory_proto::op::Message::from_vec(&answered(&message)).unwrap();
        let shown = parsed.answers[0].to_string();
        assert_eq!(parsed.answers.len(), 1);
        assert!(
            shown.contains("3600 IN HINFO") && shown.contains("RFC8482"),
            "{shown}"
        );
        assert_eq!(parsed.edns.is_some(), len > 0);
    }
}

#[test]
fn an_answer_is_no_question() {
    let mut message = query(7, "api.corp.internal", A);
    message[2] |= 0x80;
    for noise in [&message[..], &message[..11], &[]] {
        assert_eq!(read(noise, Way::Stream).unwrap_err(), Unfit::Noise);
    }
}

/// A name that points elsewhere is none that could be written over.
#[test]
fn a_question_spells_its_name_out() {
    let mut message = query(7, "", A)[..12].to_vec();
    message.extend([1, b'a', 0xc0, 12, 0, 1, 0, 1]);
    assert_eq!(code(&answered(&message)), FORMERR);
}

proptest! {
    /// Whatever comes: no panic, and an answer keeps the number.
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        for way in [Way::Datagram, Way::Stream] {
            match read(&bytes, way) {
                Err(Unfit::Answered(answer)) => prop_assert_eq!(&answer[..2], &bytes[..2]),
                Err(Unfit::Noise) => {}
                Ok((question, asked)) => {
                    let further = question.message(&lower(&asked.section), 7);
                    let again = read(&further, Way::Stream);
                    prop_assert_eq!(again.map(|(question, _)| question), Ok(question));
                }
            }
        }
    }

    #[test]
    fn a_whole_question_with_a_fault_is_read(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut message = edns(query(7, "api.corp.internal", TXT), 1232, true, &[0, 10, 0, 2, 7, 7]);
        let at = at.index(message.len());
        message[at] = byte;
        message.truncate(1 + cut.index(message.len()));
        let _ = read(&message, Way::Datagram);
    }
}
