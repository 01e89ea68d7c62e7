//! A server as plain as can be: its own reading and writing of messages, and a check of everything that a client
//! may not do.

use std::collections::BTreeMap;

pub(super) fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 1).unwrap();
    [&length.to_be_bytes(), &[0][..], payload].concat()
}

/// A message of a number and fields that are u32s.
pub(super) fn message(number: u8, fields: &[u32]) -> Vec<u8> {
    let mut payload = vec![number];
    payload.extend(fields.iter().flat_map(|field| field.to_be_bytes()));
    frame(&payload)
}

/// A message of a number, u32s, and a string.
pub(super) fn with_string(number: u8, fields: &[u32], string: &[u8]) -> Vec<u8> {
    let mut payload = vec![number];
    payload.extend(fields.iter().flat_map(|field| field.to_be_bytes()));
    payload.extend(u32::try_from(string.len()).unwrap().to_be_bytes());
    payload.extend(string);
    frame(&payload)
}

pub(super) fn confirmation(client: u32, server: u32, window: u32, max_packet: u32) -> Vec<u8> {
    message(91, &[client, server, window, max_packet])
}

pub(super) fn refusal(client: u32, reason: u32, text: &str) -> Vec<u8> {
    with_string(92, &[client, reason], text.as_bytes())
}

pub(super) fn data(client: u32, bytes: &[u8]) -> Vec<u8> {
    with_string(94, &[client], bytes)
}

pub(super) fn adjust(client: u32, bytes: u32) -> Vec<u8> {
    message(93, &[client, bytes])
}

pub(super) fn eof(client: u32) -> Vec<u8> {
    message(96, &[client])
}

pub(super) fn close(client: u32) -> Vec<u8> {
    message(97, &[client])
}

pub(super) fn request(client: u32, name: &str, want_reply: bool) -> Vec<u8> {
    let mut framed = with_string(98, &[client], name.as_bytes());
    framed.push(u8::from(want_reply));
    frame(&framed[5..])
}

pub(super) fn global_request(want_reply: bool) -> Vec<u8> {
    let mut framed = with_string(80, &[], b"any@example.org");
    framed.push(u8::from(want_reply));
    frame(&framed[5..])
}

/// The payloads of a whole number of frames.
pub(super) fn payloads(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    while let Some(payload) = take_frame(&mut bytes) {
        payloads.push(payload);
    }
    assert!(bytes.is_empty(), "half a packet");
    payloads
}

fn take_frame(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let length = u32::from_be_bytes(bytes.get(..4)?.try_into().unwrap()) as usize;
    let framed = bytes.get(4..4 + length)?.to_vec();
    assert_eq!(framed[0], 0, "padding");
    *bytes = &bytes[4 + length..];
    Some(framed[1..].to_vec())
}

pub(super) fn field(payload: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(payload[at..at + 4].try_into().unwrap())
}

/// The byte at an offset of the stream of a channel.
pub(super) fn pattern(key: u32, offset: u64) -> u8 {
    (u64::from(key) * 31 + offset * 7 + (offset >> 8)) as u8
}

pub(super) fn stretch(key: u32, from: u64, length: usize) -> Vec<u8> {
    (from..).take(length).map(|at| pattern(key, at)).collect()
}

/// A channel as the server knows it.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) client: u32,
    pub(super) is_open: bool,
    /// What the server may send.
    pub(super) window: u64,
    pub(super) max_packet: usize,
    pub(super) sent: u64,
    /// What the client may send.
    pub(super) granted: u64,
    pub(super) most: usize,
    pub(super) received: u64,
    /// Received and not yet granted again.
    pub(super) taken: u64,
    pub(super) eof_sent: bool,
    pub(super) eof_received: bool,
    pub(super) close_sent: bool,
    pub(super) close_received: bool,
    pub(super) replies: usize,
}

#[derive(Debug, Default)]
pub(super) struct Server {
    input: Vec<u8>,
    pub(super) output: Vec<u8>,
    pub(super) peers: BTreeMap<u32, Peer>,
    next: u32,
    pub(super) global_replies: usize,
    pub(super) refused_opens: usize,
}

impl Server {
    /// Takes bytes of the client and checks each message against the RFC.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Some(payload) = take_frame(&mut rest) {
            self.hear(&payload);
        }
        self.input = rest.to_vec();
    }

    fn hear(&mut self, payload: &[u8]) {
        match payload[0] {
            82 => self.global_replies += 1,
            90 => self.hear_open(payload),
            92 => self.refused_opens += 1,
            _ => self.hear_peer(payload),
        }
    }

    fn hear_open(&mut self, payload: &[u8]) {
        let fields = 5 + field(payload, 1) as usize;
        let client = field(payload, fields);
        let in_use = self.peers.values().any(|peer| peer.client == client);
        assert!(!in_use, "number {client:#x} is used again too early");
        let peer = Peer {
            client,
            window: field(payload, fields + 4).into(),
            max_packet: field(payload, fields + 8) as usize,
            ..Peer::default()
        };
        self.next += 1;
        self.peers.insert(self.next, peer);
    }

    fn hear_peer(&mut self, payload: &[u8]) {
        let number = field(payload, 1);
        let peer = self.peers.get_mut(&number).expect("a channel that exists");
        assert!(peer.is_open, "{payload:?} before the confirmation");
        assert!(!peer.close_received, "{payload:?} after CLOSE");
        match payload[0] {
            93 => peer.window += u64::from(field(payload, 5)),
            94 => {
                assert!(!peer.eof_received, "data after EOF");
                let bytes = &payload[9..];
                assert_eq!(field(payload, 5) as usize, bytes.len());
                assert!(bytes.len() <= peer.most, "a packet larger than advertised");
                assert!(bytes.len() as u64 <= peer.granted, "window exceeded");
                assert!(bytes == stretch(peer.client, peer.received, bytes.len()));
                peer.granted -= bytes.len() as u64;
                peer.received += bytes.len() as u64;
                peer.taken += bytes.len() as u64;
            }
            96 => {
                assert!(!peer.eof_received, "a second EOF");
                peer.eof_received = true;
            }
            97 => peer.close_received = true,
            98 => {}
            100 => peer.replies += 1,
            other => panic!("message {other}"),
        }
        assert!(peer.window < 1 << 32, "a window beyond 32 bits");
        self.drop_closed(number);
    }

    fn drop_closed(&mut self, number: u32) {
        let peer = &self.peers[&number];
        if peer.close_sent && peer.close_received {
            self.peers.remove(&number);
        }
    }

    pub(super) fn confirm(&mut self, number: u32, window: u32, most: u32) {
        let peer = self.peers.get_mut(&number).unwrap();
        peer.is_open = true;
        peer.granted = window.into();
        peer.most = most as usize;
        let client = peer.client;
        self.output
            .extend(confirmation(client, number, window, most));
    }

    pub(super) fn refuse(&mut self, number: u32) {
        let peer = self.peers.remove(&number).unwrap();
        self.output
            .extend(refusal(peer.client, 2, "Connection refused"));
    }

    /// Sends up to so many bytes of the channel's pattern.
    pub(super) fn send(&mut self, number: u32, most: usize) {
        let peer = self.peers.get_mut(&number).unwrap();
        let window = usize::try_from(peer.window).unwrap();
        let length = most.min(window).min(peer.max_packet);
        let bytes = stretch(peer.client, peer.sent, length);
        peer.sent += length as u64;
        peer.window -= length as u64;
        let client = peer.client;
        self.output.extend(data(client, &bytes));
    }

    pub(super) fn grant(&mut self, number: u32) {
        let peer = self.peers.get_mut(&number).unwrap();
        let grant = std::mem::take(&mut peer.taken);
        peer.granted += grant;
        let framed = adjust(peer.client, u32::try_from(grant).unwrap());
        self.output.extend(framed);
    }

    pub(super) fn eof(&mut self, number: u32) {
        let peer = self.peers.get_mut(&number).unwrap();
        peer.eof_sent = true;
        self.output.extend(eof(peer.client));
    }

    pub(super) fn close(&mut self, number: u32) {
        let peer = self.peers.get_mut(&number).unwrap();
        peer.close_sent = true;
        self.output.extend(close(peer.client));
        self.drop_closed(number);
    }
}
