//! One of two streams, where it depends on the flow which one it is.

use bytes::Bytes;

use super::{ByteReader, ByteWriter, StreamError};

/// The half of one stream or of another.
#[derive(Debug)]
pub enum Either<A, B> {
    /// The first kind.
    Left(A),
    /// The second kind.
    Right(B),
}

impl<A, B> Either<A, B> {
    /// Both halves of a stream of the first kind.
    pub fn left<C, D>((reader, writer): (A, C)) -> (Self, Either<C, D>) {
        (Self::Left(reader), Either::Left(writer))
    }

    /// Both halves of a stream of the second kind.
    pub fn right<C, D>((reader, writer): (B, D)) -> (Self, Either<C, D>) {
        (Self::Right(reader), Either::Right(writer))
    }
}

impl<A: ByteReader, B: ByteReader> ByteReader for Either<A, B> {
    async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        match self {
            Self::Left(reader) => reader.read().await,
            Self::Right(reader) => reader.read().await,
        }
    }

    async fn reset(&mut self) -> StreamError {
        match self {
            Self::Left(reader) => reader.reset().await,
            Self::Right(reader) => reader.reset().await,
        }
    }

    fn connection(&self) -> Option<u32> {
        match self {
            Self::Left(reader) => reader.connection(),
            Self::Right(reader) => reader.connection(),
        }
    }

    async fn absorb(&mut self) -> StreamError {
        match self {
            Self::Left(reader) => reader.absorb().await,
            Self::Right(reader) => reader.absorb().await,
        }
    }
}

impl<A: ByteWriter, B: ByteWriter> ByteWriter for Either<A, B> {
    async fn write(&mut self, chunk: Bytes) -> Result<(), StreamError> {
        match self {
            Self::Left(writer) => writer.write(chunk).await,
            Self::Right(writer) => writer.write(chunk).await,
        }
    }

    fn flush(&mut self) {
        match self {
            Self::Left(writer) => writer.flush(),
            Self::Right(writer) => writer.flush(),
        }
    }

    async fn finish(&mut self) -> Result<(), StreamError> {
        match self {
            Self::Left(writer) => writer.finish().await,
            Self::Right(writer) => writer.finish().await,
        }
    }
}
