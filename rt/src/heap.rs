//! The heap: one region, first fit, behind a spin lock (threads of one program are on different
//! processors, so nobody waits for a thread that it keeps from running).
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use linked_list_allocator::Heap;
use spin::Mutex;

struct Locked(Mutex<(bool, Heap)>);

#[global_allocator]
static HEAP: Locked = Locked(Mutex::new((false, Heap::empty())));

// SAFETY: `Heap` gives out disjoint blocks of the memory that it was initialised with, and the
// lock makes each step exclusive.
unsafe impl GlobalAlloc for Locked {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut heap = self.0.lock();
        heap.1.allocate_first_fit(layout).map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller passes what `alloc` returned for this layout.
            unsafe { self.0.lock().1.deallocate(pointer, layout) }
        }
    }
}

/// Makes `base..base + length` the heap, once.
pub(crate) fn add_first(base: u64, length: u64) {
    let mut heap = HEAP.0.lock();
    if !heap.0 && length > 0 {
        // SAFETY: the root server binds this range as the heap and nothing else uses it.
        unsafe { heap.1.init(base as *mut u8, length as usize) };
        heap.0 = true;
    }
}

/// Gives the program a heap at a range that it mapped itself (root server and tests).
///
/// # Panics
/// When the range is not wholly inside one region of the program that can be written.
pub fn add_heap(base: u64, length: u64) {
    let inside = (0..).map_while(|n| crate::sys::region_list(n).ok()).any(|(b, l, rights, _)| {
        base >= b && base + length <= b + l && rights.contains(abi::MemRights::WRITE)
    });
    assert!(inside, "heap {base:#x}+{length:#x} is not in a writable region");
    add_first(base, length);
}

/// Bytes of the heap that are in use.
#[must_use]
pub fn used() -> usize {
    HEAP.0.lock().1.used()
}
