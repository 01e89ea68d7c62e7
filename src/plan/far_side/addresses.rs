//! The addresses of a tunnel's two ends.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

/// Where pairs for IPv4 are taken from: addresses for measurements (RFC 2544) that neither devices of ours nor names have.
const FIRST_V4: Ipv4Addr = Ipv4Addr::new(198, 19, 128, 0);
/// For IPv6: unique local ones (RFC 4193), "underpt" in their bits.
const FIRST_V6: Ipv6Addr = Ipv6Addr::new(0xfd75, 0x6e64, 0x6572, 0x7074, 0, 0, 0, 0);
/// So many pairs there are, four addresses apart.
const PAIRS: u32 = 1 << 12;

/// The addresses of both ends, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends<A> {
    /// Here.
    pub ours: A,
    /// On the server.
    pub far: A,
}

/// The addresses of both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelAddress {
    /// For IPv4.
    pub v4: Ends<Ipv4Addr>,
    /// For IPv6, if that is to go through the tunnel.
    pub v6: Option<Ends<Ipv6Addr>>,
}

/// A `--tunnel-address` that is none.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "--tunnel-address {text:?}: {reason}; write OURS,FAR or OURS,FAR,OURS6,FAR6, for example 198.19.128.1,198.19.128.2"
)]
pub struct TunnelAddressError {
    text: String,
    reason: &'static str,
}

impl FromStr for TunnelAddress {
    type Err = TunnelAddressError;

    fn from_str(text: &str) -> Result<Self, TunnelAddressError> {
        let error = |reason| TunnelAddressError {
            text: text.to_owned(),
            reason,
        };
        let words: Vec<&str> = text.split(',').map(str::trim).collect();
        let (v4, v6) = match words[..] {
            [ours, far] => (ends(ours, far), None),
            [ours, far, ours6, far6] => (ends(ours, far), Some(ends(ours6, far6))),
            _ => return Err(error("two addresses are expected, or four")),
        };
        let v4 = v4.map_err(error)?;
        let v6 = v6.transpose().map_err(error)?;
        Ok(Self { v4, v6 })
    }
}

fn ends<A: FromStr + Copy + Into<IpAddr> + PartialEq>(
    ours: &str,
    far: &str,
) -> Result<Ends<A>, &'static str> {
    let read = |text: &str| {
        let address: A = text.parse().map_err(
            |_| "an address of the other family, or none at all, stands where one is expected",
        )?;
        match is_usable(address.into()) {
            true => Ok(address),
            false => Err("an address of that sort cannot be one end of a tunnel"),
        }
    };
    let ends = Ends {
        ours: read(ours)?,
        far: read(far)?,
    };
    match ends.ours == ends.far {
        true => Err("both ends have the same address"),
        false => Ok(ends),
    }
}

fn is_usable(address: IpAddr) -> bool {
    let is_special = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    !is_special && !address.is_loopback() && !address.is_multicast() && !address.is_unspecified()
}

impl fmt::Display for TunnelAddress {
    /// As it is typed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.v4.ours, self.v4.far)?;
        match self.v6 {
            Some(v6) => write!(f, ",{},{}", v6.ours, v6.far),
            None => Ok(()),
        }
    }
}

impl TunnelAddress {
    /// The far ends, of each family.
    pub fn far(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v6 = self.v6.map(|v6| v6.far.into());
        std::iter::once(self.v4.far.into()).chain(v6)
    }

    /// All ends.
    pub fn ends(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let ours = self.v6.map(|v6| v6.ours.into());
        let ours = std::iter::once(self.v4.ours.into()).chain(ours);
        ours.chain(self.far())
    }

    /// Whether neither end is in one of `taken`, default routes apart.
    pub fn is_free(&self, taken: &[IpNet]) -> bool {
        let v6 = self.v6.is_none_or(|v6| ends_are_free(v6, taken));
        v6 && ends_are_free(self.v4, taken)
    }
}

fn ends_are_free<A: Into<IpAddr> + Copy>(ends: Ends<A>, taken: &[IpNet]) -> bool {
    let ends = [ends.ours.into(), ends.far.into()];
    let mut real = taken.iter().filter(|net| net.prefix_len() > 0);
    !real.any(|net| ends.iter().any(|end| net.contains(end)))
}

/// Addresses that neither side has a route of its own for: `taken` are those of both. Which of them depends on `seed`, so that
/// two clients who ask at the same time hardly get the same. `None` where all are taken.
pub fn spare_address(seed: u64, taken: &[IpNet], ipv6: bool) -> Option<TunnelAddress> {
    // Fits: it is less than PAIRS.
    let first = u32::try_from(seed % u64::from(PAIRS)).unwrap_or_default();
    let numbers = (0..PAIRS).map(|step| (first + step) % PAIRS);
    let v4 = numbers.clone().map(|number| Ends {
        ours: Ipv4Addr::from_bits(FIRST_V4.to_bits() + 4 * number + 1),
        far: Ipv4Addr::from_bits(FIRST_V4.to_bits() + 4 * number + 2),
    });
    let v6 = numbers.map(|number| Ends {
        ours: Ipv6Addr::from_bits(FIRST_V6.to_bits() + u128::from(4 * number + 1)),
        far: Ipv6Addr::from_bits(FIRST_V6.to_bits() + u128::from(4 * number + 2)),
    });
    Some(TunnelAddress {
        v4: free(v4, taken)?,
        v6: match ipv6 {
            true => Some(free(v6, taken)?),
            false => None,
        },
    })
}

fn free<A: Into<IpAddr> + Copy>(
    mut all: impl Iterator<Item = Ends<A>>,
    taken: &[IpNet],
) -> Option<Ends<A>> {
    all.find(|ends| ends_are_free(*ends, taken))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_or_four_addresses() {
        for text in ["10.9.0.1,10.9.0.2", "10.9.0.1,10.9.0.2,fd00::1,fd00::2"] {
            let address: TunnelAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        for text in [
            "",
            "10.9.0.1",
            "10.9.0.1,10.9.0.1",
            "10.9.0.1,fd00::1",
            "fd00::1,fd00::2",
            "10.9.0.1,10.9.0.2,fd00::1",
            "10.9.0.1,10.9.0.2,10.9.0.3,10.9.0.4",
            "10.9.0.1/30,10.9.0.2",
            "127.0.0.1,10.9.0.2",
            "10.9.0.1,224.0.0.1",
            "10.9.0.1,10.9.0.2,fe80::1,fd00::2",
            "10.9.0.1,10.9.0.2,::ffff:1.2.3.4,fd00::2",
        ] {
            let error = text.parse::<TunnelAddress>().unwrap_err().to_string();
            assert!(error.contains("OURS,FAR"), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
    }

    #[test]
    fn what_somebody_has_is_passed() {
        let nets = |texts: &[&str]| -> Vec<IpNet> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let found = |taken: &[&str], ipv6| {
            let found = spare_address(0, &nets(taken), ipv6);
            found.map_or_else(|| "-".to_owned(), |address| address.to_string())
        };
        assert_eq!(found(&[], false), "198.19.128.1,198.19.128.2");
        assert_eq!(
            found(&["0.0.0.0/0", "198.19.128.0/30", "198.19.128.6/32"], false),
            "198.19.128.9,198.19.128.10"
        );
        assert_eq!(found(&["198.19.0.0/16"], false), "-");
        assert_eq!(found(&["fd00::/8"], true), "-");
        let both = found(&["::/0", "fd75:6e64:6572:7074::2/128"], true);
        assert_eq!(
            both,
            "198.19.128.1,198.19.128.2,fd75:6e64:6572:7074::5,fd75:6e64:6572:7074::6"
        );
    }

    proptest! {
        #[test]
        fn what_is_found_is_free_and_can_be_typed(seed: u64, taken in prop::collection::vec((any::<u32>(), 17..=32_u8), 0..20)) {
            let net = |(bits, width): (u32, u8)| IpNet::new(Ipv4Addr::from_bits(bits & 0x3fff | FIRST_V4.to_bits()).into(), width).unwrap();
            let taken: Vec<IpNet> = taken.into_iter().map(net).collect();
            if let Some(address) = spare_address(seed, &taken, true) {
                prop_assert!(address.is_free(&taken));
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }

        #[test]
        fn no_text_panics(text in "[0-9a-f:.,/ ]{0,60}|\\PC{0,20}") {
            let _ = text.parse::<TunnelAddress>();
        }
    }
}
