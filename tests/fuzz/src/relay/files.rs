//! The same relay, with a program that has files of the service VM: paths of all spellings from a hostile
//! program, and answers about files from a hostile delegate.
//!
//! Promised besides what `relay` promises: a path that is asked about lies at or below an entry of the
//! policy, the longest one; what follows the entry is free of parts that could lead elsewhere; nothing is
//! changed, moved or made where the policy does not say so, and entries themselves stay.
use super::step::{Place, Step, Value};
use super::{Machine, policy};
use arbitrary::{Arbitrary, Unstructured};
use linux_abi::nr;
use policy::{FileRule, Policy};
use servicing::fake::guest::DATA;
use servicing::fake::service::Lie;
use wire::hypercall::Form;
use wire::{FileAction, FileRequest, PathAction, Request};

/// Entries, and whether what is there may be changed.
const ENTRIES: [(&str, bool); 3] = [("/etc/hosts", false), ("/srv/data", true), ("/srv", false)];
/// Where paths lie in the program.
const PATHS: [u64; 2] = [DATA + 0x800, DATA + 0x1800];
/// The lowest descriptor of the fake kernel.
const FIRST_FD: u64 = 41;

/// A part of a path.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Part {
    Srv,
    Data,
    A,
    Etc,
    Hosts,
    Up,
    Here,
    Nothing,
    /// `/proc/self/fd`, then a descriptor.
    Descriptor(u8),
    Long(u16),
    Odd(u8),
}

/// An argument.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Argument {
    Path(bool),
    Descriptor(u8),
    /// The current directory.
    Current,
    Buffer(u16),
    /// One bit, or two.
    Flag(u8, u8),
    Small(u8),
    Other(Value),
}

/// One step.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum FileStep {
    Path {
        second: bool,
        absolute: bool,
        parts: [Part; 5],
    },
    Call {
        call: u8,
        thread: u8,
        arguments: [Argument; 6],
    },
    /// What the delegates answer next.
    Lie {
        honest: u8,
        value: Option<Value>,
        length: Option<u32>,
        data: Option<[u8; 16]>,
    },
    Usual(Step),
}

/// Calls about paths or open files.
#[rustfmt::skip]
const CALLS: &[u64] = &[
    nr::open, nr::openat, nr::openat2, nr::creat, nr::read, nr::write, nr::pread64, nr::pwrite64,
    nr::readv, nr::writev, nr::preadv2, nr::pwritev2, nr::lseek, nr::stat, nr::lstat, nr::fstat,
    nr::newfstatat, nr::statx, nr::statfs, nr::fstatfs, nr::access, nr::faccessat, nr::faccessat2,
    nr::readlink, nr::readlinkat, nr::getdents, nr::getdents64, nr::getcwd, nr::chdir, nr::fchdir,
    nr::chroot, nr::mkdir, nr::mkdirat, nr::mknod, nr::mknodat, nr::rmdir, nr::unlink, nr::unlinkat,
    nr::rename, nr::renameat, nr::renameat2, nr::link, nr::linkat, nr::symlink, nr::symlinkat,
    nr::chmod, nr::fchmod, nr::fchmodat, nr::chown, nr::lchown, nr::fchown, nr::fchownat, nr::utime,
    nr::utimes, nr::futimesat, nr::utimensat, nr::truncate, nr::ftruncate, nr::fallocate, nr::fsync,
    nr::umask, nr::flock, nr::fcntl, nr::ioctl, nr::mmap, nr::sendfile, nr::splice,
    nr::copy_file_range, nr::dup, nr::dup2, nr::close, nr::close_range, nr::execve, nr::fork,
    nr::getxattr, nr::socket, nr::epoll_ctl, nr::poll,
];

fn with_files() -> Policy {
    let mut policy = policy();
    for program in &mut policy.programs {
        let rule = |(path, write): (&str, bool)| FileRule { path: path.into(), write };
        program.files = ENTRIES.into_iter().map(rule).collect();
    }
    policy
}

/// A form of interception, then steps.
pub fn target(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let form = *input.choose(&Form::ALL).unwrap_or(&Form::Watched);
    let Some(mut machine) = Machine::start(form, with_files()) else { return };
    {
        let mut store = machine.g.world.net.store.borrow_mut();
        store.files.insert("/etc/hosts".into(), b"10.0.0.1 there".to_vec());
        store.files.insert("/srv/data/a".into(), vec![7; 9000]);
        store.files.insert("/srv/a".into(), vec![8; 100]);
    }
    for _ in 0..100 {
        let Ok(step) = FileStep::arbitrary(&mut input) else { break };
        machine.take_file_step(&step, &mut input);
        machine.check_files();
        if input.is_empty() || !machine.has_room() {
            break;
        }
    }
    machine.end();
}

fn text(absolute: bool, parts: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (n, part) in parts.iter().enumerate() {
        if n > 0 || absolute {
            bytes.push(b'/');
        }
        match part {
            Part::Srv => bytes.extend(b"srv"),
            Part::Data => bytes.extend(b"data"),
            Part::A => bytes.push(b'a'),
            Part::Etc => bytes.extend(b"etc"),
            Part::Hosts => bytes.extend(b"hosts"),
            Part::Up => bytes.extend(b".."),
            Part::Here => bytes.push(b'.'),
            Part::Nothing => {}
            Part::Descriptor(n) => {
                bytes.extend(format!("proc/self/fd/{}", FIRST_FD + u64::from(n % 16)).bytes());
            }
            Part::Long(n) => bytes.extend(vec![b'l'; usize::from(n % 1300)]),
            Part::Odd(byte) => bytes.push(*byte),
        }
    }
    bytes.push(0);
    bytes
}

impl Machine {
    fn argument(&self, argument: Argument) -> u64 {
        match argument {
            Argument::Path(second) => PATHS[usize::from(second)],
            Argument::Descriptor(n) => FIRST_FD + u64::from(n) % (self.next_fd as u64 - 39).max(1),
            Argument::Current => linux_abi::AT_FDCWD as u64,
            Argument::Buffer(offset) => self.place(Place::Data(offset)),
            Argument::Flag(one, two) => 1 << (one % 32) | 1 << (two % 32),
            Argument::Small(n) => n.into(),
            Argument::Other(value) => self.value(value),
        }
    }

    fn take_file_step(&mut self, step: &FileStep, input: &mut Unstructured<'_>) {
        match *step {
            FileStep::Path { second, absolute, parts } => {
                let bytes = text(absolute, &parts);
                let _ = self.tables().write_through(PATHS[usize::from(second)], &bytes);
            }
            FileStep::Call { call, thread, arguments } => {
                let number = CALLS[usize::from(call) % CALLS.len()];
                let arguments = arguments.map(|a| Value::Any(self.argument(a)));
                // The trusted program's address space, or that of a child.
                let space = (self.spaces.len() - 1).max(2) as u8 * u8::from(thread >= 128);
                let number = number as u16;
                self.take(&Step::Call { space, thread, number, arguments }, input);
            }
            FileStep::Lie { honest, value, length, data } => {
                let value = value.map(|value| self.value(value) as i64);
                let mut lies = self.g.world.net.lies.borrow_mut();
                lies.extend((0..honest % 4).map(|_| Lie::default()));
                lies.push_back(Lie { value, length, data });
            }
            FileStep::Usual(step) => {
                self.take(&step, input);
                self.check(&step);
            }
        }
    }

    fn check_files(&self) {
        let asked = std::mem::take(&mut self.g.world.net.store.borrow_mut().asked);
        for (request, bytes) in &asked {
            let (first, second) = match *request {
                FileRequest::Open { place, .. } => (place, wire::Place::default()),
                FileRequest::Path { first, second, .. } => (first, second),
                _ => continue,
            };
            let (one, two) = bytes.split_at(first.length() as usize);
            check_path(request, one, first.root.into(), changes(request).0);
            if second.length() > 0 {
                check_path(request, two, second.root.into(), changes(request).1);
            }
        }
        let sockets = self.g.world.net.sockets.borrow();
        for (delegate, request) in self.g.world.net.log.borrow_mut().drain(..) {
            let Request::File(FileRequest::Act { fd, action, .. }) = request else { continue };
            let changes =
                [FileAction::Mode, FileAction::Owner, FileAction::Times].contains(&action);
            let file = sockets.get(&(delegate, fd)).and_then(|socket| socket.file.as_ref());
            let path = file.map_or("/srv/data/", |file| &file.path);
            assert!(!changes || path.starts_with("/srv/data"), "{request:?} of {path}");
        }
    }
}

/// What a request does to its paths.
#[derive(Clone, Copy, PartialEq)]
enum Change {
    None,
    Content,
    /// The name itself comes, goes or moves.
    Name,
}

fn changes(request: &FileRequest) -> (Change, Change) {
    const PATH_ONLY: u32 = 0o10_000_000;
    const CHANGES: u32 = 0o1103;
    let FileRequest::Path { action, .. } = *request else {
        let FileRequest::Open { flags, .. } = *request else { return (Change::None, Change::None) };
        let any = flags & PATH_ONLY == 0 && flags & CHANGES != 0;
        return (if any { Change::Content } else { Change::None }, Change::None);
    };
    match action {
        PathAction::Status
        | PathAction::StatusX
        | PathAction::Access
        | PathAction::ReadLink
        | PathAction::FileSystem
        | PathAction::Enter => (Change::None, Change::None),
        PathAction::MakeDirectory
        | PathAction::MakeFile
        | PathAction::Mode
        | PathAction::Owner
        | PathAction::Times
        | PathAction::Truncate => (Change::Content, Change::None),
        PathAction::Remove | PathAction::Symlink => (Change::Name, Change::None),
        PathAction::Rename => (Change::Name, Change::Name),
        PathAction::Link => (Change::None, Change::Name),
    }
}

fn check_path(request: &FileRequest, path: &[u8], root: usize, change: Change) {
    let told = || format!("{request:?}: '{}', {root}", String::from_utf8_lossy(path));
    let (root, rest) = path.split_at(root);
    // A slash at the end says that a directory is meant.
    let root = root.strip_suffix(b"/").unwrap_or(root);
    let entry = ENTRIES.iter().find(|(entry, _)| entry.as_bytes() == root);
    let Some((entry, may_change)) = entry else { panic!("no entry: {}", told()) };
    let plain = rest.strip_suffix(b"/").unwrap_or(rest);
    let mut parts = plain.split(|byte| *byte == b'/');
    let bad = |part: &[u8]| matches!(part, b"" | b"." | b"..") || part.contains(&0);
    assert!(plain.is_empty() || !parts.any(bad), "{}", told());
    let in_data = plain == b"data" || plain.starts_with(b"data/");
    assert!(*entry != "/srv" || !in_data, "not the longest entry: {}", told());
    assert!(change == Change::None || *may_change, "changes: {}", told());
    assert!(change != Change::Name || !plain.is_empty(), "an entry: {}", told());
}
