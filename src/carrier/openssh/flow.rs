//! One channel's state, as its two halves and the connection's reader share it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use crate::carrier::channels::Inbox;
use crate::carrier::dial::DialPermit;
use crate::net::{OpenError, StreamError};

/// How the reading direction ended. It comes after what is in the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// EOF; the channel is still open.
    Eof,
    /// Over in good order.
    Done,
    /// Broken.
    Broken(StreamError),
}

/// How far the opening has come.
#[derive(Debug)]
pub(super) enum Opening {
    /// The server has not answered. It cannot be asked to forget it: the place in the budget is kept until it has.
    Asked(DialPermit),
    /// It has opened the channel.
    Opened,
    /// It has not.
    Refused(OpenError),
}

/// A channel that is wanted or open.
#[derive(Debug)]
pub(super) struct Flow(Mutex<State>);

#[derive(Debug)]
pub(super) struct State {
    pub(super) opening: Opening,
    /// Who asked has gone before the answer.
    pub(super) is_abandoned: bool,
    pub(super) inbox: Inbox,
    pub(super) end: Option<End>,
    /// All that the server had to say is in the inbox, or was.
    pub(super) is_whole: bool,
    /// Our EOF was said.
    pub(super) is_finished: bool,
    /// Both halves are gone, in good order, since then: the server's CLOSE is to come.
    pub(super) lingers_since: Option<Instant>,
    /// Halves that are gone.
    pub(super) gone: u8,
    /// Waits for the opening, for data, or for the end.
    pub(super) reader: Option<Waker>,
    /// Waits for room.
    pub(super) writer: Option<Waker>,
}

impl Flow {
    /// A channel that is being asked for.
    pub(super) fn new(permit: DialPermit) -> Self {
        Self(Mutex::new(State {
            opening: Opening::Asked(permit),
            is_abandoned: false,
            inbox: Inbox::default(),
            end: None,
            is_whole: false,
            is_finished: false,
            lingers_since: None,
            gone: 0,
            reader: None,
            writer: None,
        }))
    }

    /// Taken after the connection's lock, if both are.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Nobody panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The channel is over, in whatever order; false if it was before.
    pub(super) fn close(&mut self, how: End) -> bool {
        let first = matches!(self.end, None | Some(End::Eof));
        if first {
            self.end = Some(how);
        }
        first
    }

    /// CLOSE from the server. Before our EOF it is abrupt: a far RST ends so. After it, it is the end.
    pub(super) fn closed_by_peer(&mut self) {
        self.close(if self.is_finished {
            End::Done
        } else {
            End::Broken(StreamError::Reset)
        });
    }

    /// What stops a writer.
    pub(super) fn broken(&self) -> Option<StreamError> {
        match self.end? {
            End::Eof => None,
            End::Done => Some(StreamError::Reset),
            End::Broken(error) => Some(error),
        }
    }

    /// A half is gone; whether it was the last.
    pub(super) fn half_is_gone(&mut self) -> bool {
        self.gone += 1;
        self.gone == 2
    }
}
