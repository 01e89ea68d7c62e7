//! A network that nobody here has, to show another one as.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::mapping::{Pair, meet};

/// Where it is taken from, in this order: addresses between a provider and its customers (RFC 6598), those of
/// measurements (RFC 2544), and unique local ones (RFC 4193).
pub(super) const POOLS: [IpNet; 3] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15)),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfd64, 0, 0, 0, 0, 0, 0, 0),
        16,
    )),
];

/// One of the size of `far` that meets none of `taken`; where that can be, with the numbers of `far` behind its own first
/// ones, for people. `None` where there is none of that size.
pub(super) fn spare(far: &IpNet, taken: &[IpNet]) -> Option<IpNet> {
    POOLS.iter().find_map(|pool| in_pool(pool, far, taken))
}

fn in_pool(pool: &IpNet, far: &IpNet, taken: &[IpNet]) -> Option<IpNet> {
    let around = IpNet::new(far.network(), pool.prefix_len()).ok()?;
    let mut candidate = Pair::new(around, *pool)?.local(far)?;
    // Whoever is in the way is passed once before the pool's end and once behind its beginning.
    for _ in 0..=2 * taken.len() + 1 {
        let Some(in_the_way) = taken.iter().find(|net| meet(net, &candidate)) else {
            return Some(candidate);
        };
        let wider = match in_the_way.contains(&candidate) {
            true => in_the_way,
            false => &candidate,
        };
        let next = behind(wider).and_then(|next| IpNet::new(next, far.prefix_len()).ok());
        let next = next.filter(|next| pool.contains(next));
        candidate = next.or_else(|| IpNet::new(pool.network(), far.prefix_len()).ok())?;
    }
    None
}

/// The first address behind a network.
fn behind(net: &IpNet) -> Option<IpAddr> {
    match net.broadcast() {
        IpAddr::V4(last) => {
            let next = last.to_bits().checked_add(1)?;
            Some(Ipv4Addr::from_bits(next).into())
        }
        IpAddr::V6(last) => {
            let next = last.to_bits().checked_add(1)?;
            Some(Ipv6Addr::from_bits(next).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(far: &str, taken: &[&str]) -> String {
        let taken: Vec<IpNet> = taken.iter().map(|net| net.parse().unwrap()).collect();
        let found = spare(&far.parse().unwrap(), &taken);
        found.map_or_else(|| "-".to_owned(), |net| net.to_string())
    }

    #[test]
    fn it_is_free_and_looks_like_the_other() {
        for (far, taken, expected) in [
            ("10.0.0.0/16", &[][..], "100.64.0.0/16"),
            ("10.1.0.0/16", &[], "100.65.0.0/16"),
            ("192.168.1.0/24", &[], "100.104.1.0/24"),
            ("10.0.5.7/32", &[], "100.64.5.7/32"),
            ("10.0.0.0/10", &[], "100.64.0.0/10"),
            ("10.0.0.0/8", &[], "-"),
            ("fd00:5::/64", &[], "fd64:5::/64"),
            ("2001:db8:1::/48", &[], "fd64:db8:1::/48"),
            ("2001:db8::/15", &[], "-"),
            ("::/0", &[], "-"),
            // What is taken is passed, be it wider or narrower.
            ("10.0.0.0/16", &["100.64.3.0/24"], "100.65.0.0/16"),
            ("10.0.0.0/16", &["100.64.0.0/12"], "100.80.0.0/16"),
            // At the pool's end it begins anew.
            ("10.63.0.0/16", &["100.127.0.0/16"], "100.64.0.0/16"),
            ("10.0.0.0/16", &["100.64.0.0/10"], "198.18.0.0/16"),
            ("10.0.0.0/12", &["100.64.0.0/10"], "-"),
            ("10.0.0.0/16", &["100.64.0.0/10", "198.18.0.0/15"], "-"),
            ("fd00::/64", &["fd64::/16"], "-"),
        ] {
            assert_eq!(found(far, taken), expected, "{far} beside {taken:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_taken_is_found(
            far in (any::<u32>(), 10..=32_u8),
            taken in prop::collection::vec((any::<u32>(), 8..=24_u8), 0..20),
        ) {
            let net = |(bits, width)| IpNet::from(Ipv4Net::new(Ipv4Addr::from_bits(bits), width).unwrap().trunc());
            // Most of them in the first pool.
            let taken: Vec<IpNet> = taken.into_iter().map(|(bits, width)| net((bits & 0x3f_ffff | 0x6440_0000, width))).collect();
            let far = net(far);
            match spare(&far, &taken) {
                Some(found) => {
                    prop_assert!(!taken.iter().any(|one| meet(one, &found)));
                    prop_assert_eq!((found, found.prefix_len()), (found.trunc(), far.prefix_len()));
                    prop_assert!(POOLS.iter().any(|pool| pool.contains(&found)));
                }
                None => prop_assert!(taken.iter().any(|one| meet(one, &POOLS[0]))),
            }
        }
    }
}
