//! What a far resolver sent: kept as bytes, with what has to be written over for each who asked.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, DecodeError};
use thiserror::Error;

use super::question::{Asked, HEADER, OPCODE, QR, QUESTION_TAIL};
use super::view::{self, Spot, View};

/// No answer is believed for longer, in seconds.
const MAX_TTL: u32 = 86_400;
/// Nor that there is none (RFC 2308 section 5).
const MAX_NEGATIVE_TTL: u32 = 10_800;
/// Nor what near ones say of that: in another network they know other names.
const MAX_NEAR_NEGATIVE_TTL: u32 = 60;
/// Bytes of the last field of an SOA record: for how long its zone has nothing where it has nothing (RFC 2308 section 4).
const SOA_MINIMUM: usize = 4;
/// The section of records that answer.
const ANSWER: usize = 1;
/// The section of records that say who is in charge (RFC 1035 section 4.1).
const AUTHORITY: usize = 2;

/// Why a message is not the answer that was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Mismatch {
    /// It is shorter than a header, or its records are not whole.
    #[error("malformed")]
    Malformed,
    /// It asks instead of answering.
    #[error("not an answer")]
    NotAnAnswer,
    /// It answers something else.
    #[error("another question")]
    OtherQuestion,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    bytes: Box<[u8]>,
    /// Where each TTL stands.
    ttls: Box<[u16]>,
    /// Where each address stands.
    addresses: Box<[Spot]>,
    /// So many of them, the first ones, answer the question.
    own: usize,
    /// For how many seconds it holds; 0: it is not to be kept.
    lifetime: u32,
    /// That there is nothing is what it says.
    is_negative: bool,
    /// Nothing but a header that says what is wrong: some send no more for what they do not understand.
    is_bare: bool,
}

impl Answer {
    /// Reads `message` as the answer to the question `section`, in whatever case.
    ///
    /// # Errors
    /// [`Mismatch`].
    pub(super) fn read(message: &[u8], section: &[u8]) -> Result<Self, Mismatch> {
        if message.len() < HEADER || message.len() > usize::from(u16::MAX) {
            return Err(Mismatch::Malformed);
        }
        if message[2] & (QR | OPCODE) != QR {
            return Err(Mismatch::NotAnAnswer);
        }
        if is_bare_error(message) {
            return Ok(Self {
                bytes: message.into(),
                ttls: [].into(),
                addresses: [].into(),
                own: 0,
                lifetime: 0,
                is_negative: false,
                is_bare: true,
            });
        }
        let end = HEADER + section.len();
        let is_same = count(message, 0) == 1
            && message
                .get(HEADER..end)
                .is_some_and(|own| is_same_question(own, section));
        if !is_same {
            return Err(Mismatch::OtherQuestion);
        }
        let records = Records::read(message, end).map_err(|_| Mismatch::Malformed)?;
        Ok(Self {
            // What follows the last record is nothing that anybody has to see.
            bytes: message[..records.end].into(),
            lifetime: records.lifetime(code_of(message), message[2] & 2 != 0),
            is_negative: records.negative.is_some(),
            ttls: records.ttls.into(),
            addresses: records.addresses.into(),
            own: records.own,
            is_bare: false,
        })
    }

    /// Its number on the stream that it came on.
    pub(super) fn id(message: &[u8]) -> Option<u16> {
        let id = message.get(..2)?;
        Some(u16::from_be_bytes([id[0], id[1]]))
    }

    /// What it says of the question.
    pub(super) fn code(&self) -> ResponseCode {
        code_of(&self.bytes)
    }

    /// Whether `message`, which it was read from, had more behind its end.
    pub(super) fn is_part_of(&self, message: &[u8]) -> bool {
        self.bytes.len() < message.len()
    }

    /// For how many seconds it holds.
    pub(super) fn lifetime(&self) -> u32 {
        self.lifetime
    }

    /// Bytes that it takes.
    pub(super) fn size(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.ttls) + size_of_val(&*self.addresses)
    }

    /// One that speaks of other addresses than those of the far network: they are shown as they are. That there is nothing holds
    /// for a short time.
    pub(super) fn of_near_ones(self) -> Self {
        let most = match self.is_negative {
            true => MAX_NEAR_NEGATIVE_TTL,
            false => MAX_TTL,
        };
        Self {
            addresses: [].into(),
            own: 0,
            lifetime: self.lifetime.min(most),
            ..self
        }
    }

    /// The copy for one client, `age` seconds after it came, with addresses as `view` shows them.
    pub(super) fn copy_for(&self, asked: &Asked, age: u32, view: &dyn View) -> Vec<u8> {
        if self.is_bare {
            return asked.answered(self.code());
        }
        if asked.is_for_addresses()
            && view::are_dead(&self.bytes, &self.addresses[..self.own], view)
        {
            return asked.answered(self.code());
        }
        if self.bytes.len() > asked.room {
            return asked.truncated(self.code());
        }
        let mut copy = self.bytes.to_vec();
        copy[..2].copy_from_slice(&asked.id.to_be_bytes());
        for at in &self.ttls {
            let at = usize::from(*at);
            let ttl = &mut copy[at..at + 4];
            let left = seconds(ttl).saturating_sub(age);
            ttl.copy_from_slice(&left.to_be_bytes());
        }
        view::show(&mut copy, &self.addresses, view);
        if asked.far_section.is_none() {
            copy[HEADER..HEADER + asked.section.len()].copy_from_slice(&asked.section);
            return copy;
        }
        let copy = view::renamed(&copy, &asked.section);
        match copy.filter(|copy| copy.len() <= asked.room) {
            Some(copy) => copy,
            None if asked.room < usize::from(u16::MAX) => asked.truncated(self.code()),
            None => asked.answered(ResponseCode::ServFail),
        }
    }
}

/// Whether it has neither question nor records, and says that something is wrong.
fn is_bare_error(message: &[u8]) -> bool {
    (0..4).all(|section| count(message, section) == 0)
        && !matches!(
            code_of(message),
            ResponseCode::NoError | ResponseCode::NXDomain
        )
}

/// Letters of a name are the same in both cases; type and class are numbers.
fn is_same_question(one: &[u8], other: &[u8]) -> bool {
    let (name, tail) = one.split_at(one.len() - QUESTION_TAIL);
    let (other_name, other_tail) = other.split_at(other.len() - QUESTION_TAIL);
    tail == other_tail && name.eq_ignore_ascii_case(other_name)
}

fn code_of(message: &[u8]) -> ResponseCode {
    ResponseCode::from_low(message[3] & 15)
}

/// The n-th count of a header.
fn count(message: &[u8], n: usize) -> u16 {
    u16::from_be_bytes([message[4 + 2 * n], message[5 + 2 * n]])
}

/// A TTL; one with the top bit set is none (RFC 2181 section 8).
fn seconds(bytes: &[u8]) -> u32 {
    let ttl = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

/// What of an answer's records matters here.
struct Records {
    ttls: Vec<u16>,
    addresses: Vec<Spot>,
    own: usize,
    least_ttl: Option<u32>,
    /// Where the last one ends.
    end: usize,
    answers: u16,
    /// How long it holds that there is nothing (RFC 2308 section 3).
    negative: Option<u32>,
}

impl Records {
    fn read(message: &[u8], start: usize) -> Result<Self, DecodeError> {
        let mut records = Self {
            ttls: Vec::new(),
            addresses: Vec::new(),
            own: 0,
            least_ttl: None,
            end: start,
            answers: count(message, 1),
            negative: None,
        };
        let mut decoder = BinDecoder::new(message);
        decoder.read_slice(start)?;
        for section in 1..4 {
            for _ in 0..count(message, section) {
                records.take(section, message, &mut decoder)?;
            }
        }
        records.end = decoder.index();
        Ok(records)
    }

    fn take(
        &mut self,
        section: usize,
        message: &[u8],
        decoder: &mut BinDecoder<'_>,
    ) -> Result<(), DecodeError> {
        Name::read(decoder)?;
        let kind = RecordType::from(decoder.read_u16()?.unverified());
        let class = DNSClass::from(decoder.read_u16()?.unverified());
        let at = decoder.index();
        decoder.read_u32()?;
        let len = usize::from(decoder.read_u16()?.unverified());
        let data = decoder.read_slice(len)?.unverified();
        if kind == RecordType::OPT {
            // What stands there is no TTL (RFC 6891 section 6.1.3).
            return Ok(());
        }
        let ttl = seconds(&message[at..]);
        // `Answer::read` takes no message in which it could be more.
        self.ttls.push(at as u16);
        if class == DNSClass::IN {
            let spots = view::spots(kind, decoder.index() - len, data);
            self.addresses.extend(spots);
            if section == ANSWER {
                self.own = self.addresses.len();
            }
        }
        self.least_ttl = Some(self.least_ttl.map_or(ttl, |least| least.min(ttl)));
        if section == AUTHORITY
            && kind == RecordType::SOA
            && let Some(minimum) = data.len().checked_sub(SOA_MINIMUM)
        {
            self.negative = Some(ttl.min(seconds(&data[minimum..])));
        }
        Ok(())
    }

    /// An SOA record in the authority section says that there is nothing, also at the end of a chain of aliases.
    fn lifetime(&self, code: ResponseCode, truncated: bool) -> u32 {
        let known = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
        let least = self.least_ttl.filter(|_| known && !truncated);
        let lifetime = match self.negative {
            Some(negative) => least.map(|ttl| ttl.min(negative).min(MAX_NEGATIVE_TTL)),
            None if code == ResponseCode::NoError && self.answers > 0 => {
                least.map(|ttl| ttl.min(MAX_TTL))
            }
            None => None,
        };
        lifetime.unwrap_or(0)
    }
}
