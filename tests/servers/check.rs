//! What a server must carry, over every carrier.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;
use underpass::carrier::{Link, NoPrompter, OpensshCarrier, Prompter, RusshCarrier};
use underpass::net::{
    ByteReader, ByteWriter, Carrier, OpenError, OpenFailure, StreamError, Target,
};
use underpass::plan::SshPlan;

use crate::client::Configured;
use crate::rig::{self, Echo, local, read_all};

/// How long one step may take, on a machine that does much else.
const SOON: Duration = Duration::from_secs(60);
/// How many flows run at a time.
const FLOWS: usize = 50;

/// A row of the matrix: how to log in, and what the server is like.
pub(crate) struct Row {
    pub(crate) plan: SshPlan,
    pub(crate) prompter: Arc<dyn Prompter>,
    pub(crate) forwards: Forwards,
}

/// What a server does with `direct-tcpip`.
pub(crate) enum Forwards {
    /// Everything; so it refuses what nobody listens at.
    All { refused: OpenError },
    /// Only this target, an echo; the others so.
    Only { target: Target, others: OpenError },
    /// Nothing; so it says it.
    Nothing(OpenError),
    /// Nothing, so it says it, until it ends with the session that was run to begin with.
    NothingAndEnds(OpenError),
    /// Everything, until this file is there.
    Until(PathBuf),
}

impl Forwards {
    /// Everything, and a closed port is told as `text`.
    pub(crate) fn all(text: &str) -> Self {
        Self::All {
            refused: OpenError::new(OpenFailure::Refused, text),
        }
    }
}

impl Row {
    pub(crate) fn new(plan: SshPlan, forwards: Forwards) -> Self {
        Self {
            plan,
            prompter: Arc::new(NoPrompter),
            forwards,
        }
    }

    /// Runs it over every carrier.
    pub(crate) async fn holds(&self) {
        let russh = RusshCarrier::connect(&self.plan, Arc::clone(&self.prompter));
        self.holds_over(soon(russh).await.unwrap()).await;
        let ssh = Configured::new(&self.plan);
        let openssh = OpensshCarrier::connect(&ssh.plan, &ssh.client);
        self.holds_over(soon(openssh).await.unwrap()).await;
    }

    async fn holds_over(&self, link: impl Link + 'static) {
        let link = Arc::new(link);
        match &self.forwards {
            Forwards::All { refused } => {
                let echo = Echo::start().await;
                transfers(&*link, echo.target()).await;
                goes_half_closed(&*link).await;
                lets_the_server_begin(&*link).await;
                refuses(&*link, rig::closed_port().await, refused).await;
                many(&link, echo.target()).await;
            }
            Forwards::Only { target, others } => {
                transfers(&*link, *target).await;
                refuses(&*link, Echo::start().await.target(), others).await;
                transfers(&*link, *target).await;
            }
            Forwards::Nothing(error) => {
                let echo = Echo::start().await;
                for _ in 0..3 {
                    refuses(&*link, echo.target(), error).await;
                }
                assert_eq!(echo.seen(), 0);
            }
            Forwards::NothingAndEnds(says) => {
                let echo = Echo::start().await;
                while let Some(error) = soon(link.open(local(1), echo.target())).await.err()
                    && error != OpenError::new(OpenFailure::ConnectionLost, "")
                {
                    assert_eq!(&error, says);
                }
                soon(link.lost()).await;
                assert_eq!(echo.seen(), 0);
            }
            Forwards::Until(end) => {
                let echo = Echo::start().await;
                transfers(&*link, echo.target()).await;
                let (mut reader, _writer) = open(&*link, echo.target()).await;
                fs::write(end, "").unwrap();
                assert_eq!(soon(reader.read()).await, Err(StreamError::Lost));
                soon(link.lost()).await;
                fs::remove_file(end).unwrap();
            }
        }
        ends(link, &self.forwards).await;
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(SOON, what).await.expect("in time")
}

async fn open<L: Link>(link: &L, target: Target) -> (L::Reader, L::Writer) {
    soon(link.open(local(1), target)).await.unwrap()
}

/// Bytes that no two flows share.
fn bytes(seed: u64, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes.into()
}

/// A megabyte there and back, unharmed, and the end of one direction does not end the other.
async fn transfers(link: &impl Link, echo: Target) {
    let sent = bytes(1, 1 << 20);
    let streams = open(link, echo).await;
    let back = soon(echoed(streams, sent.clone())).await.unwrap();
    assert!(back == sent, "{} bytes came back", back.len());
}

async fn echoed<R: ByteReader, W: ByteWriter>(
    (mut reader, mut writer): (R, W),
    data: Bytes,
) -> Result<Vec<u8>, StreamError> {
    let writing = async {
        for start in (0..data.len()).step_by(32 << 10) {
            let end = data.len().min(start + (32 << 10));
            writer.write(data.slice(start..end)).await?;
        }
        writer.flush();
        writer.finish().await
    };
    let (written, back) = tokio::join!(writing, read_all(&mut reader));
    written.and(back)
}

/// The far side answers when it has seen our end.
async fn goes_half_closed(link: &impl Link) {
    let counter = rig::serve(|mut stream| async move {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        let _ = stream.write_all(all.len().to_string().as_bytes()).await;
    })
    .await;
    let (mut reader, mut writer) = open(link, Target(counter)).await;
    writer.write(bytes(2, 100_000)).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(soon(read_all(&mut reader)).await.unwrap(), b"100000");
}

/// A service that speaks first, and ends first.
async fn lets_the_server_begin(link: &impl Link) {
    let greeter = rig::serve(|mut stream| async move {
        let _ = stream.write_all(b"220 ready\r\n").await;
    })
    .await;
    let (mut reader, mut writer) = open(link, Target(greeter)).await;
    assert_eq!(soon(read_all(&mut reader)).await.unwrap(), b"220 ready\r\n");
    let _ = soon(writer.finish()).await;
}

async fn refuses(link: &impl Link, target: Target, expected: &OpenError) {
    let error = soon(link.open(local(1), target)).await.err();
    let error = error.expect("refused");
    assert_eq!(error.failure, expected.failure, "{error}");
    // Some servers name the target in their text.
    let text = expected.text.replace("PORT", &target.0.port().to_string());
    assert_eq!(error.text, text);
}

async fn many<L: Link + 'static>(link: &Arc<L>, echo: Target) {
    let mut flows = JoinSet::new();
    for seed in 0..FLOWS as u64 {
        let link = Arc::clone(link);
        flows.spawn(async move {
            let sent = bytes(seed, 64 << 10);
            let streams = link.open(local(1), echo).await.unwrap();
            let back = echoed(streams, sent.clone()).await.unwrap();
            assert!(back == sent, "flow {seed}: {} bytes came back", back.len());
        });
    }
    while let Some(flow) = soon(flows.join_next()).await {
        flow.unwrap();
    }
}

/// A clean end, also for a flow that is still open.
async fn ends<L: Link>(link: Arc<L>, forwards: &Forwards) {
    let mut left = None;
    if matches!(forwards, Forwards::All { .. }) {
        let echo = Echo::start().await;
        left = Some(open(&*link, echo.target()).await);
    }
    soon(link.shutdown()).await;
    soon(link.lost()).await;
    if let Some((mut reader, _writer)) = left {
        assert_eq!(soon(reader.read()).await, Err(StreamError::Lost));
    }
    let late = soon(link.open(local(1), rig::closed_port().await)).await;
    assert_eq!(late.err().unwrap().failure, OpenFailure::ConnectionLost);
}

/// Much both ways at a time, over one connection.
pub(crate) async fn carries_both_ways(plan: SshPlan) {
    let plan = SshPlan {
        connections: Some(1),
        ..plan
    };
    let link = RusshCarrier::connect(&plan, Arc::new(NoPrompter));
    let link = Arc::new(soon(link).await.unwrap());
    let echo = Echo::start().await.target();
    let mut flows = JoinSet::new();
    for seed in 0..4 {
        let link = Arc::clone(&link);
        flows.spawn(async move {
            let sent = bytes(seed, 32 << 20);
            let streams = link.open(local(1), echo).await.unwrap();
            let back = echoed(streams, sent.clone()).await;
            let back = back.unwrap();
            assert!(back == sent, "flow {seed}: {} bytes came back", back.len());
        });
    }
    while let Some(flow) = timeout(Duration::from_secs(60), flows.join_next())
        .await
        .expect("in time")
    {
        flow.unwrap();
    }
}
