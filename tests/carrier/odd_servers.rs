//! The embedded SSH carrier against servers that behave unlike OpenSSH: an SSH server in this process, whose
//! behaviour is chosen by the port that is asked for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use russh::keys::{Algorithm, PrivateKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session};
use russh::{Channel, ChannelMsg, ChannelOpenFailure};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use underpass::carrier::Link;
use underpass::carrier::russh::{RusshReader, RusshWriter};
use underpass::carrier::{NoPrompter, OpensshCarrier, RusshCarrier};
use underpass::net::{ByteReader, ByteWriter, Carrier, OpenFailure, Source, StreamError, Target};
use underpass::plan::{HostKeyPolicy, SshClient, SshPlan};

const CLOSE_AT_ONCE: u16 = 1;
const CLOSE_AFTER_EOF: u16 = 2;
const SHORT_OF_RESOURCES: u16 = 3;
const OPEN_TO_CLIENT: u16 = 4;
const DISCONNECT: u16 = 5;
const EOF_THEN_CLOSE: u16 = 6;
const SILENT: u16 = 7;
const ECHO: u16 = 8;

/// Longer than anything takes that comes at all.
const LONG: Duration = Duration::from_secs(60);

/// How often the server was asked for [`SILENT`].
static SILENT_OPENS: LazyLock<watch::Sender<usize>> = LazyLock::new(watch::Sender::default);

/// Who gets an answer to the first session after [`LATE`], and a refusal; everybody else's is refused at once.
const LATECOMER: &str = "late";
/// Longer than it is waited for.
const LATE: Duration = Duration::from_secs(8);
/// Whether it has been refused by now.
static HAS_REFUSED_LATE: AtomicBool = AtomicBool::new(false);

#[derive(Default)]
struct Odd {
    is_late: bool,
}

impl Handler for Odd {
    type Error = russh::Error;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, russh::Error> {
        self.is_late = user == LATECOMER;
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        let is_late = self.is_late;
        tokio::spawn(async move {
            let wait = if is_late { LATE } else { Duration::ZERO };
            tokio::time::sleep(wait).await;
            let reason = ChannelOpenFailure::AdministrativelyProhibited;
            reply.reject(reason).await;
            HAS_REFUSED_LATE.fetch_or(is_late, Relaxed);
        });
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        _host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let port = u16::try_from(port).unwrap();
        let handle = session.handle();
        tokio::spawn(async move {
            match port {
                SHORT_OF_RESOURCES => {
                    reply.reject(ChannelOpenFailure::ResourceShortage).await;
                    return;
                }
                SILENT => {
                    SILENT_OPENS.send_modify(|count| *count += 1);
                    return std::future::pending().await;
                }
                _ => reply.accept().await,
            }
            serve(port, channel, &handle).await;
        });
        Ok(())
    }
}

async fn serve(port: u16, mut channel: Channel<Msg>, handle: &russh::server::Handle) {
    let _ = channel.data_bytes(Bytes::from_static(b"hello")).await;
    match port {
        CLOSE_AT_ONCE => _ = channel.close().await,
        EOF_THEN_CLOSE => {
            let _ = channel.eof().await;
            let _ = channel.close().await;
        }
        CLOSE_AFTER_EOF => {
            while !matches!(channel.wait().await, Some(ChannelMsg::Eof) | None) {}
            let _ = channel.close().await;
        }
        OPEN_TO_CLIENT => {
            let opened = handle.channel_open_forwarded_tcpip("a", 1, "b", 2).await;
            let answer: &[u8] = if opened.is_ok() { b"taken" } else { b"refused" };
            let _ = channel.data_bytes(Bytes::copy_from_slice(answer)).await;
            let _ = channel.eof().await;
        }
        DISCONNECT => {
            let _ = handle
                .disconnect(
                    russh::Disconnect::ByApplication,
                    "going\u{1b}down".into(),
                    String::new(),
                )
                .await;
        }
        _ => {
            while let Some(message) = channel.wait().await {
                if let ChannelMsg::Data { data } = message {
                    let _ = channel.data_bytes(data).await;
                }
            }
        }
    }
}

async fn connect() -> (TempDir, RusshCarrier) {
    let (dir, plan) = start().await;
    let carrier = RusshCarrier::connect(&plan, Arc::new(NoPrompter)).await;
    (dir, carrier.unwrap())
}

/// The same over the installed ssh.
async fn connect_by_ssh() -> (TempDir, OpensshCarrier) {
    let (dir, plan) = start().await;
    let known = plan.known_hosts[0].display();
    let options = format!(
        "-F none -l me -p {} -o UserKnownHostsFile={known} -o StrictHostKeyChecking=accept-new",
        plan.port
    );
    let client = SshClient {
        arguments: options.split(' ').map(str::to_owned).collect(),
    };
    let carrier = OpensshCarrier::connect(&plan, &client).await;
    (dir, carrier.unwrap())
}

async fn start() -> (TempDir, SshPlan) {
    let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
    let config = Arc::new(Config {
        keys: vec![key],
        auth_rejection_time: Duration::ZERO,
        ..Config::default()
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let config = Arc::clone(&config);
            tokio::spawn(async move {
                if let Ok(session) = russh::server::run_stream(config, stream, Odd::default()).await
                {
                    let _ = session.await;
                }
            });
        }
    });
    let dir = TempDir::new().unwrap();
    let plan = SshPlan {
        host_keys: HostKeyPolicy::AcceptNew,
        known_hosts: vec![dir.path().join("known_hosts")],
        // What the server does to one shall be seen: a further one would carry on.
        connections: Some(1),
        ..SshPlan::new("127.0.0.1", port, "me")
    };
    (dir, plan)
}

fn source() -> Source {
    Source(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))
}

fn target(port: u16) -> Target {
    Target(SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), port)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_before_our_eof_is_a_reset_after_the_data() {
    let (_dir, carrier) = connect().await;
    assert_eq!(carrier.description().authentication, "no authentication");
    assert_eq!(
        carrier.server_addresses(),
        [IpAddr::V4(Ipv4Addr::LOCALHOST)]
    );
    let (mut reader, mut writer) = carrier.open(source(), target(CLOSE_AT_ONCE)).await.unwrap();
    assert_eq!(reader.read().await.unwrap().unwrap(), "hello");
    assert_eq!(reader.read().await, Err(StreamError::Reset));
    assert_eq!(reader.reset().await, StreamError::Reset);
    let late = writer.write(Bytes::from_static(b"x")).await;
    assert_eq!(late, Err(StreamError::Reset));
    assert_eq!(writer.finish().await, Err(StreamError::Reset));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_after_our_eof_is_the_end() {
    let (_dir, carrier) = connect().await;
    let open = carrier.open(source(), target(CLOSE_AFTER_EOF)).await;
    let (mut reader, mut writer) = open.unwrap();
    assert_eq!(reader.read().await.unwrap().unwrap(), "hello");
    writer.finish().await.unwrap();
    assert_eq!(reader.read().await, Ok(None));
    assert_eq!(reader.read().await, Ok(None));
    let reset = timeout(Duration::from_millis(50), reader.reset()).await;
    assert!(reset.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_after_its_eof_is_a_reset() {
    let (_dir, carrier) = connect().await;
    let open = carrier.open(source(), target(EOF_THEN_CLOSE)).await;
    let (mut reader, writer) = open.unwrap();
    assert_eq!(reader.read().await.unwrap().unwrap(), "hello");
    assert_eq!(reader.read().await, Ok(None));
    assert_eq!(reader.reset().await, StreamError::Reset);
    drop(writer);
}

/// Who reads late is told all the same that nothing is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_is_read_after_the_reset_is_an_end() {
    let (_dir, carrier) = connect_by_ssh().await;
    let open = carrier.open(source(), target(EOF_THEN_CLOSE)).await;
    let (mut reader, _writer) = open.unwrap();
    assert_eq!(reader.reset().await, StreamError::Reset);
    assert_eq!(reader.read().await.unwrap().unwrap(), "hello");
    assert_eq!(reader.read().await, Ok(None));
    let (mut reader, _writer) = carrier.open(source(), target(CLOSE_AT_ONCE)).await.unwrap();
    assert_eq!(reader.reset().await, StreamError::Reset);
    assert_eq!(reader.read().await.unwrap().unwrap(), "hello");
    assert_eq!(reader.read().await, Err(StreamError::Reset));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_seen_while_absorbing_comes_after_the_bytes() {
    let (_dir, carrier) = connect().await;
    let open = carrier.open(source(), target(CLOSE_AT_ONCE)).await;
    let (mut reader, _writer) = open.unwrap();
    let absorbed = timeout(Duration::from_millis(100), reader.absorb()).await;
    assert!(absorbed.is_err());
    assert_eq!(reader.read().await.unwrap().unwrap(), "hello");
    assert_eq!(reader.read().await, Err(StreamError::Reset));
}

/// A carrier with one flow that nobody reads: the server answers with all that it gets, so it reads no more either, and the
/// window fills.
async fn clogged() -> (TempDir, RusshCarrier, RusshReader, RusshWriter) {
    let (dir, carrier) = connect().await;
    let (reader, mut writer) = carrier.open(source(), target(ECHO)).await.unwrap();
    let full = async { while writer.write(chunk()).await.is_ok() {} };
    assert!(timeout(Duration::from_secs(2), full).await.is_err());
    (dir, carrier, reader, writer)
}

fn chunk() -> Bytes {
    Bytes::from(vec![0; 1 << 20])
}

/// What is already here may still be read; then the connection is lost for both halves.
async fn sees_the_end(mut reader: RusshReader, mut writer: RusshWriter) {
    let ended = async { while !matches!(reader.read().await, Err(StreamError::Lost)) {} };
    timeout(Duration::from_secs(5), ended).await.unwrap();
    let late = timeout(Duration::from_secs(1), writer.write(chunk())).await;
    assert_eq!(late.unwrap(), Err(StreamError::Lost));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_without_window_sees_the_end() {
    let (_dir, carrier, mut reader, writer) = clogged().await;
    // As a relay does all the time: somebody takes what arrives, or the goodbye waits behind it.
    tokio::select! {
        () = carrier.shutdown() => {}
        lost = reader.absorb() => assert_eq!(lost, StreamError::Lost),
    }
    sees_the_end(reader, writer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_goodbye_finds_no_way_is_cut() {
    let (_dir, carrier, reader, writer) = clogged().await;
    carrier.shutdown().await;
    sees_the_end(reader, writer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shortage_is_told_as_such() {
    let (_dir, carrier) = connect().await;
    let error = carrier
        .open(source(), target(SHORT_OF_RESOURCES))
        .await
        .err();
    assert_eq!(error.unwrap().failure, OpenFailure::NoResources);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_may_open_nothing_on_our_side() {
    let (_dir, carrier) = connect().await;
    let open = carrier.open(source(), target(OPEN_TO_CLIENT)).await;
    let (mut reader, _writer) = open.unwrap();
    let mut said = Vec::new();
    while let Some(chunk) = reader.read().await.unwrap() {
        said.extend_from_slice(&chunk);
    }
    assert_eq!(said, b"hellorefused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goodbye_is_told_without_its_control_characters() {
    let (_dir, carrier) = connect().await;
    let open = carrier.open(source(), target(DISCONNECT)).await;
    let (mut reader, _writer) = open.unwrap();
    while let Ok(Some(_)) = reader.read().await {}
    let reason = timeout(Duration::from_secs(5), carrier.lost()).await;
    let text = reason.unwrap().to_string();
    assert_eq!(text, "the server ended the connection: goingdown");
}

/// Thousands of opens that are never answered, to many hosts, and one that is. It does not wait for them, or it would for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_hosts_do_not_delay_a_live_one() {
    let (_dir, carrier) = connect().await;
    let carrier = Arc::new(carrier);
    let mut scan = tokio::task::JoinSet::new();
    for host in 0..254u8 {
        for _ in 0..40 {
            let carrier = Arc::clone(&carrier);
            let silent = Target(SocketAddr::from((
                Ipv4Addr::new(198, 51, 100, host),
                SILENT,
            )));
            scan.spawn(async move { carrier.open(source(), silent).await.is_ok() });
        }
    }
    // From here on a host has one open in flight, or a few: the others wait, for ever.
    let mut asked = SILENT_OPENS.subscribe();
    asked.wait_for(|count| *count >= 2_560).await.unwrap();
    let open = timeout(LONG, carrier.open(source(), target(ECHO))).await;
    let (mut reader, _writer) = open.expect("in front of those that wait").unwrap();
    assert_eq!(reader.read().await.unwrap().unwrap(), "hello");
    scan.shutdown().await;
}

/// The refusal comes while another open waits for its answer, whose it is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_refused_late_holds_nothing_up() {
    let (_dir, plan) = start().await;
    let plan = SshPlan {
        user: LATECOMER.to_owned(),
        ..plan
    };
    let carrier = RusshCarrier::connect(&plan, Arc::new(NoPrompter)).await;
    let carrier = Arc::new(carrier.unwrap());
    assert!(!HAS_REFUSED_LATE.load(Relaxed), "the login has waited");
    let waiting = Arc::clone(&carrier);
    let waiting = tokio::spawn(async move { waiting.open(source(), target(SILENT)).await.is_ok() });
    let open = carrier.open(source(), target(ECHO)).await;
    let (mut reader, mut writer) = open.unwrap();
    assert_eq!(reader.read().await.unwrap().unwrap(), "hello");
    let mut left = 20;
    while left > 0 {
        left -= i32::from(HAS_REFUSED_LATE.load(Relaxed));
        writer.write(Bytes::from_static(b"x")).await.unwrap();
        let echo = timeout(Duration::from_secs(3), reader.read()).await;
        assert_eq!(echo.expect("no pause").unwrap().unwrap(), "x");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    waiting.abort();
}
