//! The channel layer against stories: both what its owners do and what a server says is any. `scripts/fuzz` plays the same
//! stories for as long as one likes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "channels_fuzz/drive.rs"]
mod drive;

use proptest::prelude::*;

/// Steps that make a story go far: channels are opened, the opens written, confirmed and used.
fn likely() -> impl Strategy<Value = Vec<u8>> {
    let write = Just(vec![7, 0x10, 0]);
    let confirm = (0..8_u8).prop_map(|which| vec![11, which, 0x20, 0, 0x02, 0]);
    let adjust = (0..8_u8).prop_map(|which| vec![23, which, 0x08, 0]);
    let owner =
        (1..7_u8, 0..8_u8, 0..8_u8).prop_map(|(kind, which, high)| vec![kind, which, high, 9]);
    let server =
        (13..24_u8, 0..8_u8, 0..4_u8).prop_map(|(kind, which, high)| vec![kind, which, high, 8]);
    let end = (17..19_u8, 0..8_u8).prop_map(|(kind, which)| vec![kind, which, 0, 0]);
    let any = prop::collection::vec(any::<u8>(), 1..6);
    prop_oneof![
        3 => Just(vec![0]),
        1 => Just(vec![9]),
        4 => write,
        3 => confirm,
        2 => adjust,
        6 => owner,
        3 => server,
        1 => end,
        1 => any,
    ]
}

/// That a story is understood as it was meant.
#[test]
fn a_flow_from_beginning_to_end() {
    let write = [7, 0x10, 0];
    let story = [
        &[0][..],
        &write,
        // Confirmed, 100 bytes sent, 1,000 heard and passed on, the end both ways.
        &[11, 0, 0x20, 0, 0x02, 0],
        &[1, 0, 0, 100],
        &write,
        &[13, 0, 0x03, 0xe8],
        &[6, 0, 0x03, 0xe8],
        &[2, 0, 0, 0],
        &write,
        &[17, 0, 0, 0],
        &[3, 0, 0, 0],
        &write,
        &[18, 0, 0, 0],
    ];
    // CHANNEL_OPEN, DATA, EOF, CLOSE.
    assert_eq!(drive::drive(&story.concat()), [90, 94, 96, 97]);
}

#[test]
fn a_frame_without_bytes_is_not_sent() {
    let write = [7, 0x10, 0];
    let story = [
        // A tunnel of frames, confirmed.
        &[9][..],
        &write,
        &[11, 0, 0x20, 0, 0x02, 0],
        // One that is empty, and one of 100 bytes.
        &[1, 0, 0, 0],
        &[1, 0, 0, 100],
        &write,
    ];
    assert_eq!(drive::drive(&story.concat()), [90, 94]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        drive::drive(&bytes);
    }

    #[test]
    fn likely_stories(steps in prop::collection::vec(likely(), 0..120)) {
        drive::drive(&steps.concat());
    }
}
