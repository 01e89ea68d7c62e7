//! What the carrier over the user's own ssh keeps for a flow that nobody reads. Alone in its process, whose memory it measures.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "carrier/rig.rs"]
mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use rig::{Echo, Sshd, local, pattern, read_all, resident, source};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use underpass::carrier::{Link, OpensshCarrier};
use underpass::net::{ByteReader, ByteWriter, Carrier, Target};

/// Sends without end, and counts what was taken from it.
async fn firehose() -> (Target, Arc<AtomicU64>) {
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let address = rig::serve(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            let chunk = vec![7; 64 << 10];
            while let Ok(n) = stream.write(&chunk).await {
                count.fetch_add(n as u64, Relaxed);
            }
        }
    });
    (Target(address.await), sent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_that_nobody_reads_stops_no_other_and_holds_one_window() {
    let sshd = Sshd::start("");
    let echo = Echo::start().await;
    let (hose, sent) = firehose().await;
    let rest = pattern(48 << 20);
    let whole = source(rest.clone()).await;
    let carrier = OpensshCarrier::connect(&sshd.plan(), &sshd.client(&[]))
        .await
        .unwrap();
    let (mut reader, mut writer) = carrier.open(local(2), echo.target()).await.unwrap();
    let before = resident();
    let _stopped = carrier.open(local(1), hose).await.unwrap();
    let (mut stalled, mut stalled_writer) = carrier.open(local(1), whole).await.unwrap();
    let live = async {
        for i in 0u32..200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let word = i.to_be_bytes();
            writer.write(Bytes::copy_from_slice(&word)).await.unwrap();
            let mut got = Vec::new();
            while got.len() < word.len() {
                got.extend_from_slice(&reader.read().await.unwrap().unwrap());
            }
            assert_eq!(got, word);
        }
    };
    timeout(Duration::from_secs(30), live).await.unwrap();
    // A window each here; what sshd and the sockets between hold is not ours.
    assert!(
        sent.load(Relaxed) < 16 << 20,
        "{} bytes were taken",
        sent.load(Relaxed)
    );
    let grown = resident().saturating_sub(before);
    assert!(grown < 24 * 1024, "{grown} KiB");
    assert!(read_all(&mut stalled).await.unwrap() == rest);
    stalled_writer.finish().await.unwrap();
    carrier.shutdown().await;
}
