//! The carrier over the user's own ssh against a real sshd on loopback, started by each test with its own port, keys and
//! configuration.

use std::collections::HashSet;
use std::ffi::OsString;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;
use underpass::carrier::{ConnectError, Link, LostReason, OpensshCarrier};
use underpass::net::{ByteReader, ByteWriter, Carrier, OpenFailure, StreamError, Target};

use crate::rig::{self, Echo, Sshd, local, pattern, read_all, source};

async fn connect(sshd: &Sshd) -> Arc<OpensshCarrier> {
    let carrier = OpensshCarrier::connect(&sshd.plan(), &sshd.client(&[])).await;
    Arc::new(carrier.unwrap())
}

async fn refusal(sshd: &Sshd, more: &[&str]) -> ConnectError {
    let (plan, client) = (sshd.plan(), sshd.client(more));
    let carrier = OpensshCarrier::connect(&plan, &client);
    timeout(Duration::from_secs(20), carrier)
        .await
        .unwrap()
        .err()
        .unwrap()
}

/// The ssh processes that this process has started for an sshd.
fn masters(sshd: &Sshd) -> Vec<String> {
    let mark = format!("UserKnownHostsFile={}", sshd.path("known_hosts").display());
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let command = |pid: &str| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    all.map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|pid| String::from_utf8_lossy(&command(pid)).contains(&mark))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_both_ways_and_half_closes() {
    let sshd = Sshd::start("");
    let echo = Echo::start().await;
    let carrier = connect(&sshd).await;
    let description = carrier.description();
    assert!(
        description.host_key.starts_with("ED25519 SHA256:"),
        "{description}"
    );
    assert_eq!(description.cipher, "aes128-gcm@openssh.com");
    assert!(
        description.authentication.contains("id_ed25519"),
        "{description}"
    );
    assert_eq!(description.server.unwrap().port(), sshd.plan().port);
    let (mut reader, mut writer) = carrier.open(local(1), echo.target()).await.unwrap();
    writer.write(Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(reader.read().await.unwrap().unwrap(), "hello");
    writer.finish().await.unwrap();
    assert_eq!(read_all(&mut reader).await.unwrap(), b"");
    // The far side may end first, too.
    let far = rig::serve(|mut stream| async move {
        let _ = stream.write_all(b"first").await;
        let _ = stream.shutdown().await;
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        assert_eq!(all, b"later");
    });
    let (mut reader, mut writer) = carrier.open(local(1), Target(far.await)).await.unwrap();
    assert_eq!(read_all(&mut reader).await.unwrap(), b"first");
    writer.write(Bytes::from_static(b"later")).await.unwrap();
    writer.finish().await.unwrap();
    carrier.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_transfers_arrive_whole_both_ways() {
    let sshd = Sshd::start("RekeyLimit 2M");
    let sent = Arc::new(pattern(6 << 20));
    let down = source(sent.to_vec()).await;
    let echo = Echo::start().await;
    let carrier = connect(&sshd).await;
    let mut flows = JoinSet::new();
    for i in 0..6 {
        let (carrier, sent, echo) = (Arc::clone(&carrier), Arc::clone(&sent), echo.target());
        flows.spawn(async move {
            let target = if i % 2 == 0 { down } else { echo };
            let (mut reader, mut writer) = carrier.open(local(1), target).await.unwrap();
            let writing = async {
                for chunk in sent.chunks(50_000).filter(|_| i % 2 == 1) {
                    writer.write(Bytes::copy_from_slice(chunk)).await.unwrap();
                }
                writer.finish().await.unwrap();
            };
            let (got, ()) = tokio::join!(read_all(&mut reader), writing);
            assert!(got.unwrap() == *sent);
        });
    }
    timeout(Duration::from_secs(60), flows.join_all())
        .await
        .unwrap();
    carrier.shutdown().await;
}

/// ssh is handed what the user has set, and does it: keys are changed as often as RekeyLimit says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_changed_as_the_user_wants() {
    for (options, at_least, at_most) in [(&[][..], 1, 1), (&["-o", "RekeyLimit=1M"], 5, 100)] {
        let sshd = Sshd::start("LogLevel DEBUG1");
        let sent = pattern(6 << 20);
        let down = source(sent.clone()).await;
        let client = sshd.client(options);
        let carrier = OpensshCarrier::connect(&sshd.plan(), &client).await;
        let carrier = carrier.unwrap();
        let (mut reader, _writer) = carrier.open(local(1), down).await.unwrap();
        assert!(read_all(&mut reader).await.unwrap() == sent);
        let exchanges = sshd.log().matches("SSH2_MSG_KEXINIT received").count();
        assert!(
            (at_least..=at_most).contains(&exchanges),
            "{options:?}: {exchanges}"
        );
        carrier.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_told_apart() {
    let sshd = Sshd::start("");
    let echo = Echo::start().await;
    let carrier = connect(&sshd).await;
    let closed = rig::closed_port().await;
    let error = carrier.open(local(1), closed).await.err().unwrap();
    assert_eq!(error.failure, OpenFailure::Refused);
    assert_eq!(error.text, "Connection refused");
    let no_network = "127.255.255.255:1".parse().map(Target).unwrap();
    let targets = [closed, echo.target(), no_network];
    let mut opens = JoinSet::new();
    for i in 0..900 {
        let carrier = Arc::clone(&carrier);
        opens.spawn(async move {
            let outcome = carrier.open(local(1), targets[i % 3]).await;
            (i % 3, outcome.err().map(|e| e.failure))
        });
    }
    while let Some(outcome) = opens.join_next().await {
        let (kind, failure) = outcome.unwrap();
        let expected = [
            Some(OpenFailure::Refused),
            None,
            Some(OpenFailure::NetworkUnreachable),
        ];
        assert_eq!(failure, expected[kind]);
    }
    carrier.shutdown().await;
    let sshd = Sshd::start("PermitOpen 192.0.2.1:1");
    let carrier = connect(&sshd).await;
    let error = carrier.open(local(1), echo.target()).await.err().unwrap();
    assert_eq!(error.failure, OpenFailure::Prohibited);
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
async fn a_dropped_half_resets_the_far_side() {
    let sshd = Sshd::start("");
    let echo = Echo::start().await;
    let carrier = connect(&sshd).await;
    for dropped in 0..3 {
        let (reader, writer) = carrier.open(local(1), echo.target()).await.unwrap();
        let (mut reader, mut writer) = (Some(reader), Some(writer));
        writer
            .as_mut()
            .unwrap()
            .write(Bytes::from_static(b"x"))
            .await
            .unwrap();
        reader.as_mut().unwrap().read().await.unwrap();
        if dropped != 0 {
            reader = None;
        }
        if dropped != 1 {
            writer = None;
        }
        if let Some(reader) = &mut reader {
            assert_eq!(reader.read().await, Err(StreamError::Reset));
        }
        if let Some(writer) = &mut writer {
            let error = writer.write(Bytes::from_static(b"x")).await;
            assert_eq!(error, Err(StreamError::Reset));
        }
        let ended = async {
            while echo.open() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(5), ended).await.unwrap();
    }
    // An open that nobody waits for any more is closed when it succeeds.
    for _ in 0..20 {
        tokio::select! {
            biased;
            // Where this thread has to wait for a processor, the answer may be there at once.
            opened = carrier.open(local(1), echo.target()) => drop(opened.unwrap()),
            () = std::future::ready(()) => {}
        }
    }
    let seen = async {
        while echo.seen() < 3 + 20 || echo.open() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), seen).await.unwrap();
    carrier.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_at_a_time() {
    let pid = std::process::id().to_string();
    let mut prlimit = std::process::Command::new("prlimit");
    let limit = prlimit.args(["--pid", &pid, "--nofile=8192:"]).status();
    assert!(limit.unwrap().success());
    let sshd = Sshd::start("");
    let echo = Echo::start().await;
    let carrier = connect(&sshd).await;
    for _ in 0..2 {
        let mut flows = JoinSet::new();
        for i in 0..1000u32 {
            let (carrier, target) = (Arc::clone(&carrier), echo.target());
            flows.spawn(async move {
                let (mut reader, mut writer) = carrier.open(local(1), target).await.unwrap();
                let word = Bytes::copy_from_slice(&i.to_be_bytes());
                writer.write(word.clone()).await.unwrap();
                writer.finish().await.unwrap();
                assert_eq!(read_all(&mut reader).await.unwrap(), word);
            });
        }
        timeout(Duration::from_secs(60), flows.join_all())
            .await
            .unwrap();
    }
    carrier.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_is_needed() {
    for (sshd, is_quick) in [
        (Sshd::start("MaxSessions 0"), false),
        (Sshd::start("ForceCommand /bin/false"), true),
        (Sshd::start("ForceCommand /bin/sleep 100"), true),
        (
            Sshd::start_with_key_options("", "restrict,port-forwarding"),
            true,
        ),
    ] {
        let echo = Echo::start().await;
        let carrier = connect(&sshd).await;
        let (mut reader, mut writer) = carrier.open(local(1), echo.target()).await.unwrap();
        let start = Instant::now();
        for _ in 0..50 {
            for byte in [b"a", b"b"] {
                writer.write(Bytes::from_static(byte)).await.unwrap();
            }
            let mut got = 0;
            while got < 2 {
                got += reader.read().await.unwrap().unwrap().len();
            }
        }
        // With Nagle at the far side each of the 50 would take 40 ms.
        let taken = start.elapsed();
        assert!(!is_quick || taken < Duration::from_millis(800), "{taken:?}");
        carrier.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_ends_its_streams_and_the_carrier() {
    for kill_ssh in [false, true] {
        let mut sshd = Sshd::start("");
        let echo = Echo::start().await;
        let carrier = connect(&sshd).await;
        let (mut reader, mut writer) = carrier.open(local(1), echo.target()).await.unwrap();
        writer.write(Bytes::from_static(b"x")).await.unwrap();
        reader.read().await.unwrap();
        if kill_ssh {
            let ssh = masters(&sshd);
            assert_eq!(ssh.len(), 1);
            let pid = nix::unistd::Pid::from_raw(ssh[0].parse().unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        } else {
            sshd.cut();
        }
        assert_eq!(reader.read().await, Err(StreamError::Lost));
        let written = writer.write(Bytes::from_static(b"x")).await;
        assert_eq!(written, Err(StreamError::Lost));
        let lost = timeout(Duration::from_secs(5), carrier.lost())
            .await
            .unwrap();
        if !kill_ssh {
            assert!(matches!(lost, LostReason::Disconnected(_)), "{lost}");
        }
        let error = carrier.open(local(1), echo.target()).await.err().unwrap();
        assert_eq!(error.failure, OpenFailure::ConnectionLost);
        assert_eq!(masters(&sshd), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_noticed() {
    let sshd = Sshd::start("");
    // Longer than this machine's tests keep an sshd from its turn.
    let keepalive = ["-o", "ServerAliveInterval=3", "-o", "ServerAliveCountMax=1"];
    let carrier = OpensshCarrier::connect(&sshd.plan(), &sshd.client(&keepalive))
        .await
        .unwrap();
    sshd.freeze();
    let lost = timeout(Duration::from_secs(20), carrier.lost())
        .await
        .unwrap();
    assert_eq!(lost, LostReason::Silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_finds_who_is_gone_and_harms_nobody_else() {
    let sshd = Sshd::start("");
    let echo = Echo::start().await;
    let carrier = connect(&sshd).await;
    let (mut reader, mut writer) = carrier.open(local(1), echo.target()).await.unwrap();
    for _ in 0..3 {
        let since = Instant::now();
        carrier.check().await;
        assert!(since.elapsed() < Duration::from_secs(1));
        writer.write(Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(reader.read().await.unwrap().unwrap(), "x");
    }
    sshd.freeze();
    let since = Instant::now();
    let (lost, ()) = tokio::join!(carrier.lost(), carrier.check());
    assert_eq!(lost, LostReason::Silent);
    assert!(since.elapsed() < Duration::from_secs(2));
    assert_eq!(reader.read().await, Err(StreamError::Lost));
    let ended = async {
        while !masters(&sshd).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(5), ended).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_behind() {
    let directories = || -> HashSet<OsString> {
        let all = std::fs::read_dir("/tmp").unwrap().flatten();
        let names = all.map(|entry| entry.file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with("underpass-ssh-"))
            .collect()
    };
    // A run that was killed while it logged in leaves its own.
    let before = directories();
    let sshd = Sshd::start("");
    let echo = Echo::start().await;
    for drop_only in [false, true] {
        let carrier = connect(&sshd).await;
        let flow = carrier.open(local(1), echo.target()).await.unwrap();
        assert_eq!(masters(&sshd).len(), 1);
        let since = Instant::now();
        if !drop_only {
            carrier.shutdown().await;
            assert!(
                since.elapsed() < Duration::from_millis(500),
                "{:?}",
                since.elapsed()
            );
            assert_eq!(masters(&sshd), [""; 0]);
        }
        drop((flow, carrier));
        let gone = async {
            while !masters(&sshd).is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(5), gone).await.unwrap();
    }
    // Other tests may be in the middle of a login.
    let gone = async {
        while !directories().is_subset(&before) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), gone).await.unwrap();
}

/// An OpenSSH master dies of 16,380 refused opens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_up_master_is_replaced_and_no_flow_dies() {
    let sshd = Sshd::start("");
    let echo = Echo::start().await;
    let closed = rig::closed_port().await;
    let carrier = connect(&sshd).await;
    let (mut reader, mut writer) = carrier.open(local(1), echo.target()).await.unwrap();
    let logins = || sshd.log().matches("Accepted publickey").count();
    let refuse = async |count: usize| {
        for _ in 0..count / 100 {
            let mut opens = JoinSet::new();
            for _ in 0..100 {
                let carrier = Arc::clone(&carrier);
                opens.spawn(async move { carrier.open(local(1), closed).await.err() });
            }
            while let Some(error) = opens.join_next().await {
                let error = error.unwrap().unwrap();
                assert_eq!(error.failure, OpenFailure::Refused);
            }
        }
    };
    refuse(7_900).await;
    assert_eq!(logins(), 1);
    refuse(1_100).await;
    let replaced = async {
        while logins() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), replaced).await.unwrap();
    // More than one master survives.
    refuse(6_900).await;
    writer
        .write(Bytes::from_static(b"still here"))
        .await
        .unwrap();
    assert_eq!(reader.read().await.unwrap().unwrap(), "still here");
    assert_eq!(logins(), 2);
    assert_eq!(masters(&sshd).len(), 2);
    writer.finish().await.unwrap();
    assert_eq!(read_all(&mut reader).await.unwrap(), b"");
    let ended = async {
        while masters(&sshd).len() > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), ended).await.unwrap();
    carrier.open(local(1), echo.target()).await.unwrap();
    carrier.shutdown().await;
}

/// Nor is a master that a flow keeps used up by being asked for signs of life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_outlives_any_number_of_checks() {
    let sshd = Sshd::start("");
    let echo = Echo::start().await;
    let carrier = connect(&sshd).await;
    let (mut reader, mut writer) = carrier.open(local(1), echo.target()).await.unwrap();
    for _ in 0..80 {
        let mut checks = JoinSet::new();
        for _ in 0..100 {
            let carrier = Arc::clone(&carrier);
            checks.spawn(async move { carrier.check().await });
        }
        checks.join_all().await;
    }
    // From here on by a session, of which the server allows ten at a time.
    for _ in 0..8_500 {
        carrier.check().await;
    }
    writer.write(Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(reader.read().await.unwrap().unwrap(), "x");
    carrier.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_that_fail_are_told_apart() {
    let sshd = Sshd::start("");
    let nothing = format!("UserKnownHostsFile={}", sshd.path("nothing").display());
    let error = refusal(&sshd, &["-o", &nothing]).await;
    assert!(matches!(error, ConnectError::HostKey(_)), "{error}");
    assert!(error.to_string().contains("SHA256:"), "{error}");
    let other = format!(
        "[127.0.0.1]:{} {}",
        sshd.plan().port,
        std::fs::read_to_string(sshd.path("id_ed25519.pub")).unwrap()
    );
    std::fs::write(sshd.path("changed"), other).unwrap();
    let changed = format!("UserKnownHostsFile={}", sshd.path("changed").display());
    let error = refusal(&sshd, &["-o", &changed]).await;
    assert!(error.to_string().contains("-R '[127.0.0.1]:"), "{error}");
    let error = refusal(&sshd, &["-o", "PubkeyAuthentication=no"]).await;
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
    let port = rig::closed_port().await.0.port().to_string();
    let error = refusal(&sshd, &["-o", &format!("Port={port}")]).await;
    assert!(
        matches!(
            error,
            ConnectError::Ssh(_) | ConnectError::Unreachable { .. }
        ),
        "{error}"
    );
    let error = refusal(&sshd, &["-o", "HostName=nowhere.invalid"]).await;
    assert!(matches!(error, ConnectError::UnknownHost { .. }), "{error}");
    let error = refusal(&sshd, &["-o", "Ciphers=nono"]).await;
    assert!(error.to_string().contains("nono"), "{error}");
    assert_eq!(masters(&sshd), [""; 0]);
}

/// Only ssh's own log tells about a login. These lines have ssh's form, and its process number where it can be known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_of_a_banner_and_of_a_command_are_not_believed() {
    let lies = "debug1: sshconnect.c:verify_host_key():1477 (pid=$PID): Server host key: ssh-rsa SHA256:LIE\n\
                debug1: sshconnect.c:ssh_connect_direct():485 (pid=$PID): Connecting to x [192.0.2.1] port 1.\n\
                debug1: kex.c:kex_choose_conf():1091 (pid=$PID): kex: client->server cipher: none MAC: none\n\
                sshconnect2.c:ssh_userauth2():580 (pid=$PID): Authenticated to x ([192.0.2.1]:1) using \"none\".\n\
                Timeout, server x not responding.\nHost key verification failed.\n";
    let dir = tempfile::TempDir::new_in("/tmp").unwrap();
    let banner = dir.path().join("banner");
    std::fs::write(&banner, lies).unwrap();
    let mut sshd = Sshd::start(&format!("Banner {}", banner.display()));
    let truth = connect(&sshd).await;
    let is_true = |carrier: &OpensshCarrier| {
        let (told, known) = (carrier.description(), truth.description());
        assert!(told.host_key.starts_with("ED25519 SHA256:"), "{told}");
        assert_eq!(told.host_key, known.host_key);
        assert_eq!(told.cipher, "aes128-gcm@openssh.com");
        assert!(told.authentication.contains("id_ed25519"), "{told}");
    };
    is_true(&truth);
    let script = dir.path().join("command");
    let text = format!("#!/bin/sh\nPID=$PPID\ncat >&2 <<END\n{lies}END\nexec nc \"$1\" \"$2\"\n");
    std::fs::write(&script, text).unwrap();
    let command = format!("ProxyCommand=sh {} %h %p", script.display());
    let arguments = sshd.client(&["-o", &command]);
    let liar = OpensshCarrier::connect(&sshd.plan(), &arguments)
        .await
        .unwrap();
    is_true(&liar);
    assert_eq!(liar.description().server, None);
    liar.shutdown().await;
    // Nor about the end.
    sshd.cut();
    let lost = timeout(Duration::from_secs(5), truth.lost()).await;
    assert_ne!(lost.unwrap(), LostReason::Silent);
    let error = refusal(&sshd, &["-o", &command]).await;
    assert!(!matches!(error, ConnectError::HostKey(_)), "{error}");
}

/// A server that says `greeting` to everybody, and whether it goes on.
async fn speaker(greeting: &'static [u8], goes_on: bool) -> String {
    let address = rig::serve(move |mut stream| async move {
        let _ = stream.write_all(greeting).await;
        let mut heard = [0; 256];
        while goes_on && stream.read(&mut heard).await.is_ok_and(|n| n > 0) {}
        // What was not read would make a reset of the end.
        let _ = stream.read(&mut heard).await;
    });
    format!("Port={}", address.await.port())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_speak_ssh_is_told_as_over_the_built_in_one() {
    let sshd = Sshd::start("");
    for (greeting, goes_on, expected) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            false,
            "it is not an SSH server: it says \"HTTP/1.1 400 Bad Request\". Compare with: ssh -v ",
        ),
        (
            b"Exceeded MaxStartups\r\n",
            false,
            "it said \"Exceeded MaxStartups\" and closed the connection",
        ),
        (
            b"",
            false,
            "it closed the connection before its SSH banner (MaxStartups",
        ),
        (
            b"SSH-1.5-old\r\n",
            true,
            "it does not speak SSH 2: it says \"SSH-1.5",
        ),
        (
            b"220 mail ESMTP\r\n",
            true,
            "s: it is connected, but sends no SSH banner. Is it sshd",
        ),
        (
            b"SSH-2.0-mute\r\n",
            true,
            "within 1 s: the SSH handshake does not end",
        ),
    ] {
        let port = speaker(greeting, goes_on).await;
        let mut plan = sshd.plan();
        plan.dialling.timeout = Some(Duration::from_secs(1));
        let arguments = sshd.client(&["-o", &port, "-o", "ConnectTimeout=1"]);
        let carrier = OpensshCarrier::connect(&plan, &arguments);
        let error = timeout(Duration::from_secs(20), carrier).await.unwrap();
        let error = error.err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(masters(&sshd), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_tried_is_named() {
    let sshd = Sshd::start("");
    let other = sshd.path("host_key").display().to_string();
    let arguments = ["-o", "IdentitiesOnly=yes", "-i", &other];
    // The key that may log in comes behind it, and is not taken any more.
    std::fs::write(sshd.path("authorized_keys"), "").unwrap();
    let error = refusal(&sshd, &arguments).await.to_string();
    let both = format!("tried: {other}, {}", sshd.path("id_ed25519").display());
    assert!(error.contains(&both), "{error}");
    let error = refusal(&sshd, &["-o", "PubkeyAuthentication=no"]).await;
    assert!(error.to_string().contains("tried: no key found"), "{error}");
}

/// It is for the logins of a person, not for each of ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_local_command_runs() {
    let sshd = Sshd::start("");
    let mark = sshd.path("ran");
    let command = format!("LocalCommand=touch {}", mark.display());
    let more = ["-o", "PermitLocalCommand=yes", "-o", &command];
    let carrier = OpensshCarrier::connect(&sshd.plan(), &sshd.client(&more))
        .await
        .unwrap();
    carrier.shutdown().await;
    assert!(!mark.exists());
}
