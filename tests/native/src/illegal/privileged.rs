//! Instructions that are the kernel's alone, one function each.
use super::Body;
use core::arch::asm;

/// What the processor says to an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Objection {
    /// General protection.
    Protection,
    /// Invalid instruction.
    Undefined,
    /// General protection; or a page fault, where the emulator reads the stack for the kernel.
    Return,
    /// One of the first two: it depends on what the processor has.
    Either,
}

macro_rules! privileged {
    ($($name:ident $text:literal $objection:ident: $($line:literal),+;)*) => {
        $(
            extern "C" fn $name(argument: u64) -> ! {
                // SAFETY: the thread ends here: by the instruction, or else, when it was carried out,
                // by a division by zero. Nothing of this program is touched but the thread's stack.
                unsafe {
                    asm!($($line,)+ "xor edx, edx", "xor ecx, ecx", "div ecx",
                         in("rdi") argument, options(noreturn))
                }
            }
        )*
        /// Name, body, and how each ends. If one is carried out after all, it ends by a division by zero.
        pub const PRIVILEGED: &[(&str, Body, Objection)] =
            &[$(($text, $name, Objection::$objection)),*];
    };
}

privileged! {
    hlt "hlt" Protection: "hlt";
    cli "cli" Protection: "cli";
    sti "sti" Protection: "sti";
    lgdt "lgdt" Protection: "sub rsp, 16", "lgdt [rsp]";
    lidt "lidt" Protection: "sub rsp, 16", "lidt [rsp]";
    lldt "lldt" Protection: "xor eax, eax", "lldt ax";
    ltr "ltr" Protection: "mov eax, 0x28", "ltr ax";
    lmsw "lmsw" Protection: "xor eax, eax", "lmsw ax";
    clts "clts" Protection: "clts";
    read_cr0 "mov from cr0" Protection: "mov rax, cr0";
    read_cr2 "mov from cr2" Protection: "mov rax, cr2";
    read_cr3 "mov from cr3" Protection: "mov rax, cr3";
    read_cr4 "mov from cr4" Protection: "mov rax, cr4";
    read_cr8 "mov from cr8" Protection: "mov rax, cr8";
    write_cr0 "mov to cr0" Protection: "xor eax, eax", "mov cr0, rax";
    write_cr2 "mov to cr2" Protection: "xor eax, eax", "mov cr2, rax";
    write_cr3 "mov to cr3" Protection: "xor eax, eax", "mov cr3, rax";
    write_cr4 "mov to cr4" Protection: "xor eax, eax", "mov cr4, rax";
    write_cr8 "mov to cr8" Protection: "xor eax, eax", "mov cr8, rax";
    read_dr0 "mov from dr0" Protection: "mov rax, dr0";
    read_dr7 "mov from dr7" Protection: "mov rax, dr7";
    write_dr0 "mov to dr0" Protection: "xor eax, eax", "mov dr0, rax";
    write_dr7 "mov to dr7" Protection: "xor eax, eax", "mov dr7, rax";
    rdpmc "rdpmc" Protection: "xor ecx, ecx", "rdpmc";
    swapgs "swapgs" Protection: "swapgs";
    sysret "sysretq" Protection: "sysretq";
    sysexit "sysexit" Either: "sysexit";
    sysenter "sysenter" Either: "sysenter";
    invlpg "invlpg" Protection: "invlpg [rsp]";
    invpcid "invpcid" Either: "xor eax, eax", "sub rsp, 16", "invpcid rax, [rsp]";
    invd "invd" Protection: "invd";
    wbinvd "wbinvd" Protection: "wbinvd";
    xsetbv "xsetbv" Either: "xor ecx, ecx", "xor eax, eax", "xor edx, edx", "xsetbv";
    monitor "monitor" Either: "mov rax, rsp", "xor ecx, ecx", "xor edx, edx", ".byte 0x0f, 0x01, 0xc8";
    mwait "mwait" Either: "xor eax, eax", "xor ecx, ecx", ".byte 0x0f, 0x01, 0xc9";
    stac "stac" Undefined: "stac";
    clac "clac" Undefined: "clac";
    rsm "rsm" Either: "rsm";
    vmrun "vmrun" Either: "xor eax, eax", "vmrun rax";
    vmload "vmload" Either: "xor eax, eax", "vmload rax";
    vmsave "vmsave" Either: "xor eax, eax", "vmsave rax";
    stgi "stgi" Either: "stgi";
    clgi "clgi" Either: "clgi";
    skinit "skinit" Either: "xor eax, eax", "skinit eax";
    invlpga "invlpga" Either: "xor eax, eax", "xor ecx, ecx", "invlpga rax, ecx";
    vmmcall "vmmcall" Undefined: "vmmcall";
    vmcall "vmcall (Intel)" Undefined: "vmcall";
    vmxon "vmxon (Intel)" Undefined: "sub rsp, 16", "vmxon [rsp]";
    iret_to_kernel "iret to ring 0" Return: "push 0x10", "push rsp", "pushfq", "push 0x08", "lea rax, [rip]", "push rax", "iretq";
    far_return "far return to ring 0" Return: "push 0x08", "lea rax, [rip]", "push rax", ".byte 0x48, 0xcb";
    far_jump "far jump to the kernel's code segment" Protection: "sub rsp, 16", "lea rax, [rip]", "mov [rsp], eax", "mov dword ptr [rsp + 4], 0x08", ".byte 0xff, 0x2c, 0x24";
    far_call "far call to the kernel's code segment" Protection: "sub rsp, 16", "lea rax, [rip]", "mov [rsp], eax", "mov dword ptr [rsp + 4], 0x08", ".byte 0xff, 0x1c, 0x24";
    far_task "far jump to the task segment" Protection: "sub rsp, 16", "mov dword ptr [rsp], 0", "mov dword ptr [rsp + 4], 0x2b", ".byte 0xff, 0x2c, 0x24";
    load_ss "mov to ss: the kernel's data segment" Protection: "mov eax, 0x10", "mov ss, eax";
    load_ds "mov to ds: the kernel's data segment" Protection: "mov eax, 0x10", "mov ds, eax";
    load_gs "mov to gs: beyond the descriptor table" Protection: "mov eax, 0xfff8", "mov gs, eax";
}

macro_rules! with_argument {
    ($($(#[$doc:meta])* $name:ident: $($line:literal),+;)*) => {
        $(
            $(#[$doc])*
            pub extern "C" fn $name(argument: u64) -> ! {
                // SAFETY: as above.
                unsafe {
                    asm!($($line,)+ "xor edx, edx", "xor ecx, ecx", "div ecx",
                         in("rdi") argument, options(noreturn))
                }
            }
        )*
    };
}

with_argument! {
    /// Reads a byte from the port that is the argument.
    in_byte: "mov edx, edi", "in al, dx";
    /// Reads two bytes.
    in_word: "mov edx, edi", "in ax, dx";
    /// Reads four bytes.
    in_long: "mov edx, edi", "in eax, dx";
    /// Reads a byte to memory.
    in_string: "mov edx, edi", "mov rdi, rsp", "insb";
    /// Writes a byte to the port that is the argument.
    out_byte: "mov edx, edi", "out dx, al";
    /// Writes two bytes.
    out_word: "mov edx, edi", "out dx, ax";
    /// Writes four bytes.
    out_long: "mov edx, edi", "out dx, eax";
    /// Writes bytes from memory.
    out_string: "mov edx, edi", "mov rsi, rsp", "mov ecx, 2", "rep outsb";
    /// Reads from a port that the instruction names.
    in_fixed: "in al, 0x60";
    /// Writes to a port that the instruction names: the one that ends the machine.
    out_fixed: "out 0xf4, al";
    /// Reads the model-specific register that is the argument.
    read_msr: "mov ecx, edi", "rdmsr";
    /// Writes it.
    write_msr: "mov ecx, edi", "xor eax, eax", "xor edx, edx", "wrmsr";
}
