//! Handing over without waiting, what waits beside the queue, and what is lost.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::event::{End, Event, Flow};

/// Events that may wait for the writer: those of 16,000 flows that begin and end at once.
const ROOM: usize = 32_768;
/// Between two tries to hand over what must not be lost.
const AGAIN: Duration = Duration::from_millis(5);

/// The sender's side.
#[derive(Debug)]
pub(super) struct Queue {
    events: SyncSender<Event>,
    /// Flows whose ends found no room.
    ends_beside: Mutex<Vec<Arc<Flow>>>,
    /// The file is to be opened anew.
    is_reopen_wanted: AtomicBool,
    /// Lines that were lost and not told yet, here and at the writer.
    lost: AtomicU64,
    /// Nothing is taken any more.
    is_closed: AtomicBool,
    /// Whether the writer has ended.
    ended: (Mutex<bool>, Condvar),
}

impl Queue {
    pub(super) fn new() -> (Self, Receiver<Event>) {
        let (sender, receiver) = sync_channel(ROOM);
        let queue = Self {
            events: sender,
            ends_beside: Mutex::default(),
            is_reopen_wanted: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            ended: Default::default(),
        };
        (queue, receiver)
    }

    /// Hands over, or counts a loss; whether it was handed over.
    pub(super) fn offer(&self, event: Event) -> bool {
        if self.is_closed.load(Relaxed) {
            return false;
        }
        let is_taken = self.events.try_send(event).is_ok();
        if !is_taken {
            self.lose(1);
        }
        is_taken
    }

    /// Hands over the end of a flow whose start was. The writer waits for it, so where there is no room it is put beside the
    /// queue: of each such flow once, and no start is taken without room.
    pub(super) fn offer_end(&self, flow: Arc<Flow>, end: End) {
        if self.is_closed.load(Relaxed) {
            return;
        }
        match self.events.try_send(Event::FlowEnd(flow, end)) {
            Ok(()) => {}
            Err(TrySendError::Full(Event::FlowEnd(flow, end))) => self.put_beside(flow, end),
            Err(_) => self.lose(1),
        }
    }

    fn put_beside(&self, flow: Arc<Flow>, end: End) {
        // Before it stands there: who finds it has its end.
        let _ = flow.end_beside.set(end);
        lock(&self.ends_beside).push(flow);
        self.ring();
    }

    /// Has the writer look beside the queue: where there is no room for that it has not taken everything, and looks.
    fn ring(&self) {
        let _ = self.events.try_send(Event::Look);
    }

    /// Has the file opened anew, whatever waits in the queue.
    pub(super) fn want_reopen(&self) {
        self.is_reopen_wanted.store(true, SeqCst);
        self.ring();
    }

    /// Whether the file is to be opened anew, since this was asked last.
    pub(super) fn take_reopen(&self) -> bool {
        self.is_reopen_wanted.swap(false, SeqCst)
    }

    /// Takes the flows whose ends found no room.
    pub(super) fn take_ends_beside(&self) -> Vec<Arc<Flow>> {
        std::mem::take(&mut *lock(&self.ends_beside))
    }

    /// Counts lines that were lost.
    pub(super) fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Relaxed);
    }

    /// Lines lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Hands the last event over, and waits for the writer's end; both within `patience`.
    pub(super) fn finish(&self, mut last: Event, patience: Duration) {
        self.is_closed.store(true, Relaxed);
        let deadline = Instant::now() + patience;
        while let Err(TrySendError::Full(event)) = self.events.try_send(last) {
            if Instant::now() >= deadline {
                return;
            }
            last = event;
            std::thread::sleep(AGAIN);
        }
        let (ended, bell) = &self.ended;
        let guard = lock(ended);
        let left = deadline.saturating_duration_since(Instant::now());
        // Not in time: there is nothing more to be done about it.
        let _ = bell.wait_timeout_while(guard, left, |ended| !*ended);
    }

    /// The writer has ended.
    pub(super) fn set_ended(&self) {
        let (ended, bell) = &self.ended;
        *lock(ended) = true;
        bell.notify_all();
    }
}

/// Everything behind these locks is whole at every moment, whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
