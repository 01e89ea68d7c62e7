//! What is kept of a flow, for whoever wants to know of it.

use crate::net::OpenError;

/// How a flow ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Nobody used it any more.
    Idle,
    /// With the stream to the far end.
    Lost,
    /// Nobody was there, or nothing carried it; it was never answered.
    Refused(OpenError),
}

/// Takes down what becomes of a flow, and never waits. One that is dropped without an [`end`](Self::end) is of a flow that we have
/// ended.
pub trait Record: Send {
    /// A datagram went to the far end, with so many bytes.
    fn sent(&self, bytes: u64);

    /// One came from there.
    fn received(&self, bytes: u64);

    /// The flow is over.
    fn end(self, end: End);
}

/// Nobody wants to know.
impl Record for () {
    fn sent(&self, _bytes: u64) {}

    fn received(&self, _bytes: u64) {}

    fn end(self, _end: End) {}
}
