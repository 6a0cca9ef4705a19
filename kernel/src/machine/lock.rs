//! Spin locks. The kernel never sleeps and keeps interrupts off, so a ticket lock is all it needs.
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

/// Mutual exclusion, first come, first served.
pub struct SpinLock<T> {
    next: AtomicU32,
    serving: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the ticket protocol gives the value to one processor at a time.
unsafe impl<T: Send> Sync for SpinLock<T> {}

/// The right to use the value.
pub struct Guard<'a, T> {
    lock: &'a SpinLock<T>,
}

impl<T> SpinLock<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        Self { next: AtomicU32::new(0), serving: AtomicU32::new(0), value: UnsafeCell::new(value) }
    }

    /// Waits for the lock.
    pub fn lock(&self) -> Guard<'_, T> {
        self.lock_with(|| {})
    }

    /// Waits for the lock, doing `meanwhile` on every round: whoever holds the lock may wait for
    /// this processor to do it.
    #[inline]
    pub fn lock_with(&self, mut meanwhile: impl FnMut()) -> Guard<'_, T> {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        while self.serving.load(Ordering::Acquire) != ticket {
            meanwhile();
            core::hint::spin_loop();
        }
        Guard { lock: self }
    }

    /// Frees the lock whoever holds it. Only for reports after which nothing else happens.
    pub(super) fn seize(&self) {
        self.serving.store(self.next.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard's ticket is being served: no other processor has access.
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
        let serving = self.lock.serving.load(Ordering::Relaxed);
        self.lock.serving.store(serving.wrapping_add(1), Ordering::Release);
    }
}
