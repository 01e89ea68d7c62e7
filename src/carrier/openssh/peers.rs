//! Where ssh's TCP connections go: its own, and those of the programs it runs (ProxyCommand, the ssh of a ProxyJump).
//! They must never be captured. The kernel tells what a process has open: proc_pid_fd(5), proc_pid_net(5).

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Processes that are looked at, at most.
const MOST: usize = 256;

/// The addresses at the other ends of the TCP connections of a process and of what it has started.
pub(super) fn of(pid: i32) -> Vec<IpAddr> {
    let processes = family(pid);
    let sockets: HashSet<u64> = processes.iter().flat_map(|pid| sockets(*pid)).collect();
    let tables = ["tcp", "tcp6"].map(|name| fs::read_to_string(format!("/proc/{pid}/net/{name}")));
    let mut peers: Vec<IpAddr> = tables
        .into_iter()
        .flatten()
        .flat_map(|table| connections(&table, &sockets))
        .collect();
    peers.sort();
    peers.dedup();
    // What is on this host is captured by nobody.
    peers.retain(|peer| !peer.is_loopback());
    peers
}

fn family(pid: i32) -> Vec<i32> {
    let mut all = vec![pid];
    let mut looked_at = 0;
    while let Some(&next) = all.get(looked_at)
        && all.len() < MOST
    {
        looked_at += 1;
        all.extend(children(next));
    }
    all
}

fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
            pids.collect::<Vec<i32>>()
        })
        .collect()
}

/// The inodes of a process's sockets.
fn sockets(pid: i32) -> Vec<u64> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let links = descriptors
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok());
    links
        .filter_map(|link| {
            let text = link.to_str()?;
            text.strip_prefix("socket:[")?
                .strip_suffix(']')?
                .parse()
                .ok()
        })
        .collect()
}

/// The far ends of the connections in `table` whose inodes are among `sockets`.
fn connections(table: &str, sockets: &HashSet<u64>) -> Vec<IpAddr> {
    let lines = table.lines().skip(1);
    lines.filter_map(|line| far_end(line, sockets)).collect()
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode`.
fn far_end(line: &str, sockets: &HashSet<u64>) -> Option<IpAddr> {
    let mut fields = line.split_whitespace();
    let (address, port) = fields.nth(2)?.split_once(':')?;
    let inode = fields.nth(6)?.parse().ok()?;
    // A socket that listens has no far end.
    (port != "0000" && sockets.contains(&inode)).then_some(())?;
    parse(address)
}

/// Each 32-bit word of the address is in the machine's own order.
fn parse(hex: &str) -> Option<IpAddr> {
    let word = |from: usize| {
        let digits = hex.get(from..from + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    if hex.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?).into());
    }
    let words = [word(0)?, word(8)?, word(16)?, word(24)?];
    let octets: [u8; 16] = words.concat().try_into().ok()?;
    Some(Ipv6Addr::from(octets).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_table_of_the_kernels() {
        let v4 = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:08FB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0\n   \
            1: 0A4DA8C0:C350 014DA8C0:0016 01 00000000:00000000 02:000A6F8F 00000000     0        0 222 2 0 20 4 30 10 -1\n";
        let v6 = "head\n   0: 000000000000000000000000010000F0:C350 B80D0120000000000000000001000000:0016 01 \
            00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0 0 10 0\n";
        let all: HashSet<u64> = [111, 222, 333].into();
        assert_eq!(
            connections(v4, &all),
            ["192.168.77.1".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(
            connections(v6, &all),
            ["2001:db8::1".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(connections(v4, &HashSet::new()), Vec::<IpAddr>::new());
    }

    #[test]
    fn what_is_no_table_is_none() {
        for table in [
            "",
            "x\ny",
            "x\n0: 1 2 3 4 5 6 7 8 9",
            "x\n0: a é:1 é 1 1 1 1 1 1",
        ] {
            assert_eq!(connections(table, &[1, 9].into()), Vec::<IpAddr>::new());
        }
        assert_eq!(of(-1), Vec::<IpAddr>::new());
    }
}
