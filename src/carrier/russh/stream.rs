//! One channel as two halves.
//!
//! How a channel ends matters to both sides' memory. russh forgets a channel when the server's CLOSE comes,
//! unless we sent ours before (then it keeps an entry as long as the connection lives); sshd sends CLOSE by
//! itself once both directions are at EOF. So an orderly end waits for the server's CLOSE, and ours is only sent
//! for a reset, or to a server that does not close.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU8, Ordering::AcqRel, Ordering::Acquire, Ordering::Release,
};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::sync::Notify;
use tracing::warn;

use super::backlog::{Backlog, Popped, Store};
use super::load::{ChannelGuard, Load, StallGuard};
use super::pace::Pace;
use super::turns::Fed;
use crate::carrier::command::Stderr;
use crate::net::{ByteReader, ByteWriter, StreamError};

/// How long a server may take to close a channel that is at EOF both ways, before we close it.
const CLOSE_WAIT: Duration = Duration::from_secs(30);

/// Splits an open channel.
pub(super) fn halves(
    channel: Channel<Msg>,
    place: ChannelGuard,
    store: Arc<Store>,
) -> (RusshReader, RusshWriter) {
    let (read, write) = channel.split();
    let shared = Arc::new(Shared {
        write,
        ended: AtomicU8::new(OPEN),
        end: Notify::new(),
        finished: AtomicBool::new(false),
        place,
    });
    let reader = RusshReader {
        read: Some(read),
        backlog: None,
        pace: Pace::default(),
        fed: Fed::default(),
        stderr: Stderr::default(),
        store,
        end: None,
        shared: Arc::clone(&shared),
    };
    (reader, RusshWriter { shared })
}

/// Values of [`Shared::ended`].
const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const LOST: u8 = 2;

/// What both halves need.
struct Shared {
    write: ChannelWriteHalf<Msg>,
    ended: AtomicU8,
    /// Rung when `ended` is set.
    end: Notify,
    /// Our EOF was sent, or is about to be.
    finished: AtomicBool,
    place: ChannelGuard,
}

impl Shared {
    /// The channel is over: closed by either side, or lost.
    fn set_ended(&self, how: u8) -> bool {
        let first = self.ended.compare_exchange(OPEN, how, AcqRel, Acquire);
        self.end.notify_waiters();
        first.is_ok()
    }

    fn ended(&self) -> Option<StreamError> {
        match self.ended.load(Acquire) {
            OPEN => None,
            LOST => Some(StreamError::Lost),
            _ => Some(StreamError::Reset),
        }
    }

    /// Runs `sending`, unless the channel ends before: the window of one that is gone never opens.
    async fn unless_ended<T>(&self, sending: impl Future<Output = T>) -> Result<T, StreamError> {
        tokio::select! {
            biased;
            sent = sending => Ok(sent),
            error = self.wait_ended() => Err(error),
        }
    }

    async fn wait_ended(&self) -> StreamError {
        loop {
            // Made before the look: it hears what rings from here on.
            let rung = self.end.notified();
            if let Some(error) = self.ended() {
                return error;
            }
            rung.await;
        }
    }

    /// Sends CLOSE, which ends both directions. Never blocks: where the session takes no message right now,
    /// a task waits for it; one per channel at most.
    fn reset(self: &Arc<Self>) {
        if !self.set_ended(CLOSED) {
            return;
        }
        self.place.load().add_reset();
        if self.write.close().now_or_never().is_none()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let shared = Arc::clone(self);
            runtime.spawn(async move {
                // An error means that the connection is gone, and the channel with it.
                let _ = shared.write.close().await;
            });
        }
    }
}

/// How the reading direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// EOF; the channel is still open.
    Eof,
    /// Over in good order.
    Done,
    /// Broken.
    Broken(StreamError),
}

/// The reading half of a channel.
pub struct RusshReader {
    /// `None` only in drop.
    read: Option<ChannelReadHalf>,
    /// What was taken in while nobody had room.
    backlog: Option<Box<Backlog>>,
    pace: Pace,
    fed: Fed,
    stderr: Stderr,
    store: Arc<Store>,
    /// Comes after what is in the backlog.
    end: Option<End>,
    shared: Arc<Shared>,
}

impl RusshReader {
    /// Comes first, before what is still to arrive.
    pub(super) fn put_first(&mut self, early: Vec<Bytes>) {
        for data in early {
            self.put_back(data);
        }
    }

    /// The next data message, or `None` and `end` set. Cancel safe.
    async fn next(&mut self) -> Option<Bytes> {
        let Some(read) = &mut self.read else {
            return None;
        };
        loop {
            match read.wait().await {
                Some(ChannelMsg::Data { data }) if !data.is_empty() => {
                    let place = &self.shared.place;
                    place.add_received(data.len(), &mut self.fed);
                    return Some(data);
                }
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    self.stderr.hear(&data);
                    continue;
                }
                Some(ChannelMsg::Eof) => self.end = Some(End::Eof),
                Some(ChannelMsg::Close) => self.closed(),
                None => self.lost(),
                Some(_) => continue,
            }
            self.shared.place.download_is_over();
            return None;
        }
    }

    /// CLOSE from the server. Before our EOF it is abrupt: a far RST ends so. After it, it is the end.
    fn closed(&mut self) {
        self.end = Some(if self.shared.finished.load(Acquire) {
            End::Done
        } else {
            End::Broken(StreamError::Reset)
        });
        self.shared.set_ended(CLOSED);
    }

    /// russh dropped the queue: the session is over, unless we closed the channel ourselves.
    fn lost(&mut self) {
        self.shared.set_ended(LOST);
        let error = self.shared.ended().unwrap_or(StreamError::Lost);
        self.end = Some(End::Broken(error));
    }

    fn is_full(&self) -> bool {
        self.backlog.as_ref().is_some_and(|b| b.is_full())
    }

    /// Waits for the backlog's file, while that is behind. Cancel safe.
    async fn keep_up(&mut self) {
        if let Some(backlog) = &mut self.backlog {
            while backlog.is_behind() {
                backlog.settle().await;
            }
        }
    }

    /// The next data message into the backlog; whether there was one. Cancel safe.
    async fn store_next(&mut self) -> bool {
        let Some(data) = self.next().await else {
            return false;
        };
        self.put_back(data);
        true
    }

    fn put_back(&mut self, data: Bytes) {
        let store = &self.store;
        let backlog = self
            .backlog
            .get_or_insert_with(|| Box::new(Backlog::new(Arc::clone(store))));
        backlog.push(data);
    }

    /// Takes in what arrives, to the end of it. Cancel safe.
    async fn take_in(&mut self, load: &Arc<Load>) {
        self.be_patient().await;
        let _waiting = load.wait();
        let mut taken = load.glimpses();
        while self.end.is_none() {
            self.keep_up().await;
            if self.is_full() {
                // From here on the connection's reader waits for this flow.
                let _stalled: StallGuard = load.stall();
                return pending().await;
            }
            // While nobody else needs the connection, what arrives stays on the wire, and TCP holds the server back.
            load.shared_by_others(&mut taken).await;
            self.store_next().await;
        }
    }

    /// Takes in what had arrived when the connection was lost: the end may be among it.
    async fn take_rest(&mut self) {
        while self.end.is_none() {
            self.keep_up().await;
            if self.is_full() || !self.store_next().await {
                return;
            }
        }
    }

    /// Returns when this flow has been behind for longer than is ordinary.
    async fn be_patient(&mut self) {
        while let Some(until) = self.pace.patient_until(Instant::now()) {
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// Counts `data`, which is about to be handed on.
    fn paced(&mut self, data: Option<Bytes>) -> Option<Bytes> {
        self.pace.add(data.as_ref().map_or(0, Bytes::len));
        data
    }

    fn at_end(&self) -> Option<Result<Option<Bytes>, StreamError>> {
        match self.end? {
            End::Eof | End::Done => Some(Ok(None)),
            End::Broken(error) => Some(Err(error)),
        }
    }
}

impl ByteReader for RusshReader {
    async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        while let Some(backlog) = &mut self.backlog {
            match backlog.pop() {
                Popped::Chunk(chunk) => {
                    self.pace.add(chunk.len());
                    return Ok(Some(chunk));
                }
                Popped::Coming => backlog.settle().await,
                Popped::Nothing => self.backlog = None,
                // Bytes that cannot be read back are lost: never go on as if they had not been.
                Popped::Lost(error) => {
                    warn!(
                        "a connection is broken off: what it left in its file cannot be read: {error}"
                    );
                    self.end = Some(End::Broken(StreamError::Reset));
                    self.backlog = None;
                    self.shared.reset();
                }
            }
        }
        loop {
            if let Some(end) = self.at_end() {
                return end;
            }
            // In two steps: else what the first gives would be kept across the second's wait.
            if let Some(data) = self.next().now_or_never() {
                if data.is_some() {
                    return Ok(self.paced(data));
                }
                continue;
            }
            self.pace.has_caught_up();
            let data = self.next().await;
            if data.is_some() {
                return Ok(self.paced(data));
            }
        }
    }

    async fn reset(&mut self) -> StreamError {
        loop {
            match self.end {
                Some(End::Done) => return pending().await,
                Some(End::Broken(error)) => return error,
                Some(End::Eof) | None => {
                    // RFC 4254 section 5.3: nothing but CLOSE may follow EOF. Data would be dropped here.
                    self.next().await;
                }
            }
        }
    }

    fn connection(&self) -> Option<u32> {
        Some(self.shared.place.load().number())
    }

    async fn absorb(&mut self) -> StreamError {
        let load = Arc::clone(self.shared.place.load());
        tokio::select! {
            () = self.take_in(&load) => {}
            () = load.until_lost() => self.take_rest().await,
        }
        match self.end {
            None | Some(End::Broken(StreamError::Lost)) => StreamError::Lost,
            // It is all here, and told after the bytes.
            Some(_) => pending().await,
        }
    }
}

impl Drop for RusshReader {
    fn drop(&mut self) {
        match self.end {
            None => self.shared.reset(),
            Some(End::Eof) => {
                if let Some(read) = self.read.take()
                    && let Ok(runtime) = tokio::runtime::Handle::try_current()
                {
                    runtime.spawn(linger(read, Arc::clone(&self.shared)));
                }
            }
            Some(End::Done | End::Broken(_)) => {}
        }
    }
}

/// Waits for the server's CLOSE of a channel that has reached EOF, so that the channel counts until it is
/// really gone, and closes it where the server does not.
async fn linger(mut read: ChannelReadHalf, shared: Arc<Shared>) {
    let mut patience = false;
    while shared.ended().is_none() {
        match tokio::time::timeout(CLOSE_WAIT, read.wait()).await {
            Ok(Some(ChannelMsg::Close)) => _ = shared.set_ended(CLOSED),
            Ok(None) => _ = shared.set_ended(LOST),
            Ok(Some(_)) => {}
            // The writer may go on for as long as it likes; the wait counts from its end.
            Err(_) if shared.finished.load(Acquire) && patience => shared.reset(),
            Err(_) => patience = shared.finished.load(Acquire),
        }
    }
}

/// The writing half of a channel.
pub struct RusshWriter {
    shared: Arc<Shared>,
}

impl ByteWriter for RusshWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<(), StreamError> {
        if let Some(error) = self.shared.ended() {
            return Err(error);
        }
        let bytes = chunk.len();
        let gate = self.shared.place.load().gate();
        if !gate.is_open() {
            Box::pin(self.shared.unless_ended(gate.pass())).await?;
        }
        // Within the server's window; russh cuts it into packets without copying. Boxed: its 1.4 KiB would be part of
        // every idle flow.
        let mut sending = Box::pin(self.shared.write.data_bytes(chunk));
        let sent = match futures_util::poll!(&mut sending) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Box::pin(self.shared.unless_ended(sending)).await?,
        };
        sent.map_err(|_| StreamError::Lost)?;
        self.shared.place.load().add_carried(bytes);
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), StreamError> {
        // Before the EOF itself: a CLOSE that answers it must find the mark.
        self.shared.finished.store(true, Release);
        if let Some(error) = self.shared.ended() {
            return Err(error);
        }
        // Boxed as in `write`.
        let sent = Box::pin(self.shared.write.eof()).await;
        self.shared.place.download_is_over();
        sent.map_err(|_| StreamError::Lost)
    }
}

impl Drop for RusshWriter {
    fn drop(&mut self) {
        if !self.shared.finished.load(Acquire) {
            self.shared.reset();
        }
    }
}
