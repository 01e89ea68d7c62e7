//! Addresses that stand for names: where nobody can be asked for the addresses of the far side, who asks for a name gets one of ours,
//! and the far side is asked to open a connection to the name.
//!
//! Every name keeps its place as long as that is not needed for another one. The one that was not asked for, or used, longest goes
//! first; never while a connection uses it, nor as long as somebody may still go by what they were told.
//!
//! Where there is room, the place of a name follows from the name: who has kept an address from an earlier run reaches the same host, or
//! nobody, and hardly ever another one.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::{Ipv4Net, Ipv6Net};

/// How long clients may go by an answer, in seconds.
pub(super) const TTL: u32 = 60;
/// How long an address stays with its name after it was told, or used: some keep it for longer than they may.
const HOLD: Duration = Duration::from_secs(300);
/// Names at a time, however large the networks are.
pub(super) const MOST: u32 = 16_384;

/// The networks that addresses are of. The first and the last address of each are nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pools {
    /// For IPv4.
    pub v4: Ipv4Net,
    /// For IPv6, where names have addresses of that, too.
    pub v6: Option<Ipv6Net>,
}

impl Pools {
    fn room(&self) -> u32 {
        let v4 = 1_u32.checked_shl(32 - u32::from(self.v4.prefix_len()));
        let v6 = self.v6.map_or(0, |net| net.prefix_len());
        let v6 = 1_u32.checked_shl(128 - u32::from(v6));
        let most = |size: Option<u32>| size.unwrap_or(u32::MAX).saturating_sub(2);
        most(v4).min(most(v6)).min(MOST)
    }

    /// Whether `ip` is one of their addresses.
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        self.index(ip).is_some()
    }

    fn index(&self, ip: IpAddr) -> Option<u32> {
        let offset = match ip.to_canonical() {
            IpAddr::V4(ip) if self.v4.contains(&ip) => {
                u128::from(ip.to_bits() - self.v4.network().to_bits())
            }
            IpAddr::V4(_) => return None,
            IpAddr::V6(ip) => {
                let net = self.v6.filter(|net| net.contains(&ip))?;
                ip.to_bits() - net.network().to_bits()
            }
        };
        // What has no place is nobody's, too.
        Some(u32::try_from(offset).unwrap_or(u32::MAX).wrapping_sub(1))
    }
}

/// Whom an address of the far side's stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// It is none that we gave.
    Other,
    /// It is one of ours, and nobody's.
    Nobody,
    /// This host.
    Name(Arc<str>),
}

/// See the module. `now` never goes back.
#[derive(Debug)]
pub(super) struct Pool {
    pools: Pools,
    places: HashMap<u32, Place>,
    by_name: HashMap<Arc<str>, u32>,
    /// Those that no connection uses, by when they were needed last.
    idle: BTreeMap<u64, u32>,
    serial: u64,
}

#[derive(Debug)]
struct Place {
    name: Arc<str>,
    connections: u32,
    /// When it was needed last, and its key in `idle`.
    at: Instant,
    serial: u64,
}

impl Pool {
    pub(super) fn new(pools: Pools) -> Self {
        Self {
            pools,
            places: HashMap::new(),
            by_name: HashMap::new(),
            idle: BTreeMap::new(),
            serial: 0,
        }
    }

    /// The addresses that stand for `name` from now on; `None` where there is no room.
    pub(super) fn addresses(
        &mut self,
        now: Instant,
        name: &str,
    ) -> Option<(Ipv4Addr, Option<Ipv6Addr>)> {
        let index = match self.by_name.get(name) {
            Some(index) => *index,
            None => self.make(now, name.into())?,
        };
        self.touch(now, index);
        let offset = index + 1;
        let v4 = self.pools.v4.network().to_bits() + offset;
        let v6 = self
            .pools
            .v6
            .map(|net| net.network().to_bits() + u128::from(offset));
        Some((v4.into(), v6.map(Ipv6Addr::from)))
    }

    fn make(&mut self, now: Instant, name: Arc<str>) -> Option<u32> {
        let index = match self.free_place(&name) {
            Some(index) => index,
            None => {
                let (_, &index) = self.idle.first_key_value()?;
                let place = self.places.get(&index)?;
                if now.saturating_duration_since(place.at) < HOLD {
                    return None;
                }
                self.idle.remove(&place.serial);
                self.by_name.remove(&place.name);
                index
            }
        };
        let place = Place {
            name: Arc::clone(&name),
            connections: 0,
            at: now,
            serial: 0,
        };
        self.places.insert(index, place);
        self.by_name.insert(name, index);
        Some(index)
    }

    /// The first place that nobody has, from that on which is the name's.
    fn free_place(&self, name: &str) -> Option<u32> {
        let room = self.pools.room();
        if self.places.len() >= room as usize {
            return None;
        }
        let own = (hash(name) % u64::from(room)) as u32;
        let mut places = (own..room).chain(0..own);
        places.find(|index| !self.places.contains_key(index))
    }

    fn touch(&mut self, now: Instant, index: u32) {
        let Some(place) = self.places.get_mut(&index) else {
            return;
        };
        self.idle.remove(&place.serial);
        self.serial += 1;
        (place.serial, place.at) = (self.serial, now);
        if place.connections == 0 {
            self.idle.insert(self.serial, index);
        }
    }

    /// How many names cannot make room for others now, and how many there can be.
    pub(super) fn usage(&self, now: Instant) -> (u32, u32) {
        // Those not needed longest are in front.
        let is_free = |index: &&u32| {
            let place = self.places.get(index);
            place.is_some_and(|place| now.saturating_duration_since(place.at) >= HOLD)
        };
        let free = self.idle.values().take_while(is_free).count();
        ((self.places.len() - free) as u32, self.pools.room())
    }

    /// Whom `ip` stands for.
    pub(super) fn name(&self, ip: IpAddr) -> Named {
        match self.pools.index(ip) {
            Some(index) => match self.places.get(&index) {
                Some(place) => Named::Name(Arc::clone(&place.name)),
                None => Named::Nobody,
            },
            None => Named::Other,
        }
    }

    /// The same for a connection, which uses it until [`leave`](Self::leave).
    pub(super) fn enter(&mut self, now: Instant, ip: IpAddr) -> Named {
        let named = self.name(ip);
        if let Some(index) = self.pools.index(ip)
            && let Some(place) = self.places.get_mut(&index)
        {
            place.connections += 1;
            self.touch(now, index);
        }
        named
    }

    /// A connection to `ip`, which had a name, has ended.
    pub(super) fn leave(&mut self, now: Instant, ip: IpAddr) {
        if let Some(index) = self.pools.index(ip)
            && let Some(place) = self.places.get_mut(&index)
        {
            place.connections = place.connections.saturating_sub(1);
            self.touch(now, index);
        }
    }
}

/// FNV-1a: the same in every run, which the hashers of the standard library do not promise.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One for so many names.
    fn pool(v4: &str) -> Pool {
        Pool::new(Pools {
            v4: v4.parse().unwrap(),
            v6: Some("fd75::/64".parse().unwrap()),
        })
    }

    fn v4(pool: &mut Pool, now: Instant, name: &str) -> Option<IpAddr> {
        pool.addresses(now, name).map(|(v4, _)| v4.into())
    }

    fn name(pool: &Pool, ip: &str) -> Named {
        pool.name(ip.parse().unwrap())
    }

    #[test]
    fn a_name_has_one_address_of_each_family_and_keeps_them() {
        let (mut pool, now) = (pool("198.19.0.0/29"), Instant::now());
        let (db, db_v6) = pool.addresses(now, "db.test").unwrap();
        let place = (hash("db.test") % 6) as u8 + 1;
        assert_eq!(db.octets(), [198, 19, 0, place]);
        assert_eq!(db_v6.unwrap().to_string(), format!("fd75::{place}"));
        assert_eq!(pool.addresses(now, "db.test"), Some((db, db_v6)));
        let web = v4(&mut pool, now, "web.test").unwrap();
        let named = Named::Name("db.test".into());
        for of_db in [db.into(), IpAddr::from(db_v6.unwrap())] {
            assert_eq!(pool.name(of_db), named);
        }
        let others = (0..8).map(|last| IpAddr::from([198, 19, 0, last]));
        for nobody in others.filter(|ip| *ip != web && *ip != IpAddr::from(db)) {
            assert_eq!(pool.name(nobody), Named::Nobody, "{nobody}");
        }
        for nobody in ["fd75::", "fd75::ffff:ffff:ffff:ffff"] {
            assert_eq!(name(&pool, nobody), Named::Nobody, "{nobody}");
        }
        for other in ["198.19.0.8", "10.0.0.1", "fd76::1"] {
            assert_eq!(name(&pool, other), Named::Other, "{other}");
        }
    }

    /// Somebody may have kept an address.
    #[test]
    fn another_run_gives_a_name_the_same_address() {
        let now = Instant::now();
        let (mut before, mut after) = (pool("198.19.0.0/20"), pool("198.19.0.0/20"));
        let names: Vec<String> = (0..40).map(|n| format!("host{n}.corp.internal")).collect();
        let given = |pool: &mut Pool, name: &String| v4(pool, now, name).unwrap();
        let first: Vec<_> = names.iter().map(|name| given(&mut before, name)).collect();
        let again: Vec<_> = names
            .iter()
            .rev()
            .map(|name| given(&mut after, name))
            .collect();
        let same = first.iter().zip(again.iter().rev()).filter(|(a, b)| a == b);
        // Two names may have one place.
        assert!(same.count() >= 38);
        assert_eq!(hash("db.test"), 0xe094_995c_8410_0083);
    }

    #[test]
    fn the_one_not_needed_longest_goes_unless_it_is_used_or_was_told_of() {
        let (mut pool, mut now) = (pool("198.19.0.0/30"), Instant::now());
        let one = v4(&mut pool, now, "one").unwrap();
        let two = v4(&mut pool, now, "two").unwrap();
        assert_eq!(v4(&mut pool, now, "three"), None);
        assert_eq!(pool.usage(now), (2, 2));
        now += HOLD - Duration::from_secs(1);
        assert_eq!(v4(&mut pool, now, "three"), None);
        // Asked for again, and used.
        assert_eq!(v4(&mut pool, now, "one"), Some(one));
        assert_eq!(pool.enter(now, two), Named::Name("two".into()));
        now += 2 * HOLD;
        assert_eq!(pool.usage(now), (1, 2));
        assert_eq!(v4(&mut pool, now, "three"), Some(one));
        assert_eq!(v4(&mut pool, now, "one"), None);
        pool.leave(now, two);
        now += HOLD;
        // Three was needed before two.
        assert_eq!(v4(&mut pool, now, "one"), Some(one));
        assert_eq!(pool.name(one), Named::Name("one".into()));
        assert_eq!(pool.name(two), Named::Name("two".into()));
    }

    #[test]
    fn there_are_never_more_than_are_counted() {
        let (mut pool, now) = (pool("10.0.0.0/8"), Instant::now());
        let given = (0..MOST + 9).filter(|n| pool.addresses(now, &n.to_string()).is_some());
        assert_eq!(given.count(), MOST as usize);
        assert_eq!(
            (pool.places.len(), pool.by_name.len(), pool.idle.len()),
            (16_384, 16_384, 16_384)
        );
    }

    proptest! {
        /// Who uses an address has it until the end.
        #[test]
        fn nobody_loses_an_address_that_is_used(steps in prop::collection::vec((0..4_u8, 0..12_u8, 0..200_u64), 0..200)) {
            let (mut pool, mut now) = (pool("198.19.0.0/29"), Instant::now());
            let mut used: Vec<(IpAddr, Named)> = Vec::new();
            for (what, which, time) in steps {
                now += Duration::from_secs(time);
                let ip = IpAddr::from([198, 19, 0, which]);
                match what {
                    0 | 1 => drop(pool.addresses(now, &which.to_string())),
                    2 => {
                        let named = pool.enter(now, ip);
                        let is_name = matches!(named, Named::Name(_));
                        used.extend(is_name.then_some((ip, named)));
                    }
                    _ => {
                        if let Some((ip, _)) = used.pop() {
                            pool.leave(now, ip);
                        }
                    }
                }
                for (ip, named) in &used {
                    prop_assert_eq!(&pool.name(*ip), named);
                }
                prop_assert!(pool.places.len() <= 6);
                prop_assert_eq!(pool.by_name.len(), pool.places.len());
            }
        }
    }
}
