//! Who looks after names on this host. Only looked at, never changed.
//!
//! In the order that Tailscale has found out the hard way (net/dns/manager_linux.go): what counts is who is *asked*, not who has
//! signed the file. A NetworkManager that leaves it to systemd-resolved names that one's address in a file of its own.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use super::left::is_left;
use super::{By, bus, program};
use crate::os::resolv_conf::{Owner, ResolvConf, beginning};
use crate::plan::names;

/// Whom programs ask (resolv.conf(5)).
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Who is asked for hosts (nsswitch.conf(5)).
const NSSWITCH: &str = "/etc/nsswitch.conf";
/// Those that systemd-resolved asks itself.
const UPLINK: &str = "/run/systemd/resolve/resolv.conf";
/// Where systemd-resolved is asked.
const STUBS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)),
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54)),
];
/// Where Tailscale is.
const TAILSCALE: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 100, 100, 100));

/// The slot of who has programs ask it by the file, or by resolvconf(8), now.
pub fn others_slot(by: By) -> Option<u32> {
    let is_held = |owner: &Owner| !is_left(owner, None);
    let owner = match by {
        By::File => ResolvConf::default().owner().filter(is_held),
        By::Program => program::owners().find(is_held),
        By::Resolved | By::Netns | By::Process => None,
    };
    owner.map(|owner| owner.slot)
}

/// Who looks after names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// systemd-resolved: programs ask it.
    Resolved,
    /// It as well, but it does not answer on the bus.
    SilentResolved,
    /// It writes the file, and programs ask those that it names there.
    ResolvedsList,
    /// NetworkManager, by the file.
    NetworkManager,
    /// resolvconf(8), by the file.
    Resolvconf,
    /// The same, once: it is not there any more.
    GoneResolvconf,
    /// Tailscale, by the file, which it does not let others have.
    Tailscale,
    /// A DHCP client, by the file.
    Dhcp,
    /// Nobody.
    Plain,
    /// Nobody, in a network namespace with a name.
    Netns,
    /// Nobody, in that of a process.
    Process,
}

impl Keeper {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resolved | Self::SilentResolved => "systemd-resolved",
            Self::ResolvedsList => {
                "systemd-resolved, which writes /etc/resolv.conf and is not asked"
            }
            Self::NetworkManager => "NetworkManager",
            Self::Resolvconf | Self::GoneResolvconf => "resolvconf",
            Self::Tailscale => "Tailscale",
            Self::Dhcp => "the DHCP client",
            Self::Plain => "a plain /etc/resolv.conf",
            Self::Netns | Self::Process => "the resolv.conf of that network",
        }
    }

    /// Whether that is in another network than ours.
    pub fn is_elsewhere(self) -> bool {
        matches!(self, Self::Netns | Self::Process)
    }

    /// Whether it will write the file that is replaced.
    pub fn writes_the_file(self) -> bool {
        matches!(
            self,
            Self::ResolvedsList | Self::NetworkManager | Self::Dhcp
        )
    }

    /// How programs can be brought to another name server; `None` where they cannot.
    pub fn by(self) -> Option<By> {
        match self {
            Self::Resolved => Some(By::Resolved),
            Self::SilentResolved | Self::Tailscale => None,
            Self::Resolvconf => Some(By::Program),
            Self::GoneResolvconf
            | Self::ResolvedsList
            | Self::NetworkManager
            | Self::Dhcp
            | Self::Plain => Some(By::File),
            Self::Netns => Some(By::Netns),
            Self::Process => Some(By::Process),
        }
    }
}

/// What is read from the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Where `/etc/resolv.conf` leads, where it is a link.
    pub link: Option<PathBuf>,
    /// Its text; `None` where it cannot be read.
    pub text: Option<String>,
    /// `/etc/nsswitch.conf`.
    pub nsswitch: String,
    /// Whether systemd-resolved answers on the bus; it is asked only where somebody asks it for names.
    pub resolved_answers: bool,
    /// Whether there is a resolvconf(8).
    pub has_resolvconf: bool,
}

impl Facts {
    /// Reads them.
    pub async fn read() -> Self {
        let link = fs::canonicalize(RESOLV_CONF).ok();
        let mut facts = Self {
            link: link.filter(|path| path != Path::new(RESOLV_CONF)),
            text: beginning(RESOLV_CONF.as_ref()).ok(),
            nsswitch: beginning(NSSWITCH.as_ref()).unwrap_or_default(),
            resolved_answers: false,
            has_resolvconf: program::find().is_some(),
        };
        facts.resolved_answers = facts.is_resolved_asked() && bus::resolved_answers().await;
        facts
    }

    /// Who looks after names.
    pub fn keeper(&self) -> Keeper {
        let text = self.text.as_deref().unwrap_or_default();
        let says = |words: &str| {
            text.lines()
                .any(|line| line.starts_with(['#', ';']) && line.contains(words))
        };
        match () {
            () if self.is_resolved_asked() => match self.resolved_answers {
                true => Keeper::Resolved,
                false => Keeper::SilentResolved,
            },
            () if self.leads_to("systemd/resolve") => Keeper::ResolvedsList,
            () if self.leads_to("NetworkManager") || says("NetworkManager") => {
                Keeper::NetworkManager
            }
            () if self.leads_to("resolvconf") || says("resolvconf") => match self.has_resolvconf {
                true => Keeper::Resolvconf,
                false => Keeper::GoneResolvconf,
            },
            () if says("tailscale") || self.servers().contains(&TAILSCALE) => Keeper::Tailscale,
            () if says("dhcpcd") || says("dhclient") => Keeper::Dhcp,
            () => Keeper::Plain,
        }
    }

    /// By the address of its stub, or by the C library (nss-resolve(8)), which then needs no file.
    fn is_resolved_asked(&self) -> bool {
        let servers = self.servers();
        let by_address = !servers.is_empty() && servers.iter().all(|ip| STUBS.contains(ip));
        by_address || self.leads_to("resolve/stub-resolv.conf") || asks_resolved(&self.nsswitch)
    }

    fn leads_to(&self, part: &str) -> bool {
        let link = self.link.as_deref();
        link.is_some_and(|link| link.to_string_lossy().contains(part))
    }

    fn servers(&self) -> Vec<IpAddr> {
        let servers = names::servers(self.text.as_deref().unwrap_or_default(), |_| None);
        servers.iter().map(|server| server.ip()).collect()
    }
}

/// What resolv.conf(5) would say without us, now: whom this host asks for what is not for our name server.
pub fn upstream(by: By) -> String {
    let text = match by {
        By::Resolved => beginning(UPLINK.as_ref()).ok(),
        By::Program => Some(program::others()).filter(|text| !text.is_empty()),
        By::File => ResolvConf::default().kept(),
        By::Netns | By::Process => None,
    };
    text.or_else(|| beginning(RESOLV_CONF.as_ref()).ok())
        .unwrap_or_default()
}

/// Whether the C library asks systemd-resolved (nss-resolve(8)) before whom a file names, where nsswitch.conf(5) says this.
pub fn asks_resolved(nsswitch: &str) -> bool {
    let hosts = nsswitch.lines();
    let mut hosts = hosts.filter_map(|line| line.trim_start().strip_prefix("hosts:"));
    let services = hosts.next().unwrap_or_default().split('#').next();
    let mut services = services.unwrap_or_default().split_whitespace();
    services.find(|service| matches!(*service, "resolve" | "dns")) == Some("resolve")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Keeper::*;
    use super::*;

    fn keeper(link: &str, text: &str, nsswitch: &str, resolved_answers: bool) -> Keeper {
        let facts = Facts {
            link: Some(PathBuf::from(link)).filter(|_| !link.is_empty()),
            text: Some(text.to_owned()),
            nsswitch: format!("passwd: files\nhosts: {nsswitch}\n"),
            resolved_answers,
            has_resolvconf: resolved_answers,
        };
        facts.keeper()
    }

    #[test]
    fn who_is_asked_looks_after_names() {
        let (stub, dns) = ("nameserver 127.0.0.53\n", "files dns");
        let nm = "# Generated by NetworkManager\n";
        let list = "/run/systemd/resolve/resolv.conf";
        for (link, text, nsswitch, expected) in [
            ("", "nameserver 192.0.2.1\n", dns, Plain),
            ("", "", dns, Plain),
            ("", "# by hand\nnameserver 192.0.2.1\n", "files", Plain),
            // systemd-resolved, by its address, whoever has written it down.
            ("/run/systemd/resolve/stub-resolv.conf", stub, dns, Resolved),
            ("/usr/lib/systemd/resolv.conf", stub, dns, Resolved),
            ("", stub, dns, Resolved),
            ("", &format!("{nm}{stub}"), dns, Resolved),
            (
                "/run/NetworkManager/resolv.conf",
                &format!("{nm}{stub}"),
                dns,
                Resolved,
            ),
            ("/run/resolvconf/resolv.conf", stub, dns, Resolved),
            // Or by the C library alone.
            (
                "",
                "nameserver 192.0.2.1\n",
                "mymachines resolve [!UNAVAIL=return] files dns",
                Resolved,
            ),
            (
                list,
                "nameserver 192.0.2.1\n",
                "files resolve dns",
                Resolved,
            ),
            ("", "nameserver 192.0.2.1\n", "files dns resolve", Plain),
            ("", "nameserver 192.0.2.1\n", "files dns # resolve", Plain),
            // It runs, and is not asked.
            (list, "nameserver 192.0.2.1\n", dns, ResolvedsList),
            (
                list,
                "nameserver 127.0.0.53\nnameserver 192.0.2.1\n",
                dns,
                ResolvedsList,
            ),
            (
                "",
                "nameserver 127.0.0.53\nnameserver 192.0.2.1\n",
                dns,
                Plain,
            ),
            // The others.
            (
                "",
                &format!("{nm}nameserver 192.0.2.1\n"),
                dns,
                NetworkManager,
            ),
            (
                "/run/NetworkManager/resolv.conf",
                "nameserver 192.0.2.1\n",
                dns,
                NetworkManager,
            ),
            (
                "/run/resolvconf/resolv.conf",
                "nameserver\t192.0.2.1\n",
                dns,
                Resolvconf,
            ),
            (
                "",
                "# Generated by resolvconf\nnameserver 192.0.2.1\n",
                dns,
                Resolvconf,
            ),
            (
                "",
                "# resolv.conf(5) file generated by tailscale\nnameserver 192.0.2.1\n",
                dns,
                Tailscale,
            ),
            ("", "nameserver 100.100.100.100\n", dns, Tailscale),
            (
                "",
                "# Generated by dhcpcd from eth0.dhcp\nnameserver 192.0.2.1\n",
                dns,
                Dhcp,
            ),
        ] {
            let found = keeper(link, text, nsswitch, true);
            assert_eq!(found, expected, "{link:?} {text:?} {nsswitch:?}");
            // Without the bus and the program they are less of use.
            let silent = keeper(link, text, nsswitch, false);
            let expected = match expected {
                Resolved => SilentResolved,
                Resolvconf => GoneResolvconf,
                other => other,
            };
            assert_eq!(silent, expected, "{link:?} {text:?} {nsswitch:?}");
        }
        assert_eq!(Facts::default().keeper(), Plain);
    }

    proptest! {
        #[test]
        fn any_text_will_do(text: String, nsswitch: String) {
            keeper("", &text, &nsswitch, true);
        }
    }
}
