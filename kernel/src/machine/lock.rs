//! Spin locks. The kernel never sleeps and keeps interrupts off, so spinning is all it needs.
//!
//! Whoever asks first when the lock is free gets it; there is no queue. A queue hands the lock to
//! a processor that may not be running: under emulation processors are threads of a host with
//! other work, and two of them that passed a ticket to and fro would wait for a time slice of the
//! host (milliseconds) at every turn.
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

/// Mutual exclusion.
pub struct SpinLock<T> {
    held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: only the processor that set `held` has access to the value, until it clears it.
unsafe impl<T: Send> Sync for SpinLock<T> {}

/// The right to use the value.
pub struct Guard<'a, T> {
    lock: &'a SpinLock<T>,
}

impl<T> SpinLock<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        Self { held: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Waits for the lock.
    pub fn lock(&self) -> Guard<'_, T> {
        self.lock_with(|| {})
    }

    /// Waits for the lock, doing `meanwhile` on every round: whoever holds the lock may wait for
    /// this processor to do it.
    #[inline]
    pub fn lock_with(&self, mut meanwhile: impl FnMut()) -> Guard<'_, T> {
        while self.held.swap(true, Ordering::Acquire) {
            // Reading alone leaves the cache line shared while others work.
            while self.held.load(Ordering::Relaxed) {
                meanwhile();
                core::hint::spin_loop();
            }
        }
        Guard { lock: self }
    }

    /// Frees the lock whoever holds it. Only for reports after which nothing else happens.
    pub(super) fn seize(&self) {
        self.held.store(false, Ordering::Relaxed);
    }
}

impl<T> Guard<'_, T> {
    /// The byte that frees the lock when it is set to zero; whoever gets it has to do so.
    pub(super) fn into_flag(self) -> *mut bool {
        core::mem::ManuallyDrop::new(self).lock.held.as_ptr()
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard stands for the lock being held by its processor alone.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and the guard is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.lock.held.store(false, Ordering::Release);
    }
}
