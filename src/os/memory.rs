//! How the allocator treats large buffers.

/// Size in bytes from which glibc gives an allocation its own mapping; mallopt(3)'s default.
#[cfg(target_env = "gnu")]
const MMAP_THRESHOLD: nix::libc::c_int = 128 * 1024;

/// Keeps large zeroed buffers lazily committed mappings. glibc would raise its threshold at the first
/// free of a large buffer, and later buffers would be cleared heap memory, resident from the start
/// (mallopt(3), M_MMAP_THRESHOLD). Setting the threshold once switches that off. Other C libraries
/// have no such threshold.
pub fn keep_large_buffers_lazy() {
    #[cfg(target_env = "gnu")]
    {
        #[allow(unsafe_code)]
        // SAFETY: mallopt(3) takes two integers and is thread-safe in glibc; no memory of ours is involved.
        let taken = unsafe { nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD) };
        if taken != 1 {
            tracing::debug!("mallopt did not take the mmap threshold");
        }
    }
}

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use super::*;

    /// Resident pages of this process (proc_pid_statm(5)).
    fn resident_pages() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn a_large_zeroed_buffer_stays_uncommitted_after_a_free() {
        keep_large_buffers_lazy();
        drop(std::hint::black_box(vec![1_u8; 16 << 20]));
        let before = resident_pages();
        let held: Vec<Vec<u8>> = (0..64)
            .map(|_| std::hint::black_box(vec![0; 1 << 20]))
            .collect();
        let grown = resident_pages().saturating_sub(before);
        assert_eq!(held.len(), 64);
        assert!(grown < 64 * 256 / 4, "{grown} pages became resident");
    }
}
