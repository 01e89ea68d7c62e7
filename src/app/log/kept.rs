//! A daemon's log where there is neither journald nor syslog: a file in its run directory, and the one before.
//!
//! Whoever asks why a daemon has ended finds it there. One that has ended as it was told takes it along.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::libc::O_NOFOLLOW;

/// The longest file, in bytes; there are two at most.
pub(super) const MOST: u64 = 1 << 20;

/// Takes whole lines, and writes when that was before each.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    file: File,
    length: u64,
    most: u64,
    /// Whether lines get the time: those of people.
    is_dated: bool,
}

impl Kept {
    /// Goes on with the file at `path`, in a directory that is ours alone.
    ///
    /// # Errors
    /// Those of open(2).
    pub(super) fn open(path: &Path, is_dated: bool) -> io::Result<Self> {
        let file = open(path)?;
        Ok(Self {
            length: file.metadata()?.len(),
            path: path.to_owned(),
            file,
            most: MOST,
            is_dated,
        })
    }

    /// The full file becomes the one before, and that is gone. Where that cannot be, the file begins anew.
    fn turn(&mut self) -> io::Result<()> {
        let turned = fs::rename(&self.path, before(&self.path)).and_then(|()| open(&self.path));
        match turned {
            Ok(file) => self.file = file,
            Err(_) => self.file.set_len(0)?,
        }
        self.length = 0;
        Ok(())
    }
}

impl Write for Kept {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut dated = Vec::new();
        if self.is_dated {
            let now = humantime::format_rfc3339_millis(SystemTime::now());
            write!(dated, "{now} ")?;
        }
        dated.extend(line);
        let length = dated.len() as u64;
        if self.length + length > self.most {
            self.turn()?;
        }
        self.file.write_all(&dated)?;
        self.length += length;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Removes both files.
pub(super) fn remove(path: &Path) {
    for file in [path.to_owned(), before(path)] {
        // There may be none.
        let _ = fs::remove_file(file);
    }
}

fn before(path: &Path) -> PathBuf {
    path.with_added_extension("1")
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    options.custom_flags(O_NOFOLLOW).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_has_the_last_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("prod.log");
        let mut kept = Kept::open(&path, false).unwrap();
        kept.most = 100;
        for number in 0..50 {
            writeln!(kept, "line {number:04}").unwrap();
        }
        let text = |path: &Path| fs::read_to_string(path).unwrap();
        let (last, older) = (text(&path), text(&before(&path)));
        assert!(last.ends_with("line 0049\n"), "{last}");
        assert!(last.len() <= 100 && older.len() == 100, "{older}");
        assert_eq!((older + &last).lines().count() % 10, 0);
        // Another start goes on with it.
        let mut kept = Kept::open(&path, true).unwrap();
        kept.write_all(b"again\n").unwrap();
        let text = text(&path);
        assert!(
            text.starts_with(&last) && text.ends_with("Z again\n"),
            "{text}"
        );
        remove(&path);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
