//! Tells when a file is made, or changed.

use std::future::pending;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::unistd::read;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;

/// Room for a few events; more are read by and by (inotify(7)).
const EVENTS: usize = 4096;

/// What makes a file.
const MADE: AddWatchFlags = AddWatchFlags::IN_CREATE.union(AddWatchFlags::IN_MOVED_TO);
/// What changes one.
const CHANGED: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVED_FROM);

/// Hears of what is made in a directory.
#[derive(Debug)]
pub struct Made(AsyncFd<Watch>);

#[derive(Debug)]
struct Watch(Inotify);

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Made {
    /// In `directory`, from now on.
    ///
    /// # Errors
    /// As inotify_init1(2) and inotify_add_watch(2).
    pub fn watch(directory: &Path) -> io::Result<Self> {
        Self::of(directory, MADE)
    }

    /// The same, and of what is changed there, from now on.
    ///
    /// # Errors
    /// As [`Made::watch`].
    pub(super) fn watch_changes(directory: &Path) -> io::Result<Self> {
        Self::of(directory, MADE | CHANGED)
    }

    /// And of what is written to `file`, which something else may be mounted on.
    ///
    /// # Errors
    /// As inotify_add_watch(2).
    pub(super) fn watch_also(&self, file: &Path) -> io::Result<()> {
        self.0.get_ref().0.add_watch(file, CHANGED)?;
        Ok(())
    }

    #[expect(unsafe_code, reason = "a promise about a descriptor")]
    fn of(directory: &Path, what: AddWatchFlags) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(directory, what)?;
        let watch = Watch(inotify);
        // SAFETY: the descriptor is the watch's own, always the same one, and is closed with it, which the `AsyncFd`
        // owns.
        let registered = unsafe { AsyncFd::register_with_interest(watch, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Until `path`, which is in the directory, is there.
    ///
    /// # Errors
    /// As read(2).
    pub async fn until(&self, path: &Path) -> io::Result<()> {
        while !path.exists() {
            self.any().await?;
        }
        Ok(())
    }

    /// Until something has happened, where there is one that watches `what`; says so, where it cannot any more. Cancel safe.
    pub(super) async fn changed(made: &mut Option<Self>, what: &str) {
        let Some(watch) = made else {
            return pending().await;
        };
        if let Err(error) = watch.any().await {
            warn!("who writes {what} goes unnoticed from here on: {error}");
            *made = None;
        }
    }

    /// Until something has happened. Cancel safe.
    ///
    /// # Errors
    /// As read(2).
    pub(super) async fn any(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            match read(ready.get_inner().0.as_fd(), &mut [0; EVENTS]) {
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_comes_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let made = Made::watch(directory.path()).unwrap();
        let path = directory.path().join("b");
        let make = async {
            for name in ["a", "b"] {
                tokio::task::yield_now().await;
                std::fs::write(directory.path().join(name), "").unwrap();
            }
        };
        let (until, ()) = tokio::join!(made.until(&path), make);
        until.unwrap();
    }
}
