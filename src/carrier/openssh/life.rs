//! Whether the server is still there.
//!
//! ssh answers a global request on its control socket by closing it, so the question is an open of a channel type that
//! no server has: the refusal is the sign of life. It costs the master one of its places, as any refused open does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::connection::Connection;
use super::shared::Owner;
use crate::carrier::channels::ChannelType;
use crate::carrier::error::LostReason;
use crate::carrier::link::LIFE;

/// A name that is never given out (RFC 4250 section 4.6.1, RFC 2606 section 2).
const NO_TYPE: &str = "sign-of-life@underpass.invalid";

/// What was sent before the way was gone may arrive for so long, and is no sign of life.
const LATE_ARRIVALS: Duration = Duration::from_millis(500);

impl Connection {
    /// Asks the server for a sign of life; without one within [`LIFE`] the connection is lost, and its ssh is ended. The
    /// refusal is one. Whatever else arrives is one for now: the question may wait behind an upload, and an ssh that gets no
    /// processor brings late what was there before.
    pub(super) async fn check(self: &Arc<Self>) {
        let Some(mut answer) = self.ask() else {
            return;
        };
        if timeout(LATE_ARRIVALS, &mut answer).await.is_ok() {
            return;
        }
        let rest = LIFE - LATE_ARRIVALS;
        let mut heard = self.heard();
        while timeout(rest, &mut answer).await.is_err() {
            if self.heard() == heard {
                return self.give_up(LostReason::Silent);
            }
            heard = self.heard();
        }
    }

    /// Resolves, to whatever, with the answer. `None` where there is no room for a question.
    pub(super) fn ask(&self) -> Option<oneshot::Receiver<()>> {
        let (sender, answer) = oneshot::channel();
        self.with(|shared, _| {
            let id = shared.channels.open(ChannelType::new(NO_TYPE, [])).ok()?;
            shared.owners.insert(id, Owner::Sign { _asks: sender });
            Some(())
        })?;
        Some(answer)
    }
}

/// Asks all of them at once.
pub(super) async fn check_all(connections: Vec<Arc<Connection>>) {
    let mut checks = tokio::task::JoinSet::new();
    for connection in connections {
        checks.spawn(async move { connection.check().await });
    }
    while checks.join_next().await.is_some() {}
}
