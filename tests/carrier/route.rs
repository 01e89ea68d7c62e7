//! Every way to a server with the embedded SSH carrier: jump hosts, commands, and how a TCP connection is made.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};
use underpass::carrier::{
    CommandEnd, ConnectError, HostKeyError, Link, LostReason, NoPrompter, OpensshCarrier, Prompter,
    RusshCarrier,
};
use underpass::net::{ByteReader, ByteWriter, Carrier, Target};
use underpass::plan::{AddressFamily, Dialling, Keepalive, Route, SshPlan};

use crate::rig::{self, Echo, Sshd, local, read_all};

/// Bytes of a write.
const CHUNK: usize = 32 << 10;

async fn connect(plan: &SshPlan) -> Result<RusshCarrier, ConnectError> {
    let connecting = RusshCarrier::connect(plan, Arc::new(NoPrompter));
    timeout(Duration::from_secs(60), connecting).await.unwrap()
}

async fn failure(plan: &SshPlan) -> ConnectError {
    connect(plan).await.err().unwrap()
}

fn through(hop: SshPlan, server: SshPlan) -> SshPlan {
    SshPlan {
        route: Route::Jump(Box::new(hop)),
        ..server
    }
}

fn by_command(command: &str, server: SshPlan) -> SshPlan {
    SshPlan {
        route: Route::Command(command.to_owned()),
        ..server
    }
}

/// Sends `bytes` bytes through an echo and gets them back.
async fn echoes(carrier: &RusshCarrier, echo: &Echo, bytes: usize) {
    let (mut reader, mut writer) = carrier.open(local(1), echo.target()).await.unwrap();
    let sent: Vec<u8> = (0..bytes).map(|i| ((i * 31) >> 3) as u8).collect();
    let data = Bytes::from(sent.clone());
    let writing = async {
        for at in (0..bytes).step_by(16 << 10) {
            let chunk = data.slice(at..bytes.min(at + (16 << 10)));
            writer.write(chunk).await.unwrap();
        }
        writer.finish().await.unwrap();
    };
    let (got, ()) = tokio::join!(read_all(&mut reader), writing);
    assert!(got.unwrap() == sent, "bytes were lost or changed");
}

/// Writes `bytes` bytes, until the far side has taken them all.
async fn upload(carrier: &RusshCarrier, target: Target, bytes: usize) {
    let (mut reader, mut writer) = carrier.open(local(1), target).await.unwrap();
    for _ in 0..bytes / CHUNK {
        writer.write(Bytes::from_static(&[7; CHUNK])).await.unwrap();
    }
    writer.finish().await.unwrap();
    assert_eq!(read_all(&mut reader).await.unwrap(), b"");
}

/// Reads `bytes` bytes, and no more.
async fn download(carrier: &RusshCarrier, target: Target, bytes: usize) {
    let (mut reader, _writer) = carrier.open(local(1), target).await.unwrap();
    let mut got = 0;
    while got < bytes {
        got += reader.read().await.unwrap().unwrap().len();
    }
}

/// A shell script in the directory of `sshd`.
fn script(sshd: &Sshd, name: &str, text: &str) -> String {
    let path = sshd.path(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    format!("sh {}", path.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_and_two_jump_hosts() {
    let (outer, inner, server) = (Sshd::start(""), Sshd::start(""), Sshd::start(""));
    let echo = Echo::start().await;
    for plan in [
        through(inner.plan(), server.plan()),
        through(through(outer.plan(), inner.plan()), server.plan()),
    ] {
        let carrier = connect(&plan).await.unwrap();
        assert_eq!(carrier.description().server, None);
        assert_eq!(carrier.server_addresses(), [Ipv4Addr::LOCALHOST]);
        echoes(&carrier, &echo, 3 << 20).await;
        // The pool makes a further one, over a jump of its own.
        let two = async {
            while server.connections() < 2 || inner.connections() < 2 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(10), two).await.unwrap();
        carrier.shutdown().await;
        drop(carrier);
        let none = async {
            while server.connections() + inner.connections() + outer.connections() > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(10), none).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_both_ways_at_once_through_a_jump_host() {
    let (hop, server) = (Sshd::start(""), Sshd::start(""));
    let sink = rig::serve(|mut stream| async move {
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let source = rig::serve(|mut stream| async move {
        let _ = tokio::io::copy(&mut tokio::io::repeat(7), &mut stream).await;
    })
    .await;
    let carrier = connect(&through(hop.plan(), server.plan())).await.unwrap();
    // The session that waits for the window of its channel must go on reading.
    let uploads = (0..8).map(|_| upload(&carrier, Target(sink), 48 << 20));
    let downloads = (0..8).map(|_| download(&carrier, Target(source), 48 << 20));
    let all = futures_util::future::join(join_all(uploads), join_all(downloads));
    timeout(Duration::from_secs(120), all).await.unwrap();
    carrier.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_hop_has_its_own_host_key_and_login() {
    let (hop, server) = (Sshd::start(""), Sshd::start(""));
    // The second host's key is not the one that is known for it.
    let wrong = fs::read_to_string(server.path("id_ed25519.pub")).unwrap();
    let known = format!("[127.0.0.1]:{} {wrong}", server.plan().port);
    fs::write(server.path("known_hosts"), known).unwrap();
    let error = failure(&through(hop.plan(), server.plan())).await;
    let name = format!("[127.0.0.1]:{}", server.plan().port);
    assert!(
        matches!(&error, ConnectError::HostKey(HostKeyError::Changed { host, .. }) if *host == name),
        "{error}"
    );
    // A key that only the server takes is no way into the hop.
    let hop_plan = SshPlan {
        identities: server.plan().identities,
        user: "root".to_owned(),
        ..hop.plan()
    };
    let error = failure(&through(hop_plan, server.plan())).await;
    assert!(
        matches!(&error, ConnectError::Hop { hop, error } if hop == "127.0.0.1" && matches!(**error, ConnectError::Refused { .. })),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hop_that_does_not_connect_says_why() {
    let hop = Sshd::start("");
    let closed = rig::closed_port().await.0.port();
    let server = SshPlan {
        port: closed,
        ..hop.plan()
    };
    let error = failure(&through(hop.plan(), server.clone()))
        .await
        .to_string();
    let told = format!("the jump host 127.0.0.1 does not connect to 127.0.0.1:{closed}");
    assert!(
        error.contains(&told) && error.contains("refused"),
        "{error}"
    );
    let forbids = Sshd::start("AllowTcpForwarding no");
    let error = failure(&through(forbids.plan(), server)).await.to_string();
    assert!(error.contains("prohibited"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_hop_is_the_reason() {
    let (mut hop, server) = (Sshd::start(""), Sshd::start(""));
    let carrier = connect(&through(hop.plan(), server.plan())).await.unwrap();
    hop.cut();
    let reason = timeout(Duration::from_secs(10), carrier.lost())
        .await
        .unwrap();
    assert!(
        reason.to_string().contains("lost the jump host 127.0.0.1"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_leads_there() {
    let server = Sshd::start("");
    let echo = Echo::start().await;
    let nc = format!("nc 127.0.0.1 {}", server.plan().port);
    let carrier = connect(&by_command(&nc, server.plan())).await.unwrap();
    assert_eq!(carrier.description().server, None);
    echoes(&carrier, &echo, 8 << 20).await;
    let flows = (0..4).map(|_| echoes(&carrier, &echo, 4 << 20));
    join_all(flows).await;
    // It may be a cloud session, which is counted.
    assert_eq!(server.connections(), 1);
    carrier.shutdown().await;
    drop(carrier);
    let two = SshPlan {
        connections: Some(2),
        ..by_command(&nc, server.plan())
    };
    let carrier = connect(&two).await.unwrap();
    let both = async {
        while server.connections() < 2 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), both).await.unwrap();
    carrier.shutdown().await;
    drop(carrier);
    let none = async {
        while server.connections() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), none).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_like_a_cloud_session_tool() {
    let server = Sshd::start("");
    let echo = Echo::start().await;
    // A session of a few seconds.
    let text = format!(
        "echo $$ >> {pids}\n[ $(wc -l < {pids}) -gt 1 ] && exit 7\n\
         echo 'Starting session with SessionId: x-0123' >&2\nsleep 1\n\
         echo 'still busy' >&2\n(sleep 3; echo 'Session timed out' >&2; kill $$) &\n\
         exec nc 127.0.0.1 {port}",
        pids = server.path("pids").display(),
        port = server.plan().port
    );
    let plan = by_command(&script(&server, "tool", &text), server.plan());
    let carrier = connect(&plan).await.unwrap();
    echoes(&carrier, &echo, 1 << 20).await;
    let reason = timeout(Duration::from_secs(30), carrier.lost())
        .await
        .unwrap();
    let LostReason::Broken(text) = &reason else {
        panic!("{reason}");
    };
    assert!(
        text.contains("the ProxyCommand ended (signal: 15") && text.ends_with("Session timed out"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_ends_with_us() {
    let server = Sshd::start("");
    let pids = server.path("pids");
    // A shell that stays, and its child.
    let text = format!(
        "echo $$ >> {}\nnc 127.0.0.1 {}\necho over",
        pids.display(),
        server.plan().port
    );
    let plan = by_command(&script(&server, "tool", &text), server.plan());
    let carrier = connect(&plan).await.unwrap();
    carrier.shutdown().await;
    drop(carrier);
    let gone = async {
        let alive = || {
            let pids = fs::read_to_string(&pids).unwrap();
            let is_alive = |pid: &str| Path::new(&format!("/proc/{pid}")).exists();
            pids.lines().any(is_alive) || server.connections() > 0
        };
        while alive() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_lead_nowhere() {
    let server = Sshd::start("");
    for (command, said) in [
        (
            "sh -c 'echo >&2 token expired; exit 3'",
            "(exit status: 3): token expired. The command was: sh -c",
        ),
        ("no-such-command-here %h", "(exit status: 127)"),
        ("true", "the ProxyCommand ended (exit status: 0)"),
        ("kill -9 $$", "the ProxyCommand ended"),
        (
            "sh -c 'echo HTTP/1.1 403 Forbidden; exit 1'",
            "(exit status: 1); it printed \"HTTP/1.1 403 Forbidden\", which is no SSH",
        ),
        (
            "sh -c 'echo; echo ERROR: cannot connect; echo; echo to the instance; exit 1' >&2",
            "(exit status: 1): ERROR: cannot connect; to the instance",
        ),
        ("echo rubbish", "it printed \"rubbish\""),
        ("sh -c 'echo rubbish; sleep 2'", "the ProxyCommand ended"),
        (
            "sh -c 'echo SSH-2.0-x; head -c 2000 /dev/zero'",
            "during the key exchange",
        ),
    ] {
        let error = failure(&by_command(command, server.plan())).await;
        let text = error.to_string();
        assert!(text.contains(said), "{command}: {text}");
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}

/// As `ssh -W` says it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_was_not_let_in_on_the_way() {
    let server = Sshd::start("");
    for (said, expected) in [
        ("me@gw: Permission denied (publickey).", CommandEnd::Refused),
        ("Host key verification failed.", CommandEnd::HostKey),
        ("Connection closed by 192.0.2.1 port 22", CommandEnd::HungUp),
        ("token expired", CommandEnd::NoWay),
    ] {
        let text = format!("echo '{said}' >&2\nexit 255");
        let command = script(&server, "tool", &text);
        let error = failure(&by_command(&command, server.plan())).await;
        assert!(
            matches!(&error, ConnectError::Command { end, .. } if *end == expected),
            "{error}"
        );
    }
}

/// A display at which nobody is.
const NO_DISPLAY: &str = ":nobody";

/// ssh asks in a window where the environment has one, so that this test runs again in a process with such.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_in_the_background_opens_no_window() {
    if std::env::var_os("DISPLAY").is_none_or(|display| display != NO_DISPLAY) {
        let dir = TempDir::new_in("/tmp").unwrap();
        let program = dir.path().join("askpass");
        fs::write(&program, "#!/bin/sh\ntouch \"$0.asked\"\nexit 1\n").unwrap();
        fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
        let test = "a_login_in_the_background_opens_no_window";
        let mut again = rig::one_test(module_path!(), test);
        again.env("DISPLAY", NO_DISPLAY).env("SSH_ASKPASS", program);
        // Nor on a terminal, where somebody runs this there.
        again.env("SSH_ASKPASS_REQUIRE", "prefer");
        rig::assert_passes(again);
        return;
    }
    let program = std::env::var("SSH_ASKPASS").unwrap();
    let window = Path::new(&program).with_extension("asked");
    let sshd = Sshd::start("");
    let hop = sshd.path("hop");
    let (port, known_hosts) = (sshd.plan().port, sshd.path("known_hosts"));
    let command = format!(
        "ssh -F none -p {port} -i {} -o UserKnownHostsFile={} -o IdentityAgent=none -W 127.0.0.1:{port} root@127.0.0.1",
        hop.display(),
        known_hosts.display()
    );
    let plan = by_command(&command, sshd.plan());
    fs::copy(sshd.path("id_ed25519"), &hop).unwrap();
    let by_ssh = sshd.client(&["-o", &format!("ProxyCommand={command}")]);
    let by_ssh = OpensshCarrier::connect(&plan, &by_ssh).await.unwrap();
    let built_in = connect(&plan).await.unwrap();
    let hop = hop.to_str().unwrap();
    let lock = Command::new("ssh-keygen")
        .args(["-q", "-p", "-N", "secret", "-f", hop])
        .status();
    assert!(lock.unwrap().success());
    assert!(by_ssh.again(false).await.is_err());
    assert!(built_in.again(None).await.is_err());
    assert!(!window.exists());
    // Who was called is asked.
    assert!(by_ssh.again(true).await.is_err());
    assert!(window.exists());
    fs::remove_file(&window).unwrap();
    let person: Arc<dyn Prompter> = Arc::new(NoPrompter);
    assert!(built_in.again(Some(person)).await.is_err());
    assert!(window.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_ends_during_the_login_says_so() {
    let server = Sshd::start("LoginGraceTime 100");
    // Long enough for the key exchange, too short for the login: its key is asked for in vain.
    let text = format!(
        "timeout 1 nc 127.0.0.1 {}\necho gave up >&2",
        server.plan().port
    );
    let plan = SshPlan {
        identities: vec![],
        ..by_command(&script(&server, "tool", &text), server.plan())
    };
    let error = failure(&plan).await;
    assert!(
        matches!(
            error,
            ConnectError::Refused { .. } | ConnectError::Command { .. }
        ),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jump_host_behind_a_command() {
    let (hop, server) = (Sshd::start(""), Sshd::start(""));
    let echo = Echo::start().await;
    let nc = format!("nc 127.0.0.1 {}", hop.plan().port);
    let plan = through(by_command(&nc, hop.plan()), server.plan());
    let carrier = connect(&plan).await.unwrap();
    echoes(&carrier, &echo, 1 << 20).await;
    carrier.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_nothing_is_given_up_in_time() {
    let server = Sshd::start("");
    let mute = rig::serve(|stream| async move {
        sleep(Duration::from_secs(30)).await;
        drop(stream);
    })
    .await;
    let dialling = Dialling {
        timeout: Some(Duration::from_secs(1)),
        ..Dialling::default()
    };
    let plan = SshPlan {
        port: mute.port(),
        dialling: dialling.clone(),
        ..server.plan()
    };
    let began = Instant::now();
    let text = failure(&plan).await.to_string();
    assert!(
        text.contains("within 1 s: it is connected, but sends no SSH banner"),
        "{text}"
    );
    assert!(began.elapsed() < Duration::from_secs(5));
    let command = SshPlan {
        dialling,
        ..by_command("sleep 30", server.plan())
    };
    let text = failure(&command).await.to_string();
    assert!(text.contains("no SSH banner"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_send_us_away_or_speak_something_else() {
    let server = Sshd::start("");
    for (greeting, said) in [
        (
            "Not allowed at this time\r\n",
            "\"Not allowed at this time\"",
        ),
        (
            "HTTP/1.1 400 Bad Request\r\n\r\n",
            "it is not an SSH server: it says \"HTTP/1.1 400",
        ),
        ("", "before its SSH banner"),
    ] {
        let address = rig::serve(move |mut stream| async move {
            let _ = stream.write_all(greeting.as_bytes()).await;
            let _ = stream.shutdown().await;
            sleep(Duration::from_secs(1)).await;
        })
        .await;
        let plan = SshPlan {
            port: address.port(),
            ..server.plan()
        };
        let text = failure(&plan).await.to_string();
        assert!(text.contains(said), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_family_is_kept_to() {
    let server = Sshd::start("");
    let plan = |host: &str, family| SshPlan {
        host: host.to_owned(),
        dialling: Dialling {
            family,
            ..Dialling::default()
        },
        host_keys: underpass::plan::HostKeyPolicy::No,
        ..server.plan()
    };
    connect(&plan("127.0.0.1", AddressFamily::V4))
        .await
        .unwrap();
    let error = failure(&plan("127.0.0.1", AddressFamily::V6)).await;
    assert!(error.to_string().contains("no IPv6 address"), "{error}");
    let error = failure(&plan("::1", AddressFamily::V4)).await;
    assert!(matches!(error, ConnectError::UnknownHost { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bind_address_is_connected_from() {
    let server = Sshd::start("LogLevel VERBOSE");
    let plan = |from: &str| SshPlan {
        dialling: Dialling {
            bind_address: Some(from.to_owned()),
            ..Dialling::default()
        },
        ..server.plan()
    };
    connect(&plan("127.0.0.7")).await.unwrap().shutdown().await;
    assert!(
        server.log().contains("Connection from 127.0.0.7"),
        "{}",
        server.log()
    );
    for from in ["192.0.2.1", "::1", "no-such-host.invalid"] {
        let error = failure(&plan(from)).await;
        assert!(matches!(error, ConnectError::BindAddress { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_are_a_second_apart() {
    let server = Sshd::start("");
    let closed = rig::closed_port().await.0;
    let plan = SshPlan {
        port: closed.port(),
        dialling: Dialling {
            attempts: 3,
            ..Dialling::default()
        },
        ..server.plan()
    };
    let began = Instant::now();
    assert!(matches!(
        failure(&plan).await,
        ConnectError::Unreachable { .. }
    ));
    assert!(began.elapsed() >= Duration::from_secs(2));
    // One that comes up in between is found.
    let late = tokio::spawn(async move { connect(&plan).await });
    sleep(Duration::from_millis(200)).await;
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, server.plan().port));
    let listener = tokio::net::TcpListener::bind(closed).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    // Found, and of another name than the one that is known.
    let error = late.await.unwrap().err().unwrap();
    assert!(matches!(error, ConnectError::HostKey(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn algorithms_are_those_of_the_user() {
    let server = Sshd::start("");
    let list = |names: &str| Some(names.split(',').map(str::to_owned).collect::<Vec<_>>());
    let mut plan = server.plan();
    plan.algorithms.ciphers = list("made-up,aes256-ctr");
    plan.algorithms.macs = list("umac-64@openssh.com,hmac-sha2-256");
    plan.algorithms.kex = list("ecdh-sha2-nistp384");
    plan.algorithms.host_keys = list("ssh-ed25519");
    let carrier = connect(&plan).await.unwrap();
    assert_eq!(carrier.description().cipher, "aes256-ctr");
    carrier.shutdown().await;
    plan.algorithms.kex = list("diffie-hellman-group1-sha1");
    let text = failure(&plan).await.to_string();
    assert!(
        text.contains("no KexAlgorithms in common: the server has "),
        "{text}"
    );
    plan.algorithms.ciphers = list("made-up");
    let text = failure(&plan).await.to_string();
    assert!(
        text.contains("none of Ciphers made-up; it has aes128-gcm@openssh.com"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compression_where_it_is_wanted() {
    let server = Sshd::start("LogLevel DEBUG1");
    let echo = Echo::start().await;
    let plan = SshPlan {
        compression: true,
        ..server.plan()
    };
    let carrier = connect(&plan).await.unwrap();
    echoes(&carrier, &echo, 4 << 20).await;
    carrier.shutdown().await;
    assert!(
        server.log().contains("compression: zlib@openssh.com"),
        "{}",
        server.log()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_noticed_after_interval_times_count() {
    for (count, seconds) in [(1, 2.0), (3, 6.0)] {
        let server = Sshd::start("");
        let plan = SshPlan {
            keepalive: Some(Keepalive {
                interval: Duration::from_secs(2),
                count,
            }),
            ..server.plan()
        };
        let carrier = connect(&plan).await.unwrap();
        sleep(Duration::from_millis(500)).await;
        server.stop();
        let began = Instant::now();
        let reason = timeout(Duration::from_secs(20), carrier.lost())
            .await
            .unwrap();
        let took = began.elapsed().as_secs_f64();
        server.resume();
        assert!(
            took > seconds - 1.5 && took < seconds + 1.0,
            "{count}: {took} s: {reason}"
        );
    }
}
