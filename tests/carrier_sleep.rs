//! A host that sleeps in the middle of a further login, over both carriers: the connection that was let in before, and is not
//! ready yet, is asked for a sign of life as the others are.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "servers/client.rs"]
mod client;
#[path = "servers/place.rs"]
mod place;
#[path = "carrier/rig.rs"]
mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use client::Configured;
use place::Place;
use rig::local;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelOpenFailure};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use underpass::carrier::{Link, LostReason, NoPrompter, OpensshCarrier, RusshCarrier};
use underpass::net::Target;
use underpass::plan::{Keepalive, SshPlan};

/// How long the first session of a connection is waited for.
const SESSION: Duration = Duration::from_secs(3);
/// Much longer than a check takes, and much shorter than a server is waited for that says nothing.
const LONG: Duration = Duration::from_secs(30);

/// What the second connection has come to, and whether the first one is deaf.
#[derive(Default)]
struct Seen {
    is_second_in: watch::Sender<bool>,
    is_first_deaf: watch::Sender<bool>,
    has_first: AtomicBool,
}

/// A connection to a server that goes away: the first one when a stream is asked for, the second one at its first session.
struct Server {
    seen: Arc<Seen>,
    is_second: bool,
}

impl Handler for Server {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _user: &str,
        _key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        self.is_second = self.seen.has_first.swap(true, Relaxed);
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        if self.is_second {
            self.seen.is_second_in.send_replace(true);
            std::future::pending::<()>().await;
        }
        reply
            .reject(ChannelOpenFailure::AdministrativelyProhibited)
            .await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host: &str,
        _port: u32,
        _originator: &str,
        _originator_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.seen.is_first_deaf.send_replace(true);
        std::future::pending().await
    }
}

/// The server, and how to log in to it.
async fn start() -> (Place, SshPlan, Arc<Seen>) {
    let mut place = Place::new();
    let key = russh::keys::load_secret_key(place.path("host_key"), None).unwrap();
    let config = Arc::new(Config {
        keys: vec![key],
        auth_rejection_time: Duration::ZERO,
        ..Config::default()
    });
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    place.port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Seen::default());
    let shared = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (config, seen) = (Arc::clone(&config), Arc::clone(&shared));
            let is_second = false;
            tokio::spawn(async move {
                let server = Server { seen, is_second };
                if let Ok(session) = russh::server::run_stream(config, stream, server).await {
                    let _ = session.await;
                }
            });
        }
    });
    let public = std::fs::read_to_string(place.path("host_key.pub")).unwrap();
    let plan = SshPlan {
        connections: Some(2),
        // Nothing is noticed by itself.
        keepalive: Some(Keepalive {
            interval: Duration::from_secs(600),
            count: 3,
        }),
        ..place.plan(public.trim())
    };
    (place, plan, seen)
}

/// The host sleeps before the second connection's first session is given up, which then joins the others.
async fn is_lost_soon<L: Link + 'static>(link: L, seen: &Seen) {
    let link = Arc::new(link);
    let mut second = seen.is_second_in.subscribe();
    second.wait_for(|is_in| *is_in).await.unwrap();
    let opening = Arc::clone(&link);
    let target = Target("192.0.2.1:1".parse().unwrap());
    tokio::spawn(async move { opening.open(local(1), target).await.map(drop) });
    let mut first = seen.is_first_deaf.subscribe();
    first.wait_for(|is_deaf| *is_deaf).await.unwrap();
    sleep(SESSION - Duration::from_millis(800)).await;
    link.check().await;
    let why = timeout(LONG, link.lost()).await;
    assert_eq!(why.unwrap(), LostReason::Silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_under_way_over_the_built_in_ssh() {
    let (_place, plan, seen) = start().await;
    let carrier = RusshCarrier::connect(&plan, Arc::new(NoPrompter)).await;
    is_lost_soon(carrier.unwrap(), &seen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_under_way_over_the_installed_ssh() {
    let (_place, plan, seen) = start().await;
    let ssh = Configured::new(&plan);
    let carrier = OpensshCarrier::connect(&ssh.plan, &ssh.client).await;
    is_lost_soon(carrier.unwrap(), &seen).await;
}
