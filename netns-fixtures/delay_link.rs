//! A link with a delay between two network namespaces, for kernels without netem: two TUN devices, and what is sent into
//! one comes out of the other half a round trip later, in order, and at most so many bits per second.
//!
//! ```text
//!   namespace A: TUN --read--> [queue: when it is due] --write--> TUN :namespace B     (and the same way back)
//! ```
//! Packets cross as the kernel hands them out, with their virtio_net_hdr, so that up to 64 KB of TCP go in one piece:
//! segmentation and checksums are left to whoever needs them, which is what makes it fast. A rate counts those bytes, not
//! the headers of the segments that they stand for.
//!
//! Prints `ready` when both devices exist; they go when it ends.

#![allow(unsafe_code, missing_docs)] // ioctl; the functions that nix makes for it

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::libc;
use nix::sched::{CloneFlags, setns};

/// virtio_net_hdr and the largest GSO packet.
const LARGEST: usize = 10 + 65_536;
/// What a direction may hold: 100 ms at 10 Gbit/s.
const LIMIT_BYTES: usize = 128 << 20;
/// Packets up to this have a buffer of their own size.
const SMALL: usize = 16 << 10;
/// Large buffers that are kept.
const MOST_SPARE: usize = LIMIT_BYTES / LARGEST;
/// A limited rate drops what would wait longer than this for its turn, as a router's queue does.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

// include/uapi/linux/if_tun.h
nix::ioctl_write_ptr_bad!(
    tun_set_iff,
    nix::request_code_write!(b'T', 202, 4),
    libc::ifreq
);
nix::ioctl_write_int_bad!(tun_set_offload, nix::request_code_write!(b'T', 208, 4));
const TUN_F_CSUM_TSO4_TSO6_ECN: i32 = 0x0f;

#[derive(Parser)]
#[command(about = "A link with a delay between two network namespaces")]
struct Arguments {
    /// Round trip time in milliseconds
    #[arg(long, default_value_t = 0)]
    rtt: u64,
    /// Mbit per second each way; 0 is no limit
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// One end: the namespace's file, the device's name
    namespace_a: PathBuf,
    device_a: String,
    /// The other end
    namespace_b: PathBuf,
    device_b: String,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let a = Arc::new(tun(arguments.namespace_a, arguments.device_a)?);
    let b = Arc::new(tun(arguments.namespace_b, arguments.device_b)?);
    println!("ready");
    io::stdout().flush()?;
    let delay = Duration::from_micros(arguments.rtt * 500);
    let directions = [(a.clone(), b.clone()), (b, a)].map(|(from, to)| {
        let queue = Arc::new(Queue::new(delay, arguments.rate));
        let entrance = queue.clone();
        thread::spawn(move || take_in(&from, &entrance));
        thread::spawn(move || let_out(&queue, &to))
    });
    for direction in directions {
        direction
            .join()
            .map_err(|_| anyhow::anyhow!("a direction ended"))?;
    }
    Ok(())
}

/// A new TUN device in a namespace. A device is made where the thread that opens /dev/net/tun is.
fn tun(namespace: PathBuf, name: String) -> Result<File> {
    let open = move || {
        let file = File::open(&namespace).with_context(|| format!("{}", namespace.display()))?;
        setns(file, CloneFlags::CLONE_NEWNET).context("setns")?;
        open_tun(&name).with_context(|| format!("TUN device {name}"))
    };
    thread::spawn(open)
        .join()
        .map_err(|_| anyhow::anyhow!("a thread panicked"))?
}

fn open_tun(name: &str) -> Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    // SAFETY: ifreq is plain data, for which all zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    ensure!(name.len() < request.ifr_name.len(), "the name is too long");
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the descriptor is open and the request lives until the call returns.
    unsafe { tun_set_iff(file.as_raw_fd(), &request) }.context("TUNSETIFF")?;
    // SAFETY: the descriptor is open; the argument is a number.
    unsafe { tun_set_offload(file.as_raw_fd(), TUN_F_CSUM_TSO4_TSO6_ECN) }
        .context("TUNSETOFFLOAD")?;
    Ok(file)
}

struct Packet {
    due: Instant,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Line {
    packets: VecDeque<Packet>,
    bytes: usize,
    /// Until when the packets before occupy the wire.
    busy_until: Option<Instant>,
    /// Large buffers to use again: an allocator gives memory of this size back to the kernel, and each page of it is
    /// zeroed when it is touched the next time.
    spare: Vec<Vec<u8>>,
}

/// What is on its way in one direction.
struct Queue {
    delay: Duration,
    /// Nanoseconds on the wire per byte.
    per_byte: f64,
    line: Mutex<Line>,
    arrival: Condvar,
}

impl Queue {
    fn new(delay: Duration, rate_mbit: u64) -> Self {
        let per_byte = if rate_mbit == 0 {
            0.0
        } else {
            8_000.0 / rate_mbit as f64
        };
        Self {
            delay,
            per_byte,
            line: Mutex::default(),
            arrival: Condvar::new(),
        }
    }

    /// Takes a packet in, or drops it when too much is under way.
    fn push(&self, bytes: &[u8]) {
        let now = Instant::now();
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = line.busy_until.map_or(now, |busy| busy.max(now));
        if line.bytes + bytes.len() > LIMIT_BYTES || turn - now > LONGEST_WAIT {
            return;
        }
        let sent = turn + Duration::from_nanos((bytes.len() as f64 * self.per_byte) as u64);
        line.busy_until = Some(sent);
        line.bytes += bytes.len();
        let is_large = bytes.len() > SMALL;
        let mut copy = if is_large {
            let spare = line.spare.pop();
            spare.unwrap_or_else(|| Vec::with_capacity(LARGEST))
        } else {
            Vec::with_capacity(bytes.len())
        };
        copy.extend_from_slice(bytes);
        line.packets.push_back(Packet {
            due: sent + self.delay,
            bytes: copy,
        });
        if line.packets.len() == 1 {
            self.arrival.notify_one();
        }
    }

    /// Waits until the next packet is due. The buffer of the one before may be `used` again.
    fn pop(&self, mut used: Vec<u8>) -> Vec<u8> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if used.capacity() > SMALL && line.spare.len() < MOST_SPARE {
            used.clear();
            line.spare.push(used);
        }
        loop {
            if let Some(packet) = line.packets.pop_front() {
                line.bytes -= packet.bytes.len();
                drop(line);
                thread::sleep(packet.due.saturating_duration_since(Instant::now()));
                return packet.bytes;
            }
            line = self
                .arrival
                .wait(line)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn take_in(from: &File, queue: &Queue) {
    let mut buffer = vec![0; LARGEST];
    let mut from = from;
    loop {
        match from.read(&mut buffer) {
            Ok(n) => queue.push(&buffer[..n]),
            // The device is gone, or not up yet.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => {
                eprintln!("read: {error}");
                std::process::exit(1);
            }
        }
    }
}

fn let_out(queue: &Queue, to: &File) {
    let mut to = to;
    let mut packet = Vec::new();
    loop {
        packet = queue.pop(packet);
        // Refused while the device is down: lost, as on any wire.
        let _ = to.write(&packet);
    }
}
