# Entry points of the image. Runs at physical addresses with paging off until `boot_long`.

.set KERNEL, 0xffffffff80000000
.set PVH, 0
.set MULTIBOOT, 1

# Multiboot2 specification, section 3.1: header with an entry-address tag.
.section .boot.header, "a"
.balign 8
multiboot_header:
    .long 0xe85250d6
    .long 0
    .long multiboot_end - multiboot_header
    .long 0x100000000 - (0xe85250d6 + (multiboot_end - multiboot_header))
    # entry address
    .short 3, 0
    .long 12
    .long multiboot_entry
    .balign 8
    # modules page-aligned
    .short 6, 0
    .long 8
    # end
    .short 0, 0
    .long 8
multiboot_end:

# Xen's PHYS32_ENTRY note (type 18): where QEMU's -kernel enters a 64-bit ELF image.
.section .note.pvh, "a", @note
.balign 4
    .long 4
    .long 8
    .long 18
    .asciz "Xen"
    .quad pvh_entry

.section .boot.text, "ax"
.code32
.global pvh_entry
pvh_entry:
    movl $PVH, %edi
    jmp boot_common
multiboot_entry:
    movl $MULTIBOOT, %edi
boot_common:
    cli
    cld
    movl %ebx, %esi
    # Page directories: 4 GiB in pages of 2 MiB.
    movl $(boot_directories - KERNEL), %ebx
    xorl %ecx, %ecx
1:  movl %ecx, %eax
    shll $21, %eax
    orl $0x83, %eax
    movl %eax, (%ebx,%ecx,8)
    movl $0, 4(%ebx,%ecx,8)
    incl %ecx
    cmpl $2048, %ecx
    jne 1b
    # Page-directory pointers: low 4 GiB, and the kernel's 1 GiB at -2 GiB.
    movl $(boot_pointers - KERNEL), %eax
    movl %ebx, %edx
    orl $3, %edx
    movl %edx, (%eax)
    addl $4096, %edx
    movl %edx, 8(%eax)
    addl $4096, %edx
    movl %edx, 16(%eax)
    addl $4096, %edx
    movl %edx, 24(%eax)
    movl $(boot_pointers_high - KERNEL), %ecx
    movl %ebx, %edx
    orl $3, %edx
    movl %edx, 510*8(%ecx)
    # Root: identity (slot 0), direct map (slot 256), kernel (slot 511).
    movl $(boot_root - KERNEL), %ebx
    orl $3, %eax
    movl %eax, (%ebx)
    movl %eax, 256*8(%ebx)
    orl $3, %ecx
    movl %ecx, 511*8(%ebx)
    call enter_long
    lgdt boot_gdt_pointer
    ljmpl $0x08, $boot_64

# Turns paging and long mode on: PSE (which long mode does not look at, but guests have it: an emulator
# drops all translations once more where guest and host differ in it), PAE, PGE; LME, NXE, SCE; PG, WP, NE, MP, PE.
enter_long:
    movl $(boot_root - KERNEL), %eax
    movl %eax, %cr3
    movl $0xb0, %eax
    movl %eax, %cr4
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x901, %eax
    wrmsr
    movl $0x80010033, %eax
    movl %eax, %cr0
    ret

.balign 8
.global boot_gdt
boot_gdt:
    .quad 0
    .quad 0x00af9a000000ffff
    .quad 0x00cf92000000ffff
    .quad 0x00cf9a000000ffff
boot_gdt_pointer:
    .short 31
    .long boot_gdt

.code64
boot_64:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movl %edi, %edi
    movl %esi, %esi
    movabsq $boot_high, %rax
    jmp *%rax

.text
boot_high:
    movq $boot_stack_top, %rsp
    xorl %ebp, %ebp
    call boot_processor
    ud2

# Where a started processor begins, in real mode: copied to AP_START (a page below 1 MiB).
.set AP_START, 0x8000
.section .rodata.trampoline, "a"
.global trampoline_start
.global trampoline_end
.code16
trampoline_start:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl (trampoline_gdt_pointer - trampoline_start + AP_START)
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x18, $(trampoline_32 - trampoline_start + AP_START)
.code32
trampoline_32:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $(boot_root - KERNEL), %eax
    movl %eax, %cr3
    movl $0xb0, %eax
    movl %eax, %cr4
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x901, %eax
    wrmsr
    movl $0x80010033, %eax
    movl %eax, %cr0
    ljmpl $0x08, $(trampoline_64 - trampoline_start + AP_START)
.code64
trampoline_64:
    movabsq $trampoline_high, %rax
    jmp *%rax
.balign 8
trampoline_gdt:
    .quad 0
    .quad 0x00af9a000000ffff
    .quad 0x00cf92000000ffff
    .quad 0x00cf9a000000ffff
trampoline_gdt_pointer:
    .short 31
    .long trampoline_gdt - trampoline_start + AP_START
trampoline_end:

.text
trampoline_high:
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movq started_root(%rip), %rax
    movq %rax, %cr3
    movq started_stack(%rip), %rsp
    xorl %ebp, %ebp
    call started_processor
    ud2

.section .bss.boot, "aw", @nobits
.balign 4096
boot_root: .skip 4096
boot_pointers: .skip 4096
boot_pointers_high: .skip 4096
boot_directories: .skip 4*4096
# Not mapped later on, so that an overflowing stack is noticed.
.global boot_guard
boot_guard: .skip 4096
boot_stack: .skip 32768
boot_stack_top:
