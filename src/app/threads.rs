//! The threads that flows are carried by.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// A runtime with as many threads as are worth it.
///
/// # Errors
/// What the kernel says when there is none to be had.
pub(super) fn runtime() -> io::Result<Runtime> {
    match workers() {
        // By itself rather than with others that are none: it carries a tenth more short connections, as it has one queue
        // for whoever is ready, and nobody to share it with.
        1 => Builder::new_current_thread().enable_all().build(),
        several => Builder::new_multi_thread()
            .worker_threads(several)
            .enable_all()
            .build(),
    }
}

/// Half of the cores, four at most: a chunk that is handed from one thread to another costs two wake-ups, more than
/// it gains where the other core has work of its own (sshd's peers, the application).
fn workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, 4)
}
