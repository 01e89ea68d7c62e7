//! Files that look different in the mount namespace.

use std::fs;
use std::io;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tracing::warn;

/// Directories one of which every system has: a file system is mounted there for a moment, to hold a file.
const PLACES: [&str; 5] = ["/tmp", "/run", "/mnt", "/var", "/home"];

/// A file with another content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateFile {
    /// Its path; a symbolic link is followed.
    pub path: &'static str,
    /// What shall be read there.
    pub text: String,
}

/// Covers a file of the host with ours, in this mount namespace only. Where that fails names may not be found, and no
/// more: it is said, and things go on.
pub(super) fn cover(file: &PrivateFile) {
    // What is not there cannot be covered, and nobody reads it.
    if !Path::new(file.path).exists() {
        return;
    }
    if let Err(error) = try_cover(file) {
        warn!("{} is the host's own in there: {error}", file.path);
    }
}

/// The file lives on a tmpfs of its own. Only its bind mount stays, so no directory is hidden (mount(2)).
fn try_cover(file: &PrivateFile) -> io::Result<()> {
    let mut places = PLACES.iter().map(Path::new);
    // A place must not hold what is to be covered.
    let place = places.find(|place| place.is_dir() && !is_in(file.path, place));
    let place = place.ok_or(io::ErrorKind::NotFound)?;
    let nothing = None::<&str>;
    mount(
        Some("underpass"),
        place,
        Some("tmpfs"),
        MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        Some("size=1m,mode=0700"),
    )?;
    let source = place.join("file");
    let covered = fs::write(&source, &file.text).and_then(|()| {
        set_readable(&source)?;
        Ok(mount(
            Some(&source),
            file.path,
            nothing,
            MsFlags::MS_BIND,
            nothing,
        )?)
    });
    umount2(place, MntFlags::MNT_DETACH)?;
    covered
}

fn is_in(path: &str, place: &Path) -> bool {
    fs::canonicalize(path).is_ok_and(|path| path.starts_with(place))
}

/// Whatever the umask is.
fn set_readable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}
