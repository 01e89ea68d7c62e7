//! What a flow has received and nobody has room for yet.
//!
//! russh grants the server new window on receipt, not on consumption, and its session task waits for a flow whose
//! message queue is full: one flow that nobody reads would stop all flows of its connection. So the
//! reader takes such a flow's bytes in here.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

/// What all backlogs share: the bounds.
#[derive(Debug, Default)]
pub(super) struct Store {}

/// The backlog of one flow: first in, first out.
pub(super) struct Backlog {
    memory: VecDeque<Bytes>,
    bytes: usize,
}

const PER_FLOW: usize = 1 << 20;

impl Backlog {
    pub(super) fn new(_store: Arc<Store>) -> Self {
        Self {
            memory: VecDeque::new(),
            bytes: 0,
        }
    }

    /// At a bound: nothing may be pushed before something was popped.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= PER_FLOW
    }

    pub(super) fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len();
        self.memory.push_back(chunk);
    }

    pub(super) fn pop(&mut self) -> io::Result<Option<Bytes>> {
        let chunk = self.memory.pop_front();
        self.bytes -= chunk.as_ref().map_or(0, Bytes::len);
        Ok(chunk)
    }
}
