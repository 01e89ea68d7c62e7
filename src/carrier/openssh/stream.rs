//! One channel as two halves.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;

use super::flow::End;
use super::place::Place;
use crate::net::{ByteReader, ByteWriter, StreamError};

/// Splits an open channel.
pub(super) fn halves(place: Place) -> (OpensshReader, OpensshWriter) {
    let place = Arc::new(place);
    let reader = OpensshReader {
        place: Arc::clone(&place),
        has_ended: false,
    };
    let writer = OpensshWriter {
        place,
        has_ended: false,
    };
    (reader, writer)
}

/// The reading half of a channel. What nobody reads stays here, up to the window, and the server sends no more.
pub struct OpensshReader {
    place: Arc<Place>,
    /// The end has been told.
    has_ended: bool,
}

impl OpensshReader {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        let piece = {
            let mut state = self.place.flow.state();
            match (state.inbox.pop(), state.end) {
                (Some(piece), _) => piece,
                (None, None) => {
                    state.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                (None, Some(end)) => {
                    self.has_ended = true;
                    return Poll::Ready(match end {
                        // What broke later is told by `reset`.
                        End::Broken(error) if !state.is_whole => Err(error),
                        _ => Ok(None),
                    });
                }
            }
        };
        self.place.consumed(piece.len());
        Poll::Ready(Ok(Some(piece)))
    }
}

impl ByteReader for OpensshReader {
    async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        poll_fn(|cx| self.poll_read(cx)).await
    }

    async fn reset(&mut self) -> StreamError {
        let broken = poll_fn(|cx| {
            let mut state = self.place.flow.state();
            match state.end {
                Some(End::Broken(error)) => Poll::Ready(Some(error)),
                Some(End::Done) => Poll::Ready(None),
                Some(End::Eof) | None => {
                    state.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        match broken.await {
            Some(error) => error,
            None => pending().await,
        }
    }

    fn connection(&self) -> Option<u32> {
        Some(self.place.connection.number())
    }

    async fn absorb(&mut self) -> StreamError {
        poll_fn(|cx| {
            let mut state = self.place.flow.state();
            if state.end == Some(End::Broken(StreamError::Lost)) && !state.is_whole {
                return Poll::Ready(StreamError::Lost);
            }
            state.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for OpensshReader {
    fn drop(&mut self) {
        if !self.has_ended {
            self.place.reset();
        }
        half_is_gone(&self.place);
    }
}

/// The writing half of a channel.
pub struct OpensshWriter {
    place: Arc<Place>,
    /// EOF has been said.
    has_ended: bool,
}

impl OpensshWriter {
    fn broken(&self) -> StreamError {
        // Closed for a reason that the reader has not been told yet is closed all the same.
        self.place
            .flow
            .state()
            .broken()
            .unwrap_or(StreamError::Reset)
    }
}

impl ByteWriter for OpensshWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<(), StreamError> {
        let mut rest = chunk;
        poll_fn(|cx| {
            // Also where nothing is to be sent any more: a channel that is lost never gets room.
            if let Some(error) = self.place.flow.state().broken() {
                return Poll::Ready(Err(error));
            }
            match self.place.send(std::mem::take(&mut rest), cx.waker()) {
                Ok(left) if left.is_empty() => Poll::Ready(Ok(())),
                Ok(left) => {
                    rest = left;
                    Poll::Pending
                }
                Err(_) => Poll::Ready(Err(self.broken())),
            }
        })
        .await
    }

    async fn finish(&mut self) -> Result<(), StreamError> {
        // Before the EOF itself: a CLOSE that answers it must find the mark.
        let broken = {
            let mut state = self.place.flow.state();
            state.is_finished = true;
            state.broken()
        };
        self.has_ended = true;
        if let Some(error) = broken {
            return Err(error);
        }
        self.place.eof().map_err(|_| self.broken())
    }
}

impl Drop for OpensshWriter {
    fn drop(&mut self) {
        if !self.has_ended {
            self.place.reset();
        }
        half_is_gone(&self.place);
    }
}

/// After the last one the server's CLOSE is all that is to come, and it may never.
fn half_is_gone(place: &Place) {
    let mut state = place.flow.state();
    if state.half_is_gone() {
        state.lingers_since = Some(Instant::now());
    }
}
