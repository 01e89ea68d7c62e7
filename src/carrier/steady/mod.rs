//! A carrier that stays: over a [`Link`] that is replaced when it is lost.
//!
//! Streams of a lost link end at once, so that applications try again; what they open then waits, unanswered, until
//! there is a link again or they give up. How many may wait is bounded by whoever lets them in (for the TUN, the
//! engine's held flows).
//!
//! | what happens | what is done |
//! |---|---|
//! | the server says goodbye, is silent for ServerAliveInterval x ServerAliveCountMax, or the connection breaks | tried again at once, then as `backoff` says, for ever |
//! | links, addresses or routes of the host change, or it has slept | the link has [`super::link::LIFE`] for a sign of life; a wait for the next try is cut short |
//! | the server is not reached, or the first jump host | tried twice a second or more for five minutes, later twice a minute |
//! | a jump host does not connect to the next host, or a command ends before the server has said a word, and blames no login of its own | the same for one minute, since each try is a login there, or a process |
//! | the server, or a host that a command logs in to (`ssh -W`), ends the login or does not answer it | tried after 0.5, 1, 2, 4 ... 30 s |
//! | the connection does not last 10 s | three in a row are tried again after 0.5 s, further ones after 3, 6, 12 ... 30 s |
//! | the login is refused, a command's own too, or asks somebody | a person on the terminal is called, and waited for; where there is none, it is tried three times over 90 to 135 s and then ends (exit code 4): nothing mends that by itself, and whoever started it should know |
//! | a new host key, which no file knows | a person is called; where there is none it ends (exit code 6) |
//! | another host key than the first link's, one that was changed or revoked | it ends (exit code 6) |
//!
//! | file | idea |
//! |---|---|
//! | `keeper` | notices the loss, and brings the next link |
//! | `backoff` | how long to wait between two tries |
//! | `brief` | the same carrier for who does not wait for a link |
//! | `count` | the streams of one link |
//! | `exec` | commands on the server |
//! | `tell` | the log's lines |

mod backoff;
mod brief;
mod count;
mod exec;
mod keeper;
mod tell;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use self::count::{Streams, counted};
use super::error::ConnectError;
use super::link::Link;
use crate::net::{Carrier, Far, OpenError, OpenFailure, Source};

pub use self::brief::Brief;
pub use self::count::{SteadyReader, SteadyWriter};

/// Between two tries of an open whose connection was lost under it, until the link is known to be lost or has another
/// connection.
const OPEN_AGAIN: Duration = Duration::from_millis(50);

/// Makes the links.
pub trait Connector: Send + Sync {
    /// What it makes.
    type Link: Link;

    /// Logs in again, after `last` was lost. Unless `with_person`, nobody is asked anything, and the network may change under
    /// it: it is dropped then and called again.
    ///
    /// # Errors
    /// [`ConnectError`]. [`ConnectError::Refused`] and an unknown host key are what a person may mend.
    fn connect(
        &self,
        last: &Self::Link,
        with_person: bool,
    ) -> impl Future<Output = Result<Self::Link, ConnectError>> + Send;

    /// Whether there is somebody to be called.
    fn has_person(&self) -> bool;

    /// Calls a person to log in, and waits for them; `false` where nobody came.
    fn summon(&self) -> impl Future<Output = bool> + Send;

    /// The server for a person, as it was typed.
    fn server(&self) -> &str;
}

/// How things stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// There is a link.
    Up {
        /// Since when.
        since: Instant,
    },
    /// There is none.
    Down {
        /// Since when.
        since: Instant,
        /// Why the last one was lost, or the last try failed: one line.
        why: String,
        /// When the next try is; `None`: one is under way.
        next_try: Option<Instant>,
    },
    /// There is none, and none will be until somebody answers on the terminal.
    NeedsPerson {
        /// Since when there is no link.
        since: Instant,
        /// Why: one line.
        why: String,
    },
}

/// A carrier over links that come and go.
pub struct Steady<L> {
    now: watch::Sender<Now<L>>,
}

/// The state, and with it the link.
struct Now<L> {
    state: State,
    link: Option<Current<L>>,
}

/// The link that there is.
struct Current<L> {
    link: Arc<L>,
    streams: Arc<Streams>,
    since: Instant,
}

impl<L> Clone for Current<L> {
    fn clone(&self) -> Self {
        Self {
            link: Arc::clone(&self.link),
            streams: Arc::clone(&self.streams),
            since: self.since,
        }
    }
}

impl<L> Now<L> {
    fn up(link: L) -> Self {
        let since = Instant::now();
        Self {
            state: State::Up { since },
            link: Some(Current {
                link: Arc::new(link),
                streams: Arc::default(),
                since,
            }),
        }
    }

    fn down(state: State) -> Self {
        Self { state, link: None }
    }
}

impl<L: Link> Steady<L> {
    /// Over a first link.
    pub fn new(first: L) -> Self {
        Self {
            now: watch::Sender::new(Now::up(first)),
        }
    }

    /// How things stand.
    pub fn state(&self) -> State {
        self.now.borrow().state.clone()
    }

    /// How things stand once they stand otherwise than `before`. Cancel safe.
    pub async fn other_than(&self, before: &State) -> State {
        let mut changes = self.now.subscribe();
        let other = changes.wait_for(|now| now.state != *before).await;
        match other.map(|now| now.state.clone()) {
            Ok(state) => state,
            // The sender is our own.
            Err(_) => std::future::pending().await,
        }
    }

    /// The link, while there is one.
    pub fn link(&self) -> Option<Arc<L>> {
        let now = self.now.borrow();
        now.link.as_ref().map(|current| Arc::clone(&current.link))
    }

    /// The link, waiting while there is none.
    async fn current(&self) -> Current<L> {
        if let Some(current) = &self.now.borrow().link {
            return current.clone();
        }
        let mut changes = self.now.subscribe();
        loop {
            if let Ok(now) = changes.wait_for(|now| now.link.is_some()).await
                && let Some(current) = &now.link
            {
                return current.clone();
            }
        }
    }
}

impl<L: Link> Carrier for Steady<L> {
    type Reader = SteadyReader<L::Reader>;
    type Writer = SteadyWriter<L::Writer>;

    async fn open_far(
        &self,
        source: Source,
        far: Far,
    ) -> Result<(Self::Reader, Self::Writer), OpenError> {
        loop {
            let Current { link, streams, .. } = self.current().await;
            match link.open_far(source, far.clone()).await {
                Ok((reader, writer)) => return Ok(counted(reader, writer, &streams)),
                Err(error) => {
                    drop((link, streams));
                    lost_under_it(error).await?;
                }
            }
        }
    }
}

/// Whether an open may be tried over the next link: where this one was lost under it, nothing was promised to anybody yet.
///
/// # Errors
/// The same error where it is another one.
async fn lost_under_it(error: OpenError) -> Result<(), OpenError> {
    if error.failure != OpenFailure::ConnectionLost {
        return Err(error);
    }
    sleep(OPEN_AGAIN).await;
    Ok(())
}
