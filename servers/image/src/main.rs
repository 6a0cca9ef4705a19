//! The image manager: files of the boot archive, mapped read-only straight from where the boot
//! loader put them, so that all who use a file use the same memory; and private views of them,
//! whose pages are copied for their client when it writes.
//!
//! Configuration: capability `archive`; parameter `files`, a list `offset:length,…` of the files'
//! places in the archive, numbered from zero; region `ledger`, where it tells what there is of each file, and
//! behind these rows what each space has been shown of all files. The badge
//! of a region's portal is the number of its space, below 64. For private views see `private.rs`.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod private;

use abi::{Access, Error, FaultMessage, FaultReply, MemRights, Selector};
use alloc::vec::Vec;
use backing::{CHUNK, Object, Piece, Tag, piece};
use ledger::Row;
use private::Private;
use rt::Shared;
use spin::{Mutex, Once};

rt::entry!(main);

/// What the threads share. They run on different processors, so a spin lock is enough.
struct State {
    files: Vec<File>,
    private: Option<Private>,
    /// What each space has been shown, by its number.
    clients: [Row; CLIENTS],
    ledger: Option<Shared>,
}

/// Most spaces that are told apart.
const CLIENTS: usize = 64;

/// A file, and who uses what of it.
struct File {
    object: Object,
    /// For each chunk, whether any of it was ever mapped.
    touched: Vec<bool>,
    /// The spaces that have mapped any of it, as bits.
    spaces: u64,
    row: Row,
}

static STATE: Once<Mutex<State>> = Once::new();

impl State {
    fn from_config() -> Self {
        let list = rt::config().parameter("files").unwrap_or("");
        let files = Object::list(list).map(|file| match file {
            Ok(object) => File::new(object),
            Err(part) => panic!("parameter 'files' is malformed at '{part}'"),
        });
        let ledger = Shared::region("ledger");
        let clients = [Row::default(); CLIENTS];
        Self { files: files.collect(), private: Private::from_config(), clients, ledger }
    }

    fn serve(
        &mut self,
        badge: u64,
        fault: &FaultMessage,
        memory: Selector,
    ) -> Result<FaultReply, Error> {
        let tag = Tag::decode(fault.tag);
        let files = self.files.len();
        if let Some(view) = (tag.object as usize).checked_sub(files) {
            let private = self.private.as_mut().ok_or(Error::NoRegion)?;
            return private.serve(badge, view as u32, tag.offset, fault, memory);
        }
        if fault.access == Access::Write {
            return Err(Error::NoRight);
        }
        let file = self.files.get_mut(tag.object as usize).ok_or(Error::NoRegion)?;
        let found = piece(file.object, tag, fault);
        let found = found.ok_or(Error::BadAddress)?;
        file.shown(badge, &found);
        let number = badge as usize % CLIENTS;
        let client = &mut self.clients[number];
        client.shown += found.length;
        client.faults += 1;
        if let Some(ledger) = &self.ledger {
            // What finds no room there is told to nobody.
            let _ = file.row.write(ledger, tag.object.into());
            let _ = client.write(ledger, (files + number) as u64);
        }
        Ok(of_file(memory, &found))
    }
}

/// Maps a piece of a file, which nobody may write to.
fn of_file(memory: Selector, piece: &Piece) -> FaultReply {
    FaultReply::Map {
        memory,
        memory_offset: piece.memory_offset,
        region_offset: piece.region_offset,
        length: piece.length,
        rights: MemRights::READ | MemRights::EXEC,
    }
}

impl File {
    fn new(object: Object) -> Self {
        let touched = alloc::vec![false; object.length.div_ceil(CHUNK) as usize];
        let row = Row { size: object.length, quota: object.length, ..Row::default() };
        Self { object, touched, spaces: 0, row }
    }

    /// Notes that a space has been shown a piece. It is in memory all the time; what counts as such
    /// is what anybody has ever asked for.
    fn shown(&mut self, badge: u64, piece: &Piece) {
        let touched = usize::try_from(piece.chunk).ok().and_then(|c| self.touched.get_mut(c));
        if touched.is_some_and(|touched| !core::mem::replace(touched, true)) {
            self.row.resident += piece.length;
            self.row.resident_most = self.row.resident;
        }
        self.spaces |= 1 << (badge % CLIENTS as u64);
        self.row.spaces = self.spaces.count_ones().into();
        self.row.shown += piece.length;
        self.row.faults += 1;
    }
}

fn main(_thread: u64) -> ! {
    let state = STATE.call_once(|| Mutex::new(State::from_config()));
    let Some(memory) = rt::config().capability("archive") else {
        panic!("no capability 'archive' in the configuration");
    };
    rt::serve_faults(|badge, fault| state.lock().serve(badge, fault, Selector(memory)))
}
