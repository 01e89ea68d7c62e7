//! A carrier of either kind.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tracing::info;

use super::by_name::{NoMore, Spare};
use super::error::{ConnectError, LostReason};
use super::examine::{Answer, Request};
use super::link::{Description, Link};
use super::openssh::{OpensshCarrier, OpensshReader, OpensshWriter, PacketLink};
use super::packets::TunnelRefusal;
use super::prompt::Prompter;
use super::russh::{RusshCarrier, RusshReader, RusshWriter};
use crate::net::{Carrier, Either, Far, OpenError, PacketKind, Source};
use crate::plan::{CarrierKind, CarrierPlan, SshPlan};

/// Calls the same method of whichever it is.
macro_rules! either {
    ($any:ident, $one:ident => $call:expr) => {
        match $any {
            Self::Russh($one) => $call,
            Self::Openssh($one) => $call,
        }
    };
}

/// One of the two, and all of its connections.
pub(super) enum One {
    /// The SSH client that is built in.
    Russh(RusshCarrier),
    /// The user's own ssh.
    Openssh(OpensshCarrier),
}

impl One {
    /// As [`super::AnyCarrier::connect`].
    pub(super) async fn connect(
        plan: &CarrierPlan,
        server: &SshPlan,
        prompter: Arc<dyn Prompter>,
    ) -> Result<Self, ConnectError> {
        match plan.kind {
            CarrierKind::Russh => {
                info!("carrier: the built-in SSH ({})", plan.why);
                RusshCarrier::connect(server, prompter)
                    .await
                    .map(Self::Russh)
            }
            CarrierKind::Openssh => {
                info!("carrier: the installed ssh ({})", plan.why);
                let carrier = OpensshCarrier::connect(server, &plan.client).await;
                carrier.map(Self::Openssh)
            }
        }
    }

    /// As [`super::AnyCarrier::again`].
    pub(super) async fn again(
        &self,
        prompter: Option<Arc<dyn Prompter>>,
    ) -> Result<Self, ConnectError> {
        match self {
            Self::Russh(carrier) => carrier.again(prompter).await.map(Self::Russh),
            Self::Openssh(carrier) => carrier.again(prompter.is_some()).await.map(Self::Openssh),
        }
    }

    /// Whether it carries nothing any more. The reason may be known only later.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Russh(carrier) => carrier.lost().now_or_never().is_some(),
            Self::Openssh(carrier) => carrier.is_over(),
        }
    }

    pub(super) async fn ask(&self, request: Request<'_>) -> Answer {
        either!(self, carrier => carrier.ask(request).await)
    }

    /// As [`super::AnyCarrier::open_exec`].
    pub(super) async fn open_exec(
        &self,
        command: &str,
    ) -> Result<(AnyReader, AnyWriter), OpenError> {
        match self {
            Self::Russh(carrier) => carrier.open_exec(command).await.map(Either::left),
            Self::Openssh(carrier) => carrier.open_exec(command).await.map(Either::right),
        }
    }

    /// As [`super::any::PacketCarrier::open_packets`].
    pub(super) async fn open_packets(
        &self,
        kind: PacketKind,
        unit: Option<u32>,
    ) -> Result<PacketLink, TunnelRefusal> {
        match self {
            // It has another one for them.
            Self::Russh(_) => Err(TunnelRefusal::Lost),
            Self::Openssh(carrier) => carrier.open_packets(kind, unit).await,
        }
    }

    pub(super) async fn round_trip(&self) -> Option<Duration> {
        either!(self, carrier => carrier.round_trip().await)
    }

    pub(super) fn window(&self, round_trip: Duration) -> u32 {
        either!(self, carrier => carrier.window(round_trip))
    }
}

impl Spare for One {
    async fn apart(&self) -> Result<Self, NoMore> {
        match self {
            Self::Russh(carrier) => carrier.apart().await.map(Self::Russh),
            Self::Openssh(carrier) => carrier.apart().await.map(Self::Openssh),
        }
    }

    fn channels(&self) -> usize {
        either!(self, carrier => carrier.channels())
    }

    async fn done(&self) {
        either!(self, carrier => carrier.done().await);
    }
}

impl Link for One {
    fn description(&self) -> &Description {
        either!(self, carrier => carrier.description())
    }

    fn server_addresses(&self) -> Vec<IpAddr> {
        either!(self, carrier => carrier.server_addresses())
    }

    fn connections(&self) -> usize {
        either!(self, carrier => carrier.connections())
    }

    async fn lost(&self) -> LostReason {
        either!(self, carrier => carrier.lost().await)
    }

    async fn check(&self) {
        either!(self, carrier => carrier.check().await);
    }

    async fn shutdown(&self) {
        either!(self, carrier => carrier.shutdown().await);
    }
}

impl Carrier for One {
    type Reader = AnyReader;
    type Writer = AnyWriter;

    async fn open_far(
        &self,
        source: Source,
        far: Far,
    ) -> Result<(AnyReader, AnyWriter), OpenError> {
        match self {
            Self::Russh(carrier) => carrier.open_far(source, far).await.map(Either::left),
            Self::Openssh(carrier) => carrier.open_far(source, far).await.map(Either::right),
        }
    }
}

/// The reading half of a channel of either kind.
pub type AnyReader = Either<RusshReader, OpensshReader>;

/// The writing half of a channel of either kind.
pub type AnyWriter = Either<RusshWriter, OpensshWriter>;
