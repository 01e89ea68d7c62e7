//! From a plan to a connection that is logged in and ready to carry flows.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use russh::client::{Config, Handle, connect_stream};
use russh::{ChannelMsg, Limits, Preferred, SshId, cipher};
use tokio::sync::Notify;
use tracing::debug;

use super::auth::{Authentication, Credential};
use super::connection::Connection;
use super::handler::{ClientHandler, Handshake, SessionError};
use super::host_key::HostKeyCheck;
use super::leash::{Leash, leashed};
use super::load::Load;
use super::tcp::{self, AckAtOnce, Connected, SshTcp};
use crate::carrier::error::ConnectError;
use crate::carrier::failure::harmless;
use crate::carrier::prompt::Prompter;
use crate::plan::SshPlan;

/// Bytes that the server may send ahead per channel on the shortest path, and what each millisecond of round trip
/// adds. russh opens the window again when half of it is used, so a download gets at least half a window per round
/// trip. Measured, Gbit/s: without delay 4 MiB 7-10, 2 MiB 5-7, 16 MiB 4-10 and half of that with eight flows (the bytes
/// ahead fall out of the caches); at 20 ms 4, 8, 16 MiB 0.80, 1.47, 1.31; at 100 ms 4, 8, 16, 24 MiB 0.17, 0.34, 0.66,
/// 0.81, but 32 MiB down to 0.01: sshd moves its whole output buffer for each packet then.
const WINDOW: u32 = 4 << 20;
const WINDOW_PER_MS: u32 = 160 << 10;
const WINDOW_MAX: u32 = 20 << 20;
/// The largest packet the server may send, in bytes: OpenSSH's own (CHAN_SES_PACKET_DEFAULT).
const MAX_PACKET: u32 = 32 * 1024;
/// Messages that may wait for one flow's reader; at most [`MAX_PACKET`] each.
const MESSAGES_PER_FLOW: usize = 64;
/// Silence after which the server is asked whether it is there, and how often before it counts as gone.
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVES: usize = 3;
/// How long the handshake may take, without the time that a person takes to answer.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the first session may take to be answered. The connection is used without it then.
const SESSION_TIMEOUT: Duration = Duration::from_secs(3);

/// AES-GCM first: with AES-NI it is 1.5 to 2 times as fast as chacha20.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// Makes the first connection: asks `prompter` whatever has to be asked.
///
/// # Errors
/// [`ConnectError`].
pub(super) async fn first(
    plan: &SshPlan,
    addresses: &[SocketAddr],
    prompter: Arc<dyn Prompter>,
    changed: Arc<Notify>,
) -> Result<(Connection, Credential), ConnectError> {
    let connected = tcp::connect(addresses).await?;
    let check = HostKeyCheck::new(plan, Some(Arc::clone(&prompter)));
    let mut start = Start::new(plan, connected, check, changed).await?;
    let auth = Authentication::new(&mut start.handle, plan, Some(prompter));
    let credential = auth.any().await.map_err(|e| start.leash.explain(e))?;
    Ok((start.ready().await, credential))
}

/// Makes a further connection with what let the first one in, and asks nobody.
///
/// # Errors
/// [`ConnectError`], also when somebody would have to be asked.
pub(super) async fn again(
    plan: &SshPlan,
    address: SocketAddr,
    credential: &Credential,
    changed: Arc<Notify>,
) -> Result<Connection, ConnectError> {
    let connected = tcp::connect(&[address]).await?;
    let check = HostKeyCheck::new(plan, None);
    let mut start = Start::new(plan, connected, check, changed).await?;
    let auth = Authentication::new(&mut start.handle, plan, None);
    let taken = auth.again(credential).await;
    taken.map_err(|e| start.leash.explain(e))?;
    Ok(start.ready().await)
}

/// A connection after the key exchange, before the login.
struct Start {
    handle: Handle<ClientHandler>,
    handshake: Arc<Handshake>,
    load: Arc<Load>,
    leash: Leash,
    ack_at_once: AckAtOnce,
    peer: SocketAddr,
}

impl Start {
    async fn new(
        plan: &SshPlan,
        connected: Connected,
        check: HostKeyCheck,
        changed: Arc<Notify>,
    ) -> Result<Self, ConnectError> {
        let Connected {
            stream,
            peer,
            round_trip,
        } = connected;
        let config = Arc::new(config(&check, window(round_trip)));
        let handshake = Arc::new(Handshake::default());
        let load = Arc::new(Load::new(changed));
        let ack_at_once = AckAtOnce::new(AtomicBool::new(false));
        let stream = SshTcp::new(stream, Arc::clone(&ack_at_once));
        let (leash, stream) = leashed(stream);
        let handler = ClientHandler::new(check, Arc::clone(&handshake), Arc::clone(&load));
        let connecting = connect_stream(config, stream, handler);
        let handle = patient(connecting, &handshake)
            .await
            .ok_or(ConnectError::TimedOut {
                address: peer,
                seconds: HANDSHAKE_TIMEOUT.as_secs(),
            })?
            .map_err(|error| handshake_error(plan, peer, error))?;
        Ok(Self {
            handle,
            handshake,
            load,
            leash,
            ack_at_once,
            peer,
        })
    }

    async fn ready(self) -> Connection {
        self.leash.release();
        // sshd leaves Nagle's algorithm on until a session runs something (packet.c
        // ssh_packet_set_interactive); the option stays when the session has ended. Without it every short exchange
        // would stall for the 40 ms of our delayed ACK.
        let session = tokio::time::timeout(SESSION_TIMEOUT, run_true(&self.handle)).await;
        if !session.unwrap_or(false) {
            debug!("the server runs no session: acknowledging at once instead");
            self.ack_at_once.store(true, Relaxed);
        }
        let Handshake {
            host_key, cipher, ..
        } = &*self.handshake;
        Connection::new(
            self.handle,
            self.load,
            self.peer,
            host_key.get().cloned(),
            cipher.get().cloned().unwrap_or_default(),
        )
    }
}

/// Awaits `connecting` with a timeout that stands still while a person is asked.
async fn patient<F: Future>(connecting: F, handshake: &Handshake) -> Option<F::Output> {
    let mut connecting = pin!(connecting);
    loop {
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting.as_mut()).await {
            Ok(done) => return Some(done),
            Err(_) if handshake.asking.load(Relaxed) => {}
            Err(_) => return None,
        }
    }
}

/// The receive window of a channel, in bytes.
fn window(round_trip: Duration) -> u32 {
    let ms = u32::try_from(round_trip.as_millis()).unwrap_or(u32::MAX);
    WINDOW
        .saturating_add(WINDOW_PER_MS.saturating_mul(ms))
        .min(WINDOW_MAX)
}

fn config(check: &HostKeyCheck, window_size: u32) -> Config {
    let preferred = Preferred {
        key: Cow::Owned(check.preferred(&Preferred::DEFAULT.key)),
        cipher: Cow::Borrowed(CIPHERS),
        // Compressing what is mostly compressed or encrypted already costs CPU for nothing.
        compression: Cow::Borrowed(&[russh::compression::NONE]),
        ..Preferred::DEFAULT
    };
    Config {
        client_id: SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-underpass_",
            env!("CARGO_PKG_VERSION")
        ))),
        // No rekey from our side: russh ends the connection when more than two windows of data arrive between our
        // KEXINIT and the server's. The pool retires connections long before a key is worn out; the server
        // may rekey at any time.
        limits: Limits {
            rekey_write_limit: usize::MAX,
            rekey_read_limit: usize::MAX,
            rekey_time_limit: Duration::from_secs(365 * 24 * 3600),
        },
        window_size,
        maximum_packet_size: MAX_PACKET,
        channel_buffer_size: MESSAGES_PER_FLOW,
        preferred,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVES,
        nodelay: true,
        ..Config::default()
    }
}

fn handshake_error(plan: &SshPlan, address: SocketAddr, error: SessionError) -> ConnectError {
    let detail = match error {
        SessionError::HostKey(error) => return ConnectError::HostKey(error),
        SessionError::Ssh(russh::Error::IO(source)) if !is_hang_up(&source) => source.to_string(),
        SessionError::Ssh(russh::Error::IO(_) | russh::Error::Disconnect | russh::Error::HUP) => {
            return ConnectError::Ended {
                host: plan.host.clone(),
                detail: "it closed the connection during the handshake (MaxStartups, or a penalty for this address?)".to_owned(),
            };
        }
        SessionError::Ssh(russh::Error::Version) => "it does not speak SSH 2".to_owned(),
        SessionError::Ssh(error) => error.to_string(),
    };
    ConnectError::Handshake {
        address,
        detail: harmless(&detail),
    }
}

/// Whether the other side went away: which of these it is told as is a matter of time.
fn is_hang_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Runs `true` in a session, until the server says that it runs. `false` where it runs nothing.
async fn run_true(handle: &Handle<ClientHandler>) -> bool {
    let Ok(mut channel) = handle.channel_open_session().await else {
        return false;
    };
    if channel.exec(true, "true").await.is_err() {
        return false;
    }
    let runs = loop {
        match channel.wait().await {
            Some(ChannelMsg::Success) => break true,
            Some(ChannelMsg::Failure | ChannelMsg::Close) | None => break false,
            Some(_) => {}
        }
    };
    // `true` ends by itself. What a forced command runs instead may not.
    tokio::spawn(async move {
        let closed = async { while channel.wait().await.is_some() {} };
        if tokio::time::timeout(SESSION_TIMEOUT, closed).await.is_err() {
            // An error means that the connection is gone, and the channel with it.
            let _ = channel.close().await;
        }
    });
    runs
}
