/* A network client without libc: system calls alone, threads without thread-local storage (all of them
   have FS base zero). Usage: bare PORT; talks to an echo server at 10.0.2.15.

   cc -O2 -static -nostdlib -fno-stack-protector -fno-builtin bare.c */
typedef long word;

enum {
    READ = 0, WRITE = 1, CLOSE = 3, POLL = 7, MMAP = 9, SOCKET = 41, CONNECT = 42, CLONE = 56,
    FCNTL = 72, EXIT = 60, FUTEX = 202, EPOLL_WAIT = 232, EPOLL_CTL = 233, EPOLL_CREATE1 = 291,
};
enum { THREADS = 12, ROUNDS = 10, STACK = 65536 };

static word call(word number, word a, word b, word c, word d, word e, word f) {
    register word r10 __asm__("r10") = d;
    register word r8 __asm__("r8") = e;
    register word r9 __asm__("r9") = f;
    word result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static volatile int port, failed;
/* Thread ids; the kernel clears each, and wakes, when its thread ends (CLONE_CHILD_CLEARTID). */
static volatile int running[THREADS];

static int connect_to_server(void) {
    int fd = call(SOCKET, 2, 1, 0, 0, 0, 0);
    unsigned char address[16] = {2, 0, port >> 8, port & 255, 10, 0, 2, 15};
    if (fd < 0 || call(CONNECT, fd, (word)address, 16, 0, 0, 0) != 0) return -1;
    return fd;
}

/* Blocking reads and writes; every answer must be this thread's own. */
static int talk(int number) {
    int fd = connect_to_server();
    if (fd < 0) return 1;
    for (int round = 0; round < ROUNDS; round++) {
        char said[4] = {'a' + number, '0' + round, 'x', '\n'}, answer[4];
        if (call(WRITE, fd, (word)said, 4, 0, 0, 0) != 4) return 2;
        for (int have = 0; have < 4;) {
            word n = call(READ, fd, (word)(answer + have), 4 - have, 0, 0, 0);
            if (n <= 0) return 3;
            have += n;
        }
        if (answer[0] != 'A' + number || answer[1] != '0' + round || answer[2] != 'X') return 4;
    }
    return call(CLOSE, fd, 0, 0, 0, 0, 0) == 0 ? 0 : 5;
}

static void thread(word number) {
    int problem = talk(number);
    if (problem) failed = problem;
    call(EXIT, 0, 0, 0, 0, 0, 0);
}

/* A new thread begins in `thread`, on its own stack. */
static word start(int number) {
    word stack = call(MMAP, 0, STACK, 3, 0x22, -1, 0);
    /* VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, PARENT_SETTID, CHILD_CLEARTID */
    word flags = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000 | 0x100000 | 0x200000, result;
    register word r10 __asm__("r10") = (word)&running[number];
    register word r8 __asm__("r8") = 0;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "mov %[number], %%rdi\n\t"
                     "call *%[thread]\n\t"
                     "1:"
                     : "=a"(result)
                     : "a"((word)CLONE), "D"(flags), "S"(stack + STACK), "d"(&running[number]),
                       "r"(r10), "r"(r8), [number] "r"((word)number), [thread] "r"(thread)
                     : "rcx", "r11", "memory");
    return result;
}

/* Without a wait in a call: a non-blocking socket and epoll. */
static int events(void) {
    int fd = connect_to_server(), epoll = call(EPOLL_CREATE1, 0, 0, 0, 0, 0, 0);
    unsigned event[3] = {1, 77, 0}, found[3] = {0};
    char answer[8];
    if (fd < 0 || call(FCNTL, fd, 4, 04000, 0, 0, 0) != 0) return 6;
    if (call(EPOLL_CTL, epoll, 1, fd, (word)event, 0, 0) != 0) return 7;
    if (call(READ, fd, (word)answer, 8, 0, 0, 0) != -11) return 8;
    if (call(WRITE, fd, (word) "event\n", 6, 0, 0, 0) != 6) return 9;
    if (call(EPOLL_WAIT, epoll, (word)found, 1, 60000, 0, 0) != 1 || found[1] != 77) return 10;
    if (call(READ, fd, (word)answer, 8, 0, 0, 0) != 6 || answer[0] != 'E') return 11;
    return 0;
}

static void run(word *stack) {
    for (const char *digit = (const char *)stack[2]; *digit; digit++) port = port * 10 + *digit - '0';
    for (int n = 0; n < THREADS; n++) running[n] = 1;
    for (int n = 0; n < THREADS; n++)
        if (start(n) < 0) call(EXIT, 20, 0, 0, 0, 0, 0);
    for (int n = 0; n < THREADS; n++)
        for (int id; (id = running[n]) != 0;)
            call(FUTEX, (word)&running[n], 0 /* FUTEX_WAIT */, id, 0, 0, 0);
    if (!failed) failed = events();
    if (!failed) call(WRITE, 1, (word) "all answers\n", 12, 0, 0, 0);
    call(231 /* exit_group */, failed, 0, 0, 0, 0, 0);
}

__attribute__((naked)) void _start(void) {
    __asm__("mov %rsp, %rdi\n\tand $-16, %rsp\n\tcall begin\n\tud2");
}

__attribute__((used)) void begin(word *stack) { run(stack); }
