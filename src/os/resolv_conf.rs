//! `/etc/resolv.conf` of a host where nobody else looks after it: replaced as a whole, and put back as it was.
//!
//! What was there, a link too, stays beside it under another name until it is put back, so that a reboot in between loses
//! nothing. Each step leaves a whole file at the place, but for one that is mounted there, as in containers: that is written over.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::made::Made;

const PLACE: &str = "/etc/resolv.conf";
/// What was there before.
const KEPT: &str = "/etc/resolv.conf.before-underpass";
/// Ours before it is at its place.
const NEW: &str = "/etc/resolv.conf.of-underpass";
/// How our file begins; [`Owner`] follows.
const MARK: &str = "# Made by underpass, which puts back what was here: ";
/// More of a file is not read, in bytes.
const MOST: u64 = 64 << 10;

/// On whose behalf it is replaced: a slot in a network namespace, since the host was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Number of the slot.
    pub slot: u32,
    /// Its namespace.
    namespace: u64,
    /// The start of the host.
    boot: String,
}

impl Owner {
    /// The instance in `slot` here.
    ///
    /// # Errors
    /// Where `/proc` is not there.
    pub fn here(slot: u32) -> io::Result<Self> {
        Ok(Self {
            slot,
            namespace: fs::metadata("/proc/self/ns/net")?.ino(),
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id")?
                .trim()
                .to_owned(),
        })
    }

    /// Whether it may live, and where we cannot tell.
    pub fn is_elsewhere(&self) -> bool {
        let here = Self::here(self.slot);
        here.is_ok_and(|here| here.boot == self.boot && here.namespace != self.namespace)
    }

    /// Whether it is gone for good.
    pub fn is_of_another_boot(&self) -> bool {
        Self::here(self.slot).is_ok_and(|here| here.boot != self.boot)
    }

    /// Who has written `file`.
    pub(super) fn of(file: &Path) -> Option<Self> {
        Self::read(&read(file).ok()?)
    }

    /// Whether somebody has written `text` for one of us.
    pub(super) fn is_in(text: &str) -> bool {
        Self::read(text).is_some()
    }

    fn read(text: &str) -> Option<Self> {
        let mut words = text.lines().next()?.strip_prefix(MARK)?.split(' ');
        Some(Self {
            slot: words.next()?.parse().ok()?,
            namespace: words.next()?.parse().ok()?,
            boot: words.next()?.to_owned(),
        })
    }
}

/// The file, and where the former one is kept.
#[derive(Clone, Debug)]
pub struct ResolvConf {
    place: PathBuf,
    kept: PathBuf,
    new: PathBuf,
}

impl Default for ResolvConf {
    fn default() -> Self {
        Self {
            place: PLACE.into(),
            kept: KEPT.into(),
            new: NEW.into(),
        }
    }
}

impl ResolvConf {
    /// Has it name `server` and nobody else, on behalf of `owner`; whether it did not before. What it says besides, of domains
    /// to look in for example, it goes on saying.
    ///
    /// # Errors
    /// `AlreadyExists` where another instance has replaced it; those of the file system, with everything as it was.
    pub fn replace(&self, owner: &Owner, server: Ipv4Addr) -> io::Result<bool> {
        let before = self.text()?;
        let ours = text_for(owner, server, &before);
        match Owner::read(&before) {
            Some(other) if other != *owner => return Err(ErrorKind::AlreadyExists.into()),
            Some(_) if before == ours => return Ok(false),
            None if !self.is_removed() => self.keep()?,
            // Somebody has changed ours, or removed it: what was kept stays kept.
            _ => {}
        }
        let done = self.put(&ours);
        if done.is_err() {
            // What stands at the place is what was there, or is put back.
            self.restore().ok();
            fs::remove_file(&self.new).ok();
        }
        done.map(|()| true)
    }

    /// What was there before, and comes back; `None` where nothing is kept.
    pub(super) fn kept(&self) -> Option<String> {
        fs::metadata(&self.kept).ok()?;
        read(&self.kept).ok()
    }

    /// Hears of whoever writes it, also where it is mounted.
    pub(super) fn watch(&self) -> io::Result<Made> {
        let made = Made::watch_changes(self.place.parent().unwrap_or(&self.place))?;
        made.watch_also(&self.place)?;
        Ok(made)
    }

    fn is_removed(&self) -> bool {
        fs::symlink_metadata(&self.place).is_err() && fs::symlink_metadata(&self.kept).is_ok()
    }

    /// Puts back what was there, unless somebody else has written since; whether something was put back.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn restore(&self) -> io::Result<bool> {
        if fs::symlink_metadata(&self.kept).is_err() {
            return Ok(false);
        }
        let now = self.text()?;
        // What was being written over is ours as well.
        if Owner::read(&now).is_none() && !MARK.starts_with(now.trim_end()) {
            fs::remove_file(&self.kept)?;
            return Ok(false);
        }
        match fs::rename(&self.kept, &self.place) {
            Err(error) if is_mounted(&error) => {
                fs::copy(&self.kept, &self.place)?;
                fs::remove_file(&self.kept)?;
            }
            done => done?,
        }
        Ok(true)
    }

    /// Who has replaced it.
    pub fn owner(&self) -> Option<Owner> {
        Owner::read(&self.text().ok()?)
    }

    /// What would name `server`, without writing it.
    ///
    /// # Errors
    /// As read(2).
    pub(super) fn text_of(&self, owner: &Owner, server: Ipv4Addr) -> io::Result<String> {
        Ok(text_for(owner, server, &self.text()?))
    }

    fn text(&self) -> io::Result<String> {
        read(&self.place)
    }

    /// Gives what is there a second name; a link gets it itself.
    fn keep(&self) -> io::Result<()> {
        match fs::remove_file(&self.kept) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match fs::hard_link(&self.place, &self.kept) {
            Err(error) if is_mounted(&error) => fs::copy(&self.place, &self.kept).map(drop),
            done => done,
        }
    }

    fn put(&self, text: &str) -> io::Result<()> {
        let mut file = File::create(&self.new)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.sync_all()?;
        match fs::rename(&self.new, &self.place) {
            Err(error) if is_mounted(&error) => {
                fs::write(&self.place, text)?;
                fs::remove_file(&self.new)
            }
            done => done,
        }
    }
}

/// link(2) and rename(2) of something that a file system is mounted on.
fn is_mounted(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ResourceBusy | ErrorKind::CrossesDevices
    )
}

/// The text of `file`; none where it is not there.
pub(super) fn read(file: &Path) -> io::Result<String> {
    match beginning(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        text => text,
    }
}

/// The beginning of `file`.
///
/// # Errors
/// As open(2), also where it is not there.
pub(super) fn beginning(file: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) fn text_for(owner: &Owner, server: Ipv4Addr, before: &str) -> String {
    let Owner {
        slot,
        namespace,
        boot,
    } = owner;
    let mut text = format!("{MARK}{slot} {namespace} {boot}\nnameserver {server}\n");
    let says = |line: &&str| {
        let word = line.split_whitespace().next();
        matches!(word, Some("search" | "domain" | "options" | "sortlist"))
    };
    for line in before.lines().filter(says) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    const SERVER: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 53);

    fn rig() -> (TempDir, ResolvConf) {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let conf = ResolvConf {
            place: file("resolv.conf"),
            kept: file("kept"),
            new: file("new"),
        };
        (dir, conf)
    }

    fn slot(number: u32) -> Owner {
        Owner::here(number).unwrap()
    }

    fn files(dir: &TempDir) -> Vec<String> {
        let names = fs::read_dir(dir.path()).unwrap().flatten();
        let mut names: Vec<_> = names
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_and_comes_back_as_it_was() {
        let (dir, conf) = rig();
        let text = "# mine\nnameserver 192.0.2.1\nsearch a.test\noptions ndots:2\n";
        fs::write(&conf.place, text).unwrap();
        let inode = fs::metadata(&conf.place).unwrap().ino();
        conf.replace(&slot(3), SERVER).unwrap();
        let ours = fs::read_to_string(&conf.place).unwrap();
        let lines: Vec<&str> = ours.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "nameserver 198.19.255.53",
                "search a.test",
                "options ndots:2"
            ]
        );
        assert_eq!(fs::metadata(&conf.place).unwrap().mode() & 0o777, 0o644);
        assert_eq!(conf.owner(), Some(slot(3)));
        // Once more changes nothing, another instance is refused.
        assert!(!conf.replace(&slot(3), SERVER).unwrap());
        let error = conf.replace(&slot(4), SERVER).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&conf.place).unwrap(), ours);
        assert!(conf.restore().unwrap());
        assert_eq!(fs::read_to_string(&conf.place).unwrap(), text);
        assert_eq!(fs::metadata(&conf.place).unwrap().ino(), inode);
        assert_eq!(files(&dir), ["resolv.conf"]);
        assert!(!conf.restore().unwrap());
    }

    #[test]
    fn a_link_stays_a_link() {
        let (dir, conf) = rig();
        fs::write(dir.path().join("real"), "nameserver 192.0.2.1\n").unwrap();
        symlink("real", &conf.place).unwrap();
        conf.replace(&slot(0), SERVER).unwrap();
        let real = fs::read_to_string(dir.path().join("real")).unwrap();
        assert_eq!(real, "nameserver 192.0.2.1\n");
        assert!(conf.restore().unwrap());
        assert_eq!(fs::read_link(&conf.place).unwrap().to_str(), Some("real"));
        assert_eq!(files(&dir), ["real", "resolv.conf"]);
    }

    #[test]
    fn what_somebody_else_wrote_since_stays() {
        let (dir, conf) = rig();
        fs::write(&conf.place, "nameserver 192.0.2.1\n").unwrap();
        conf.replace(&slot(0), SERVER).unwrap();
        fs::write(&conf.place, "nameserver 192.0.2.2\n").unwrap();
        assert!(!conf.restore().unwrap());
        let text = fs::read_to_string(&conf.place).unwrap();
        assert_eq!(text, "nameserver 192.0.2.2\n");
        assert_eq!(files(&dir), ["resolv.conf"]);
    }

    /// As a DHCP client does.
    #[test]
    fn what_somebody_writes_meanwhile_is_what_comes_back() {
        let (dir, conf) = rig();
        fs::write(&conf.place, "nameserver 192.0.2.1\n").unwrap();
        assert!(conf.replace(&slot(0), SERVER).unwrap());
        let new = dir.path().join("dhclient-new");
        fs::write(&new, "nameserver 192.0.2.2\nsearch b.test\n").unwrap();
        fs::rename(&new, &conf.place).unwrap();
        assert!(conf.replace(&slot(0), SERVER).unwrap());
        let ours = fs::read_to_string(&conf.place).unwrap();
        assert!(
            ours.ends_with("\nnameserver 198.19.255.53\nsearch b.test\n"),
            "{ours}"
        );
        assert!(conf.restore().unwrap());
        let text = fs::read_to_string(&conf.place).unwrap();
        assert_eq!(text, "nameserver 192.0.2.2\nsearch b.test\n");
        // Who removes it has written nothing.
        conf.replace(&slot(0), SERVER).unwrap();
        fs::remove_file(&conf.place).unwrap();
        assert!(conf.replace(&slot(0), SERVER).unwrap());
        assert!(conf.restore().unwrap());
        assert_eq!(fs::read_to_string(&conf.place).unwrap(), text);
        assert_eq!(files(&dir), ["resolv.conf"]);
    }

    #[test]
    fn what_somebody_writes_into_ours_goes_but_for_domains() {
        let (_dir, conf) = rig();
        fs::write(&conf.place, "nameserver 192.0.2.1\n").unwrap();
        conf.replace(&slot(0), SERVER).unwrap();
        let ours = fs::read_to_string(&conf.place).unwrap();
        let other = "nameserver 192.0.2.2\n";
        let behind = format!("{ours}{other}");
        let instead = ours.replace("nameserver 198.19.255.53\n", other);
        for text in [behind, instead] {
            fs::write(&conf.place, &text).unwrap();
            assert!(conf.replace(&slot(0), SERVER).unwrap(), "{text}");
            assert_eq!(fs::read_to_string(&conf.place).unwrap(), ours);
            assert!(!conf.replace(&slot(0), SERVER).unwrap(), "{text}");
        }
        let searching = format!("{ours}search a.test\n");
        fs::write(&conf.place, &searching).unwrap();
        assert!(!conf.replace(&slot(0), SERVER).unwrap());
        assert_eq!(fs::read_to_string(&conf.place).unwrap(), searching);
        assert!(conf.restore().unwrap());
        let text = fs::read_to_string(&conf.place).unwrap();
        assert_eq!(text, "nameserver 192.0.2.1\n");
    }

    #[tokio::test]
    async fn who_writes_it_is_heard() {
        let (dir, conf) = rig();
        fs::write(&conf.place, "nameserver 192.0.2.1\n").unwrap();
        let watch = conf.watch().unwrap();
        fs::write(&conf.place, "nameserver 192.0.2.2\n").unwrap();
        watch.any().await.unwrap();
        let new = dir.path().join("b");
        fs::write(&new, "").unwrap();
        watch.any().await.unwrap();
        fs::rename(&new, &conf.place).unwrap();
        watch.any().await.unwrap();
    }

    /// Killed between two steps.
    #[test]
    fn half_of_it_is_taken_back() {
        let (dir, conf) = rig();
        fs::write(&conf.place, "nameserver 192.0.2.1\n").unwrap();
        conf.keep().unwrap();
        assert!(!conf.restore().unwrap());
        assert_eq!(files(&dir), ["resolv.conf"]);
        // As where it is mounted: written over, and not to the end.
        for half in ["", "# Made by under"] {
            fs::copy(&conf.place, &conf.kept).unwrap();
            fs::write(&conf.place, half).unwrap();
            assert!(conf.restore().unwrap());
            let text = fs::read_to_string(&conf.place).unwrap();
            assert_eq!(text, "nameserver 192.0.2.1\n");
        }
    }

    #[test]
    fn an_owner_is_known_after_the_host_was_started_anew() {
        let own = slot(7);
        assert!(!own.is_elsewhere() && !own.is_of_another_boot());
        let other = Owner {
            namespace: own.namespace + 1,
            ..own.clone()
        };
        assert!(other.is_elsewhere() && !other.is_of_another_boot());
        let before = Owner {
            boot: "x".into(),
            ..other
        };
        assert!(!before.is_elsewhere() && before.is_of_another_boot());
        let text = text_for(&before, SERVER, "");
        assert_eq!(Owner::read(&text), Some(before));
        assert_eq!(
            Owner::read("# Made by underpass for a private network\n"),
            None
        );
    }
}
