//! Links that come and go, on a virtual clock.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use tokio::sync::Notify;

use super::*;
use crate::carrier::error::{self, CommandEnd, HostKeyError, LostReason};
use crate::carrier::link::{Description, LIFE};
use crate::net::{ByteReader, ByteWriter, StreamError, Target};
use crate::plan::SshPlan;

/// A link whose end is in the test's hand. Clones are one.
#[derive(Clone)]
struct Fake {
    name: &'static str,
    lost: Arc<watch::Sender<bool>>,
    silent: bool,
    description: Description,
}

impl Fake {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            lost: Arc::new(watch::Sender::new(false)),
            silent: false,
            description: Description {
                server: None,
                host_key: "ED25519 SHA256:one".to_owned(),
                cipher: "c".to_owned(),
                authentication: "a".to_owned(),
                key: None,
                methods: Vec::new(),
            },
        }
    }

    fn lose(&self) {
        self.lost.send_replace(true);
    }

    async fn until_lost(&self) {
        let _ = self.lost.subscribe().wait_for(|lost| *lost).await;
    }
}

struct Half(Fake);

impl ByteReader for Half {
    async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        self.0.until_lost().await;
        Err(StreamError::Lost)
    }

    async fn reset(&mut self) -> StreamError {
        pending().await
    }
}

impl ByteWriter for Half {
    async fn write(&mut self, _chunk: Bytes) -> Result<(), StreamError> {
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), StreamError> {
        Ok(())
    }
}

impl Carrier for Fake {
    type Reader = Half;
    type Writer = Half;

    async fn open_far(&self, _: Source, _: Far) -> Result<(Half, Half), OpenError> {
        if *self.lost.borrow() {
            return Err(OpenError::new(OpenFailure::ConnectionLost, ""));
        }
        Ok((Half(self.clone()), Half(self.clone())))
    }
}

impl Link for Fake {
    fn description(&self) -> &Description {
        &self.description
    }

    fn server_addresses(&self) -> Vec<IpAddr> {
        Vec::new()
    }

    async fn lost(&self) -> LostReason {
        self.until_lost().await;
        LostReason::Silent
    }

    async fn check(&self) {
        if self.silent {
            tokio::time::sleep(LIFE).await;
            self.lose();
        }
    }

    async fn shutdown(&self) {
        self.lose();
    }
}

type Answer = Box<dyn FnOnce() -> Result<Fake, ConnectError> + Send>;

/// Gives the answers of a list, then a link each time.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    tries: AtomicUsize,
    with_person: AtomicUsize,
    person: bool,
    /// How long a login takes.
    takes: Option<Duration>,
}

impl Script {
    fn new(answers: impl IntoIterator<Item = fn() -> Result<Fake, ConnectError>>) -> Arc<Self> {
        Arc::new(Self::of(answers))
    }

    fn of(answers: impl IntoIterator<Item = fn() -> Result<Fake, ConnectError>>) -> Self {
        let boxed = answers.into_iter().map(|answer| Box::new(answer) as Answer);
        Self {
            answers: Mutex::new(boxed.collect()),
            ..Self::default()
        }
    }

    fn tries(&self) -> usize {
        self.tries.load(Relaxed)
    }
}

impl Connector for Script {
    type Link = Fake;

    async fn connect(&self, _last: &Fake, with_person: bool) -> Result<Fake, ConnectError> {
        self.tries.fetch_add(1, Relaxed);
        self.with_person.fetch_add(with_person.into(), Relaxed);
        if let Some(takes) = self.takes {
            tokio::time::sleep(takes).await;
        }
        let answer = self.answers.lock().unwrap().pop_front();
        answer.map_or_else(|| Ok(Fake::new("further")), |answer| answer())
    }

    fn has_person(&self) -> bool {
        self.person
    }

    async fn summon(&self) -> bool {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        true
    }

    fn server(&self) -> &str {
        "h"
    }
}

fn closed_port() -> Result<Fake, ConnectError> {
    Err(ConnectError::Unreachable {
        server: address().to_string(),
        source: io::ErrorKind::ConnectionRefused.into(),
    })
}

fn refused() -> Result<Fake, ConnectError> {
    Err(ConnectError::Refused {
        user: "me".to_owned(),
        host: "h".to_owned(),
        methods: "publickey".to_owned(),
        tried: "a key".to_owned(),
        hint: "".into(),
    })
}

fn ended() -> Result<Fake, ConnectError> {
    Err(ConnectError::Ended {
        host: "h".to_owned(),
        detail: "it closed".to_owned(),
    })
}

fn address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 22))
}

/// A steady carrier at work over `first`.
struct Rig {
    steady: Arc<Steady<Fake>>,
    first: Fake,
    script: Arc<Script>,
    changed: Arc<Notify>,
    keeper: tokio::task::JoinHandle<ConnectError>,
}

impl Rig {
    fn new(script: Arc<Script>) -> Self {
        Self::over(Fake::new("first"), script)
    }

    fn over(first: Fake, script: Arc<Script>) -> Self {
        let steady = Arc::new(Steady::new(first.clone()));
        let changed = Arc::new(Notify::new());
        let (s, c, n) = (
            Arc::clone(&steady),
            Arc::clone(&script),
            Arc::clone(&changed),
        );
        let keeper = tokio::spawn(async move { s.keep(&*c, &n).await });
        Self {
            steady,
            first,
            script,
            changed,
            keeper,
        }
    }

    /// Of the link that the next stream opens on.
    async fn name(&self) -> &'static str {
        self.open().await.0.half.0.name
    }

    async fn open(&self) -> (SteadyReader<Half>, SteadyWriter<Half>) {
        let (source, target) = (Source(address()), Target(address()));
        self.steady.open(source, target).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_waits_for_the_next_link() {
    let rig = Rig::new(Script::new([closed_port as fn() -> _; 40]));
    assert_eq!(rig.name().await, "first");
    rig.first.lose();
    let began = Instant::now();
    assert_eq!(rig.name().await, "further");
    let took = began.elapsed();
    let (least, most) = (Duration::from_secs(10), Duration::from_millis(20_100));
    assert!((least..most).contains(&took), "{took:?}");
    assert!(matches!(rig.steady.state(), State::Up { .. }));
}

/// As names are: whoever asks for one hears within a second of the loss that it failed, and at once later.
#[tokio::test(start_paused = true)]
async fn who_does_not_wait_is_refused_once_there_is_no_link_for_a_second() {
    let rig = Rig::new(Script::new([closed_port as fn() -> _; 40]));
    let brief = rig.steady.brief();
    let open = || brief.open(Source(address()), Target(address()));
    assert!(open().await.is_ok());
    rig.first.lose();
    let lost = Instant::now();
    for took in [Duration::from_secs(1); 3] {
        let error = open().await.map(drop).unwrap_err();
        assert_eq!(error.failure, OpenFailure::ConnectionLost);
        assert_eq!(lost.elapsed(), took);
    }
    // Who waits has the next link, and they have it, too.
    assert_eq!(rig.name().await, "further");
    assert!(open().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_does_not_wait_has_a_link_that_comes_at_once() {
    let rig = Rig::new(Script::new([closed_port as fn() -> _]));
    tokio::time::sleep(Duration::from_secs(60)).await;
    rig.first.lose();
    let began = Instant::now();
    let brief = rig.steady.brief();
    let opened = brief.open(Source(address()), Target(address())).await;
    assert_eq!(opened.unwrap().0.half.0.name, "further");
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn the_first_try_comes_at_once() {
    let rig = Rig::new(Script::new([]));
    tokio::time::sleep(Duration::from_secs(60)).await;
    rig.first.lose();
    let began = Instant::now();
    assert_eq!(rig.name().await, "further");
    assert!(began.elapsed() < Duration::from_millis(100));
}

/// A server that lets us in and hangs up at once, as tinysshd does when a session has ended.
#[tokio::test(start_paused = true)]
async fn links_that_do_not_last_come_less_and_less_often() {
    fn brief() -> Result<Fake, ConnectError> {
        let fake = Fake::new("brief");
        fake.lose();
        Ok(fake)
    }
    let rig = Rig::new(Script::new(vec![brief as fn() -> _; 2000]));
    rig.first.lose();
    for seconds in 0..600 {
        // After 0.5, 0.5, 0.5, 3, 6 ... 30 s and up to half of it more.
        let most = if seconds < 30 { 6 } else { 6 + seconds / 30 };
        assert!(rig.script.tries() <= most, "{}", rig.script.tries());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(rig.script.tries() >= 15, "{}", rig.script.tries());
}

#[tokio::test(start_paused = true)]
async fn open_streams_end_at_once_and_are_counted() {
    let rig = Rig::new(Script::new([]));
    let (mut reader, _writer) = rig.open().await;
    let (_idle, _and_its_writer) = rig.open().await;
    drop(rig.open().await);
    let streams = rig.steady.current().await.streams;
    let began = Instant::now();
    rig.first.lose();
    assert_eq!(reader.read().await, Err(StreamError::Lost));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(streams.lost(), 2);
    drop((reader, _writer));
    assert_eq!(streams.lost(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_open_that_is_given_up_leaves_nothing() {
    let rig = Rig::new(Script::new([closed_port as fn() -> _; 40]));
    rig.first.lose();
    let patience = Duration::from_secs(1);
    assert!(tokio::time::timeout(patience, rig.open()).await.is_err());
    assert!(matches!(rig.steady.state(), State::Down { .. }));
    assert_eq!(rig.name().await, "further");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_gives_no_sign_of_life_is_replaced() {
    let silent = Fake {
        silent: true,
        ..Fake::new("first")
    };
    let rig = Rig::over(silent, Script::new([]));
    assert_eq!(rig.name().await, "first");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let began = Instant::now();
    rig.changed.notify_one();
    rig.first.until_lost().await;
    assert_eq!(rig.name().await, "further");
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_link_that_lives_outlasts_a_change() {
    let rig = Rig::new(Script::new([]));
    rig.changed.notify_one();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.name().await, "first");
}

/// Long after the loss it is tried once in half a minute; a change of the network brings it forward.
#[tokio::test(start_paused = true)]
async fn a_change_ends_the_wait() {
    let script = Script::new(vec![closed_port as fn() -> _; 2000]);
    let rig = Rig::new(script);
    rig.first.lose();
    tokio::time::sleep(Duration::from_secs(1000)).await;
    let before = rig.script.tries();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!((10..=21).contains(&(rig.script.tries() - before)));
    rig.script.answers.lock().unwrap().clear();
    let began = Instant::now();
    rig.changed.notify_one();
    assert_eq!(rig.name().await, "further");
    assert!(began.elapsed() < Duration::from_millis(100));
}

/// However often the network changes, a server that ends the connection is tried once in two seconds at most.
#[tokio::test(start_paused = true)]
async fn changes_do_not_hammer_a_server() {
    let rig = Rig::new(Script::new(vec![ended as fn() -> _; 2000]));
    rig.first.lose();
    for _ in 0..1000 {
        rig.changed.notify_one();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(rig.script.tries() <= 52, "{}", rig.script.tries());
}

/// As where containers are started one after the other.
#[tokio::test(start_paused = true)]
async fn a_login_comes_to_its_end_however_often_the_network_changes() {
    let script = Script {
        takes: Some(Duration::from_secs(5)),
        ..Script::default()
    };
    let rig = Rig::new(Arc::new(script));
    rig.first.lose();
    let changes = async {
        loop {
            rig.changed.notify_one();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let patience = Duration::from_secs(20);
    let name = tokio::time::timeout(patience, async {
        tokio::select! {
            name = rig.name() => name,
            () = changes => "",
        }
    });
    assert_eq!(name.await, Ok("further"));
    // Given up after 1, 2 and 4 seconds.
    assert_eq!(rig.script.tries(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_ends_it_after_three_slow_tries() {
    let rig = Rig::new(Script::new([refused as fn() -> _; 3]));
    let began = Instant::now();
    rig.first.lose();
    for _ in 0..20 {
        rig.changed.notify_one();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(rig.script.tries(), 1);
    let error = rig.keeper.await.unwrap();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
    let took = began.elapsed().as_secs();
    assert!((90..=136).contains(&took), "{took} s");
}

/// A gateway by way of `ssh -W` is as good as a jump host.
#[tokio::test(start_paused = true)]
async fn a_command_that_is_refused_ends_it_just_so() {
    fn by_command() -> Result<Fake, ConnectError> {
        Err(ConnectError::Command {
            host: "h".to_owned(),
            detail: "me@gw: Permission denied (publickey).".to_owned(),
            command: "ssh -W h:22 gw".to_owned(),
            end: CommandEnd::Refused,
        })
    }
    let rig = Rig::new(Script::new([by_command as fn() -> _; 3]));
    let began = Instant::now();
    rig.first.lose();
    let error = rig.keeper.await.unwrap();
    assert!(matches!(error, ConnectError::Command { .. }), "{error}");
    assert_eq!(rig.script.tries(), 3);
    let took = began.elapsed().as_secs();
    assert!((90..=136).contains(&took), "{took} s");
}

#[tokio::test(start_paused = true)]
async fn a_person_is_waited_for() {
    let script = Script {
        person: true,
        ..Script::of([refused as fn() -> _; 5])
    };
    let rig = Rig::new(Arc::new(script));
    rig.first.lose();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(matches!(rig.steady.state(), State::NeedsPerson { .. }));
    assert_eq!(rig.script.tries(), 1);
    assert_eq!(rig.name().await, "further");
    assert_eq!(rig.script.with_person.load(Relaxed), 5);
}

/// Who is asked next is in a terminal.
#[tokio::test(start_paused = true)]
async fn a_person_is_not_told_to_start_it_where_they_are() {
    fn asks() -> Result<Fake, ConnectError> {
        let plan = SshPlan::new("h", 22, "me");
        let refused = ConnectError::Refused {
            user: "me".to_owned(),
            host: "h".to_owned(),
            methods: "password".to_owned(),
            tried: "password (nobody to ask)".to_owned(),
            hint: error::refused(&plan, &["password"], false).into(),
        };
        Err(refused.of_hop("gw"))
    }
    for (person, expected) in [
        (true, "It asks for a password or a code"),
        (false, "without BatchMode"),
    ] {
        let script = Script {
            person,
            ..Script::of([asks as fn() -> _; 2])
        };
        let rig = Rig::new(Arc::new(script));
        rig.first.lose();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (State::NeedsPerson { why, .. } | State::Down { why, .. }) = rig.steady.state() else {
            panic!("up");
        };
        assert!(why.ends_with(expected), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_host_key_ends_it() {
    fn other() -> Result<Fake, ConnectError> {
        let mut fake = Fake::new("other");
        fake.description.host_key = "ED25519 SHA256:two".to_owned();
        Ok(fake)
    }
    let rig = Rig::new(Script::new([closed_port as fn() -> _, other]));
    rig.first.lose();
    let error = rig.keeper.await.unwrap();
    let changed = matches!(
        &error,
        ConnectError::HostKey(HostKeyError::NotAsBefore { .. })
    );
    assert!(changed, "{error}");
}
