//! `FAR=LOCAL[:PORT[-PORT]]`.

use ipnet::IpNet;

use super::super::Subnet;
use super::super::spare::spare;
use super::parse::{Parsed, Reason, parse};
use super::{NO_HOSTS, is_loopback, is_multicast};

/// Shows the form, where nothing nearer to what was typed can be said.
const FORM: &str = "FAR=LOCAL, for example 10.0.0.0/16=100.64.0.0/16";

/// What is wrong with a text, and what to write.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::plan) struct Mistake {
    pub(in crate::plan) reason: Reason,
    pub(in crate::plan) write: String,
}

impl Mistake {
    fn new(reason: Reason, write: Option<Subnet>) -> Self {
        Self {
            reason,
            write: write.map_or_else(|| FORM.to_owned(), |subnet| subnet.to_string()),
        }
    }
}

/// Reads the two networks that were typed around a `=`. A network that is shown as itself is an ordinary one.
pub(in crate::plan) fn parse_mapped(far: &str, local: &str) -> Result<Parsed, Mistake> {
    if local.contains('=') {
        return Err(Mistake::new("it has more than one =", None));
    }
    if far.trim().is_empty() || local.trim().is_empty() {
        return Err(Mistake::new("a network is missing beside the =", None));
    }
    let plain = |reason| Mistake::new(reason, None);
    let before = parse(far).map_err(plain)?;
    let Parsed { subnet, masked } = parse(local).map_err(plain)?;
    let meant = Subnet {
        far: Some(before.subnet.net),
        ..subnet
    };
    if before.subnet.ports.is_some() {
        let ports = meant.ports.clone().or(before.subnet.ports);
        let write = Subnet { ports, ..meant };
        return Err(Mistake::new(
            "ports stand behind the second network",
            fitting(write),
        ));
    }
    if let Some(reason) = fault(&meant.net, &before.subnet.net) {
        return Err(Mistake::new(reason, fitting(meant)));
    }
    Ok(Parsed {
        subnet: Subnet {
            far: meant.far.filter(|far| *far != meant.net),
            ..meant
        },
        masked: masked || before.masked,
    })
}

/// Why `far` cannot be shown as `local`.
fn fault(local: &IpNet, far: &IpNet) -> Option<Reason> {
    if (far.prefix_len() == 0) != (local.prefix_len() == 0) {
        Some("everything has no other place to be shown; map what overlaps")
    } else if far.max_prefix_len() != local.max_prefix_len() {
        Some("one is IPv4 and the other IPv6")
    } else if far.prefix_len() != local.prefix_len() {
        Some("a network is shown as one of its own size")
    } else if is_multicast(far) {
        Some(NO_HOSTS)
    } else if is_loopback(local) || is_multicast(local) {
        Some("what is shown as loopback or multicast never leaves this host")
    } else {
        None
    }
}

/// The nearest to `meant` that makes sense: at the same place in the right size, else at another one.
fn fitting(meant: Subnet) -> Option<Subnet> {
    let far = meant.far.filter(|far| far.prefix_len() > 0)?;
    let is_one_family = far.max_prefix_len() == meant.net.max_prefix_len();
    let resized = IpNet::new(meant.net.network(), far.prefix_len()).ok();
    let resized = resized.filter(|_| is_one_family && meant.net.prefix_len() > 0);
    let is_sound = |subnet: &Subnet| subnet.net != far && fault(&subnet.net, &far).is_none();
    let at = |net: IpNet| Subnet {
        net: net.trunc(),
        ..meant.clone()
    };
    let same_place = resized.map(at).filter(is_sound);
    same_place.or_else(|| spare(&far, &[]).map(at).filter(is_sound))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Parsed, Mistake> {
        let (far, local) = text.split_once('=').unwrap();
        parse_mapped(far, local)
    }

    #[test]
    fn every_form() {
        for (typed, meant) in [
            ("10.0.0.0/16=100.64.0.0/16", "10.0.0.0/16=100.64.0.0/16"),
            (" 10/16 = 100.64/16 ", "10.0.0.0/16=100.64.0.0/16"),
            ("10.0.1.7=100.64.0.7", "10.0.1.7/32=100.64.0.7/32"),
            ("10.0.1.7=100.64.0.7:22", "10.0.1.7/32=100.64.0.7/32:22"),
            (
                "10.0/16=100.64/16:80-443",
                "10.0.0.0/16=100.64.0.0/16:80-443",
            ),
            ("fd00::/64=fd64::/64", "fd00::/64=fd64::/64"),
            ("fd00::/64=fd64::/64:443", "fd00::/64=[fd64::/64]:443"),
            ("[fd00::/64]=[fd64::/64]:443", "fd00::/64=[fd64::/64]:443"),
            ("[fd00::]/64=[fd64::]/64:1-2", "fd00::/64=[fd64::/64]:1-2"),
            // What the server itself listens to on its loopback.
            (
                "127.0.0.1=100.64.0.1:5432",
                "127.0.0.1/32=100.64.0.1/32:5432",
            ),
            ("::1=fd64::1", "::1/128=fd64::1/128"),
            ("::ffff:10.0.0.0/112=100.64/16", "10.0.0.0/16=100.64.0.0/16"),
            // As itself: no mapping.
            ("10.0.0.0/16=10.0.0.0/16", "10.0.0.0/16"),
            ("0/0=0/0", "0.0.0.0/0"),
        ] {
            let parsed = read(typed).unwrap_or_else(|mistake| panic!("{typed}: {mistake:?}"));
            assert_eq!(parsed.subnet.to_string(), meant);
            assert!(!parsed.masked, "{typed}");
        }
    }

    #[test]
    fn host_bits_of_either_are_cleared_and_said() {
        for typed in ["10.0.9.9/16=100.64/16", "10.0/16=100.64.9.9/16"] {
            let parsed = read(typed).unwrap();
            assert_eq!(parsed.subnet.to_string(), "10.0.0.0/16=100.64.0.0/16");
            assert!(parsed.masked, "{typed}");
        }
    }

    #[test]
    fn a_mistake_says_what_to_write() {
        for (typed, word, write) in [
            ("=", "missing", FORM),
            ("10.0.0.0/16=", "missing", FORM),
            ("= 100.64.0.0/16", "missing", FORM),
            ("10/8=11/8=12/8", "more than one", FORM),
            ("10/8==11/8", "more than one", FORM),
            ("10.0.0.0/33=100.64.0.0/16", "over 32", FORM),
            ("10.0.0.0/16=db.internal", "name", FORM),
            (
                "10.0.0.0/16=100.64.0.0/24",
                "own size",
                "10.0.0.0/16=100.64.0.0/16",
            ),
            (
                "10.0.0.0/16=100.64.0.0",
                "own size",
                "10.0.0.0/16=100.64.0.0/16",
            ),
            (
                "10.0.1.0/24=100.64.0.0/16:443",
                "own size",
                "10.0.1.0/24=100.64.0.0/24:443",
            ),
            (
                "10.0.0.0/16:443=100.64.0.0/16",
                "behind the second",
                "10.0.0.0/16=100.64.0.0/16:443",
            ),
            (
                "10.0.0.0/16:443=100.64.0.0/24:80",
                "behind the second",
                "10.0.0.0/16=100.64.0.0/16:80",
            ),
            (
                "10.0.0.0/16=fd64::/112",
                "IPv4 and the other IPv6",
                "10.0.0.0/16=100.64.0.0/16",
            ),
            (
                "fd00::/64=100.64.0.0/32",
                "IPv4 and the other IPv6",
                "fd00::/64=fd64::/64",
            ),
            ("0.0.0.0/0=100.64.0.0/10", "map what overlaps", FORM),
            (
                "10.0.0.0/16=0/0",
                "map what overlaps",
                "10.0.0.0/16=100.64.0.0/16",
            ),
            ("224.0.0.0/16=100.64.0.0/16", NO_HOSTS, FORM),
            (
                "10.0.0.0/16=127.0.0.0/16",
                "never leaves",
                "10.0.0.0/16=100.64.0.0/16",
            ),
            ("10.0.0.0/8=127.0.0.0/8", "never leaves", FORM),
            ("fd00::/16=ff00::/16", "never leaves", "fd00::/16=fd64::/16"),
        ] {
            let mistake = read(typed).unwrap_err();
            assert!(mistake.reason.contains(word), "{typed}: {mistake:?}");
            assert_eq!(mistake.write, write, "{typed}");
        }
    }

    proptest! {
        /// What is proposed is never wrong itself.
        #[test]
        fn what_is_to_be_written_can_be_read(
            far in "(10|127|224|0)\\.0\\.0\\.0/[0-9]{1,2}|fd00::/[0-9]{1,3}|::1",
            local in "(10|100|127|224|0)\\.64\\.0\\.0(/[0-9]{1,2})?(:80)?|(fd64|ff00)::/[0-9]{1,3}",
        ) {
            match parse_mapped(&far, &local) {
                Ok(parsed) => {
                    let shown = parsed.subnet.to_string();
                    if shown.contains('=') {
                        prop_assert_eq!(read(&shown), Ok(Parsed { masked: false, ..parsed }));
                    }
                }
                Err(mistake) if mistake.write != FORM => {
                    let parsed = read(&mistake.write).unwrap();
                    prop_assert_eq!(parsed.subnet.to_string(), mistake.write);
                }
                Err(_) => {}
            }
        }

        #[test]
        fn no_text_panics(far in "\\PC*", local in "\\PC*") {
            let _ = parse_mapped(&far, &local);
        }
    }
}
