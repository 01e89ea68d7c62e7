//! The TUN inlet: a driver that feeds the engine, and the streams of its flows.

mod busy_poll;
mod stream;
mod vnet;

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smoltcp::time::Instant;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time;

use crate::engine::{
    Arrival, Batch, Checksum, Config, Drops, Engine, Frame, HEADROOM, Outlet, Scratch,
};
use crate::net::{Source, Target};
use crate::os::memory;

use super::device::read_some;
use busy_poll::BusyPoll;

pub use super::device::Device;
pub use crate::engine::reject::Unreachable;
pub use crate::engine::{Beside, Datagram, Echo, NameServers, Others, Parties, Pings, Udp, Ways};
pub use stream::{TunInbound, TunReader, TunWriter};

/// The inlet: packets in, [`TunInbound`]s out.
pub struct Tun<D: Device> {
    shared: Arc<Shared<D>>,
}

/// What the driver and the streams of all flows share.
struct Shared<D: Device> {
    engine: Engine<Port<D>>,
    began: time::Instant,
}

/// The way out of the engine: the device, a bell for the timer task, and who is told that packets go out.
struct Port<D: Device> {
    device: AsyncFd<D>,
    timer_moved: Notify,
    busy_poll: Arc<BusyPoll>,
    failed_writes: AtomicU64,
}

impl<D: Device> Clone for Tun<D> {
    /// The same inlet.
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<D: Device> Tun<D> {
    /// An inlet over `device`, with a name server at some of its addresses. `seed` makes initial sequence numbers unpredictable.
    pub fn new(device: AsyncFd<D>, seed: u64, name_servers: NameServers) -> Self {
        let config = Config {
            mtu: device.get_ref().mtu(),
            offload: device.get_ref().offload(),
            seed,
            name_servers,
            ..Config::default()
        };
        let port = Port {
            device,
            timer_moved: Notify::new(),
            busy_poll: Arc::default(),
            failed_writes: AtomicU64::new(0),
        };
        Self {
            shared: Arc::new(Shared {
                engine: Engine::new(config, port),
                began: time::Instant::now(),
            }),
        }
    }

    /// How often packets went no further, by reason.
    pub fn drops(&self) -> &Drops {
        self.shared.engine.drops()
    }

    /// Packets that the device did not take.
    pub fn failed_writes(&self) -> u64 {
        self.shared
            .engine
            .outlet()
            .failed_writes
            .load(Ordering::Relaxed)
    }

    /// Resets every flow, so that applications learn at once that nothing carries them any more.
    pub fn reset_flows(&self) {
        self.shared.engine.abandon_all(self.shared.now());
    }

    /// From here on, what is no flow goes these ways; at first it goes none.
    pub fn carry(&self, ways: Ways) {
        self.shared.engine.carry(ways);
    }

    /// What answers datagrams, and takes packets out of a tunnel.
    pub fn answers(&self) -> Answers<D> {
        Answers(Arc::clone(&self.shared))
    }

    /// Runs the inlet until the device is gone; each new flow is given to `on_inbound`, each datagram to a name server to
    /// `on_name`, and what else the [`Ways`] have carried to `on_beside`. None may block.
    ///
    /// # Errors
    /// What reading from the device said last, for example when the interface was deleted.
    pub async fn run(
        &self,
        on_inbound: impl Fn(TunInbound<D>),
        on_name: impl Fn(Datagram<'_>),
        on_beside: impl Fn(Beside<'_>),
    ) -> io::Result<()> {
        let mut beside = JoinSet::new();
        if is_awake_for_opens() {
            let busy_poll = Arc::clone(&self.shared.engine.outlet().busy_poll);
            let began = self.shared.began;
            beside.spawn(async move { busy_poll.run(|| began.elapsed()).await });
        }
        tokio::select! {
            result = self.read_packets(on_inbound, on_name, on_beside) => result,
            never = self.keep_time() => match never {},
        }
    }

    async fn read_packets(
        &self,
        on_inbound: impl Fn(TunInbound<D>),
        on_name: impl Fn(Datagram<'_>),
        on_beside: impl Fn(Beside<'_>),
    ) -> io::Result<()> {
        let shared = &self.shared;
        let Port {
            device, busy_poll, ..
        } = shared.engine.outlet();
        let mut buffer = Scratch::default();
        let mut batch = Batch::default();
        loop {
            read_some(device, &mut buffer, |bytes| {
                match shared.take(&mut batch, bytes) {
                    Some(Arrival::Flow(flow)) => {
                        on_inbound(TunInbound::new(Arc::clone(shared), flow));
                    }
                    Some(Arrival::Name(datagram)) => on_name(datagram),
                    Some(Arrival::Beside(beside)) => on_beside(beside),
                    None => {}
                }
            })
            .await?;
            busy_poll.heard();
            shared.engine.end_batch(&mut batch, shared.now());
            // What came is passed on before it is acknowledged: a write to the device costs as much as the relay itself.
            tokio::task::yield_now().await;
            shared.engine.acknowledge(&mut batch, shared.now());
        }
    }

    async fn keep_time(&self) -> std::convert::Infallible {
        let shared = &self.shared;
        let bell = &shared.engine.outlet().timer_moved;
        loop {
            let due = shared.engine.poll_timeout().map(|at| shared.instant(at));
            tokio::select! {
                () = bell.notified() => {}
                () = sleep_until(due) => {
                    shared.engine.handle_timeout(shared.now());
                    // There may be more that is due; packets come in between.
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// Whether one thread does everything, so that it does not sleep while its task is awake, and leaves a core to others.
fn is_awake_for_opens() -> bool {
    let has_one_thread = Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread;
    has_one_thread && std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1)
}

async fn sleep_until(due: Option<time::Instant>) {
    match due {
        Some(at) => time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl<D: Device> Shared<D> {
    fn now(&self) -> Instant {
        Instant::from_micros(self.began.elapsed().as_micros() as i64)
    }

    fn instant(&self, at: Instant) -> time::Instant {
        self.began + Duration::from_micros(at.total_micros().try_into().unwrap_or(0))
    }

    fn take<'a>(&self, batch: &mut Batch, bytes: &'a mut [u8]) -> Option<Arrival<'a>> {
        let decoded = if self.engine.outlet().device.get_ref().offload() {
            vnet::decode(bytes)
        } else {
            Some((Checksum::Unverified, &*bytes))
        };
        let (checksum, packet) = decoded?;
        self.engine
            .handle_packet_in(batch, self.now(), packet, checksum)
    }
}

/// Sends to applications what came for them beside the flows.
pub struct Answers<D: Device>(Arc<Shared<D>>);

impl<D: Device> Clone for Answers<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D: Device> Answers<D> {
    /// Sends `message` in the name of the name server `from`.
    pub fn send(&self, from: Target, to: Source, message: &[u8]) {
        self.0.engine.answer_name(from, to, message);
    }

    /// Sends a packet that came out of a tunnel, where that is for us: whether it is.
    pub fn packet(&self, packet: &[u8]) -> bool {
        self.0.engine.packet_from_far(self.0.now(), packet)
    }

    /// Sends a datagram of `payload` in the name of `from`.
    pub fn datagram(&self, from: Target, to: Source, payload: &[u8]) {
        self.0.engine.answer_datagram(from, to, payload);
    }

    /// Tells who sent `datagram` that it was not delivered.
    pub fn unreachable(&self, datagram: &Datagram<'_>, what: Unreachable) {
        self.0.engine.answer_unreachable(datagram, what);
    }

    /// Answers `echo` in the name of its target, which has answered.
    pub fn echo(&self, echo: &Echo<'_>) {
        self.0.engine.answer_echo(echo);
    }

    /// Tells who sent `echo` that its target is not reached.
    pub fn echo_unreachable(&self, echo: &Echo<'_>, what: Unreachable) {
        self.0.engine.answer_echo_unreachable(echo, what);
    }
}

impl<D: Device> Outlet for Port<D> {
    fn transmit(&self, mut frame: Frame<'_>) {
        self.busy_poll.heard();
        let device = self.device.get_ref();
        let bytes = if device.offload() {
            vnet::encode(&mut frame)
        } else {
            &frame.buffer[HEADROOM..]
        };
        // A packet is written whole or not at all; one that is lost here is sent again by TCP.
        if nix::sys::uio::writev(device, &[IoSlice::new(bytes)]).is_err() {
            self.failed_writes.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn rearm(&self, _: Instant) {
        self.timer_moved.notify_one();
    }

    fn give_back(&self, unused: &mut [u8]) {
        memory::give_back(unused);
    }
}
