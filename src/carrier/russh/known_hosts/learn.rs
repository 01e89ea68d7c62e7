//! Writing a new key down, as ssh would read it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::unistd::{Gid, Uid, geteuid, setfsgid, setfsuid};
use russh::keys::PublicKey;

use super::names::{SALT_BYTES, hashed};

/// Appends `key` to `file` under `names`, one line for all of them or, hashed, one for each. Makes the file (0600)
/// and its directory (0700) where they are missing; what is there keeps its mode and its owner.
///
/// # Errors
/// Whatever the file system says.
pub(in super::super) fn learn(
    file: &Path,
    names: &[String],
    key: &PublicKey,
    hash: bool,
) -> io::Result<()> {
    let lines = lines(names, key, hash)?;
    let _owner = AsOwner::of(file);
    if let Some(parent) = file.parent().filter(|p| !p.as_os_str().is_empty()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(file)?;
    let before = if ends_with_newline(&mut file)? {
        ""
    } else {
        "\n"
    };
    // One write, at the end wherever that is by then: neither ssh nor a second underpass that learns a key at the same
    // time can cut into the line, and a reader sees all of it or nothing.
    file.write_all(format!("{before}{lines}").as_bytes())
}

fn lines(names: &[String], key: &PublicKey, hash: bool) -> io::Result<String> {
    let plain = PublicKey::new(key.key_data().clone(), "");
    let key = plain.to_openssh().map_err(io::Error::other)?;
    let key = key.trim_end();
    if !hash {
        return Ok(format!("{} {key}\n", names.join(",")));
    }
    let mut lines = String::new();
    for name in names {
        let name = hashed(name, &salt()?).ok_or_else(|| io::Error::other("no salt"))?;
        lines.push_str(&format!("{name} {key}\n"));
    }
    Ok(lines)
}

fn salt() -> io::Result<[u8; SALT_BYTES]> {
    let mut salt = [0; SALT_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut salt)?;
    Ok(salt)
}

fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0u8; 1];
    file.read_exact(&mut last)?;
    Ok(last[0] == b'\n')
}

/// While this lives, the thread has the file rights of whom a directory belongs to (setfsuid(2)). Run by sudo,
/// what is made in the caller's home is the caller's, and a link that they laid there leads to nothing that they could not
/// write themselves.
struct AsOwner {
    before: Option<(Uid, Gid)>,
}

impl AsOwner {
    /// The owner of the directory that `file` is in, or will be made in.
    fn of(file: &Path) -> Self {
        let directory = file.ancestors().skip(1).find_map(|dir| {
            let dir = if dir.as_os_str().is_empty() {
                Path::new(".")
            } else {
                dir
            };
            fs::metadata(dir).ok()
        });
        match directory {
            Some(directory) if geteuid().is_root() && directory.uid() != 0 => {
                // The group first: the user takes the right to change it along.
                let group = setfsgid(Gid::from_raw(directory.gid()));
                let user = setfsuid(Uid::from_raw(directory.uid()));
                Self {
                    before: Some((user, group)),
                }
            }
            _ => Self { before: None },
        }
    }
}

impl Drop for AsOwner {
    fn drop(&mut self) {
        if let Some((user, group)) = self.before {
            setfsuid(user);
            setfsgid(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::KnownHosts;
    use super::*;
    use russh::keys::Algorithm;
    use std::os::unix::fs::{PermissionsExt, chown};

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    /// `nobody` on Debian; any number but 0 will do.
    const SOMEBODY: u32 = 65534;

    fn key() -> PublicKey {
        PublicKey::from_openssh(&format!("{KEY} comment")).unwrap()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_line_and_where_it_goes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ssh/known_hosts");
        learn(
            &file,
            &names(&["[bastion]:2222", "10.0.0.1"]),
            &key(),
            false,
        )
        .unwrap();
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            format!("[bastion]:2222,10.0.0.1 {KEY}\n")
        );
        assert_eq!(mode(&file), 0o600);
        assert_eq!(mode(file.parent().unwrap()), 0o700);
    }

    #[test]
    fn what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known_hosts");
        fs::write(&file, "half a line").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        learn(&link, &names(&["a"]), &key(), false).unwrap();
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            format!("half a line\na {KEY}\n")
        );
        assert_eq!(mode(&file), 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn hashed_names_hide_and_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known_hosts");
        learn(&file, &names(&["bastion", "10.0.0.1"]), &key(), true).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            !text.contains("bastion") && !text.contains("10.0"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 2);
        let known = KnownHosts::load(&[file]);
        for name in ["bastion", "10.0.0.1"] {
            let names = [name.to_owned()];
            assert_eq!(
                known.of(&names).algorithms(),
                [Algorithm::Ed25519],
                "{name}"
            );
        }
    }

    #[test]
    fn under_sudo_files_are_the_callers() {
        assert!(geteuid().is_root(), "needs root");
        let home = tempfile::tempdir().unwrap();
        chown(home.path(), Some(SOMEBODY), Some(SOMEBODY)).unwrap();
        let file = home.path().join(".ssh/known_hosts");
        learn(&file, &names(&["a"]), &key(), false).unwrap();
        for path in [&file, file.parent().unwrap()] {
            let made = fs::metadata(path).unwrap();
            assert_eq!((made.uid(), made.gid()), (SOMEBODY, SOMEBODY));
        }
        // A link to what only root may write is no way around.
        let secret = tempfile::tempdir().unwrap();
        let target = secret.path().join("target");
        fs::write(&target, "").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
        let link = home.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let error = learn(&link, &names(&["a"]), &key(), false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        // The thread is root's again.
        fs::write(&target, "x").unwrap();
    }
}
