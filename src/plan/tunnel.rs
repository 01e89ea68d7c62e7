//! What TCP cannot carry: as packets, or not at all.

use std::net::IpAddr;

use super::PlanError;
use crate::cli::{TunnelArg, UpArgs};

/// A tunnel of packets to a device of the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelPlan {
    /// What goes through it.
    pub mode: TunnelMode,
    /// The number of the server's device; a free one where it is `None`.
    pub unit: Option<u32>,
    /// Both ends of IPv4 and of IPv6; chosen where they are `None`.
    pub v4: Option<Ends>,
    /// The same of IPv6.
    pub v6: Option<Ends>,
}

/// What goes through a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelMode {
    /// What is no TCP.
    Hybrid,
    /// Everything.
    Full,
    /// Everything, as frames of Ethernet.
    Ethernet,
}

/// The addresses of a tunnel, both of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// That of this host.
    pub ours: IpAddr,
    /// That of the server.
    pub far: IpAddr,
}

/// What `--tunnel` and its like say.
pub(super) fn plan(args: &UpArgs) -> Result<Option<TunnelPlan>, PlanError> {
    let tunnel = &args.tunnel;
    let ends = tunnel
        .tunnel_address
        .as_deref()
        .map(read_ends)
        .transpose()?;
    let Some(mode) = tunnel.tunnel else {
        return match ends.is_some() || tunnel.tunnel_unit.is_some() {
            true => Err(PlanError::NoTunnel),
            false => Ok(None),
        };
    };
    let [v4, v6] = ends.unwrap_or_default();
    Ok(Some(TunnelPlan {
        mode: match mode {
            TunnelArg::Hybrid => TunnelMode::Hybrid,
            TunnelArg::Full => TunnelMode::Full,
            TunnelArg::Ethernet => TunnelMode::Ethernet,
        },
        unit: tunnel.tunnel_unit,
        v4,
        v6,
    }))
}

/// Whether a text can stand behind `--tunnel-address`.
pub(super) fn check_ends(text: &str) -> Result<(), PlanError> {
    read_ends(text).map(drop)
}

fn read_ends(text: &str) -> Result<[Option<Ends>; 2], PlanError> {
    let wrong = |reason| PlanError::BadTunnelAddress {
        text: text.to_owned(),
        reason,
    };
    let words = text.split(',').map(|word| word.trim().parse());
    let all: Vec<IpAddr> = words
        .collect::<Result<_, _>>()
        .map_err(|_| wrong("one of them is no address"))?;
    let mut ends = [None, None];
    for pair in all.chunks(2) {
        let &[ours, far] = pair else {
            return Err(wrong("it takes two addresses, that of this host first"));
        };
        if ours.is_ipv4() != far.is_ipv4() {
            return Err(wrong("one is IPv4 and the other IPv6"));
        }
        if ours == far {
            return Err(wrong("both ends have the same address"));
        }
        let is_unfit = |ip: IpAddr| ip.is_loopback() || ip.is_multicast() || ip.is_unspecified();
        if is_unfit(ours) || is_unfit(far) {
            return Err(wrong("no host can have that address"));
        }
        let place = &mut ends[usize::from(ours.is_ipv6())];
        if place.replace(Ends { ours, far }).is_some() {
            return Err(wrong("there are two pairs of one family"));
        }
    }
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_of_either_family() {
        let ends = |text: &str| {
            let [v4, v6] = read_ends(text).unwrap();
            let both = v4.into_iter().chain(v6);
            let shown = both.map(|ends| format!("{}-{}", ends.ours, ends.far));
            shown.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ends("10.9.0.1,10.9.0.2"), "10.9.0.1-10.9.0.2");
        assert_eq!(
            ends("fd09::1, fd09::2, 10.9.0.1,10.9.0.2"),
            "10.9.0.1-10.9.0.2 fd09::1-fd09::2"
        );
        for wrong in [
            "",
            "10.9.0.1",
            "10.9.0.1,fd09::2",
            "10.9.0.1,10.9.0.1",
            "10.9.0.1,10.9.0.2,10.9.0.3",
            "10.9.0.1,10.9.0.2,10.9.0.3,10.9.0.4",
            "10.9.0.1/30,10.9.0.2",
            "127.0.0.1,10.9.0.2",
            "10.9.0.1,224.0.0.1",
        ] {
            assert!(
                matches!(read_ends(wrong), Err(PlanError::BadTunnelAddress { .. })),
                "{wrong}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9a-f.:,/ ]{0,60}|\\PC{0,20}") {
            let _ = read_ends(&text);
        }
    }
}
