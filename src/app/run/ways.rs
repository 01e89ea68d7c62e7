//! The carrier of a command's network: the server, this host, or nobody, as the plan says.

use std::net::SocketAddr;

use crate::carrier::direct::{Direct, TcpReader, TcpWriter};
use crate::carrier::steady::{SteadyReader, SteadyWriter};
use crate::carrier::{AnyCarrier, AnyReader, AnyWriter, Steady};
use crate::net::{Carrier, Either, OpenError, OpenFailure, Source, Target};
use crate::plan::names::{DNS, StandIn};
use crate::plan::{RunPlan, Way};

/// Opens each flow on its way.
pub(super) struct Ways {
    plan: RunPlan,
    stand_ins: Vec<StandIn>,
    server: Steady<AnyCarrier>,
}

impl Ways {
    pub(super) fn new(plan: RunPlan, stand_ins: Vec<StandIn>, server: Steady<AnyCarrier>) -> Self {
        Self {
            plan,
            stand_ins,
            server,
        }
    }

    pub(super) fn server(&self) -> &Steady<AnyCarrier> {
        &self.server
    }

    /// The name server of the host that `target` stands for.
    fn outside(&self, target: SocketAddr) -> Option<SocketAddr> {
        let is_it = |stand_in: &&StandIn| SocketAddr::new(stand_in.inside.into(), DNS) == target;
        self.stand_ins.iter().find(is_it).map(|found| found.outside)
    }
}

impl Carrier for Ways {
    type Reader = WayReader;
    type Writer = WayWriter;

    async fn open(
        &self,
        source: Source,
        target: Target,
    ) -> Result<(WayReader, WayWriter), OpenError> {
        let outside = self.outside(target.0).map(Target);
        let way = outside.map_or_else(|| self.plan.way(target.0), |_| Way::Host);
        match way {
            Way::Server => self.server.open(source, target).await.map(Either::left),
            Way::Host => {
                let opened = Direct.open(source, outside.unwrap_or(target)).await;
                opened.map(Either::right)
            }
            Way::Nowhere => Err(OpenError::new(
                OpenFailure::NetworkUnreachable,
                "not captured, and --isolate is set",
            )),
        }
    }
}

/// The reading half of a flow: through the server, or from this host.
type WayReader = Either<SteadyReader<AnyReader>, TcpReader>;

/// The writing half of a flow.
type WayWriter = Either<SteadyWriter<AnyWriter>, TcpWriter>;
