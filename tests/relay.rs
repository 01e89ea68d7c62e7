//! The relay between an inlet and a carrier in memory: what each side is told, and when.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinHandle, yield_now};
use underpass::net::{
    ByteReader, ByteWriter, Carrier, Far, Inbound, OpenError, OpenFailure, Source, StreamError,
    Target,
};
use underpass::relay::{Outcome, Traffic, relay};

/// What the fakes were told, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

struct Reader {
    name: &'static str,
    bytes: mpsc::Receiver<Result<Bytes, StreamError>>,
    reset: Option<oneshot::Receiver<StreamError>>,
    ended: bool,
    absorbed: Arc<AtomicUsize>,
    lost: Arc<Notify>,
    log: Log,
}

impl ByteReader for Reader {
    async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        let next = self.bytes.recv().await;
        self.ended = next.is_none();
        next.transpose()
    }

    async fn reset(&mut self) -> StreamError {
        assert!(self.ended, "a reset is waited for before the end");
        match self.reset.take().unwrap().await {
            Ok(error) => error,
            Err(_) => pending().await,
        }
    }

    async fn absorb(&mut self) -> StreamError {
        self.absorbed.fetch_add(1, Ordering::Relaxed);
        self.lost.notified().await;
        StreamError::Lost
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.ended {
            self.log
                .note(format!("{} reader dropped before its end", self.name));
        }
    }
}

struct Writer {
    name: &'static str,
    bytes: Option<mpsc::Sender<Bytes>>,
    log: Log,
}

impl ByteWriter for Writer {
    async fn write(&mut self, chunk: Bytes) -> Result<(), StreamError> {
        let bytes = self.bytes.as_ref().unwrap();
        bytes.send(chunk).await.map_err(|_| StreamError::Reset)
    }

    async fn finish(&mut self) -> Result<(), StreamError> {
        self.bytes = None;
        self.log.note(format!("{} writer finished", self.name));
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.bytes.is_some() {
            self.log
                .note(format!("{} writer dropped unfinished", self.name));
        }
    }
}

/// The other end of a [`Reader`] and a [`Writer`], in the test's hand.
struct Peer {
    send: Option<mpsc::Sender<Result<Bytes, StreamError>>>,
    receive: mpsc::Receiver<Bytes>,
    reset: Option<oneshot::Sender<StreamError>>,
    absorbed: Arc<AtomicUsize>,
    lost: Arc<Notify>,
}

impl Peer {
    async fn send(&self, text: &'static str) {
        let send = self.send.as_ref().unwrap();
        send.send(Ok(Bytes::from(text))).await.unwrap();
    }

    async fn fail(&self, error: StreamError) {
        self.send.as_ref().unwrap().send(Err(error)).await.unwrap();
    }

    fn end(&mut self) {
        self.send = None;
    }

    async fn receives(&mut self, text: &'static str) {
        assert_eq!(self.receive.recv().await, Some(Bytes::from(text)));
    }

    async fn receives_end(&mut self) {
        assert_eq!(self.receive.recv().await, None);
    }
}

/// A stream of which the writing half has room for one chunk.
fn stream(name: &'static str, log: &Log) -> ((Reader, Writer), Peer) {
    let (send, incoming) = mpsc::channel(8);
    let (outgoing, receive) = mpsc::channel(1);
    let (reset, reset_seen) = oneshot::channel();
    let (absorbed, lost) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let reader = Reader {
        name,
        bytes: incoming,
        reset: Some(reset_seen),
        ended: false,
        absorbed: Arc::clone(&absorbed),
        lost: Arc::clone(&lost),
        log: log.clone(),
    };
    let writer = Writer {
        name,
        bytes: Some(outgoing),
        log: log.clone(),
    };
    let peer = Peer {
        send: Some(send),
        receive,
        reset: Some(reset),
        absorbed,
        lost,
    };
    ((reader, writer), peer)
}

struct Request {
    halves: Option<(Reader, Writer)>,
    withdrawn: Option<oneshot::Receiver<()>>,
    log: Log,
}

impl Inbound for Request {
    type Reader = Reader;
    type Writer = Writer;

    fn source(&self) -> Source {
        Source(([10, 9, 0, 2], 4000).into())
    }

    fn target(&self) -> Target {
        Target(([10, 0, 1, 7], 443).into())
    }

    async fn withdrawn(&mut self) {
        if self.withdrawn.as_mut().unwrap().await.is_err() {
            pending().await
        }
    }

    fn accept(mut self) -> (Reader, Writer) {
        self.log.note("accepted");
        self.halves.take().unwrap()
    }

    fn refuse(mut self, error: &OpenError) {
        self.log.note(format!("refused: {error}"));
        forget_quietly(self.halves.take());
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if self.halves.is_some() {
            self.log.note("request dropped unanswered");
            forget_quietly(self.halves.take());
        }
    }
}

/// Halves that nobody was given are no streams that broke.
fn forget_quietly(halves: Option<(Reader, Writer)>) {
    if let Some((mut reader, mut writer)) = halves {
        reader.ended = true;
        writer.bytes = None;
    }
}

type Answer = Result<(Reader, Writer), OpenError>;

/// A carrier that opens one stream, when the test says so.
struct OneOpen {
    answer: Mutex<Option<oneshot::Receiver<Answer>>>,
    log: Log,
}

/// Notes when an open is given up.
struct Pending(Log, bool);

impl Drop for Pending {
    fn drop(&mut self) {
        if self.1 {
            self.0.note("open cancelled");
        }
    }
}

impl Carrier for OneOpen {
    type Reader = Reader;
    type Writer = Writer;

    async fn open_far(&self, source: Source, far: Far) -> Answer {
        let mut open = Pending(self.log.clone(), true);
        self.log.note(format!("open {source} -> {far}"));
        let answer = self.answer.lock().unwrap().take().unwrap();
        let answer = answer.await.unwrap();
        open.1 = false;
        answer
    }
}

/// A relay at work between two peers.
struct Bench {
    log: Log,
    near: Peer,
    far: Peer,
    far_halves: Option<(Reader, Writer)>,
    answer: Option<oneshot::Sender<Answer>>,
    withdraw: Option<oneshot::Sender<()>>,
    traffic: Arc<Traffic>,
    relay: JoinHandle<Outcome>,
}

fn request(log: &Log) -> (Request, Peer, oneshot::Sender<()>) {
    let (near_halves, near) = stream("near", log);
    let (withdraw, withdrawn) = oneshot::channel();
    let request = Request {
        halves: Some(near_halves),
        withdrawn: Some(withdrawn),
        log: log.clone(),
    };
    (request, near, withdraw)
}

fn carrier(log: &Log) -> (OneOpen, oneshot::Sender<Answer>) {
    let (answer, answered) = oneshot::channel();
    let carrier = OneOpen {
        answer: Mutex::new(Some(answered)),
        log: log.clone(),
    };
    (carrier, answer)
}

impl Bench {
    async fn begin() -> Self {
        let log = Log::default();
        let (request, near, withdraw) = request(&log);
        let (far_halves, far) = stream("far", &log);
        let (carrier, answer) = carrier(&log);
        let traffic = Arc::new(Traffic::default());
        let counts = Arc::clone(&traffic);
        let relay = tokio::spawn(async move {
            let target = request.target();
            relay(request, &carrier, target.into(), &*counts).await
        });
        settle().await;
        Self {
            log,
            near,
            far,
            far_halves: Some(far_halves),
            answer: Some(answer),
            withdraw: Some(withdraw),
            traffic,
            relay,
        }
    }

    async fn opened() -> Self {
        let mut bench = Self::begin().await;
        let halves = bench.far_halves.take().unwrap();
        assert!(bench.answer.take().unwrap().send(Ok(halves)).is_ok());
        settle().await;
        bench.log.0.lock().unwrap().clear();
        bench
    }

    async fn outcome(self) -> (Outcome, Vec<String>) {
        let outcome = self.relay.await.unwrap();
        forget_quietly(self.far_halves);
        (outcome, self.log.lines())
    }
}

/// Lets every task run until nothing is left to do. The fakes know no time.
async fn settle() {
    for _ in 0..32 {
        yield_now().await;
    }
}

const OPEN: &str = "open 10.9.0.2:4000 -> 10.0.1.7:443";
const ALL_DROPPED: [&str; 4] = [
    "far reader dropped before its end",
    "far writer dropped unfinished",
    "near reader dropped before its end",
    "near writer dropped unfinished",
];

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[tokio::test]
async fn accepts_only_after_the_far_side_has_opened() {
    let mut bench = Bench::begin().await;
    assert_eq!(bench.log.lines(), [OPEN]);
    let halves = bench.far_halves.take().unwrap();
    assert!(bench.answer.take().unwrap().send(Ok(halves)).is_ok());
    settle().await;
    assert_eq!(bench.log.lines(), [OPEN, "accepted"]);
}

#[tokio::test]
async fn refuses_exactly_once_and_hands_the_reason_on() {
    let mut bench = Bench::begin().await;
    let error = OpenError::new(OpenFailure::Prohibited, "open failed");
    assert!(
        bench
            .answer
            .take()
            .unwrap()
            .send(Err(error.clone()))
            .is_ok()
    );
    let (outcome, log) = bench.outcome().await;
    assert_eq!(outcome, Outcome::Refused(error));
    assert_eq!(log, [OPEN, "refused: prohibited (open failed)"]);
}

#[tokio::test]
async fn a_withdrawn_request_cancels_the_open() {
    let mut bench = Bench::begin().await;
    bench.withdraw.take().unwrap().send(()).unwrap();
    let (outcome, log) = bench.outcome().await;
    assert_eq!(outcome, Outcome::Withdrawn);
    assert_eq!(log, [OPEN, "open cancelled", "request dropped unanswered"]);
}

#[tokio::test]
async fn the_initiator_may_end_first() {
    let mut bench = Bench::opened().await;
    bench.near.send("request").await;
    bench.near.end();
    bench.far.receives("request").await;
    bench.far.receives_end().await;
    assert_eq!(bench.log.lines(), ["far writer finished"]);
    bench.far.send("a long").await;
    bench.near.receives("a long").await;
    bench.far.send("answer").await;
    bench.near.receives("answer").await;
    bench.far.end();
    bench.near.receives_end().await;
    let traffic = Arc::clone(&bench.traffic);
    let (outcome, log) = bench.outcome().await;
    assert_eq!(outcome, Outcome::Finished);
    assert_eq!(log, ["far writer finished", "near writer finished"]);
    assert_eq!(traffic.up.load(Ordering::Relaxed), 7);
    assert_eq!(traffic.down.load(Ordering::Relaxed), 12);
}

#[tokio::test]
async fn the_far_side_may_end_first() {
    let mut bench = Bench::opened().await;
    bench.far.send("hello").await;
    bench.far.end();
    bench.near.receives("hello").await;
    bench.near.receives_end().await;
    bench.near.send("still here").await;
    bench.far.receives("still here").await;
    bench.near.end();
    bench.far.receives_end().await;
    let (outcome, log) = bench.outcome().await;
    assert_eq!(outcome, Outcome::Finished);
    assert_eq!(log, ["near writer finished", "far writer finished"]);
}

#[tokio::test]
async fn an_error_of_a_reader_resets_both_sides() {
    for (is_near, error) in [(true, StreamError::Reset), (false, StreamError::Lost)] {
        let bench = Bench::opened().await;
        let peer = if is_near { &bench.near } else { &bench.far };
        peer.fail(error).await;
        let (outcome, log) = bench.outcome().await;
        assert_eq!(outcome, Outcome::Broken(error));
        assert_eq!(sorted(log), ALL_DROPPED);
    }
}

#[tokio::test]
async fn an_error_of_a_writer_resets_both_sides() {
    for is_near in [true, false] {
        let mut bench = Bench::opened().await;
        if is_near {
            bench.near.receive.close();
            bench.far.send("to nobody").await;
        } else {
            bench.far.receive.close();
            bench.near.send("to nobody").await;
        }
        let (outcome, log) = bench.outcome().await;
        assert_eq!(outcome, Outcome::Broken(StreamError::Reset));
        assert_eq!(sorted(log), ALL_DROPPED);
    }
}

#[tokio::test]
async fn a_reset_after_the_end_is_seen_while_the_other_way_runs() {
    let mut bench = Bench::opened().await;
    bench.near.end();
    bench.far.receives_end().await;
    let reset = bench.near.reset.take().unwrap();
    reset.send(StreamError::Reset).unwrap();
    let (outcome, log) = bench.outcome().await;
    assert_eq!(outcome, Outcome::Broken(StreamError::Reset));
    let expected = [
        "far reader dropped before its end",
        "far writer finished",
        "near writer dropped unfinished",
    ];
    assert_eq!(sorted(log), expected);
}

#[tokio::test]
async fn a_reader_absorbs_only_while_the_writer_is_full() {
    let mut bench = Bench::opened().await;
    bench.far.send("one").await;
    settle().await;
    let absorbed = || bench.far.absorbed.load(Ordering::Relaxed);
    assert_eq!(absorbed(), 0, "there was room");
    bench.far.send("two").await;
    settle().await;
    assert!(absorbed() > 0, "there is none");
    assert_eq!(bench.near.absorbed.load(Ordering::Relaxed), 0);
    bench.near.receives("one").await;
    bench.near.receives("two").await;
}

#[tokio::test]
async fn a_lost_connection_is_heard_of_while_nobody_reads() {
    let bench = Bench::opened().await;
    for _ in 0..3 {
        bench.far.send("unread").await;
    }
    settle().await;
    bench.far.lost.notify_one();
    let (outcome, log) = bench.outcome().await;
    assert_eq!(outcome, Outcome::Broken(StreamError::Lost));
    assert_eq!(sorted(log), ALL_DROPPED);
}

#[tokio::test]
async fn a_full_direction_does_not_stop_the_other() {
    let mut bench = Bench::opened().await;
    for _ in 0..3 {
        bench.far.send("unread").await;
    }
    settle().await;
    for text in ["a", "b", "c"] {
        bench.near.send(text).await;
        bench.far.receives(text).await;
    }
}

#[tokio::test]
async fn a_cancelled_relay_looks_like_no_orderly_end() {
    let bench = Bench::opened().await;
    bench.relay.abort();
    assert!(bench.relay.await.unwrap_err().is_cancelled());
    assert_eq!(sorted(bench.log.lines()), ALL_DROPPED);
}

/// The initiator asks for one address, and the carrier for the one that it stands for.
#[tokio::test]
async fn the_carrier_is_asked_for_whom_the_target_stands_for() {
    let log = Log::default();
    let (request, _near, _withdraw) = request(&log);
    let (carrier, answer) = carrier(&log);
    let far = Target(([10, 0, 9, 7], 443).into());
    let refused = OpenError::new(OpenFailure::Refused, "");
    assert!(answer.send(Err(refused.clone())).is_ok());
    let outcome = relay(request, &carrier, far.into(), &Traffic::default()).await;
    assert_eq!(outcome, Outcome::Refused(refused));
    let lines = log.lines();
    assert!(lines[0].ends_with("-> 10.0.9.7:443"), "{lines:?}");
}

/// Bytes of a relay's future, of which there is one per flow. The fakes' halves and their writes take 720 of them.
const MAX_FUTURE: usize = 2048;

#[tokio::test]
async fn the_future_of_a_flow_is_small() {
    let log = Log::default();
    let (request, _near, _withdraw) = request(&log);
    let (carrier, _answer) = carrier(&log);
    let traffic = Traffic::default();
    let target = request.target();
    let future = relay(request, &carrier, target.into(), &traffic);
    let size = size_of_val(&future);
    assert!(size <= MAX_FUTURE, "{size} bytes");
}
