//! Links for tests of who uses which.

use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;

use super::*;
use crate::carrier::error::LostReason;
use crate::carrier::link::Description;
use crate::net::{ByteReader, ByteWriter, Carrier, StreamError, Target};

/// What has become of links.
#[derive(Default)]
struct Seen {
    made: AtomicUsize,
    closed: AtomicUsize,
}

/// A link that opens whatever it is asked for.
pub(super) struct Fake {
    seen: Arc<Seen>,
    /// Each half of a stream has it.
    streams: Arc<()>,
}

pub(super) struct Half {
    _of: Arc<()>,
}

impl ByteReader for Half {
    async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        Ok(None)
    }

    async fn reset(&mut self) -> StreamError {
        pending().await
    }
}

impl ByteWriter for Half {
    async fn write(&mut self, _: Bytes) -> Result<(), StreamError> {
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), StreamError> {
        Ok(())
    }
}

impl Carrier for Fake {
    type Reader = Half;
    type Writer = Half;

    async fn open_far(&self, _: Source, _: Far) -> Result<(Half, Half), OpenError> {
        let half = || Half {
            _of: Arc::clone(&self.streams),
        };
        Ok((half(), half()))
    }
}

impl Link for Fake {
    fn description(&self) -> &Description {
        unreachable!("nobody is told of it")
    }

    fn server_addresses(&self) -> Vec<IpAddr> {
        Vec::new()
    }

    async fn lost(&self) -> LostReason {
        pending().await
    }

    async fn shutdown(&self) {
        self.seen.closed.fetch_add(1, Relaxed);
    }
}

impl Spare for Fake {
    async fn apart(&self) -> Result<Self, NoMore> {
        self.seen.made.fetch_add(1, Relaxed);
        Ok(Self {
            seen: Arc::clone(&self.seen),
            streams: Arc::default(),
        })
    }

    fn channels(&self) -> usize {
        (Arc::strong_count(&self.streams) - 1) / 2
    }

    async fn done(&self) {}
}

/// Opens by name beside a first link.
pub(super) struct Rig {
    pub(super) by_name: ByName<Fake>,
    seen: Arc<Seen>,
}

impl Rig {
    pub(super) fn new() -> Self {
        let seen = Arc::<Seen>::default();
        let first = Fake {
            seen: Arc::clone(&seen),
            streams: Arc::default(),
        };
        Self {
            by_name: ByName::new(Arc::new(first)),
            seen,
        }
    }

    pub(super) async fn open(&self, name: &str) -> Result<(Half, Half), OpenError> {
        let any = SocketAddr::from(([192, 0, 2, 1], 80));
        let far = Far {
            target: Target(any),
            name: Some(name.into()),
        };
        self.by_name.open(Source(any), far, name.into()).await
    }

    /// Further links that were made.
    pub(super) fn made(&self) -> usize {
        self.seen.made.load(Relaxed)
    }

    /// And those that were closed in good order.
    pub(super) fn closed(&self) -> usize {
        self.seen.closed.load(Relaxed)
    }

    pub(super) fn crew(&self) -> usize {
        self.by_name.links().len()
    }
}
