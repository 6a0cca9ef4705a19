//! What programs must not do: each function is the body of a thread that the kernel must end. Also
//! code that is copied into other spaces.
use core::arch::{asm, global_asm};

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
    /// Stops the processor.
    halt: "hlt";
    /// Turns interrupts off.
    disable_interrupts: "cli";
    /// Reads a port.
    read_port: "in al, 0x60";
    /// Writes a port.
    write_port: "out 0xf4, al";
    /// Loads a page-table root.
    load_root: "xor eax, eax", "mov cr3, rax";
    /// Reads a control register.
    read_control: "mov rax, cr0";
    /// Writes a model-specific register.
    write_register: "mov ecx, 0xc0000080", "xor eax, eax", "xor edx, edx", "wrmsr";
    /// Loads an interrupt table.
    load_table: "sub rsp, 16", "lidt [rsp]";
    /// Loads a descriptor table.
    load_descriptors: "sub rsp, 16", "lgdt [rsp]";
    /// Loads the task register.
    load_task: "mov eax, 0x28", "ltr ax";
    /// Turns interrupts on.
    enable_interrupts: "sti";
    /// Reads a model-specific register.
    read_register: "mov ecx, 0xc0000080", "rdmsr";
    /// Swaps the kernel's base of GS in.
    swap_base: "swapgs";
    /// Returns to user mode as the kernel does.
    return_to_user: "sysretq";
    /// Throws a translation away.
    forget_page: "invlpg [rsp]";
    /// Empties the caches.
    flush_caches: "wbinvd";
    /// Clears the flag of a task switch.
    clear_task_switched: "clts";
    /// Writes a debug register.
    write_debug: "xor eax, eax", "mov dr7, rax";
    /// Executes an undefined instruction.
    undefined: "ud2";
    /// Raises a software interrupt.
    software_interrupt: "int 0x80";
    /// Calls the page-fault handler by hand.
    fake_fault: "int 14";
    /// Hits a breakpoint.
    breakpoint: "int3";
    /// Uses SSE.
    sse: "movaps xmm0, xmm1";
    /// Uses the FPU.
    floating_point: "fld1";
    /// Enters by SYSENTER.
    sysenter: "sysenter";
    /// Runs a guest of its own.
    run_guest: "xor eax, eax", "vmrun rax";
    /// Calls a hypervisor.
    hypercall: "vmmcall";
    /// Returns to the kernel's code segment.
    fake_return: "push 0x10", "push rsp", "pushfq", "push 0x08", "lea rax, [rip]", "push rax", "iretq";
    /// Loads the kernel's data segment.
    kernel_segment: "mov eax, 0x10", "mov ss, eax";
    /// Jumps to an address that is not canonical.
    jump_nowhere: "mov rax, 0x8000000000000000", "jmp rax";
    /// Jumps into the kernel.
    jump_kernel: "mov rax, 0xffffffff80101000", "jmp rax";
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
}

impl Blob {
    /// Its machine code.
    pub fn code(self) -> &'static [u8] {
        let (start, end) = match self {
            Blob::Caller => (&raw const blob_caller, &raw const blob_caller_end),
            Blob::Spinner => (&raw const blob_spinner, &raw const blob_spinner_end),
            Blob::Guest => (&raw const blob_guest, &raw const blob_guest_end),
            Blob::Copier => (&raw const blob_copier, &raw const blob_copier_end),
        };
        // SAFETY: the two labels enclose constant bytes of this program.
        unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) }
    }
}
