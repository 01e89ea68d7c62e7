//! The application and its kernel: a second smoltcp with one socket.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{
    Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken,
};
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint};

use super::craft::Ends;

/// How the kernel is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    /// The device's MTU.
    pub(crate) mtu: usize,
    /// Segments leave uncut and without a checksum.
    pub(crate) offload: bool,
    /// Receive buffer, hence the largest window.
    pub(crate) receive: usize,
    /// Send buffer.
    pub(crate) send: usize,
    /// Whether a silent peer is asked for a sign of life.
    pub(crate) keep_alive: bool,
}

struct Port {
    kernel: Kernel,
    incoming: VecDeque<Vec<u8>>,
    outgoing: Vec<Vec<u8>>,
}

struct In(Vec<u8>);
struct Out<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for In {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Out<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push(packet);
        result
    }
}

impl Device for Port {
    type RxToken<'a> = In;
    type TxToken<'a> = Out<'a>;

    fn receive(&mut self, _: Instant) -> Option<(In, Out<'_>)> {
        let packet = self.incoming.pop_front()?;
        Some((In(packet), Out(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Out<'_>> {
        Some(Out(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.kernel.mtu;
        let mut checksum = ChecksumCapabilities::default();
        if self.kernel.offload {
            checksum.tcp = Checksum::Rx;
            capabilities.segmentation.tcpv4 = NonZeroUsize::new(65_535);
            // smoltcp 0.14 drops what is to be segmented over IPv6.
        }
        capabilities.checksum = checksum;
        capabilities
    }
}

/// How the stream to the application ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// FIN.
    Finished,
    /// RST, from either side.
    Reset,
}

/// The kernel with its socket.
pub(crate) struct Client {
    port: Port,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
}

impl Client {
    /// A kernel whose socket has just begun to connect. `seed` decides its sequence numbers.
    pub(crate) fn connect(kernel: Kernel, ends: Ends, seed: u64, now: Instant) -> Self {
        let mut port = Port {
            kernel,
            incoming: VecDeque::new(),
            outgoing: Vec::new(),
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut port, now);
        let address = IpAddress::from(ends.source.ip());
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(address, 0)).unwrap();
        });
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; kernel.receive]),
            SocketBuffer::new(vec![0; kernel.send]),
        );
        if kernel.keep_alive {
            socket.set_keep_alive(Some(Duration::from_secs(30)));
        }
        let target = IpEndpoint::from(ends.target);
        socket
            .connect(interface.context(), target, ends.source.port())
            .unwrap();
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        Self {
            port,
            interface,
            sockets,
            handle,
        }
    }

    /// A packet from the wire.
    pub(crate) fn deliver(&mut self, packet: Vec<u8>) {
        self.port.incoming.push_back(packet);
    }

    /// Takes in what was delivered, and sends.
    pub(crate) fn poll(&mut self, now: Instant) {
        self.interface.poll(now, &mut self.port, &mut self.sockets);
    }

    /// What the kernel has sent since the last call.
    pub(crate) fn take(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.port.outgoing)
    }

    /// When the kernel is due.
    pub(crate) fn poll_at(&mut self, now: Instant) -> Option<Instant> {
        self.interface.poll_at(now, &self.sockets)
    }

    /// The socket.
    pub(crate) fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// The socket's state.
    pub(crate) fn state(&mut self) -> State {
        self.socket().state()
    }

    /// Reads what is there, and how the stream ended if it has.
    pub(crate) fn read(&mut self, mut sink: impl FnMut(&[u8])) -> Option<End> {
        loop {
            let socket = self.socket();
            if matches!(socket.state(), State::SynSent) {
                return None;
            }
            match socket.recv(|bytes| {
                sink(bytes);
                (bytes.len(), bytes.len())
            }) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(RecvError::Finished) => return Some(End::Finished),
                Err(RecvError::InvalidState) => return Some(End::Reset),
            }
        }
    }
}
