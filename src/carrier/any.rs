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
use super::packets::TunnelRefusal;
use super::prompt::Prompter;
use crate::net::{Carrier, Far, OpenError, PacketKind, Source};
use crate::plan::{CarrierPlan, SshPlan};

/// A carrier of either kind.
pub struct AnyCarrier {
    one: Arc<One>,
    by_name: ByName<One>,
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
        One::connect(plan, server, prompter).await.map(Self::of)
    }

    /// Logs in once more, with what let this one in. Where that asks somebody, or is not taken any more, `prompter` asks, or
    /// ssh does; with `None` nobody is asked.
    ///
    /// # Errors
    /// [`ConnectError`]; [`ConnectError::Refused`], too, where somebody would have to be asked.
    pub async fn again(&self, prompter: Option<Arc<dyn Prompter>>) -> Result<Self, ConnectError> {
        self.one.again(prompter).await.map(Self::of)
    }

    fn of(one: One) -> Self {
        let one = Arc::new(one);
        Self {
            by_name: ByName::new(Arc::clone(&one)),
            one,
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

    /// Asks the server for a tunnel of whole packets to its device of number `unit`, or to any free one.
    ///
    /// # Errors
    /// [`TunnelRefusal`]: one line for a person, with what to do.
    pub async fn open_packets(
        &self,
        kind: PacketKind,
        unit: Option<u32>,
    ) -> Result<PacketLink, TunnelRefusal> {
        self.one.open_packets(kind, unit).await
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
        for link in self.by_name.responsive() {
            checks.spawn(async move { link.check().await });
        }
        self.one.check().await;
        checks.join_all().await;
    }

    async fn shutdown(&self) {
        let mut goodbyes = JoinSet::new();
        for link in self.by_name.close() {
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
