//! The privileged end: does what is asked for, one request at a time, and undoes all of it when nobody asks any more.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::MsgFlags;
use tracing::{debug, warn};

use super::line::{self, Line, Takes};
use super::wire::{self, Hello, Opened, Order, PREFIX, Refusal, RefusalKind, Reply, Request};
use crate::os::names::{At, By, Names, NamesError, Place, Wish};
use crate::os::routes::{self, Setting, Source, name_server};
use crate::os::{
    ApplyError, Changes, Netlink, NetlinkError, Slot, SlotError, TunDevice, TunError, Undo, apply,
    bridges, source, stale,
};
use crate::plan::far_side::TunnelAddress;
use crate::plan::{CapturePlan, DeviceKind, DevicePlan, Subnet};

/// Longest first message, in bytes; it is read before anything else is known of the other end.
const MOST_HELLO: usize = 1 << 10;

/// Reads the first message, and the network namespace to work in if one comes along. Blocks until it is there.
///
/// # Errors
/// `UnexpectedEof` when the other end goes without one, `InvalidData` when it is of another version, or none, or says
/// that a descriptor comes and none does.
pub fn greeted(mut socket: &UnixStream) -> io::Result<(Hello, Option<OwnedFd>)> {
    let mut prefix = [0; PREFIX];
    // A descriptor comes with the first byte.
    let (read, descriptor) = line::read(socket.as_raw_fd(), &mut prefix, MsgFlags::empty())?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    socket.read_exact(&mut prefix[read..])?;
    let length = wire::length(prefix)?;
    if length > MOST_HELLO {
        return Err(wire::WireError::Length(length).into());
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body)?;
    let hello: Hello = wire::decode(&body)?;
    if !hello.is_ours() {
        let other = "the two underpass are of different versions";
        return Err(io::Error::new(io::ErrorKind::InvalidData, other));
    }
    match (hello.elsewhere, descriptor) {
        // There the file is another one.
        (true, _) if hello.names.is_some() => Err(io::ErrorKind::InvalidData.into()),
        (false, _) if hello.apart.is_some() => Err(io::ErrorKind::InvalidData.into()),
        (true, Some(namespace)) => Ok((hello, Some(namespace))),
        (true, None) => Err(io::ErrorKind::InvalidData.into()),
        (false, _) => Ok((hello, None)),
    }
}

/// Answers the greeting that what is asked for cannot be.
///
/// # Errors
/// write(2).
pub fn refused(mut socket: &UnixStream, why: impl ToString) -> io::Result<()> {
    let reply = Reply::Refused(Refusal::new(RefusalKind::Failed, why));
    socket.write_all(&wire::encode(&reply)?)
}

/// Serves the other end of `socket`, which has greeted, until it goes, asks for something senseless, or `until` resolves.
/// Then everything is as before. Works in the network namespace of this thread, and brings programs to our name server by `names`
/// alone, as was greeted, in `place` where that is in another network.
///
/// # Errors
/// When the kernel cannot be talked to; nothing was changed then.
pub async fn serve(
    socket: UnixStream,
    names: Option<By>,
    place: Option<Place>,
    until: impl Future<Output = ()>,
) -> io::Result<()> {
    let line = Line::new(socket, Takes::Nothing)?;
    let netlink = Netlink::new().map_err(io::Error::other)?;
    let mut changes = Changes::for_helper()?;
    let mut server = Server {
        netlink,
        slot: None,
        device: None,
        ends: None,
        held: None,
        names: None,
        names_by: names,
        place,
    };
    tokio::select! {
        () = server.converse(line, &mut changes) => {}
        () = until => debug!("told to end"),
    }
    server.undo_all().await;
    Ok(())
}

/// What was made so far.
struct Server {
    netlink: Netlink,
    slot: Option<Slot>,
    device: Option<Device>,
    /// The device's addresses, where it is that of a tunnel.
    ends: Option<TunnelAddress>,
    held: Option<Held>,
    /// Programs ask our name server.
    names: Option<Names>,
    /// How that may be done.
    names_by: Option<By>,
    /// Where, in another network.
    place: Option<Place>,
}

/// The device; its descriptor is at the other end alone, so that it goes with that.
struct Device {
    name: String,
    index: u32,
    mtu: u16,
    is_ethernet: bool,
}

struct Held {
    undo: Undo,
    source: Source,
    capture: CapturePlan,
    exempt: Vec<IpAddr>,
    /// Those of containers, as they were then.
    bridges: Vec<String>,
}

impl Server {
    /// Until the other end goes, or speaks out of turn.
    async fn converse(&mut self, mut line: Line, changes: &mut Changes) {
        if let Err(error) = line.send(&Reply::Ready, None).await {
            debug!("nobody is there: {error}");
            return;
        }
        loop {
            let request = tokio::select! {
                request = line.receive::<Request>() => request,
                () = host_changed(changes) => {
                    changes.settle().await;
                    self.follow_host().await;
                    continue;
                }
                names = Names::changed(&mut self.names) => {
                    names.assert_again().await;
                    continue;
                }
            };
            let request = match request {
                Ok(Some(request)) => request,
                Ok(None) => return,
                Err(error) => {
                    refuse(&mut line, error).await;
                    return;
                }
            };
            let order = match request.check() {
                Ok(order) => order,
                Err(error) => {
                    refuse(&mut line, error).await;
                    return;
                }
            };
            let done = tokio::select! {
                done = self.obey(order) => done,
                // Gone, or it asks for more before it has its answer. What was being made is found by its slot.
                () = line.disturbed() => return,
            };
            if self.answer(&mut line, done).await.is_err() {
                return;
            }
        }
    }

    /// Sends the answer, with the descriptor of what was made where there is one.
    async fn answer(&self, line: &mut Line, done: Done) -> io::Result<()> {
        match done {
            Ok((reply, made)) => {
                line.send(&reply, made.as_ref().map(|made| made.as_fd()))
                    .await
            }
            Err(refusal) => {
                let ends = refusal.kind == RefusalKind::Senseless;
                line.send(&Reply::Refused(refusal), None).await?;
                if ends {
                    Err(io::ErrorKind::InvalidData.into())
                } else {
                    Ok(())
                }
            }
        }
    }

    async fn obey(&mut self, order: Order) -> Done {
        match order {
            Order::Open(plan) => {
                let (opened, device) = self.open(&plan).await?;
                Ok((Reply::Opened(opened), Some(Box::new(device))))
            }
            Order::Hold {
                capture,
                exempt,
                names,
                ends,
            } => {
                let by = names.as_ref().map(|wish| wish.by);
                if by.is_some() && by != self.names_by {
                    return Err(out_of_turn());
                }
                self.ends = ends;
                self.hold(capture, exempt, names.is_some()).await?;
                match (names, &mut self.names) {
                    (Some(wish), None) => self.hold_names(&wish).await?,
                    (Some(wish), Some(names)) => names.change(&wish).await?,
                    (None, _) => {}
                }
                Ok((Reply::Held, None))
            }
            Order::Near(server, kind) => {
                let place = self.place.as_ref().ok_or_else(out_of_turn)?;
                let connection = place.connect(server, kind);
                let connection =
                    connection.map_err(|error| Refusal::new(RefusalKind::Failed, error))?;
                Ok((Reply::Near, Some(Box::new(connection))))
            }
            Order::Release => {
                let left = self.release().await;
                Ok((Reply::Released { left }, None))
            }
        }
    }

    /// Claims a slot, clears what killed runs left, makes the device.
    async fn open(&mut self, plan: &DevicePlan) -> Result<(Opened, TunDevice), Refusal> {
        if self.device.is_some() {
            return Err(out_of_turn());
        }
        let slot = self.slot.insert(Slot::claim()?);
        let cleared = match stale::clear(&self.netlink, Some(slot)).await {
            Ok(cleared) => (!cleared.is_empty()).then(|| cleared.to_string()),
            // The device, made next, says what to do about that.
            Err(error) if error.errno() == Some(nix::libc::EPERM) => None,
            Err(error) => {
                warn!("could not remove what a killed run left: {error}");
                None
            }
        };
        let device = TunDevice::open(plan)?;
        let made = Device {
            name: device.name().to_owned(),
            index: self.netlink.index(device.name()).await?,
            mtu: device.mtu(),
            is_ethernet: plan.kind == DeviceKind::Tap,
        };
        let opened = Opened {
            name: made.name.clone(),
            mtu: made.mtu,
            offload: device.offload(),
            slot: slot.number(),
            cleared,
            near: self.place.iter().flat_map(Place::servers).collect(),
        };
        self.device = Some(made);
        Ok((opened, device))
    }

    async fn hold(
        &mut self,
        capture: CapturePlan,
        exempt: Vec<IpAddr>,
        names: bool,
    ) -> Result<(), Refusal> {
        let (Some(slot), Some(device)) = (&self.slot, &self.device) else {
            return Err(out_of_turn());
        };
        if self.netlink.index(&device.name).await.ok() != Some(device.index) {
            let text = format!("the device {} is gone", device.name);
            return Err(Refusal::new(RefusalKind::Failed, text));
        }
        let source = match &self.held {
            Some(held) => held.source,
            None => {
                let source = source::find(&self.netlink, slot, &capture).await?;
                source::in_tunnel(source, self.ends, device.is_ethernet)
            }
        };
        let bridges = bridges(&self.netlink).await?;
        let setting = Setting {
            device: &device.name,
            mtu: device.mtu,
            tables: slot.tables(),
            source,
            exempt: &exempt,
            bridges: &bridges,
        };
        let mut captured = capture.clone();
        captured
            .subnets
            .extend(names.then(|| Subnet::host(name_server(slot.number()).into())));
        // The server is reached at its end of a tunnel.
        let far = self.ends.iter().flat_map(TunnelAddress::far);
        captured.subnets.extend(far.map(Subnet::host));
        let entries = routes::desired(&captured, &setting);
        match &mut self.held {
            Some(held) => {
                held.undo.change(&entries).await?;
                (held.capture, held.exempt, held.bridges) = (capture, exempt, bridges);
            }
            None => {
                let undo = apply(&self.netlink, &device.name, &entries).await?;
                self.held = Some(Held {
                    undo,
                    source,
                    capture,
                    exempt,
                    bridges,
                });
            }
        }
        Ok(())
    }

    /// Makes again what somebody took away, and captures what comes in by the bridges of containers that there are now.
    async fn follow_host(&mut self) {
        let Some(held) = &mut self.held else { return };
        held.undo.make_again().await;
        match bridges(&self.netlink).await {
            Ok(bridges) if bridges == held.bridges => return,
            Ok(bridges) => debug!("bridges of containers: {}", bridges.join(", ")),
            Err(error) => debug!("cannot list links: {error}"),
        }
        let (capture, exempt) = (held.capture.clone(), held.exempt.clone());
        let names = self.names.is_some();
        if let Err(refusal) = self.hold(capture, exempt, names).await {
            warn!("containers of new networks may not reach the subnets: {refusal}");
        }
    }

    /// Has programs ask our name server.
    async fn hold_names(&mut self, wish: &Wish) -> Result<(), Refusal> {
        let (Some(slot), Some(device)) = (&self.slot, &self.device) else {
            return Err(out_of_turn());
        };
        let at = At {
            slot: slot.number(),
            device: &device.name,
            index: device.index,
            place: self.place.as_ref(),
        };
        self.names = Some(Names::hold(wish, at).await?);
        Ok(())
    }

    /// A line for each part that could not be taken back.
    async fn release(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        if let Some(names) = self.names.take() {
            left.extend(names.release().await.err());
        }
        if let Some(mut held) = self.held.take() {
            left.extend(held.undo.undo().await);
        }
        left
    }

    /// What was made, also what was being made when the other end went, and the device, which that end may have made
    /// to outlive it (TUNSETPERSIST asks for no privilege).
    async fn undo_all(&mut self) {
        for line in self.release().await {
            debug!("could not take back: {line}; trying once more");
        }
        if let Some(slot) = &self.slot
            && let Err(error) = stale::clear(&self.netlink, Some(slot)).await
        {
            warn!("could not take everything back: {error}; underpass cleanup removes it");
        }
        if let Some(device) = self.device.take()
            && self.netlink.index(&device.name).await.ok() == Some(device.index)
            && let Err(error) = self.netlink.delete_link(device.index).await
        {
            debug!("{}: {error}", device.name);
        }
    }
}

/// Waits for a change in the host's links, or in our routes and rules; for ever where there is no way to hear of one.
async fn host_changed(changes: &mut Changes) {
    if let Err(error) = changes.next().await {
        warn!("new bridges of containers, and who takes our routes away, go unnoticed: {error}");
        std::future::pending::<()>().await;
    }
}

/// An answer, with what was made.
type Done = Result<(Reply, Option<Box<dyn AsFd>>), Refusal>;

async fn refuse(line: &mut Line, error: impl std::fmt::Display) {
    let refusal = Refusal::new(RefusalKind::Senseless, error);
    debug!("ending: {refusal}");
    // Whether it still listens is its own business.
    let _ = line.send(&Reply::Refused(refusal), None).await;
}

fn out_of_turn() -> Refusal {
    Refusal::new(RefusalKind::Senseless, "a request at the wrong time")
}

impl From<SlotError> for Refusal {
    fn from(error: SlotError) -> Self {
        let kind = match error {
            SlotError::Full => RefusalKind::Busy,
            SlotError::Io(_) => RefusalKind::Failed,
        };
        Self::new(kind, error)
    }
}

impl From<TunError> for Refusal {
    fn from(error: TunError) -> Self {
        let kind = match error {
            TunError::NoTun | TunError::NotTun | TunError::NotPermitted | TunError::Closed => {
                RefusalKind::Privilege
            }
            TunError::NameTaken { .. } => RefusalKind::Busy,
            TunError::Io { .. } => RefusalKind::Failed,
        };
        Self::new(kind, error)
    }
}

impl From<ApplyError> for Refusal {
    fn from(error: ApplyError) -> Self {
        let kind = match error {
            ApplyError::NotPermitted => RefusalKind::Privilege,
            ApplyError::Nothing => RefusalKind::Nothing,
            ApplyError::Entry { .. } | ApplyError::Device(_) => RefusalKind::Failed,
        };
        Self::new(kind, error)
    }
}

impl From<NamesError> for Refusal {
    fn from(error: NamesError) -> Self {
        let kind = match error {
            NamesError::NotRoot => RefusalKind::Privilege,
            NamesError::Taken => RefusalKind::Busy,
            NamesError::File(_)
            | NamesError::Program(_)
            | NamesError::Elsewhere(_)
            | NamesError::Resolved(_) => RefusalKind::Failed,
        };
        Self::new(kind, error)
    }
}

impl From<NetlinkError> for Refusal {
    fn from(error: NetlinkError) -> Self {
        let text = format!("could not read the host's networks: {error}");
        Self::new(RefusalKind::Failed, text)
    }
}
