//! The main job in one command: a private web host that only an SSH bastion can reach, and underpass between it and
//! an ordinary program. Everything is in this process: three network namespaces without names, an SSH server that
//! allows nothing but forwarding, a web server. All of it goes with the process, however that ends.
//!
//! ```text
//!     you                         bastion                    private web host
//!  +---------------+           +----------------+           +---------------+
//!  |          wan  |-----------| users     vpc  |-----------| eth0          |
//!  +---------------+           +----------------+           +---------------+
//!    192.168.77.2            192.168.77.1  10.0.1.1              10.0.1.20
//! ```
//! `you` have no route to 10.0.1.0/24, nor does the bastion forward packets.

use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::{Arc, LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use rtnetlink::{LinkUnspec, LinkVeth};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, PublicKey};
use russh::server::{
    self, Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelOpenFailure};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

const YOU: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
const BASTION: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
const BASTION_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const WEB: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 20);
const SUBNET: &str = "10.0.1.0/24";
const PAGE: &str = "<h1>The intranet</h1> You are not supposed to reach this from outside.\n";
/// Byte `i` is `i % 251`: a prime, so that a lost piece of any round size shows.
static LARGE: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..=250).cycle().take(64 * 1024 * 1024).collect());
/// How long anything may take that should take a moment.
const PATIENCE: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    match demo() {
        Ok(()) => {
            println!("\nAll of it worked. Nothing is left behind.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    ensure!(
        geteuid().is_root(),
        "it makes network namespaces and a TUN device: run it as root, such as with sudo scripts/demo"
    );
    let binary = built_binary()?;
    let you = Host::new("you")?;
    let bastion = Host::new("bastion")?;
    let web = Host::new("web host")?;
    let keys = Keys::new()?;
    let main = Builder::new_current_thread().enable_all().build()?;
    main.block_on(async {
        tokio::select! {
            result = story(&binary, &you, &bastion, &web, &keys) => result,
            () = told_to_stop() => bail!("interrupted"),
        }
    })
}

/// Returns at Ctrl-C or SIGTERM; never if they cannot be watched, and then they end the process at once.
async fn told_to_stop() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// The program that this demo was built with; `cargo run` builds examples only, so that it is asked for here.
fn built_binary() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let profile = here
        .ancestors()
        .nth(2)
        .context("the demo is not in a target directory")?;
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = std::process::Command::new(cargo);
        build.args(["build", "--quiet", "--locked", "--bin", "underpass"]);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        ensure!(
            build.status()?.success(),
            "cargo could not build the program"
        );
    }
    let binary = profile.join("underpass");
    ensure!(
        binary.exists(),
        "there is no {}: cargo build --bin underpass",
        binary.display()
    );
    Ok(binary)
}

async fn story(binary: &Path, you: &Host, bastion: &Host, web: &Host, keys: &Keys) -> Result<()> {
    wire(you, bastion, web).await?;
    web.run(serve_pages()).await?;
    bastion
        .run(serve_ssh(
            keys.server_config(),
            keys.user.public_key().clone(),
        ))
        .await?;

    println!("  you {YOU}  ----  bastion {BASTION}, SSH only  ----  private web host {WEB}\n");
    // Devices that have just been set up may take a second until they pass packets.
    bastion
        .run(connect(80))
        .await
        .context("the bastion cannot reach the web host")?;
    unreachable(you, "before").await?;

    let began = Instant::now();
    println!("\n$ underpass up -r demo@{BASTION} {SUBNET}");
    let mut underpass = you.run(start(binary.to_owned(), keys.arguments())).await?;
    println!("  {}\n", underpass.ready);
    report("command to ready", began);

    let result = visit(you).await;
    let stopped = underpass.stop().await;
    result.with_context(|| format!("underpass said: {}", underpass.ready))?;
    stopped?;
    unreachable(you, "after Ctrl-C").await
}

/// What an ordinary program on this host now sees.
async fn visit(you: &Host) -> Result<()> {
    let began = Instant::now();
    let page = you.run(get("/")).await?;
    ensure!(
        page == PAGE.as_bytes(),
        "the page is not what the host sent"
    );
    report(&format!("GET http://{WEB}/: {} bytes", page.len()), began);

    let began = Instant::now();
    let file = you.run(get("/large")).await?;
    let (size, rate) = (LARGE.len(), megabits_per_second(LARGE.len(), began));
    report(
        &format!(
            "GET http://{WEB}/large: {} MiB, {rate:.0} Mbit/s",
            size >> 20
        ),
        began,
    );
    ensure!(file == *LARGE, "the large page is not what the host sent");

    let began = Instant::now();
    let pages = (0..100).map(|_| you.run(get("/")));
    let fetched = futures_util::future::join_all(pages).await;
    for page in fetched {
        ensure!(
            page? == PAGE.as_bytes(),
            "one of 100 pages is not what the host sent"
        );
    }
    report("100 pages at the same time, a connection each", began);

    let began = Instant::now();
    let refused = you.run(connect(81)).await;
    let error = refused.err().context("the closed port looked open")?;
    ensure!(
        error.raw_os_error() == Some(nix::libc::ECONNREFUSED),
        "the closed port was not refused: {error}"
    );
    report(
        &format!("connect to {WEB}:81, which is closed: {error}"),
        began,
    );
    Ok(())
}

fn megabits_per_second(bytes: usize, began: Instant) -> f64 {
    bytes as f64 * 8.0 / 1e6 / began.elapsed().as_secs_f64()
}

fn report(what: &str, began: Instant) {
    println!(
        "  {what:<76}{:>8.1} ms",
        began.elapsed().as_secs_f64() * 1e3
    );
}

/// The host has no route to the private network.
async fn unreachable(you: &Host, when: &str) -> Result<()> {
    let error = you
        .run(connect(80))
        .await
        .err()
        .context("the private network is reachable without underpass")?;
    println!("  {when}: http://{WEB}/: {error}");
    Ok(())
}

// --- hosts -----------------------------------------------------------------------------------------------

/// A network namespace with a thread in it; whatever runs there opens its sockets in that network.
struct Host {
    runtime: Handle,
    namespace: File,
    /// Dropped with the host, which ends its thread, which ends the namespace.
    _alive: oneshot::Sender<()>,
}

impl Host {
    fn new(name: &str) -> Result<Self> {
        let (made, host) = mpsc::channel();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || match Self::enter() {
                Ok((runtime, host, end)) => {
                    let _ = made.send(Ok(host));
                    let _ = runtime.block_on(end);
                }
                Err(error) => drop(made.send(Err(error))),
            })?;
        host.recv()?
    }

    fn enter() -> Result<(tokio::runtime::Runtime, Self, oneshot::Receiver<()>)> {
        unshare(CloneFlags::CLONE_NEWNET).context("no network namespace can be made here")?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (alive, end) = oneshot::channel();
        let host = Self {
            runtime: runtime.handle().clone(),
            namespace: File::open("/proc/thread-self/ns/net")?,
            _alive: alive,
        };
        Ok((runtime, host, end))
    }

    /// Runs on this host.
    async fn run<T: Send + 'static, E: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E> {
        match self.runtime.spawn(work).await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// Two cables, and an address at each end.
async fn wire(you: &Host, bastion: &Host, web: &Host) -> Result<()> {
    let (yours, webs) = (you.namespace.as_raw_fd(), web.namespace.as_raw_fd());
    bastion
        .run(async move {
            cable("users", "wan", yours).await?;
            cable("vpc", "eth0", webs).await?;
            plug("users", BASTION).await?;
            plug("vpc", BASTION_INSIDE).await
        })
        .await?;
    you.run(plug("wan", YOU)).await?;
    web.run(plug("eth0", WEB)).await
}

/// A pair of devices, one of them in another namespace.
async fn cable(here: &str, there: &str, namespace: i32) -> Result<()> {
    let (connection, netlink, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    let pair = LinkVeth::new(here, there).build();
    netlink.link().add(pair).execute().await?;
    let away = LinkUnspec::new_with_name(there).setns_by_fd(namespace);
    netlink.link().set(away.build()).execute().await?;
    Ok(())
}

/// Gives a device an address in a /24 and sets it up.
async fn plug(device: &'static str, address: Ipv4Addr) -> Result<()> {
    let (connection, netlink, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    for name in ["lo", device] {
        let up = LinkUnspec::new_with_name(name).up().build();
        netlink.link().set(up).execute().await?;
    }
    let index = nix::net::if_::if_nametoindex(device)?;
    netlink
        .address()
        .add(index, IpAddr::V4(address), 24)
        .execute()
        .await?;
    Ok(())
}

// --- the bastion -----------------------------------------------------------------------------------------

/// Keys made for this run, in files that go with it.
struct Keys {
    directory: TempDir,
    host: PrivateKey,
    user: PrivateKey,
}

impl Keys {
    fn new() -> Result<Self> {
        let make = || PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519);
        let keys = Self {
            directory: tempfile::tempdir()?,
            host: make()?,
            user: make()?,
        };
        keys.user
            .write_openssh_file(keys.directory.path().join("id"), LineEnding::LF)?;
        let mut known = File::create(keys.directory.path().join("known_hosts"))?;
        writeln!(known, "{BASTION} {}", keys.host.public_key().to_openssh()?)?;
        Ok(keys)
    }

    fn server_config(&self) -> Arc<Config> {
        Arc::new(Config {
            keys: vec![self.host.clone()],
            // Clients ask first which ways in there are, by one that is refused (RFC 4252 section 5.2).
            auth_rejection_time_initial: Some(Duration::ZERO),
            ..Config::default()
        })
    }

    fn arguments(&self) -> Vec<String> {
        let path = |name| self.directory.path().join(name).display().to_string();
        let words = [
            "up",
            "-r",
            &format!("demo@{BASTION}"),
            "-i",
            &path("id"),
            "-o",
        ];
        let known = format!("UserKnownHostsFile={}", path("known_hosts"));
        words
            .into_iter()
            .chain([known.as_str(), SUBNET])
            .map(str::to_owned)
            .collect()
    }
}

/// An SSH server for one user, who may forward TCP and nothing else: no shell, no command, no tunnel.
#[derive(Clone)]
struct Bastion {
    user: PublicKey,
}

async fn serve_ssh(config: Arc<Config>, user: PublicKey) -> Result<()> {
    let listener = TcpListener::bind((BASTION, 22)).await?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (config, bastion) = (config.clone(), Bastion { user: user.clone() });
            tokio::spawn(async move {
                stream.set_nodelay(true)?;
                server::run_stream(config, stream, bastion).await?.await
            });
        }
    });
    Ok(())
}

impl Handler for Bastion {
    type Error = anyhow::Error;

    async fn auth_publickey(&mut self, _: &str, key: VerifiedPublicKey<'_>) -> Result<Auth> {
        let known = key.public_key.key_data() == self.user.key_data();
        Ok(if known { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<()> {
        let target = SocketAddr::new(host.parse()?, u16::try_from(port)?);
        tokio::spawn(forward(channel, target, reply));
        Ok(())
    }
}

async fn forward(
    channel: Channel<Msg>,
    target: SocketAddr,
    reply: ChannelOpenHandle,
) -> Result<()> {
    match TcpStream::connect(target).await {
        Ok(mut far) => {
            reply.accept().await;
            far.set_nodelay(true)?;
            copy_bidirectional(&mut channel.into_stream(), &mut far).await?;
        }
        Err(error) => {
            // As sshd answers: SSH_OPEN_CONNECT_FAILED (RFC 4254 section 5.1) with the system's own words.
            let reason = error.to_string();
            reply
                .reject(ChannelOpenFailure::Other { code: 2, reason })
                .await;
        }
    }
    Ok(())
}

// --- the web host ----------------------------------------------------------------------------------------

async fn serve_pages() -> Result<()> {
    LazyLock::force(&LARGE);
    let listener = TcpListener::bind((WEB, 80)).await?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    Ok(())
}

/// One request, one answer (HTTP/1.0: the end of the connection ends the page).
async fn answer(stream: TcpStream) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    stream.read_line(&mut request).await?;
    while stream.read_line(&mut String::new()).await? > 2 {}
    let page = match request.split(' ').nth(1) {
        Some("/") => PAGE.as_bytes().to_vec(),
        Some("/large") => LARGE.clone(),
        _ => bail!("no such page"),
    };
    stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await?;
    stream.write_all(&page).await?;
    stream.shutdown().await?;
    Ok(())
}

// --- the ordinary program --------------------------------------------------------------------------------

async fn connect(port: u16) -> std::io::Result<TcpStream> {
    tokio::time::timeout(PATIENCE, TcpStream::connect((WEB, port)))
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

/// The body of a page.
async fn get(path: &'static str) -> Result<Vec<u8>> {
    let mut stream = connect(80).await.context("connect")?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
        .await?;
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    tokio::time::timeout(PATIENCE, reading)
        .await
        .map_err(|_| anyhow!("GET {path}: no end of the page in {PATIENCE:?}"))??;
    let head = b"\r\n\r\n";
    let body = answer.windows(head.len()).position(|at| at == head);
    let body = body.with_context(|| format!("GET {path}: no answer"))? + head.len();
    Ok(answer.split_off(body))
}

// --- underpass -------------------------------------------------------------------------------------------

/// The real program at work.
struct Underpass {
    child: Child,
    ready: String,
}

/// Returns when it says that it is ready.
async fn start(binary: PathBuf, arguments: Vec<String>) -> Result<Underpass> {
    let mut child = Command::new(binary)
        .args(arguments)
        // Ctrl-C is for the demo, which stops it in its turn.
        .process_group(0)
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stderr.take().context("no stderr")?).lines();
    let mut said = String::new();
    while let Some(line) = tokio::time::timeout(PATIENCE, lines.next_line()).await?? {
        said = line;
        if said.contains("ready") {
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(Underpass { child, ready: said });
        }
    }
    Err(anyhow!("underpass ended: {said}"))
}

impl Underpass {
    /// As Ctrl-C does.
    async fn stop(&mut self) -> Result<()> {
        let pid = self.child.id().context("underpass has ended by itself")?;
        let began = Instant::now();
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGINT)?;
        let status = tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .context("underpass does not stop")??;
        ensure!(status.success(), "underpass: {status}");
        report("Ctrl-C to the end", began);
        println!();
        Ok(())
    }
}
