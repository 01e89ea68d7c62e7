//! A TCP socket of smoltcp's that lends out the memory of a ring while nothing is in it.
//!
//! smoltcp gives no access to the empty ring of received bytes, and writes on through the whole of it: a flow would keep up to a
//! window's worth of memory until it ends. The other ring it shows as long as it may be written to.

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::task::Waker;

use smoltcp::iface::{Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::Device;
use smoltcp::socket::tcp::{ListenError, RecvError, SendError, Socket, SocketBuffer};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::IpEndpoint;

/// The socket, alone in a set of its own. No `&mut Socket` and no `&mut SocketSet` leaves this file: with one, the socket could
/// be put elsewhere, and the rings with it.
pub struct RingSocket {
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    received: Place,
    to_send: Place,
}

/// Where the bytes of a ring are, which is the socket's.
struct Place(NonNull<[u8]>);

#[allow(unsafe_code)]
// SAFETY: it points to memory of a socket that it goes with, and memory belongs to no thread. It is only used by who has the socket
// to himself.
unsafe impl Send for Place {}

impl Place {
    fn of(ring: &mut Vec<u8>) -> Self {
        // From the vector's own pointer and not from a slice, which would be invalid once another one is made.
        let start = NonNull::new(ring.as_mut_ptr()).unwrap_or(NonNull::dangling());
        Self(NonNull::slice_from_raw_parts(start, ring.len()))
    }
}

impl RingSocket {
    /// A closed socket with room for so many bytes each way.
    pub fn new(received: usize, to_send: usize) -> Self {
        let (mut received, mut to_send) = (vec![0; received], vec![0; to_send]);
        let places = [&mut received, &mut to_send].map(Place::of);
        let socket = Socket::new(SocketBuffer::new(received), SocketBuffer::new(to_send));
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        let [received, to_send] = places;
        Self {
            sockets,
            handle,
            received,
            to_send,
        }
    }

    /// The memory of the ring of received bytes, while none is in it that could be read. What came ahead of its turn is lost if
    /// this is changed: whether there is any the caller has to know.
    pub fn unused_received(&mut self) -> Option<&mut [u8]> {
        if self.recv_queue() > 0 {
            return None;
        }
        #[allow(unsafe_code)]
        // SAFETY: it points to the bytes of a vector that the socket owns for as long as it is there: smoltcp 0.14.0 keeps it in a
        // `ManagedSlice`, which it neither grows nor replaces. The socket is ours alone, and borrowed for as long as the slice, so
        // nobody reads or writes them meanwhile. smoltcp's own slices are made anew for each call from the vector's pointer, which
        // this one is a copy of. An empty vector has no bytes, for which any aligned pointer will do.
        Some(unsafe { self.received.0.as_mut() })
    }

    /// The memory of the ring of bytes to send, while none is in it, acknowledged or not.
    pub fn unused_to_send(&mut self) -> Option<&mut [u8]> {
        if self.send_queue() > 0 {
            return None;
        }
        #[allow(unsafe_code)]
        // SAFETY: as for the other ring.
        Some(unsafe { self.to_send.0.as_mut() })
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

    /// See [`Socket::send_slice`].
    ///
    /// # Errors
    /// [`SendError`]: our direction is ended, or the connection is over.
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

/// Not what is in the rings.
impl fmt::Debug for RingSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingSocket")
            .field("state", &self.state())
            .finish_non_exhaustive()
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
            assert!(pair.receiver.unused_received().is_none());
            assert_eq!(pair.receive(), bytes);
            let unused = pair.receiver.unused_received().unwrap();
            assert_eq!(unused.len(), RING);
            assert!(unused.contains(&turn));
            unused.fill(0);
        }
    }

    #[test]
    fn what_is_not_acknowledged_is_in_use() {
        let mut pair = Pair::connected();
        for _ in 0..2 * RING / 5 {
            assert_eq!(pair.receiver.send_slice(b"hello"), Ok(5));
            assert!(pair.receiver.unused_to_send().is_none());
            pair.run();
            pair.receiver.unused_to_send().unwrap().fill(0xee);
            let mut heard = [0; RING];
            let sender = pair.senders.get_mut::<Socket<'_>>(pair.sender);
            assert_eq!(sender.recv_slice(&mut heard), Ok(5));
            assert_eq!(&heard[..5], b"hello");
        }
        pair.receiver.close();
        assert_eq!(pair.receiver.unused_to_send().unwrap().len(), RING);
    }

    #[test]
    fn a_ring_goes_with_its_socket_to_another_thread() {
        let mut pair = Pair::connected();
        pair.send(b"abc");
        let mut receiver = pair.receiver;
        let left = std::thread::spawn(move || {
            receiver.recv(|some| (some.len(), ())).unwrap();
            let unused = receiver.unused_received();
            unused.map(|unused| unused[..3].to_vec())
        });
        assert_eq!(left.join().unwrap().unwrap(), b"abc");
    }
}
