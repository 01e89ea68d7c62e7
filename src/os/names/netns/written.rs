//! A resolv.conf(5) that is written over where it stands, since others have it mounted: a file that is put into its place would be
//! seen by none of them.
//!
//! What was there stands in it, as comments: so nothing has to be kept elsewhere, and who finds it later can put it back. A lock
//! says that somebody looks after it, and goes with the last process that does, also on SIGKILL.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

use super::super::RESOLV_CONF;
use crate::os::resolv_conf::{Owner, beginning, text_for};

/// More is no resolv.conf, in bytes.
const MOST: u64 = 64 << 10;
/// Where what was there begins, each line of it after [`WAS`].
const BEFORE: &str = "# Before:\n";
const WAS: &str = "#|";
/// There was no file; how many directories above it there were not either, follows.
const NOTHING: &str = "# Before there was no file, and directories less: ";

/// What was there before us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Former {
    /// A file, with this text.
    Text(String),
    /// None, and of the directories above it so many neither.
    Nothing(usize),
}

/// The file, which nobody else of us looks after.
#[derive(Clone, Debug)]
pub(super) struct Written(Arc<File>);

impl Written {
    /// # Errors
    /// `AlreadyExists` where another instance looks after it, `InvalidData` where it is no resolv.conf.
    pub(super) fn new(file: File) -> io::Result<Self> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ErrorKind::AlreadyExists.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let written = Self(Arc::new(file));
        written.text().map(|_| written)
    }

    /// Has it name `server` and nobody else; whether it did not before. `made` says how many directories were made for it, where it
    /// was made as well.
    pub(super) fn name(
        &self,
        owner: &Owner,
        server: Ipv4Addr,
        made: Option<usize>,
    ) -> io::Result<bool> {
        let now = self.text()?;
        let former = match made {
            Some(directories) => Former::Nothing(directories),
            None => former(&now).unwrap_or(Former::Text(now.clone())),
        };
        let ours = ours(owner, server, &former);
        if ours == now {
            return Ok(false);
        }
        self.put(&ours).map(|()| true)
    }

    /// What was there; what is there where we have not written it.
    pub(super) fn former(&self) -> io::Result<Former> {
        former_in(&self.0)
    }

    /// Puts back what was there, unless somebody else has written since; what was that, where we had written. Where there was no file
    /// this says what one says that is there for all; whoever has it open or mounted still reads it.
    pub(super) fn restore(&self) -> io::Result<Option<Former>> {
        let Some(former) = former(&self.text()?) else {
            return Ok(None);
        };
        match &former {
            Former::Text(text) => self.put(text)?,
            Former::Nothing(_) => {
                self.put(&beginning(RESOLV_CONF.as_ref()).unwrap_or_default())?;
            }
        }
        Ok(Some(former))
    }

    /// Whether it is what stands at a place.
    pub(super) fn is(&self, other: &fs::Metadata) -> bool {
        let own = self.0.metadata();
        own.is_ok_and(|own| (own.dev(), own.ino()) == (other.dev(), other.ino()))
    }

    /// A path to it, also where no other leads to it from here.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    fn text(&self) -> io::Result<String> {
        text(&self.0)
    }

    /// In one step for who reads it meanwhile, and for who kills us: what is left of a longer text are empty lines.
    fn put(&self, text: &str) -> io::Result<()> {
        let length = usize::try_from(self.0.metadata()?.len()).unwrap_or_default();
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(length.max(bytes.len()), b'\n');
        self.0.write_all_at(&bytes, 0)?;
        self.0.set_len(text.len() as u64)
    }
}

/// Whether we have written it, and what was there stands in it. Where an instance has replaced the file of a container that it runs
/// in itself, that is kept beside it, and is no matter of ours.
pub(super) fn is_ours(file: &File) -> bool {
    text(file).is_ok_and(|text| former(&text).is_some())
}

/// What was there before us; what is there where we have not written it.
pub(super) fn former_in(file: &File) -> io::Result<Former> {
    let now = text(file)?;
    Ok(former(&now).unwrap_or(Former::Text(now)))
}

/// The text of `file`, whole.
fn text(file: &File) -> io::Result<String> {
    let mut bytes = vec![0; MOST as usize + 1];
    let mut length = 0;
    loop {
        match file.read_at(&mut bytes[length..], length as u64)? {
            0 => break,
            more => length += more,
        }
    }
    if length as u64 > MOST {
        return Err(ErrorKind::InvalidData.into());
    }
    bytes.truncate(length);
    String::from_utf8(bytes).map_err(|_| ErrorKind::InvalidData.into())
}

/// What stands in a text of ours.
fn former(text: &str) -> Option<Former> {
    if !Owner::is_in(text) {
        return None;
    }
    let rest = |mark: &str| Some(text.split_once(&format!("\n{mark}"))?.1);
    if let Some(count) = rest(NOTHING) {
        return Some(Former::Nothing(count.trim_end().parse().ok()?));
    }
    let lines = rest(BEFORE)?.split_inclusive('\n');
    let lines: Option<String> = lines.map(|line| line.strip_prefix(WAS)).collect();
    lines.map(Former::Text)
}

fn ours(owner: &Owner, server: Ipv4Addr, former: &Former) -> String {
    match former {
        Former::Nothing(directories) => {
            // As a file for all would say, whose search domains go on.
            let host = beginning(RESOLV_CONF.as_ref()).unwrap_or_default();
            format!("{}{NOTHING}{directories}\n", text_for(owner, server, &host))
        }
        Former::Text(text) => {
            let mut ours = text_for(owner, server, text) + BEFORE;
            for line in text.split_inclusive('\n') {
                ours.extend([WAS, line]);
            }
            ours
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::NamedTempFile;

    use super::*;

    const SERVER: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 53);

    fn owner() -> Owner {
        Owner::here(0).unwrap()
    }

    fn written(file: &NamedTempFile) -> Written {
        Written::new(file.reopen().unwrap()).unwrap()
    }

    fn text_of(file: &NamedTempFile) -> String {
        fs::read_to_string(file.path()).unwrap()
    }

    #[test]
    fn what_was_there_stands_in_it_and_comes_back() {
        let file = NamedTempFile::new().unwrap();
        for was in [
            "",
            "nameserver 192.0.2.1\n",
            "no end of line",
            "\n\n",
            "# Before:\n#|x\nsearch # Before:\n",
        ] {
            fs::write(file.path(), was).unwrap();
            let it = written(&file);
            assert!(it.name(&owner(), SERVER, None).unwrap());
            assert!(!it.name(&owner(), SERVER, None).unwrap());
            let ours = text_of(&file);
            assert_eq!(ours.lines().nth(1), Some("nameserver 198.19.255.53"));
            assert_eq!(names_in(&ours), ["198.19.255.53"]);
            assert_eq!(it.former().unwrap(), Former::Text(was.into()));
            // Another one of us, after we were killed.
            let another = Owner::here(7).unwrap();
            assert!(it.name(&another, SERVER, None).unwrap());
            assert_eq!(it.restore().unwrap(), Some(Former::Text(was.into())));
            assert_eq!(text_of(&file), was);
            assert_eq!(it.restore().unwrap(), None);
        }
    }

    /// A file that was replaced, with what was there beside it.
    #[test]
    fn what_is_not_of_this_kind_is_none_of_ours() {
        let file = NamedTempFile::new().unwrap();
        for text in ["nameserver 192.0.2.1\n", &text_for(&owner(), SERVER, "")] {
            fs::write(file.path(), text).unwrap();
            assert!(!is_ours(file.as_file()));
        }
        assert!(written(&file).name(&owner(), SERVER, Some(0)).unwrap());
        assert!(is_ours(file.as_file()));
    }

    fn names_in(text: &str) -> Vec<String> {
        let servers = crate::plan::names::servers(text, |_| None);
        servers
            .iter()
            .map(|server| server.ip().to_string())
            .collect()
    }

    #[test]
    fn what_others_write_meanwhile_comes_back_instead() {
        let file = NamedTempFile::new().unwrap();
        let it = written(&file);
        assert!(it.name(&owner(), SERVER, Some(2)).unwrap());
        assert_eq!(it.former().unwrap(), Former::Nothing(2));
        assert!(!it.name(&owner(), SERVER, None).unwrap());
        fs::write(file.path(), "nameserver 192.0.2.9\n").unwrap();
        assert!(it.name(&owner(), SERVER, None).unwrap());
        it.restore().unwrap();
        assert_eq!(text_of(&file), "nameserver 192.0.2.9\n");
    }

    #[test]
    fn one_of_us_looks_after_it() {
        let file = NamedTempFile::new().unwrap();
        let it = written(&file);
        let error = Written::new(file.reopen().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        drop(it);
        written(&file);
        for other in [vec![b'#'; MOST as usize + 1], vec![0xff]] {
            fs::write(file.path(), other).unwrap();
            let error = Written::new(file.reopen().unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
        }
    }

    proptest! {
        /// Whoever wrote it.
        #[test]
        fn any_text_comes_back(was in "(#\\||# Before:|nameserver 1|[ \n\r#x]){0,20}") {
            let text = ours(&owner(), SERVER, &Former::Text(was.clone()));
            prop_assert_eq!(former(&text), Some(Former::Text(was)));
            prop_assert_eq!(names_in(&text), ["198.19.255.53"]);
        }

        #[test]
        fn what_looks_like_ours_does_no_harm(rest: String) {
            former(&format!("# Made by underpass, which puts back what was here: 0 1 x\n{rest}"));
        }
    }
}
