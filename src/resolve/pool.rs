//! Addresses that stand for names: where nobody can be asked for the addresses of the far side, who asks for a name gets one of ours,
//! and the far side is asked to open a connection to the name.
//!
//! Every name keeps its place as long as that is not needed for another one. The one that was not asked for, or used, longest goes
//! first; never while a connection uses it, nor as long as somebody may still go by what they were told.

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
const MOST: u32 = 16_384;

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
    places: Vec<Place>,
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
            places: Vec::new(),
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
        let index = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        let index = if index < self.pools.room() {
            self.places.push(Place {
                name: Arc::clone(&name),
                connections: 0,
                at: now,
                serial: 0,
            });
            index
        } else {
            let (_, &index) = self.idle.first_key_value()?;
            let place = &mut self.places[index as usize];
            if now.saturating_duration_since(place.at) < HOLD {
                return None;
            }
            self.by_name.remove(&place.name);
            place.name = Arc::clone(&name);
            index
        };
        self.by_name.insert(name, index);
        Some(index)
    }

    fn touch(&mut self, now: Instant, index: u32) {
        let place = &mut self.places[index as usize];
        self.idle.remove(&place.serial);
        self.serial += 1;
        (place.serial, place.at) = (self.serial, now);
        if place.connections == 0 {
            self.idle.insert(self.serial, index);
        }
    }

    /// Whom `ip` stands for.
    pub(super) fn name(&self, ip: IpAddr) -> Named {
        match self.pools.index(ip) {
            Some(index) => match self.places.get(index as usize) {
                Some(place) => Named::Name(Arc::clone(&place.name)),
                None => Named::Nobody,
            },
            None => Named::Other,
        }
    }

    /// The same for a connection, which uses it until [`leave`](Self::leave).
    pub(super) fn enter(&mut self, now: Instant, ip: IpAddr) -> Named {
        let named = self.name(ip);
        if let (Named::Name(_), Some(index)) = (&named, self.pools.index(ip)) {
            self.places[index as usize].connections += 1;
            self.touch(now, index);
        }
        named
    }

    /// A connection to `ip`, which had a name, has ended.
    pub(super) fn leave(&mut self, now: Instant, ip: IpAddr) {
        if let Some(index) = self.pools.index(ip)
            && let Some(place) = self.places.get_mut(index as usize)
        {
            place.connections = place.connections.saturating_sub(1);
            self.touch(now, index);
        }
    }
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
        assert_eq!(db.to_string(), "198.19.0.1");
        assert_eq!(db_v6.unwrap().to_string(), "fd75::1");
        assert_eq!(
            v4(&mut pool, now, "web.test").unwrap().to_string(),
            "198.19.0.2"
        );
        assert_eq!(pool.addresses(now, "db.test"), Some((db, db_v6)));
        let named = Named::Name("db.test".into());
        assert_eq!(name(&pool, "198.19.0.1"), named);
        assert_eq!(name(&pool, "fd75::1"), named);
        for nobody in [
            "198.19.0.0",
            "198.19.0.3",
            "198.19.0.7",
            "fd75::",
            "fd75::ffff:ffff:ffff:ffff",
        ] {
            assert_eq!(name(&pool, nobody), Named::Nobody, "{nobody}");
        }
        for other in ["198.19.0.8", "10.0.0.1", "fd76::1"] {
            assert_eq!(name(&pool, other), Named::Other, "{other}");
        }
    }

    #[test]
    fn the_one_not_needed_longest_goes_unless_it_is_used_or_was_told_of() {
        let (mut pool, mut now) = (pool("198.19.0.0/30"), Instant::now());
        let one = v4(&mut pool, now, "one").unwrap();
        let two = v4(&mut pool, now, "two").unwrap();
        assert_eq!(v4(&mut pool, now, "three"), None);
        now += HOLD - Duration::from_secs(1);
        assert_eq!(v4(&mut pool, now, "three"), None);
        // Asked for again, and used.
        assert_eq!(v4(&mut pool, now, "one"), Some(one));
        assert_eq!(pool.enter(now, two), Named::Name("two".into()));
        now += 2 * HOLD;
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
