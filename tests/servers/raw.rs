//! Lies below SSH's encryption: raw bytes to whoever connects.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A lie, by name: what is sent, and what then.
pub(crate) type Lie = (&'static str, Tell);

/// What a server does that lies.
#[derive(Clone, Copy)]
pub(crate) enum Tell {
    /// These bytes, then the end of the connection.
    End(fn() -> Vec<u8>),
    /// These bytes, then nothing more.
    Silence(fn() -> Vec<u8>),
    /// These bytes, then these again and again.
    Flood(fn() -> Vec<u8>, fn() -> Vec<u8>),
}

/// Message numbers (RFC 4253 section 12).
const DISCONNECT: u8 = 1;
const IGNORE: u8 = 2;
const DEBUG: u8 = 4;
const KEXINIT: u8 = 20;
const NEWKEYS: u8 = 21;
const KEX_ECDH_REPLY: u8 = 31;
const CHANNEL_DATA: u8 = 94;

pub(crate) const LIES: [Lie; 29] = [
    ("nothing", Tell::End(Vec::new)),
    ("silence", Tell::Silence(Vec::new)),
    (
        "http",
        Tell::End(|| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
    ),
    ("ssh 1", Tell::Silence(|| b"SSH-1.5-old\r\n".to_vec())),
    (
        "lines without end",
        Tell::Flood(Vec::new, || b"welcome\r\n".to_vec()),
    ),
    (
        "a line without end",
        Tell::Flood(Vec::new, || vec![b'x'; 1000]),
    ),
    ("zeros without end", Tell::Flood(Vec::new, || vec![0; 1000])),
    ("half a banner", Tell::End(|| b"SSH-2.0-l".to_vec())),
    (
        "half a banner, silence",
        Tell::Silence(|| b"SSH-2.0-l".to_vec()),
    ),
    ("a banner", Tell::End(banner)),
    ("a banner, silence", Tell::Silence(banner)),
    (
        "a banner in latin1",
        Tell::End(|| b"SSH-2.0-caf\xe9\r\n".to_vec()),
    ),
    (
        "garbage for keys",
        Tell::Silence(|| after_banner(&[0xAA; 4096])),
    ),
    (
        "garbage without end",
        Tell::Flood(banner, || vec![0x5A; 4096]),
    ),
    (
        "a packet of nothing",
        Tell::Silence(|| after_banner(&[0; 64])),
    ),
    (
        "a packet of 4 GB",
        Tell::Silence(|| after_banner(&[0xFF; 64])),
    ),
    (
        "a packet of padding only",
        Tell::Silence(|| after_banner(&[0, 0, 0, 12, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
    ),
    (
        "half a list of algorithms",
        Tell::Silence(|| after_banner(&packet(KEXINIT, &[0; 20]))),
    ),
    (
        "a list that is longer than its packet",
        Tell::Silence(|| {
            after_banner(&packet(
                KEXINIT,
                &[&[0; 16][..], &[0xFF; 4], b"curve25519-sha256"].concat(),
            ))
        }),
    ),
    (
        "no common algorithm",
        Tell::Silence(|| after_banner(&algorithms("rot13"))),
    ),
    (
        "algorithms, then the end",
        Tell::End(|| after_banner(&algorithms("curve25519-sha256"))),
    ),
    (
        "algorithms, then silence",
        Tell::Silence(|| after_banner(&algorithms("curve25519-sha256"))),
    ),
    (
        "half a key",
        Tell::Silence(|| exchange(KEX_ECDH_REPLY, &[0, 0, 0, 200, 1])),
    ),
    (
        "a key of zeros",
        Tell::Silence(|| exchange(KEX_ECDH_REPLY, &zero_key())),
    ),
    (
        "new keys without an exchange",
        Tell::Silence(|| exchange(NEWKEYS, &[])),
    ),
    (
        "data before the keys",
        Tell::Silence(|| exchange(CHANNEL_DATA, &[0; 8])),
    ),
    (
        "ignore without end",
        Tell::Flood(banner, || packet(IGNORE, &[0, 0, 0, 0])),
    ),
    (
        "debug without end",
        Tell::Flood(banner, || packet(DEBUG, &[1, 0, 0, 0, 1, 0x1b, 0, 0, 0, 0])),
    ),
    (
        "goodbye",
        Tell::End(|| after_banner(&packet(DISCONNECT, &goodbye()))),
    ),
];

fn banner() -> Vec<u8> {
    b"SSH-2.0-liar\r\n".to_vec()
}

fn after_banner(bytes: &[u8]) -> Vec<u8> {
    [&banner(), bytes].concat()
}

/// An unencrypted packet (RFC 4253 section 6).
fn packet(kind: u8, payload: &[u8]) -> Vec<u8> {
    let padding = 4 + (16 - (4 + 1 + 1 + payload.len() + 4) % 16) % 16;
    let length = u32::try_from(1 + 1 + payload.len() + padding).unwrap();
    let mut packet = length.to_be_bytes().to_vec();
    packet.push(u8::try_from(padding).unwrap());
    packet.push(kind);
    packet.extend_from_slice(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

fn string(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

/// KEXINIT (RFC 4253 section 7.1) with one key exchange method.
fn algorithms(kex: &str) -> Vec<u8> {
    let mut payload = vec![7; 16];
    for list in [
        kex,
        "ssh-ed25519",
        "aes128-gcm@openssh.com",
        "aes128-gcm@openssh.com",
        "hmac-sha2-256",
        "hmac-sha2-256",
        "none",
        "none",
        "",
        "",
    ] {
        payload.extend(string(list));
    }
    payload.extend([0; 5]);
    packet(KEXINIT, &payload)
}

/// Algorithms, and one message of the exchange.
fn exchange(kind: u8, payload: &[u8]) -> Vec<u8> {
    let algorithms = algorithms("curve25519-sha256");
    after_banner(&[algorithms, packet(kind, payload)].concat())
}

/// A host key, a point of the curve and a signature, all zero.
fn zero_key() -> Vec<u8> {
    let zeros = "\0".repeat(32);
    let key = [string("ssh-ed25519"), string(&zeros)].concat();
    let signature = [string("ssh-ed25519"), string(&"\0".repeat(64))].concat();
    let nested = |bytes: Vec<u8>| string(std::str::from_utf8(&bytes).unwrap());
    [nested(key), string(&zeros), nested(signature)].concat()
}

/// A reason, and a text for the terminal.
fn goodbye() -> Vec<u8> {
    [
        vec![0, 0, 0, 2],
        string("Too many\x1b[2J\r\n things"),
        string(""),
    ]
    .concat()
}

/// A port of loopback at which each connection is told the lie.
pub(crate) async fn serve(tell: Tell) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let mut heard = vec![0; 4096];
        let hearing = async { while matches!(read.read(&mut heard).await, Ok(1..)) {} };
        // Until the other side has had enough.
        tokio::select! {
            () = hearing => {}
            () = say(&mut write, tell) => {}
        }
    });
    port
}

async fn say(write: &mut tokio::net::tcp::OwnedWriteHalf, tell: Tell) {
    let (first, flood) = match tell {
        Tell::End(bytes) => (bytes, None),
        Tell::Silence(bytes) => (bytes, Some(Vec::new())),
        Tell::Flood(bytes, more) => (bytes, Some(more())),
    };
    let _ = write.write_all(&first()).await;
    let Some(flood) = flood else { return };
    if flood.is_empty() {
        return std::future::pending().await;
    }
    while write.write_all(&flood).await.is_ok() {}
}
