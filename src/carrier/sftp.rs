//! Reading one small file over sftp, version 3 (draft-ietf-secsh-filexfer-02), without I/O: what the server says in, what to say out.

use super::examine::MOST_OUTPUT;

/// The subsystem's name (section 3).
pub(super) const SFTP: &str = "sftp";

const INIT: u8 = 1;
const VERSION: u8 = 2;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
/// The status that says that there is no more.
const END_OF_FILE: u32 = 1;
/// Flag of an open that is to read.
const TO_READ: u32 = 1;
/// Bytes that are asked for at once.
const PIECE: u32 = 16 << 10;
/// The longest message that is taken.
const MOST_MESSAGE: usize = 64 << 10;
/// The longest handle there is (section 6.2).
const MOST_HANDLE: usize = 256;

/// How reading ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The file, its first [`MOST_OUTPUT`] bytes at most.
    File(Vec<u8>),
    /// It cannot be read, or who answers does not speak sftp.
    Failed,
}

/// What is being waited for.
#[derive(Debug)]
enum State {
    Version,
    Handle,
    Data(Vec<u8>),
}

/// See the module. Order of calls: [`begin`](Self::begin), then [`hear`](Self::hear) until there is an end.
#[derive(Debug)]
pub(super) struct Reading {
    path: String,
    state: State,
    heard: Vec<u8>,
    file: Vec<u8>,
    id: u32,
}

impl Reading {
    /// One of the file at `path`, and what is to be said first.
    pub(super) fn begin(path: &str) -> (Self, Vec<u8>) {
        let reading = Self {
            path: path.to_owned(),
            state: State::Version,
            heard: Vec::new(),
            file: Vec::new(),
            id: 0,
        };
        (reading, message(INIT, &3_u32.to_be_bytes()))
    }

    /// Takes what the server says: what is to be said to that, and whether it is the end.
    pub(super) fn hear(&mut self, data: &[u8]) -> (Vec<u8>, Option<End>) {
        self.heard.extend_from_slice(data);
        let mut said = Vec::new();
        loop {
            match self.next() {
                Ok(Some(taken)) => match self.take(&taken) {
                    Ok(reply) => said.extend(reply),
                    Err(end) => return (said, Some(end)),
                },
                Ok(None) => return (said, None),
                Err(end) => return (said, Some(end)),
            }
        }
    }

    /// The next whole message, without its length.
    fn next(&mut self) -> Result<Option<Vec<u8>>, End> {
        let Some((len, rest)) = self.heard.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*len) as usize;
        if len == 0 || len > MOST_MESSAGE {
            return Err(End::Failed);
        }
        let Some(message) = rest.get(..len) else {
            return Ok(None);
        };
        let message = message.to_vec();
        self.heard.drain(..4 + len);
        Ok(Some(message))
    }

    fn take(&mut self, message: &[u8]) -> Result<Vec<u8>, End> {
        let (kind, rest) = message.split_first().ok_or(End::Failed)?;
        if let State::Version = self.state {
            if *kind != VERSION {
                return Err(End::Failed);
            }
            self.state = State::Handle;
            return Ok(self.open());
        }
        let (id, rest) = number(rest)?;
        if id != self.id {
            return Err(End::Failed);
        }
        match (&self.state, *kind) {
            (State::Handle, HANDLE) => {
                let handle = text(rest)?;
                if handle.len() > MOST_HANDLE {
                    return Err(End::Failed);
                }
                self.state = State::Data(handle.to_vec());
                Ok(self.more())
            }
            (State::Data(_), DATA) => {
                let data = text(rest)?;
                let room = MOST_OUTPUT - self.file.len();
                self.file.extend_from_slice(&data[..data.len().min(room)]);
                // No data is no end, and would be none for ever.
                match data.is_empty() || self.file.len() == MOST_OUTPUT {
                    true => Err(self.end()),
                    false => Ok(self.more()),
                }
            }
            (State::Data(_), STATUS) if number(rest)?.0 == END_OF_FILE => Err(self.end()),
            _ => Err(End::Failed),
        }
    }

    fn end(&mut self) -> End {
        End::File(std::mem::take(&mut self.file))
    }

    fn open(&mut self) -> Vec<u8> {
        let mut request = self.request();
        put(&mut request, self.path.as_bytes());
        request.extend(TO_READ.to_be_bytes());
        // No attributes.
        request.extend([0; 4]);
        message(OPEN, &request)
    }

    fn more(&mut self) -> Vec<u8> {
        let mut request = self.request();
        if let State::Data(handle) = &self.state {
            put(&mut request, handle);
        }
        request.extend((self.file.len() as u64).to_be_bytes());
        request.extend(PIECE.to_be_bytes());
        message(READ, &request)
    }

    /// What is to be said after the end: the file is closed. Its answer is not waited for.
    pub(super) fn goodbye(&mut self) -> Vec<u8> {
        let mut request = self.request();
        match &self.state {
            State::Data(handle) => put(&mut request, handle),
            _ => return Vec::new(),
        }
        message(CLOSE, &request)
    }

    /// A number of its own.
    fn request(&mut self) -> Vec<u8> {
        self.id += 1;
        self.id.to_be_bytes().to_vec()
    }
}

fn message(kind: u8, rest: &[u8]) -> Vec<u8> {
    // A path, or a handle, and some numbers.
    let len = rest.len() as u32 + 1;
    [&len.to_be_bytes()[..], &[kind], rest].concat()
}

fn put(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u32).to_be_bytes());
    out.extend(text);
}

fn number(bytes: &[u8]) -> Result<(u32, &[u8]), End> {
    let (number, rest) = bytes.split_first_chunk().ok_or(End::Failed)?;
    Ok((u32::from_be_bytes(*number), rest))
}

fn text(bytes: &[u8]) -> Result<&[u8], End> {
    let (len, rest) = number(bytes)?;
    rest.get(..len as usize).ok_or(End::Failed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reply(kind: u8, id: u32, rest: &[u8]) -> Vec<u8> {
        message(kind, &[&id.to_be_bytes()[..], rest].concat())
    }

    fn string(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, bytes);
        out
    }

    fn status(id: u32, code: u32) -> Vec<u8> {
        reply(
            STATUS,
            id,
            &[&code.to_be_bytes()[..], &string(b"no"), &string(b"")].concat(),
        )
    }

    const OPENED: &[u8] = b"\0\0\0\x21\x03\0\0\0\x01\0\0\0\x10/etc/resolv.conf\0\0\0\x01\0\0\0\0";

    fn version() -> Vec<u8> {
        // With an extension.
        let extension = [string(b"posix-rename@openssh.com"), string(b"1")].concat();
        message(VERSION, &[&3_u32.to_be_bytes()[..], &extension].concat())
    }

    #[test]
    fn a_file_is_opened_read_to_its_end_and_closed() {
        let (mut reading, first) = Reading::begin("/etc/resolv.conf");
        assert_eq!(first, b"\0\0\0\x05\x01\0\0\0\x03");
        assert_eq!(reading.hear(&version()), (OPENED.to_vec(), None));
        let (read, end) = reading.hear(&reply(HANDLE, 1, &string(b"h")));
        assert_eq!(end, None);
        assert_eq!(
            read,
            b"\0\0\0\x16\x05\0\0\0\x02\0\0\0\x01h\0\0\0\0\0\0\0\0\0\0\x40\0"
        );
        let (read, _) = reading.hear(&reply(DATA, 2, &string(b"nameserver")));
        assert_eq!(
            read,
            b"\0\0\0\x16\x05\0\0\0\x03\0\0\0\x01h\0\0\0\0\0\0\0\x0a\0\0\x40\0"
        );
        let end = End::File(b"nameserver".to_vec());
        assert_eq!(reading.hear(&status(3, 1)), (Vec::new(), Some(end)));
        assert_eq!(reading.goodbye(), b"\0\0\0\x0a\x04\0\0\0\x04\0\0\0\x01h");
    }

    #[test]
    fn what_is_no_answer_is_the_end() {
        let failed = |pieces: &[Vec<u8>]| {
            let (mut reading, _) = Reading::begin("/etc/resolv.conf");
            let mut pieces = pieces.iter().map(|piece| reading.hear(piece).1);
            pieces.find_map(|end| end) == Some(End::Failed)
        };
        let handle = || reply(HANDLE, 1, &string(b"h"));
        for pieces in [
            vec![b"This service allows sftp connections only.\n".to_vec()],
            vec![vec![0; 4]],
            vec![status(0, 4)],
            vec![version(), status(1, 2)],
            vec![version(), reply(HANDLE, 2, &string(b"h"))],
            vec![version(), reply(HANDLE, 1, &string(&[7; 257]))],
            vec![version(), reply(HANDLE, 1, &[0, 0, 0, 9])],
            vec![version(), handle(), status(2, 3)],
            vec![version(), handle(), handle()],
            vec![version(), handle(), reply(DATA, 2, &[0, 0])],
        ] {
            assert!(failed(&pieces), "{pieces:?}");
        }
    }

    #[test]
    fn a_file_without_end_is_cut() {
        let (mut reading, _) = Reading::begin("/dev/zero");
        reading.hear(&version());
        reading.hear(&reply(HANDLE, 1, &string(b"h")));
        let piece = string(&[7; 30_000]);
        let ends = (2..9).map(|id| reading.hear(&reply(DATA, id, &piece)).1);
        let ends: Vec<Option<End>> = ends.take_while(Option::is_none).collect();
        assert_eq!(ends.len(), 2);
        // Nothing is an end, too.
        let (mut reading, _) = Reading::begin("/x");
        reading.hear(&version());
        reading.hear(&reply(HANDLE, 1, &string(b"h")));
        let (_, end) = reading.hear(&reply(DATA, 2, &string(b"")));
        assert_eq!(end, Some(End::File(Vec::new())));
    }

    proptest! {
        /// Cut anywhere it is the same.
        #[test]
        fn pieces_make_no_difference(cuts in prop::collection::vec(1..9_usize, 1..40), file in prop::collection::vec(any::<u8>(), 1..200)) {
            let all = [version(), reply(HANDLE, 1, &string(b"h")), reply(DATA, 2, &string(&file)), status(3, 1)].concat();
            let (mut reading, _) = Reading::begin("/x");
            let (mut rest, mut end) = (all.as_slice(), None);
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                end = reading.hear(piece).1;
                rest = tail;
            }
            prop_assert_eq!(end, Some(End::File(file)));
        }

        #[test]
        fn no_bytes_panic_and_little_is_kept(pieces in prop::collection::vec(prop_oneof![
            Just(version()),
            (0..4_u32, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(id, data)| reply(HANDLE, id, &data)),
            (0..4_u32, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(id, data)| reply(DATA, id, &string(&data))),
            (0..4_u32, 0..4_u32).prop_map(|(id, code)| status(id, code)),
            prop::collection::vec(any::<u8>(), 0..40),
        ], 0..12)) {
            let (mut reading, _) = Reading::begin("/x");
            for piece in pieces {
                let (_, end) = reading.hear(&piece);
                prop_assert!(reading.heard.len() <= MOST_MESSAGE + 4 + piece.len());
                if end.is_some() {
                    break;
                }
            }
            reading.goodbye();
        }
    }
}
