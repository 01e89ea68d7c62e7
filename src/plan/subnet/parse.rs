//! `ADDRESS[/WIDTH][:PORT[-PORT]]`, in the forms that sshuttle takes as well.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::super::Subnet;

/// What is wrong with a text, as a part of a sentence.
pub(in crate::plan) type Reason = &'static str;

/// A network as typed: with what it was taken for.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::plan) struct Parsed {
    /// The network and ports; host bits are zero.
    pub(in crate::plan) subnet: Subnet,
    /// Whether host bits had to be cleared.
    pub(in crate::plan) masked: bool,
}

/// The three parts of a subnet, unread.
struct Parts<'a> {
    address: &'a str,
    width: Option<&'a str>,
    ports: Option<&'a str>,
}

/// Reads a subnet as typed.
pub(in crate::plan) fn parse(text: &str) -> Result<Parsed, Reason> {
    let parts = split(text.trim())?;
    let (net, masked) = network(parts.address, parts.width)?;
    let ports = parts.ports.map(port_range).transpose()?;
    Ok(Parsed {
        subnet: Subnet {
            net,
            ports,
            far: None,
        },
        masked,
    })
}

/// Reads a network without ports, and whether host bits had to be cleared.
pub(in crate::plan) fn parse_network(text: &str) -> Result<(IpNet, bool), Reason> {
    let parts = split(text.trim())?;
    if parts.ports.is_some() {
        return Err("ports have no meaning here");
    }
    network(parts.address, parts.width)
}

/// `[v6]/w:p`, `[v6/w]:p`, `v6/w:p`, `v6`, `v4/w:p`.
fn split(text: &str) -> Result<Parts<'_>, Reason> {
    if let Some(rest) = text.strip_prefix('[') {
        return split_brackets(rest);
    }
    let (address, width, ports) = match text.split_once('/') {
        Some((address, rest)) => {
            let (width, ports) = cut(rest, ':');
            (address, Some(width), ports)
        }
        // Without a width every colon of an IPv6 address is its own.
        None if text.matches(':').count() > 1 => (text, None, None),
        None => {
            let (address, ports) = cut(text, ':');
            (address, None, ports)
        }
    };
    Ok(Parts {
        address,
        width,
        ports,
    })
}

fn split_brackets(rest: &str) -> Result<Parts<'_>, Reason> {
    let (inner, after) = rest.split_once(']').ok_or("the bracket is not closed")?;
    let (address, inner_width) = cut(inner, '/');
    let (before_ports, ports) = cut(after, ':');
    let outer_width = before_ports.strip_prefix('/');
    if (outer_width.is_none() && !before_ports.is_empty())
        || (outer_width.is_some() && inner_width.is_some())
    {
        return Err("the text after the bracket is not understood");
    }
    if !address.contains(':') {
        return Err("brackets are for IPv6 addresses");
    }
    Ok(Parts {
        address,
        width: inner_width.or(outer_width),
        ports,
    })
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn network(address: &str, width: Option<&str>) -> Result<(IpNet, bool), Reason> {
    let width = width.map(|width| decimal(width).ok_or("the width is no number"));
    let width = width.transpose()?;
    let net = if address.contains(':') {
        network_v6(address, width)?
    } else {
        network_v4(address, width)?
    };
    let net = canonical(net);
    let masked = net.trunc();
    Ok((masked, masked != net))
}

fn network_v6(address: &str, width: Option<u16>) -> Result<IpNet, Reason> {
    let address: Ipv6Addr = address.parse().map_err(|_| "this is no IPv6 address")?;
    let width = narrow(width.unwrap_or(128), 128)?;
    let net = Ipv6Net::new(address, width).map_err(|_| "the width is over 128")?;
    Ok(net.into())
}

fn network_v4(address: &str, width: Option<u16>) -> Result<IpNet, Reason> {
    let address = address_v4(address, width.is_some())?;
    let width = narrow(width.unwrap_or(32), 32)?;
    let net = Ipv4Net::new(address, width).map_err(|_| "the width is over 32")?;
    Ok(net.into())
}

fn narrow(width: u16, most: u8) -> Result<u8, Reason> {
    match u8::try_from(width) {
        Ok(width) if width <= most => Ok(width),
        _ if most == 32 => Err("the width is over 32"),
        _ => Err("the width is over 128"),
    }
}

/// Four octets; with a width also fewer, the rest being zero: `10/8`, `10.0/16`, `0/0`.
fn address_v4(text: &str, short: bool) -> Result<Ipv4Addr, Reason> {
    let mut octets = [0_u8; 4];
    let mut count = 0;
    for part in text.split('.') {
        let slot = octets.get_mut(count).ok_or("this is no IPv4 address")?;
        *slot = octet(part, text)?;
        count += 1;
    }
    if count < 4 && !short {
        return Err("a short address needs its width, as in 10.0/16");
    }
    Ok(octets.into())
}

fn octet(part: &str, whole: &str) -> Result<u8, Reason> {
    if whole.chars().any(|c| c.is_ascii_alphabetic()) {
        return Err("this is a name; give its address (getent ahosts NAME shows it)");
    }
    if part.len() > 1 && part.starts_with('0') {
        // inet_aton(3) would read it as octal.
        return Err("a number of the address has a leading zero");
    }
    decimal(part)
        .and_then(|number| u8::try_from(number).ok())
        .ok_or("this is no IPv4 address")
}

/// Digits only: no sign, no blank.
fn decimal(text: &str) -> Option<u16> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// An IPv4-mapped IPv6 network is what it maps: no packet carries the mapped form (RFC 4291 2.5.5.2).
fn canonical(net: IpNet) -> IpNet {
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => v6
            .addr()
            .to_ipv4_mapped()
            .and_then(|v4| Ipv4Net::new(v4, v6.prefix_len() - 96).ok())
            .map_or(net, IpNet::V4),
        _ => net,
    }
}

pub(in crate::plan) fn port_range(text: &str) -> Result<RangeInclusive<u16>, Reason> {
    let (first, last) = cut(text, '-');
    let first = port(first)?;
    let last = last.map_or(Ok(first), port)?;
    if first > last {
        return Err("the port range runs backwards");
    }
    if first == u16::MAX {
        // fib_rule_port_range_valid() in the kernel's include/net/fib_rules.h.
        return Err("the kernel's routing rules cannot name port 65535 alone");
    }
    Ok(first..=last)
}

fn port(text: &str) -> Result<u16, Reason> {
    decimal(text)
        .filter(|port| *port > 0)
        .ok_or("a port is a number from 1 to 65535")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        match parse(text) {
            Ok(parsed) => parsed.subnet.to_string(),
            Err(reason) => format!("error: {reason}"),
        }
    }

    #[test]
    fn every_form_that_sshuttle_takes() {
        for (typed, meant) in [
            ("10.0.1.0/24", "10.0.1.0/24"),
            ("10.0.1.0/24:80-443", "10.0.1.0/24:80-443"),
            ("10.0.1.7", "10.0.1.7/32"),
            ("10.0.1.7:22", "10.0.1.7/32:22"),
            ("10.0/16", "10.0.0.0/16"),
            ("10/8:443", "10.0.0.0/8:443"),
            ("0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("fd00::1", "fd00::1/128"),
            ("fd00::/64:443", "[fd00::/64]:443"),
            ("[fd00::/64]:443", "[fd00::/64]:443"),
            ("[fd00::]/64:80-81", "[fd00::/64]:80-81"),
            ("[fd00::1]", "fd00::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ] {
            assert_eq!(shown(typed), meant, "{typed}");
        }
    }

    #[test]
    fn bad_forms_say_why() {
        for (typed, word) in [
            ("", "no IPv4"),
            ("10.0", "width"),
            ("10.0.0.0/33", "over 32"),
            ("10.0.0.0/999", "over 32"),
            ("fd00::/129", "over 128"),
            ("10.0.0.256", "no IPv4"),
            ("10.0.0.0.0/8", "no IPv4"),
            ("010.0.0.0/8", "leading zero"),
            ("10.0.0.0/8:0", "port"),
            ("10.0.0.0/8:90-80", "backwards"),
            ("10.0.0.0/8:65536", "port"),
            ("10.0.0.0/8:65535", "65535"),
            ("10.0.0.0/+8", "no number"),
            ("db.internal", "name"),
            ("[10.0.0.0/8]:80", "brackets"),
            ("[fd00::/64", "not closed"),
            ("[fd00::/64]x", "after the bracket"),
            ("fd00::g/64", "no IPv6"),
        ] {
            let shown = shown(typed);
            assert!(
                shown.contains("error") && shown.contains(word),
                "{typed}: {shown}"
            );
        }
    }

    #[test]
    fn host_bits_are_cleared_and_said() {
        let parsed = parse("10.0.1.5/24").unwrap();
        assert!(parsed.masked);
        assert_eq!(parsed.subnet.net.to_string(), "10.0.1.0/24");
        assert!(!parse("10.0.1.5").unwrap().masked);
    }

    fn any_subnet() -> impl Strategy<Value = Subnet> {
        let v4 = (any::<u32>(), 0..=32_u8)
            .prop_map(|(bits, width)| IpNet::from(Ipv4Net::new(bits.into(), width).unwrap()));
        let v6 = (any::<u128>(), 0..=128_u8)
            .prop_map(|(bits, width)| IpNet::from(Ipv6Net::new(bits.into(), width).unwrap()));
        let ports = proptest::option::of((1..=65534_u16, 1..=65535_u16).prop_map(|(a, b)| {
            let (first, last) = (a.min(b), a.max(b));
            first..=last
        }));
        (prop_oneof![v4, v6], ports).prop_map(|(net, ports)| Subnet {
            net: canonical(net).trunc(),
            ports,
            far: None,
        })
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(subnet in any_subnet()) {
            let parsed = parse(&subnet.to_string()).unwrap();
            prop_assert_eq!(parsed, Parsed { subnet, masked: false });
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = parse(&text);
            let _ = parse_network(&text);
        }

        #[test]
        fn no_text_of_the_right_letters_panics(text in "[0-9a-f.:/\\[\\]-]{0,24}") {
            let _ = parse(&text);
        }
    }
}
