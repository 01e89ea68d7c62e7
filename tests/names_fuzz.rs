//! The name server against stories: what clients ask and what far resolvers say is any. `scripts/fuzz` plays the same stories for
//! as long as one likes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "names_fuzz/drive.rs"]
mod drive;

use proptest::prelude::*;

/// `api.corp.internal`, type A.
const QUESTION: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03api\x04corp\x08internal\0\0\x01\0\x01";

fn step(kind: u8, data: &[u8]) -> Vec<u8> {
    [&[kind, data.len() as u8], data].concat()
}

/// Steps that make a story go far: a question with a fault at most, sent on, and answered with some records.
fn likely() -> impl Strategy<Value = Vec<u8>> {
    let asked = (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| {
        let mut question = QUESTION.to_vec();
        let at = at.index(question.len());
        question[at] = byte;
        step(0, &question)
    });
    let records = prop::collection::vec(any::<u8>(), 0..60);
    prop_oneof![
        2 => Just(step(0, QUESTION)),
        4 => asked,
        4 => (0..3_u8).prop_map(|server| step(5 | server << 4, &[])),
        4 => (0..3_u8, records).prop_map(|(server, data)| step(7 | server << 4, &data)),
        1 => (any::<u8>(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(kind, data)| step(kind, &data)),
    ]
}

/// That a story is understood as it was meant.
#[test]
fn a_question_from_beginning_to_end() {
    let record = b"\x01\0\0\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\x01\x02";
    let story = [
        step(0, QUESTION),
        step(5, &[]),
        step(7, record),
        step(0, QUESTION),
    ];
    assert_eq!(drive::drive(&story.concat()), 2);
    // Nobody answers.
    assert_eq!(drive::drive(&step(1, QUESTION)), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_story_ends_badly(steps in prop::collection::vec(likely(), 0..60)) {
        drive::drive(&steps.concat());
    }

    #[test]
    fn no_bytes_end_badly(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        drive::drive(&bytes);
    }
}
