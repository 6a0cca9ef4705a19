//! Files of the fake service VM: names and bytes, and directories only where a name ends with `/`.
use super::{Service, Sockets, Window, copy, open};
use memory::Memory;
use std::collections::BTreeMap;
use wire::file::{FILE_SYSTEM_SIZE, OWN_POSITION, RECORD_LOCK_SIZE, STATUS_SIZE, STATUSX_SIZE};
use wire::{FileAction, FileRequest, PathAction, Place, Response, layout};

/// What there is.
#[derive(Clone, Debug, Default)]
pub struct Store {
    /// Content by path.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Modes of files that were made.
    pub modes: BTreeMap<String, u32>,
    /// Attempts to lock that still fail.
    pub busy: u32,
    /// Requests about paths, with the strings that came with them.
    pub asked: Vec<(FileRequest, Vec<u8>)>,
}

/// No file gets longer.
const LARGEST: usize = 1 << 20;

/// An open file.
#[derive(Clone, Debug)]
pub struct Open {
    /// Its path when it was opened.
    pub path: String,
    position: u64,
    flags: u32,
}

fn data(m: &Window, value: i64, bytes: &[u8]) -> Response {
    m.write(layout::PAYLOAD, bytes).unwrap();
    Response { length: bytes.len() as u32, ..Response::value(value) }
}

fn status(store: &Store, m: &Window, path: &str) -> Response {
    let Some(content) = store.files.get(path.trim_end_matches('/')) else {
        return Response::value(-2);
    };
    let mut bytes = [0; STATUS_SIZE];
    bytes[48..56].copy_from_slice(&(content.len() as u64).to_le_bytes());
    data(m, 0, &bytes)
}

impl Service {
    pub(super) fn file(
        &self,
        m: &Window,
        sockets: &mut Sockets,
        delegate: u32,
        request: &FileRequest,
    ) -> Response {
        let store = &mut *self.store.borrow_mut();
        if let FileRequest::Open { place, .. } | FileRequest::Path { first: place, .. } = *request {
            let second = match *request {
                FileRequest::Path { second, .. } => second.length(),
                _ => 0,
            };
            store.asked.push((*request, copy(m, layout::PAYLOAD, place.length() + second)));
        }
        match *request {
            FileRequest::Open { place, flags, mode, .. } => {
                let path = paths(m, place, Place::default()).0;
                match store.files.contains_key(&path) {
                    true if flags & 0o300 == 0o300 => return Response::value(-17),
                    false if flags & 0o100 == 0 => return Response::value(-2),
                    false => drop(store.modes.insert(path.clone(), mode)),
                    true => {}
                }
                let content = store.files.entry(path.clone()).or_default();
                if flags & 0o1000 != 0 {
                    content.clear();
                }
                let file = Some(Open { path, position: 0, flags });
                Response::value(self.add(
                    sockets,
                    delegate,
                    super::Sock { file, ..Default::default() },
                ))
            }
            FileRequest::Path { action, first, second, .. } => {
                let (first, second) = paths(m, first, second);
                path(store, m, action, &first, second)
            }
            FileRequest::Read { fd, .. }
            | FileRequest::Write { fd, .. }
            | FileRequest::Act { fd, .. } => {
                let Some(file) = open(sockets, delegate, fd).and_then(|s| s.file.as_mut()) else {
                    return Response::value(-9);
                };
                with_file(store, m, file, request)
            }
        }
    }
}

fn paths(m: &Window, first: Place, second: Place) -> (String, String) {
    let bytes = copy(m, layout::PAYLOAD, first.length() + second.length());
    let (one, two) = bytes.split_at(first.length() as usize);
    let join = |text: &[u8], place: Place| {
        let (root, rest) = text.split_at(place.root as usize);
        let [root, rest] = [root, rest].map(String::from_utf8_lossy);
        if rest.is_empty() { root.into() } else { format!("{root}/{rest}") }
    };
    (join(one, first), join(two, second))
}

fn path(
    store: &mut Store,
    m: &Window,
    action: PathAction,
    first: &str,
    second: String,
) -> Response {
    Response::value(match action {
        PathAction::Status => return status(store, m, first),
        PathAction::Enter | PathAction::Access => 0,
        PathAction::Remove => {
            if store.files.remove(first).is_some() {
                0
            } else {
                -2
            }
        }
        PathAction::Rename => match store.files.remove(first) {
            Some(content) => {
                store.files.insert(second, content);
                0
            }
            None => -2,
        },
        PathAction::StatusX => return data(m, 0, &[0; STATUSX_SIZE]),
        PathAction::FileSystem => return data(m, 0, &[0; FILE_SYSTEM_SIZE]),
        PathAction::ReadLink => return data(m, 1, b"a"),
        _ => 0,
    })
}

fn with_file(store: &mut Store, m: &Window, file: &mut Open, request: &FileRequest) -> Response {
    let content = store.files.entry(file.path.clone()).or_default();
    match *request {
        FileRequest::Read { at, length, .. } => {
            let from = if at == OWN_POSITION { file.position } else { at } as usize;
            let rest = content.get(from..).unwrap_or_default();
            let part = rest.get(..length as usize).unwrap_or(rest).to_vec();
            if at == OWN_POSITION {
                file.position += part.len() as u64;
            }
            data(m, part.len() as i64, &part)
        }
        FileRequest::Write { at, length, .. } => {
            let from = if at == OWN_POSITION { file.position } else { at } as usize;
            let bytes = copy(m, layout::PAYLOAD, length);
            if from > LARGEST || from + bytes.len() > LARGEST {
                return Response::value(-27);
            }
            content.resize(content.len().max(from + bytes.len()), 0);
            content[from..from + bytes.len()].copy_from_slice(&bytes);
            if at == OWN_POSITION {
                file.position += bytes.len() as u64;
            }
            Response::value(i64::from(length))
        }
        FileRequest::Act { action: FileAction::Seek, a, b, .. } => {
            let bases = [0, file.position, content.len() as u64];
            let Some(base) = bases.get(b as usize) else { return Response::value(-22) };
            file.position = base.wrapping_add(a);
            Response::value(file.position as i64)
        }
        FileRequest::Act { action: FileAction::Status, .. } => status(store, m, &file.path),
        FileRequest::Act { action: FileAction::Flags, .. } => {
            Response::value(i64::from(file.flags | 0o4000))
        }
        FileRequest::Act { action: FileAction::Lock | FileAction::RecordLock, .. } => {
            if store.busy > 0 {
                store.busy -= 1;
                return Response::value(-11);
            }
            let lock = copy(m, layout::PAYLOAD, RECORD_LOCK_SIZE as u32);
            data(m, 0, &lock)
        }
        FileRequest::Act { action, .. } => match action {
            FileAction::StatusX => data(m, 0, &[0; STATUSX_SIZE]),
            FileAction::FileSystem => data(m, 0, &[0; FILE_SYSTEM_SIZE]),
            FileAction::Copy => data(m, 0, &[0; 16]),
            // A name of one letter.
            FileAction::Entries => data(m, 24, &[1; 24]),
            _ => Response::value(0),
        },
        FileRequest::Open { .. } | FileRequest::Path { .. } => Response::value(-22),
    }
}
