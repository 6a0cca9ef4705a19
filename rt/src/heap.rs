//! The heap: one region, blocks found in a bounded number of steps however fragmented it is, behind a spin
//! lock (threads of one program are on different processors, so nobody waits for a thread that it
//! keeps from running).
use crate::Shared;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use spin::Mutex;
use talc::{ErrOnOom, Span, Talc};

struct State {
    /// It has memory.
    ready: bool,
    /// Bytes in use, as asked for.
    used: usize,
    /// Bytes that there are.
    size: usize,
    /// Where both are told: two words.
    told: Option<Shared>,
    talc: Talc<ErrOnOom>,
}

struct Locked(Mutex<State>);

#[global_allocator]
static HEAP: Locked = Locked(Mutex::new(State {
    ready: false,
    used: 0,
    size: 0,
    told: None,
    talc: Talc::new(ErrOnOom),
}));

// SAFETY: `Talc` gives out disjoint blocks of the memory that it was given, and the lock makes
// each step exclusive.
unsafe impl GlobalAlloc for Locked {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut heap = self.0.lock();
        // SAFETY: the caller's promise (layout of non-zero size).
        let Ok(memory) = (unsafe { heap.talc.malloc(layout) }) else {
            return core::ptr::null_mut();
        };
        heap.used += layout.size();
        heap.tell();
        memory.as_ptr()
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if let Some(memory) = NonNull::new(memory) {
            let mut heap = self.0.lock();
            // SAFETY: the caller passes what `alloc` returned for this layout.
            unsafe { heap.talc.free(memory, layout) };
            heap.used = heap.used.saturating_sub(layout.size());
            heap.tell();
        }
    }
}

impl State {
    fn tell(&self) {
        let Some(page) = &self.told else { return };
        // The page has room for both.
        let _ = page.write_register(0, 8, self.used as u64);
        let _ = page.write_register(8, 8, self.size as u64);
    }
}

/// From now on others see how much is in use.
pub(crate) fn tell_in(page: Option<Shared>) {
    let mut heap = HEAP.0.lock();
    heap.told = page;
    heap.tell();
}

/// Makes `base..base + length` the heap, once.
pub(crate) fn add_first(base: u64, length: u64) {
    let mut heap = HEAP.0.lock();
    if !heap.ready && length > 0 {
        let span = Span::from_base_size(base as *mut u8, length as usize);
        // SAFETY: the root server binds this range as the heap and nothing else uses it.
        heap.ready = unsafe { heap.talc.claim(span) }.is_ok();
        heap.size = length as usize;
    }
}

/// Gives the program a heap at a range that it mapped itself (root server and tests).
///
/// # Panics
/// When the range is not wholly inside one region of the program that can be written.
pub fn add_heap(base: u64, length: u64) {
    let region = crate::regions::around(base, length);
    let inside = region.is_some_and(|region| region.rights.contains(abi::MemRights::WRITE));
    assert!(inside, "heap {base:#x}+{length:#x} is not in a writable region");
    add_first(base, length);
}

/// Bytes of the heap that are in use.
#[must_use]
pub fn used() -> usize {
    HEAP.0.lock().used
}

/// Bytes of the heap.
#[must_use]
pub fn size() -> usize {
    HEAP.0.lock().size
}
