//! System calls with any arguments, bad ones included, for the program that compares Linux with
//! remote servicing (`guest/probe`).
//!
//! Pointers that the kernel gets lead into an [`Arena`] (or nowhere); it is never seen as a Rust
//! object and ends in more inaccessible space than any length can skip. Calls that change mappings,
//! threads or the flow of control are not on the list. Like `/proc/self/mem`, writing the
//! numeric address of some other object into the arena is outside what can be checked here.

use std::arch::asm;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Bytes of an arena.
pub const ARENA: usize = 4 << 20;
/// Inaccessible bytes behind it: more than a 32-bit length, and than Linux moves in one call.
const GUARD: usize = 5 << 30;

/// One argument of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arg {
    /// A number; as a pointer it leads nowhere, since nothing is mapped below 4 GiB (programs of
    /// this crate are position-independent) or above the kernel's border.
    Number(i64),
    /// The address of this byte of the arena; [`ARENA`] itself is the first inaccessible one.
    At(usize),
}

/// Calls that can do no harm to memory outside the arena.
const CALLS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup2,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_pipe,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_select,
    libc::SYS_pselect6,
    libc::SYS_epoll_create,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_vmsplice,
    libc::SYS_copy_file_range,
    libc::SYS_wait4,
    libc::SYS_kill,
    libc::SYS_tgkill,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_nanosleep,
    libc::SYS_setitimer,
    libc::SYS_rt_sigprocmask,
    libc::SYS_setsid,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_unshare,
    libc::SYS_exit_group,
    libc::SYS_umask,
    libc::SYS_prlimit64,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_io_uring_setup,
    libc::SYS_unlinkat,
    libc::SYS_signalfd4,
    libc::SYS_open,
    libc::SYS_creat,
    libc::SYS_openat2,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_mknod,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_truncate,
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_chown,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_flock,
    libc::SYS_fadvise64,
    libc::SYS_readahead,
];

/// Memory for the kernel to read and write.
#[derive(Debug)]
pub struct Arena {
    start: NonNull<u8>,
}

// SAFETY: all access goes through atomic operations on memory that lives as long as the value.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Zeroed memory, private to this process; `fork` copies it.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let any = std::ptr::null_mut();
        // SAFETY: a new mapping at an address of the kernel's choice harms no existing object.
        let start = unsafe { libc::mmap(any, ARENA + GUARD, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the range is the start of the mapping just made.
        crate::checked(unsafe { libc::mprotect(start, ARENA, access) })?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start })
    }

    fn bytes(&self) -> &[AtomicU8] {
        // SAFETY: the mapping lives as long as `self`, and is only ever accessed atomically.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), ARENA) }
    }

    /// Stores bytes; what lies outside is left out.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        for (to, from) in self.bytes().get(at..).unwrap_or_default().iter().zip(bytes) {
            to.store(*from, Ordering::Relaxed);
        }
    }

    /// Loads bytes; what lies outside is left out.
    #[must_use]
    pub fn read(&self, at: usize, length: usize) -> Vec<u8> {
        let from = self.bytes().get(at..).unwrap_or_default().iter().take(length);
        from.map(|byte| byte.load(Ordering::Relaxed)).collect()
    }

    /// Stores a pointer, as structures have it that contain one.
    pub fn write_pointer(&self, at: usize, to: Arg) {
        if let Some(value) = self.value(to) {
            self.write(at, &value.to_ne_bytes());
        }
    }

    fn value(&self, argument: Arg) -> Option<u64> {
        match argument {
            Arg::Number(number) => {
                let range = i64::from(i32::MIN)..=i64::from(u32::MAX);
                range.contains(&number).then_some(number.cast_unsigned())
            }
            Arg::At(at) => (at <= ARENA).then_some(self.start.as_ptr().addr() as u64 + at as u64),
        }
    }

    fn values(&self, number: libc::c_long, arguments: &[Arg]) -> io::Result<[u64; 6]> {
        let mut values = [0; 6];
        if !CALLS.contains(&number) || arguments.len() > values.len() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        for (to, from) in values.iter_mut().zip(arguments) {
            *to = self.value(*from).ok_or(io::ErrorKind::InvalidInput)?;
        }
        Ok(values)
    }

    /// Makes a call; the kernel's own answer (a negative error number where it failed).
    ///
    /// # Errors
    /// A call that is not on the list, or a number that is too large.
    pub fn call(&self, number: libc::c_long, arguments: &[Arg]) -> io::Result<i64> {
        let [a, b, c, d, e, f] = self.values(number, arguments)?;
        // SAFETY: see the module's text.
        let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
        if result != -1 {
            return Ok(result);
        }
        Ok(-i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(0)))
    }

    /// Makes a call that a handler installed with [`Action::Escape`] leaves for good, as
    /// `siglongjmp(3)` would; `None` when one did.
    ///
    /// # Errors
    /// As for [`Arena::call`].
    pub fn call_escapable(
        &self,
        number: libc::c_long,
        arguments: &[Arg],
    ) -> io::Result<Option<i64>> {
        let [a, b, c, d, e, f] = self.values(number, arguments)?;
        // SAFETY: no pointers.
        let own = unsafe { libc::syscall(libc::SYS_gettid) };
        PLACE[7].store(0, Ordering::SeqCst);
        ESCAPING.store(own as u32, Ordering::SeqCst);
        let result: i64;
        // SAFETY: the call itself: see the module's text. A handler may jump to label 2 with the
        // stack pointer and all preserved registers as they were here; nothing but frames of the
        // handler is left behind by that, which own nothing.
        unsafe {
            asm!(
                "lea rcx, [rip + {place}]",
                "mov [rcx], rsp",
                "mov [rcx + 8], rbx",
                "mov [rcx + 16], rbp",
                "mov [rcx + 24], r12",
                "mov [rcx + 32], r13",
                "mov [rcx + 40], r14",
                "mov [rcx + 48], r15",
                "lea r11, [rip + 2f]",
                "mov [rcx + 56], r11",
                "syscall",
                "2:",
                place = sym PLACE,
                inlateout("rax") number => result,
                inlateout("rdi") a => _,
                inlateout("rsi") b => _,
                inlateout("rdx") c => _,
                inlateout("r10") d => _,
                inlateout("r8") e => _,
                inlateout("r9") f => _,
                clobber_abi("sysv64"),
            );
        }
        ESCAPING.store(0, Ordering::SeqCst);
        Ok((result != ESCAPED).then_some(result))
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to this value alone, and no reference outlives the value.
        unsafe { libc::munmap(self.start.as_ptr().cast(), ARENA + GUARD) };
    }
}

/// What a signal does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The default.
    Default,
    /// Nothing.
    Ignore,
    /// It is counted.
    Count,
    /// It is counted, and one byte `!` is written to this descriptor.
    Write(i32),
    /// It is counted, and the call under way is left.
    Escape,
    /// It is counted, and the process forks: the handler returns in both.
    Fork,
}

/// Answer of an escaped call; no call has it.
const ESCAPED: i64 = i64::MIN;
/// Stack pointer, rbx, rbp, r12 to r15 and instruction pointer to go on with.
static PLACE: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
/// Thread that may escape, or 0.
static ESCAPING: AtomicU32 = AtomicU32::new(0);
static COUNTS: [AtomicU32; 65] = [const { AtomicU32::new(0) }; 65];
static TARGETS: [AtomicI32; 65] = [const { AtomicI32::new(-1) }; 65];

/// In [`TARGETS`]: escape.
const ESCAPE: i32 = -2;
/// In [`TARGETS`]: fork.
const FORK: i32 = -3;
/// What the last `fork` of a handler answered.
static FORKED: AtomicI32 = AtomicI32::new(-1);

extern "C" fn handler(signal: libc::c_int) {
    let Ok(number) = usize::try_from(signal) else { return };
    let (Some(count), Some(target)) = (COUNTS.get(number), TARGETS.get(number)) else { return };
    count.fetch_add(1, Ordering::SeqCst);
    match target.load(Ordering::SeqCst) {
        ESCAPE => escape(),
        // SAFETY: the child has a copy of all memory and of this stack, and of the threads only this one, which goes
        // on with what the handler has interrupted: a call of an arena, in which no locks are held.
        FORK => FORKED.store(unsafe { libc::fork() }, Ordering::SeqCst),
        -1 => {}
        descriptor => {
            // SAFETY: one byte of a constant; the call is allowed in handlers. `errno` is put back.
            unsafe {
                let errno = *libc::__errno_location();
                libc::write(descriptor, c"!".as_ptr().cast(), 1);
                *libc::__errno_location() = errno;
            }
        }
    }
}

fn escape() {
    // SAFETY: no pointers.
    let own = unsafe { libc::syscall(libc::SYS_gettid) };
    if ESCAPING.load(Ordering::SeqCst) != own as u32 {
        return;
    }
    // SAFETY: this thread is in the call of `call_escapable` (it says so, and has filled `PLACE`
    // if it is past its first instructions; the instruction pointer is stored last). Jumping there
    // leaves the handler's frames, which own nothing.
    unsafe {
        if PLACE[7].load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        asm!(
            "mov rsp, [rcx]",
            "mov rbx, [rcx + 8]",
            "mov rbp, [rcx + 16]",
            "mov r12, [rcx + 24]",
            "mov r13, [rcx + 32]",
            "mov r14, [rcx + 40]",
            "mov r15, [rcx + 48]",
            "jmp [rcx + 56]",
            in("rcx") PLACE.as_ptr(),
            in("rax") ESCAPED,
            options(noreturn),
        );
    }
}

/// Installs what a signal does, with flags such as `SA_RESTART` (`sigaction(2)`).
///
/// # Errors
/// As `sigaction(2)`.
pub fn on_signal(signal: i32, action: Action, flags: i32) -> io::Result<()> {
    let target = usize::try_from(signal).ok().and_then(|number| TARGETS.get(number));
    let target = target.ok_or(io::ErrorKind::InvalidInput)?;
    let (handler, to) = match action {
        Action::Default => (libc::SIG_DFL, -1),
        Action::Ignore => (libc::SIG_IGN, -1),
        Action::Count => (handler as *const () as usize, -1),
        Action::Write(descriptor) => (handler as *const () as usize, descriptor.max(0)),
        Action::Escape => (handler as *const () as usize, ESCAPE),
        Action::Fork => (handler as *const () as usize, FORK),
    };
    target.store(to, Ordering::SeqCst);
    // Other flags change what a handler is given, or the stack that it runs on.
    let flags = flags & (libc::SA_RESTART | libc::SA_NODEFER | libc::SA_RESETHAND);
    // SAFETY: all fields are numbers; the handler does what handlers may.
    let mut new: libc::sigaction = unsafe { std::mem::zeroed() };
    new.sa_sigaction = handler;
    new.sa_flags = flags;
    // SAFETY: the kernel reads the structure.
    crate::checked(unsafe { libc::sigaction(signal, &raw const new, std::ptr::null_mut()) })
        .map(drop)
}

/// What the last `fork` of a handler ([`Action::Fork`]) answered; -1 before the first.
#[must_use]
pub fn forked() -> i32 {
    FORKED.load(Ordering::SeqCst)
}

/// How often a signal's handler ran.
#[must_use]
pub fn signals(signal: i32) -> u32 {
    let count = usize::try_from(signal).ok().and_then(|number| COUNTS.get(number));
    count.map_or(0, |count| count.load(Ordering::SeqCst))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_arena_is_reached() {
        let arena = Arena::new().expect("memory");
        let pipe = arena.call(libc::SYS_pipe2, &[Arg::At(0), Arg::Number(0)]);
        assert_eq!(pipe.ok(), Some(0));
        let fd = |at: usize| i64::from(arena.read(at, 1)[0]);
        let (read, write) = (Arg::Number(fd(0)), Arg::Number(fd(4)));
        arena.write(16, b"hello");
        let call = |number, arguments: &[Arg]| arena.call(number, arguments).expect("on the list");
        assert_eq!(call(libc::SYS_write, &[write, Arg::At(16), Arg::Number(5)]), 5);
        let fault = -i64::from(libc::EFAULT);
        assert_eq!(call(libc::SYS_write, &[write, Arg::At(ARENA), Arg::Number(5)]), fault);
        assert_eq!(call(libc::SYS_read, &[read, Arg::Number(8), Arg::Number(5)]), fault);
        assert_eq!(call(libc::SYS_read, &[read, Arg::At(32), Arg::Number(9)]), 5);
        assert_eq!(arena.read(32, 5), b"hello");
        assert!(arena.call(libc::SYS_munmap, &[Arg::At(0), Arg::Number(4096)]).is_err());
    }

    #[test]
    fn a_handler_leaves_a_call() {
        let arena = Arena::new().expect("memory");
        arena.write(0, &60u64.to_ne_bytes());
        on_signal(libc::SIGUSR2, Action::Escape, 0).expect("handler");
        // SAFETY: no pointers.
        let (pid, own) = unsafe { (libc::getpid(), libc::syscall(libc::SYS_gettid)) };
        let stop = std::sync::Arc::new(AtomicU32::new(0));
        let seen = stop.clone();
        let thread = std::thread::spawn(move || {
            while seen.load(Ordering::SeqCst) == 0 {
                std::thread::sleep(std::time::Duration::from_millis(50));
                // SAFETY: no pointers.
                unsafe { libc::syscall(libc::SYS_tgkill, pid, own, libc::SIGUSR2) };
            }
        });
        let left = arena.call_escapable(libc::SYS_nanosleep, &[Arg::At(0), Arg::Number(0)]);
        stop.store(1, Ordering::SeqCst);
        assert!(thread.join().is_ok());
        assert_eq!(left.ok(), Some(None));
        assert!(signals(libc::SIGUSR2) > 0);
    }
}
