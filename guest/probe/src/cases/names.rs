//! Paths, and names in directories. Where the policy says so, they are another machine's.
use super::Case;
use crate::probe::{DATA, FREE, NULL, Probe, at, n};
use crate::value;
use std::os::fd::RawFd;
use std::sync::OnceLock;

pub const CASES: &[Case] = &[
    ("name_status", status),
    ("name_makes", makes),
    ("name_modes", modes),
    ("name_renames", renames),
    ("name_links", links),
    ("name_lists", lists),
    ("name_from_directories", from_directories),
    ("name_current", current),
    ("name_times", times),
    ("name_open_how", open_how),
    ("name_temporary", temporary),
];

/// Where the folders of these cases are; it is a remote one for trusted programs.
const ROOT: &str = "/tmp/trapline-cases";
/// The folder of this process's case: others run at the same time.
static FOLDER: OnceLock<String> = OnceLock::new();
/// Places for a second path, and for results.
const SECOND: usize = FREE + 0x1000;
const RESULT: usize = FREE + 0x2000;
const FDCWD: i32 = libc::AT_FDCWD;

/// A path in the folder, with its NUL.
pub fn path(name: &str) -> Vec<u8> {
    let folder = FOLDER.get().map_or(ROOT, String::as_str);
    format!("{folder}/{name}\0").into_bytes()
}

/// The folder, empty; it goes when the case ends.
pub struct Folder {
    probe: Probe,
}

/// Makes the folder.
pub fn folder(p: &Probe) -> Folder {
    let folder = Folder { probe: p.clone() };
    make(p, ROOT);
    let own = FOLDER.get_or_init(|| format!("{ROOT}/{}", p.case()));
    folder.clear();
    make(p, own);
    folder
}

fn make(p: &Probe, folder: &str) {
    p.arena.write(FREE, format!("{folder}\0").as_bytes());
    let made = p.quiet(libc::SYS_mkdir, &[at(FREE), n(0o755)]);
    if made != 0 && made != -i64::from(libc::EEXIST) {
        p.line("folder", value::result(made));
    }
}

impl Folder {
    /// Opens a file in it.
    pub fn open(&self, name: &str, flags: i32) -> RawFd {
        self.probe.arena.write(FREE, &path(name));
        self.probe.open("open", libc::SYS_openat, &[n(FDCWD), at(FREE), n(flags), n(0o644)])
    }

    /// A new file.
    pub fn made(&self, name: &str) -> RawFd {
        self.open(name, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL)
    }

    /// Removes what cases make.
    fn clear(&self) {
        let p = &self.probe;
        let names = ["a", "b", "c", "l", "from", "to", "d/a", "d/b", "d/e", "d", ""];
        for name in names {
            p.arena.write(FREE, &path(name));
            p.quiet(libc::SYS_unlink, &[at(FREE)]);
            p.quiet(libc::SYS_rmdir, &[at(FREE)]);
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A call with one path in the folder, and other arguments behind it.
fn with(p: &Probe, label: &str, number: i64, name: &str, rest: &[i64]) -> i64 {
    p.arena.write(FREE, &path(name));
    let mut arguments = vec![at(FREE)];
    arguments.extend(rest.iter().map(|value| n(*value)));
    p.call(&format!("{label} {name}"), number, &arguments)
}

/// A call with two paths in the folder.
fn with_two(p: &Probe, label: &str, number: i64, from: &str, to: &str) {
    p.arena.write(FREE, &path(from));
    p.arena.write(SECOND, &path(to));
    p.call(&format!("{label} {from} {to}"), number, &[at(FREE), at(SECOND)]);
}

/// Mode, links and size of a path.
fn look(p: &Probe, name: &str, number: i64) {
    p.arena.write(FREE, &path(name));
    let answer = p.quiet(number, &[at(FREE), at(RESULT)]);
    if answer != 0 {
        return p.line(&format!("look {name}"), value::result(answer));
    }
    let mode = p.number(RESULT + 24);
    let size = if mode & 0o170_000 == 0o040_000 { -1 } else { p.number(RESULT + 48) };
    p.line(&format!("look {name}"), format!("{mode:o} {} {size}", p.number(RESULT + 16)));
}

fn status(p: &mut Probe) {
    let f = folder(p);
    let fd = f.made("a");
    look(p, "a", libc::SYS_stat);
    look(p, "a/", libc::SYS_stat);
    look(p, "./../name_status/a", libc::SYS_stat);
    look(p, "gone", libc::SYS_stat);
    look(p, "", libc::SYS_lstat);
    let empty = libc::AT_EMPTY_PATH;
    p.arena.write(FREE, b"\0");
    let call = [n(fd), at(FREE), at(RESULT), n(empty)];
    p.call("by descriptor", libc::SYS_newfstatat, &call);
    p.call("without the flag", libc::SYS_newfstatat, &[n(fd), at(FREE), at(RESULT), n(0)]);
    p.arena.write(FREE, &path("a"));
    let call = [n(FDCWD), at(FREE), at(RESULT), n(0x4_0000)];
    p.call("bad flags", libc::SYS_newfstatat, &call);
    let mask = n(i64::from(libc::STATX_BASIC_STATS));
    p.call("statx", libc::SYS_statx, &[n(FDCWD), at(FREE), n(0), mask, at(RESULT)]);
    p.line("size", p.number(RESULT + 40));
    p.line("mode", format!("{:o}", p.number(RESULT + 28) & 0xffff));
    p.call("statfs", libc::SYS_statfs, &[at(FREE), at(RESULT)]);
    with(p, "access", libc::SYS_access, "a", &[4]);
    with(p, "access", libc::SYS_access, "gone", &[0]);
    with(p, "access", libc::SYS_access, "a", &[99]);
}

fn makes(p: &mut Probe) {
    let _f = folder(p);
    with(p, "mkdir", libc::SYS_mkdir, "d", &[0o777]);
    with(p, "mkdir", libc::SYS_mkdir, "d", &[0o777]);
    with(p, "mkdir", libc::SYS_mkdir, "gone/d", &[0o777]);
    with(p, "mknod", libc::SYS_mknod, "d/a", &[0o100_600, 0]);
    with(p, "creat", libc::SYS_creat, "d/a", &[0o600]);
    look(p, "d/a", libc::SYS_stat);
    with(p, "rmdir", libc::SYS_rmdir, "d", &[]);
    with(p, "unlink", libc::SYS_unlink, "d", &[]);
    with(p, "rmdir", libc::SYS_rmdir, "d/a", &[]);
    with(p, "unlink", libc::SYS_unlink, "d/a", &[]);
    with(p, "unlink", libc::SYS_unlink, "d/a", &[]);
    with(p, "rmdir", libc::SYS_rmdir, "d", &[]);
    look(p, "d", libc::SYS_stat);
}

fn modes(p: &mut Probe) {
    let f = folder(p);
    let old = p.quiet(libc::SYS_umask, &[n(0o027)]);
    f.open("a", libc::O_CREAT | libc::O_RDWR);
    look(p, "a", libc::SYS_stat);
    with(p, "mkdir", libc::SYS_mkdir, "d", &[0o777]);
    look(p, "d", libc::SYS_stat);
    p.call("umask", libc::SYS_umask, &[n(old)]);
    with(p, "chmod", libc::SYS_chmod, "a", &[0o604]);
    look(p, "a", libc::SYS_stat);
    with(p, "chmod", libc::SYS_chmod, "gone", &[0o604]);
    with(p, "chown", libc::SYS_chown, "a", &[12, -1]);
    p.arena.write(FREE, &path("a"));
    p.quiet(libc::SYS_stat, &[at(FREE), at(RESULT)]);
    p.line("owner", format!("{} {}", p.number(RESULT + 28), p.number(RESULT + 32)));
    with(p, "truncate", libc::SYS_truncate, "a", &[9]);
    with(p, "truncate", libc::SYS_truncate, "d", &[9]);
    with(p, "truncate", libc::SYS_truncate, "a", &[-9]);
    look(p, "a", libc::SYS_stat);
}

fn renames(p: &mut Probe) {
    let f = folder(p);
    f.made("a");
    f.made("b");
    with(p, "mkdir", libc::SYS_mkdir, "d", &[0o755]);
    with_two(p, "rename", libc::SYS_rename, "a", "d/a");
    with_two(p, "rename", libc::SYS_rename, "a", "c");
    with_two(p, "rename", libc::SYS_rename, "d/a", "b");
    with_two(p, "rename", libc::SYS_rename, "b", "d");
    with_two(p, "rename", libc::SYS_rename, "d", "d/e");
    f.made("a");
    p.arena.write(FREE, &path("a"));
    p.arena.write(SECOND, &path("b"));
    let call = |flags: i64| [n(FDCWD), at(FREE), n(FDCWD), at(SECOND), n(flags)];
    p.call("without replacing", libc::SYS_renameat2, &call(1));
    p.call("exchange", libc::SYS_renameat2, &call(2));
    p.call("bad flags", libc::SYS_renameat2, &call(0x1000));
    p.arena.write(SECOND, b"/proc/self/trapline\0");
    p.call("to elsewhere", libc::SYS_rename, &[at(FREE), at(SECOND)]);
}

fn links(p: &mut Probe) {
    let f = folder(p);
    f.made("a");
    with_two(p, "link", libc::SYS_link, "a", "b");
    with_two(p, "link", libc::SYS_link, "a", "b");
    look(p, "b", libc::SYS_stat);
    p.arena.write(SECOND, b"a\0");
    p.arena.write(FREE, &path("l"));
    p.call("symlink", libc::SYS_symlink, &[at(SECOND), at(FREE)]);
    p.call("symlink", libc::SYS_symlink, &[at(SECOND), at(FREE)]);
    look(p, "l", libc::SYS_stat);
    look(p, "l", libc::SYS_lstat);
    for room in [0, 1, 100] {
        let answer = p.quiet(libc::SYS_readlink, &[at(FREE), at(DATA), n(room)]);
        p.arrived("readlink", answer, DATA, 100);
    }
    p.arena.write(FREE, &path("a"));
    p.call("no link", libc::SYS_readlink, &[at(FREE), at(DATA), n(100)]);
    f.open("l", libc::O_NOFOLLOW);
    f.open("l", 0);
    with(p, "unlink", libc::SYS_unlink, "l", &[]);
    look(p, "a", libc::SYS_stat);
    with_two(p, "link", libc::SYS_link, "gone", "c");
}

/// Names of a directory, sorted: the order is the file system's.
fn lists(p: &mut Probe) {
    let f = folder(p);
    f.made("a");
    with(p, "mkdir", libc::SYS_mkdir, "d", &[0o755]);
    let fd = f.open("", libc::O_DIRECTORY);
    let mut names = Vec::new();
    loop {
        let answer = p.quiet(libc::SYS_getdents64, &[n(fd), at(RESULT), n(4096)]);
        let Ok(filled @ 1..) = usize::try_from(answer) else {
            p.line("end", value::result(answer));
            break;
        };
        let bytes = p.arena.read(RESULT, filled);
        let mut rest = bytes.as_slice();
        while let (Some(&[low, high]), Some(kind)) = (rest.get(16..18), rest.get(18)) {
            let length = usize::from(u16::from_ne_bytes([low, high]));
            let name = rest.get(19..length).unwrap_or_default();
            let name = name.split(|b| *b == 0).next().unwrap_or_default();
            names.push(format!("{} {kind}", String::from_utf8_lossy(name)));
            rest = rest.get(length.max(1)..).unwrap_or_default();
        }
    }
    names.sort();
    p.line("names", names.join(", "));
    p.call("too short", libc::SYS_lseek, &[n(fd), n(0), n(libc::SEEK_SET)]);
    p.call("too short", libc::SYS_getdents64, &[n(fd), at(RESULT), n(5)]);
}

fn from_directories(p: &mut Probe) {
    let f = folder(p);
    with(p, "mkdir", libc::SYS_mkdir, "d", &[0o755]);
    let d = f.open("d", libc::O_DIRECTORY);
    let open = |fd: RawFd, name: &str, flags: i32| {
        p.arena.write(FREE, format!("{name}\0").as_bytes());
        p.open(&format!("open {name}"), libc::SYS_openat, &[n(fd), at(FREE), n(flags), n(0o600)])
    };
    let file = open(d, "a", libc::O_CREAT | libc::O_RDWR);
    open(d, "../d/a", 0);
    open(d, "../../../proc/self/stat", 0);
    open(d, "/proc/self/stat", 0);
    open(file, "a", 0);
    open(999, "a", 0);
    open(d, "", 0);
    p.arena.write(FREE, b"e\0");
    p.call("mkdirat", libc::SYS_mkdirat, &[n(d), at(FREE), n(0o700)]);
    p.call("unlinkat", libc::SYS_unlinkat, &[n(d), at(FREE), n(0)]);
    p.call("unlinkat", libc::SYS_unlinkat, &[n(d), at(FREE), n(libc::AT_REMOVEDIR)]);
    p.arena.write(FREE, b"a\0");
    p.arena.write(SECOND, b"b\0");
    p.call("renameat", libc::SYS_renameat, &[n(d), at(FREE), n(d), at(SECOND)]);
    p.call("faccessat", libc::SYS_faccessat, &[n(d), at(SECOND), n(2)]);
    p.call("faccessat", libc::SYS_faccessat, &[n(d), at(FREE), n(2)]);
    p.call("fchmodat", libc::SYS_fchmodat, &[n(d), at(SECOND), n(0o640)]);
    look(p, "d/b", libc::SYS_stat);
    let tmp = {
        p.arena.write(FREE, b"/tmp\0");
        p.open("open /tmp", libc::SYS_openat, &[n(FDCWD), at(FREE), n(0), n(0)])
    };
    open(tmp, "trapline-cases/name_from_directories/d/b", 0);
}

fn current(p: &mut Probe) {
    let f = folder(p);
    with(p, "mkdir", libc::SYS_mkdir, "d", &[0o755]);
    f.made("a");
    let own = p.quiet(libc::SYS_getcwd, &[at(RESULT), n(4096)]);
    let start = p.arena.read(RESULT, usize::try_from(own).unwrap_or(0));
    with(p, "chdir", libc::SYS_chdir, "a", &[]);
    with(p, "chdir", libc::SYS_chdir, "gone", &[]);
    with(p, "chdir", libc::SYS_chdir, "d", &[]);
    let answer = p.quiet(libc::SYS_getcwd, &[at(DATA), n(4096)]);
    p.arrived("getcwd", answer, DATA, 100);
    p.call("getcwd", libc::SYS_getcwd, &[at(DATA), n(3)]);
    let open = |name: &str, flags: i32| {
        p.arena.write(FREE, format!("{name}\0").as_bytes());
        let call = [n(FDCWD), at(FREE), n(flags), n(0o600)];
        p.open(&format!("open {name}"), libc::SYS_openat, &call)
    };
    open("b", libc::O_CREAT);
    open("../a", 0);
    let up = open("..", libc::O_DIRECTORY);
    open("../../../proc/self/stat", 0);
    look(p, "d/b", libc::SYS_stat);
    p.call("fchdir", libc::SYS_fchdir, &[n(up)]);
    open("a", 0);
    p.arena.write(FREE, &start);
    p.call("back", libc::SYS_chdir, &[at(FREE)]);
    open("a", 0);
}

fn times(p: &mut Probe) {
    let f = folder(p);
    let fd = f.made("a");
    let set = |fd: RawFd, name: bool, times: [i64; 4]| {
        let bytes: Vec<u8> = times.iter().flat_map(|value| value.to_ne_bytes()).collect();
        p.arena.write(SECOND, &bytes);
        p.arena.write(FREE, &path("a"));
        let place = if name { at(FREE) } else { NULL };
        p.call("utimensat", libc::SYS_utimensat, &[n(fd), place, at(SECOND), n(0)]);
        p.quiet(libc::SYS_stat, &[at(FREE), at(RESULT)]);
        p.line("seconds", format!("{} {}", p.number(RESULT + 72), p.number(RESULT + 88)));
        p.line("fraction", p.number(RESULT + 96));
    };
    set(FDCWD, true, [1000, 5, 2000, 7]);
    set(fd, false, [3000, 5, 4000, 7]);
    set(FDCWD, true, [1, libc::UTIME_OMIT, 5000, 8]);
    set(FDCWD, true, [1, 2_000_000_000, 5000, 8]);
    p.arena.write(FREE, &path("gone"));
    p.call("gone", libc::SYS_utimensat, &[n(FDCWD), at(FREE), NULL, n(0)]);
}

fn open_how(p: &mut Probe) {
    let f = folder(p);
    f.made("a");
    let how = |flags: u64, mode: u64, resolve: u64, size: i64| {
        let bytes: Vec<u8> =
            [flags, mode, resolve].iter().flat_map(|value| value.to_ne_bytes()).collect();
        p.arena.write(SECOND, &bytes);
        p.arena.write(FREE, &path("a"));
        p.open("openat2", libc::SYS_openat2, &[n(FDCWD), at(FREE), at(SECOND), n(size)])
    };
    how(0, 0, 0, 24);
    how(0, 0o600, 0, 24);
    how(0, 0, 4, 24);
    how(1 << 40, 0, 0, 24);
    how(0, 0, 0, 8);
}

fn temporary(p: &mut Probe) {
    let f = folder(p);
    let fd = f.open("", libc::O_TMPFILE | libc::O_RDWR);
    p.arena.write(DATA, b"nameless");
    p.call("write", libc::SYS_write, &[n(fd), at(DATA), n(8)]);
    let answer = p.quiet(libc::SYS_pread64, &[n(fd), at(DATA), n(100), n(0)]);
    p.arrived("pread", answer, DATA, 100);
    // A file whose name is gone goes on.
    let fd = f.made("a");
    with(p, "unlink", libc::SYS_unlink, "a", &[]);
    p.call("write", libc::SYS_write, &[n(fd), at(DATA), n(8)]);
    p.quiet(libc::SYS_fstat, &[n(fd), at(RESULT)]);
    p.line("links", p.number(RESULT + 16));
}
