//! The gate: a page of each trusted process, through which the calls that are made on its behalf
//! return. It is executable and not writable for the process, and children of `fork` share their
//! parent's.
//!
//! Behind its first `SYSCALL` stands a `VMMCALL`: whatever the call's result, the relay goes on. A
//! *slot* is for a call whose result may be the program's own: with a positive one it goes on by
//! itself, as is written in the slot ([`On`]), and only otherwise the relay does. The page itself
//! says which slots there are, so that processes that share the page share them.
use crate::core::Core;
use alloc::vec::Vec;
use core::cell::RefCell;
use memory::Memory;
use paging::{Access, PAGE, Space as Tables};

/// The gate's code: `SYSCALL`, `VMMCALL`.
pub const CODE: [u8; 5] = [0x0f, 0x05, 0x0f, 0x01, 0xd9];
/// Distance from a `SYSCALL` of the page to where its call returns.
pub const RETURN: u64 = 2;
/// Where the nonce lies in the page.
const NONCE: u64 = 16;
/// A `struct timeval` or `timespec` of zero.
const ZERO: u64 = 32;
/// The first slot.
const SLOTS: u64 = 64;
/// Bytes of a slot.
const SLOT: usize = 40;
/// Slots in the page.
const COUNT: usize = (PAGE - SLOTS) as usize / SLOT;
/// Distance from a slot's `SYSCALL` to its `VMMCALL`.
const EXIT: u64 = 15;

/// The gate page of a process; children of `fork` have their parent's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gate {
    /// Address of its `SYSCALL`.
    pub address: u64,
    /// What it holds and nobody can guess.
    pub nonce: [u8; 16],
}

impl Gate {
    /// Where calls made through it return.
    #[must_use]
    pub const fn back(self) -> u64 {
        self.address.wrapping_add(RETURN)
    }

    /// Address of a time of zero, which the program cannot change.
    #[must_use]
    pub const fn zero(self) -> u64 {
        self.address.wrapping_add(ZERO)
    }

    /// What the page begins with.
    #[must_use]
    pub fn head(self) -> [u8; SLOTS as usize] {
        let mut head = [0; SLOTS as usize];
        head[..CODE.len()].copy_from_slice(&CODE);
        head[NONCE as usize..][..self.nonce.len()].copy_from_slice(&self.nonce);
        head
    }

    /// True for an address where a slot may begin.
    #[must_use]
    pub const fn is_slot(self, address: u64) -> bool {
        let inside = address.wrapping_sub(self.address);
        let last = PAGE - SLOT as u64;
        inside >= SLOTS && inside <= last && (inside - SLOTS).is_multiple_of(SLOT as u64)
    }

    /// The slot at whose `VMMCALL` a thread stands, if it does.
    #[must_use]
    pub fn exit_of(self, rip: u64) -> Option<u64> {
        Some(rip.wrapping_sub(EXIT)).filter(|slot| self.is_slot(*slot))
    }

    /// The slot to which a call has just returned, if it has.
    #[must_use]
    pub fn return_of(self, rip: u64) -> Option<u64> {
        Some(rip.wrapping_sub(RETURN)).filter(|slot| self.is_slot(*slot))
    }

    /// True when this is the page of a gate: nothing but the gate's own code, and slots.
    #[must_use]
    pub fn is_page(self, page: &[u8]) -> bool {
        let Some((head, slots)) = page.split_at_checked(SLOTS as usize) else { return false };
        let is_free = |slot: &[u8]| slot.iter().all(|byte| *byte == 0);
        head == self.head() && slots.chunks(SLOT).all(|s| is_free(s) || parse(s).is_some())
    }
}

/// How a thread goes on out of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct On {
    /// Where.
    pub rip: u64,
    /// With what in R8: the one argument that the relay has changed.
    pub r8: u64,
}

/// A slot's code. It changes no flags: they are the program's again. RCX, which every system call
/// changes, ends as it does behind the program's own `SYSCALL`.
fn code(on: On) -> [u8; SLOT] {
    let [a, b, c, d, e, f, g, h] = on.r8.to_le_bytes();
    let [i, j, k, l, m, n, o, p] = on.rip.to_le_bytes();
    [
        0x0f, 0x05, // syscall
        0x48, 0x89, 0xc1, // mov rcx, rax
        0xe3, 0x08, // jrcxz exit
        0x48, 0x0f, 0xc9, // bswap rcx
        0x0f, 0xb6, 0xc9, // movzx ecx, cl: zero unless it was negative (or enormous)
        0xe3, 0x03, // jrcxz on
        0x0f, 0x01, 0xd9, // exit: vmmcall
        0x49, 0xb8, a, b, c, d, e, f, g, h, // on: mov r8, argument
        0x48, 0xb9, i, j, k, l, m, n, o, p, // mov rcx, address
        0xff, 0xe1, // jmp rcx
    ]
}

/// What a slot says, if this is one.
fn parse(slot: &[u8]) -> Option<On> {
    let word = |at: usize| Some(u64::from_le_bytes(slot.get(at..at + 8)?.try_into().ok()?));
    let on = On { r8: word(20)?, rip: word(30)? };
    (slot == code(on)).then_some(on)
}

/// True when an address space has this gate.
#[must_use]
pub fn is_in(core: &Core, cr3: u64, gate: Gate) -> bool {
    let tables = Tables::stopped(core.world.compute(), cr3);
    let mut head = [0; SLOTS as usize];
    // The page is executable but not writable for the process: only so its nonce proves a thing.
    tables.find(gate.address, Access::Read).is_ok()
        && tables.read(gate.address, &mut head).is_ok()
        && head == gate.head()
}

/// What the slot at an address says.
#[must_use]
pub fn on(tables: &Tables<'_, dyn Memory + '_>, slot: u64) -> Option<On> {
    let mut bytes = [0; SLOT];
    tables.read(slot, &mut bytes).ok()?;
    parse(&bytes)
}

/// Slots that were found, each with its address: what is said here is looked at again before it is
/// believed.
#[derive(Default)]
pub struct Slots(RefCell<Vec<(On, u64)>>);

impl Slots {
    /// The slot of a gate that goes on like this, made if need be. `None` when all are in use: what
    /// is once in a slot stays there, for a thread that a signal keeps may be in it.
    pub fn find(&self, tables: &Tables<'_, dyn Memory + '_>, gate: Gate, to: On) -> Option<u64> {
        let known = self.0.borrow().iter().find(|(on, _)| *on == to).map(|(_, slot)| *slot);
        if let Some(slot) = known.filter(|slot| on(tables, *slot) == Some(to)) {
            return Some(slot);
        }
        let slot = Self::look(tables, gate, to)?;
        let mut known = self.0.borrow_mut();
        known.retain(|(on, _)| *on != to);
        if known.len() >= COUNT {
            // Only a guest's kernel that rewrites the page gets here.
            known.clear();
        }
        known.push((to, slot));
        Some(slot)
    }

    fn look(tables: &Tables<'_, dyn Memory + '_>, gate: Gate, to: On) -> Option<u64> {
        let mut bytes = [0; PAGE as usize - SLOTS as usize];
        tables.read(gate.address.wrapping_add(SLOTS), &mut bytes).ok()?;
        let slots = || bytes.chunks_exact(SLOT);
        let place = slots().position(|slot| parse(slot) == Some(to));
        let at = |place: usize| gate.address.wrapping_add(SLOTS + (place * SLOT) as u64);
        if let Some(place) = place {
            return Some(at(place));
        }
        let slot = at(slots().position(|slot| slot == [0; SLOT])?);
        tables.write_through(slot, &code(to)).ok()?;
        Some(slot)
    }
}
