//! What a packet costs, and what memory a flow takes, beside very many flows that are open and idle: the engine in virtual time,
//! without a network, a device or privileges.
//!
//! ```text
//!   lab-scale [--plain] [--holes] [1000 10000 ...]      one line of JSON per count, each count in a process of its own
//! ```
//! The applications' kernels are played by hand: their packets are made here, and of what the engine sends, [`Wire`] keeps the
//! numbers that an answer needs. Each idle flow is opened, gets one byte, sends one back, and is silent from then on; ten thousand
//! are opened in a second of virtual time, so rings are given back while others are still opened. Then, beside `flows` of them:
//!
//! | key | what it is |
//! |---|---|
//! | `bytes_per_flow`, `page_tables_bytes_per_flow` | growth of the resident memory (with page rounding), and of the page tables, by flow |
//! | `maps` | the process's mappings, of which the kernel allows vm.max_map_count |
//! | `open_ns`, `echo_ns` | SYN, accept and ACK of one more flow; its byte each way. The median of the last ones |
//! | `open_longest_us` | the CPU time of the longest of all, as when the table grows |
//! | `download_packet_ns`, `ack_ns` | one packet to the application of a busy flow, and the ACK of one |
//! | `upload_packet_ns` | one packet from the application of another, with reading it and its ACK |
//! | `idle_packet_ns` | one ACK to an idle flow, another each time, so that nothing of it is in a cache |
//! | `timer_ns` | one keepalive of a virtual hour of them, each answered: the CPU time of all `handle_timeout`s, by keepalives |
//! | `timer_longest_ms` | the longest of those calls, during which the driver does nothing else |
//!
//! The system calls of a real device are not in it. Packets are those of a device that segments, of up to 64 KB, or with
//! `--plain` those of one that does not, of 1500 bytes and with checksums.
//!
//! A wall is reported as `{"flows":..,"wall":..,"at":..}`: too little memory is left on the machine, the mappings of the process
//! are nearly all used, or the process died. The kernel makes one mapping of neighbours, so idle flows alone use few. `--holes`
//! then resets every other flow, which makes as many holes between mappings, reports `maps` and `freed_bytes_of_each` of them,
//! and opens them again.

mod memory_use;

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::task::{Context as Task, Poll, Waker};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use clap::Parser;
use serde_json::{Value, json};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::{Duration as Span, Instant as Moment};
use smoltcp::wire::{
    IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};
use underpass::engine::{Arrival, Checksum, Config, Engine, FlowHandle, Frame, HEADROOM, Outlet};
use underpass::os::memory;

use memory_use::{LOOK_EVERY, Memory, maps, wall};

/// Virtual time between two flows that are opened.
const BETWEEN_OPENS: Span = Span::from_micros(100);
/// Far behind the time after which a silent flow gives memory back, and behind the patience with a SYN.
const SETTLED: Span = Span::from_secs(30);
const HOUR: Span = Span::from_secs(3600);
/// The last flows that are opened, whose costs count.
const LAST_OPENS: usize = 1000;
/// Rounds of the busy flows.
const ROUNDS: usize = 400;
/// What the far side sends in one round of the download, in bytes.
const PIECE: usize = 256 << 10;
/// Where it begins in its page. The copy to the ring, which begins on a page, meets neither the slow case of the processors that
/// have one nor the best (src/engine/scratch.rs).
const PIECE_AT: usize = 1024;
#[repr(align(4096))]
struct Piece([u8; PIECE_AT + PIECE]);
static PIECE_PAGES: Piece = Piece([7; PIECE_AT + PIECE]);
/// Idle flows that get an ACK.
const IDLE_ACKS: usize = 100_000;
/// What the relay reads at once at most (`CHUNK` of src/inlet/tun/stream.rs).
const READ: usize = 96 << 10;

/// The target of all flows, its port, and the first sequence number of every application.
const TARGET: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);
const PORT: u16 = 443;
const FIRST_SEQ: u32 = 1000;
/// Ports of one source address, and the lowest.
const PORTS: usize = 20_000;
const LOWEST_PORT: u16 = 20_000;
const FIRST_SOURCE: u32 = u32::from_be_bytes([10, 1, 0, 1]);

#[derive(Parser)]
#[command(about = "What a packet and a flow cost beside very many idle flows")]
struct Arguments {
    /// How many idle flows, one process for each
    #[arg(default_values_t = [1000, 10_000, 100_000, 1_000_000])]
    counts: Vec<usize>,
    /// A device that neither segments nor fills in checksums
    #[arg(long)]
    plain: bool,
    /// Afterwards reset every other flow, and open it again
    #[arg(long)]
    holes: bool,
    /// This is the process of one count
    #[arg(long, hide = true)]
    alone: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match (&arguments.counts[..], arguments.alone) {
        ([count], true) => measure(*count, &arguments),
        (counts, _) => counts.iter().try_for_each(|n| delegate(*n, &arguments)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-scale: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures `count` flows in a fresh process. One that dies, as for an allocation that fails, has met a wall too.
fn delegate(count: usize, arguments: &Arguments) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--alone").arg(count.to_string());
    for (flag, wanted) in [("--plain", arguments.plain), ("--holes", arguments.holes)] {
        command.args(wanted.then_some(flag));
    }
    let status = command.stdin(Stdio::null()).status()?;
    if !status.success() {
        println!(
            "{}",
            json!({"flows": count, "wall": format!("its process ended: {status}"), "at": null})
        );
    }
    Ok(())
}

/// What an application's kernel has to know of a packet in order to answer it.
#[derive(Clone, Copy)]
struct Seen {
    to: (Ipv4Addr, u16),
    /// The sequence number behind the packet, and the one that it acknowledges.
    end: TcpSeqNumber,
    ack: TcpSeqNumber,
}

/// The device: counts frames, and keeps what is needed to answer them.
#[derive(Default)]
struct Wire(Mutex<Vec<Seen>>);

impl Wire {
    /// What was sent since the last call.
    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Outlet for Wire {
    fn transmit(&self, frame: Frame<'_>) {
        let ip = Ipv4Packet::new_unchecked(&frame.buffer[HEADROOM..]);
        let tcp = TcpPacket::new_unchecked(ip.payload());
        let seen = Seen {
            to: (ip.dst_addr(), tcp.dst_port()),
            end: tcp.seq_number() + tcp.segment_len(),
            ack: tcp.ack_number(),
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(seen);
    }

    fn rearm(&self, _: Moment) {}

    fn give_back(&self, unused: &mut [u8]) {
        memory::give_back(unused);
    }
}

/// A packet from an application to [`TARGET`].
fn packet(
    from: (Ipv4Addr, u16),
    control: TcpControl,
    (seq, ack): (TcpSeqNumber, Option<TcpSeqNumber>),
    payload: &[u8],
) -> Vec<u8> {
    let is_syn = control == TcpControl::Syn;
    let tcp = TcpRepr {
        src_port: from.1,
        dst_port: PORT,
        control,
        seq_number: seq,
        ack_number: ack,
        window_len: 64_240,
        window_scale: is_syn.then_some(7),
        max_seg_size: is_syn.then_some(1460),
        sack_permitted: is_syn,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    let ip = Ipv4Repr {
        src_addr: from.0,
        dst_addr: TARGET,
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let checksums = ChecksumCapabilities::default();
    let mut bytes = vec![0; ip.buffer_len() + tcp.buffer_len()];
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[..]), &checksums);
    let (source, target) = (IpAddr::from(from.0).into(), IpAddr::from(TARGET).into());
    let segment = &mut bytes[ip.buffer_len()..];
    tcp.emit(
        &mut TcpPacket::new_unchecked(segment),
        &source,
        &target,
        &checksums,
    );
    bytes
}

/// The source of the flow with this number.
fn source(number: usize) -> (Ipv4Addr, u16) {
    let address = FIRST_SOURCE + (number / PORTS) as u32;
    (address.into(), LOWEST_PORT + (number % PORTS) as u16)
}

fn task() -> Task<'static> {
    Task::from_waker(Waker::noop())
}

/// An open flow: as its relay holds it, and where its application's numbers stand.
struct Open {
    flow: FlowHandle,
    from: (Ipv4Addr, u16),
    seq: TcpSeqNumber,
    ack: TcpSeqNumber,
}

/// The engine and the virtual time.
struct World {
    engine: Engine<Wire>,
    now: Moment,
    checksum: Checksum,
    /// Payload bytes of a packet from the application.
    payload: Vec<u8>,
}

impl World {
    fn new(count: usize, plain: bool) -> Self {
        let config = Config {
            offload: !plain,
            max_flows: count + LAST_OPENS,
            max_held: count + LAST_OPENS,
            ..Config::default()
        };
        Self {
            engine: Engine::new(config, Wire::default()),
            now: Moment::from_secs(1),
            checksum: if plain {
                Checksum::Unverified
            } else {
                Checksum::Trusted
            },
            payload: vec![7; if plain { 1460 } else { 65_160 }],
        }
    }

    /// Gives the engine a packet; how long it took.
    fn give(&self, packet: &[u8]) -> Duration {
        let begun = Instant::now();
        self.engine.handle_packet(self.now, packet, self.checksum);
        begun.elapsed()
    }

    /// The only packet that the engine has sent meanwhile.
    fn only_answer(&self) -> Result<Seen> {
        let answers = self.engine.outlet().take();
        ensure!(
            answers.len() == 1,
            "{} answers instead of one",
            answers.len()
        );
        Ok(answers[0])
    }

    /// Opens the flow with this number; how long the engine worked on it.
    fn open(&self, number: usize) -> Result<(Open, Duration)> {
        let from = source(number);
        let syn_seq = TcpSeqNumber(FIRST_SEQ as i32);
        let syn = packet(from, TcpControl::Syn, (syn_seq, None), &[]);
        let begun = Instant::now();
        let arrival = self.engine.handle_packet(self.now, &syn, self.checksum);
        let flow = arrival
            .and_then(Arrival::into_flow)
            .context("the engine takes no further flow")?;
        self.engine.accept(self.now, &flow);
        let spent = begun.elapsed();
        let open = Open {
            flow,
            from,
            seq: syn_seq + 1,
            ack: self.only_answer()?.end,
        };
        let spent = spent + self.give(&open.segment(TcpControl::None, &[]));
        Ok((open, spent))
    }

    /// All that there is to read from `flow`, and its waker left there; how many bytes.
    fn read(&self, flow: &FlowHandle) -> Result<usize> {
        let mut total = 0;
        loop {
            match self.engine.poll_read(self.now, flow, READ, &mut task()) {
                Poll::Ready(Ok(Some(chunk))) => total += chunk.len(),
                Poll::Ready(other) => bail!("instead of bytes: {other:?}"),
                Poll::Pending => return Ok(total),
            }
        }
    }

    /// Has the application send `payload`, which the relay reads; how long the engine worked on it.
    fn upload(&self, open: &mut Open, payload: &[u8]) -> Result<Duration> {
        let data = open.segment(TcpControl::Psh, payload);
        let begun = Instant::now();
        self.engine.handle_packet(self.now, &data, self.checksum);
        let read = self.read(&open.flow)?;
        let spent = begun.elapsed();
        ensure!(read == payload.len(), "{read} bytes arrived");
        open.seq += payload.len();
        let acknowledged = self.engine.outlet().take();
        let whole = acknowledged.last().is_some_and(|seen| seen.ack == open.seq);
        ensure!(whole, "what was sent is not acknowledged");
        Ok(spent)
    }

    /// Has the relay write `piece`, and the application acknowledge each packet; how long the engine worked on the packets
    /// and on the ACKs, and how many there were.
    fn download(&self, open: &mut Open, piece: &'static [u8]) -> Result<(Duration, Duration, u32)> {
        let mut chunk = Bytes::from_static(piece);
        let begun = Instant::now();
        let written = self
            .engine
            .poll_write(self.now, &open.flow, &mut chunk, &mut task());
        self.engine.flush(self.now, &open.flow);
        let writing = begun.elapsed();
        ensure!(written.is_ready(), "the ring is full");
        let sent = self.engine.outlet().take();
        let mut acknowledging = Duration::ZERO;
        for seen in &sent {
            open.ack = seen.end;
            acknowledging += self.give(&open.segment(TcpControl::None, &[]));
        }
        Ok((writing, acknowledging, sent.len() as u32))
    }

    /// Lets virtual time run for so long, and applications answer what they get.
    fn run(&mut self, span: Span) -> Timers {
        let until = self.now + span;
        let mut timers = Timers::default();
        while let Some(due) = self.engine.poll_timeout()
            && due <= until
        {
            self.now = due;
            let begun = cpu_time();
            self.engine.handle_timeout(due);
            timers.add(cpu_time().saturating_sub(begun));
            for seen in self.engine.outlet().take() {
                let numbers = (seen.ack, Some(seen.end));
                self.give(&packet(seen.to, TcpControl::None, numbers, &[]));
                timers.sent += 1;
            }
        }
        self.now = until;
        timers
    }
}

impl Open {
    /// The application's next packet.
    fn segment(&self, control: TcpControl, payload: &[u8]) -> Vec<u8> {
        packet(self.from, control, (self.seq, Some(self.ack)), payload)
    }
}

/// What this thread has had of its processor: a long piece of work is interrupted where others want that as well.
fn cpu_time() -> Duration {
    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
    clock.now().map_or(Duration::ZERO, Duration::from)
}

/// What deadlines cost.
#[derive(Default)]
struct Timers {
    total: Duration,
    longest: Duration,
    /// Packets that were sent then.
    sent: u32,
}

impl Timers {
    fn add(&mut self, spent: Duration) {
        self.total += spent;
        self.longest = self.longest.max(spent);
    }
}

/// The idle flows, and what it cost to open them.
#[derive(Default)]
struct Idle {
    flows: Vec<Open>,
    opens: Vec<Duration>,
    echoes: Vec<Duration>,
    longest: Duration,
}

impl Idle {
    /// Opens up to `count` flows; the wall that it met.
    fn open(&mut self, world: &mut World, count: usize) -> Result<Option<String>> {
        for number in 0..count {
            if number % LOOK_EVERY == 0
                && let Some(wall) = wall()?
            {
                return Ok(Some(wall));
            }
            let begun = cpu_time();
            let (mut open, spent) = world.open(number)?;
            self.longest = self.longest.max(cpu_time().saturating_sub(begun));
            let mut echo = world.upload(&mut open, &[1])?;
            let (writing, acknowledging, _) = world.download(&mut open, &[2])?;
            echo += writing + acknowledging;
            if number + LAST_OPENS >= count {
                self.opens.push(spent);
                self.echoes.push(echo);
            }
            self.flows.push(open);
            world.run(BETWEEN_OPENS);
        }
        Ok(None)
    }

    /// One ACK to each of many, far from one another in the order of their opening.
    fn acknowledge(&self, world: &World) -> Vec<Duration> {
        // A prime, so that every flow has its turn.
        let far = 15_485_863;
        (0..self.flows.len().min(IDLE_ACKS))
            .map(|turn| &self.flows[turn * far % self.flows.len()])
            .map(|open| world.give(&open.segment(TcpControl::None, &[])))
            .collect()
    }
}

fn median_ns(mut spent: Vec<Duration>) -> u128 {
    spent.sort_unstable();
    spent.get(spent.len() / 2).map_or(0, Duration::as_nanos)
}

/// One count, in this process.
fn measure(count: usize, arguments: &Arguments) -> Result<()> {
    memory::keep_freed_memory();
    let mut world = World::new(count, arguments.plain);
    let mut idle = Idle::default();
    let before = Memory::now()?;
    let wall = idle.open(&mut world, count)?;
    world.run(SETTLED);
    let after = Memory::now()?;
    let opened = idle.flows.len();
    let by_flow = |before, after: usize| after.saturating_sub(before) / opened.max(1);
    let mut line = match &wall {
        Some(wall) => json!({"flows": count, "wall": wall, "at": opened}),
        None => json!({"flows": count}),
    };
    add(
        &mut line,
        "bytes_per_flow",
        by_flow(before.resident, after.resident),
    );
    let tables = by_flow(before.page_tables, after.page_tables);
    add(&mut line, "page_tables_bytes_per_flow", tables);
    add(&mut line, "maps", maps()?);
    if wall.is_none() {
        measure_costs(&mut line, &mut world, &mut idle)?;
    }
    println!("{line}");
    if arguments.holes {
        punch_holes(&mut world, &mut idle, count)?;
    }
    Ok(())
}

fn add(line: &mut Value, key: &str, value: impl Into<Value>) {
    line[key] = value.into();
}

/// The costs beside the idle flows.
fn measure_costs(line: &mut Value, world: &mut World, idle: &mut Idle) -> Result<()> {
    let opened = idle.flows.len();
    add(
        line,
        "open_ns",
        median_ns(std::mem::take(&mut idle.opens)) as u64,
    );
    add(
        line,
        "echo_ns",
        median_ns(std::mem::take(&mut idle.echoes)) as u64,
    );
    add(line, "open_longest_us", idle.longest.as_micros() as u64);

    let (mut downloads, mut acks, mut uploads) = (Vec::new(), Vec::new(), Vec::new());
    let (mut download, _) = world.open(opened)?;
    let (mut upload, _) = world.open(opened + 1)?;
    let payload = world.payload.clone();
    for _ in 0..ROUNDS {
        let (writing, acknowledging, packets) =
            world.download(&mut download, &PIECE_PAGES.0[PIECE_AT..])?;
        downloads.push(writing / packets.max(1));
        acks.push(acknowledging / packets.max(1));
        // As many packets each way.
        let mut reading = Duration::ZERO;
        for _ in 0..packets {
            reading += world.upload(&mut upload, &payload)?;
        }
        uploads.push(reading / packets.max(1));
        world.run(BETWEEN_OPENS);
    }
    add(line, "download_packet_ns", median_ns(downloads) as u64);
    add(line, "upload_packet_ns", median_ns(uploads) as u64);
    add(line, "ack_ns", median_ns(acks) as u64);
    add(
        line,
        "idle_packet_ns",
        median_ns(idle.acknowledge(world)) as u64,
    );

    let timers = world.run(HOUR);
    add(
        line,
        "timer_ns",
        timers.total.as_nanos() as u64 / u64::from(timers.sent.max(1)),
    );
    add(line, "timer_longest_ms", timers.longest.as_millis() as u64);
    add(line, "keepalives", timers.sent);
    let left = world.engine.flow_count();
    ensure!(
        left == opened + 2,
        "{left} flows are left of {opened} and 2"
    );
    Ok(())
}

/// Resets every other flow, so that each leaves a hole between the mappings of its neighbours, and opens as many again.
fn punch_holes(world: &mut World, idle: &mut Idle, count: usize) -> Result<()> {
    let before = Memory::now()?;
    // As large as they become: beyond the wall, an allocation that needs a mapping ends the process.
    let mut closes = Vec::with_capacity(idle.flows.len());
    let mut is_other = false;
    let mut kept = Vec::with_capacity(idle.flows.len());
    for open in idle.flows.drain(..) {
        is_other = !is_other;
        if is_other {
            kept.push(open);
            continue;
        }
        let reset = open.segment(TcpControl::Rst, &[]);
        let begun = Instant::now();
        world
            .engine
            .handle_packet(world.now, &reset, world.checksum);
        drop(open);
        closes.push(begun.elapsed());
    }
    idle.flows = kept;
    let holes = closes.len();
    let freed = before.resident.saturating_sub(Memory::now()?.resident);
    println!(
        "{}",
        json!({"flows": count, "holes": holes, "maps": maps()?, "close_ns": median_ns(closes) as u64, "freed_bytes_of_each": freed / holes.max(1)})
    );
    for turn in 0..holes {
        let (open, _) = world.open(2 * turn + 1)?;
        idle.flows.push(open);
        world.run(BETWEEN_OPENS);
    }
    println!(
        "{}",
        json!({"flows": count, "opened_again": holes, "maps": maps()?})
    );
    Ok(())
}
