//! How long to wait before the next try. Knows neither clock nor tasks.
//!
//! Two things are to be kept apart. A TCP connection that is refused or finds no way costs nobody anything: it may be
//! tried often, so that we are back the moment the server is. A connection that the server took, and that did
//! not end in a login, counts against this address with OpenSSH 9.8 and later (sshd_config(5), PerSourcePenalties):
//! `authfail:5s` for a refused login, `noauth:1s` for one that was not tried, and nobody from the address gets in while the
//! penalties that have piled up are above `min:15s`. They pass with time, second for second. So:
//!
//! - connections without a login: the first five come after 0, 0.5, 1, 2 and 4 s at the least, which is 5 s of penalties in
//!   7.5 s; from then on each is 8 s and more after the last. What has piled up is never above 5 s.
//! - refused logins: each is 30 s or more after the last. What has piled up is never above 5 s, and no penalty of the
//!   defaults (`grace-exceeded:10s` is the longest that a login can earn) outlasts the wait.

use std::time::Duration;

use crate::carrier::error::ConnectError;

/// Between two tries of a server that no connection reaches: at most this, at least half of it.
const KNOCK: Duration = Duration::from_millis(500);
/// How long it is tried so often.
const KNOCK_FOR: Duration = Duration::from_secs(300);
/// The least wait after a login that did not come to its end; doubled each time.
const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_secs(30);
/// The least wait after a refused login; doubled each time.
const REFUSED_FIRST: Duration = Duration::from_secs(30);
const REFUSED_LAST: Duration = Duration::from_secs(600);
/// A connection that lasts so long is a good one; one that is lost before counts as a login that failed.
const STABLE: Duration = Duration::from_secs(10);

/// What a try that failed cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing: no connection came to be.
    NotReached,
    /// A connection that the server took.
    NoLogin,
    /// A login that it refused.
    Refused,
}

impl Failure {
    /// `is_direct`: our own TCP connection is the only one on the way. Through a jump host or a command, each try is a login
    /// somewhere, or a process.
    pub(super) fn of(error: &ConnectError, is_direct: bool) -> Self {
        match error.origin() {
            ConnectError::UnknownHost { .. }
            | ConnectError::Unreachable { .. }
            | ConnectError::TimedOut { .. }
                if is_direct =>
            {
                Self::NotReached
            }
            ConnectError::Refused { .. }
            | ConnectError::TooManyTries { .. }
            | ConnectError::Expired { .. }
            | ConnectError::HostKey(_) => Self::Refused,
            _ => Self::NoLogin,
        }
    }
}

/// The waits of one run.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// Logins in a row that failed, or that did not last.
    logins: u32,
    refused: u32,
    knocks: u32,
}

impl Backoff {
    /// The wait before the first try, when a connection that was up for `up_for` is lost.
    pub(super) fn lost(&mut self, up_for: Duration, random: u64) -> Duration {
        self.knocks = 0;
        match up_for >= STABLE {
            true => *self = Self::default(),
            // The first link is nobody's try: its login counts here.
            false => self.logins = self.logins.max(1),
        }
        self.logins += 1;
        match self.logins {
            1 => Duration::ZERO,
            logins => later(doubled(FIRST, LAST, logins - 2), random),
        }
    }

    /// The wait after a try that failed; `down_for`: since the connection was lost.
    pub(super) fn failed(&mut self, failure: Failure, down_for: Duration, random: u64) -> Duration {
        match failure {
            Failure::NotReached if down_for < KNOCK_FOR => sooner(KNOCK, random),
            Failure::NotReached => {
                self.knocks += 1;
                sooner(doubled(KNOCK, LAST, self.knocks), random)
            }
            Failure::NoLogin => {
                self.logins += 1;
                later(doubled(FIRST, LAST, self.logins.saturating_sub(2)), random)
            }
            Failure::Refused => {
                self.refused += 1;
                later(
                    doubled(REFUSED_FIRST, REFUSED_LAST, self.refused - 1),
                    random,
                )
            }
        }
    }
}

fn doubled(first: Duration, last: Duration, times: u32) -> Duration {
    first.saturating_mul(2u32.saturating_pow(times)).min(last)
}

/// `wait` and up to half of it more: a bound from below, for what is counted at the server.
fn later(wait: Duration, random: u64) -> Duration {
    wait + part(wait / 2, random)
}

/// `wait` less up to half of it: a bound from above.
fn sooner(wait: Duration, random: u64) -> Duration {
    wait - part(wait / 2, random)
}

fn part(whole: Duration, random: u64) -> Duration {
    const STEPS: u32 = 1024;
    whole * ((random % u64::from(STEPS)) as u32) / STEPS
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn ms(wait: Duration) -> u128 {
        wait.as_millis()
    }

    /// The penalty that has piled up at the worst moment, in milliseconds, when each wait is as short as it can be.
    fn worst(mut waits: impl FnMut(u32) -> Duration, penalty_ms: u128) -> u128 {
        let (mut piled, mut worst) = (0, 0);
        for attempt in 0..100 {
            piled = u128::saturating_sub(piled, ms(waits(attempt))) + penalty_ms;
            worst = worst.max(piled);
        }
        worst
    }

    /// sshd_config(5): `authfail:5s noauth:1s min:15s`.
    #[test]
    fn the_penalties_of_sshd_never_bite() {
        let mut backoff = Backoff::default();
        let unlogged = worst(
            |attempt| match attempt {
                0 => backoff.lost(LONG, 0),
                _ => backoff.failed(Failure::NoLogin, LONG, 0),
            },
            1_000,
        );
        assert!(unlogged <= 5_000, "{unlogged} ms");
        let mut backoff = Backoff::default();
        let refused = worst(
            |attempt| match attempt {
                0 => backoff.lost(LONG, 0),
                _ => backoff.failed(Failure::Refused, LONG, 0),
            },
            5_000,
        );
        assert!(refused <= 5_000, "{refused} ms");
    }

    #[test]
    fn what_a_try_costs() {
        let enough = ConnectError::TooManyTries {
            user: "me".to_owned(),
            host: "h".to_owned(),
            said: "too many".into(),
            count: 6,
            tried: String::new(),
            hint: "",
        };
        assert_eq!(Failure::of(&enough, true), Failure::Refused);
        // It counts at a jump host as well.
        let at_a_hop = enough.of_hop("gw");
        assert_eq!(Failure::of(&at_a_hop, false), Failure::Refused);
        // Nobody was refused: the server, or who confirms a login there, may be slow.
        let unanswered = ConnectError::Unanswered {
            host: "h".to_owned(),
            seconds: 150,
            hint: String::new(),
        };
        assert_eq!(Failure::of(&unanswered, true), Failure::NoLogin);
    }

    #[test]
    fn at_once_then_doubling_up_to_half_a_minute() {
        let mut backoff = Backoff::default();
        assert_eq!(ms(backoff.lost(LONG, 7)), 0);
        let mut wait = || ms(backoff.failed(Failure::NoLogin, LONG, 0));
        assert_eq!([wait(), wait(), wait(), wait()], [500, 1000, 2000, 4000]);
        assert_eq!(
            [wait(), wait(), wait(), wait()],
            [8000, 16000, 30000, 30000]
        );
        let most = backoff.failed(Failure::NoLogin, LONG, u64::MAX);
        assert!((44_000..45_000).contains(&ms(most)), "{most:?}");
    }

    #[test]
    fn a_server_that_is_not_reached_is_tried_often_for_minutes() {
        let mut backoff = Backoff::default();
        for random in 0..5000 {
            let wait = ms(backoff.failed(Failure::NotReached, LONG, random));
            assert!((250..=500).contains(&wait), "{wait}");
        }
        let late = KNOCK_FOR;
        let waits: Vec<_> = (0..7)
            .map(|_| ms(backoff.failed(Failure::NotReached, late, 0)))
            .collect();
        assert_eq!(waits, [1000, 2000, 4000, 8000, 16000, 30000, 30000]);
    }

    #[test]
    fn connections_that_do_not_last_are_no_reason_to_hurry() {
        let mut backoff = Backoff::default();
        let short = Duration::from_secs(1);
        let waits: Vec<_> = (0..4).map(|_| ms(backoff.lost(short, 0))).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000]);
        assert_eq!(ms(backoff.lost(STABLE, 0)), 0);
    }
}
