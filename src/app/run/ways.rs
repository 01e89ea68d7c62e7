//! The carrier of a command's network: the server, this host, or nobody, as the plan says.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::carrier::direct::{Direct, TcpReader, TcpWriter};
use crate::carrier::steady::{SteadyReader, SteadyWriter};
use crate::carrier::{AnyCarrier, AnyReader, AnyWriter, Steady};
use crate::net::{
    ByteReader, ByteWriter, Carrier, OpenError, OpenFailure, Source, StreamError, Target,
};
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
            Way::Server => {
                let (reader, writer) = self.server.open(source, target).await?;
                Ok((WayReader::Server(reader), WayWriter::Server(writer)))
            }
            Way::Host => {
                let (reader, writer) = Direct.open(source, outside.unwrap_or(target)).await?;
                Ok((WayReader::Host(reader), WayWriter::Host(writer)))
            }
            Way::Nowhere => Err(OpenError::new(
                OpenFailure::NetworkUnreachable,
                "not captured, and --isolate is set",
            )),
        }
    }
}

/// Calls the same method of whichever it is.
macro_rules! either {
    ($any:ident, $one:ident => $call:expr) => {
        match $any {
            Self::Server($one) => $call,
            Self::Host($one) => $call,
        }
    };
}

/// The reading half of a flow.
pub(super) enum WayReader {
    Server(SteadyReader<AnyReader>),
    Host(TcpReader),
}

impl ByteReader for WayReader {
    async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        either!(self, reader => reader.read().await)
    }

    async fn reset(&mut self) -> StreamError {
        either!(self, reader => reader.reset().await)
    }

    fn connection(&self) -> Option<u32> {
        either!(self, reader => reader.connection())
    }

    async fn absorb(&mut self) -> StreamError {
        either!(self, reader => reader.absorb().await)
    }
}

/// The writing half of a flow.
pub(super) enum WayWriter {
    Server(SteadyWriter<AnyWriter>),
    Host(TcpWriter),
}

impl ByteWriter for WayWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<(), StreamError> {
        either!(self, writer => writer.write(chunk).await)
    }

    fn flush(&mut self) {
        either!(self, writer => writer.flush());
    }

    async fn finish(&mut self) -> Result<(), StreamError> {
        either!(self, writer => writer.finish().await)
    }
}
