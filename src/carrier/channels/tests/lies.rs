//! What a server may not say, and what it is told; what it may say late, early or never.

use super::server::{
    adjust, close, confirmation, data, eof, field, frame, global_request, message, payloads,
    refusal, request, with_string,
};
use super::*;
use crate::carrier::channels::{Full, Refusal, SendError, WireError};

fn client() -> Client {
    Client::new(Config::default())
}

/// Numbers of the messages in `bytes`.
fn numbers(bytes: &[u8]) -> Vec<u8> {
    payloads(bytes).iter().map(|payload| payload[0]).collect()
}

/// What the window is granted by.
fn grants(client: &mut Client) -> Vec<u32> {
    let said = payloads(&client.write_all());
    let adjusts = said.iter().filter(|payload| payload[0] == 93);
    adjusts.map(|payload| field(payload, 5)).collect()
}

#[test]
fn an_unknown_number() {
    for about in [
        data(9, b"x"),
        adjust(9, 1),
        eof(9),
        close(9),
        confirmation(9, 1, 1, 1),
        refusal(9, 1, ""),
        request(9, "x", false),
        message(99, &[9]),
    ] {
        let error = client().read(&about).unwrap_err();
        assert!(
            matches!(error, Fault::UnknownChannel { channel: 9, .. }),
            "{error}"
        );
    }
}

#[test]
fn out_of_turn() {
    let is_out_of_turn = |error: &Fault| matches!(error, Fault::OutOfTurn { .. });
    for before in [data(0, b"x"), eof(0), close(0), adjust(0, 1)] {
        let mut client = client();
        client.open();
        client.write_all();
        let error = client.read(&before).unwrap_err();
        assert!(is_out_of_turn(&error), "before the confirmation: {error}");
    }
    for again in [confirmation(0, 1, 1, 1), refusal(0, 2, "")] {
        let mut client = client();
        client.opened(1, 1);
        let error = client.read(&again).unwrap_err();
        assert!(is_out_of_turn(&error), "a second answer: {error}");
    }
    for after in [data(0, b"x"), eof(0)] {
        let mut client = client();
        client.opened(1, 1);
        client.read(&eof(0)).unwrap();
        let error = client.read(&after).unwrap_err();
        assert!(is_out_of_turn(&error), "after EOF: {error}");
    }
    for after in [data(0, b"x"), eof(0), close(0), request(0, "x", true)] {
        let mut client = client();
        client.opened(1, 1);
        client.read(&close(0)).unwrap();
        let error = client.read(&after).unwrap_err();
        assert!(is_out_of_turn(&error), "after CLOSE: {error}");
    }
    let mut client = client();
    client.open();
    let error = client.read(&confirmation(0, 1, 1, 1)).unwrap_err();
    assert!(is_out_of_turn(&error), "an answer before the open: {error}");
}

#[test]
fn more_than_the_window_or_than_a_packet() {
    let mut one = client();
    one.opened(1, 1);
    let mut error = None;
    for _ in 0..33 {
        error = error.or(one.read(&data(0, &[0; 32 * 1024])).err());
    }
    let excess = 32 * 1024;
    assert_eq!(error, Some(Fault::WindowExceeded { channel: 0, excess }));

    let mut other = client();
    other.opened(1, 1);
    let length = 32 * 1024 + 1;
    let error = other.read(&data(0, &vec![0; length])).unwrap_err();
    let limit = 32 * 1024;
    assert_eq!(
        error,
        Fault::PacketTooLarge {
            channel: 0,
            length,
            limit
        }
    );
    let error = other.read(&data(0, &[0; 100_000])).unwrap_err();
    assert!(matches!(error, Fault::Wire(WireError::TooLong { .. })));
}

#[test]
fn a_window_has_32_bits() {
    let mut client = client();
    let id = client.opened(u32::MAX - 10, 100);
    client.send(id, &[1; 20]);
    assert_eq!(client.read(&adjust(0, 10)), Ok(vec![]));
    let error = client.read(&adjust(0, 1)).unwrap_err();
    assert_eq!(error, Fault::WindowOverflow { channel: 0 });
}

#[test]
fn replies_that_nobody_awaits() {
    for reply in [99, 100] {
        let mut client = client();
        client.opened(1, 1);
        let error = client.read(&message(reply, &[0])).unwrap_err();
        assert_eq!(error, Fault::UnaskedReply);
    }
    for reply in [81, 82] {
        let error = client().read(&message(reply, &[])).unwrap_err();
        assert_eq!(error, Fault::UnaskedReply);
    }
}

#[test]
fn floods() {
    let floods = [global_request(true), with_string(90, &[], b"x11")].map(|mut flood| {
        // An open has three more fields.
        flood.extend([0; 12]);
        let end = flood.len() - 12;
        if flood[5] == 90 {
            frame(&flood[5..])
        } else {
            flood[..end].to_vec()
        }
    });
    for flood in floods {
        let mut client = client();
        let error = (0..10_000).find_map(|_| client.read(&flood).err());
        assert_eq!(error, Some(Fault::Flood));
    }
    let mut client = client();
    client.opened(1, 1);
    let error = (0..1000).find_map(|_| client.read(&request(0, "x", true)).err());
    assert_eq!(error, Some(Fault::Flood));
}

#[test]
fn goodbye() {
    let goodbye = with_string(1, &[11], b"too\x1b[31m idle");
    let error = client().read(&goodbye).unwrap_err();
    let text = "too[31m idle".to_owned();
    assert_eq!(error, Fault::Disconnected { reason: 11, text });
}

#[test]
fn what_is_not_known_is_answered_so() {
    let mut client = client();
    client.opened(1, 1);
    assert_eq!(client.read(&global_request(true)), Ok(vec![]));
    assert_eq!(client.read(&global_request(false)), Ok(vec![]));
    assert_eq!(numbers(&client.write_all()), [82]);

    let mut open = with_string(90, &[], b"forwarded-tcpip");
    open.extend([0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(client.read(&frame(&open[5..])), Ok(vec![]));
    let refusals = payloads(&client.write_all());
    assert_eq!((refusals[0][0], refusals.len()), (92, 1));
    assert_eq!((field(&refusals[0], 1), field(&refusals[0], 5)), (77, 1));

    let events = client.read(&request(0, "keepalive@openssh.com", true));
    assert_eq!(events.unwrap().len(), 1);
    let replies = payloads(&client.write_all());
    assert_eq!((replies[0][0], field(&replies[0], 1)), (100, 70));
    client.read(&request(0, "exit-status", false)).unwrap();
    assert!(!client.channels.has_output());
}

#[test]
fn a_request_and_its_answer() {
    let mut client = client();
    let id = client.opened(1, 1);
    let request = client.channels.request(id, "exec", true, b"\0\0\0\x04true");
    request.unwrap();
    assert_eq!(numbers(&client.write_all()), [98]);
    let answered = client.read(&message(99, &[0]));
    assert_eq!(answered, Ok(vec![Event::Answered { id, success: true }]));
    assert!(client.read(&message(99, &[0])).is_err());
}

#[test]
fn requests_are_bounded() {
    let mut client = client();
    let id = client.opened(1, 1);
    let mut ask = || client.channels.request(id, "exec", true, b"");
    let refused = (0..1000).find_map(|_| ask().err());
    assert_eq!(refused, Some(SendError::TooMany));
}

#[test]
fn close_is_answered_with_close_and_nothing_follows() {
    let mut client = client();
    let id = client.opened(1000, 1000);
    client.send(id, &[1; 1000]);
    assert_eq!(client.read(&close(0)), Ok(vec![Event::Closed(id)]));
    assert_eq!(numbers(&client.write_all()), [97], "queued data is dropped");
    assert!(client.channels.is_empty());
    assert_eq!(client.channels.queued(), 0);
    client.channels.close(id);
    assert!(!client.channels.has_output());
    let sent = client.channels.send(id, Bytes::from_static(b"x"));
    assert_eq!(sent, Err(SendError::Closed));
    assert!(client.read(&close(0)).is_err(), "a second CLOSE");
}

#[test]
fn after_our_close_data_is_dropped_and_the_number_waits_for_the_peer() {
    let mut client = client();
    let id = client.opened(1000, 1000);
    client.read(&data(0, &[1; 1000])).unwrap();
    client.send(id, &[1; 10]);
    client.channels.close(id);
    assert_eq!(numbers(&client.write_all()), [94, 97]);
    assert_eq!(client.read(&data(0, &[1; 1000])), Ok(vec![]));
    assert_eq!(client.read(&request(0, "x", true)), Ok(vec![]));
    assert_eq!(client.read(&eof(0)), Ok(vec![]));
    client.channels.consumed(client.now, id, 1000);
    assert!(!client.channels.has_output(), "nothing after CLOSE");
    assert_eq!(client.channels.len(), 1);
    assert_eq!(client.read(&close(0)), Ok(vec![]));
    assert!(client.channels.is_empty());
    assert_eq!(client.channels.budget().promised(), 0);
}

#[test]
fn the_end_comes_after_what_is_queued() {
    let mut client = client();
    let id = client.opened(100_000, 1000);
    client.send(id, &[1; 2500]);
    client.channels.eof(id).unwrap();
    client.channels.close(id);
    assert_eq!(numbers(&client.write_all()), [94, 94, 94, 96, 97]);
    assert_eq!(client.read(&close(0)), Ok(vec![]));

    let id = client.opened(100_000, 1000);
    client.send(id, &[1; 2500]);
    client.channels.abort(id);
    assert_eq!(numbers(&client.write_all()), [97]);
}

#[test]
fn nothing_follows_the_end() {
    let mut client = client();
    let id = client.opened(1000, 1000);
    client.channels.eof(id).unwrap();
    let sent = client.channels.send(id, Bytes::from_static(b"x"));
    assert_eq!(sent, Err(SendError::Closed));
    assert_eq!(client.channels.eof(id), Err(SendError::Closed));
    assert_eq!(numbers(&client.write_all()), [96]);
    assert!(client.channels.send(id, Bytes::from_static(b"x")).is_err());
    client.channels.close(id);
    assert_eq!(numbers(&client.write_all()), [97]);
}

#[test]
fn window_is_granted_while_it_is_of_use() {
    let received = |client: &mut Client, id: ChannelId| {
        for _ in 0..8 {
            client.read(&data(id.0, &[0; 32 * 1024])).unwrap();
        }
        client.channels.consumed(client.now, id, 8 * 32 * 1024);
    };
    let mut client = client();
    let id = client.opened(1000, 1000);
    received(&mut client, id);
    let granted = payloads(&client.write_all());
    assert_eq!((granted[0][0], granted.len()), (93, 1));
    assert_eq!(field(&granted[0], 5), 8 * 32 * 1024);

    received(&mut client, id);
    client.read(&request(id.0, "x", true)).unwrap();
    client.read(&close(id.0)).unwrap();
    assert_eq!(numbers(&client.write_all()), [97], "the peer has closed");

    let id = client.opened(1000, 1000);
    for _ in 0..8 {
        client.read(&data(id.0, &[0; 32 * 1024])).unwrap();
    }
    client.read(&eof(id.0)).unwrap();
    client.channels.consumed(client.now, id, 8 * 32 * 1024);
    assert!(!client.channels.has_output(), "the peer has ended");
}

/// On a long path a window is granted part by part, each at its moment; nobody is called for a channel that has ended meanwhile.
#[test]
fn a_window_is_granted_in_parts() {
    let parts = |ends_after: usize| {
        let mut client = client();
        let id = client.open();
        client.write_all();
        client.pass(Duration::from_millis(100));
        client.read(&confirmation(id.0, 70, 1000, 1000)).unwrap();
        for _ in 0..32 {
            client.read(&data(id.0, &[0; 32 * 1024])).unwrap();
        }
        client.channels.consumed(client.now, id, 32 * 32 * 1024);
        let (mut parts, start) = (Vec::new(), client.now);
        parts.extend(grants(&mut client));
        while let Some(at) = client.channels.due() {
            assert!(at > client.now);
            client.now = at;
            if parts.len() == ends_after {
                client.read(&close(id.0)).unwrap();
            }
            parts.extend(grants(&mut client));
        }
        (parts, client.now - start)
    };
    let (all, taken) = parts(usize::MAX);
    assert_eq!(all, [128 * 1024; 8]);
    assert_eq!(taken, Duration::from_millis(70));
    assert_eq!(parts(3).0.len(), 3);
}

/// The server took a minute for a channel, so the path was thought to be so long; another channel shows that it is not.
#[test]
fn a_moment_that_was_too_late_is_forgotten() {
    let mut client = client();
    let (id, other) = (client.open(), client.open());
    client.write_all();
    client.pass(Duration::from_secs(60));
    client.read(&confirmation(id.0, 70, 1000, 1000)).unwrap();
    client.read(&confirmation(other.0, 71, 1000, 1000)).unwrap();
    for _ in 0..32 {
        client.read(&data(id.0, &[0; 32 * 1024])).unwrap();
    }
    client.channels.consumed(client.now, id, 31 * 32 * 1024);
    assert_eq!(grants(&mut client), [128 * 1024]);
    let due = client.channels.due().unwrap();
    assert!(due > client.now + Duration::from_secs(5));

    let quick = client.open();
    client.write_all();
    client.pass(Duration::from_millis(10));
    client.read(&confirmation(quick.0, 72, 1000, 1000)).unwrap();
    client.channels.consumed(client.now, id, 32 * 1024);
    client.write_all();
    let due = client.channels.due().unwrap();
    assert!(due <= client.now + Duration::from_millis(2));
}

#[test]
fn an_open_that_was_given_up() {
    let mut client = client();
    let unsent = client.open();
    client.channels.close(unsent);
    assert_eq!(client.write_all(), b"");
    assert!(client.channels.is_empty(), "an open that was never sent");

    let late = client.open();
    client.write_all();
    client.channels.close(late);
    assert!(!client.channels.has_output());
    let confirmation = confirmation(late.0, 5, 1000, 1000);
    assert_eq!(client.read(&confirmation), Ok(vec![]));
    assert_eq!(numbers(&client.write_all()), [97], "a late success");
    assert_eq!(client.read(&close(late.0)), Ok(vec![]));

    let refused = client.open();
    client.write_all();
    client.channels.close(refused);
    assert_eq!(client.read(&refusal(refused.0, 2, "no")), Ok(vec![]));
    assert!(client.channels.is_empty());
    assert_eq!(client.channels.refused(), 1);
}

#[test]
fn a_refusal_has_its_reason_and_its_text() {
    let mut client = client();
    for (reason, kind) in [
        (1, Refusal::AdministrativelyProhibited),
        (2, Refusal::ConnectFailed),
        (7, Refusal::Other(7)),
    ] {
        let id = client.open();
        client.write_all();
        let events = client.read(&refusal(id.0, reason, "Connection\r\n refused"));
        let refused = Event::Refused {
            id,
            reason: kind,
            text: "Connection refused".into(),
        };
        assert_eq!(events, Ok(vec![refused]));
    }
    assert_eq!(client.channels.refused(), 3);
    assert!(client.channels.is_empty());
}

#[test]
fn channels_are_bounded_and_numbers_come_back_late() {
    let mut client = Client::new(Config {
        max_channels: 2,
        ..Config::default()
    });
    let first = client.opened(1, 1);
    client.open();
    let third = client.channels.open(ChannelType::session());
    assert_eq!(third, Err(Full));
    client.channels.close(first);
    client.write_all();
    assert!(client.channels.open(ChannelType::session()).is_err());
    client.read(&close(first.0)).unwrap();
    let again = client.open();
    assert_ne!(again, first, "an old number means nothing");
}

#[test]
fn an_old_number_means_nothing_although_its_place_is_taken() {
    let mut client = Client::new(Config {
        max_channels: 1,
        ..Config::default()
    });
    let old = client.opened(100, 100);
    client.read(&close(old.0)).unwrap();
    client.write_all();
    let new = client.opened(100, 100);
    let sent = client.channels.send(old, Bytes::from_static(b"x"));
    assert_eq!(sent, Err(SendError::Closed));
    client.channels.abort(old);
    assert!(!client.channels.has_output());
    assert_eq!(client.send(new, b"x"), 1);
    let error = client.read(&data(old.0, b"x")).unwrap_err();
    assert!(matches!(error, Fault::UnknownChannel { .. }), "{error}");
}

#[test]
fn an_answer_measures_the_path() {
    let mut client = client();
    let first = client.open();
    client.write_all();
    client.pass(Duration::from_millis(30));
    client.read(&confirmation(first.0, 1, 1, 1)).unwrap();
    let measured = |client: &Client| client.channels.budget().round_trip();
    assert_eq!(measured(&client), Some(Duration::from_millis(30)));
    let second = client.open();
    // What waits on our side is not the path.
    client.pass(Duration::from_secs(1));
    client.write_all();
    client.pass(Duration::from_millis(20));
    client.read(&refusal(second.0, 2, "no")).unwrap();
    assert_eq!(measured(&client), Some(Duration::from_millis(20)));
}

#[test]
fn a_packet_size_of_zero_sends_nothing() {
    let mut client = client();
    let id = client.opened(1000, 0);
    assert_eq!(client.send(id, b"x"), 0);
    client.read(&adjust(0, 1000)).unwrap();
    assert_eq!(client.channels.poll_writable(), None);
    assert_eq!(client.write_all(), b"");
}

#[test]
fn a_sender_is_told_once_when_there_is_room() {
    let mut client = client();
    let id = client.opened(10, 100);
    assert_eq!(client.send(id, &[0; 30]), 10);
    assert_eq!(client.channels.poll_writable(), None);
    client.write_all();
    assert_eq!(client.channels.poll_writable(), None, "no window yet");
    client.read(&adjust(0, 5)).unwrap();
    client.read(&adjust(0, 5)).unwrap();
    assert_eq!(client.channels.poll_writable(), Some(id));
    assert_eq!(client.channels.poll_writable(), None);
    assert_eq!(client.send(id, &[10; 5]), 5);
    assert_eq!(client.channels.poll_writable(), None, "all was taken");
}

#[test]
fn what_is_queued_is_bounded() {
    let mut client = client();
    let ids: Vec<_> = (0..1000)
        .map(|_| client.opened(u32::MAX, 32 * 1024))
        .collect();
    for id in &ids {
        while client.send(*id, &[0; 32 * 1024]) > 0 {}
    }
    let bound = client.channels.config.max_queued + ids.len() * super::super::LEAST_QUEUE;
    assert!(client.channels.queued() <= bound + super::super::QUEUE);
    client.write_all();
    let told: Vec<_> = std::iter::from_fn(|| client.channels.poll_writable()).collect();
    assert_eq!(told.len(), ids.len(), "everybody may go on");
}
