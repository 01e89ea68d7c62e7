//! Echo requests without a tunnel: by the real `ping` in real shells, and by TCP ports of a carrier in memory.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep, timeout};
use underpass::net::{
    ByteReader, ByteWriter, Carrier, Far, OpenError, OpenFailure, Source, StreamError,
};
use underpass::ping::{PORTS, Pace, Pinger, Reply, State};
use underpass::udp::Trouble;

use crate::commands::Local;

const PATIENCE: Duration = Duration::from_secs(20);

struct Replies(mpsc::UnboundedSender<u32>);

impl Reply<u32> for Replies {
    fn reply(&self, request: u32) {
        self.0.send(request).unwrap();
    }
}

struct Rig {
    pinger: Arc<Pinger<u32, Replies>>,
    replies: mpsc::UnboundedReceiver<u32>,
    task: JoinHandle<()>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Rig {
    fn by_exec(local: Local) -> Self {
        Self::new(Pace::Steady, |pinger| {
            tokio::spawn(async move { match pinger.run_exec(&local).await {} })
        })
    }

    fn by_probe(ports: Ports) -> Self {
        let source = Source("10.0.0.1:1".parse().unwrap());
        Self::new(Pace::Slowing, |pinger| {
            tokio::spawn(async move { match pinger.run_probe(&ports, source).await {} })
        })
    }

    fn new(pace: Pace, run: impl FnOnce(Arc<Pinger<u32, Replies>>) -> JoinHandle<()>) -> Self {
        let (sender, replies) = mpsc::unbounded_channel();
        let pinger = Arc::new(Pinger::new(pace, Arc::new(Replies(sender))));
        let task = run(pinger.clone());
        Self {
            pinger,
            replies,
            task,
        }
    }

    fn ask(&self, host: &str, request: u32) {
        let host: IpAddr = host.parse().unwrap();
        self.pinger.handle_request(host, request);
    }

    async fn next(&mut self) -> u32 {
        timeout(PATIENCE, self.replies.recv())
            .await
            .unwrap()
            .unwrap()
    }

    async fn until(&self, what: impl Fn(&Pinger<u32, Replies>) -> bool) {
        let wait = async {
            while !what(&self.pinger) {
                yield_now().await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap();
    }
}

/// In a network of its own, with loopback and no route.
const ALONE: &[&str] = &[
    "/usr/bin/unshare",
    "--net",
    "/bin/sh",
    "-c",
    "ip link set lo up; exec /bin/sh \"$@\"",
    "sh",
];

#[tokio::test]
async fn a_host_that_replies_is_there() {
    for shell in [&["/bin/sh"][..], &["/bin/bash"], &["/usr/bin/fish"]] {
        let mut rig = Rig::by_exec(Local::new(Box::leak(shell.to_vec().into_boxed_slice())));
        rig.ask("127.0.0.1", 1);
        rig.ask("127.0.0.1", 2);
        assert_eq!(rig.next().await, 1, "{shell:?}");
        rig.ask("::1", 3);
        assert_eq!(rig.next().await, 3, "{shell:?}");
        let counters = rig.pinger.counters();
        assert_eq!((counters.answered, counters.ignored), (2, 1));
    }
}

#[tokio::test]
async fn a_host_without_a_reply_is_silent() {
    let mut rig = Rig::by_exec(Local::new(ALONE));
    for (host, request) in [("203.0.113.7", 1), ("2001:db8::7", 2)] {
        rig.ask(host, request);
    }
    rig.ask("127.0.0.1", 3);
    assert_eq!(rig.next().await, 3);
    rig.until(|pinger| pinger.counters().unanswered == 2).await;
    assert!(rig.replies.try_recv().is_err());
}

#[tokio::test]
async fn many_are_asked_over_one_command() {
    let local = Local::new(&["/bin/sh"]);
    let runs = local.runs.clone();
    let mut rig = Rig::by_exec(local);
    for number in 1..=40_u32 {
        rig.ask(&format!("127.0.1.{number}"), number);
    }
    let mut replies = Vec::new();
    for _ in 1..=40 {
        replies.push(rig.next().await);
    }
    replies.sort_unstable();
    assert_eq!(replies, (1..=40).collect::<Vec<_>>());
    assert_eq!(runs.load(std::sync::atomic::Ordering::Relaxed), 2);
}

/// Loopback is down there, so that `ping` has no way to say anything: as one without the right to.
#[tokio::test]
async fn a_server_whose_ping_may_not_send_is_silent() {
    let rig = Rig::by_exec(Local::new(&["/usr/bin/unshare", "--net", "/bin/sh"]));
    rig.ask("127.0.0.1", 1);
    rig.until(|pinger| pinger.state() == State::Failed(Trouble::NoPing))
        .await;
    // Also when the pause is over: who looks is not told that pings are carried.
    rig.until(|pinger| pinger.state() != State::Failed(Trouble::NoPing))
        .await;
    let state = rig.pinger.state();
    assert_eq!(state, State::Again(Trouble::NoPing));
    assert!(state.to_string().starts_with("not carried: "), "{state}");
    let mut forbids = Local::new(&["/bin/sh"]);
    forbids.forbids = true;
    let rig = Rig::by_exec(forbids);
    rig.ask("127.0.0.1", 1);
    rig.until(|pinger| matches!(pinger.state(), State::Failed(Trouble::NoExec(_))))
        .await;
}

/// What becomes of an open.
#[derive(Clone, Copy)]
enum Port {
    Opens,
    Fails(OpenFailure),
    Hangs,
}

/// A carrier that knows ports, whatever the host; each answer takes 30 ms.
#[derive(Clone)]
struct Ports {
    what: Arc<dyn Fn(SocketAddr) -> Port + Send + Sync>,
    opened: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Ports {
    fn new(what: impl Fn(SocketAddr) -> Port + Send + Sync + 'static) -> Self {
        Self {
            what: Arc::new(what),
            opened: Arc::default(),
        }
    }
}

struct Half;

impl ByteReader for Half {
    async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        Ok(None)
    }

    async fn reset(&mut self) -> StreamError {
        StreamError::Reset
    }
}

impl ByteWriter for Half {
    async fn write(&mut self, _: Bytes) -> Result<(), StreamError> {
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), StreamError> {
        Ok(())
    }
}

impl Carrier for Ports {
    type Reader = Half;
    type Writer = Half;

    async fn open_far(&self, _: Source, far: Far) -> Result<(Half, Half), OpenError> {
        let target = far.target.0;
        self.opened.lock().unwrap().push(target);
        sleep(Duration::from_millis(30)).await;
        match (self.what)(target) {
            Port::Opens => Ok((Half, Half)),
            Port::Fails(failure) => Err(OpenError::new(failure, "")),
            Port::Hangs => std::future::pending().await,
        }
    }
}

const HOST: &str = "10.0.0.9";

#[tokio::test(start_paused = true)]
async fn a_port_that_opens_or_refuses_is_a_host_that_is_there() {
    for there in [Port::Opens, Port::Fails(OpenFailure::Refused)] {
        let ports = Ports::new(move |target| match target.port() {
            22 => there,
            80 => Port::Fails(OpenFailure::HostUnreachable),
            _ => Port::Hangs,
        });
        let opened = ports.opened.clone();
        let mut rig = Rig::by_probe(ports);
        let began = Instant::now();
        rig.ask(HOST, 1);
        assert_eq!(rig.next().await, 1);
        let took = began.elapsed().as_millis();
        assert!(
            (30..40).contains(&took),
            "the time that was measured: {took}"
        );
        let tried: Vec<u16> = opened
            .lock()
            .unwrap()
            .drain(..)
            .map(|it| it.port())
            .collect();
        assert_eq!(tried, PORTS);
        // From then on nobody else is bothered.
        sleep(Duration::from_secs(1)).await;
        rig.ask(HOST, 2);
        assert_eq!(rig.next().await, 2);
        let tried: Vec<u16> = opened
            .lock()
            .unwrap()
            .drain(..)
            .map(|it| it.port())
            .collect();
        assert_eq!(tried, [22]);
    }
}

#[tokio::test(start_paused = true)]
async fn everything_else_is_silence() {
    for failure in OpenFailure::ALL {
        if failure == OpenFailure::Refused {
            continue;
        }
        let mut rig = Rig::by_probe(Ports::new(move |_| Port::Fails(failure)));
        rig.ask(HOST, 1);
        sleep(Duration::from_millis(100)).await;
        assert_eq!(rig.pinger.counters().unanswered, 1);
        assert!(rig.replies.try_recv().is_err(), "{failure:?}");
    }
    let mut rig = Rig::by_probe(Ports::new(|_| Port::Hangs));
    rig.ask(HOST, 1);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(rig.pinger.counters().unanswered, 1);
    assert!(rig.replies.try_recv().is_err());
}

/// A server cannot take an open back: pinging a silent host for a minute leaves few of them.
#[tokio::test(start_paused = true)]
async fn a_silent_host_leaves_few_opens_behind() {
    let ports = Ports::new(|_| Port::Hangs);
    let opened = ports.opened.clone();
    let rig = Rig::by_probe(ports);
    for number in 0..60 {
        rig.ask(HOST, number);
        sleep(Duration::from_secs(1)).await;
    }
    let opened = opened.lock().unwrap().len();
    assert!(opened <= 8 * PORTS.len(), "{opened}");
}
