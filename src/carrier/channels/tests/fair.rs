//! Who sends when.

use super::server::{field, payloads};
use super::*;

const BULK: usize = 128 * 1024;

/// Channels of the data messages in `bytes`, by the numbers of the server, and their lengths.
fn order(bytes: &[u8]) -> Vec<(u32, usize)> {
    let payloads = payloads(bytes);
    let data = payloads.iter().filter(|payload| payload[0] == 94);
    data.map(|payload| (field(payload, 1), payload.len() - 9))
        .collect()
}

fn with_channels(count: u32) -> (Client, Vec<ChannelId>) {
    let mut client = Client::new(Config::default());
    let mut ids = Vec::new();
    for number in 0..count {
        let id = client.open();
        client.write_all();
        let confirmation = server::confirmation(id.0, number, u32::MAX, 32 * 1024);
        client.read(&confirmation).unwrap();
        ids.push(id);
    }
    (client, ids)
}

#[test]
fn flows_share_by_bytes() {
    let (mut client, ids) = with_channels(3);
    client.send(ids[0], &[0; BULK]);
    client.send(ids[1], &[0; BULK]);
    // Many small pieces are gathered into full packets.
    for _ in 0..32 {
        assert_eq!(client.send(ids[2], &[0; 4096]), 4096);
    }
    let order = order(&client.write_all());
    let full = 32 * 1024;
    let round = [(0, full), (1, full), (2, full)];
    assert_eq!(order, round.repeat(4));
}

#[test]
fn a_small_flow_waits_for_no_large_one() {
    let (mut client, ids) = with_channels(9);
    for bulk in &ids[1..] {
        client.send(*bulk, &[0; BULK]);
    }
    // The first packets are on their way.
    let first = client.written(usize::MAX);
    assert_eq!(order(&first).len(), 4);
    client.send(ids[0], b"echo");
    let next = [client.written(usize::MAX), client.written(usize::MAX)].concat();
    let place = order(&next).iter().position(|(channel, _)| *channel == 0);
    // Behind the four bulk channels that were there before it, and one of those that had a turn.
    assert_eq!(place, Some(5));
    for _ in 0..3 {
        client.send(ids[0], b"echo");
        let order = order(&client.written(usize::MAX));
        let place = order.iter().position(|(channel, _)| *channel == 0);
        assert!(
            place <= Some(1) && place.is_some(),
            "before most that had a turn"
        );
        assert!(order.len() > 3);
    }
}

#[test]
fn a_large_flow_is_not_starved_by_small_ones() {
    let (mut client, ids) = with_channels(101);
    client.send(ids[0], &[0; BULK]);
    client.written(usize::MAX);
    client.send(ids[0], &[0; BULK]);
    let mut bulk = 0;
    for _ in 0..20 {
        for small in &ids[1..] {
            client.send(*small, b"echo");
        }
        let order = order(&client.written(usize::MAX));
        bulk += order.iter().filter(|(channel, _)| *channel == 0).count();
    }
    assert!(bulk >= 4, "{bulk} packets");
}
