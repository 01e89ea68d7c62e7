//! What a flow has received and nobody has room for yet.
//!
//! russh grants the server new window on receipt, not on consumption, and its session task waits for a flow
//! whose message queue is full: one flow that nobody reads would stop all flows of its connection. So the
//! reader takes such a flow's bytes in here: into memory first, then into a file. At the bounds it takes no
//! more, and the connection's reader does wait; the pool sends new flows elsewhere then. While the file is behind it waits, too.
//!
//! | | per flow | in all |
//! |---|---|---|
//! | memory | 1.5 MiB, and a piece of 256 KiB that came out of the file | 64 MiB, then 512 KiB for each flow |
//! | file | 1 GiB | 8 GiB |
//!
//! Before it come russh's message queue of the flow (2 MiB at most) and what the kernel holds.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use tracing::{debug, warn};

use super::spill::{self, NotWritten, Settled, Spill};

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

/// What all backlogs share: the bounds, where files are made, and how much is used.
#[derive(Debug)]
pub(super) struct Store {
    bounds: Bounds,
    directory: PathBuf,
    memory: AtomicUsize,
    disk: AtomicU64,
    warned: AtomicBool,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            bounds: Bounds::default(),
            directory: spill::directory(),
            memory: AtomicUsize::new(0),
            disk: AtomicU64::new(0),
            warned: AtomicBool::new(false),
        }
    }
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

/// The backlog of one flow: first in, first out. Order: `head`, then `piece`, then `file`, then `tail`.
pub(super) struct Backlog {
    store: Arc<Store>,
    head: Queue,
    /// What came out of the file.
    piece: Option<io::Result<Bytes>>,
    file: Spill<Charge>,
    /// Waits to go to the file at once.
    tail: Queue,
    /// At a bound, and not enough was popped since.
    full: bool,
    /// The last write failed: nothing comes in while the next one is tried.
    failed: bool,
}

/// Memory in use, in bytes, until it is dropped: that of what is on its way into the file, whoever waits for it.
struct Charge {
    store: Arc<Store>,
    cost: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.store.memory.fetch_sub(self.cost, Relaxed);
    }
}

/// What [`Backlog::pop`] has.
#[derive(Debug)]
pub(super) enum Popped {
    /// The oldest bytes.
    Chunk(Bytes),
    /// The oldest bytes are lost: what the file system said when it could not give them back.
    Lost(io::Error),
    /// The oldest bytes are on their way: wait for [`Backlog::settle`].
    Coming,
    /// It is empty.
    Nothing,
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

    /// Puts what was taken out last back, in front of what came since.
    fn put_back(&mut self, mut chunks: VecDeque<Bytes>) {
        self.bytes += chunks.iter().map(Bytes::len).sum::<usize>();
        chunks.append(&mut self.chunks);
        self.chunks = chunks;
    }

    /// Memory in use, in bytes.
    fn cost(&self) -> usize {
        self.bytes + self.chunks.len() * PER_CHUNK
    }
}

impl Backlog {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self {
            head: Queue::default(),
            piece: None,
            file: Spill::new(store.directory.clone()),
            tail: Queue::default(),
            full: false,
            failed: false,
            store,
        }
    }

    /// At a bound: nothing may be pushed before something was popped.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// The file does not keep up: nothing may be pushed before [`settle`](Self::settle).
    pub(super) fn is_behind(&self) -> bool {
        self.file.is_busy() && (self.is_due() || self.full || self.failed)
    }

    /// What waits to go to the file should go.
    fn is_due(&self) -> bool {
        let crowded = self.store.memory_is_full() && self.tail.bytes > 0;
        self.tail.cost() >= self.store.bounds.piece || crowded
    }

    /// Takes `chunk` in. Not when [`is_full`](Self::is_full) or [`is_behind`](Self::is_behind).
    pub(super) fn push(&mut self, chunk: Bytes) {
        self.store
            .memory
            .fetch_add(chunk.len() + PER_CHUNK, Relaxed);
        let is_last = self.piece.is_none() && self.file.is_empty() && self.tail.bytes == 0;
        let room = self.head.cost() < self.store.bounds.head && !self.store.memory_is_full();
        if is_last && room {
            self.head.push(chunk);
            return;
        }
        self.tail.push(chunk);
        self.spill_what_is_due();
    }

    /// The oldest bytes, if they are there.
    pub(super) fn pop(&mut self) -> Popped {
        let popped = self.pop_oldest();
        if self.full && matches!(popped, Popped::Chunk(_)) {
            // Whoever pops little and pushes much must not outgrow the bound by the tail: it has to be in the file first.
            if self.tail.cost() < 2 * self.store.bounds.piece {
                self.full = false;
            } else if let Err(error) = self.spill() {
                debug!("a flow's store stays full: {error}");
            }
        }
        popped
    }

    fn pop_oldest(&mut self) -> Popped {
        if self.head.chunks.is_empty() {
            match self.piece.take() {
                Some(Ok(piece)) => return Popped::Chunk(piece),
                Some(Err(error)) => return Popped::Lost(error),
                None if self.file.is_busy() => return Popped::Coming,
                None if !self.file.is_empty() => {
                    self.file.take(self.store.bounds.piece);
                    return Popped::Coming;
                }
                None => mem::swap(&mut self.head, &mut self.tail),
            }
        }
        let Some(chunk) = self.head.pop() else {
            return Popped::Nothing;
        };
        self.store
            .memory
            .fetch_sub(chunk.len() + PER_CHUNK, Relaxed);
        Popped::Chunk(chunk)
    }

    /// Waits until the file has done what it is at. Cancel safe.
    pub(super) async fn settle(&mut self) {
        let used = self.file.used();
        let Some(settled) = self.file.settle().await else {
            return;
        };
        let given_back = used - self.file.used();
        self.store.disk.fetch_sub(given_back, Relaxed);
        match settled {
            Settled::Written => (self.full, self.failed) = (false, false),
            Settled::NotWritten(not_written) => return self.take_back(not_written),
            Settled::Taken(piece) => self.piece = Some(Ok(piece)),
            Settled::Lost(error) => self.piece = Some(Err(error)),
        }
        self.spill_what_is_due();
    }

    fn take_back(&mut self, not_written: NotWritten<Charge>) {
        let NotWritten {
            chunks,
            mut along,
            why,
        } = not_written;
        // It is the tail's again.
        along.cost = 0;
        self.tail.put_back(chunks);
        self.failed = true;
        self.is_at_a_bound(&why);
    }

    fn spill_what_is_due(&mut self) {
        if self.is_due()
            && let Err(error) = self.spill()
        {
            self.is_at_a_bound(&error);
        }
    }

    fn is_at_a_bound(&mut self, why: &io::Error) {
        self.store.warn(&why.to_string());
        self.full = true;
    }

    /// Begins to move the tail into the file, or leaves it to [`settle`](Self::settle) while that is busy.
    fn spill(&mut self) -> io::Result<()> {
        if self.file.is_busy() {
            return Ok(());
        }
        let bytes = self.tail.bytes as u64;
        let bounds = self.store.bounds;
        if self.file.used() + bytes > bounds.disk_per_flow {
            return Err(io::Error::other("the bound of one flow is reached"));
        }
        if self.store.disk.fetch_add(bytes, Relaxed) + bytes > bounds.disk_in_all {
            self.store.disk.fetch_sub(bytes, Relaxed);
            return Err(io::Error::other("the bound of all flows is reached"));
        }
        let tail = mem::take(&mut self.tail);
        let charge = Charge {
            store: Arc::clone(&self.store),
            cost: tail.cost(),
        };
        self.file.append(tail.chunks, charge);
        Ok(())
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        let memory = self.head.cost() + self.tail.cost();
        self.store.memory.fetch_sub(memory, Relaxed);
        self.store.disk.fetch_sub(self.file.used(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

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

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
    }

    impl Backlog {
        /// Whether something may be pushed, once the file has caught up.
        async fn has_room(&mut self) -> bool {
            while self.is_behind() {
                self.settle().await;
            }
            !self.is_full()
        }

        /// The oldest bytes, once they are there.
        async fn popped(&mut self) -> Option<Bytes> {
            loop {
                match self.pop() {
                    Popped::Chunk(chunk) => return Some(chunk),
                    Popped::Coming => self.settle().await,
                    Popped::Nothing => return None,
                    Popped::Lost(error) => panic!("{error}"),
                }
            }
        }
    }

    /// A flow's backlog, what should be in it, and the next byte.
    type Flow = (Backlog, VecDeque<u8>, u8);

    async fn step(flow: &mut Flow, len: usize) {
        let (backlog, model, next) = flow;
        match len {
            0..100 if !backlog.is_full() && !backlog.is_behind() => {
                let chunk = bytes(next, len + 1);
                model.extend(&chunk);
                backlog.push(chunk);
            }
            // What the file is at may be done at any time, or be waited for by nobody.
            100..120 => backlog.settle().await,
            _ => assert_pops(backlog, model).await,
        }
    }

    async fn assert_pops(backlog: &mut Backlog, model: &mut VecDeque<u8>) {
        let Some(chunk) = backlog.popped().await else {
            return assert!(model.is_empty());
        };
        assert!(!chunk.is_empty());
        assert!(chunk.iter().copied().eq(model.drain(..chunk.len())));
    }

    proptest! {
        /// Two flows share a store. Each gives back its bytes in order, whatever the bounds do.
        #[test]
        fn like_a_queue(
            steps in proptest::collection::vec((0usize..2, 0usize..200), 0..400),
            memory_in_all in 0usize..4000,
        ) {
            let store = store(Bounds { memory_in_all, ..SMALL });
            let mut flows = [0, 100].map(|first| (Backlog::new(Arc::clone(&store)), VecDeque::new(), first));
            runtime().block_on(async {
                for (flow, len) in steps {
                    step(&mut flows[flow], len).await;
                    assert!(store.disk.load(Relaxed) <= SMALL.disk_in_all);
                }
                for (backlog, model, _) in &mut flows {
                    while !model.is_empty() {
                        assert_pops(backlog, model).await;
                    }
                    assert!(backlog.popped().await.is_none());
                }
            });
            prop_assert_eq!(used(&store), (0, 0));
        }
    }

    #[tokio::test]
    async fn at_the_bound_it_is_full_until_read() {
        let store = store(SMALL);
        let mut backlog = Backlog::new(Arc::clone(&store));
        let mut next = 0;
        while backlog.has_room().await {
            backlog.push(bytes(&mut next, 10));
        }
        let (_, disk) = used(&store);
        assert!(disk <= SMALL.disk_per_flow && disk + 400 > SMALL.disk_per_flow);
        // The file is behind the head: it has room again when a piece of it was read.
        while backlog.is_full() {
            assert!(backlog.popped().await.is_some());
        }
        drop(backlog);
        assert_eq!(used(&store), (0, 0));
    }

    #[tokio::test]
    async fn the_file_keeps_nobody_else_waiting() {
        let store = store(SMALL);
        let mut backlog = Backlog::new(Arc::clone(&store));
        let mut next = 0;
        while !backlog.is_behind() {
            backlog.push(bytes(&mut next, 100));
        }
        // Whether it is there already or not: nothing stays of who is gone.
        drop(backlog);
        let is_free = async {
            while used(&store) != (0, 0) {
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(20), is_free);
        in_time.await.unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_written_does_not_grow_by_what_is_read() {
        let store = Arc::new(Store {
            bounds: SMALL,
            directory: "/proc/no/such/directory".into(),
            ..Store::default()
        });
        let mut backlog = Backlog::new(Arc::clone(&store));
        let (mut next, mut expected) = (0, 0);
        let most = SMALL.head + 2 * SMALL.piece + 3 * (100 + PER_CHUNK);
        for _ in 0..200 {
            while backlog.has_room().await {
                backlog.push(bytes(&mut next, 100));
            }
            let (memory, disk) = used(&store);
            assert!(memory <= most && disk == 0, "{memory} of {most}, {disk}");
            let chunk = backlog.popped().await.unwrap();
            assert!(chunk == bytes(&mut expected, 100));
        }
    }

    #[tokio::test]
    async fn consumed_space_is_given_back_before_the_end() {
        let store = store(Bounds {
            disk_in_all: 1 << 30,
            disk_per_flow: 1 << 30,
            ..Bounds::default()
        });
        let mut backlog = Backlog::new(Arc::clone(&store));
        let chunk = Bytes::from(vec![7; 1 << 20]);
        for _ in 0..40 {
            assert!(backlog.has_room().await);
            backlog.push(chunk.clone());
        }
        let (_, full) = used(&store);
        for _ in 0..100 {
            backlog.popped().await;
        }
        let (_, later) = used(&store);
        assert!(later < full, "{later} of {full}");
    }
}
