//! A file that only we write, to which lines are appended.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc::{ELOOP, O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK};
use nix::unistd::geteuid;

use super::{AuditError, Failure, count};

/// The file, and how to open it again.
#[derive(Debug)]
pub(in crate::audit) struct LogFile {
    path: PathBuf,
    file: File,
    /// The last write ended within a line, which could not be taken back.
    is_torn: bool,
}

impl LogFile {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// [`AuditError::Open`]; [`AuditError::Unsafe`] for a symbolic link, what is no regular file, another user's file and one
    /// that others may write.
    pub(super) fn open(path: &Path) -> Result<Self, AuditError> {
        // Absolute: a daemon's working directory is another one when it is opened again.
        let path = std::path::absolute(path).map_err(|source| cannot_open(path, source))?;
        Ok(Self {
            file: open(&path)?,
            path,
            is_torn: false,
        })
    }

    /// Opens it anew, after it was renamed. Where that fails the old one stays.
    pub(super) fn reopen(&mut self) {
        match open(&self.path) {
            Ok(file) => {
                self.file = file;
                self.is_torn = false;
                tracing::debug!("opened {} anew", self.path.display());
            }
            Err(error) => tracing::warn!("{error}; the old audit log is written on"),
        }
    }

    /// Appends whole lines. One that is cut short is taken back; where that cannot be done it is ended before the next write, so
    /// that it spoils no other.
    ///
    /// # Errors
    /// How many lines did not go whole, and why.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), Failure> {
        let mut rest = lines;
        if self.is_torn {
            self.append(&mut &b"\n"[..]).map_err(|error| Failure {
                lines: count(lines),
                error,
            })?;
            self.is_torn = false;
        }
        let result = self.append(&mut rest);
        result.map_err(|error| {
            let written = &lines[..lines.len() - rest.len()];
            let torn = written.rsplit(|byte| *byte == b'\n').next();
            let torn = torn.map_or(0, <[u8]>::len);
            self.is_torn = torn > 0 && self.take_back(torn).is_err();
            Failure {
                lines: count(rest),
                error,
            }
        })
    }

    /// Cuts off the last bytes that were written, where nobody has appended more since.
    fn take_back(&mut self, length: usize) -> io::Result<()> {
        // Behind what we wrote, also where others append.
        let end = self.file.stream_position()?;
        if self.file.metadata()?.len() != end {
            return Err(io::Error::other("others have written more"));
        }
        self.file.set_len(end.saturating_sub(length as u64))
    }

    /// As much as goes; `rest` is what did not.
    fn append(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => *rest = &rest[length..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn cannot_open(path: &Path, source: io::Error) -> AuditError {
    AuditError::Open {
        path: path.to_owned(),
        source,
    }
}

fn open(path: &Path) -> Result<File, AuditError> {
    let opened = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        // A pipe without a reader would hold us up.
        .custom_flags(O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK)
        .open(path);
    let unsafe_because = |reason: String| AuditError::Unsafe {
        path: path.to_owned(),
        reason,
    };
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(ELOOP) => unsafe_because("is a symbolic link; name the file that it leads to".into()),
        _ => cannot_open(path, error),
    })?;
    let metadata = file
        .metadata()
        .map_err(|source| cannot_open(path, source))?;
    let mode = metadata.mode() & 0o7777;
    if !metadata.is_file() {
        return Err(unsafe_because("is not a regular file".into()));
    }
    if metadata.uid() != geteuid().as_raw() && metadata.uid() != 0 {
        let owner = metadata.uid();
        return Err(unsafe_because(format!(
            "belongs to user {owner}, who could change it; name another file"
        )));
    }
    if mode & 0o022 != 0 {
        let path = path.display();
        return Err(unsafe_because(format!(
            "can be written by others (mode {mode:04o}): chmod go-w {path}"
        )));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    fn refused(path: &Path) -> String {
        LogFile::open(path).unwrap_err().to_string()
    }

    #[test]
    fn it_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        LogFile::open(&path).unwrap().write(b"one\n").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        // What is there stays.
        LogFile::open(&path).unwrap().write(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn what_is_not_ours_alone_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("open"), "").unwrap();
        fs::set_permissions(path("open"), fs::Permissions::from_mode(0o620)).unwrap();
        symlink(path("target"), path("link")).unwrap();
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (name, word) in [
            ("open", "chmod go-w"),
            ("link", "symbolic link"),
            ("pipe", ""),
            ("none/there", "No such file"),
            (".", "directory"),
        ] {
            let error = refused(&path(name));
            assert!(error.contains(word), "{name}: {error}");
        }
        assert!(!path("target").exists());
    }

    #[test]
    fn it_is_opened_anew_after_it_was_renamed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("audit"), dir.path().join("audit.1"));
        let mut file = LogFile::open(&path).unwrap();
        file.write(b"one\n").unwrap();
        fs::rename(&path, &old).unwrap();
        file.write(b"two\n").unwrap();
        file.reopen();
        file.write(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        // What has come to its place meanwhile is not written to.
        fs::remove_file(&path).unwrap();
        symlink(&old, &path).unwrap();
        file.reopen();
        file.write(b"four\n").unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "one\ntwo\n");
    }

    /// A file that may not grow, as on a full disk: of 8,000 bytes one page goes.
    fn full_after_a_page() -> LogFile {
        let file = File::from(memfd_create("audit", MFdFlags::MFD_ALLOW_SEALING).unwrap());
        file.set_len(4096).unwrap();
        fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW)).unwrap();
        LogFile {
            path: PathBuf::new(),
            file,
            is_torn: false,
        }
    }

    #[test]
    fn a_line_that_was_cut_short_is_taken_back() {
        let mut log = full_after_a_page();
        let line = [vec![b'x'; 2999], vec![b'\n']].concat();
        let lines = [line.clone(), line.clone(), line.clone()].concat();
        assert_eq!(log.write(&lines).unwrap_err().lines, 2);
        assert!(!log.is_torn);
        log.file.rewind().unwrap();
        let mut found = Vec::new();
        log.file.read_to_end(&mut found).unwrap();
        assert!(found == line, "{} bytes", found.len());
    }

    #[test]
    fn what_others_wrote_is_not_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        let mut log = LogFile::open(&path).unwrap();
        log.write(b"one\ntw").unwrap();
        LogFile::open(&path).unwrap().write(b"other\n").unwrap();
        assert!(log.take_back(2).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwother\n");
    }

    /// As a full disk does it where nothing can be taken back: some bytes go, then none.
    #[test]
    fn a_line_that_was_cut_short_spoils_no_other() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        nix::fcntl::fcntl(
            &file,
            nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
        )
        .unwrap();
        let mut log = LogFile {
            path: PathBuf::new(),
            file,
            is_torn: false,
        };
        let line = [vec![b'x'; 2999], vec![b'\n']].concat();
        let failure = log
            .write(&[line.clone(), line.clone()].concat())
            .unwrap_err();
        assert_eq!(failure.lines, 1);
        assert!(log.is_torn);
        assert_eq!(log.write(&line).unwrap_err().lines, 1);
        let mut taken = vec![0; 4096];
        std::io::Read::read_exact(&mut reader, &mut taken).unwrap();
        log.write(b"next\n").unwrap();
        drop(log);
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut reader, &mut rest).unwrap();
        assert_eq!(rest, "\nnext\n");
    }
}
