//! The streams of one link, counted: how many are open, and how many it took along when it was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;

use crate::net::{ByteReader, ByteWriter, StreamError};

/// The streams of one link.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: AtomicUsize,
    lost: AtomicUsize,
}

impl Streams {
    /// Once the link is lost: those that went with it, whether or not their owners have noticed.
    pub(super) fn lost(&self) -> usize {
        self.open.load(Relaxed) + self.lost.load(Relaxed)
    }
}

/// One of them, until both halves are gone.
#[derive(Debug)]
struct Counted {
    streams: Arc<Streams>,
    is_lost: AtomicBool,
}

impl Counted {
    fn heed<T>(&self, result: Result<T, StreamError>) -> Result<T, StreamError> {
        if matches!(result, Err(StreamError::Lost)) {
            self.is_lost.store(true, Relaxed);
        }
        result
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.is_lost.load(Relaxed) {
            self.streams.lost.fetch_add(1, Relaxed);
        }
        self.streams.open.fetch_sub(1, Relaxed);
    }
}

/// Counts the stream of both halves.
pub(super) fn counted<R, W>(
    reader: R,
    writer: W,
    streams: &Arc<Streams>,
) -> (SteadyReader<R>, SteadyWriter<W>) {
    streams.open.fetch_add(1, Relaxed);
    let stream = Arc::new(Counted {
        streams: Arc::clone(streams),
        is_lost: AtomicBool::new(false),
    });
    let reader = SteadyReader {
        half: reader,
        stream: Arc::clone(&stream),
    };
    let writer = SteadyWriter {
        half: writer,
        stream,
    };
    (reader, writer)
}

/// The reading half of a stream of [`super::Steady`].
#[derive(Debug)]
pub struct SteadyReader<R> {
    pub(super) half: R,
    stream: Arc<Counted>,
}

/// The writing half of a stream of [`super::Steady`].
#[derive(Debug)]
pub struct SteadyWriter<W> {
    half: W,
    stream: Arc<Counted>,
}

impl<R: ByteReader> ByteReader for SteadyReader<R> {
    async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        let chunk = self.half.read().await;
        self.stream.heed(chunk)
    }

    fn reset(&mut self) -> impl Future<Output = StreamError> + Send {
        self.half.reset()
    }

    fn connection(&self) -> Option<u32> {
        self.half.connection()
    }

    async fn absorb(&mut self) -> StreamError {
        let error = self.half.absorb().await;
        self.stream.is_lost.store(true, Relaxed);
        error
    }
}

impl<W: ByteWriter> ByteWriter for SteadyWriter<W> {
    async fn write(&mut self, chunk: Bytes) -> Result<(), StreamError> {
        let written = self.half.write(chunk).await;
        self.stream.heed(written)
    }

    fn flush(&mut self) {
        self.half.flush();
    }

    async fn finish(&mut self) -> Result<(), StreamError> {
        let finished = self.half.finish().await;
        self.stream.heed(finished)
    }
}
