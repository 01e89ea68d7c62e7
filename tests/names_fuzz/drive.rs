//! The name server against whatever clients and far resolvers say: a story, told by bytes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use underpass::resolve::{Config, Deframer, Pools, Resolver, Taken, View, Way, Zones};

/// Two far resolvers and a near one.
const SERVERS: usize = 3;

/// 10.0.0.0/8 as 100.0.0.0/8, and fd00::/8 as fe00::/8.
#[derive(Debug)]
struct Moved;

fn moved(ip: IpAddr, [from, to]: [(u8, u8); 2]) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) if ip.octets()[0] == from.0 => {
            let [_, b, c, d] = ip.octets();
            Some([to.0, b, c, d].into())
        }
        IpAddr::V6(ip) if ip.octets()[0] == from.1 => {
            let mut octets = ip.octets();
            octets[0] = to.1;
            Some(octets.into())
        }
        _ => None,
    }
}

impl View for Moved {
    fn near(&self, far: IpAddr) -> Option<IpAddr> {
        moved(far, [(10, 0xfd), (100, 0xfe)])
    }

    fn far(&self, near: IpAddr) -> Option<IpAddr> {
        moved(near, [(100, 0xfe), (10, 0xfd)])
    }

    fn is_dead(&self, far: IpAddr) -> bool {
        matches!(far, IpAddr::V6(ip) if ip.segments()[0] == 0xfdff)
    }
}

fn pools() -> Pools {
    Pools {
        v4: "198.19.0.0/29".parse().unwrap(),
        v6: Some("fd75::/64".parse().unwrap()),
    }
}

/// Plays a story: each step is a kind, a length, and as many bytes. How many answers clients got; nobody gets two.
pub(crate) fn drive(story: &[u8]) -> usize {
    let zones = Zones::below(&["corp.internal"], &["100.0.0.0/8".parse().unwrap()]).unwrap();
    let mut resolver = Resolver::new(Config {
        zones,
        view: Arc::new(Moved),
        pools: (story.len() % 2 == 1).then(pools),
        far: 2,
        near: 1,
    });
    let (mut rest, mut now) = (story, Instant::now());
    let mut asked: [Vec<Vec<u8>>; SERVERS] = Default::default();
    let mut streams: [Deframer; SERVERS] = Default::default();
    let (mut waiting, mut answered) = (0_usize, 0_usize);
    while let [kind, len, tail @ ..] = rest {
        let (data, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = tail;
        let server = usize::from(kind >> 4) % SERVERS;
        let replies = match kind & 15 {
            0..=4 => {
                let way = [Way::Datagram, Way::Stream][usize::from(kind & 1)];
                match resolver.ask(now, (), way, data) {
                    Taken::Waits => waiting += 1,
                    Taken::Answered(reply) => {
                        assert_eq!(reply.message[..2], data[..2]);
                        answered += 1;
                    }
                    Taken::Noise => {}
                }
                Vec::new()
            }
            5 | 6 => {
                let mut frames = Deframer::default();
                while let Some(frame) = resolver.next_frame(server) {
                    frames.push(&frame);
                }
                asked[server].extend(std::iter::from_fn(|| frames.next_message()));
                Vec::new()
            }
            // What was asked, as an answer, with whatever behind it and over it.
            7..=11 => match asked[server].pop() {
                Some(mut message) => {
                    message[2] |= 0x80;
                    let counts = data.iter().take(3).enumerate();
                    counts.for_each(|(at, count)| message[7 + 2 * at] = count % 4);
                    message.extend(data.iter().skip(3));
                    resolver.handle_message(now, server, &message)
                }
                None => resolver.handle_message(now, server, data),
            },
            12 => {
                streams[server].push(data);
                let mut replies = Vec::new();
                while let Some(message) = streams[server].next_message() {
                    replies.extend(resolver.handle_message(now, server, &message));
                }
                replies
            }
            13 => {
                asked[server].clear();
                resolver.handle_lost(now, server, *len & 1 == 0)
            }
            _ => {
                now += Duration::from_millis(u64::from(*len) * 40);
                resolver.handle_timeout(now)
            }
        };
        answered += replies.len();
        waiting = waiting.checked_sub(replies.len()).expect("one answer each");
    }
    let mut last = 0;
    while let Some(due) = resolver.poll_timeout() {
        last += resolver.handle_timeout(due).len();
    }
    assert!(last == waiting);
    answered + last
}
