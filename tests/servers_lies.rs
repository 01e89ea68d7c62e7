//! Servers that lie, before, during and after the login. Whatever they do: a clear end within a bounded time, nothing
//! that panics, no task and no memory left behind. What becomes of each lie is a table to review.
//!
//! The channel layer's own lies, without I/O, are in `src/carrier/channels/tests/lies.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "servers/client.rs"]
mod client;
#[path = "servers/place.rs"]
mod place;
#[path = "servers/python.rs"]
mod python;
#[path = "servers/raw.rs"]
mod raw;
#[path = "carrier/rig.rs"]
mod rig;

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::Configured;
use python::Asyncssh;
use rig::{Echo, local, resident};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use underpass::carrier::{AnyCarrier, ConnectError, Link, NoPrompter};
use underpass::net::{ByteReader, ByteWriter, StreamError, Target};
use underpass::plan::{CarrierKind, CarrierPlan, HostKeyPolicy, SshPlan};

/// How long a flow may take to come to an end.
const FLOW: Duration = Duration::from_secs(20);
/// How long room to write is waited for; some lies give none.
const ROOM: Duration = Duration::from_secs(5);
/// How long a login may take that nobody goes on with.
const LOGIN: Duration = Duration::from_secs(45);
/// What a lie may cost this process in memory, in KiB.
const MEMORY: u64 = 96 << 10;

/// Tasks and memory of the whole process are looked at.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

async fn connect(over: CarrierKind, plan: &SshPlan) -> Result<AnyCarrier, ConnectError> {
    let mut ssh = Configured::new(plan);
    let batch = ["-o", "BatchMode=yes"].map(str::to_owned);
    ssh.client.arguments.extend(batch);
    if let Some(limit) = plan.dialling.timeout {
        let limit = format!("ConnectTimeout={}", limit.as_secs());
        ssh.client.arguments.extend(["-o".to_owned(), limit]);
    }
    let carrier = CarrierPlan {
        kind: over,
        why: "a test".to_owned(),
        client: ssh.client.clone(),
    };
    let plan = match over {
        CarrierKind::Russh => plan,
        CarrierKind::Openssh => &ssh.plan,
    };
    let login = AnyCarrier::connect(&carrier, plan, Arc::new(NoPrompter));
    timeout(LOGIN, login).await.expect("an end of the login")
}

/// ConnectTimeout: an ssh for each lie at the same time takes longer.
fn patience(over: CarrierKind, seconds: u64) -> Duration {
    match over {
        CarrierKind::Russh => Duration::from_secs(seconds),
        CarrierKind::Openssh => Duration::from_secs(10),
    }
}

/// Which error it is, with what its words must say. They are for a terminal.
fn kind(error: &ConnectError) -> String {
    let text = error.to_string();
    assert!(
        text.len() < 1000 && !text.chars().any(char::is_control),
        "{text:?}"
    );
    let kind = format!("{error:?}");
    let kind = kind.split([' ', '(']).next().unwrap();
    let why = ["it sends without end", "it does not speak SSH 2"];
    let why = why.iter().find(|why| text.contains(*why));
    // Which of ssh's last words there are depends on what comes first, the end of the connection or a reset.
    let kind = match kind {
        "Ssh" => "Ended",
        kind => kind,
    };
    format!("{kind} {}", why.unwrap_or(&""))
        .trim_end()
        .to_owned()
}

/// Waits until no more than `tasks` are alive.
async fn no_task_is_left(tasks: usize, after: &str) {
    let alive = || Handle::current().metrics().num_alive_tasks();
    let until = Instant::now() + Duration::from_secs(30);
    while alive() > tasks {
        assert!(Instant::now() < until, "{} tasks after {after}", alive());
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_channel() {
    let table = lies_on_a_channel(CarrierKind::Russh).await;
    insta::assert_snapshot!(table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_channel_over_the_installed_ssh() {
    // No table: how much ssh passes on of what came before a lie that ends it is a matter of time.
    lies_on_a_channel(CarrierKind::Openssh).await;
}

async fn lies_on_a_channel(over: CarrierKind) -> String {
    let _alone = ONE_AT_A_TIME.lock().await;
    let liar = Asyncssh::start("liar.py");
    let echo = Echo::start().await;
    let before = Handle::current().metrics().num_alive_tasks();
    let plan = liar.plan();
    let mut table = String::new();
    for (i, lie) in liar.words().iter().enumerate() {
        let port = u16::try_from(i + 1).unwrap();
        let (tasks, memory) = (Handle::current().metrics().num_alive_tasks(), resident());
        let link = connect(over, &plan).await.unwrap();
        let target = Target(SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), port)));
        let seen = transcript(&link, target).await;
        assert!(
            !seen.contains("no answer") && !seen.contains("no end"),
            "{lie}: {seen}"
        );
        writeln!(table, "{lie:40}{seen}").unwrap();
        goes_on_or_is_lost(&link, echo.target(), lie).await;
        timeout(Duration::from_secs(2), link.shutdown())
            .await
            .unwrap();
        drop(link);
        // A master has a task that sleeps for some seconds: it is looked for once, in the end.
        if over == CarrierKind::Russh {
            no_task_is_left(tasks, lie).await;
        }
        let grown = resident().saturating_sub(memory);
        assert!(grown < MEMORY, "{grown} KiB after {lie}");
    }
    // The liar may keep a connection of its own to the echo.
    no_task_is_left(before + echo.open(), "all of them").await;
    table
}

/// What a flow to the lie saw.
async fn transcript(link: &impl Link, target: Target) -> String {
    let (reader, mut writer) = match timeout(FLOW, link.open(local(1), target)).await {
        Err(_) => return "no answer".to_owned(),
        Ok(Err(error)) => return error.to_string(),
        Ok(Ok(streams)) => streams,
    };
    let writing = async {
        // It may have no room, or no way.
        let _ = timeout(ROOM, writer.write(Bytes::from(vec![0; 100_000]))).await;
        writer
    };
    let (seen, _writer) = tokio::join!(read(reader), writing);
    seen
}

async fn read(mut reader: impl ByteReader) -> String {
    let (mut start, mut length) = (Vec::new(), 0);
    let end = loop {
        match timeout(FLOW, reader.read()).await {
            Ok(Ok(Some(chunk))) => {
                length += chunk.len();
                start.extend(chunk.iter().take(20 - start.len().min(20)));
            }
            Ok(Ok(None)) => break "end",
            Ok(Err(StreamError::Reset)) => break "reset",
            Ok(Err(StreamError::Lost)) => break "lost",
            Err(_) => break "no end",
        }
    };
    let start = String::from_utf8_lossy(&start).replace('\0', "");
    if length > start.len() {
        format!("{start}... {length} bytes, {end}")
    } else {
        format!("{start}, {end}")
    }
}

/// A flow that is opened after the lie works, or is told at once that nothing does.
async fn goes_on_or_is_lost(link: &impl Link, echo: Target, lie: &str) {
    let opened = timeout(FLOW, link.open(local(1), echo)).await;
    let Ok((mut reader, mut writer)) = opened.unwrap_or_else(|_| panic!("stuck after {lie}"))
    else {
        return;
    };
    let echoed = async {
        writer.write(Bytes::from_static(b"x")).await?;
        reader.read().await
    };
    match timeout(FLOW, echoed)
        .await
        .unwrap_or_else(|_| panic!("stuck after {lie}"))
    {
        Ok(data) => assert_eq!(data.unwrap(), "x"),
        Err(error) => assert_eq!(error, StreamError::Lost, "{lie}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_logging_in() {
    let table = lies_while_logging_in(CarrierKind::Russh).await;
    insta::assert_snapshot!(table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_logging_in_over_the_installed_ssh() {
    let table = lies_while_logging_in(CarrierKind::Openssh).await;
    insta::assert_snapshot!(table);
}

async fn lies_while_logging_in(over: CarrierKind) -> String {
    let _alone = ONE_AT_A_TIME.lock().await;
    let liar = Asyncssh::start("liar.py");
    let (tasks, memory) = (Handle::current().metrics().num_alive_tasks(), resident());
    let mut plan = liar.plan();
    plan.dialling.timeout = Some(patience(over, 5));
    let mut logins = JoinSet::new();
    let lies = [
        "banners",
        "unasked_success",
        "goodbye",
        "hang_up",
        "channel_before_login",
        "methods_without_end",
        "further_and_further",
        "half_an_answer",
    ];
    for lie in lies {
        let plan = SshPlan {
            user: lie.to_owned(),
            ..plan.clone()
        };
        logins.spawn(async move {
            let seen = match connect(over, &plan).await {
                Ok(link) => {
                    link.shutdown().await;
                    "logged in".to_owned()
                }
                Err(error) => kind(&error),
            };
            format!("{lie:40}{seen}\n")
        });
    }
    let mut table: Vec<String> = Vec::new();
    while let Some(line) = logins.join_next().await {
        table.push(line.unwrap());
    }
    table.sort();
    no_task_is_left(tasks, "the logins").await;
    let grown = resident().saturating_sub(memory);
    assert!(grown < MEMORY, "{grown} KiB");
    table.concat()
}

/// From the first byte to the end of the key exchange.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_keys() {
    let table = lies_before_the_keys(CarrierKind::Russh).await;
    insta::assert_snapshot!(table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_keys_over_the_installed_ssh() {
    let table = lies_before_the_keys(CarrierKind::Openssh).await;
    insta::assert_snapshot!(table);
}

async fn lies_before_the_keys(over: CarrierKind) -> String {
    let _alone = ONE_AT_A_TIME.lock().await;
    let (tasks, memory) = (Handle::current().metrics().num_alive_tasks(), resident());
    let mut logins = JoinSet::new();
    for (lie, tell) in raw::LIES {
        logins.spawn(async move {
            let port = raw::serve(tell).await;
            let mut plan = SshPlan {
                host_keys: HostKeyPolicy::Yes,
                ..SshPlan::new("127.0.0.1", port, "me")
            };
            plan.dialling.timeout = Some(patience(over, 3));
            let error = kind(&connect(over, &plan).await.err().unwrap());
            format!("{lie:40}{error}\n")
        });
    }
    let mut table: Vec<String> = Vec::new();
    while let Some(line) = logins.join_next().await {
        table.push(line.unwrap());
    }
    table.sort();
    no_task_is_left(tasks, "the handshakes").await;
    let grown = resident().saturating_sub(memory);
    assert!(grown < MEMORY, "{grown} KiB");
    table.concat()
}
