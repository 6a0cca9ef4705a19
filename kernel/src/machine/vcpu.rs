//! What the rest of the kernel uses of [`svm`](super::svm): guests that are run by handle, while
//! the kernel's lock is free.
use super::FramePool;
use super::cpu::local;
use super::phys;
use super::svm::{self, HostArea, Page, RawExit, Vcpu};
use abi::{HostPhys, PAGE_SIZE};
use alloc::boxed::Box;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

fn page(phys: HostPhys) -> Option<Page> {
    Some(Page { phys, virt: NonNull::new(phys::pointer(phys, PAGE_SIZE))? })
}

/// Turns virtualisation on for the calling processor, where there is any.
pub fn init(frames: &mut FramePool) -> bool {
    if !svm::supported() {
        return false;
    }
    let (Some(save), Some(state)) = (frames.take(), frames.take()) else { return false };
    let (Some(save), Some(state)) = (page(save), page(state)) else { return false };
    // SAFETY: both frames were just taken from the pool and are never given back.
    let area = unsafe { svm::init_cpu(save, state) };
    let found = area.is_some();
    local().host.set(area.map(|a| &*Box::leak(Box::new(a))));
    found
}

/// True when the calling processor can run guests.
pub fn available() -> bool {
    local().host.get().is_some()
}

/// A vCPU at a fixed place, so that it can run while the kernel's lock is free.
#[derive(Debug)]
pub struct VcpuBox(NonNull<Vcpu>);

// SAFETY: the vCPU is owned; all access goes through the kernel's lock, except by the processor
// that runs it, meanwhile no other processor's code touches it.
unsafe impl Send for VcpuBox {}

/// Names a vCPU that is about to run.
#[derive(Clone, Copy, Debug)]
pub struct VcpuHandle(NonNull<Vcpu>);

// SAFETY: it is a name; only `run` follows it, see there.
unsafe impl Send for VcpuHandle {}

impl VcpuBox {
    /// A vCPU with its two frames; `None` when the pool is empty.
    pub fn new(nested_root: HostPhys, frames: &mut FramePool) -> Option<Self> {
        let control = frames.take()?;
        let Some(context) = frames.take() else {
            frames.give(control);
            return None;
        };
        // SAFETY: two zeroed frames of the pool, handed back in `free` only; the nested tables
        // live as long as their space, which outlives its vCPUs.
        let vcpu = unsafe { Vcpu::new(page(control)?, page(context)?, nested_root) };
        Some(Self(NonNull::from(Box::leak(Box::new(vcpu)))))
    }

    /// What [`run`] wants.
    pub fn handle(&self) -> VcpuHandle {
        VcpuHandle(self.0)
    }

    /// Frees the vCPU. Only on its own processor, which must not be running it.
    pub fn free(self, frames: &mut FramePool) {
        // SAFETY: made by `Box` in `new`; nothing else has the address once it does not run.
        let vcpu = unsafe { Box::from_raw(self.0.as_ptr()) };
        if let Some(host) = local().host.get() {
            let (control, context) = vcpu.into_pages(host);
            frames.give(control.phys);
            frames.give(context.phys);
        }
    }
}

impl Deref for VcpuBox {
    type Target = Vcpu;
    fn deref(&self) -> &Vcpu {
        // SAFETY: allocated in `new`, freed in `free` only; see `Send` for who may come here.
        unsafe { self.0.as_ref() }
    }
}

impl DerefMut for VcpuBox {
    fn deref_mut(&mut self) -> &mut Vcpu {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { self.0.as_mut() }
    }
}

/// Runs a guest until its next exit, on the vCPU's own processor.
pub fn run(vcpu: VcpuHandle) -> RawExit {
    let host: &HostArea = match local().host.get() {
        Some(host) => host,
        None => return RawExit { code: u64::MAX, ..RawExit::default() },
    };
    // SAFETY: the handle comes from a vCPU that the scheduler chose for this processor and that
    // is not freed before the processor is back in the kernel.
    unsafe { (*vcpu.0.as_ptr()).run(host) }
}
