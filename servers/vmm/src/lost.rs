//! Pages of the guest's RAM that its manager does not have any more: what the guest's accesses to them come to, and
//! what the manager is told about them.
use crate::end::End;
use crate::monitor::Monitor;
use abi::vcpu::{ExitMessage, VcpuState};
use abi::{Error, PAGE_SIZE};
use backing::losses::Request;
use memory::Memory;
use platform::code;
use platform::lost::{LostAccess, Outcome};
use rt::sys;

/// How often the manager is asked to lose a page while a request of its disk for that page is under way. Each time the page
/// was touched before, and so is there.
const MOST_TRIES: u32 = 8;

impl Monitor {
    /// The guest accessed its RAM where the manager has nothing for it.
    pub fn lost_access(&mut self, message: &ExitMessage, state: &mut VcpuState) {
        let access = LostAccess::of(message.info1, message.info2);
        if !self.ram.is_lost(access.address) {
            self.end(&End::MemoryFull);
            return;
        }
        // A program's instruction makes no difference.
        let (bytes, length) =
            if state.cpl == 0 { code::bytes(&self.ram, state) } else { Default::default() };
        let (ram, rip) = (self.ram, state.rip);
        let is_lost = |address| ram.is_lost(address);
        let bytes = bytes.get(..length).unwrap_or(&[]);
        let done = match self.lost.access(access, bytes, state, &ram, is_lost) {
            Outcome::Done => Ok(()),
            Outcome::Whole(page, contents) => self.whole(page, &contents[..]),
            Outcome::Spread(page) => self.lose(page),
            Outcome::Raised => {
                let who = if state.cpl == 0 { "its kernel, for a program," } else { "a program" };
                let page = access.address & !(PAGE_SIZE - 1);
                self.report(format_args!(
                    "{who} at {rip:#x} needs the page at {page:#x}, which is lost: error"
                ));
                Ok(())
            }
            Outcome::Fatal => Err(Error::Gone),
        };
        if done.is_err() {
            let address = access.address;
            self.report(format_args!("its kernel needs {address:#x}, which is lost, at {rip:#x}"));
            self.end(&End::MemoryLost);
        }
    }

    /// All of a page has been written anew.
    fn whole(&self, page: u64, contents: &[u8]) -> Result<(), Error> {
        self.tell(Request::Whole { page: (page / PAGE_SIZE) as u32 })?;
        self.ram.write(page, contents).map_err(|_| Error::BadAddress)
    }

    /// What is in a page was to come from a lost one.
    fn lose(&self, page: u64) -> Result<(), Error> {
        let request = Request::Lose { page: (page / PAGE_SIZE) as u32 };
        let mut done = Err(Error::BadState);
        for _ in 0..MOST_TRIES {
            if self.ram.is_lost(page) || done != Err(Error::BadState) {
                break;
            }
            self.ram.write(page, &[0]).map_err(|_| Error::BadAddress)?;
            done = self.tell(request);
        }
        if self.ram.is_lost(page) { Ok(()) } else { done }
    }

    fn tell(&self, request: Request) -> Result<(), Error> {
        let keeper = self.keeper.ok_or(Error::BadCapability)?;
        sys::call(keeper, request.encode()).map(|_| ())
    }

    /// Ends the VM if a device, or the monitor itself, has needed memory that is lost: it is the guest kernel's. True if so.
    pub fn needed_lost_memory(&mut self) -> bool {
        let needed = !self.ended && self.ram.refused() != 0;
        if needed {
            self.end(&End::MemoryLost);
        }
        needed
    }
}
