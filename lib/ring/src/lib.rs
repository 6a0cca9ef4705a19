//! A ring of records between one producer and one consumer that do not trust each other.
//!
//! The ring lies in shared memory that the peer may change at any time. Each end keeps its own
//! position privately and only publishes it; the peer's position is checked on the copy at every
//! use. So whatever the peer writes, an end sees at worst wrong records or [`Corrupt`], never an
//! access outside the ring, and every operation ends after a bounded number of steps.
//!
//! Layout, from the ring's base (all words little endian, zero bytes are an empty ring):
//!
//! | offset | written by | what |
//! | --- | --- | --- |
//! | 0 | producer | tail: where the next record goes, a byte position in the data area |
//! | 4 | both | 1: the producer waits for room; the consumer clears it |
//! | 64 | consumer | head: where the oldest record lies |
//! | 128 | producer | data area: records of `length: u32`, payload, padding to 4 bytes |
//!
//! Head equal to tail is the empty ring, so one word of the data area always stays free.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

use memory::{Memory, OutOfBounds};

/// Longest record in bytes.
pub const MAX_RECORD: usize = 64 * 1024;
/// Bytes in front of the data area.
pub const HEADER: u64 = 128;

const TAIL: u64 = 0;
const WAITING: u64 = 4;
const HEAD: u64 = 64;
/// The length word of a record.
const LENGTH_WORD: u32 = 4;
/// Largest data area: byte positions and their sums stay below 2³².
const MAX_DATA: u64 = 1 << 30;

/// There is no room for the record now, or it is longer than the ring could ever hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// The peer wrote nonsense, or a record longer than the reader's buffer. What cannot be
/// understood has been skipped, so that the ring is usable again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Corrupt;

/// The memory offered is too small for a ring, misaligned, or shorter than claimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadRing;

/// What both ends have in common: where the ring lies.
struct Area<M> {
    memory: M,
    base: u64,
    /// Bytes of the data area, a multiple of 4.
    size: u32,
}

impl<M: Memory> Area<M> {
    fn new(memory: M, base: u64, length: u64) -> Result<Self, BadRing> {
        memory::check(base, length, memory.len(), 4).map_err(|_| BadRing)?;
        let data = length.checked_sub(HEADER).ok_or(BadRing)?.min(MAX_DATA) & !3;
        let size = u32::try_from(data).map_err(|_| BadRing)?;
        if size < 2 * LENGTH_WORD {
            return Err(BadRing);
        }
        Ok(Self { memory, base, size })
    }

    /// A position as the peer (or an earlier self) published it, if it is one.
    fn position(&self, field: u64) -> Option<u32> {
        let value = self.memory.load32(self.base + field).ok()?;
        (value < self.size && value.is_multiple_of(4)).then_some(value)
    }

    fn publish(&self, field: u64, value: u32) -> Result<(), OutOfBounds> {
        self.memory.store32(self.base + field, value)
    }

    /// Bytes from `from` on to `to`, going round.
    fn distance(&self, from: u32, to: u32) -> u32 {
        if to >= from { to - from } else { self.size - from + to }
    }

    fn advance(&self, position: u32, bytes: u32) -> u32 {
        let sum = position + bytes;
        if sum >= self.size { sum - self.size } else { sum }
    }

    /// Bytes that a record of `length` takes, or `None` where it is too long for this ring.
    fn span(&self, length: usize) -> Option<u32> {
        if length > MAX_RECORD {
            return None;
        }
        let span = LENGTH_WORD + u32::try_from(length).ok()?.next_multiple_of(4);
        (span < self.size).then_some(span)
    }

    fn data(&self, position: u32) -> u64 {
        self.base + HEADER + u64::from(position)
    }

    /// Bytes of a payload at `position` that lie before the end of the data area.
    fn before_end(&self, position: u32, length: usize) -> usize {
        length.min((self.size - position) as usize)
    }

    fn copy_in(&self, position: u32, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let (first, second) = bytes.split_at(self.before_end(position, bytes.len()));
        self.memory.write(self.data(position), first)?;
        self.memory.write(self.data(0), second)
    }

    fn copy_out(&self, position: u32, bytes: &mut [u8]) -> Result<(), OutOfBounds> {
        let middle = self.before_end(position, bytes.len());
        let (first, second) = bytes.split_at_mut(middle);
        self.memory.read(self.data(position), first)?;
        self.memory.read(self.data(0), second)
    }
}

/// The writing end.
pub struct Producer<M> {
    area: Area<M>,
    tail: u32,
}

impl<M: Memory> Producer<M> {
    /// The writing end of the ring in `memory[base .. base + length]`; goes on where an earlier
    /// producer of the same ring stopped.
    ///
    /// # Errors
    /// `BadRing`: out of the memory's bounds, misaligned (4 bytes), or too short.
    pub fn new(memory: M, base: u64, length: u64) -> Result<Self, BadRing> {
        let area = Area::new(memory, base, length)?;
        let tail = area.position(TAIL).unwrap_or(0);
        Ok(Self { area, tail })
    }

    /// Appends a record.
    ///
    /// When there is no room the ring remembers that the producer waits, and the consumer learns
    /// it from [`Consumer::writer_waits`].
    ///
    /// # Errors
    /// `Full`; for a record longer than [`Producer::longest`] always.
    pub fn push(&mut self, record: &[u8]) -> Result<(), Full> {
        self.push_parts(record, &[])
    }

    /// Appends one record made of two parts, such as a header and its data.
    ///
    /// # Errors
    /// As [`Producer::push`].
    pub fn push_parts(&mut self, first: &[u8], second: &[u8]) -> Result<(), Full> {
        let length = first.len().checked_add(second.len()).ok_or(Full)?;
        let span = self.area.span(length).ok_or(Full)?;
        if self.room() < span {
            let _ = self.area.publish(WAITING, 1);
            // The flag must be out before the head is looked at again: otherwise the consumer
            // could make room and miss the flag, and nobody would ever wake this side.
            self.area.memory.fence();
            if self.room() < span {
                return Err(Full);
            }
            let _ = self.area.publish(WAITING, 0);
        }
        self.append(span, length, first, second).map_err(|_| Full)
    }

    fn append(
        &mut self,
        span: u32,
        length: usize,
        first: &[u8],
        second: &[u8],
    ) -> Result<(), OutOfBounds> {
        let word = u32::try_from(length).unwrap_or(0);
        let payload = self.area.advance(self.tail, LENGTH_WORD);
        self.area.memory.store32(self.area.data(self.tail), word)?;
        self.area.copy_in(payload, first)?;
        let middle = u32::try_from(first.len()).unwrap_or(0);
        self.area.copy_in(self.area.advance(payload, middle), second)?;
        self.tail = self.area.advance(self.tail, span);
        self.area.publish(TAIL, self.tail)
    }

    /// Bytes free; none where the consumer's position is nonsense.
    fn room(&self) -> u32 {
        match self.area.position(HEAD) {
            Some(head) => self.area.size - self.area.distance(head, self.tail) - 4,
            None => 0,
        }
    }

    /// True when a record of this length would be taken now.
    #[must_use]
    pub fn fits(&self, length: usize) -> bool {
        self.area.span(length).is_some_and(|span| span <= self.room())
    }

    /// Length of the longest record that this ring can ever hold.
    #[must_use]
    pub fn longest(&self) -> usize {
        MAX_RECORD.min((self.area.size - 2 * LENGTH_WORD) as usize)
    }
}

/// The reading end.
pub struct Consumer<M> {
    area: Area<M>,
    head: u32,
    /// The tail was no position and that has been reported.
    reported: bool,
}

impl<M: Memory> Consumer<M> {
    /// The reading end of the ring in `memory[base .. base + length]`; goes on where an earlier
    /// consumer of the same ring stopped.
    ///
    /// # Errors
    /// `BadRing`: out of the memory's bounds, misaligned (4 bytes), or too short.
    pub fn new(memory: M, base: u64, length: u64) -> Result<Self, BadRing> {
        let area = Area::new(memory, base, length)?;
        let head = area.position(HEAD).unwrap_or(0);
        Ok(Self { area, head, reported: false })
    }

    /// Takes the oldest record into `into` and returns its length; `None` when there is none.
    ///
    /// # Errors
    /// `Corrupt`. A record longer than `into` is skipped alone; after anything worse all that
    /// the ring holds is skipped. A tail that stays nonsense is reported once, then the ring
    /// counts as empty, so that a loop that drains it ends. (A producer on another processor may
    /// add records as fast as they are taken: a loop with other duties counts its turns.)
    pub fn pop(&mut self, into: &mut [u8]) -> Result<Option<usize>, Corrupt> {
        let Some(tail) = self.area.position(TAIL) else {
            let first = !core::mem::replace(&mut self.reported, true);
            return if first { Err(Corrupt) } else { Ok(None) };
        };
        self.reported = false;
        if tail == self.head {
            return Ok(None);
        }
        let Some((length, span)) = self.oldest(tail) else {
            self.release(tail);
            return Err(Corrupt);
        };
        let payload = self.area.advance(self.head, LENGTH_WORD);
        let copied = into.get_mut(..length).map(|into| self.area.copy_out(payload, into));
        self.release(self.area.advance(self.head, span));
        match copied {
            Some(Ok(())) => Ok(Some(length)),
            _ => Err(Corrupt),
        }
    }

    /// Length of the oldest record's payload, and the bytes that it takes in the ring.
    fn oldest(&self, tail: u32) -> Option<(usize, u32)> {
        let length = self.area.memory.load32(self.area.data(self.head)).ok()? as usize;
        let span = self.area.span(length)?;
        (span <= self.area.distance(self.head, tail)).then_some((length, span))
    }

    fn release(&mut self, head: u32) {
        self.head = head;
        let _ = self.area.publish(HEAD, head);
    }

    /// Bytes in the ring now, record headers included; zero where the producer's position is
    /// nonsense.
    #[must_use]
    pub fn fill(&self) -> u32 {
        self.area.position(TAIL).map_or(0, |tail| self.area.distance(self.head, tail))
    }

    /// True when there is nothing to pop.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.area.position(TAIL) == Some(self.head)
    }

    /// True when more than half of the ring is in use. Asked before draining, it tells whether
    /// the producer may have found the ring full.
    #[must_use]
    pub fn more_than_half_full(&self) -> bool {
        self.fill() > self.area.size / 2
    }

    /// True once after the producer found no room: to be asked after draining, and answered with
    /// a signal to the producer.
    #[must_use]
    pub fn writer_waits(&mut self) -> bool {
        // The head must be out before the flag is looked at; see `Producer::push_parts`.
        self.area.memory.fence();
        if self.area.memory.load32(self.area.base + WAITING) != Ok(1) {
            return false;
        }
        let _ = self.area.publish(WAITING, 0);
        true
    }
}

#[cfg(test)]
mod tests;
