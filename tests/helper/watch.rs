//! When a host was last changed: by events as they come, so that looking at it adds nothing to what is measured.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

/// Links, addresses, routes and rules of both versions of IP: RTNLGRP_* of linux/rtnetlink.h.
const GROUPS: [u32; 7] = [1, 5, 7, 8, 9, 11, 19];

/// Before all else that runs here: what is promised is for a machine that is not full.
pub(super) const FIRST: i32 = -20;

/// This thread goes first, and what it starts.
pub(super) fn go_first() {
    // SAFETY: three numbers; whether it is permitted or not matters little.
    #[allow(unsafe_code)]
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, FIRST);
    }
}

/// Watches a network namespace and some processes.
pub(super) struct Watch {
    events: Receiver<Instant>,
    last: Instant,
    /// Dropped, it ends the thread.
    _stop: std::os::unix::net::UnixStream,
    _thread: JoinHandle<()>,
}

impl Watch {
    /// From here on, at the thread's own priority.
    pub(super) fn new(namespace: &Path, processes: &[i32]) -> Self {
        let network = monitor(namespace);
        let processes: Vec<OwnedFd> = processes.iter().copied().filter_map(pidfd).collect();
        let (_stop, stopped) = std::os::unix::net::UnixStream::pair().unwrap();
        let (sender, events) = channel();
        let thread = std::thread::spawn(move || {
            let mut processes = processes;
            loop {
                let first = [stopped.as_raw_fd(), network.as_raw_fd()];
                let has_happened = happened(
                    first
                        .into_iter()
                        .chain(processes.iter().map(AsRawFd::as_raw_fd)),
                );
                let now = Instant::now();
                if has_happened[0] || sender.send(now).is_err() {
                    return;
                }
                if has_happened[1] {
                    drain(&network);
                }
                // One that has ended stays so.
                let mut ended = has_happened[2..].iter();
                processes.retain(|_| ended.next() == Some(&false));
            }
        });
        Self {
            events,
            last: Instant::now(),
            _stop,
            _thread: thread,
        }
    }

    /// Waits until something changes, no longer than `patience`.
    pub(super) fn wait(&mut self, patience: Duration) {
        if let Ok(at) = self.events.recv_timeout(patience) {
            self.last = at;
        }
    }

    /// When something changed last.
    pub(super) fn last(&mut self) -> Instant {
        self.last = self.events.try_iter().last().unwrap_or(self.last);
        self.last
    }
}

/// Waits; which of the descriptors have something to say.
fn happened(all: impl Iterator<Item = RawFd>) -> Vec<bool> {
    let of = |fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let mut all: Vec<libc::pollfd> = all.map(of).collect();
    // SAFETY: so many entries are there, and nobody else knows of them.
    #[allow(unsafe_code)]
    let count = unsafe { libc::poll(all.as_mut_ptr(), all.len() as libc::nfds_t, -1) };
    assert!(count > 0, "{}", std::io::Error::last_os_error());
    all.iter().map(|one| one.revents != 0).collect()
}

/// A process, to be told of its end; `None` where it has ended.
fn pidfd(pid: i32) -> Option<OwnedFd> {
    // SAFETY: two numbers; the kernel makes a descriptor for us, or does not.
    #[allow(unsafe_code)]
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Hears of changes in the namespace. A thread of its own goes there for it.
fn monitor(namespace: &Path) -> OwnedFd {
    let namespace = std::fs::File::open(namespace).unwrap();
    std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let network = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                flags,
                SockProtocol::NetlinkRoute,
            )
            .unwrap();
            let groups = GROUPS.iter().map(|group| 1 << (group - 1)).sum();
            bind(network.as_raw_fd(), &NetlinkAddr::new(0, groups)).unwrap();
            network
        });
        made.join().unwrap()
    })
}

/// What is said does not matter, only when.
fn drain(network: &OwnedFd) {
    let mut buffer = [0; 1 << 16];
    // More than fits in its queue is told as an error, once.
    while !matches!(
        recv(network.as_raw_fd(), &mut buffer, MsgFlags::empty()),
        Err(nix::errno::Errno::EAGAIN)
    ) {}
}
