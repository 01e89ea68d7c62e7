//! `/etc/resolv.conf`, and who else writes it.

use std::io;
use std::net::Ipv4Addr;

use tokio::time::Instant;
use tracing::warn;

use super::At;
use super::patience::Patience;
use crate::os::made::Made;
use crate::os::resolv_conf::{Owner, ResolvConf};

/// It names our name server.
#[derive(Debug)]
pub(in crate::os) struct File {
    conf: ResolvConf,
    owner: Owner,
    server: Ipv4Addr,
    /// `None` where there is no way to hear of it.
    watch: Option<Made>,
    patience: Patience,
}

impl File {
    pub(super) fn hold(at: At<'_>) -> io::Result<Self> {
        let (conf, owner, server) = (ResolvConf::default(), Owner::here(at.slot)?, at.server());
        conf.replace(&owner, server)?;
        let watch = conf.watch().inspect_err(|error| {
            warn!("who writes /etc/resolv.conf meanwhile goes unnoticed: {error}");
        });
        Ok(Self {
            conf,
            owner,
            server,
            watch: watch.ok(),
            patience: Patience::new(Instant::now()),
        })
    }

    pub(super) async fn changed(&mut self) {
        let change = Made::changed(&mut self.watch, "/etc/resolv.conf");
        self.patience.wait(change).await;
    }

    pub(super) fn assert_again(&mut self) {
        let written = self.conf.replace(&self.owner, self.server);
        let plainly = "somebody has written /etc/resolv.conf: it names the name server of underpass again, and what they wrote comes back \
                       at the end";
        let last = "somebody writes /etc/resolv.conf again and again, and underpass once a minute from here on: meanwhile all names, \
                    private ones too, are asked of the name servers that they write; have them leave it alone, or take run --dns";
        self.patience
            .tell("/etc/resolv.conf", written, plainly, last);
    }

    pub(super) fn release(self) -> io::Result<()> {
        self.conf.restore().map(drop)
    }
}
