//! Files of the service VM.
use super::*;
use crate::fake::guest::{DATA, Guest};
use linux_abi::{AT_FDCWD, O_CREAT, O_EXCL};
use policy::{FileRule, Policy};

const O_RDWR: u64 = 2;
/// Where paths and results lie in the program.
const PATH: u64 = DATA;
const SECOND: u64 = DATA + 0x800;
const BUFFER: u64 = DATA + 0x1000;
const EROFS: i64 = -30;
const EBUSY: i64 = -16;
const EXDEV: i64 = -18;
/// What the fake kernel says of calls that it does not know: the call was its own business.
const OWN: i64 = -38;

fn policy() -> Policy {
    let mut policy = Policy::by_path(&["/usr/bin/curl", "/usr/bin/other", "/usr/bin/third"]);
    let rule = |path: &str, write| FileRule { path: path.into(), write };
    policy.programs[0].files =
        vec![rule("/etc/hosts", false), rule("/srv/data", true), rule("/srv", false)];
    policy.programs[1].files = vec![rule("/srv/data/way/there", false)];
    policy
}

fn start() -> (Guest, usize) {
    let mut g = Guest::with_policy(policy());
    let p = g.start(b"/launcher");
    assert_eq!(g.hypercall(p, hypercall::TRUST, 0), 0);
    g.write(p, DATA, b"/usr/bin/curl\0");
    assert_eq!(g.call(p, nr::execve, &[DATA, 0, 0]), 4242);
    let mut store = g.world.net.store.borrow_mut();
    store.files.insert("/etc/hosts".into(), b"10.0.0.1 there".to_vec());
    store.files.insert("/srv/data/a".into(), (0..=255).cycle().take(600_000).collect());
    drop(store);
    (g, p)
}

fn at_path(g: &Guest, p: usize, at: u64, path: &str) {
    g.write(p, at, path.as_bytes());
    g.write(p, at + path.len() as u64, &[0]);
}

fn open(g: &mut Guest, p: usize, path: &str, flags: u64) -> i64 {
    at_path(g, p, PATH, path);
    g.call(p, nr::openat, &[AT_FDCWD as u64, PATH, flags, 0o666])
}

fn opened(g: &mut Guest, p: usize, path: &str, flags: u64) -> u64 {
    let fd = open(g, p, path, flags);
    assert!(fd >= 0, "{path}: {fd}");
    fd as u64
}

fn remote_files(g: &Guest) -> usize {
    g.world.net.sockets.borrow().values().filter(|s| s.file.is_some() && !s.closed).count()
}

#[test]
fn a_mapped_file_is_read_and_others_are_not_touched() {
    let (mut g, p) = start();
    let fd = opened(&mut g, p, "/etc/hosts", 0);
    assert_eq!(g.call(p, nr::read, &[fd, BUFFER, 4]), 4);
    assert_eq!(g.call(p, nr::read, &[fd, BUFFER + 4, 100]), 10);
    assert_eq!(g.read(p, BUFFER, 14), b"10.0.0.1 there");
    assert_eq!(g.call(p, nr::lseek, &[fd, 3, 0]), 3);
    assert_eq!(g.call(p, nr::pread64, &[fd, BUFFER, 3, 1]), 3);
    assert_eq!(g.read(p, BUFFER, 3), b"0.0");
    assert_eq!(g.call(p, nr::pread64, &[fd, BUFFER, 3, u64::MAX]), -22);
    assert_eq!(g.call(p, nr::fstat, &[fd, BUFFER]), 0);
    let status = g.read(p, BUFFER, 144);
    assert_eq!((status[48], status[3]), (14, 0x80), "its device is none of this VM's");
    assert_eq!(g.call(p, nr::close, &[fd]), 0);
    assert_eq!(remote_files(&g), 0);
    // Not mapped: the program's own kernel is asked, which has a file of that name.
    let fd = opened(&mut g, p, "/etc/passwd", 0);
    assert_eq!(remote_files(&g), 0);
    assert_eq!(g.call(p, nr::close, &[fd]), 0);
}

#[test]
fn every_spelling_means_the_same_file() {
    let (mut g, p) = start();
    for path in ["//etc/./hosts", "/tmp/../etc/hosts", "/../etc/hosts"] {
        let fd = opened(&mut g, p, path, 0);
        assert_eq!(remote_files(&g), 1, "{path}");
        g.call(p, nr::close, &[fd]);
    }
    // Relative to the current directory, which is /work, and to an open one.
    let fd = opened(&mut g, p, "../etc/hosts", 0);
    assert_eq!(remote_files(&g), 1);
    g.call(p, nr::close, &[fd]);
    let folder = opened(&mut g, p, "/etc", 0);
    at_path(&g, p, PATH, "hosts");
    let fd = g.call(p, nr::openat, &[folder, PATH, 0, 0]);
    assert!(fd > 0 && remote_files(&g) == 1);
    // One that is alike is another one.
    g.call(p, nr::close, &[fd as u64]);
    for path in ["/etc/hosts2", "/etc", "/etc/host", "/srvdata"] {
        assert!(open(&mut g, p, path, 0) >= 0);
        assert_eq!(remote_files(&g), 0, "{path}");
    }
}

#[test]
fn what_the_policy_does_not_let_change_is_read_only() {
    let (mut g, p) = start();
    assert_eq!(open(&mut g, p, "/etc/hosts", O_RDWR), EROFS);
    assert_eq!(open(&mut g, p, "/srv/new", u64::from(O_CREAT)), EROFS);
    let excl = u64::from(O_CREAT | O_EXCL);
    assert_eq!(open(&mut g, p, "/etc/hosts", excl), -17);
    assert!(open(&mut g, p, "/etc/hosts", u64::from(O_CREAT)) >= 0);
    at_path(&g, p, PATH, "/etc/hosts");
    assert_eq!(g.call(p, nr::unlink, &[PATH]), EBUSY, "an entry stays");
    at_path(&g, p, PATH, "/srv/x");
    for call in [nr::unlink, nr::rmdir] {
        assert_eq!(g.call(p, call, &[PATH]), EROFS);
    }
    assert_eq!(g.call(p, nr::chmod, &[PATH, 0]), EROFS);
    assert_eq!(g.call(p, nr::truncate, &[PATH, 0]), EROFS);
    // The longest entry decides.
    let made = opened(&mut g, p, "/srv/data/new", u64::from(O_CREAT) | O_RDWR);
    assert_eq!(g.world.net.store.borrow().modes["/srv/data/new"], 0o644, "by the mask");
    g.write(p, BUFFER, b"text");
    assert_eq!(g.call(p, nr::write, &[made, BUFFER, 4]), 4);
    assert_eq!(g.call(p, nr::pwrite64, &[made, BUFFER, 2, 4]), 2);
    assert_eq!(g.world.net.store.borrow().files["/srv/data/new"], b"textte");
}

#[test]
fn names_move_inside_an_entry_only() {
    let (mut g, p) = start();
    let rename = |g: &mut Guest, from: &str, to: &str| {
        at_path(g, p, PATH, from);
        at_path(g, p, SECOND, to);
        g.call(p, nr::rename, &[PATH, SECOND])
    };
    assert_eq!(rename(&mut g, "/srv/data/a", "/tmp/a"), EXDEV);
    assert_eq!(rename(&mut g, "/tmp/a", "/srv/data/a"), EXDEV);
    assert_eq!(rename(&mut g, "/srv/data", "/srv/b"), EBUSY);
    assert_eq!(rename(&mut g, "/srv/x", "/srv/data/x"), EROFS);
    assert_eq!(rename(&mut g, "/srv/data/a", "/srv/data/./b"), 0);
    assert!(g.world.net.store.borrow().files.contains_key("/srv/data/b"));
    assert_eq!(rename(&mut g, "/tmp/a", "/tmp/b"), OWN);
    // Nothing that leads to an entry, be it another program's, is moved or replaced.
    for path in ["/srv/data/way", "/srv/data/way/there"] {
        assert_eq!(rename(&mut g, path, "/srv/data/b"), EBUSY);
        assert_eq!(rename(&mut g, "/srv/data/b", path), EBUSY);
        at_path(&g, p, PATH, "/etc/shadow");
        at_path(&g, p, SECOND, path);
        assert_eq!(g.call(p, nr::symlink, &[PATH, SECOND]), EBUSY);
        assert_eq!(g.call(p, nr::unlink, &[SECOND]), EBUSY);
    }
}

#[test]
fn data_of_any_length_arrive_whole() {
    let (mut g, p) = start();
    let fd = opened(&mut g, p, "/srv/data/a", 0);
    let at = g.reserve(p, 150);
    assert_eq!(g.call(p, nr::read, &[fd, at, 150 << 12]), 600_000);
    let bytes = g.read(p, at, 600_000);
    assert!(bytes.iter().zip((0..=255u8).cycle()).all(|(a, b)| *a == b));
    let mapped = g.call(p, nr::mmap, &[0, 0x3000, 1, 2, fd, 0x1000]);
    assert!(mapped > 0);
    assert_eq!(g.read(p, mapped as u64 + 0x2fff, 1), [255]);
    // Neither programs nor memory in common.
    assert_eq!(g.call(p, nr::mmap, &[0, 0x1000, 5, 2, fd, 0]), -1);
    assert_eq!(g.call(p, nr::mmap, &[0, 0x1000, 3, 1, fd, 0]), -19);
}

#[test]
fn descriptors_are_like_others() {
    let (mut g, p) = start();
    let fd = opened(&mut g, p, "/srv/data/a", O_RDWR);
    let copy = g.call(p, nr::dup, &[fd]) as u64;
    g.call(p, nr::close, &[fd]);
    assert_eq!(g.call(p, nr::lseek, &[copy, 7, 0]), 7);
    assert_eq!(g.call(p, nr::fcntl, &[copy, 3]), 2, "the delegate's own flag is not shown");
    assert_eq!(g.call(p, nr::ioctl, &[copy, 0x5401, BUFFER]), -25);
    assert_eq!(g.call(p, nr::getsockname, &[copy, BUFFER, BUFFER]), -88);
    assert_eq!(g.call(p, nr::epoll_ctl, &[copy, 1, copy, BUFFER]), -1);
    let child = fork(&mut g, p);
    assert_eq!(g.call(child, nr::read, &[copy, BUFFER, 1]), 1);
    assert_eq!(g.read(child, BUFFER, 1), [7]);
    g.kill(child);
    g.kill(p);
    assert_eq!(g.engine.census().descriptors, 0);
}

#[test]
fn the_current_directory_may_be_remote() {
    let (mut g, p) = start();
    at_path(&g, p, PATH, "/srv/data/sub");
    assert_eq!(g.call(p, nr::chdir, &[PATH]), 0);
    assert_eq!(g.call(p, nr::getcwd, &[BUFFER, 5]), -34);
    assert_eq!(g.call(p, nr::getcwd, &[BUFFER, 100]), 14);
    assert_eq!(g.read(p, BUFFER, 14), b"/srv/data/sub\0");
    let fd = opened(&mut g, p, "../a", 0);
    assert_eq!(remote_files(&g), 1);
    g.call(p, nr::close, &[fd]);
    // What lies elsewhere is found there, too.
    opened(&mut g, p, "../../../etc/passwd", 0);
    assert_eq!(remote_files(&g), 0);
    assert_eq!(g.opened.last().map(String::as_str), Some("/etc/passwd"));
    at_path(&g, p, PATH, "/tmp");
    assert_eq!(g.call(p, nr::chdir, &[PATH]), 0);
    at_path(&g, p, PATH, "a");
    g.call(p, nr::openat, &[AT_FDCWD as u64, PATH, 0, 0]);
    assert_eq!(remote_files(&g), 0);
}

#[test]
fn a_lock_that_is_taken_is_waited_for() {
    let (mut g, p) = start();
    let fd = opened(&mut g, p, "/srv/data/a", O_RDWR);
    g.world.net.store.borrow_mut().busy = 1;
    assert_eq!(g.call(p, nr::flock, &[fd, 2 | 4]), -11);
    g.world.net.store.borrow_mut().busy = 1;
    let b = blocked(g.begin(p, FS, RSP, nr::flock, &[fd, 2]));
    g.processes[p].signal = Some(Signal::Interrupt);
    assert_eq!(done(g.again(&b)), -4);
}

#[test]
fn record_locks_end_with_the_first_descriptor_that_is_closed() {
    let (mut g, p) = start();
    let fd = opened(&mut g, p, "/srv/data/a", O_RDWR);
    let asked = |g: &Guest| {
        let log = g.world.net.log.borrow();
        let lock = |r: &wire::Request| match r {
            wire::Request::File(wire::FileRequest::Act { action, .. }) => {
                *action == wire::FileAction::RecordLock
            }
            _ => false,
        };
        log.iter().filter(|(_, r)| lock(r)).count()
    };
    let copy = |g: &mut Guest| g.call(p, nr::dup, &[fd]) as u64;
    // Without any lock nothing is asked.
    let one = copy(&mut g);
    assert_eq!((g.call(p, nr::close, &[one]), asked(&g)), (0, 0));
    g.write(p, BUFFER, &[1, 0, 0, 0]);
    let [one, two, three] = [0; 3].map(|_| copy(&mut g));
    assert_eq!(g.call(p, nr::fcntl, &[fd, 6, BUFFER]), 0);
    assert_eq!(asked(&g), 1);
    assert_eq!((g.call(p, nr::close, &[one]), asked(&g)), (0, 2));
    assert_eq!((g.call(p, nr::close_range, &[two, two, 0]), asked(&g)), (0, 3));
    let pipe = opened(&mut g, p, "/tmp/x", 0);
    assert_eq!((g.call(p, nr::dup2, &[pipe, three]), asked(&g)), (three as i64, 4));
    // With the last one the delegate's own goes.
    assert_eq!((g.call(p, nr::close, &[fd]), asked(&g)), (0, 4));
    assert_eq!(remote_files(&g), 0);
}

#[test]
fn programs_without_remote_files_ask_nobody() {
    for form in [hypercall::Form::Watched, hypercall::Form::Stub] {
        guest::FORM.set(form);
        let mut g = Guest::with_policy(policy());
        let p = g.start(b"/launcher");
        g.hypercall(p, hypercall::TRUST, 0);
        g.write(p, DATA, b"/usr/bin/third\0");
        assert_eq!(g.call(p, nr::execve, &[DATA, 0, 0]), 4242);
        let before = g.exits;
        assert!(open(&mut g, p, "/etc/hosts", 0) >= 0);
        let exits = if form == hypercall::Form::Stub { 0 } else { 2 };
        assert_eq!(g.exits - before, exits);
        assert_eq!(remote_files(&g), 0);
    }
    guest::FORM.set(hypercall::Form::Stub);
    a_mapped_file_is_read_and_others_are_not_touched();
    the_current_directory_may_be_remote();
}

#[test]
fn a_dead_delegate_is_an_error_at_once() {
    let (mut g, p) = start();
    let fd = opened(&mut g, p, "/srv/data/a", 0);
    for record in g.world.net.kill(1) {
        g.engine.service_record(&record);
    }
    assert_eq!(g.call(p, nr::read, &[fd, BUFFER, 4]), -5);
    let fd = opened(&mut g, p, "/srv/data/a", 0);
    assert_eq!(g.call(p, nr::read, &[fd, BUFFER, 4]), 4);
}
