//! What a client asks: foreign bytes become a question that others may share, and what its own copy of the answer needs.

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, LowerName, Name, RecordType};

use super::view::{View, address, section_for};
use super::zones::{Side, Zones};

/// Bytes of a message's header (RFC 1035 section 4.1.1).
pub(super) const HEADER: usize = 12;
/// Of the header's first byte of flags: an answer, the operation, recursion desired.
pub(super) const QR: u8 = 0x80;
pub(super) const OPCODE: u8 = 0x78;
const RD: u8 = 1;
/// Of the second: recursion available.
const RA: u8 = 0x80;
/// Type, class.
pub(super) const QUESTION_TAIL: usize = 4;
/// The longest label; what is above it in its length byte says that it is something else (RFC 1035 section 4.1.4).
const MAX_LABEL: u8 = 63;
/// What a datagram may hold where nothing is said of it (RFC 1035 section 2.3.4).
const PLAIN_DATAGRAM: usize = 512;
/// The largest datagram that is sent, and said to be taken: it fits every path without fragments (DNS flag day 2020).
pub(super) const DATAGRAM: u16 = 1232;

/// Where the header's count of answers ends.
const ANSWERS: usize = 7;
/// For how long a minimal answer holds, in seconds.
const MINIMAL_TTL: u32 = 3600;

/// How a question came, and its answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As a UDP datagram.
    Datagram,
    /// On a TCP stream.
    Stream,
}

/// What is asked, as far as one answer serves all who ask it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// Who knows it.
    pub(super) side: Side,
    /// In lower case.
    pub(super) name: LowerName,
    /// The type of record.
    pub(super) kind: RecordType,
    /// The class, IN but for curiosities.
    pub(super) class: DNSClass,
    /// Recursion desired, authentic data, checking disabled (RFC 1035 section 4.1.1, RFC 4035 section 3.2).
    flags: (bool, bool, bool),
    /// Whether the client knows EDNS, and if so whether it wants signatures (RFC 6891 section 6.1.4).
    edns: Option<bool>,
}

/// What the copy of an answer for one client needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// The client's number for it.
    pub(super) id: u16,
    /// As it was asked, for answers that are made here.
    recursion_desired: bool,
    /// The question as it was spelled: name, type, class.
    pub(super) section: Box<[u8]>,
    /// The question as the far side is asked, where that is for another address.
    pub(super) far_section: Option<Box<[u8]>>,
    /// Bytes that an answer may have.
    pub(super) room: usize,
    has_edns: bool,
}

/// A message that is no question to pass on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Not even to be answered: too short, or an answer itself.
    Noise,
    /// Answered by this message.
    Answered(Vec<u8>),
}

/// Reads the message of a client.
///
/// # Errors
/// [`Unfit`], for whatever is not one question of the usual kind.
pub(super) fn read(message: &[u8], way: Way) -> Result<(Question, Asked), Unfit> {
    if message.len() < HEADER || message[2] & QR != 0 {
        return Err(Unfit::Noise);
    }
    let refused = |code| Unfit::Answered(bare(message, code));
    // Before the rest, which means something else in other operations (RFC 2136).
    if message[2] & OPCODE != u8::from(OpCode::Query) << 3 {
        return Err(refused(ResponseCode::NotImp));
    }
    let parsed = Message::from_vec(message).map_err(|_| refused(ResponseCode::FormErr))?;
    let metadata = &parsed.metadata;
    let ([query], Some(section)) = (parsed.queries.as_slice(), section(message)) else {
        return Err(refused(ResponseCode::FormErr));
    };
    let edns = parsed.edns.as_ref();
    let room = match way {
        Way::Stream => usize::from(u16::MAX),
        Way::Datagram => edns.map_or(PLAIN_DATAGRAM, |edns| {
            usize::from(edns.max_payload().min(DATAGRAM)).max(PLAIN_DATAGRAM)
        }),
    };
    let asked = Asked {
        id: metadata.id,
        recursion_desired: metadata.recursion_desired,
        section: section.into(),
        far_section: None,
        room,
        has_edns: edns.is_some(),
    };
    if edns.is_some_and(|edns| edns.version() > 0) {
        return Err(Unfit::Answered(asked.answered(ResponseCode::BADVERS)));
    }
    // A transfer has many messages (RFC 5936), and nobody resolves a name by one.
    if matches!(query.query_type, RecordType::AXFR | RecordType::IXFR) {
        return Err(Unfit::Answered(asked.answered(ResponseCode::Refused)));
    }
    if query.query_type == RecordType::ANY {
        return Err(Unfit::Answered(asked.minimal()));
    }
    let question = Question {
        side: Side::Near,
        name: LowerName::new(&query.name),
        kind: query.query_type,
        class: query.query_class,
        flags: (
            metadata.recursion_desired,
            metadata.authentic_data,
            metadata.checking_disabled,
        ),
        edns: edns.map(|edns| edns.flags().dnssec_ok),
    };
    Ok((question, asked))
}

/// Finds out who knows the answer; a question for the name of an address is one for that which it stands for.
pub(super) fn place(question: &mut Question, asked: &mut Asked, zones: &Zones, view: &dyn View) {
    question.side = zones.side(&question.name);
    if question.side == Side::Near || question.kind != RecordType::PTR {
        return;
    }
    let far = address(&question.name).and_then(|near| view.far(near));
    if let Some(far) = far {
        question.name = LowerName::new(&Name::from(far));
        asked.far_section = section_for(far, &asked.section);
    }
}

/// The question section, where its name is spelled out.
pub(super) fn section(message: &[u8]) -> Option<&[u8]> {
    let mut end = HEADER;
    loop {
        match *message.get(end)? {
            0 => break,
            label if label <= MAX_LABEL => end += 1 + usize::from(label),
            _ => return None,
        }
    }
    message.get(HEADER..end + 1 + QUESTION_TAIL)
}

/// The same question in lower case: only its name has letters.
pub(super) fn lower(section: &[u8]) -> Box<[u8]> {
    let mut lower = Box::<[u8]>::from(section);
    let name = section.len() - QUESTION_TAIL;
    // No length byte is a letter: they are 63 at most.
    lower[..name].make_ascii_lowercase();
    lower
}

/// An answer of nothing but a header to a message that cannot be read further.
pub(super) fn bare(message: &[u8], code: ResponseCode) -> Vec<u8> {
    let mut answer = vec![0; HEADER];
    answer[..2].copy_from_slice(&message[..2]);
    // The operation and whether recursion was desired, as they were.
    answer[2] = QR | message[2] & (OPCODE | RD);
    answer[3] = code.low();
    answer
}

impl Question {
    /// The message that asks a far resolver, with number `id`; `section` is the question as it stands in a message. What concerns one hop alone (cookies, padding, the size of a datagram)
    /// is not passed on (RFC 6891 section 6.1.1).
    pub(super) fn message(&self, section: &[u8], id: u16) -> Vec<u8> {
        let (recursion_desired, authentic_data, checking_disabled) = self.flags;
        let flags = [
            u8::from(recursion_desired),
            u8::from(authentic_data) << 5 | u8::from(checking_disabled) << 4,
        ];
        let mut message = header(id, flags, self.edns.is_some());
        message.extend(section);
        if let Some(dnssec_ok) = self.edns {
            message.extend(opt(0, dnssec_ok));
        }
        message
    }
}

impl Asked {
    /// Whether it is for addresses, of one family.
    pub(super) fn is_for_addresses(&self) -> bool {
        let kind = self.section[self.section.len() - QUESTION_TAIL..].first_chunk();
        let kind = kind.map(|bytes| RecordType::from(u16::from_be_bytes(*bytes)));
        matches!(kind, Some(RecordType::A | RecordType::AAAA))
    }

    /// The question as it is passed on, in lower case.
    pub(super) fn passed_on(&self) -> Box<[u8]> {
        lower(self.far_section.as_ref().unwrap_or(&self.section))
    }

    /// An answer that is made here, without a record.
    pub(super) fn answered(&self, code: ResponseCode) -> Vec<u8> {
        self.made(code, false)
    }

    /// What tells a client of datagrams to ask over a stream (RFC 2181 section 9).
    pub(super) fn truncated(&self, code: ResponseCode) -> Vec<u8> {
        self.made(code, true)
    }

    /// An answer to a question for everything there is: one record, that says so (RFC 8482 section 4.2).
    fn minimal(&self) -> Vec<u8> {
        // Its two texts.
        self.with_record(RecordType::HINFO, MINIMAL_TTL, b"\x07RFC8482\0")
    }

    /// An answer of one record that is made here; `data` has 255 bytes at most.
    pub(super) fn with_record(&self, kind: RecordType, ttl: u32, data: &[u8]) -> Vec<u8> {
        let mut message = self.made(ResponseCode::NoError, false);
        let opt = message.split_off(HEADER + self.section.len());
        message[ANSWERS] = 1;
        // The name of the question.
        message.extend([0xc0, HEADER as u8]);
        message.extend(u16::from(kind).to_be_bytes());
        message.extend(&self.section[self.section.len() - 2..]);
        message.extend(ttl.to_be_bytes());
        message.extend([0, data.len() as u8]);
        message.extend(data);
        message.extend(opt);
        message
    }

    fn made(&self, code: ResponseCode, truncated: bool) -> Vec<u8> {
        let flags = [
            QR | u8::from(truncated) << 1 | u8::from(self.recursion_desired),
            RA | code.low(),
        ];
        let mut message = header(self.id, flags, self.has_edns);
        message.extend(&self.section);
        if self.has_edns {
            message.extend(opt(code.high(), false));
        }
        message
    }
}

/// A header with one question, and nothing else but perhaps an OPT record.
fn header(id: u16, flags: [u8; 2], has_edns: bool) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let counts = [0, 1, 0, 0, 0, 0, 0, u8::from(has_edns)];
    [&[high, low, flags[0], flags[1]][..], &counts].concat()
}

/// An OPT record without options (RFC 6891 section 6.1.2).
fn opt(extended_code: u8, dnssec_ok: bool) -> [u8; 11] {
    let [high, low] = DATAGRAM.to_be_bytes();
    let dnssec_ok = u8::from(dnssec_ok) << 7;
    [0, 0, 41, high, low, extended_code, 0, dnssec_ok, 0, 0, 0]
}
