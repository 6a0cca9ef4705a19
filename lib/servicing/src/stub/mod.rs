//! The interception form *stub*: a few instructions of the hypervisor in front of the guest's own
//! entry of system calls. They let pass what cannot concern anything remote, and exit with all else.
//! `doc/decisions/stub.md` says why it is so, and what a hostile guest gains from it: nothing.
mod code;
pub mod layout;
mod look;
mod tables;

#[cfg(test)]
pub use code::generate;
#[cfg(test)]
pub use look::Look;

use crate::core::Core;
use crate::cpu::{self, Saved};
use crate::world::Window;
use abi::vcpu::{VcpuState, reg};
use memory::Memory;
use tables::Tables;

/// Entry of a page directory: present, writable (the nested tables say what may be written),
/// accessed, dirty, a 2 MiB page, global; of the kernel.
const ENTRY_FLAGS: u64 = 1 | 1 << 1 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8;
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
/// Bits 12..=51: physical address of a table.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Bits 21..=29 of an address choose an entry of a page directory.
const DIRECTORY_SHIFT: u32 = 21;
/// Flags that the stub must not run with: single steps and interrupts.
const MASKED: u64 = 1 << 8 | 1 << 9;
/// Entries of a page directory.
const DIRECTORY_ENTRIES: u64 = 512;

/// Where the stub is installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Installed {
    /// Address of the window.
    address: u64,
    /// Guest-physical place of the page-directory entry that maps it.
    entry_at: u64,
    /// Address of the stub's `VMMCALL`.
    exit: u64,
    /// The guest's own entry.
    lstar: u64,
    /// The guest's own mask of flags.
    sfmask: u64,
}

impl Installed {
    /// The entry of the page directory is still as it was written.
    fn is_mapped(&self, core: &Core, window: &Window<'_>) -> bool {
        core.world.compute().read64(self.entry_at) == Ok(window.at | ENTRY_FLAGS)
    }
}

/// The stub of the compute VM's processor.
#[derive(Default)]
pub struct Stub {
    installed: Option<Installed>,
    tables: Tables,
    /// It was said that there can be none.
    said: bool,
}

impl Stub {
    /// At an exit: puts the guest's own registers back into the state. Answers whether the vCPU
    /// stands at the stub's exit.
    pub fn reveal(&mut self, s: &mut VcpuState) -> bool {
        let Some(installed) = self.installed else { return false };
        if s.lstar != installed.address {
            self.installed = None;
            return false;
        }
        s.lstar = installed.lstar;
        s.sfmask = installed.sfmask;
        s.cpl == 0 && s.rip == installed.exit
    }

    /// Before the vCPU goes on: puts the stub in front of the guest's entry. False when there can be
    /// none. `user`: the vCPU stands (or has just been) in a program, so that its page tables are those
    /// that a call enters with.
    pub fn install(&mut self, core: &Core, s: &mut VcpuState, user: bool) -> bool {
        let Some(window) = core.world.window() else { return self.impossible(core, "no window") };
        let memory = core.world.compute();
        let holds = |i: &Installed| i.lstar == s.lstar && i.is_mapped(core, &window);
        let mut found = self.installed.filter(holds);
        if found.is_none() {
            if !user {
                self.installed = None;
                return false;
            }
            found = place(&window, memory, s);
        }
        let Some(installed) = found else {
            self.installed = None;
            return self.impossible(core, "no place beside the guest's entry");
        };
        self.tables.update(core, &window, crate::space::root(s.cr3));
        self.installed = Some(Installed { sfmask: s.sfmask, ..installed });
        s.lstar = installed.address;
        s.sfmask |= MASKED;
        s.intercept_syscall_msrs = 1;
        true
    }

    /// True when the vCPU stands at the stub's exit, and the stub is where it was put.
    pub fn is_called(&self, core: &Core, s: &VcpuState) -> bool {
        let (Some(i), Some(window)) = (self.installed, core.world.window()) else { return false };
        s.cpl == 0 && s.rip == i.exit && s.lstar == i.address && i.is_mapped(core, &window)
    }

    /// Carries out the `SYSCALL` at which the vCPU stands past the stub; the guest's kernel will
    /// return to `back`.
    pub fn pass(&self, s: &mut VcpuState, back: u64) {
        let Some(installed) = self.installed else { return };
        let (lstar, sfmask) = (s.lstar, s.sfmask);
        (s.lstar, s.sfmask) = (installed.lstar, installed.sfmask);
        cpu::syscall(s, back);
        (s.lstar, s.sfmask) = (lstar, sfmask);
    }

    fn impossible(&mut self, core: &Core, why: &str) -> bool {
        if !core::mem::replace(&mut self.said, true) {
            core.world.log(format_args!("no stub ({why}): the form is now 'watched'"));
        }
        false
    }

    /// Leaves the guest's own entry in place.
    pub fn remove(&mut self, s: &mut VcpuState) {
        self.installed = None;
        s.intercept_syscall_msrs = 0;
    }
}

/// Writes the code, and maps the window through an entry of the page directory that maps the guest's
/// own entry: its neighbours are in every address space, as it is.
fn place(window: &Window<'_>, memory: &dyn Memory, s: &VcpuState) -> Option<Installed> {
    let directory = directory(memory, s.cr3, s.lstar)?;
    let own = s.lstar >> DIRECTORY_SHIFT & (DIRECTORY_ENTRIES - 1);
    let ours = window.at | ENTRY_FLAGS;
    let entry = |n: u64| memory.read64(directory + n * 8).ok();
    let mut places = (0..DIRECTORY_ENTRIES).rev().filter(|n| *n != own);
    let number = places
        .clone()
        .find(|n| entry(*n) == Some(ours))
        .or_else(|| places.find(|n| entry(*n) == Some(0)))?;
    let span = DIRECTORY_ENTRIES << DIRECTORY_SHIFT;
    let address = s.lstar & !(span - 1) | number << DIRECTORY_SHIFT;
    let code = code::generate(address, s.lstar)?;
    window.code.write(layout::CODE, &code.bytes).ok()?;
    let entry_at = directory + number * 8;
    memory.write(entry_at, &ours.to_le_bytes()).ok()?;
    let exit = address + code.exit;
    Some(Installed { address, entry_at, exit, lstar: s.lstar, sfmask: s.sfmask })
}

/// The page directory that maps an address.
fn directory(memory: &dyn Memory, cr3: u64, address: u64) -> Option<u64> {
    let mut table = cr3 & ADDRESS;
    for shift in [39, 30] {
        let entry = memory.read64(table + (address >> shift & 511) * 8).ok()?;
        if entry & PRESENT == 0 || shift == 30 && entry & LARGE != 0 {
            return None;
        }
        table = entry & ADDRESS;
    }
    Some(table)
}

/// The registers that a program had at the call that led to the stub's exit.
pub fn at_call(s: &VcpuState) -> Saved {
    let [rcx, r11] = [reg::RCX, reg::R11].map(|n| s.regs.r[n]);
    let rip = rcx.wrapping_sub(cpu::SYSCALL_LENGTH);
    Saved { regs: s.regs, rip, rflags: cpu::flags_after_sysret(r11) }
}

/// Puts a vCPU that stands at the stub's exit back at the program's `SYSCALL`. RCX and R11 are what
/// `SYSCALL` made of them, as they will be behind the call.
pub fn back_to_call(s: &mut VcpuState) {
    cpu::sysret(s, true);
    s.rip = s.rip.wrapping_sub(cpu::SYSCALL_LENGTH);
}
