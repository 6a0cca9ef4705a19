# Ways into and out of the kernel. The symbols F_* (offsets in Frame) and L_* (offsets in Local,
# reached by GS) come from entry.rs.

.text

# Runs the thread whose frame rdi points to. Called: the address to come back to is on the stack.
# All registers but the stack pointer are lost; rax is the vector that brought the thread back, or
# 256 for SYSCALL: then rsi is the number of the call, rdi its first argument.
.balign 16
enter_user:
    mov gs:[{L_STACK}], rsp
    mov gs:[{L_FRAME}], rdi
    mov rsi, [rdi + 8]
    mov rdx, [rdi + 16]
    mov r10, [rdi + 24]
    mov r8,  [rdi + 32]
    mov r9,  [rdi + 40]
    mov r12, [rdi + 48]
    mov r13, [rdi + 56]
    mov r14, [rdi + 64]
    mov r15, [rdi + 72]
    mov rax, [rdi + {F_RAX}]
    mov rbx, [rdi + {F_RBX}]
    mov rbp, [rdi + {F_RBP}]
    cmp qword ptr [rdi + {F_FAST}], 0
    je 2f
    mov rcx, [rdi + {F_RIP}]
    mov r11, [rdi + {F_RFLAGS}]
    mov rsp, [rdi + {F_RSP}]
    mov rdi, [rdi]
    swapgs
    sysretq
2:  mov rcx, [rdi + {F_RCX}]
    mov r11, [rdi + {F_R11}]
    lea rsp, [rdi + {F_RIP}]
    mov rdi, [rdi]
    swapgs
    iretq

# As enter_user, for a thread that made a kernel call which now delivers a message: r15 points to
# its frame, r11 to the frame that the message words come from, which need not be there any more
# once the lock is free: the byte that rcx points to. rdi and rax are the program's already.
.balign 16
enter_user_with_message:
    mov gs:[{L_STACK}], rsp
    mov gs:[{L_FRAME}], r15
    mov rsi, [r11 + 8]
    mov rdx, [r11 + 16]
    mov r10, [r11 + 24]
    mov r8,  [r11 + 32]
    mov r9,  [r11 + 40]
    mov r12, [r11 + 48]
    mov r13, [r11 + 56]
    mov r14, [r11 + 64]
    mov byte ptr [rcx], 0
    mov rbx, [r15 + {F_RBX}]
    mov rbp, [r15 + {F_RBP}]
    mov rcx, [r15 + {F_RIP}]
    mov r11, [r15 + {F_RFLAGS}]
    mov rsp, [r15 + {F_RSP}]
    mov r15, [r15 + 72]
    swapgs
    sysretq

# SYSCALL: rcx = rip, r11 = rflags; interrupts are off by SFMASK. The null call (number 0, status 0)
# needs nothing of the kernel's state; it goes the long way only when it is traced.
.balign 16
syscall_entry:
    swapgs
    test rax, rax
    jnz 2f
    cmp qword ptr gs:[{L_TRACE}], 0
    jne 2f
    inc qword ptr gs:[{L_NULLS}]
    swapgs
    sysretq
2:  mov gs:[{L_SCRATCH}], rsp
    mov rsp, gs:[{L_FRAME}]
    mov [rsp], rdi
    mov [rsp + 8], rsi
    mov [rsp + 16], rdx
    mov [rsp + 24], r10
    mov [rsp + 32], r8
    mov [rsp + 40], r9
    mov [rsp + 48], r12
    mov [rsp + 56], r13
    mov [rsp + 64], r14
    mov [rsp + 72], r15
    mov [rsp + {F_RAX}], rax
    mov [rsp + {F_RBX}], rbx
    mov [rsp + {F_RBP}], rbp
    mov [rsp + {F_RIP}], rcx
    mov [rsp + {F_RFLAGS}], r11
    mov rsi, rax
    mov rax, gs:[{L_SCRATCH}]
    mov [rsp + {F_RSP}], rax
    mov qword ptr [rsp + {F_FAST}], 1
    mov eax, 256
back_in_kernel:
    mov rsp, gs:[{L_STACK}]
    ret

# Interrupts and exceptions: on the stack are vector, error code, rip, cs, rflags, rsp, ss.
.balign 16
trap_common:
    cld
    test byte ptr [rsp + 24], 3
    jz trap_in_kernel
    swapgs
    push rdi
    mov rdi, gs:[{L_FRAME}]
    mov [rdi + 8], rsi
    mov [rdi + 16], rdx
    mov [rdi + 24], r10
    mov [rdi + 32], r8
    mov [rdi + 40], r9
    mov [rdi + 48], r12
    mov [rdi + 56], r13
    mov [rdi + 64], r14
    mov [rdi + 72], r15
    mov [rdi + {F_RAX}], rax
    mov [rdi + {F_RCX}], rcx
    mov [rdi + {F_R11}], r11
    mov [rdi + {F_RBX}], rbx
    mov [rdi + {F_RBP}], rbp
    pop qword ptr [rdi]
    pop rax
    pop qword ptr [rdi + {F_ERROR}]
    pop qword ptr [rdi + {F_RIP}]
    pop qword ptr [rdi + {F_CS}]
    pop qword ptr [rdi + {F_RFLAGS}]
    pop qword ptr [rdi + {F_RSP}]
    pop qword ptr [rdi + {F_SS}]
    mov qword ptr [rdi + {F_FAST}], 0
    jmp back_in_kernel

# The kernel lets interrupts in only while it idles or has just left a guest: note the vector.
trap_in_kernel:
    cmp qword ptr [rsp], 32
    jb 3f
    push rax
    mov rax, [rsp + 8]
    lock bts qword ptr gs:[{L_PENDING}], rax
    pop rax
    add rsp, 16
    iretq
3:  mov rdi, [rsp]
    mov rsi, [rsp + 8]
    mov rdx, [rsp + 16]
    mov rcx, [rsp + 40]
    and rsp, -16
    call kernel_exception
    ud2

# A non-maskable interrupt is how a panicking processor stops the others.
.balign 16
stop_entry:
    cli
    hlt
    jmp stop_entry

# One entry of 16 bytes per vector.
.balign 16
vector_entries:
.irp high, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
.irp low, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    .balign 16
    .if (\high * 16 + \low != 8) && (\high * 16 + \low < 10 || \high * 16 + \low > 14) && (\high * 16 + \low != 17) && (\high * 16 + \low != 21) && (\high * 16 + \low != 29) && (\high * 16 + \low != 30)
    push 0
    .endif
    push \high * 16 + \low
    jmp trap_common
.endr
.endr
