//! The way of this program to a server that has none of the others: what `far/upload.sh` is told, and what it says.
//!
//! The far end takes a piece, says so, and is sent the next one: no more than a piece is on its way at a time, so that whatever
//! else goes over the connection waits for no more than that. The file has no name any more before the first of them.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::far::{Means, NoProgram, PIECE, Program, System, target};
use super::frame::Fault;
use super::start::{PATIENCE, Trouble, start};
use crate::net::{ByteReader, ByteWriter, Exec};

/// How long a piece may take: 35 kbit/s.
const PIECE_PATIENCE: Duration = Duration::from_secs(30);
/// No program is longer, in bytes.
const LONGEST: u64 = 256 << 20;
/// So much may be said between two words, in bytes.
const MOST_NOISE: usize = 64 << 10;
/// So much of a reason is told, in characters.
const MOST_TOLD: usize = 300;

/// Why the helper is not on the server: one line for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// Ours, or the file that was named.
    #[error("--upload-helper: {0}")]
    NotRead(String),
    /// It is something else.
    #[error(
        "--upload-helper: {0}; it takes an underpass that is linked statically, --upload-helper=FILE"
    )]
    NoProgram(#[from] NoProgram),
    /// It is too long.
    #[error(
        "--upload-helper: the program has more than 256 MiB; an underpass that was built with --release has less"
    )]
    TooLong,
    /// No program for Linux runs there.
    #[error(
        "--upload-helper: the server is {0}, where underpass does not run: install python3 or perl there"
    )]
    OtherSystem(System),
    /// It runs elsewhere.
    #[error(
        "--upload-helper: the server is {system}, and the file is for {machine}; it takes a static build for there (cargo build \
         --release --target {target}), --upload-helper=FILE"
    )]
    OtherMachine {
        /// What the server is.
        system: System,
        /// What it is for.
        machine: &'static str,
        /// What it should have been built for.
        target: String,
    },
    /// What it is linked to is not there.
    #[error(
        "the uploaded helper does not run on the server ({said}): it needs libraries of the host that it was built on; it takes a \
         static build (cargo build --release --target {target}), --upload-helper=FILE"
    )]
    NotStatic {
        /// What the server said.
        said: String,
        /// What it should have been built for.
        target: String,
    },
    /// The server does not let it run, or it does not get far there.
    #[error("the uploaded helper does not run on the server: {0}")]
    NotRun(String),
    /// The server has no place for it.
    #[error("no helper can be uploaded: the server cannot {0}")]
    Refused(String),
    /// The line is too slow, or dead.
    #[error(
        "the upload of the helper does not go on: {0} bytes within 30 s are too much for the line"
    )]
    Stalled(u64),
}

impl UploadError {
    /// Whether the same server would say the same again.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::NotRead(_) | Self::Refused(_) | Self::Stalled(_) => false,
            Self::NoProgram(_)
            | Self::TooLong
            | Self::OtherSystem(_)
            | Self::OtherMachine { .. }
            | Self::NotStatic { .. }
            | Self::NotRun(_) => true,
        }
    }
}

/// A program file that is read from its beginning.
pub struct Image {
    /// Its size in bytes.
    pub size: u64,
    /// What is in it.
    pub bytes: Box<dyn AsyncRead + Send + Unpin>,
}

/// Opens the file anew, for each upload.
pub type Open = Box<dyn Fn() -> io::Result<Image> + Send + Sync>;

/// A helper that may be uploaded.
pub struct Upload {
    open: Open,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").finish_non_exhaustive()
    }
}

/// A far end that has begun.
pub(super) struct Begun<R, W> {
    pub(super) means: Means,
    pub(super) reader: R,
    pub(super) writer: W,
    /// What of its words was read already.
    pub(super) heard: Bytes,
}

impl Upload {
    /// What `open` opens may be uploaded.
    pub fn new(open: Open) -> Self {
        Self { open }
    }

    /// Looks whether a file is a program at all: at its first [`LOOKED_AT`](super::LOOKED_AT) bytes.
    ///
    /// # Errors
    /// [`UploadError::NoProgram`].
    pub fn check(first: &[u8]) -> Result<(), UploadError> {
        Ok(Program::read(first).map(drop)?)
    }

    /// Has it run on a server that is `system`.
    pub(super) async fn begin<E: Exec>(
        &self,
        exec: &E,
        system: &System,
    ) -> Result<Begun<E::Reader, E::Writer>, Trouble> {
        let mut pieces = Pieces::open(self).await?;
        let program = pieces.program;
        if !system.is_linux() {
            return Err(UploadError::OtherSystem(system.clone()).into());
        }
        if !program.runs_on(system) {
            return Err(Trouble::Upload(UploadError::OtherMachine {
                system: system.clone(),
                machine: program.machine(),
                target: target(system),
            }));
        }
        let means = Means::Uploaded { size: pieces.size };
        let (reader, mut writer) =
            start(exec, means.name(), &means.command(), means.program()).await?;
        let mut ear = Ear {
            reader,
            heard: BytesMut::new(),
        };
        match send(&mut pieces, &mut ear, &mut writer).await? {
            Ok(()) => Ok(Begun {
                means,
                reader: ear.reader,
                writer,
                heard: ear.heard.freeze(),
            }),
            Err(cannot) => Err(Trouble::Upload(refused(cannot, program, system))),
        }
    }
}

/// What the server cannot do, and why perhaps.
fn refused(cannot: String, program: Program, system: &System) -> UploadError {
    let Some(said) = cannot.strip_prefix("run it: ") else {
        return UploadError::Refused(cannot);
    };
    // A shell, of a missing loader; the loader, of a missing library; and of one that is too old.
    let of_libraries = ["No such file", "not found", "cannot open shared object"];
    match !program.is_static && of_libraries.iter().any(|words| said.contains(words)) {
        true => UploadError::NotStatic {
            said: said.to_owned(),
            target: target(system),
        },
        false => UploadError::NotRun(said.to_owned()),
    }
}

/// Sends all of it. The inner error is what the server cannot do.
async fn send<R: ByteReader>(
    pieces: &mut Pieces,
    ear: &mut Ear<R>,
    writer: &mut impl ByteWriter,
) -> Result<Result<(), String>, Trouble> {
    match ear.next(PATIENCE).await? {
        Some(Word::Ready(place)) => {
            tracing::info!(
                "the UDP helper, {} bytes, is uploaded to {place}",
                pieces.size
            );
        }
        Some(Word::Cannot(what)) => return Ok(Err(what)),
        _ => return Err(Trouble::Silent("the shell")),
    }
    while let Some(piece) = pieces.next().await? {
        let len = piece.len() as u64;
        let write = async {
            let written = writer.write(piece).await;
            writer.flush();
            written
        };
        // Who cannot take it says why, and reads no more.
        let (written, word) =
            tokio::join!(timeout(PIECE_PATIENCE, write), ear.next(PIECE_PATIENCE));
        match (word?, written) {
            (Some(Word::Cannot(what)), _) => return Ok(Err(what)),
            (Some(Word::Took), Ok(written)) => written?,
            _ => return Err(Trouble::Upload(UploadError::Stalled(len))),
        }
    }
    match ear.next(PATIENCE).await? {
        Some(Word::Runs) => Ok(Ok(())),
        Some(Word::Cannot(what)) => Ok(Err(what)),
        _ => Err(Trouble::Silent("the uploaded helper")),
    }
}

/// The file, piece by piece.
struct Pieces {
    image: Image,
    size: u64,
    program: Program,
    /// What was read to see what it is.
    first: Option<Bytes>,
    left: u64,
}

impl Pieces {
    async fn open(upload: &Upload) -> Result<Self, UploadError> {
        let not_read = |error: io::Error| UploadError::NotRead(error.to_string());
        let mut image = (upload.open)().map_err(not_read)?;
        let size = image.size;
        let mut first = read(&mut image, size.min(PIECE)).await?;
        let program = Program::read(&first)?;
        let size = size.min(program.loaded);
        if size > LONGEST {
            return Err(UploadError::TooLong);
        }
        first.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        Ok(Self {
            image,
            size,
            program,
            left: size - first.len() as u64,
            first: Some(first),
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, UploadError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        if self.left == 0 {
            return Ok(None);
        }
        let piece = read(&mut self.image, self.left.min(PIECE)).await?;
        self.left -= piece.len() as u64;
        Ok(Some(piece))
    }
}

/// `len` bytes, no more than a piece.
async fn read(image: &mut Image, len: u64) -> Result<Bytes, UploadError> {
    let mut piece = vec![0; usize::try_from(len.min(PIECE)).unwrap_or_default()];
    match image.bytes.read_exact(&mut piece).await {
        Ok(_) => Ok(piece.into()),
        Err(error) => Err(UploadError::NotRead(error.to_string())),
    }
}

/// What the far end says before it greets.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    /// There is a place for it, and why not another one.
    Ready(String),
    /// A piece was taken.
    Took,
    /// It runs; what follows is its own.
    Runs,
    /// It ends: why.
    Cannot(String),
}

/// Listens for words.
struct Ear<R> {
    reader: R,
    heard: BytesMut,
}

impl<R: ByteReader> Ear<R> {
    /// The next one; `None`: none came in time.
    async fn next(&mut self, patience: Duration) -> Result<Option<Word>, Trouble> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(word) = next_word(&mut self.heard) {
                return Ok(Some(word));
            }
            if self.heard.len() > MOST_NOISE {
                return Err(Fault::NoGreeting.into());
            }
            let Ok(piece) = timeout_at(deadline, self.reader.read()).await else {
                return Ok(None);
            };
            let piece = piece?.ok_or(Trouble::Ended)?;
            self.heard.extend_from_slice(&piece);
        }
    }
}

/// Takes the next word off, with what a login says before it.
fn next_word(heard: &mut BytesMut) -> Option<Word> {
    while let Some(end) = heard.iter().position(|byte| *byte == b'\n') {
        let line = heard.split_to(end);
        heard.advance(1);
        let line = String::from_utf8_lossy(&line);
        let Some(said) = line.trim_end().strip_prefix("underpass-") else {
            continue;
        };
        let (word, rest) = said.split_once(' ').unwrap_or((said, ""));
        return Some(match word {
            "ready" => Word::Ready(told(rest)),
            "took" => Word::Took,
            "runs" => Word::Runs,
            "cannot" => Word::Cannot(told(rest)),
            _ => continue,
        });
    }
    None
}

/// What a server says, fit for a terminal.
fn told(text: &str) -> String {
    let printable = text.chars().filter(|character| !character.is_control());
    printable.take(MOST_TOLD).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(said: &[u8]) -> (Vec<Word>, BytesMut) {
        let mut heard = BytesMut::from(said);
        let words = std::iter::from_fn(|| next_word(&mut heard)).collect();
        (words, heard)
    }

    #[test]
    fn words_stand_among_what_a_login_says() {
        let said = b"Welcome!\r\nunderpass-ready /tmp\nunderpass-took\nunderpass-x\nunderpass-cannot run it: \x1b[1m!\nund";
        let (words, rest) = words(said);
        let expected = [
            Word::Ready("/tmp".to_owned()),
            Word::Took,
            Word::Cannot("run it: [1m!".to_owned()),
        ];
        assert_eq!(words, expected);
        assert_eq!(rest, "und");
    }

    #[test]
    fn what_follows_is_left() {
        let mut heard = BytesMut::from(&b"underpass-runs\nunderpass-udp-1\n\0\0"[..]);
        assert_eq!(next_word(&mut heard), Some(Word::Runs));
        assert_eq!(heard, "underpass-udp-1\n\0\0");
    }

    /// The beginning of a program.
    fn own() -> Vec<u8> {
        let own = std::fs::read("/proc/self/exe").unwrap();
        own[..3 * PIECE as usize + 7].to_vec()
    }

    fn image(bytes: Vec<u8>, size: u64) -> Upload {
        Upload::new(Box::new(move || {
            Ok(Image {
                size,
                bytes: Box::new(io::Cursor::new(bytes.clone())),
            })
        }))
    }

    #[tokio::test]
    async fn what_is_no_helper_is_refused() {
        let open = async |upload: Upload| Pieces::open(&upload).await.err().unwrap();
        let missing = Upload::new(Box::new(|| Err(io::ErrorKind::NotFound.into())));
        assert!(matches!(open(missing).await, UploadError::NotRead(_)));
        let script = image(b"#!/bin/sh\n".to_vec(), 10);
        assert_eq!(open(script).await, NoProgram.into());
        assert_eq!(open(image(Vec::new(), 0)).await, NoProgram.into());
        let mut long = own();
        // p_filesz of the first program header.
        long[64 + 32 + 4] = 1;
        let long = image(long, u64::MAX);
        assert_eq!(open(long).await, UploadError::TooLong);
        let cut = image(b"\x7fELF".to_vec(), 100);
        assert!(matches!(open(cut).await, UploadError::NotRead(_)));
        assert_eq!(Upload::check(b"\x7fELF"), Err(NoProgram.into()));
    }

    /// Symbols and debugging information stay here.
    #[tokio::test]
    async fn what_is_not_loaded_is_not_sent() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let len = own.len() as u64;
        let mut pieces = Pieces::open(&image(own.clone(), len)).await.unwrap();
        let mut sent = Vec::new();
        while let Some(piece) = pieces.next().await.unwrap() {
            sent.extend_from_slice(&piece);
        }
        assert!(sent.len() < own.len() && own.starts_with(&sent));
        assert_eq!(sent.len() as u64, pieces.size);
    }

    #[tokio::test]
    async fn all_of_a_file_goes_piece_by_piece() {
        let own = own();
        let mut pieces = Pieces::open(&image(own.clone(), own.len() as u64))
            .await
            .unwrap();
        let mut all = Vec::new();
        while let Some(piece) = pieces.next().await.unwrap() {
            assert!(piece.len() as u64 <= PIECE);
            all.push(piece);
        }
        assert_eq!((all.len(), all.concat()), (4, own));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(said in prop::collection::vec(any::<u8>(), 0..200)) {
            words(&said);
            words(&[b"underpass-cannot ", &said[..]].concat());
        }
    }
}
