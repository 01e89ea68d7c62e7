//! Answers that are made of a pool of addresses, where nobody is asked.

use std::time::Instant;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{DNSClass, LowerName, Name, RecordType};
use hickory_proto::serialize::binary::BinEncodable;

use super::pool::{Named, Pool, TTL};
use super::question::{Asked, Question};
use super::view::address;

/// The longest name of a host, in letters (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;
/// Names below these are never looked up by a name server (RFC 6761, RFC 7686).
const NOBODYS: [&str; 3] = ["localhost", "invalid", "onion"];
/// These mostly are not (RFC 6762), or have no hosts: but for who says that they do, as many a directory of Microsoft's does.
const HARDLY: [&str; 2] = ["local", "arpa"];

/// The answer to a question that belongs to the far side, `is_meant` where somebody has said so of this name; `None` where there is no room for a further name. Whether there is such a
/// host is not known before somebody connects to it.
pub(super) fn answer(
    pool: &mut Pool,
    now: Instant,
    question: &Question,
    asked: &Asked,
    is_meant: bool,
) -> Option<Vec<u8>> {
    if question.class != DNSClass::IN {
        return Some(asked.answered(ResponseCode::Refused));
    }
    if let Some(ip) = address(&question.name) {
        return Some(match (pool.name(ip), question.kind) {
            (Named::Name(name), RecordType::PTR) => pointer(asked, &name),
            (Named::Name(_), _) => asked.answered(ResponseCode::NoError),
            _ => asked.answered(ResponseCode::NXDomain),
        });
    }
    let Some(name) = host(&question.name, is_meant) else {
        return Some(asked.answered(ResponseCode::NXDomain));
    };
    if !matches!(question.kind, RecordType::A | RecordType::AAAA) {
        return Some(asked.answered(ResponseCode::NoError));
    }
    let (v4, v6) = pool.addresses(now, &name)?;
    Some(match (question.kind, v6) {
        (RecordType::A, _) => asked.with_record(RecordType::A, TTL, &v4.octets()),
        (_, Some(v6)) => asked.with_record(RecordType::AAAA, TTL, &v6.octets()),
        (_, None) => asked.answered(ResponseCode::NoError),
    })
}

/// Whether `name` is that of an address of the pool.
pub(super) fn is_of(pool: &Pool, name: &LowerName) -> bool {
    address(name).is_some_and(|ip| pool.name(ip) != Named::Other)
}

fn pointer(asked: &Asked, name: &str) -> Vec<u8> {
    let data = Name::from_ascii(name).map(|mut name| {
        name.set_fqdn(true);
        name.to_bytes()
    });
    match data {
        Ok(Ok(data)) => asked.with_record(RecordType::PTR, TTL, &data),
        _ => asked.answered(ResponseCode::NXDomain),
    }
}

/// The host that the far side is asked for; `None` where no host has the name. A text that reads as an address would be taken for one
/// there.
fn host(name: &LowerName, is_meant: bool) -> Option<String> {
    let text = name.to_string();
    let text = text.strip_suffix('.').unwrap_or(&text);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let last = text.rsplit('.').next()?;
    let is_host = text.len() <= MAX_NAME
        && text.chars().all(is_plain)
        && last.starts_with(|c: char| c.is_ascii_alphabetic())
        && !NOBODYS.contains(&last)
        && (is_meant || !HARDLY.contains(&last))
        && !text.starts_with('-');
    is_host.then(|| text.to_owned())
}
