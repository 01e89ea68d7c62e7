//! Channels of datagrams against sshd's way of counting them.

use super::super::{Drops, SendError, TunLayer};
use super::server::{adjust, confirmation, data, field, payloads};
use super::*;

const PACKET: u32 = 32 * 1024;

/// A tunnel that the server has opened as its number 70 with this window.
fn tunnel(client: &mut Client, window: u32) -> ChannelId {
    let kind = ChannelType::tun(TunLayer::PointToPoint, None);
    let id = client.channels.open(kind).unwrap();
    client.write_all();
    client
        .read(&confirmation(id.0, 70, window, PACKET))
        .unwrap();
    id
}

fn push(client: &mut Client, id: ChannelId, flow: u64, datagram: Vec<u8>) {
    let sent = client
        .channels
        .send_datagram(client.now, id, flow, datagram.into());
    assert_eq!(sent, Ok(()));
}

/// The data of the messages to channel `number`.
fn datagrams(bytes: &[u8], number: u32) -> Vec<Vec<u8>> {
    let payloads = payloads(bytes).into_iter();
    let data = payloads.filter(|payload| payload[0] == 94 && field(payload, 1) == number);
    data.map(|payload| payload[9..].to_vec()).collect()
}

#[test]
fn each_is_one_message_and_counts_four_bytes_more() {
    let mut client = Client::new(Config::default());
    let id = tunnel(&mut client, 3 * (1000 + 4));
    let sent: Vec<_> = (0..5).map(|i| vec![i; 1000]).collect();
    for datagram in &sent {
        push(&mut client, id, 1, datagram.clone());
    }
    assert_eq!(datagrams(&client.write_all(), 70), sent[..3]);
    assert!(!client.channels.has_output(), "the window is full");
    // What sshd grants back: each with its four bytes. One byte less than a datagram's is too little.
    client.read(&adjust(id.0, 1003)).unwrap();
    assert!(client.write_all().is_empty());
    client.read(&adjust(id.0, 1)).unwrap();
    assert_eq!(datagrams(&client.write_all(), 70), sent[3..4]);
    client.read(&adjust(id.0, 5000)).unwrap();
    assert_eq!(datagrams(&client.write_all(), 70), sent[4..]);
}

/// sshd does not notice where a count drifts: it drops, and the window shrinks for ever.
#[test]
fn the_count_does_not_drift_over_gigabytes() {
    let mut client = Client::new(Config::default());
    let window = 2 * 1024 * 1024;
    let id = tunnel(&mut client, window);
    let mut open = window;
    let mut consumed = 0;
    for round in 0_u32..200_000 {
        let length = 1 + (round * 7919) % 30_000;
        push(&mut client, id, round.into(), vec![7; length as usize]);
        for datagram in datagrams(&client.write_all(), 70) {
            let counted = u32::try_from(datagram.len()).unwrap() + 4;
            assert!(counted <= open, "sshd would drop it");
            open -= counted;
            consumed += counted;
        }
        // channels.c channel_check_window.
        if window - open > 3 * PACKET {
            client.read(&adjust(id.0, consumed)).unwrap();
            open += consumed;
            consumed = 0;
        }
        client.pass(Duration::from_micros(10));
    }
    assert_eq!(client.channels.drops(id), Drops::default());
    assert_eq!(open + consumed, window);
}

#[test]
fn the_longest_fits_with_its_four_bytes() {
    let mut client = Client::new(Config::default());
    let id = tunnel(&mut client, 2 * 1024 * 1024);
    let most = client.channels.max_datagram(id).unwrap();
    assert_eq!(most, 32 * 1024 - 4);
    push(&mut client, id, 1, vec![1; most]);
    let too_long = vec![1; most + 1];
    let refused = (client.channels).send_datagram(client.now, id, 1, too_long.into());
    assert_eq!(refused, Err(SendError::TooLong));
    assert_eq!(datagrams(&client.write_all(), 70)[0].len(), most);
    let stream = client.opened(1000, 1000);
    let refused = (client.channels).send_datagram(client.now, stream, 1, vec![1].into());
    assert_eq!(refused, Err(SendError::TooLong));
    assert_eq!(client.channels.max_datagram(stream), None);
    client.channels.close(id);
    let late = (client.channels).send_datagram(client.now, id, 1, vec![1].into());
    assert_eq!(late, Err(SendError::Closed));
}

#[test]
fn a_full_window_drops_what_is_old_instead_of_queueing_it() {
    let mut client = Client::new(Config::default());
    let id = tunnel(&mut client, 0);
    // Ten seconds of 8 Mbit/s, and no room.
    for number in 0_u32..10_000 {
        push(
            &mut client,
            id,
            1,
            [&number.to_be_bytes()[..], &[0; 996]].concat(),
        );
        client.write_all();
        client.pass(Duration::from_millis(1));
    }
    client.read(&adjust(id.0, 2 * 1024 * 1024)).unwrap();
    let sent = datagrams(&client.write_all(), 70);
    let first = u32::from_be_bytes(sent[0][..4].try_into().unwrap());
    assert!((9_895..9_905).contains(&first), "{first}");
    assert_eq!(sent.len(), 10_000 - first as usize);
    let Drops { full, late } = client.channels.drops(id);
    assert_eq!(full + late, u64::from(first));
    assert_eq!(client.channels.queued(), 0, "they count for nobody else");
}

/// A flood of datagrams and a bulk transfer share by bytes; a ping waits for neither.
#[test]
fn streams_and_datagrams_take_turns() {
    let mut client = Client::new(Config::default());
    let id = tunnel(&mut client, u32::MAX);
    let stream = client.open();
    client.write_all();
    client
        .read(&confirmation(stream.0, 71, u32::MAX, PACKET))
        .unwrap();
    for _ in 0..300 {
        push(&mut client, id, 1, vec![1; 1400]);
    }
    client.send(stream, &vec![2; 256 * 1024]);
    let first = client.written(usize::MAX);
    let flood: usize = datagrams(&first, 70).iter().map(Vec::len).sum();
    let bulk: usize = datagrams(&first, 71).iter().map(Vec::len).sum();
    assert!(flood.abs_diff(bulk) <= 40 * 1024, "{flood} and {bulk}");
    push(&mut client, id, 2, b"ping".to_vec());
    let next = client.written(usize::MAX);
    let place = datagrams(&next, 70).iter().position(|data| data == b"ping");
    assert!(place <= Some(2) && place.is_some(), "{place:?}");
}

/// sshd drops what does not fit the window: it is wide from the beginning, and stays so beside any number of streams.
#[test]
fn what_comes_may_come_in_bursts() {
    let mut client = Client::new(Config::default());
    let id = tunnel(&mut client, 1000);
    let mut granted: u64 = 4 * 1024 * 1024;
    for _ in 0..100 {
        client.opened(1000, 1000);
    }
    for round in 0..100_000 {
        let length = 1400 + round % 100;
        granted -= length as u64;
        let events = client.read(&data(id.0, &vec![1; length])).unwrap();
        assert!(matches!(&events[..], [Event::Data { data, .. }] if data.len() == length));
        client.channels.consumed(client.now, id, length);
        let written = client.write_all();
        let adjusts = payloads(&written).into_iter();
        granted += adjusts
            .filter(|p| p[0] == 93)
            .map(|p| u64::from(field(&p, 5)))
            .sum::<u64>();
        assert!(granted >= 3 * 1024 * 1024, "{granted} in round {round}");
        client.pass(Duration::from_micros(50));
    }
}
