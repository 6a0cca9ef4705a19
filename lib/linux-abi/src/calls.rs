//! All system calls of x86-64 Linux up to 6.1: number, name, and what each argument is.
//! Source: `arch/x86/entry/syscalls/syscall_64.tbl` and the `SYSCALL_DEFINE` lines of Linux 6.1.

/// What an argument is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Argument {
    /// A number, flags, or a value that no one dereferences.
    Number,
    /// A descriptor.
    Descriptor,
    /// A descriptor of a directory, or `AT_FDCWD`.
    Directory,
    /// A user address.
    Pointer,
    /// The user address of a path that is looked up.
    Path,
    /// A length or count that belongs to a pointer.
    Length,
}

/// A row of the call table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Number in `rax`.
    pub number: u64,
    /// Name, as in the manual.
    pub name: &'static str,
    /// A letter per argument; see [`Call::arguments`].
    signature: &'static str,
}

impl Call {
    /// The arguments, in order.
    pub fn arguments(&self) -> impl Iterator<Item = Argument> + use<> {
        self.signature.bytes().map(|letter| match letter {
            b'f' => Argument::Descriptor,
            b'd' => Argument::Directory,
            b'p' => Argument::Pointer,
            b's' => Argument::Path,
            b'l' => Argument::Length,
            _ => Argument::Number,
        })
    }

    /// Positions of the arguments that are descriptors (of directories too).
    pub fn descriptors(&self) -> impl Iterator<Item = usize> + use<> {
        self.arguments()
            .enumerate()
            .filter(|(_, a)| matches!(a, Argument::Descriptor | Argument::Directory))
            .map(|(n, _)| n)
    }

    /// The paths that it looks up: the position of the directory that each begins at, where there
    /// is one, and that of the path itself.
    pub fn paths(&self) -> impl Iterator<Item = (Option<usize>, usize)> + use<> {
        let mut directory = None;
        self.arguments().enumerate().filter_map(move |(n, argument)| {
            let before = directory.take();
            match argument {
                Argument::Directory => directory = Some(n),
                Argument::Path => return Some((before, n)),
                _ => {}
            }
            None
        })
    }
}

/// The row of a number; `None` where there is no such call.
#[must_use]
pub fn call(number: u64) -> Option<&'static Call> {
    // Numbers 335..=423 are unused: two dense runs.
    let index = match number {
        0..=334 => number,
        424..=450 => number - 424 + 335,
        _ => return None,
    };
    CALLS.get(usize::try_from(index).ok()?)
}

/// The call's name, or "?".
#[must_use]
pub fn name(number: u64) -> &'static str {
    call(number).map_or("?", |c| c.name)
}

macro_rules! calls {
    ($($number:literal $name:ident $signature:literal;)*) => {
        /// Call numbers by name.
        pub mod nr {
            $(
                #[allow(missing_docs, non_upper_case_globals)]
                pub const $name: u64 = $number;
            )*
        }

        static CALLS: &[Call] = &[
            $(Call { number: $number, name: stringify!($name), signature: $signature },)*
        ];
    };
}

calls! {
    0 read "fpl";
    1 write "fpl";
    2 open "sii";
    3 close "f";
    4 stat "sp";
    5 fstat "fp";
    6 lstat "sp";
    7 poll "pli";
    8 lseek "fii";
    9 mmap "pliifi";
    10 mprotect "pli";
    11 munmap "pl";
    12 brk "p";
    13 rt_sigaction "ippl";
    14 rt_sigprocmask "ippl";
    15 rt_sigreturn "";
    16 ioctl "fip";
    17 pread64 "fpli";
    18 pwrite64 "fpli";
    19 readv "fpl";
    20 writev "fpl";
    21 access "si";
    22 pipe "p";
    23 select "ipppp";
    24 sched_yield "";
    25 mremap "pliip";
    26 msync "pli";
    27 mincore "plp";
    28 madvise "pli";
    29 shmget "iii";
    30 shmat "ipi";
    31 shmctl "iip";
    32 dup "f";
    33 dup2 "fi";
    34 pause "";
    35 nanosleep "pp";
    36 getitimer "ip";
    37 alarm "i";
    38 setitimer "ipp";
    39 getpid "";
    40 sendfile "ffpl";
    41 socket "iii";
    42 connect "fpl";
    43 accept "fpp";
    44 sendto "fplipl";
    45 recvfrom "fplipp";
    46 sendmsg "fpi";
    47 recvmsg "fpi";
    48 shutdown "fi";
    49 bind "fpl";
    50 listen "fi";
    51 getsockname "fpp";
    52 getpeername "fpp";
    53 socketpair "iiip";
    54 setsockopt "fiipl";
    55 getsockopt "fiipp";
    56 clone "ippppi";
    57 fork "";
    58 vfork "";
    59 execve "spp";
    60 exit "i";
    61 wait4 "ipip";
    62 kill "ii";
    63 uname "p";
    64 semget "iii";
    65 semop "ipl";
    66 semctl "iiii";
    67 shmdt "p";
    68 msgget "ii";
    69 msgsnd "ipli";
    70 msgrcv "iplii";
    71 msgctl "iip";
    72 fcntl "fii";
    73 flock "fi";
    74 fsync "f";
    75 fdatasync "f";
    76 truncate "si";
    77 ftruncate "fi";
    78 getdents "fpl";
    79 getcwd "pl";
    80 chdir "s";
    81 fchdir "f";
    82 rename "ss";
    83 mkdir "si";
    84 rmdir "s";
    85 creat "si";
    86 link "ss";
    87 unlink "s";
    88 symlink "ps";
    89 readlink "spl";
    90 chmod "si";
    91 fchmod "fi";
    92 chown "sii";
    93 fchown "fii";
    94 lchown "sii";
    95 umask "i";
    96 gettimeofday "pp";
    97 getrlimit "ip";
    98 getrusage "ip";
    99 sysinfo "p";
    100 times "p";
    101 ptrace "iipp";
    102 getuid "";
    103 syslog "ipl";
    104 getgid "";
    105 setuid "i";
    106 setgid "i";
    107 geteuid "";
    108 getegid "";
    109 setpgid "ii";
    110 getppid "";
    111 getpgrp "";
    112 setsid "";
    113 setreuid "ii";
    114 setregid "ii";
    115 getgroups "lp";
    116 setgroups "lp";
    117 setresuid "iii";
    118 getresuid "ppp";
    119 setresgid "iii";
    120 getresgid "ppp";
    121 getpgid "i";
    122 setfsuid "i";
    123 setfsgid "i";
    124 getsid "i";
    125 capget "pp";
    126 capset "pp";
    127 rt_sigpending "pl";
    128 rt_sigtimedwait "pppl";
    129 rt_sigqueueinfo "iip";
    130 rt_sigsuspend "pl";
    131 sigaltstack "pp";
    132 utime "sp";
    133 mknod "sii";
    134 uselib "s";
    135 personality "i";
    136 ustat "ip";
    137 statfs "sp";
    138 fstatfs "fp";
    139 sysfs "iii";
    140 getpriority "ii";
    141 setpriority "iii";
    142 sched_setparam "ip";
    143 sched_getparam "ip";
    144 sched_setscheduler "iip";
    145 sched_getscheduler "i";
    146 sched_get_priority_max "i";
    147 sched_get_priority_min "i";
    148 sched_rr_get_interval "ip";
    149 mlock "pl";
    150 munlock "pl";
    151 mlockall "i";
    152 munlockall "";
    153 vhangup "";
    154 modify_ldt "ipl";
    155 pivot_root "ss";
    156 _sysctl "p";
    157 prctl "iiiii";
    158 arch_prctl "ii";
    159 adjtimex "p";
    160 setrlimit "ip";
    161 chroot "s";
    162 sync "";
    163 acct "s";
    164 settimeofday "pp";
    165 mount "pspip";
    166 umount2 "si";
    167 swapon "si";
    168 swapoff "s";
    169 reboot "iiip";
    170 sethostname "pl";
    171 setdomainname "pl";
    172 iopl "i";
    173 ioperm "iii";
    174 create_module "pl";
    175 init_module "plp";
    176 delete_module "pi";
    177 get_kernel_syms "p";
    178 query_module "pippl";
    179 quotactl "ipip";
    180 nfsservctl "ipp";
    181 getpmsg "iiiii";
    182 putpmsg "iiiii";
    183 afs_syscall "";
    184 tuxcall "";
    185 security "";
    186 gettid "";
    187 readahead "fil";
    188 setxattr "sppli";
    189 lsetxattr "sppli";
    190 fsetxattr "fppli";
    191 getxattr "sppl";
    192 lgetxattr "sppl";
    193 fgetxattr "fppl";
    194 listxattr "spl";
    195 llistxattr "spl";
    196 flistxattr "fpl";
    197 removexattr "sp";
    198 lremovexattr "sp";
    199 fremovexattr "fp";
    200 tkill "ii";
    201 time "p";
    202 futex "piippi";
    203 sched_setaffinity "ilp";
    204 sched_getaffinity "ilp";
    205 set_thread_area "p";
    206 io_setup "ip";
    207 io_destroy "i";
    208 io_getevents "iiipp";
    209 io_submit "ilp";
    210 io_cancel "ipp";
    211 get_thread_area "p";
    212 lookup_dcookie "ipl";
    213 epoll_create "i";
    214 epoll_ctl_old "iiii";
    215 epoll_wait_old "iiii";
    216 remap_file_pages "pliii";
    217 getdents64 "fpl";
    218 set_tid_address "p";
    219 restart_syscall "";
    220 semtimedop "iplp";
    221 fadvise64 "fili";
    222 timer_create "ipp";
    223 timer_settime "iipp";
    224 timer_gettime "ip";
    225 timer_getoverrun "i";
    226 timer_delete "i";
    227 clock_settime "ip";
    228 clock_gettime "ip";
    229 clock_getres "ip";
    230 clock_nanosleep "iipp";
    231 exit_group "i";
    232 epoll_wait "fpli";
    233 epoll_ctl "fifp";
    234 tgkill "iii";
    235 utimes "sp";
    236 vserver "";
    237 mbind "plipli";
    238 set_mempolicy "ipl";
    239 get_mempolicy "pplpi";
    240 mq_open "piip";
    241 mq_unlink "p";
    242 mq_timedsend "fplip";
    243 mq_timedreceive "fplpp";
    244 mq_notify "fp";
    245 mq_getsetattr "fpp";
    246 kexec_load "ilpi";
    247 waitid "iipip";
    248 add_key "ppppl";
    249 request_key "pppi";
    250 keyctl "iiiii";
    251 ioprio_set "iii";
    252 ioprio_get "ii";
    253 inotify_init "";
    254 inotify_add_watch "fsi";
    255 inotify_rm_watch "fi";
    256 migrate_pages "ilpp";
    257 openat "dsii";
    258 mkdirat "dsi";
    259 mknodat "dsii";
    260 fchownat "dsiii";
    261 futimesat "dsp";
    262 newfstatat "dspi";
    263 unlinkat "dsi";
    264 renameat "dsds";
    265 linkat "dsdsi";
    266 symlinkat "pds";
    267 readlinkat "dspl";
    268 fchmodat "dsi";
    269 faccessat "dsi";
    270 pselect6 "ippppp";
    271 ppoll "plppl";
    272 unshare "i";
    273 set_robust_list "pl";
    274 get_robust_list "ipp";
    275 splice "fpfpli";
    276 tee "ffli";
    277 sync_file_range "fiii";
    278 vmsplice "fpli";
    279 move_pages "ilpppi";
    280 utimensat "dspi";
    281 epoll_pwait "fplipl";
    282 signalfd "fpl";
    283 timerfd_create "ii";
    284 eventfd "i";
    285 fallocate "fiii";
    286 timerfd_settime "fipp";
    287 timerfd_gettime "fp";
    288 accept4 "fppi";
    289 signalfd4 "fpli";
    290 eventfd2 "ii";
    291 epoll_create1 "i";
    292 dup3 "fii";
    293 pipe2 "pi";
    294 inotify_init1 "i";
    295 preadv "fplii";
    296 pwritev "fplii";
    297 rt_tgsigqueueinfo "iiip";
    298 perf_event_open "piifi";
    299 recvmmsg "fplip";
    300 fanotify_init "ii";
    301 fanotify_mark "fiids";
    302 prlimit64 "iipp";
    303 name_to_handle_at "dsppi";
    304 open_by_handle_at "dpi";
    305 clock_adjtime "ip";
    306 syncfs "f";
    307 sendmmsg "fpli";
    308 setns "fi";
    309 getcpu "ppp";
    310 process_vm_readv "iplpli";
    311 process_vm_writev "iplpli";
    312 kcmp "iiiii";
    313 finit_module "fpi";
    314 sched_setattr "ipi";
    315 sched_getattr "ipli";
    316 renameat2 "dsdsi";
    317 seccomp "iip";
    318 getrandom "pli";
    319 memfd_create "pi";
    320 kexec_file_load "fflpi";
    321 bpf "ipl";
    322 execveat "dsppi";
    323 userfaultfd "i";
    324 membarrier "iii";
    325 mlock2 "pli";
    326 copy_file_range "fpfpli";
    327 preadv2 "fpliii";
    328 pwritev2 "fpliii";
    329 pkey_mprotect "plii";
    330 pkey_alloc "ii";
    331 pkey_free "i";
    332 statx "dsiip";
    333 io_pgetevents "iiippp";
    334 rseq "plii";
    424 pidfd_send_signal "fipi";
    425 io_uring_setup "ip";
    426 io_uring_enter "fiiipl";
    427 io_uring_register "fipi";
    428 open_tree "dsi";
    429 move_mount "dsdsi";
    430 fsopen "pi";
    431 fsconfig "fippi";
    432 fsmount "fii";
    433 fspick "dsi";
    434 pidfd_open "ii";
    435 clone3 "pl";
    436 close_range "iii";
    437 openat2 "dspl";
    438 pidfd_getfd "fii";
    439 faccessat2 "dsii";
    440 process_madvise "fplii";
    441 epoll_pwait2 "fplppl";
    442 mount_setattr "dsipl";
    443 quotactl_fd "fiip";
    444 landlock_create_ruleset "pli";
    445 landlock_add_rule "fipi";
    446 landlock_restrict_self "fi";
    447 memfd_secret "i";
    448 process_mrelease "fi";
    449 futex_waitv "plipi";
    450 set_mempolicy_home_node "plii";
}

#[cfg(test)]
mod tests;
