//! What the tests of the engine share: a device that checks every packet, hand-made packets, wakers that count.
#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod by_hand;
pub(crate) mod checksum;
pub(crate) mod client;
pub(crate) mod craft;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use smoltcp::time::Instant;
use underpass::engine::{Config, Engine, Frame, HEADROOM, Outlet};

/// The device: takes the engine's frames, does what a kernel does with them, and checks each packet.
#[derive(Debug)]
pub(crate) struct Tap {
    mtu: usize,
    packets: Mutex<Vec<Vec<u8>>>,
    rearmed: AtomicBool,
    frames: AtomicUsize,
    given_back: AtomicUsize,
}

impl Tap {
    /// A device with `mtu`.
    pub(crate) fn new(mtu: usize) -> Self {
        Self {
            mtu,
            packets: Mutex::default(),
            rearmed: AtomicBool::new(false),
            frames: AtomicUsize::new(0),
            given_back: AtomicUsize::new(0),
        }
    }

    /// All packets since the last call, as they would be on a wire.
    pub(crate) fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.packets.lock().unwrap())
    }

    /// Frames that the engine has handed over in all; each may stand for several packets.
    pub(crate) fn frames(&self) -> usize {
        self.frames.load(Ordering::Relaxed)
    }

    /// Bytes of memory that the engine has given back since the last call.
    pub(crate) fn take_given_back(&self) -> usize {
        self.given_back.swap(0, Ordering::Relaxed)
    }

    /// Whether the engine has asked for an earlier timer since the last call.
    pub(crate) fn take_rearmed(&self) -> bool {
        self.rearmed.swap(false, Ordering::Relaxed)
    }
}

impl Outlet for Tap {
    fn transmit(&self, frame: Frame<'_>) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        let packet = &frame.buffer[HEADROOM..];
        let packets = if frame.partial_checksum {
            let at = checksum::layout(packet);
            assert_eq!(
                checksum::be16(packet, at.ip_len + 16),
                0,
                "a partial checksum is left empty"
            );
            checksum::cut(packet, frame.segment_size.map(|size| size.get().into()))
        } else {
            assert_eq!(
                frame.segment_size, None,
                "without offload nothing is to be cut"
            );
            vec![packet.to_vec()]
        };
        for packet in &packets {
            checksum::verify(packet);
            assert!(packet.len() <= self.mtu, "a packet above the MTU");
        }
        self.packets.lock().unwrap().extend(packets);
    }

    fn rearm(&self, _: Instant) {
        self.rearmed.store(true, Ordering::Relaxed);
    }

    fn give_back(&self, unused: &mut [u8]) {
        // What was given back holds anything.
        unused.fill(0xee);
        self.given_back.fetch_add(unused.len(), Ordering::Relaxed);
    }
}

/// An engine over a [`Tap`].
pub(crate) fn engine(config: Config) -> Engine<Tap> {
    Engine::new(config, Tap::new(config.mtu))
}

/// A waker that remembers that it was called.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    times: AtomicUsize,
}

impl Bell {
    /// A bell that has been rung, as a task is polled for the first time without a wake-up.
    pub(crate) fn fresh() -> Arc<Self> {
        let bell = Arc::new(Self::default());
        bell.rung.store(true, Ordering::Relaxed);
        bell
    }

    /// Whether it has been rung since the last call.
    pub(crate) fn take(&self) -> bool {
        self.rung.swap(false, Ordering::Relaxed)
    }

    /// How often it was rung in all.
    pub(crate) fn times(&self) -> usize {
        self.times.load(Ordering::Relaxed)
    }

    /// Polls with this bell as the waker.
    pub(crate) fn poll<T>(self: &Arc<Self>, poll: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let waker = Waker::from(Arc::clone(self));
        poll(&mut Context::from_waker(&waker))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, Ordering::Relaxed);
        self.times.fetch_add(1, Ordering::Relaxed);
    }
}

/// `n` milliseconds after the beginning.
pub(crate) fn at(n: i64) -> Instant {
    Instant::from_millis(n)
}
