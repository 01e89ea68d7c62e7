//! What a flow has received and nobody has room for yet.
//!
//! russh grants the server new window on receipt, not on consumption, and its session task waits for a flow
//! whose message queue is full: one flow that nobody reads would stop all flows of its connection. So the
//! reader takes such a flow's bytes in here: into memory first, then into a file. At the bounds it takes no
//! more, and the connection's reader does wait; the pool sends new flows elsewhere then.
//!
//! | | per flow | in all |
//! |---|---|---|
//! | memory | 1.5 MiB, and a piece of 256 KiB on its way out of the file | 64 MiB, then 512 KiB for each flow |
//! | file | 1 GiB | 8 GiB |
//!
//! Before it come russh's message queue of the flow (2 MiB at most) and what the kernel holds.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use tracing::warn;

use super::spill::Spill;

/// Bounds, in bytes.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Memory of one flow in front of its file.
    head: usize,
    /// What goes to the file at once, and comes from it.
    piece: usize,
    memory_in_all: usize,
    disk_per_flow: u64,
    disk_in_all: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            head: 1 << 20,
            piece: 256 << 10,
            memory_in_all: 64 << 20,
            disk_per_flow: 1 << 30,
            disk_in_all: 8 << 30,
        }
    }
}

/// What all backlogs share: the bounds, and how much is used.
#[derive(Debug, Default)]
pub(super) struct Store {
    bounds: Bounds,
    memory: AtomicUsize,
    disk: AtomicU64,
    warned: AtomicBool,
}

impl Store {
    fn memory_is_full(&self) -> bool {
        self.memory.load(Relaxed) >= self.bounds.memory_in_all
    }

    /// Once per process: the first flow that stops its connection is worth waking someone.
    fn warn(&self, why: &str) {
        if !self.warned.swap(true, Relaxed) {
            warn!(
                "a flow that its application does not read has filled its store ({why}): its SSH connection \
                 waits for it, new flows take another one; the store is a file in $TMPDIR, else in /var/tmp"
            );
        }
    }
}

/// The backlog of one flow: first in, first out. Order: `head`, then `file`, then `tail`.
pub(super) struct Backlog {
    store: Arc<Store>,
    head: Queue,
    file: Option<Spill>,
    /// Waits to go to the file in one piece.
    tail: Queue,
    /// The last spill failed, and nothing was popped since.
    full: bool,
}

/// What a chunk costs beyond its bytes: a flow of single bytes must not use many times its bound.
const PER_CHUNK: usize = 96;

#[derive(Default)]
struct Queue {
    chunks: VecDeque<Bytes>,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len();
        self.chunks.push_back(chunk);
    }

    fn pop(&mut self) -> Option<Bytes> {
        let chunk = self.chunks.pop_front()?;
        self.bytes -= chunk.len();
        Some(chunk)
    }

    /// Memory in use, in bytes.
    fn cost(&self) -> usize {
        self.bytes + self.chunks.len() * PER_CHUNK
    }
}

impl Backlog {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            head: Queue::default(),
            file: None,
            tail: Queue::default(),
            full: false,
        }
    }

    /// At a bound: nothing may be pushed before something was popped.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Takes `chunk` in. Not when [`is_full`](Self::is_full).
    pub(super) fn push(&mut self, chunk: Bytes) {
        self.store
            .memory
            .fetch_add(chunk.len() + PER_CHUNK, Relaxed);
        let bounds = self.store.bounds;
        let crowded = self.store.memory_is_full();
        let behind_file = self.file.as_ref().is_some_and(|f| !f.is_empty());
        if !behind_file && self.tail.bytes == 0 && self.head.cost() < bounds.head && !crowded {
            self.head.push(chunk);
            return;
        }
        self.tail.push(chunk);
        if (self.tail.cost() >= bounds.piece || crowded)
            && let Err(error) = self.spill()
        {
            self.store.warn(&error.to_string());
            self.full = true;
        }
    }

    /// The oldest bytes. `None` when it is empty.
    ///
    /// # Errors
    /// What the file system says when it cannot give bytes back: they are lost.
    pub(super) fn pop(&mut self) -> io::Result<Option<Bytes>> {
        let popped = self.pop_oldest();
        if self.full {
            // Whoever pops little and pushes much must not outgrow the bound by the tail.
            self.full = self.tail.cost() >= 2 * self.store.bounds.piece && self.spill().is_err();
        }
        popped
    }

    fn pop_oldest(&mut self) -> io::Result<Option<Bytes>> {
        if self.head.chunks.is_empty() {
            if let Some(file) = self.file.as_mut().filter(|f| !f.is_empty()) {
                let used = file.used();
                let piece = file.take(self.store.bounds.piece);
                self.store.disk.fetch_sub(used - file.used(), Relaxed);
                return piece.map(Some);
            }
            std::mem::swap(&mut self.head, &mut self.tail);
        }
        let chunk = self.head.pop();
        let cost = chunk.as_ref().map_or(0, |c| c.len() + PER_CHUNK);
        self.store.memory.fetch_sub(cost, Relaxed);
        Ok(chunk)
    }

    /// Moves the tail into the file.
    fn spill(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(Spill::new()?),
        };
        let bytes = self.tail.bytes as u64;
        let bounds = self.store.bounds;
        if file.used() + bytes > bounds.disk_per_flow {
            return Err(io::Error::other("the bound of one flow is reached"));
        }
        if self.store.disk.fetch_add(bytes, Relaxed) + bytes > bounds.disk_in_all {
            self.store.disk.fetch_sub(bytes, Relaxed);
            return Err(io::Error::other("the bound of all flows is reached"));
        }
        if let Err(error) = file.append(self.tail.chunks.make_contiguous()) {
            self.store.disk.fetch_sub(bytes, Relaxed);
            return Err(error);
        }
        self.store.memory.fetch_sub(self.tail.cost(), Relaxed);
        self.tail = Queue::default();
        Ok(())
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        let memory = self.head.cost() + self.tail.cost();
        self.store.memory.fetch_sub(memory, Relaxed);
        let disk = self.file.as_ref().map_or(0, Spill::used);
        self.store.disk.fetch_sub(disk, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn store(bounds: Bounds) -> Arc<Store> {
        Arc::new(Store {
            bounds,
            ..Store::default()
        })
    }

    const SMALL: Bounds = Bounds {
        head: 1000,
        piece: 400,
        memory_in_all: 100_000,
        disk_per_flow: 2000,
        disk_in_all: 3000,
    };

    fn bytes(from: &mut u8, len: usize) -> Bytes {
        let chunk = (0..len).map(|i| from.wrapping_add(i as u8)).collect();
        *from = from.wrapping_add(len as u8);
        chunk
    }

    fn used(store: &Store) -> (usize, u64) {
        (store.memory.load(Relaxed), store.disk.load(Relaxed))
    }

    proptest! {
        /// Two flows share a store. Each gives back its bytes in order, whatever the bounds do.
        #[test]
        fn like_a_queue(
            steps in proptest::collection::vec((0usize..2, 0usize..200), 0..400),
            memory_in_all in 0usize..4000,
        ) {
            let store = store(Bounds { memory_in_all, ..SMALL });
            let mut flows: Vec<(Backlog, VecDeque<u8>, u8)> = (0..2u8)
                .map(|i| (Backlog::new(Arc::clone(&store)), VecDeque::new(), i * 100))
                .collect();
            for (flow, len) in steps {
                let (backlog, model, next) = &mut flows[flow];
                if len < 100 && !backlog.is_full() {
                    let chunk = bytes(next, len + 1);
                    model.extend(&chunk);
                    backlog.push(chunk);
                } else if let Some(chunk) = backlog.pop().unwrap() {
                    prop_assert!(!chunk.is_empty());
                    prop_assert!(chunk.iter().eq(model.drain(..chunk.len()).collect::<Vec<_>>().iter()));
                } else {
                    prop_assert!(model.is_empty());
                }
                prop_assert!(store.disk.load(Relaxed) <= SMALL.disk_in_all);
            }
            for (backlog, model, _) in &mut flows {
                while let Some(chunk) = backlog.pop().unwrap() {
                    prop_assert!(chunk.iter().eq(model.drain(..chunk.len()).collect::<Vec<_>>().iter()));
                }
                prop_assert!(model.is_empty());
            }
            prop_assert_eq!(used(&store), (0, 0));
        }
    }

    #[test]
    fn at_the_bound_it_is_full_until_read() {
        let store = store(SMALL);
        let mut backlog = Backlog::new(Arc::clone(&store));
        let mut next = 0;
        while !backlog.is_full() {
            backlog.push(bytes(&mut next, 10));
        }
        let (_, disk) = used(&store);
        assert!(disk <= SMALL.disk_per_flow && disk + 400 > SMALL.disk_per_flow);
        // The file is behind the head: it has room again when a piece of it was read.
        while backlog.is_full() {
            assert!(backlog.pop().unwrap().is_some());
        }
        drop(backlog);
        assert_eq!(used(&store), (0, 0));
    }

    #[test]
    fn consumed_space_is_given_back_before_the_end() {
        let store = store(Bounds {
            disk_in_all: 1 << 30,
            disk_per_flow: 1 << 30,
            ..Bounds::default()
        });
        let mut backlog = Backlog::new(Arc::clone(&store));
        let chunk = Bytes::from(vec![7; 1 << 20]);
        for _ in 0..40 {
            backlog.push(chunk.clone());
        }
        let (_, full) = used(&store);
        for _ in 0..100 {
            backlog.pop().unwrap();
        }
        let (_, later) = used(&store);
        assert!(later < full, "{later} of {full}");
    }
}
