//! The embedded SSH carrier against a real sshd on loopback, started by each test with its own port, keys
//! and configuration.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "carrier_russh/rig.rs"]
mod rig;

use std::sync::Arc;

use bytes::Bytes;
use rig::{Echo, Sshd, local, read_all};
use underpass::carrier::{ConnectError, NoPrompter, RusshCarrier};
use underpass::net::{ByteReader, ByteWriter, Carrier, OpenFailure};
use underpass::plan::HostKeyPolicy;

async fn connect(sshd: &Sshd) -> RusshCarrier {
    RusshCarrier::connect(&sshd.plan(), Arc::new(NoPrompter))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_both_ways_and_half_closes() {
    let sshd = Sshd::start("");
    let echo = Echo::start().await;
    let carrier = connect(&sshd).await;
    assert!(
        carrier
            .description()
            .host_key
            .starts_with("ED25519 SHA256:")
    );
    assert_eq!(carrier.description().cipher, "aes128-gcm@openssh.com");
    let (mut reader, mut writer) = carrier.open(local(1), echo.target()).await.unwrap();
    writer.write(Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(reader.read().await.unwrap().unwrap(), "hello");
    writer.finish().await.unwrap();
    assert_eq!(read_all(&mut reader).await.unwrap(), b"");
    carrier.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_told_apart() {
    let sshd = Sshd::start("");
    let carrier = connect(&sshd).await;
    let closed = rig::closed_port().await;
    let error = carrier.open(local(1), closed).await.err().unwrap();
    assert_eq!(error.failure, OpenFailure::Refused);
    assert_eq!(error.text, "Connection refused");
    carrier.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_host_key_is_refused() {
    let sshd = Sshd::start("");
    let mut plan = sshd.plan();
    plan.known_hosts = vec![sshd.path("nothing_known")];
    plan.host_keys = HostKeyPolicy::Ask;
    let error = RusshCarrier::connect(&plan, Arc::new(NoPrompter))
        .await
        .err()
        .unwrap();
    assert!(matches!(error, ConnectError::HostKey(_)), "{error}");
}

/// The resident memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// sshd ends a session in which 16,384 channels are open, so those of more must have been closed properly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_are_closed_properly() {
    let sshd = Sshd::start("");
    let echo = Echo::start().await;
    let carrier = Arc::new(connect(&sshd).await);
    let run = async |n: usize| {
        for i in 0..n {
            let (mut reader, mut writer) = carrier.open(local(1), echo.target()).await.unwrap();
            writer.write(Bytes::from_static(b"x")).await.unwrap();
            if i % 50 == 0 {
                // A reset, of one half or of both.
                drop(reader);
                continue;
            }
            writer.finish().await.unwrap();
            assert_eq!(read_all(&mut reader).await.unwrap(), b"x");
        }
    };
    run(1000).await;
    let before = resident();
    run(16_500).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB");
    // One flow at a time: all of them on one connection.
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 1);
    carrier.shutdown().await;
}
