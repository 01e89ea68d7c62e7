//! The seams between inlet, relay and carrier.
//!
//! An inlet brings [`Inbound`] requests; each is accepted or refused exactly once. A [`Carrier`] opens the
//! far side. Once both have agreed there is one [`ByteReader`] and one [`ByteWriter`] on each side.
//!
//! Contract of the halves: dropping a reader before its end, or a writer before [`ByteWriter::finish`]
//! has returned, resets that stream towards its peer. So an error, a panic or a cancelled task never looks
//! like an orderly end.

use std::future::{Future, pending};

use bytes::Bytes;

use super::{Far, OpenError, Source, StreamError, Target};

/// The reading half of a stream.
pub trait ByteReader: Send {
    /// The next bytes in order, never empty; `None` after the peer's orderly end (FIN, channel EOF).
    /// Cancel safe: a dropped future has taken nothing.
    fn read(&mut self) -> impl Future<Output = Result<Option<Bytes>, StreamError>> + Send;

    /// After `None`: resolves when the peer resets the stream after all, else stays pending. Cancel safe.
    fn reset(&mut self) -> impl Future<Output = StreamError> + Send;

    /// The number of the carrier's connection that it comes over, where that has several.
    fn connection(&self) -> Option<u32> {
        None
    }

    /// Runs while nobody has room for what [`read`](Self::read) would give. A carrier that cannot hold its
    /// peer back takes arriving bytes into a bounded store of its own here, so that other flows of
    /// the same connection go on. Resolves with [`StreamError::Lost`] where the connection is lost, and with it the rest of a
    /// stream that had not come to its end; an inlet's with [`StreamError::Reset`], where the application has reset the stream and
    /// been waited for long enough. Cancel safe.
    fn absorb(&mut self) -> impl Future<Output = StreamError> + Send {
        pending()
    }
}

/// The writing half of a stream.
pub trait ByteWriter: Send {
    /// Hands over all of `chunk`, waiting for room as long as it takes; [`flush`](Self::flush) has to follow before a
    /// wait for the next chunk. Not cancel safe: a dropped
    /// future may have taken a part.
    fn write(&mut self, chunk: Bytes) -> impl Future<Output = Result<(), StreamError>> + Send;

    /// Nothing follows for now: sends on what [`write`](Self::write) may have held back to make larger pieces of it.
    fn flush(&mut self) {}

    /// The orderly end of this direction (FIN, channel EOF). The other direction goes on.
    fn finish(&mut self) -> impl Future<Output = Result<(), StreamError>> + Send;
}

/// A connection that somebody asks for at an inlet. Dropping it unanswered is silence towards the initiator.
pub trait Inbound: Send {
    /// The reading half after [`accept`](Self::accept).
    type Reader: ByteReader;
    /// The writing half after [`accept`](Self::accept).
    type Writer: ByteWriter;

    /// Who asks.
    fn source(&self) -> Source;

    /// Who is asked for.
    fn target(&self) -> Target;

    /// Resolves when the initiator has given up before an answer. Cancel safe.
    fn withdrawn(&mut self) -> impl Future<Output = ()> + Send;

    /// The far side is open: tell the initiator so.
    fn accept(self) -> (Self::Reader, Self::Writer);

    /// The far side is not open: tell the initiator why, in the inlet's spelling.
    fn refuse(self, error: &OpenError);
}

/// Something that opens streams on the far side.
pub trait Carrier: Send + Sync {
    /// The reading half of an opened stream.
    type Reader: ByteReader;
    /// The writing half of an opened stream.
    type Writer: ByteWriter;

    /// Opens a stream to `far`; `source` is passed on as the originator (RFC 4254 section 7.2).
    /// When the future is dropped, a late success is closed at once.
    fn open_far(
        &self,
        source: Source,
        far: Far,
    ) -> impl Future<Output = Result<(Self::Reader, Self::Writer), OpenError>> + Send;

    /// The same to an address.
    fn open(
        &self,
        source: Source,
        target: Target,
    ) -> impl Future<Output = Result<(Self::Reader, Self::Writer), OpenError>> + Send {
        self.open_far(source, target.into())
    }
}

impl<C: Carrier> Carrier for &C {
    type Reader = C::Reader;
    type Writer = C::Writer;

    async fn open_far(
        &self,
        source: Source,
        far: Far,
    ) -> Result<(Self::Reader, Self::Writer), OpenError> {
        C::open_far(self, source, far).await
    }
}
