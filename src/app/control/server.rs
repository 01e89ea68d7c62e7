//! The instance's end of the control socket.

use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Uid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::protocol::{self, Answer, MAX_REQUEST, Request};
use super::report::{FlowReport, Report};

/// How many clients are heard at a time. Others wait in the socket's queue.
pub const CLIENTS: usize = 16;
/// Flows in one answer at most: whoever wants more asks again.
pub const PAGE: usize = 512;
/// How long a client may take for its request. Those that say nothing hold others up no longer than that.
pub const REQUEST: Duration = Duration::from_secs(1);
/// How long a client may take to take an answer.
pub const ANSWER: Duration = Duration::from_secs(5);
/// How long those that wait for the end may take to hear of it.
const FAREWELL: Duration = Duration::from_millis(500);
/// After an accept that failed, for want of descriptors.
const BREATH: Duration = Duration::from_millis(200);

/// What an instance is told to do.
#[derive(Debug)]
pub enum Order {
    /// End in good order.
    Stop,
    /// Read subnets and exclusions again; what came of it goes to whoever has asked.
    Reload(Option<oneshot::Sender<Result<String, String>>>),
}

/// Whoever knows what there is to say.
pub trait Tells: Send + Sync {
    /// How it stands.
    fn report(&self) -> Report;

    /// The first [`PAGE`] flows behind number `after`, and the number to go on behind, where there are more.
    fn flows(&self, after: u64) -> (Vec<FlowReport>, Option<u64>);
}

/// What is answered from.
struct Shared {
    tells: Arc<dyn Tells>,
    orders: mpsc::Sender<Order>,
    /// The exit code, once it is known.
    ended: watch::Receiver<Option<u8>>,
}

/// Answers until [`Server::end`].
#[derive(Debug)]
pub struct Server {
    accepting: JoinHandle<()>,
    ended: watch::Sender<Option<u8>>,
}

impl Server {
    /// Answers the clients of `listener` from `tells`, and passes on what they want done.
    ///
    /// # Errors
    /// The runtime cannot watch the socket.
    pub fn start(
        listener: StdListener,
        tells: Arc<dyn Tells>,
        orders: mpsc::Sender<Order>,
    ) -> io::Result<Self> {
        let listener = UnixListener::from_std(listener)?;
        let (ended, watched) = watch::channel(None);
        let shared = Arc::new(Shared {
            tells,
            orders,
            ended: watched,
        });
        Ok(Self {
            accepting: tokio::spawn(accept(listener, shared)),
            ended,
        })
    }

    /// Tells who waits for the end that it is there, and hears nobody any more.
    pub async fn end(mut self, exit: u8) {
        self.ended.send_replace(Some(exit));
        if timeout(FAREWELL, &mut self.accepting).await.is_err() {
            debug!("somebody on the control socket did not take the last word");
            self.accepting.abort();
        }
    }
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    let mut clients = JoinSet::new();
    let mut ended = shared.ended.clone();
    let over = async move { drop(ended.wait_for(Option::is_some).await) };
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = &mut over => break,
            accepted = listener.accept(), if clients.len() < CLIENTS => match accepted {
                Ok((stream, _)) => {
                    clients.spawn(serve(stream, Arc::clone(&shared)));
                }
                Err(error) => {
                    debug!("control socket: {error}");
                    sleep(BREATH).await;
                }
            },
            Some(_) = clients.join_next() => {}
        }
    }
    drop(listener);
    clients.join_all().await;
}

/// A client that goes away, or does not listen, has only itself to blame.
async fn serve(stream: UnixStream, shared: Arc<Shared>) {
    match is_allowed(&stream) {
        Ok(true) => {}
        Ok(false) => return debug!("control socket: another user was refused"),
        Err(error) => return debug!("control socket: {error}"),
    }
    let client = Client(BufReader::new(stream));
    if let Err(error) = client.serve(&shared).await {
        debug!("control socket: {error}");
    }
}

/// Our own user, and root.
fn is_allowed(stream: &UnixStream) -> io::Result<bool> {
    let uid = stream.peer_cred()?.uid();
    Ok(uid == 0 || uid == Uid::effective().as_raw())
}

struct Client(BufReader<UnixStream>);

impl Client {
    async fn serve(mut self, shared: &Shared) -> io::Result<()> {
        let mut ended = shared.ended.clone();
        let line = tokio::select! {
            line = timeout(REQUEST, self.line()) => line??,
            _ = ended.wait_for(Option::is_some) => return Ok(()),
        };
        match protocol::request(&line) {
            Ok(Request::Status {}) => {
                let report = Box::new(shared.tells.report());
                self.answer(&Answer::Report { report }).await
            }
            Ok(Request::Flows { after }) => {
                let (flows, next) = shared.tells.flows(after);
                self.answer(&Answer::Flows { flows, next }).await
            }
            Ok(Request::Down {}) => self.down(shared).await,
            Ok(Request::Reload {}) => {
                let answer = reload(shared).await;
                self.answer(&answer).await
            }
            Err(error) => {
                let why = error.to_string();
                self.answer(&Answer::Failed { why }).await
            }
        }
    }

    async fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let mut limited = (&mut self.0).take(MAX_REQUEST as u64);
        limited.read_until(b'\n', &mut line).await?;
        Ok(line)
    }

    async fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        let line = protocol::line(answer)?;
        timeout(ANSWER, self.0.write_all(&line)).await??;
        Ok(())
    }

    async fn down(mut self, shared: &Shared) -> io::Result<()> {
        if shared.orders.send(Order::Stop).await.is_err() {
            return self.answer(&unheard()).await;
        }
        let pid = std::process::id();
        self.answer(&Answer::Stopping { pid }).await?;
        let mut ended = shared.ended.clone();
        let mut rest = [0; 1];
        let exit = tokio::select! {
            exit = ended.wait_for(Option::is_some) => exit.ok().and_then(|exit| *exit),
            // The client has gone; nothing else may come.
            _ = self.0.read(&mut rest) => None,
        };
        let Some(exit) = exit else {
            return Ok(());
        };
        self.answer(&Answer::Ended { exit }).await?;
        // Left open: the client waits until the kernel closes it, when this process has ended.
        let _ = self.0.into_inner().into_std()?.into_raw_fd();
        Ok(())
    }
}

async fn reload(shared: &Shared) -> Answer {
    let (reply, replied) = oneshot::channel();
    if shared
        .orders
        .send(Order::Reload(Some(reply)))
        .await
        .is_err()
    {
        return unheard();
    }
    match replied.await {
        Ok(Ok(what)) => Answer::Reloaded { what },
        Ok(Err(why)) => Answer::Failed { why },
        Err(_) => unheard(),
    }
}

fn unheard() -> Answer {
    let why = "it is ending".to_owned();
    Answer::Failed { why }
}
