//! The near end with a stream and a clock.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::clock::{is_due, now};
use super::far::{Carries, Found, Means};
use super::frame::Fault;
use super::mux::{Counters, Heard, Mux};
use super::record::Record;
use super::start::{PATIENCE, Pauses, Trouble, probe, start};
use super::upload::{Begun, Upload, UploadError};
use crate::net::{ByteReader, ByteWriter, Exec, FlowKey};

/// Bytes that are written at once.
const BURST: usize = 32 << 10;
/// Takes what the far side says to applications, and makes what is kept of a flow. It never waits.
pub trait Deliver: Send + Sync {
    /// What is kept of a flow.
    type Record: Record;

    /// A flow begins, whose target is `far` on the far side.
    fn began(&self, key: FlowKey, far: SocketAddr) -> Self::Record;

    /// `key`'s target says something, or has not heard its source.
    fn deliver(&self, key: FlowKey, heard: Heard);
}

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nobody has sent a datagram yet.
    #[default]
    Idle,
    /// The far end is being started.
    Starting,
    /// It is on its way to the server.
    Uploading,
    /// It carries datagrams.
    Up(Means),
    /// There is none for now.
    Failed(Trouble),
    /// There was none, and the next datagram has it tried again.
    Again(Trouble),
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Idle => {
                f.write_str("by a helper on the server, once there is something to carry")
            }
            Self::Starting => f.write_str("by a helper on the server, which is being started"),
            Self::Uploading => f.write_str("by a helper, which is being uploaded to the server"),
            Self::Up(means) => write!(f, "by {means}"),
            Self::Failed(trouble) => write!(f, "not carried: {trouble}"),
            Self::Again(trouble) => write!(
                f,
                "not carried: {trouble}; it is tried again with the next datagram"
            ),
        }
    }
}

/// UDP by a far end.
pub struct Proxy<D: Deliver> {
    mux: Mutex<Mux<D::Record>>,
    state: Mutex<State>,
    /// Rung when there may be something to be sent.
    bell: Notify,
    /// Rung when something may end sooner than it was waited for.
    timer: Notify,
    deliver: Arc<D>,
    /// For a server that has nothing that carries everything.
    upload: Option<Upload>,
}

impl<D: Deliver> Proxy<D> {
    /// One that has nothing to carry yet.
    pub fn new(deliver: Arc<D>) -> Self {
        Self {
            mux: Mutex::default(),
            state: Mutex::default(),
            bell: Notify::new(),
            timer: Notify::new(),
            deliver,
            upload: None,
        }
    }

    /// The same with a helper for servers that have none that carries everything.
    pub fn with_upload(self, upload: Option<Upload>) -> Self {
        Self { upload, ..self }
    }

    /// A datagram of an application, whose target is `far` on the far side. `false`: nobody carries it, and who sent it should
    /// hear so.
    pub fn handle_datagram(&self, key: FlowKey, far: SocketAddr, payload: &[u8]) -> bool {
        if matches!(*lock(&self.state), State::Failed(_)) {
            return false;
        }
        let began = || self.deliver.began(key, far);
        lock(&self.mux).handle_datagram(now(), key, far, payload, began);
        self.bell.notify_one();
        self.timer.notify_one();
        true
    }

    /// How things stand.
    pub fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        lock(&self.mux).counters()
    }

    fn set(&self, state: State) {
        *lock(&self.state) = state;
    }

    /// Carries datagrams as long as it is polled, with a far end that `exec` runs: started with the first datagram, or at once
    /// where one may be uploaded, and again when it was lost.
    pub async fn run(&self, exec: &impl Exec) -> Infallible {
        tokio::select! {
            never = self.keep_time() => never,
            never = self.keep_stream(exec) => never,
        }
    }

    async fn keep_time(&self) -> Infallible {
        loop {
            let due = lock(&self.mux).poll_timeout();
            if is_due(due, &self.timer).await {
                lock(&self.mux).handle_timeout(now());
                self.bell.notify_one();
            }
        }
    }

    async fn keep_stream(&self, exec: &impl Exec) -> Infallible {
        let mut pauses = Pauses::default();
        // A program is long on its way to the server: it goes ahead of the first datagram.
        let mut goes_ahead = self.upload.is_some();
        let mut refused = None;
        loop {
            while !goes_ahead && !lock(&self.mux).wants() {
                self.bell.notified().await;
            }
            self.set(State::Starting);
            let trouble = match self.carry(exec, &mut refused).await {
                Ok(never) => match never {},
                Err(trouble) => trouble,
            };
            let lasted = lock(&self.mux).up().map(|up| now() - up);
            lock(&self.mux).handle_lost(&trouble.to_string());
            if trouble == Trouble::Lost {
                // There may be another server behind the next connection.
                refused = None;
            }
            let pause = pauses.after("UDP", &trouble, lasted);
            goes_ahead = self.upload.is_some() && pause.is_none();
            self.set(match pause {
                Some(pause) => {
                    self.set(State::Failed(trouble.clone()));
                    sleep(pause).await;
                    State::Again(trouble)
                }
                None => State::Idle,
            });
        }
    }

    /// Starts a far end and carries datagrams to its end. `refused` is why none is uploaded any more.
    async fn carry<E: Exec>(
        &self,
        exec: &E,
        refused: &mut Option<UploadError>,
    ) -> Result<Infallible, Trouble> {
        let begun = self.begin(exec, &probe(exec).await?, refused).await?;
        lock(&self.mux).handle_start(begun.means.carries());
        tokio::select! {
            ended = self.hear(begun.reader, begun.means, begun.heard) => ended,
            ended = self.say(begun.writer) => ended,
        }
    }

    /// Starts the best far end that there can be.
    async fn begin<E: Exec>(
        &self,
        exec: &E,
        found: &Found,
        refused: &mut Option<UploadError>,
    ) -> Result<Begun<E::Reader, E::Writer>, Trouble> {
        let has_all = found
            .means
            .is_some_and(|means| means.carries() == Carries::Everything);
        let mut trouble = Trouble::NoMeans;
        if let Some(upload) = self.upload.as_ref().filter(|_| !has_all) {
            trouble = match refused {
                Some(error) => Trouble::Upload(error.clone()),
                None => {
                    self.set(State::Uploading);
                    match upload.begin(exec, &found.system).await {
                        Ok(begun) => return Ok(begun),
                        Err(trouble) => trouble,
                    }
                }
            };
            if let Trouble::Upload(error) = &trouble {
                *refused = Some(error.clone()).filter(UploadError::is_final);
            }
        }
        let Some(means) = found.means.filter(|_| trouble != Trouble::Lost) else {
            return Err(trouble);
        };
        if trouble != Trouble::NoMeans {
            tracing::warn!("{trouble}; UDP goes by {means}");
        }
        let (reader, writer) = start(exec, means.name(), &means.command(), means.program()).await?;
        Ok(Begun {
            means,
            reader,
            writer,
            heard: Bytes::new(),
        })
    }

    async fn hear(
        &self,
        mut reader: impl ByteReader,
        means: Means,
        mut piece: Bytes,
    ) -> Result<Infallible, Trouble> {
        let deadline = Instant::now() + PATIENCE;
        let mut is_up = false;
        loop {
            self.handle_piece(&piece)?;
            if !is_up && lock(&self.mux).up().is_some() {
                is_up = true;
                tracing::info!("UDP goes by {means} on the server");
                self.set(State::Up(means));
            }
            self.bell.notify_one();
            self.timer.notify_one();
            let read = match is_up {
                true => reader.read().await,
                false => timeout_at(deadline, reader.read())
                    .await
                    .map_err(|_| Trouble::Silent(means.name()))?,
            };
            piece = read?.ok_or(Trouble::Ended)?;
        }
    }

    fn handle_piece(&self, piece: &[u8]) -> Result<(), Fault> {
        let mut all = Vec::new();
        let handled = lock(&self.mux).handle_bytes(now(), piece, &mut |key, heard| {
            all.push((key, heard));
        });
        for (key, heard) in all {
            self.deliver.deliver(key, heard);
        }
        handled
    }

    async fn say(&self, mut writer: impl ByteWriter) -> Result<Infallible, Trouble> {
        loop {
            let bytes = lock(&self.mux).next_bytes(now(), BURST);
            if bytes.is_empty() {
                writer.flush();
                self.bell.notified().await;
            } else {
                writer.write(bytes).await?;
            }
        }
    }
}

/// Everything behind these locks is whole at every moment, whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
