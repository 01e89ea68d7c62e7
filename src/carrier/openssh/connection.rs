//! One master's channels: what everybody shares behind one lock, the task that reads and the task that writes.
//!
//! Whoever changes something under the lock finds out there whom to wake, and wakes them when the lock is free again.
//! The lock of a flow is taken inside, never the other way round.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Buf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout_at;
use tracing::debug;

use super::flow::Flow;
use super::master::Master;
use super::place::{Asked, Place};
use super::shared::{After, Burden, Owner, Session, Shared};
use crate::carrier::channels::{ChannelType, Config, Decoder, Fault, Outgoing};
use crate::carrier::dial::DialPermit;
use crate::carrier::error::LostReason;
use crate::carrier::expired::Expiry;
use crate::carrier::link::next_number;
use crate::carrier::processes;
use crate::net::{Far, OpenError, OpenFailure, Source};

/// How long the first session may take to be answered, and to end.
const SESSION: Duration = Duration::from_secs(3);

/// One master and its channels.
pub(super) struct Connection {
    number: u32,
    shared: Mutex<Shared>,
    /// Rung when there is something to write.
    work: Notify,
    /// Rung when it is to end.
    stop: Notify,
    /// The pool's: rung when something has changed that it should look at.
    changed: Arc<Notify>,
    lost: OnceLock<LostReason>,
    is_stopped: AtomicBool,
    /// How often something has arrived.
    heard: AtomicU64,
    peers: Vec<IpAddr>,
}

impl Connection {
    /// Takes a master over, and runs its channels until it ends.
    pub(super) fn start(master: Master, socket: UnixStream, changed: Arc<Notify>) -> Arc<Self> {
        let connection = Arc::new(Self {
            number: next_number(),
            shared: Mutex::default(),
            work: Notify::new(),
            stop: Notify::new(),
            changed,
            lost: OnceLock::new(),
            is_stopped: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            peers: processes::peers(master.pid()),
        });
        tokio::spawn(Arc::clone(&connection).run(master, socket));
        connection
    }

    /// Its number.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Where its TCP connections went when it was ready.
    pub(super) fn peers(&self) -> &[IpAddr] {
        &self.peers
    }

    /// `None` once nothing works any more.
    pub(super) fn burden(&self) -> Option<Burden> {
        let shared = self.shared();
        let is_over = shared.is_lost || self.is_stopped.load(Relaxed);
        (!is_over).then(|| shared.burden())
    }

    /// Why it carries nothing any more.
    pub(super) fn lost(&self) -> Option<&LostReason> {
        self.lost.get()
    }

    /// Resolves when it was told to end and its ssh has. For who has started it alone: the bell that rings then wakes one.
    pub(super) async fn ended(&self) {
        while self.lost().is_none() {
            self.changed.notified().await;
        }
    }

    /// Whether it was told to end.
    pub(super) fn was_stopped(&self) -> bool {
        self.is_stopped.load(Relaxed)
    }

    /// Ends the master, and what is on it.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Relaxed);
        self.stop.notify_one();
    }

    /// How often something has arrived so far.
    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Relaxed)
    }

    /// It is lost, whatever its ssh thinks; that is ended.
    pub(super) fn give_up(&self, why: LostReason) {
        // The first reason stays.
        let _ = self.lost.set(why);
        self.lose();
        self.changed.notify_one();
        self.stop.notify_one();
    }

    /// Asks for a stream. The answer is waited for by what is returned.
    ///
    /// # Errors
    /// The connection is lost, or full.
    pub(super) fn open(
        self: &Arc<Self>,
        source: Source,
        far: &Far,
        permit: DialPermit,
    ) -> Result<Asked, OpenError> {
        let kind = ChannelType::direct_tcpip(&far.host(), far.target.0.port(), source.0);
        self.open_flow(kind, Flow::new(permit))
    }

    /// Asks for a channel that is `flow`.
    ///
    /// # Errors
    /// The connection is lost, or full.
    pub(super) fn open_flow(
        self: &Arc<Self>,
        kind: ChannelType,
        flow: Flow,
    ) -> Result<Asked, OpenError> {
        let flow = Arc::new(flow);
        let opened = self.with(|shared, _| {
            if shared.is_lost {
                return Err(OpenError::new(OpenFailure::ConnectionLost, ""));
            }
            let full = || OpenError::new(OpenFailure::NoResources, "");
            if shared.burden().is_full() {
                return Err(full());
            }
            let id = shared.channels.open(kind).map_err(|_| full())?;
            shared.owners.insert(id, Owner::Flow(Arc::clone(&flow)));
            Ok(id)
        });
        let place = Place {
            connection: Arc::clone(self),
            flow,
            id: opened?,
        };
        Ok(Asked { place: Some(place) })
    }

    /// Runs `true` in a session, until the server says that it runs; whether it does. sshd leaves Nagle's algorithm
    /// on until a session runs something (packet.c ssh_packet_set_interactive), and without it every short exchange
    /// would stall for 40 ms.
    pub(super) async fn run_true(self: &Arc<Self>, expiry: Option<Expiry>) -> bool {
        let (sender, answer) = oneshot::channel();
        let id = self.with(|shared, _| {
            let id = shared.channels.open(ChannelType::session()).ok()?;
            let answer = Some(sender);
            let session = Session { answer, expiry };
            shared.owners.insert(id, Owner::Session(session));
            shared.has_session = true;
            Some(id)
        });
        let Some(id) = id else {
            return false;
        };
        let runs = tokio::time::timeout(SESSION, answer).await;
        // `true` ends by itself. What a forced command runs instead may not.
        let connection = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(SESSION).await;
            if let Some(connection) = connection.upgrade() {
                connection.with(|shared, _| {
                    if shared.remove(id).is_some() {
                        shared.channels.close(id);
                    }
                });
            }
        });
        matches!(runs, Ok(Ok(true)))
    }

    /// Closes channels that the server should have closed long ago.
    pub(super) fn sweep(&self, now: Instant) {
        self.with(|shared, _| shared.close_late(now));
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // A panic under the lock ends the reader or the writer, and with it the connection.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is shared; afterwards wakes whom it concerns.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Shared, &mut After) -> T) -> T {
        let mut after = After::default();
        let result = {
            let mut shared = self.shared();
            let before = shared.burden().marks();
            let result = change(&mut shared, &mut after);
            shared.tell_writers(&mut after);
            after.is_work |= shared.calls_writer();
            after.is_change |= shared.burden().marks() != before;
            result
        };
        self.finish(after);
        result
    }

    fn finish(&self, after: After) {
        if after.is_work {
            self.work.notify_one();
        }
        after.wakers.into_iter().for_each(Waker::wake);
        for (permit, error) in after.permits {
            permit.give_back(error.as_ref());
        }
        if after.is_change {
            self.changed.notify_one();
        }
    }

    async fn run(self: Arc<Self>, master: Master, socket: UnixStream) {
        let (read, write) = socket.into_split();
        let writer = tokio::spawn(Arc::clone(&self).write(write));
        let fault = tokio::select! {
            fault = self.read(read) => Some(fault),
            () = self.stop.notified() => None,
        };
        self.lose();
        let is_ending = matches!(fault, Some(None));
        let said = master.end(is_ending).await;
        // After the master, which does not survive the end of its socket in peace.
        writer.abort();
        let reason = match fault {
            Some(Some(fault)) => LostReason::Broken(fault.to_string()),
            Some(None) => said,
            None => LostReason::Broken("ended by underpass".to_owned()),
        };
        debug!("a connection is over: {reason}");
        let _ = self.lost.set(reason);
        self.changed.notify_one();
    }

    /// Until the socket ends, or with what the server did wrong.
    async fn read(&self, mut socket: OwnedReadHalf) -> Option<Fault> {
        let mut decoder = Decoder::new(Config::default().max_payload());
        loop {
            match socket.read_buf(decoder.space()).await {
                Ok(1..) => _ = self.heard.fetch_add(1, Relaxed),
                Ok(0) => return None,
                Err(error) => {
                    debug!("reading the control socket: {error}");
                    return None;
                }
            }
            let heard = self.with(|shared, after| shared.hear_all(&mut decoder, after));
            if let Err(fault) = heard {
                return Some(fault);
            }
        }
    }

    async fn write(self: Arc<Self>, mut socket: OwnedWriteHalf) {
        let mut out = Outgoing::default();
        loop {
            let due = self.with(|shared, _| {
                shared.channels.poll_output(Instant::now(), &mut out);
                shared.is_writer_idle = !out.has_remaining();
                shared.writer_wakes = shared.channels.due();
                shared.writer_wakes
            });
            if !out.has_remaining() {
                match due {
                    // Called or not, it looks what there is.
                    Some(at) => _ = timeout_at(at.into(), self.work.notified()).await,
                    None => self.work.notified().await,
                }
            } else if let Err(error) = socket.write_buf(&mut out).await {
                // The reader sees the end of the socket too, and tells.
                debug!("writing the control socket: {error}");
                return;
            }
        }
    }

    /// From here on nothing is carried.
    fn lose(&self) {
        self.with(Shared::lose);
    }
}
