//! One SSH connection that is logged in.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use russh::client::{Handle, Msg};
use russh::keys::PublicKey;
use russh::{ChannelStream, Disconnect};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::backlog::Store;
use super::handler::ClientHandler;
use super::load::{ChannelGuard, Load};
use super::route::Base;
use super::stream::{RusshReader, RusshWriter, halves};
use super::vigil::Vigil;
use crate::carrier::error::LostReason;
use crate::carrier::link::LIFE;
use crate::net::{Far, OpenError, Source};

/// Payload after which a connection takes no new flows, in bytes. Far below where a key is worn out
/// (2^32 packets of one key, RFC 4344 section 3.1), even for flows of tiny packets.
const RETIRE_BYTES: u64 = 32 << 30;
/// Age after which it takes none.
const RETIRE_AGE: Duration = Duration::from_secs(6 * 3600);
/// What was sent before the way was gone may arrive for so long, and is no sign of life.
const LATE_ARRIVALS: Duration = Duration::from_millis(500);
/// Memory that russh will not give back, after which it takes none, in bytes.
const RETIRE_KEPT: u64 = 16 << 20;

/// One connection. Its session ends when this and all its streams are dropped.
pub(super) struct Connection {
    handle: Arc<Handle<ClientHandler>>,
    load: Arc<Load>,
    base: Base,
    host_key: Option<PublicKey>,
    cipher: String,
    vigil: Vigil,
    /// Dropped with the connection: its first session is waited for no longer.
    _life: oneshot::Sender<()>,
}

impl Connection {
    /// `life` is dropped with it.
    pub(super) fn new(
        (handle, life): (Arc<Handle<ClientHandler>>, oneshot::Sender<()>),
        load: Arc<Load>,
        base: Base,
        host_key: Option<PublicKey>,
        cipher: String,
    ) -> Self {
        Self {
            handle,
            load,
            base,
            host_key,
            cipher,
            vigil: Vigil::default(),
            _life: life,
        }
    }

    pub(super) fn load(&self) -> &Arc<Load> {
        &self.load
    }

    pub(super) fn handle(&self) -> &Handle<ClientHandler> {
        &self.handle
    }

    /// What the way to the server rests on.
    pub(super) fn base(&self) -> &Base {
        &self.base
    }

    pub(super) fn host_key(&self) -> Option<&PublicKey> {
        self.host_key.as_ref()
    }

    pub(super) fn cipher(&self) -> &str {
        &self.cipher
    }

    /// Whether it should get no new flows, if another one can take them.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.load.carried() > RETIRE_BYTES
            || self.load.kept() > RETIRE_KEPT
            || now.saturating_duration_since(self.load.born()) > RETIRE_AGE
    }

    /// Opens one stream. `place` counts it from before the open until after its end.
    pub(super) async fn open(
        &self,
        source: Source,
        far: &Far,
        place: ChannelGuard,
        store: &Arc<Store>,
    ) -> Result<(RusshReader, RusshWriter), OpenError> {
        let open = self.handle.channel_open_direct_tcpip(
            far.host(),
            u32::from(far.target.0.port()),
            source.0.ip().to_canonical().to_string(),
            u32::from(source.0.port()),
        );
        let channel = self.load.refusals().with_text(open).await?;
        Ok(halves(channel, place, Arc::clone(store)))
    }

    /// Asks the server for a sign of life; without one the connection is lost. An answer to our question is one, and so is
    /// whatever else arrives: the question may wait behind an upload. A connection that is held up by a flow that nobody
    /// reads cannot tell.
    pub(super) async fn check(&self) {
        let load = &self.load;
        let mut answer = pin!(self.handle.send_ping());
        if timeout(LATE_ARRIVALS, &mut answer).await.is_ok() {
            return;
        }
        let heard = load.cut().heard();
        let answered = timeout(LIFE - LATE_ARRIVALS, answer).await.is_ok();
        let is_held_up = load.stalled() + load.waiting() > 0;
        if !answered && !is_held_up && load.cut().heard() == heard {
            load.set_lost(LostReason::Silent);
            load.cut().cut();
        }
    }

    /// While flows that are not read hold the session up: finds out whether the connection is lost.
    pub(super) fn watch(&self, now: Instant) {
        self.vigil.watch(self, now);
    }

    /// Opens a channel to another SSH server, which this one looks up and connects to.
    pub(super) async fn forward(
        &self,
        host: &str,
        port: u16,
    ) -> Result<ChannelStream<Msg>, OpenError> {
        let open = self.handle.channel_open_direct_tcpip(
            host,
            u32::from(port),
            // As ssh -W (RFC 4254 section 7.2 wants an originator).
            "127.0.0.1",
            65535,
        );
        let channel = self.load.refusals().with_text(open).await?;
        Ok(channel.into_stream())
    }

    /// Says goodbye to the server (RFC 4253 section 11.1).
    pub(super) async fn disconnect(&self) {
        self.load.leave();
        // An error means that there is nobody to say it to.
        let _ = self
            .handle
            .disconnect(Disconnect::ByApplication, "done", "")
            .await;
        if let Base::Hop(hop) = &self.base {
            Box::pin(hop.disconnect()).await;
        }
    }
}
