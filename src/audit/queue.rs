//! Handing over without waiting, and what is lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::event::Event;

/// Events that may wait for the writer: those of 16,000 flows that begin and end at once.
const ROOM: usize = 32_768;
/// Between two tries to hand over what must not be lost.
const AGAIN: Duration = Duration::from_millis(5);

/// The sender's side.
#[derive(Debug)]
pub(super) struct Queue {
    events: SyncSender<Event>,
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
            lost: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            ended: Default::default(),
        };
        (queue, receiver)
    }

    /// Hands over, or counts a loss.
    pub(super) fn offer(&self, event: Event) {
        if self.is_closed.load(Relaxed) {
            return;
        }
        if let Err(TrySendError::Full(event) | TrySendError::Disconnected(event)) =
            self.events.try_send(event)
            && event.is_line()
        {
            self.lose(1);
        }
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
        let guard = ended.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.saturating_duration_since(Instant::now());
        // Not in time: there is nothing more to be done about it.
        let _ = bell.wait_timeout_while(guard, left, |ended| !*ended);
    }

    /// The writer has ended.
    pub(super) fn set_ended(&self) {
        let (ended, bell) = &self.ended;
        *ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        bell.notify_all();
    }
}
