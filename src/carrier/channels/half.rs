//! The two directions of a channel, each with its window (RFC 4254 section 5.2).

use std::collections::VecDeque;

use bytes::Bytes;

use super::budget::Flow;
use super::output::Outgoing;
use super::wire;

/// Pieces that a channel may have queued: a packet's data is gathered from no more than these.
const MAX_PIECES: usize = 32;

/// Data towards the server.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// What the peer's window still takes; bytes that are queued have been subtracted.
    window: u32,
    max_packet: u32,
    queue: VecDeque<Bytes>,
    queued: usize,
    /// The sender was left with bytes that did not fit.
    is_waiting: bool,
}

impl Sending {
    pub(super) fn new(window: u32, max_packet: u32) -> Self {
        Self {
            window,
            max_packet,
            ..Self::default()
        }
    }

    /// The peer's window grows. `None` beyond 2^32 - 1.
    pub(super) fn adjust(&mut self, bytes: u32) -> Option<()> {
        // What is queued still belongs to the window that the peer sees.
        let seen = u64::from(self.window) + self.queued as u64 + u64::from(bytes);
        u32::try_from(seen).ok()?;
        self.window += bytes;
        Some(())
    }

    /// Bytes that are taken now, when up to `allowance` may be queued.
    fn room(&self, allowance: usize) -> usize {
        if self.max_packet == 0 || self.queue.len() >= MAX_PIECES {
            return 0;
        }
        let window = usize::try_from(self.window).unwrap_or(usize::MAX);
        window.min(allowance.saturating_sub(self.queued))
    }

    /// Takes what fits; how much that was. The rest stays in `data`, and its sender counts as waiting.
    pub(super) fn push(&mut self, data: &mut Bytes, allowance: usize) -> usize {
        let taken = data.len().min(self.room(allowance));
        if taken > 0 {
            self.window -= u32::try_from(taken).unwrap_or(self.window);
            self.queued += taken;
            self.queue.push_back(data.split_to(taken));
        }
        self.is_waiting = !data.is_empty();
        taken
    }

    /// Whether a sender that waits should try again; true once for each wait.
    pub(super) fn wake(&mut self, allowance: usize) -> bool {
        // Half of the queue, so that it is filled by more than a packet at a time.
        let wakes = self.is_waiting && self.queued <= allowance / 2 && self.room(allowance) > 0;
        self.is_waiting &= !wakes;
        wakes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Drops what is queued; how much that was.
    pub(super) fn clear(&mut self) -> usize {
        self.queue.clear();
        self.is_waiting = false;
        std::mem::take(&mut self.queued)
    }

    /// Moves one data message out, gathered from what is queued; how many bytes it holds.
    pub(super) fn send(&mut self, remote: u32, most: u32, out: &mut Outgoing) -> usize {
        let most = usize::try_from(most.min(self.max_packet)).unwrap_or(usize::MAX);
        let length = self.queued.min(most);
        if length == 0 {
            return 0;
        }
        out.message(|tail| wire::put_data_head(tail, remote, length));
        let mut left = length;
        while left > 0
            && let Some(piece) = self.queue.front_mut()
        {
            if piece.len() > left {
                out.data(piece.split_to(left));
                break;
            }
            left -= piece.len();
            out.data(std::mem::take(piece));
            self.queue.pop_front();
        }
        self.queued -= length;
        length
    }
}

/// Data from the server.
#[derive(Debug)]
pub(super) struct Receiving {
    /// What the peer may still send.
    pub(super) open: u32,
    /// Received, and not yet consumed by the application.
    pub(super) held: u32,
    /// Window that is to be granted with the next turn.
    pub(super) grant: u32,
    /// The peer has said EOF.
    pub(super) is_ended: bool,
    pub(super) flow: Flow,
}

impl Receiving {
    pub(super) fn new(flow: Flow) -> Self {
        Self {
            open: flow.initial(),
            held: 0,
            grant: 0,
            is_ended: false,
            flow,
        }
    }
}
