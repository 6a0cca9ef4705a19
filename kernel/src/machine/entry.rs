//! Entering and leaving user mode.
//!
//! [`run`] looks like a function that returns when the thread traps: the rest of the kernel is an
//! ordinary loop. Assembly saves all user registers straight into the thread's [`Frame`].
use super::cpu::{
    LOCAL_FRAME, LOCAL_NULLS, LOCAL_PENDING, LOCAL_SCRATCH, LOCAL_STACK, LOCAL_TRACE, USER_CODE,
    USER_DATA, local,
};
use super::lock::Guard;
use abi::Message;
use alloc::boxed::Box;
use core::arch::{asm, global_asm};
use core::mem::offset_of;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

/// Flags of a new thread: IF and the bit that is always one.
const START_FLAGS: u64 = 0x202;

/// User registers of a thread that does not run right now.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Frame {
    /// Arguments and results of kernel calls: rdi, rsi, rdx, r10, r8, r9, r12, r13, r14, r15.
    pub args: [u64; 10],
    /// Call number, status.
    pub rax: u64,
    rcx: u64,
    r11: u64,
    rbx: u64,
    rbp: u64,
    /// Error code of an exception.
    pub error: u64,
    /// Instruction pointer.
    pub rip: u64,
    cs: u64,
    rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
    ss: u64,
    /// Non-zero: entered by SYSCALL, may leave by SYSRET.
    fast: u64,
}

impl Frame {
    /// Message words, where a call brings them and a wait delivers them.
    pub fn message(&self) -> Message {
        let [_, a, b, c, d, e, f, g, h, _] = self.args;
        [a, b, c, d, e, f, g, h]
    }

    /// Sets the message words.
    #[inline]
    pub fn set_message(&mut self, words: &Message) {
        let [_, a, b, c, d, e, f, g, h, _] = &mut self.args;
        [*a, *b, *c, *d, *e, *f, *g, *h] = *words;
    }
}

/// A frame at a fixed place: assembly keeps its address while the thread runs.
#[derive(Debug)]
pub struct FrameBox(NonNull<Frame>);

// SAFETY: the frame is owned; all access goes through the kernel's one lock, except by the
// processor that runs the thread, which no other processor's code touches the frame of.
unsafe impl Send for FrameBox {}

impl FrameBox {
    /// Registers of a new thread.
    pub fn new(rip: u64, rsp: u64, rdi: u64) -> Self {
        let mut args = [0; 10];
        args[0] = rdi;
        let frame = Frame {
            args,
            rax: 0,
            rcx: 0,
            r11: 0,
            rbx: 0,
            rbp: 0,
            error: 0,
            rip,
            cs: USER_CODE,
            rflags: START_FLAGS,
            rsp,
            ss: USER_DATA,
            fast: 0,
        };
        Self(NonNull::from(Box::leak(Box::new(frame))))
    }

    /// What [`run`] wants.
    pub fn handle(&self) -> FrameHandle {
        FrameHandle(self.0)
    }
}

impl Deref for FrameBox {
    type Target = Frame;
    #[inline]
    fn deref(&self) -> &Frame {
        // SAFETY: allocated in `new`, freed in `drop` only; see `Send` for who may come here.
        unsafe { self.0.as_ref() }
    }
}

impl DerefMut for FrameBox {
    #[inline]
    fn deref_mut(&mut self) -> &mut Frame {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { self.0.as_mut() }
    }
}

impl Drop for FrameBox {
    fn drop(&mut self) {
        // SAFETY: made by `Box` in `new`; a processor that ran this thread last never enters
        // through its frame again, because each entry to user mode sets the frame anew.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// Names the frame of a thread that is about to run.
#[derive(Clone, Copy, Debug)]
pub struct FrameHandle(NonNull<Frame>);

// SAFETY: it is a name; only `run` follows it, see there.
unsafe impl Send for FrameHandle {}

/// Why a thread came back to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trap {
    /// A kernel call.
    Call,
    /// An exception, 0..=31; the error code is in the frame.
    Exception(u8),
    /// An interrupt.
    Interrupt(u8),
}

/// What a thread came back to the kernel with: registers, as the entry left them.
#[derive(Clone, Copy, Debug)]
pub struct Entered {
    vector: u64,
    number: u64,
    first: u64,
}

/// Stands for SYSCALL among the vectors.
const SYSCALL: u64 = 256;

impl Entered {
    /// Why.
    pub fn trap(self) -> Trap {
        match self.vector {
            SYSCALL => Trap::Call,
            0..32 => Trap::Exception(self.vector as u8),
            _ => Trap::Interrupt(self.vector as u8),
        }
    }

    /// Number and first argument of a kernel call.
    #[inline(always)]
    pub fn call(self) -> Option<(u64, u64)> {
        (self.vector == SYSCALL).then_some((self.number, self.first))
    }

    /// True when it is this exception.
    #[inline(always)]
    pub fn is_exception(self, vector: u8) -> bool {
        self.vector == u64::from(vector)
    }
}

global_asm!(
    include_str!("entry.s"),
    L_FRAME = const LOCAL_FRAME,
    L_STACK = const LOCAL_STACK,
    L_SCRATCH = const LOCAL_SCRATCH,
    L_PENDING = const LOCAL_PENDING,
    L_TRACE = const LOCAL_TRACE,
    L_NULLS = const LOCAL_NULLS,
    F_RAX = const offset_of!(Frame, rax),
    F_RCX = const offset_of!(Frame, rcx),
    F_R11 = const offset_of!(Frame, r11),
    F_RBX = const offset_of!(Frame, rbx),
    F_RBP = const offset_of!(Frame, rbp),
    F_ERROR = const offset_of!(Frame, error),
    F_RIP = const offset_of!(Frame, rip),
    F_CS = const offset_of!(Frame, cs),
    F_RFLAGS = const offset_of!(Frame, rflags),
    F_RSP = const offset_of!(Frame, rsp),
    F_SS = const offset_of!(Frame, ss),
    F_FAST = const offset_of!(Frame, fast),
);

const _: () =
    assert!(offset_of!(Frame, args) == 0 && offset_of!(Frame, ss) - offset_of!(Frame, rip) == 32);

unsafe extern "sysv64" {
    fn enter_user();
    fn enter_user_with_message();
    fn syscall_entry();
    fn stop_entry();
    static vector_entries: u8;
}

/// Bytes from one vector's entry to the next.
const ENTRY_SIZE: u64 = 16;

/// Where SYSCALL leads.
pub(super) fn syscall_address() -> u64 {
    syscall_entry as *const () as u64
}

/// A thread whose kernel call ends with a message.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// The thread. It is in a kernel call.
    pub to: FrameHandle,
    /// Whose message words it gets; its own, if they are there already.
    pub from: FrameHandle,
    /// Status of its call.
    pub status: u64,
    /// First result of its call.
    pub first: u64,
}

/// Frees the lock, and runs a thread until it traps. The message goes from registers to registers,
/// which is why the lock is freed only after its words were read: the sender's frame is there as
/// long.
#[inline(always)]
pub fn deliver<T>(delivery: Delivery, lock: Guard<'_, T>) -> Entered {
    let (vector, number, first): (u64, u64, u64);
    // SAFETY: as for `run`. In addition, the thread entered the kernel by SYSCALL, so that SYSRET
    // takes it back; all registers that this does not load are the call's to lose. The other frame
    // belongs to a thread that exists while the lock is held. Nothing else that the lock protects
    // is used after it was freed.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "call {enter}",
            "pop rbp",
            "pop rbx",
            enter = sym enter_user_with_message,
            inout("rdi") delivery.first => first,
            inout("rax") delivery.status => vector,
            inout("rcx") lock.into_flag() => _,
            inout("r11") delivery.from.0.as_ptr() => _,
            inout("r15") delivery.to.0.as_ptr() => _,
            out("rsi") number, out("rdx") _, out("r8") _, out("r9") _, out("r10") _,
            out("r12") _, out("r13") _, out("r14") _,
        );
    }
    Entered { vector, number, first }
}

/// Runs a thread until it traps.
#[inline(always)]
pub fn run(frame: FrameHandle) -> Entered {
    let (vector, number, first): (u64, u64, u64);
    // SAFETY: the handle comes from the frame of a thread that the scheduler chose for this
    // processor, and that is not freed before the processor is back in the kernel. The frame's
    // selectors and flags are user mode's by construction. All registers are declared as changed,
    // or put back.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "call {enter}",
            "pop rbp",
            "pop rbx",
            enter = sym enter_user,
            inout("rdi") frame.0.as_ptr() => first,
            out("rax") vector, out("rsi") number,
            out("rcx") _, out("rdx") _, out("r8") _, out("r9") _, out("r10") _,
            out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _,
        );
    }
    Entered { vector, number, first }
}

/// The frame of the thread that the calling processor ran last.
pub fn last_frame() -> Option<FrameHandle> {
    NonNull::new(local().frame.get()).map(FrameHandle)
}

/// Address of the last page fault.
pub fn fault_address() -> u64 {
    let address;
    // SAFETY: reading CR2 has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address
}

/// Takes one of the interrupts that were noted while the kernel let them in.
pub fn take_pending() -> Option<u8> {
    for (index, word) in local().pending.iter().enumerate() {
        let bits = word.load(Ordering::Relaxed);
        if bits != 0 {
            let bit = bits.trailing_zeros();
            word.fetch_and(!(1 << bit), Ordering::Relaxed);
            return Some((index as u32 * 64 + bit) as u8);
        }
    }
    None
}

/// An interrupt gate (AMD APM volume 2, section 4.8.3).
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate([u64; 2]);

struct Table([AtomicU64; 512]);

static TABLE: Table = Table([const { AtomicU64::new(0) }; 512]);

impl Gate {
    fn new(handler: u64, stack: u64) -> Self {
        let low = (handler & 0xffff)
            | 0x08 << 16
            | stack << 32
            | 0x8e << 40
            | (handler >> 16 & 0xffff) << 48;
        Self([low, handler >> 32])
    }
}

/// Non-maskable interrupt, double fault, machine check: on a stack of their own.
const OWN_STACK: [usize; 3] = [2, 8, 18];

/// Fills and loads the table, which all processors share.
pub(super) fn load_interrupt_table() {
    #[repr(C, packed)]
    struct Pointer(u16, u64);
    let entries = (&raw const vector_entries).addr() as u64;
    for vector in 0..256usize {
        let entry = entries + vector as u64 * ENTRY_SIZE;
        let handler = if vector == 2 { stop_entry as *const () as u64 } else { entry };
        let gate = Gate::new(handler, u64::from(OWN_STACK.contains(&vector)));
        TABLE.0[vector * 2].store(gate.0[0], Ordering::Relaxed);
        TABLE.0[vector * 2 + 1].store(gate.0[1], Ordering::Relaxed);
    }
    let pointer = Pointer(4095, (&raw const TABLE).addr() as u64);
    // SAFETY: the table lives for ever and every gate leads to an entry of `entry.s`.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack)) };
}

/// An exception in the kernel itself: a bug, ends in a report.
#[unsafe(no_mangle)]
extern "sysv64" fn kernel_exception(vector: u64, error: u64, rip: u64, rsp: u64) -> ! {
    let address = fault_address();
    panic!(
        "exception {vector} in the kernel, error {error:#x}, ip {rip:#x}, sp {rsp:#x}, cr2 {address:#x}"
    );
}
