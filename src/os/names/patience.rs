//! How often something is set again that somebody else undoes.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

/// Between two times.
const APART: Duration = Duration::from_secs(1);
/// So many times in [`PERIOD`] are somebody who happens to; more are somebody who means it.
const MOST: u32 = 10;
const PERIOD: Duration = Duration::from_secs(60);

/// Sets bounds to it.
#[derive(Debug)]
pub(in crate::os) struct Patience {
    began: Instant,
    times: u32,
    /// Not to be looked at before.
    next: Instant,
    /// Something may have changed that nobody has looked at.
    is_due: bool,
}

/// What is to be said of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// That it was.
    Plainly,
    /// That it is once a minute from here on.
    Last,
    /// Nothing.
    Nothing,
}

impl Patience {
    pub(in crate::os) fn new(now: Instant) -> Self {
        Self {
            began: now,
            times: 0,
            next: now,
            is_due: false,
        }
    }

    /// Waits for a change, and until it is time to look. Cancel safe: a change that was heard of is not forgotten.
    pub(super) async fn wait(&mut self, change: impl Future<Output = ()>) {
        if !self.is_due {
            change.await;
            self.is_due = true;
        }
        sleep_until(self.next).await;
        self.is_due = false;
    }

    /// Where it `was_set` again, says so, or that it is once a minute from here on.
    pub(in crate::os) fn tell(
        &mut self,
        what: &str,
        was_set: Result<bool, impl Display>,
        plainly: &str,
        last: &str,
    ) {
        match was_set.map(|was_set| was_set.then(|| self.count(Instant::now()))) {
            Ok(Some(Said::Plainly)) => info!("{plainly}"),
            Ok(Some(Said::Last)) => warn!("{last}"),
            Ok(_) => {}
            Err(error) => debug!("{what}: {error}"),
        }
    }

    /// It was set again.
    fn count(&mut self, now: Instant) -> Said {
        let is_calm = now.duration_since(self.began) >= PERIOD;
        // Who was told that it goes on is not told again before a quiet minute.
        if is_calm && self.times <= MOST || now.duration_since(self.next) >= PERIOD {
            (self.began, self.times) = (now, 0);
        }
        self.times += 1;
        self.next = now + if self.times > MOST { PERIOD } else { APART };
        match self.times {
            times if times <= MOST => Said::Plainly,
            times if times == MOST + 1 => Said::Last,
            _ => Said::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn who_goes_on_undoing_is_followed_once_a_minute() {
        let mut now = Instant::now();
        let mut patience = Patience::new(now);
        let mut said = Vec::new();
        for _ in 0..13 {
            now = now.max(patience.next);
            said.push(patience.count(now));
        }
        let (plain, rest) = said.split_at(10);
        assert!(plain.iter().all(|said| *said == Said::Plainly));
        assert_eq!(rest, [Said::Last, Said::Nothing, Said::Nothing]);
        assert_eq!(patience.next, now + PERIOD);
        // A quiet time makes up for it.
        assert_eq!(patience.count(now + 3 * PERIOD), Said::Plainly);
    }

    #[test]
    fn who_does_it_now_and_then_is_told_of_each_time() {
        let mut now = Instant::now();
        let mut patience = Patience::new(now);
        for _ in 0..100 {
            now += PERIOD / 4;
            assert_eq!(patience.count(now), Said::Plainly);
        }
    }
    #[tokio::test(start_paused = true)]
    async fn a_change_that_was_heard_of_is_looked_at_whatever_comes_between() {
        let mut patience = Patience::new(Instant::now());
        patience.count(Instant::now());
        tokio::select! {
            biased;
            () = patience.wait(ready(())) => panic!("too early"),
            () = ready(()) => {}
        }
        patience.wait(pending()).await;
        assert!(patience.wait(pending()).now_or_never().is_none());
    }
}
