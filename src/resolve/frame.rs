//! Messages on a stream: two bytes of length, then the message (RFC 1035 section 4.2.2).

/// A message as it goes on a stream; `None` where it is too long for one.
pub fn frame(message: &[u8]) -> Option<Vec<u8>> {
    let len = u16::try_from(message.len()).ok()?;
    Some([&len.to_be_bytes()[..], message].concat())
}

/// Puts messages together from the pieces of a stream. Holds one message that is not whole, 64 KiB at most, and what came
/// with the last piece.
#[derive(Debug, Default)]
pub struct Deframer {
    bytes: Vec<u8>,
    /// What was given out already is in front of this.
    start: usize,
}

impl Deframer {
    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        // Once per piece: not for each message of it.
        self.bytes.drain(..std::mem::take(&mut self.start));
        self.bytes.extend_from_slice(piece);
    }

    /// The next whole message.
    pub fn next_message(&mut self) -> Option<Vec<u8>> {
        let (len, rest) = self.bytes[self.start..].split_first_chunk::<2>()?;
        let len = usize::from(u16::from_be_bytes(*len));
        let message = rest.get(..len)?.to_vec();
        self.start += 2 + len;
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_of_64_kib_is_the_longest() {
        assert_eq!(frame(&[7; 3]), Some(vec![0, 3, 7, 7, 7]));
        assert_eq!(frame(&[7; 65_535]).map(|frame| frame.len()), Some(65_537));
        assert_eq!(frame(&[7; 65_536]), None);
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(|message| frame(message).unwrap()).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.push(stream.len());
            cuts.sort_unstable();
            let (mut deframer, mut from, mut out) = (Deframer::default(), 0, Vec::new());
            for cut in cuts {
                deframer.push(&stream[from..cut]);
                out.extend(std::iter::from_fn(|| deframer.next_message()));
                from = cut;
            }
            prop_assert_eq!(out, messages);
        }
    }
}
