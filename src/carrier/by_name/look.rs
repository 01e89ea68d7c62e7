//! One lookup, from its turn to its end.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::{Crew, Spare};
use crate::net::{Far, OpenError, OpenFailure, Source};

/// After so long without an answer the server is asked whether it still looks the name up.
const QUICK: Duration = Duration::from_millis(500);
/// The answer about a name comes just before that.
const TOGETHER: Duration = Duration::from_millis(50);

/// A place for a lookup, given back when dropped.
pub(super) struct Turn<L: Spare> {
    crew: Arc<Crew<L>>,
    link: Arc<L>,
    is_new: bool,
}

impl<L: Spare> Turn<L> {
    pub(super) fn new(crew: Arc<Crew<L>>, link: Arc<L>, is_new: bool) -> Self {
        Self { crew, link, is_new }
    }

    fn note(&self, name: &Arc<str>, took: Duration, answer: Result<(), OpenFailure>) {
        if answer == Err(OpenFailure::ConnectionLost) {
            self.crew.lost(&self.link);
        }
        let mut state = self.crew.state();
        state.memory.note(name, took, answer, Instant::now());
    }
}

impl<L: Spare> Drop for Turn<L> {
    fn drop(&mut self) {
        self.crew.left(&self.link, self.is_new);
    }
}

/// Opens a stream to `name` over the link of `turn`, which is given back once the name was looked up.
pub(super) async fn look<L: Spare>(
    turn: Turn<L>,
    source: Source,
    far: Far,
    name: Arc<str>,
) -> Result<(L::Reader, L::Writer), OpenError> {
    let link = Arc::clone(&turn.link);
    let began = Instant::now();
    let mut open = pin!(link.open_far(source, far));
    let looked_up = async {
        sleep(QUICK).await;
        link.done().await;
    };
    let opened = tokio::select! {
        biased;
        opened = &mut open => Some(opened),
        () = looked_up => None,
    };
    let took = began.elapsed();
    let opened = match opened {
        Some(opened) => Some(opened),
        None => timeout(TOGETHER, &mut open).await.ok(),
    };
    if let Some(opened) = opened {
        let failure = |error: &OpenError| error.failure;
        turn.note(&name, took, opened.as_ref().map(|_| ()).map_err(failure));
        return opened;
    }
    // The host is being connected to: that is its own affair.
    turn.note(&name, took, Ok(()));
    drop(turn);
    open.await
}
