//! The processes that a carrier has started, and what they have: who they are, and where they are connected to.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Processes that are looked at, at most.
const MAX: usize = 256;
/// A connection that is established (net/tcp_states.h).
const ESTABLISHED: &str = "01";

/// `root` and all its descendants (proc_pid_task_tid_children(5)).
pub(super) fn tree(root: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        if pid == 0 || found.len() >= MAX {
            break;
        }
        found.push(pid);
        next.extend(children(pid));
    }
    found
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let of_task = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).ok();
    let texts = tasks.flatten().filter_map(of_task);
    let pids = texts.flat_map(|text| {
        let pids = text.split_whitespace().filter_map(|pid| pid.parse().ok());
        pids.collect::<Vec<u32>>()
    });
    pids.collect()
}

/// Whether it runs still, and is not only waited for (proc_pid_stat(5)).
pub(super) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Signals `root` and all its descendants.
pub(super) fn signal_tree(root: u32, signal: Signal) {
    self::signal(&tree(root), signal);
}

/// Signals each of `pids`.
pub(super) fn signal(pids: &[u32], signal: Signal) {
    for pid in pids.iter().filter_map(|pid| i32::try_from(*pid).ok()) {
        // Gone already, or another user's: nothing to do about either.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// The other ends of the TCP connections of `root` and its descendants, but for those on this host.
pub(super) fn peers(root: u32) -> Vec<IpAddr> {
    let tree = tree(root);
    let sockets: HashSet<u64> = tree.iter().flat_map(|pid| sockets(*pid)).collect();
    let mut peers = Vec::new();
    for table in ["tcp", "tcp6"] {
        // All in one network namespace, that of the first.
        let text = fs::read_to_string(format!("/proc/{root}/net/{table}")).unwrap_or_default();
        let connections = text.lines().skip(1).filter_map(connection);
        let ours = connections.filter(|(_, inode)| sockets.contains(inode));
        peers.extend(ours.map(|(peer, _)| peer.to_canonical()));
    }
    peers.retain(|peer| !peer.is_loopback());
    peers
}

/// Inodes of a process's sockets: its descriptors are links to `socket:[INODE]`.
fn sockets(pid: u32) -> Vec<u64> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let inode = |descriptor: fs::DirEntry| {
        let link = fs::read_link(descriptor.path()).ok()?;
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        inode.parse().ok()
    };
    descriptors.flatten().filter_map(inode).collect()
}

/// The peer and the inode of an established connection: a line of proc_pid_net(5)'s `tcp` or `tcp6`.
fn connection(line: &str) -> Option<(IpAddr, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (peer, state, inode) = (fields.get(2)?, fields.get(3)?, fields.get(9)?);
    if *state != ESTABLISHED {
        return None;
    }
    let (address, _) = peer.split_once(':')?;
    Some((address_of(address)?, inode.parse().ok()?))
}

/// Words of 32 bits in hexadecimal, each as the host reads the four bytes.
fn address_of(text: &str) -> Option<IpAddr> {
    if !text.is_ascii() {
        return None;
    }
    let mut bytes = Vec::with_capacity(16);
    for at in (0..text.len()).step_by(8) {
        let word = u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes)
            .ok()
            .map(Ipv4Addr::from)
            .map(IpAddr::V4),
        16 => <[u8; 16]>::try_from(bytes)
            .ok()
            .map(Ipv6Addr::from)
            .map(IpAddr::V6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_tables_of_the_kernel_are_read() {
        let line = "   1: 0100007F:1F90 0100007F:A3D2 01 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0 20";
        if cfg!(target_endian = "little") {
            assert_eq!(
                connection(line),
                Some((IpAddr::from([127, 0, 0, 1]), 12345))
            );
            let v6 = "0000000000000000FFFF00000100007F";
            assert_eq!(
                address_of(v6).unwrap().to_canonical(),
                IpAddr::from([127, 0, 0, 1])
            );
        }
        assert_eq!(connection(&line.replace(" 01 ", " 0A ")), None);
        for odd in [
            "",
            "1",
            "0100007",
            "0100007F00",
            "zzzzzzzz",
            "\u{fc}\u{fc}\u{fc}\u{fc}",
        ] {
            assert_eq!(address_of(odd), None, "{odd}");
        }
    }

    #[test]
    fn our_own_sockets_and_children_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let own = std::process::id();
        assert!(sockets(own).len() >= 2);
        // Those of this host are no news.
        assert!(peers(own).iter().all(|peer| !peer.is_loopback()));
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        assert!(tree(own).contains(&child.id()));
        assert!(is_alive(child.id()));
        signal_tree(child.id(), Signal::SIGKILL);
        child.wait().unwrap();
        assert!(!is_alive(child.id()));
    }
}
