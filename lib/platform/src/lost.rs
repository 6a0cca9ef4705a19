//! An access of the guest to a page that is lost: whoever keeps the guest's memory did not get it back from
//! where it was. Nothing is ever read in its place; harmed is only who needs what was in it:
//!
//! * a program gets `#SS`, upon which Linux sends it `SIGBUS`, as for memory that the processor finds broken;
//! * the guest's kernel gets the same while it reads or writes for a program, which it does with RFLAGS.AC set
//!   (SMAP, AMD APM volume 2, section 5.6): it has somewhere to go on then, and the call ends with `EFAULT`;
//! * where the kernel copies a whole page, the copy is lost too;
//! * what the kernel writes is kept here, byte by byte. When all bytes are there, the page is whole again, and is the guest's like any
//!   other. So a page that was freed and is used for something else, for which Linux clears or fills it, comes back.
//!
//! What remains is a kernel that needs the contents itself, and an event or a page walk for which the processor needs it: that can't go on.
use crate::code::{self, mode};
use crate::delivery::{PAGE_FAULT, STACK_FAULT, raise};
use abi::vcpu::{VcpuState, reg};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use decode::{Mode, StringWrite};
use memory::Memory;
use paging::{Access, Fault, Space};

/// Bytes of a page.
const PAGE: u64 = paging::PAGE;
/// Most pages that are written in parts at the same time.
const MOST_WRITTEN: usize = 256;
/// RFLAGS.DF and AC.
const DOWN: u64 = 1 << 10;
const ALIGNMENT: u64 = 1 << 18;
/// CR4.SMAP.
const SMAP: u64 = 1 << 21;
/// EXITINTINFO: valid.
const IN_DELIVERY: u64 = 1 << 31;

/// The access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LostAccess {
    /// Guest-physical address.
    pub address: u64,
    /// A write; otherwise a read or a fetch.
    pub write: bool,
    /// It was the processor's own, to a page table of the guest's.
    pub walk: bool,
}

impl LostAccess {
    /// From EXITINFO1 and EXITINFO2 of a nested page fault (AMD APM volume 2, section 15.25.6).
    #[must_use]
    pub const fn of(info1: u64, info2: u64) -> Self {
        Self { address: info2, write: info1 & 2 != 0, walk: info1 & 1 << 33 != 0 }
    }
}

/// What becomes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was carried out, as far as it concerns the page; the guest goes on.
    Done,
    /// The same, and now all of the page has been written: the page's address and contents.
    Whole(u64, Box<[u8; PAGE as usize]>),
    /// The page at this address was to become a copy: it is lost too. The guest goes on.
    Spread(u64),
    /// A program, or the kernel on its behalf, gets an exception.
    Raised,
    /// The guest can't go on.
    Fatal,
}

/// Bytes of a lost page that have been written since.
struct Written {
    bytes: Box<[u8; PAGE as usize]>,
    there: [u64; PAGE as usize / 64],
    count: u64,
}

impl Written {
    fn new() -> Self {
        Self { bytes: Box::new([0; PAGE as usize]), there: [0; PAGE as usize / 64], count: 0 }
    }

    /// Bytes at an offset; those beyond the page's end are left out.
    fn put(&mut self, offset: u64, bytes: &[u8]) {
        for (at, byte) in (offset as usize..).zip(bytes) {
            let Some(place) = self.bytes.get_mut(at) else { return };
            *place = *byte;
            if let Some(word) = self.there.get_mut(at / 64) {
                let bit = 1 << (at % 64);
                self.count += u64::from(*word & bit == 0);
                *word |= bit;
            }
        }
    }
}

/// Lost pages of which parts have been written, by their addresses.
#[derive(Default)]
pub struct Lost(BTreeMap<u64, Written>);

impl Lost {
    /// The guest, whose processor is in `state` before the instruction with these `bytes`, accesses a lost page. `is_lost`
    /// tells of any address of `ram` whether its page is.
    pub fn access(
        &mut self,
        access: LostAccess,
        bytes: &[u8],
        state: &mut VcpuState,
        ram: &impl Memory,
        is_lost: impl Fn(u64) -> bool,
    ) -> Outcome {
        let kernel = state.cpl == 0;
        if access.walk || state.exit_int_info & IN_DELIVERY != 0 {
            return Outcome::Fatal;
        }
        let for_program = !kernel || state.cr4 & SMAP != 0 && state.rflags & ALIGNMENT != 0;
        let done = match kernel && mode(state) == Mode::Bits64 {
            true if access.write => self.write(access.address, bytes, state, ram, &is_lost),
            true if !for_program => self.spread(bytes, state, ram),
            _ => None,
        };
        match done {
            Some(outcome) => outcome,
            None if for_program => {
                raise(state, STACK_FAULT, Some(0));
                Outcome::Raised
            }
            None => Outcome::Fatal,
        }
    }

    /// Carries out the kernel's write.
    fn write(
        &mut self,
        address: u64,
        bytes: &[u8],
        state: &mut VcpuState,
        ram: &impl Memory,
        is_lost: &impl Fn(u64) -> bool,
    ) -> Option<Outcome> {
        let (page, offset) = (address & !(PAGE - 1), address & (PAGE - 1));
        if self.0.len() >= MOST_WRITTEN && !self.0.contains_key(&page) {
            return None;
        }
        let mut data = [0; PAGE as usize];
        let length = if let Ok(string) = decode::string_write(bytes, Mode::Bits64) {
            let elements = elements(&string, offset, state)?;
            let wanted = elements * u64::from(string.width);
            let length = if string.copies {
                match source(wanted, &string, state, ram, is_lost, &mut data)? {
                    0 => return Some(Outcome::Raised),
                    length => length,
                }
            } else {
                let value = state.regs.r[reg::RAX].to_le_bytes();
                let value = value.get(..usize::from(string.width))?;
                let places = data.get_mut(..wanted as usize)?;
                places.chunks_exact_mut(value.len()).for_each(|place| place.copy_from_slice(value));
                wanted
            };
            advance(&string, length, state);
            length
        } else {
            let access = decode::memory_access(bytes, Mode::Bits64).ok()?;
            let value = access.stored(&state.regs)?.to_le_bytes();
            let inside = decode::operand_address(bytes, state)? & (PAGE - 1) == offset;
            if !inside || offset + u64::from(access.width) > PAGE {
                return None;
            }
            data.get_mut(..8)?.copy_from_slice(&value);
            code::advance(state, access.length);
            u64::from(access.width)
        };
        Some(self.put(page, offset, data.get(..length as usize)?))
    }

    fn put(&mut self, page: u64, offset: u64, data: &[u8]) -> Outcome {
        let written = self.0.entry(page).or_insert_with(Written::new);
        written.put(offset, data);
        if written.count < PAGE {
            return Outcome::Done;
        }
        self.0.remove(&page).map_or(Outcome::Done, |written| Outcome::Whole(page, written.bytes))
    }

    /// Where the kernel copies a whole page that is lost, the copy is lost.
    fn spread(
        &mut self,
        bytes: &[u8],
        state: &mut VcpuState,
        ram: &impl Memory,
    ) -> Option<Outcome> {
        let string = decode::string_write(bytes, Mode::Bits64).ok().filter(|s| s.copies)?;
        let (from, to) = (state.regs.r[reg::RSI], state.regs.r[reg::RDI]);
        let whole = elements(&string, to & (PAGE - 1), state)? * u64::from(string.width) == PAGE;
        if !whole || from & (PAGE - 1) != 0 {
            return None;
        }
        let found = Space::stopped(ram, state.cr3).find(to, Access::KernelRead).ok()?;
        if found.physical >= ram.len() {
            return None;
        }
        self.0.remove(&found.physical);
        advance(&string, PAGE, state);
        Some(Outcome::Spread(found.physical))
    }
}

/// How many elements the instruction writes within the page, from this offset on; `None` where that is not one at least, or it
/// goes downwards.
fn elements(string: &StringWrite, offset: u64, state: &VcpuState) -> Option<u64> {
    let count = if string.repeated { state.regs.r[reg::RCX] } else { 1 };
    let same = state.regs.r[reg::RDI] & (PAGE - 1) == offset;
    let room = (PAGE - offset) / u64::from(string.width);
    let elements = count.min(room);
    (same && state.rflags & DOWN == 0 && elements > 0).then_some(elements)
}

/// So many bytes have been written: on to the rest, or to the next instruction.
fn advance(string: &StringWrite, length: u64, state: &mut VcpuState) {
    let r = &mut state.regs.r;
    r[reg::RDI] = r[reg::RDI].wrapping_add(length);
    if string.copies {
        r[reg::RSI] = r[reg::RSI].wrapping_add(length);
    }
    if string.repeated {
        r[reg::RCX] = r[reg::RCX].wrapping_sub(length / u64::from(string.width));
    }
    if !string.repeated || r[reg::RCX] == 0 {
        code::advance(state, string.length);
    }
}

/// Reads what a `movs` is to write, `wanted` bytes or as many elements as the source's page has: how many bytes. 0 when the guest gets
/// a page fault for it; `None` where it can't be read.
fn source(
    wanted: u64,
    string: &StringWrite,
    state: &mut VcpuState,
    ram: &impl Memory,
    is_lost: &impl Fn(u64) -> bool,
    data: &mut [u8],
) -> Option<u64> {
    let from = state.regs.r[reg::RSI];
    // Programs' addresses are the lower half.
    let access = if from >> 63 == 0 { Access::Read } else { Access::KernelRead };
    let found = match Space::stopped(ram, state.cr3).find(from, access) {
        Ok(found) => found,
        Err(Fault::NeedsPopulate) if access == Access::Read => {
            state.cr2 = from;
            // The kernel's read of a page that is not there.
            raise(state, PAGE_FAULT, Some(0));
            return Some(0);
        }
        Err(_) => return None,
    };
    let width = u64::from(string.width);
    let here = (PAGE - (found.physical & (PAGE - 1))).min(wanted) / width * width;
    let into = data.get_mut(..here as usize)?;
    let good = here > 0 && !is_lost(found.physical) && ram.read(found.physical, into).is_ok();
    good.then_some(here)
}

#[cfg(test)]
mod tests;
