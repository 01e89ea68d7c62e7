//! Packets and frames between two kernels, as through a tunnel, and answers to what was handed out for what it says. Each kernel
//! is a network namespace of this test's own; it checks lengths and checksums as no test of ours could. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use underpass::inlet::tap::Tap;
use underpass::inlet::tun::{Answers, Beside, NameServers, Pings, Tun, Udp, Unreachable, Ways};
use underpass::os::TunDevice;
use underpass::plan::{DeviceKind, DevicePlan};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest packet of a tunnel, about.
const LONG: usize = 32_764;

/// A network namespace.
#[derive(Clone)]
struct Net(Arc<File>);

impl Net {
    fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root (CAP_SYS_ADMIN)");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let net = Self(Arc::new(made.join().unwrap()));
        net.run(|| ip("link set lo up"));
        net
    }

    /// Does something in it, meanwhile.
    fn spawn<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let net = Arc::clone(&self.0);
        thread::spawn(move || {
            setns(&*net, CloneFlags::CLONE_NEWNET).unwrap();
            what()
        })
    }

    /// Does something in it.
    fn run<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(what).join().unwrap()
    }
}

/// What `ip` says to `args`, in the namespace of this thread.
fn ip(args: &str) -> String {
    let output = Command::new("ip").args(args.split(' ')).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {args}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Opens a device that is up, in the namespace of this thread, as number `host` of both networks.
fn device(kind: DeviceKind, mtu: Option<u16>, host: u8) -> TunDevice {
    let plan = DevicePlan {
        kind,
        mtu,
        ..DevicePlan::default()
    };
    let tun = TunDevice::open(&plan).unwrap();
    let (name, mtu) = (tun.name(), tun.mtu());
    // As it is set up outside of tests.
    ip(&format!(
        "link set dev {name} mtu {mtu} txqueuelen 10000 multicast off"
    ));
    ip(&format!("link set dev {name} up"));
    ip(&format!("addr add 10.77.0.{host}/24 dev {name}"));
    ip(&format!("addr add fd00:77::{host}/64 dev {name} nodad"));
    // Until then the kernel takes nothing for it; its work queue does that, when it has time.
    let local = format!("local fd00:77::{host} ");
    let began = Instant::now();
    while !ip("-6 route show table local").contains(&local) {
        assert!(began.elapsed() < PATIENCE, "no route to {host}");
        thread::yield_now();
    }
    tun
}

fn address(host: u8, is_v6: bool) -> IpAddr {
    let text = if is_v6 {
        format!("fd00:77::{host}")
    } else {
        format!("10.77.0.{host}")
    };
    text.parse().unwrap()
}

/// An end of the tunnel: its thread ends, and its device goes, when this is dropped.
struct End {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for End {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        assert!(
            ended.is_ok() || thread::panicking(),
            "the inlet ended on its own"
        );
    }
}

/// Runs `inlet` in `net` until the end is dropped; it says when its device is up.
fn end<F: Future<Output = ()>>(
    net: &Net,
    inlet: impl FnOnce(Sender<()>) -> F + Send + 'static,
) -> End {
    let (stop, stopped) = oneshot::channel::<()>();
    let (up, is_up) = channel();
    let thread = net.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            tokio::select! {
                () = inlet(up) => panic!("the device is gone"),
                _ = stopped => {}
            }
        });
    });
    is_up.recv_timeout(PATIENCE).unwrap();
    End {
        stop: Some(stop),
        thread: Some(thread),
    }
}

/// One direction of a tunnel.
type Pipe = (UnboundedSender<Vec<u8>>, UnboundedReceiver<Vec<u8>>);

/// An end with an engine, on a device of `kind`; `answer` gets what is handed out otherwise than whole.
fn tun_end(
    net: &Net,
    (kind, mtu, host): (DeviceKind, Option<u16>, u8),
    ways: Ways,
    out: UnboundedSender<Vec<u8>>,
    mut from: UnboundedReceiver<Vec<u8>>,
    answer: impl Fn(&Answers<TunDevice>, Beside<'_>) + Send + 'static,
) -> End {
    end(net, async move |up| {
        let tun = device(kind, mtu, host).watch().unwrap();
        let inlet = Tun::new(tun, 7, NameServers::default());
        inlet.carry(ways);
        let answers = inlet.answers();
        up.send(()).unwrap();
        let on_beside = |beside: Beside<'_>| match beside {
            // A send fails when the other end was dropped before this one.
            Beside::Packet(packet) => drop(out.send(packet.to_vec())),
            other => answer(&answers, other),
        };
        let deliver = async {
            while let Some(packet) = from.recv().await {
                answers.packet(&packet);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = inlet.run(|_| {}, |_| {}, on_beside) => {}
            () = deliver => {}
        }
        assert_eq!(inlet.failed_writes(), 0);
    })
}

/// Two kernels with a tunnel between them. The first has number 1, the second number 2.
struct Pair {
    nets: [Net; 2],
    _ends: [End; 2],
}

/// The near side has `kind` and `ways`, the far side carries everything.
fn tunnel(kind: DeviceKind, ways: Ways, far_mtu: u16) -> Pair {
    let nets = [Net::new(), Net::new()];
    let (there, back): (Pipe, Pipe) = (unbounded_channel(), unbounded_channel());
    let never = |_: &Answers<TunDevice>, beside: Beside<'_>| panic!("{beside:?}");
    let near = tun_end(&nets[0], (kind, None, 1), ways, there.0, back.1, never);
    let far = (DeviceKind::PlainTun, Some(far_mtu), 2);
    let far = tun_end(&nets[1], far, Ways::full(65_535), back.0, there.1, never);
    Pair {
        nets,
        _ends: [near, far],
    }
}

/// A near side whose datagrams and pings go to `answer`.
fn asked(
    ways: Ways,
    answer: impl Fn(&Answers<TunDevice>, Beside<'_>) + Send + 'static,
) -> (Net, End) {
    let net = Net::new();
    let (there, back): (Pipe, Pipe) = (unbounded_channel(), unbounded_channel());
    let near = (DeviceKind::Tun, None, 1);
    let end = tun_end(&net, near, ways, there.0, back.1, answer);
    (net, end)
}

fn socket(host: u8, is_v6: bool) -> UdpSocket {
    let socket = UdpSocket::bind((address(host, is_v6), 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 % 251) as u8).collect()
}

/// Answers each datagram with itself until an empty one comes; says where it listens.
fn echoing(net: &Net, host: u8, is_v6: bool) -> (SocketAddr, JoinHandle<()>) {
    let (at, is_at): (Sender<SocketAddr>, Receiver<SocketAddr>) = channel();
    let thread = net.spawn(move || {
        let socket = socket(host, is_v6);
        at.send(socket.local_addr().unwrap()).unwrap();
        let mut buffer = vec![0; 65_535];
        loop {
            let (len, whose) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(&buffer[..len], whose).unwrap();
            if len == 0 {
                break;
            }
        }
    });
    (is_at.recv_timeout(PATIENCE).unwrap(), thread)
}

fn exchange(socket: &UdpSocket, len: usize) {
    let sent = bytes(len);
    socket.send(&sent).unwrap();
    let mut buffer = vec![0; 65_535];
    let got = socket.recv(&mut buffer).unwrap();
    assert!(buffer[..got] == sent, "{got} of {len} bytes came back");
}

/// Each is checked by the far kernel, also those whose checksum ours left to the device; those above the MTU are fragments on
/// the way there, and on the way back longer than the device's MTU.
#[test]
fn datagrams_of_any_size_go_there_and_back() {
    for kind in [DeviceKind::Tun, DeviceKind::PlainTun] {
        let pair = tunnel(kind, Ways::hybrid(LONG), 9000);
        for is_v6 in [false, true] {
            let (at, thread) = echoing(&pair.nets[1], 2, is_v6);
            pair.nets[0].run(move || {
                let socket = socket(1, is_v6);
                socket.connect(at).unwrap();
                for len in [
                    1, 2, 3, 1451, 1452, 1453, 1472, 1473, 4000, 8900, 40_000, 65_000, 0,
                ] {
                    exchange(&socket, len);
                }
            });
            thread.join().unwrap();
        }
    }
}

/// `ping` of iputils, which compares what comes back.
fn ping(net: &Net, args: String) -> (bool, String) {
    net.run(move || {
        let ping = Command::new("ping").args(args.split(' ')).output().unwrap();
        let said = String::from_utf8_lossy(&ping.stdout).into_owned();
        (ping.status.success(), said)
    })
}

#[test]
fn pings_of_any_size_are_answered_by_the_far_kernel() {
    for (kind, ways) in [
        (DeviceKind::Tun, Ways::hybrid(LONG)),
        (DeviceKind::PlainTun, Ways::full(LONG)),
    ] {
        let pair = tunnel(kind, ways, 1500);
        for is_v6 in [false, true] {
            let (here, there) = (address(1, is_v6), address(2, is_v6));
            for size in [0, 56, 1452, 1472, 1473, 9000] {
                let (answered, said) = ping(&pair.nets[0], format!("-n -c1 -W5 -s{size} {there}"));
                assert!(answered && !said.contains("wrong"), "{said}");
                // The far side may ping us as well where everything goes as packets.
                if ways.full {
                    let (answered, said) =
                        ping(&pair.nets[1], format!("-n -c1 -W5 -s{size} {here}"));
                    assert!(answered && !said.contains("wrong"), "{said}");
                }
            }
            if !ways.full {
                let (answered, said) = ping(&pair.nets[1], format!("-n -c1 -W1 {here}"));
                assert!(!answered, "{said}");
            }
        }
    }
}

/// The far kernel refuses, and ours hears of it.
#[test]
fn a_closed_port_refuses_from_the_far_side() {
    let pair = tunnel(DeviceKind::Tun, Ways::hybrid(LONG), 1500);
    for is_v6 in [false, true] {
        pair.nets[0].run(move || {
            let socket = socket(1, is_v6);
            socket.connect((address(2, is_v6), 9)).unwrap();
            socket.send(b"question").unwrap();
            let error = socket.recv(&mut [0; 10]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        });
    }
}

/// The first is lost, its sender is told, and its kernel cuts the next ones.
#[test]
fn a_datagram_that_is_too_long_arrives_once_its_sender_knows() {
    let pair = tunnel(DeviceKind::Tun, Ways::hybrid(1300), 1500);
    for is_v6 in [false, true] {
        let (at, thread) = echoing(&pair.nets[1], 2, is_v6);
        pair.nets[0].run(move || {
            let socket = socket(1, is_v6);
            socket.connect(at).unwrap();
            exchange(&socket, 1200);
            let route = || ip(&format!("route get {}", at.ip()));
            assert!(!route().contains("mtu"), "{}", route());
            socket.send(&bytes(1400)).unwrap();
            let began = Instant::now();
            let told = loop {
                if let Some(told) = socket.take_error().unwrap() {
                    break told;
                }
                assert!(began.elapsed() < PATIENCE, "nobody told it");
                thread::yield_now();
            };
            assert_eq!(told.raw_os_error(), Some(nix::libc::EMSGSIZE));
            assert!(route().contains("mtu 1300"), "{}", route());
            for len in [1400, 9000, 0] {
                exchange(&socket, len);
            }
        });
        thread.join().unwrap();
    }
}

fn transfer(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    stream.write_all(&got).unwrap();
}

/// In full mode the kernels speak TCP with one another, and the far network opens connections to us.
#[test]
fn tcp_goes_both_ways_in_full_mode() {
    let pair = tunnel(DeviceKind::PlainTun, Ways::full(LONG), 1500);
    for is_v6 in [false, true] {
        for (listens, opens) in [(1, 2), (2, 1)] {
            let (at, is_at) = channel();
            let serving = pair.nets[listens - 1].spawn(move || {
                let listener = TcpListener::bind((address(listens as u8, is_v6), 0)).unwrap();
                at.send(listener.local_addr().unwrap()).unwrap();
                transfer(&listener);
            });
            let at: SocketAddr = is_at.recv_timeout(PATIENCE).unwrap();
            pair.nets[opens - 1].run(move || {
                let mut stream = TcpStream::connect_timeout(&at, PATIENCE).unwrap();
                let sent = bytes(1_000_003);
                stream.write_all(&sent).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let mut got = Vec::new();
                stream.read_to_end(&mut got).unwrap();
                assert!(got == sent, "{} bytes came back", got.len());
            });
            serving.join().unwrap();
        }
    }
}

/// Of the far network's connections ours knows nothing otherwise.
#[test]
fn tcp_from_the_far_side_gets_no_answer_otherwise() {
    let pair = tunnel(DeviceKind::Tun, Ways::hybrid(LONG), 1500);
    let _listener = pair.nets[0].run(|| TcpListener::bind((address(1, false), 7)).unwrap());
    pair.nets[1].run(|| {
        let at = SocketAddr::new(address(1, false), 7);
        let error = TcpStream::connect_timeout(&at, Duration::from_millis(500)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
}

fn asking() -> Ways {
    Ways {
        udp: Udp::Datagrams,
        pings: Pings::Ask,
        hop: [Some("192.0.2.1".parse().unwrap()), None],
        ..Ways::default()
    }
}

/// What a helper on the far side says for them.
#[test]
fn answers_in_the_name_of_others_are_taken() {
    let (net, _end) = asked(asking(), |answers, beside| match beside {
        Beside::Datagram(datagram) if datagram.target.0.port() == 9 => {
            answers.unreachable(&datagram, Unreachable::Port);
        }
        Beside::Datagram(datagram) => {
            let len: usize = std::str::from_utf8(datagram.payload)
                .unwrap()
                .parse()
                .unwrap();
            answers.datagram(datagram.target, datagram.source, &bytes(len));
        }
        Beside::Echo(echo) if echo.seq == 1 => answers.echo(&echo),
        Beside::Echo(echo) => answers.echo_unreachable(&echo, Unreachable::Host),
        Beside::Packet(packet) => panic!("{packet:?}"),
    });
    for is_v6 in [false, true] {
        net.run(move || {
            let socket = socket(1, is_v6);
            socket.connect((address(20, is_v6), 7)).unwrap();
            let mut buffer = vec![0; 65_535];
            let most = if is_v6 { 65_527 } else { 65_507 };
            for len in [0, 1, 1452, 1453, 1472, 1473, 9000, most] {
                socket.send(len.to_string().as_bytes()).unwrap();
                let got = socket.recv(&mut buffer).unwrap();
                assert!(buffer[..got] == bytes(len), "{got} of {len} bytes");
            }
            socket.connect((address(20, is_v6), 9)).unwrap();
            socket.send(b"question").unwrap();
            let error = socket.recv(&mut buffer).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        });
        let target = address(20, is_v6);
        let (answered, said) = ping(&net, format!("-n -c1 -W5 -s1000 {target}"));
        assert!(answered && !said.contains("wrong"), "{said}");
        let (_, said) = ping(&net, format!("-n -c2 -i0.01 -W5 {target}"));
        assert!(
            said.contains("1 received") && said.contains("nreachable"),
            "{said}"
        );
    }
    // One hop: the server's.
    let (_, said) = ping(&net, format!("-n -c1 -W5 -t1 {}", address(20, false)));
    assert!(
        said.contains("From 192.0.2.1") && said.contains("Time to live exceeded"),
        "{said}"
    );
}

/// An end without an engine: frames as they are.
fn tap_end(
    net: &Net,
    host: u8,
    out: UnboundedSender<Vec<u8>>,
    mut from: UnboundedReceiver<Vec<u8>>,
) -> End {
    end(net, async move |up| {
        let tap = Tap::new(device(DeviceKind::Tap, None, host).watch().unwrap());
        up.send(()).unwrap();
        let deliver = async {
            while let Some(frame) = from.recv().await {
                tap.send(&frame);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = tap.run(|frame| drop(out.send(frame.to_vec()))) => {}
            () = deliver => {}
        }
        assert_eq!(tap.failed_writes(), 0);
    })
}

/// Neighbours are found: ARP, and ICMPv6, through a link that its devices call one without multicast.
#[test]
fn frames_make_neighbours() {
    let nets = [Net::new(), Net::new()];
    let (there, back): (Pipe, Pipe) = (unbounded_channel(), unbounded_channel());
    let _near = tap_end(&nets[0], 1, there.0, back.1);
    let _far = tap_end(&nets[1], 2, back.0, there.1);
    for is_v6 in [false, true] {
        let target = address(2, is_v6);
        let (answered, said) = ping(&nets[0], format!("-n -c1 -W5 -s9000 {target}"));
        assert!(answered && !said.contains("wrong"), "{said}");
        let neighbours = nets[0].run(|| ip("neigh"));
        assert!(
            neighbours.contains(&format!("{target} dev underpass0 lladdr")),
            "{neighbours}"
        );
    }
}

#[test]
fn a_device_that_was_deleted_ends_its_inlet() {
    let net = Net::new();
    net.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let error = runtime.block_on(async {
            let tap = Tap::new(device(DeviceKind::Tap, None, 1).watch().unwrap());
            ip("link del underpass0");
            tokio::time::timeout(PATIENCE, tap.run(|_| {})).await
        });
        error.unwrap().unwrap_err();
    });
}
