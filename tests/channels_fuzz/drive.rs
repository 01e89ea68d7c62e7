//! Bytes as a story: what the owners of channels do and what a server says, one step per byte or so. Whatever the story,
//! nothing panics, memory stays within its bounds, and what goes to the server is what RFC 4254 and sshd put up with.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use underpass::carrier::channels::{
    ChannelId, ChannelType, Channels, Config, Decoder, Event, Outgoing, TunLayer,
};

const CONFIG: Config = Config {
    max_channels: 8,
    max_packet: 1024,
    max_queued: 8 * 1024,
};
/// Most bytes on their way out: the bound over all, what one channel may add to it at once, and what each always may.
const QUEUED: usize = CONFIG.max_queued + 128 * 1024 + 8 * 4 * 1024;

/// Plays the story of `bytes`; the kinds of messages that the server has read.
pub(crate) fn drive(bytes: &[u8]) -> Vec<u8> {
    let mut story = Story::new();
    let mut source = bytes;
    while let Some(step) = byte(&mut source) {
        if story.step(step, &mut source).is_none() {
            break;
        }
        story.is_within_bounds();
    }
    story.read
}

fn byte(source: &mut &[u8]) -> Option<u8> {
    source.try_get_u8().ok()
}

fn word(source: &mut &[u8]) -> u32 {
    source.try_get_u16().map_or(7, u32::from)
}

/// A channel that the server has confirmed: what it lets us send, and what we have said.
struct Peer {
    window: u64,
    max_packet: u32,
    eof: bool,
    closed: bool,
}

struct Story {
    channels: Channels,
    decoder: Decoder,
    out: Outgoing,
    now: Instant,
    /// The owners' names of their channels, and the bytes that each has to pass on.
    owned: Vec<(ChannelId, usize)>,
    /// Our numbers, as the server read them.
    numbers: Vec<u32>,
    /// By the server's number.
    peers: BTreeMap<u32, Peer>,
    /// What the server has not read to the end.
    unread: Vec<u8>,
    /// The kinds of messages that it has read.
    read: Vec<u8>,
}

impl Story {
    fn new() -> Self {
        Self {
            channels: Channels::new(CONFIG),
            decoder: Decoder::new(CONFIG.max_payload()),
            out: Outgoing::default(),
            now: Instant::now(),
            owned: Vec::new(),
            numbers: Vec::new(),
            peers: BTreeMap::new(),
            unread: Vec::new(),
            read: Vec::new(),
        }
    }

    /// `None` at the end of the story: the server broke the protocol, and that was noticed.
    fn step(&mut self, step: u8, source: &mut &[u8]) -> Option<()> {
        match step % 24 {
            0 => {
                if let Ok(id) = self.channels.open(ChannelType::session()) {
                    self.owned.push((id, 0));
                }
            }
            1..=6 => self.own(step % 24, source),
            9 => {
                let tunnel = ChannelType::tun(TunLayer::Ethernet, None);
                if let Ok(id) = self.channels.open(tunnel) {
                    self.owned.push((id, 0));
                }
            }
            7 | 8 => self.write(word(source) as usize * 16),
            10 => self.now += Duration::from_millis(word(source).into()),
            11 => return self.confirm(source),
            12 => return self.raw(source),
            kind => return self.say(kind, source),
        }
        Some(())
    }

    /// What the owner of a channel does.
    fn own(&mut self, kind: u8, source: &mut &[u8]) {
        if self.owned.is_empty() {
            return;
        }
        let which = usize::from(byte(source).unwrap_or(0)) % self.owned.len();
        let (id, held) = &mut self.owned[which];
        let length = word(source) as usize;
        // What is refused is refused: the owner may come too late.
        match kind {
            1 => {
                let data = Bytes::from(vec![1; length]);
                match self.channels.max_datagram(*id) {
                    Some(_) => _ = (self.channels).send_datagram(self.now, *id, 1, data),
                    None => _ = self.channels.send(*id, data),
                }
            }
            2 => _ = self.channels.eof(*id),
            3 => self.channels.close(*id),
            4 => self.channels.abort(*id),
            5 => {
                _ = self
                    .channels
                    .request(*id, "x", length.is_multiple_of(2), &[])
            }
            _ => {
                let length = length.min(*held);
                *held -= length;
                self.channels.consumed(self.now, *id, length);
            }
        }
        while self.channels.poll_writable().is_some() {}
    }

    fn write(&mut self, most: usize) {
        self.channels.poll_output(self.now, &mut self.out);
        let length = most.min(self.out.remaining());
        let written = self.out.copy_to_bytes(length);
        self.unread.extend_from_slice(&written);
        self.listen();
    }

    /// The server opens one of our channels, under a number that it has not used before.
    fn confirm(&mut self, source: &mut &[u8]) -> Option<()> {
        let ours = self.number(source);
        let number = 1000 + u32::try_from(self.peers.len()).unwrap();
        let (window, max_packet) = (word(source), word(source));
        let fields = [ours, number, window, max_packet];
        self.hear(&frame(91, &fields, &[]))?;
        let peer = Peer {
            window: window.into(),
            max_packet,
            eof: false,
            closed: false,
        };
        self.peers.insert(number, peer);
        Some(())
    }

    fn say(&mut self, kind: u8, source: &mut &[u8]) -> Option<()> {
        let ours = self.number(source);
        let length = word(source);
        let data = vec![2; usize::try_from(length).unwrap().min(2000)];
        let frame = match kind {
            13 | 14 => frame(94, &[ours], &string(&data)),
            15 => frame(95, &[ours, 1], &string(&data)),
            16 => frame(92, &[ours, length], &[string(b"no"), string(b"")].concat()),
            17 => frame(96, &[ours], &[]),
            18 => frame(97, &[ours], &[]),
            19 => frame(
                98,
                &[ours],
                &[string(b"x"), vec![u8::from(length.is_multiple_of(2))]].concat(),
            ),
            20 => frame(99 + u8::from(length.is_multiple_of(2)), &[ours], &[]),
            21 => frame(80, &[], &[string(b"x"), vec![1]].concat()),
            22 => frame(90, &[], &[string(b"x"), vec![0; 12]].concat()),
            _ => {
                self.hear(&frame(93, &[ours, length], &[]))?;
                // Nothing is known here of which number goes with which: no check is too strict so.
                for peer in self.peers.values_mut() {
                    peer.window += u64::from(length);
                }
                return Some(());
            }
        };
        self.hear(&frame)
    }

    /// Bytes as they come.
    fn raw(&mut self, source: &mut &[u8]) -> Option<()> {
        let length = usize::from(byte(source).unwrap_or(0)).min(source.len());
        let bytes = source.copy_to_bytes(length);
        self.hear(&bytes)
    }

    /// One of our numbers, or any.
    fn number(&self, source: &mut &[u8]) -> u32 {
        let choice = byte(source).unwrap_or(0);
        if choice == 255 || self.numbers.is_empty() {
            return u32::from(choice);
        }
        self.numbers[usize::from(choice) % self.numbers.len()]
    }

    /// The client reads from the server.
    fn hear(&mut self, bytes: &[u8]) -> Option<()> {
        self.decoder.space().extend_from_slice(bytes);
        while let Some(payload) = self.decoder.packet().ok()? {
            if let Some(event) = self.channels.handle(self.now, payload).ok()? {
                self.happens(event);
            }
        }
        Some(())
    }

    fn happens(&mut self, event: Event) {
        let (Event::Data { id, data } | Event::ExtendedData { id, data, .. }) = event else {
            return;
        };
        assert!(!data.is_empty() && data.len() <= 1024);
        let owner = self.owned.iter_mut().find(|(owned, _)| *owned == id);
        owner.expect("data is somebody's").1 += data.len();
    }

    /// The server reads what we wrote.
    fn listen(&mut self) {
        while let Some(length) = self.unread.first_chunk::<4>() {
            let end = 4 + usize::try_from(u32::from_be_bytes(*length)).unwrap();
            if self.unread.len() < end {
                return;
            }
            let frame: Vec<u8> = self.unread.drain(..end).collect();
            assert_eq!(frame[4], 0, "no padding");
            self.read.push(frame[5]);
            self.understand(frame[5], &frame[6..]);
        }
    }

    fn understand(&mut self, kind: u8, mut fields: &[u8]) {
        match kind {
            90 => {
                let name = usize::try_from(fields.get_u32()).unwrap();
                let is_tunnel = &fields[..name] == b"tun@openssh.com";
                fields.advance(name);
                self.numbers.push(fields.get_u32());
                // Window and packet size; of a tunnel also its mode and unit.
                assert_eq!(fields.len(), if is_tunnel { 16 } else { 8 });
            }
            93..=100 => self.check(kind, fields),
            // REQUEST_FAILURE, OPEN_FAILURE.
            82 | 92 => {}
            _ => panic!("message {kind}"),
        }
    }

    /// Messages about one channel. sshd ends the session when anything but a window follows our CLOSE.
    fn check(&mut self, kind: u8, mut fields: &[u8]) {
        let number = fields.get_u32();
        let peer = self
            .peers
            .get_mut(&number)
            .expect("a number of the server's");
        assert!(kind == 93 || !peer.closed, "message {kind} after CLOSE");
        match kind {
            94 => {
                let length = fields.get_u32();
                assert_eq!(fields.len(), usize::try_from(length).unwrap());
                assert!(!peer.eof, "data after EOF");
                assert!(length > 0 && length <= peer.max_packet);
                peer.window = peer.window.checked_sub(length.into()).expect("window");
            }
            96 => assert!(!std::mem::replace(&mut peer.eof, true), "a second EOF"),
            97 => peer.closed = true,
            _ => {}
        }
    }

    fn is_within_bounds(&mut self) {
        assert!(self.decoder.space().capacity() <= 512 * 1024);
        assert!(self.channels.len() <= usize::from(CONFIG.max_channels));
        assert!(self.channels.queued() <= QUEUED);
    }
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes(), bytes].concat()
}

/// A packet as the control socket carries it: length, no padding, number, fields.
fn frame(kind: u8, fields: &[u32], rest: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, kind];
    for field in fields {
        payload.extend_from_slice(&field.to_be_bytes());
    }
    payload.extend_from_slice(rest);
    string(&payload)
}
