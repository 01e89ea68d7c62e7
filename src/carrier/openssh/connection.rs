//! One master's channels: what everybody shares behind one lock, the task that reads and the task that writes.
//!
//! Whoever changes something under the lock finds out there whom to wake, and wakes them when the lock is free again. The lock of a
//! flow is taken inside, never the other way round.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};
use tracing::debug;

use super::flow::{End, Flow, Opening};
use super::master::Master;
use super::peers;
use super::stream::{OpensshReader, OpensshWriter, halves};
use crate::carrier::channels::{
    ChannelId, ChannelType, Channels, Config, Decoder, Event, Fault, Outgoing, Refusal, SendError,
};
use crate::carrier::dial::DialPermit;
use crate::carrier::error::LostReason;
use crate::carrier::failure::open_error;
use crate::net::{OpenError, OpenFailure, Source, StreamError, Target};

/// Places that a master has for channels; each refused open costs one for good. It dies at 16,384 (channels.c CHANNELS_MAX_CHANNELS).
const PLACES: u64 = 16_000;
/// Refused opens after which a master is to be replaced.
const REFUSALS: u64 = 8_000;
/// Channels from which on a further master is wanted: sshd needs a descriptor for each, of which a process has 1,024 by default.
const CROWD: usize = 900;
/// How long a server may take to close a channel that is at EOF both ways, before we close it.
const CLOSE_WAIT: Duration = Duration::from_secs(30);
/// How long the first session may take to be answered, and to end.
const SESSION: Duration = Duration::from_secs(3);

/// What a connection looks like to the choice of the next flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Burden {
    /// Channels now.
    pub(super) channels: usize,
    /// Those of them that belong to somebody. What runs in the first session may stay for as long as it likes.
    pub(super) flows: usize,
    /// Opens that were refused, in all.
    pub(super) refused: u64,
}

impl Burden {
    /// Whether no further channel fits.
    pub(super) fn is_full(self) -> bool {
        self.channels as u64 + self.refused >= PLACES
    }

    /// Whether it should get no new flows, if another one can take them.
    pub(super) fn is_due(self) -> bool {
        self.refused >= REFUSALS || self.is_full()
    }

    /// Whether new flows are better off elsewhere.
    pub(super) fn is_crowded(self) -> bool {
        self.channels >= CROWD
    }

    /// What the pool decides upon: it looks when one of these changes.
    fn marks(self) -> [bool; 4] {
        let is_over = self.flows == 0 && self.is_due();
        [self.is_full(), self.is_due(), self.is_crowded(), is_over]
    }
}

/// One master and its channels.
pub(super) struct Connection {
    shared: Mutex<Shared>,
    /// Rung when there is something to write.
    work: Notify,
    /// Rung when it is to end.
    stop: Notify,
    /// The pool's: rung when something has changed that it should look at.
    changed: Arc<Notify>,
    lost: OnceLock<LostReason>,
    is_stopped: AtomicBool,
    peers: Vec<IpAddr>,
}

struct Shared {
    channels: Channels,
    owners: HashMap<ChannelId, Owner>,
    /// One of the owners is the first session's.
    has_session: bool,
    /// The writer has nothing to do, and waits to be told.
    is_writer_idle: bool,
    /// Nothing works any more.
    is_lost: bool,
}

enum Owner {
    Flow(Arc<Flow>),
    /// The first session, and who waits for its answer.
    Session(Option<oneshot::Sender<bool>>),
}

/// What is to be done when the lock is free again.
#[derive(Default)]
struct After {
    wakers: Vec<Waker>,
    permits: Vec<(DialPermit, Option<OpenError>)>,
    /// The writer has work.
    is_work: bool,
    /// The pool should look.
    is_change: bool,
}

impl After {
    fn wake(&mut self, waker: &mut Option<Waker>) {
        self.wakers.extend(waker.take());
    }
}

impl Connection {
    /// Takes a master over, and runs its channels until it ends.
    pub(super) fn start(master: Master, socket: UnixStream, changed: Arc<Notify>) -> Arc<Self> {
        let connection = Arc::new(Self {
            shared: Mutex::new(Shared {
                channels: Channels::new(Config::default()),
                owners: HashMap::new(),
                has_session: false,
                is_writer_idle: false,
                is_lost: false,
            }),
            work: Notify::new(),
            stop: Notify::new(),
            changed,
            lost: OnceLock::new(),
            is_stopped: AtomicBool::new(false),
            peers: peers::of(master.pid()),
        });
        tokio::spawn(Arc::clone(&connection).run(master, socket));
        connection
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

    /// Whether it was told to end.
    pub(super) fn was_stopped(&self) -> bool {
        self.is_stopped.load(Relaxed)
    }

    /// Ends the master, and what is on it.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Relaxed);
        self.stop.notify_one();
    }

    /// Asks for a stream. The answer is waited for by what is returned.
    ///
    /// # Errors
    /// The connection is lost, or full.
    pub(super) fn open(
        self: &Arc<Self>,
        source: Source,
        target: Target,
        permit: DialPermit,
    ) -> Result<Asked, OpenError> {
        let flow = Arc::new(Flow::new(permit));
        let opened = self.with(|shared, _| {
            if shared.is_lost {
                return Err(OpenError::new(OpenFailure::ConnectionLost, ""));
            }
            let kind = ChannelType::direct_tcpip(target.0, source.0);
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

    /// Runs `true` in a session, until the server says that it runs; whether it does. sshd leaves Nagle's algorithm on until a session runs
    /// something (packet.c ssh_packet_set_interactive), and without it every short exchange would stall for 40 ms.
    pub(super) async fn run_true(self: &Arc<Self>) -> bool {
        let (sender, answer) = oneshot::channel();
        let id = self.with(|shared, _| {
            let id = shared.channels.open(ChannelType::session()).ok()?;
            shared.owners.insert(id, Owner::Session(Some(sender)));
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
        self.with(|shared, _| {
            let Shared {
                channels, owners, ..
            } = shared;
            owners.retain(|id, owner| {
                let Owner::Flow(flow) = owner else {
                    return true;
                };
                let since = flow.state().lingers_since;
                let is_late = since.is_some_and(|since| now.duration_since(since) > CLOSE_WAIT);
                if is_late {
                    channels.close(*id);
                }
                !is_late
            });
        });
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // A panic under the lock ends the reader or the writer, and with it the connection.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is shared; afterwards wakes whom it concerns.
    fn with<T>(&self, change: impl FnOnce(&mut Shared, &mut After) -> T) -> T {
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
                Ok(1..) => {}
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
            self.with(|shared, _| {
                shared.channels.poll_output(Instant::now(), &mut out);
                shared.is_writer_idle = !out.has_remaining();
            });
            if !out.has_remaining() {
                self.work.notified().await;
            } else if let Err(error) = socket.write_buf(&mut out).await {
                // The reader sees the end of the socket too, and tells.
                debug!("writing the control socket: {error}");
                return;
            }
        }
    }

    /// From here on nothing is carried.
    fn lose(&self) {
        self.with(|shared, after| {
            shared.is_lost = true;
            shared.has_session = false;
            for owner in std::mem::take(&mut shared.owners).into_values() {
                let Owner::Flow(flow) = owner else {
                    continue;
                };
                let mut state = flow.state();
                let lost = OpenError::new(OpenFailure::ConnectionLost, "");
                let opening = std::mem::replace(&mut state.opening, Opening::Refused(lost.clone()));
                if let Opening::Asked(permit) = opening {
                    after.permits.push((permit, Some(lost)));
                }
                state.close(End::Broken(StreamError::Lost));
                after.wake(&mut state.reader);
                after.wake(&mut state.writer);
            }
        });
    }
}

impl Shared {
    fn burden(&self) -> Burden {
        Burden {
            channels: self.channels.len(),
            flows: self.owners.len() - usize::from(self.has_session),
            refused: self.channels.refused(),
        }
    }

    fn remove(&mut self, id: ChannelId) -> Option<Owner> {
        let owner = self.owners.remove(&id);
        self.has_session &= !matches!(owner, Some(Owner::Session(_)));
        owner
    }

    /// Whether the writer is to be called; true once for each time that it waits.
    fn calls_writer(&mut self) -> bool {
        let calls = self.is_writer_idle && self.channels.has_output();
        self.is_writer_idle &= !calls;
        calls
    }

    /// Wakes senders for whom there is room now.
    fn tell_writers(&mut self, after: &mut After) {
        while let Some(id) = self.channels.poll_writable() {
            if let Some(Owner::Flow(flow)) = self.owners.get(&id) {
                after.wake(&mut flow.state().writer);
            }
        }
    }

    /// All packets that are complete.
    fn hear_all(&mut self, decoder: &mut Decoder, after: &mut After) -> Result<(), Fault> {
        let now = Instant::now();
        while let Some(payload) = decoder.packet()? {
            if let Some(event) = self.channels.handle(now, payload)? {
                self.hear(now, event, after);
            }
        }
        Ok(())
    }

    fn hear(&mut self, now: Instant, event: Event, after: &mut After) {
        match event {
            Event::Opened(id) => self.opened(id, after),
            Event::Refused { id, reason, text } => self.refused(id, reason, &text, after),
            Event::Data { id, data } => self.data(now, id, data, after),
            // Not for us: a forced command's errors.
            Event::ExtendedData { id, data, .. } => self.channels.consumed(now, id, data.len()),
            Event::Eof(id) => {
                if let Some(Owner::Flow(flow)) = self.owners.get(&id) {
                    let mut state = flow.state();
                    state.end.get_or_insert(End::Eof);
                    after.wake(&mut state.reader);
                }
            }
            Event::Closed(id) => self.closed(id, after),
            Event::Answered { id, success } => {
                if let Some(Owner::Session(answer)) = self.owners.get_mut(&id) {
                    // Who has asked may have stopped waiting.
                    let _ = answer.take().map(|answer| answer.send(success));
                }
            }
            Event::Request { .. } => {}
        }
    }

    fn opened(&mut self, id: ChannelId, after: &mut After) {
        let flow = match self.owners.get_mut(&id) {
            Some(Owner::Flow(flow)) => Arc::clone(flow),
            Some(Owner::Session(answer)) => {
                let command = [&4u32.to_be_bytes()[..], b"true"].concat();
                if self.channels.request(id, "exec", true, &command).is_err() {
                    *answer = None;
                }
                return;
            }
            None => return self.channels.abort(id),
        };
        let mut state = flow.state();
        if let Opening::Asked(permit) = std::mem::replace(&mut state.opening, Opening::Opened) {
            after.permits.push((permit, None));
        }
        if state.is_abandoned {
            self.owners.remove(&id);
            self.channels.abort(id);
        }
        after.wake(&mut state.reader);
    }

    fn refused(&mut self, id: ChannelId, reason: Refusal, text: &str, after: &mut After) {
        // A session's sender is dropped with its owner.
        let Some(Owner::Flow(flow)) = self.remove(id) else {
            return;
        };
        let error = open_error(code(reason), text);
        let mut state = flow.state();
        let refused = Opening::Refused(error.clone());
        if let Opening::Asked(permit) = std::mem::replace(&mut state.opening, refused) {
            after.permits.push((permit, Some(error)));
        }
        after.wake(&mut state.reader);
    }

    fn data(&mut self, now: Instant, id: ChannelId, data: Bytes, after: &mut After) {
        if let Some(Owner::Flow(flow)) = self.owners.get(&id) {
            let mut state = flow.state();
            state.inbox.push(data);
            after.wake(&mut state.reader);
        } else {
            // The session's output.
            self.channels.consumed(now, id, data.len());
        }
    }

    fn closed(&mut self, id: ChannelId, after: &mut After) {
        if let Some(Owner::Flow(flow)) = self.remove(id) {
            let mut state = flow.state();
            state.closed_by_peer();
            after.wake(&mut state.reader);
            after.wake(&mut state.writer);
        }
    }
}

/// The number of RFC 4254 section 5.1.
fn code(reason: Refusal) -> u32 {
    match reason {
        Refusal::AdministrativelyProhibited => 1,
        Refusal::ConnectFailed => 2,
        Refusal::UnknownChannelType => 3,
        Refusal::ResourceShortage => 4,
        Refusal::Other(code) => code,
    }
}

/// A channel's place on its connection.
pub(super) struct Place {
    connection: Arc<Connection>,
    pub(super) flow: Arc<Flow>,
    id: ChannelId,
}

impl Place {
    /// The reader has passed bytes on: the server may send as many more.
    pub(super) fn consumed(&self, length: usize) {
        let now = Instant::now();
        self.connection
            .with(|shared, _| shared.channels.consumed(now, self.id, length));
    }

    /// Sends what fits of `data`, and leaves `waker` to be woken for the rest, which is returned.
    ///
    /// # Errors
    /// The channel takes nothing any more.
    pub(super) fn send(&self, data: Bytes, waker: &Waker) -> Result<Bytes, SendError> {
        self.connection.with(|shared, _| {
            if shared.is_lost {
                return Err(SendError::Closed);
            }
            let rest = shared.channels.send(self.id, data)?;
            if !rest.is_empty() {
                // Under the lock, so that room which comes meanwhile finds it.
                self.flow.state().writer = Some(waker.clone());
            }
            Ok(rest)
        })
    }

    /// Says EOF after what is queued.
    ///
    /// # Errors
    /// The channel takes nothing any more.
    pub(super) fn eof(&self) -> Result<(), SendError> {
        self.connection
            .with(|shared, _| shared.channels.eof(self.id))
    }

    /// Closes the channel at once, which ends both directions.
    pub(super) fn reset(&self) {
        self.connection.with(|shared, after| {
            let mut state = self.flow.state();
            if state.close(End::Broken(StreamError::Reset)) {
                shared.channels.abort(self.id);
                shared.owners.remove(&self.id);
            }
            after.wake(&mut state.reader);
            after.wake(&mut state.writer);
        });
    }
}

/// An open that the server has been asked for. When it is dropped, a late success is closed at once.
pub(super) struct Asked {
    /// `None` once it is answered.
    place: Option<Place>,
}

impl Future for Asked {
    type Output = Result<(OpensshReader, OpensshWriter), OpenError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(place) = &self.place else {
            // Polled after its end, which no executor does.
            return Poll::Pending;
        };
        let mut state = place.flow.state();
        let answer = match &state.opening {
            Opening::Asked(_) => {
                state.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Opening::Opened => Ok(()),
            Opening::Refused(error) => Err(error.clone()),
        };
        drop(state);
        let place = self.place.take();
        Poll::Ready(match (answer, place) {
            (Ok(()), Some(place)) => Ok(halves(place)),
            (Err(error), _) => Err(error),
            (Ok(()), None) => Err(OpenError::new(OpenFailure::ConnectionLost, "")),
        })
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let Some(place) = &self.place else {
            return;
        };
        let mut state = place.flow.state();
        state.is_abandoned = true;
        state.reader = None;
        let is_open = matches!(state.opening, Opening::Opened);
        drop(state);
        if is_open {
            place.reset();
        }
    }
}
