//! What the server says of itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use thiserror::Error;

use super::DeviceKind;
use super::addresses::{Ends, TunnelAddress};
use super::report::shown;

/// The first line of an answer.
const FIRST: &str = "underpass-probe 1";
/// Devices of tunnels are numbered from here: people who do it by hand begin with 0.
const FIRST_UNIT: u32 = 64;
/// `TUN_TUN_DEV`, `TUN_TAP_DEV` and `IFF_PERSIST` (linux/if_tun.h).
const TUN: u32 = 0x0001;
const TAP: u32 = 0x0002;
const PERSIST: u32 = 0x0800;
/// More of a router's networks are not kept.
const MOST_NETWORKS: usize = 1024;
/// Nor more of its firewall's chains.
const MOST_CHAINS: usize = 20;

/// What whoever logs in may do on the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rights {
    /// Nothing but what is theirs.
    #[default]
    None,
    /// Anything, with `sudo -n`.
    Sudo,
    /// Anything.
    Root,
}

impl Rights {
    /// What stands in front of a command.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Sudo => "sudo -n ",
            Self::None | Self::Root => "",
        }
    }
}

/// A device that somebody has made for whoever logs in, and that nobody uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Its number.
    pub unit: u32,
    /// The addresses that it has.
    pub address: TunnelAddress,
}

/// How it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The far end can be set up.
    Setup(Rights),
    /// Somebody has set it up.
    Prepared(Prepared),
    /// It cannot be set up.
    MayNot(MayNot),
}

/// Why the far end cannot be set up.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum MayNot {
    /// Neither root nor sudo.
    #[error("the login is not root on the server, and may not use sudo without a password")]
    Rights,
    /// No ip(8).
    #[error("the server has no ip command; install iproute2 there")]
    Ip,
    /// No `/dev/net/tun`.
    #[error("the server has no /dev/net/tun; modprobe tun there, or permit it for the container")]
    Device,
    /// Nothing that could translate addresses.
    #[error("the server has neither nft nor iptables; install nftables there")]
    Nat,
}

/// An answer that is none.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ProbeError {
    /// No shell of POSIX, or a command that is forced.
    #[error(
        "the server runs no shell script of ours: its login shell or a forced command answers otherwise"
    )]
    Foreign,
    /// It ends before its end.
    #[error("what the server said of itself is cut")]
    Cut,
}

/// What the server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// The number of who logs in.
    pub uid: u32,
    /// Their name, as the server has it.
    pub user: String,
    /// What they may do.
    pub rights: Rights,
    /// Whether nft works there, or is installed where only root can tell.
    pub nft: bool,
    /// Whether new devices there have IPv6.
    pub ipv6: bool,
    /// Whether it forwards already, IPv4 and IPv6.
    pub forwards: (bool, bool),
    /// Chains of its firewall that drop what is forwarded, whatever ours say: family, table and name.
    pub dropping: Vec<String>,
    /// Networks that it has addresses in or routes to, default routes apart.
    pub taken: Vec<IpNet>,
    has_ip: bool,
    has_tun: bool,
    has_nft: bool,
    has_iptables: bool,
    /// Names of devices, and whether somebody holds them.
    links: Vec<(String, bool)>,
    /// Names, flags and owners.
    tuns: Vec<(String, u32, u32)>,
    /// Names, and addresses of both ends.
    peers: Vec<(String, IpAddr, IpAddr)>,
}

impl Probe {
    /// Reads what [`super::probe_command`] has printed, whatever login scripts have printed before it.
    ///
    /// # Errors
    /// [`ProbeError`].
    pub fn read(text: &str) -> Result<Self, ProbeError> {
        let mut lines = text.lines().skip_while(|line| line.trim_end() != FIRST);
        lines.next().ok_or(ProbeError::Foreign)?;
        let mut probe = Self::default();
        let mut uid = None;
        for line in lines {
            let (word, rest) = line
                .trim_end()
                .split_once(' ')
                .unwrap_or((line.trim_end(), ""));
            match word {
                "uid" => uid = rest.parse().ok(),
                "end" => {
                    probe.uid = uid.ok_or(ProbeError::Foreign)?;
                    if probe.uid == 0 {
                        probe.rights = Rights::Root;
                    }
                    // Who is not root cannot try.
                    probe.nft |= probe.has_nft && probe.rights == Rights::None;
                    return Ok(probe);
                }
                _ => probe.hear(word, rest),
            }
        }
        Err(ProbeError::Cut)
    }

    fn hear(&mut self, word: &str, rest: &str) {
        match (word, rest) {
            ("user", name) => self.user = name.to_owned(),
            ("sudo", "yes") => self.rights = Rights::Sudo,
            ("has", "ip") => self.has_ip = true,
            ("has", "tun") => self.has_tun = true,
            ("has", "iptables") => self.has_iptables = true,
            ("has", "nft") => self.has_nft = true,
            ("works", "nft") => self.nft = true,
            ("drops", chain) if self.dropping.len() < MOST_CHAINS => {
                self.dropping.push(shown(chain));
            }
            ("forward4", value) => self.forwards.0 = value == "1",
            ("forward6", value) => self.forwards.1 = value == "1",
            ("disable6", value) => self.ipv6 = value == "0",
            ("tun", line) => self.tuns.extend(tun(line)),
            ("link", line) => self.links.extend(link(line)),
            ("address", line) => self.address(line),
            ("route4" | "route6", line) => self.take(route(line)),
            _ => {}
        }
    }

    fn take(&mut self, net: Option<IpNet>) {
        let net = net
            .map(|net| net.trunc())
            .filter(|net| net.prefix_len() > 0);
        let room = MOST_NETWORKS.saturating_sub(self.taken.len());
        let new = net.filter(|net| !self.taken.contains(net));
        self.taken.extend(new.into_iter().take(room));
    }

    /// `7: tun7    inet 198.19.128.2 peer 198.19.128.1/32 scope global tun7`
    fn address(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, device, "inet" | "inet6", address, ref rest @ ..] = words[..] else {
            return;
        };
        self.take(net(address));
        if let ["peer", peer, ..] = rest[..] {
            self.take(net(peer));
            if let (Some(own), Some(peer)) = (net(address), net(peer)) {
                self.peers
                    .push((device.to_owned(), own.addr(), peer.addr()));
            }
        }
    }

    /// Whether such a device can be had, and how.
    pub fn way(&self, kind: DeviceKind) -> Way {
        let lacks = [
            (self.rights == Rights::None, MayNot::Rights),
            (!self.has_ip, MayNot::Ip),
            (!self.has_tun, MayNot::Device),
            (!self.nft && !self.has_iptables, MayNot::Nat),
        ];
        match lacks.into_iter().find(|(lacks, _)| *lacks) {
            None => Way::Setup(self.rights),
            Some((_, why)) => match self.prepared(kind) {
                Some(prepared) => Way::Prepared(prepared),
                None => Way::MayNot(why),
            },
        }
    }

    /// A number that no device has, and that is none of `refused`.
    pub fn unit(&self, kind: DeviceKind, refused: &[u32]) -> u32 {
        let mut units =
            (FIRST_UNIT..).filter(|unit| !refused.contains(unit) && !self.has(kind, *unit));
        units.next().unwrap_or(FIRST_UNIT)
    }

    /// Whether there is a device of this number, whoever has it.
    pub fn has(&self, kind: DeviceKind, unit: u32) -> bool {
        let name = kind.device(unit);
        self.links.iter().any(|(there, _)| *there == name)
    }

    fn prepared(&self, kind: DeviceKind) -> Option<Prepared> {
        let bit = match kind {
            DeviceKind::Tun => TUN,
            DeviceKind::Tap => TAP,
        };
        let mut fitting = self.tuns.iter().filter(|(_, flags, owner)| {
            flags & bit != 0 && flags & PERSIST != 0 && *owner == self.uid
        });
        fitting.find_map(|(name, ..)| {
            let unit = name.strip_prefix(kind.word())?.parse().ok()?;
            let is_free = |(there, is_held): &(String, bool)| there == name && !is_held;
            let address = self
                .links
                .iter()
                .any(is_free)
                .then(|| self.address_of(name))??;
            Some(Prepared { unit, address })
        })
    }

    fn address_of(&self, device: &str) -> Option<TunnelAddress> {
        let mut v4: Option<Ends<Ipv4Addr>> = None;
        let mut v6: Option<Ends<Ipv6Addr>> = None;
        for (_, far, ours) in self.peers.iter().filter(|(name, ..)| name == device) {
            match (*ours, *far) {
                (IpAddr::V4(ours), IpAddr::V4(far)) => v4 = Some(Ends { ours, far }),
                (IpAddr::V6(ours), IpAddr::V6(far)) => v6 = Some(Ends { ours, far }),
                _ => {}
            }
        }
        Some(TunnelAddress { v4: v4?, v6 })
    }
}

/// `7: eth0@if8: <BROADCAST,UP,LOWER_UP> mtu 1500`
fn link(line: &str) -> Option<(String, bool)> {
    let mut words = line.split_whitespace().skip(1);
    let name = words.next()?.trim_end_matches(':');
    let name = name.split('@').next()?;
    let flags = words.next().unwrap_or_default();
    Some((name.to_owned(), flags.contains("LOWER_UP")))
}

/// `tun7 0x1801 1000`
fn tun(line: &str) -> Option<(String, u32, u32)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, flags, owner] = words[..] else {
        return None;
    };
    let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok()?;
    Some((name.to_owned(), flags, owner.parse().ok()?))
}

/// `10.0.0.0/16 via 192.0.2.1 dev eth0`, perhaps with its type in front.
fn route(line: &str) -> Option<IpNet> {
    line.split_whitespace().take(2).find_map(net)
}

fn net(word: &str) -> Option<IpNet> {
    word.parse()
        .ok()
        .or_else(|| Some(IpNet::from(word.parse::<IpAddr>().ok()?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOT: &str = "\
Welcome to bastion
underpass-probe 1
uid 0
user root
has ip
has nft
works nft
has tun
forward4 0
forward6 1
disable6 0
tun tun64 0x1001 -1
link 1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536
link 2: eth0@if9: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500
link 7: tun64: <POINTOPOINT,MULTICAST,NOARP,UP,LOWER_UP> mtu 150
address 2: eth0    inet 10.0.0.1/24 brd 10.0.0.255 scope global eth0
address 7: tun64    inet 198.19.128.2 peer 198.19.128.1/32 scope glo
route4 default via 10.0.0.254 dev eth0
route4 10.0.0.0/24 dev eth0 proto kernel
route4 local 10.0.0.1 dev eth0 table loc
route6 unreachable default dev lo metric
route6 fd00:5::/64 dev eth0 proto kernel
end
";
    const USER: &str = "\
underpass-probe 1
uid 1000
user alice
has ip
has iptables
has tun
tun tun7 0x1801 1000
tun tun8 0x1801 1000
tun tun9 0x1801 1001
tun tap7 0x1802 1000
link 3: tun7: <POINTOPOINT,UP,LOWER_UP> mtu 1500
link 4: tun8: <NO-CARRIER,POINTOPOINT,MULTICAST,NOARP,UP> mtu 15
link 5: tap7: <NO-CARRIER,UP> mtu 15
address 3: tun7    inet 10.9.0.2 peer 10.9.0.1/32 scope global tun7
address 4: tun8    inet 10.9.0.6 peer 10.9.0.5/32 scope global tun8
address 4: tun8    inet6 fd00::6 peer fd00::5/128 scope global
end
";

    #[test]
    fn root_sets_it_up() {
        let probe = Probe::read(ROOT).unwrap();
        assert_eq!(probe.way(DeviceKind::Tun), Way::Setup(Rights::Root));
        assert_eq!((probe.forwards, probe.ipv6), ((false, true), true));
        assert_eq!(probe.unit(DeviceKind::Tun, &[]), 65);
        assert_eq!(probe.unit(DeviceKind::Tun, &[65, 67]), 66);
        assert_eq!(probe.unit(DeviceKind::Tap, &[]), 64);
        let taken: Vec<String> = probe.taken.iter().map(ToString::to_string).collect();
        assert_eq!(
            taken,
            [
                "10.0.0.0/24",
                "198.19.128.2/32",
                "198.19.128.1/32",
                "10.0.0.1/32",
                "fd00:5::/64"
            ]
        );
    }

    #[test]
    fn what_an_administrator_has_made_is_used() {
        let probe = Probe::read(USER).unwrap();
        let prepared = Prepared {
            unit: 8,
            address: "10.9.0.5,10.9.0.6,fd00::5,fd00::6".parse().unwrap(),
        };
        assert_eq!(probe.way(DeviceKind::Tun), Way::Prepared(prepared));
        // It has no addresses.
        assert_eq!(probe.way(DeviceKind::Tap), Way::MayNot(MayNot::Rights));
    }

    #[test]
    fn what_is_missing_is_named() {
        let sudo = USER.replace("has ip\n", "has ip\nsudo yes\n");
        let way = |text: &str| Probe::read(text).unwrap().way(DeviceKind::Tap);
        assert_eq!(way(&sudo), Way::Setup(Rights::Sudo));
        for (line, expected) in [
            ("sudo yes\n", MayNot::Rights),
            ("has ip\n", MayNot::Ip),
            ("has tun\n", MayNot::Device),
            ("has iptables\n", MayNot::Nat),
        ] {
            assert_eq!(
                way(&sudo.replace(line, "")),
                Way::MayNot(expected),
                "{line}"
            );
        }
    }

    #[test]
    fn no_answer_of_ours() {
        for (text, expected) in [
            ("This account is not available.\n", ProbeError::Foreign),
            ("underpass-probe 1\nend\n", ProbeError::Foreign),
            ("underpass-probe 1\nuid x\nend\n", ProbeError::Foreign),
            ("underpass-probe 1\nuid 0\nlink 1: l", ProbeError::Cut),
        ] {
            assert_eq!(Probe::read(text), Err(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "((uid|user|tun|link|address|route4|route6|has|forward4) (\\PC{0,30}|[0-9a-fx:./ ]{0,30}|[0-9]: tun[0-9] inet6? [0-9.:/]{0,20} peer [0-9.]{0,9})\n){0,20}") {
            let text = format!("{FIRST}\nuid 5\n{text}\nuid 5\nend\n");
            let probe = Probe::read(&text).unwrap();
            for kind in [DeviceKind::Tun, DeviceKind::Tap] {
                let _ = probe.way(kind);
                let unit = probe.unit(kind, &[64]);
                prop_assert!(probe.links.iter().all(|(name, _)| *name != kind.device(unit)));
            }
            prop_assert!(probe.taken.iter().all(|net| net.prefix_len() > 0));
        }
    }
}
