//! When a connection for names is closed again.

use std::sync::{Arc, Weak};
use std::time::Duration;

pub(super) use tokio::time::Instant;
use tokio::time::sleep_until;
use tracing::debug;

use super::{Crew, Spare};

/// How long no name was opened over it, and no flow has gone over it.
const IDLE: Duration = Duration::from_secs(60);

/// Closes `link` once it is idle; ends when it is none of the crew any more.
pub(super) async fn close<L: Spare>(crew: Weak<Crew<L>>, link: Weak<L>) {
    let mut look = Instant::now() + IDLE;
    loop {
        sleep_until(look).await;
        let (Some(crew), Some(link)) = (crew.upgrade(), link.upgrade()) else {
            return;
        };
        match crew.look_at(&link, Instant::now()) {
            Some(at) => look = at,
            None => return link.shutdown().await,
        }
    }
}

impl<L: Spare> Crew<L> {
    /// When to look at `link` again; `None` where it is not of the crew, from now on or before.
    fn look_at(&self, link: &Arc<L>, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        let index = state.crew.iter().position(|mate| mate.is(link))?;
        let mate = &mut state.crew[index];
        if mate.member.looking > 0 || link.channels() > 0 {
            mate.used = now;
        }
        let idle_at = mate.used + IDLE;
        if idle_at > now {
            return Some(idle_at);
        }
        state.crew.remove(index);
        debug!(
            "a connection for names is closed; there are {}",
            state.crew.len()
        );
        None
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::super::tests::Rig;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn one_that_no_name_needs_is_closed_after_a_minute_and_made_again() {
        let rig = Rig::new();
        drop(rig.open("a.test").await.unwrap());
        assert_eq!((rig.made(), rig.closed()), (1, 0));
        sleep(IDLE / 2).await;
        drop(rig.open("b.test").await.unwrap());
        sleep(IDLE - SECOND).await;
        assert_eq!((rig.made(), rig.closed()), (1, 0));
        sleep(2 * SECOND).await;
        assert_eq!((rig.made(), rig.closed(), rig.crew()), (1, 1, 0));
        drop(rig.open("a.test").await.unwrap());
        assert_eq!((rig.made(), rig.closed(), rig.crew()), (2, 1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_a_flow_needs_stays() {
        let rig = Rig::new();
        let flow = rig.open("a.test").await.unwrap();
        sleep(60 * IDLE).await;
        assert_eq!((rig.made(), rig.closed()), (1, 0));
        drop(flow);
        sleep(2 * IDLE + SECOND).await;
        assert_eq!((rig.closed(), rig.crew()), (1, 0));
    }

    /// What is lost, or goes with all, is not looked at any more.
    #[tokio::test(start_paused = true)]
    async fn what_is_gone_is_not_closed() {
        let rig = Rig::new();
        drop(rig.open("a.test").await.unwrap());
        let link = rig.by_name.links().remove(0);
        rig.by_name.crew.lost(&link);
        drop(link);
        sleep(2 * IDLE).await;
        assert_eq!((rig.made(), rig.closed()), (1, 0));
    }
}
