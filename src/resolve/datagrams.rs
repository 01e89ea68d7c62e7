//! Name servers that are asked by datagrams, as programs ask them, and over a stream for what does not fit into one (RFC 1035
//! section 4.2.1). Many in front of a host speak nothing else.
//!
//! It is a [`Carrier`] all the same, whose streams take and give messages with their lengths in front, so who asks need not know.
//! Each question has a socket of its own, with a port that the kernel chooses, and a number that nobody can guess (RFC 5452 section 9).
//! A datagram that is lost is sent again. Where a server refuses datagrams its stream ends, and the next one is a real one.

use std::collections::BTreeSet;
use std::future::{Future, pending};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hickory_proto::op::ResponseCode;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::frame::{Deframer, frame};
use super::question::{HEADER, QR, bare, section};
use crate::net::{
    ByteReader, ByteWriter, Carrier, Either, Far, OpenError, Source, StreamError, Target,
};

/// How long each datagram may stay without an answer before the next is sent: the second in time for a server that is given up after
/// 1.5 s, and all of them a bit longer than anybody waits.
const PATIENCE: [Duration; 3] = [
    Duration::from_millis(600),
    Duration::from_millis(1500),
    Duration::from_millis(2900),
];
/// For an answer over a stream.
const STREAM: Duration = Duration::from_secs(4);
/// Questions under way; a further one is taken for lost.
const QUESTIONS: usize = 256;
/// The bit for what was truncated, beside [`QR`].
const TC: u8 = 0x02;

/// A socket that is connected to one name server.
pub trait Socket: Send + Sync + 'static {
    /// Sends a datagram.
    fn send(&self, message: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// The next datagram. Cancel safe.
    fn receive(&self) -> impl Future<Output = io::Result<Vec<u8>>> + Send;
}

/// Somewhere that name servers are asked from.
pub trait Datagrams: Carrier + Clone + 'static {
    /// What is made.
    type Socket: Socket;

    /// Makes one of its own for `server`.
    fn socket(&self, server: Target) -> impl Future<Output = io::Result<Self::Socket>> + Send;
}

/// Asks by datagrams where that is not refused.
#[derive(Debug)]
pub struct DatagramsFirst<C> {
    carrier: C,
    refused: Arc<Mutex<BTreeSet<Target>>>,
}

impl<C: Datagrams> DatagramsFirst<C> {
    /// From where `carrier` does.
    pub fn new(carrier: C) -> Self {
        Self {
            carrier,
            refused: Arc::default(),
        }
    }

    /// Whether `server` answers anything: which servers the root has, which tells nobody anything.
    pub async fn answers(&self, source: Source, server: Target) -> bool {
        let question = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\0\0\x02\0\x01";
        // A real stream, where datagrams are refused.
        for _ in 0..2 {
            let asked = exchange(self, source, server, question);
            match timeout(STREAM, asked).await {
                Ok(Some(_)) => return true,
                Ok(None) => {}
                Err(_) => break,
            }
        }
        false
    }
}

impl<C: Datagrams> Carrier for DatagramsFirst<C> {
    type Reader = Either<Answers, C::Reader>;
    type Writer = Either<Questions<C>, C::Writer>;

    async fn open_far(
        &self,
        source: Source,
        far: Far,
    ) -> Result<(Self::Reader, Self::Writer), OpenError> {
        if locked(&self.refused).remove(&far.target) {
            let opened = self.carrier.open_far(source, far).await;
            return opened.map(Either::right);
        }
        let (answers, answered) = mpsc::channel(QUESTIONS);
        let questions = Questions {
            asking: Some(Asking {
                carrier: self.carrier.clone(),
                source,
                server: far.target,
                refused: Arc::clone(&self.refused),
                answers,
            }),
            deframer: Deframer::default(),
            under_way: JoinSet::new(),
        };
        Ok(Either::left((Answers(answered), questions)))
    }
}

/// The reading half.
#[derive(Debug)]
pub struct Answers(mpsc::Receiver<Result<Bytes, StreamError>>);

impl ByteReader for Answers {
    async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        self.0.recv().await.transpose()
    }

    async fn reset(&mut self) -> StreamError {
        pending().await
    }
}

/// The writing half. With it go the questions that it has taken, unless it was finished.
#[derive(Debug)]
pub struct Questions<C> {
    /// `None` after the end.
    asking: Option<Asking<C>>,
    deframer: Deframer,
    under_way: JoinSet<()>,
}

impl<C: Datagrams> ByteWriter for Questions<C> {
    async fn write(&mut self, chunk: Bytes) -> Result<(), StreamError> {
        while self.under_way.try_join_next().is_some() {}
        self.deframer.push(&chunk);
        while let Some(message) = self.deframer.next_message() {
            if message.len() >= HEADER
                && self.under_way.len() < QUESTIONS
                && let Some(asking) = &self.asking
            {
                self.under_way.spawn(asking.clone().ask(message));
            }
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), StreamError> {
        // The reading half ends behind the last answer.
        self.asking = None;
        self.under_way.detach_all();
        Ok(())
    }
}

/// What it takes to ask one question.
#[derive(Clone, Debug)]
struct Asking<C> {
    carrier: C,
    source: Source,
    server: Target,
    refused: Arc<Mutex<BTreeSet<Target>>>,
    answers: mpsc::Sender<Result<Bytes, StreamError>>,
}

impl<C: Datagrams> Asking<C> {
    async fn ask(self, mut question: Vec<u8>) {
        let number = [question[0], question[1]];
        let unguessable = RandomState::new().build_hasher().finish() as u16;
        question[..2].copy_from_slice(&unguessable.to_be_bytes());
        let answer = match self.by_datagram(&question).await {
            Ok(None) => return,
            Ok(Some(answer)) if answer[2] & TC == 0 => Ok(answer),
            Ok(Some(_)) => Ok(self.by_stream(&question).await),
            Err(error) => {
                tracing::debug!("name server {}: {error}", self.server);
                locked(&self.refused).insert(self.server);
                Err(StreamError::Reset)
            }
        };
        let framed = answer.map(|mut answer| {
            answer[..2].copy_from_slice(&number);
            // What came in a datagram or in a frame fits into one.
            frame(&answer).unwrap_or_default().into()
        });
        // Nobody may wait for it any more.
        let _ = self.answers.send(framed).await;
    }

    /// `None` where none comes.
    async fn by_datagram(&self, question: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let socket = self.carrier.socket(self.server).await?;
        for patience in PATIENCE {
            socket.send(question).await?;
            if let Ok(answer) = timeout(patience, answer_on(&socket, question)).await {
                return answer.map(Some);
            }
        }
        Ok(None)
    }

    /// The answer, or that there is none to be had.
    async fn by_stream(&self, question: &[u8]) -> Vec<u8> {
        let asked = exchange(&self.carrier, self.source, self.server, question);
        let answer = timeout(STREAM, asked).await.ok().flatten();
        let answer = answer.filter(|answer| is_answer(answer, question));
        answer.unwrap_or_else(|| bare(question, ResponseCode::ServFail))
    }
}

/// What is no answer to `question` was sent by somebody else.
async fn answer_on(socket: &impl Socket, question: &[u8]) -> io::Result<Vec<u8>> {
    loop {
        let message = socket.receive().await?;
        if is_answer(&message, question) {
            return Ok(message);
        }
    }
}

/// One question on a stream of its own.
async fn exchange(
    carrier: &impl Carrier,
    source: Source,
    server: Target,
    question: &[u8],
) -> Option<Vec<u8>> {
    let (mut reader, mut writer) = carrier.open(source, server).await.ok()?;
    writer.write(frame(question)?.into()).await.ok()?;
    writer.flush();
    let mut deframer = Deframer::default();
    loop {
        if let Some(message) = deframer.next_message() {
            return Some(message);
        }
        deframer.push(&reader.read().await.ok()??);
    }
}

/// Of this number, with this question or, as some tell what is wrong, without any.
fn is_answer(message: &[u8], question: &[u8]) -> bool {
    let asked = section(question).unwrap_or_default();
    let same = |own: &[u8]| own.eq_ignore_ascii_case(asked);
    message.len() >= HEADER
        && message[..2] == question[..2]
        && message[2] & QR != 0
        && (message[5] == 0 || message[HEADER..].get(..asked.len()).is_some_and(same))
}

fn locked(refused: &Mutex<BTreeSet<Target>>) -> std::sync::MutexGuard<'_, BTreeSet<Target>> {
    refused.lock().unwrap_or_else(PoisonError::into_inner)
}
