//! Kernel calls: numbers, registers and small argument types.
//!
//! # Register convention
//! `rax` holds the [`CallNumber`]; arguments 0..=9 travel in
//! `rdi, rsi, rdx, r10, r8, r9, r12, r13, r14, r15` (`rcx` and `r11` are lost to `SYSCALL`).
//! On return `rax` holds the status (zero or an [`Error`](crate::Error)); results come back in
//! the same registers, first result in `rdi`. Registers that carry no result keep their values.

/// Words in a message.
pub const MESSAGE_WORDS: usize = 8;
/// What a portal call, its reply and a fault carry.
pub type Message = [u64; MESSAGE_WORDS];
/// Deadline argument that means "wait for ever".
pub const NO_DEADLINE: u64 = u64::MAX;
/// Selectors below this one are laid out by the kernel or the creator of the space.
pub const FIRST_FREE_SELECTOR: u32 = 64;
/// One past the highest selector.
pub const SELECTOR_LIMIT: u32 = 4096;

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        /// Number of a kernel call.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u64)]
        pub enum CallNumber {
            $($(#[$doc])* $name = $value,)*
        }

        impl CallNumber {
            /// All calls, in order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Decodes an untrusted number.
            #[must_use]
            pub const fn from_raw(raw: u64) -> Option<Self> {
                match raw {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

calls! {
    /// Does nothing. No arguments.
    Null = 0;
    /// Writes text to the kernel's log. `(pointer, length <= 4096)`.
    Log = 1;
    /// Calls a portal with the caller's time. `(portal, w0..w7)` → `rdi` is undefined, w0..w7 in
    /// `rsi, rdx, r10, r8, r9, r12, r13, r14`. Errors: `BadCapability`, `NoRight`, `WrongCpu`,
    /// `Gone`, and any status that the server replies with.
    Call = 2;
    /// Replies to the call being served, then waits like `Wait`.
    /// `(status, w0..w7, deadline in r15)` → as `Wait`.
    /// When the served call was a fault, the words are a [`FaultReply`](crate::FaultReply) and
    /// the kernel maps before it resumes the faulting thread.
    ReplyWait = 3;
    /// Waits for a portal call, the bound notification, or the deadline.
    /// `(_, _.., deadline in r15)` → `rdi` = event ([`Event::encode`]), w0..w7 in
    /// `rsi, rdx, r10, r8, r9, r12, r13, r14`.
    Wait = 4;
    /// Gives up the rest of the quantum.
    Yield = 5;
    /// Ends the calling thread. `(code)`.
    Exit = 6;
    /// Sets bits of a notification. `(notification, bits)`. From any processor.
    Signal = 7;
    /// Copies a capability out of the caller's table.
    /// `(source selector, destination space, destination selector, ObjRights or MemRights mask)`.
    CapCopy = 8;
    /// Empties a slot of a space's table. `(space or 0 = own, selector)`.
    CapDrop = 9;
    /// `(destination selector, SpaceKind, quota in bytes)`. The quota comes out of the caller's.
    CreateSpace = 10;
    /// `(destination selector, space, cpu, entry, stack top, pointer to nothing or rdi value)`.
    /// The thread does not run before it has a scheduling context, or is called through a portal.
    /// It starts at `entry` with `rsp` = stack top and `rdi` = argument.
    CreateThread = 11;
    /// `(destination selector, handler thread, badge, MemRights or 0 = any)`: regions that are bound to it have
    /// these rights at most.
    CreatePortal = 12;
    /// `(destination selector)`.
    CreateNotification = 13;
    /// `(thread, notification)`: `Wait` of that thread also takes the notification's bits.
    BindNotification = 14;
    /// `(destination selector, thread or vCPU, priority 0..=255, quantum in microseconds)`.
    /// Makes the thread runnable.
    CreateSc = 15;
    /// `(destination selector, guest space, cpu, state page: memory capability, page offset)`.
    CreateVcpu = 16;
    /// `(vcpu, exit class (vcpu::ExitClass), portal)`: who handles those exits.
    VcpuPortal = 17;
    /// `(vcpu)`: makes it leave the guest (or its `blocked` state) with exit class `Recall`.
    VcpuRecall = 18;
    /// `(space, base, length, portal, tag, MemRights, page-size hint as log2: 12, 21, 30)`. In the space of a guest
    /// the hint may be [`REGISTERS`](crate::REGISTERS) too.
    /// Portal selector 0 makes a *pinned* region: only `Map` by the holder of the space fills it.
    /// Errors, beside those of capabilities: `Unaligned`, `WrapsAround`, `BadAddress` (beyond the space's end),
    /// `Overlap`, `NoRight` (more than the portal's), `Cycle`, `Quota`; `BadArgument` for a length of zero, a hint
    /// that is none, and in native spaces for WRITE with EXEC.
    RegionBind = 19;
    /// `(space, base, length)`: removes exactly one region and its mappings.
    RegionUnbind = 20;
    /// `(space, address, memory, offset in memory, length, MemRights)`: maps ahead of faults.
    /// The caller must hold CONTROL on the space (pinned regions), or be the region's manager.
    Map = 21;
    /// `(space, address, length)`: removes mappings inside the caller's regions, on all CPUs.
    Unmap = 22;
    /// `(destination selector, memory, offset, length, MemRights)`: a part, with fewer rights.
    MemDerive = 23;
    /// `(memory)` → `rdi` = physical base, `rsi` = length, `rdx` = MemRights.
    MemInfo = 24;
    /// `(irq control, notification, bits, cpu)` → `rdi` = MSI address, `rsi` = MSI data.
    IrqBind = 25;
    /// `(system control, SystemCounter)` → `rdi` = value.
    SystemCount = 26;
    /// `(thread, vcpu or space with CONTROL)`: ends it and frees what it held. With a space end those that
    /// got their quota from it.
    Destroy = 27;
    /// `(system control, code)`: ends the machine (QEMU's debug-exit port when there is one).
    Shutdown = 28;
    /// `(thread, portal)`: where faults without a region, exceptions and the end of the thread go. A vCPU's fault that is
    /// not resolved in time is told there too, though the vCPU does not end of it.
    FaultPortal = 29;
    /// `(space with CONTROL or 0 = own)` → quota left in bytes in `rdi`.
    SpaceQuota = 30;
    /// `(space with CONTROL or 0 = own, address)` → the region that the address lies in, or else the next one
    /// above, as [`RegionInfo`](crate::RegionInfo) in `rdi, rsi, rdx, r10`. Whoever goes on at each region's
    /// end sees all, one after the other, also while others come and go. `NoRegion` past the last.
    RegionList = 31;
    /// `(system control, cpu, mask)`: sets the trace mask; see [`crate::trace`].
    TraceMask = 32;
    /// `(space or 0 = own, base, length, address or 0)`: the manager of exactly this region names a
    /// range of its own space, inside one pinned region, as the region's *window*. A fault on a page
    /// that is mapped there, with the right that the access needs, is resolved by the kernel
    /// without running the manager; any other one goes to the manager. What is unmapped or loses
    /// rights there, is unmapped in the region. Changing or removing (0) the window empties the
    /// region. Errors: `NoRegion`, `BadArgument` (not pinned), `BadAddress`, `Quota`.
    RegionWindow = 33;
    /// `(space or 0 = own, base, length, address, tag)`: divides exactly this region in two at a page
    /// inside; the upper part gets the tag. What is mapped stays; a window is divided alike, and the
    /// region's space pays for the second one. `Quota` also where a large page has to be divided.
    RegionSplit = 34;
    /// `(space or 0 = own, base, length, new base)`: moves exactly this region; what is mapped in it
    /// is removed. It keeps its window. Windows that lie in it move along, those that lie in it in part only
    /// (for it was divided) end. `Overlap`.
    RegionMove = 35;
    /// `(space or 0 = own, base, length, MemRights)`: changes the rights of exactly this region. When
    /// any are taken away, what is mapped in it is removed. `NoRight` for more than its manager's portal has.
    RegionRights = 36;
    /// No arguments. Faults that this thread has answered with [`FaultReply::Later`](crate::FaultReply)
    /// are tried again: their threads go on, and fault anew if nothing has changed.
    FaultRetry = 37;
    /// `(space or 0 = own, address, length: 1 to 64 pages)` → `rdi` = a bit for each page, from bit 0 on,
    /// that was used since it was mapped or last asked about. For the manager of the region, as
    /// `Unmap`. A hint: a processor that still remembers a translation of a native space need not
    /// mark it again, and every page of a large one counts as used. Errors: `NoRegion`, `BadArgument`.
    PagesUsed = 38;
    /// `(space or 0 = own, base, length, portal, tag)`: gives exactly this region another manager, or
    /// with portal 0 none. What is mapped in it is removed, and so is its window. Threads that wait for
    /// the old manager's answer about it make their access again. Errors as `RegionBind` and
    /// `RegionUnbind`.
    RegionManager = 39;
    /// `(space or 0 = own, microseconds or 0 = for ever)`: how long a fault of its threads may remain
    /// unresolved. Then the thread ends with a report (for a vCPU: exit class `Error` to its monitor),
    /// and what its manager answers later goes nowhere. When its manager ends, a fault waits as long
    /// for another one (`RegionManager`); without a limit the thread ends with its manager.
    FaultLimit = 40;
    /// `(space or 0 = own, portal, its successor or 0 = none)` → `rdi` = how many, at most 64: gives regions that
    /// name the first portal, wherever they are by now, the second one's manager instead, as `RegionManager`, but with their
    /// tags. Whoever calls until there are fewer has reached all. Where each region's window was, the new manager
    /// learns by its faults ([`FaultMessage::lost`](crate::FaultMessage)). Errors: as `RegionManager`;
    /// `NoRight` when the first portal's regions may have more rights than the second one's.
    RegionsPass = 41;
}

/// Kind of a space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum SpaceKind {
    /// Ring-3 programs.
    Native = 0,
    /// The physical memory of a VM (nested paging).
    Guest = 1,
}

/// What woke a `Wait`. Encoded in one word: kind in bits 0..8, badge or zero in bits 8..64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The deadline passed.
    Timeout,
    /// Bits of the bound notification; the bits are in w0.
    Notification,
    /// A call through a portal with this badge (56 bits); the words are the caller's.
    Call(u64),
    /// A page fault through a portal with this badge; the words are a `FaultMessage`.
    Fault(u64),
    /// A VM exit through a portal with this badge; the words are an `ExitMessage`.
    Exit(u64),
    /// A thread whose fault portal this is ended; the words are a
    /// [`ThreadEnd`](crate::ThreadEnd): w0 = code of the cause, w1 = IP, w2 = detail.
    ThreadEnd(u64),
}

impl Event {
    /// The event as a word.
    #[must_use]
    pub const fn encode(self) -> u64 {
        match self {
            Event::Timeout => 0,
            Event::Notification => 1,
            Event::Call(b) => 2 | b << 8,
            Event::Fault(b) => 3 | b << 8,
            Event::Exit(b) => 4 | b << 8,
            Event::ThreadEnd(b) => 5 | b << 8,
        }
    }

    /// The event that a word stands for; `None` for an unknown kind.
    #[must_use]
    pub const fn decode(word: u64) -> Option<Self> {
        let badge = word >> 8;
        Some(match word & 0xff {
            0 => Event::Timeout,
            1 => Event::Notification,
            2 => Event::Call(badge),
            3 => Event::Fault(badge),
            4 => Event::Exit(badge),
            5 => Event::ThreadEnd(badge),
            _ => return None,
        })
    }
}

/// What `SystemCount` can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum SystemCounter {
    /// Kernel objects of all kinds that exist now.
    Objects = 0,
    /// Bytes of kernel memory in use now.
    KernelBytes = 1,
    /// Kernel entries since boot, all CPUs.
    Entries = 2,
    /// Thread switches since boot.
    ThreadSwitches = 3,
    /// Address-space switches since boot.
    SpaceSwitches = 4,
    /// VM exits since boot.
    VmExits = 5,
    /// Page faults sent to managers since boot.
    Faults = 6,
    /// Faults that their manager refused, or answered by something that can't be carried out.
    FaultsRefused = 7,
    /// Faults that were not resolved in time.
    FaultsLate = 8,
}

/// Arguments of `CreateThread` as the runtime keeps them together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ThreadArgs {
    /// First instruction.
    pub entry: u64,
    /// Initial stack pointer.
    pub stack: u64,
    /// Initial `rdi`.
    pub argument: u64,
}
