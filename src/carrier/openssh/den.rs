//! The directory of a control socket: nobody but the person who runs ssh gets in, and none stays behind.
//!
//! Who has made one holds a lock on it (flock(2)), which ends with the process, however that ends: what nobody holds is a
//! dead one's, and the next start removes it.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use tempfile::TempDir;
use tracing::debug;

const NAME: &str = "underpass-ssh-";
/// Of the directory around it, in bytes: a socket's path has 107 at most (unix(7)), and ssh makes a longer one first.
const LONGEST: usize = 60;
/// How often one is made that a start beside ours takes for a dead one's.
const TRIES: usize = 5;

/// Gone when it is dropped.
pub(super) struct Den {
    directory: TempDir,
    _lock: File,
}

impl Den {
    /// For an ssh of this process's user.
    ///
    /// # Errors
    /// Those of mkdir(2) and flock(2).
    pub(super) fn make() -> io::Result<Self> {
        let place = place();
        sweep(&place);
        for _ in 0..TRIES {
            if let Some(den) = Self::try_make(&place)? {
                return Ok(den);
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// `None` where it was swept away between its making and its lock.
    fn try_make(place: &Path) -> io::Result<Option<Self>> {
        let directory = tempfile::Builder::new()
            .prefix(NAME)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(place)?;
        let Some(lock) = lock(directory.path()) else {
            return Ok(None);
        };
        let is_there = fs::metadata(directory.path()).is_ok_and(|there| {
            lock.metadata()
                .is_ok_and(|locked| locked.ino() == there.ino())
        });
        let den = Self {
            directory,
            _lock: lock,
        };
        Ok(is_there.then_some(den))
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// `$XDG_RUNTIME_DIR`, where it is ours alone; `/tmp` otherwise.
fn place() -> PathBuf {
    let ours = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let is_fit = |place: &PathBuf| {
        let is_private = fs::symlink_metadata(place).is_ok_and(|data| {
            data.is_dir() && data.uid() == geteuid().as_raw() && data.mode() & 0o022 == 0
        });
        place.is_absolute() && place.as_os_str().as_bytes().len() <= LONGEST && is_private
    };
    let ours = ours.filter(is_fit);
    ours.unwrap_or_else(|| PathBuf::from("/tmp"))
}

/// The lock, if nobody else holds it.
fn lock(directory: &Path) -> Option<File> {
    let file = File::open(directory).ok()?;
    file.try_lock().ok().map(|()| file)
}

/// Removes what processes have left that were killed in the middle of a login.
fn sweep(place: &Path) {
    let Ok(entries) = fs::read_dir(place) else {
        return;
    };
    let us = geteuid().as_raw();
    for entry in entries.flatten() {
        let is_ours = entry.file_name().as_bytes().starts_with(NAME.as_bytes())
            // Not that of what a link leads to.
            && fs::symlink_metadata(entry.path())
                .is_ok_and(|data| data.is_dir() && data.uid() == us);
        if is_ours && let Some(_held) = lock(&entry.path()) {
            // One that cannot be removed is tried again at the next start.
            let removed = fs::remove_dir_all(entry.path());
            debug!("{} was left behind: {removed:?}", entry.path().display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_have_left_is_removed_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        for name in ["underpass-ssh-dead", "underpass-ssh-held", "other"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("m.x"), "").unwrap();
        }
        std::os::unix::fs::symlink(at("other"), at("underpass-ssh-link")).unwrap();
        let den = Den::try_make(place.path()).unwrap().unwrap();
        let held = lock(&at("underpass-ssh-held")).unwrap();
        sweep(place.path());
        assert!(!at("underpass-ssh-dead").exists());
        assert!(at("other").join("m.x").exists() && at("underpass-ssh-link").exists());
        assert!(at("underpass-ssh-held").exists() && den.path().exists());
        drop((held, den));
        sweep(place.path());
        let left = fs::read_dir(place.path()).unwrap().count();
        assert_eq!(left, 2);
    }
}
