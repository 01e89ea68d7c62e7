//! Any bytes from a server: an event or a fault, never a panic, and no more memory than agreed.

use proptest::prelude::*;

use super::server::{
    adjust, close, confirmation, data, eof, global_request, message, refusal, request, with_string,
};
use super::*;

/// What a fuzzer would call: a few channels in different states, then `bytes` in pieces of `step`.
fn fuzz(bytes: &[u8], step: usize) {
    let mut client = Client::new(Config::default());
    let open = client.opened(10_000, 1000);
    let closing = client.opened(1000, 1000);
    client.channels.close(closing);
    client.open();
    client.write_all();
    client.send(open, &[1; 5000]);
    for piece in bytes.chunks(step.max(1)) {
        client.pass(Duration::from_millis(1));
        let Ok(events) = client.read(piece) else {
            return;
        };
        assert!(client.decoder.space().capacity() <= 512 * 1024);
        assert!(client.channels.len() <= 3 && client.channels.queued() <= 5000);
        for event in events {
            if let Event::Data { id, data } | Event::ExtendedData { id, data, .. } = event {
                client.channels.consumed(client.now, id, data.len());
            }
        }
        if piece.first().is_some_and(|byte| byte % 2 == 0) {
            client.write_all();
        }
    }
}

/// Messages that a server might send about the channels of [`fuzz`].
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![3 => 0..4_u32, 1 => any::<u32>()];
    let any_length = prop_oneof![0..100_usize, Just(32 * 1024), Just(33 * 1024), Just(40_000)];
    (number, 0..14_u8, any::<u32>(), any_length).prop_map(
        |(number, kind, value, length)| match kind {
            0 => confirmation(number, value, value, 100),
            1 => refusal(number, value, "no"),
            2 => adjust(number, value),
            3 => eof(number),
            4 => close(number),
            5 => request(number, "x", value.is_multiple_of(2)),
            6 => global_request(value.is_multiple_of(2)),
            7 => message(99, &[number]),
            8 => with_string(95, &[number, value], &vec![0; length]),
            9 => with_string(90, &[], b"x11"),
            10 => message(4, &[]),
            _ => data(number, &vec![0; length]),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise(bytes in prop::collection::vec(any::<u8>(), 0..300), step in 1..100_usize) {
        fuzz(&bytes, step);
    }

    #[test]
    fn noise_in_frames(
        payloads in prop::collection::vec((80..101_u8, prop::collection::vec(any::<u8>(), 0..40)), 0..20),
        step in 1..100_usize,
    ) {
        let frames = payloads.iter().map(|(number, rest)| server::frame(&[&[*number], &rest[..]].concat()));
        fuzz(&frames.collect::<Vec<_>>().concat(), step);
    }

    #[test]
    fn messages_with_mistakes(
        messages in prop::collection::vec(plausible(), 1..30),
        mistakes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        step in 1..50_000_usize,
    ) {
        let mut bytes = messages.concat();
        for (at, byte) in mistakes {
            let at = at.index(bytes.len().min(2000));
            bytes[at] = byte;
        }
        fuzz(&bytes, step);
    }
}
