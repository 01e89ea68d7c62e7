//! Memory of the process that looks, and what stands in the way of more: what is left on the machine, and mappings.

use std::fs;
use std::io::{BufRead, BufReader};

use anyhow::{Context, Result};

/// Memory in KiB that the machine's other programs keep.
const RESERVE_KIB: usize = 8 << 20;
/// Flows between two looks at what is left.
pub(crate) const LOOK_EVERY: usize = 1000;
/// Mappings that a flow may add, and those that the process wants for other things.
const MAPS_PER_FLOW: usize = 2;
const MAPS_RESERVE: usize = 500;

/// Memory of this process.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    /// Bytes that are resident, of whole pages.
    pub(crate) resident: usize,
    /// Bytes of page tables.
    pub(crate) page_tables: usize,
}

impl Memory {
    /// As it is now.
    pub(crate) fn now() -> Result<Self> {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?;
        let statm = fs::read_to_string("/proc/self/statm")?;
        let pages: usize = statm
            .split(' ')
            .nth(1)
            .context("/proc/self/statm is short")?
            .parse()?;
        Ok(Self {
            resident: pages * page.map_or(4096, |size| size as usize),
            page_tables: kib("/proc/self/status", "VmPTE:")? << 10,
        })
    }
}

/// A line of numbers in KiB, as /proc has them.
fn kib(file: &str, name: &str) -> Result<usize> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    Ok(number
        .with_context(|| format!("no {name} in {file}"))?
        .parse()?)
}

/// The mappings of this process. Read in small pieces: a large buffer would want one more.
pub(crate) fn maps() -> Result<usize> {
    let lines = BufReader::new(fs::File::open("/proc/self/maps")?).split(b'\n');
    lines.map(|line| Ok(line.map(|_| 1)?)).sum()
}

/// What stands in the way of [`LOOK_EVERY`] more flows.
pub(crate) fn wall() -> Result<Option<String>> {
    let available = kib("/proc/meminfo", "MemAvailable:")?;
    if available < RESERVE_KIB {
        return Ok(Some(format!("memory: {available} KiB are available")));
    }
    let most: usize = fs::read_to_string("/proc/sys/vm/max_map_count")?
        .trim()
        .parse()?;
    let used = maps()?;
    let is_near = used + MAPS_PER_FLOW * LOOK_EVERY + MAPS_RESERVE > most;
    Ok(is_near.then(|| format!("vm.max_map_count: {used} of {most} mappings")))
}
