//! Whole packets over the user's own ssh: a real sshd makes the devices, in a network namespace of each test's own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "carrier_packets/ground.rs"]
mod ground;
#[path = "carrier/rig.rs"]
mod rig;

use std::time::{Duration, Instant};

use ground::{
    FAR, alone, answered, ip, is_answered, payload_of, ping, ping6, set_up, try_ip, udp, until,
};
use rig::Sshd;
use tokio::time::timeout;
use underpass::carrier::{Link, OpensshCarrier, TunnelRefusal};
use underpass::net::PacketKind::{self, Ethernet, Ip};

async fn connect(sshd: &Sshd) -> OpensshCarrier {
    let (plan, client) = (sshd.plan(), sshd.client(&[]));
    OpensshCarrier::connect(&plan, &client).await.unwrap()
}

#[test]
fn pings_go_through_of_any_size_and_both_families() {
    alone(|| async {
        let sshd = Sshd::start("PermitTunnel yes");
        let carrier = connect(&sshd).await;
        let link = carrier.open_packets(Ip, Some(9)).await.unwrap();
        assert_eq!(link.max_len(), 32 * 1024 - 8);
        set_up("tun9", 16_000);
        for (sequence, length) in [(1, 0), (2, 56), (3, 1400), (4, 15_900)] {
            is_answered(&link, &ping(sequence, length), sequence).await;
        }
        is_answered(&link, &ping6(5), 5).await;
        // Longer than fits, and no packets at all: counted, and the tunnel goes on.
        link.send(&ping(6, link.max_len()));
        link.send(b"");
        link.send(&[0; 40]);
        assert_eq!(link.drops().unfit, 3);
        // Longer than the device's own: its kernel takes it, and answers in pieces.
        link.send(&ping(7, 32_700));
        is_answered(&link, &ping(8, 56), 8).await;
        // With the tunnel the device goes, which was made for it.
        drop(link);
        until("tun9 is gone", || !try_ip("link show tun9")).await;
        // The connection stays, and takes another one.
        let link = carrier.open_packets(Ip, None).await.unwrap();
        set_up("tun0", 1500);
        is_answered(&link, &ping(9, 56), 9).await;
        carrier.shutdown().await;
        assert!(
            timeout(Duration::from_secs(5), async {
                while link.recv().await.is_some() {}
            })
            .await
            .is_ok()
        );
        link.send(&ping(1, 56));
        assert_eq!(link.drops().closed, 1);
    });
}

/// sshd counts four bytes more for each datagram that it gets. Were that count to drift, its window of 2 MiB would be used up
/// by half a million datagrams, and it would drop everything from there on without a word.
#[test]
fn a_gigabyte_each_way_leaves_the_windows_as_they_were() {
    const SIZES: [usize; 4] = [64, 1200, 1400, 9000];
    const PACKETS: u32 = 700_000;
    alone(|| async {
        let sshd = Sshd::start("PermitTunnel yes");
        let carrier = connect(&sshd).await;
        let link = carrier.open_packets(Ip, Some(20)).await.unwrap();
        set_up("tun20", 16_000);
        let port = ground::echo_udp();
        is_answered(&link, &ping(1, 56), 1).await;
        let datagram = |number: u32| {
            // Mostly small ones, whose lengths count most beside their bytes.
            let size = SIZES[if number.is_multiple_of(8) {
                3
            } else {
                number as usize % 3
            }];
            let mut payload = vec![number as u8; size];
            payload[..4].copy_from_slice(&number.to_be_bytes());
            udp(5000 + u16::try_from(number % 50).unwrap(), port, &payload)
        };
        let (mut sent, mut got, mut bytes) = ([0, 0], 0, [0, 0]);
        let began = Instant::now();
        while sent[0] < PACKETS {
            // So many on their way that nothing need be lost for want of room.
            for _ in 0..32 {
                let packet = datagram(sent[0]);
                bytes[0] += packet.len();
                link.send(&packet);
                sent[0] += 1;
            }
            while got + 64 < sent[0] - sent[1] {
                let Ok(packet) = timeout(Duration::from_secs(2), link.recv()).await else {
                    // Lost for good: no longer waited for.
                    sent[1] = sent[0] - got;
                    break;
                };
                let packet = packet.unwrap();
                let Some(payload) = payload_of(&packet) else {
                    continue;
                };
                let number = u32::from_be_bytes(payload[..4].try_into().unwrap());
                assert!(
                    payload[4..].iter().all(|byte| *byte == number as u8),
                    "{number}"
                );
                bytes[1] += packet.len();
                got += 1;
            }
        }
        let taken = began.elapsed();
        println!(
            "{sent:?} {got}, {bytes:?} bytes in {taken:?}, {:?}",
            link.drops()
        );
        assert!(
            bytes[0] > 1 << 30 && bytes[1] > (1 << 30) / 100 * 99,
            "{bytes:?}"
        );
        // What was lost is little, and no sign of a window that has run out.
        assert!(sent[1] < PACKETS / 1000, "{} of {PACKETS} lost", sent[1]);
        is_answered(&link, &ping(2, 15_000), 2).await;
    });
}

#[test]
fn frames_go_through_with_arp_and_ipv6_neighbours() {
    alone(|| async {
        let sshd = Sshd::start("PermitTunnel ethernet");
        let carrier = connect(&sshd).await;
        let link = carrier.open_packets(Ethernet, Some(3)).await.unwrap();
        assert_eq!(link.max_len(), 32 * 1024 - 4);
        ip(&format!("addr add {FAR}/24 dev tap3"));
        ip("link set tap3 up");
        // Who has 198.18.77.2? Tell 198.18.77.1.
        let ours = [2, 0, 0, 0, 0, 1];
        let mut arp = [
            &[0xff; 6][..],
            &ours,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &ours,
        ]
        .concat();
        arp.extend(ground::OURS.octets());
        arp.extend([0; 6]);
        arp.extend(FAR.octets());
        link.send(&arp);
        let reply = async {
            loop {
                let frame = link.recv().await.unwrap();
                // An answer to us (RFC 826).
                if frame[12..14] == [8, 6] && frame[20..22] == [0, 2] {
                    return frame;
                }
            }
        };
        let reply = timeout(Duration::from_secs(10), reply).await.unwrap();
        assert_eq!(
            (&reply[..6], &reply[28..32]),
            (&ours[..], &FAR.octets()[..])
        );
        // With the address that it told, a packet arrives.
        let frame = [&reply[6..12], &ours, &[8, 0], &ping(1, 56)].concat();
        link.send(&frame);
        let echo = async {
            loop {
                let frame = link.recv().await.unwrap();
                if frame[12..14] == [8, 0] && answered(&frame[14..]) == Some(1) {
                    return;
                }
            }
        };
        timeout(Duration::from_secs(10), echo).await.unwrap();
        // Too short for a header: the kernel would refuse it, and sshd stop.
        link.send(&[0; 13]);
        assert_eq!(link.drops().unfit, 1);
    });
}

#[test]
fn a_refusal_says_why_and_what_to_do() {
    let forbidden = |kind| TunnelRefusal::Forbidden { kind };
    let device = |kind, unit| {
        let (user, unit) = ("root".to_owned(), Some(unit));
        TunnelRefusal::Device { kind, unit, user }
    };
    type Case = (&'static str, &'static str, PacketKind, TunnelRefusal);
    let cases: [Case; 5] = [
        ("", "", Ip, forbidden(Ip)),
        (
            "PermitTunnel point-to-point",
            "",
            Ethernet,
            forbidden(Ethernet),
        ),
        ("PermitTunnel ethernet", "", Ip, forbidden(Ip)),
        ("PermitTunnel yes", "tunnel=\"5\"", Ip, device(Ip, 7)),
        ("PermitTunnel yes", "", Ip, device(Ip, 7)),
    ];
    alone(|| async {
        // Somebody else's.
        ip("tuntap add tun7 mode tap");
        for (extra, options, kind, expected) in cases {
            let sshd = Sshd::start_with_key_options(extra, options);
            let carrier = connect(&sshd).await;
            let refusal = carrier.open_packets(kind, Some(7)).await.err();
            assert_eq!(refusal, Some(expected), "{extra} {options}");
            carrier.shutdown().await;
        }
        ip("tuntap del tun7 mode tap");
    });
}

#[test]
fn the_end_of_a_tunnel_is_noticed() {
    alone(|| async {
        let mut sshd = Sshd::start("PermitTunnel yes");
        let carrier = connect(&sshd).await;
        let gone = carrier.open_packets(Ip, Some(1)).await.unwrap();
        let cut = carrier.open_packets(Ip, Some(2)).await.unwrap();
        // The number is not there twice.
        assert!(carrier.open_packets(Ip, Some(2)).await.is_err());
        let ends = Duration::from_secs(10);
        ip("link del tun1");
        let end = async { while gone.recv().await.is_some() {} };
        timeout(ends, end).await.expect("the device is gone");
        assert_eq!(carrier.connections(), 1, "and nothing else");
        sshd.cut();
        let end = async { while cut.recv().await.is_some() {} };
        timeout(ends, end).await.expect("the server is gone");
    });
}

/// The kernel takes nothing for a device that is down. sshd waits until it does.
#[test]
fn what_is_sent_before_the_device_is_up_harms_nothing() {
    alone(|| async {
        let sshd = Sshd::start("PermitTunnel yes");
        let carrier = connect(&sshd).await;
        let link = carrier.open_packets(Ip, Some(30)).await.unwrap();
        // More than sshd's window, and as much as waits here.
        for _ in 0..1000 {
            link.send(&ping(1, 4000));
        }
        set_up("tun30", 1500);
        is_answered(&link, &ping(2, 56), 2).await;
        // And so it is later on.
        ip("link set tun30 down");
        link.send(&ping(3, 56));
        ip("link set tun30 up");
        is_answered(&link, &ping(4, 56), 4).await;
    });
}

/// A key that is restricted may have a tunnel all the same where the server permits it.
#[test]
fn a_restricted_key() {
    alone(|| async {
        let options = "restrict,port-forwarding";
        let sshd = Sshd::start_with_key_options("PermitTunnel yes", options);
        let carrier = connect(&sshd).await;
        let link = carrier.open_packets(Ip, Some(40)).await.unwrap();
        assert!(try_ip("link show tun40"));
        drop(link);
    });
}
