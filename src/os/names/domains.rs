//! Domains as systemd-resolved takes them.

use ipnet::IpNet;

use super::Wish;

/// More domains of a link systemd-resolved does not take (`LINK_SEARCH_DOMAINS_MAX`).
const MOST: usize = 256;
/// More domains are not asked for.
const MOST_ASKED: usize = 128;

/// The domains of the link, each for routing alone: no name is completed by it.
pub(super) fn routed(wish: &Wish) -> Vec<(String, bool)> {
    let domains = all(wish).take(MOST);
    domains.map(|domain| (domain, true)).collect()
}

/// For how many domains of `wish` systemd-resolved has no room: names of addresses.
pub fn left_out(wish: &Wish) -> usize {
    all(wish).skip(MOST).count()
}

fn all(wish: &Wish) -> impl Iterator<Item = String> {
    let asked = match wish.domains.is_empty() {
        true => vec![".".to_owned()],
        false => wish.domains.clone(),
    };
    // Those of addresses are among all names as well, but a longer domain of another link would win.
    let reverse = wish.networks.iter().flat_map(reverse);
    asked.into_iter().chain(reverse)
}

/// The zones that hold the names of the addresses in `network`, exactly (RFC 1035 section 3.5, RFC 3596 section 2.5); none for
/// every address there is: networks of this host have their names here.
fn reverse(network: &IpNet) -> Vec<String> {
    let (octets, step, top): (Vec<u8>, u32, _) = match network {
        IpNet::V4(net) => (net.network().octets().to_vec(), 8, "in-addr.arpa"),
        IpNet::V6(net) => (net.network().octets().to_vec(), 4, "ip6.arpa"),
    };
    let width = u32::from(network.prefix_len());
    if width == 0 {
        return Vec::new();
    }
    let labels = width.div_ceil(step) as usize;
    let parts: Vec<u8> = match step {
        8 => octets,
        _ => octets
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .collect(),
    };
    // Zones end where a label does.
    let zones = 1_u16 << (labels as u32 * step - width);
    let (last, upper) = match parts[..labels].split_last() {
        Some(parts) => parts,
        None => return Vec::new(),
    };
    let upper: String = upper.iter().rev().map(|part| label(*part, step)).collect();
    let zone = |number: u16| {
        let first = label(*last + number as u8, step);
        format!("{first}{upper}{top}")
    };
    (0..zones).map(zone).collect()
}

fn label(part: u8, step: u32) -> String {
    match step {
        8 => format!("{part}."),
        _ => format!("{part:x}."),
    }
}

/// Whether each of `domains` is a name of the DNS as it is written in a zone file, and there are not too many.
pub(super) fn are_sound(domains: &[String]) -> bool {
    let is_label = |label: &str| {
        let is_known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..64).contains(&label.len()) && label.bytes().all(is_known)
    };
    let is_sound = |domain: &String| domain.len() < 254 && domain.split('.').all(is_label);
    domains.len() <= MOST_ASKED && domains.iter().all(is_sound)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::By;
    use super::*;

    fn zones(network: &str) -> Vec<String> {
        reverse(&network.parse().unwrap())
    }

    #[test]
    fn networks_have_exactly_their_zones() {
        assert_eq!(zones("10.0.0.0/8"), ["10.in-addr.arpa"]);
        assert_eq!(zones("10.0.1.0/24"), ["1.0.10.in-addr.arpa"]);
        assert_eq!(zones("10.0.1.7/32"), ["7.1.0.10.in-addr.arpa"]);
        assert_eq!(
            zones("10.0.2.0/23"),
            ["2.0.10.in-addr.arpa", "3.0.10.in-addr.arpa"]
        );
        assert_eq!(zones("172.16.0.0/12").len(), 16);
        assert_eq!(zones("128.0.0.0/1")[127], "255.in-addr.arpa");
        assert_eq!(zones("fd00::/8"), ["d.f.ip6.arpa"]);
        assert_eq!(zones("fe80::/10").len(), 4);
        assert_eq!(zones("fd00:9::/32"), ["9.0.0.0.0.0.d.f.ip6.arpa"]);
        assert!(zones("0.0.0.0/0").is_empty() && zones("::/0").is_empty());
    }

    #[test]
    fn a_link_has_what_is_asked_for_and_no_more_than_it_may() {
        let mut wish = Wish {
            by: By::Resolved,
            domains: vec!["corp.internal".into()],
            networks: vec!["10.0.1.0/24".parse().unwrap()],
        };
        let names = |wish: &Wish| -> Vec<String> {
            let domains = routed(wish).into_iter();
            domains
                .map(|(domain, routing)| format!("{routing} {domain}"))
                .collect()
        };
        assert_eq!(
            names(&wish),
            ["true corp.internal", "true 1.0.10.in-addr.arpa"]
        );
        wish.domains.clear();
        assert_eq!(names(&wish), ["true .", "true 1.0.10.in-addr.arpa"]);
        assert_eq!(left_out(&wish), 0);
        wish.networks = vec!["128.0.0.0/1".parse().unwrap(); 9];
        assert_eq!(routed(&wish).len(), MOST);
        assert_eq!(left_out(&wish), 1 + 9 * 128 - MOST);
    }

    #[test]
    fn what_is_no_domain_is_not_passed_on() {
        let sound = |domain: &str| are_sound(&[domain.to_owned()]);
        for domain in ["corp.internal", "xn--bro-hoa.test", "_tcp.a", "a"] {
            assert!(sound(domain), "{domain}");
        }
        let long = "a".repeat(64);
        for domain in ["", ".", "a.", "a..b", "a b", "~a", "büro.test", &long] {
            assert!(!sound(domain), "{domain}");
        }
        assert!(!sound(&"a.".repeat(127)) && !are_sound(&vec!["a".to_owned(); 129]));
    }

    proptest! {
        /// Every address of a network has its name in one of its zones, and no other one has.
        #[test]
        fn zones_hold_the_addresses(bits: u32, other: u32, width in 1_u8..=32) {
            let net = ipnet::Ipv4Net::new(bits.into(), width).unwrap().trunc();
            let zones = reverse(&net.into());
            prop_assert!(zones.len() <= 128);
            for address in [std::net::Ipv4Addr::from(bits), other.into()] {
                let [a, b, c, d] = address.octets();
                let name = format!("{d}.{c}.{b}.{a}.in-addr.arpa");
                let is_held = zones.iter().any(|zone| name == *zone || name.ends_with(&format!(".{zone}")));
                prop_assert_eq!(is_held, net.contains(&address));
            }
        }
    }
}
