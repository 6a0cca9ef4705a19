/* A malicious kernel module, for the scenario `malware_in_the_kernel`: it does what root in the compute
   VM may do to get at trusted programs, at the hypervisor and at the network. What it is asked for
   comes by `write` to /proc/malice, and the answer is that of `write`: negative, or a number. */
#include <asm/asm.h>
#include <asm/io.h>
#include <asm/msr.h>
#include <asm/processor.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/random.h>
#include <linux/sched/mm.h>
#include <linux/sched/task_stack.h>
#include <linux/uaccess.h>
#include "malice.h"

MODULE_LICENSE("GPL");

typedef unsigned long word;

#define ENTRIES 512
#define HALF 256
#define TABLE_RIGHTS (_PAGE_PRESENT | _PAGE_RW | _PAGE_USER | _PAGE_ACCESSED | _PAGE_DIRTY)
#define FRAME 0x000ffffffffff000UL

static word read_root(void) {
    word root;
    asm volatile("mov %%cr3, %0" : "=r"(root));
    return root & FRAME;
}

static void load_root(word root) { asm volatile("mov %0, %%cr3" ::"r"(root) : "memory"); }

static struct mm_struct *memory_of(unsigned int pid) {
    struct pid *found = find_get_pid(pid);
    struct task_struct *task = found ? get_pid_task(found, PIDTYPE_PID) : NULL;
    struct mm_struct *mm = task ? get_task_mm(task) : NULL;
    if (task) put_task_struct(task);
    put_pid(found);
    return mm;
}

/* ----- pages of another process ----- */

/* The entry that maps a page; a large page is divided first. */
static word *entry_of(word *table, word address) {
    for (int shift = 39; shift > 12; shift -= 9) {
        word *entry = &table[address >> shift & (ENTRIES - 1)];
        if (!(*entry & _PAGE_PRESENT)) return NULL;
        if (*entry & _PAGE_PSE) {
            word *small = (word *)get_zeroed_page(GFP_KERNEL), first = *entry & ~_PAGE_PSE;
            if (shift != 21 || !small) return NULL;
            for (word n = 0; n < ENTRIES; n++) small[n] = first + n * PAGE_SIZE;
            *entry = __pa(small) | TABLE_RIGHTS;
        }
        table = __va(*entry & FRAME);
    }
    return &table[address >> 12 & (ENTRIES - 1)];
}

/* A store that may fault. */
static int store(volatile unsigned char *at, unsigned char value) {
    int failed = 0;
    asm volatile("1: movb %2, %1\n2:\n"
                 _ASM_EXTABLE_TYPE_REG(1b, 2b, EX_TYPE_EFAULT_REG, %0)
                 : "+r"(failed), "=m"(*at) : "q"(value));
    return failed;
}

static long write_text(word *entry) {
    word physical = *entry & FRAME & ~_PAGE_NX;
    unsigned char *direct = __va(physical), *own = memremap(physical, PAGE_SIZE, MEMREMAP_WB);
    long changed = 0;
    for (int n = 0; n < 64; n++) {
        unsigned char before = direct[n * 61];
        store(&direct[n * 61], ~before);
        if (own) store(&own[n * 61], ~before);
        changed += direct[n * 61] != before;
    }
    if (own) memunmap(own);
    return changed;
}

static word swapped_entry;

static long swap_page(word *entry) {
    unsigned char *copy = (unsigned char *)get_zeroed_page(GFP_KERNEL);
    if (!copy || swapped_entry) return -EBUSY;
    memcpy(copy, __va(*entry & FRAME), PAGE_SIZE);
    /* The process may end with it. */
    get_page(virt_to_page(copy));
    /* Nobody executes the very beginning of the file behind its header. */
    copy[PAGE_SIZE - 1] ^= 0xff;
    swapped_entry = *entry;
    *entry = (*entry & ~FRAME) | __pa(copy);
    return 0;
}

static long change_page(const struct request *request) {
    struct mm_struct *mm = memory_of(request->pid);
    word *entry = mm ? entry_of((word *)mm->pgd, request->a) : NULL;
    long result = -ESRCH;
    if (entry && (*entry & _PAGE_PRESENT)) {
        switch (request->what) {
        case WRITE_TEXT: result = write_text(entry); break;
        case SWAP_PAGE: result = swap_page(entry); break;
        case REMAP:
            swapped_entry = *entry;
            *entry = *(word *)request->code | TABLE_RIGHTS;
            result = 0;
            break;
        default:
            *entry = swapped_entry;
            swapped_entry = 0;
            result = 0;
        }
    }
    if (!mm && request->what == PUT_BACK) swapped_entry = 0;
    load_root(read_root());
    if (mm) mmput(mm);
    return result;
}

/* ----- code in another's address space ----- */

static struct {
    word own[HALF], other[HALF];
    struct pt_regs regs;
    struct mm_struct *mm;
    unsigned char *page;
    pgd_t *pgd;
} ride;

/* Tables that map the page with the code, for one entry of a top-level table. */
static word tables_for(unsigned char *page) {
    static word *levels[3];
    word below = __pa(page);
    for (int n = 0; n < 3; n++) {
        if (!levels[n]) levels[n] = (word *)get_zeroed_page(GFP_KERNEL);
        if (!levels[n]) return 0;
        levels[n][0] = below | TABLE_RIGHTS;
        below = __pa(levels[n]);
    }
    return below | TABLE_RIGHTS;
}

static long start_ride(const struct request *request) {
    struct pt_regs *regs = task_pt_regs(current);
    word *own = (word *)current->mm->pgd, *root = own, *other, slot;
    struct mm_struct *mm = request->a == OWN ? NULL : memory_of(request->pid);
    if (!ride.page) ride.page = (unsigned char *)get_zeroed_page(GFP_KERNEL);
    if (!ride.page || !(slot = tables_for(ride.page))) return -ENOMEM;
    if (!mm && request->a != OWN) return -ESRCH;
    memcpy(ride.page, request->code, sizeof request->code);
    ((struct request *)(ride.page + RIDE_DONE))->what = DONE;
    other = mm ? (word *)mm->pgd : NULL;
    memcpy(ride.own, own, sizeof ride.own);
    if (other) memcpy(ride.other, other, sizeof ride.other);
    ride.mm = mm;
    ride.pgd = current->mm->pgd;
    if (request->a == OWN) {
        /* Never given back: each ride has another root. */
        root = (word *)get_zeroed_page(GFP_KERNEL);
        if (!root) return -ENOMEM;
        memcpy(root, own, PAGE_SIZE);
    } else if (request->a == COPY) {
        memcpy(own, ride.other, sizeof ride.other);
    } else if (request->a == REUSE) {
        memcpy(root = other, ride.own, sizeof ride.own);
    } else {
        root = other;
    }
    root[RIDE_AT >> 39] = slot;
    current->mm->pgd = (pgd_t *)root;
    ride.regs = *regs;
    regs->ip = RIDE_AT;
    load_root(__pa(root));
    return 0;
}

static long end_ride(const struct request *request) {
    struct pt_regs *regs = task_pt_regs(current);
    if (!ride.pgd) return -EINVAL;
    memcpy(ride.pgd, ride.own, sizeof ride.own);
    if (ride.mm) {
        memcpy(ride.mm->pgd, ride.other, sizeof ride.other);
        mmput(ride.mm);
    }
    current->mm->pgd = ride.pgd;
    load_root(__pa(ride.pgd));
    ride.pgd = NULL;
    *regs = ride.regs;
    return request->a;
}

/* ----- the hypervisor ----- */

static word hypercall(word number, word a, word b, word c) {
    asm volatile("1: vmmcall\n2:\n" _ASM_EXTABLE(1b, 2b) : "+a"(number), "+D"(a), "+S"(b), "+d"(c)::"memory");
    return number;
}

/* Answers how many of them had an effect on RAX. */
static long hypercalls(void) {
    const word base = 0x5452415000000000UL;
    long answered = 0;
    for (int n = 0; n < 4096; n++) {
        word number = n < 1024 ? base + n / 16 : get_random_u64();
        answered += hypercall(number, get_random_u64(), n & 1 ? get_random_u64() : 0, n) != number;
    }
    return answered;
}

#define TRY(code) asm volatile("1: " code "\n2:\n" _ASM_EXTABLE(1b, 2b)::"a"(where), "c"(0) : "memory")

static long instructions(void) {
    word where = __get_free_page(GFP_KERNEL);
    if (!where) return -ENOMEM;
    where = __pa(where);
    TRY("vmrun %%rax");
    TRY("vmload %%rax");
    TRY("vmsave %%rax");
    TRY("stgi");
    TRY("clgi");
    TRY("skinit %%eax");
    TRY("invlpga %%rax, %%ecx");
    TRY("xsetbv");
    TRY("monitor");
    TRY("wbinvd");
    TRY("rdpmc");
    return 0;
}

/* Those that hold addresses or rights of the kernel itself only get their own value. */
static bool is_own(u32 msr) {
    return (msr >= MSR_EFER && msr <= MSR_TSC_AUX) || (msr >= 0x800 && msr < 0x900) || msr == MSR_IA32_APICBASE
           || msr == MSR_IA32_TSC_DEADLINE || (msr >= 0x4b564d00 && msr < 0x4b564d10) || msr == MSR_IA32_TSC
           || msr == 0x11 || msr == 0x12 || (msr >= MSR_IA32_SYSENTER_CS && msr <= MSR_IA32_SYSENTER_EIP);
}

static long registers(void) {
    static const u32 first[] = {0, 0xc0000000, 0xc0010000, 0x40000000, 0x4b564d00};
    u64 entry, value;
    word flags;
    long kept = 0;
    local_irq_save(flags);
    rdmsrl(MSR_LSTAR, entry);
    for (int n = 0; n < 64; n++) {
        wrmsrl_safe(MSR_LSTAR, n & 1 ? get_random_u64() : entry + n);
        if (!rdmsrl_safe(MSR_LSTAR, &value)) kept++;
    }
    wrmsrl(MSR_LSTAR, entry);
    rdmsrl(MSR_EFER, entry);
    /* Without NX the kernel's own tables are not valid. */
    for (int n = 0; n < 64; n++)
        if (n != _EFER_NX && !wrmsrl_safe(MSR_EFER, entry ^ BIT_ULL(n))) wrmsrl(MSR_EFER, entry);
    local_irq_restore(flags);
    for (int range = 0; range < ARRAY_SIZE(first); range++)
        for (u32 msr = first[range]; msr < first[range] + (range < 3 ? 0x2000 : 0x100); msr++) {
            int there = !rdmsrl_safe(msr, &value);
            if (there) wrmsrl_safe(msr, value);
            if (!is_own(msr)) wrmsrl_safe(msr, get_random_u64());
            if (there && !is_own(msr)) wrmsrl_safe(msr, value);
        }
    return kept;
}

#define STUB_AT 0xd0000000UL
#define STUB_LENGTH 0x200000UL

/* Answers how many pages hold something, and in the upper half how many could be changed. */
static long stub(void) {
    unsigned char *at = memremap(STUB_AT, STUB_LENGTH, MEMREMAP_WB);
    long full = 0, changed = 0;
    if (!at) return -ENOMEM;
    for (word page = 0; page < 32; page++) {
        unsigned char *byte = at + page * PAGE_SIZE, before = READ_ONCE(*byte);
        bool some = false;
        for (word n = 0; n < PAGE_SIZE; n += 8) some |= READ_ONCE(*(word *)(byte + n)) != 0;
        full += some && READ_ONCE(*(word *)byte) != ~0UL;
        store(byte, before ^ 0x5a);
        if (READ_ONCE(*byte) == before) continue;
        changed++;
        store(byte, before);
    }
    memunmap(at);
    return full | changed << 16;
}

static long show_stub(bool on) {
    static word *levels[3];
    word *root = (word *)current->mm->pgd, below = 0;
    for (int n = 0; n < 3; n++) {
        if (!levels[n]) levels[n] = (word *)get_zeroed_page(GFP_KERNEL);
        if (!levels[n]) return -ENOMEM;
        /* The page of code alone, and not to be written: a fetch or a store that no monitor carries out ends the VM. */
        levels[n][0] = n ? below | TABLE_RIGHTS : STUB_AT | (TABLE_RIGHTS & ~_PAGE_RW);
        below = __pa(levels[n]);
    }
    root[RIDE_AT >> 39] = on ? below | TABLE_RIGHTS : 0;
    load_root(read_root());
    return 0;
}

/* Where the stub is in the kernel's own addresses: a large page beside the kernel's image. */
static word stub_address(void) {
    word *table = __va(read_root());
    for (int n = 0; n < 2; n++) table = __va(table[n ? 510 : 511] & FRAME);
    for (word n = 0; n < ENTRIES; n++)
        if ((table[n] & _PAGE_PRESENT) && (table[n] & FRAME & ~(STUB_LENGTH - 1)) == STUB_AT)
            return 0xffffffff80000000UL + (n << 21);
    return 0;
}

/* As if the stub had looked at a call of this process. The kernel's own entry takes over, if anybody does:
   this call never returns. */
static long jump(const struct request *request) {
    static const unsigned char vmmcall[] = {0x0f, 0x01, 0xd9};
    static struct { word exit, number, a, b, c, back, stack; } now;
    const word *words = (const word *)request->code;
    struct pt_regs *regs = task_pt_regs(current);
    unsigned char *stub = (unsigned char *)stub_address();
    word at = 0;
    if (!stub) return -ENXIO;
    while (at < PAGE_SIZE && memcmp(stub + at, vmmcall, sizeof vmmcall)) at++;
    if (at == PAGE_SIZE) return -ENXIO;
    now.exit = (word)stub + at;
    now.number = words[0], now.a = words[1], now.b = words[2], now.c = words[3];
    now.back = regs->ip + words[4], now.stack = regs->sp;
    asm volatile("cli\n\tmov 0(%0), %%r12\n\tmov 8(%0), %%rax\n\tmov 16(%0), %%rdi\n\tmov 24(%0), %%rsi\n\t"
                 "mov 32(%0), %%rdx\n\tmov 40(%0), %%rcx\n\tmov $0x246, %%r11d\n\tmov 48(%0), %%rsp\n\t"
                 "xor %%r10d, %%r10d\n\txor %%r8d, %%r8d\n\txor %%r9d, %%r9d\n\tswapgs\n\tjmp *%%r12"
                 ::"b"(&now) : "memory");
    unreachable();
}

/* ----- a device ----- */

static u32 configuration(u32 function, u32 offset) {
    outl(0x80000000 | function << 8 | offset, 0xcf8);
    return inl(0xcfc);
}

enum { WINDOW = 0x2000, TABLE = 0x1000 };

/* Virtio's device of that kind, as its number on the bus; 0 if there is none. */
static u32 device_of(u32 kind) {
    for (u32 function = 0; function < 256; function++)
        if (configuration(function, 0) == ((0x1040 + kind) << 16 | 0x1af4)) return function;
    return 0;
}

static void configure(u32 function, u32 offset, u32 value) {
    outl(0x80000000 | function << 8 | offset, 0xcf8);
    outl(value, 0xcfc);
}

struct descriptor { u64 address; u32 length; u16 flags, next; };
enum { GOES_ON = 1, FOR_DEVICE = 2, INDIRECT = 4, QUEUE = 8, NEEDS_RESET = 64 };

static void place(u8 __iomem *at, u64 address) {
    writel(address, at);
    writel(address >> 32, at + 4);
}

/* One start of the device with a queue at these places, and one request; true when it found it broken. */
static bool offered(u8 __iomem *at, u64 table, u64 available, u64 used, u16 index) {
    writeb(0, at + 20);
    writeb(3, at + 20);
    writel(1, at + 8), writel(1, at + 12);
    writel(0, at + 8), writel(index & 1 ? 1 << 28 | 1 << 29 : 1 << 28, at + 12);
    writeb(11, at + 20);
    writew(0, at + 22), writew(QUEUE, at + 24);
    place(at + 32, table), place(at + 40, available), place(at + 48, used);
    writew(1, at + 28);
    writeb(15, at + 20);
    writew(0, at + 0x40);
    return readb(at + 20) & NEEDS_RESET;
}

/* Everything into registers and table, in all widths, at all places; with its messages switched off. */
static void garbage(u32 function, u8 __iomem *regs) {
    u32 control = configuration(function, 0x40);
    configure(function, 0x40, control & 0x3fffffff);
    for (int n = 0; n < 20000; n++) {
        u8 __iomem *at = regs + get_random_u32() % (n & 1 ? 0x60 : WINDOW - 8);
        u64 value = get_random_u64() >> (get_random_u32() & 63);
        switch (get_random_u32() % 5) {
        case 0: writeb(value, at); break;
        case 1: writew(value, at); break;
        case 2: writel(value, at); break;
        case 3: writeq(value, at); break;
        case 4: (void)readb(at), (void)readw(at), (void)readl(at), (void)readq(at); break;
        }
        if (n % 1000 == 0) cond_resched();
    }
    for (int n = 0; n < 4; n++) configure(function, 4 * (get_random_u32() % 15 + 17), get_random_u32());
    writeb(0, regs + 20);
}

/* A device elsewhere, or switched off, is nowhere. */
static bool moved(u32 function, u8 __iomem *regs) {
    u32 bar = configuration(function, 0x10), command = configuration(function, 4);
    u32 before = readl(regs + 18), elsewhere, off;
    configure(function, 0x10, bar + 0x100000);
    elsewhere = readl(regs + 18);
    configure(function, 0x10, bar);
    configure(function, 4, command & ~2U);
    off = readl(regs + 18);
    configure(function, 4, command);
    return before != ~0U && elsewhere == ~0U && off == ~0U && readl(regs + 18) == before;
}

static long abused(u32 kind);

/* The source of random numbers, and the persistent memory, whose contents need none of its registers. */
static long device(void) {
    long numbers = abused(4), memory = abused(27);
    return numbers < 0 ? numbers : memory < 0 ? memory : numbers + memory;
}

static long abused(u32 kind) {
    static const u64 places[] = {
        0xc0000000, 0xcffff000, STUB_AT, STUB_AT + 0x1000, STUB_AT + 0x2000, 0xe0001000, 0xe8008000, 0xfee00000, 0x100000000,
        0x4000000000, 0x7ffffff000, ~0UL & PAGE_MASK, ~0UL, 0x8000000000000000,
    };
    static const u32 lengths[] = {0, 1, 16, 17, 4096, 0x7fffffff, ~0U};
    u32 function = device_of(kind);
    u8 __iomem *regs = function ? ioremap(configuration(function, 0x10) & ~15U, WINDOW) : NULL;
    /* Two pages: some requests, which are as they should be, go over the end of the first. */
    u8 *page = (u8 *)__get_free_pages(GFP_KERNEL | __GFP_ZERO, 1);
    struct descriptor *table = (void *)page, *second = (void *)(page + 2048);
    u16 *available = (u16 *)(page + 1024);
    /* Where memory ends: a multiple of 16 MiB, less than that of which the kernel can't use. */
    u64 at = __pa(page), end = ALIGN(PFN_PHYS(get_num_physpages()), 16UL << 20);
    long broken = 0;
    if (!regs || !page) return -ENODEV;
    if (!moved(function, regs)) return -ENXIO;
    for (int n = 0; n < ARRAY_SIZE(places) * ARRAY_SIZE(lengths) * 8; n++) {
        cond_resched();
        u64 bad = places[n / 8 / ARRAY_SIZE(lengths)];
        u32 length = lengths[n / 8 % ARRAY_SIZE(lengths)];
        for (int d = 0; d < QUEUE; d++) {
            table[d] = (struct descriptor){bad, length, FOR_DEVICE | GOES_ON, (d + 1) % QUEUE};
            second[d] = (struct descriptor){bad, length, FOR_DEVICE | (n & 1 ? INDIRECT : GOES_ON), (d + 1) % QUEUE};
        }
        available[1] = 1;
        for (int d = 0; d < QUEUE; d++) available[2 + d] = d;
        switch (n % 8) {
        case 0: break; /* a circle */
        case 1: table[0] = (struct descriptor){bad, length, FOR_DEVICE, 0}; break;
        case 2: table[0] = (struct descriptor){bad, length, INDIRECT, 0}; break;
        case 3: table[0] = (struct descriptor){at + 2048, 128, INDIRECT, 0}; break;
        case 4: table[0].next = length; break;
        case 5: available[2] = length; break;
        case 6: available[1] = length; break;
        case 7: table[0] = (struct descriptor){at + 4095, length, FOR_DEVICE, 0}; break;
        }
        broken += offered(regs, at, at + 1024, at + 3072, n);
        /* The rings themselves elsewhere, or one over the other. */
        broken += offered(regs, n & 1 ? bad : at, n & 2 ? bad : at + 1024, n & 4 ? bad : at + 1024, n);
        broken += offered(regs, at, at + 1024, at + 1024 + n % 64, n);
        /* Over the end of memory: the first descriptor, and the ring that is written to. */
        broken += offered(regs, end - 1 - n % 15, at + 1024, at + 3072, n);
        broken += offered(regs, at, at + 1024, end - 1 - n % 64, n);
    }
    garbage(function, regs);
    iounmap(regs);
    return broken;
}

static long outside(void) {
    static const word places[] = {
        0xc0000000, 0xcffff000, 0xd0200000, 0xd0800000, 0xdffff000, 0xe0000000, 0xe0100000, 0xeffff000, 0xf0000000,
        0xfec00000, 0xfed00000, 0xfee00000, 0xfffff000, 0x180000000, 0x4000000000, 0x7ffffff000,
    };
    word ram = PFN_PHYS(get_num_physpages()) + (16UL << 20);
    long answered = 0;
    for (int n = -4; n < (int)ARRAY_SIZE(places); n++) {
        word place = n < 0 ? ALIGN(ram, 1UL << 28) - n * (16UL << 20) : places[n];
        void __iomem *at = ioremap(place & PAGE_MASK, PAGE_SIZE);
        if (!at) continue;
        for (int offset = 0; offset < PAGE_SIZE; offset += 256) {
            u32 value = readl(at + offset);
            answered += value != ~0U;
            writel(value, at + offset);
            (void)readb(at + offset + 1);
            (void)readw(at + offset + 2);
            (void)readq(at + offset);
            if (place < 0xe0000000 || place >= 0xf0000000) writeq(get_random_u64(), at + offset);
        }
        iounmap(at);
    }
    return answered;
}

static long scan(void) {
    long all = 0, networks = 0;
    for (u32 function = 0; function < 1 << 16; function += function & 0xff00 ? 8 : 1) {
        u32 id = configuration(function, 0);
        if (id == ~0U) continue;
        all++;
        /* By class; and virtio's network card by its own two numbers. */
        networks += configuration(function, 8) >> 24 == 2 || id == 0x10411af4 || id == 0x10001af4;
    }
    return all << 8 | networks;
}

static long ports(void) {
    for (u32 port = 0; port < 0x10000; port++) {
        bool ends = port == 0x64 || (port >= 0x600 && port < 0x607) || (port >= 0xcf8 && port < 0xd00);
        (void)inb(port);
        /* The console's own ports are left alone, so that the test hears what becomes of it. */
        if (ends || (port >= 0x3f8 && port < 0x400) || (port >= 0xc000 && port < 0xf000)) continue;
        outb(get_random_u32(), port);
        outw(get_random_u32(), port);
        outl(get_random_u32(), port);
    }
    return 0;
}

static long end_it(void) {
    unsigned int *at = memremap(0xc8000000, PAGE_SIZE, MEMREMAP_WB);
    if (!at) return -ENOMEM;
    asm volatile("lock xaddl %0, %1" : "+r"((int){1}), "+m"(*at)::"memory");
    return 0;
}

static long serve(const struct request *request) {
    switch (request->what) {
    case WRITE_TEXT:
    case SWAP_PAGE:
    case PUT_BACK:
    case REMAP: return change_page(request);
    case RIDE: return start_ride(request);
    case DONE: return end_ride(request);
    case HYPERCALLS: return hypercalls();
    case INSTRUCTIONS: return instructions();
    case REGISTERS: return registers();
    case STUB: return stub();
    case OUTSIDE: return outside();
    case SCAN: return scan();
    case PORTS: return ports();
    case END_IT: return end_it();
    case DEVICE: return device();
    case SHOW_STUB: return show_stub(true);
    case HIDE_STUB: return show_stub(false);
    case JUMP: return jump(request);
    default: return -EINVAL;
    }
}

static ssize_t asked(struct file *file, const char __user *from, size_t length, loff_t *at) {
    static struct request request;
    if (length != sizeof request || copy_from_user(&request, from, length)) return -EFAULT;
    return serve(&request);
}

static const struct proc_ops operations = {.proc_write = asked};

static int __init begin(void) { return proc_create("malice", 0600, NULL, &operations) ? 0 : -ENOMEM; }

static void __exit end(void) { remove_proc_entry("malice", NULL); }

module_init(begin);
module_exit(end);
