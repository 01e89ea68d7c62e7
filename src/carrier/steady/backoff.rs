//! How long to wait before the next try. Knows neither clock nor tasks.
//!
//! What a try has cost decides. A TCP connection that is refused or finds no way costs nobody anything: it may be
//! tried often, so that we are back the moment the server is. A connection that the server took, and that did
//! not end in a login, counts against this address with OpenSSH 9.8 and later (sshd_config(5), PerSourcePenalties):
//! `authfail:5s` for a refused login, `noauth:1s` for one that was not tried, and nobody from the address gets in while the
//! penalties that have piled up are above `min:15s`. They pass with time, second for second. A login that succeeds counts
//! as nothing (sshd.c `server_accept_loop`: who is logged in is followed no further), however soon it ends. So:
//!
//! - nothing reached, from here on: twice a second or more, for five minutes.
//! - something on the way let us in or ran, and did not lead to the server: a jump host that does not connect further, a command
//!   that ended before the server had said a word (sshd says its version before it counts anything). No penalty, but a login
//!   there, with its lines in a log, or a process or a cloud session here: as often, but for one minute, in which a server is
//!   started again, and never busy for more than half of the time. A command that ends so may be an ssh which a gateway has not
//!   let in, and there it counts: one whose words say so (`carrier/error/command.rs`) is a refused login, or a connection
//!   without one. What other programs say of that nobody can know; they are tried as often for a minute.
//! - connections without a login: the first five come after 0, 0.5, 1, 2 and 4 s at the least, which is 5 s of penalties in
//!   7.5 s; from then on each is 8 s and more after the last. What has piled up is never above 5 s.
//! - refused logins: each is 30 s or more after the last. What has piled up is never above 5 s, and no penalty of the
//!   defaults (`grace-exceeded:10s` is the longest that a login can earn) outlasts the wait.
//! - logins that did not last: three in a row are tried again after 0.5 s, as a server is that was started again and again; from
//!   then on 3, 6, 12 ... 30 s lie between them, for a server that hangs up on everybody would have us log in without end.

use std::time::Duration;

use crate::carrier::error::{CommandEnd, ConnectError, Stage};

/// Between two tries of a server that no connection reaches: at most this, at least half of it.
const KNOCK: Duration = Duration::from_millis(500);
/// How long it is tried so often, and how long where each try is a login on the way, or a process.
const KNOCK_FOR: Duration = Duration::from_secs(300);
const KNOCK_ON_THE_WAY_FOR: Duration = Duration::from_secs(60);
/// The least wait after a login that did not come to its end; doubled each time.
const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_secs(30);
/// The least wait after a refused login; doubled each time.
const REFUSED_FIRST: Duration = Duration::from_secs(30);
const REFUSED_LAST: Duration = Duration::from_secs(600);
/// A connection that lasts so long is a good one.
const STABLE: Duration = Duration::from_secs(10);
/// So many in a row that did not last are made good soon; then the least wait, doubled each time.
const FORGIVEN: u32 = 3;
const UNFORGIVEN_FIRST: Duration = Duration::from_secs(3);

/// What a try that failed cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing: no connection came to be.
    NotReached,
    /// A login at a jump host, or a process here that blames none, that did not lead to the server.
    OnTheWay,
    /// A connection that the server took, or a host on the way.
    NoLogin,
    /// A login that it refused.
    Refused,
}

impl Failure {
    pub(super) fn of(error: &ConnectError) -> Self {
        match error.origin() {
            // Of a TCP connection of our own, or of our ssh's: to the server, or to the first jump host.
            ConnectError::UnknownHost { .. }
            | ConnectError::Unreachable { .. }
            | ConnectError::BindAddress { .. }
            | ConnectError::TimedOut {
                stage: Stage::Connecting,
                ..
            } => Self::NotReached,
            ConnectError::Forward { .. }
            | ConnectError::Command {
                end: CommandEnd::NoWay,
                ..
            }
            | ConnectError::TimedOut {
                stage: Stage::Forwarding,
                ..
            } => Self::OnTheWay,
            ConnectError::Refused { .. }
            | ConnectError::TooManyTries { .. }
            | ConnectError::Expired { .. }
            | ConnectError::HostKey(_)
            | ConnectError::Command {
                end: CommandEnd::Refused | CommandEnd::HostKey,
                ..
            } => Self::Refused,
            _ => Self::NoLogin,
        }
    }
}

/// A try that failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Try {
    pub(super) failure: Failure,
    /// How long it took.
    pub(super) took: Duration,
    /// Since the connection was lost.
    pub(super) down_for: Duration,
}

/// The waits of one run.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// Connections in a row that did not last.
    brief: u32,
    /// Connections without a login.
    unlogged: u32,
    refused: u32,
    /// Tries that cost little, since they are not made so often any more.
    knocks: u32,
}

impl Backoff {
    /// The wait before the first try, when a connection that was up for `up_for` is lost.
    pub(super) fn lost(&mut self, up_for: Duration, random: u64) -> Duration {
        if up_for >= STABLE {
            *self = Self::default();
            return Duration::ZERO;
        }
        self.knocks = 0;
        self.brief += 1;
        let wait = match self.brief.checked_sub(FORGIVEN + 1) {
            None => FIRST,
            Some(more) => doubled(UNFORGIVEN_FIRST, LAST, more),
        };
        later(wait, random)
    }

    /// The wait after a try that failed.
    pub(super) fn failed(&mut self, tried: Try, random: u64) -> Duration {
        let Try { took, down_for, .. } = tried;
        match tried.failure {
            Failure::NotReached if down_for < KNOCK_FOR => sooner(KNOCK, random),
            Failure::OnTheWay if down_for < KNOCK_ON_THE_WAY_FOR => sooner(KNOCK, random).max(took),
            Failure::NotReached | Failure::OnTheWay => {
                self.knocks += 1;
                sooner(doubled(KNOCK, LAST, self.knocks), random)
            }
            Failure::NoLogin => {
                self.unlogged += 1;
                later(doubled(FIRST, LAST, self.unlogged - 1), random)
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

    /// The wait after a try of no time, long before or `down_for` after the loss.
    fn failed(backoff: &mut Backoff, failure: Failure, down_for: Duration, random: u64) -> u128 {
        let took = Duration::ZERO;
        ms(backoff.failed(
            Try {
                failure,
                took,
                down_for,
            },
            random,
        ))
    }

    /// The penalty that has piled up at the worst moment, in milliseconds, when each wait is as short as it can be.
    fn worst(mut waits: impl FnMut(u32) -> u128, penalty_ms: u128) -> u128 {
        let (mut piled, mut worst) = (0, 0);
        for attempt in 0..100 {
            piled = u128::saturating_sub(piled, waits(attempt)) + penalty_ms;
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
                0 => ms(backoff.lost(LONG, 0)),
                _ => failed(&mut backoff, Failure::NoLogin, LONG, 0),
            },
            1_000,
        );
        assert!(unlogged <= 5_000, "{unlogged} ms");
        let mut backoff = Backoff::default();
        let refused = worst(
            |attempt| match attempt {
                0 => ms(backoff.lost(LONG, 0)),
                _ => failed(&mut backoff, Failure::Refused, LONG, 0),
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
        assert_eq!(Failure::of(&enough), Failure::Refused);
        // It counts at a jump host as well.
        let at_a_hop = enough.of_hop("gw");
        assert_eq!(Failure::of(&at_a_hop), Failure::Refused);
        // Nobody was refused: the server, or who confirms a login there, may be slow.
        let unanswered = ConnectError::Unanswered {
            host: "h".to_owned(),
            seconds: 150,
            hint: String::new(),
        };
        assert_eq!(Failure::of(&unanswered), Failure::NoLogin);
    }

    /// Whatever is on the way, a connection that was not made costs nothing.
    #[test]
    fn what_is_not_reached_costs_nothing_at_a_jump_host_either() {
        let unreached = || ConnectError::Unreachable {
            server: "192.0.2.1:22".to_owned(),
            source: std::io::ErrorKind::ConnectionRefused.into(),
        };
        let timed_out = |stage| ConnectError::TimedOut {
            server: "192.0.2.1:22".to_owned(),
            seconds: 1,
            stage,
        };
        let command = |end| ConnectError::Command {
            host: "h".to_owned(),
            detail: "it ended".to_owned(),
            command: "nc h 22".to_owned(),
            end,
        };
        let forward = ConnectError::Forward {
            hop: "gw".to_owned(),
            target: "h:22".to_owned(),
            reason: "refused".to_owned(),
            arguments: "gw".to_owned(),
        };
        for (error, failure) in [
            (unreached(), Failure::NotReached),
            (unreached().of_hop("gw"), Failure::NotReached),
            (timed_out(Stage::Connecting), Failure::NotReached),
            (timed_out(Stage::Forwarding), Failure::OnTheWay),
            (timed_out(Stage::Banner), Failure::NoLogin),
            (forward.of_hop("inner"), Failure::OnTheWay),
            (command(CommandEnd::NoWay), Failure::OnTheWay),
            (command(CommandEnd::HungUp), Failure::NoLogin),
            (command(CommandEnd::Refused), Failure::Refused),
            (command(CommandEnd::HostKey), Failure::Refused),
            // The server had said something.
            (command(CommandEnd::Late), Failure::NoLogin),
        ] {
            assert_eq!(Failure::of(&error), failure, "{error}");
        }
    }

    #[test]
    fn at_once_then_doubling_up_to_half_a_minute() {
        let mut backoff = Backoff::default();
        assert_eq!(ms(backoff.lost(LONG, 7)), 0);
        let mut wait = || failed(&mut backoff, Failure::NoLogin, LONG, 0);
        assert_eq!([wait(), wait(), wait(), wait()], [500, 1000, 2000, 4000]);
        assert_eq!(
            [wait(), wait(), wait(), wait()],
            [8000, 16000, 30000, 30000]
        );
        let most = failed(&mut backoff, Failure::NoLogin, LONG, u64::MAX);
        assert!((44_000..45_000).contains(&most), "{most}");
    }

    #[test]
    fn a_server_that_is_not_reached_is_tried_often_for_minutes() {
        let mut backoff = Backoff::default();
        for random in 0..5000 {
            let wait = failed(&mut backoff, Failure::NotReached, LONG, random);
            assert!((250..=500).contains(&wait), "{wait}");
        }
        let late = KNOCK_FOR;
        let waits: Vec<_> = (0..7)
            .map(|_| failed(&mut backoff, Failure::NotReached, late, 0))
            .collect();
        assert_eq!(waits, [1000, 2000, 4000, 8000, 16000, 30000, 30000]);
    }

    #[test]
    fn logins_on_the_way_are_many_for_a_minute_at_most() {
        let mut backoff = Backoff::default();
        let mut down_for = Duration::ZERO;
        let mut tries = 0;
        while down_for < KNOCK_ON_THE_WAY_FOR {
            let wait = failed(&mut backoff, Failure::OnTheWay, down_for, tries);
            assert!((250..=500).contains(&wait), "{wait}");
            down_for += Duration::from_millis(wait as u64);
            tries += 1;
        }
        assert!(tries <= 240, "{tries}");
        let waits: Vec<_> = (0..7)
            .map(|_| failed(&mut backoff, Failure::OnTheWay, down_for, 0))
            .collect();
        assert_eq!(waits, [1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        // One that takes its time is not begun again at once.
        let slow = Try {
            failure: Failure::OnTheWay,
            took: Duration::from_secs(2),
            down_for: Duration::from_secs(10),
        };
        assert_eq!(ms(backoff.failed(slow, 0)), 2000);
    }

    #[test]
    fn connections_that_do_not_last_are_no_reason_to_hurry() {
        let mut backoff = Backoff::default();
        let short = Duration::from_secs(1);
        let waits: Vec<_> = (0..8).map(|_| ms(backoff.lost(short, 0))).collect();
        assert_eq!(waits, [500, 500, 500, 3000, 6000, 12000, 24000, 30000]);
        assert_eq!(ms(backoff.lost(STABLE, 0)), 0);
    }
}
