//! Notices the loss of the link, and brings the next one.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::backoff::{Backoff, Failure, Try};
use super::tell::Teller;
use super::{Connector, Now, State, Steady};
use crate::carrier::error::{ConnectError, HostKeyError, LostReason};
use crate::carrier::first_host_key::FirstHostKey;
use crate::carrier::link::Link;

/// Refused logins in a row after which it ends, where nobody can be asked.
const REFUSALS: u32 = 3;
/// How long a try may go on after the network has changed under it; the next one twice as long, and so on: where the network
/// changes all the time, as with containers that come and go, a login comes to its end all the same.
const CHANGED: Duration = Duration::from_secs(1);
/// Between two tries that the server counts, whatever the network does: twice the penalty of a connection without a
/// login (`noauth:1s`, see `backoff`).
const APART: Duration = Duration::from_secs(2);

impl<L: Link> Steady<L> {
    /// Keeps the carrier up: replaces each link that is lost by one of `connector`. `changed` is rung when the host's
    /// network is not as it was, or the host has slept: the link is asked for a sign of life then, and a wait is cut short.
    /// Resolves when trying again mends nothing, with what is in the way.
    pub async fn keep<C>(&self, connector: &C, changed: &Notify) -> ConnectError
    where
        C: Connector<Link = L>,
    {
        let mut keeper = Keeper {
            steady: self,
            connector,
            changed,
            backoff: Backoff::default(),
            host_key: FirstHostKey::default(),
        };
        loop {
            let loss = keeper.until_lost().await;
            if let Err(error) = keeper.until_up(loss).await {
                return error;
            }
        }
    }
}

struct Keeper<'a, L, C> {
    steady: &'a Steady<L>,
    connector: &'a C,
    changed: &'a Notify,
    backoff: Backoff,
    /// Of all links.
    host_key: FirstHostKey,
}

/// A link that was lost.
struct Loss<L> {
    last: Arc<L>,
    teller: Teller,
    next: Next,
}

/// When the next try is.
#[derive(Clone, Copy)]
struct Next {
    at: Instant,
    /// From when on a change of the network may bring it forward.
    earliest: Instant,
}

impl<L: Link, C: Connector<Link = L>> Keeper<'_, L, C> {
    async fn until_lost(&mut self) -> Loss<L> {
        let current = self.steady.current().await;
        self.host_key.note(&current.link.description().host_key);
        let why = lost(&*current.link, self.changed).await;
        let since = Instant::now();
        let wait = self.backoff.lost(since - current.since, random());
        let next = Next {
            at: since + wait,
            earliest: since + wait,
        };
        let server = self.connector.server().to_owned();
        let teller = Teller::lost(server, since, &why, current.streams.lost());
        self.down(&teller, why.to_string(), Some(next.at));
        Loss {
            last: current.link,
            teller,
            next,
        }
    }

    fn down(&self, teller: &Teller, why: String, next_try: Option<Instant>) {
        let since = teller.since();
        self.set(State::Down {
            since,
            why,
            next_try,
        });
    }

    fn set(&self, state: State) {
        self.steady.now.send_replace(Now::down(state));
    }

    /// # Errors
    /// What no further try mends.
    async fn until_up(&mut self, loss: Loss<L>) -> Result<(), ConnectError> {
        let Loss {
            last,
            mut teller,
            mut next,
        } = loss;
        let mut with_person = false;
        let mut why = String::new();
        let mut refusals = 0;
        loop {
            self.pause(next).await;
            self.down(&teller, why, None);
            let began = Instant::now();
            let error = match self.attempt(&last, with_person).await {
                Ok(link) => {
                    teller.up(link.description());
                    self.steady.now.send_replace(Now::up(link));
                    return Ok(());
                }
                Err(error) if self.is_final(&error) => return Err(error),
                Err(error) if self.connector.has_person() => error.before_asking(),
                Err(error) => error,
            };
            why = error.to_string();
            with_person = false;
            let took = began.elapsed();
            let failure = Failure::of(&error);
            if failure == Failure::Refused {
                with_person = self.summon(&teller, &error).await;
                refusals += 1;
                if refusals >= REFUSALS && !with_person {
                    return Err(error);
                }
            }
            let now = Instant::now();
            let tried = Try {
                failure,
                took,
                down_for: now - teller.since(),
            };
            let wait = match with_person {
                true => Duration::ZERO,
                false => self.backoff.failed(tried, random()),
            };
            next = Next {
                at: now + wait,
                earliest: match failure {
                    Failure::NotReached => now,
                    Failure::OnTheWay | Failure::NoLogin => began + APART,
                    Failure::Refused => now + wait,
                },
            };
            if !with_person {
                teller.failed(&error, wait);
                self.down(&teller, why.clone(), Some(next.at));
            }
        }
    }

    /// Waits for the next try.
    async fn pause(&self, next: Next) {
        let early = async {
            self.changed.notified().await;
            sleep_until(next.earliest).await;
        };
        select! {
            () = sleep_until(next.at) => {}
            () = early => {}
        }
    }

    /// One try; begun anew when the network changes under it.
    async fn attempt(&mut self, last: &L, with_person: bool) -> Result<L, ConnectError> {
        let mut patience = CHANGED;
        loop {
            let changed = async {
                self.changed.notified().await;
                sleep(patience).await;
            };
            select! {
                link = self.connector.connect(last, with_person) => return self.recognised(link?),
                () = changed, if !with_person => patience *= 2,
            }
        }
    }

    /// The link, if it is the same server's as before.
    fn recognised(&mut self, link: L) -> Result<L, ConnectError> {
        self.host_key.recognise(&link.description().host_key)?;
        Ok(link)
    }

    /// Whether nobody can mend it here. A person may take a key that no file knows yet, as at the start.
    fn is_final(&self, error: &ConnectError) -> bool {
        match error.origin() {
            ConnectError::HostKey(HostKeyError::Unknown { .. }) => !self.connector.has_person(),
            ConnectError::HostKey(_) => true,
            _ => false,
        }
    }

    /// Whether somebody is there to log in.
    async fn summon(&self, teller: &Teller, error: &ConnectError) -> bool {
        if !self.connector.has_person() {
            return false;
        }
        teller.needs_person(error);
        self.set(State::NeedsPerson {
            since: teller.since(),
            why: error.to_string(),
        });
        self.connector.summon().await
    }
}

/// Resolves when `link` is lost; asks it for a sign of life whenever `changed` is rung.
async fn lost<L: Link>(link: &L, changed: &Notify) -> LostReason {
    let mut lost = pin!(link.lost());
    loop {
        let checked = async {
            changed.notified().await;
            link.check().await;
        };
        select! {
            why = &mut lost => return why,
            () = checked => {}
        }
    }
}

/// A number that differs from process to process: the standard library seeds its hashers from the system.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
