//! Questions by datagrams, behind what looks like a stream; in virtual time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep, timeout};

use super::super::datagrams::{
    Answers, Datagrams, DatagramsFirst, Questions, Socket, answer_over_streams,
};
use super::super::frame::{Deframer, frame};
use super::*;
use crate::net::{
    ByteReader, ByteWriter, Carrier, Either, Far, OpenError, OpenFailure, Source, StreamError,
    Target,
};

const NAME: &str = "www.example.com";

fn here() -> Source {
    Source(SocketAddr::from(([192, 0, 2, 9], 53)))
}

fn server() -> Target {
    Target(SocketAddr::from(([192, 0, 2, 1], 53)))
}

/// The test's end of a socket, or of a stream.
struct End {
    heard: mpsc::UnboundedReceiver<Vec<u8>>,
    say: mpsc::UnboundedSender<io::Result<Vec<u8>>>,
}

impl End {
    async fn hear(&mut self) -> Vec<u8> {
        self.heard.recv().await.unwrap()
    }

    fn say(&self, message: &[u8]) {
        self.say.send(Ok(message.to_vec())).unwrap();
    }

    fn refuse(&self) {
        let refused = io::ErrorKind::ConnectionRefused.into();
        self.say.send(Err(refused)).unwrap();
    }
}

/// Ours.
struct Own {
    heard: Mutex<mpsc::UnboundedReceiver<io::Result<Vec<u8>>>>,
    say: mpsc::UnboundedSender<Vec<u8>>,
}

fn ends() -> (Own, End) {
    let ((say, heard), (back, forth)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let own = Own {
        heard: Mutex::new(forth),
        say,
    };
    (own, End { heard, say: back })
}

impl Socket for Own {
    async fn send(&self, message: &[u8]) -> io::Result<()> {
        let sent = self.say.send(message.to_vec());
        sent.map_err(|_| io::ErrorKind::ConnectionRefused.into())
    }

    async fn receive(&self) -> io::Result<Vec<u8>> {
        let heard = self.heard.lock().await.recv().await;
        heard.unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into()))
    }
}

/// A stream carries the same, in frames.
struct Half(Arc<Own>, Deframer);

impl ByteReader for Half {
    async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        match Socket::receive(&*self.0).await {
            Ok(message) => Ok(Some(frame(&message).unwrap().into())),
            Err(_) => Err(StreamError::Reset),
        }
    }

    async fn reset(&mut self) -> StreamError {
        std::future::pending().await
    }
}

impl ByteWriter for Half {
    async fn write(&mut self, chunk: Bytes) -> Result<(), StreamError> {
        self.1.push(&chunk);
        while let Some(message) = self.1.next_message() {
            let sent = Socket::send(&*self.0, &message).await;
            sent.map_err(|_| StreamError::Reset)?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), StreamError> {
        Ok(())
    }
}

/// Gives the test its end of whatever is made.
#[derive(Clone)]
struct Net {
    sockets: mpsc::UnboundedSender<End>,
    streams: Option<mpsc::UnboundedSender<End>>,
}

impl Carrier for Net {
    type Reader = Half;
    type Writer = Half;

    async fn open_far(&self, _: Source, far: Far) -> Result<(Half, Half), OpenError> {
        assert_eq!(far.target, server());
        let refused = || OpenError::new(OpenFailure::Refused, "");
        let streams = self.streams.as_ref().ok_or_else(refused)?;
        let (own, end) = ends();
        streams.send(end).map_err(|_| refused())?;
        let own = Arc::new(own);
        let half = || Half(Arc::clone(&own), Deframer::default());
        Ok((half(), half()))
    }
}

impl Datagrams for Net {
    type Socket = Own;

    async fn socket(&self, to: Target) -> io::Result<Own> {
        assert_eq!(to, server());
        let (own, end) = ends();
        self.sockets.send(end).unwrap();
        Ok(own)
    }
}

struct Rig {
    net: Net,
    carrier: DatagramsFirst<Net>,
    sockets: mpsc::UnboundedReceiver<End>,
    streams: mpsc::UnboundedReceiver<End>,
}

impl Rig {
    fn new(has_streams: bool) -> Self {
        let ((to_sockets, sockets), (to_streams, streams)) =
            (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let net = Net {
            sockets: to_sockets,
            streams: has_streams.then_some(to_streams),
        };
        Self {
            carrier: DatagramsFirst::new(net.clone()),
            net,
            sockets,
            streams,
        }
    }

    async fn open(&self) -> (Either<Answers, Half>, Either<Questions<Net>, Half>) {
        self.carrier.open(here(), server()).await.unwrap()
    }

    async fn socket(&mut self) -> End {
        self.sockets.recv().await.unwrap()
    }
}

async fn ask(writer: &mut impl ByteWriter, questions: &[Vec<u8>]) {
    let frames: Vec<u8> = questions
        .iter()
        .flat_map(|one| frame(one).unwrap())
        .collect();
    // However it is cut.
    let (one, other) = frames.split_at(frames.len() / 3);
    for piece in [one, other] {
        let piece = Bytes::copy_from_slice(piece);
        writer.write(piece).await.unwrap();
    }
}

async fn answered(reader: &mut impl ByteReader) -> Vec<u8> {
    let frame = reader.read().await.unwrap().unwrap();
    let mut deframer = Deframer::default();
    deframer.push(&frame);
    deframer.next_message().unwrap()
}

fn truncated(asked: &[u8]) -> Vec<u8> {
    let mut message = answer(asked, NOERROR, [&[], &[], &[]]);
    message[2] |= 2;
    message
}

#[tokio::test(start_paused = true)]
async fn each_question_has_a_socket_and_a_number_of_its_own() {
    let mut rig = Rig::new(false);
    let (mut reader, mut writer) = rig.open().await;
    let asked: Vec<_> = (0..20)
        .map(|id| query(id, &format!("n{id}.test"), A))
        .collect();
    ask(&mut writer, &asked).await;
    let (mut ends, mut numbers) = (Vec::new(), Vec::new());
    for _ in &asked {
        let mut end = rig.socket().await;
        let heard = end.hear().await;
        numbers.push(id(&heard));
        ends.push((end, heard));
    }
    numbers.sort_unstable();
    assert_ne!(numbers, (0..20).collect::<Vec<u16>>());
    // Answers come as they come, each with the number that it was asked by.
    for (end, heard) in ends.iter().rev() {
        end.say(&address(heard, 60, 2));
        let message = answered(&mut reader).await;
        let own = asked.iter().find(|own| section(own) == section(heard));
        assert_eq!(id(&message), id(own.unwrap()));
        assert_eq!(message.last(), Some(&2));
    }
    // And after the end of asking that of answers.
    ask(&mut writer, &asked[..1]).await;
    let mut end = rig.socket().await;
    let heard = end.hear().await;
    writer.finish().await.unwrap();
    end.say(&address(&heard, 60, 3));
    assert_eq!(id(&answered(&mut reader).await), 0);
    assert_eq!(reader.read().await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn what_answers_nothing_that_was_asked_is_not_taken_for_it() {
    let mut rig = Rig::new(false);
    let (mut reader, mut writer) = rig.open().await;
    ask(&mut writer, &[query(7, NAME, A)]).await;
    let mut end = rig.socket().await;
    let heard = end.hear().await;
    let mut other_number = address(&heard, 60, 66);
    other_number[1] ^= 1;
    let mut other_name = address(&heard, 60, 66);
    other_name[14] ^= 1;
    for lie in [&other_number[..], &other_name, &heard, &heard[..5], &[]] {
        end.say(lie);
    }
    end.say(&address(&heard, 60, 2));
    assert_eq!(answered(&mut reader).await.last(), Some(&2));
    // Some tell that they do not understand, and nothing else.
    ask(&mut writer, &[query(8, NAME, A)]).await;
    let mut end = rig.socket().await;
    let heard = end.hear().await;
    end.say(&[&heard[..2], &[0x80, FORMERR, 0, 0, 0, 0, 0, 0, 0, 0]].concat());
    let message = answered(&mut reader).await;
    assert_eq!((id(&message), code(&message)), (8, FORMERR));
}

#[tokio::test(start_paused = true)]
async fn a_datagram_that_is_lost_is_sent_again_in_time() {
    let mut rig = Rig::new(false);
    let (mut reader, mut writer) = rig.open().await;
    let began = Instant::now();
    ask(&mut writer, &[query(7, NAME, A)]).await;
    let mut end = rig.socket().await;
    let first = end.hear().await;
    let second = end.hear().await;
    assert_eq!(first, second);
    // Before the next server would be asked.
    assert!(began.elapsed() < Duration::from_millis(1_000));
    assert_eq!(end.hear().await, first);
    assert!(began.elapsed() < Duration::from_millis(2_500));
    end.say(&address(&first, 60, 2));
    assert_eq!(id(&answered(&mut reader).await), 7);
    // Nothing is sent any more, and one that nobody answers ends by itself.
    assert_eq!(end.heard.recv().await, None);
    ask(&mut writer, &[query(8, NAME, A)]).await;
    let mut end = rig.socket().await;
    while end.heard.recv().await.is_some() {}
    let nothing = timeout(Duration::from_secs(60), reader.read()).await;
    assert!(nothing.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_asked_for_over_a_stream() {
    let mut rig = Rig::new(true);
    let (mut reader, mut writer) = rig.open().await;
    ask(&mut writer, &[query(7, NAME, TXT)]).await;
    let mut end = rig.socket().await;
    let asked = end.hear().await;
    end.say(&truncated(&asked));
    let mut stream = rig.streams.recv().await.unwrap();
    let asked = stream.hear().await;
    let large = record(TXT, 60, &[7; 60_000]);
    stream.say(&answer(&asked, NOERROR, [&[large], &[], &[]]));
    let message = answered(&mut reader).await;
    assert!(message.len() > 60_000 && !is_truncated(&message));
    assert_eq!(id(&message), 7);
    // Where there is none, that is told at once.
    let mut rig = Rig::new(false);
    let (mut reader, mut writer) = rig.open().await;
    ask(&mut writer, &[query(8, NAME, TXT)]).await;
    let mut end = rig.socket().await;
    let asked = end.hear().await;
    end.say(&truncated(&asked));
    let message = answered(&mut reader).await;
    assert_eq!((id(&message), code(&message)), (8, SERVFAIL));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_the_stream_and_the_next_is_a_real_one() {
    let mut rig = Rig::new(true);
    let (mut reader, mut writer) = rig.open().await;
    ask(&mut writer, &[query(7, NAME, A)]).await;
    rig.socket().await.refuse();
    assert_eq!(reader.read().await, Err(StreamError::Reset));
    let (mut reader, mut writer) = rig.open().await;
    ask(&mut writer, &[query(8, NAME, A)]).await;
    let mut stream = rig.streams.recv().await.unwrap();
    let asked = stream.hear().await;
    stream.say(&address(&asked, 60, 2));
    assert_eq!(id(&answered(&mut reader).await), 8);
    // The one after that is asked as before.
    let (_reader, mut writer) = rig.open().await;
    ask(&mut writer, &[query(9, NAME, A)]).await;
    rig.socket().await.hear().await;
    // Where neither is to be had, that is a refusal.
    let mut rig = Rig::new(false);
    let (mut reader, mut writer) = rig.open().await;
    ask(&mut writer, &[query(7, NAME, A)]).await;
    rig.socket().await.refuse();
    assert_eq!(reader.read().await, Err(StreamError::Reset));
    let refused = rig.carrier.open(here(), server()).await;
    assert!(refused.is_err_and(|error| error.failure == OpenFailure::Refused));
}

#[tokio::test(start_paused = true)]
async fn no_more_wait_than_may_and_none_when_the_stream_is_gone() {
    let mut rig = Rig::new(false);
    let (reader, mut writer) = rig.open().await;
    let asked: Vec<_> = (0..300)
        .map(|id| query(id, &format!("n{id}.test"), A))
        .collect();
    ask(&mut writer, &asked).await;
    let mut ends = Vec::new();
    for _ in 0..256 {
        let mut end = rig.socket().await;
        end.hear().await;
        ends.push(end);
    }
    assert!(rig.sockets.try_recv().is_err());
    drop((reader, writer));
    for mut end in ends {
        assert_eq!(end.heard.recv().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn whether_somebody_answers_at_all_is_known() {
    let mut rig = Rig::new(true);
    let carrier = rig.carrier;
    let asked = tokio::spawn(async move { carrier.answers(here(), server()).await });
    let mut end = rig.sockets.recv().await.unwrap();
    let heard = end.hear().await;
    // The root's servers.
    assert_eq!(section(&heard), [0, 0, 2, 0, 1]);
    end.say(&answer(&heard, REFUSED, [&[], &[], &[]]));
    assert!(asked.await.unwrap());
    let rig = Rig::new(true);
    let began = Instant::now();
    assert!(!rig.carrier.answers(here(), server()).await);
    assert!(began.elapsed() < Duration::from_secs(5));
    // Over a real stream, where there is nothing else.
    let mut rig = Rig::new(true);
    let carrier = rig.carrier;
    let known = tokio::spawn(async move { carrier.answers(here(), server()).await });
    rig.sockets.recv().await.unwrap().refuse();
    let mut stream = rig.streams.recv().await.unwrap();
    let asked = stream.hear().await;
    stream.say(&answer(&asked, NOERROR, [&[], &[], &[]]));
    assert!(known.await.unwrap());
}

/// Some networks drop them, and let streams through.
#[tokio::test(start_paused = true)]
async fn where_datagrams_are_dropped_questions_go_over_streams_until_one_is_answered() {
    let mut rig = Rig::new(true);
    let (mut reader, mut writer) = rig.open().await;
    // Two are not yet a few, however long they take.
    ask(&mut writer, &[query(1, NAME, A), query(2, NAME, A)]).await;
    let mut dropped = vec![rig.socket().await, rig.socket().await];
    sleep(Duration::from_secs(10)).await;
    assert!(rig.streams.try_recv().is_err());
    // Three are.
    ask(&mut writer, &[query(3, NAME, A)]).await;
    dropped.push(rig.socket().await);
    let began = Instant::now();
    let mut stream = rig.streams.recv().await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_millis(600));
    let asked = stream.hear().await;
    stream.say(&address(&asked, 60, 3));
    assert_eq!(id(&answered(&mut reader).await), 3);
    // The next one does not wait; a datagram goes as well.
    ask(&mut writer, &[query(4, NAME, A)]).await;
    let began = Instant::now();
    let mut stream = rig.streams.recv().await.unwrap();
    let asked = stream.hear().await;
    stream.say(&address(&asked, 60, 4));
    assert_eq!(id(&answered(&mut reader).await), 4);
    assert_eq!(began.elapsed(), Duration::ZERO);
    dropped.push(rig.socket().await);
    // One that is answered ends it.
    ask(&mut writer, &[query(5, NAME, A)]).await;
    let mut end = rig.socket().await;
    let asked = end.hear().await;
    end.say(&address(&asked, 60, 5));
    assert_eq!(id(&answered(&mut reader).await), 5);
    rig.streams.recv().await.unwrap();
    ask(&mut writer, &[query(6, NAME, A)]).await;
    let mut end = rig.socket().await;
    let asked = end.hear().await;
    sleep(Duration::from_millis(500)).await;
    end.say(&address(&asked, 60, 6));
    assert_eq!(id(&answered(&mut reader).await), 6);
    assert!(rig.streams.try_recv().is_err());
}

/// Then only a datagram that takes long is an answer, and a stream that is refused is none.
#[tokio::test(start_paused = true)]
async fn where_there_are_no_streams_a_slow_answer_is_waited_for() {
    let mut rig = Rig::new(false);
    let (mut reader, mut writer) = rig.open().await;
    for number in 1..6 {
        ask(&mut writer, &[query(number, NAME, A)]).await;
        let mut end = rig.socket().await;
        let asked = end.hear().await;
        if number < 5 {
            sleep(Duration::from_secs(6)).await;
            continue;
        }
        sleep(Duration::from_secs(4)).await;
        end.say(&address(&asked, 60, 2));
        assert_eq!(id(&answered(&mut reader).await), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn who_answer_over_streamss_alone_is_known_to_answer_and_asked_so() {
    let mut rig = Rig::new(true);
    let carrier = Arc::new(rig.carrier);
    let known = Arc::clone(&carrier);
    let known = tokio::spawn(async move { known.answers(here(), server()).await });
    let _dropped = rig.sockets.recv().await.unwrap();
    let mut stream = rig.streams.recv().await.unwrap();
    let asked = stream.hear().await;
    stream.say(&answer(&asked, NOERROR, [&[], &[], &[]]));
    assert!(known.await.unwrap());
    let (_reader, mut writer) = carrier.open(here(), server()).await.unwrap();
    let began = Instant::now();
    ask(&mut writer, &[query(7, NAME, A)]).await;
    rig.streams.recv().await.unwrap().hear().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn whether_somebody_answers_over_a_stream_is_known_in_time() {
    let mut rig = Rig::new(true);
    let net = rig.net.clone();
    let ask = || {
        let net = net.clone();
        tokio::spawn(async move { answer_over_streams(&net, here(), &[server()]).await == [true] })
    };
    let known = ask();
    let mut stream = rig.streams.recv().await.unwrap();
    let asked = stream.hear().await;
    stream.say(&answer(&asked, REFUSED, [&[], &[], &[]]));
    assert!(known.await.unwrap());
    // Silent, late, and something else than a name server.
    let known = ask();
    let mut stream = rig.streams.recv().await.unwrap();
    let asked = stream.hear().await;
    sleep(Duration::from_secs(10)).await;
    assert!(known.is_finished() && !known.await.unwrap());
    assert!(stream.say.send(Ok(asked.clone())).is_err());
    let known = ask();
    rig.streams
        .recv()
        .await
        .unwrap()
        .say(b"HTTP/1.1 400 Bad Request");
    assert!(!known.await.unwrap());
}
