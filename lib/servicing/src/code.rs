//! A program is what its code is: all that a process can execute has to be pages of the root image, of
//! files that its program may consist of. `doc/decisions/identity.md` says why, and what else there is.
use crate::core::Core;
use crate::gate::Gate;
use crate::space::Space;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt::{self, Display, Formatter};
use core::ops::ControlFlow;
use linux_abi::Errno;
use paging::{Access, Executable, PAGE, Space as Tables, Unwalked};
use policy::Program;

/// Most pages of a vDSO; Linux 6.1 has two.
const VDSO_PAGES: u64 = 8;

type Page = [u8; PAGE as usize];

/// The vDSO: where its pages are in the guest's memory, and what they held before any program
/// of the root image ran.
#[derive(Debug)]
pub struct Vdso(Vec<(u64, Box<Page>)>);

impl Vdso {
    /// Copies the one that is mapped at `address`, `pages` pages long.
    ///
    /// # Errors
    /// `EINVAL` for what cannot be one, `EFAULT` for pages that are not there, can't be executed, or
    /// can be written to.
    pub fn copy(core: &Core, cr3: u64, address: u64, pages: u64) -> Result<Self, Errno> {
        if !address.is_multiple_of(PAGE) || !(1..=VDSO_PAGES).contains(&pages) {
            return Err(Errno::EINVAL);
        }
        let memory = core.world.compute();
        let tables = Tables::running(memory, cr3);
        let one = |n: u64| {
            let at = address.checked_add(n * PAGE).ok_or(Errno::EINVAL)?;
            let found = tables.find(at, Access::Execute).map_err(|_| Errno::EFAULT)?;
            if tables.find(at, Access::Write).is_ok() {
                return Err(Errno::EFAULT);
            }
            let page = copy(core, found.physical).ok_or(Errno::EFAULT)?;
            Ok((found.physical, page))
        };
        Ok(Self((0..pages).map(one).collect::<Result<_, _>>()?))
    }

    fn holds(&self, core: &Core, physical: u64) -> bool {
        let known = self.0.iter().find(|(at, _)| *at == physical);
        known.is_some_and(|(_, page)| copy(core, physical).is_some_and(|now| now == *page))
    }
}

fn copy(core: &Core, physical: u64) -> Option<Box<Page>> {
    let mut page = Box::new([0; PAGE as usize]);
    core.world.compute().read(physical, &mut page[..]).ok().map(|()| page)
}

/// What is wrong with a process's code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// It can be written to.
    Writable,
    /// It is memory of the VM, not of the root image.
    Memory,
    /// It is a page of the root image that this program has no business with.
    OtherFile,
    /// It is not there at all, or cannot be executed.
    Absent,
    /// The program's own file is not among the code.
    NoProgram,
    /// The page tables make no sense.
    Tables,
}

/// What is wrong with a process's code, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flaw {
    /// First address of the page.
    pub address: u64,
    /// Guest-physical address of the page.
    pub physical: u64,
    /// What is wrong with it.
    pub why: Why,
}

impl Display for Flaw {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { address, physical, why } = self;
        match why {
            Why::Writable => write!(f, "code at {address:#x} can be written to"),
            Why::Memory => write!(
                f,
                "code at {address:#x} is not from the root image, but from memory ({physical:#x})"
            ),
            Why::OtherFile => write!(
                f,
                "code at {address:#x} is from a file that is not the program's (page {physical:#x})"
            ),
            Why::Absent => write!(f, "there is no code at {address:#x}"),
            Why::NoProgram => f.write_str("no code of the program's own file is there"),
            Why::Tables => write!(f, "the page tables make no sense at {address:#x}"),
        }
    }
}

struct Judge<'j> {
    core: &'j Core,
    program: &'j Program,
    gate: Option<Gate>,
}

impl<'j> Judge<'j> {
    /// `None` where nothing has to be verified.
    fn of(core: &'j Core, space: &Space) -> Option<Self> {
        let program = core.policy.programs.get(space.program?)?;
        program.code.verify.then(|| Self { core, program, gate: space.gate.get() })
    }

    /// Answers whether the page is of the program's own file.
    fn page(&self, page: &Executable) -> Result<bool, Why> {
        let image = self.core.world.image();
        if image.contains(&page.physical) {
            if page.writable {
                return Err(Why::Writable);
            }
            let first = (page.physical - image.start) / PAGE;
            let mut pages = first..first + page.length / PAGE;
            let code = |n| self.core.policy.is_code_of(self.program, n);
            return if pages.all(code) {
                Ok(self.program.code.is_own(first))
            } else {
                Err(Why::OtherFile)
            };
        }
        if self.program.code.jit {
            return Ok(false);
        }
        if page.writable {
            return Err(Why::Writable);
        }
        let known = page.length == PAGE && (self.is_gate(page) || self.is_vdso(page.physical));
        if known { Ok(false) } else { Err(Why::Memory) }
    }

    /// True when the page at `rip` is of a file that is named for this program, as its loader is.
    fn is_named(&self, space: &Space, rip: u64) -> bool {
        let image = self.core.world.image();
        let found =
            Tables::running(self.core.world.compute(), space.cr3).find(rip, Access::Execute);
        let inside = found.ok().and_then(|f| f.physical.checked_sub(image.start));
        inside.is_some_and(|inside| self.program.code.may_hold(inside / PAGE))
    }

    /// The gate's frame may change (the kernel moves pages to make room); what it holds, nobody can
    /// guess.
    fn is_gate(&self, page: &Executable) -> bool {
        let Some(gate) = self.gate.filter(|g| g.address == page.address) else { return false };
        copy(self.core, page.physical).is_some_and(|now| gate.is_page(&now[..]))
    }

    fn is_vdso(&self, physical: u64) -> bool {
        let vdso = self.core.vdso.borrow();
        vdso.as_ref().is_some_and(|vdso| vdso.holds(self.core, physical))
    }
}

/// Looks at all that a process can execute now, when it makes a call at `rip`. Where its loader calls,
/// code of its own file need not be there yet.
///
/// # Errors
/// The first flaw.
pub fn check(core: &Core, space: &Space, rip: u64) -> Result<(), Flaw> {
    let Some(judge) = Judge::of(core, space) else { return Ok(()) };
    let mut own = false;
    let walked = space.tables(core).executable(|page| match judge.page(&page) {
        Ok(is_own) => {
            own |= is_own;
            ControlFlow::Continue(())
        }
        Err(why) => {
            ControlFlow::Break(Flaw { address: page.address, physical: page.physical, why })
        }
    });
    let flaw = |address, why| Err(Flaw { address, physical: 0, why });
    match walked {
        Ok(()) if own || judge.is_named(space, rip) => Ok(()),
        Ok(()) => flaw(0, Why::NoProgram),
        Err(Unwalked::Broken(flaw)) => Err(flaw),
        Err(Unwalked::Bad(address)) => flaw(address, Why::Tables),
        Err(Unwalked::Endless) => flaw(0, Why::Tables),
    }
}

/// True where what a process can execute has to be its program's.
pub fn is_verified(core: &Core, space: &Space) -> bool {
    Judge::of(core, space).is_some()
}

/// Looks at the page from which a call was made.
///
/// # Errors
/// The flaw.
pub fn check_at(core: &Core, space: &Space, rip: u64) -> Result<(), Flaw> {
    let Some(judge) = Judge::of(core, space) else { return Ok(()) };
    let address = rip & !(PAGE - 1);
    let tables = Tables::running(core.world.compute(), space.cr3);
    let Ok(found) = tables.find(address, Access::Execute) else {
        return Err(Flaw { address, physical: 0, why: Why::Absent });
    };
    let physical = found.physical;
    let writable = tables.find(address, Access::Write).is_ok();
    let page = Executable { address, physical, length: PAGE, writable };
    judge.page(&page).map(drop).map_err(|why| Flaw { address, physical, why })
}
