//! The state page of a vCPU.
use crate::Shared;
use abi::vcpu::VcpuState;
use memory::Memory;

/// A vCPU's state page, mapped in this program.
#[derive(Clone, Copy, Debug)]
pub struct VcpuPage {
    base: u64,
}

impl VcpuPage {
    /// The region of that name in the configuration; `None` when it is missing or too short.
    #[must_use]
    pub fn region(name: &str) -> Option<Self> {
        let shared = Shared::region(name)?;
        let base = crate::config().region(name)?.address;
        (shared.len() >= size_of::<VcpuState>() as u64 && base.is_multiple_of(8))
            .then_some(Self { base })
    }

    /// A page of the own space that the program bound itself (tests).
    ///
    /// # Panics
    /// When it is not inside one region of the program.
    #[must_use]
    pub fn own(base: u64) -> Self {
        assert!(base.is_multiple_of(8), "{base:#x} is misaligned");
        let _ = Shared::own(base, size_of::<VcpuState>() as u64);
        Self { base }
    }

    /// Works on the state. Meant for the time between an exit that this program handles and its
    /// reply: only then the kernel and the other handlers leave the page alone.
    pub fn with<R>(&mut self, work: impl FnOnce(&mut VcpuState) -> R) -> R {
        // SAFETY: the page is mapped and long enough (checked above), every bit pattern is a
        // valid `VcpuState`, and the exit protocol gives the page to one handler at a time.
        work(unsafe { &mut *(self.base as *mut VcpuState) })
    }
}
