//! One ssh process: its start, until its control socket answers, and its end.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStderr};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tracing::debug;

use super::client::{Asks, Client, SshError};
use super::den::Den;
use super::facts::Stage;
use super::hearing::{Hearing, Source};
use super::refusal::Refusal;
use super::terminal::{Login, Screen};
use super::words::Words;
use super::{hello, wait};
use crate::carrier::error::{ConnectError, LostReason};
use crate::carrier::examine::Tunnel;
use crate::carrier::link::Description;
use crate::carrier::processes;
use crate::os::Made;
use crate::os::child::Terminal;
use crate::plan::{Route, SshPlan};

/// How long ssh may take to end when it is asked to.
const GRACE: Duration = Duration::from_millis(500);
/// How long what an ssh that was killed has started may take to end.
const HANG_UP: Duration = Duration::from_millis(100);
/// How long an ssh that has closed its control socket may take to end by itself, and to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long what it has said is still waited for when it has ended.
const DRAIN: Duration = Duration::from_millis(100);
/// How long the log of a login may take to be read when it is known to have succeeded.
const READ: Duration = Duration::from_secs(2);

/// An ssh that is logged in. It ends when this is dropped.
pub(super) struct Master {
    pid: Pid,
    words: Arc<Mutex<Words>>,
    stop: Option<oneshot::Sender<()>>,
    ended: watch::Receiver<bool>,
    /// It has been waited for.
    gone: Arc<AtomicBool>,
    /// While it may ask on the person's terminal.
    login: Option<Login>,
}

impl Master {
    /// Starts ssh and waits until it is logged in and its control socket carries channels.
    ///
    /// # Errors
    /// [`ConnectError`], with ssh's last words.
    pub(super) async fn start(
        client: &Client,
        asks: Asks,
    ) -> Result<(Self, UnixStream), ConnectError> {
        let since = Instant::now();
        let den = Den::make().map_err(failed("a directory for its socket"))?;
        let path = den.path().join("m");
        let made = Made::watch(den.path()).map_err(failed("inotify"))?;
        let mut master = Self::spawn(client, &path, asks)?;
        let words = Arc::clone(&master.words);
        let mut stages = master.words().stages();
        let may_ask = master.login.is_some();
        let is_in_time = tokio::select! {
            made = made.until(&path) => made.map(|()| true).map_err(failed("inotify"))?,
            () = master.wait() => true,
            () = wait::overdue(stages.clone(), client.plan()) => false,
            never = wait::tell(&words, client.plan(), asks, may_ask) => match never {},
        };
        if !is_in_time || *master.ended.borrow() {
            let words = &*master.words();
            let (plan, taken) = (client.plan(), since.elapsed());
            let refusal = Refusal { plan, words, taken };
            return Err(if is_in_time {
                refusal.error()
            } else {
                refusal.overdue()
            });
        }
        master.not_careless(client.plan(), since)?;
        let mut socket = UnixStream::connect(&path)
            .await
            .map_err(failed("its control socket"))?;
        hello::proxy(&mut socket).await?;
        // Nobody else is to find it. ssh needs it no more.
        drop(den);
        if client.tells() {
            // Without it the description lacks something.
            let _ = timeout(READ, stages.wait_for(|stage| *stage == Stage::Done)).await;
        }
        master.login = None;
        master.words().logged_in();
        Ok((master, socket))
    }

    /// # Errors
    /// Where a jump host's own ssh has let a key pass that has changed.
    fn not_careless(&self, plan: &SshPlan, since: Instant) -> Result<(), ConnectError> {
        let (words, taken) = (&*self.words(), since.elapsed());
        Refusal { plan, words, taken }
            .careless()
            .map_or(Ok(()), Err)
    }

    fn spawn(client: &Client, path: &Path, asks: Asks) -> Result<Self, SshError> {
        let (screen, login, terminal) = match asks {
            Asks::Person => match Screen::open() {
                Some((screen, login, own)) => (Some(screen), Some(login), Terminal::Own(own)),
                None => (None, None, Terminal::Shared),
            },
            Asks::Nobody => (None, None, Terminal::None),
        };
        let (mut child, log) =
            client
                .master(path, asks, terminal)
                .map_err(|source| match source.kind() {
                    io::ErrorKind::NotFound => SshError::Missing,
                    _ => failed("the process")(source),
                })?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let Some(id) = id else {
            return Err(failed("the process")(io::ErrorKind::NotFound.into()));
        };
        let source = |pipe: OwnedFd| pipe::Receiver::from_owned_fd(pipe).map(Source::new);
        let missing = || io::Error::other("it has no stderr");
        let asides = child.stderr.take().ok_or_else(missing);
        let asides = asides.and_then(ChildStderr::into_owned_fd);
        let is_by_command = matches!(client.plan().route, Route::Command(_));
        let words = Words::of(id, client.said()).by_command(is_by_command);
        let words = Arc::new(Mutex::new(words));
        let hearing = Hearing {
            log: source(log.into()).map_err(failed("its log"))?,
            asides: asides.and_then(source).map_err(failed("its stderr"))?,
            screen,
            words: Arc::clone(&words),
        };
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = watch::channel(false);
        let gone = Arc::new(AtomicBool::new(false));
        let is_gone = Arc::clone(&gone);
        let pid = Pid::from_raw(id);
        tokio::spawn(async move {
            supervise(child, hearing.listen(), &is_gone, stopped).await;
            let _ = end.send(true);
        });
        Ok(Self {
            pid,
            words,
            stop: Some(stop),
            ended,
            gone,
            login,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    pub(super) fn description(&self) -> Description {
        self.words().facts.description()
    }

    /// What the server says of a tunnel that it is asked for.
    pub(super) fn tunnel(&self) -> watch::Receiver<Option<Tunnel>> {
        self.words().tunnel()
    }

    /// Ends ssh, which may be ending by itself, and tells why it has.
    pub(super) async fn end(mut self, is_ending: bool) -> LostReason {
        if is_ending {
            // One that does not is ended below.
            let _ = timeout(LAST_WORDS, self.wait()).await;
        }
        drop(self.stop.take());
        self.wait().await;
        self.words().loss()
    }

    async fn wait(&mut self) {
        // The sender goes only after it has sent, or with the runtime.
        let _ = self.ended.wait_for(|ended| *ended).await;
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        // Texts for people: nothing depends on them.
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Master {
    /// In the middle of a login there may be a question on the terminal, and the next one behind it: ended at once,
    /// so that what is put back stays so.
    fn drop(&mut self) {
        if self.gone.load(Relaxed) {
            return;
        }
        let mut tree = processes::tree(self.pid());
        // An error means that it is gone.
        let _ = kill(self.pid, Signal::SIGKILL);
        // What it would have told its ProxyCommand. Nobody else is left to do it, and this process may be about to end.
        processes::signal(&tree, Signal::SIGHUP);
        let since = Instant::now();
        while !tree.is_empty() && since.elapsed() < HANG_UP {
            std::thread::sleep(Duration::from_millis(5));
            tree.retain(|pid| processes::is_alive(*pid));
        }
        processes::signal(&tree, Signal::SIGKILL);
    }
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> SshError {
    move |source| SshError::Start { step, source }
}

/// Hears what ssh says until it has ended; ends it when it is told to.
async fn supervise(
    mut child: Child,
    listening: impl Future<Output = ()>,
    gone: &AtomicBool,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut listening = std::pin::pin!(listening);
    let (mut is_heard, mut deadline) = (false, None);
    let (mut is_told, never) = (false, Instant::now() + Duration::from_secs(1 << 30));
    let mut tree = Vec::new();
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            () = &mut listening, if !is_heard => is_heard = true,
            // Nothing is ever sent: the sender is dropped.
            _ = &mut stopped, if !is_told => {
                is_told = true;
                deadline = Some(Instant::now() + GRACE);
                tree = processes::tree(child.id().unwrap_or_default());
                terminate(&child);
            }
            () = tokio::time::sleep_until(deadline.unwrap_or(never).into()) => {
                deadline = None;
                // An error means that it is gone.
                let _ = child.start_kill();
            }
        }
    };
    gone.store(true, Relaxed);
    // In the middle of a login it tells its ProxyCommand nothing.
    tree.retain(|pid| processes::is_alive(*pid));
    processes::signal(&tree, Signal::SIGHUP);
    if !is_heard {
        // What ssh has started may keep the pipe open.
        let _ = timeout(DRAIN, listening).await;
    }
    debug!("ssh has ended: {status:?}");
    if !tree.is_empty() {
        tokio::time::sleep(GRACE).await;
        tree.retain(|pid| processes::is_alive(*pid));
        processes::signal(&tree, Signal::SIGKILL);
    }
}

fn terminate(child: &Child) {
    // There is no number once it has been waited for.
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(id) = id {
        // An error means that it is gone.
        let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
    }
}
