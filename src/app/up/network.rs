//! Tells when the host's network is not as it was, or the host has slept.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::os::{Changes, Resume};

/// Between two words.
const APART: Duration = Duration::from_millis(400);

/// Rings `changed` for each change from here on, until dropped; `device` is ours.
///
/// # Errors
/// When the kernel cannot be listened to.
pub(in crate::app) fn watch(
    device: &str,
    changed: Arc<Notify>,
) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    let mut changes = Changes::new(device)?;
    let mut resume = Resume::default();
    Ok(async move {
        loop {
            let what = select! {
                what = changes.next() => what,
                () = resume.next() => Ok("the host was asleep"),
            };
            match what {
                Ok(what) => debug!("the network may have changed: {what}"),
                Err(error) => {
                    warn!("changes of the network go unnoticed from here on: {error}");
                    return;
                }
            }
            changes.settle().await;
            changed.notify_one();
            sleep(APART).await;
        }
    })
}
