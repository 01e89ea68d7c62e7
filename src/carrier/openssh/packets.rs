//! A channel of whole packets: `tun@openssh.com` (OpenSSH's PROTOCOL, section 2.3).
//!
//! Nobody waits: what is to be sent and does not fit waits in the channel's fair queue, and the oldest is dropped; what has come
//! and is not taken is dropped likewise, here or by sshd.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::debug;

use super::OpensshCarrier;
use super::connection::Connection;
use super::shared::{After, Owner, Shared};
use crate::carrier::channels::{ChannelId, ChannelType, Drops, Refusal, TunLayer};
use crate::carrier::examine::Tunnel;
use crate::carrier::packets::{PacketDrops, TunnelRefusal, classify};
use crate::net::PacketKind;

/// How long the server may take to open the channel. It may have to load a module for the device.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to find out why it does not: a login.
const REASON: Duration = Duration::from_secs(20);

/// What may wait to be taken: packets, and bytes.
const MOST_PACKETS: usize = 4096;
const MOST_BYTES: usize = 1024 * 1024;
/// What is taken is told to the server in pieces of so many bytes.
const TOLD: usize = 64 * 1024;

/// The family in front of each packet, as OpenBSD counts them.
const FAMILY: usize = 4;
const FAMILY_V4: u32 = 2;
const FAMILY_V6: u32 = 24;

/// What the connection's reader shares with a [`PacketLink`].
pub(super) struct Packets(Mutex<State>);

struct State {
    /// Who waits for the answer to the open.
    answer: Option<oneshot::Sender<Result<(), Refusal>>>,
    inbox: VecDeque<Bytes>,
    bytes: usize,
    /// Taken or dropped, and not told to the server yet.
    taken: usize,
    unread: u64,
    /// What the channel's queue had dropped at its end.
    dropped: Drops,
    is_lost: bool,
    reader: Option<Waker>,
}

impl Packets {
    fn new(answer: oneshot::Sender<Result<(), Refusal>>) -> Self {
        Self(Mutex::new(State {
            answer: Some(answer),
            inbox: VecDeque::new(),
            bytes: 0,
            taken: 0,
            unread: 0,
            dropped: Drops::default(),
            is_lost: false,
            reader: None,
        }))
    }

    /// Taken after the connection's lock, if both are.
    fn state(&self) -> MutexGuard<'_, State> {
        // Nobody panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server has answered the open.
    pub(super) fn answered(&self, answer: Result<(), Refusal>) {
        // Who has asked may have stopped waiting.
        let _ = self.state().answer.take().map(|asks| asks.send(answer));
    }

    /// Nothing more comes.
    pub(super) fn lose(&self, after: &mut After) {
        let mut state = self.state();
        state.is_lost = true;
        state.answer = None;
        after.wake(&mut state.reader);
    }

    /// A packet has come.
    fn push(&self, data: Bytes, after: &mut After) {
        let mut state = self.state();
        state.bytes += data.len();
        state.inbox.push_back(data);
        while state.inbox.len() > MOST_PACKETS || state.bytes > MOST_BYTES {
            let dropped = state.pop();
            state.unread += u64::from(dropped.is_some());
        }
        after.wake(&mut state.reader);
    }
}

impl State {
    fn pop(&mut self) -> Option<Bytes> {
        let data = self.inbox.pop_front()?;
        self.bytes -= data.len();
        self.taken += data.len();
        Some(data)
    }

    /// What is to be told to the server now.
    fn take_untold(&mut self) -> usize {
        match self.taken < TOLD {
            true => 0,
            false => std::mem::take(&mut self.taken),
        }
    }
}

impl Shared {
    /// A packet of a tunnel's has come.
    pub(super) fn packet(&mut self, now: Instant, id: ChannelId, data: Bytes, after: &mut After) {
        let Some(Owner::Packets(packets)) = self.owners.get(&id) else {
            return;
        };
        packets.push(data, after);
        // What was dropped: who reads tells of what it has taken itself.
        let told = packets.state().take_untold();
        if told > 0 {
            self.channels.consumed(now, id, told);
        }
    }

    /// The server sends no further packets: its device is gone, or has given it one that it cannot send. Whether it was a tunnel.
    pub(super) fn no_more_packets(&mut self, id: ChannelId, after: &mut After) -> bool {
        let Some(Owner::Packets(packets)) = self.owners.get(&id) else {
            return false;
        };
        packets.state().dropped = self.channels.drops(id);
        packets.lose(after);
        self.owners.remove(&id);
        self.channels.abort(id);
        true
    }
}

/// A tunnel of whole packets to a device of the server's. It is closed, and a device that was made for it goes, when this is
/// dropped.
pub struct PacketLink {
    connection: Arc<Connection>,
    packets: Arc<Packets>,
    id: ChannelId,
    kind: PacketKind,
    max_len: usize,
    flows: RandomState,
    closed: AtomicU64,
    unfit: AtomicU64,
}

impl PacketLink {
    /// What it carries.
    pub fn kind(&self) -> PacketKind {
        self.kind
    }

    /// The longest packet that it takes.
    pub fn max_len(&self) -> usize {
        self.max_len
    }

    /// Sends a packet, or drops it, or others for it; [`drops`](Self::drops) counts. Never waits. Copies it once. While the far
    /// device is down, sshd keeps 128 KiB for it, on a long path up to 2 MiB.
    pub fn send(&self, packet: &[u8]) {
        let flow = classify(self.kind, packet, self.flows.build_hasher());
        let Some(flow) = flow.filter(|_| packet.len() <= self.max_len) else {
            self.unfit.fetch_add(1, Relaxed);
            return;
        };
        let datagram = self.datagram(packet);
        let now = Instant::now();
        let is_sent = self.connection.with(|shared, _| {
            let channels = &mut shared.channels;
            !shared.is_lost && channels.send_datagram(now, self.id, flow, datagram).is_ok()
        });
        // It fits, so the channel is gone.
        self.closed.fetch_add(u64::from(!is_sent), Relaxed);
    }

    fn datagram(&self, packet: &[u8]) -> Bytes {
        let mut datagram = BytesMut::with_capacity(FAMILY + packet.len());
        if self.kind == PacketKind::Ip {
            let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
            datagram.put_u32(if is_v4 { FAMILY_V4 } else { FAMILY_V6 });
        }
        datagram.put_slice(packet);
        datagram.freeze()
    }

    /// The next packet from the far side; `None` when the tunnel is lost. For one task at a time. Cancel safe.
    pub async fn recv(&self) -> Option<Bytes> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            let (data, told) = {
                let mut state = self.packets.state();
                let Some(data) = state.pop() else {
                    if state.is_lost {
                        return Poll::Ready(None);
                    }
                    state.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                };
                (data, state.take_untold())
            };
            if told > 0 {
                let now = Instant::now();
                self.connection
                    .with(|shared, _| shared.channels.consumed(now, self.id, told));
            }
            match self.kind {
                PacketKind::Ethernet => return Poll::Ready(Some(data)),
                // The packet itself tells its family.
                PacketKind::Ip if data.len() > FAMILY => {
                    return Poll::Ready(Some(data.slice(FAMILY..)));
                }
                PacketKind::Ip => {}
            }
        }
    }

    /// What did not get through so far.
    pub fn drops(&self) -> PacketDrops {
        let now = self
            .connection
            .with(|shared, _| shared.channels.drops(self.id));
        let state = self.packets.state();
        PacketDrops {
            full: now.full.max(state.dropped.full),
            late: now.late.max(state.dropped.late),
            closed: self.closed.load(Relaxed),
            unfit: self.unfit.load(Relaxed),
            unread: state.unread,
        }
    }
}

impl Drop for PacketLink {
    fn drop(&mut self) {
        self.connection.with(|shared, _| {
            if shared.owners.remove(&self.id).is_some() {
                shared.channels.abort(self.id);
            }
        });
    }
}

impl Connection {
    /// Asks for a tunnel; what is returned with it resolves with the answer.
    fn ask_for_packets(
        self: &Arc<Self>,
        kind: PacketKind,
        unit: Option<u32>,
    ) -> Option<(PacketLink, oneshot::Receiver<Result<(), Refusal>>)> {
        let (sender, answer) = oneshot::channel();
        let packets = Arc::new(Packets::new(sender));
        let id = self.with(|shared, _| {
            if shared.is_lost || shared.burden().is_full() {
                return None;
            }
            let channel = ChannelType::tun(layer(kind), unit);
            let id = shared.channels.open(channel).ok()?;
            let owner = Owner::Packets(Arc::clone(&packets));
            shared.owners.insert(id, owner);
            Some(id)
        })?;
        let link = PacketLink {
            connection: Arc::clone(self),
            packets,
            id,
            kind,
            max_len: 0,
            flows: RandomState::new(),
            closed: AtomicU64::new(0),
            unfit: AtomicU64::new(0),
        };
        Some((link, answer))
    }
}

pub(super) fn layer(kind: PacketKind) -> TunLayer {
    match kind {
        PacketKind::Ip => TunLayer::PointToPoint,
        PacketKind::Ethernet => TunLayer::Ethernet,
    }
}

impl OpensshCarrier {
    /// Asks the server for a tunnel to its device of number `unit`, or to any free one, which it makes unless it is there.
    ///
    /// # Errors
    /// [`TunnelRefusal`]. Where the server has refused, its reason is found out by one more login, which asks nobody.
    pub async fn open_packets(
        &self,
        kind: PacketKind,
        unit: Option<u32>,
    ) -> Result<PacketLink, TunnelRefusal> {
        let connection = self.pool.place().map_err(|_| TunnelRefusal::Lost)?;
        let asked = connection.ask_for_packets(kind, unit);
        let (mut link, answer) = asked.ok_or(TunnelRefusal::Lost)?;
        match timeout(PATIENCE, answer).await {
            Ok(Ok(Ok(()))) => {
                let max = connection.with(|shared, _| shared.channels.max_datagram(link.id));
                let family = if kind == PacketKind::Ip { FAMILY } else { 0 };
                link.max_len = max.unwrap_or_default().saturating_sub(family);
                Ok(link)
            }
            Ok(Ok(Err(Refusal::UnknownChannelType))) => Err(TunnelRefusal::Unknown),
            Ok(Ok(Err(refusal))) => {
                debug!("no tunnel: {refusal:?}");
                Err(self.why_no_packets(kind, unit).await)
            }
            Ok(Err(_)) => Err(TunnelRefusal::Lost),
            Err(_) => Err(TunnelRefusal::Silent {
                seconds: PATIENCE.as_secs(),
            }),
        }
    }

    async fn why_no_packets(&self, kind: PacketKind, unit: Option<u32>) -> TunnelRefusal {
        let client = self.pool.client().clone();
        let plan = client.plan().clone();
        let said = timeout(REASON, Self::tunnel_of(client, layer(kind))).await;
        match said {
            Ok(Ok(Tunnel::Forbidden)) => TunnelRefusal::Forbidden { kind },
            Ok(Ok(Tunnel::Permitted | Tunnel::Made)) => TunnelRefusal::Device {
                kind,
                unit,
                user: plan.user,
            },
            Ok(Ok(Tunnel::Unknown)) => TunnelRefusal::Unknown,
            other => {
                debug!("why there is no tunnel: {other:?}");
                TunnelRefusal::Unclear { alias: plan.alias }
            }
        }
    }
}
