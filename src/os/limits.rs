//! Resource limits of the process.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::debug;

/// Raises the soft limit of open files to the hard one (getrlimit(2)) and gives the limit that now holds.
/// The soft default of 1024 is for programs that use select(2); we do not.
pub fn raise_open_files() -> u64 {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_reaches_the_hard_one() {
        let now = raise_open_files();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (now, now));
    }
}
