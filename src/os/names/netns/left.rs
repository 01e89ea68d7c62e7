//! What killed runs have left in resolv.conf files of namespaces: found by what they say, left alone where somebody looks after them.

use std::fs::File;
use std::io;

use tracing::warn;

use super::named::Named;
use super::process;
use super::written::{Written, is_ours};

/// Puts them back; how many that took. Those of processes alone that we may trace.
pub(in crate::os::names) fn put_back() -> usize {
    let named = Named::all().filter_map(|named| {
        let written = left(named.open().ok()?)?;
        Some(named.restore(&written))
    });
    let processes = process::apart().into_iter().filter_map(|pid| {
        let written = left(process::open_file(pid, false).ok()?)?;
        Some(written.restore().map(drop))
    });
    named.chain(processes).filter(is_done).count()
}

/// How many there are, but for those of processes.
pub(in crate::os::names) fn count() -> usize {
    let files = Named::all().filter_map(|named| File::open(named.file()).ok());
    files.filter_map(left).count()
}

/// Ours, and nobody's any more; nobody else's as long as it is held.
fn left(file: File) -> Option<Written> {
    is_ours(&file).then(|| Written::new(file).ok())?
}

fn is_done(done: &io::Result<()>) -> bool {
    if let Err(error) = done {
        warn!(
            "a resolv.conf of a namespace, which a killed run has written, could not be put back: {error}"
        );
    }
    done.is_ok()
}
