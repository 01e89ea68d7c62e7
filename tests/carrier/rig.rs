//! A real sshd on loopback, and services for it to forward to.

#![allow(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use std::sync::Arc;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use underpass::carrier::{NoPrompter, RusshCarrier};
use underpass::net::{ByteReader, Source, StreamError, Target};
use underpass::plan::{HostKeyPolicy, SshClient, SshPlan};

/// A source address for an open; sshd only logs it.
pub(crate) fn local(port: u16) -> Source {
    Source(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// Logs in.
pub(crate) async fn connect(sshd: &Sshd) -> RusshCarrier {
    RusshCarrier::connect(&sshd.plan(), Arc::new(NoPrompter))
        .await
        .unwrap()
}

/// A port of loopback at which nobody listens.
pub(crate) async fn closed_port() -> Target {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    Target(listener.local_addr().unwrap())
}

/// A command that runs one test of this program, which stands in `module` (`module_path!()`), in a process of its own.
pub(crate) fn one_test(module: &str, test: &str) -> Command {
    let within = module.split_once("::").map(|(_program, within)| within);
    let name = within.map_or_else(|| test.to_owned(), |within| format!("{within}::{test}"));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&name, "--exact", "--include-ignored"]);
    command
}

/// Runs a command of [`one_test`]: the test is there, and passes.
pub(crate) fn assert_passes(mut test: Command) {
    let output = test.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains(" 1 passed"),
        "{test:?}: {said}"
    );
}

/// The resident memory of this process in KiB.
pub(crate) fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// `len` bytes in which every position is told apart from its neighbours.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

/// Sends `bytes` and ends.
pub(crate) async fn source(bytes: Vec<u8>) -> Target {
    let bytes = Arc::new(bytes);
    let address = serve(move |mut stream| {
        let bytes = Arc::clone(&bytes);
        async move {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            // Until the peer ends, so that the end is orderly.
            let _ = stream.read(&mut [0]).await;
        }
    })
    .await;
    Target(address)
}

/// Reads to the orderly end.
pub(crate) async fn read_all(reader: &mut impl ByteReader) -> Result<Vec<u8>, StreamError> {
    let mut all = Vec::new();
    while let Some(chunk) = reader.read().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// An sshd of our own, ended by pid on drop.
pub(crate) struct Sshd {
    dir: TempDir,
    port: u16,
    child: Child,
}

impl Sshd {
    /// Starts sshd with `extra` lines of configuration, and a key that may log in.
    pub(crate) fn start(extra: &str) -> Self {
        Self::start_with_key_options(extra, "")
    }

    /// As [`start`](Self::start), with `options` in front of the key in authorized_keys.
    pub(crate) fn start_with_key_options(extra: &str, options: &str) -> Self {
        let dir = TempDir::new_in("/tmp").unwrap();
        // sshd wants its privilege separation directory.
        let _ = fs::create_dir_all("/run/sshd");
        for key in ["host_key", "id_ed25519"] {
            keygen(&dir.path().join(key), "ed25519", "");
        }
        let public = fs::read_to_string(dir.path().join("id_ed25519.pub")).unwrap();
        fs::write(
            dir.path().join("authorized_keys"),
            format!("{options} {public}"),
        )
        .unwrap();
        let port = free_port();
        let config = dir.path().join("sshd_config");
        let d = dir.path().display();
        fs::write(
            &config,
            format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {d}/host_key\nPidFile none\n\
                 AuthorizedKeysFile {d}/authorized_keys\nStrictModes no\nUsePAM no\n\
                 PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
                 MaxStartups 100\n{extra}\n"
            ),
        )
        .unwrap();
        let child = run(&dir);
        let sshd = Self { dir, port, child };
        sshd.wait();
        let host = fs::read_to_string(sshd.path("host_key.pub")).unwrap();
        fs::write(
            sshd.path("known_hosts"),
            format!("[127.0.0.1]:{port} {host}"),
        )
        .unwrap();
        sshd
    }

    /// Ends it, and starts it once more at the same port; its log begins anew.
    pub(crate) fn restart_with_another_host_key(&mut self) {
        self.cut();
        let _ = self.child.wait();
        fs::remove_file(self.path("host_key")).unwrap();
        keygen(&self.path("host_key"), "ed25519", "");
        self.child = run(&self.dir);
        self.wait();
    }

    fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(
                Instant::now() < until,
                "sshd does not start: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A file of this server's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What sshd wrote.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// How to log in here.
    pub(crate) fn plan(&self) -> SshPlan {
        SshPlan {
            identities: vec![self.path("id_ed25519")],
            host_keys: HostKeyPolicy::Yes,
            known_hosts: vec![self.path("known_hosts")],
            ..SshPlan::new("127.0.0.1", self.port, "root")
        }
    }

    /// The same as a person would have typed it for ssh, behind `more`.
    pub(crate) fn client(&self, more: &[&str]) -> SshClient {
        let known_hosts = format!("UserKnownHostsFile={}", self.path("known_hosts").display());
        let key = self.path("id_ed25519").display().to_string();
        let port = self.port.to_string();
        let typed = ["-F", "none", "-l", "root", "-p", &port, "-i", &key];
        let options = [
            "-o",
            &known_hosts,
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "IdentityAgent=none",
        ];
        let arguments = more.iter().chain(&typed).chain(&options);
        SshClient {
            arguments: arguments.map(ToString::to_string).collect(),
        }
    }
}

impl Sshd {
    /// Connections now: sshd has a process for each.
    pub(crate) fn connections(&self) -> usize {
        children(&self.child.id().to_string()).len()
    }

    /// Stops the processes of its connections, as a network that has gone away would.
    pub(crate) fn freeze(&self) {
        let children = children(&self.child.id().to_string());
        children.iter().for_each(|pid| signal(pid, Signal::SIGSTOP));
    }

    /// Stops the server and the processes of its connections: it stays connected and says nothing.
    pub(crate) fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Takes [`stop`](Self::stop) back.
    pub(crate) fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, what: Signal) {
        let mut pids = vec![self.child.id().to_string()];
        while let Some(pid) = pids.pop() {
            pids.extend(children(&pid));
            signal(&pid, what);
        }
    }

    /// Ends the server and the processes of its connections, as a crash of the machine would.
    pub(crate) fn cut(&mut self) {
        let children = children(&self.child.id().to_string());
        let _ = self.child.kill();
        children.iter().for_each(|pid| kill(pid));
    }
}

/// Runs sshd over its directory.
fn run(dir: &TempDir) -> Child {
    let log = fs::File::create(dir.path().join("log")).unwrap();
    Command::new("/usr/sbin/sshd")
        .args(["-D", "-e", "-f"])
        .arg(dir.path().join("sshd_config"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn children(pid: &str) -> Vec<String> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    children.split_whitespace().map(str::to_owned).collect()
}

fn signal(pid: &str, signal: Signal) {
    let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
    let _ = nix::sys::signal::kill(pid, signal);
}

pub(crate) fn kill(pid: &str) {
    children(pid).iter().for_each(|child| kill(child));
    signal(pid, Signal::SIGKILL);
}

impl Drop for Sshd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("sshd said:\n{}", self.log());
        }
        self.cut();
        let _ = self.child.wait();
    }
}

/// Makes a key pair with ssh-keygen.
pub(crate) fn keygen(path: &std::path::Path, kind: &str, passphrase: &str) {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-N", passphrase, "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(status.success());
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

pub(crate) fn free_port() -> u16 {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Sends back what it gets, and ends when its peer ends.
pub(crate) struct Echo {
    address: SocketAddr,
    seen: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Echo {
    pub(crate) async fn start() -> Self {
        let (seen, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (Arc::clone(&seen), Arc::clone(&open));
        let address = serve(move |mut stream| {
            let (seen, open) = (Arc::clone(&counts.0), Arc::clone(&counts.1));
            async move {
                open.fetch_add(1, Relaxed);
                seen.fetch_add(1, Relaxed);
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                open.fetch_sub(1, Relaxed);
            }
        })
        .await;
        Self {
            address,
            seen,
            open,
        }
    }

    /// Connections so far.
    pub(crate) fn seen(&self) -> usize {
        self.seen.load(Relaxed)
    }

    /// Connections now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    pub(crate) fn target(&self) -> Target {
        Target(self.address)
    }
}

/// Runs `service` for each connection to a port of loopback.
pub(crate) async fn serve<F, S>(service: F) -> SocketAddr
where
    F: Fn(TcpStream) -> S + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(service(stream));
        }
    });
    address
}
