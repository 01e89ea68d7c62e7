//! What the owner of a channel hears.

use bytes::Bytes;

use super::open::Refusal;
use super::slots::ChannelId;

/// What has happened to a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The server has opened it.
    Opened(ChannelId),
    /// The server does not open it.
    Refused {
        /// Which one.
        id: ChannelId,
        /// The kind of reason.
        reason: Refusal,
        /// The server's own text: at most 200 characters, control characters removed. May be empty.
        text: String,
    },
    /// Bytes from the far side, never empty. They count against the window until they are
    /// [`consumed`](super::Channels::consumed).
    Data {
        /// Whose.
        id: ChannelId,
        /// The bytes. They may hold a larger buffer in memory.
        data: Bytes,
    },
    /// Bytes of another kind, such as stderr (1); they count like data.
    ExtendedData {
        /// Whose.
        id: ChannelId,
        /// The kind (RFC 4254 section 5.2).
        kind: u32,
        /// The bytes, never empty.
        data: Bytes,
    },
    /// No more data will come.
    Eof(ChannelId),
    /// The server has closed it. Before our own EOF, or before its own, that is no orderly end.
    Closed(ChannelId),
    /// The server tells something about it, such as `exit-status`. Is answered already if it wants an answer: not known.
    Request {
        /// About which.
        id: ChannelId,
        /// What kind.
        name: Bytes,
        /// What the kind adds.
        payload: Bytes,
    },
    /// The server has answered a [`request`](super::Channels::request), in their order.
    Answered {
        /// Of which channel.
        id: ChannelId,
        /// CHANNEL_SUCCESS or CHANNEL_FAILURE.
        success: bool,
    },
}
