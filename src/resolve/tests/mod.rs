//! What the tests share: messages put together by hand, so that no parser is checked against itself.

mod answer;
mod by_name;
mod cache;
mod datagrams;
mod proxy;
mod question;
mod resolver;
mod view;

pub(super) const A: u16 = 1;
pub(super) const CNAME: u16 = 5;
pub(super) const SOA: u16 = 6;
pub(super) const PTR: u16 = 12;
pub(super) const TXT: u16 = 16;
pub(super) const AAAA: u16 = 28;
/// 0x41, as the letter A.
pub(super) const HTTPS: u16 = 65;

pub(super) const NOERROR: u8 = 0;
pub(super) const FORMERR: u8 = 1;
pub(super) const SERVFAIL: u8 = 2;
pub(super) const NXDOMAIN: u8 = 3;
pub(super) const REFUSED: u8 = 5;

/// A name as a message has it.
pub(super) fn name(text: &str) -> Vec<u8> {
    let labels = text.split('.').filter(|label| !label.is_empty());
    let mut name: Vec<u8> = labels
        .flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat())
        .collect();
    name.push(0);
    name
}

/// A question with recursion desired.
pub(super) fn query(id: u16, text: &str, kind: u16) -> Vec<u8> {
    let head = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    [head, name(text), kind.to_be_bytes().to_vec(), vec![0, 1]].concat()
}

/// The same from one who knows EDNS, and takes datagrams of `size` bytes.
pub(super) fn edns(mut query: Vec<u8>, size: u16, dnssec_ok: bool, options: &[u8]) -> Vec<u8> {
    query[11] += 1;
    query.extend([0, 0, 41]);
    query.extend(size.to_be_bytes());
    query.extend([0, 0, u8::from(dnssec_ok) << 7, 0]);
    query.extend((options.len() as u16).to_be_bytes());
    query.extend(options);
    query
}

/// A record of the name in the question.
pub(super) fn record(kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut record = vec![0xc0, 12];
    record.extend(kind.to_be_bytes());
    record.extend([0, 1]);
    record.extend(ttl.to_be_bytes());
    record.extend((data.len() as u16).to_be_bytes());
    record.extend(data);
    record
}

pub(super) fn soa(ttl: u32, minimum: u32) -> Vec<u8> {
    let numbers = [1, 7200, 900, 1_209_600, minimum];
    let data = [name("ns.corp.internal"), name("admin.corp.internal")].concat();
    let numbers = numbers.iter().flat_map(|number: &u32| number.to_be_bytes());
    record(
        SOA,
        ttl,
        &data.into_iter().chain(numbers).collect::<Vec<_>>(),
    )
}

/// The answer to `query`, which has no more than a question: answers, authorities, additional records.
pub(super) fn answer(query: &[u8], code: u8, sections: [&[Vec<u8>]; 3]) -> Vec<u8> {
    let end = 12 + section(query).len();
    let mut message = query[..end].to_vec();
    message[2] |= 0x80;
    message[3] = 0x80 | code;
    for (at, section) in sections.iter().enumerate() {
        message[6 + 2 * at..8 + 2 * at].copy_from_slice(&(section.len() as u16).to_be_bytes());
        message.extend(section.concat());
    }
    message
}

/// The answer that there is one address.
pub(super) fn address(query: &[u8], ttl: u32, last: u8) -> Vec<u8> {
    answer(
        query,
        NOERROR,
        [&[record(A, ttl, &[10, 0, 1, last])], &[], &[]],
    )
}

/// The question section.
pub(super) fn section(message: &[u8]) -> &[u8] {
    let mut end = 12;
    while message[end] != 0 {
        end += 1 + usize::from(message[end]);
    }
    &message[12..end + 5]
}

pub(super) fn id(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

pub(super) fn code(message: &[u8]) -> u8 {
    message[3] & 15
}

pub(super) fn is_truncated(message: &[u8]) -> bool {
    message[2] & 2 != 0
}
