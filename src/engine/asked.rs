//! Whom this host has sent packets to through the tunnel: they may send packets back, and nobody else out there.
//!
//! What a firewall in front of a network does as well. It is bounded: in a set of a few conversations the one that was silent for
//! longest makes room for a new one. Drivers and the tunnel share no lock for it, and what stands there already is not written again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use smoltcp::time::Instant;

use super::outline::Outline;

/// So many sets, of so many conversations: as many as a host has ports.
const SETS: usize = 1 << 14;
const EACH: usize = 4;
/// After so many seconds of silence a conversation is over, as in Linux (nf_conntrack_udp_timeout_stream is less).
const IDLE: u32 = 180;

/// Conversations, by who they are between, and when they were last heard of.
#[derive(Debug)]
pub(super) struct Asked {
    /// Nobody out there knows it, and so what falls together.
    seed: u64,
    /// In each the upper half is what a conversation is known by, the lower one its second; 0 is none.
    slots: OnceLock<Box<[AtomicU64]>>,
}

/// A conversation: the protocol, the address here and the other one, and ports where those are known.
#[derive(Clone, Copy, Hash)]
struct Talk {
    protocol: u8,
    here: IpAddr,
    there: IpAddr,
    /// Of our end, then of the other.
    ports: Option<[u16; 2]>,
}

impl Asked {
    /// Nobody has been asked yet.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            slots: OnceLock::new(),
        }
    }

    /// `packet` goes out at `now`.
    pub(super) fn goes_out(&self, now: Instant, packet: &Outline<'_>) {
        let (here, there) = (packet.source, packet.target);
        let ports = packet.ports();
        self.heard_of(now, talk(packet, here, there, ports), true);
        if ports.is_some() {
            // Of fragments behind the first.
            self.heard_of(now, talk(packet, here, there, None), true);
        }
    }

    /// Whether `packet`, which comes out of the tunnel, belongs to what went out.
    pub(super) fn is_answered_by(&self, now: Instant, packet: &Outline<'_>) -> bool {
        let ports = packet.ports().map(|[theirs, ours]| [ours, theirs]);
        let talk = talk(packet, packet.target, packet.source, ports);
        self.heard_of(now, talk, false)
    }

    /// Whether `talk` goes on at `now`; that is remembered. Otherwise it begins, where it `may_begin`.
    fn heard_of(&self, now: Instant, talk: Talk, may_begin: bool) -> bool {
        let slots = self.slots.get_or_init(|| {
            let slots = std::iter::repeat_with(AtomicU64::default);
            slots.take(SETS * EACH).collect()
        });
        let mut hasher = DefaultHasher::new();
        (self.seed, talk).hash(&mut hasher);
        let hash = hasher.finish();
        // The lower half finds the set, the upper one is the name in it.
        let first = hash as usize % SETS * EACH;
        let name = hash >> 32;
        // Never 0.
        let second = now.secs() as u32 | 1;
        let age = |slot: u64| match slot {
            0 => u32::MAX,
            // Another driver may be a moment ahead.
            slot => second.saturating_sub(slot as u32),
        };
        let set = &slots[first..first + EACH];
        let oldest = set.iter().max_by_key(|slot| age(slot.load(Relaxed)));
        let same = set.iter().find(|slot| slot.load(Relaxed) >> 32 == name);
        let is_known = same.is_some_and(|slot| age(slot.load(Relaxed)) <= IDLE);
        if let Some(slot) = same.or(oldest)
            && (is_known || may_begin)
        {
            let entry = name << 32 | u64::from(second);
            if slot.load(Relaxed) != entry {
                slot.store(entry, Relaxed);
            }
        }
        is_known
    }
}

fn talk(packet: &Outline<'_>, here: IpAddr, there: IpAddr, ports: Option<[u16; 2]>) -> Talk {
    Talk {
        protocol: packet.protocol,
        here,
        there,
        ports,
    }
}

#[cfg(test)]
mod tests {
    use super::super::outline;
    use super::*;

    fn at(second: i64) -> Instant {
        Instant::from_secs(second)
    }

    fn packet(bytes: &[u8], is_back: bool) -> Outline<'_> {
        let (ours, theirs) = ([10, 9, 0, 2].into(), [10, 0, 0, 1].into());
        let (source, target) = if is_back {
            (theirs, ours)
        } else {
            (ours, theirs)
        };
        Outline {
            bytes,
            source,
            target,
            protocol: outline::UDP,
            transport: Some(0),
        }
    }

    #[test]
    fn a_conversation_ends_after_a_silence() {
        let asked = Asked::new(7);
        let (out, back) = ([0, 1, 0, 2], [0, 2, 0, 1]);
        let is_let_in =
            |second, bytes: &[u8]| asked.is_answered_by(at(second), &packet(bytes, true));
        assert!(!is_let_in(0, &back));
        asked.goes_out(at(0), &packet(&out, false));
        assert!(is_let_in(0, &back) && is_let_in(170, &back));
        assert!(!is_let_in(170, &[0, 3, 0, 1]));
        // Either side may keep it up.
        assert!(is_let_in(340, &back));
        assert!(!is_let_in(530, &back));
        asked.goes_out(at(530), &packet(&out, false));
        assert!(is_let_in(531, &back));
    }

    /// No port is known behind the first fragment, nor in a packet that ends too soon.
    #[test]
    fn what_has_no_ports_belongs_to_any_conversation_of_both() {
        let asked = Asked::new(7);
        asked.goes_out(at(0), &packet(&[0, 1, 0, 2], false));
        let fragment = Outline {
            transport: None,
            ..packet(&[1, 2, 3], true)
        };
        assert!(asked.is_answered_by(at(1), &fragment));
        assert!(asked.is_answered_by(at(1), &packet(&[0, 2, 0], true)));
        let other = Outline {
            protocol: outline::ICMP,
            ..fragment
        };
        assert!(!asked.is_answered_by(at(1), &other));
    }

    #[test]
    fn however_many_there_are_the_latest_are_known() {
        let asked = Asked::new(7);
        let ports = |number: u32| {
            let [_, a, b, c] = number.to_be_bytes();
            [a, b, 0, c]
        };
        for number in 0..200_000 {
            asked.goes_out(at(number / 1000), &packet(&ports(number as u32), false));
        }
        let is_known = |number: i64| {
            let [a, b, c, d] = ports(number as u32);
            asked.is_answered_by(at(200), &packet(&[c, d, a, b], true))
        };
        let known = (190_000..200_000)
            .filter(|number| is_known(*number))
            .count();
        assert!(known > 9_900, "{known}");
    }
}
