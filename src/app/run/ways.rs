//! The ways out of a command's network: the server, this host, or nowhere, as the plan says.

use std::net::SocketAddr;

use crate::app::up::leads::{Leads, far};
use crate::carrier::direct::{Direct, TcpReader, TcpWriter};
use crate::carrier::steady::{SteadyReader, SteadyWriter};
use crate::carrier::{AnyCarrier, AnyReader, AnyWriter, Steady};
use crate::net::{Carrier, Either, Far, OpenError, OpenFailure, Source, Target};
use crate::plan::names::{DNS, StandIn};
use crate::plan::{Mapping, RunPlan, Way};
use crate::resolve::{Answers, DatagramsFirst, Questions};

/// Finds each flow's way.
pub(super) struct Ways {
    plan: RunPlan,
    mapping: Mapping,
    stand_ins: Vec<StandIn>,
    server: Steady<AnyCarrier>,
    names: DatagramsFirst<Direct>,
}

impl Ways {
    pub(super) fn new(plan: RunPlan, stand_ins: Vec<StandIn>, server: Steady<AnyCarrier>) -> Self {
        Self {
            mapping: Mapping::new(&plan.plan.capture),
            plan,
            stand_ins,
            server,
            names: DatagramsFirst::new(Direct),
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

impl Leads for Ways {
    type Carrier<'a> = Out<'a>;

    fn lead(&self, target: Target) -> (Out<'_>, Target) {
        if let Some(outside) = self.outside(target.0) {
            return (Out::Names(&self.names), Target(outside));
        }
        match self.plan.way(target.0) {
            Way::Server => (Out::Server(&self.server), far(&self.mapping, target)),
            Way::Host => (Out::Host, target),
            Way::Nowhere => (Out::Nowhere, target),
        }
    }

    fn at_server(&self, target: Target) -> Option<Target> {
        let leads_there = self.plan.way(target.0) == Way::Server;
        let is_named = self.outside(target.0).is_some();
        (leads_there && !is_named).then(|| far(&self.mapping, target))
    }
}

/// The way of one flow.
pub(super) enum Out<'a> {
    Server(&'a Steady<AnyCarrier>),
    Host,
    /// To a name server of this host's. Which speaks UDP at least, so it is not known here whether it would accept a stream.
    Names(&'a DatagramsFirst<Direct>),
    Nowhere,
}

impl Carrier for Out<'_> {
    type Reader = WayReader;
    type Writer = WayWriter;

    async fn open_far(
        &self,
        source: Source,
        far: Far,
    ) -> Result<(WayReader, WayWriter), OpenError> {
        match self {
            Self::Server(server) => server.open_far(source, far).await.map(Either::left),
            Self::Host => {
                let opened = Direct.open_far(source, far).await;
                opened.map(Either::right).map(Either::right)
            }
            Self::Names(names) => names.open_far(source, far).await.map(Either::right),
            Self::Nowhere => Err(OpenError::new(
                OpenFailure::NetworkUnreachable,
                "not captured, and --isolate is set",
            )),
        }
    }
}

/// The reading half of a flow: through the server, or from this host.
type WayReader = Either<SteadyReader<AnyReader>, Either<Answers, TcpReader>>;

/// The writing half of a flow.
type WayWriter = Either<SteadyWriter<AnyWriter>, Either<Questions<Direct>, TcpWriter>>;
