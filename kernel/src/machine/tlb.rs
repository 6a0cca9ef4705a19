//! Page-table roots and stale translations.
//!
//! A processor that changes mappings holds the kernel's lock. It asks every other processor that
//! may hold stale translations to drop them, interrupts it, and waits until it has: each of them
//! is either outside the kernel, and the interrupt brings it in, or on its way to the lock; and
//! waiting for the lock includes doing what was asked ([`flush_if_wanted`]). So the wait ends.
use super::apic::{self, Ipi};
use super::cpu::{self, local, local_of};
use abi::HostPhys;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// Root of the kernel's own tables: no user half.
static KERNEL_ROOT: AtomicU64 = AtomicU64::new(0);

/// Per-processor state.
pub(super) struct Tlb {
    wanted: AtomicU64,
    done: AtomicU64,
    /// The root in CR3. Written by its own processor only.
    loaded: AtomicU64,
}

/// Where the loaded root is in it.
pub(super) const LOADED: usize = core::mem::offset_of!(Tlb, loaded);

impl Tlb {
    pub(super) const fn new() -> Self {
        Self { wanted: AtomicU64::new(0), done: AtomicU64::new(0), loaded: AtomicU64::new(0) }
    }
}

/// Names the kernel's tables and loads them.
pub fn set_kernel_root(root: HostPhys) {
    KERNEL_ROOT.store(root.0, Ordering::Relaxed);
    leave_root();
}

/// Loads the kernel's own tables.
pub fn leave_root() {
    switch_root(HostPhys(KERNEL_ROOT.load(Ordering::Relaxed)));
}

fn load(root: u64) {
    // SAFETY: every root maps the kernel's half alike.
    unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) };
}

/// Makes a root the current one; returns true when it was not before.
#[inline(always)]
pub fn switch_root(root: HostPhys) -> bool {
    if cpu::loaded_root() == root.0 {
        return false;
    }
    load(root.0);
    local().tlb.loaded.store(root.0, Ordering::Relaxed);
    true
}

/// Makes every processor drop what it remembers of the tables below `root`, and of `guests`:
/// processors that run a guest on them. Call it with the kernel's lock held.
pub fn shoot_down(root: HostPhys, guests: u64) {
    let own = cpu::id();
    let holds = |l: &cpu::Local| l.tlb.loaded.load(Ordering::SeqCst) == root.0;
    if holds(local()) {
        load(root.0);
    }
    let mut asked = 0u64;
    for other in (0..cpu::count()).filter(|c| *c != own) {
        let Some(block) = local_of(other) else { continue };
        if holds(block) || guests & 1 << other != 0 {
            block.tlb.wanted.fetch_add(1, Ordering::SeqCst);
            apic::signal(other, Ipi::Wake);
            asked |= 1 << other;
        }
    }
    while asked != 0 {
        let other = asked.trailing_zeros() as usize;
        let done = local_of(other).is_none_or(|l| {
            l.tlb.done.load(Ordering::SeqCst) == l.tlb.wanted.load(Ordering::SeqCst)
        });
        if done {
            asked &= asked - 1;
        }
        core::hint::spin_loop();
    }
}

/// Like [`shoot_down`], for tables that are about to be freed: no processor uses them afterwards.
pub fn retire(root: HostPhys, guests: u64) {
    if local().tlb.loaded.load(Ordering::Relaxed) == root.0 {
        leave_root();
    }
    shoot_down(root, guests);
}

/// Does what others asked for. A processor whose tables are to be forgotten goes on with the
/// kernel's own; the scheduler loads the right ones before it leaves the kernel.
#[inline]
pub fn flush_if_wanted() {
    let tlb = &local().tlb;
    let wanted = tlb.wanted.load(Ordering::SeqCst);
    if tlb.done.load(Ordering::Relaxed) != wanted {
        let root = KERNEL_ROOT.load(Ordering::Relaxed);
        load(root);
        tlb.loaded.store(root, Ordering::SeqCst);
        tlb.done.store(wanted, Ordering::SeqCst);
    }
}

/// Loads a started processor's first tables, before its block exists.
pub fn load_first(root: HostPhys) {
    load(root.0);
}

/// Waits until a processor is in the kernel: it waits for the lock, which the caller holds.
pub fn bring_in(cpu: usize) {
    shoot_down(HostPhys(u64::MAX), 1 << cpu);
}
