//! A first-in first-out queue of bytes in an unlinked temporary file: nothing to clean up, however the process
//! ends, and nobody else can open it.
//!
//! What is done to the file goes to the page cache and takes microseconds, but sleeps when the kernel wants dirty pages
//! written first. So it is done on a thread for what blocks, one thing at a time, and nobody but the flow waits for it.

use std::collections::VecDeque;
use std::env;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use nix::fcntl::{FallocateFlags, fallocate};
use tokio::task::{JoinHandle, spawn_blocking};

/// Consumed bytes in front of the queue that are given back to the file system at once.
const PUNCH: u64 = 16 << 20;

/// The queue. A `C` goes along with what is being written: dropped when that is in the file.
pub(super) struct Spill<C> {
    directory: PathBuf,
    /// `None` until something was written.
    file: Option<Arc<File>>,
    marks: Marks,
    under_way: Option<UnderWay<C>>,
}

/// Offsets into the file: consumed up to `read`, given back up to `freed`.
#[derive(Clone, Copy, Default)]
struct Marks {
    freed: u64,
    read: u64,
    write: u64,
}

enum UnderWay<C> {
    Write {
        bytes: u64,
        work: JoinHandle<Result<Arc<File>, NotWritten<C>>>,
    },
    Read(JoinHandle<io::Result<(Bytes, Marks)>>),
}

/// What did not get into the file, and why.
pub(super) struct NotWritten<C> {
    pub(super) chunks: VecDeque<Bytes>,
    pub(super) along: C,
    pub(super) why: io::Error,
}

/// What became of what was under way.
pub(super) enum Settled<C> {
    /// It is in the file.
    Written,
    /// The queue is as before.
    NotWritten(NotWritten<C>),
    /// The oldest bytes.
    Taken(Bytes),
    /// Some bytes are gone.
    Lost(io::Error),
}

/// Where backlogs beyond memory are kept: `$TMPDIR`, else `/var/tmp`, for `/tmp` is memory on many systems.
pub fn directory() -> PathBuf {
    env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

impl<C: Send + 'static> Spill<C> {
    /// In this directory, once something is written.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            file: None,
            marks: Marks::default(),
            under_way: None,
        }
    }

    /// Nothing is in it, or on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.marks.read == self.marks.write && !self.is_busy()
    }

    /// Something is under way: see [`settle`](Self::settle).
    pub(super) fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Bytes of disk in use, or about to be.
    pub(super) fn used(&self) -> u64 {
        let coming = match &self.under_way {
            Some(UnderWay::Write { bytes, .. }) => *bytes,
            _ => 0,
        };
        self.marks.write - self.marks.freed + coming
    }

    /// Appends all of `chunks`, or nothing. Not while it is busy.
    pub(super) fn append(&mut self, chunks: VecDeque<Bytes>, along: C) {
        let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let (file, at, directory) = (self.file.clone(), self.marks.write, self.directory.clone());
        let work = spawn_blocking(move || match append(file, &directory, at, &chunks) {
            Ok(file) => Ok(file),
            Err(why) => Err(NotWritten { chunks, along, why }),
        });
        self.under_way = Some(UnderWay::Write { bytes, work });
    }

    /// Takes the oldest bytes, at most `max`. Not while it is busy or empty.
    pub(super) fn take(&mut self, max: usize) {
        if let Some(file) = self.file.clone() {
            let marks = self.marks;
            let work = spawn_blocking(move || take(&file, marks, max));
            self.under_way = Some(UnderWay::Read(work));
        }
    }

    /// Waits for what is under way; `None` where nothing is. Cancel safe.
    pub(super) async fn settle(&mut self) -> Option<Settled<C>> {
        let settled = match self.under_way.as_mut()? {
            UnderWay::Write { bytes, work } => match work.await {
                Ok(Ok(file)) => {
                    self.marks.write += *bytes;
                    self.file = Some(file);
                    Settled::Written
                }
                Ok(Err(not_written)) => Settled::NotWritten(not_written),
                Err(error) => Settled::Lost(io::Error::other(error)),
            },
            UnderWay::Read(work) => match work.await.map_err(io::Error::other).flatten() {
                Ok((piece, marks)) => {
                    self.marks = marks;
                    Settled::Taken(piece)
                }
                Err(error) => Settled::Lost(error),
            },
        };
        self.under_way = None;
        Some(settled)
    }
}

impl<C> Drop for Spill<C> {
    /// What no thread has begun by then is not done.
    fn drop(&mut self) {
        match &self.under_way {
            Some(UnderWay::Write { work, .. }) => work.abort(),
            Some(UnderWay::Read(work)) => work.abort(),
            None => {}
        }
    }
}

fn append(
    file: Option<Arc<File>>,
    directory: &Path,
    mut at: u64,
    chunks: &VecDeque<Bytes>,
) -> io::Result<Arc<File>> {
    let file = match file {
        Some(file) => file,
        None => Arc::new(tempfile::tempfile_in(directory)?),
    };
    for chunk in chunks {
        file.write_all_at(chunk, at)?;
        at += chunk.len() as u64;
    }
    Ok(file)
}

fn take(file: &File, mut marks: Marks, max: usize) -> io::Result<(Bytes, Marks)> {
    let left = usize::try_from(marks.write - marks.read).unwrap_or(max);
    let mut piece = BytesMut::zeroed(left.min(max));
    file.read_exact_at(&mut piece, marks.read)?;
    marks.read += piece.len() as u64;
    Ok((piece.freeze(), given_back(file, marks)))
}

/// Space is only worth something to others: where it cannot be given back the queue goes on.
fn given_back(file: &File, marks: Marks) -> Marks {
    if marks.read == marks.write {
        if file.set_len(0).is_ok() {
            return Marks::default();
        }
    } else if marks.read - marks.freed >= PUNCH {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let (from, len) = (marks.freed, marks.read - marks.freed);
        if let (Ok(from), Ok(len)) = (from.try_into(), len.try_into())
            && fallocate(file, flags, from, len).is_ok()
        {
            return Marks {
                freed: marks.read,
                ..marks
            };
        }
    }
    marks
}
