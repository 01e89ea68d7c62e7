//! Where instances are found: the directory of their control sockets, and the claim of one to its name.
//!
//! Each instance has two files there: `NAME.lock`, held by flock(2) as long as it lives and with its pid inside, and
//! `NAME.sock`. A killed instance leaves both, which hold nobody up: a lock that nobody holds is free.
//!
//! | who | where |
//! |---|---|
//! | anybody who sets `$UNDERPASS_RUNTIME_DIR` | there |
//! | root | `/run/underpass` |
//! | a user | `$XDG_RUNTIME_DIR/underpass`, or `/run/user/UID/underpass` |
//! | where that cannot be had | `underpass-UID` in the directory for temporary files |
//!
//! Whoever looks for instances passes over a directory that another user made or can write to.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::unistd::Uid;
use thiserror::Error;
use tracing::debug;

/// The longest name, in bytes: a socket's path has 108 (unix(7)).
pub const MAX_NAME: usize = 64;
/// Tries to take a name whose last owner is just leaving.
const TRIES: u32 = 50;
/// How a lock file is opened: whoever has put something else in its place holds nobody up, and leads nobody elsewhere.
const LOCK_FLAGS: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;
/// The lock file's text is a pid.
const PID_BYTES: u64 = 32;

/// A name could not be claimed.
#[derive(Debug, Error)]
pub enum ClaimError {
    /// Somebody runs under that name.
    #[error(
        "{name} runs already, as process {pid}; underpass down {name} ends it, --name OTHER starts another beside it"
    )]
    Taken {
        /// The name.
        name: String,
        /// Who has it; `?` where that could not be read.
        pid: String,
    },
    /// No file can have that name.
    #[error(
        "{0:?} cannot be an instance's name: take 1 to {MAX_NAME} letters, digits, and any of . _ - but not . or - first"
    )]
    Name(String),
    /// A directory that others could write to, or that is somebody else's.
    #[error(
        "{0} is not a directory of yours alone; chmod 700 it if it is yours, or set UNDERPASS_RUNTIME_DIR to one that is"
    )]
    NotOurs(PathBuf),
    /// A file or the socket could not be made.
    #[error(
        "no control socket in {directory}: {source}; UNDERPASS_RUNTIME_DIR names another directory"
    )]
    Io {
        /// The directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Whether an instance may have this name: it becomes a file's, and is printed.
pub fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty()
        && name.len() <= MAX_NAME
        && !name.starts_with(['.', '-'])
        && name.chars().all(allowed)
}

/// The directories that may hold instances of user `uid`, the best first. `variable` looks the environment up.
pub fn places(uid: u32, variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    if let Some(own) = variable("UNDERPASS_RUNTIME_DIR") {
        return vec![own.into()];
    }
    let mut places = Vec::new();
    if uid == 0 {
        places.push("/run/underpass".into());
    } else {
        let session = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
        // sudo, su and cron do not hand the variable on.
        let usual = PathBuf::from(format!("/run/user/{uid}"));
        let mut parents: Vec<PathBuf> = session.into_iter().chain([usual]).collect();
        parents.dedup();
        parents.retain(|parent| is_private(parent, uid));
        places.extend(parents.iter().map(|parent| parent.join("underpass")));
    }
    places.push(std::env::temp_dir().join(format!("underpass-{uid}")));
    places
}

/// Those of `places` that only user `uid` or root can have put something into. Anybody may make one that is missing where
/// temporary files are.
pub fn trusted(mut places: Vec<PathBuf>, uid: u32) -> Vec<PathBuf> {
    places.retain(|place| {
        let is_trusted = is_directory(place, &[uid, 0], 0o022);
        if !is_trusted {
            debug!("{} is missing, or not of user {uid} alone", place.display());
        }
        is_trusted
    });
    places
}

/// Whether it is a directory, no link, of this user and of nobody else.
fn is_private(path: &Path, uid: u32) -> bool {
    is_directory(path, &[uid], 0o077)
}

/// Whether it is a directory, no link, of one of `owners`, with none of the `forbidden` bits in its mode.
fn is_directory(path: &Path, owners: &[u32], forbidden: u32) -> bool {
    fs::symlink_metadata(path).is_ok_and(|data| {
        data.is_dir() && owners.contains(&data.uid()) && data.mode() & forbidden == 0
    })
}

/// An instance that has, or had, its socket in one of the places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its socket.
    pub socket: PathBuf,
}

impl Found {
    /// The number of its process, where it has left one.
    pub fn pid(&self) -> Option<String> {
        pid_in(open_left(&self.socket.with_extension("lock")).ok()?)
    }
}

/// The sockets in `places`, which are [`trusted`], by name; some may be left by killed instances.
pub fn find(places: &[PathBuf]) -> Vec<Found> {
    let entries = places.iter().filter_map(|place| fs::read_dir(place).ok());
    let paths = entries
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<Found> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "sock"))
        .filter_map(|socket| {
            let name = socket.file_stem()?.to_str()?.to_owned();
            is_name(&name).then_some(Found { name, socket })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Removes what killed instances left in `places`, which are [`trusted`]; how many there were. What is alive is left alone. A directory goes with its
/// last instance.
pub fn clear(places: &[PathBuf]) -> usize {
    places.iter().map(|place| clear_place(place)).sum()
}

fn clear_place(place: &Path) -> usize {
    let entries = fs::read_dir(place).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let locks = paths.filter(|path| path.extension().is_some_and(|end| end == "lock"));
    let cleared = locks.filter(|lock| remove_stale(lock).is_some()).count();
    // Also one that its instance had just made. Somebody may live there still; who is about to makes it again.
    let _ = fs::remove_dir(place);
    cleared
}

fn remove_stale(path: &Path) -> Option<()> {
    is_name(path.file_stem()?.to_str()?).then_some(())?;
    let file = open_left(path).ok()?;
    // Held while its files go, so that nobody takes the name meanwhile.
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()?;
    is_same(&lock, path).then_some(())?;
    // There may be none.
    let _ = fs::remove_file(path.with_extension("sock"));
    fs::remove_file(path).ok()
}

/// A name that is ours, and the socket that goes with it. Both files go when it is dropped.
#[derive(Debug)]
pub struct Claim {
    directory: PathBuf,
    name: String,
    _lock: Flock<File>,
}

impl Claim {
    /// Takes `name` in the first of `places` that can be had, and listens on its socket.
    ///
    /// # Errors
    /// [`ClaimError`]; that of the last place, where none can be had.
    pub fn new(name: &str, places: &[PathBuf]) -> Result<(Self, UnixListener), ClaimError> {
        if !is_name(name) {
            return Err(ClaimError::Name(name.to_owned()));
        }
        let mut last = ClaimError::Io {
            directory: PathBuf::new(),
            source: io::ErrorKind::NotFound.into(),
        };
        for place in places {
            match Self::in_place(name, place) {
                Err(error @ (ClaimError::Io { .. } | ClaimError::NotOurs(_))) => {
                    debug!("{error}");
                    last = error;
                }
                done => return done,
            }
        }
        Err(last)
    }

    fn in_place(name: &str, place: &Path) -> Result<(Self, UnixListener), ClaimError> {
        let failed = |source| ClaimError::Io {
            directory: place.to_owned(),
            source,
        };
        for _ in 0..TRIES {
            private_dir(place)?;
            let path = place.join(format!("{name}.lock"));
            let file = match open(&path) {
                // The last instance has just taken its directory along.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(failed)?,
            };
            let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((file, Errno::EWOULDBLOCK)) => {
                    return Err(ClaimError::Taken {
                        name: name.to_owned(),
                        pid: pid_in(file).unwrap_or_else(|| "?".to_owned()),
                    });
                }
                Err((_, error)) => return Err(failed(error.into())),
            };
            if !is_same(&lock, &path) {
                continue;
            }
            let claim = Self {
                directory: place.to_owned(),
                name: name.to_owned(),
                _lock: lock,
            };
            let listener = claim.listen().map_err(failed)?;
            return Ok((claim, listener));
        }
        Err(failed(io::ErrorKind::TimedOut.into()))
    }

    fn listen(&self) -> io::Result<UnixListener> {
        let mut lock: &File = &self._lock;
        lock.set_len(0)?;
        lock.write_all(format!("{}\n", std::process::id()).as_bytes())?;
        let socket = self.socket();
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&socket)?;
        // Nobody else could have come near it: the directory is ours alone.
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// The socket's path.
    pub fn socket(&self) -> PathBuf {
        self.directory.join(format!("{}.sock", self.name))
    }

    /// The directory of both files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // What is gone already need not go; a directory goes with its last instance.
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_file(self.directory.join(format!("{}.lock", self.name)));
        let _ = fs::remove_dir(&self.directory);
    }
}

/// Makes the directory unless it is there, and looks whose it is.
fn private_dir(path: &Path) -> Result<(), ClaimError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(ClaimError::Io {
            directory: path.to_owned(),
            source,
        }),
        _ if is_private(path, Uid::effective().as_raw()) => Ok(()),
        _ => Err(ClaimError::NotOurs(path.to_owned())),
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(LOCK_FLAGS)
        .open(path)
}

/// A lock file that may have been left.
fn open_left(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(LOCK_FLAGS)
        .open(path)
}

/// Whether the locked file is still the one of that name: its last owner may have removed it meanwhile.
fn is_same(lock: &File, path: &Path) -> bool {
    let (Ok(held), Ok(named)) = (lock.metadata(), fs::symlink_metadata(path)) else {
        return false;
    };
    (held.dev(), held.ino()) == (named.dev(), named.ino())
}

fn pid_in(file: File) -> Option<String> {
    let mut text = String::new();
    file.take(PID_BYTES).read_to_string(&mut text).ok()?;
    let pid: u32 = text.trim().parse().ok()?;
    Some(pid.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    fn claim(name: &str, place: &Path) -> Result<(Claim, UnixListener), ClaimError> {
        Claim::new(name, &[place.to_owned()])
    }

    #[test]
    fn a_name_is_taken_once_and_free_after() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("underpass");
        let (held, _listener) = claim("prod", &place).unwrap();
        let taken = claim("prod", &place).unwrap_err().to_string();
        let pid = std::process::id();
        assert!(taken.contains(&format!("process {pid};")), "{taken}");
        assert!(taken.contains("underpass down prod"), "{taken}");
        let (other, _listener) = claim("lab", &place).unwrap();
        let names: Vec<_> = find(std::slice::from_ref(&place))
            .into_iter()
            .map(|f| f.name)
            .collect();
        assert_eq!(names, ["lab", "prod"]);
        drop(held);
        drop(claim("prod", &place).unwrap());
        drop(other);
        assert!(!place.exists());
    }

    #[test]
    fn what_a_killed_instance_left_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("underpass");
        let (held, listener) = claim("prod", &place).unwrap();
        let (socket, lock) = (held.socket(), place.join("prod.lock"));
        drop((held, listener));
        private_dir(&place).unwrap();
        drop(UnixListener::bind(&socket).unwrap());
        fs::write(&lock, "99999999\nrubbish").unwrap();
        let (_held, _listener) = claim("prod", &place).unwrap();
        assert_eq!(clear(std::slice::from_ref(&place)), 0);
        UnixStream::connect(&socket).unwrap();
        let pid = fs::read_to_string(&lock).unwrap();
        assert_eq!(pid, format!("{}\n", std::process::id()));
    }

    #[test]
    fn what_a_killed_instance_left_can_be_removed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.lock", "a.sock", "b.lock", "of-others"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(clear(&[dir.path().to_owned()]), 2);
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        let place = dir.path().join("underpass");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("a.lock"), "").unwrap();
        assert_eq!(clear(std::slice::from_ref(&place)), 1);
        assert!(!place.exists());
        // Killed before it had its name.
        fs::create_dir(&place).unwrap();
        assert_eq!(clear(std::slice::from_ref(&place)), 0);
        assert!(!place.exists());
    }

    #[test]
    fn only_we_may_come_near() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("underpass");
        let (held, _listener) = claim("prod", &place).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&place), 0o700);
        assert_eq!(mode(&held.socket()), 0o600);
        assert_eq!(mode(&place.join("prod.lock")), 0o600);
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(claim("a", &open), Err(ClaimError::NotOurs(_))));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(matches!(claim("a", &link), Err(ClaimError::NotOurs(_))));
    }

    #[test]
    fn what_others_could_have_made_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let uid = Uid::effective().as_raw();
        let path = |name: &str| dir.path().join(name);
        for (name, mode) in [("own", 0o755), ("group", 0o770), ("all", 0o777)] {
            fs::create_dir(path(name)).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::write(path("file"), "").unwrap();
        std::os::unix::fs::symlink(path("own"), path("link")).unwrap();
        let names = ["own", "group", "all", "file", "link", "missing"];
        let places = Vec::from(names.map(path));
        assert_eq!(trusted(places, uid), [path("own")]);
        // Another user's is nobody's business, and root's is everybody's.
        let others = trusted(vec![path("own")], uid + 4711);
        assert_eq!(others.is_empty(), uid != 0);
        if uid == 0 {
            std::os::unix::fs::chown(path("own"), Some(4711), None).unwrap();
            assert_eq!(trusted(vec![path("own")], 0), [] as [PathBuf; 0]);
            assert_eq!(trusted(vec![path("own")], 4711), [path("own")]);
        }
    }

    #[test]
    fn a_fifo_or_a_link_in_place_of_a_lock_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("underpass");
        fs::create_dir(&place).unwrap();
        nix::unistd::mkfifo(&place.join("a.lock"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(dir.path().join("elsewhere"), "1").unwrap();
        std::os::unix::fs::symlink("../elsewhere", place.join("b.lock")).unwrap();
        for name in ["a.sock", "b.sock"] {
            fs::write(place.join(name), "").unwrap();
        }
        let (sender, done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let places = [place];
            let pids: Vec<_> = find(&places).iter().map(Found::pid).collect();
            sender.send((pids, clear(&places))).unwrap();
        });
        let (pids, cleared) = done.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(pids, [None, None]);
        assert_eq!(cleared, 1);
    }

    #[test]
    fn the_next_place_is_taken_where_one_cannot_be_had() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("no/such/parent");
        let there = dir.path().join("there");
        let (held, _listener) = Claim::new("a", &[missing.clone(), there.clone()]).unwrap();
        assert_eq!(held.directory(), there);
        let error = claim("a", &missing).unwrap_err().to_string();
        assert!(error.contains("UNDERPASS_RUNTIME_DIR"), "{error}");
    }

    #[test]
    fn where_a_user_has_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let uid = Uid::effective().as_raw();
        let session = dir.path().display().to_string();
        let with = |name: &'static str, value: &str| {
            let value = value.to_owned();
            move |asked: &str| (asked == name).then(|| value.clone())
        };
        let own = places(7, with("UNDERPASS_RUNTIME_DIR", "/some/where"));
        assert_eq!(own, [Path::new("/some/where")]);
        assert_eq!(places(0, |_| None)[0], Path::new("/run/underpass"));
        // Somebody else's, as after su.
        let foreign = places(uid + 4711, with("XDG_RUNTIME_DIR", &session));
        assert_eq!(foreign.len(), 1, "{foreign:?}");
        assert!(foreign[0].ends_with(format!("underpass-{}", uid + 4711)));
        assert!(is_private(dir.path(), uid));
    }

    #[test]
    fn names_are_harmless() {
        for good in [
            "a",
            "prod",
            "10.0.0.1-2222",
            "fd00--1",
            "_",
            &"x".repeat(64),
        ] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "-a",
            ".a",
            "a b",
            "a\n",
            "a:b",
            "ä",
            &"x".repeat(65),
        ] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
