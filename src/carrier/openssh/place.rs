//! A channel's place on its connection, from the open that asks for it on.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;

use super::connection::Connection;
use super::flow::{End, Flow, Opening};
use super::stream::{OpensshReader, OpensshWriter, halves};
use crate::carrier::channels::{ChannelId, SendError};
use crate::net::{OpenError, OpenFailure, StreamError};

/// A channel's place on its connection.
pub(super) struct Place {
    pub(super) connection: Arc<Connection>,
    pub(super) flow: Arc<Flow>,
    pub(super) id: ChannelId,
}

impl Place {
    /// The reader has passed bytes on: the server may send as many more.
    pub(super) fn consumed(&self, length: usize) {
        let now = Instant::now();
        self.connection
            .with(|shared, _| shared.channels.consumed(now, self.id, length));
    }

    /// Sends what fits of `data`, and leaves `waker` to be woken for the rest, which is returned.
    ///
    /// # Errors
    /// The channel takes nothing any more.
    pub(super) fn send(&self, data: Bytes, waker: &Waker) -> Result<Bytes, SendError> {
        self.connection.with(|shared, _| {
            if shared.is_lost {
                return Err(SendError::Closed);
            }
            let rest = shared.channels.send(self.id, data)?;
            if !rest.is_empty() {
                // Under the lock, so that room which comes meanwhile finds it.
                self.flow.state().writer = Some(waker.clone());
            }
            Ok(rest)
        })
    }

    /// Says EOF after what is queued.
    ///
    /// # Errors
    /// The channel takes nothing any more.
    pub(super) fn eof(&self) -> Result<(), SendError> {
        self.connection
            .with(|shared, _| shared.channels.eof(self.id))
    }

    /// Closes the channel at once, which ends both directions.
    pub(super) fn reset(&self) {
        self.connection.with(|shared, after| {
            let mut state = self.flow.state();
            if state.close(End::Broken(StreamError::Reset)) {
                shared.channels.abort(self.id);
                shared.owners.remove(&self.id);
            }
            after.wake(&mut state.reader);
            after.wake(&mut state.writer);
        });
    }
}

/// An open that the server has been asked for. When it is dropped, a late success is closed at once.
pub(super) struct Asked {
    /// `None` once it is answered.
    pub(super) place: Option<Place>,
}

impl Future for Asked {
    type Output = Result<(OpensshReader, OpensshWriter), OpenError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(place) = &self.place else {
            // Polled after its end, which no executor does.
            return Poll::Pending;
        };
        let mut state = place.flow.state();
        let answer = match &state.opening {
            Opening::Asked(_) => {
                state.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Opening::Opened => Ok(()),
            Opening::Refused(error) => Err(error.clone()),
        };
        drop(state);
        let place = self.place.take();
        Poll::Ready(match (answer, place) {
            (Ok(()), Some(place)) => Ok(halves(place)),
            (Err(error), _) => Err(error),
            (Ok(()), None) => Err(OpenError::new(OpenFailure::ConnectionLost, "")),
        })
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let Some(place) = &self.place else {
            return;
        };
        let mut state = place.flow.state();
        state.is_abandoned = true;
        state.reader = None;
        let is_open = matches!(state.opening, Opening::Opened);
        drop(state);
        if is_open {
            place.reset();
        }
    }
}
