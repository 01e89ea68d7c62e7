//! Which connection the next flow goes to, and when a further one is worth its login. Plain values in, a decision out.

use std::sync::Arc;
use std::time::Instant;

use super::super::connection::Connection;

/// Connections at most, those that are being let go included: for as many channels as there may be flows.
const MAX_CONNECTIONS: usize = 72;
/// Connections up to which a further one may be had for the next flows' sake; one more while one of `--connections 16` is
/// replaced. Beyond them each is to be nearly full first.
const CONNECTIONS_EAGER: usize = 16;
/// Connections at least, where a login asks nobody: a flow that comes while another transfers in bulk has one to itself,
/// and of many the two share the work (measured with 8 flows: 1.1 times the download, 1.4 times the upload of one).
const CONNECTIONS_MIN: usize = 2;
/// Connections up to which bulk transfers are kept apart from what comes next.
const CONNECTIONS_APART: usize = 4;
/// Channels per connection above which a further one is made. russh walks all channels of a connection for each packet
/// (`has_any_pending_data`), so a busy flow pays for the idle ones beside it; and sshd needs a descriptor for
/// each, of which a process has 1,024 by default.
const CHANNELS_WANTED: usize = 900;
/// A connection with fewer channels is quick: sshd and russh both walk all channels of a connection again and again
/// (measured: 100 idle ones halve a download beside them, 1,100 bring it down to a sixteenth). One such is kept ready.
const CHANNELS_QUICK: usize = 32;
/// Channels per connection on average from which more than [`CONNECTIONS_APART`] are worth their logins.
const CHANNELS_MANY: usize = 256;
/// The same from which more than [`CONNECTIONS_EAGER`] are. Where flows went on to those, each open was a walk of thousands of
/// channels for sshd: opens per second fell from 2,500 to 300, and 50,000 took more than five minutes.
const CHANNELS_NEARLY_ALL: usize = CHANNELS_WANTED - 100;
/// Channels on one connection at most. sshd ends the session at 16,384 (channels.h CHANNELS_MAX_CHANNELS).
const CHANNELS_MAX: usize = 16_000;

/// What a connection looks like to the choice of the next flow: the least is best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Burden {
    pub(super) full: bool,
    stalled: bool,
    due: bool,
    slow: bool,
    busy: bool,
    channels: usize,
}

impl Burden {
    pub(super) fn of(connection: &Connection, now: Instant) -> Self {
        let load = connection.load();
        Self {
            full: load.channels() >= CHANNELS_MAX,
            stalled: load.stalled() + load.waiting() > 0,
            due: connection.is_due(now),
            slow: load.channels() >= CHANNELS_QUICK,
            busy: load.is_busy(now),
            channels: load.channels(),
        }
    }

    /// Whether it counts as a place for new flows.
    pub(super) fn is_open(&self) -> bool {
        !self.full && !self.stalled && !self.due
    }
}

/// Whether a further connection is to be made now: there should be two, and one that is quick and carries no bulk
/// transfer, as long as that takes few connections or the flows are many.
/// Where a number was `asked` for, there should be so many.
pub(super) fn should_grow(burdens: &[Burden], asked: Option<usize>) -> bool {
    if let Some(asked) = asked {
        let staying = burdens.iter().filter(|b| !b.due).count();
        return staying < asked && burdens.len() <= CONNECTIONS_EAGER;
    }
    let open: Vec<_> = burdens.iter().filter(|b| b.is_open()).collect();
    let channels: usize = open.iter().map(|b| b.channels).sum();
    let none_quick = open.iter().all(|b| b.slow);
    let many = if open.len() < CONNECTIONS_EAGER {
        CHANNELS_MANY
    } else {
        CHANNELS_NEARLY_ALL
    };
    let none_free = open.iter().all(|b| b.slow || b.busy);
    let wanted = open.len() < CONNECTIONS_MIN
        || (none_free && open.len() < CONNECTIONS_APART)
        || (none_quick && channels >= open.len() * many);
    burdens.len() < MAX_CONNECTIONS && wanted
}

/// The place in `burdens` of the connection for the next flow. Flows gather on one connection while it is quick and
/// carries no bulk transfer: eight downloads that begin together take a fifth less CPU over one connection than over two,
/// and the next flow finds a connection to itself. In a rush (a scan, an application that opens thousands) they are packed
/// together beyond that, so that the quick connection stays so for who comes next. Where a number of connections was
/// `asked` for, flows are spread over them.
pub(super) fn choose(burdens: &[Burden], in_rush: bool, asked: Option<usize>) -> Option<usize> {
    let fits = |b: &Burden| b.is_open() && !b.busy && b.slow && b.channels < CHANNELS_WANTED;
    let packed = || {
        let fitting = burdens.iter().enumerate().filter(|(_, b)| fits(b));
        fitting.max_by_key(|(_, b)| b.channels)
    };
    let gathered = || {
        let quick = |b: &Burden| b.is_open() && !b.busy && !b.slow;
        let fitting = burdens.iter().enumerate().filter(|(_, b)| quick(b));
        // Of those with as many, the oldest.
        fitting.rev().max_by_key(|(_, b)| b.channels)
    };
    let least = || burdens.iter().enumerate().min_by_key(|(_, b)| **b);
    let chosen = match (asked, in_rush) {
        (Some(_), _) => None,
        (None, true) => packed().or_else(gathered),
        (None, false) => gathered(),
    };
    let chosen = chosen.or_else(least);
    chosen.map(|(index, _)| index)
}

pub(super) fn burdens(list: &[Arc<Connection>], now: Instant) -> Vec<Burden> {
    list.iter().map(|c| Burden::of(c, now)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Burden = Burden {
        full: false,
        stalled: false,
        due: false,
        slow: false,
        busy: false,
        channels: 0,
    };

    fn with(channels: usize) -> Burden {
        Burden {
            channels,
            slow: channels >= CHANNELS_QUICK,
            ..FRESH
        }
    }

    #[test]
    fn there_are_two_and_one_of_them_is_quick() {
        assert!(should_grow(&[FRESH], None));
        assert!(!should_grow(&[FRESH, FRESH], None));
        let some = with(CHANNELS_QUICK);
        assert!(!should_grow(&[some, FRESH], None));
        assert!(should_grow(&[some, some], None));
        assert!(!should_grow(&[some; CONNECTIONS_APART], None));
        let many = with(CHANNELS_MANY);
        assert!(should_grow(&[many; CONNECTIONS_APART], None));
        assert!(!should_grow(&[many, many, many, many, FRESH], None));
        assert!(!should_grow(&[many; CONNECTIONS_EAGER], None));
        let nearly_full = with(CHANNELS_NEARLY_ALL);
        assert!(should_grow(&[nearly_full; CONNECTIONS_EAGER], None));
        assert!(!should_grow(&[nearly_full; MAX_CONNECTIONS], None));
    }

    #[test]
    fn as_many_as_asked_for_and_flows_are_spread() {
        let asked = Some(3);
        let (busy, due) = (true, true);
        assert!(should_grow(&[FRESH, FRESH], asked));
        assert!(!should_grow(&[with(900), with(900), with(900)], asked));
        assert!(!should_grow(&[Burden { busy, ..FRESH }], Some(1)));
        assert!(should_grow(&[FRESH, FRESH, Burden { due, ..FRESH }], asked));
        assert_eq!(choose(&[with(3), with(5), with(2)], false, asked), Some(2));
        assert_eq!(
            choose(&[with(300), with(899), with(5)], true, asked),
            Some(2)
        );
    }

    #[test]
    fn flows_gather_where_it_is_quick() {
        let busy = Burden {
            busy: true,
            ..with(20)
        };
        assert_eq!(choose(&[with(3), with(5), FRESH], false, None), Some(1));
        assert_eq!(choose(&[FRESH, FRESH], false, None), Some(0));
        assert_eq!(choose(&[busy, FRESH], false, None), Some(1));
        assert_eq!(
            choose(&[with(CHANNELS_QUICK), with(2)], false, None),
            Some(1)
        );
        assert_eq!(choose(&[busy, with(CHANNELS_QUICK)], false, None), Some(0));
    }

    #[test]
    fn in_a_rush_flows_are_packed() {
        let burdens = [with(300), with(899), with(900), with(5)];
        assert_eq!(choose(&burdens, true, None), Some(1));
        assert_eq!(choose(&burdens, false, None), Some(3));
        assert_eq!(choose(&[with(900), with(7)], true, None), Some(1));
        assert_eq!(choose(&[], true, None), None);
    }

    #[test]
    fn what_takes_no_new_flows_is_replaced() {
        let (stalled, due, full) = (true, true, true);
        for closed in [
            Burden { stalled, ..FRESH },
            Burden { due, ..FRESH },
            Burden { full, ..FRESH },
        ] {
            assert!(should_grow(&[closed, FRESH], None));
            assert!(!should_grow(&[closed, FRESH, FRESH], None));
            assert!(FRESH < closed);
        }
    }

    #[test]
    fn a_new_flow_keeps_away_from_bulk_but_not_at_any_price() {
        let busy = Burden {
            busy: true,
            ..FRESH
        };
        assert!(with(CHANNELS_QUICK - 1) < busy);
        assert!(busy < with(CHANNELS_QUICK));
        assert!(should_grow(&[busy, busy], None));
        assert!(!should_grow(&[busy, FRESH], None));
        assert!(!should_grow(&[busy; CONNECTIONS_APART], None));
    }
}
