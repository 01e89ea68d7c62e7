//! Name servers that are asked by datagrams, as programs ask them, and over a stream for what does not fit into one (RFC 1035
//! section 4.2.1). Many in front of a host speak nothing else.
//!
//! It is a [`Carrier`] all the same, whose streams take and give messages with their lengths in front, so who asks need not know.
//! Each question has a socket of its own, with a port that the kernel chooses, and a number that nobody can guess (RFC 5452 section 9).
//! A datagram that is lost is sent again. Where a server refuses datagrams its stream ends, and the next one is a real one. Of one
//! that has left some without an answer each question is asked over a stream of its own besides, until a datagram is answered again.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, pending};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use hickory_proto::op::ResponseCode;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

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
/// How long it is waited to know whether a server answers datagrams, and then whether it answers over a stream.
const CHECK: [Duration; 2] = [Duration::from_millis(3000), Duration::from_millis(1500)];
/// So many questions in a row that had to be sent again: datagrams may be dropped on the way.
const SILENCE: u32 = 3;
/// Questions under way; a further one is taken for lost.
const QUESTIONS: usize = 256;
/// Which servers the root has, which tells nobody anything.
const ROOT: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\0\0\x02\0\x01";
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
    known: Arc<Known>,
}

/// What is known of servers' datagrams.
#[derive(Debug, Default)]
struct Known {
    /// They refuse them.
    refused: Mutex<BTreeSet<Target>>,
    /// They have left so many questions in a row without an answer at first.
    silent: Mutex<BTreeMap<Target, u32>>,
}

impl Known {
    fn is_silent(&self, server: Target) -> bool {
        let silent = locked(&self.silent);
        silent.get(&server).is_some_and(|times| *times >= SILENCE)
    }

    fn missed(&self, server: Target) {
        let mut silent = locked(&self.silent);
        let times = silent.entry(server).or_default();
        *times = times.saturating_add(1);
    }
}

/// Which of `servers` answer anything over a stream of `carrier`, within a few seconds.
pub async fn answer_over_streams(
    carrier: &impl Carrier,
    source: Source,
    servers: &[Target],
) -> Vec<bool> {
    let asked = servers.iter().map(|server| async {
        let asked = exchange(carrier, source, *server, ROOT);
        let answer = timeout(STREAM, asked).await.ok().flatten();
        answer.is_some_and(|answer| is_answer(&answer, ROOT))
    });
    join_all(asked).await
}

impl<C: Datagrams> DatagramsFirst<C> {
    /// From where `carrier` does.
    pub fn new(carrier: C) -> Self {
        Self {
            carrier,
            known: Arc::default(),
        }
    }

    /// Whether `server` answers anything.
    pub async fn answers(&self, source: Source, server: Target) -> bool {
        let [first, second] = CHECK;
        // A real stream, where datagrams are refused.
        for _ in 0..2 {
            match timeout(first, exchange(self, source, server, ROOT)).await {
                Ok(Some(_)) => return true,
                Ok(None) => {}
                Err(_) => break,
            }
        }
        let asked = exchange(&self.carrier, source, server, ROOT);
        let answers = matches!(timeout(second, asked).await, Ok(Some(_)));
        if answers {
            locked(&self.known.silent).insert(server, SILENCE);
        }
        answers
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
        if locked(&self.known.refused).remove(&far.target) {
            let opened = self.carrier.open_far(source, far).await;
            return opened.map(Either::right);
        }
        let (answers, answered) = mpsc::channel(QUESTIONS);
        let questions = Questions {
            asking: Some(Asking {
                carrier: self.carrier.clone(),
                source,
                server: far.target,
                known: Arc::clone(&self.known),
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
    known: Arc<Known>,
    answers: mpsc::Sender<Result<Bytes, StreamError>>,
}

impl<C: Datagrams> Asking<C> {
    async fn ask(self, mut question: Vec<u8>) {
        let number = [question[0], question[1]];
        let unguessable = RandomState::new().build_hasher().finish() as u16;
        question[..2].copy_from_slice(&unguessable.to_be_bytes());
        let answer = match self.either(&question).await {
            Ok(None) => return,
            Ok(Some(answer)) if answer[2] & TC == 0 => Ok(answer),
            Ok(Some(_)) => {
                let answer = self.by_stream(&question).await;
                Ok(answer.unwrap_or_else(|| bare(&question, ResponseCode::ServFail)))
            }
            Err(error) => {
                tracing::debug!("name server {}: {error}", self.server);
                locked(&self.known.refused).insert(self.server);
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

    /// Over a stream besides, where datagrams stay without answers.
    async fn either(&self, question: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let by_stream = async {
            if !self.known.is_silent(self.server) {
                sleep(PATIENCE[0]).await;
            }
            let asked = self.known.is_silent(self.server);
            let answer = match asked {
                true => self.by_stream(question).await,
                false => None,
            };
            match answer {
                Some(answer) => answer,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = self.by_datagram(question) => answer,
            answer = by_stream => Ok(Some(answer)),
        }
    }

    /// `None` where none comes.
    async fn by_datagram(&self, question: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let socket = self.carrier.socket(self.server).await?;
        for (time, patience) in PATIENCE.into_iter().enumerate() {
            socket.send(question).await?;
            if let Ok(answer) = timeout(patience, answer_on(&socket, question)).await {
                locked(&self.known.silent).remove(&self.server);
                return answer.map(Some);
            }
            if time == 0 {
                self.known.missed(self.server);
            }
        }
        Ok(None)
    }

    /// `None` where there is none to be had.
    async fn by_stream(&self, question: &[u8]) -> Option<Vec<u8>> {
        let asked = exchange(&self.carrier, self.source, self.server, question);
        let answer = timeout(STREAM, asked).await.ok().flatten();
        answer.filter(|answer| is_answer(answer, question))
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

fn locked<T>(known: &Mutex<T>) -> MutexGuard<'_, T> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}
