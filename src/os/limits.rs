//! Resource limits of the process.

use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::debug;

/// The soft limit of open files that we were started with; `NONE` where it still holds.
static BEFORE: AtomicU64 = AtomicU64::new(NONE);
const NONE: u64 = u64::MAX;

/// Raises the soft limit of open files to the hard one (getrlimit(2)) and gives the limit that now holds.
/// The soft default of 1024 is for programs that use select(2); we do not.
pub fn raise_open_files() -> u64 {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => {
                BEFORE.store(soft, Ordering::Relaxed);
                hard
            }
            Err(error) => {
                debug!("the limit of open files stays at {soft}: {error}");
                soft
            }
        },
        Ok((soft, _)) => soft,
        Err(error) => {
            debug!("the limit of open files is not known: {error}");
            0
        }
    }
}

/// Gives a child back what [`raise_open_files`] has raised: it may use select(2), or close all that it could have open.
/// Async-signal-safe; the hard limit holds whatever else there is.
pub(super) fn give_back_open_files() {
    let before = BEFORE.load(Ordering::Relaxed);
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && before < soft
    {
        // Lowering is always permitted.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, before, hard);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use nix::sys::signal::Signal;
    use tokio::process::Command;

    use super::*;
    use crate::os::child::{Terminal, spawn_tied};

    #[tokio::test]
    async fn the_soft_limit_reaches_the_hard_one_here_and_not_in_children() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        // Not far below: other tests go on meanwhile.
        setrlimit(Resource::RLIMIT_NOFILE, hard - 1, hard).unwrap();
        assert_eq!(raise_open_files(), hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -Sn; ulimit -Hn"]);
        command.stdout(Stdio::piped());
        let child = spawn_tied(command, Terminal::None, Signal::SIGKILL).unwrap();
        let output = child.wait_with_output().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text, format!("{}\n{hard}\n", hard - 1));
    }
}
