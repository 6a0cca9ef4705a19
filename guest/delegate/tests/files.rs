//! Requests about files, on real ones, through real processes.

mod common;

use common::{Peer, Relay};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wire::file::{OWN_POSITION, STATUS_SIZE, STATUSX_SIZE};
use wire::{FileAction, FileRequest, PathAction, Place, Request, layout};

const ENOENT: i64 = -2;
const EBADF: i64 = -9;
const EAGAIN: i64 = -11;
const EACCES: i64 = -13;
const EEXIST: i64 = -17;
const ENOTDIR: i64 = -20;
const EINVAL: i64 = -22;
const ELOOP: i64 = -40;
const O_RDWR: u32 = 2;
const O_CREAT: u32 = 0o100;
const O_EXCL: u32 = 0o200;
const O_NOFOLLOW: u32 = 0o400_000;
const O_DIRECTORY: u32 = 0o200_000;
const NOFOLLOW: u32 = 0x100;

#[test]
fn dispatcher_process() {
    common::dispatcher_process();
}

struct Bench {
    _relay: Relay,
    peer: Arc<Peer>,
    root: PathBuf,
    _folder: Folder,
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn bench(name: &str) -> Bench {
    let relay = Relay::start();
    let delegate = relay.fork(0);
    let peer = relay.peer(delegate, 1);
    let folder = std::env::temp_dir().join(format!("trapline-files-{}-{name}", std::process::id()));
    let root = folder.join("root");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(folder.join("outside"), "secret").unwrap();
    Bench { _relay: relay, peer, root, _folder: Folder(folder) }
}

impl Bench {
    /// Puts the strings of paths and data into the mailbox.
    fn put(&self, rests: &[&str], data: &[u8]) -> Vec<Place> {
        let root = self.root.to_str().unwrap();
        let mut bytes = Vec::new();
        for rest in rests {
            bytes.extend(root.bytes().chain(rest.bytes()));
        }
        bytes.extend(data);
        self.peer.put(layout::PAYLOAD, &bytes);
        let place = |rest: &&str| Place { root: root.len() as u16, rest: rest.len() as u16 };
        rests.iter().map(place).collect()
    }

    fn open(&self, rest: &str, flags: u32, mode: u32) -> i64 {
        let place = self.put(&[rest], &[])[0];
        self.peer.value(&Request::File(FileRequest::Open { place, flags, mode, resolve: 0 }))
    }

    fn opened(&self, rest: &str, flags: u32) -> i32 {
        let mode = if flags & O_CREAT != 0 { 0o640 } else { 0 };
        i32::try_from(self.open(rest, flags, mode)).ok().filter(|fd| *fd > 2).expect("open")
    }

    fn path(&self, action: PathAction, rests: &[&str], (a, b): (u32, u32), data: &[u8]) -> i64 {
        let places = self.put(rests, data);
        let second = places.get(1).copied().unwrap_or_default();
        let (first, data) = (places[0], data.len() as u32);
        self.peer.value(&Request::File(FileRequest::Path { action, first, second, a, b, data }))
    }

    fn act(&self, fd: i32, action: FileAction, a: u64, b: u64, c: u32) -> i64 {
        self.peer.value(&Request::File(FileRequest::Act { fd, action, a, b, c }))
    }

    fn write(&self, fd: i32, at: u64, bytes: &[u8]) -> i64 {
        self.peer.put(layout::PAYLOAD, bytes);
        let length = bytes.len() as u32;
        self.peer.value(&Request::File(FileRequest::Write { fd, at, length, flags: 0 }))
    }

    fn read(&self, fd: i32, at: u64, length: u32) -> Vec<u8> {
        let request = FileRequest::Read { fd, at, length, flags: 0 };
        let response = self.peer.call(&Request::File(request));
        assert_eq!(response.value, i64::from(response.length));
        self.peer.data(layout::PAYLOAD, response.length)
    }

    fn at(&self, rest: &str) -> PathBuf {
        self.root.join(rest)
    }
}

#[test]
fn a_file_is_made_written_read_and_measured() {
    let b = bench("made");
    let fd = b.opened("new", O_RDWR | O_CREAT | O_EXCL);
    assert_eq!(b.open("new", O_RDWR | O_CREAT | O_EXCL, 0), EEXIST);
    assert_eq!(b.write(fd, OWN_POSITION, b"hello world"), 11);
    assert_eq!(b.write(fd, 6, b"W"), 1);
    assert_eq!(b.act(fd, FileAction::Seek, 0, 1, 0), 11);
    assert_eq!(b.read(fd, 4, 100), b"o World");
    assert_eq!(b.act(fd, FileAction::Seek, 2, 0, 0), 2);
    assert_eq!(b.read(fd, OWN_POSITION, 3), b"llo");
    assert_eq!(std::fs::read(b.at("new")).unwrap(), b"hello World");
    // The mode is what was asked for: the mask has been applied before.
    assert_eq!(std::fs::metadata(b.at("new")).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(b.act(fd, FileAction::Status, 0, 0, 0), 0);
    let status = b.peer.data(layout::PAYLOAD, STATUS_SIZE as u32);
    assert_eq!(status[8..16], std::fs::metadata(b.at("new")).unwrap().ino().to_ne_bytes());
    assert_eq!(status[48..56], 11u64.to_ne_bytes());
    assert_eq!(b.act(fd, FileAction::StatusX, 0, 0x7ff, 0), 0);
    let status = b.peer.data(layout::PAYLOAD, STATUSX_SIZE as u32);
    assert_eq!(status[40..48], 11u64.to_ne_bytes());
    assert_eq!(b.act(fd, FileAction::Truncate, 5, 0, 0), 0);
    assert_eq!(b.act(fd, FileAction::Allocate, 0, 20, 0), 0);
    assert_eq!(std::fs::metadata(b.at("new")).unwrap().len(), 20);
    assert_eq!(b.act(fd, FileAction::Sync, 0, 0, 0), 0);
    assert_eq!(b.act(fd, FileAction::Mode, 0o600, 0, 0), 0);
    assert_eq!(b.act(fd, FileAction::Entries, 1, 0, 4096), ENOTDIR);
    assert_eq!(b.peer.value(&Request::Close { fd }), 0);
    assert_eq!(b.act(fd, FileAction::Seek, 0, 0, 0), EBADF);
}

#[test]
fn nothing_leads_out_of_an_entry() {
    let b = bench("out");
    symlink("../outside", b.at("up")).unwrap();
    symlink(b.root.join("../outside"), b.at("absolute")).unwrap();
    symlink("..", b.at("folder")).unwrap();
    symlink("/proc/self/root", b.at("magic")).unwrap();
    symlink("in", b.at("inside")).unwrap();
    std::fs::write(b.at("in"), "fine").unwrap();
    for rest in ["up", "absolute", "folder/outside", "../outside", "magic/etc", "/etc/passwd"] {
        assert_eq!(b.open(rest, 0, 0), EACCES, "{rest}");
        assert_eq!(b.path(PathAction::Status, &[rest], (0, 0), &[]), EACCES, "{rest}");
        assert_eq!(b.path(PathAction::Truncate, &[rest], (0, 0), &[0; 8]), EACCES, "{rest}");
    }
    assert_eq!(b.path(PathAction::Remove, &["folder/outside"], (0, 0), &[]), EACCES);
    assert_eq!(b.path(PathAction::MakeDirectory, &["folder/new"], (0o755, 0), &[]), EACCES);
    assert_eq!(b.path(PathAction::Rename, &["in", "folder/in"], (0, 0), &[]), EACCES);
    let fd = b.opened("inside", 0);
    assert_eq!(b.read(fd, 0, 10), b"fine");
    assert_eq!(b.open("up", O_NOFOLLOW, 0), ELOOP);
    assert_eq!(b.path(PathAction::Status, &["up"], (NOFOLLOW, 0), &[]), 0);
    assert_eq!(std::fs::read(b.root.join("../outside")).unwrap(), b"secret");
}

#[test]
fn only_files_and_directories_are_opened() {
    let b = bench("kinds");
    let path = rustix::fs::CWD;
    rustix::fs::mknodat(path, b.at("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(b.open("fifo", 0, 0), EACCES);
    assert!(b.open("", O_DIRECTORY, 0) > 2);
    assert_eq!(b.open("gone", 0, 0), ENOENT);
    std::fs::write(b.at("file"), "").unwrap();
    assert_eq!(b.open("file/", 0, 0), ENOTDIR);
    assert_eq!(b.path(PathAction::Enter, &["file"], (0, 0), &[]), ENOTDIR);
    assert_eq!(b.path(PathAction::Enter, &[""], (0, 0), &[]), 0);
}

#[test]
fn names_are_made_moved_and_removed() {
    let b = bench("names");
    assert_eq!(b.path(PathAction::MakeDirectory, &["d/"], (0o750, 0), &[]), 0);
    assert_eq!(b.path(PathAction::MakeFile, &["d/f"], (0o600, 0), &[]), 0);
    assert_eq!(b.path(PathAction::Symlink, &["d/l"], (0, 0), b"f"), 0);
    assert_eq!(b.path(PathAction::ReadLink, &["d/l"], (0, 100), &[]), 1);
    assert_eq!(b.peer.data(layout::PAYLOAD, 1), b"f");
    assert_eq!(b.path(PathAction::ReadLink, &["d/f"], (0, 100), &[]), EINVAL);
    assert_eq!(b.path(PathAction::Link, &["d/f", "d/g"], (0, 0), &[]), 0);
    assert_eq!(b.path(PathAction::Link, &["d/l", "d/h"], (0x400, 0), &[]), 0);
    assert_eq!(std::fs::metadata(b.at("d/f")).unwrap().nlink(), 3);
    assert_eq!(b.path(PathAction::Rename, &["d/g", "moved"], (0, 0), &[]), 0);
    assert_eq!(b.path(PathAction::Mode, &["d/l"], (0o640, 0), &[]), 0);
    assert_eq!(std::fs::metadata(b.at("moved")).unwrap().permissions().mode() & 0o777, 0o640);
    let mut times = [0; 32];
    times[0] = 7;
    times[16] = 9;
    assert_eq!(b.path(PathAction::Times, &["moved"], (0, 0), &times), 0);
    assert_eq!(std::fs::metadata(b.at("moved")).unwrap().mtime(), 9);
    assert_eq!(b.path(PathAction::Truncate, &["moved"], (0, 0), &12i64.to_le_bytes()), 0);
    assert_eq!(std::fs::metadata(b.at("d/f")).unwrap().len(), 12);
    assert_eq!(b.path(PathAction::Access, &["moved"], (4, 0), &[]), 0);
    let fd = b.opened("d", O_DIRECTORY);
    let filled = b.act(fd, FileAction::Entries, 1, 0, 4096);
    assert!(filled > 0 && b.act(fd, FileAction::Entries, 1, 0, 4096) == 0);
    assert_eq!(b.path(PathAction::Remove, &["d"], (0x200, 0), &[]), -39);
    for name in ["d/f", "d/h", "d/l"] {
        assert_eq!(b.path(PathAction::Remove, &[name], (0, 0), &[]), 0, "{name}");
    }
    assert_eq!(b.path(PathAction::Remove, &["d"], (0x200, 0), &[]), 0);
    assert!(!Path::exists(&b.at("d")));
}

#[test]
fn locks_are_those_of_the_file() {
    let b = bench("locks");
    let (one, two) = (b.opened("f", O_RDWR | O_CREAT), b.opened("f", O_RDWR));
    assert_eq!(b.act(one, FileAction::Lock, 2, 0, 0), 0);
    assert_eq!(b.act(two, FileAction::Lock, 1, 0, 0), EAGAIN);
    assert_eq!(b.act(one, FileAction::Lock, 8, 0, 0), 0);
    assert_eq!(b.act(two, FileAction::Lock, 1, 0, 0), 0);
    // F_OFD_SETLK of a write lock on everything.
    let mut lock = [0; 32];
    lock[0] = 1;
    let record = |fd: i32, command: u64| {
        b.peer.put(layout::PAYLOAD, &lock);
        b.act(fd, FileAction::RecordLock, command, 0, 0)
    };
    assert_eq!(record(one, 37), 0);
    assert_eq!(record(two, 37), EAGAIN);
    assert_eq!(record(two, 36), 0);
    assert_eq!(b.peer.data(layout::PAYLOAD, 2), [1, 0]);
    assert_eq!(record(two, 38), EINVAL, "one that waits");
}

#[test]
fn copies_between_files_move_positions() {
    let b = bench("copies");
    let (from, to) = (b.opened("from", O_RDWR | O_CREAT), b.opened("to", O_RDWR | O_CREAT));
    assert_eq!(b.write(from, OWN_POSITION, b"0123456789"), 10);
    let mut positions = 4i64.to_le_bytes().to_vec();
    positions.extend([0xff; 8]);
    b.peer.put(layout::PAYLOAD, &positions);
    assert_eq!(b.act(from, FileAction::Copy, to as u64, 100, 0), 6);
    assert_eq!(b.peer.data(layout::PAYLOAD, 8), 10i64.to_le_bytes());
    assert_eq!(std::fs::read(b.at("to")).unwrap(), b"456789");
    assert_eq!(b.act(to, FileAction::Seek, 0, 1, 0), 6);
}

#[test]
fn odd_requests_are_errors() {
    let b = bench("odd");
    let fd = b.opened("f", O_RDWR | O_CREAT);
    let long = layout::PAYLOAD_MAX + 1;
    let (first, second) = (Place { root: u16::MAX, rest: u16::MAX }, Place::default());
    b.peer.put(layout::PAYLOAD, &[0; 64]);
    let requests = [
        FileRequest::Read { fd, at: 0, length: long, flags: 0 },
        FileRequest::Write { fd, at: 0, length: u32::MAX, flags: 0 },
        FileRequest::Act { fd, action: FileAction::Entries, a: 1, b: 0, c: long },
        FileRequest::Open { place: first, flags: 0, mode: 0, resolve: 0 },
        FileRequest::Path { action: PathAction::Remove, first, second, a: 0, b: 0, data: 0 },
        FileRequest::Path { action: PathAction::Owner, first, second, a: 0, b: 0, data: long },
    ];
    for request in requests {
        assert_eq!(b.peer.value(&Request::File(request)), EINVAL, "{request:?}");
    }
    for fd in [-1, 0, 1, 2, 3] {
        let request = FileRequest::Act { fd, action: FileAction::Status, a: 0, b: 0, c: 0 };
        assert_eq!(b.peer.value(&Request::File(request)), EBADF);
    }
    assert!(b.peer.is_alive());
}
