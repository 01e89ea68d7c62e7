//! UDP by the far ends: real programs in real shells, and sockets on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use underpass::net::{ByteReader, ByteWriter, Exec, FlowKey, OpenFailure, Source, Target};
use underpass::udp::{Carries, Deliver, Heard, Image, Means, Proxy, State, Trouble, Upload, probe};

use crate::commands::{Local, Said, Told};
use crate::frame::frame;

const PATIENCE: Duration = Duration::from_secs(20);
const UNDERPASS: &str = env!("CARGO_BIN_EXE_underpass");
const LOOPBACK: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

struct Answers(mpsc::UnboundedSender<(FlowKey, Heard)>);

impl Deliver for Answers {
    type Record = ();

    fn began(&self, _key: FlowKey, _far: SocketAddr) {}

    fn deliver(&self, key: FlowKey, heard: Heard) {
        // A test may have heard enough.
        let _ = self.0.send((key, heard));
    }
}

/// A proxy over a far end on this machine.
struct Rig {
    proxy: Arc<Proxy<Answers>>,
    heard: mpsc::UnboundedReceiver<(FlowKey, Heard)>,
    task: JoinHandle<()>,
    local: Local,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Rig {
    /// The far end starts with the first datagram.
    fn new(local: Local) -> Self {
        Self::with_upload(local, None)
    }

    /// Where `program` is this one, it is on the server already when this is done: it goes there ahead of the first datagram.
    async fn with(program: &str, local: Local) -> Self {
        if program != UPLOADED {
            return Self::new(local);
        }
        let rig = Self::with_upload(local, Some(ourselves()));
        rig.is_up().await;
        rig
    }

    fn with_upload(local: Local, upload: Option<Upload>) -> Self {
        let (sender, heard) = mpsc::unbounded_channel();
        let proxy = Proxy::new(Arc::new(Answers(sender))).with_upload(upload);
        let proxy = Arc::new(proxy);
        let (runs, exec) = (proxy.clone(), local.clone());
        let task = tokio::spawn(async move { match runs.run(&exec).await {} });
        Self {
            proxy,
            heard,
            task,
            local,
        }
    }

    fn send(&self, key: FlowKey, far: SocketAddr, payload: &[u8]) {
        assert!(self.proxy.handle_datagram(key, far, payload));
    }

    /// Waits for a state that is looked for.
    async fn becomes<T>(&self, look: impl Fn(State) -> Option<T>) -> T {
        let becomes = async {
            loop {
                if let Some(found) = look(self.proxy.state()) {
                    return found;
                }
                tokio::task::yield_now().await;
            }
        };
        let found = timeout(PATIENCE, becomes).await;
        found.unwrap_or_else(|_| panic!("{}", self.proxy.state()))
    }

    async fn is_up(&self) {
        let look = |state| match state {
            State::Failed(trouble) => panic!("{trouble}"),
            state => matches!(state, State::Up(_)).then_some(()),
        };
        self.becomes(look).await;
    }

    /// Why there is no far end.
    async fn failed(&self) -> Trouble {
        let look = |state| match state {
            State::Failed(trouble) => Some(trouble),
            _ => None,
        };
        self.becomes(look).await
    }

    async fn next(&mut self) -> (FlowKey, Heard) {
        timeout(PATIENCE, self.heard.recv()).await.unwrap().unwrap()
    }

    async fn next_datagram(&mut self) -> (FlowKey, Vec<u8>) {
        match self.next().await {
            (key, Heard::Datagram(payload)) => (key, payload.to_vec()),
            (key, heard) => panic!("{key}: {heard:?}"),
        }
    }
}

/// A directory with nothing but `programs` in it, for PATH.
fn only(programs: &[&str]) -> tempfile::TempDir {
    // Where no test mounts something.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for program in programs {
        let found = ["/usr/bin", "/bin"].map(|bin| Path::new(bin).join(program));
        let found = found.iter().find(|path| path.exists());
        let found = found.unwrap_or_else(|| panic!("{program} is needed"));
        symlink(found, dir.path().join(program)).unwrap();
    }
    dir
}

const POSIX: [&str; 5] = ["sh", "dd", "od", "tr", "ping"];
/// What it takes to upload a helper.
const TAKES: [&str; 6] = ["chmod", "head", "mktemp", "rm", "uname", "wc"];
/// In the place of a program of the server's.
const UPLOADED: &str = "the uploaded helper";
/// All that carry everything.
const EVERYTHING: [&str; 3] = ["python3", "perl", UPLOADED];

/// This program, as `--upload-helper` has it.
fn ourselves() -> Upload {
    uploads(UNDERPASS.into())
}

fn uploads(file: PathBuf) -> Upload {
    Upload::new(Box::new(move || {
        let file = std::fs::File::open(&file)?;
        let size = file.metadata()?.len();
        let bytes = Box::new(tokio::fs::File::from_std(file));
        Ok(Image { size, bytes })
    }))
}

/// A server with `program` and what POSIX has, whose login has the shell `shell`.
fn with(program: &str, shell: &'static [&'static str]) -> (Local, tempfile::TempDir) {
    let dir = match program {
        UPLOADED => only(&[&POSIX[..], &TAKES].concat()),
        _ => only(&[&POSIX[..], &[program]].concat()),
    };
    if program == "python3" {
        // Not a manager's script, which needs more than there is.
        std::fs::remove_file(dir.path().join("python3")).unwrap();
        symlink("/usr/bin/python3", dir.path().join("python3")).unwrap();
    }
    let mut local = Local::new(shell);
    local.path = Some(dir.path().to_string_lossy().into_owned());
    (local, dir)
}

fn key(port: u16, target: SocketAddr) -> FlowKey {
    let ip = match target {
        SocketAddr::V4(_) => "10.0.0.1".parse().unwrap(),
        SocketAddr::V6(_) => "fd00::1".parse().unwrap(),
    };
    FlowKey {
        source: Source(SocketAddr::new(ip, port)),
        target: Target(target),
    }
}

/// Answers each datagram with itself, and with the port that it came from before it.
async fn echo(address: &str) -> (SocketAddr, JoinHandle<()>) {
    let socket = UdpSocket::bind(address).await.unwrap();
    let address = socket.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            let answer = [&from.port().to_be_bytes()[..], &buffer[..len]].concat();
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    (address, task)
}

#[tokio::test]
async fn a_server_says_what_it_has() {
    for (program, means) in [
        ("python3", Some(Means::Python)),
        ("perl", Some(Means::Perl)),
        ("socat", Some(Means::Socat)),
        ("nc", Some(Means::Nc { is_limited: true })),
        ("true", None),
    ] {
        let (local, _dir) = with(program, &["/bin/sh"]);
        let found = probe(&local).await.unwrap();
        assert_eq!((found.means, found.pings), (means, true), "{program}");
    }
    for shell in [
        &["/bin/bash"][..],
        &["/bin/busybox", "sh"],
        &["/usr/bin/fish"],
    ] {
        let (local, _dir) = with("perl", Box::leak(shell.to_vec().into_boxed_slice()));
        let found = probe(&local).await.unwrap();
        assert_eq!(found.means, Some(Means::Perl), "{shell:?}");
    }
}

/// Both families, all sizes, and a far socket of its own for each flow.
async fn everything(program: &str, shell: &'static [&'static str]) {
    for has_pipes in [false, true] {
        let (mut local, _dir) = with(program, shell);
        local.has_pipes = has_pipes;
        everything_over(local, program).await;
    }
}

async fn everything_over(local: Local, program: &str) {
    let mut rig = Rig::with(program, local).await;
    for address in LOOPBACK {
        let (server, task) = echo(address).await;
        let mut ports = Vec::new();
        for (port, len) in [(1, 0), (2, 1), (1, 1200), (2, 9_000), (1, 65_000), (2, 3)] {
            let payload: Vec<u8> = (0..len).map(|i| (i % 256) as u8).collect();
            rig.send(key(port, server), server, &payload);
            let (from, answer) = rig.next_datagram().await;
            assert_eq!(from, key(port, server));
            assert_eq!(&answer[2..], payload, "{len} bytes");
            ports.push(u16::from_be_bytes([answer[0], answer[1]]));
        }
        assert_eq!((ports[0], ports[1]), (ports[2], ports[3]), "they stay");
        assert_ne!(ports[0], ports[1], "each flow has its own");
        task.abort();
    }
    assert!(matches!(rig.proxy.state(), State::Up(means) if means.name() == program));
    let counters = rig.proxy.counters();
    assert_eq!(
        (counters.flows, counters.sent, counters.received),
        (4, 12, 12)
    );
    assert_eq!(
        rig.local.runs.load(Ordering::Relaxed),
        2,
        "a question, and one channel for all"
    );
}

#[tokio::test]
async fn python_carries_everything() {
    everything("python3", &["/bin/sh"]).await;
}

#[tokio::test]
async fn perl_carries_everything() {
    everything("perl", &["/bin/sh"]).await;
}

#[tokio::test]
async fn an_uploaded_helper_carries_everything() {
    everything(UPLOADED, &["/bin/sh"]).await;
}

#[tokio::test]
async fn a_login_may_have_another_shell() {
    everything("perl", &["/usr/bin/fish"]).await;
    everything("python3", &["/bin/busybox", "sh"]).await;
    everything(UPLOADED, &["/usr/bin/fish"]).await;
}

/// The target moves on to several answers, and those that nobody asked for: not one to each question.
#[tokio::test]
async fn a_far_host_may_say_more_than_it_is_asked() {
    for program in EVERYTHING {
        let (local, _dir) = with(program, &["/bin/sh"]);
        let mut rig = Rig::with(program, local).await;
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let target = server.local_addr().unwrap();
        rig.send(key(7, target), target, b"subscribe");
        let mut buffer = [0; 64];
        let (_, from) = server.recv_from(&mut buffer).await.unwrap();
        for number in 0..100_u8 {
            server.send_to(&[number; 20], from).await.unwrap();
        }
        for number in 0..100_u8 {
            let heard = rig.next_datagram().await;
            assert_eq!(heard, (key(7, target), vec![number; 20]), "{program}");
        }
    }
}

#[tokio::test]
async fn a_closed_port_is_told() {
    for program in EVERYTHING {
        let (local, _dir) = with(program, &["/bin/sh"]);
        let mut rig = Rig::with(program, local).await;
        for address in LOOPBACK {
            let socket = UdpSocket::bind(address).await.unwrap();
            let target = socket.local_addr().unwrap();
            drop(socket);
            rig.send(key(9, target), target, b"anybody?");
            let heard = rig.next().await;
            let refused = Heard::Failed(OpenFailure::Refused);
            assert_eq!(heard, (key(9, target), refused), "{program}");
            // It opens later: the flow goes on.
            let socket = UdpSocket::bind(target).await.unwrap();
            rig.send(key(9, target), target, b"and now?");
            let mut buffer = [0; 64];
            let received = timeout(PATIENCE, socket.recv_from(&mut buffer)).await;
            let (len, from) = received.unwrap().unwrap();
            assert_eq!(&buffer[..len], b"and now?");
            socket.send_to(b"yes", from).await.unwrap();
            assert_eq!(rig.next_datagram().await, (key(9, target), b"yes".to_vec()));
        }
    }
}

/// In a network of its own there is no route.
#[tokio::test]
async fn a_missing_route_is_told() {
    for program in EVERYTHING {
        let (local, _dir) = with(program, &["/usr/bin/unshare", "--net", "/bin/sh"]);
        let mut rig = Rig::with(program, local).await;
        for target in ["203.0.113.1:53", "[2001:db8::1]:53"] {
            let target = target.parse().unwrap();
            rig.send(key(9, target), target, b"anybody?");
            let missing = Heard::Failed(OpenFailure::NetworkUnreachable);
            assert_eq!(rig.next().await, (key(9, target), missing), "{program}");
        }
        assert_eq!(rig.proxy.counters().flows, 0, "it has no socket");
    }
}

/// A network of its own: two routes that say no at once, and one where a filter says it later, by ICMP.
const UNKIND: &[&str] = &[
    "/usr/bin/unshare",
    "--net",
    "/bin/sh",
    "-c",
    "export PATH=$PATH:/usr/sbin:/sbin; ip link set lo up; ip address add 10.7.0.1/32 dev lo; \
     ip route add unreachable 10.5.0.0/16; ip route add prohibit 10.6.0.0/16; \
     nft 'add table t; add chain t in { type filter hook input priority 0; }; \
     add rule t in ip daddr 10.7.0.1 udp dport 53 reject with icmp host-unreachable'; exec /bin/sh \"$@\"",
    "sh",
];

#[tokio::test]
async fn what_is_unreachable_is_told_as_what_it_is() {
    for program in EVERYTHING {
        let (local, _dir) = with(program, UNKIND);
        let mut rig = Rig::with(program, local).await;
        for (target, failure) in [
            ("10.5.0.1:53", OpenFailure::HostUnreachable),
            ("10.6.0.1:53", OpenFailure::Filtered),
            ("10.7.0.1:53", OpenFailure::HostUnreachable),
        ] {
            let target = target.parse().unwrap();
            rig.send(key(9, target), target, b"anybody?");
            let heard = rig.next().await;
            assert_eq!(heard, (key(9, target), Heard::Failed(failure)), "{program}");
        }
    }
}

/// A network of its own whose queue is full at any time.
const FULL: &[&str] = &[
    "/usr/bin/unshare",
    "--net",
    "/bin/sh",
    "-c",
    "export PATH=$PATH:/usr/sbin:/sbin; ip link set lo up; tc qdisc add dev lo root pfifo limit 0; \
     ip route add unreachable 10.5.0.0/16; exec /bin/sh \"$@\"",
    "sh",
];

#[tokio::test]
async fn a_full_queue_at_the_server_ends_no_flow() {
    for program in EVERYTHING {
        let (local, _dir) = with(program, FULL);
        let mut rig = Rig::with(program, local).await;
        let lost = "127.0.0.1:53".parse().unwrap();
        for port in [1, 2, 3, 1] {
            rig.send(key(port, lost), lost, b"anybody?");
        }
        // What is heard of this one was said after all that was said of them.
        let last = "10.5.0.1:53".parse().unwrap();
        rig.send(key(9, last), last, b"anybody?");
        let unreachable = Heard::Failed(OpenFailure::HostUnreachable);
        assert_eq!(rig.next().await, (key(9, last), unreachable), "{program}");
        let flows = rig.proxy.counters().flows;
        assert!((3..=4).contains(&flows), "{program}: {flows}");
    }
}

/// A server that lets a login have few files: the flow that would end next makes room.
#[tokio::test]
async fn a_far_end_with_few_files_keeps_the_latest_flows() {
    for program in EVERYTHING {
        let (local, _dir) = with(program, &["/usr/bin/prlimit", "--nofile=24:24", "/bin/sh"]);
        let mut rig = Rig::with(program, local).await;
        let (server, _task) = echo(LOOPBACK[0]).await;
        for port in 1..=60 {
            // The one that had no room is not answered, and nothing is told: it is sent again, as programs do.
            loop {
                rig.send(key(port, server), server, b"x");
                let answered = async { while rig.next_datagram().await.0 != key(port, server) {} };
                if timeout(Duration::from_millis(300), answered).await.is_ok() {
                    break;
                }
            }
        }
        let flows = rig.proxy.counters().flows;
        assert!((5..24).contains(&flows), "{program}: {flows}");
    }
}

/// 2,000 flows at a time, beyond what a login has by default.
#[tokio::test]
async fn thousands_of_flows() {
    for program in EVERYTHING {
        let (local, _dir) = with(
            program,
            &["/usr/bin/prlimit", "--nofile=1024:8192", "/bin/sh"],
        );
        let mut rig = Rig::with(program, local).await;
        let (server, _task) = echo(LOOPBACK[0]).await;
        for port in 1..=2_000 {
            rig.send(key(port, server), server, &port.to_be_bytes());
            let (from, answer) = rig.next_datagram().await;
            assert_eq!(
                (from, &answer[2..]),
                (key(port, server), &port.to_be_bytes()[..])
            );
        }
        assert_eq!(rig.proxy.counters().flows, 2_000);
    }
}

/// socat and nc: one answer to each datagram, a question at a time or several.
async fn questions(program: &str, shell: &'static [&'static str]) {
    for has_pipes in [false, true] {
        let (mut local, _dir) = with(program, shell);
        local.has_pipes = has_pipes;
        questions_over(local).await;
    }
}

async fn questions_over(local: Local) {
    let mut rig = Rig::new(local);
    for address in LOOPBACK {
        let (server, _task) = echo(address).await;
        for len in [1, 512, 3_900] {
            let payload: Vec<u8> = (0..len).map(|i| (i % 256) as u8).collect();
            rig.send(key(1, server), server, &payload);
            let (from, answer) = rig.next_datagram().await;
            assert_eq!(
                (from, &answer[2..]),
                (key(1, server), &payload[..]),
                "{len} bytes"
            );
        }
        for port in 1..=20_u16 {
            rig.send(key(port, server), server, &[port as u8; 700]);
        }
        let mut answered = Vec::new();
        for _ in 0..20 {
            let (from, answer) = rig.next_datagram().await;
            assert_eq!(answer[2..], [from.source.0.port() as u8; 700]);
            answered.push(from.source.0.port());
        }
        answered.sort_unstable();
        assert_eq!(answered, (1..=20).collect::<Vec<u16>>());
    }
    assert!(matches!(rig.proxy.state(), State::Up(means) if means.carries() == Carries::Questions));
    assert_eq!(
        rig.local.runs.load(Ordering::Relaxed),
        2,
        "one channel for all"
    );
}

#[tokio::test]
async fn socat_carries_questions() {
    questions("socat", &["/bin/sh"]).await;
}

#[tokio::test]
async fn nc_carries_questions() {
    questions("nc", &["/bin/sh"]).await;
}

#[tokio::test]
async fn busybox_will_do_as_the_shell() {
    let (mut local, dir) = with("socat", &["/bin/busybox", "sh"]);
    for applet in ["sh", "dd", "od", "tr"] {
        let path = dir.path().join(applet);
        std::fs::remove_file(&path).unwrap();
        symlink("/bin/busybox", path).unwrap();
    }
    local.path = Some(dir.path().to_string_lossy().into_owned());
    let mut rig = Rig::new(local);
    let (server, _task) = echo(LOOPBACK[0]).await;
    rig.send(key(1, server), server, b"\0\\%s\n\xff");
    assert_eq!(rig.next_datagram().await.1[2..], *b"\0\\%s\n\xff");
}

/// A login that greets, as some shells' files do.
#[tokio::test]
async fn what_a_login_says_is_passed_over() {
    let greets: &[&str] = &["/bin/sh", "-c", "echo Welcome; exec /bin/sh \"$@\"", "sh"];
    let (local, _dir) = with("perl", Box::leak(greets.to_vec().into_boxed_slice()));
    let mut rig = Rig::new(local);
    let (server, _task) = echo(LOOPBACK[0]).await;
    rig.send(key(1, server), server, b"hello");
    assert_eq!(rig.next_datagram().await.1[2..], *b"hello");
}

#[tokio::test]
async fn nobody_carries_where_nothing_can_be_run() {
    let (mut local, _dir) = with("true", &["/bin/sh"]);
    for forbids in [false, true] {
        local.forbids = forbids;
        let rig = Rig::new(local.clone());
        let target = "127.0.0.1:53".parse().unwrap();
        rig.send(key(1, target), target, b"x");
        let trouble = rig.failed().await;
        assert!(!rig.proxy.handle_datagram(key(1, target), target, b"x"));
        match (trouble, forbids) {
            (Trouble::NoMeans, false) => {}
            (Trouble::NoExec(error), true) => assert_eq!(error.text, "no exec"),
            (trouble, _) => panic!("{trouble:?}"),
        }
    }
}

/// A far end without a near end: what it says, what it is told, and its programs.
async fn far_end(program: &str) -> (Said, Told, tempfile::TempDir) {
    let (local, dir) = with(program, &["/bin/sh"]);
    let means = match program {
        UPLOADED => {
            let command = format!("exec {UNDERPASS} udp-far-end");
            let (reader, writer) = local.exec(&command).await.unwrap();
            return (reader, writer, dir);
        }
        "python3" => Means::Python,
        "perl" => Means::Perl,
        "socat" => Means::Socat,
        _ => Means::Nc { is_limited: true },
    };
    let (reader, mut writer) = local.exec(&means.command()).await.unwrap();
    writer.write(means.program().into()).await.unwrap();
    (reader, writer, dir)
}

/// Whatever the means: it ends with its input, and so with the channel.
#[tokio::test]
async fn a_far_end_ends_with_its_input() {
    for program in ["python3", "perl", UPLOADED, "socat", "nc"] {
        let (mut reader, mut writer, _dir) = far_end(program).await;
        let greeting = timeout(PATIENCE, reader.read()).await.unwrap();
        assert_eq!(greeting.unwrap().unwrap(), "underpass-udp-1\n", "{program}");
        writer.finish().await.unwrap();
        let end = timeout(PATIENCE, reader.read()).await.unwrap();
        assert_eq!(end, Ok(None), "{program}");
    }
}

/// Nobody reads what the far end says: it goes on listening, and keeps little.
#[tokio::test]
async fn a_far_end_that_is_not_read_holds_up_nothing_and_keeps_little() {
    for program in EVERYTHING {
        let (mut reader, mut writer, _dir) = far_end(program).await;
        reader.read().await.unwrap();
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let open = format!("127.0.0.1 {}", server.local_addr().unwrap().port());
        let hello = [frame(1, 3, open.as_bytes()), frame(1, 0, b"hello")].concat();
        writer.write(hello.into()).await.unwrap();
        let mut buffer = [0; 64];
        let (_, far) = server.recv_from(&mut buffer).await.unwrap();
        for round in 0..50_u8 {
            for _ in 0..200 {
                server.send_to(&[round; 1400], far).await.unwrap();
            }
            writer.write(frame(1, 0, &[round]).into()).await.unwrap();
            let received = timeout(PATIENCE, server.recv_from(&mut buffer)).await;
            assert_eq!(received.unwrap().unwrap(), (1, far), "{program}, {round}");
            assert_eq!(buffer[0], round);
        }
        // All that it kept, and whole.
        writer.finish().await.unwrap();
        let mut said = Vec::new();
        while let Some(piece) = timeout(PATIENCE, reader.read()).await.unwrap().unwrap() {
            said.extend_from_slice(&piece);
        }
        assert!(said.len() < 1 << 20, "{program}: {}", said.len());
        assert_eq!(
            said[..7],
            [
                1400_u16.to_be_bytes()[0],
                1400_u16.to_be_bytes()[1],
                0,
                0,
                0,
                1,
                0
            ]
        );
    }
}

/// A server with what an upload takes, whose logins have this shell, after `prepared` was done.
fn bare(prepared: &str) -> (Local, tempfile::TempDir) {
    let script = format!("{prepared}; exec /bin/sh \"$@\"");
    let shell: [&'static str; 6] = [
        "/usr/bin/unshare",
        "--mount",
        "/bin/sh",
        "-c",
        script.leak(),
        "sh",
    ];
    with(UPLOADED, Box::leak(Box::new(shell)))
}

/// `upload` by a server that is prepared so: why it fails.
async fn refused(prepared: &str, upload: Upload) -> String {
    let (local, _dir) = bare(prepared);
    let rig = Rig::with_upload(local, Some(upload));
    match rig.failed().await {
        Trouble::Upload(error) => error.to_string(),
        trouble => panic!("{trouble:?}"),
    }
}

/// This program with other bytes in the place of `from`.
fn changed(dir: &Path, from: &[u8], to: &[u8]) -> Upload {
    let mut bytes = std::fs::read(UNDERPASS).unwrap();
    let at = bytes.windows(from.len()).position(|it| it == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    std::fs::write(dir.join("changed"), bytes).unwrap();
    uploads(dir.join("changed"))
}

#[tokio::test]
async fn an_upload_goes_where_programs_can_be_run_from() {
    let (local, _dir) = bare(
        "export PATH=$PATH:/bin:/usr/bin TMPDIR=/no/such; \
         for dir in /tmp /var/tmp; do mount -t tmpfs -o noexec none $dir; done; \
         mkdir /tmp/home; mount -t tmpfs none /tmp/home; export HOME=/tmp/home; PATH=${PATH%:/bin:/usr/bin}",
    );
    let mut rig = Rig::with(UPLOADED, local).await;
    let (server, _task) = echo(LOOPBACK[0]).await;
    rig.send(key(1, server), server, b"hello");
    assert_eq!(rig.next_datagram().await.1[2..], *b"hello");
    assert!(matches!(
        rig.proxy.state(),
        State::Up(Means::Uploaded { .. })
    ));
}

#[tokio::test]
async fn it_says_why_nothing_was_uploaded() {
    let nowhere = "export PATH=$PATH:/bin:/usr/bin TMPDIR=/no/such; unset HOME; \
                   for dir in /tmp /var/tmp /dev/shm; do mount -t tmpfs -o noexec none $dir; done; PATH=${PATH%:/bin:/usr/bin}";
    assert_eq!(
        refused(nowhere, ourselves()).await,
        "no helper can be uploaded: the server cannot keep it: /no/such cannot be written to; no program can be run from /tmp; \
         no program can be run from /var/tmp; no program can be run from /dev/shm"
    );
    let small = "PATH=/bin:/usr/bin mount -t tmpfs -o size=1m none /tmp";
    assert_eq!(
        refused(small, ourselves()).await,
        "no helper can be uploaded: the server cannot keep it in /tmp: head: error writing 'standard output': No space left on device"
    );
    let dir = tempfile::tempdir().unwrap();
    let no_loader = changed(dir.path(), b"ld-linux", b"ld-other");
    let said = refused(":", no_loader).await;
    assert!(
        said.starts_with("the uploaded helper does not run on the server (")
            && said.contains("--target"),
        "{said}"
    );
    let no_more = "PATH=/bin:/usr/bin mount -t tmpfs none /tmp; ulimit -v 20000";
    let said = refused(no_more, ourselves()).await;
    assert!(
        said.starts_with("the uploaded helper does not run on the server: ")
            && !said.contains("--target"),
        "{said}"
    );
    let machine = std::fs::read(UNDERPASS).unwrap()[..20].to_vec();
    let mut other = machine.clone();
    other[18] = 22;
    let said = refused(":", changed(dir.path(), &machine, &other)).await;
    assert!(
        said.contains("and the file is for s390x; it takes a static build for there"),
        "{said}"
    );
}

/// A helper that cannot run there is not sent a second time, however many datagrams ask for it.
#[tokio::test]
async fn what_never_runs_is_sent_once() {
    let dir = tempfile::tempdir().unwrap();
    let (local, _dir) = bare(":");
    let rig = Rig::with_upload(local, Some(changed(dir.path(), b"ld-linux", b"ld-other")));
    let first = rig.failed().await;
    // A question, and the upload.
    assert_eq!(rig.local.runs.load(Ordering::Relaxed), 2);
    let target: SocketAddr = "127.0.0.1:53".parse().unwrap();
    let asked = async {
        while rig.local.runs.load(Ordering::Relaxed) < 3 {
            rig.proxy.handle_datagram(key(1, target), target, b"x");
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, asked).await.unwrap();
    assert_eq!(rig.failed().await, first);
    assert_eq!(
        rig.local.runs.load(Ordering::Relaxed),
        3,
        "a question alone"
    );
    // Whoever asks for the state hears why, also when it may be tried again.
    let look = |state| match state {
        State::Again(trouble) => Some(trouble),
        _ => None,
    };
    assert_eq!(rig.becomes(look).await, first);
}

/// What a login's loader has to say is no reason.
#[tokio::test]
async fn a_loader_may_say_something_first() {
    let (local, _dir) = bare("export LD_PRELOAD=/no/such.so");
    Rig::with(UPLOADED, local).await;
}

#[tokio::test]
async fn busybox_will_do_for_an_upload() {
    let (mut local, dir) = with(UPLOADED, &["/bin/busybox", "sh"]);
    for applet in [&POSIX[..], &TAKES].concat() {
        let path = dir.path().join(applet);
        std::fs::remove_file(&path).unwrap();
        symlink("/bin/busybox", path).unwrap();
    }
    local.path = Some(dir.path().to_string_lossy().into_owned());
    let mut rig = Rig::with(UPLOADED, local).await;
    let (server, _task) = echo(LOOPBACK[0]).await;
    rig.send(key(1, server), server, b"hello");
    assert_eq!(rig.next_datagram().await.1[2..], *b"hello");
}

/// Cut off while it is sent: the file has no name that could be left.
#[tokio::test]
async fn an_upload_that_is_cut_off_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let (local, _dir) = bare(&format!("export TMPDIR={}", place.path().display()));
    let is_empty = || std::fs::read_dir(place.path()).unwrap().next().is_none();
    let means = Means::Uploaded { size: 400_000 };
    let (mut reader, mut writer) = local.exec(&means.command()).await.unwrap();
    writer.write(means.program().into()).await.unwrap();
    let ready = timeout(PATIENCE, reader.read()).await.unwrap().unwrap();
    let expected = format!("underpass-ready {}\n", place.path().display());
    assert_eq!(ready.unwrap(), expected);
    assert!(is_empty());
    writer.write(vec![7; 131_072].into()).await.unwrap();
    let took = timeout(PATIENCE, reader.read()).await.unwrap().unwrap();
    assert_eq!(took.unwrap(), "underpass-took\n");
    writer.write(vec![7; 100].into()).await.unwrap();
    assert!(is_empty());
    writer.finish().await.unwrap();
    let mut said = Vec::new();
    while let Some(piece) = timeout(PATIENCE, reader.read()).await.unwrap().unwrap() {
        said.extend_from_slice(&piece);
    }
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("underpass-cannot keep it: "), "{said}");
    assert!(is_empty());
}

/// A socket of this machine in the place of the device: what comes there goes to `far` by the rig, and back.
async fn front(mut rig: Rig, far: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        loop {
            tokio::select! {
                received = socket.recv_from(&mut buffer) => {
                    let (len, from) = received.unwrap();
                    let key = FlowKey { source: Source(from), target: Target(far) };
                    rig.proxy.handle_datagram(key, far, &buffer[..len]);
                }
                Some((key, heard)) = rig.heard.recv() => {
                    if let Heard::Datagram(payload) = heard {
                        socket.send_to(&payload, key.source.0).await.unwrap();
                    }
                }
            }
        }
    });
    (address, task)
}

/// dig asks dnsmasq, by each of the means.
#[tokio::test]
async fn names_are_looked_up_over_udp() {
    let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let server = free.local_addr().unwrap();
    drop(free);
    let mut dnsmasq = tokio::process::Command::new("dnsmasq");
    dnsmasq.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
    ]);
    dnsmasq.args([
        "--bind-interfaces",
        "--listen-address=127.0.0.1",
        "--pid-file=",
    ]);
    dnsmasq.arg(format!("--port={}", server.port()));
    dnsmasq.arg("--address=/db.internal.example/10.7.0.9");
    let _dnsmasq = dnsmasq.kill_on_drop(true).spawn().unwrap();
    for program in ["python3", "perl", UPLOADED, "socat", "nc"] {
        let (local, _dir) = with(program, &["/bin/sh"]);
        let (address, task) = front(Rig::with(program, local).await, server).await;
        let mut dig = tokio::process::Command::new("dig");
        dig.args(["@127.0.0.1", "-p", &address.port().to_string()]);
        dig.args([
            "+notcp",
            "+short",
            "+tries=10",
            "+timeout=2",
            "db.internal.example",
        ]);
        let output = timeout(PATIENCE, dig.output()).await.unwrap().unwrap();
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(answer, "10.7.0.9\n", "{program}");
        task.abort();
    }
}
