//! Notices the loss of a connection that flows hold up.
//!
//! While all its flows wait to be read, what arrives stays on the wire, and russh, which waits to hand the next message over,
//! neither reads nor asks for a sign of life. But the kernel knows: it asks the server's kernel by itself
//! (`tcp::give_up_after`), and where nobody has the connection there any more, the answer to whatever we send is a reset. So
//! each flow takes in a little every three seconds, between which russh sends a question; and once more at each look until
//! something was sent, for russh tosses a coin between reading and sending. The answer is not waited for: it comes behind all
//! that the flows leave on the wire.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;

use super::connection::Connection;
use crate::carrier::error::LostReason;

/// How often to look.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// How often to ask. What the flows take in for it is not read by anybody: a stopped one adds some 30 KB a second to its backlog.
const ASK: Duration = Duration::from_secs(3);
/// How long russh may take to read what had arrived before the end. It never does where a backlog is at its bound, or its file hangs.
const REST: Duration = Duration::from_secs(2);

/// What is known of one connection.
#[derive(Default)]
pub(super) struct Vigil(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    looked: Option<Instant>,
    asked: Option<Instant>,
    /// What had been sent when it was asked.
    sent_before: u64,
    /// Since when the TCP connection is known to be gone.
    gone: Option<Instant>,
}

impl Vigil {
    /// Looks, unless that was done a moment ago.
    pub(super) fn watch(&self, connection: &Connection, now: Instant) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = |last: Option<Instant>, pause| {
            last.is_none_or(|at| now.saturating_duration_since(at) >= pause)
        };
        if !is_due(seen.looked, LOOK) {
            return;
        }
        seen.looked = Some(now);
        if connection.base().is_gone() {
            let since = *seen.gone.get_or_insert(now);
            end(connection, now.saturating_duration_since(since));
        } else if connection.load().is_held_up() && connection.load().stalled() == 0 {
            let sent = connection.load().cut().sent();
            if is_due(seen.asked, ASK) {
                seen.asked = Some(now);
                seen.sent_before = sent;
                // Where it finds no room, enough waits to be sent.
                let _ = connection.handle().send_keepalive(true).now_or_never();
            }
            if sent == seen.sent_before {
                connection.load().glimpse();
            }
        }
    }
}

/// Lets russh come to the end by itself, which has the reason; not for ever.
fn end(connection: &Connection, gone_for: Duration) {
    let load = connection.load();
    load.leave();
    if gone_for >= REST {
        load.set_lost(LostReason::Broken("the connection was ended".to_owned()));
        load.cut().cut();
    }
}
