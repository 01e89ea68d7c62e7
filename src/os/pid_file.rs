//! The file that says which process this is (`--pidfile`).
//!
//! It is written with the rights of who runs underpass. Under sudo that is the caller, who may not write to `/run`, where
//! such files are: for `/run/NAME.pid`, and nothing else, [`Keeper`] is started while we are root. It writes our number
//! there, replaces no file of a process that runs, and removes the file when we have ended, however we have.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::libc;
use thiserror::Error;

use super::{apart, confine};

/// Where a caller of sudo may have a file written.
const RUN: &str = "/run";
/// How its name ends.
const ENDING: &str = "pid";
/// As others write theirs: no secret, and read by whoever wants to send a signal.
const MODE: u32 = 0o644;
/// A file with more in it is not a pid file, in bytes.
const MOST: u64 = 64;
/// How long the keeper may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The file could not be written.
#[derive(Debug, Error)]
#[error("cannot write the pid file {} (--pidfile): {reason}", .path.display())]
pub struct PidFileError {
    path: PathBuf,
    reason: String,
}

/// A person's own file, perhaps.
const NO_PID_FILE: &str = "what is there is no pid file; choose another name";
/// What may be done about a directory that is not writable.
const ADVICE: &str = "name one in a directory that you can write to, or with sudo /run/NAME.pid";

/// A pid file of ours; it goes when this is dropped, unless it is another's by then.
#[derive(Debug)]
pub struct PidFile(Kind);

#[derive(Debug)]
enum Kind {
    Own { path: PathBuf, pid: u32 },
    Kept(Keeper),
}

impl PidFile {
    /// Writes our number to the file, whole or not at all, in the place of one that an ended process has left; by `keeper`,
    /// where there is one.
    ///
    /// # Errors
    /// A directory that cannot be written to, a full disk, a file of a process that runs, or one that is no pid file.
    pub fn write(path: &Path, keeper: Option<Keeper>) -> Result<Self, PidFileError> {
        let failed = |error: io::Error| PidFileError {
            path: path.to_owned(),
            reason: match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    format!("{error}; {ADVICE}")
                }
                _ => error.to_string(),
            },
        };
        let kind = match keeper {
            Some(mut keeper) => {
                keeper.write().map_err(failed)?;
                Kind::Kept(keeper)
            }
            None => {
                let pid = std::process::id();
                // It is removed at the end, wherever the process is by then.
                let path = std::path::absolute(path).map_err(failed)?;
                write(&path, pid).map_err(failed)?;
                Kind::Own { path, pid }
            }
        };
        Ok(Self(kind))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let removed = match &mut self.0 {
            Kind::Own { path, pid } => remove(path, *pid),
            Kind::Kept(keeper) => keeper.end(),
        };
        if let Err(error) = removed {
            tracing::warn!("the pid file could not be removed: {error}; it can be removed by hand");
        }
    }
}

/// A process apart that writes and removes a file in `/run`.
#[derive(Debug)]
pub struct Keeper(BufReader<UnixStream>);

impl Keeper {
    /// Starts it where `path` is directly in `/run`, while we are root and before there is a second thread.
    ///
    /// # Errors
    /// The name does not end in `.pid`; fork(2) and the like.
    pub fn start(path: &Path) -> Result<Option<Self>, PidFileError> {
        let failed = |reason: String| PidFileError {
            path: path.to_owned(),
            reason,
        };
        let Some(file) = in_run(path) else {
            return Ok(None);
        };
        if file.extension().is_none_or(|ending| ending != ENDING) {
            let reason =
                "with sudo, only /run/NAME.pid can be written there; let its name end in .pid";
            return Err(failed(reason.to_owned()));
        }
        let pid = std::process::id();
        let socket = apart::start(|socket| {
            // Where it cannot give up what it does not need, it does nothing.
            if confine::writer(RUN.into()).is_ok() {
                keep(&file, pid, &socket);
            }
        });
        let socket = socket.and_then(|socket| {
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        });
        let socket = socket.map_err(|error| failed(error.to_string()))?;
        Ok(Some(Self(BufReader::new(socket))))
    }

    fn write(&mut self) -> io::Result<()> {
        self.0.get_mut().write_all(b"w")?;
        let mut answer = String::new();
        match self.0.read_line(&mut answer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ if answer == "\n" => Ok(()),
            _ => Err(io::Error::other(answer.trim_end().to_owned())),
        }
    }

    /// Has the file removed; the other end closes when that is done.
    fn end(&mut self) -> io::Result<()> {
        self.0.get_ref().shutdown(Shutdown::Write)?;
        self.0.read_to_end(&mut Vec::new()).map(drop)
    }
}

/// The file, where it is directly in `/run`, by whatever name (`/var/run` is one).
fn in_run(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let directory = path.parent()?.canonicalize().ok()?;
    (directory == Path::new(RUN)).then(|| Some(directory.join(path.file_name()?)))?
}

/// What the keeper does: writes when it is told, removes at the end.
fn keep(path: &Path, pid: u32, mut socket: &UnixStream) {
    let mut word = [0; 1];
    while matches!(socket.read(&mut word), Ok(1)) {
        let written = write(path, pid);
        let answer = written.err().map(|error| error.to_string());
        // Who is gone is noticed above.
        let _ = socket.write_all(format!("{}\n", answer.unwrap_or_default()).as_bytes());
    }
    // The other one says so where it is still there.
    let _ = remove(path, pid);
}

/// Whether there is no file, or that of a process that has ended: one that had our own number has.
fn is_free(path: &Path, pid: u32) -> io::Result<()> {
    let not_free = |why: String| Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    let text = match metadata.is_file() && metadata.len() <= MOST {
        true => fs::read_to_string(path)?,
        false => return not_free(NO_PID_FILE.to_owned()),
    };
    let runs = |other: u32| other != pid && Path::new(&format!("/proc/{other}")).exists();
    match text.trim().parse::<u32>() {
        Ok(other) if runs(other) => not_free(format!(
            "it is that of process {other}, which runs; choose another name"
        )),
        Ok(_) => Ok(()),
        Err(_) => not_free(NO_PID_FILE.to_owned()),
    }
}

fn text(pid: u32) -> String {
    format!("{pid}\n")
}

fn write(path: &Path, pid: u32) -> io::Result<()> {
    is_free(path, pid)?;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::IsADirectory.into());
    };
    let fresh = directory.join(format!(".{}.{pid}", name.to_string_lossy()));
    let written = write_new(&fresh, pid).and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        // Where it could not be made there is none.
        let _ = fs::remove_file(&fresh);
    }
    written
}

fn write_new(path: &Path, pid: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(MODE);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    let mut file = match options.open(path) {
        // Of a process that had our number and was killed in the middle.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)?
        }
        file => file?,
    };
    file.write_all(text(pid).as_bytes())?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.sync_all()
}

fn remove(path: &Path, pid: u32) -> io::Result<()> {
    match fs::read_to_string(path) {
        Ok(found) if found == text(pid) => fs::remove_file(path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_whole_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        fs::write(&path, "4999999\n").unwrap();
        let file = PidFile::write(&path, None).unwrap();
        let ours = format!("{}\n", std::process::id());
        assert_eq!(fs::read_to_string(&path).unwrap(), ours);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o644
        );
        drop(file);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// A daemon's that runs, and what somebody has written.
    #[test]
    fn what_is_somebody_elses_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        for (taken, words) in [
            ("1\n", "process 1, which runs"),
            ("My thesis, and longer.\n", "no pid file"),
        ] {
            fs::write(&path, taken).unwrap();
            let error = PidFile::write(&path, None).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), taken);
        }
        // In a container that starts again the numbers are the same.
        fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        assert!(PidFile::write(&path, None).is_ok());
    }

    #[test]
    fn another_ones_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let file = PidFile::write(&path, None).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let error = PidFile::write(&dir.path().join("no/pid"), None).unwrap_err();
        assert!(error.to_string().contains("no/pid (--pidfile)"), "{error}");
        fs::create_dir(dir.path().join("pid")).unwrap();
        assert!(PidFile::write(&dir.path().join("pid"), None).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_what_is_directly_in_run_is_kept() {
        for (path, expected) in [
            ("/run/underpass.pid", Some("/run/underpass.pid")),
            ("/run/../run/underpass.pid", Some("/run/underpass.pid")),
            ("/run/lock/underpass.pid", None),
            ("/etc/underpass.pid", None),
            ("underpass.pid", None),
            ("/run", None),
            ("/", None),
        ] {
            assert_eq!(
                in_run(Path::new(path)),
                expected.map(PathBuf::from),
                "{path}"
            );
        }
        let error = Keeper::start(Path::new("/run/utmp")).unwrap_err();
        assert!(error.to_string().contains("/run/NAME.pid"), "{error}");
    }

    /// In a directory of its own; the other end is a thread here.
    #[test]
    fn the_keeper_replaces_nobodys_file_and_removes_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pid");
        let told = |there: Option<&str>| {
            match there {
                Some(text) => fs::write(&path, text).unwrap(),
                None => drop(fs::remove_file(&path)),
            }
            let (ours, theirs) = UnixStream::pair().unwrap();
            let file = path.clone();
            let other = std::thread::spawn(move || keep(&file, std::process::id(), &theirs));
            let mut keeper = Keeper(BufReader::new(ours));
            let told = keeper.write().map_err(|error| error.to_string());
            let meanwhile = fs::read_to_string(&path).unwrap();
            keeper.end().unwrap();
            other.join().unwrap();
            (told, meanwhile, path.exists())
        };
        let ours = format!("{}\n", std::process::id());
        for free in [None, Some("4999999\n")] {
            assert_eq!(told(free), (Ok(()), ours.clone(), false), "{free:?}");
        }
        for (taken, word) in [
            ("1\n", "process 1, which runs"),
            ("", "no pid file"),
            ("x", "no pid file"),
        ] {
            let (told, meanwhile, stays) = told(Some(taken));
            assert!(told.unwrap_err().contains(word), "{taken:?}");
            assert_eq!((meanwhile.as_str(), stays), (taken, true));
        }
    }
}
