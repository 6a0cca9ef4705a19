//! What programs must not do: each function is the body of a thread that the kernel must end. Also
//! code that is copied into other spaces.
pub mod privileged;

use crate::env::Body;
use core::arch::{asm, global_asm};

/// Exit code of an act that had no effect.
pub const NO_EFFECT: u64 = 0x55;

macro_rules! offenders {
    ($($(#[$doc:meta])* $name:ident: $($line:literal),+;)*) => {
        $(
            $(#[$doc])*
            pub extern "C" fn $name(argument: u64) -> ! {
                // SAFETY: the thread ends here, or else falls into UD2: nothing of this program
                // that anybody relies on is touched.
                unsafe { asm!($($line,)+ "ud2", in("rdi") argument, options(noreturn)) }
            }
        )*
    };
}

offenders! {
    /// Divides by zero.
    divide: "xor ecx, ecx", "xor edx, edx", "div ecx";
    /// Divides by so little that the quotient does not fit.
    divide_too_much: "mov edx, 5", "xor eax, eax", "mov ecx, 2", "div ecx";
    /// Stops the processor.
    halt: "hlt";
    /// Executes an undefined instruction.
    undefined: "ud2";
    /// Hits a breakpoint.
    breakpoint: "int3";
    /// Uses SSE.
    sse: "movaps xmm0, xmm1";
    /// Uses the FPU.
    floating_point: "fld1";
    /// Uses MMX.
    multimedia: "movq mm0, mm1";
    /// Clears the interrupt flag and sets the privilege of port access; exits when neither was done.
    flags: "pushfq", "or qword ptr [rsp], 0x3000", "and qword ptr [rsp], ~0x200", "popfq", "pushfq", "pop rax", "and eax, 0x3200", "cmp eax, 0x200", "jne 2f", "mov eax, 6", "mov edi, 0x55", "syscall", "2:";
    /// Counts, for ever: at its argument, two instructions a turn.
    turns: "2:", "inc dword ptr [rdi]", "jmp 2b";
    /// Does nothing, for ever.
    spin: "2:", "jmp 2b";
    /// Makes the cheapest call for ever.
    call_for_ever: "2:", "xor eax, eax", "syscall", "jmp 2b";
    /// Yields for ever.
    yield_for_ever: "2:", "mov eax, 5", "syscall", "jmp 2b";
    /// Makes calls that there are not, for ever.
    bad_call_for_ever: "2:", "mov eax, 0x7fffffff", "syscall", "jmp 2b";
    /// Jumps to its argument.
    jump: "jmp rdi";
    /// Reads at its argument.
    read: "mov rax, [rdi]";
    /// Writes at its argument.
    write: "mov qword ptr [rdi], 1";
    /// Pushes onto a stack that is not canonical.
    bad_stack: "mov rsp, 0x8000000000000000", "push rax";
    /// Makes a call with a stack pointer into the kernel, then uses the stack.
    kernel_stack: "mov rsp, 0xffffffff80130000", "xor eax, eax", "syscall", "push rax";
    /// Pushes for ever.
    overflow: "2:", "push rax", "jmp 2b";
    /// Traces its own steps.
    single_step: "pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop";
    /// Traces the step into the kernel.
    step_into_kernel: "pushfq", "or qword ptr [rsp], 0x100", "xor eax, eax", "popfq", "syscall", "nop";
    /// Claims to be a nested task.
    nested_task: "pushfq", "or qword ptr [rsp], 0x4000", "popfq", "mov eax, 5", "syscall", "div eax", "mov eax, [0]";
    /// Uses misaligned access checks.
    alignment: "pushfq", "or qword ptr [rsp], 0x40000", "popfq", "xor eax, eax", "syscall", "int3";
}

global_asm!(
    // Position-independent code for other spaces. Each calls the portal at selector 64.
    ".section .rodata.blobs, \"a\"",
    ".global blob_caller",
    ".global blob_caller_end",
    "blob_caller:",
    "    mov rsi, rdi",
    "2:  mov eax, 2",
    "    mov edi, 64",
    "    syscall",
    "    test eax, eax",
    "    jz 2b",
    "    mov edi, eax",
    "    mov eax, 6",
    "    syscall",
    "    ud2",
    "blob_caller_end:",
    ".global blob_spinner",
    ".global blob_spinner_end",
    "blob_spinner:",
    "    pause",
    "    jmp blob_spinner",
    "blob_spinner_end:",
    ".global blob_guest",
    ".global blob_guest_end",
    // A guest in real mode: exits one after the other.
    ".code16",
    "blob_guest:",
    "    mov ax, 0x1234",
    "    cpuid",
    "    mov bx, [0x3000]",
    "    mov word ptr [0x4008], bx",
    "    out 0x99, al",
    "    vmmcall",
    "    hlt",
    "2:  inc cx",
    "    jmp 2b",
    "blob_guest_end:",
    ".global blob_copier",
    ".global blob_copier_end",
    "blob_copier:",
    "    mov ax, [0x3000]",
    "    mov [0x2000], ax",
    "    inc word ptr [0x2002]",
    "    jmp blob_copier",
    ".code64",
    "blob_copier_end:",
    ".global blob_turns",
    ".global blob_turns_end",
    ".code16",
    "blob_turns:",
    "    inc dword ptr [0x2000]",
    "    jmp blob_turns",
    ".code64",
    "blob_turns_end:",
    ".global blob_walker",
    ".global blob_walker_end",
    ".code16",
    "blob_walker:",
    "    xor ecx, ecx",
    "2:  mov esi, ecx",
    "    shl esi, 12",
    "    mov eax, fs:[esi]",
    "    cmp eax, ecx",
    "    je 3f",
    "    mov [0x2008], eax",
    "    mov [0x200c], ecx",
    "    inc dword ptr [0x2004]",
    "3:  inc dword ptr [0x2000]",
    "    inc ecx",
    "    cmp ecx, 24",
    "    jb 2b",
    "    jmp blob_walker",
    ".code64",
    "blob_walker_end:",
    ".global blob_driver",
    ".global blob_driver_end",
    ".code16",
    "blob_driver:",
    "    mov ax, [0x3000]",
    "    mov [0x4008], al",
    "    mov [0x400a], ax",
    "    movzx eax, ax",
    "    mov [0x400c], eax",
    "    mov ebx, [0x4008]",
    "    mov [0x4010], ebx",
    "    movzx cx, byte ptr [0x4008]",
    "    mov [0x4ffe], cx",
    "    mov dx, [0x4fff]",
    "    add word ptr [0x4020], ax",
    "    mov si, 0x4024",
    "    mov di, 0x2000",
    "    rep movsb",
    "    mov si, 0x2000",
    "    mov di, 0x4028",
    "    movsw",
    "    mov sp, 0x2800",
    "    push word ptr [0x402c]",
    "    cmp word ptr [0x4030], 5",
    "    lock inc word ptr [0x4034]",
    "    mov bx, 0x4000",
    "    jmp bx",
    "    hlt",
    ".code64",
    "blob_driver_end:",
    ".text",
);

unsafe extern "C" {
    static blob_caller: u8;
    static blob_caller_end: u8;
    static blob_spinner: u8;
    static blob_spinner_end: u8;
    static blob_guest: u8;
    static blob_guest_end: u8;
    static blob_copier: u8;
    static blob_copier_end: u8;
    static blob_turns: u8;
    static blob_turns_end: u8;
    static blob_walker: u8;
    static blob_walker_end: u8;
    static blob_driver: u8;
    static blob_driver_end: u8;
}

/// Code for other spaces.
#[derive(Clone, Copy)]
pub enum Blob {
    /// Calls the portal at selector 64 until it refuses.
    Caller,
    /// Does nothing, for ever.
    Spinner,
    /// A real-mode guest.
    Guest,
    /// A real-mode guest that copies a word from 0x3000 to 0x2000 for ever, and counts at 0x2002.
    Copier,
    /// A real-mode guest that counts at 0x2000, two instructions a turn, as [`turns`] does.
    Turns,
    /// A real-mode guest that reads the first word of each of 24 pages from FS:0 on, for ever; each should hold its number. It
    /// counts at 0x2000, those that don't at 0x2004, and notes the last one of them behind that.
    Walker,
    /// A real-mode guest that uses the registers at 0x4000 as drivers do, then as none should, and halts.
    Driver,
}

impl Blob {
    /// Its machine code.
    pub fn code(self) -> &'static [u8] {
        let (start, end) = match self {
            Blob::Caller => (&raw const blob_caller, &raw const blob_caller_end),
            Blob::Spinner => (&raw const blob_spinner, &raw const blob_spinner_end),
            Blob::Guest => (&raw const blob_guest, &raw const blob_guest_end),
            Blob::Copier => (&raw const blob_copier, &raw const blob_copier_end),
            Blob::Turns => (&raw const blob_turns, &raw const blob_turns_end),
            Blob::Walker => (&raw const blob_walker, &raw const blob_walker_end),
            Blob::Driver => (&raw const blob_driver, &raw const blob_driver_end),
        };
        // SAFETY: the two labels enclose constant bytes of this program.
        unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) }
    }
}
