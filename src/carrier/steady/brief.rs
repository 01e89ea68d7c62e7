//! The carrier for who does not wait: somebody who asks for a name is better told that it failed than left without an answer.

use std::future::pending;
use std::time::Duration;

use tokio::select;
use tokio::time::sleep_until;

use super::{State, Steady};
use crate::carrier::link::Link;
use crate::net::{Carrier, Far, OpenError, OpenFailure, Source};

/// How long there may be no link before nobody waits for the next one: the first try after a loss is at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// Opens as [`Steady`] does, and refuses while there has been no link for a second.
pub struct Brief<'a, L>(&'a Steady<L>);

impl<L: Link> Steady<L> {
    /// For who does not wait.
    pub fn brief(&self) -> Brief<'_, L> {
        Brief(self)
    }

    /// Until there has been no link for `time`.
    async fn down_for(&self, time: Duration) {
        let mut changes = self.now.subscribe();
        loop {
            let since = match changes.borrow_and_update().state {
                State::Up { .. } => None,
                State::Down { since, .. } | State::NeedsPerson { since, .. } => Some(since),
            };
            let overdue = async {
                match since {
                    Some(since) => sleep_until(since + time).await,
                    None => pending().await,
                }
            };
            select! {
                () = overdue => return,
                // The sender is our own.
                _ = changes.changed() => {}
            }
        }
    }
}

impl<L: Link> Carrier for Brief<'_, L> {
    type Reader = <Steady<L> as Carrier>::Reader;
    type Writer = <Steady<L> as Carrier>::Writer;

    async fn open_far(
        &self,
        source: Source,
        far: Far,
    ) -> Result<(Self::Reader, Self::Writer), OpenError> {
        select! {
            biased;
            opened = self.0.open_far(source, far) => opened,
            () = self.0.down_for(PATIENCE) => {
                Err(OpenError::new(OpenFailure::ConnectionLost, "there is no SSH connection"))
            }
        }
    }
}
