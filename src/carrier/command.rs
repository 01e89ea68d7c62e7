//! A command on the server that carries a stream: what it says on its stderr is for the log alone, and what it means that there
//! is none.

use tracing::debug;

use super::failure::harmless;
use crate::net::{OpenError, OpenFailure};

/// Bytes of one command's that are logged.
const MOST: usize = 4096;

/// The server opens no session, or runs nothing in it.
pub(super) fn no_command() -> OpenError {
    OpenError::new(
        OpenFailure::Prohibited,
        "the server runs no commands for this login",
    )
}

/// Hears one command's stderr.
#[derive(Debug, Default)]
pub(super) struct Stderr {
    logged: usize,
}

impl Stderr {
    /// Takes what it says. After [`MOST`] nothing more is logged.
    pub(super) fn hear(&mut self, data: &[u8]) {
        if self.logged >= MOST {
            return;
        }
        self.logged += data.len().max(1);
        for line in String::from_utf8_lossy(data).lines() {
            debug!("a command on the server: {}", harmless(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_logged() {
        let mut stderr = Stderr::default();
        for _ in 0..1_000_000 {
            stderr.hear(b"no\n");
        }
        assert!(stderr.logged < MOST + 3);
    }
}
