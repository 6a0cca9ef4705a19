//! The kernel's heap. Space quotas are checked before anything is allocated, so that running out
//! is a bug and ends in a panic.
use super::lock::SpinLock;
use super::phys;
use abi::HostPhys;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};
use talc::{ErrOnOom, Span, Talc};

struct Heap(SpinLock<Talc<ErrOnOom>>);

#[global_allocator]
static HEAP: Heap = Heap(SpinLock::new(Talc::new(ErrOnOom)));

/// Hands a physical range to the heap, for ever.
pub fn init(start: HostPhys, length: u64) {
    let base = phys::pointer(start, length);
    // SAFETY: the boot code reserved the range for the heap; the direct map keeps it mapped.
    let claimed = unsafe { HEAP.0.lock().claim(Span::from_base_size(base, length as usize)) };
    assert!(claimed.is_ok(), "no room for the kernel's heap");
}

// SAFETY: `Talc` is an allocator, used under a lock.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise (layout of non-zero size).
        let memory = unsafe { self.0.lock().malloc(layout) };
        memory.map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if let Some(memory) = NonNull::new(memory) {
            // SAFETY: the caller's promise: allocated here, with this layout.
            unsafe { self.0.lock().free(memory, layout) };
        }
    }
}
