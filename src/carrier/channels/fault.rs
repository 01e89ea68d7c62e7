//! What ends a connection: the peer said what it may not say.

use super::wire::WireError;

/// A breach of the protocol, or the peer's own goodbye. Nothing on the connection can be relied upon after it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Bytes that are no message of a server.
    #[error("the SSH server's bytes make no sense: {0}")]
    Wire(#[from] WireError),
    /// The number was never given, or its channel has been closed from both sides.
    #[error("the SSH server speaks of channel {channel}, which is not open ({message})")]
    UnknownChannel {
        /// The message's name in RFC 4254.
        message: &'static str,
        /// The number in it.
        channel: u32,
    },
    /// The channel is not confirmed yet, or it is already.
    #[error("the SSH server sent {message} for channel {channel} at the wrong time: {state}")]
    OutOfTurn {
        /// The message's name in RFC 4254.
        message: &'static str,
        /// The number in it.
        channel: u32,
        /// Why the message may not come.
        state: &'static str,
    },
    /// More data than the window that was granted (RFC 4254 section 5.2).
    #[error("the SSH server sent {excess} bytes beyond the window of channel {channel}")]
    WindowExceeded {
        /// Our number of the channel.
        channel: u32,
        /// Bytes too many.
        excess: usize,
    },
    /// More data in a packet than what we have said that we take.
    #[error(
        "the SSH server sent {length} bytes in one packet on channel {channel}, where {limit} are the most"
    )]
    PacketTooLarge {
        /// Our number of the channel.
        channel: u32,
        /// Bytes of data in the packet.
        length: usize,
        /// Bytes that were offered.
        limit: u32,
    },
    /// A window may not grow beyond 2^32 - 1 (RFC 4254 section 5.2).
    #[error("the SSH server grants more than 4 GiB of window on channel {channel}")]
    WindowOverflow {
        /// Our number of the channel.
        channel: u32,
    },
    /// A reply to a request that nobody has made.
    #[error("the SSH server answers a request that was not made")]
    UnaskedReply,
    /// The server asks and asks, and does not read the answers.
    #[error("the SSH server floods the connection with requests and does not read the answers")]
    Flood,
    /// The server ends the connection, with a reason code of RFC 4253 section 11.1.
    #[error("the SSH server ended the connection (reason {reason}): {text}")]
    Disconnected {
        /// The reason code.
        reason: u32,
        /// The server's words, control characters removed.
        text: String,
    },
}

/// Why something was not taken for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The channel is closed or closing, its EOF has been said, or it is not open yet.
    #[error("the channel takes no more")]
    Closed,
    /// A datagram that is longer than the peer takes, or empty, or a channel that carries none.
    #[error("the channel takes no datagram of that length")]
    TooLong,
    /// Too many requests wait for their answers.
    #[error("too many requests wait for an answer")]
    TooMany,
}

/// As many channels exist as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no further channel fits on this connection")]
pub struct Full;
