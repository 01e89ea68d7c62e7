//! Whether the server is still there.
//!
//! ssh answers a global request on its control socket by closing it, so the question is an open of a channel type that
//! no server has: the refusal is the sign of life. It costs the master one of its places, as any refused open does. A master
//! that has refused many asks by a session, whose place is free again when it is closed. Where that is refused, as there may be
//! MaxSessions of others just then, the next ones are left out, and all where no place is left: ssh's own ServerAliveInterval goes on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::connection::Connection;
use super::shared::{Owner, Shared};
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
        self.with(|shared, _| shared.ask())
    }
}

impl Shared {
    fn ask(&mut self) -> Option<oneshot::Receiver<()>> {
        let burden = self.burden();
        let by_session = burden.is_due();
        if burden.is_full() {
            return None;
        }
        if by_session && self.left_out > 0 {
            self.left_out -= 1;
            return None;
        }
        let kind = match by_session {
            true => ChannelType::session(),
            false => ChannelType::new(NO_TYPE, []),
        };
        let (sender, answer) = oneshot::channel();
        let id = self.channels.open(kind).ok()?;
        let sign = Owner::Sign {
            by_session,
            _asks: sender,
        };
        self.owners.insert(id, sign);
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bytes::{Buf, Bytes};

    use super::*;
    use crate::carrier::channels::Outgoing;
    use crate::carrier::openssh::shared::{After, LEFT_OUT};

    /// What the master is sent next.
    fn sent(shared: &mut Shared) -> Vec<u8> {
        let mut out = Outgoing::default();
        shared.channels.poll_output(Instant::now(), &mut out);
        out.copy_to_bytes(out.remaining()).into()
    }

    /// The master is sent an open of a channel of this type: its number.
    fn opened(shared: &mut Shared, kind: &str) -> u32 {
        let sent = sent(shared);
        let mut parts = sent.windows(kind.len());
        let at = parts.position(|part| part == kind.as_bytes()).unwrap() + kind.len();
        u32::from_be_bytes(sent[at..at + 4].try_into().unwrap())
    }

    fn hear(shared: &mut Shared, number: u8, fields: &[u32]) {
        let fields = fields.iter().flat_map(|field| field.to_be_bytes());
        let message: Bytes = std::iter::once(number).chain(fields).collect();
        let now = Instant::now();
        if let Some(event) = shared.channels.handle(now, message).unwrap() {
            shared.hear(now, event, &mut After::default());
        }
    }

    /// The server refuses an open of this type.
    fn refuse(shared: &mut Shared, kind: &str) {
        let id = opened(shared, kind);
        hear(shared, 92, &[id, 3, 0, 0]);
    }

    /// As many questions as there may be that cost the master a place each.
    fn due() -> Shared {
        let mut shared = Shared::default();
        while !shared.burden().is_due() {
            shared.ask().unwrap();
            refuse(&mut shared, NO_TYPE);
        }
        shared
    }

    #[test]
    fn from_some_refused_opens_on_a_sign_of_life_costs_no_place() {
        let mut shared = due();
        let refused = shared.burden().refused;
        for _ in 0..3 {
            let mut answer = shared.ask().unwrap();
            let id = opened(&mut shared, "session");
            hear(&mut shared, 91, &[id, 7, 1000, 1000]);
            assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed));
            // CLOSE both ways.
            assert!(sent(&mut shared).ends_with(&[97, 0, 0, 0, 7]));
            hear(&mut shared, 97, &[id]);
            assert_eq!(shared.burden().channels, 0);
        }
        assert_eq!(shared.burden().refused, refused);
    }

    #[test]
    fn a_server_without_sessions_is_asked_seldom() {
        let mut shared = due();
        for _ in 0..2 {
            shared.ask().unwrap();
            refuse(&mut shared, "session");
            for _ in 0..LEFT_OUT {
                assert!(shared.ask().is_none());
                assert!(sent(&mut shared).is_empty());
            }
        }
    }

    #[test]
    fn nothing_is_asked_where_no_place_is_left() {
        let mut shared = due();
        while !shared.burden().is_full() {
            shared.channels.open(ChannelType::session()).unwrap();
            refuse(&mut shared, "session");
        }
        assert!(shared.ask().is_none());
        assert!(sent(&mut shared).is_empty());
    }
}
