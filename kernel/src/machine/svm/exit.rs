//! Exit codes (AMD APM volume 2, appendix C) and what they mean to the kernel.
use super::vmcb::ALWAYS_EXCEPTIONS;
use abi::vcpu::ExitClass;
use abi::{Access, GuestPhys};

/// EXITCODE values.
pub mod code {
    /// Write of CR3.
    pub const WRITE_CR3: u64 = 0x013;
    /// Exception 0; the others follow by vector.
    pub const EXCEPTION: u64 = 0x040;
    /// `#UD`.
    pub const INVALID_OPCODE: u64 = EXCEPTION + 6;
    /// Physical interrupt.
    pub const INTR: u64 = 0x060;
    /// Physical NMI.
    pub const NMI: u64 = 0x061;
    /// System-management interrupt.
    pub const SMI: u64 = 0x062;
    /// INIT.
    pub const INIT: u64 = 0x063;
    /// The guest can take a virtual interrupt.
    pub const VINTR: u64 = 0x064;
    /// CPUID.
    pub const CPUID: u64 = 0x072;
    /// IRET.
    pub const IRET: u64 = 0x074;
    /// HLT.
    pub const HLT: u64 = 0x078;
    /// IN, OUT and their string forms.
    pub const IOIO: u64 = 0x07b;
    /// RDMSR, WRMSR; EXITINFO1 = 1 for a write.
    pub const MSR: u64 = 0x07c;
    /// VMMCALL.
    pub const VMMCALL: u64 = 0x081;
    /// Nested page fault; EXITINFO1 = error code, EXITINFO2 = guest-physical address.
    pub const NESTED_FAULT: u64 = 0x400;
}

/// An exit as the processor reported it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RawExit {
    /// EXITCODE.
    pub code: u64,
    /// EXITINFO1.
    pub info1: u64,
    /// EXITINFO2.
    pub info2: u64,
    /// EXITINTINFO.
    pub int_info: u64,
}

/// What the kernel has to do about an exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// An interrupt (or NMI) for the host may be pending; the guest just goes on after it.
    Host,
    /// The guest touched memory that is not mapped (or not with that right).
    NestedFault {
        /// The address.
        address: GuestPhys,
        /// The access.
        access: Access,
    },
    /// For the portal of that class.
    Portal(ExitClass),
}

impl RawExit {
    /// What it means. `syscall_msr`: it is an intercepted access to a register of the system-call
    /// entry; `asked`: exceptions that a manager wants to see.
    #[must_use]
    pub fn route(self, syscall_msr: bool, asked: u32) -> Route {
        match self.code {
            _ if self.own_exception(asked).is_some() => Route::Host,
            code::INTR | code::NMI | code::SMI | code::INIT => Route::Host,
            code::NESTED_FAULT => {
                Route::NestedFault { address: GuestPhys(self.info2), access: self.access() }
            }
            code::MSR if syscall_msr => Route::Portal(ExitClass::SyscallMsr),
            _ => Route::Portal(self.class()),
        }
    }

    /// True for an intercepted RDMSR or WRMSR.
    pub fn is_msr(self) -> bool {
        self.code == code::MSR
    }

    /// The vector of an exception that is intercepted always, unless a manager `asked` for it.
    pub fn own_exception(self, asked: u32) -> Option<u32> {
        let vector = u32::try_from(self.code.checked_sub(code::EXCEPTION)?).ok()?;
        let own = ALWAYS_EXCEPTIONS & !asked;
        (vector < 32 && own & 1 << vector != 0).then_some(vector)
    }

    /// VMRUN refused the state: VMEXIT_INVALID, -1, of which QEMU reports 32 bits.
    pub fn is_invalid(self) -> bool {
        self.code as u32 == u32::MAX
    }

    /// The access of a nested fault (page-fault error code in EXITINFO1).
    fn access(self) -> Access {
        match (self.info1 & 1 << 1 != 0, self.info1 & 1 << 4 != 0) {
            (true, _) => Access::Write,
            (false, true) => Access::Execute,
            (false, false) => Access::Read,
        }
    }

    fn class(self) -> ExitClass {
        match self.code {
            code::INVALID_OPCODE => ExitClass::InvalidOpcode,
            code::VMMCALL => ExitClass::Vmmcall,
            code::WRITE_CR3 => ExitClass::Cr3Write,
            code::IRET => ExitClass::Iret,
            code::HLT => ExitClass::Halt,
            code::IOIO => ExitClass::Io,
            code::CPUID => ExitClass::Cpuid,
            code::VINTR => ExitClass::InterruptWindow,
            code::MSR => ExitClass::Msr,
            _ if self.is_invalid() => ExitClass::Error,
            _ => ExitClass::Other,
        }
    }
}
