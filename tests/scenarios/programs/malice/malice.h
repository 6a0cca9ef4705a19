/* What the program `attack` asks of the kernel module `malice`: one `write` to /proc/malice. */
enum {
    WRITE_TEXT = 1, /* pid, a = address: write to the page of program text that is mapped there */
    SWAP_PAGE,      /* pid, a = address: put an altered copy in the place of that page */
    PUT_BACK,       /* pid, a = address: and the page again */
    RIDE,           /* pid, a = one of the modes below: run `code` in an address space */
    DONE,           /* the code's last call: the address space is as it was; a = its result */
    HYPERCALLS,     /* a = seed: VMMCALL in ring 0 */
    INSTRUCTIONS,   /* the other instructions of virtual machines */
    REGISTERS,      /* a = seed: model-specific registers */
    STUB,           /* the hypervisor's pages: read them, write to them */
    OUTSIDE,        /* guest-physical addresses behind which there is no memory */
    SCAN,           /* PCI functions: 256 * all + those that are network cards */
    PORTS,          /* a = seed: all I/O ports but those that end the VM */
    END_IT,         /* an access that cannot be answered */
    REMAP,          /* pid, a = address, code = a physical address: that page takes the place of the one there */
    DEVICE,         /* the source of random numbers gets rings that make no sense; how often it noticed */
    SHOW_STUB,      /* the hypervisor's page of code, for programs to read and execute: at RIDE_AT */
    HIDE_STUB,      /* and not any more */
    JUMP,           /* code = a call's number, three arguments, and what is added to the return address: made
                       from the stub's exit; answers as the call does */
};

/* Modes of RIDE. */
enum {
    OWN,   /* a copy of the own top-level page table */
    ROOT,  /* the other process's page-table root */
    COPY,  /* the own root, with the other's tables below it */
    REUSE, /* the other's root, with the own tables below it */
};

/* Where `code` lies while it runs; a page that is writable too. */
#define RIDE_AT 0x200000000000UL
/* Offset of the request in that page that the code ends with. */
#define RIDE_DONE 1024

struct request {
    unsigned int what, pid;
    unsigned long a;
    unsigned char code[512];
};
