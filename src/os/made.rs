//! Tells when a file is made.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::unistd::read;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Room for a few events; more are read by and by (inotify(7)).
const EVENTS: usize = 4096;

/// Hears of what is made in a directory.
#[derive(Debug)]
pub struct Made(AsyncFd<Watch>);

#[derive(Debug)]
struct Watch(OwnedFd);

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Made {
    /// In `directory`, from now on.
    ///
    /// # Errors
    /// As inotify_init1(2) and inotify_add_watch(2).
    #[expect(unsafe_code, reason = "a promise about a descriptor")]
    pub fn watch(directory: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(
            directory,
            AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO,
        )?;
        let watch = Watch(inotify.into());
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
            let mut ready = self.0.readable().await?;
            match read(ready.get_inner().0.as_fd(), &mut [0; EVENTS]) {
                Err(Errno::EAGAIN) => ready.clear_ready(),
                read => _ = read?,
            }
        }
        Ok(())
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
