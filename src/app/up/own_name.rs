//! A name that our own name server alone knows: who is told its address has asked us, and nobody else.
//!
//! It is answered before the resolver sees it, and nothing of it leaves this host. Of the DNS no more is understood here than this
//! one question (RFC 1035 section 4.1).

use std::net::Ipv4Addr;

/// Below which domain, where all names are asked of us: nobody else has one there (RFC 6761 section 6.2), and systemd-resolved
/// asks for it, which it does not for `invalid`.
const DOMAIN: &str = "underpass.test";
/// Length of a header, in bytes.
const HEADER: usize = 12;
/// `A` and `IN`.
const ADDRESS: [u8; 4] = [0, 1, 0, 1];
/// `OPT` of the root, for answers of so many bytes, and nothing else (RFC 6891 section 6.1.2). Who asks with one and gets none
/// takes us for a server that has none.
const OPT: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];

/// The name and its address.
#[derive(Debug)]
pub(super) struct OwnName {
    text: String,
    /// As it stands in a question.
    wire: Vec<u8>,
    address: Ipv4Addr,
}

impl OwnName {
    /// Below the first of `domains`, if there is one; `number` is one that nobody can guess.
    pub(super) fn new(domains: &[String], number: u64, address: Ipv4Addr) -> Self {
        let domain = domains.first().map_or(DOMAIN, String::as_str);
        let text = format!("check-{number:016x}.{domain}");
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.split('.') {
            wire.push(u8::try_from(label.len()).unwrap_or_default());
            wire.extend(label.bytes());
        }
        wire.push(0);
        Self {
            text,
            wire,
            address,
        }
    }

    /// The name.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Its address.
    pub(super) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A question for its address.
    pub(super) fn question(&self, id: u16) -> Vec<u8> {
        // Recursion is desired; one question.
        let mut message = [id.to_be_bytes(), [1, 0], [0, 1], [0, 0], [0, 0], [0, 0]].concat();
        message.extend(&self.wire);
        message.extend(ADDRESS);
        message
    }

    /// The answer to `message`, where it asks for this name.
    pub(super) fn answer(&self, message: &[u8]) -> Option<Vec<u8>> {
        let (header, rest) = message.split_first_chunk::<HEADER>()?;
        let [id1, id2, flags, _, 0, 1, _, _, _, _, _, more] = *header else {
            return None;
        };
        // A standard query (QR and OPCODE are zero).
        if flags & 0b1111_1000 != 0 {
            return None;
        }
        let end = self.wire.len();
        let (name, kind) = (rest.get(..end)?, rest.get(end..end + ADDRESS.len())?);
        if !name.eq_ignore_ascii_case(&self.wire) {
            return None;
        }
        let has_address = kind == ADDRESS;
        // An authoritative answer; recursion is to be had.
        let flags = [0b1000_0100 | flags & 1, 0b1000_0000];
        let counts = [0, 1, 0, u8::from(has_address), 0, 0, 0, u8::from(more > 0)];
        let mut answer = [&[id1, id2], &flags[..], &counts, name, kind].concat();
        if has_address {
            // The name of the question, and for no time.
            answer.extend([0xc0, HEADER as u8]);
            answer.extend(ADDRESS);
            answer.extend([0, 0, 0, 0, 0, 4]);
            answer.extend(self.address.octets());
        }
        if more > 0 {
            answer.extend(OPT);
        }
        Some(answer)
    }

    /// Whether `answer`, to a question without anything behind it, says what we would.
    pub(super) fn is_ours(&self, answer: &[u8]) -> bool {
        let id = answer.first_chunk().map(|id| u16::from_be_bytes(*id));
        let question = self.question(id.unwrap_or_default());
        let own = self.answer(&question);
        // Whoever passes it on may have flags and compression of his own.
        let own = own.and_then(|own| own.last_chunk::<4>().copied());
        answer.len() >= question.len() + 16 && own == answer.last_chunk::<4>().copied()
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, ResponseCode};
    use hickory_proto::rr::{RData, RecordType};
    use proptest::prelude::*;

    use super::*;

    fn own(domains: &[String]) -> OwnName {
        OwnName::new(domains, 0xfeed, Ipv4Addr::new(198, 19, 255, 53))
    }

    #[test]
    fn its_address_is_told() {
        let name = own(&["corp.internal".into()]);
        assert_eq!(name.text(), "check-000000000000feed.corp.internal");
        let answer = name.answer(&name.question(7)).unwrap();
        let parsed = Message::from_vec(&answer).unwrap();
        assert_eq!(parsed.metadata.id, 7);
        assert_eq!(parsed.metadata.response_code, ResponseCode::NoError);
        assert_eq!(
            parsed.queries[0].name().to_ascii(),
            format!("{}.", name.text())
        );
        assert_eq!(parsed.answers.len(), 1);
        assert_eq!(parsed.answers[0].data, RData::A(name.address().into()));
        assert!(name.is_ours(&answer));
        assert!(own(&[]).text().ends_with(".underpass.test"));
    }

    #[test]
    fn case_and_options_of_who_asks_do_not_matter() {
        let name = own(&[]);
        let mut question = name.question(7).to_ascii_uppercase();
        question[11] = 1;
        question.extend(OPT);
        let answer = name.answer(&question).unwrap();
        let parsed = Message::from_vec(&answer).unwrap();
        assert_eq!(parsed.answers.len(), 1);
        assert!(parsed.edns.is_some());
        // No other type is known, and that is an answer as well.
        let mut question = name.question(7);
        let kind = question.len() - 3;
        question[kind] = u16::from(RecordType::AAAA) as u8;
        let answer = name.answer(&question).unwrap();
        assert!(Message::from_vec(&answer).unwrap().answers.is_empty());
        assert!(!name.is_ours(&answer));
    }

    #[test]
    fn other_questions_are_for_others() {
        let name = own(&[]);
        let question = name.question(7);
        let other = OwnName::new(&[], 1, name.address()).question(7);
        assert_eq!(name.answer(&other), None);
        // An answer, an update, two questions.
        for (at, value) in [(2, 0x81), (2, 0x28), (5, 2)] {
            let mut question = question.clone();
            question[at] = value;
            assert_eq!(name.answer(&question), None);
        }
        for length in 0..question.len() {
            assert_eq!(name.answer(&question[..length]), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_will_do(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let name = own(&[]);
            name.answer(&bytes);
            name.is_ours(&bytes);
        }
    }
}
