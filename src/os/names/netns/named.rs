//! The resolv.conf of a network namespace with a name: ip-netns(8) mounts it for programs that it starts there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::written::{Former, Written, former_in};

/// Where they are.
const FILES: &str = "/etc/netns";
/// Where the namespaces are.
const NAMESPACES: &str = "/run/netns";
const OWN: &str = "/proc/self/ns/net";

/// The file, which need not be there.
#[derive(Clone, Debug)]
pub(super) struct Named {
    file: PathBuf,
}

impl Named {
    /// Of the namespace that we are in.
    ///
    /// # Errors
    /// `NotFound` where it has another name.
    pub(super) fn here(name: &str) -> io::Result<Self> {
        let is_name = !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']);
        let own = fs::metadata(OWN)?;
        let named = fs::metadata(Path::new(NAMESPACES).join(name))?;
        match is_name && (own.dev(), own.ino()) == (named.dev(), named.ino()) {
            true => Ok(Self::of(Path::new(FILES), name)),
            false => Err(ErrorKind::NotFound.into()),
        }
    }

    fn of(files: &Path, name: impl AsRef<Path>) -> Self {
        Self {
            file: files.join(name).join("resolv.conf"),
        }
    }

    /// All that there may be.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let entries = fs::read_dir(FILES).into_iter().flatten().flatten();
        entries.map(|entry| Self::of(Path::new(FILES), entry.file_name()))
    }

    /// Its path.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The directory that it is in.
    pub(super) fn directory(&self) -> &Path {
        self.file.parent().unwrap_or(&self.file)
    }

    /// What is there, or was before us.
    pub(super) fn former(&self) -> io::Result<Former> {
        former_in(&File::open(&self.file)?)
    }

    /// Opens it; a link, which may lead to a file of this host's, is not followed.
    pub(super) fn open(&self) -> io::Result<File> {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(&self.file)?;
        match opened.metadata()?.is_file() {
            true => Ok(opened),
            false => Err(ErrorKind::InvalidInput.into()),
        }
    }

    /// Opens it, or makes it; how many directories had to be made, too, where it was not there.
    pub(super) fn open_or_make(&self) -> io::Result<(File, Option<usize>)> {
        match self.open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            opened => return Ok((opened?, None)),
        }
        let above: Vec<&Path> = self.file.ancestors().skip(1).take(2).collect();
        let mut made = 0;
        for directory in above.into_iter().rev() {
            match fs::create_dir(directory) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                done => done.map(|()| made += 1)?,
            }
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&self.file)?;
        Ok((file, Some(made)))
    }

    /// Whether `written` is what stands there.
    pub(super) fn has(&self, written: &Written) -> bool {
        fs::symlink_metadata(&self.file).is_ok_and(|found| written.is(&found))
    }

    /// Puts back what was there; what had to be made is removed again.
    pub(super) fn restore(&self, written: &Written) -> io::Result<()> {
        let Some(Former::Nothing(made)) = written.restore()? else {
            return Ok(());
        };
        if self.has(written) {
            fs::remove_file(&self.file)?;
        }
        for directory in self.file.ancestors().skip(1).take(made) {
            // Somebody else has something there by now.
            if fs::remove_dir(directory).is_err() {
                break;
            }
        }
        Ok(())
    }
}
