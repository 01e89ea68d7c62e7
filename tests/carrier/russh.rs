//! The embedded SSH carrier against a real sshd on loopback, started by each test with its own port, keys
//! and configuration.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use underpass::carrier::Link;
use underpass::carrier::{ConnectError, NoPrompter, RusshCarrier};
use underpass::net::{ByteReader, ByteWriter, Carrier, OpenFailure, StreamError, Target};
use underpass::plan::HostKeyPolicy;

use crate::rig::{self, Echo, Sshd, connect, local, pattern, read_all, source};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_that_nobody_reads_stops_no_other_and_loses_nothing() {
    let sshd = Sshd::start("");
    let echo = Echo::start().await;
    let sent = pattern(48 << 20);
    let source = source(sent.clone()).await;
    let carrier = connect(&sshd).await;
    let (mut reader, mut echo_writer) = carrier.open(local(2), echo.target()).await.unwrap();
    // From here on somebody must read or absorb it.
    let (mut stalled, mut writer) = carrier.open(local(1), source).await.unwrap();
    let live = async {
        for i in 0u32..200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let word = i.to_be_bytes();
            echo_writer
                .write(Bytes::copy_from_slice(&word))
                .await
                .unwrap();
            let mut got = Vec::new();
            while got.len() < word.len() {
                got.extend_from_slice(&reader.read().await.unwrap().unwrap());
            }
            assert_eq!(got, word);
        }
    };
    // A cancelled absorb has taken nothing away.
    let restless = async {
        loop {
            let _ = timeout(Duration::from_millis(3), stalled.absorb()).await;
        }
    };
    tokio::select! {
        () = live => {}
        () = restless => {}
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("the live flow stands still"),
    }
    assert!(read_all(&mut stalled).await.unwrap() == sent);
    writer.finish().await.unwrap();
    carrier.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_far_reset_is_a_reset() {
    let sshd = Sshd::start("");
    let resetting = rig::serve(|stream| async move {
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(stream);
    })
    .await;
    let carrier = connect(&sshd).await;
    let (mut reader, mut writer) = carrier.open(local(1), Target(resetting)).await.unwrap();
    // sshd sends EOF for the read error; the CLOSE comes when it cannot write.
    let end = timeout(Duration::from_secs(5), async {
        assert_eq!(reader.read().await, Ok(None));
        let ticks = async {
            while writer.write(Bytes::from_static(b"x")).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            pending::<()>().await;
        };
        tokio::select! {
            error = reader.reset() => error,
            () = ticks => unreachable!(),
        }
    });
    assert_eq!(end.await.unwrap(), StreamError::Reset);
    carrier.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_ends_its_streams_and_the_carrier() {
    let mut sshd = Sshd::start("");
    let echo = Echo::start().await;
    let carrier = connect(&sshd).await;
    let (mut reader, mut writer) = carrier.open(local(1), echo.target()).await.unwrap();
    writer.write(Bytes::from_static(b"x")).await.unwrap();
    reader.read().await.unwrap();
    sshd.cut();
    assert_eq!(reader.read().await, Err(StreamError::Lost));
    assert_eq!(
        writer.write(Bytes::from_static(b"x")).await,
        Err(StreamError::Lost)
    );
    let reason = timeout(Duration::from_secs(5), carrier.lost())
        .await
        .unwrap();
    assert!(!reason.to_string().is_empty());
    let error = carrier.open(local(1), echo.target()).await.err().unwrap();
    assert_eq!(error.failure, OpenFailure::ConnectionLost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_is_needed() {
    for sshd in [
        Sshd::start("MaxSessions 0"),
        Sshd::start("ForceCommand /bin/false"),
        Sshd::start_with_key_options("", "restrict,port-forwarding"),
    ] {
        let echo = Echo::start().await;
        let carrier = connect(&sshd).await;
        let (mut reader, mut writer) = carrier.open(local(1), echo.target()).await.unwrap();
        let mut times = Vec::new();
        for _ in 0..50 {
            let start = Instant::now();
            for byte in [b"a", b"b"] {
                writer.write(Bytes::from_static(byte)).await.unwrap();
            }
            let mut got = 0;
            while got < 2 {
                got += reader.read().await.unwrap().unwrap().len();
            }
            times.push(start.elapsed());
        }
        // With Nagle at the far side each would take 40 ms, once its peer no longer answers each segment at once; on a busy
        // machine most may as well.
        let times = &mut times[25..];
        times.sort();
        assert!(times[6] < Duration::from_millis(30), "{times:?}");
        carrier.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_is_told_as_such() {
    let sshd = Sshd::start("PermitOpen 192.0.2.1:1");
    let echo = Echo::start().await;
    let carrier = connect(&sshd).await;
    let error = carrier.open(local(1), echo.target()).await.err().unwrap();
    assert_eq!(error.failure, OpenFailure::Prohibited);
    carrier.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_refusals_and_successes_are_not_mixed_up() {
    let sshd = Sshd::start("");
    let echo = Echo::start().await;
    let carrier = Arc::new(connect(&sshd).await);
    let closed = rig::closed_port().await;
    // TCP to a broadcast address: connect() fails at once, and sshd has another text for that.
    let targets = [
        closed,
        echo.target(),
        "127.255.255.255:1".parse().map(Target).unwrap(),
    ];
    let mut opens = tokio::task::JoinSet::new();
    for i in 0..900 {
        let carrier = Arc::clone(&carrier);
        opens.spawn(async move {
            let outcome = carrier.open(local(1), targets[i % 3]).await;
            (i % 3, outcome.err().map(|e| e.failure))
        });
    }
    while let Some(outcome) = opens.join_next().await {
        let (kind, failure) = outcome.unwrap();
        match kind {
            0 => assert_eq!(failure, Some(OpenFailure::Refused)),
            1 => assert_eq!(failure, None),
            _ => assert_eq!(failure, Some(OpenFailure::NetworkUnreachable)),
        }
    }
    carrier.shutdown().await;
}

/// Takes everything and answers with the number of bytes.
async fn sink() -> Target {
    let address = rig::serve(|mut stream| async move {
        let mut all = Vec::new();
        if stream.read_to_end(&mut all).await.is_ok() && all == pattern(all.len()) {
            let _ = stream.write_all(all.len().to_string().as_bytes()).await;
        }
    })
    .await;
    Target(address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_may_rekey_at_any_time() {
    let sshd = Sshd::start("RekeyLimit 4M");
    let sent = Arc::new(pattern(12 << 20));
    let source = source(sent.to_vec()).await;
    let sink = sink().await;
    let carrier = Arc::new(connect(&sshd).await);
    let mut flows = tokio::task::JoinSet::new();
    for i in 0..6 {
        let (carrier, sent) = (Arc::clone(&carrier), Arc::clone(&sent));
        flows.spawn(async move {
            let target = if i % 2 == 0 { source } else { sink };
            let (mut reader, mut writer) = carrier.open(local(1), target).await.unwrap();
            if i % 2 == 0 {
                assert!(read_all(&mut reader).await.unwrap() == *sent);
                writer.finish().await.unwrap();
            } else {
                for chunk in sent.chunks(50_000) {
                    writer.write(Bytes::copy_from_slice(chunk)).await.unwrap();
                }
                writer.finish().await.unwrap();
                let count = read_all(&mut reader).await.unwrap();
                assert_eq!(count, sent.len().to_string().as_bytes());
            }
        });
    }
    let done = timeout(Duration::from_secs(60), flows.join_all()).await;
    done.unwrap();
    carrier.shutdown().await;
}

/// Runs in a process of its own, started by the test below: where the backlog goes is found through the
/// environment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by a_flow_at_its_bound_only_holds_up_its_own_connection"]
async fn inside_a_full_disk() {
    let sshd = Sshd::start("");
    let echo = Echo::start().await;
    let sent = pattern(24 << 20);
    let source = source(sent.clone()).await;
    let carrier = connect(&sshd).await;
    let connections = async |n| {
        while carrier.connections() < n {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    connections(2).await;
    // Flows gather on one connection: this one will be held up.
    let (mut reader, mut beside) = carrier.open(local(2), echo.target()).await.unwrap();
    let (mut stalled, mut writer) = carrier.open(local(1), source).await.unwrap();
    let exchange = async || {
        let (mut reader, mut writer) = carrier.open(local(2), echo.target()).await.unwrap();
        writer.write(Bytes::from_static(b"x")).await.unwrap();
        writer.finish().await.unwrap();
        assert_eq!(read_all(&mut reader).await.unwrap(), b"x");
    };
    let others = async {
        // Who joins the connection before the stall is seen is caught by it. Once it is seen, a third connection is made, and
        // new flows keep away.
        connections(3).await;
        for _ in 0..20 {
            let done = timeout(Duration::from_secs(5), exchange()).await;
            assert!(done.is_ok(), "a new flow is held up");
        }
    };
    tokio::select! {
        done = timeout(Duration::from_secs(60), others) => done.unwrap(),
        error = stalled.absorb() => panic!("{error}"),
    }
    assert!(read_all(&mut stalled).await.unwrap() == sent);
    writer.finish().await.unwrap();
    beside.write(Bytes::from_static(b"y")).await.unwrap();
    assert_eq!(reader.read().await.unwrap().unwrap(), "y");
    carrier.shutdown().await;
}

#[test]
fn a_flow_at_its_bound_only_holds_up_its_own_connection() {
    let mut inside = rig::one_test(module_path!(), "inside_a_full_disk");
    inside.env("TMPDIR", "/proc/no/such/directory");
    rig::assert_passes(inside);
}
