//! One of the carriers, as the plan says, and its opens by name apart.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::by_name::ByName;
use super::error::{ConnectError, LostReason};
use super::examine::{Answer, Request};
use super::link::{Description, Link, distinct};
use super::one::{AnyReader, AnyWriter, One};
use super::openssh::PacketLink;
use super::packets::{Apart, TunnelRefusal};
use super::prompt::Prompter;
use crate::net::{Carrier, Far, OpenError, PacketKind, Source};
use crate::plan::{CarrierPlan, SshPlan};

/// A carrier of either kind.
pub struct AnyCarrier {
    one: Arc<One>,
    by_name: ByName<One>,
    packets: Apart,
}

/// Carries packets, and the commands that belong to them.
pub struct PacketCarrier(Arc<One>);

impl PacketCarrier {
    /// As [`AnyCarrier::ask`].
    pub async fn ask(&self, request: Request<'_>) -> Answer {
        self.0.ask(request).await
    }

    /// Asks the server for a tunnel of whole packets to its device of number `unit`, or to any free one.
    ///
    /// # Errors
    /// [`TunnelRefusal`]: one line for a person, with what to do.
    pub async fn open_packets(
        &self,
        kind: PacketKind,
        unit: Option<u32>,
    ) -> Result<PacketLink, TunnelRefusal> {
        self.0.open_packets(kind, unit).await
    }
}

impl AnyCarrier {
    /// Logs in to the server of `server` with the carrier of `plan`. `prompter` asks what a person has to answer,
    /// unless ssh does.
    ///
    /// # Errors
    /// [`ConnectError`]: one line for a person, with what to do.
    pub async fn connect(
        plan: &CarrierPlan,
        server: &SshPlan,
        prompter: Arc<dyn Prompter>,
    ) -> Result<Self, ConnectError> {
        let packets = Apart::new(server.clone(), plan.client.clone());
        let one = One::connect(plan, server, prompter).await?;
        Ok(Self::of(one, packets))
    }

    /// Logs in once more, with what let this one in. Where that asks somebody, or is not taken any more, `prompter` asks, or
    /// ssh does; with `None` nobody is asked.
    ///
    /// # Errors
    /// [`ConnectError`]; [`ConnectError::Refused`], too, where somebody would have to be asked.
    pub async fn again(&self, prompter: Option<Arc<dyn Prompter>>) -> Result<Self, ConnectError> {
        let one = self.one.again(prompter).await?;
        Ok(Self::of(one, self.packets.another()))
    }

    fn of(one: One, packets: Apart) -> Self {
        let one = Arc::new(one);
        Self {
            by_name: ByName::new(Arc::clone(&one)),
            one,
            packets,
        }
    }

    /// Asks the server for something of a session, which is closed again.
    pub async fn ask(&self, request: Request<'_>) -> Answer {
        self.one.ask(request).await
    }

    /// Runs `command` on the server: its output, and its input.
    ///
    /// # Errors
    /// The server opens no session, or runs no commands.
    pub async fn open_exec(&self, command: &str) -> Result<(AnyReader, AnyWriter), OpenError> {
        self.one.open_exec(command).await
    }

    /// What carries packets: this connection, or one more, by the installed ssh, where this one has no such channels. Where that
    /// one has to be made, it asks somebody at most where `may_ask`.
    ///
    /// # Errors
    /// As [`AnyCarrier::connect`].
    pub async fn for_packets(&self, may_ask: bool) -> Result<PacketCarrier, ConnectError> {
        let one = match *self.one {
            One::Openssh(_) => Arc::clone(&self.one),
            One::Russh(_) => self.packets.get_or_connect(may_ask).await?,
        };
        Ok(PacketCarrier(one))
    }

    /// The same, where it is there already.
    pub fn has_packets(&self) -> Option<PacketCarrier> {
        let one = match *self.one {
            One::Openssh(_) => Some(Arc::clone(&self.one)),
            One::Russh(_) => self.packets.get(),
        };
        one.map(PacketCarrier)
    }

    /// How long a question to the server itself takes to be answered. `None` where it is not, within a few seconds.
    pub async fn round_trip(&self) -> Option<Duration> {
        self.one.round_trip().await
    }

    /// How many bytes the server may send ahead for one flow on a path of this round trip.
    pub fn window(&self, round_trip: Duration) -> u32 {
        self.one.window(round_trip)
    }

    /// All that it consists of.
    fn links(&self) -> Vec<Arc<One>> {
        let mut links = self.by_name.links();
        links.extend(self.packets.get());
        links.push(Arc::clone(&self.one));
        links
    }
}

impl Link for AnyCarrier {
    fn description(&self) -> &Description {
        self.one.description()
    }

    fn server_addresses(&self) -> Vec<IpAddr> {
        let links = self.links();
        distinct(links.iter().flat_map(|link| link.server_addresses()))
    }

    fn connections(&self) -> usize {
        self.links().iter().map(|link| link.connections()).sum()
    }

    async fn lost(&self) -> LostReason {
        self.one.lost().await
    }

    async fn check(&self) {
        let mut checks = JoinSet::new();
        for link in self
            .by_name
            .responsive()
            .into_iter()
            .chain(self.packets.get())
        {
            checks.spawn(async move { link.check().await });
        }
        self.one.check().await;
        checks.join_all().await;
    }

    async fn shutdown(&self) {
        let mut goodbyes = JoinSet::new();
        for link in self.by_name.close().into_iter().chain(self.packets.get()) {
            goodbyes.spawn(async move { link.shutdown().await });
        }
        self.one.shutdown().await;
        goodbyes.join_all().await;
    }
}

impl Carrier for AnyCarrier {
    type Reader = AnyReader;
    type Writer = AnyWriter;

    async fn open_far(
        &self,
        source: Source,
        far: Far,
    ) -> Result<(AnyReader, AnyWriter), OpenError> {
        match far.name.clone() {
            Some(name) => self.by_name.open(source, far, name).await,
            None => self.one.open_far(source, far).await,
        }
    }
}
