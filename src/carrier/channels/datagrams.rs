//! Datagrams towards the server, each a data message of its own.
//!
//! sshd counts a datagram that it receives, and grants it back, with the four bytes of the length that it keeps it behind
//! (channels.c `channel_input_data`, `channel_handle_wfd`), and drops one that with them is longer than its packet size. What
//! it sends itself it counts by the length alone.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::fair::{Drops, FairQueue, Next};
use super::flight::Flight;
use super::output::Outgoing;
use super::wire;

/// What sshd counts beside a datagram's bytes.
const COUNTED: usize = 4;

/// How long a datagram that there is no room for keeps those behind it from trying.
const PATIENCE: Duration = Duration::from_millis(100);

/// The sending side of a channel of datagrams.
#[derive(Debug)]
pub(super) struct Datagrams {
    queue: FairQueue,
    /// What the peer's window still takes.
    window: u32,
    max_packet: u32,
    flight: Flight,
    /// The next one did not fit then. Nothing has been granted since.
    blocked: Option<Instant>,
}

impl Default for Datagrams {
    /// Before the server says what it takes: nothing.
    fn default() -> Self {
        Self {
            queue: FairQueue::default(),
            window: 0,
            max_packet: 0,
            flight: Flight::new(0),
            blocked: None,
        }
    }
}

impl Datagrams {
    pub(super) fn confirm(&mut self, window: u32, max_packet: u32) {
        self.window = window;
        self.max_packet = max_packet;
        self.flight = Flight::new(max_packet);
    }

    /// The peer's window grows. `None` beyond 2^32 - 1.
    pub(super) fn adjust(&mut self, now: Instant, bytes: u32) -> Option<()> {
        self.window = self.window.checked_add(bytes)?;
        self.flight.granted(now, bytes.into());
        self.blocked = None;
        Some(())
    }

    /// The longest datagram that the peer takes, where we send messages of up to `most` bytes.
    pub(super) fn max_length(&self, most: u32) -> usize {
        let most = usize::try_from(most.min(self.max_packet)).unwrap_or(usize::MAX);
        most.saturating_sub(COUNTED)
    }

    /// Adds one of at most [`max_length`](Self::max_length) to the flow with this hash.
    pub(super) fn push(&mut self, now: Instant, flow: u64, data: Bytes) {
        let is_over = |since: Instant| now.saturating_duration_since(since) > PATIENCE;
        if self.blocked.is_some_and(is_over) {
            self.blocked = None;
        }
        self.queue.push(now, flow, data);
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }

    pub(super) fn drops(&self) -> Drops {
        self.queue.drops()
    }

    /// Whether there is something that may go now.
    pub(super) fn has_output(&self) -> bool {
        self.blocked.is_none() && !self.queue.is_empty()
    }

    /// One turn: datagrams of `most` bytes together, or little more.
    pub(super) fn send(&mut self, now: Instant, remote: u32, most: u32, out: &mut Outgoing) {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut sent = 0;
        while sent < most && self.has_output() {
            match self.queue.pop(now, self.room().saturating_sub(COUNTED)) {
                Next::Datagram(data) => {
                    let counted = data.len() + COUNTED;
                    // It fits: that was asked for.
                    self.window -= u32::try_from(counted).unwrap_or(self.window);
                    self.flight.sent(now, counted as u64);
                    sent += counted;
                    out.message(|tail| wire::put_data_head(tail, remote, data.len()));
                    out.data(data);
                }
                Next::TooLarge => {
                    self.blocked = Some(now);
                    self.flight.held_back(now, self.window.into());
                }
                Next::Nothing => return,
            }
        }
    }

    /// Bytes that may be sent now, as sshd counts them.
    fn room(&self) -> usize {
        let room = self.flight.room().min(self.window.into());
        usize::try_from(room).unwrap_or(usize::MAX)
    }
}
