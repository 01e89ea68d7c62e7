//! The channel layer against a second, small implementation of the protocol, against lies, and against noise.

mod datagrams;
mod fair;
mod foreign;
mod lies;
mod path;
mod server;
mod transfer;

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};

use super::{ChannelId, ChannelType, Channels, Config, Decoder, Event, Fault, Outgoing};

/// A client as a carrier would wire it, with the writes and reads left to the test.
struct Client {
    channels: Channels,
    decoder: Decoder,
    out: Outgoing,
    now: Instant,
}

impl Client {
    fn new(config: Config) -> Self {
        Self {
            channels: Channels::new(config),
            decoder: Decoder::new(config.max_payload()),
            out: Outgoing::default(),
            now: Instant::now(),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn open(&mut self) -> ChannelId {
        self.channels.open(ChannelType::session()).unwrap()
    }

    /// Bytes for the server, at most so many.
    fn written(&mut self, most: usize) -> Vec<u8> {
        self.channels.poll_output(self.now, &mut self.out);
        let take = most.min(self.out.remaining());
        self.out.copy_to_bytes(take).into()
    }

    /// All bytes for the server.
    fn write_all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let some = self.written(usize::MAX);
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    }

    /// Bytes from the server, and what they mean.
    fn read(&mut self, bytes: &[u8]) -> Result<Vec<Event>, Fault> {
        self.decoder.space().extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(payload) = self.decoder.packet()? {
            events.extend(self.channels.handle(self.now, payload)?);
        }
        Ok(events)
    }

    /// A channel that the server has opened as its number 70 with this window and packet size.
    fn opened(&mut self, window: u32, max_packet: u32) -> ChannelId {
        let id = self.open();
        self.write_all();
        let confirmation = server::confirmation(id.0, 70, window, max_packet);
        assert_eq!(self.read(&confirmation), Ok(vec![Event::Opened(id)]));
        id
    }

    /// Queues all of `data` that fits; how much that was.
    fn send(&mut self, id: ChannelId, data: &[u8]) -> usize {
        let left = self.channels.send(id, Bytes::copy_from_slice(data));
        data.len() - left.unwrap().len()
    }
}

/// A small generator (splitmix64), so that a run depends on its seed alone.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())])
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
