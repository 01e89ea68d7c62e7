//! The resolver with streams, in virtual time.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::super::frame::{Deframer, frame};
use super::super::proxy::{Proxy, Respond};
use super::super::view::AsItIs;
use super::super::zones::Zones;
use super::*;
use crate::net::{
    ByteReader, ByteWriter, Carrier, Far, Inbound, OpenError, OpenFailure, Source, StreamError,
    Target,
};

const API: &str = "api.corp.internal";

fn address_of(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn far() -> Target {
    Target(address_of("10.0.0.2:53"))
}

fn near() -> Target {
    Target(address_of("192.168.1.1:53"))
}

fn client() -> Source {
    Source(address_of("198.18.0.1:4242"))
}

fn server() -> Target {
    Target(address_of("198.18.0.53:53"))
}

/// One end of a stream.
struct Pipe {
    send: Option<mpsc::UnboundedSender<Bytes>>,
    receive: mpsc::UnboundedReceiver<Bytes>,
    deframer: Deframer,
}

fn pipes() -> (Pipe, Pipe) {
    let ((there, here), (back, forth)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let pipe = |send, receive| Pipe {
        send: Some(send),
        receive,
        deframer: Deframer::default(),
    };
    (pipe(there, forth), pipe(back, here))
}

impl Pipe {
    fn say(&self, message: &[u8]) {
        let frame = frame(message).unwrap();
        drop(self.send.as_ref().unwrap().send(frame.into()));
    }

    /// The next message; `None` at the end.
    async fn hear(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(message) = self.deframer.next_message() {
                return Some(message);
            }
            let piece = self.receive.recv().await?;
            self.deframer.push(&piece);
        }
    }
}

struct Reader(mpsc::UnboundedReceiver<Bytes>);

struct Writer(Option<mpsc::UnboundedSender<Bytes>>);

fn halves(pipe: Pipe) -> (Reader, Writer) {
    (Reader(pipe.receive), Writer(pipe.send))
}

impl ByteReader for Reader {
    async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        Ok(self.0.recv().await)
    }

    async fn reset(&mut self) -> StreamError {
        std::future::pending().await
    }
}

impl ByteWriter for Writer {
    async fn write(&mut self, chunk: Bytes) -> Result<(), StreamError> {
        let sent = self.0.as_ref().map(|sender| sender.send(chunk));
        sent.and_then(Result::ok).ok_or(StreamError::Reset)
    }

    async fn finish(&mut self) -> Result<(), StreamError> {
        self.0 = None;
        Ok(())
    }
}

/// Gives the other end of each stream to the test, or refuses.
struct Streams {
    opened: Option<mpsc::UnboundedSender<(Target, Pipe)>>,
}

impl Carrier for Streams {
    type Reader = Reader;
    type Writer = Writer;

    async fn open_far(&self, _: Source, far: Far) -> Result<(Reader, Writer), OpenError> {
        let refused = || OpenError::new(OpenFailure::Refused, "");
        let opened = self.opened.as_ref().ok_or_else(refused)?;
        let (ours, theirs) = pipes();
        opened.send((far.target, theirs)).map_err(|_| refused())?;
        Ok(halves(ours))
    }
}

struct Asking {
    pipe: Pipe,
    refused: Arc<Mutex<Option<OpenFailure>>>,
}

impl Inbound for Asking {
    type Reader = Reader;
    type Writer = Writer;

    fn source(&self) -> Source {
        client()
    }

    fn target(&self) -> Target {
        server()
    }

    async fn withdrawn(&mut self) {
        std::future::pending().await
    }

    fn accept(self) -> (Reader, Writer) {
        halves(self.pipe)
    }

    fn refuse(self, error: &OpenError) {
        *self.refused.lock().unwrap() = Some(error.failure);
    }
}

struct Datagrams(mpsc::UnboundedSender<(Target, Source, Vec<u8>)>);

impl Respond for Datagrams {
    fn respond(&self, from: Target, to: Source, message: &[u8]) {
        drop(self.0.send((from, to, message.to_vec())));
    }
}

struct Rig {
    proxy: Arc<Proxy<Datagrams>>,
    datagrams: mpsc::UnboundedReceiver<(Target, Source, Vec<u8>)>,
    far: mpsc::UnboundedReceiver<(Target, Pipe)>,
    near: mpsc::UnboundedReceiver<(Target, Pipe)>,
    task: JoinHandle<Infallible>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Rig {
    fn new() -> Self {
        Self::where_far(true)
    }

    fn where_far(is_reached: bool) -> Self {
        let (respond, datagrams) = mpsc::unbounded_channel();
        let (to_far, far_opened) = mpsc::unbounded_channel();
        let (to_near, near_opened) = mpsc::unbounded_channel();
        let zones = Zones::below(&["corp.internal"], &[]).unwrap();
        let proxy = Proxy::new(
            zones,
            Arc::new(AsItIs),
            None,
            (&[far()], &[near()]),
            Datagrams(respond),
        );
        let proxy = Arc::new(proxy);
        let carriers = (
            Streams {
                opened: is_reached.then_some(to_far),
            },
            Streams {
                opened: Some(to_near),
            },
        );
        let running = Arc::clone(&proxy);
        Self {
            proxy,
            datagrams,
            far: far_opened,
            near: near_opened,
            task: tokio::spawn(
                async move { running.run(client(), &carriers.0, &carriers.1).await },
            ),
        }
    }

    fn ask(&self, message: &[u8]) {
        self.proxy.handle_datagram(client(), server(), message);
    }

    async fn datagram(&mut self) -> Vec<u8> {
        let (from, to, message) = self.datagrams.recv().await.unwrap();
        assert_eq!((from, to), (server(), client()));
        message
    }

    async fn stream(&mut self) -> Pipe {
        let (target, pipe) = self.far.recv().await.unwrap();
        assert_eq!(target, far());
        pipe
    }

    /// A client on a stream; the task ends when it has been served.
    fn connect(&self) -> (Pipe, JoinHandle<()>, Arc<Mutex<Option<OpenFailure>>>) {
        let (ours, theirs) = pipes();
        let refused = Arc::default();
        let asking = Asking {
            pipe: theirs,
            refused: Arc::clone(&refused),
        };
        let proxy = Arc::clone(&self.proxy);
        (
            ours,
            tokio::spawn(async move { proxy.serve(asking).await }),
            refused,
        )
    }
}

#[tokio::test(start_paused = true)]
async fn a_datagram_is_asked_on_a_stream_and_answered_as_one() {
    let mut rig = Rig::new();
    rig.ask(&query(7, API, A));
    let mut stream = rig.stream().await;
    let asked = stream.hear().await.unwrap();
    stream.say(&address(&asked, 60, 2));
    let answer = rig.datagram().await;
    assert_eq!((id(&answer), answer.last()), (7, Some(&2)));
    // The stream stays for the next one, and what is known is not asked for again.
    rig.ask(&query(8, API, A));
    assert_eq!(id(&rig.datagram().await), 8);
    rig.ask(&query(9, "b.corp.internal", A));
    let asked = stream.hear().await.unwrap();
    stream.say(&address(&asked, 60, 3));
    assert_eq!(id(&rig.datagram().await), 9);
    assert!(rig.far.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn other_names_are_asked_near() {
    let mut rig = Rig::new();
    rig.ask(&query(7, "www.example.com", A));
    let (target, mut stream) = rig.near.recv().await.unwrap();
    assert_eq!(target, near());
    let asked = stream.hear().await.unwrap();
    stream.say(&address(&asked, 60, 2));
    assert_eq!(id(&rig.datagram().await), 7);
    assert!(rig.far.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn private_names_fail_while_the_far_side_is_not_there_and_leak_nowhere() {
    let mut rig = Rig::where_far(false);
    for number in 0..20 {
        rig.ask(&query(number, API, A));
        let answer = rig.datagram().await;
        assert_eq!((id(&answer), code(&answer)), (number, SERVFAIL));
    }
    assert!(rig.near.try_recv().is_err());
    assert_eq!(rig.proxy.counters().failed, 20);
}

#[tokio::test(start_paused = true)]
async fn questions_go_on_over_a_fresh_stream_when_one_is_lost() {
    let mut rig = Rig::new();
    rig.ask(&query(7, API, A));
    let mut first = rig.stream().await;
    first.hear().await.unwrap();
    drop(first);
    let mut second = rig.stream().await;
    let asked = second.hear().await.unwrap();
    second.say(&address(&asked, 60, 2));
    assert_eq!(id(&rig.datagram().await), 7);
    // One that ends while nothing is asked is missed by nobody.
    drop(second);
    rig.ask(&query(8, "b.corp.internal", A));
    let mut third = rig.stream().await;
    let asked = third.hear().await.unwrap();
    third.say(&address(&asked, 60, 2));
    assert_eq!(id(&rig.datagram().await), 8);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_says_nothing_is_given_up_for_another() {
    let mut rig = Rig::new();
    let began = Instant::now();
    rig.ask(&query(7, API, A));
    let mut silent = rig.stream().await;
    silent.hear().await.unwrap();
    // The client hears so in time. Nobody else can be asked before.
    assert_eq!(code(&rig.datagram().await), SERVFAIL);
    assert_eq!(began.elapsed().as_millis() / 10, 450);
    assert_eq!(silent.hear().await, None);
    rig.ask(&query(8, "b.corp.internal", A));
    let mut other = rig.stream().await;
    let asked = other.hear().await.unwrap();
    other.say(&address(&asked, 60, 2));
    assert_eq!(id(&rig.datagram().await), 8);
}

/// On one stream, of a server that takes 2 s for each.
#[tokio::test(start_paused = true)]
async fn a_slow_answer_comes_on_the_stream_that_it_was_asked_on() {
    let mut rig = Rig::new();
    rig.ask(&query(7, API, A));
    let mut stream = rig.stream().await;
    for number in 7..10 {
        let asked = stream.hear().await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        stream.say(&address(&asked, 60, 2));
        assert_eq!(id(&rig.datagram().await), number);
        rig.ask(&query(number + 1, &format!("n{number}.corp.internal"), A));
    }
    assert!(rig.far.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_client_asks_many_on_one_stream_and_gets_them_as_they_come() {
    let mut rig = Rig::new();
    let (mut client, served, _) = rig.connect();
    for number in 0..100 {
        client.say(&query(number, &format!("n{number}.corp.internal"), TXT));
    }
    let mut stream = rig.stream().await;
    // 64 are read, the rest when there is room again.
    let mut asked = Vec::new();
    for _ in 0..64 {
        asked.push(stream.hear().await.unwrap());
    }
    let early = timeout(Duration::from_millis(100), stream.hear()).await;
    assert!(early.is_err());
    let large = record(TXT, 60, &[7; 60_000]);
    let mut heard = Vec::new();
    for _ in 0..100 {
        let one = asked.pop().unwrap();
        stream.say(&answer(
            &one,
            NOERROR,
            [std::slice::from_ref(&large), &[], &[]],
        ));
        let message = client.hear().await.unwrap();
        assert_eq!(section(&message), section(&one));
        assert!(message.len() > 60_000 && !is_truncated(&message));
        heard.push(id(&message));
        if heard.len() <= 36 {
            asked.push(stream.hear().await.unwrap());
        }
    }
    heard.sort_unstable();
    assert_eq!(heard, (0..100).collect::<Vec<u16>>());
    client.send = None;
    assert_eq!(client.hear().await, None);
    served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_or_nonsense_is_let_go() {
    let rig = Rig::new();
    let began = Instant::now();
    let (mut client, served, _) = rig.connect();
    assert_eq!(client.hear().await, None);
    assert_eq!(began.elapsed().as_secs(), 30);
    // It is not reset, which would take from it what it has not read.
    tokio::task::yield_now().await;
    assert!(!served.is_finished());
    client.send = None;
    served.await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 30);
    let (mut client, served, _) = rig.connect();
    client.say(&[7; 5]);
    assert_eq!(client.hear().await, None);
    served.await.unwrap();
    assert_eq!(rig.proxy.counters().noise, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_too_many_takes_the_place_of_the_one_idle_longest() {
    let mut rig = Rig::new();
    let mut clients: Vec<_> = (0..256).map(|_| rig.connect()).collect();
    tokio::task::yield_now().await;
    // The first one asks: it is not idle.
    clients[0].0.say(&query(7, API, A));
    let mut stream = rig.stream().await;
    let asked = stream.hear().await.unwrap();
    let (mut late, served, refused) = rig.connect();
    late.say(&query(8, API, A));
    let (mut second, second_served, _) = clients.remove(1);
    assert_eq!(second.hear().await, None);
    second_served.await.unwrap();
    stream.say(&address(&asked, 60, 2));
    assert_eq!(id(&late.hear().await.unwrap()), 8);
    assert_eq!(id(&clients[0].0.hear().await.unwrap()), 7);
    drop(late);
    served.await.unwrap();
    assert_eq!(*refused.lock().unwrap(), None);
    for (client, served, _) in clients {
        drop(client);
        served.await.unwrap();
    }
}

/// Who has asked and takes no answer: its writer has room for one.
struct Stuck(Asking);

struct StuckWriter(bool);

impl ByteWriter for StuckWriter {
    async fn write(&mut self, _: Bytes) -> Result<(), StreamError> {
        match std::mem::replace(&mut self.0, true) {
            true => std::future::pending().await,
            false => Ok(()),
        }
    }

    async fn finish(&mut self) -> Result<(), StreamError> {
        Ok(())
    }
}

impl Inbound for Stuck {
    type Reader = Reader;
    type Writer = StuckWriter;

    fn source(&self) -> Source {
        self.0.source()
    }

    fn target(&self) -> Target {
        self.0.target()
    }

    async fn withdrawn(&mut self) {
        self.0.withdrawn().await;
    }

    fn accept(self) -> (Reader, StuckWriter) {
        (self.0.accept().0, StuckWriter(false))
    }

    fn refuse(self, error: &OpenError) {
        self.0.refuse(error);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_answer_is_heard_no_further_and_let_go() {
    let mut rig = Rig::new();
    let (ours, pipe) = pipes();
    let asking = Stuck(Asking {
        pipe,
        refused: Arc::default(),
    });
    let large = record(TXT, 60, &[7; 60_000]);
    rig.ask(&query(1, API, TXT));
    let mut stream = rig.stream().await;
    let asked = stream.hear().await.unwrap();
    stream.say(&answer(&asked, NOERROR, [&[large], &[], &[]]));
    rig.datagram().await;
    let many = (0..64).flat_map(|number| frame(&query(number, API, TXT)).unwrap());
    let send = ours.send.as_ref().unwrap();
    send.send(many.collect()).unwrap();
    let (began, proxy) = (Instant::now(), Arc::clone(&rig.proxy));
    let served = tokio::spawn(async move { proxy.serve(asking).await });
    served.await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 10);
    // Of 60 KB each, three are more than may wait.
    assert_eq!(rig.proxy.counters().questions - 1, 3);
}
