//! A first-in first-out queue of bytes in an unlinked temporary file: nothing to clean up, however the process
//! ends, and nobody else can open it.

use std::env;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use nix::fcntl::{FallocateFlags, fallocate};
use tokio::runtime::{Handle, RuntimeFlavor};

/// Consumed bytes in front of the queue that are given back to the file system at once.
const PUNCH: u64 = 16 << 20;

/// The queue. Offsets are into the file: consumed up to `read`, given back up to `freed`.
pub(super) struct Spill {
    file: File,
    freed: u64,
    read: u64,
    write: u64,
}

/// Where backlogs beyond memory are kept: `$TMPDIR`, else `/var/tmp`, for `/tmp` is memory on many systems.
pub fn directory() -> PathBuf {
    env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

impl Spill {
    /// Makes the file in [`directory`].
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn new() -> io::Result<Self> {
        let file = in_place(|| tempfile::tempfile_in(directory()))?;
        Ok(Self {
            file,
            freed: 0,
            read: 0,
            write: 0,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.read == self.write
    }

    /// Bytes of disk in use.
    pub(super) fn used(&self) -> u64 {
        self.write - self.freed
    }

    /// Appends all of `chunks`, or nothing.
    ///
    /// # Errors
    /// Whatever the file system says; the queue is then as before.
    pub(super) fn append(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        let mut at = self.write;
        in_place(|| {
            for chunk in chunks {
                self.file.write_all_at(chunk, at)?;
                at += chunk.len() as u64;
            }
            Ok::<_, io::Error>(())
        })?;
        self.write = at;
        Ok(())
    }

    /// Takes the oldest bytes, at most `max`.
    ///
    /// # Errors
    /// Whatever the file system says. The bytes are lost then.
    pub(super) fn take(&mut self, max: usize) -> io::Result<Bytes> {
        let left = usize::try_from(self.write - self.read).unwrap_or(max);
        let mut piece = BytesMut::zeroed(left.min(max));
        in_place(|| self.file.read_exact_at(&mut piece, self.read))?;
        self.read += piece.len() as u64;
        self.give_back();
        Ok(piece.freeze())
    }

    /// Space is only worth something to others: where it cannot be given back the queue goes on.
    fn give_back(&mut self) {
        if self.is_empty() {
            if self.file.set_len(0).is_ok() {
                (self.freed, self.read, self.write) = (0, 0, 0);
            }
        } else if self.read - self.freed >= PUNCH {
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let (from, len) = (self.freed, self.read - self.freed);
            if let (Ok(from), Ok(len)) = (from.try_into(), len.try_into())
                && fallocate(&self.file, flags, from, len).is_ok()
            {
                self.freed = self.read;
            }
        }
    }
}

/// Runs file I/O inside the task. It goes to the page cache and takes microseconds, but sleeps when the kernel
/// wants dirty pages written first; tokio moves the other tasks of this thread away meanwhile. Handing it to
/// another thread instead would have to keep the order of bytes, and a cancelled read would lose them.
fn in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|h| h.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
