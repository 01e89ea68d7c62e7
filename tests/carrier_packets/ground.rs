//! A network namespace for one test, with an sshd in it that makes tunnels, and packets made by hand.

use std::fs::File;
use std::future::Future;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use underpass::carrier::PacketLink;

/// Our end, and the far one, on the device.
pub(crate) const OURS: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 1);
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 2);

/// The network of this file's tests. One for all: what starts ssh for them is one thread.
static NETWORK: OnceLock<File> = OnceLock::new();
/// Whose turn it is there.
static TURN: Mutex<()> = Mutex::new(());

/// Runs `test` in a network of its own, where loopback is up and nothing else is. What it starts is in there, too.
pub(crate) fn alone<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let network = NETWORK.get_or_init(|| {
        // For this thread, and those that it starts.
        unshare(CloneFlags::CLONE_NEWNET)
            .expect("these tests make a network namespace: run them as root");
        ip("link set lo up");
        File::open("/proc/thread-self/ns/net").unwrap()
    });
    setns(network, CloneFlags::CLONE_NEWNET).unwrap();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test());
}

/// Whether `ip` has done it.
pub(crate) fn try_ip(arguments: &str) -> bool {
    let mut command = Command::new("ip");
    let output = command.args(arguments.split(' ')).output().unwrap();
    output.status.success()
}

pub(crate) fn ip(arguments: &str) {
    assert!(try_ip(arguments), "ip {arguments}");
}

/// The far side set up: device `name` has its addresses and is up.
pub(crate) fn set_up(name: &str, mtu: u32) {
    ip(&format!("addr add {FAR} peer {OURS} dev {name}"));
    ip(&format!("link set {name} mtu {mtu} up"));
    ip(&format!("addr add fd77::2/64 nodad dev {name}"));
}

/// Waits until `is_so`; an event of the kernel's that nobody tells.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s: {what}");
}

fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2);
    words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)))
        .sum()
}

fn checksum(sum: u32) -> [u8; 2] {
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    (!u16::try_from(folded).unwrap()).to_be_bytes()
}

fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![
        0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, protocol, 0, 0,
    ];
    packet.extend(OURS.octets());
    packet.extend(FAR.octets());
    let header = checksum(sum(&packet));
    packet[10..12].copy_from_slice(&header);
    packet.extend(payload);
    packet
}

/// An echo request, of `length` bytes behind its header.
pub(crate) fn ping(sequence: u16, length: usize) -> Vec<u8> {
    let mut echo = vec![8, 0, 0, 0, 0, 1];
    echo.extend(sequence.to_be_bytes());
    echo.resize(8 + length, 7);
    let check = checksum(sum(&echo));
    echo[2..4].copy_from_slice(&check);
    v4(1, &echo)
}

/// An echo request of IPv6, from fd77::1 to fd77::2.
pub(crate) fn ping6(sequence: u16) -> Vec<u8> {
    let ends: Vec<u8> = [1, 2]
        .iter()
        .flat_map(|last| [&[0xfd, 0x77][..], &[0; 13], &[*last]].concat())
        .collect();
    let mut echo = vec![128, 0, 0, 0, 0, 1];
    echo.extend(sequence.to_be_bytes());
    echo.extend([7; 56]);
    let check = checksum(sum(&ends) + 58 + u32::try_from(echo.len()).unwrap() + sum(&echo));
    echo[2..4].copy_from_slice(&check);
    let length = u8::try_from(echo.len()).unwrap();
    [&[0x60, 0, 0, 0, 0, length, 58, 64][..], &ends, &echo].concat()
}

/// A datagram of UDP. Its checksum is left out, which IPv4 allows.
pub(crate) fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut datagram: Vec<u8> = [from, to, length, 0]
        .iter()
        .flat_map(|field| field.to_be_bytes())
        .collect();
    datagram.extend(payload);
    v4(17, &datagram)
}

/// The payload of a datagram of UDP over IPv4.
pub(crate) fn payload_of(packet: &[u8]) -> Option<&[u8]> {
    (packet[0] == 0x45 && packet[9] == 17).then(|| &packet[28..])
}

/// The number of an echo reply, of either version.
pub(crate) fn answered(packet: &[u8]) -> Option<u16> {
    let echo = match packet[0] >> 4 {
        4 if packet[9] == 1 && packet[20] == 0 => &packet[20..],
        6 if packet[6] == 58 && packet[40] == 129 => &packet[40..],
        _ => return None,
    };
    Some(u16::from_be_bytes([echo[6], echo[7]]))
}

/// Sends `packet` until the echo with this number is answered.
pub(crate) async fn is_answered(link: &PacketLink, packet: &[u8], sequence: u16) {
    for _ in 0..100 {
        link.send(packet);
        let reply = async {
            loop {
                let packet = link.recv().await.expect("the tunnel is there");
                if answered(&packet) == Some(sequence) {
                    return packet;
                }
            }
        };
        if let Ok(reply) = tokio::time::timeout(Duration::from_millis(500), reply).await {
            assert_eq!(reply.len(), packet.len());
            return;
        }
    }
    panic!("no answer to {sequence}, {:?}", link.drops());
}

/// Sends back what comes to a port of the far end, for as long as the process lives.
pub(crate) fn echo_udp() -> u16 {
    let socket = UdpSocket::bind((FAR, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut datagram = [0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(&datagram[..length], from);
        }
    });
    port
}
