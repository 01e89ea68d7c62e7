//! Messages of the connection protocol (RFC 4254), and the few of the transport that may come between them.
//!
//! [`Message::parse`] reads what a server sends, the `put_*` functions write what a client sends. Strings and data
//! are slices of the packet, not copies. The primitive types of RFC 4251 section 5 are those of [`bytes`]: its
//! checked getters read them without a copy, which the crates for SSH's encoding do not.

use bytes::{Buf, BufMut, Bytes};

/// Message numbers: RFC 4253 section 12, RFC 4254 section 9.
mod number {
    pub(super) const DISCONNECT: u8 = 1;
    pub(super) const IGNORE: u8 = 2;
    pub(super) const UNIMPLEMENTED: u8 = 3;
    pub(super) const DEBUG: u8 = 4;
    pub(super) const GLOBAL_REQUEST: u8 = 80;
    pub(super) const REQUEST_SUCCESS: u8 = 81;
    pub(super) const REQUEST_FAILURE: u8 = 82;
    pub(super) const OPEN: u8 = 90;
    pub(super) const OPEN_CONFIRMATION: u8 = 91;
    pub(super) const OPEN_FAILURE: u8 = 92;
    pub(super) const WINDOW_ADJUST: u8 = 93;
    pub(super) const DATA: u8 = 94;
    pub(super) const EXTENDED_DATA: u8 = 95;
    pub(super) const EOF: u8 = 96;
    pub(super) const CLOSE: u8 = 97;
    pub(super) const REQUEST: u8 = 98;
    pub(super) const SUCCESS: u8 = 99;
    pub(super) const FAILURE: u8 = 100;
}

/// RFC 4254 section 5.1, reason code 1.
const ADMINISTRATIVELY_PROHIBITED: u32 = 1;

/// Bytes of a data message before its data: number, channel, length.
pub(super) const DATA_HEAD: usize = 9;

/// A packet that is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The frame says that it is longer than any packet may be.
    #[error("a packet of {length} bytes, where {limit} is the most")]
    TooLong {
        /// What the frame says.
        length: usize,
        /// What was agreed.
        limit: usize,
    },
    /// The frame has no room for a message.
    #[error("a packet without a message")]
    Empty,
    /// A frame of mux proxy mode has no padding (PROTOCOL.mux section 9).
    #[error("a packet with {0} bytes of padding, where there is none")]
    Padding(u8),
    /// The message ends before its fields do.
    #[error("a message of number {0} that is cut short")]
    Truncated(u8),
    /// Bytes follow the message's last field.
    #[error("a message of number {0} with bytes behind its end")]
    Trailing(u8),
    /// Not a message that a server may send here.
    #[error("a message of unknown number {0}")]
    Unknown(u8),
}

/// What a server may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Disconnect {
        reason: u32,
        text: Bytes,
    },
    /// IGNORE, DEBUG and UNIMPLEMENTED.
    Ignored,
    GlobalRequest {
        want_reply: bool,
    },
    /// REQUEST_SUCCESS or REQUEST_FAILURE.
    GlobalReply,
    /// The server asks for a channel of its own.
    Open {
        sender: u32,
    },
    /// Everything about a channel that is ours.
    Channel(u32, About),
}

/// What is said about a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum About {
    Confirmed {
        sender: u32,
        window: u32,
        max_packet: u32,
    },
    Refused {
        reason: u32,
        text: Bytes,
    },
    Adjust(u32),
    Data(Bytes),
    ExtendedData {
        kind: u32,
        data: Bytes,
    },
    Eof,
    Close,
    Request {
        name: Bytes,
        want_reply: bool,
        payload: Bytes,
    },
    Reply {
        success: bool,
    },
}

impl About {
    /// For error messages.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Confirmed { .. } => "OPEN_CONFIRMATION",
            Self::Refused { .. } => "OPEN_FAILURE",
            Self::Adjust(_) => "WINDOW_ADJUST",
            Self::Data(_) => "DATA",
            Self::ExtendedData { .. } => "EXTENDED_DATA",
            Self::Eof => "EOF",
            Self::Close => "CLOSE",
            Self::Request { .. } => "REQUEST",
            Self::Reply { .. } => "SUCCESS or FAILURE",
        }
    }
}

impl Message {
    /// Reads one packet's payload.
    ///
    /// # Errors
    /// When it is no message, or one that no server sends after the login.
    pub(super) fn parse(payload: Bytes) -> Result<Self, WireError> {
        let mut fields = Fields(payload);
        let number = fields.byte().ok_or(WireError::Empty)?;
        let message = match number {
            number::DISCONNECT | number::GLOBAL_REQUEST | number::OPEN => {
                Self::parse_open_ended(number, fields)
            }
            number::IGNORE | number::UNIMPLEMENTED | number::DEBUG => Some(Self::Ignored),
            // Data of the request's own may follow (RFC 4254 section 4).
            number::REQUEST_SUCCESS | number::REQUEST_FAILURE => Some(Self::GlobalReply),
            number::OPEN_CONFIRMATION..=number::FAILURE => {
                return Self::parse_channel(number, fields);
            }
            _ => return Err(WireError::Unknown(number)),
        };
        message.ok_or(WireError::Truncated(number))
    }

    /// Messages behind whose fields more may follow.
    fn parse_open_ended(number: u8, mut fields: Fields) -> Option<Self> {
        Some(match number {
            number::DISCONNECT => Self::Disconnect {
                reason: fields.u32()?,
                text: fields.string()?,
            },
            number::GLOBAL_REQUEST => {
                fields.string()?;
                Self::GlobalRequest {
                    want_reply: fields.boolean()?,
                }
            }
            _ => {
                fields.string()?;
                Self::Open {
                    sender: fields.u32()?,
                }
            }
        })
    }

    fn parse_channel(number: u8, mut fields: Fields) -> Result<Self, WireError> {
        let channel = fields.u32().ok_or(WireError::Truncated(number))?;
        let about = About::parse(number, &mut fields).ok_or(WireError::Truncated(number))?;
        if !fields.0.is_empty() {
            return Err(WireError::Trailing(number));
        }
        Ok(Self::Channel(channel, about))
    }
}

impl About {
    fn parse(number: u8, fields: &mut Fields) -> Option<Self> {
        Some(match number {
            number::OPEN_CONFIRMATION => Self::Confirmed {
                sender: fields.u32()?,
                window: fields.u32()?,
                max_packet: {
                    let max_packet = fields.u32()?;
                    // Data of the channel type's own may follow (RFC 4254 section 5.1).
                    fields.rest();
                    max_packet
                },
            },
            number::OPEN_FAILURE => Self::Refused {
                reason: fields.u32()?,
                text: {
                    let text = fields.string()?;
                    // The language tag; some servers leave it out.
                    fields.rest();
                    text
                },
            },
            number::WINDOW_ADJUST => Self::Adjust(fields.u32()?),
            number::DATA => Self::Data(fields.string()?),
            number::EXTENDED_DATA => Self::ExtendedData {
                kind: fields.u32()?,
                data: fields.string()?,
            },
            number::EOF => Self::Eof,
            number::CLOSE => Self::Close,
            number::REQUEST => Self::Request {
                name: fields.string()?,
                want_reply: fields.boolean()?,
                payload: fields.rest(),
            },
            _ => Self::Reply {
                success: number == number::SUCCESS,
            },
        })
    }
}

/// The rest of a message, field by field. `None` where it is too short.
struct Fields(Bytes);

impl Fields {
    fn byte(&mut self) -> Option<u8> {
        self.0.try_get_u8().ok()
    }

    /// Every value but 0 is true (RFC 4251 section 5).
    fn boolean(&mut self) -> Option<bool> {
        Some(self.byte()? != 0)
    }

    fn u32(&mut self) -> Option<u32> {
        self.0.try_get_u32().ok()
    }

    fn string(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.u32()?).ok()?;
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }
}

/// Writes the frame of a message of `length` bytes (PROTOCOL.mux section 9): the length with the padding byte,
/// then the count of padding bytes, 0.
fn put_frame(out: &mut impl BufMut, length: usize) {
    // No message of ours comes near 4 GiB: the longest hold one data packet, or an open.
    out.put_u32(u32::try_from(length + 1).unwrap_or(u32::MAX));
    out.put_u8(0);
}

fn put_string(out: &mut impl BufMut, string: &[u8]) {
    out.put_u32(u32::try_from(string.len()).unwrap_or(u32::MAX));
    out.put_slice(string);
}

/// CHANNEL_OPEN (RFC 4254 section 5.1); `specific` is what the channel's type adds.
pub(super) fn put_open(
    out: &mut impl BufMut,
    kind: &str,
    sender: u32,
    (window, max_packet): (u32, u32),
    specific: &[u8],
) {
    put_frame(out, 1 + 4 + kind.len() + 12 + specific.len());
    out.put_u8(number::OPEN);
    put_string(out, kind.as_bytes());
    out.put_u32(sender);
    out.put_u32(window);
    out.put_u32(max_packet);
    out.put_slice(specific);
}

/// CHANNEL_OPEN_FAILURE for a channel that the server wants: administratively prohibited.
pub(super) fn put_open_refusal(out: &mut impl BufMut, recipient: u32) {
    put_frame(out, 1 + 4 + 4 + 4 + 4);
    out.put_u8(number::OPEN_FAILURE);
    out.put_u32(recipient);
    out.put_u32(ADMINISTRATIVELY_PROHIBITED);
    put_string(out, b"");
    put_string(out, b"");
}

/// CHANNEL_WINDOW_ADJUST.
pub(super) fn put_adjust(out: &mut impl BufMut, recipient: u32, bytes: u32) {
    put_frame(out, 9);
    out.put_u8(number::WINDOW_ADJUST);
    out.put_u32(recipient);
    out.put_u32(bytes);
}

/// The beginning of a CHANNEL_DATA, which `length` bytes have to follow.
pub(super) fn put_data_head(out: &mut impl BufMut, recipient: u32, length: usize) {
    put_frame(out, DATA_HEAD + length);
    out.put_u8(number::DATA);
    out.put_u32(recipient);
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

/// CHANNEL_EOF.
pub(super) fn put_eof(out: &mut impl BufMut, recipient: u32) {
    put_bare(out, number::EOF, recipient);
}

/// CHANNEL_CLOSE.
pub(super) fn put_close(out: &mut impl BufMut, recipient: u32) {
    put_bare(out, number::CLOSE, recipient);
}

/// CHANNEL_FAILURE: the channel request is not known.
pub(super) fn put_failure(out: &mut impl BufMut, recipient: u32) {
    put_bare(out, number::FAILURE, recipient);
}

fn put_bare(out: &mut impl BufMut, number: u8, recipient: u32) {
    put_frame(out, 5);
    out.put_u8(number);
    out.put_u32(recipient);
}

/// CHANNEL_REQUEST; `specific` is what the request's type adds.
pub(super) fn put_request(
    out: &mut impl BufMut,
    recipient: u32,
    name: &str,
    want_reply: bool,
    specific: &[u8],
) {
    put_frame(out, 1 + 4 + 4 + name.len() + 1 + specific.len());
    out.put_u8(number::REQUEST);
    out.put_u32(recipient);
    put_string(out, name.as_bytes());
    out.put_u8(u8::from(want_reply));
    out.put_slice(specific);
}

/// REQUEST_FAILURE: the global request is not known (RFC 4254 section 4).
pub(super) fn put_global_failure(out: &mut impl BufMut) {
    put_frame(out, 1);
    out.put_u8(number::REQUEST_FAILURE);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Message, WireError> {
        Message::parse(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn data_is_a_slice_of_the_packet() {
        let packet = Bytes::from_static(b"\x5e\0\0\0\x07\0\0\0\x03abc");
        let Ok(Message::Channel(7, About::Data(data))) = Message::parse(packet.clone()) else {
            panic!("no data");
        };
        assert_eq!(data, "abc");
        assert_eq!(data.as_ptr(), packet[9..].as_ptr());
    }

    #[test]
    fn messages_of_a_server() {
        let channel = |about| Ok(Message::Channel(1, about));
        for (bytes, message) in [
            (
                &b"\x01\0\0\0\x0b\0\0\0\x03bye\0\0\0\0"[..],
                Ok(Message::Disconnect {
                    reason: 11,
                    text: "bye".into(),
                }),
            ),
            (b"\x02\0\0\0\x01x", Ok(Message::Ignored)),
            (
                b"\x50\0\0\0\x01k\x01",
                Ok(Message::GlobalRequest { want_reply: true }),
            ),
            (b"\x52", Ok(Message::GlobalReply)),
            (
                b"\x5a\0\0\0\x03x11\0\0\0\x05\0\0\0\0\0\0\0\0",
                Ok(Message::Open { sender: 5 }),
            ),
            (
                b"\x5b\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04more",
                channel(About::Confirmed {
                    sender: 2,
                    window: 3,
                    max_packet: 4,
                }),
            ),
            (
                b"\x5c\0\0\0\x01\0\0\0\x02\0\0\0\x02no\0\0\0\0",
                channel(About::Refused {
                    reason: 2,
                    text: "no".into(),
                }),
            ),
            (
                b"\x5c\0\0\0\x01\0\0\0\x02\0\0\0\0",
                channel(About::Refused {
                    reason: 2,
                    text: "".into(),
                }),
            ),
            (b"\x5d\0\0\0\x01\0\0\0\x09", channel(About::Adjust(9))),
            (
                b"\x5f\0\0\0\x01\0\0\0\x01\0\0\0\x01e",
                channel(About::ExtendedData {
                    kind: 1,
                    data: "e".into(),
                }),
            ),
            (b"\x60\0\0\0\x01", channel(About::Eof)),
            (b"\x61\0\0\0\x01", channel(About::Close)),
            (
                b"\x62\0\0\0\x01\0\0\0\x01n\0pay",
                channel(About::Request {
                    name: "n".into(),
                    want_reply: false,
                    payload: "pay".into(),
                }),
            ),
            (b"\x63\0\0\0\x01", channel(About::Reply { success: true })),
            (b"\x64\0\0\0\x01", channel(About::Reply { success: false })),
        ] {
            assert_eq!(parse(bytes), message);
        }
    }

    #[test]
    fn what_is_no_message() {
        for (bytes, error) in [
            (&b""[..], WireError::Empty),
            (b"\x06\0\0\0\0", WireError::Unknown(6)),
            (b"\x14", WireError::Unknown(20)),
            (b"\x65\0\0\0\0", WireError::Unknown(101)),
            (b"\x5e\0\0\0", WireError::Truncated(94)),
            (b"\x5e\0\0\0\x01\0\0\0\x04abc", WireError::Truncated(94)),
            (
                b"\x5e\0\0\0\x01\xff\xff\xff\xffabc",
                WireError::Truncated(94),
            ),
            (b"\x5e\0\0\0\x01\0\0\0\x02abc", WireError::Trailing(94)),
            (b"\x61\0\0\0\x01\0", WireError::Trailing(97)),
            (b"\x5d\0\0\0\x01\0\0\0", WireError::Truncated(93)),
        ] {
            assert_eq!(parse(bytes), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn messages_of_a_client() {
        let mut out = Vec::new();
        put_open(&mut out, "session", 1, (2, 3), b"s");
        let open = b"\0\0\0\x1a\0\x5a\0\0\0\x07session\0\0\0\x01\0\0\0\x02\0\0\0\x03s";
        assert_eq!(out, open);
        out.clear();
        put_open_refusal(&mut out, 9);
        assert_eq!(out, b"\0\0\0\x12\0\x5c\0\0\0\x09\0\0\0\x01\0\0\0\0\0\0\0\0");
        out.clear();
        put_adjust(&mut out, 1, 2);
        assert_eq!(out, b"\0\0\0\x0a\0\x5d\0\0\0\x01\0\0\0\x02");
        out.clear();
        put_data_head(&mut out, 1, 3);
        assert_eq!(out, b"\0\0\0\x0d\0\x5e\0\0\0\x01\0\0\0\x03");
        out.clear();
        put_eof(&mut out, 1);
        put_close(&mut out, 1);
        put_failure(&mut out, 1);
        assert_eq!(
            out,
            b"\0\0\0\x06\0\x60\0\0\0\x01\0\0\0\x06\0\x61\0\0\0\x01\0\0\0\x06\0\x64\0\0\0\x01"
        );
        out.clear();
        put_request(&mut out, 1, "exec", true, b"\0\0\0\x04true");
        assert_eq!(
            out,
            b"\0\0\0\x17\0\x62\0\0\0\x01\0\0\0\x04exec\x01\0\0\0\x04true"
        );
        out.clear();
        put_global_failure(&mut out);
        assert_eq!(out, b"\0\0\0\x02\0\x52");
    }
}
