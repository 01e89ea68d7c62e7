//! A flow of the TUN as the relay sees it.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Device, Shared};
use crate::engine::FlowHandle;
use crate::net::{ByteReader, ByteWriter, Inbound, OpenError, Source, StreamError, Target};

/// The most that one read takes, in bytes: a few packets of the device and a few of SSH at a time, and less than what
/// the allocator gives a mapping of its own.
const CHUNK: usize = 96 << 10;

/// How long a far side may take nothing after the application's reset, before it is told of that.
const AFTER_RESET: Duration = Duration::from_secs(10);

/// A flow, and the duty to leave it in order: unless [`discharged`](Self::discharge), it is abandoned when
/// dropped.
struct Duty<D: Device> {
    shared: Arc<Shared<D>>,
    flow: FlowHandle,
    owed: bool,
}

impl<D: Device> Duty<D> {
    fn discharge(&mut self) {
        self.owed = false;
    }
}

impl<D: Device> Drop for Duty<D> {
    fn drop(&mut self) {
        if self.owed {
            self.shared.engine.abandon(self.shared.now(), &self.flow);
        }
    }
}

/// A connection that an application asks for.
pub struct TunInbound<D: Device> {
    duty: Duty<D>,
    /// When that was, by the inlet's clock.
    began: Duration,
}

impl<D: Device> Drop for TunInbound<D> {
    /// Nobody waits for it any more.
    fn drop(&mut self) {
        let shared = &self.duty.shared;
        let after = shared.began.elapsed().saturating_sub(self.began);
        shared.engine.outlet().busy_poll.answered(after);
    }
}

/// The bytes from the application.
pub struct TunReader<D: Device>(Duty<D>);

/// The bytes to the application.
pub struct TunWriter<D: Device>(Duty<D>);

impl<D: Device> TunInbound<D> {
    pub(super) fn new(shared: Arc<Shared<D>>, flow: FlowHandle) -> Self {
        shared.engine.outlet().busy_poll.begins();
        let began = shared.began.elapsed();
        let duty = Duty {
            shared,
            flow,
            owed: true,
        };
        Self { duty, began }
    }
}

impl<D: Device> Inbound for TunInbound<D> {
    type Reader = TunReader<D>;
    type Writer = TunWriter<D>;

    fn source(&self) -> Source {
        self.duty.flow.key().source
    }

    fn target(&self) -> Target {
        self.duty.flow.key().target
    }

    async fn withdrawn(&mut self) {
        poll_fn(|cx| self.duty.shared.engine.poll_withdrawn(&self.duty.flow, cx)).await;
    }

    fn accept(mut self) -> (TunReader<D>, TunWriter<D>) {
        let Duty { shared, flow, .. } = &self.duty;
        shared.engine.accept(shared.now(), flow);
        let half = || Duty {
            shared: Arc::clone(shared),
            flow: flow.clone(),
            owed: true,
        };
        let halves = (TunReader(half()), TunWriter(half()));
        self.duty.discharge();
        halves
    }

    fn refuse(mut self, error: &OpenError) {
        let Duty { shared, flow, .. } = &self.duty;
        shared.engine.refuse(shared.now(), flow, error.failure);
        self.duty.discharge();
    }
}

impl<D: Device> ByteReader for TunReader<D> {
    async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        let Duty { shared, flow, .. } = &self.0;
        let read = poll_fn(|cx| shared.engine.poll_read(shared.now(), flow, CHUNK, cx)).await;
        if read == Ok(None) {
            self.0.discharge();
        }
        read
    }

    async fn reset(&mut self) -> StreamError {
        poll_fn(|cx| self.0.shared.engine.poll_reset(&self.0.flow, cx)).await
    }

    /// What came before a reset is for the far side, but one that takes nothing of it is not waited for without end.
    async fn absorb(&mut self) -> StreamError {
        let error = self.reset().await;
        tokio::time::sleep(AFTER_RESET).await;
        error
    }
}

impl<D: Device> ByteWriter for TunWriter<D> {
    async fn write(&mut self, mut chunk: Bytes) -> Result<(), StreamError> {
        let Duty { shared, flow, .. } = &self.0;
        poll_fn(|cx| shared.engine.poll_write(shared.now(), flow, &mut chunk, cx)).await
    }

    fn flush(&mut self) {
        let Duty { shared, flow, .. } = &self.0;
        shared.engine.flush(shared.now(), flow);
    }

    async fn finish(&mut self) -> Result<(), StreamError> {
        let Duty { shared, flow, .. } = &self.0;
        poll_fn(|cx| shared.engine.poll_finish(shared.now(), flow, cx)).await?;
        self.0.discharge();
        Ok(())
    }
}
