//! systemd-resolved: it asks our name server, by our device, for the names that we say, and goes on asking others for the rest.
//!
//! Nothing is to be put back after a kill: what is set goes with the device. But others set it, too: NetworkManager and
//! networkd take the settings of every link for theirs. What they wipe is set again.

use std::time::Duration;

use nix::net::if_::if_indextoname;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};
use zbus::{OwnedObjectPath, fdo};

use super::bus::{Bus, LINK, LOOK, MANAGER, PATH};
use super::patience::Patience;
use super::{At, NamesError, Wish, domains};

/// How long it may take to see a new link, or that it has an address.
const SETTLES: Duration = Duration::from_secs(2);
/// Between two looks meanwhile.
const GLANCE: Duration = Duration::from_millis(20);
/// `SD_RESOLVED_DNS`: names of the link are asked for over the DNS.
const ASKS: u64 = 1;

/// What a link shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Settings {
    /// Address families and addresses.
    servers: Vec<(i32, Vec<u8>)>,
    /// And whether each is for routing alone.
    domains: Vec<(String, bool)>,
    /// Whether it is asked for what no link has a domain of.
    default_route: bool,
}

impl Settings {
    fn new(wish: &Wish, servers: Vec<(i32, Vec<u8>)>) -> Self {
        let all = Self {
            servers,
            domains: domains::routed(wish),
            default_route: wish.domains.is_empty(),
        };
        all.sorted()
    }

    /// As far as they matter: resolved orders domains as it likes.
    fn sorted(mut self) -> Self {
        self.domains.sort();
        self
    }
}

/// The link of the device, as resolved sees it.
#[derive(Debug)]
pub(in crate::os) struct Link {
    index: i32,
    wanted: Settings,
    /// `None` after it was closed, until the next look.
    bus: Option<Bus>,
    patience: Patience,
}

impl Link {
    pub(super) async fn hold(wish: &Wish, at: At<'_>) -> Result<Self, NamesError> {
        let mut link = Self {
            index: at.index as i32,
            wanted: Settings::new(
                wish,
                vec![(nix::libc::AF_INET, at.server().octets().to_vec())],
            ),
            bus: None,
            patience: Patience::new(Instant::now()),
        };
        let bus = Bus::open().await?;
        link.see(&bus).await?;
        link.set(&bus).await.map_err(refused)?;
        link.settle(&bus).await;
        link.warn_of_rivals(&bus).await;
        link.bus = Some(bus);
        Ok(link)
    }

    /// Has it asked for what is wished now.
    pub(super) async fn change(&mut self, wish: &Wish) -> Result<(), NamesError> {
        self.wanted = Settings::new(wish, self.wanted.servers.clone());
        self.put().await.map(drop).map_err(refused)
    }

    /// Waits until resolved knows of the device, which it hears of from the kernel as we do.
    async fn see(&self, bus: &Bus) -> zbus::Result<OwnedObjectPath> {
        let deadline = Instant::now() + SETTLES;
        loop {
            match self.path(bus).await {
                Err(_) if Instant::now() < deadline => sleep(GLANCE).await,
                seen => return seen,
            }
        }
    }

    async fn path(&self, bus: &Bus) -> zbus::Result<OwnedObjectPath> {
        bus.call("GetLink", &self.index).await?.body().deserialize()
    }

    /// First what keeps others from answering, so that no name is asked of the link before.
    async fn set(&self, bus: &Bus) -> zbus::Result<()> {
        let Self { index, wanted, .. } = self;
        for method in [
            "SetLinkLLMNR",
            "SetLinkMulticastDNS",
            "SetLinkDNSOverTLS",
            "SetLinkDNSSEC",
        ] {
            optional(bus, method, &(index, "no")).await?;
        }
        let is_default = (index, wanted.default_route);
        optional(bus, "SetLinkDefaultRoute", &is_default).await?;
        bus.call("SetLinkDomains", &(index, &wanted.domains))
            .await?;
        bus.call("SetLinkDNS", &(index, &wanted.servers)).await?;
        bus.call("FlushCaches", &()).await?;
        Ok(())
    }

    /// Waits until resolved has seen that the link is up and has an address, and would ask there.
    async fn settle(&self, bus: &Bus) {
        let asks = async {
            loop {
                let mask = async {
                    bus.property(&self.path(bus).await?, LINK, "ScopesMask")
                        .await
                };
                let mask = mask.await.ok().and_then(|mask| u64::try_from(mask).ok());
                if mask.is_some_and(|mask| mask & ASKS != 0) {
                    return;
                }
                sleep(GLANCE).await;
            }
        };
        if timeout(SETTLES, asks).await.is_err() {
            debug!("systemd-resolved does not ask by the device yet");
        }
    }

    /// Two links with the same domain are both asked, and the first answer counts; with a longer one it is asked alone.
    async fn warn_of_rivals(&self, bus: &Bus) {
        let all = async { bus.property(PATH, MANAGER, "Domains").await?.try_into() };
        let all: zbus::Result<Vec<(i32, String, bool)>> = all.await;
        for (link, domain, is_longer) in rivals(&all.unwrap_or_default(), self) {
            // Domains of none are of all, and no link has number 0.
            let name = if_indextoname(link as u32);
            let name = name.map(|name| name.to_string_lossy().into_owned());
            let name = name.unwrap_or_else(|_| "resolved.conf(5)".to_owned());
            let how = ["as well", "and not underpass"][usize::from(is_longer)];
            warn!(
                "{domain}: systemd-resolved asks the name servers of {name} for these names {how}, and they leave this host so; \
                 have it leave them to underpass: sudo resolvectl domain {name} ''"
            );
        }
    }

    async fn found(&self, bus: &Bus) -> zbus::Result<Settings> {
        let path = self.path(bus).await?;
        let found = Settings {
            servers: bus.property(&path, LINK, "DNS").await?.try_into()?,
            domains: bus.property(&path, LINK, "Domains").await?.try_into()?,
            default_route: bus
                .property(&path, LINK, "DefaultRoute")
                .await?
                .try_into()?,
        };
        Ok(found.sorted())
    }

    pub(super) async fn changed(&mut self) {
        let change = async {
            match &mut self.bus {
                Some(bus) => {
                    if !bus.heard().await {
                        self.bus = None;
                    }
                }
                None => sleep(LOOK).await,
            }
        };
        self.patience.wait(change).await;
    }

    pub(super) async fn assert_again(&mut self) {
        let put = self.put().await;
        let plainly = "somebody has changed what systemd-resolved asks by the device: it asks the name server of underpass again";
        let last = "somebody changes what systemd-resolved asks by the device again and again, and underpass once a minute from here on: \
                    meanwhile private names may be asked of others; have NetworkManager or networkd leave the device unmanaged";
        self.patience.tell("systemd-resolved", put, plainly, last);
    }

    /// Sets what is not as wanted; whether it was not.
    async fn put(&mut self) -> zbus::Result<bool> {
        let bus = open(self.bus.take()).await?;
        let found = self.found(&bus).await;
        let is_other = found.as_ref().is_ok_and(|found| *found != self.wanted);
        let done = match is_other {
            true => self.set(&bus).await,
            false => found.map(drop),
        };
        self.bus = Some(bus);
        done.map(|()| is_other)
    }

    /// It goes with the device in any case.
    pub(super) async fn release(self) {
        let undone = async {
            let bus = open(self.bus).await?;
            bus.call("RevertLink", &self.index).await?;
            bus.call("FlushCaches", &()).await
        };
        if let Err(error) = undone.await {
            debug!("systemd-resolved keeps it until the device goes: {error}");
        }
    }
}

/// The one that is open, or another.
async fn open(bus: Option<Bus>) -> zbus::Result<Bus> {
    match bus {
        Some(bus) => Ok(bus),
        None => Bus::open().await,
    }
}

/// Who else has a domain of `own`, or one below it, which, and whether it is longer; the names of addresses do not matter so.
fn rivals(all: &[(i32, String, bool)], own: &Link) -> Vec<(i32, String, bool)> {
    let rival = |(link, domain, _): &(i32, String, bool)| {
        let mut wanted = own.wanted.domains.iter().map(|(own, _)| own);
        let is_other = *link != own.index && !domain.ends_with("arpa");
        let is_same = wanted.clone().any(|own| own == domain);
        let is_within = is_same || wanted.any(|own| domain.ends_with(&format!(".{own}")));
        (is_other && is_within).then(|| (*link, domain.clone(), !is_same))
    };
    all.iter().filter_map(rival).collect()
}

/// What an older one does not know it does not do either.
async fn optional<B>(bus: &Bus, method: &str, body: &B) -> zbus::Result<()>
where
    B: serde::Serialize + zbus::DynamicType,
{
    match bus.call(method, body).await {
        Err(zbus::Error::FDO(error)) if matches!(*error, fdo::Error::UnknownMethod(_)) => {
            debug!("systemd-resolved has no {method}");
            Ok(())
        }
        done => done.map(drop),
    }
}

fn refused(error: zbus::Error) -> NamesError {
    use fdo::Error::{AccessDenied, AuthFailed, InteractiveAuthorizationRequired};
    match &error {
        zbus::Error::FDO(fdo)
            if matches!(
                **fdo,
                AccessDenied(_) | AuthFailed(_) | InteractiveAuthorizationRequired(_)
            ) =>
        {
            NamesError::NotRoot
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_domain_of_ours_or_a_longer_one_is_a_rival() {
        let own = |domains: &[&str]| Link {
            index: 7,
            wanted: Settings {
                servers: Vec::new(),
                domains: domains.iter().map(|&text| (text.into(), true)).collect(),
                default_route: false,
            },
            bus: None,
            patience: Patience::new(Instant::now()),
        };
        let all = [
            (7, "corp.internal"),
            (2, "corp.internal"),
            (3, "dev.corp.internal"),
            (4, "acorp.internal"),
            (4, "internal"),
            (5, "1.0.10.in-addr.arpa"),
            (6, "."),
        ];
        let all = all.map(|(link, domain)| (link, domain.to_owned(), true));
        let found = |domains: &[&str]| {
            let rivals = rivals(&all, &own(domains)).into_iter();
            let words = rivals.map(|(link, _, is_longer)| format!("{link} {is_longer}"));
            words.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(found(&["corp.internal"]), "2 false, 3 true");
        let both = ["corp.internal", "dev.corp.internal"];
        assert_eq!(found(&both), "2 false, 3 false");
        assert_eq!(found(&["other.test"]), "");
        // With all names, those of the networks that the host is in stay there.
        assert_eq!(found(&["."]), "6 false");
    }
}
