//! Secure virtual machine (AMD APM volume 2, chapter 15): one guest processor and its world
//! switch.
//!
//! The kernel uses it like this:
//!
//! 1. each processor calls [`init_cpu`] once and keeps the [`HostArea`];
//! 2. a vCPU object owns a [`Vcpu`], made from two zeroed pages and the root of nested tables
//!    (entries of nested tables need the user bit);
//! 3. with interrupts off, [`Vcpu::run`] enters the guest until it exits; [`Vcpu::route`] says
//!    what the exit means. After [`Route::Host`] the kernel lets the pending interrupt in with
//!    [`take_interrupts`], does what that asks for, and runs again;
//! 4. before an exit goes to a portal: [`Vcpu::store_state`] into the state page; after the
//!    reply, [`Vcpu::load_state`] from a *copy* of the page. A nested fault that a memory manager
//!    resolves needs neither: just run again;
//! 5. a recall from another processor is an ordinary inter-processor interrupt: it makes the
//!    guest exit with [`Route::Host`].
mod events;
mod exit;
mod maps;
mod state;
mod switch;
mod vmcb;

pub use exit::{RawExit, Route};

use abi::HostPhys;
use abi::vcpu::{Registers, reg};
use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use switch::Limits;
use vmcb::Vmcb;

/// A zeroed 4 KiB frame of kernel memory that nothing else uses, and where the kernel sees it.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Its address in physical memory.
    pub phys: HostPhys,
    /// Its address in the kernel's own mapping.
    pub virt: NonNull<u8>,
}

/// What one processor keeps for running guests. Belongs to that processor alone.
#[derive(Debug)]
pub struct HostArea {
    /// Where `VMSAVE` puts the host's hidden state.
    state: Page,
    /// Number of the vCPU whose FPU and debug registers the processor holds; 0 for none.
    owner: Cell<u64>,
    /// The context page of that vCPU.
    context: Cell<Option<NonNull<u8>>>,
    /// Number of the vCPU that was entered last, whose translations the TLB may hold.
    entered: Cell<u64>,
}

/// True when this processor offers SVM with nested paging (CPUID 0x8000_0001 and 0x8000_000a).
#[must_use]
pub fn supported() -> bool {
    switch::supported()
}

/// Turns SVM on for the calling processor: `EFER.SVME` and `VM_HSAVE_PA`.
///
/// `save` is for the processor's own use at VMRUN, `state` for VMSAVE. `None` where the
/// processor lacks SVM or nested paging, or the firmware locked it.
///
/// # Safety
/// Both pages are handed over for ever and the kernel's mapping of them stays.
#[must_use]
pub unsafe fn init_cpu(save: Page, state: Page) -> Option<HostArea> {
    // SAFETY: the caller hands over both pages.
    unsafe { switch::enable(save.phys)? };
    Some(HostArea { state, owner: Cell::new(0), context: Cell::new(None), entered: Cell::new(0) })
}

/// Lets pending interrupts in for one instruction: `sti; nop; cli`. Interrupts must be off.
pub fn take_interrupts() {
    switch::take_interrupts();
}

impl HostArea {
    /// Forgets a vCPU that is about to be destroyed. Call it on the processor that ran it,
    /// before its pages are used for anything else.
    pub fn forget(&self, vcpu: &Vcpu) {
        if self.owner.get() == vcpu.number {
            self.owner.set(0);
            self.context.set(None);
        }
    }
}

/// Next number for a vCPU; 0 is "none".
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// One guest processor.
#[derive(Debug)]
pub struct Vcpu {
    vmcb: Page,
    context: Page,
    number: u64,
    limits: Limits,
    /// General registers; those that the VMCB holds (rax, rsp) are kept there.
    regs: Registers,
    /// MSR exits with system-call numbers have a class of their own.
    syscall_msrs: bool,
    /// Exceptions that a manager wants to see.
    exceptions: u32,
    /// The TLB must drop this guest's translations at the next entry.
    flush: Cell<bool>,
    /// An external interrupt that the guest has not taken yet.
    interrupt: Option<u8>,
    /// What the last exit was.
    last: RawExit,
    /// Exits so far.
    exits: u64,
}

// SAFETY: the pages are exclusively owned; a `Vcpu` is used by one processor at a time, which
// `&mut` enforces.
unsafe impl Send for Vcpu {}

impl Vcpu {
    /// A guest processor in an all-zero state; load one before the first run.
    ///
    /// # Safety
    /// Both pages are zeroed and handed over until the vCPU is gone and every [`HostArea`] has
    /// forgotten it. `nested_root` stays a valid root of four-level page tables as long.
    #[must_use]
    pub unsafe fn new(vmcb: Page, context: Page, nested_root: HostPhys) -> Self {
        // The counter cannot wrap in the lifetime of a machine.
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let mut vcpu = Self {
            vmcb,
            context,
            number,
            limits: Limits::read(),
            regs: Registers::default(),
            syscall_msrs: false,
            exceptions: 0,
            flush: Cell::new(true),
            interrupt: None,
            last: RawExit::default(),
            exits: 0,
        };
        vcpu.reset(nested_root);
        vcpu
    }

    /// Runs the guest until its next exit. Interrupts are off before and after.
    pub fn run(&mut self, host: &HostArea) -> RawExit {
        self.take_processor(host);
        self.prepare_entry(host);
        let virtual_interrupt = self.prepare_events();
        // SAFETY: VMCB, maps and host page are valid by the contracts of `new` and `init_cpu`;
        // the state in the VMCB was sanitised by `load_state` or written by the processor.
        unsafe { switch::enter(&mut self.regs, self.vmcb.phys, host.state.phys) };
        if virtual_interrupt {
            switch::recheck_interrupts();
        }
        self.exits += 1;
        self.finish_exit()
    }

    /// What the last exit means to the kernel.
    #[must_use]
    pub fn route(&self) -> Route {
        let number = self.regs.r[reg::RCX] as u32;
        let syscall_msr = self.syscall_msrs && self.last.is_msr();
        self.last.route(syscall_msr && maps::is_syscall_msr(number), self.exceptions)
    }

    /// The guest's translations change: drop them at the next entry. (For other processors: set
    /// it there, or make the guest exit and set it after.)
    pub fn flush_at_entry(&self) {
        self.flush.set(true);
    }

    /// The guest's instruction pointer, for fault messages and traces.
    #[must_use]
    pub fn rip(&self) -> u64 {
        self.vmcb().rip
    }

    /// The pages of a vCPU that no processor will enter again, to be freed.
    #[must_use]
    pub fn into_pages(self, host: &HostArea) -> (Page, Page) {
        host.forget(&self);
        (self.vmcb, self.context)
    }

    fn vmcb(&self) -> &Vmcb {
        // SAFETY: the page is exclusively ours and page-aligned; every bit pattern is a `Vmcb`.
        // The processor writes to it only inside `run`, which takes `&mut self`.
        unsafe { self.vmcb.virt.cast::<Vmcb>().as_ref() }
    }

    fn vmcb_mut(&mut self) -> &mut Vmcb {
        // SAFETY: as in `vmcb`, and `self` is borrowed exclusively.
        unsafe { self.vmcb.virt.cast::<Vmcb>().as_mut() }
    }

    /// Control fields that never change.
    fn reset(&mut self, nested_root: HostPhys) {
        let (io, msr) = (maps::io(), maps::msr(false));
        switch::reset_context(self.context);
        let vmcb = self.vmcb_mut();
        vmcb.intercept_exceptions = 0;
        vmcb.intercept_3 = vmcb::ALWAYS_3;
        vmcb.intercept_4 = vmcb::ALWAYS_4;
        vmcb.io_map = io.0;
        vmcb.msr_map = msr.0;
        vmcb.asid = vmcb::ASID;
        vmcb.virtual_interrupt = vmcb::V_INTR_MASKING;
        vmcb.nested_control = vmcb::NESTED_PAGING;
        vmcb.nested_root = nested_root.0;
        self.load_state(&state::RESET);
    }

    /// Gives the processor's FPU and debug registers to this vCPU. Lazy: nothing happens while
    /// the same vCPU is entered again, because nothing else uses those registers.
    fn take_processor(&self, host: &HostArea) {
        if host.owner.get() == self.number {
            return;
        }
        // SAFETY: context pages belong to vCPUs that are alive: `forget` clears the others.
        unsafe { switch::exchange_context(host.context.get(), self.context.virt) };
        host.owner.set(self.number);
        host.context.set(Some(self.context.virt));
    }

    fn prepare_entry(&mut self, host: &HostArea) {
        let flush = self.flush.take() | (host.entered.replace(self.number) != self.number);
        let vmcb = self.vmcb_mut();
        vmcb.tlb_control = if flush { vmcb::FLUSH_ALL } else { 0 };
        vmcb.clean = 0;
    }

    /// Reads the exit, and keeps an event whose delivery it interrupted for the next entry.
    fn finish_exit(&mut self) -> RawExit {
        let vmcb = self.vmcb();
        let last = RawExit {
            code: vmcb.exit_code,
            info1: vmcb.exit_info1,
            info2: vmcb.exit_info2,
            int_info: vmcb.exit_int_info,
        };
        self.finish_events(last);
        self.last = last;
        if last.is_invalid() {
            // QEMU leaves the host's registers in the save area then: nobody shall see them.
            self.load_state(&state::RESET);
        }
        last
    }
}
