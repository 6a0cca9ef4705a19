//! Requests about files, as a worker of a delegate gets them, on a real folder.
//!
//! Promised: nothing panics; what lies beside the folder that the policy names is neither read nor
//! changed, whatever the rest of a path says and whatever links there are.
use crate::delegate::Bench;
use arbitrary::{Arbitrary, Unstructured};
use delegate::sockets::Sockets;
use memory::Memory;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};
use wire::{FileAction, FileRequest, PathAction, Place, Request, layout};

static BENCH: LazyLock<Mutex<Bench>> =
    LazyLock::new(|| Mutex::new(Bench::new().expect("a worker")));

/// What nobody may read: the text of files that lie outside.
const SECRET: &[u8] = b"what lies outside is nobody's business";
/// More than paths and data take.
const MAILBOX: usize = 8192;
/// No file shall fill the disk.
const LARGEST: u64 = 1 << 20;

/// A path below the entry.
#[derive(Arbitrary, Debug)]
enum Part {
    Up,
    Here,
    A,
    B,
    Folder,
    /// A link to the folder around the entry.
    Out,
    /// An absolute one to the secret.
    Absolute,
    Root,
    Empty,
    Odd(u8),
}

#[derive(Arbitrary, Debug)]
enum Step {
    Open {
        path: Vec<Part>,
        flags: u32,
        mode: u16,
        resolve: u8,
    },
    Read {
        fd: u8,
        at: u16,
        length: u16,
        flags: u8,
    },
    Write {
        fd: u8,
        at: u16,
        length: u16,
        flags: u8,
    },
    Act {
        fd: u8,
        action: u8,
        a: u64,
        b: u64,
        c: u32,
    },
    Path {
        action: u8,
        first: Vec<Part>,
        second: Vec<Part>,
        a: u32,
        b: u16,
        data: [u8; 16],
    },
    /// Lengths that need not fit.
    Raw {
        words: [u64; 6],
        kind: u8,
        data: Vec<u8>,
    },
}

/// Steps.
pub fn target(bytes: &[u8]) {
    let mut bench = BENCH.lock().unwrap_or_else(PoisonError::into_inner);
    let around = folder().expect("a folder");
    let before = prepare(around.path());
    let root = around.path().join("entry");
    let root = root.to_str().expect("a path of text").as_bytes();
    let sockets = Sockets::default();
    let mut input = Unstructured::new(bytes);
    for _ in 0..40 {
        let Ok(step) = Step::arbitrary(&mut input) else { break };
        let opened: Vec<i32> = sockets.lock().keys().copied().collect();
        let mut data = Vec::new();
        let Some(header) = header(&step, root, &opened, &mut data) else { continue };
        // Nothing of earlier requests stays behind the data.
        data.resize(MAILBOX, 0);
        bench.memory().write(layout::PAYLOAD, &data).expect("inside");
        let response = bench.serve_header(&sockets, &header);
        let mut answer = vec![0; (response.length as usize).min(MAILBOX)];
        bench.memory().read(layout::PAYLOAD, &mut answer).expect("inside");
        assert!(!answer.windows(SECRET.len()).any(|window| window == SECRET), "{step:?}");
    }
    assert_eq!(outside(around.path()), before, "something outside has changed");
}

/// In memory, where that is possible.
fn folder() -> std::io::Result<tempfile::TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}

/// An entry with a few files, and secrets around it.
fn prepare(around: &Path) -> Vec<(u64, u32, u64, Vec<u8>)> {
    let entry = around.join("entry");
    let made = (|| -> std::io::Result<()> {
        fs::create_dir_all(entry.join("folder"))?;
        fs::write(around.join("secret"), SECRET)?;
        fs::create_dir(around.join("other"))?;
        fs::write(around.join("other/a"), SECRET)?;
        fs::write(entry.join("a"), b"inside")?;
        symlink("..", entry.join("out"))?;
        symlink(around.join("secret"), entry.join("absolute"))
    })();
    made.expect("a prepared folder");
    outside(around)
}

/// What is to be seen of all that lies outside of the entry.
fn outside(around: &Path) -> Vec<(u64, u32, u64, Vec<u8>)> {
    let seen = ["secret", "other", "other/a"].map(|name| {
        let path = around.join(name);
        let status = fs::metadata(&path).expect("it is there");
        let text = if status.is_file() { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        (status.ino(), status.mode(), status.nlink(), text)
    });
    let mut seen = Vec::from(seen);
    let mut names: Vec<_> = fs::read_dir(around).expect("a folder").flatten().collect();
    names.sort_by_key(fs::DirEntry::file_name);
    let names = names.iter().map(fs::DirEntry::file_name).collect::<Vec<_>>();
    let status = fs::metadata(around).expect("it is there");
    seen.push((status.ino(), status.mode(), names.len() as u64, format!("{names:?}").into()));
    seen
}

fn text(path: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (n, part) in path.iter().take(8).enumerate() {
        if n > 0 {
            bytes.push(b'/');
        }
        match part {
            Part::Up => bytes.extend(b".."),
            Part::Here => bytes.push(b'.'),
            Part::A => bytes.push(b'a'),
            Part::B => bytes.push(b'b'),
            Part::Folder => bytes.extend(b"folder"),
            Part::Out => bytes.extend(b"out"),
            Part::Absolute => bytes.extend(b"absolute"),
            Part::Root => bytes.extend(b"/proc/self/root"),
            Part::Empty => {}
            Part::Odd(byte) => bytes.push(*byte),
        }
    }
    bytes
}

/// Puts a path's two strings into the data.
fn place(root: &[u8], path: &[Part], data: &mut Vec<u8>) -> Place {
    let rest = text(path);
    data.extend(root);
    data.extend(&rest);
    Place { root: root.len() as u16, rest: rest.len() as u16 }
}

fn header(
    step: &Step,
    root: &[u8],
    opened: &[i32],
    data: &mut Vec<u8>,
) -> Option<[u8; Request::SIZE]> {
    let fd = |raw: u8| {
        let n = usize::from(raw) % (opened.len() + 1);
        opened.get(n).copied().unwrap_or(i32::from(raw))
    };
    let request = match step {
        Step::Open { path, flags, mode, resolve } => FileRequest::Open {
            place: place(root, path, data),
            flags: *flags,
            mode: u32::from(*mode),
            resolve: u32::from(*resolve),
        },
        Step::Read { fd: raw, at, length, flags } => FileRequest::Read {
            fd: fd(*raw),
            at: position(*at),
            length: u32::from(*length),
            flags: u32::from(*flags),
        },
        Step::Write { fd: raw, at, length, flags } => FileRequest::Write {
            fd: fd(*raw),
            at: position(*at),
            length: u32::from(*length),
            flags: u32::from(*flags),
        },
        Step::Act { fd: raw, action, a, b, c } => act(fd(*raw), *action, (*a, *b, *c), opened),
        Step::Path { action, first, second, a, b, data: more } => {
            let first = place(root, first, data);
            let second = place(root, second, data);
            data.extend(more);
            let action = *PathAction::ALL.get(usize::from(*action) % PathAction::ALL.len())?;
            let b = u32::from(*b);
            FileRequest::Path { action, first, second, a: *a, b, data: more.len() as u32 }
        }
        Step::Raw { words, kind, data: more } => return Some(raw(*kind, words, more, data)),
    };
    Some(Request::File(request).encode())
}

fn position(at: u16) -> u64 {
    if at == u16::MAX { wire::file::OWN_POSITION } else { u64::from(at) }
}

fn act(fd: i32, action: u8, (a, b, c): (u64, u64, u32), opened: &[i32]) -> FileRequest {
    let all = FileAction::ALL;
    let action = all.get(usize::from(action) % all.len()).copied().unwrap_or(FileAction::Flags);
    let (a, b) = match action {
        FileAction::Allocate => (a % LARGEST, b % LARGEST),
        FileAction::Copy => {
            let to = opened.get(a as usize % (opened.len() + 1));
            (to.map_or(a, |fd| *fd as u64), b % LARGEST)
        }
        _ => (a, b),
    };
    FileRequest::Act { fd, action, a, b, c }
}

/// A header whose lengths and numbers need not fit. Its first path begins with NUL, or is empty: it
/// leads nowhere.
fn raw(kind: u8, words: &[u64; 6], more: &[u8], data: &mut Vec<u8>) -> [u8; Request::SIZE] {
    let mut header = [0; Request::SIZE];
    // To open, to do something about a path, and one that does not exist.
    let head = [[50, 54, 55][usize::from(kind % 3)]];
    for (place, word) in header.chunks_exact_mut(8).zip(head.iter().chain(words)) {
        place.copy_from_slice(&u64::to_le_bytes(*word));
    }
    data.push(0);
    data.extend(more.iter().take(256));
    header
}
