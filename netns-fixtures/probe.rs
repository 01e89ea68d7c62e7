//! The application's side of the tests: one small client per kernel behaviour that we promise. Talks to the services
//! of `services.rs`, checks every byte, and prints its findings as one line of JSON per event. `result` is `open`, `ok`,
//! `connected` (still at work), `mismatch`, `timeout` (the probe's own), or the name of the errno.

#[allow(dead_code)]
mod pattern;

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use pattern::Checksum;

const READ: usize = 256 * 1024;

#[derive(Parser)]
#[command(about = "The application's side of the tests")]
struct Arguments {
    /// Give up after this many milliseconds without progress
    #[arg(long, default_value_t = 30_000, global = true)]
    timeout: u64,
    #[command(subcommand)]
    probe: Probe,
}

#[derive(Subcommand)]
enum Probe {
    /// Connect and close
    Connect { addr: IpAddr, port: u16 },
    /// Send a datagram and wait for an answer or an error
    Udp { addr: IpAddr, port: u16 },
    /// Send an ICMP echo request and wait for the reply
    Ping { addr: IpAddr },
    /// Fetch /bytes/N over HTTP, twice on one connection
    Http { addr: IpAddr, port: u16, len: u64 },
    /// Read N bytes and FIN (port 5001)
    Get { addr: IpAddr, port: u16, len: u64 },
    /// Write N bytes and FIN, compare the far side's checksum (port 5002) or count (port 9)
    Put { addr: IpAddr, port: u16, len: u64 },
    /// Write N bytes and FIN, then read as many (port 5003)
    HalfClose { addr: IpAddr, port: u16, len: u64 },
    /// Read to the far side's FIN, then write N bytes (port 5009)
    FarClose { addr: IpAddr, port: u16, len: u64 },
    /// Read the banner before anything is sent, then one echo (port 5005)
    Banner { addr: IpAddr, port: u16 },
    /// Be reset after 1,000 bytes (port 5006)
    Rst { addr: IpAddr, port: u16 },
    /// N exchanges of one line on a connection each, so many at a time (port 5007)
    Short {
        addr: IpAddr,
        port: u16,
        count: usize,
        #[arg(long, default_value_t = 1)]
        parallel: usize,
    },
    /// N connections open at the same time, an echo on each (port 7)
    Many {
        addr: IpAddr,
        port: u16,
        count: usize,
        /// To so many addresses in turn, from ADDR on
        #[arg(long, default_value_t = 1)]
        hosts: u32,
        /// Keep them open until a line comes on standard input, then echo again
        #[arg(long)]
        hold: bool,
    },
    /// Read the endless source (port 19)
    Source {
        addr: IpAddr,
        port: u16,
        /// Read this much only
        #[arg(long, default_value_t = u64::MAX)]
        bytes: u64,
        /// Read at most so many bytes per second
        #[arg(long)]
        rate: Option<u64>,
        /// Read nothing until a line comes on standard input
        #[arg(long)]
        wait: bool,
        /// Ask for so many bytes first (port 5001)
        #[arg(long)]
        ask: Option<u64>,
    },
    /// N echoes of 64 bytes one after the other (port 7)
    EchoLatency {
        addr: IpAddr,
        port: u16,
        count: usize,
        #[arg(long, default_value_t = 0)]
        interval_ms: u64,
    },
}

/// What a probe found: the word for `result`, and further JSON members (`"a":1,"b":2`).
struct Finding {
    result: String,
    more: String,
}

impl Finding {
    fn ok(more: impl Into<String>) -> io::Result<Self> {
        Self::new("ok", more)
    }

    fn new(result: &str, more: impl Into<String>) -> io::Result<Self> {
        Ok(Self {
            result: result.to_owned(),
            more: more.into(),
        })
    }

    fn mismatch(what: &str) -> io::Result<Self> {
        Self::new("mismatch", format!("\"what\":{what:?}"))
    }

    fn of(result: io::Result<Self>) -> Self {
        result.unwrap_or_else(|error| Self {
            result: word(&error),
            more: String::new(),
        })
    }

    fn print(&self, started: Instant) {
        let ms = started.elapsed().as_secs_f64() * 1000.0;
        let comma = if self.more.is_empty() { "" } else { "," };
        println!(
            "{{\"result\":{:?},\"ms\":{ms:.1}{comma}{}}}",
            self.result, self.more
        );
    }
}

fn main() {
    let arguments = Arguments::parse();
    let started = Instant::now();
    let patience = Duration::from_millis(arguments.timeout);
    Finding::of(run(arguments.probe, patience, started)).print(started);
}

fn run(probe: Probe, patience: Duration, started: Instant) -> io::Result<Finding> {
    match probe {
        Probe::Udp { addr, port } => udp(addr, port, patience),
        Probe::Ping { addr } => ping(addr, patience),
        Probe::Short {
            addr,
            port,
            count,
            parallel,
        } => runtime()?.block_on(short(
            SocketAddr::new(addr, port),
            count,
            parallel,
            patience,
        )),
        Probe::Many {
            addr,
            port,
            count,
            hosts,
            hold,
        } => runtime()?.block_on(many(
            SocketAddr::new(addr, port),
            hosts,
            count,
            hold,
            patience,
            started,
        )),
        Probe::Connect { addr, port } => {
            connect(addr, port, patience).and_then(|_| Finding::new("open", ""))
        }
        Probe::Http { addr, port, len } => http(connect(addr, port, patience)?, len),
        Probe::Get { addr, port, len } => get(connect(addr, port, patience)?, len),
        Probe::Put { addr, port, len } => put(connect(addr, port, patience)?, len),
        Probe::HalfClose { addr, port, len } => half_close(connect(addr, port, patience)?, len),
        Probe::FarClose { addr, port, len } => far_close(
            connect(addr, port, patience)?,
            connect(addr, 80, patience)?,
            len,
        ),
        Probe::Banner { addr, port } => banner(connect(addr, port, patience)?),
        Probe::Rst { addr, port } => rst(connect(addr, port, patience)?),
        Probe::Source {
            addr,
            port,
            bytes,
            rate,
            wait,
            ask,
        } => {
            let mut stream = connect(addr, port, patience)?;
            if let Some(len) = ask {
                writeln!(stream, "{len}")?;
            }
            Finding::new("connected", "")?.print(started);
            if wait {
                wait_for_line()?;
            }
            source(stream, bytes, rate)
        }
        Probe::EchoLatency {
            addr,
            port,
            count,
            interval_ms,
        } => {
            let pause = Duration::from_millis(interval_ms);
            echo_latency(connect(addr, port, patience)?, count, pause)
        }
    }
}

/// The errno's name, or `timeout` where it was our own patience that ended.
fn word(error: &io::Error) -> String {
    match (error.kind(), error.raw_os_error()) {
        (ErrorKind::TimedOut, None) | (ErrorKind::WouldBlock, _) => "timeout".to_owned(),
        (_, Some(errno)) => format!("{:?}", Errno::from_raw(errno)),
        (kind, None) => format!("{kind:?}"),
    }
}

fn wait_for_line() -> io::Result<()> {
    io::stdin().lock().read_line(&mut String::new()).map(drop)
}

fn connect(addr: IpAddr, port: u16, patience: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::new(addr, port), patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn udp(addr: IpAddr, port: u16, patience: Duration) -> io::Result<Finding> {
    let any: IpAddr = if addr.is_ipv4() {
        [0; 4].into()
    } else {
        [0; 16].into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((addr, port))?;
    exchange(&socket, b"are you there", patience)
}

fn ping(addr: IpAddr, patience: Duration) -> io::Result<Finding> {
    let (family, protocol, request) = match addr {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128),
    };
    let socket = socket(family, SockType::Datagram, SockFlag::empty(), protocol)?;
    // An ICMP datagram socket is used as a UDP socket is; the kernel fills in identifier and checksum (icmp(7)).
    let socket = UdpSocket::from(socket);
    socket.connect((addr, 0))?;
    exchange(&socket, &[request, 0, 0, 0, 0, 0, 0, 1, 42], patience)
}

fn exchange(socket: &UdpSocket, message: &[u8], patience: Duration) -> io::Result<Finding> {
    socket.set_read_timeout(Some(patience))?;
    socket.send(message)?;
    let n = socket.recv(&mut [0; 2048])?;
    Finding::new("open", format!("\"bytes\":{n}"))
}

/// Reads up to `len` bytes of the pattern from stream offset `at`; how many came before FIN, or where they differ.
fn read_pattern(stream: &mut impl Read, at: u64, len: u64) -> io::Result<Result<u64, u64>> {
    let mut buffer = vec![0; READ];
    let mut count = 0;
    while count < len {
        let want = (len - count).min(READ as u64) as usize;
        let n = stream.read(&mut buffer[..want])?;
        if n == 0 {
            break;
        }
        if let Some(offset) = pattern::mismatch(at + count, &buffer[..n]) {
            return Ok(Err(offset));
        }
        count += n as u64;
    }
    Ok(Ok(count))
}

/// Reads the pattern to FIN and compares the length.
fn expect_pattern(stream: &mut impl Read, len: u64) -> io::Result<Finding> {
    match read_pattern(stream, 0, u64::MAX)? {
        Ok(count) if count == len => Finding::ok(format!("\"bytes\":{count}")),
        Ok(count) => Finding::mismatch(&format!("{count} bytes came instead of {len}")),
        Err(offset) => Finding::mismatch(&format!("byte {offset} differs")),
    }
}

fn write_pattern(stream: &mut TcpStream, len: u64) -> io::Result<()> {
    let mut at = 0;
    while at < len {
        at += stream.write(pattern::slice(at, len - at))? as u64;
    }
    Ok(())
}

fn http(stream: TcpStream, len: u64) -> io::Result<Finding> {
    let mut stream = BufReader::new(stream);
    for connection in ["keep-alive", "close"] {
        let body = http_request(&mut stream, &format!("/bytes/{len}"), connection)?;
        if body != len {
            return Finding::mismatch(&format!("Content-Length {body} instead of {len}"));
        }
        if connection == "keep-alive" && read_pattern(&mut stream, 0, len)? != Ok(len) {
            return Finding::mismatch("the body on the kept connection");
        }
    }
    expect_pattern(&mut stream, len)
}

/// Sends a request and reads the head of the answer; the Content-Length.
fn http_request(
    stream: &mut BufReader<TcpStream>,
    path: &str,
    connection: &str,
) -> io::Result<u64> {
    let request = format!("GET {path} HTTP/1.1\r\nConnection: {connection}\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes())?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        if line == "\r\n" {
            return Ok(length);
        }
    }
}

fn get(mut stream: TcpStream, len: u64) -> io::Result<Finding> {
    stream.write_all(format!("{len}\n").as_bytes())?;
    expect_pattern(&mut stream, len)
}

fn put(mut stream: TcpStream, len: u64) -> io::Result<Finding> {
    write_pattern(&mut stream, len)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    // The discard service only counts: for measurements, as a checksum costs time at both ends.
    let only_counted = !answer.contains(' ');
    let want = if only_counted {
        len.to_string()
    } else {
        Checksum::of_pattern(len)
    };
    compare(answer.trim(), &want)
}

fn compare(got: &str, want: &str) -> io::Result<Finding> {
    if got == want {
        Finding::ok("")
    } else {
        Finding::mismatch(&format!("got {got:?}, expected {want:?}"))
    }
}

fn half_close(mut stream: TcpStream, len: u64) -> io::Result<Finding> {
    write_pattern(&mut stream, len)?;
    stream.shutdown(Shutdown::Write)?;
    let mut stream = BufReader::new(stream);
    let mut summary = String::new();
    stream.read_line(&mut summary)?;
    let want = Checksum::of_pattern(len);
    if summary.trim() != want {
        return compare(summary.trim(), &want);
    }
    expect_pattern(&mut stream, len)
}

fn far_close(mut stream: TcpStream, http: TcpStream, len: u64) -> io::Result<Finding> {
    let mut banner = String::new();
    stream.read_to_string(&mut banner)?;
    if banner != "done\n" {
        return compare(&banner, "done\n");
    }
    write_pattern(&mut stream, len)?;
    stream.shutdown(Shutdown::Write)?;
    let want = Checksum::of_pattern(len);
    let mut http = BufReader::new(http);
    // The far side tells what it read on another connection, and may need a moment to read it all.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let length = http_request(&mut http, "/far-close", "keep-alive")?;
        let mut answer = vec![0; length as usize];
        http.read_exact(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        if answer == want || Instant::now() > deadline {
            return compare(&answer, &want);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn banner(mut stream: TcpStream) -> io::Result<Finding> {
    let mut greeting = [0; 24];
    stream.read_exact(&mut greeting)?;
    if &greeting != b"hello from the far side\n" {
        return compare(
            &String::from_utf8_lossy(&greeting),
            "hello from the far side\n",
        );
    }
    echo(&mut stream, 1)?;
    stream.shutdown(Shutdown::Write)?;
    expect_pattern(&mut stream, 0)
}

fn echo(stream: &mut TcpStream, number: u64) -> io::Result<()> {
    let message = pattern::slice(number * 64, 64);
    stream.write_all(message)?;
    let mut answer = [0; 64];
    stream.read_exact(&mut answer)?;
    if answer == *message {
        Ok(())
    } else {
        Err(io::Error::other("the echo differs"))
    }
}

fn rst(mut stream: TcpStream) -> io::Result<Finding> {
    stream.write_all(b"x")?;
    let mut count = 0;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => {
                let then = write_on(&mut stream);
                let members = format!("\"bytes\":{count},\"then\":\"{then}\"");
                return Finding::new("eof", members);
            }
            Ok(n) => count += n,
            Err(error) => return Finding::new(&word(&error), format!("\"bytes\":{count}")),
        }
    }
}

/// What comes of writing to somebody who may be gone.
fn write_on(stream: &mut TcpStream) -> String {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        if let Err(error) = stream.write_all(b"x") {
            return word(&error);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    "ok".to_owned()
}

fn source(mut stream: TcpStream, len: u64, rate: Option<u64>) -> io::Result<Finding> {
    let started = Instant::now();
    let mut buffer = vec![0; READ];
    let mut count = 0;
    while count < len {
        let mut want = (len - count).min(READ as u64);
        if let Some(rate) = rate {
            want = want.min((rate / 50).max(1));
            let due = Duration::from_secs_f64(count as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
        let bytes = format!("\"bytes\":{count}");
        match stream.read(&mut buffer[..want as usize]) {
            Ok(0) => return Finding::new("eof", bytes),
            Ok(n) => {
                if let Some(offset) = pattern::mismatch(count, &buffer[..n]) {
                    return Finding::mismatch(&format!("byte {offset} differs"));
                }
                count += n as u64;
            }
            Err(error) => return Finding::new(&word(&error), bytes),
        }
    }
    Finding::ok(format!("\"bytes\":{count}"))
}

fn echo_latency(mut stream: TcpStream, count: usize, pause: Duration) -> io::Result<Finding> {
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let started = Instant::now();
        echo(&mut stream, number as u64)?;
        times.push(started.elapsed());
        std::thread::sleep(pause);
    }
    Finding::ok(percentiles(times))
}

/// `"p50_us":..,"p99_us":..,"max_us":..`
fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |percent: usize| {
        let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(index).map_or(0, Duration::as_micros)
    };
    format!(
        "\"p50_us\":{},\"p99_us\":{},\"max_us\":{}",
        at(50),
        at(99),
        at(100)
    )
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

type AsyncStream = tokio::net::TcpStream;

async fn patiently<T>(
    patience: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    tokio::time::timeout(patience, work)
        .await
        .map_err(|_| io::Error::from(ErrorKind::TimedOut))?
}

async fn short(
    target: SocketAddr,
    count: usize,
    parallel: usize,
    patience: Duration,
) -> io::Result<Finding> {
    let started = Instant::now();
    let workers = (0..parallel).map(|worker| {
        let share = count / parallel + usize::from(worker < count % parallel);
        tokio::spawn(async move {
            let mut times = Vec::with_capacity(share);
            for _ in 0..share {
                let started = Instant::now();
                patiently(patience, short_exchange(target)).await?;
                times.push(started.elapsed());
            }
            io::Result::Ok(times)
        })
    });
    let mut times = Vec::with_capacity(count);
    for worker in workers.collect::<Vec<_>>() {
        times.extend(worker.await??);
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    Finding::ok(format!("\"per_second\":{rate:.1},{}", percentiles(times)))
}

async fn short_exchange(target: SocketAddr) -> io::Result<()> {
    let mut stream = AsyncStream::connect(target).await?;
    stream.set_nodelay(true)?;
    stream.write_all(b"question\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer == "ok\n" {
        Ok(())
    } else {
        Err(io::Error::other("the answer differs"))
    }
}

/// The address that is `further` behind `ip`.
fn behind(ip: IpAddr, further: u32) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits().wrapping_add(further)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits().wrapping_add(further.into())).into(),
    }
}

async fn many(
    first: SocketAddr,
    hosts: u32,
    count: usize,
    hold: bool,
    patience: Duration,
    started: Instant,
) -> io::Result<Finding> {
    let opens = (0..count).map(|number| {
        let target = SocketAddr::new(behind(first.ip(), number as u32 % hosts), first.port());
        tokio::spawn(patiently(patience, async move {
            let mut stream = AsyncStream::connect(target).await?;
            async_echo(&mut stream, number).await?;
            Ok(stream)
        }))
    });
    let mut streams = Vec::with_capacity(count);
    let mut failures = Vec::new();
    for open in opens.collect::<Vec<_>>() {
        match open.await? {
            Ok(stream) => streams.push(stream),
            Err(error) => failures.push(word(&error)),
        }
    }
    if hold {
        Finding::new("connected", format!("\"open\":{}", streams.len()))?.print(started);
        tokio::task::spawn_blocking(wait_for_line).await??;
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        if let Err(error) = patiently(patience, async_echo(stream, number)).await {
            failures.push(word(&error));
        }
    }
    let result = failures.first().map_or("ok", String::as_str);
    Finding::new(
        result,
        format!("\"open\":{},\"failed\":{}", streams.len(), failures.len()),
    )
}

async fn async_echo(stream: &mut AsyncStream, number: usize) -> io::Result<()> {
    let message = pattern::slice(number as u64 * 64, 64);
    stream.write_all(message).await?;
    let mut answer = [0; 64];
    stream.read_exact(&mut answer).await?;
    if answer == *message {
        Ok(())
    } else {
        Err(io::Error::other("the echo differs"))
    }
}
