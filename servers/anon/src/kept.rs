//! An object of anonymous memory, and what was done with it.
use abi::{Error, FaultMessage};
use alloc::vec::Vec;
use backing::stack::{self, STEP, Touch};
use backing::{CHUNK, Object, Piece, Tag, piece};
use core::ops::Range;
use ledger::Row;
use memory::Memory;
use rt::Shared;

/// What kind of object it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Comes into being in chunks, wherever it is touched.
    Plain,
    /// Comes into being from its end downwards, above a guard.
    Stack,
    /// Its client's quota has no room for it.
    Refused,
}

/// An object.
pub struct Kept {
    object: Object,
    kind: Kind,
    /// Which parts are zeroed: chunks, or steps of a stack.
    zeroed: Vec<bool>,
    /// Where that is written down: offset in the region `state`.
    noted: u64,
    /// The spaces that have mapped any of it, as bits.
    spaces: u64,
    /// What is told of it.
    pub row: Row,
}

impl Kept {
    /// An object; what is written down from `noted` on tells what an earlier run of this program did with it.
    pub fn new(object: Object, kind: Kind, state: Option<&Shared>, noted: u64) -> Self {
        let unit = if kind == Kind::Stack { STEP } else { CHUNK };
        let parts = object.length.div_ceil(unit);
        let was = |part: u64| {
            let mut byte = [0];
            state.is_some_and(|s| s.read(noted + part, &mut byte).is_ok() && byte == [1])
        };
        let zeroed: Vec<bool> = (0..parts).map(was).collect();
        let mut row = Row { size: object.length, quota: object.length, ..Row::default() };
        let lengths = (0..).zip(&zeroed).filter(|(_, zeroed)| **zeroed);
        row.resident = lengths.map(|(n, _)| unit.min(object.length - n * unit)).sum();
        row.resident_most = row.resident;
        Self { object, kind, zeroed, noted, spaces: 0, row }
    }

    /// Bytes of the region `state` that an object takes.
    pub const fn notes(object: Object) -> u64 {
        object.length.div_ceil(STEP)
    }

    /// What to map for a fault, zeroed.
    pub fn resolve(
        &mut self,
        tag: Tag,
        fault: &FaultMessage,
        pool: &Shared,
        state: Option<&Shared>,
    ) -> Result<Piece, Error> {
        let (piece, fresh) = match self.kind {
            Kind::Refused => return Err(Error::NoMemory),
            Kind::Plain => self.plain(tag, fault),
            Kind::Stack => {
                let parts = self.zeroed.iter().filter(|zeroed| **zeroed).count() as u64;
                let grown = (parts * STEP).min(self.object.length);
                match stack::touch(self.object, grown, fault.offset, fault.region_length) {
                    Some(Touch::Overflow) => return Err(Error::StackOverflow),
                    Some(Touch::Map { piece, fresh }) => Some((piece, fresh)),
                    None => None,
                }
            }
        }
        .ok_or(Error::BadAddress)?;
        self.zero(fresh, pool, state)?;
        Ok(piece)
    }

    /// The piece that a fault gets. The whole chunk comes into being, also what this region does not
    /// show: another region may.
    fn plain(&self, tag: Tag, fault: &FaultMessage) -> Option<(Piece, Range<u64>)> {
        let found = piece(self.object, tag, fault)?;
        let start = found.chunk * CHUNK;
        let ready = *self.zeroed.get(usize::try_from(found.chunk).ok()?)?;
        let length = if ready { 0 } else { CHUNK.min(self.object.length - start) };
        Some((found, start..start + length))
    }

    fn zero(
        &mut self,
        part: Range<u64>,
        pool: &Shared,
        state: Option<&Shared>,
    ) -> Result<(), Error> {
        let length = part.end - part.start;
        if length == 0 {
            return Ok(());
        }
        pool.zero(self.object.base + part.start, length).map_err(|_| Error::BadAddress)?;
        let unit = if self.kind == Kind::Stack { STEP } else { CHUNK };
        for number in part.start / unit..part.end.div_ceil(unit) {
            let ready = usize::try_from(number).ok().and_then(|n| self.zeroed.get_mut(n));
            *ready.ok_or(Error::BadAddress)? = true;
            // Not before it is zeroed: whoever runs after this program has ended believes it.
            if let Some(state) = state {
                state.write(self.noted + number, &[1]).map_err(|_| Error::BadAddress)?;
            }
        }
        self.row.resident += length;
        self.row.resident_most = self.row.resident;
        Ok(())
    }

    /// Notes that a space has been shown so many bytes.
    pub fn shown(&mut self, badge: u64, length: u64) {
        self.spaces |= 1 << (badge % 64);
        self.row.spaces = self.spaces.count_ones().into();
        self.row.shown += length;
        self.row.faults += 1;
    }
}
