//! A TCP socket of smoltcp's, of whose ring of received bytes the memory can be had while nothing is in it.
//!
//! smoltcp gives no access to an empty ring, and where it writes next walks through all of the ring. So a flow that was given as
//! many bytes as its window has would keep a window's worth of memory to its end, and one that was given a single byte a page.

use std::ops::Deref;
use std::ptr::NonNull;
use std::task::Waker;

use smoltcp::iface::{Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::Device;
use smoltcp::socket::tcp::{ListenError, RecvError, SendError, Socket, SocketBuffer};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::IpEndpoint;

/// The socket, alone in a set of its own. Nobody gets hold of it to change it or to move it elsewhere but by what is here, and
/// nothing here takes its rings away from it.
#[derive(Debug)]
pub struct RingSocket {
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    /// The ring of received bytes, which is the socket's.
    received: NonNull<[u8]>,
}

#[allow(unsafe_code)]
// SAFETY: the pointer is to memory of the socket, which goes with it and may be sent. It is only used by who has the socket to
// himself.
unsafe impl Send for RingSocket {}

impl RingSocket {
    /// A closed socket with room for so many bytes each way.
    pub fn new(received: usize, to_send: usize) -> Self {
        let mut ring = vec![0; received];
        // As a pointer, and not by way of a slice: it stays as good as the vector's own.
        let start = NonNull::new(ring.as_mut_ptr()).unwrap_or(NonNull::dangling());
        let received = NonNull::slice_from_raw_parts(start, ring.len());
        let ring = SocketBuffer::new(ring);
        let socket = Socket::new(ring, SocketBuffer::new(vec![0; to_send]));
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Self {
            sockets,
            handle,
            received,
        }
    }

    /// The memory of the ring of received bytes, while none is in it that could be read. What came ahead of its turn is lost if
    /// this is changed: whether there is any the caller has to know.
    pub fn unused(&mut self) -> Option<&mut [u8]> {
        if self.recv_queue() > 0 {
            return None;
        }
        #[allow(unsafe_code)]
        // SAFETY: it points to the bytes of the vector that the socket owns for as long as it is there: smoltcp keeps it in a
        // `ManagedSlice`, which is neither grown nor replaced. The socket is ours alone and borrowed for as long as the slice, so
        // nobody reads or writes them meanwhile. An empty vector has no bytes, for which any aligned pointer will do.
        Some(unsafe { self.received.as_mut() })
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// See [`Socket::set_nagle_enabled`].
    pub fn set_nagle_enabled(&mut self, enabled: bool) {
        self.socket().set_nagle_enabled(enabled);
    }

    /// See [`Socket::set_ack_delay`].
    pub fn set_ack_delay(&mut self, delay: Option<Duration>) {
        self.socket().set_ack_delay(delay);
    }

    /// See [`Socket::set_keep_alive`].
    pub fn set_keep_alive(&mut self, interval: Option<Duration>) {
        self.socket().set_keep_alive(interval);
    }

    /// See [`Socket::set_timeout`].
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.socket().set_timeout(timeout);
    }

    /// See [`Socket::listen`].
    ///
    /// # Errors
    /// [`ListenError`]: it is open, or the port is 0.
    pub fn listen(&mut self, local: IpEndpoint) -> Result<(), ListenError> {
        self.socket().listen(local)
    }

    /// See [`Socket::recv`].
    ///
    /// # Errors
    /// [`RecvError`]: the peer has ended its direction, or the connection is over.
    pub fn recv<R>(&mut self, f: impl FnOnce(&mut [u8]) -> (usize, R)) -> Result<R, RecvError> {
        self.socket().recv(f)
    }

    /// See [`Socket::send`].
    ///
    /// # Errors
    /// [`SendError`]: our direction is ended, or the connection is over.
    pub fn send<R>(&mut self, f: impl FnOnce(&mut [u8]) -> (usize, R)) -> Result<R, SendError> {
        self.socket().send(f)
    }

    /// See [`Socket::send_slice`].
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_slice(&mut self, data: &[u8]) -> Result<usize, SendError> {
        self.socket().send_slice(data)
    }

    /// See [`Socket::register_recv_waker`].
    pub fn register_recv_waker(&mut self, waker: &Waker) {
        self.socket().register_recv_waker(waker);
    }

    /// See [`Socket::register_send_waker`].
    pub fn register_send_waker(&mut self, waker: &Waker) {
        self.socket().register_send_waker(waker);
    }

    /// See [`Socket::close`].
    pub fn close(&mut self) {
        self.socket().close();
    }

    /// See [`Socket::abort`].
    pub fn abort(&mut self) {
        self.socket().abort();
    }

    /// See [`Interface::poll_ingress_single`].
    pub fn poll_ingress_single(
        &mut self,
        interface: &mut Interface,
        now: Instant,
        device: &mut impl Device,
    ) -> PollIngressSingleResult {
        interface.poll_ingress_single(now, device, &mut self.sockets)
    }

    /// See [`Interface::poll_egress`].
    pub fn poll_egress(
        &mut self,
        interface: &mut Interface,
        now: Instant,
        device: &mut impl Device,
    ) -> PollResult {
        interface.poll_egress(now, device, &mut self.sockets)
    }

    /// See [`Interface::poll_at`].
    pub fn poll_at(&self, interface: &mut Interface, now: Instant) -> Option<Instant> {
        interface.poll_at(now, &self.sockets)
    }
}

impl Deref for RingSocket {
    type Target = Socket<'static>;

    fn deref(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::iface::Config;
    use smoltcp::phy::{Loopback, Medium};
    use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

    const RING: usize = 64;
    const HOST: IpAddress = IpAddress::v4(127, 0, 0, 1);

    /// Two sockets of one host, connected, and the time.
    struct Pair {
        device: Loopback,
        interface: Interface,
        receiver: RingSocket,
        senders: SocketSet<'static>,
        sender: SocketHandle,
        now: Instant,
    }

    impl Pair {
        fn connected() -> Self {
            let mut device = Loopback::new(Medium::Ip);
            let now = Instant::ZERO;
            let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut device, now);
            interface.update_ip_addrs(|own| own.push(IpCidr::new(HOST, 8)).unwrap());
            let mut receiver = RingSocket::new(RING, RING);
            receiver.listen(IpEndpoint::new(HOST, 80)).unwrap();
            let ring = || SocketBuffer::new(vec![0; RING]);
            let mut socket = Socket::new(ring(), ring());
            socket
                .connect(interface.context(), (HOST, 80), 49_152)
                .unwrap();
            let mut senders = SocketSet::new(Vec::new());
            let sender = senders.add(socket);
            let mut pair = Self {
                device,
                interface,
                receiver,
                senders,
                sender,
                now,
            };
            pair.run();
            pair
        }

        /// Hands each packet to the socket that it is for: the other one would answer it with a reset.
        fn run(&mut self) {
            for _ in 0..8 {
                self.now += Duration::from_millis(10);
                let (interface, device) = (&mut self.interface, &mut self.device);
                interface.poll_egress(self.now, device, &mut self.senders);
                self.receiver
                    .poll_ingress_single(interface, self.now, device);
                self.receiver.poll_egress(interface, self.now, device);
                interface.poll_ingress_single(self.now, device, &mut self.senders);
            }
        }

        fn send(&mut self, bytes: &[u8]) {
            let sender = self.senders.get_mut::<Socket<'_>>(self.sender);
            assert_eq!(sender.send_slice(bytes), Ok(bytes.len()));
            self.run();
        }

        fn receive(&mut self) -> Vec<u8> {
            let mut all = Vec::new();
            while self.receiver.can_recv() {
                let taken = self.receiver.recv(|some| {
                    all.extend_from_slice(some);
                    (some.len(), ())
                });
                taken.unwrap();
            }
            all
        }
    }

    #[test]
    fn an_empty_ring_can_be_had_and_goes_on_where_it_was() {
        let mut pair = Pair::connected();
        // Bytes at each place of the ring, also across its end.
        for turn in 0..3 * RING as u8 {
            let bytes = [turn; 7];
            pair.send(&bytes);
            assert!(pair.receiver.unused().is_none());
            assert_eq!(pair.receive(), bytes);
            let unused = pair.receiver.unused().unwrap();
            assert_eq!(unused.len(), RING);
            assert!(unused.contains(&turn));
            unused.fill(0);
        }
    }

    #[test]
    fn a_ring_goes_with_its_socket_to_another_thread() {
        let mut pair = Pair::connected();
        pair.send(b"abc");
        let mut receiver = pair.receiver;
        let left = std::thread::spawn(move || {
            receiver.recv(|some| (some.len(), ())).unwrap();
            receiver.unused().map(|unused| unused[..3].to_vec())
        });
        assert_eq!(left.join().unwrap().unwrap(), b"abc");
    }
}
