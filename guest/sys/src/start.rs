//! Ways to start programs and processes besides `fork`, for the program that compares Linux with
//! remote servicing (`guest/probe`).

use crate::fork::Pid;
use std::arch::asm;
use std::ffi::{CStr, CString};
use std::io;

/// Pointers to words, with the null that ends them.
fn pointers(words: &[CString]) -> Vec<*mut libc::c_char> {
    let pointers = words.iter().map(|word| word.as_ptr().cast_mut());
    pointers.chain([std::ptr::null_mut()]).collect()
}

/// `posix_spawn(3)`, with standard output on that descriptor and an empty environment.
///
/// # Errors
/// As `posix_spawn(3)`.
pub fn spawn(path: &CStr, words: &[CString], output: i32) -> io::Result<Pid> {
    let (words, none) = (pointers(words), pointers(&[]));
    let mut pid = 0;
    // SAFETY: the actions are initialised before they are used and destroyed once; all pointers
    // lead to strings, and lists with a null at their ends, that live as long as the calls.
    let error = unsafe {
        let mut actions = std::mem::zeroed();
        libc::posix_spawn_file_actions_init(&raw mut actions);
        libc::posix_spawn_file_actions_adddup2(&raw mut actions, output, 1);
        let error = libc::posix_spawn(
            &raw mut pid,
            path.as_ptr(),
            &raw const actions,
            std::ptr::null(),
            words.as_ptr(),
            none.as_ptr(),
        );
        libc::posix_spawn_file_actions_destroy(&raw mut actions);
        error
    };
    if error == 0 { Ok(pid) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// `vfork(2)` by hand: the child writes some bytes to a descriptor, then starts a program with an
/// empty environment (or ends with 127).
///
/// # Errors
/// As `vfork(2)`.
pub fn vfork(output: i32, bytes: &[u8], path: &CStr, words: &[CString]) -> io::Result<Pid> {
    let (words, none) = (pointers(words), pointers(&[]));
    let pid: i64;
    // SAFETY: the child shares this memory and stack until it starts the program, and this thread waits
    // that long. In between it makes calls from registers alone: it writes to no memory, and takes
    // no way out of these instructions. All pointers lead to what outlives them, as in `spawn`.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov eax, {write}",
            "syscall",
            "mov rdi, r8",
            "mov rsi, r9",
            "mov rdx, r10",
            "mov eax, {execve}",
            "syscall",
            "mov edi, 127",
            "mov eax, {exit}",
            "syscall",
            "2:",
            write = const libc::SYS_write,
            execve = const libc::SYS_execve,
            exit = const libc::SYS_exit,
            inlateout("rax") libc::SYS_vfork => pid,
            in("rdi") i64::from(output),
            in("rsi") bytes.as_ptr(),
            in("rdx") bytes.len(),
            in("r8") path.as_ptr(),
            in("r9") words.as_ptr(),
            in("r10") none.as_ptr(),
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    match i32::try_from(pid) {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => Err(io::Error::from_raw_os_error(-pid as i32)),
    }
}

/// `vfork(2)` by hand: the child has itself killed by `SIGALRM` in a second, and reads from a descriptor on which
/// nothing comes meanwhile (or ends with 127).
///
/// # Errors
/// As `vfork(2)`.
pub fn vfork_killed(input: i32) -> io::Result<Pid> {
    let mut byte = [0_u8; 1];
    let pid: i64;
    // SAFETY: as in `vfork` above; what is read goes to `byte`, which outlives the child, for this thread waits
    // until it has ended.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov eax, {alarm}",
            "mov edi, 1",
            "syscall",
            "xor eax, eax",
            "mov rdi, r8",
            "mov rsi, r9",
            "mov edx, 1",
            "syscall",
            "mov edi, 127",
            "mov eax, {exit}",
            "syscall",
            "2:",
            alarm = const libc::SYS_alarm,
            exit = const libc::SYS_exit,
            inlateout("rax") libc::SYS_vfork => pid,
            in("r8") i64::from(input),
            in("r9") byte.as_mut_ptr(),
            lateout("rdi") _,
            lateout("rsi") _,
            lateout("rdx") _,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    match i32::try_from(pid) {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => Err(io::Error::from_raw_os_error(-pid as i32)),
    }
}

/// `clone3(2)` without flags: a child as `fork` makes it. It runs `child` and ends with its status; what
/// [`fork`](crate::fork::fork) says of locks holds here, too.
///
/// # Errors
/// As `clone3(2)`.
pub fn clone3(child: impl FnOnce() -> i32) -> io::Result<Pid> {
    // SAFETY: plain numbers.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD as u64;
    let size = size_of_val(&arguments);
    // SAFETY: without `CLONE_VM` the child has a copy of all memory and of this stack.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let status = child();
            // SAFETY: `_exit` ends the process at once.
            unsafe { libc::_exit(status) }
        }
        pid => i32::try_from(pid).map_err(io::Error::other),
    }
}
