//! From a plan to a connection that is logged in and ready to carry flows.

use std::borrow::Cow;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use russh::client::{Config, Handle, connect_stream};
use russh::{ChannelMsg, Limits, Preferred, SshId};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::debug;

use super::algorithms;
use super::auth::{Authentication, Credential, Keyring};
use super::connection::Connection;
use super::cut::Cuttable;
use super::greeting::{VERSION, greet};
use super::handler::{ClientHandler, Handshake};
use super::host_key::{Accepted, HostKeyCheck};
use super::leash::{Leash, leashed};
use super::load::{Common, Load};
use super::refusal::Refusals;
use super::route::{self, Base, Known, Way};
use super::server::Server;
use super::tcp::AckAtOnce;
use crate::carrier::detach::detached;
use crate::carrier::error::{ConnectError, LostReason, Stage};
use crate::carrier::expired::Expiry;
use crate::carrier::prompt::Prompter;
use crate::plan::{Keepalive, SshPlan};

/// Bytes that the server may send ahead per channel on the shortest path, and what each millisecond of round trip
/// adds. russh opens the window again when half of it is used, so a download gets about half a window per round trip: its
/// client asks `Handler::adjust_window` for another target and then takes this one (0.65.1, `client/encrypted.rs`; its
/// server takes the answer). With targets of 13 to 14 MiB that grow by 64 KiB a grant, 100 ms gave 1.04 Gbit/s, not 0.58.
/// Measured, Gbit/s: without delay 4 MiB 7-10, 2 MiB 5-7, 16 MiB 4-10 and half of that with eight flows (the bytes
/// ahead fall out of the caches); 3 MiB as 4, but for the first 300 ms of eight flows, in which sshd's buffers grow to
/// the window step by step, each copied whole (sshbuf_allocate): 1.04 times the 4 MiB over 2 s. At 20 ms 6, 9, 12 MiB
/// 1.16, 1.75, 2.3; at 100 ms 4, 8, 12, 16 MiB 0.17, 0.34, 0.50, 0.66.
const WINDOW: u32 = 3 << 20;
const WINDOW_PER_MS: u32 = 480 << 10;
/// The most, from 20 ms on. What the target sends faster than the path takes piles up in sshd, up to a window, in a
/// buffer of 16 MiB (CHAN_INPUT_MAX in channels.h). Near that sshd moves all of it for each packet: over 100 Mbit/s and
/// 100 ms 8-15 MiB get 99 Mbit/s, 16 80-97, 19 70 and a busy core. And while TCP starts slowly sshd copies it again and
/// again as it grows: the first and the second 32 MB over 40 ms take 1.0 and 0.74 s with 2 MiB (`ssh -L`), 0.9 and 0.34
/// with 8, 1.1-2.2 and 0.26 with 12, 2.6-4.6 and 0.24 with 14; 128 MB 3.0 and 2.7, 2.1 and 1.3, 2.3 and 0.93, 3.2 and 0.80.
const WINDOW_MAX: u32 = 12 << 20;
/// The most on a path so long that TCP's slow start hides that copying. Over 100 ms the first 32 MB take 2.0-2.6 s with
/// 14 MiB, 2.2-2.4 with 12, and then come at 583 Mbit/s, not 500; where the path takes 100 or 400 Mbit/s both are alike.
/// With 15 MiB, 624 Mbit/s, three of nine downloads after the first took 3.1-7.6 s for 32 MB, with 14 one of fourteen, 3.1.
const WINDOW_MAX_FAR: u32 = 14 << 20;
/// Where such a path begins, in milliseconds.
const FAR_MS: u32 = 80;
/// The largest packet the server may send, in bytes: OpenSSH's own (CHAN_SES_PACKET_DEFAULT).
const MAX_PACKET: u32 = 32 * 1024;
/// Messages that may wait for one flow's reader; at most [`MAX_PACKET`] each.
const MESSAGES_PER_FLOW: usize = 64;
/// Silence after which the server is asked whether it is there, and how often before it counts as gone, where the user
/// chose neither.
const KEEPALIVE: Keepalive = Keepalive {
    interval: Duration::from_secs(5),
    count: 3,
};
/// How long the first session may take to be answered. The connection is used without it then.
const SESSION_TIMEOUT: Duration = Duration::from_secs(3);

/// What let us in, and the way: for further connections.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) credential: Credential,
    pub(super) known: Known,
    host_key: Option<Accepted>,
    keyring: Keyring,
}

impl Access {
    /// Whether a further connection asks nobody, on the whole way.
    pub(super) fn is_silent(&self) -> bool {
        let hop = match &self.known {
            Known::Hop(hop) => hop.is_silent(),
            Known::Tcp(..) | Known::Command(_) => true,
        };
        hop && self.credential.is_silent()
    }
}

/// How to log in.
pub(super) struct How<'a> {
    /// What let us in before: tried first, unless that asks somebody and nobody may be asked; and the server's key, the
    /// only one that will do.
    pub(super) before: Option<&'a Access>,
    /// A further connection beside the one that `before` is from: over the same way, and nobody is to notice.
    pub(super) is_further: bool,
    /// Who is asked what has to be asked; `None` where nobody may be.
    pub(super) prompter: Option<Arc<dyn Prompter>>,
}

impl<'a> How<'a> {
    /// What is known of the way, where the same is to be taken.
    pub(super) fn known(&self) -> Option<&'a Known> {
        self.before
            .filter(|_| self.is_further)
            .map(|access| &access.known)
    }

    /// What let us in before, where it is to be tried: a key that is to be touched, a code, not while nobody knows of it.
    fn credential(&self) -> Option<&'a Credential> {
        let silent = |access: &&Access| self.prompter.is_some() || access.credential.is_silent();
        let before = self.before.filter(silent)?;
        Some(&before.credential)
    }

    /// The same for the jump host.
    pub(super) fn of_hop(&self) -> Self {
        let before = match self.before.map(|access| &access.known) {
            Some(Known::Hop(access)) => Some(&**access),
            _ => None,
        };
        Self {
            before,
            is_further: self.is_further,
            prompter: self.prompter.clone(),
        }
    }
}

/// Makes a further connection with what let the first one in, or with a renewed certificate where that is not taken any more, and
/// asks nobody.
///
/// # Errors
/// [`ConnectError`], also when somebody would have to be asked.
pub(super) async fn further(plan: &SshPlan, access: &Access, common: Arc<Common>) -> LoggedIn {
    let how = How {
        before: Some(access),
        is_further: true,
        prompter: None,
    };
    log_in(plan, how, common).await
}

/// A connection, and what let us in.
type LoggedIn = Result<(Connection, Access), ConnectError>;

/// Logs in to a jump host: a step of another login.
pub(super) fn boxed<'a>(
    plan: &'a SshPlan,
    how: How<'a>,
) -> Pin<Box<dyn Future<Output = LoggedIn> + Send + 'a>> {
    // Nobody listens to its bell: what runs over it notices its end.
    Box::pin(log_in(plan, how, Arc::default()))
}

/// Logs in to the server of `plan`, and rings the bell of `common` when something happens to the connection.
///
/// # Errors
/// [`ConnectError`], also of a jump host's login.
pub(super) async fn log_in(plan: &SshPlan, how: How<'_>, common: Arc<Common>) -> LoggedIn {
    let load = Arc::new(Load::new(common));
    let (way, known) = route::open(plan, &how, &load).await?;
    let before = how.before.and_then(|access| access.host_key.clone());
    let mut check = HostKeyCheck::new(plan, how.prompter.clone()).after(before);
    if let Some(peer) = way.base.peer() {
        check = check.at(peer.ip());
    }
    let mut start = Start::new(plan, way, check, load).await?;
    let keyring = how.before.map(|access| access.keyring.clone());
    let keyring = keyring.unwrap_or_default();
    let credential = start.credential(plan, &how, &keyring).await;
    let credential = credential.map_err(|error| start.explain(plan, error))?;
    let access = Access {
        credential,
        known,
        host_key: start.handshake.host_key.get().cloned(),
        keyring,
    };
    let expiry = (!how.is_further).then(|| Expiry::of(plan));
    Ok((start.ready(expiry).await, access))
}

/// A connection after the key exchange, before the login.
struct Start {
    handle: Handle<ClientHandler>,
    handshake: Arc<Handshake>,
    load: Arc<Load>,
    leash: Leash,
    ack_at_once: AckAtOnce,
    base: Base,
}

impl Start {
    async fn new(
        plan: &SshPlan,
        way: Way,
        check: HostKeyCheck,
        load: Arc<Load>,
    ) -> Result<Self, ConnectError> {
        let Way {
            mut stream,
            base,
            round_trip,
            ack_at_once,
            patience,
        } = way;
        let preferred = algorithms::offered(plan, &check)?;
        let server = Server::new(plan, &base);
        let greeting = timeout(
            patience,
            greet(&mut stream, &server.name, round_trip.is_none()),
        )
        .await
        .map_err(|_| server.timed_out(patience, Stage::Banner))?
        .map_err(|error| server.greeting_error(error))?;
        stream.greeted(greeting.heard);
        let round_trip = round_trip.or(greeting.round_trip).unwrap_or_default();
        debug!("{}: a round trip takes {round_trip:?}", server.name);
        let config = Arc::new(config(plan, preferred, window(round_trip)));
        let handshake = Arc::new(Handshake::default());
        let handler = ClientHandler::new(check, Arc::clone(&handshake), Arc::clone(&load));
        let (leash, stream) = leashed(stream);
        let stream = Cuttable::new(stream, Arc::clone(load.cut()), silence(plan));
        let connecting = connect_stream(config, stream, handler);
        let handle = patient(connecting, &handshake, patience)
            .await
            .ok_or_else(|| server.timed_out(patience, Stage::Keys))?
            .map_err(|error| server.handshake_error(error))?;
        Ok(Self {
            handle,
            handshake,
            load,
            leash,
            ack_at_once,
            base,
        })
    }

    /// Lets us in.
    async fn credential(
        &mut self,
        plan: &SshPlan,
        how: &How<'_>,
        keyring: &Keyring,
    ) -> Result<Credential, ConnectError> {
        let mut authentication = self.authentication(plan, how, keyring);
        if let Some(before) = how.credential() {
            match authentication.again(before).await {
                Ok(()) => return Ok(before.clone()),
                // A certificate may have been renewed since.
                Err(ConnectError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        authentication.any().await
    }

    fn authentication<'a>(
        &'a mut self,
        plan: &'a SshPlan,
        how: &How<'_>,
        keyring: &Keyring,
    ) -> Authentication<'a> {
        let prompter = how.prompter.clone();
        Authentication::new(
            &mut self.handle,
            plan,
            &self.load,
            prompter,
            keyring.clone(),
        )
        .silently(how.is_further)
    }

    /// Where the way came to its end during the login, that is the reason.
    fn explain(&self, plan: &SshPlan, error: ConnectError) -> ConnectError {
        let error = self.leash.explain(error);
        match (&error, self.load.lost()) {
            (ConnectError::Ended { .. }, Some(LostReason::Broken(reason))) => {
                Server::new(plan, &self.base)
                    .way_ended(reason, false)
                    .unwrap_or(error)
            }
            _ => error,
        }
    }

    async fn ready(self, expiry: Option<Expiry>) -> Connection {
        self.leash.release();
        // sshd leaves Nagle's algorithm on until a session runs something (packet.c
        // ssh_packet_set_interactive); the option stays when the session has ended. Without it every short exchange
        // would stall for the 40 ms of our delayed ACK.
        let handle = Arc::new(self.handle);
        let (life, over) = oneshot::channel();
        let session = first_session(Arc::clone(&handle), Arc::clone(&self.load), expiry, over);
        let session = timeout(SESSION_TIMEOUT, detached(session)).await;
        if !session.unwrap_or(false) {
            debug!("the server runs no session: acknowledging at once instead");
            self.ack_at_once.store(true, Relaxed);
        }
        if let Base::Command(running) = &self.base {
            running.logged_in();
        }
        let Handshake {
            host_key, cipher, ..
        } = &*self.handshake;
        Connection::new(
            (handle, life),
            self.load,
            self.base,
            host_key.get().map(|accepted| accepted.key.clone()),
            cipher.get().cloned().unwrap_or_default(),
        )
    }
}

/// Awaits `connecting` with a timeout that stands still while a person is asked.
async fn patient<F: Future>(
    connecting: F,
    handshake: &Handshake,
    patience: Duration,
) -> Option<F::Output> {
    let mut connecting = pin!(connecting);
    loop {
        match timeout(patience, connecting.as_mut()).await {
            Ok(done) => return Some(done),
            Err(_) if handshake.asking.load(Relaxed) => {}
            Err(_) => return None,
        }
    }
}

/// The receive window of a channel, in bytes.
pub(super) fn window(round_trip: Duration) -> u32 {
    let ms = u32::try_from(round_trip.as_millis()).unwrap_or(u32::MAX);
    let most = match ms < FAR_MS {
        true => WINDOW_MAX,
        false => WINDOW_MAX_FAR,
    };
    WINDOW
        .saturating_add(WINDOW_PER_MS.saturating_mul(ms))
        .min(most)
}

/// When the server is asked for a sign of life, and how many questions may stay without an answer. It counts as gone
/// after ServerAliveInterval x ServerAliveCountMax; russh (and ssh) would wait one interval longer.
fn keepalive(plan: &SshPlan) -> (Duration, usize) {
    let Keepalive { interval, count } = plan.keepalive.unwrap_or(KEEPALIVE);
    match count {
        // russh takes none for never.
        0 | 1 => (interval / 2, 1),
        count => (interval, usize::try_from(count - 1).unwrap_or(usize::MAX)),
    }
}

/// The silence after which the server counts as gone.
pub(super) fn silence(plan: &SshPlan) -> Duration {
    let Keepalive { interval, count } = plan.keepalive.unwrap_or(KEEPALIVE);
    interval.saturating_mul(count.max(1))
}

fn config(plan: &SshPlan, preferred: Preferred, window_size: u32) -> Config {
    let (interval, unanswered) = keepalive(plan);
    Config {
        client_id: SshId::Standard(Cow::Borrowed(VERSION)),
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
        keepalive_interval: Some(interval),
        keepalive_max: unanswered,
        nodelay: true,
        ..Config::default()
    }
}

/// [`run_true`], answered late or not; until the connection is dropped, which a server without an answer is not to keep.
async fn first_session(
    handle: Arc<Handle<ClientHandler>>,
    load: Arc<Load>,
    expiry: Option<Expiry>,
    over: oneshot::Receiver<()>,
) -> bool {
    tokio::select! {
        runs = run_true(&handle, load.refusals(), expiry) => runs,
        _ = over => false,
    }
}

/// Runs `true` in a session, until the server says that it runs. `false` where it runs nothing.
async fn run_true(
    handle: &Handle<ClientHandler>,
    refusals: &Refusals,
    mut expiry: Option<Expiry>,
) -> bool {
    // A refusal's text is taken here, or the session would wait for the next opener to do so.
    let open = refusals.with_text(handle.channel_open_session());
    let Ok(mut channel) = open.await else {
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
        let closed = async {
            while let Some(message) = channel.wait().await {
                if let (ChannelMsg::ExtendedData { data, .. }, Some(expiry)) =
                    (message, &mut expiry)
                {
                    expiry.hear(&data);
                }
            }
        };
        if tokio::time::timeout(SESSION_TIMEOUT, closed).await.is_err() {
            // An error means that the connection is gone, and the channel with it.
            let _ = channel.close().await;
        }
    });
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_with_the_round_trip() {
        let after = |ms| window(Duration::from_millis(ms));
        assert_eq!(after(0), WINDOW);
        assert_eq!(after(10), WINDOW + 10 * WINDOW_PER_MS);
        assert_eq!(after(20), WINDOW_MAX);
        assert_eq!(after(FAR_MS.into()), WINDOW_MAX_FAR);
        assert_eq!(window(Duration::MAX), WINDOW_MAX_FAR);
    }
}
