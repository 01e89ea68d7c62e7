//! The application's side of the benchmarks: loads the services of `services.rs` and times them. Made to cost little
//! beside the tool under test, which shares its processors: few calls, large buffers, nothing copied that need not be.
//!
//! Prints one line of JSON per event, so that whoever runs it can read counters at the very moment:
//! `{"event":"start"}` when the measured time begins, `{"event":"open",...}` when idle connections stand,
//! `{"event":"done",...}` with the figures, `{"event":"error","what":...}` (and exit code 1) when there are none.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use nix::sys::socket::{MsgFlags, recv};

const BUFFER: usize = 1024 * 1024;
/// Long enough for the slowest tool that still works, short enough for a run to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections that are opened at the same time when many idle ones are wanted: enough for tools that work on several at once.
const OPENERS: usize = 128;
/// A tool that failed this often has failed: the rest is not tried.
const FAILURES: usize = 100;

#[derive(Parser)]
#[command(about = "The application's side of the benchmarks")]
struct Arguments {
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand)]
enum Load {
    /// Read from the source (port 19)
    Download(Bulk),
    /// Write to the discard service (port 9); what arrived is for the caller to count at the far side
    Upload(Bulk),
    /// Exchange one line on a connection each (port 5007)
    Short {
        addr: SocketAddr,
        #[arg(long, default_value_t = 1)]
        parallel: usize,
        #[arg(long, default_value_t = 3000)]
        measure_ms: u64,
    },
    /// 64 bytes to and fro on one connection (port 7)
    Echo {
        addr: SocketAddr,
        #[arg(long, default_value_t = 3000)]
        measure_ms: u64,
        /// Pause between two exchanges
        #[arg(long, default_value_t = 2)]
        pause_ms: u64,
    },
    /// Open so many connections, one byte echoed on each (port 7); at a line on standard input echo again on all, at another end
    Idle {
        addr: SocketAddr,
        count: usize,
        /// Send nothing before all are open
        #[arg(long)]
        silent: bool,
    },
    /// Ask a name server for addresses below bench.test
    Names {
        addr: SocketAddr,
        /// Over TCP, on one connection
        #[arg(long)]
        tcp: bool,
        /// Each name once; otherwise one name
        #[arg(long)]
        fresh: bool,
        /// Questions under way at a time
        #[arg(long, default_value_t = 1)]
        window: u16,
        #[arg(long, default_value_t = 3000)]
        measure_ms: u64,
    },
    /// Try until the first byte of an answer (port 5007)
    First { addr: SocketAddr },
}

#[derive(Args)]
struct Bulk {
    addr: SocketAddr,
    #[arg(long, default_value_t = 1)]
    flows: usize,
    /// Time for windows to grow before the measured time
    #[arg(long, default_value_t = 500)]
    warmup_ms: u64,
    #[arg(long, default_value_t = 3000)]
    measure_ms: u64,
}

fn main() -> ExitCode {
    match run(Arguments::parse().load) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say("error", &format!(",\"what\":{:?}", format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

fn run(load: Load) -> Result<()> {
    match load {
        Load::Download(bulk) => transfer(&bulk, receive),
        Load::Upload(bulk) => transfer(&bulk, send),
        Load::Short {
            addr,
            parallel,
            measure_ms,
        } => short(addr, parallel, Duration::from_millis(measure_ms)),
        Load::Echo {
            addr,
            measure_ms,
            pause_ms,
        } => echo(
            addr,
            Duration::from_millis(measure_ms),
            Duration::from_millis(pause_ms),
        ),
        Load::Idle {
            addr,
            count,
            silent,
        } => idle(addr, count, if silent { connect } else { connect_and_echo }),
        Load::Names {
            addr,
            tcp,
            fresh,
            window,
            measure_ms,
        } => names(addr, tcp, fresh, window, Duration::from_millis(measure_ms)),
        Load::First { addr } => first(addr),
    }
}

/// One event; `members` is JSON, each with a comma in front.
fn say(event: &str, members: &str) {
    println!("{{\"event\":\"{event}\"{members}}}");
}

fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

// --- bulk ----------------------------------------------------------------------------------------------------

/// Moves bytes until the connection ends, counting them.
type Mover = fn(&mut TcpStream, &AtomicU64) -> io::Result<()>;

fn transfer(bulk: &Bulk, mover: Mover) -> Result<()> {
    let count = Arc::new(AtomicU64::new(0));
    let ended = Arc::new(AtomicUsize::new(0));
    for _ in 0..bulk.flows {
        let mut stream = connect(bulk.addr).context("connect")?;
        let (count, ended) = (count.clone(), ended.clone());
        thread::spawn(move || {
            if let Err(error) = mover(&mut stream, &count) {
                eprintln!("lab-load: {error}");
            }
            ended.fetch_add(1, Relaxed);
        });
    }
    thread::sleep(Duration::from_millis(bulk.warmup_ms));
    let (began, before) = (Instant::now(), count.load(Relaxed));
    say("start", "");
    thread::sleep(Duration::from_millis(bulk.measure_ms));
    let (bytes, seconds) = (count.load(Relaxed) - before, began.elapsed().as_secs_f64());
    let ended = ended.load(Relaxed);
    ensure!(ended == 0, "{ended} of {} flows ended early", bulk.flows);
    say(
        "done",
        &format!(",\"bytes\":{bytes},\"seconds\":{seconds:.6}"),
    );
    Ok(())
}

fn receive(stream: &mut TcpStream, count: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        // tcp(7): with MSG_TRUNC the received bytes are discarded and not copied.
        match recv(stream.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC)? {
            0 => return Ok(()),
            n => count.fetch_add(n as u64, Relaxed),
        };
    }
}

fn send(stream: &mut TcpStream, count: &AtomicU64) -> io::Result<()> {
    let buffer = vec![0; BUFFER];
    loop {
        count.fetch_add(stream.write(&buffer)? as u64, Relaxed);
    }
}

// --- small exchanges -----------------------------------------------------------------------------------------

/// One line there, one line back, and the far side's FIN.
fn exchange(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"a line\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(named)?;
    if answer == b"ok\n" {
        Ok(())
    } else {
        Err(ErrorKind::UnexpectedEof.into())
    }
}

/// A read timeout comes as EAGAIN, which says little to a person.
fn named(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
        _ => error,
    }
}

fn short(addr: SocketAddr, parallel: usize, measure: Duration) -> Result<()> {
    // The first one pays for what the tool does only once.
    exchange(connect(addr)?).context("first exchange")?;
    say("start", "");
    let began = Instant::now();
    let workers: Vec<_> = (0..parallel)
        .map(|_| thread::spawn(move || exchanges(addr, began + measure)))
        .collect();
    let (mut times, mut failed) = (Vec::new(), 0);
    for worker in workers {
        if let Ok((mine, failures)) = worker.join() {
            times.extend(mine);
            failed += failures;
        }
    }
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    say(
        "done",
        &format!(
            ",\"rate\":{rate:.1},\"failed\":{failed}{}",
            spread(&mut times)
        ),
    );
    Ok(())
}

/// Exchanges one after the other until the time is over: how long each took, how many failed.
fn exchanges(addr: SocketAddr, end: Instant) -> (Vec<Duration>, usize) {
    let (mut times, mut failed) = (Vec::new(), 0);
    while Instant::now() < end && failed < FAILURES {
        let began = Instant::now();
        match connect(addr).and_then(exchange) {
            Ok(()) => times.push(began.elapsed()),
            Err(_) => failed += 1,
        }
    }
    (times, failed)
}

fn echo(addr: SocketAddr, measure: Duration, pause: Duration) -> Result<()> {
    let mut stream = connect(addr).context("connect")?;
    let mut times = Vec::new();
    let mut buffer = [7; 64];
    let began = Instant::now();
    while began.elapsed() < measure {
        let sent = Instant::now();
        stream.write_all(&buffer)?;
        stream
            .read_exact(&mut buffer)
            .map_err(named)
            .context("echo")?;
        times.push(sent.elapsed());
        thread::sleep(pause);
    }
    say("done", &spread(&mut times));
    Ok(())
}

/// Count, median and 99th percentile, in milliseconds.
fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        times.get(index).map_or(f64::NAN, Duration::as_secs_f64) * 1e3
    };
    if times.is_empty() {
        return ",\"count\":0".to_owned();
    }
    format!(
        ",\"count\":{},\"p50_ms\":{:.3},\"p99_ms\":{:.3}",
        times.len(),
        at(0.50),
        at(0.99)
    )
}

fn first(addr: SocketAddr) -> Result<()> {
    say("start", "");
    let began = Instant::now();
    // A tool that has not set its routes yet may leave the SYN unanswered; the next attempt must not wait for it.
    let attempt = || {
        let mut stream = TcpStream::connect_timeout(&addr, Duration::from_millis(20))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"a line\n")?;
        stream.read_exact(&mut [0])
    };
    while attempt().is_err() {
        ensure!(
            began.elapsed() < 3 * PATIENCE,
            "no answer in {:?}",
            3 * PATIENCE
        );
        thread::sleep(Duration::from_millis(2));
    }
    say("done", "");
    Ok(())
}

// --- names ---------------------------------------------------------------------------------------------------

/// Somebody who asks a name server.
enum Asking {
    Udp(UdpSocket),
    Tcp(io::BufReader<TcpStream>),
}

impl Asking {
    fn new(addr: SocketAddr, tcp: bool) -> io::Result<Self> {
        if tcp {
            return connect(addr).map(io::BufReader::new).map(Self::Tcp);
        }
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(addr)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self::Udp(socket))
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(message).map(drop),
            Self::Tcp(stream) => {
                let len = u16::try_from(message.len()).unwrap_or_default();
                let frame = [&len.to_be_bytes()[..], message].concat();
                stream.get_mut().write_all(&frame)
            }
        }
    }

    /// The next answer's number.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<u16> {
        let len = match self {
            Self::Udp(socket) => socket.recv(buffer).map_err(named)?,
            Self::Tcp(stream) => {
                let mut len = [0; 2];
                stream.read_exact(&mut len).map_err(named)?;
                let len = usize::from(u16::from_be_bytes(len));
                let message = buffer.get_mut(..len).ok_or(ErrorKind::InvalidData)?;
                stream.read_exact(message).map_err(named)?;
                len
            }
        };
        // No error, and one answer at least.
        let is_answer = len > 12 && buffer[3] & 15 == 0 && buffer[7] > 0;
        match is_answer {
            true => Ok(u16::from_be_bytes([buffer[0], buffer[1]])),
            false => Err(io::Error::other("no address in an answer")),
        }
    }
}

/// Asks for the address of `label`.bench.test.
fn question(id: u16, label: &str) -> Vec<u8> {
    let head = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    let label = [&[label.len() as u8], label.as_bytes()].concat();
    [&head, &label[..], b"\x05bench\x04test\0\0\x01\0\x01"].concat()
}

fn names(addr: SocketAddr, tcp: bool, fresh: bool, window: u16, measure: Duration) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let mut asking = Asking::new(addr, tcp).context("connect")?;
    asking.send(&question(0, "warm"))?;
    asking.receive(&mut buffer).context("first question")?;
    say("start", "");
    // A name of an earlier run is known by now.
    let run = std::process::id();
    let (began, mut times, mut number) = (Instant::now(), Vec::new(), 0_u64);
    let mut sent = vec![began; usize::from(window)];
    let mut ask = |asking: &mut Asking, id: u16, sent: &mut [Instant]| {
        number += 1;
        let label = match fresh {
            true => format!("n{run}x{number}"),
            false => "warm".to_owned(),
        };
        sent[usize::from(id)] = Instant::now();
        asking.send(&question(id, &label))
    };
    for id in 0..window {
        ask(&mut asking, id, &mut sent)?;
    }
    while began.elapsed() < measure {
        let id = match asking.receive(&mut buffer) {
            Ok(id) => id,
            // Name servers take so many questions on one connection, and end it then.
            Err(error) if tcp && error.kind() != ErrorKind::TimedOut => {
                asking = Asking::new(addr, tcp).context("connect again")?;
                for id in 0..window {
                    ask(&mut asking, id, &mut sent)?;
                }
                continue;
            }
            Err(error) => return Err(error).context("answer"),
        };
        let at = sent.get(usize::from(id)).context("nobody's answer")?;
        times.push(at.elapsed());
        match ask(&mut asking, id, &mut sent) {
            // That it has ended shows at the next answer.
            Err(error) if !tcp => return Err(error.into()),
            _ => {}
        }
    }
    ensure!(!times.is_empty(), "no answer");
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    say(
        "done",
        &format!(",\"rate\":{rate:.1}{}", spread(&mut times)),
    );
    Ok(())
}

// --- idle connections ----------------------------------------------------------------------------------------

/// How one connection is opened.
type Opener = fn(SocketAddr) -> io::Result<TcpStream>;

fn connect_and_echo(addr: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = connect(addr)?;
    stream.write_all(b"a")?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}

fn idle(addr: SocketAddr, count: usize, opener: Opener) -> Result<()> {
    let began = Instant::now();
    let (next, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let why = Arc::new(OnceLock::new());
    let openers: Vec<_> = (0..OPENERS)
        .map(|_| {
            let (next, failed, why) = (next.clone(), failed.clone(), why.clone());
            thread::spawn(move || open_some(|| opener(addr), count, &next, &failed, &why))
        })
        .collect();
    let mut open: Vec<TcpStream> = openers
        .into_iter()
        .filter_map(|opener| opener.join().ok())
        .flatten()
        .collect();
    say(
        "open",
        &format!(
            ",\"open\":{},\"failed\":{},\"why\":{:?},\"seconds\":{:.3}",
            open.len(),
            count - open.len(),
            why.get().map_or("", String::as_str),
            began.elapsed().as_secs_f64()
        ),
    );
    io::stdin().lock().read_line(&mut String::new())?;
    say("done", &format!(",\"alive\":{}", still_alive(&mut open)));
    // Others may still be asking, and the ends of thousands of connections at once fill a device's queue.
    io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

/// Opens connections as long as some are missing. `why` keeps the first error.
fn open_some(
    opener: impl Fn() -> io::Result<TcpStream>,
    count: usize,
    next: &AtomicUsize,
    failed: &AtomicUsize,
    why: &OnceLock<String>,
) -> Vec<TcpStream> {
    let mut open = Vec::new();
    while next.fetch_add(1, Relaxed) < count && failed.load(Relaxed) < FAILURES {
        match opener() {
            Ok(stream) => open.push(stream),
            Err(error) => {
                failed.fetch_add(1, Relaxed);
                let _ = why.set(named(error).to_string());
            }
        }
    }
    open
}

/// Connections that are asked at the same time. A device's queue holds 10,000 packets, and sshd takes a ms or two of CPU for one
/// byte among 900 channels: so many at once would tell how many cores it has, not whether a connection is alive.
const ASKED_AT_ONCE: usize = 1_000;

/// How many connections still echo a byte.
fn still_alive(open: &mut [TcpStream]) -> usize {
    open.chunks_mut(ASKED_AT_ONCE).map(echo_on_all).sum()
}

/// How many of these echo a byte, asked all at the same time.
fn echo_on_all(open: &mut [TcpStream]) -> usize {
    let asked: Vec<bool> = open
        .iter_mut()
        .map(|stream| stream.write_all(b"b").is_ok())
        .collect();
    let end = Instant::now() + PATIENCE;
    open.iter_mut()
        .zip(asked)
        .filter_map(|(stream, asked)| asked.then_some(stream))
        .filter(|stream| {
            let left = end.saturating_duration_since(Instant::now());
            let patience = left.max(Duration::from_millis(1));
            stream.set_read_timeout(Some(patience)).is_ok()
                && (&mut &**stream).read_exact(&mut [0]).is_ok()
        })
        .count()
}
