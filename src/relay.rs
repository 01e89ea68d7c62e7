//! Open, then accept or refuse, then copy. Knows no TUN, no TCP and no SSH: SYN-ACK and RST, a SOCKS reply,
//! HTTP 200 and 502 are spellings of the same two verbs.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use bytes::Bytes;
use tokio::select;
use tokio::task::yield_now;

use crate::net::{ByteReader, ByteWriter, Carrier, Far, Inbound, OpenError, StreamError};

/// A chunk of at least so many bytes is one of a bulk transfer: the next one is worth a turn of the other tasks.
const BULK: usize = 16 << 10;

/// Bytes that went each way, counted as they are handed over.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes from the initiator to the target.
    pub up: AtomicU64,
    /// Bytes from the target to the initiator.
    pub down: AtomicU64,
}

/// Who counts the bytes of a flow, as they are handed over, and where it goes.
pub trait Meter: Sync {
    /// The far side has opened, on this connection of the carrier's.
    fn opened(&self, _connection: Option<u32>) {}

    /// So many went from the initiator to the target.
    fn add_up(&self, bytes: u64);

    /// So many went from the target to the initiator.
    fn add_down(&self, bytes: u64);
}

impl Meter for Traffic {
    fn add_up(&self, bytes: u64) {
        self.up.fetch_add(bytes, Ordering::Relaxed);
    }

    fn add_down(&self, bytes: u64) {
        self.down.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Both directions ended in order.
    Finished,
    /// One side ended the stream abruptly, or the carrier was lost.
    Broken(StreamError),
    /// The far side did not open.
    Refused(OpenError),
    /// The initiator gave up before the far side answered.
    Withdrawn,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::Broken(error) => error.fmt(f),
            Self::Refused(error) => error.fmt(f),
            Self::Withdrawn => f.write_str("withdrawn"),
        }
    }
}

/// Carries one request from its first packet to its end. `carrier` is asked for `far`: who is asked for, or whom that
/// stands for.
pub async fn relay<C: Carrier>(
    inbound: impl Inbound,
    carrier: &C,
    far: Far,
    meter: &impl Meter,
) -> Outcome {
    // Boxed: what opening needs is given back before the bytes flow.
    match Box::pin(open(inbound, carrier, far, meter)).await {
        Ok((up, down)) => both(up, down).await,
        Err(outcome) => outcome,
    }
}

/// Asks the far side and answers the initiator. Both directions, in boxes of their own: a future that runs others in place
/// keeps either of them twice; or what became of the request without them.
async fn open<C: Carrier>(
    mut inbound: impl Inbound,
    carrier: &C,
    far: Far,
    meter: &impl Meter,
) -> Result<(impl Direction, impl Direction), Outcome> {
    let opened = select! {
        opened = carrier.open_far(inbound.source(), far) => opened,
        () = inbound.withdrawn() => return Err(Outcome::Withdrawn),
    };
    let (far_reader, far_writer) = match opened {
        Ok(halves) => halves,
        Err(error) => {
            inbound.refuse(&error);
            return Err(Outcome::Refused(error));
        }
    };
    meter.opened(far_reader.connection());
    let (near_reader, near_writer) = inbound.accept();
    Ok((
        Box::pin(copy(near_reader, far_writer, |n| meter.add_up(n))),
        Box::pin(copy(far_reader, near_writer, |n| meter.add_down(n))),
    ))
}

/// One direction on its way to its end, which gives the reader back.
trait Direction: Future<Output = Result<Self::Reader, StreamError>> + Send + Unpin {
    type Reader: ByteReader;
}

impl<R: ByteReader, D> Direction for D
where
    D: Future<Output = Result<R, StreamError>> + Send + Unpin,
{
    type Reader = R;
}

/// Runs both directions. When one has ended in order, its reader goes on listening for a reset while the
/// other runs; an error drops all four halves, which resets both sides.
async fn both(mut up: impl Direction, mut down: impl Direction) -> Outcome {
    // Boxed: most flows are idle, and would carry the room for it with them.
    let rest: Pin<Box<dyn Future<Output = Result<(), StreamError>> + Send>> = select! {
        ended = &mut up => {
            drop(up);
            Box::pin(last_leg(ended, down))
        }
        ended = &mut down => {
            drop(down);
            Box::pin(last_leg(ended, up))
        }
    };
    match rest.await {
        Ok(()) => Outcome::Finished,
        Err(error) => Outcome::Broken(error),
    }
}

async fn last_leg<R: ByteReader>(
    ended: Result<R, StreamError>,
    rest: impl Direction,
) -> Result<(), StreamError> {
    let mut ended = ended?;
    select! {
        result = rest => result.map(drop),
        error = ended.reset() => Err(error),
    }
}

/// Copies one direction to its end and gives the reader back. There is no buffer here: the next chunk is asked
/// for when the last one has found room.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps its arguments twice, and each flow has two of these"
)]
fn copy<R: ByteReader>(
    mut reader: R,
    mut writer: impl ByteWriter,
    count: impl Fn(u64) + Send,
) -> impl Future<Output = Result<R, StreamError>> + Send {
    async move {
        let mut is_bulk = false;
        while let Some(chunk) = next(&mut reader, &mut writer, is_bulk).await? {
            is_bulk = chunk.len() >= BULK;
            count(chunk.len() as u64);
            // Boxed: most flows are idle, and would carry the room for it with them.
            Box::pin(hand_over(&mut reader, &mut writer, chunk)).await?;
        }
        writer.finish().await?;
        Ok(reader)
    }
}

/// The next chunk. Before a wait for it, what was written goes out; chunks that are there already join it.
async fn next(
    reader: &mut impl ByteReader,
    writer: &mut impl ByteWriter,
    is_bulk: bool,
) -> Result<Option<Bytes>, StreamError> {
    let mut read = pin!(reader.read());
    if let Poll::Ready(chunk) = at_once(read.as_mut()).await {
        return chunk;
    }
    if is_bulk {
        yield_now().await;
        if let Poll::Ready(chunk) = at_once(read.as_mut()).await {
            return chunk;
        }
    }
    writer.flush();
    read.await
}

/// Writes `chunk`; while there is no room for it, the reader may take what arrives off its carrier, and hears of its loss.
async fn hand_over(
    reader: &mut impl ByteReader,
    writer: &mut impl ByteWriter,
    chunk: Bytes,
) -> Result<(), StreamError> {
    let mut write = pin!(writer.write(chunk));
    if let Poll::Ready(written) = at_once(write.as_mut()).await {
        return written;
    }
    select! {
        biased;
        written = write => written,
        // Boxed: most chunks find room at once, and need none for this.
        error = Box::pin(reader.absorb()) => Err(error),
    }
}

/// What `future` gives without a wait.
async fn at_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}
