//! A `select` that is made once more: a loop over both sides whose remote half stays out makes the same
//! call from the same place again and again. What the relay knows decides about a call, and what stands
//! in registers and memory. So where nothing at all has reached the relay since the last such call (any
//! other exit, record or answer makes it forget that one), the registers are the same, and memory is
//! looked at again, the outcome is the same, and can be had in a tenth of the instructions.
use super::Engine;
use crate::code;
use crate::core::Core;
use crate::cpu::{self, FS, SYSCALL_LENGTH, Saved};
use crate::gate::{self, On, RETURN};
use crate::space::{Alone, Space, root};
use crate::stub;
use crate::table::Table;
use crate::world::{Kind, add};
use abi::vcpu::{ExitClass, VcpuState};
use alloc::rc::Rc;
use memory::Memory;
use paging::{Access, Space as Tables};

/// The call that was handled last.
pub(super) struct Last {
    space: Rc<Space>,
    table: Rc<Table>,
    /// Guest-physical address of its `SYSCALL`.
    code: u64,
}

/// Most bytes of a set.
const SET: usize = 128;

impl Engine {
    /// Handles the exit if it is the call that was handled last, made once more. False: it is not, or
    /// something has happened since; nothing has changed then.
    pub fn again(&mut self, s: &mut VcpuState, class: u64) -> bool {
        let last = self.last.as_ref().filter(|_| class == ExitClass::Vmmcall as u64);
        let Some(last) = last else { return false };
        let Some(saved) = self.same(last, s) else { return false };
        let Some((slot, call)) = last.space.repeat_alone(&saved) else { return false };
        let core = &self.core;
        last.space.last_alone(|left| leave_local(&last.space.tables(core), left));
        if let Some(counter) = core.counters.exits.borrow_mut().get_mut(ExitClass::Vmmcall as usize)
        {
            *counter += 1;
        }
        core.counters.call(call.number, Kind::Both);
        add(&core.counters.helpers, 1);
        add(&core.counters.repeated, 1);
        stub::back_to_call(s);
        cpu::load_call(s, call.number, call.arguments);
        s.rip = slot;
        self.stub.pass(s, slot.wrapping_add(RETURN));
        true
    }

    /// After a call that may end by itself: notes it, where repeating it depends on nothing else.
    pub(super) fn note_last(&mut self, space: &Rc<Space>, saved: &Saved, fs: u64) {
        let plain = space.last_alone(Alone::is_plain).unwrap_or(false);
        let expected = !self.core.execs.borrow().is_empty();
        self.last = (plain && !expected)
            .then(|| code_at(&self.core, space, saved.rip))
            .flatten()
            .map(|code| Last { space: space.clone(), table: space.table_of(fs), code });
    }

    /// All that the last call depended on is as it was.
    fn same(&self, last: &Last, s: &VcpuState) -> Option<Saved> {
        let (core, space) = (&*self.core, &*last.space);
        if !self.stub.is_called(core, s) || root(s.cr3) != space.cr3 || core.verbose.get() {
            return None;
        }
        let saved = stub::at_call(s);
        let tables = space.tables(core);
        let delegate = last.table.delegate.borrow().clone()?;
        let is_same = space.last_alone(|left| {
            left.fs == s.segments[FS].base
                && left.saved.is_same_call(&saved)
                && code_at(core, space, saved.rip) == Some(last.code)
                && gate_and_slot(core, space, &tables, left)
                && sets(left).all(|(at, asked, _)| holds(&tables, at, asked))
                && last.table.standing.is_out(&left.remote, &delegate, &core.wakes)
        })?;
        is_same.then_some(saved)
    }
}

/// Where the `SYSCALL` at which a program stands lies in the guest's memory, if it can be nothing else:
/// in a page of the root image, which nobody can write to; or, where code is not verified, anywhere.
fn code_at(core: &Core, space: &Space, rip: u64) -> Option<u64> {
    let tables = space.tables(core);
    let found = tables.find(rip, Access::Execute).ok()?;
    let mut bytes = [0; SYSCALL_LENGTH as usize];
    core.world.compute().read(found.physical, &mut bytes).ok()?;
    let inside = found.left >= SYSCALL_LENGTH && bytes == [0x0f, 0x05];
    let image = core.world.image().contains(&found.physical);
    let sound =
        !code::is_verified(core, space) || image && tables.find(rip, Access::Write).is_err();
    (inside && sound).then_some(found.physical)
}

/// The gate is the process's, and its slot says what it said.
fn gate_and_slot(
    core: &Core,
    space: &Space,
    tables: &Tables<'_, dyn Memory + '_>,
    left: &Alone,
) -> bool {
    let Some(gate) = space.gate.get() else { return false };
    let rip = left.saved.rip.wrapping_add(SYSCALL_LENGTH);
    let [.., time, _] = left.saved.arguments();
    gate::is_in(core, space.cr3, gate) && gate::on(tables, left.slot) == Some(On { rip, r8: time })
}

/// The program's sets: where they are, what they held, and what is local of that.
fn sets(left: &Alone) -> impl Iterator<Item = (u64, &[u8], &[u8])> {
    let [_, read, write, except, ..] = left.saved.arguments();
    let places = [read, write, except].into_iter();
    let sets = left.question.sets().iter().zip(&left.local);
    let all = places.zip(sets).map(|(at, (asked, local))| (at, &asked[..], &local[..]));
    all.filter(|(at, ..)| *at != 0)
}

/// A set holds what it held, and can be written to.
fn holds(tables: &Tables<'_, dyn Memory + '_>, at: u64, asked: &[u8]) -> bool {
    let mut bytes = [0; SET];
    let Some(bytes) = bytes.get_mut(..asked.len()) else { return false };
    tables.read(at, bytes).is_ok()
        && *bytes == *asked
        && tables.probe(at, asked.len(), Access::Write).is_ok()
}

/// Leaves what is local in the sets. Their pages have been found before.
fn leave_local(tables: &Tables<'_, dyn Memory + '_>, left: &Alone) {
    for (at, asked, local) in sets(left) {
        if asked != local {
            let _ = tables.write(at, local);
        }
    }
}
