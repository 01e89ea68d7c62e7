//! Large buffers as mappings of their own: committed when they are touched, given back when they are empty.
//!
//! A flow has two rings of hundreds of KiB and mostly uses a few bytes of them. An allocator that clears them, or that
//! keeps a header in front of them, makes pages resident that hold nothing: 10,000 idle flows cost 40 MB more.
//!
//! Some that are let go wait for the next buffer of their size, all but their beginning given back: a short connection, which
//! writes no more than that, makes no mapping, and has no page cleared and mapped (a seventh of what it cost).

use std::alloc::{GlobalAlloc, Layout, System};
use std::num::NonZeroUsize;
use std::ptr::{self, NonNull};
use std::sync::Mutex;

use nix::libc;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// Size in bytes from which an allocation is a mapping of its own.
const LARGE: usize = 128 << 10;
/// The smallest page that Linux has; mappings begin on a page of whatever size.
const LEAST_PAGE: usize = 4096;

#[global_allocator]
static ALLOCATOR: Mapping = Mapping;

/// The system's allocator, but for large buffers.
struct Mapping;

fn is_large(layout: &Layout) -> bool {
    layout.size() >= LARGE && layout.align() <= LEAST_PAGE
}

/// The most mappings that wait for their next use: the rings of flows that end together.
const MOST_SPARE: usize = 64;
/// What each of them keeps of its memory, in bytes from its beginning.
const WARM: usize = 8 << 10;
/// Above this a mapping is of a kind that does not come often.
const LARGEST_SPARE: usize = 1 << 20;

static SPARE: Mutex<Spare> = Mutex::new(Spare::new());

/// Mappings that nobody uses, without memory and zero behind the first [`WARM`] bytes.
struct Spare {
    places: [Option<Range>; MOST_SPARE],
    /// The place that was filled longest ago, once all are.
    oldest: usize,
}

/// A mapping: where it begins, and its size in bytes.
type Range = (NonNull<u8>, usize);

#[allow(unsafe_code)]
// SAFETY: it owns the mappings that it points to, and memory belongs to no thread.
unsafe impl Send for Spare {}

impl Spare {
    const fn new() -> Self {
        Self {
            places: [None; MOST_SPARE],
            oldest: 0,
        }
    }

    /// Takes one of exactly `size` bytes.
    fn take(&mut self, size: usize) -> Option<NonNull<u8>> {
        let fits = |place: &&mut Option<Range>| place.is_some_and(|(_, s)| s == size);
        let place = self.places.iter_mut().find(fits)?;
        place.take().map(|(start, _)| start)
    }

    /// Keeps a mapping of [`LARGE`] bytes or more, and gives its memory back but for the beginning. What has to go for it, so
    /// that sizes that do not come again fill no place for good; or itself, where the kernel does not take the memory.
    fn keep(&mut self, mapping: Range) -> Option<Range> {
        let (start, size) = mapping;
        // Where pages are larger than that, all of it.
        let warm = if WARM.is_multiple_of(page_size()) {
            WARM
        } else {
            0
        };
        #[allow(unsafe_code)]
        // SAFETY: the range is a private anonymous mapping of at least LARGE bytes that nobody uses any more, and it is given
        // back from a page's beginning; that part reads as zeroes afterwards.
        let emptied = unsafe {
            madvise(
                start.add(warm).cast(),
                size - warm,
                MmapAdvise::MADV_DONTNEED,
            )
        };
        if emptied.is_err() {
            return Some(mapping);
        }
        if let Some(free) = self.places.iter_mut().find(|place| place.is_none()) {
            *free = Some(mapping);
            return None;
        }
        let gone = self.places[self.oldest].replace(mapping);
        self.oldest = (self.oldest + 1) % MOST_SPARE;
        gone
    }
}

/// A mapping of `size` zero bytes; null when there is no memory. Never waits for another thread.
fn map(size: usize) -> *mut u8 {
    let spare = SPARE.try_lock().ok();
    match spare.and_then(|mut spare| spare.take(size)) {
        Some(start) => {
            #[allow(unsafe_code)]
            // SAFETY: the mapping is at least LARGE bytes long, and ours alone now.
            unsafe {
                start.write_bytes(0, WARM)
            };
            start.as_ptr()
        }
        None => map_fresh(size),
    }
}

/// Lets a mapping of [`map`]'s go.
///
/// # Safety
/// Nobody uses it any more, and `size` is what it was made with, or what it was moved to since.
#[allow(unsafe_code)]
unsafe fn unmap(start: NonNull<u8>, size: usize) {
    let gone = match SPARE.try_lock() {
        Ok(mut spare) if size <= LARGEST_SPARE => spare.keep((start, size)),
        _ => Some((start, size)),
    };
    if let Some((start, size)) = gone {
        // SAFETY: the caller's, or a spare one's, which is nobody's. It cannot fail for such a range.
        let _ = unsafe { munmap(start.cast(), size) };
    }
}

/// One from the kernel.
fn map_fresh(size: usize) -> *mut u8 {
    let Some(size) = NonZeroUsize::new(size) else {
        return ptr::null_mut();
    };
    let (access, flags) = (
        ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        MapFlags::MAP_PRIVATE,
    );
    #[allow(unsafe_code)]
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory that is in use.
    let mapped = unsafe { mmap_anonymous(None, size, access, flags) };
    mapped.map_or(ptr::null_mut(), |start| start.as_ptr().cast())
}

#[allow(unsafe_code)]
// SAFETY: small layouts go to `System`, which keeps the contract; large ones are mappings of exactly their size, aligned to a
// page, owned by the caller alone until `dealloc` gets the same layout. Nothing here panics or allocates.
unsafe impl GlobalAlloc for Mapping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(&layout) {
            return map(layout.size());
        }
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(&layout) {
            return map(layout.size());
        }
        // SAFETY: the caller keeps `alloc_zeroed`'s contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        match NonNull::new(start) {
            Some(start) if is_large(&layout) => {
                // SAFETY: `start` and the layout are those of a mapping that `map` made, and nobody uses it any more.
                unsafe { unmap(start, layout.size()) };
            }
            // SAFETY: the caller keeps `dealloc`'s contract.
            _ => unsafe { System.dealloc(start, layout) },
        }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises a size that does not overflow when it is rounded up to the alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (is_large(&layout), is_large(&wanted)) {
            // SAFETY: the caller keeps `realloc`'s contract.
            (false, false) => unsafe { System.realloc(start, layout, size) },
            (true, true) => {
                // SAFETY: the old range is a mapping of ours with this size; the kernel may move it, and then the old
                // address is no longer used.
                let moved = unsafe {
                    libc::mremap(start.cast(), layout.size(), size, libc::MREMAP_MAYMOVE)
                };
                if moved == libc::MAP_FAILED {
                    ptr::null_mut()
                } else {
                    moved.cast()
                }
            }
            _ => {
                // SAFETY: as for `alloc`; `wanted` has a size, as the caller promises one.
                let fresh = unsafe { self.alloc(wanted) };
                if !fresh.is_null() {
                    // SAFETY: both are allocations of at least so many bytes, and the new one does not overlap the old one.
                    unsafe { ptr::copy_nonoverlapping(start, fresh, layout.size().min(size)) };
                    // SAFETY: `start` was allocated with `layout`, and is not used any more.
                    unsafe { self.dealloc(start, layout) };
                }
                fresh
            }
        }
    }
}

/// Size in bytes that the allocator keeps of freed memory, per thread.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 8 << 20;

/// Lets glibc keep some of what is freed. A transfer frees and allocates megabytes at the top of the heap again and again;
/// by default every 128 KiB there go back to the kernel at once, to be cleared and mapped again (mallopt(3),
/// M_TRIM_THRESHOLD). Other C libraries have no such threshold.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    {
        #[allow(unsafe_code)]
        // SAFETY: mallopt(3) takes two integers and is thread-safe in glibc; no memory of ours is involved.
        let taken = unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT) };
        if taken != 1 {
            tracing::debug!("mallopt did not take the trim threshold");
        }
    }
}

/// Gives the whole pages of `unused` back to the kernel (madvise(2), MADV_DONTNEED): they cost nothing until they are
/// written again. Only for buffers from [`LARGE`] bytes on; bytes that are given back become zero.
pub fn give_back(unused: &mut [u8]) {
    if unused.len() < LARGE {
        return;
    }
    let page = page_size();
    let before = unused.as_ptr().align_offset(page).min(unused.len());
    let whole = &mut unused[before..];
    let len = whole.len() - whole.len() % page;
    if len == 0 {
        return;
    }
    let start = NonNull::from(whole).cast();
    #[allow(unsafe_code)]
    // SAFETY: the range is inside a slice that is borrowed mutably, so nobody else looks at it; its pages are private and
    // anonymous (a heap buffer), and read as zeroes afterwards, which are valid bytes.
    let given = unsafe { madvise(start, len, MmapAdvise::MADV_DONTNEED) };
    if let Err(errno) = given {
        tracing::debug!("madvise: {errno}");
    }
}

/// The kernel's page size in bytes.
fn page_size() -> usize {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| usize::try_from(size).ok())
        .unwrap_or(LEAST_PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resident pages of `buffer` (mincore(2)).
    fn resident(buffer: &[u8]) -> usize {
        let mut pages = vec![0_u8; buffer.len().div_ceil(page_size())];
        #[allow(unsafe_code)]
        // SAFETY: the range is a buffer that starts on a page, and `pages` has a byte for each of its pages.
        let result = unsafe {
            libc::mincore(
                buffer.as_ptr().cast_mut().cast(),
                buffer.len(),
                pages.as_mut_ptr(),
            )
        };
        assert_eq!(result, 0);
        pages.iter().filter(|page| **page & 1 == 1).count()
    }

    #[test]
    fn a_large_zeroed_buffer_is_committed_when_it_is_touched() {
        // Larger than what waits for its next use.
        let mut buffer = vec![0_u8; LARGEST_SPARE + LARGE];
        assert_eq!(buffer.as_ptr().align_offset(page_size()), 0);
        assert_eq!(resident(&buffer), 0);
        buffer[0] = 1;
        buffer[LARGE] = 1;
        assert_eq!(resident(&buffer), 2);
        give_back(&mut buffer);
        assert_eq!(resident(&buffer), 0);
        assert!(buffer.iter().all(|byte| *byte == 0));
    }

    /// Unmapped, it would leave its place to the next fresh one. Other tests of this process may take it or push it out, so
    /// one try is not enough.
    #[test]
    fn a_mapping_that_is_let_go_is_used_again_and_empty() {
        let size = LARGE + 3 * LEAST_PAGE;
        let again = (0..1000).any(|_| {
            let mut buffer = vec![0_u8; size];
            buffer[0] = 7;
            buffer[size - 1] = 7;
            let start = buffer.as_ptr() as usize;
            drop(buffer);
            let fresh = NonNull::new(map_fresh(size)).unwrap();
            let next = vec![0_u8; size];
            assert!(resident(&next) <= WARM.div_ceil(page_size()));
            assert!(next.iter().all(|byte| *byte == 0));
            let is_again = next.as_ptr() as usize == start;
            unmap_fresh((fresh, size));
            is_again
        });
        assert!(again);
    }

    #[test]
    fn few_mappings_wait_and_the_oldest_goes_first() {
        let mut spare = Spare::new();
        let sizes: Vec<usize> = (0..MOST_SPARE + 3)
            .map(|n| LARGE + n * LEAST_PAGE)
            .collect();
        let mut gone = Vec::new();
        for &size in &sizes {
            let start = NonNull::new(map_fresh(size)).unwrap();
            gone.extend(spare.keep((start, size)));
        }
        let gone_sizes: Vec<usize> = gone.iter().map(|(_, size)| *size).collect();
        assert_eq!(gone_sizes, sizes[..3]);
        gone.into_iter().for_each(unmap_fresh);
        for &size in &sizes[3..] {
            unmap_fresh((spare.take(size).unwrap(), size));
            assert_eq!(spare.take(size), None);
        }
    }

    fn unmap_fresh((start, size): Range) {
        #[allow(unsafe_code)]
        // SAFETY: the tests own it, and use it no more.
        unsafe { munmap(start.cast(), size) }.unwrap();
    }

    #[test]
    fn small_buffers_and_parts_of_pages_stay_as_they_are() {
        let mut small = vec![7_u8; LARGE - 1];
        give_back(&mut small);
        assert!(small.iter().all(|byte| *byte == 7));
        let mut large = vec![7_u8; 2 * LARGE];
        give_back(&mut large[1..LARGE + 1]);
        assert!(large[..page_size()].iter().all(|byte| *byte == 7));
        assert!(large[LARGE..].iter().all(|byte| *byte == 7));
        assert!(large[page_size()..LARGE].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_buffer_keeps_its_bytes_when_it_grows_and_shrinks() {
        let mut buffer: Vec<u8> = Vec::new();
        let mut expected = Vec::new();
        for size in [
            1,
            100,
            LARGE - 1,
            LARGE,
            LARGE + 1,
            8 * LARGE,
            3 * LARGE,
            10,
        ] {
            buffer.resize(size, size as u8);
            expected.resize(size, size as u8);
            buffer.shrink_to_fit();
            assert!(buffer == expected, "at {size} bytes");
        }
    }
}
