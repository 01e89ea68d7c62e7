//! resolvconf(8), where it writes `/etc/resolv.conf`: openresolv, or Debian's own.
//!
//! What it is told stays in its state directory after a kill, and begins with our mark, by which it is found again.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;
use tracing::debug;

use super::At;
use crate::os::resolv_conf::{self, Owner, ResolvConf};

/// Nobody's but root's, whatever the environment says.
const PLACES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"];
/// For what it runs itself.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Where it keeps what it was told: openresolv, its versions from 3.13 on, and Debian's.
const STATES: [&str; 3] = ["interfaces", "keys", "interface"];
const STATE: &str = "/run/resolvconf";
/// How long it may take: it has others started.
const PATIENCE: Duration = Duration::from_secs(10);

/// The program.
pub(super) fn find() -> Option<PathBuf> {
    let mut places = PLACES.iter().map(|dir| Path::new(dir).join("resolvconf"));
    places.find(|place| {
        let found = fs::metadata(place);
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

/// It was told of our name server.
#[derive(Debug)]
pub(in crate::os) struct Entry(String);

impl Entry {
    pub(super) async fn hold(at: At<'_>) -> io::Result<Self> {
        let program = find().ok_or(io::ErrorKind::NotFound)?;
        let text = ResolvConf::default().text_of(&Owner::here(at.slot)?, at.server())?;
        let is_openresolv = run(&program, &["--version"], "").await.is_ok();
        // Debian's orders interfaces by their names, tunnels before others (interface-order(5)).
        let entry = match is_openresolv {
            true => Self(at.device.to_owned()),
            false => Self(format!("tun.{}", at.device)),
        };
        let told = match is_openresolv {
            // Before all others, and instead of them.
            true => run(&program, &["-m", "0", "-x", "-a", &entry.0], &text).await,
            false => run(&program, &["-a", &entry.0], &text).await,
        };
        if told.is_err() {
            // Whatever of it was done.
            entry.release().await.ok();
        }
        told.map(|()| entry)
    }

    pub(super) async fn release(&self) -> io::Result<()> {
        forget(&self.0).await
    }
}

/// What killed runs have told it, and still holds where `is_left` says so: on whose behalf, under which name.
pub(super) fn left(mut is_left: impl FnMut(&Owner) -> bool) -> Vec<String> {
    left_in(Path::new(STATE), &mut is_left)
}

fn left_in(state: &Path, is_left: &mut impl FnMut(&Owner) -> bool) -> Vec<String> {
    let own = entries(state)
        .filter(|entry| Owner::of(&entry.path()).is_some_and(|owner| is_left(&owner)));
    own.filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// On whose behalf it was told something.
pub(super) fn owners() -> impl Iterator<Item = Owner> {
    entries(Path::new(STATE)).filter_map(|entry| Owner::of(&entry.path()))
}

/// What it was told by others.
pub(super) fn others() -> String {
    let texts = entries(Path::new(STATE)).map(|entry| resolv_conf::read(&entry.path()));
    let texts: Vec<_> = texts.filter_map(Result::ok).collect();
    let others = texts.iter().filter(|text| !Owner::is_in(text));
    others.map(|text| format!("{text}\n")).collect()
}

fn entries(state: &Path) -> impl Iterator<Item = fs::DirEntry> {
    let directories = STATES.iter();
    let directories = directories.filter_map(move |dir| fs::read_dir(state.join(dir)).ok());
    directories.flatten().flatten()
}

/// Has it forget `entry`.
///
/// # Errors
/// Where it is not there, or ends with a failure.
pub(super) async fn forget(entry: &str) -> io::Result<()> {
    let program = find().ok_or(io::ErrorKind::NotFound)?;
    run(&program, &["-d", entry], "").await
}

async fn run(program: &Path, arguments: &[&str], input: &str) -> io::Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read has failed, and says so.
        stdin.write_all(input.as_bytes()).await.ok();
    }
    let output = timeout(PATIENCE, child.wait_with_output()).await??;
    let said = String::from_utf8_lossy(&output.stderr);
    debug!("resolvconf {}: {}", arguments.join(" "), output.status);
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "resolvconf {}: {}",
            arguments.join(" "),
            said.lines().last().unwrap_or("it failed")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_is_found_by_its_mark() {
        let state = tempfile::tempdir().unwrap();
        let interfaces = state.path().join("interfaces");
        fs::create_dir(&interfaces).unwrap();
        let (server, owner) = ([198, 19, 255, 53].into(), Owner::here(3).unwrap());
        let text = ResolvConf::default().text_of(&owner, server).unwrap();
        fs::write(interfaces.join("underpass3"), &text).unwrap();
        fs::write(interfaces.join("eth0"), "nameserver 192.0.2.1\n").unwrap();
        let found = left_in(state.path(), &mut |found| *found == owner);
        assert_eq!(found, ["underpass3"]);
        assert!(left_in(state.path(), &mut |_| false).is_empty());
        assert!(left_in(&interfaces, &mut |_| true).is_empty());
    }
}
