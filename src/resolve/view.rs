//! How the far network is shown here: addresses in its answers, and names of addresses in questions.
//!
//! An address has one length, so it is written over where it stands. The name of an address has none: the answer to a question for
//! one that stands for another is the only message that is put together anew.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::Message;
use hickory_proto::rr::{DNSClass, LowerName, Name, RecordType};
use hickory_proto::serialize::binary::BinEncodable;

use super::question::{HEADER, QUESTION_TAIL};

/// In the second byte of flags: the answer was found to be signed well (RFC 4035 section 3.2.3).
const AD: u8 = 0x20;
/// Where the second byte of flags stands.
const FLAGS: usize = 3;
/// Parameters of HTTPS and SVCB records that are addresses (RFC 9460 section 14.3.2).
const IPV4_HINT: u16 = 4;
const IPV6_HINT: u16 = 6;

/// Which addresses stand for which.
pub trait View: fmt::Debug + Send + Sync {
    /// What stands here for an address of the far side; `None` where it is shown as itself.
    fn near(&self, far: IpAddr) -> Option<IpAddr>;

    /// What an address that is shown here stands for; `None` where that is itself.
    fn far(&self, near: IpAddr) -> Option<IpAddr>;

    /// Whether an address of the far side cannot be reached from here, so that who has it would wait for nothing.
    fn is_dead(&self, far: IpAddr) -> bool;
}

/// Every address is shown as itself.
#[derive(Clone, Copy, Debug)]
pub struct AsItIs;

impl View for AsItIs {
    fn near(&self, _: IpAddr) -> Option<IpAddr> {
        None
    }

    fn far(&self, _: IpAddr) -> Option<IpAddr> {
        None
    }

    fn is_dead(&self, _: IpAddr) -> bool {
        false
    }
}

/// Where an address stands in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    at: u16,
    is_v6: bool,
}

/// The addresses in the data of a record, which stands at `at` of its message.
pub(super) fn spots(kind: RecordType, at: usize, data: &[u8]) -> Vec<Spot> {
    match (kind, data.len()) {
        (RecordType::A, 4) => row(at, 4, false),
        (RecordType::AAAA, 16) => row(at, 16, true),
        (RecordType::HTTPS | RecordType::SVCB, _) => hints(at, data).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// `len` bytes of addresses.
fn row(at: usize, len: usize, is_v6: bool) -> Vec<Spot> {
    let size = if is_v6 { 16 } else { 4 };
    let whole = (at..at + len - len % size).step_by(size);
    // No message is longer than that.
    whole
        .map(|at| Spot {
            at: at as u16,
            is_v6,
        })
        .collect()
}

/// A priority, a name that is spelled out, and parameters (RFC 9460 section 2.2).
fn hints(start: usize, data: &[u8]) -> Option<Vec<Spot>> {
    let mut at = 2;
    while *data.get(at)? != 0 {
        at += 1 + usize::from(data[at]);
    }
    at += 1;
    let mut spots = Vec::new();
    while let Some([key, key_low, len, len_low]) = data.get(at..at + 4) {
        let len = usize::from(u16::from_be_bytes([*len, *len_low]));
        at += 4;
        data.get(at..at + len)?;
        match u16::from_be_bytes([*key, *key_low]) {
            IPV4_HINT => spots.extend(row(start + at, len, false)),
            IPV6_HINT => spots.extend(row(start + at, len, true)),
            _ => {}
        }
        at += len;
    }
    Some(spots)
}

/// Shows the addresses at `spots` of a message as `view` has them. What it says of signatures is then no longer so.
pub(super) fn show(message: &mut [u8], spots: &[Spot], view: &dyn View) {
    let mut is_changed = false;
    for Spot { at, is_v6 } in spots {
        let at = usize::from(*at);
        let place = &mut message[at..at + if *is_v6 { 16 } else { 4 }];
        match read(place).and_then(|far| view.near(far)) {
            Some(IpAddr::V4(near)) if !is_v6 => place.copy_from_slice(&near.octets()),
            Some(IpAddr::V6(near)) if *is_v6 => place.copy_from_slice(&near.octets()),
            _ => continue,
        }
        is_changed = true;
    }
    if is_changed {
        message[FLAGS] &= !AD;
    }
}

/// Whether there are addresses at `spots` of a message, and all of them are dead.
pub(super) fn are_dead(message: &[u8], spots: &[Spot], view: &dyn View) -> bool {
    let is_dead = |spot: &Spot| {
        let at = usize::from(spot.at);
        let len = if spot.is_v6 { 16 } else { 4 };
        read(&message[at..at + len]).is_some_and(|far| view.is_dead(far))
    };
    !spots.is_empty() && spots.iter().all(is_dead)
}

fn read(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(|bytes| Ipv4Addr::from(bytes).into());
    let v6 = || <[u8; 16]>::try_from(bytes).map(|bytes| Ipv6Addr::from(bytes).into());
    v4().or_else(|_| v6()).ok()
}

/// The address that `name` is the name of (RFC 1035 section 3.5, RFC 3596 section 2.5).
pub(super) fn address(name: &LowerName) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

/// A question for the name of `address`, as it stands in a message behind the name of the question `section`.
pub(super) fn section_for(address: IpAddr, section: &[u8]) -> Option<Box<[u8]>> {
    let tail = section.len().checked_sub(QUESTION_TAIL)?;
    let mut own = Name::from(address).to_bytes().ok()?;
    own.extend(&section[tail..]);
    Some(own.into())
}

/// `message` with the name of its question as `section` has it, there and as the owner of records. `None` where it cannot be read.
pub(super) fn renamed(message: &[u8], section: &[u8]) -> Option<Vec<u8>> {
    let mut parsed = Message::from_vec(message).ok()?;
    let mut bare = vec![0; HEADER];
    bare[5] = 1;
    bare.extend(section);
    let near = Message::from_vec(&bare).ok()?.queries.pop()?.name;
    let query = parsed.queries.first_mut()?;
    let far = std::mem::replace(&mut query.name, near.clone());
    for record in &mut parsed.answers {
        if record.name == far && record.dns_class == DNSClass::IN {
            record.name = near.clone();
        }
    }
    parsed.metadata.authentic_data = false;
    parsed.to_vec().ok()
}
