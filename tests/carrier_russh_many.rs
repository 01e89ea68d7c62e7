//! Many channels of the embedded SSH carrier: what they cost, and that they go away. In a file of its own, and one
//! test at a time, because the memory of the whole process is measured.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "carrier/rig.rs"]
mod rig;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rig::{Echo, Sshd, connect, local, read_all, resident};
use tokio::io::AsyncReadExt;
use tokio::sync::Mutex;
use tokio::time::timeout;
use underpass::carrier::Link;
use underpass::net::{ByteWriter, Carrier, OpenError, OpenFailure, Target};

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// sshd ends a session in which 16,384 channels are open, so those of more must have been closed properly. There are two
/// connections to share them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_are_closed_properly() {
    let _alone = ONE_AT_A_TIME.lock().await;
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
    run(33_000).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB");
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 2);
    carrier.shutdown().await;
}

/// Takes connections and keeps them.
async fn keeper() -> Target {
    let address = rig::serve(|stream| async move {
        stream.readable().await.unwrap();
        let mut stream = stream;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    Target(address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_idle_channels_spread_and_cost_little() {
    let _alone = ONE_AT_A_TIME.lock().await;
    // Far ends and sshd live here too: more descriptors than the usual soft limit.
    let pid = std::process::id().to_string();
    let mut prlimit = std::process::Command::new("prlimit");
    let limit = prlimit.args(["--pid", &pid, "--nofile=4096:"]).status();
    assert!(limit.unwrap().success());
    let sshd = Sshd::start("");
    let keeper = keeper().await;
    let carrier = Arc::new(connect(&sshd).await);
    let n = 2000;
    let mut streams = Vec::new();
    let before = resident();
    while streams.len() < n {
        let mut opens = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let carrier = Arc::clone(&carrier);
            opens.spawn(async move { carrier.open(local(1), keeper).await });
        }
        while let Some(opened) = opens.join_next().await {
            streams.push(opened.unwrap().unwrap());
        }
    }
    let each = (resident() - before) as usize * 1024 / n;
    // With the keeper's own tasks and sockets, which live in this process too.
    assert!(each < 8 * 1024, "{each} bytes each");
    let spread = async {
        while sshd.log().matches("Accepted publickey").count() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(5), spread).await.unwrap();
    carrier.shutdown().await;
}

/// russh keeps something for each refusal as long as the connection lives, so a connection that had many is
/// replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_refusals_end_in_a_fresh_connection() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let sshd = Sshd::start("");
    let closed = rig::closed_port().await;
    let carrier = Arc::new(rig::connect(&sshd).await);
    let before = resident();
    // Without a replacement there are four at most.
    let logins = || sshd.log().matches("Accepted publickey").count();
    let mut batches = 0;
    while logins() < 5 {
        batches += 1;
        assert!(batches < 900, "nothing is replaced");
        let mut opens = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let carrier = Arc::clone(&carrier);
            opens.spawn(async move { carrier.open(local(1), closed).await.err() });
        }
        while let Some(error) = opens.join_next().await {
            let error = error.unwrap().unwrap();
            assert_eq!(
                error,
                OpenError::new(OpenFailure::Refused, "Connection refused")
            );
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 24 * 1024, "{grown} KiB");
    let replaced = async {
        // The old one goes when its last channel has ended.
        while sshd.connections() >= logins() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), replaced).await.unwrap();
    carrier.shutdown().await;
}
