//! What a command has sent before its end arrives.
//!
//! On the host the kernel goes on sending when a process has ended. Here some of that is still on its way through us.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ways::Ways;
use crate::app::up::session::Session;
use crate::carrier::Link;
use crate::carrier::clients::Clients;

/// A connection on which nothing moves for so long is somebody's who has not ended: a process in the background.
const QUIET: Duration = Duration::from_millis(500);
/// The same of a published connection while there is something for its client, who has no room for it.
const HELD_UP: Duration = Duration::from_secs(5);
/// However much is left.
const LONGEST: Duration = Duration::from_secs(30);
/// Between two looks.
const STEP: Duration = Duration::from_millis(5);

/// Resolves when no connection is open and `clients` of published ports have what is theirs, or nothing moves any more.
pub(super) async fn until_quiet(session: &Session<Ways>, clients: &Clients) {
    let began = Instant::now();
    let mut last = (moved(session, clients), began);
    while session.activity.open() + clients.open() > 0 && began.elapsed() < LONGEST {
        sleep(STEP).await;
        let now = moved(session, clients);
        let limit = if clients.are_held_up() {
            HELD_UP
        } else {
            QUIET
        };
        if now != last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() > limit {
            return;
        }
    }
}

/// Ends the connection; first lets the server pass on what it was `sent`. A connection that the far side had ended before
/// gives no sign when it is through, and sshd drops what it still holds when it hears the goodbye. So it is asked for two
/// signs of life: between them it has had a turn to write.
pub(super) async fn goodbye(link: &impl Link, sent: bool) {
    if sent {
        link.check().await;
        link.check().await;
    }
    link.shutdown().await;
}

/// What the command has sent, to servers and to clients.
fn moved(session: &Session<Ways>, clients: &Clients) -> u64 {
    session.stats.traffic.up.load(Ordering::Relaxed) + clients.given()
}
