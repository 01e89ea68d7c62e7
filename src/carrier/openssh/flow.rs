//! One channel's state, as its two halves and the connection's reader share it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use crate::carrier::channels::Inbox;
use crate::carrier::command::Stderr;
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
    /// The server has not answered. It cannot be asked to forget it: the place in the budget is kept until it has. A command's
    /// has none.
    Asked(Option<DialPermit>),
    /// It has opened the channel.
    Opened,
    /// It has not.
    Refused(OpenError),
}

/// A channel that is wanted or open.
#[derive(Debug)]
pub(super) struct Flow {
    state: Mutex<State>,
    /// What a session is to run before the channel counts as opened.
    command: Option<String>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) opening: Opening,
    /// Who asked has gone before the answer.
    pub(super) is_abandoned: bool,
    pub(super) inbox: Inbox,
    pub(super) stderr: Stderr,
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
    /// A channel to a far host that is being asked for.
    pub(super) fn new(permit: DialPermit) -> Self {
        Self::asked(Some(permit), None)
    }

    /// A session that is being asked for, and is to run `command`.
    pub(super) fn running(command: &str) -> Self {
        Self::asked(None, Some(command.to_owned()))
    }

    fn asked(permit: Option<DialPermit>, command: Option<String>) -> Self {
        let state = Mutex::new(State {
            opening: Opening::Asked(permit),
            is_abandoned: false,
            inbox: Inbox::default(),
            stderr: Stderr::default(),
            end: None,
            is_whole: false,
            is_finished: false,
            lingers_since: None,
            gone: 0,
            reader: None,
            writer: None,
        });
        Self { state, command }
    }

    /// What is to be run.
    pub(super) fn command(&self) -> Option<&str> {
        self.command.as_deref()
    }

    /// Taken after the connection's lock, if both are.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Nobody panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// An open that was not answered yet is refused.
    pub(super) fn refuse(&mut self, error: OpenError) {
        if matches!(self.opening, Opening::Asked(_)) {
            self.opening = Opening::Refused(error);
        }
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
