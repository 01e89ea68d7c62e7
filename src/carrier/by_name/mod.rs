//! Opens by name, apart from all others.
//!
//! sshd looks a name up with a blocking getaddrinfo(3), in the process of that SSH connection, which does nothing else meanwhile: a
//! resolver that does not answer stops every flow there for 10 s and more. So names are opened over connections of their own, a
//! *crew* of a few, made when the first name is opened; nothing else ever goes there. A flow stays where it was opened, so a
//! name that was not found before goes where no flow is, as long as that can be had, and one that was found quickly to the others.
//!
//! Whether a name is still being looked up is asked of the server on the same connection, which answers when it is done with that.
//! A host that never answers holds nobody up then. A name that took long and was not found is refused at once for as long again:
//! who waits behind it, its other family for one, shares that.
//!
//! One that no name needs for a minute, and over which nothing goes, is closed; the next name has one made again.
//!
//! Where no further connection is to be had (the login asks somebody, `--connections 1`), names share the one that there is, one
//! at a time.
//!
//! | file | idea |
//! |---|---|
//! | `choice` | which of the crew the next name goes to, or that one more is made |
//! | `memory` | which names were found, and which were not |
//! | `look` | one lookup, from its turn to its end |
//! | `idle` | when a connection is closed again |

mod choice;
mod idle;
mod look;
mod memory;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as Gate, Notify};
use tracing::{debug, warn};

use self::choice::{Choice, Member, choose};
use self::look::{Turn, look};
use self::memory::Memory;
use super::detach::detached;
use super::error::ConnectError;
use super::link::Link;
use crate::net::{Far, OpenError, OpenFailure, Source};

/// How long a login may take.
const LOGIN: Duration = Duration::from_secs(30);
/// Wait after one that failed.
const AGAIN: Duration = Duration::from_secs(60);

/// Why there is no further connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoMore {
    /// There will be none.
    Ever(String),
    /// It can be tried again.
    Now(String),
}

/// Why there is none where one is all that there is to be.
pub(super) const ONE_CONNECTION: &str = "there is to be one connection";

impl NoMore {
    /// A login failed so.
    pub(super) fn of(error: &ConnectError) -> Self {
        match error.origin() {
            // The server counts such, and nothing changes by itself.
            ConnectError::Refused { .. } => Self::Ever(error.to_string()),
            _ => Self::Now(error.to_string()),
        }
    }
}

/// A link that can have others beside it.
pub(super) trait Spare: Link + Sized + 'static {
    /// A further one, of one connection, whose login asks nobody.
    fn apart(&self) -> impl Future<Output = Result<Self, NoMore>> + Send;

    /// How many channels it carries, those included that are to be opened.
    fn channels(&self) -> usize;

    /// Resolves when the server has done on every connection what it was asked for there, or the connection is gone.
    fn done(&self) -> impl Future<Output = ()> + Send;
}

/// A carrier's opens by name.
pub(super) struct ByName<L> {
    crew: Arc<Crew<L>>,
    /// Who is next, of those whose name was found before, and of the others.
    found: Gate<()>,
    new: Gate<()>,
}

/// The connections, and what is known of names.
struct Crew<L> {
    /// What everything else goes over.
    first: Arc<L>,
    state: Mutex<State<L>>,
    /// Rung when a lookup or a login has ended.
    changed: Notify,
}

struct State<L> {
    crew: Vec<Mate<L>>,
    /// Lookups over the first link.
    shared: usize,
    more: More,
    memory: Memory,
}

/// One of the crew.
struct Mate<L> {
    link: Arc<L>,
    member: Member,
    /// When it was last known to be needed.
    used: idle::Instant,
}

impl<L> Mate<L> {
    fn is(&self, link: &Arc<L>) -> bool {
        Arc::ptr_eq(&self.link, link)
    }
}

/// Whether a further connection can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum More {
    Yes,
    UnderWay,
    After(Instant),
    Never,
}

impl<L: Spare> ByName<L> {
    /// Those beside `first`.
    pub(super) fn new(first: Arc<L>) -> Self {
        let state = State {
            crew: Vec::new(),
            shared: 0,
            more: More::Yes,
            memory: Memory::default(),
        };
        Self {
            crew: Arc::new(Crew {
                first,
                state: Mutex::new(state),
                changed: Notify::new(),
            }),
            found: Gate::default(),
            new: Gate::default(),
        }
    }

    /// Opens a stream to a host by its `name`.
    ///
    /// # Errors
    /// The server's, or that it did not find the name a moment ago.
    pub(super) async fn open(
        &self,
        source: Source,
        far: Far,
        name: Arc<str>,
    ) -> Result<(L::Reader, L::Writer), OpenError> {
        let turn = self.turn(&name).await?;
        detached(look(turn, source, far, name)).await
    }

    /// Waits for a place, in the order of those who came. Cancel safe: a dropped future has taken none.
    async fn turn(&self, name: &Arc<str>) -> Result<Turn<L>, OpenError> {
        let gate = match self.crew.state().memory.has_found(name) {
            true => &self.found,
            false => &self.new,
        };
        let _first_in_line = gate.lock().await;
        loop {
            // Made before the look: it hears what rings from here on.
            let mut changed = std::pin::pin!(self.crew.changed.notified());
            changed.as_mut().enable();
            if let Some(turn) = self.crew.decide(name)? {
                return Ok(turn);
            }
            changed.await;
        }
    }

    /// The crew.
    pub(super) fn links(&self) -> Vec<Arc<L>> {
        let state = self.crew.state();
        let links = state.crew.iter().map(|mate| Arc::clone(&mate.link));
        links.collect()
    }

    /// Those of the crew that can give a sign of life: while one looks a name up, it gives none.
    pub(super) fn responsive(&self) -> Vec<Arc<L>> {
        let state = self.crew.state();
        let idle = state.crew.iter().filter(|mate| mate.member.looking == 0);
        idle.map(|mate| Arc::clone(&mate.link)).collect()
    }

    /// No further connection is made from here on; the crew.
    pub(super) fn close(&self) -> Vec<Arc<L>> {
        self.crew.state().more = More::Never;
        self.links()
    }
}

impl<L> Drop for ByName<L> {
    fn drop(&mut self) {
        self.crew.state().more = More::Never;
    }
}

impl<L> Crew<L> {
    fn state(&self) -> MutexGuard<'_, State<L>> {
        // Every change is one assignment, or made of such as may stand alone.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: Spare> Crew<L> {
    /// A place for a lookup of `name`, if there is one now.
    fn decide(self: &Arc<Self>, name: &str) -> Result<Option<Turn<L>>, OpenError> {
        let now = Instant::now();
        let mut state = self.state();
        if state.memory.has_failed(name, now) {
            let text = "the server did not find the name a moment ago";
            return Err(OpenError::new(OpenFailure::HostUnreachable, text));
        }
        let is_new = !state.memory.has_found(name);
        let members: Vec<Member> = state
            .crew
            .iter()
            .map(|mate| mate.member.with(mate.link.channels()))
            .collect();
        let can_grow = match state.more {
            More::Yes | More::UnderWay => true,
            More::After(at) => now >= at,
            More::Never => false,
        };
        let link = match choose(&members, is_new, can_grow) {
            Choice::At(index) => {
                let mate = &mut state.crew[index];
                mate.member.looking += 1;
                mate.member.is_risky |= is_new;
                Arc::clone(&mate.link)
            }
            Choice::Grow if state.more == More::UnderWay => return Ok(None),
            Choice::Grow => {
                state.more = More::UnderWay;
                // Whoever wants it may give up.
                tokio::spawn(Arc::clone(self).grow());
                return Ok(None);
            }
            Choice::Wait => return Ok(None),
            Choice::Share if state.shared > 0 => return Ok(None),
            Choice::Share => {
                state.shared += 1;
                Arc::clone(&self.first)
            }
        };
        Ok(Some(Turn::new(Arc::clone(self), link, is_new)))
    }

    async fn grow(self: Arc<Self>) {
        let made = match tokio::time::timeout(LOGIN, self.first.apart()).await {
            Ok(made) => made,
            Err(_) => Err(NoMore::Now("the login takes too long".to_owned())),
        };
        let mut state = self.state();
        let is_wanted = state.more == More::UnderWay;
        match made {
            Ok(link) if is_wanted => {
                state.more = More::Yes;
                let link = Arc::new(link);
                tokio::spawn(idle::close(Arc::downgrade(&self), Arc::downgrade(&link)));
                state.crew.push(Mate {
                    link,
                    member: Member::default(),
                    used: idle::Instant::now(),
                });
                debug!("connections for names: {}", state.crew.len());
            }
            Ok(_) => {}
            Err(why) if is_wanted => {
                let (more, why) = match why {
                    NoMore::Ever(why) => (More::Never, why),
                    NoMore::Now(why) => (More::After(Instant::now() + AGAIN), why),
                };
                state.more = more;
                tell(state.crew.is_empty(), &why);
            }
            Err(_) => {}
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// A lookup over `link` has ended.
    fn left(&self, link: &Arc<L>, was_new: bool) {
        let mut state = self.state();
        match state.crew.iter_mut().find(|mate| mate.is(link)) {
            Some(mate) => {
                let member = &mut mate.member;
                member.looking = member.looking.saturating_sub(1);
                member.is_risky &= !was_new;
                mate.used = idle::Instant::now();
            }
            None if Arc::ptr_eq(link, &self.first) => state.shared = state.shared.saturating_sub(1),
            None => {}
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// `link` is lost, with what it carried.
    fn lost(&self, link: &Arc<L>) {
        self.state().crew.retain(|mate| !mate.is(link));
    }
}

fn tell(is_shared: bool, why: &str) {
    match is_shared {
        true => warn!(
            "names are looked up over the connection of everything else, one at a time, and a slow one holds all of it up, since \
             {why}. A key in an agent, or --connections 2, gives them their own"
        ),
        false => debug!("no further connection for names: {why}"),
    }
}
