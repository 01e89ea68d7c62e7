//! One of the carriers, as the plan says.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use super::error::{ConnectError, LostReason};
use super::examine::{Answer, Request};
use super::link::{Description, Link};
use super::openssh::{OpensshCarrier, OpensshReader, OpensshWriter};
use super::prompt::Prompter;
use super::russh::{RusshCarrier, RusshReader, RusshWriter};
use crate::net::{Carrier, Either, Far, OpenError, Source};
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

/// A carrier of either kind.
pub enum AnyCarrier {
    /// The SSH client that is built in.
    Russh(RusshCarrier),
    /// The user's own ssh.
    Openssh(OpensshCarrier),
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

    /// Logs in once more, with what let this one in. Where that asks somebody, or is not taken any more, `prompter` asks, or
    /// ssh does; with `None` nobody is asked.
    ///
    /// # Errors
    /// [`ConnectError`]; [`ConnectError::Refused`], too, where somebody would have to be asked.
    pub async fn again(&self, prompter: Option<Arc<dyn Prompter>>) -> Result<Self, ConnectError> {
        match self {
            Self::Russh(carrier) => carrier.again(prompter).await.map(Self::Russh),
            Self::Openssh(carrier) => carrier.again(prompter.is_some()).await.map(Self::Openssh),
        }
    }
}

impl AnyCarrier {
    /// Asks the server for something of a session, which is closed again.
    pub async fn ask(&self, request: Request<'_>) -> Answer {
        either!(self, carrier => carrier.ask(request).await)
    }

    /// How long a question to the server itself takes to be answered. `None` where it is not, within a few seconds.
    pub async fn round_trip(&self) -> Option<Duration> {
        either!(self, carrier => carrier.round_trip().await)
    }

    /// How many bytes the server may send ahead for one flow on a path of this round trip.
    pub fn window(&self, round_trip: Duration) -> u32 {
        either!(self, carrier => carrier.window(round_trip))
    }
}

impl Link for AnyCarrier {
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

impl Carrier for AnyCarrier {
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
